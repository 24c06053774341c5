//! `.tidemill/dev.json`: what a running `tidemill dev` tells the other commands. They find it upwards from the current folder.

use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tidemill_core::contract::StreamBinding;
use tidemill_core::names::ResourceId;

/// The folder for everything that `dev` keeps.
pub(crate) const FOLDER: &str = ".tidemill";
/// Name of the file in it.
pub(crate) const FILE: &str = "dev.json";
/// The version this code writes.
const VERSION: u32 = 1;

/// Content of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DevFile {
    /// [`VERSION`]; another one is not read.
    pub(crate) version: u32,
    /// Address of the NATS server.
    pub(crate) nats: String,
    /// Namespace of resources that name none.
    pub(crate) namespace: String,
    /// Process of `tidemill dev`.
    pub(crate) pid: u32,
    /// Its EventStreams, and where they are.
    pub(crate) streams: Vec<StreamBinding>,
    /// Its Projections and Sagas.
    pub(crate) resources: Vec<ResourceId>,
}

impl DevFile {
    /// What a `dev` process of this address says at first.
    pub(crate) fn new(nats: &str, namespace: &str) -> Self {
        DevFile {
            version: VERSION,
            nats: nats.to_owned(),
            namespace: namespace.to_owned(),
            pid: std::process::id(),
            streams: Vec::new(),
            resources: Vec::new(),
        }
    }

    /// Reads it; nothing if it isn't there or isn't one of ours.
    pub(crate) fn read(file: &Path) -> Option<Self> {
        let bytes = std::fs::read(file).ok()?;
        let read: DevFile = serde_json::from_slice(&bytes).ok()?;
        (read.version == VERSION).then_some(read)
    }

    /// The nearest one, from a folder upwards, with its path.
    pub(crate) fn find(from: &Path) -> Option<(PathBuf, Self)> {
        from.ancestors().find_map(|folder| {
            let file = folder.join(FOLDER).join(FILE);
            Some((file.clone(), Self::read(&file)?))
        })
    }

    /// Writes it into a folder, as a whole or not at all.
    pub(crate) fn write(&self, folder: &Path) -> std::io::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        let (file, new) = (folder.join(FILE), folder.join(format!("{FILE}.new")));
        // The address may hold a password.
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&new)?.write_all((text + "\n").as_bytes())?;
        std::fs::rename(new, file)
    }

    /// Removes it from a folder, if it is this process's.
    pub(crate) fn remove(folder: &Path) {
        let file = folder.join(FILE);
        if Self::read(&file).is_some_and(|read| read.pid == std::process::id()) {
            // Best effort at the end of the process; a file that stays is found to be stale by its users.
            let _ = std::fs::remove_file(file);
        }
    }
}
