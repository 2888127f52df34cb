//! One moment on both clocks: to tell when something began that only the steady clock saw.

use std::time::{Duration, Instant, SystemTime};

use crate::standin::Day;

/// A moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// On the steady clock.
    pub steady: Instant,
    /// On the clock on the wall.
    pub wall: SystemTime,
}

impl Moment {
    /// This one.
    pub(super) fn now() -> Self {
        Self {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// When `then` was, as PgBouncer writes it: `2026-01-31 12:00:00 UTC`.
    pub(super) fn time_of(&self, then: Instant) -> String {
        let age = self.steady.saturating_duration_since(then);
        let wall = self.wall.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let seconds = wall
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        format!("{} {hour:02}:{minute:02}:{second:02} UTC", Day::of(wall))
    }
}

/// Whole milliseconds.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_of_the_steady_clock_is_told_on_the_wall() {
        let steady = Instant::now();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_860_805);
        let later = Moment {
            steady: steady + Duration::from_secs(65),
            wall: wall + Duration::from_secs(65),
        };
        assert_eq!(later.time_of(steady), "2026-01-31 12:00:05 UTC");
        assert_eq!(later.time_of(later.steady), "2026-01-31 12:01:10 UTC");
    }
}
