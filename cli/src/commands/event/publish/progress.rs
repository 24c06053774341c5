//! One line on standard error that is written over, on a terminal only.

use crate::output::grouped;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Shorter than anybody reads, long enough to cost nothing.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Progress {
    shown: bool,
    last: Option<Instant>,
}

impl Progress {
    pub(super) fn new() -> Self {
        // Without a terminal nothing is ever due.
        Progress {
            shown: false,
            last: std::io::stderr().is_terminal().then(Instant::now),
        }
    }

    pub(super) fn show(&mut self, published: u64) {
        let Some(last) = self.last.filter(|last| last.elapsed() >= PAUSE) else {
            return;
        };
        let _ = last;
        eprint!("\r\x1b[K{} published", grouped(published));
        self.shown = true;
        self.last = Some(Instant::now());
    }

    pub(super) fn clear(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
            self.shown = false;
        }
    }
}
