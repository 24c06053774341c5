//! Where the programs of Kubernetes are, and those of the machine that a node needs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names the folder with the programs; `scripts/kubernetes.sh` writes it to `.tools/env`.
const VARIABLE: &str = "TIDEMILL_KUBERNETES";
/// What of that folder only a node needs.
const OF_NODE: [&str; 6] = [
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "coredns",
    "pause",
];
/// What a node needs of the machine.
const OF_MACHINE: [&str; 11] = [
    "busybox",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "ip",
    "iptables",
    "iptables-save",
    "mount",
    "nsenter",
    "runc",
    "unshare",
];
/// Where distributions put the CNI plugins.
const PLUGIN_FOLDERS: [&str; 4] = [
    "/usr/lib/cni",
    "/opt/cni/bin",
    "/usr/libexec/cni",
    "/usr/local/libexec/cni",
];
const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// No usable programs.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// The variable isn't set.
    #[error(
        "no programs of Kubernetes: run `scripts/kubernetes.sh`, then `source .tools/env` (it sets {VARIABLE})"
    )]
    Unset,
    /// The folder lacks one.
    #[error("{0} isn't there: run `scripts/kubernetes.sh` again")]
    Missing(PathBuf),
}

/// The folder with the programs of Kubernetes.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Those that `TIDEMILL_KUBERNETES` names.
    ///
    /// # Errors
    /// If it names none.
    pub fn find() -> Result<Programs, ProgramsError> {
        let folder = std::env::var_os(VARIABLE).ok_or(ProgramsError::Unset)?;
        Ok(Programs {
            folder: folder.into(),
        })
    }

    /// The path of one of them.
    ///
    /// # Errors
    /// If it isn't there.
    pub fn path(&self, name: &str) -> Result<PathBuf, ProgramsError> {
        let path = self.folder.join(Path::new(name));
        if path.is_file() {
            Ok(path)
        } else {
            Err(ProgramsError::Missing(path))
        }
    }
}

/// Why this machine can't run a node, in one line; nothing if it can.
#[must_use]
pub fn why_no_node() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("a node needs Linux".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Some("a node needs root".to_owned());
    }
    let mut missing: Vec<&str> = OF_MACHINE
        .into_iter()
        .filter(|name| on_path(name).is_none())
        .collect();
    if plugins().is_none() {
        missing.push("CNI plugins");
    }
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Some(format!("this machine has no {missing}"));
    }
    let programs = match Programs::find() {
        Ok(programs) => programs,
        Err(error) => return Some(error.to_string()),
    };
    if let Some(error) = OF_NODE.iter().find_map(|name| programs.path(name).err()) {
        return Some(format!("{error}, with the argument `node`"));
    }
    // Root of a container may not be enough.
    let tried = Command::new("unshare")
        .args(["--pid", "--mount", "--net", "--fork"])
        .args(["ip", "link", "add", "node", "type", "bridge"])
        .stdin(Stdio::null())
        .output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Some(format!("no network of our own can be made: {said}"))
        }
        Err(error) => Some(format!("no network of our own can be made: {error}")),
    }
}

/// Says that a test was skipped: `SKIPPED (reason)`, in one line, also where a test's output isn't shown. CI takes it for a failure.
pub fn skip(reason: &str) {
    use std::io::Write;
    let reason = reason.replace('\n', " ");
    // Not `eprintln!`: what a passing test prints is kept from view.
    let _ = writeln!(std::io::stderr(), "SKIPPED ({reason})");
}

/// The folder with the CNI plugins.
pub(crate) fn plugins() -> Option<PathBuf> {
    let mut folders = PLUGIN_FOLDERS.into_iter().map(PathBuf::from);
    folders.find(|folder| PLUGINS.iter().all(|name| folder.join(name).is_file()))
}

/// A program of the machine.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join(name));
    candidates.find(|candidate| candidate.is_file())
}
