//! Where the programs of Kubernetes are.

use std::path::{Path, PathBuf};

/// Names the folder with the programs; `scripts/kubernetes.sh` writes it to `.tools/env`.
const VARIABLE: &str = "TIDEMILL_KUBERNETES";

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
