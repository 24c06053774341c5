//! Any program as a child process: its output in files, signals by pid, and gone when the test is.
//!
//! Each child has a watchdog, a shell that reads from a pipe we hold and kills the child when the pipe ends. So children
//! die when the test process dies in whatever way, SIGKILL included. (`PR_SET_PDEATHSIG` would need `unsafe`, exists on Linux only, and
//! fires when the *thread* that started the child ends, which happens within a test process all the time.)

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::wait::within;

/// How many lines of each output are shown when a test panics.
const TAIL_LINES: usize = 40;

/// What can go wrong with a child process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be started.
    #[error("{name}: can't start {program:?}")]
    Spawn {
        /// Name given to the child.
        name: String,
        /// The program.
        program: OsString,
        /// Why.
        source: std::io::Error,
    },
    /// A file for its output, or its folder, could not be made.
    #[error("{name}: can't make its output files")]
    Output {
        /// Name given to the child.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// A signal could not be sent, or its state not be read.
    #[error("{name} (pid {pid}): {action} failed")]
    Control {
        /// Name given to the child.
        name: String,
        /// Its process id.
        pid: u32,
        /// What was tried.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Something did not come within the cap.
    #[error("{name} (pid {pid}): waited {cap:?} for {what}; {seen}")]
    Late {
        /// Name given to the child.
        name: String,
        /// Its process id.
        pid: u32,
        /// What was awaited.
        what: String,
        /// How long.
        cap: Duration,
        /// Last observation, with the end of its output.
        seen: String,
    },
}

/// A program to start: arguments, environment, folder.
#[derive(Debug)]
pub struct ProcessBuilder {
    name: String,
    command: Command,
    stdin: Option<PathBuf>,
    outputs: PathBuf,
}

impl ProcessBuilder {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the environment; the others are the test's.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Takes a variable out of the environment.
    #[must_use]
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(key);
        self
    }

    /// Sets the working folder; default is the test's.
    #[must_use]
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Reads standard input from a file; default is an empty input.
    #[must_use]
    pub fn stdin_from(mut self, file: impl Into<PathBuf>) -> Self {
        self.stdin = Some(file.into());
        self
    }

    /// Keeps its output below this folder; default is the machine's folder for temporary files.
    #[must_use]
    pub fn output_in(mut self, folder: impl Into<PathBuf>) -> Self {
        self.outputs = folder.into();
        self
    }

    /// Name in messages; default is the program's file name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the program can't be started or its output files can't be made.
    pub fn spawn(self) -> Result<Process, ProcessError> {
        let Self {
            name,
            mut command,
            stdin,
            outputs,
        } = self;
        let output = |source| ProcessError::Output {
            name: name.clone(),
            source,
        };
        let folder = tempfile::Builder::new()
            .prefix("tidemill-")
            .tempdir_in(outputs)
            .map_err(output)?;
        let stdout_file = folder.path().join("stdout");
        let stderr_file = folder.path().join("stderr");
        let stdin = match stdin {
            Some(file) => Stdio::from(File::open(file).map_err(output)?),
            None => Stdio::null(),
        };
        command
            .stdin(stdin)
            .stdout(File::create(&stdout_file).map_err(output)?)
            .stderr(File::create(&stderr_file).map_err(output)?);
        let spawn = |program: &OsStr, source| ProcessError::Spawn {
            name: name.clone(),
            program: program.to_owned(),
            source,
        };
        let mut child = command
            .spawn()
            .map_err(|source| spawn(command.get_program(), source))?;
        let watchdog = match Watchdog::start(child.id()) {
            Ok(watchdog) => watchdog,
            Err(source) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(spawn(OsStr::new("sh"), source));
            }
        };
        Ok(Process {
            name,
            child,
            exit: None,
            stdout_file,
            stderr_file,
            _folder: folder,
            _watchdog: watchdog,
        })
    }
}

/// A running (or ended) child process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    exit: Option<ExitStatus>,
    stdout_file: PathBuf,
    stderr_file: PathBuf,
    _folder: TempDir,
    // After `child`, so that the watchdog goes only when the child is dead.
    _watchdog: Watchdog,
}

impl Process {
    /// Begins to describe a child process.
    #[must_use]
    pub fn builder(program: impl AsRef<OsStr>) -> ProcessBuilder {
        let program = program.as_ref();
        let name = Path::new(program)
            .file_name()
            .unwrap_or(program)
            .to_string_lossy()
            .into_owned();
        ProcessBuilder {
            name,
            command: Command::new(program),
            stdin: None,
            outputs: std::env::temp_dir(),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it wrote to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        read_lossy(&self.stdout_file)
    }

    /// Everything it wrote to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read_lossy(&self.stderr_file)
    }

    /// Waits until a whole line on either output satisfies `wanted`, and returns it.
    ///
    /// # Errors
    /// When `cap` passes, or the process ends without such a line.
    pub async fn wait_for_line(
        &mut self,
        what: &str,
        cap: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String, ProcessError> {
        let found = within(cap, async || {
            // Ended is looked at first: what it wrote before ending is then surely in the files.
            let ended = self.ended();
            for text in [self.stdout(), self.stderr()] {
                let whole = text
                    .rfind('\n')
                    .map_or("", |end| text.get(..end).unwrap_or(""));
                if let Some(line) = whole.lines().find(|line| wanted(line)) {
                    return Ok(Ok(line.to_owned()));
                }
            }
            match ended {
                Some(status) => Ok(Err(format!("it ended ({status})"))),
                None => Err("no such line yet"),
            }
        })
        .await;
        match found {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(seen)) => Err(self.late(what, cap, &seen)),
            Err(seen) => Err(self.late(what, cap, &seen)),
        }
    }

    /// Waits for it to end.
    ///
    /// # Errors
    /// When it still runs after `cap`.
    pub async fn wait_exit(&mut self, cap: Duration) -> Result<ExitStatus, ProcessError> {
        let ended = within(cap, async || self.ended().ok_or("still running")).await;
        ended.map_err(|seen| self.late("its end", cap, &seen))
    }

    /// How it ended, or nothing while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().ok().flatten();
        }
        self.exit
    }

    /// Asks it to stop (SIGTERM); returns at once.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn terminate(&mut self) -> Result<(), ProcessError> {
        self.signal(Signal::TERM, "SIGTERM")
    }

    /// Interrupts it as Ctrl-C does (SIGINT); returns at once.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn interrupt(&mut self) -> Result<(), ProcessError> {
        self.signal(Signal::INT, "SIGINT")
    }

    /// Kills it (SIGKILL) and waits until it is gone. Nothing happens if it has ended already.
    pub fn kill9(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            self.exit = self.child.wait().ok();
        }
    }

    /// Freezes it (SIGSTOP) and waits until the system says that it is stopped.
    ///
    /// # Errors
    /// When it has ended already.
    pub async fn sigstop(&mut self) -> Result<(), ProcessError> {
        const CAP: Duration = Duration::from_secs(10);
        self.signal(Signal::STOP, "SIGSTOP")?;
        let stopped = within(CAP, async || match ps(self.pid(), "state") {
            Ok(state) if state.starts_with('T') => Ok(()),
            Ok(state) => Err(format!("state {state}")),
            Err(error) => Err(error.to_string()),
        })
        .await;
        stopped.map_err(|seen| self.late("SIGSTOP to take effect", CAP, &seen))
    }

    /// Lets it go on after [`Process::sigstop`] (SIGCONT).
    ///
    /// # Errors
    /// When it has ended already.
    pub fn sigcont(&mut self) -> Result<(), ProcessError> {
        self.signal(Signal::CONT, "SIGCONT")
    }

    /// Its resident memory in MiB.
    ///
    /// # Errors
    /// When it has ended, or the system doesn't tell.
    pub fn rss_mib(&self) -> Result<f64, ProcessError> {
        let kib = ps(self.pid(), "rss")
            .and_then(|text| text.parse::<f64>().map_err(std::io::Error::other));
        kib.map(|kib| kib / 1024.0)
            .map_err(|source| self.control("reading its memory", source))
    }

    /// Has it read its configuration again (SIGHUP), if it is a program that does.
    ///
    /// # Errors
    /// When it is known to have ended.
    pub fn reload(&self) -> Result<(), ProcessError> {
        self.send(Signal::HUP, "SIGHUP")
    }

    fn signal(&mut self, signal: Signal, action: &'static str) -> Result<(), ProcessError> {
        let _ = self.ended();
        self.send(signal, action)
    }

    fn send(&self, signal: Signal, action: &'static str) -> Result<(), ProcessError> {
        // Never signal a pid that was waited for: it may be another program's by now. Until then it isn't given to another.
        if let Some(status) = self.exit {
            return Err(self.control(
                action,
                std::io::Error::other(format!("it has ended ({status})")),
            ));
        }
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let sent = match pid {
            Some(pid) => kill_process(pid, signal).map_err(std::io::Error::from),
            None => Err(std::io::Error::other("not a process id")),
        };
        sent.map_err(|source| self.control(action, source))
    }

    fn control(&self, action: &'static str, source: std::io::Error) -> ProcessError {
        ProcessError::Control {
            name: self.name.clone(),
            pid: self.pid(),
            action,
            source,
        }
    }

    fn late(&self, what: &str, cap: Duration, seen: &str) -> ProcessError {
        ProcessError::Late {
            name: self.name.clone(),
            pid: self.pid(),
            what: what.to_owned(),
            cap,
            seen: format!("{seen}\n{}", self.tails()),
        }
    }

    /// The ends of both outputs, for a message.
    #[must_use]
    pub fn tails(&self) -> String {
        let mut text = String::new();
        for (what, whole) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
            let lines: Vec<&str> = whole.lines().collect();
            let end = lines
                .get(lines.len().saturating_sub(TAIL_LINES)..)
                .unwrap_or(&[]);
            text.push_str(&format!(
                "--- {} {what}, last {} of {} lines\n",
                self.name,
                end.len(),
                lines.len()
            ));
            for line in end {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprint!("{}", self.tails());
        }
        self.kill9();
    }
}

/// Kills the watched process when we are gone.
#[derive(Debug)]
struct Watchdog(Child);

impl Watchdog {
    fn start(pid: u32) -> std::io::Result<Self> {
        // Ctrl-C reaches the whole process group, so the watchdog must outlive it. The pipe's end is ours alone: std opens it
        // close-on-exec. Nothing is ever written to it.
        Command::new("sh")
            .args([
                "-c",
                "trap '' INT TERM HUP; read -r _; kill -9 \"$1\" 2>/dev/null",
                "watchdog",
            ])
            .arg(pid.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One figure about a process: `state` or `rss` (KiB). From `/proc` where it exists, else from `ps`.
fn ps(pid: u32, field: &str) -> std::io::Result<String> {
    let status = Path::new("/proc").join(pid.to_string()).join("status");
    if let Ok(text) = std::fs::read_to_string(status) {
        let label = if field == "rss" { "VmRSS:" } else { "State:" };
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(label)?.split_whitespace().next());
        return value
            .map(str::to_owned)
            .ok_or_else(|| std::io::Error::other(format!("no {label} for pid {pid}")));
    }
    let output = Command::new("ps")
        .args(["-o", &format!("{field}="), "-p", &pid.to_string()])
        .output()?;
    let value = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if value.is_empty() {
        Err(std::io::Error::other(format!("no process {pid}")))
    } else {
        Ok(value)
    }
}

fn read_lossy(file: &Path) -> String {
    std::fs::read(file)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}
