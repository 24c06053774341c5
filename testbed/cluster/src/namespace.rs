//! The node's own little world: namespaces of processes, mounts and network.
//!
//! Everything of a node runs inside, so killing the first process ends all of it: daemons, container shims and containers, and with the
//! last process the mounts and the network go too. None of it has to be listed or found again.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemill_testbed::Process;
use tidemill_testbed::process::{ProcessBuilder, ProcessError};
use tidemill_testbed::wait::within;

/// The node's address; inside its own network, so each node has the same.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 1);
/// Longest wait for the namespaces: some milliseconds on an idle machine.
const MADE_MAX: Duration = Duration::from_secs(30);

/// The way in, for programs of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Entrance {
    pid: u32,
    folder: PathBuf,
}

impl Entrance {
    /// A program of this machine, to be run inside.
    pub(crate) fn process(&self, program: impl AsRef<OsStr>) -> ProcessBuilder {
        let name = Path::new(program.as_ref()).file_name();
        let name = name.unwrap_or_default().to_string_lossy().into_owned();
        Process::builder("nsenter")
            .args(self.words())
            .arg(program)
            .output_in(&self.folder)
            .name(name)
    }

    /// As [`Entrance::process`], for a program that is soon done.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("nsenter");
        command.args(self.words()).arg(program).kill_on_drop(true);
        command
    }

    // Not `ip netns exec`, which mounts a new /sys and so hides the cgroups.
    fn words(&self) -> [String; 6] {
        let pid = self.pid.to_string();
        ["--target", &pid, "--pid", "--mount", "--net", "--"].map(str::to_owned)
    }

    /// The file that stands for the network.
    pub(crate) fn network(&self) -> PathBuf {
        ["/proc", &self.pid.to_string(), "ns/net"].iter().collect()
    }

    /// Where everything of the node is written.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The first process inside.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }
}

/// The namespaces, until [`Namespace::end`] or the end of this process.
#[derive(Debug)]
pub(crate) struct Namespace {
    entrance: Entrance,
    // Outside, and the parent of the first process, which dies with it.
    keeper: Process,
}

impl Namespace {
    /// Makes the namespaces. `stay` is the program that holds them, `folder` takes what is written inside.
    pub(crate) async fn make(folder: &Path, stay: &Path) -> Result<Namespace, ProcessError> {
        let mut keeper = Process::builder("unshare")
            .args(["--pid", "--mount", "--net", "--fork"])
            .arg("--kill-child=KILL")
            .args(["sh", "-c", include_str!("namespace.sh"), "namespace"])
            .arg(folder)
            .arg(stay)
            .arg(format!("{NODE}/24"))
            .output_in(folder)
            .name("namespace")
            .spawn()?;
        let file = folder.join("pid");
        let made = within(MADE_MAX, async || {
            if let Some(status) = keeper.ended() {
                return Ok(Err(format!("it ended ({status})")));
            }
            let pid = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
            let pid = pid.trim().parse().map_err(|_| format!("pid {pid:?}"))?;
            Ok::<_, String>(Ok(pid))
        })
        .await;
        match made {
            Ok(Ok(pid)) => Ok(Namespace {
                entrance: Entrance {
                    pid,
                    folder: folder.to_owned(),
                },
                keeper,
            }),
            Ok(Err(seen)) | Err(seen) => Err(ProcessError::Late {
                name: "namespace".to_owned(),
                pid: keeper.pid(),
                what: "the node's namespaces".to_owned(),
                cap: MADE_MAX,
                seen: format!("{seen}\n{}", keeper.tails()),
            }),
        }
    }

    /// The way in.
    pub(crate) fn entrance(&self) -> &Entrance {
        &self.entrance
    }

    /// Ends everything inside. The last process is gone when this returns.
    pub(crate) fn end(&mut self) {
        // While the keeper runs, its child's id is nobody else's. The first process of a namespace goes after all the others.
        if self.keeper.ended().is_none() {
            kill(self.entrance.pid);
            gone(self.entrance.pid);
        }
        self.keeper.kill9();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ends what somebody left who died without [`Namespace::end`]. `folder` must be theirs: only a process that has it mounted is touched.
pub(crate) fn end_leftover(folder: &Path) {
    let pid = std::fs::read_to_string(folder.join("pid"));
    let Some(pid) = pid.ok().and_then(|pid| pid.trim().parse().ok()) else {
        return;
    };
    if owns(pid, folder) {
        kill(pid);
        gone(pid);
    }
}

fn owns(pid: u32, folder: &Path) -> bool {
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    mounts.contains(&*folder.join("lib").to_string_lossy())
}

fn kill(pid: u32) {
    use rustix::process::{Pid, Signal, kill_process};
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Waits until a killed process is dead; whether its parent has taken notice doesn't matter.
fn gone(pid: u32) {
    let ends = std::time::Instant::now() + MADE_MAX;
    let dead = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // "pid (name) state …"; a name may hold anything.
        Ok(stat) => stat
            .rsplit(')')
            .next()
            .is_none_or(|rest| rest.starts_with(" Z")),
        Err(_) => true,
    };
    while !dead() && std::time::Instant::now() < ends {
        std::thread::sleep(Duration::from_millis(5));
    }
}
