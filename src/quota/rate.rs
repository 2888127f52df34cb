//! Queries per minute at an even pace with bursts (the generic cell rate algorithm), on a clock that is told the time.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::RateLimiter;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};

use super::admission::QuotaLimits;

const MINUTE: Duration = Duration::from_mins(1);

/// Nanoseconds since the rate was made, set before each question. The caller asks under a lock.
#[derive(Clone, Debug, Default)]
struct GivenTime(Arc<AtomicU64>);

impl Clock for GivenTime {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// A team's rate.
#[derive(Debug)]
pub(super) struct Rate {
    per_minute: Option<u32>,
    burst: Option<u32>,
    origin: Instant,
    time: GivenTime,
    pace: Pace,
}

#[derive(Debug)]
enum Pace {
    Unlimited,
    Limited(RateLimiter<NotKeyed, InMemoryState, GivenTime, NoOpMiddleware<Duration>>),
    Never,
}

/// Too soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooSoon {
    /// When there is room again; `None` is never.
    pub(super) retry_after: Option<Duration>,
}

impl Rate {
    pub(super) fn new(limits: &QuotaLimits, now: Instant) -> Self {
        let time = GivenTime::default();
        let pace = match limits.queries_per_minute {
            None => Pace::Unlimited,
            Some(per_minute) => NonZeroU32::new(per_minute)
                .and_then(|per_minute| {
                    let burst = limits.burst.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
                    let burst = if limits.burst.is_none() { per_minute } else { burst };
                    Some(governor::Quota::with_period(MINUTE / per_minute.get())?.allow_burst(burst))
                })
                .map_or(Pace::Never, |quota| {
                    Pace::Limited(RateLimiter::direct_with_clock(quota, time.clone()))
                }),
        };
        let QuotaLimits {
            queries_per_minute: per_minute,
            burst,
            ..
        } = *limits;
        Self {
            per_minute,
            burst,
            origin: now,
            time,
            pace,
        }
    }

    /// Whether `limits` ask for the same rate, so that what was used counts on.
    pub(super) fn fits(&self, limits: &QuotaLimits) -> bool {
        self.per_minute == limits.queries_per_minute && self.burst == limits.burst
    }

    /// Uses up one query, if there is room for one at `now`.
    pub(super) fn take(&self, now: Instant) -> Result<(), TooSoon> {
        let limiter = match &self.pace {
            Pace::Unlimited => return Ok(()),
            Pace::Never => return Err(TooSoon { retry_after: None }),
            Pace::Limited(limiter) => limiter,
        };
        let elapsed = now.saturating_duration_since(self.origin);
        // threads may come here out of order; time never goes back
        self.time.0.fetch_max(
            u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        limiter.check().map_err(|until| TooSoon {
            retry_after: Some(until.wait_time_from(self.time.now())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_minute: Option<u32>, burst: Option<u32>, now: Instant) -> Rate {
        Rate::new(
            &QuotaLimits {
                queries_per_minute: per_minute,
                burst,
                ..QuotaLimits::default()
            },
            now,
        )
    }

    #[test]
    fn a_burst_passes_and_the_rest_keeps_the_pace() {
        let start = Instant::now();
        // one a second, three at once
        let rate = rate(Some(60), Some(3), start);
        let ok = Ok(());
        let wait = |ms| {
            Err(TooSoon {
                retry_after: Some(Duration::from_millis(ms)),
            })
        };
        for (at_ms, answer) in [
            (0, ok),
            (0, ok),
            (0, ok),
            (0, wait(1_000)),
            (400, wait(600)),
            (300, wait(600)),
            (1_000, ok),
            (1_000, wait(1_000)),
            (60_000, ok),
            (60_000, ok),
            (60_000, ok),
            (60_000, wait(1_000)),
        ] {
            assert_eq!(
                rate.take(start + Duration::from_millis(at_ms)),
                answer,
                "at {at_ms} ms"
            );
        }
    }

    #[test]
    fn the_ends_of_the_range_hold() {
        let start = Instant::now();
        let passed = |per_minute, burst| {
            let rate = rate(per_minute, burst, start);
            (0..100).filter(|_| rate.take(start).is_ok()).count()
        };
        for (per_minute, burst, count) in [
            (None, None, 100),
            (Some(0), None, 0),
            (Some(0), Some(10), 0),
            (Some(1), None, 1),
            (Some(60), Some(0), 1),
            (Some(60), None, 60),
            (Some(u32::MAX), None, 100),
            (Some(u32::MAX), Some(u32::MAX), 100),
        ] {
            assert_eq!(passed(per_minute, burst), count, "{per_minute:?} {burst:?}");
        }
        assert_eq!(
            rate(Some(0), None, start).take(start),
            Err(TooSoon { retry_after: None })
        );
    }
}
