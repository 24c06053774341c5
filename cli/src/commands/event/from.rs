//! Where reading begins, as people say it.

use crate::clock::now;
use tidemill_core::timestamp::Timestamp;
use tidemill_nats::ReadFrom;

/// `beginning`, `end`, a position, a time, or how long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// At the first event.
    Beginning,
    /// After the last event that is there.
    End,
    /// At this position.
    Position(u64),
    /// At the first event stored at or after this time.
    Time(Timestamp),
    /// At the first event stored so many milliseconds ago or later.
    Ago(u64),
}

impl From {
    /// What the reader is told.
    pub(crate) fn read_from(self) -> ReadFrom {
        match self {
            From::Beginning => ReadFrom::First,
            From::End => ReadFrom::New,
            From::Position(position) => ReadFrom::After(position.saturating_sub(1)),
            From::Time(time) => ReadFrom::Time(time),
            From::Ago(millis) => {
                let now = now().millis();
                let ago = i64::try_from(millis).unwrap_or(i64::MAX);
                ReadFrom::Time(Timestamp::from_millis(now.saturating_sub(ago)))
            }
        }
    }
}

impl std::str::FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" => return Ok(From::Beginning),
            "end" => return Ok(From::End),
            _ => {}
        }
        if let Ok(position) = text.parse() {
            return Ok(From::Position(position));
        }
        if let Some(time) = Timestamp::parse(text) {
            return Ok(From::Time(time));
        }
        ago(text).map(From::Ago).ok_or_else(|| {
            "say beginning, end, a position (17), a time (2026-01-31T12:00:00Z) or how long ago (30s, 15m, 2h, 7d)".to_owned()
        })
    }
}

fn ago(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let millis = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        for (text, expected) in [
            ("beginning", From::Beginning),
            ("end", From::End),
            ("17", From::Position(17)),
            (
                "1970-01-01T00:00:01Z",
                From::Time(Timestamp::from_millis(1_000)),
            ),
            ("30s", From::Ago(30_000)),
            ("2h", From::Ago(7_200_000)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "s",
            "-1",
            "yesterday",
            "1y",
            "é",
            "99999999999999999999d",
        ] {
            assert!(text.parse::<From>().is_err(), "{text}");
        }
    }
}
