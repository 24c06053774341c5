//! Points in time as plain values. The model never reads a clock: times come in as arguments.

use serde::{Deserialize, Serialize};
use std::fmt;

const MILLIS_PER_DAY: i64 = 86_400_000;

/// Milliseconds since 1970-01-01T00:00:00Z, ignoring leap seconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Earliest and latest times that RFC 3339 can write: the years 0000 and 9999.
    const MILLIS_MIN: i64 = -62_167_219_200_000;
    const MILLIS_MAX: i64 = 253_402_300_799_999;

    /// A time of this many milliseconds, held within the years 0000 to 9999.
    pub fn from_millis(millis: i64) -> Self {
        Timestamp(millis.clamp(Self::MILLIS_MIN, Self::MILLIS_MAX))
    }

    /// Milliseconds since the epoch.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// This time and a duration in milliseconds; held at the end of the year 9999.
    #[must_use]
    pub fn plus_millis(self, millis: u64) -> Self {
        Self::from_millis(
            self.0
                .saturating_add(i64::try_from(millis).unwrap_or(i64::MAX)),
        )
    }

    /// Milliseconds from `earlier` until this time; 0 if it is not later.
    pub fn millis_since(self, earlier: Timestamp) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// Reads RFC 3339, as CloudEvents `time` is written; digits below the millisecond are cut.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let number = |from: usize, digits: usize| -> Option<i64> {
            let part = bytes.get(from..from + digits)?;
            part.iter().try_fold(0_i64, |value, byte| {
                byte.is_ascii_digit()
                    .then(|| value * 10 + i64::from(byte - b'0'))
            })
        };
        let is =
            |at: usize, allowed: &[u8]| bytes.get(at).is_some_and(|byte| allowed.contains(byte));
        if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
        let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
        let mut at = 19;
        let mut millis = 0;
        if is(at, b".") {
            at += 1;
            let start = at;
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                if at - start < 3 {
                    millis += number(at, 1)? * [100, 10, 1].get(at - start).copied().unwrap_or(0);
                }
                at += 1;
            }
            if at == start {
                return None;
            }
        }
        let offset_minutes = if is(at, b"Zz") {
            at += 1;
            0
        } else {
            let sign = if is(at, b"+") {
                1
            } else if is(at, b"-") {
                -1
            } else {
                return None;
            };
            let (hours, minutes) = (number(at + 1, 2)?, number(at + 4, 2)?);
            if !is(at + 3, b":") || hours > 23 || minutes > 59 {
                return None;
            }
            at += 6;
            sign * (hours * 60 + minutes)
        };
        let valid = at == bytes.len()
            && (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day)
            && hour <= 23
            && minute <= 59
            && second <= 60;
        if !valid {
            return None;
        }
        let seconds = (hour * 60 + minute - offset_minutes) * 60 + second;
        Some(Self::from_millis(
            days_from_civil(year, month, day) * MILLIS_PER_DAY + seconds * 1000 + millis,
        ))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds: `2026-01-31T12:00:00.000Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.0.div_euclid(MILLIS_PER_DAY));
        let rest = self.0.rem_euclid(MILLIS_PER_DAY);
        let (hour, minute, second, millis) = (
            rest / 3_600_000,
            rest / 60_000 % 60,
            rest / 1000 % 60,
            rest % 1000,
        );
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"
        )
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since the epoch of a date of the proleptic Gregorian calendar. Years are counted from March, so that the
/// leap day is a year's last; 400 years always have 146,097 days.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T23:59:59.999Z", Some(951_868_799_999)),
            ("2026-11-21T10:00:00.1234567+02:00", Some(1_795_248_000_123)),
            ("1969-12-31t23:59:59z", Some(-1000)),
            ("2026-02-29T00:00:00Z", None),
            ("2026-01-01T00:00:00", None),
            ("2026-01-01T24:00:00Z", None),
            ("2026-01-01T00:00:00.Z", None),
            ("2026-01-01T00:00:00Zx", None),
        ] {
            assert_eq!(
                Timestamp::parse(text).map(Timestamp::millis),
                millis,
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn writing_and_reading_agree(millis in Timestamp::MILLIS_MIN..=Timestamp::MILLIS_MAX) {
            let time = Timestamp::from_millis(millis);
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
        }

        #[test]
        fn no_text_panics(text in "[0-9TZtz:.+-]{0,32}|\\PC{0,32}") {
            let _ = Timestamp::parse(&text);
        }
    }
}
