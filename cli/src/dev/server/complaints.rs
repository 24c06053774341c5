//! What nats-server complains of in its log, such as a full disk: nobody looks there without being told.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Result};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The same complaint is passed on once in this time.
const SAID_FOR: Duration = Duration::from_secs(60);
/// Different complaints remembered; when there are more all are forgotten.
const REMEMBERED_MAX: usize = 100;
/// Bytes read in one look.
const READ_MAX: u64 = 64 * 1024;

/// Reads a log as it grows.
#[derive(Debug)]
pub(super) struct Complaints {
    log: File,
    /// The beginning of a line whose end isn't written yet.
    begun: String,
    said: HashMap<String, Instant>,
}

impl Complaints {
    pub(super) fn open(log: &Path) -> Result<Self> {
        Ok(Complaints {
            log: File::open(log)?,
            begun: String::new(),
            said: HashMap::new(),
        })
    }

    /// Those that were written since the last look.
    pub(super) fn new_ones(&mut self) -> Vec<String> {
        let mut bytes = Vec::new();
        // What can't be read now may be at the next look.
        let _ = (&mut self.log).take(READ_MAX).read_to_end(&mut bytes);
        self.begun.push_str(&String::from_utf8_lossy(&bytes));
        let whole = self.begun.rfind('\n').map_or(0, |end| end + 1);
        let lines: String = self.begun.drain(..whole).collect();
        if self.begun.len() as u64 > READ_MAX {
            self.begun.clear();
        }
        let now = Instant::now();
        lines
            .lines()
            .filter_map(complaint)
            .filter(|text| self.is_news(text, now))
            .map(str::to_owned)
            .collect()
    }

    fn is_news(&mut self, text: &str, now: Instant) -> bool {
        if let Some(said) = self.said.get(text)
            && now.duration_since(*said) < SAID_FOR
        {
            return false;
        }
        if self.said.len() == REMEMBERED_MAX {
            self.said.clear();
        }
        self.said.insert(text.to_owned(), now);
        true
    }
}

/// The text of a line of level error or worse: `[pid] date time [ERR] text`.
fn complaint(line: &str) -> Option<&str> {
    ["[ERR] ", "[FTL] "]
        .iter()
        .find_map(|level| Some(line.split_once(level)?.1.trim()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::io::Write as _;

    #[test]
    fn each_complaint_is_passed_on_once_and_whole() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        let mut complaints = Complaints::open(log.path()).unwrap();
        let mut write = |text: &str| log.write_all(text.as_bytes()).unwrap();
        write(
            "[1] 2026/01/31 12:00:00.1 [INF] Server is ready\n[1] 2026/01/31 12:00:00.2 [ERR] no spa",
        );
        assert_eq!(complaints.new_ones(), Vec::<String>::new());
        write(
            "ce left\n[1] 2026/01/31 12:00:00.3 [ERR] no space left\n[1] 2026/01/31 12:00:00.4 [FTL] over\n",
        );
        assert_eq!(complaints.new_ones(), ["no space left", "over"]);
        write("[1] 2026/01/31 12:00:00.5 [ERR] no space left\n");
        assert_eq!(complaints.new_ones(), Vec::<String>::new());
    }
}
