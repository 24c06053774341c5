//! Finding a nats-server that is new enough.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Oldest version that is used: the one whose behaviour the engines were checked on.
pub const VERSION_MIN: [u64; 3] = [2, 15, 2];

/// No nats-server program can be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "no nats-server of version 2.15.2 or newer: run `make tools`, or name one in TIDEMILL_NATS_SERVER.{tried}"
)]
pub struct BinaryError {
    tried: String,
}

/// Path of a nats-server of at least [`VERSION_MIN`]: from `TIDEMILL_NATS_SERVER` (then no other is tried), else `PATH`,
/// else where `go install` puts it.
///
/// # Errors
/// When there is none; the message lists what was tried and names `make tools`.
pub fn find() -> Result<PathBuf, BinaryError> {
    static FOUND: OnceLock<Result<PathBuf, BinaryError>> = OnceLock::new();
    FOUND.get_or_init(|| first_usable(&candidates())).clone()
}

fn candidates() -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os("TIDEMILL_NATS_SERVER").filter(|value| !value.is_empty())
    {
        return vec![PathBuf::from(named)];
    }
    let mut candidates = vec![PathBuf::from("nats-server")];
    // What `make tools` installs where PATH has none.
    if let Some(root) = Path::new(env!("CARGO_MANIFEST_DIR")).parent() {
        candidates.push(root.join(".tools/bin/nats-server"));
    }
    if let Ok(output) = Command::new("go").args(["env", "GOPATH"]).output() {
        let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !folder.is_empty() {
            candidates.push(Path::new(&folder).join("bin/nats-server"));
        }
    }
    if let Some(home) = std::env::home_dir() {
        candidates.push(home.join("go/bin/nats-server"));
    }
    candidates
}

fn first_usable(candidates: &[PathBuf]) -> Result<PathBuf, BinaryError> {
    let mut tried = String::new();
    for candidate in candidates {
        match version(candidate) {
            Ok(version) if version >= VERSION_MIN => return Ok(candidate.clone()),
            Ok([major, minor, patch]) => {
                tried.push_str(&format!(
                    "\n  {}: version {major}.{minor}.{patch}",
                    candidate.display()
                ));
            }
            Err(reason) => tried.push_str(&format!("\n  {}: {reason}", candidate.display())),
        }
    }
    Err(BinaryError { tried })
}

fn version(program: &Path) -> Result<[u64; 3], String> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).ok_or_else(|| format!("unknown answer to --version: {:?}", text.trim()))
}

/// `nats-server: v2.15.2`, perhaps with a pre-release (`-beta.1`), which counts as its release.
fn parse_version(text: &str) -> Option<[u64; 3]> {
    let numbers = text
        .split_whitespace()
        .last()?
        .strip_prefix('v')?
        .split('-')
        .next()?;
    let mut parts = numbers.split('.').map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??, parts.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_parsed_and_compared_by_number() {
        assert_eq!(parse_version("nats-server: v2.15.2\n"), Some([2, 15, 2]));
        assert_eq!(
            parse_version("nats-server: v2.16.0-preview.1"),
            Some([2, 16, 0])
        );
        assert_eq!(parse_version("nats-server: latest"), None);
        assert_eq!(parse_version(""), None);
        assert!([2, 9, 25] < VERSION_MIN);
    }

    #[test]
    fn none_usable_says_what_would_do() {
        let error = first_usable(&[PathBuf::from("no-such-nats-server")])
            .unwrap_err()
            .to_string();
        assert!(error.contains("make tools"), "{error}");
        assert!(error.contains("no-such-nats-server"), "{error}");
    }
}
