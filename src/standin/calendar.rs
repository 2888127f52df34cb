//! Days, without a clock and without time zones.

use std::fmt;
use std::time::SystemTime;

/// A day of the proleptic Gregorian calendar in UTC, as days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i32);

/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL's dates and timestamps begin.
const POSTGRES_EPOCH: i32 = 10_957;

/// Microseconds in a day.
pub(super) const DAY_MICROSECONDS: i64 = 86_400_000_000;

impl Day {
    /// The day that `now` is in. A clock before 1970 or after the year 5,881,580 gives 1970-01-01.
    pub fn of(now: SystemTime) -> Self {
        let seconds = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Self(i32::try_from(seconds / 86_400).unwrap_or(0))
    }

    /// The day `days` later; earlier when negative. Saturates.
    #[must_use]
    pub fn plus(self, days: i32) -> Self {
        Self(self.0.saturating_add(days))
    }

    /// Monday is 0, Sunday is 6.
    pub fn weekday(self) -> u8 {
        // 1970-01-01 was a Thursday
        u8::try_from((i64::from(self.0) + 3).rem_euclid(7)).unwrap_or(0)
    }

    /// As PostgreSQL's binary format of `date`: days since 2000-01-01.
    pub(super) fn postgres_date(self) -> i32 {
        self.0.saturating_sub(POSTGRES_EPOCH)
    }

    /// Midnight, as PostgreSQL's binary format of `timestamp`: microseconds since 2000-01-01.
    pub(super) fn postgres_midnight(self) -> i64 {
        i64::from(self.postgres_date()) * DAY_MICROSECONDS
    }
}

impl fmt::Display for Day {
    /// `YYYY-MM-DD`, by Howard Hinnant's `civil_from_days`
    /// (<https://howardhinnant.github.io/date_algorithms.html>).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shifted = i64::from(self.0) + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn days_have_names_and_weekdays() {
        for (day, name, weekday) in [
            (0, "1970-01-01", 3),
            (-1, "1969-12-31", 2),
            (10_957, "2000-01-01", 5),
            (11_016, "2000-02-29", 1),
            (20_454, "2026-01-01", 3),
            (20_513, "2026-03-01", 6),
            (-719_468, "0000-03-01", 2),
        ] {
            assert_eq!(Day(day).to_string(), name, "{day}");
            assert_eq!(Day(day).weekday(), weekday, "{name}");
        }
    }

    #[test]
    fn a_moment_is_in_its_day() {
        for (seconds, day) in [
            (0, 0),
            (86_399, 0),
            (86_400, 1),
            (1_767_225_599, 20_453),
            (u64::MAX / 4, 0),
        ] {
            let Some(now) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) else {
                continue;
            };
            assert_eq!(Day::of(now), Day(day), "{seconds}");
        }
    }

    #[test]
    fn postgres_counts_from_2000() {
        assert_eq!(Day(10_957).postgres_date(), 0);
        assert_eq!(Day(10_958).postgres_midnight(), DAY_MICROSECONDS);
    }
}
