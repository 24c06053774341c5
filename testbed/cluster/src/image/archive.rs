//! Entries of a tar, without what depends on when and by whom they were made.

use super::Entry;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, Write};
use tar::{Builder, EntryType, Header};

pub(super) fn append(
    tar: &mut Builder<impl Write>,
    path: &str,
    entry: &Entry,
) -> std::io::Result<()> {
    match entry {
        Entry::Folder { mode } => {
            let mut header = header(EntryType::Directory, *mode, 0);
            tar.append_data(&mut header, format!("{path}/"), std::io::empty())
        }
        Entry::File { source } => {
            let file = File::open(source)?;
            let found = file.metadata()?;
            let mut header = header(EntryType::Regular, mode(&found), found.len());
            tar.append_data(&mut header, path, file)
        }
        Entry::Text { text } => append_bytes(tar, path, text.as_bytes()),
        Entry::Link { target } => {
            let mut header = header(EntryType::Symlink, 0o777, 0);
            tar.append_link(&mut header, path, target)
        }
        Entry::Tree { .. } | Entry::Libraries { .. } => Err(std::io::Error::other(
            "it must be made single entries first",
        )),
    }
}

pub(super) fn append_bytes(
    tar: &mut Builder<impl Write>,
    path: &str,
    bytes: &[u8],
) -> std::io::Result<()> {
    let size = u64::try_from(bytes.len()).map_err(std::io::Error::other)?;
    tar.append_data(&mut header(EntryType::Regular, 0o644, size), path, bytes)
}

/// Of the epoch and of root.
pub(super) fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Only whether it may be executed: the rest depends on who made the file.
fn mode(found: &std::fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    if found.permissions().mode() & 0o111 == 0 {
        0o644
    } else {
        0o755
    }
}

pub(super) fn sum(file: &mut File) -> std::io::Result<String> {
    file.rewind()?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&sum.finalize())),
            count => sum.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
