//! Messages as a stream holds them, and the forms in which the server hands them out.

use crate::undeliverable::is_deliverable;
use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use serde::Deserialize;
use tidemill_core::timestamp::Timestamp;

/// One message of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredMessage {
    /// What it was published to, after the stream's subject transform if there is one.
    pub subject: Subject,
    /// Its place in the stream.
    pub sequence: u64,
    /// When the stream took it.
    pub stored_at: Timestamp,
    /// Its headers; absent if it has none.
    pub headers: Option<HeaderMap>,
    /// Its body.
    pub payload: Bytes,
    /// How many messages of the same filters were behind it when it was delivered; 0 where a single message was asked for.
    pub pending: u64,
}

/// The subject to which an expected last sequence applies, if it isn't the message's own.
const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

impl StoredMessage {
    /// Whether the server stored it on condition that nothing was at its subject. False says nothing: it may be the first all the same.
    #[must_use]
    pub fn was_stored_as_first(&self) -> bool {
        let Some(headers) = &self.headers else {
            return false;
        };
        let of_another = |name: &str| name.eq_ignore_ascii_case(EXPECTED_SUBJECT);
        let mut expected = headers.get_all(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE);
        expected.next().is_some_and(|value| value.as_str() == "0")
            && expected.next().is_none()
            && !headers.iter().any(|(name, _)| of_another(name.as_ref()))
    }
}

/// Headers as the client wants them. What can't be a header is left out: an event that was stored with its headers has none such.
#[must_use]
pub fn header_map(headers: impl IntoIterator<Item = (String, String)>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (
            name.parse::<async_nats::header::HeaderName>(),
            value.parse::<async_nats::header::HeaderValue>(),
        ) {
            map.append(name, value);
        }
    }
    map
}

/// Where a delivered message stands, as the reply subject of its delivery tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) stream_sequence: u64,
    /// Place in this consumer's deliveries, without gaps.
    pub(crate) consumer_sequence: u64,
    pub(crate) stored_at: Timestamp,
    pub(crate) pending: u64,
}

impl Delivery {
    /// Reads `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<tries>.<stream seq>.<consumer seq>.<nanoseconds>.<pending>[.<token>]`.
    pub(crate) fn parse(reply: &str) -> Option<Self> {
        let rest = reply.strip_prefix("$JS.ACK.")?;
        let mut tokens = [""; 10];
        let mut count = 0;
        for token in rest.split('.') {
            *tokens.get_mut(count)? = token;
            count += 1;
        }
        // Seven tokens are the old form; the new one has two more in front and may have one behind.
        let from = match count {
            7 => 3,
            9 | 10 => 5,
            _ => return None,
        };
        let number = |at: usize| tokens.get(at).and_then(|token| token.parse::<u64>().ok());
        Some(Delivery {
            stream_sequence: number(from)?,
            consumer_sequence: number(from + 1)?,
            stored_at: Timestamp::from_millis(i64::try_from(number(from + 2)? / 1_000_000).ok()?),
            pending: number(from + 3)?,
        })
    }
}

/// The server's own headers on the answer to a direct get.
const DIRECT_HEADERS: [&str; 5] = [
    "Nats-Stream",
    "Nats-Subject",
    "Nats-Sequence",
    "Nats-Time-Stamp",
    "Nats-Num-Pending",
];

/// Reads the answer to a direct get; `None` if it isn't one.
pub(crate) fn from_direct(message: Message) -> Option<StoredMessage> {
    let headers = message.headers?;
    // The server's own come last, should the message itself carry such names.
    let own = |name: &str| headers.get_last(name).map(|value| value.as_str());
    let subject = Subject::from(own("Nats-Subject")?);
    let sequence = own("Nats-Sequence")?.parse().ok()?;
    let stored_at = Timestamp::parse(own("Nats-Time-Stamp")?)?;
    let mut rest = HeaderMap::new();
    for (name, values) in headers.iter() {
        let name_text: &str = name.as_ref();
        if !DIRECT_HEADERS.contains(&name_text) {
            for value in values {
                rest.append(name.clone(), value.clone());
            }
        }
    }
    Some(StoredMessage {
        subject,
        sequence,
        stored_at,
        headers: (!rest.is_empty()).then_some(rest),
        payload: message.payload,
        pending: 0,
    })
}

/// A message in the JSON of `$JS.API.STREAM.MSG.GET`, which alone can carry every header block.
#[derive(Deserialize)]
pub(crate) struct RawMessage {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: String,
}

impl RawMessage {
    /// Its sequence, and whether the client can take its delivery.
    pub(crate) fn delivers(&self) -> (u64, bool) {
        let headers = decode_base64(&self.hdrs);
        (
            self.seq,
            headers.is_some_and(|headers| is_deliverable(&headers)),
        )
    }

    /// The message; header lines that are no headers are left out, what can't be in a value is replaced.
    pub(crate) fn into_stored(self) -> Option<StoredMessage> {
        let headers = parse_headers(&String::from_utf8_lossy(&decode_base64(&self.hdrs)?));
        Some(StoredMessage {
            subject: Subject::from(self.subject),
            sequence: self.seq,
            stored_at: Timestamp::parse(&self.time)?,
            headers: (!headers.is_empty()).then_some(headers),
            payload: Bytes::from(decode_base64(&self.data)?),
            pending: 0,
        })
    }
}

fn parse_headers(block: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // The first line is the version.
    for line in block.split("\r\n").skip(1) {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let name = name.trim();
        let value = value.trim().replace(['\r', '\n'], "\u{fffd}");
        if let Ok(name) = name.parse::<async_nats::header::HeaderName>()
            && let Ok(value) = value.parse::<async_nats::header::HeaderValue>()
        {
            headers.append(name, value);
        }
    }
    headers
}

/// Standard base64 with padding; `None` for anything else.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut decoded = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn deliveries_are_read_in_both_forms() {
        let delivery = Delivery {
            stream_sequence: 7,
            consumer_sequence: 3,
            stored_at: Timestamp::from_millis(1_795_248_000_123),
            pending: 12,
        };
        for reply in [
            "$JS.ACK.orders.c1.1.7.3.1795248000123456789.12",
            "$JS.ACK.hub.ABC.orders.c1.1.7.3.1795248000123456789.12",
            "$JS.ACK._.ABC.orders.c1.1.7.3.1795248000123456789.12.x9",
        ] {
            assert_eq!(Delivery::parse(reply), Some(delivery), "{reply}");
        }
        for reply in [
            "",
            "_INBOX.x",
            "$JS.ACK.orders.c1.1.7",
            "$JS.ACK.o.c.1.x.3.4.5",
            "$JS.ACK.1.2.3.4.5.6.7.8.9.0.1.2",
        ] {
            assert_eq!(Delivery::parse(reply), None, "{reply}");
        }
    }

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("YQ==", b"a"),
            ("YWI=", b"ab"),
            ("YWJj", b"abc"),
            ("/+8A", b"\xff\xef\0"),
        ] {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes), "{text}");
        }
        assert_eq!(decode_base64("a b"), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,80}", reply in "[$A-Z0-9.]{0,60}", block in "(NATS/1.0)?([a-z: \r\n\u{80}]{0,10}){0,8}") {
            let _ = (decode_base64(&text), parse_headers(&text), parse_headers(&block));
            let _ = (Delivery::parse(&reply), Delivery::parse(&format!("$JS.ACK.{reply}")));
            let _ = crate::credentials::from_text(&text).is_ok();
        }
    }

    #[test]
    fn broken_header_lines_are_left_out() {
        let headers = parse_headers(
            "NATS/1.0 junk\r\nce-type: A\r\nno colon\r\nbad name: x\r\nce-id:1\r\n\r\n",
        );
        assert_eq!(
            headers.get("ce-type").map(|value| value.as_str()),
            Some("A")
        );
        assert_eq!(headers.get("ce-id").map(|value| value.as_str()), Some("1"));
    }
}
