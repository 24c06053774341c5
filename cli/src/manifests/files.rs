//! Files and folders given by name.

use crate::error::{CliError, Result};
use crate::yaml::FILE_BYTES_MAX;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Most files taken from folders: more is a folder that wasn't meant.
const FILES_MAX: usize = 10_000;
/// Deepest folder below one that was named.
const DEPTH_MAX: usize = 16;
/// Folders that hold no manifests of the person who asks. Those whose name begins with a dot besides.
const OTHERS: [&str; 3] = ["node_modules", "target", "vendor"];

/// The text of one file, or why there is none.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// As it was named; `<stdin>` for standard input.
    pub(crate) file: PathBuf,
    /// Whether it was named itself, and not found in a folder.
    pub(crate) named: bool,
    pub(crate) text: std::result::Result<String, String>,
}

/// The files that paths mean, each with whether it was named itself: files as they are, folders with everything below them.
pub(crate) fn collect(paths: &[PathBuf]) -> Result<Vec<(PathBuf, bool)>> {
    let mut files = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            files.push((path.clone(), true));
            continue;
        }
        let metadata = std::fs::metadata(path).map_err(|error| {
            CliError::not_found(format!("{} can't be read: {error}", path.display()))
        })?;
        if metadata.is_dir() {
            let before = files.len();
            walk(path, 0, &mut files)?;
            if let Some(found) = files.get_mut(before..) {
                found.sort();
            }
        } else {
            files.push((path.clone(), true));
        }
    }
    Ok(files)
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<(PathBuf, bool)>) -> Result<()> {
    let unreadable = |error: std::io::Error| {
        CliError::failed(format!("{} can't be read: {error}", folder.display()))
    };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        // Links to files are followed, links to folders aren't: they may lead in a circle.
        if entry.file_type().map_err(unreadable)?.is_dir() {
            if depth < DEPTH_MAX && !OTHERS.contains(&&*name) {
                walk(&path, depth + 1, files)?;
            }
        } else if is_manifest(&path) {
            if files.len() >= FILES_MAX {
                return Err(CliError::failed(format!(
                    "more than {FILES_MAX} YAML files are below {}",
                    folder.display()
                ))
                .remedy("name a smaller folder"));
            }
            files.push((path, false));
        }
    }
    Ok(())
}

/// Whether a file's name is one of a manifest.
pub(crate) fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["yaml", "yml", "json"]
            .iter()
            .any(|known| extension == *known)
    })
}

/// Reads them all.
pub(crate) fn read_all(files: Vec<(PathBuf, bool)>) -> Vec<Source> {
    let read = |(file, named): (PathBuf, bool)| {
        if file == Path::new("-") {
            return Source {
                file: PathBuf::from("<stdin>"),
                named,
                text: text_of(std::io::stdin().lock()),
            };
        }
        let text = match opened(&file, named) {
            Ok(opened) => text_of(opened),
            Err(error) => Err(format!("the file can't be read: {error}")),
        };
        Source { file, named, text }
    };
    files.into_iter().map(read).collect()
}

/// Whoever names a pipe means it (`lint <(helm template …)`); one that lies in a folder could be waited for without end.
fn opened(file: &Path, named: bool) -> std::io::Result<std::fs::File> {
    if !named && !std::fs::metadata(file)?.is_file() {
        return Err(std::io::Error::other(
            "it is a folder, pipe, socket or device; remove it, or give it another name",
        ));
    }
    std::fs::File::open(file)
}

fn text_of(reader: impl std::io::Read) -> std::result::Result<String, String> {
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to see that it is too large.
    reader
        .take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("the file can't be read: {error}"))?;
    String::from_utf8(bytes).map_err(|error| {
        format!(
            "the file is not UTF-8 (at byte {}); save it as UTF-8",
            error.utf8_error().valid_up_to()
        )
    })
}
