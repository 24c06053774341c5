//! A node's place on this machine: a numbered folder, its cgroups, and the lock that says whose they are.
//!
//! The kernel lets go of the lock however the owner ends. So what an unlocked number has left behind is nobody's, and whoever comes next
//! clears it away.

use crate::namespace::end_leftover;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// More nodes at once than any machine bears.
const SLOTS_MAX: u32 = 64;
/// Longest wait for a cgroup to be empty after its processes are dead.
const REMOVED_MAX: Duration = Duration::from_secs(20);
const CGROUPS: &str = "/sys/fs/cgroup";

/// A place that is ours until dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    folder: PathBuf,
    cgroup: String,
    // Last: whoever gets it may take the rest.
    _lock: File,
}

impl Slot {
    /// Takes the first free place, and clears whatever dead owners left at any of them.
    pub(crate) fn take() -> std::io::Result<Slot> {
        let base = std::env::temp_dir().join("tidemill-nodes");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&base)?;
        // Anybody can make a folder there.
        if std::fs::symlink_metadata(&base)?.uid() != rustix::process::geteuid().as_raw() {
            let message = format!("{} belongs to somebody else", base.display());
            return Err(std::io::Error::other(message));
        }
        let mut taken = None;
        for number in 0..SLOTS_MAX {
            let lock = base.join(format!("{number}.lock"));
            // Numbers are taken from the first on, so behind the first that nobody ever took there is nothing.
            let new = !lock.exists();
            if new && taken.is_some() {
                break;
            }
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(lock)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let slot = Slot {
                folder: base.join(number.to_string()),
                cgroup: format!("tidemill-node-{number}"),
                _lock: lock,
            };
            end_leftover(&slot.folder);
            slot.clear()?;
            taken.get_or_insert(slot);
        }
        let slot = taken.ok_or_else(|| std::io::Error::other("too many nodes run already"))?;
        std::fs::create_dir(&slot.folder)?;
        for hierarchy in hierarchies()? {
            std::fs::create_dir(hierarchy.join(&slot.cgroup))?;
        }
        Ok(slot)
    }

    /// The node's files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The cgroup of the node's pods, in every hierarchy.
    pub(crate) fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The cgroup's folders.
    pub(crate) fn cgroups(&self) -> std::io::Result<Vec<PathBuf>> {
        let all = hierarchies()?.into_iter();
        Ok(all.map(|hierarchy| hierarchy.join(&self.cgroup)).collect())
    }

    fn clear(&self) -> std::io::Result<()> {
        for cgroup in self.cgroups()? {
            remove_cgroup(&cgroup, Instant::now() + REMOVED_MAX)?;
        }
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("{} can't be cleared: {error}", self.folder.display());
        }
    }
}

/// The roots below which cgroups are made: one, or with version 1 one for each controller.
fn hierarchies() -> std::io::Result<Vec<PathBuf>> {
    let root = PathBuf::from(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        // Links are other names of the same.
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// A cgroup and those below it. Its files are the kernel's and go with it.
fn remove_cgroup(cgroup: &Path, deadline: Instant) -> std::io::Result<()> {
    let children = match std::fs::read_dir(cgroup) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        children => children?,
    };
    for child in children {
        let child = child?;
        if child.file_type()?.is_dir() {
            remove_cgroup(&child.path(), deadline)?;
        }
    }
    loop {
        match std::fs::remove_dir(cgroup) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            // A process in it is dead, but not put away yet.
            Err(error)
                if error.kind() == std::io::ErrorKind::ResourceBusy
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
}
