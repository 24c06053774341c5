//! Who has the store: a second server on it would ruin it.
//!
//! A lock on a file belongs to the file as it was opened, not to a process. The server gets the locked file as its standard input, which it
//! never reads, so the lock is held until the server itself has ended, whoever else was killed. The file names its process;
//! while it is locked, that number can be nobody else's.

use crate::error::{CliError, Exit, Result};
use rustix::process::{Signal, kill_process};
use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::time::Instant;

const FILE: &str = "server.lock";
/// Longest wait for a server that was killed; for one that was told to stop it is [`super::STOP_MAX`].
const KILLED_MAX: Duration = Duration::from_secs(5);

/// The store is ours, and our server's.
#[derive(Debug)]
pub(crate) struct StoreLock {
    file: File,
    path: PathBuf,
}

impl StoreLock {
    /// Takes the store of a state folder. A server that an earlier `dev` left there is ended first: nobody else can use it.
    ///
    /// # Errors
    /// It can't be ended, or nobody knows its process.
    pub(crate) async fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let opened = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path);
        let file = opened.map_err(|error| cannot(&path, &error))?;
        let mut lock = StoreLock { file, path };
        if !lock.is_free()? {
            lock.end_earlier().await?;
        }
        Ok(lock)
    }

    async fn end_earlier(&mut self) -> Result<()> {
        let mut text = String::new();
        self.file
            .read_to_string(&mut text)
            .map_err(|error| cannot(&self.path, &error))?;
        let Some(pid) = text.trim().parse().ok().and_then(super::pid) else {
            let what = "a nats-server of an earlier run still has the store, and its process number isn't known";
            return Err(CliError::new(Exit::Refused, what).remedy(format!(
                "end it (`fuser {}` names it) and start again",
                self.path.display()
            )));
        };
        let number = pid.as_raw_nonzero();
        let stays = |why: &str| {
            let what = format!(
                "a nats-server of an earlier run (process {number}) still has the store and {why}"
            );
            CliError::new(Exit::Refused, what)
                .remedy(format!("end it with `kill -9 {number}` and start again"))
        };
        for (signal, patience) in [(Signal::TERM, super::STOP_MAX), (Signal::KILL, KILLED_MAX)] {
            if let Err(error) = kill_process(pid, signal)
                && error != rustix::io::Errno::SRCH
            {
                return Err(stays(&format!("can't be ended: {error}")));
            }
            if self.is_free_within(patience).await? {
                tracing::warn!(
                    "a nats-server of an earlier run (process {number}) still had the store and was ended"
                );
                return Ok(());
            }
        }
        Err(stays("doesn't end"))
    }

    async fn is_free_within(&self, patience: Duration) -> Result<bool> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if self.is_free()? {
                return Ok(true);
            }
            tokio::time::sleep(super::LOOK_PAUSE).await;
        }
        Ok(false)
    }

    /// Locked by us from then on.
    fn is_free(&self) -> Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(cannot(&self.path, &error)),
        }
    }

    /// What a server is to be given as its standard input. Nobody's number is in the file until [`StoreLock::tell`].
    pub(super) fn input(&self) -> std::io::Result<Stdio> {
        self.file.set_len(0)?;
        Ok(self.file.try_clone()?.into())
    }

    /// Names the server that holds the lock with us.
    pub(super) fn tell(&self, server: Option<u32>) -> std::io::Result<()> {
        let mut file = &self.file;
        file.rewind()?;
        writeln!(file, "{}", server.unwrap_or_default())
    }
}

fn cannot(path: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!("{} can't be written: {error}", path.display()))
}
