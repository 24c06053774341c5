//! Tells when manifests in a folder may have changed.

use crate::error::{CliError, Result};
use crate::manifests::is_manifest;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Editors write a file in several steps; a change counts when nothing has happened for this long.
const QUIET: Duration = Duration::from_millis(150);
/// Changes without end are looked at this often.
const BUSY_MAX: Duration = Duration::from_secs(2);

/// Watches a folder until it is dropped.
pub(crate) struct Watch {
    changes: mpsc::Receiver<()>,
    /// When the first change came that wasn't told yet.
    since: Option<Instant>,
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    /// The system has no more watches to give.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let (sender, changes) = mpsc::channel(1);
        // Changes are told by full paths, whatever was named.
        let root = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let watched = root.clone();
        let heard = move |event: notify::Result<Event>| {
            // A watch that lost events says so; then everything may have changed.
            let relevant = event.map_or(true, |event| {
                event.need_rescan()
                    || (!matches!(event.kind, EventKind::Access(_))
                        && event.paths.iter().any(|path| concerns(&root, path)))
            });
            if relevant {
                // Full = a change waits already.
                let _ = sender.try_send(());
            }
        };
        let cannot = |error: notify::Error| {
            CliError::failed(format!(
                "{} can't be watched for changes: {error}",
                folder.display()
            ))
            .remedy("raise fs.inotify.max_user_watches, or name a smaller folder")
        };
        let mut watcher = notify::recommended_watcher(heard).map_err(cannot)?;
        watcher
            .watch(&watched, RecursiveMode::Recursive)
            .map_err(cannot)?;
        Ok(Watch {
            changes,
            since: None,
            _watcher: watcher,
        })
    }

    /// Waits until something has changed and it is quiet again. It may be given up at any point without losing a change.
    pub(crate) async fn changed(&mut self) {
        if self.since.is_none() {
            if self.changes.recv().await.is_none() {
                return std::future::pending().await;
            }
            self.since = Some(Instant::now());
        }
        while let Some(since) = self.since {
            // Busy all the time is a reason to look now, not a fault.
            if since.elapsed() >= BUSY_MAX
                || tokio::time::timeout(QUIET, self.changes.recv())
                    .await
                    .is_err()
            {
                self.since = None;
            }
        }
    }
}

/// Files that are manifests by name, and folders (which may hold some); nothing below a folder whose name begins with a dot.
fn concerns(root: &Path, path: &Path) -> bool {
    let below: PathBuf = path
        .strip_prefix(root)
        .map_or_else(|_| path.to_owned(), Path::to_owned);
    let hidden = below
        .components()
        .any(|part| part.as_os_str().to_string_lossy().starts_with('.'));
    !hidden && (is_manifest(path) || path.extension().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_manifests_concern_us() {
        let root = Path::new("/m/.x");
        for (path, expected) in [
            ("/m/.x/a.yaml", true),
            ("/m/.x/deep/a.json", true),
            ("/m/.x/deep", true),
            ("/m/.x/.tidemill/nats/a.yaml", false),
            ("/m/.x/.a.yaml.swp", false),
            ("/m/.x/notes.txt", false),
        ] {
            assert_eq!(concerns(root, Path::new(path)), expected, "{path}");
        }
    }
}
