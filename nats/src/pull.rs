//! How many messages are asked for and still to come: the part of a reader that bounds what waits in memory.

use serde_json::{Value, json};
use std::time::Duration;

/// Messages per request. Two requests are open at most, so twice this many wait in memory at most; measured, more gives nothing.
pub(crate) const BATCH: u64 = 4096;
/// Bytes per request. A prime: a request whose bytes are used up *exactly* ends without a word from the server,
/// and with a prime that can't happen to messages of one size.
pub(crate) const BATCH_BYTES: u64 = 4_194_301;
/// How long a request stays open at the server; it is renewed.
const EXPIRES: Duration = Duration::from_secs(30);
/// The server speaks at least this often while a request is open.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Silence after which what we hear from is taken as gone: two heartbeats and half a second for a busy machine.
pub(crate) const SILENCE_MAX: Duration = Duration::from_millis(4500);

/// Whether a reader waits at the end of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It waits for what comes.
    Follow,
    /// It ends with the last message that is there.
    ToEnd,
}

/// The open requests of one session.
#[derive(Debug)]
pub(crate) struct Pulls {
    mode: Mode,
    last_id: u64,
    /// Open requests with the messages asked for.
    open: Vec<(u64, u64)>,
    /// Messages that may still be asked for; `None` = as many as there are.
    limit: Option<u64>,
    /// Messages that the open requests may still bring.
    left: u64,
    /// The next message is larger than a request's bytes: it is asked for alone, without a limit.
    alone: bool,
}

/// What the end of a request tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Of the asked messages, those that didn't come.
    pub(crate) messages: u64,
    /// Of the asked bytes, those that weren't used.
    pub(crate) bytes: u64,
    /// It did not expire, the server ended it (status 409).
    pub(crate) refused: bool,
}

impl Pulls {
    /// `limit`: how many messages are asked for altogether.
    pub(crate) fn new(mode: Mode, limit: Option<u64>) -> Self {
        Pulls {
            mode,
            limit,
            last_id: 0,
            open: Vec::new(),
            left: 0,
            alone: false,
        }
    }

    /// Whether all that may be asked for has come.
    pub(crate) fn is_done(&self) -> bool {
        self.limit == Some(0) && self.left == 0
    }

    fn batch(&self) -> u64 {
        let batch = if self.alone { 1 } else { BATCH };
        self.limit.map_or(batch, |limit| batch.min(limit))
    }

    /// The request to send now, if any: its id and body. Call [`Pulls::sent`] when it is on its way.
    pub(crate) fn wanted(&self) -> Option<(u64, Value)> {
        let id = self.last_id + 1;
        let batch = self.batch();
        if batch == 0 {
            return None;
        }
        let wait = match self.mode {
            Mode::Follow => json!({
                "expires": nanoseconds(EXPIRES),
                "idle_heartbeat": nanoseconds(HEARTBEAT),
            }),
            Mode::ToEnd => json!({ "no_wait": true }),
        };
        let mut body = wait;
        body["batch"] = json!(batch);
        if self.alone {
            return self.open.is_empty().then_some((id, body));
        }
        body["max_bytes"] = json!(BATCH_BYTES);
        let room = match self.mode {
            Mode::Follow => self.open.len() < 2 && self.left < BATCH / 2,
            // The server answers a second one without waiting with "requests pending".
            Mode::ToEnd => self.open.is_empty(),
        };
        room.then_some((id, body))
    }

    /// The wanted request was sent.
    pub(crate) fn sent(&mut self, id: u64) {
        let batch = self.batch();
        self.last_id = id;
        self.open.push((id, batch));
        self.left += batch;
        self.limit = self.limit.map(|limit| limit - batch);
    }

    /// A message came.
    pub(crate) fn delivered(&mut self) {
        self.alone = false;
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.open.clear();
        }
    }

    /// The server ended a request.
    pub(crate) fn ended(&mut self, id: u64, rest: &Ended) {
        let Some(at) = self.open.iter().position(|&(open, _)| open == id) else {
            return;
        };
        let (_, batch) = self.open.swap_remove(at);
        self.limit = self.limit.map(|limit| limit + rest.messages.min(batch));
        self.left = if self.open.is_empty() {
            0
        } else {
            self.left.saturating_sub(rest.messages)
        };
        // Refused before anything of it was used: its bytes are too few for the next message.
        self.alone = rest.refused && rest.messages == batch && rest.bytes == BATCH_BYTES;
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_larger_than_a_request_is_asked_for_alone() {
        let mut pulls = Pulls::new(Mode::Follow, None);
        let (id, body) = pulls.wanted().unwrap();
        assert_eq!(body["max_bytes"], BATCH_BYTES);
        pulls.sent(id);
        pulls.ended(
            id,
            &Ended {
                messages: BATCH,
                bytes: BATCH_BYTES,
                refused: true,
            },
        );
        let (id, body) = pulls.wanted().unwrap();
        assert_eq!((&body["batch"], body.get("max_bytes")), (&json!(1), None));
        pulls.sent(id);
        assert_eq!(pulls.wanted(), None);
        pulls.delivered();
        let (_, body) = pulls.wanted().unwrap();
        assert_eq!(body["batch"], BATCH);
    }

    #[test]
    fn a_request_that_expires_is_renewed_as_it_was() {
        let mut pulls = Pulls::new(Mode::Follow, None);
        pulls.sent(1);
        pulls.ended(
            1,
            &Ended {
                messages: BATCH,
                bytes: BATCH_BYTES,
                refused: false,
            },
        );
        assert_eq!(pulls.wanted().unwrap().1["batch"], BATCH);
    }

    proptest! {
        /// A server that serves requests in turns: the reader never has more than two requests' messages to come,
        /// and never stops asking while messages are there.
        #[test]
        fn never_stalls_and_never_asks_too_much(follow: bool, ends in proptest::collection::vec((0_u64..9000, any::<bool>()), 1..60)) {
            let mut pulls = Pulls::new(if follow { Mode::Follow } else { Mode::ToEnd }, None);
            let mut server: Vec<(u64, u64)> = Vec::new();
            for (messages, cut) in ends {
                while let Some((id, body)) = pulls.wanted() {
                    server.push((id, body["batch"].as_u64().unwrap()));
                    pulls.sent(id);
                }
                prop_assert!(!server.is_empty(), "nothing is asked for");
                prop_assert!(server.iter().map(|(_, left)| left).sum::<u64>() <= 2 * BATCH);
                for turn in 0..messages {
                    if server.is_empty() {
                        break;
                    }
                    let at = usize::try_from(turn).unwrap() % server.len();
                    server[at].1 -= 1;
                    pulls.delivered();
                    if server[at].1 == 0 {
                        let (id, _) = server.remove(at);
                        pulls.ended(id, &Ended { messages: 0, bytes: 5, refused: true });
                    }
                }
                if cut && !server.is_empty() {
                    let (id, left) = server.remove(0);
                    pulls.ended(id, &Ended { messages: left, bytes: 1, refused: true });
                }
            }
        }
    }
}
