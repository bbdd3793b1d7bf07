//! Wall-clock time: the one place that asks the machine for it, and the one way in which it is written.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment: milliseconds since 1970-01-01 00:00 UTC. Written as RFC 3339 text, `2026-11-23T22:00:00.000Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

/// The text is not a moment.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a time: write it as 2026-11-23T22:00:00.000Z")]
pub struct TimestampError(String);

/// The present moment. A clock set before 1970 reads as 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the module that owns the clock")]
pub fn now() -> Timestamp {
    if let Some(double) = super::double::placed() {
        return double.now();
    }
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// One moment's calendar fields.
struct Civil {
    year: i64,
    month: u64,
    day: u64,
}

const DAY_SECONDS: u64 = 86_400;

/// The date of a day counted from 1970-01-01, by counting 400-year eras that begin on 1 March.
fn civil(day_number: u64) -> Civil {
    let shifted = day_number + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = i64::try_from(year_of_era + era * 400).unwrap_or(i64::MAX) + i64::from(month <= 2);
    Civil { year, month, day }
}

/// The inverse of [`civil`]; `None` before 1970 and for fields that no date has.
fn day_number(date: &Civil) -> Option<u64> {
    if !(1..=12).contains(&date.month) || !(1..=31).contains(&date.day) || !(1970..=9999).contains(&date.year) {
        return None;
    }
    let year = u64::try_from(date.year).ok()? - u64::from(date.month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = (date.month + 9) % 12;
    let of_year = (153 * shifted_month + 2) / 5 + date.day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    (era * 146_097 + of_era).checked_sub(719_468)
}

impl Timestamp {
    /// The moment `after` this one.
    #[must_use]
    pub fn plus(self, after: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` to this moment; zero where `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The same moment as the standard library writes it.
    #[must_use]
    pub fn system_time(self) -> std::time::SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000;
        let date = civil(seconds / DAY_SECONDS);
        let of_day = seconds % DAY_SECONDS;
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            date.year,
            date.month,
            date.day,
            of_day / 3_600,
            of_day / 60 % 60,
            of_day % 60,
            self.0 % 1_000
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({self})")
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| TimestampError(text.to_owned()))
    }
}

/// Reads what `Display` writes; the fraction may have any number of digits, or be absent.
fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !text.is_ascii() || bytes.len() < 20 || marks.iter().any(|&(at, mark)| bytes[at] != mark) {
        return None;
    }
    let field = |from: usize, to: usize| -> Option<u64> {
        bytes[from..to].iter().all(u8::is_ascii_digit).then(|| text[from..to].parse().ok())?
    };
    let date = Civil { year: i64::try_from(field(0, 4)?).ok()?, month: field(5, 7)?, day: field(8, 10)? };
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let fraction = text[19..].strip_suffix('Z')?;
    let millis = match fraction.strip_prefix('.') {
        None if fraction.is_empty() => 0,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            let padded = format!("{digits:0<3}");
            padded[..3].parse().ok()?
        }
        _ => return None,
    };
    let day = day_number(&date)?;
    Some(Timestamp((day * DAY_SECONDS + hour * 3_600 + minute * 60 + second) * 1_000 + millis))
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    //! Known moments print as other programs print them, every day of four centuries reads back, and junk is refused.
    use super::*;

    #[test]
    fn prints_known_moments() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_471_199_999, "2026-11-23T21:59:59.999Z"),
            (4_107_542_400_001, "2100-03-01T00:00:00.001Z"),
        ] {
            assert_eq!(Timestamp(millis).to_string(), text);
            assert_eq!(text.parse::<Timestamp>().unwrap(), Timestamp(millis));
        }
    }

    #[test]
    fn reads_back_every_day() {
        for day in 0..146_097 {
            let moment = Timestamp((day * DAY_SECONDS + day % DAY_SECONDS) * 1_000);
            assert_eq!(moment.to_string().parse::<Timestamp>().unwrap(), moment);
        }
    }

    #[test]
    fn refuses_junk() {
        for text in [
            "",
            "2026",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.Z",
            "1969-01-01T00:00:00Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
        assert_eq!("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap().0 % 1_000, 0);
    }
}
