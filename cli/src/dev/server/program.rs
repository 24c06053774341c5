//! Finds a nats-server that is new enough.

use crate::error::{CliError, Result};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// Oldest version that does what we need; also what is tested with.
const VERSION_MIN: (u64, u64, u64) = (2, 15, 2);

/// A program and what it says its version is.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) version: String,
}

/// Looks in `TIDEMILL_NATS_SERVER`, `PATH`, `.tools/bin` of this folder or one above, and where Go installs programs.
pub(super) async fn find(from: Option<&Path>) -> Result<Program> {
    let mut too_old = None;
    for path in candidates(from).await {
        let Some(version) = version_of(&path).await else {
            continue;
        };
        if parse(&version).is_some_and(|parsed| parsed >= VERSION_MIN) {
            return Ok(Program { path, version });
        }
        too_old.get_or_insert_with(|| format!("{} is {version}", path.display()));
    }
    let (major, minor, patch) = VERSION_MIN;
    let wanted = format!("nats-server {major}.{minor}.{patch} or newer");
    let what = match too_old {
        Some(old) => format!("{wanted} is needed, but {old}"),
        None => format!("{wanted} is needed and was not found"),
    };
    Err(CliError::failed(what).remedy(format!(
        "`go install github.com/nats-io/nats-server/v2@v{major}.{minor}.{patch}`, put one into PATH, or give --nats URL of a server that runs"
    )))
}

async fn candidates(from: Option<&Path>) -> Vec<PathBuf> {
    const NAME: &str = "nats-server";
    if let Some(named) = std::env::var_os("TIDEMILL_NATS_SERVER").filter(|named| !named.is_empty())
    {
        return vec![PathBuf::from(named)];
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|folder| folder.join(NAME))
        .collect();
    candidates.extend(
        from.into_iter()
            .flat_map(Path::ancestors)
            .map(|folder| folder.join(".tools/bin").join(NAME)),
    );
    candidates.extend(go_bin().await.map(|folder| folder.join(NAME)));
    if let Some(home) = std::env::var_os("HOME") {
        candidates.push(PathBuf::from(home).join("go/bin").join(NAME));
    }
    candidates.retain(|candidate| candidate.is_file());
    candidates
}

async fn go_bin() -> Option<PathBuf> {
    let output = Command::new("go")
        .args(["env", "GOPATH"])
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let first = text
        .trim()
        .split(':')
        .next()
        .filter(|first| !first.is_empty())?;
    Some(PathBuf::from(first).join("bin"))
}

async fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program)
        .arg("--version")
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().rsplit(['v', ' ']).next()?.to_owned())
}

fn parse(version: &str) -> Option<(u64, u64, u64)> {
    let mut numbers = version.split(['.', '-', '+']).map(str::parse);
    Some((
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(parse("2.9.25").unwrap() < VERSION_MIN);
        assert!(parse("2.15.10").unwrap() > VERSION_MIN);
        assert_eq!(parse("2.15.2-dev"), Some(VERSION_MIN));
        assert_eq!(parse("nonsense"), None);
    }
}
