//! `.tidemill`: where `dev` keeps the server's store, its logs, and what it tells other commands. One `dev` per folder.

use crate::dev_file::{self, DevFile};
use crate::error::{CliError, Exit, Result};
use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// The state of the `dev` of one folder, locked for this process.
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    /// Another place where commands look: `.tidemill` of the current folder, if that isn't below the manifests.
    nearby: Option<PathBuf>,
    /// Locked until it is dropped.
    _lock: File,
}

impl StateFolder {
    /// Makes and locks it.
    ///
    /// # Errors
    /// Another `dev` has it, or it can't be written.
    pub(crate) fn lock(manifests: &Path) -> Result<Self> {
        let path = manifests.join(dev_file::FOLDER);
        let cannot = |error: &std::io::Error| {
            CliError::failed(format!("{} can't be written: {error}", path.display()))
                .remedy("`tidemill dev` keeps its state there; make the folder writable, or copy the manifests elsewhere")
        };
        make(&path).map_err(|error| cannot(&error))?;
        let opened = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path.join("dev.lock"));
        let mut lock = opened.map_err(|error| cannot(&error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Only for the message.
                let _ = lock.read_to_string(&mut pid);
                let what = format!(
                    "`tidemill dev` runs on {} already (process {})",
                    manifests.display(),
                    pid.trim()
                );
                return Err(
                    CliError::new(Exit::Refused, what).remedy("use that one, or stop it first")
                );
            }
            Err(TryLockError::Error(error)) => return Err(cannot(&error)),
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|error| cannot(&error))?;
        Ok(StateFolder {
            nearby: nearby(manifests),
            path,
            _lock: lock,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The server's store.
    pub(crate) fn store(&self) -> PathBuf {
        self.path.join("nats")
    }

    /// Empties the server's store.
    ///
    /// # Errors
    /// It can't be removed.
    pub(crate) fn empty_store(&self) -> Result<()> {
        let store = self.store();
        match std::fs::remove_dir_all(&store) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CliError::failed(
                format!("{} can't be emptied: {error}", store.display()),
            )),
            _ => Ok(()),
        }
    }

    /// Tells other commands.
    ///
    /// # Errors
    /// It can't be written.
    pub(crate) fn tell(&self, dev: &DevFile) -> Result<()> {
        dev.write(&self.path).map_err(|error| {
            CliError::failed(format!("{} can't be written: {error}", self.path.display()))
        })?;
        if let Some(nearby) = &self.nearby
            && let Err(error) = make(nearby).and_then(|()| dev.write(nearby))
        {
            // Commands then need --nats, which is no reason not to run.
            tracing::warn!(folder = %nearby.display(), %error, "other commands won't find this server from here");
        }
        Ok(())
    }

    /// Takes back what was told.
    pub(crate) fn untell(&self) {
        DevFile::remove(&self.path);
        if let Some(nearby) = &self.nearby {
            DevFile::remove(nearby);
        }
    }
}

fn make(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let ignore = folder.join(".gitignore");
    if !ignore.exists() {
        std::fs::write(ignore, "*\n")?;
    }
    Ok(())
}

fn nearby(manifests: &Path) -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?.canonicalize().ok()?;
    let manifests = manifests.canonicalize().ok()?;
    (!here.starts_with(manifests)).then(|| here.join(dev_file::FOLDER))
}
