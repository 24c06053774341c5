//! Stored messages whose delivery breaks the connection, and how they are found.
//!
//! async-nats 0.51 gives up the whole connection when a message has a header block that it can't parse (not UTF-8, a line without
//! colon, a lone CR), and would do so again for ever. Such a message is read by the API instead, which carries its headers encoded.
//! All readers of a connection share what is known: whoever is given up at every reconnect would never learn it alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Broken connections under readers of one stream, after which its next messages are looked at.
const BREAKS_MAX: u32 = 2;
/// Messages remembered per stream; the first are forgotten beyond, and found again when they break the connection again.
const KNOWN_MAX: usize = 10_000;

/// What is known, by stream.
#[derive(Debug, Default)]
pub(crate) struct Undeliverable(Mutex<HashMap<String, Known>>);

#[derive(Debug, Default)]
struct Known {
    sequences: BTreeSet<u64>,
    breaks: u32,
    /// The furthest message that came before the connection broke.
    after: u64,
}

impl Undeliverable {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection broke while `stream` was read; `last` had come.
    pub(crate) fn broke(&self, stream: &str, last: u64) {
        let mut known = self.lock();
        let known = known.entry(stream.to_owned()).or_default();
        known.breaks += 1;
        known.after = known.after.max(last);
    }

    /// The message behind which one is suspected, if one is.
    pub(crate) fn suspected(&self, stream: &str) -> Option<u64> {
        let known = self.lock();
        let known = known.get(stream)?;
        (known.breaks >= BREAKS_MAX).then_some(known.after)
    }

    /// The stream was looked at, and what was found.
    pub(crate) fn looked(&self, stream: &str, found: Option<u64>) {
        let mut known = self.lock();
        let known = known.entry(stream.to_owned()).or_default();
        (known.breaks, known.after) = (0, 0);
        known.sequences.extend(found);
        if known.sequences.len() > KNOWN_MAX {
            known.sequences.pop_first();
        }
    }

    /// The first such message after a sequence.
    pub(crate) fn next(&self, stream: &str, after: u64) -> Option<u64> {
        let known = self.lock();
        let sequences = &known.get(stream)?.sequences;
        sequences.range(after.saturating_add(1)..).next().copied()
    }
}

/// Whether the client can take a message with this header block.
pub(crate) fn is_deliverable(headers: &[u8]) -> bool {
    if headers.is_empty() {
        return true;
    }
    let Ok(block) = std::str::from_utf8(headers) else {
        return false;
    };
    let mut lines = block.lines();
    let Some(status) = lines.next().and_then(|line| line.strip_prefix("NATS/1.0")) else {
        return false;
    };
    let status = status.split_whitespace().next();
    if status.is_some_and(|code| !code.parse().is_ok_and(|code| (100..1000).contains(&code))) {
        return false;
    }
    let mut is_continued = false;
    lines.filter(|line| !line.is_empty()).all(|line| {
        // A line that begins with space goes on with the value of the one before.
        let goes_on = is_continued && line.starts_with(char::is_whitespace);
        is_continued = true;
        let named = || {
            let (name, _) = line.split_once(':')?;
            name.parse::<async_nats::header::HeaderName>().ok()
        };
        !line.contains('\r') && (goes_on || named().is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_blocks_that_the_client_takes() {
        for good in [
            &b""[..],
            b"NATS/1.0\r\n\r\n",
            b"NATS/1.0\r\na: 1\r\nB:\r\n\r\n",
            b"NATS/1.0\r\na: 1\r\n more\r\n\r\n",
            b"NATS/1.0 404 No Messages\r\n\r\n",
            "NATS/1.0\r\na: ü\r\n\r\n".as_bytes(),
        ] {
            assert!(is_deliverable(good), "{}", good.escape_ascii());
        }
        for bad in [
            &b"HTTP/1.0\r\n\r\n"[..],
            b"NATS/1.0\r\na: \xff\r\n\r\n",
            b"NATS/1.0\r\nno colon\r\n\r\n",
            b"NATS/1.0\r\n first: 1\r\n\r\n",
            b"NATS/1.0\r\na: 1\rb: 2\r\n\r\n",
            b"NATS/1.0 x\r\n\r\n",
        ] {
            assert!(!is_deliverable(bad), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn two_breaks_make_a_suspicion_and_a_look_ends_it() {
        let known = Undeliverable::default();
        known.broke("a", 7);
        assert_eq!(known.suspected("a"), None);
        known.broke("a", 5);
        assert_eq!(
            (known.suspected("a"), known.suspected("b")),
            (Some(7), None)
        );
        known.looked("a", Some(9));
        assert_eq!(known.suspected("a"), None);
        assert_eq!((known.next("a", 8), known.next("a", 9)), (Some(9), None));
    }
}
