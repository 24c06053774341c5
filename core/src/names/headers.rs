//! Headers that Tidemill writes on messages and rows. `Nats-*` are the server's, `ce-*` those of CloudEvents (`crate::envelope`).

/// What all of these names begin with.
pub const PREFIX: &str = "Tidemill-";

/// On requests to participants: the command id, the same over all attempts.
pub const COMMAND_ID: &str = "Tidemill-Command-Id";
/// On requests that take something back: the command id of what is to be taken back.
pub const COMPENSATES: &str = "Tidemill-Compensates";
/// On requests to participants: what belongs together, over all that an event sets off.
pub const CORRELATION_ID: &str = "Tidemill-Correlation-Id";

/// On rows and parked events: per source, the position of the last event folded, or of the parked one; several are joined
/// by `;` (see [`super::EventPosition`]).
pub const POSITION: &str = "Tidemill-Pos";
/// On rows: the revision that made them, 16 hex digits. On parked events: the key space they wait for.
pub const REVISION: &str = "Tidemill-Rev";

/// On parked events: why, a stable word.
pub const PARKED: &str = "Tidemill-Parked";
/// On parked events: the same for people; it never holds data of the event.
pub const ERROR: &str = "Tidemill-Error";
/// On parked events: when the source stored it, in milliseconds since 1970.
pub const STORED_AT: &str = "Tidemill-Stored-At";
/// On parked events: the subject it was stored at. Absent: the event was not copied and is read from its source.
pub const SUBJECT: &str = "Tidemill-Subject";
/// On parked events: what the names of the event's own headers begin with, so that none of them means anything here.
pub const ORIGINAL_PREFIX: &str = "Tidemill-H-";

/// The event's own name of a header of a parked event; `None` for ours.
#[must_use]
pub fn original(name: &str) -> Option<&str> {
    let (prefix, rest) = name.split_at_checked(ORIGINAL_PREFIX.len())?;
    prefix.eq_ignore_ascii_case(ORIGINAL_PREFIX).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_headers_are_taken_for_each_other() {
        let names = [
            COMMAND_ID,
            COMPENSATES,
            CORRELATION_ID,
            POSITION,
            REVISION,
            PARKED,
            ERROR,
            STORED_AT,
            SUBJECT,
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(name.starts_with(PREFIX), "{name}");
            assert_eq!(original(name), None);
            assert_eq!(original(&format!("{ORIGINAL_PREFIX}{name}")), Some(*name));
            for other in names.iter().skip(index + 1) {
                assert!(!name.eq_ignore_ascii_case(other), "{name}");
            }
        }
        assert_eq!(original("tidemill-h-ce-id"), Some("ce-id"));
        assert_eq!(original("Tidemill-"), None);
    }
}
