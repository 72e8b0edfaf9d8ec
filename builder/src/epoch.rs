//! The one time of an image, and the version of every rule that decides bytes.
//!
//! Must never know the clock: an [`Epoch`] comes from a spec, a lock or a locked source, and nowhere else.

use std::fmt;
use std::str::FromStr;

/// Seconds since 1970-01-01T00:00:00Z, from 0 to the end of the year 9999 (what RFC 3339 can write).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(i64);

/// Why something is not an epoch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// Before 1970 or after 9999.
    #[error("an epoch lies between 1970-01-01T00:00:00Z and 9999-12-31T23:59:59Z")]
    Range,
    /// Not of the form `2026-11-21T00:53:02Z`.
    #[error("`{0}` is not a time of the form `2026-11-21T00:53:02Z`")]
    Form(String),
}

const LAST: i64 = 253_402_300_799;
const DAY: i64 = 86_400;

impl Epoch {
    /// 2020-01-01T00:00:00Z, for what has no dated source. Part of format 1: changing it changes image bytes.
    pub const DEFAULT: Self = Self(1_577_836_800);

    /// This many seconds after 1970-01-01T00:00:00Z.
    pub const fn from_seconds(seconds: i64) -> Result<Self, EpochError> {
        if seconds >= 0 && seconds <= LAST {
            Ok(Self(seconds))
        } else {
            Err(EpochError::Range)
        }
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// Its year, month and day.
    pub fn date(self) -> (i64, i64, i64) {
        date_of_day(self.0 / DAY)
    }
}

/// RFC 3339 in UTC with whole seconds: `2026-11-21T00:53:02Z`.
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        let second = self.0 % DAY;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Epoch {
    type Err = EpochError;

    fn from_str(text: &str) -> Result<Self, EpochError> {
        let form = || EpochError::Form(text.to_owned());
        let bytes = text.as_bytes();
        let shape = b"0000-00-00T00:00:00Z";
        let matches = bytes.len() == shape.len()
            && bytes.iter().zip(shape).all(|(byte, want)| match want {
                b'0' => byte.is_ascii_digit(),
                _ => byte == want,
            });
        if !matches {
            return Err(form());
        }
        let number = |from: usize, to: usize| text[from..to].parse::<i64>().map_err(|_| form());
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let days = day_of_date(year, month, day);
        if date_of_day(days) != (year, month, day) || hour > 23 || minute > 59 || second > 59 {
            return Err(form());
        }
        Self::from_seconds(days * DAY + hour * 3600 + minute * 60 + second)
    }
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar.
fn day_of_date(year: i64, month: i64, day: i64) -> i64 {
    // The year is counted from March, so that the leap day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`day_of_date`].
fn date_of_day(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (
        year,
        month,
        day_of_year - (153 * month_from_march + 2) / 5 + 1,
    )
}

/// The number after `immbuild =`: freezes the language, the tar dialect, the JSON form, the surroundings of steps and
/// every default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FormatVersion {
    /// `immbuild = 1`.
    V1,
}

impl FormatVersion {
    /// The number a spec writes.
    pub const fn number(self) -> u32 {
        match self {
            Self::V1 => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_alike() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_577_836_800, "2020-01-01T00:00:00Z"),
            (1_795_222_382, "2026-11-21T00:53:02Z"),
            (2_147_483_648, "2038-01-19T03:14:08Z"),
            (LAST, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Epoch(seconds).to_string(), text);
            assert_eq!(text.parse(), Ok(Epoch(seconds)));
        }
    }

    #[test]
    fn days_that_never_were_are_refused() {
        for text in [
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01 00:00:00Z",
        ] {
            assert_eq!(text.parse::<Epoch>(), Err(EpochError::Form(text.into())));
        }
        assert_eq!(
            "1969-12-31T23:59:59Z".parse::<Epoch>(),
            Err(EpochError::Range)
        );
    }
}
