//! Where the programs of this workspace are, for tests that run them as processes.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// A program of the workspace can't be had.
#[derive(Debug, Clone, thiserror::Error)]
#[error("program {name} of package {package}: {reason}")]
pub struct ProgramError {
    name: String,
    package: String,
    reason: String,
}

/// The worker that may have a bug planted; of a feature of its package.
const PLANTED: &str = "tidemill-worker-planted";

/// Path of the program `name` of workspace package `package`, built in the profile of the running test.
///
/// With `TIDEMILL_BIN_DIR` set (`make test` sets it after building everything) it is taken from there as it is. Otherwise cargo is asked
/// once per test process, which builds it if it is missing or stale; processes wait for each other at a lock file.
///
/// # Errors
/// When it can't be built, with the end of cargo's output.
pub fn program(package: &str, name: &str) -> Result<PathBuf, ProgramError> {
    static KNOWN: Mutex<BTreeMap<String, Result<PathBuf, ProgramError>>> =
        Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let find = || {
        find_or_build(package, name).map_err(|reason| ProgramError {
            name: name.to_owned(),
            package: package.to_owned(),
            reason,
        })
    };
    known
        .entry(format!("{package}/{name}"))
        .or_insert_with(find)
        .clone()
}

/// The generic worker, `tidemill-worker`.
///
/// # Errors
/// As [`program`].
pub fn worker() -> Result<PathBuf, ProgramError> {
    // Also where no bug is planted: the same program then passes.
    #[cfg(feature = "planted-bugs")]
    if std::env::var_os(crate::planted::VARIABLE).is_some() {
        return program("tidemill-worker", PLANTED);
    }
    program("tidemill-worker", "tidemill-worker")
}

/// The command, `tidemill`.
///
/// # Errors
/// As [`program`].
pub fn tidemill() -> Result<PathBuf, ProgramError> {
    program("tidemill-cli", "tidemill")
}

/// A Python that has nats-py: named in `PYTHON` (`make test` does), else where `make tools` put it.
///
/// # Errors
/// When there is neither.
pub fn python() -> Result<PathBuf, ProgramError> {
    if let Some(named) = std::env::var_os("PYTHON").filter(|value| !value.is_empty()) {
        return Ok(named.into());
    }
    let known = std::fs::read_to_string(workspace_root().join(".tools/python.path"));
    known
        .map(|path| PathBuf::from(path.trim()))
        .map_err(|_| ProgramError {
            name: "python".to_owned(),
            package: "nats-py".to_owned(),
            reason: "run `make tools`, or name one in PYTHON".to_owned(),
        })
}

/// Root folder of the workspace.
#[must_use]
pub fn workspace_root() -> &'static Path {
    let testbed = Path::new(env!("CARGO_MANIFEST_DIR"));
    testbed.parent().unwrap_or(testbed)
}

fn find_or_build(package: &str, name: &str) -> Result<PathBuf, String> {
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    if let Some(folder) = std::env::var_os("TIDEMILL_BIN_DIR").filter(|value| !value.is_empty()) {
        let path = workspace_root().join(folder).join(file);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(format!(
                "TIDEMILL_BIN_DIR is set but there is no {}",
                path.display()
            ))
        };
    }
    let profile_folder = profile_folder()?;
    build(package, name, &profile_folder)?;
    let path = profile_folder.join(file);
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("cargo built it, but not as {}", path.display()))
    }
}

/// `target/<profile>`, from the path of the running test, which is `target/<profile>/deps/<test>` (a program: `target/<profile>/<name>`).
fn profile_folder() -> Result<PathBuf, String> {
    let exe =
        std::env::current_exe().map_err(|error| format!("path of the running program: {error}"))?;
    let folder = exe.parent().ok_or("the running program is in no folder")?;
    let inner = folder.ends_with("deps") || folder.ends_with("examples");
    let folder = if inner { folder.parent() } else { Some(folder) };
    Ok(folder
        .ok_or("the running program is not in a target folder")?
        .to_owned())
}

fn build(package: &str, name: &str, profile_folder: &Path) -> Result<(), String> {
    let target = profile_folder.parent().ok_or("no target folder")?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(target.join(".testbed-build.lock"))
        .and_then(|file| file.lock().map(|()| file))
        .map_err(|error| format!("lock in {}: {error}", target.display()))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(workspace_root())
        .args(["build", "--quiet", "--locked", "-p", package, "--bin", name]);
    command.arg("--target-dir").arg(target);
    if name == PLANTED {
        command.args(["--features", "planted-bugs"]);
    }
    if profile_folder.ends_with("release") {
        command.arg("--release");
    }
    let output = command
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    drop(lock);
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    let end = lines
        .get(lines.len().saturating_sub(30)..)
        .unwrap_or(&[])
        .join("\n");
    Err(format!("cargo build failed ({}):\n{end}", output.status))
}
