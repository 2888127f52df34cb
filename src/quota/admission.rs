//! May a query run now, must it wait, or is it refused: decided from numbers alone.

use std::time::Duration;

use super::refusal::RefusalReason;

/// Queries that may wait when `queue_length` is not set.
const QUEUE_LENGTH_DEFAULT: u32 = 10_000;

/// What one team may use. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Queries that run at the same time; more wait. 0 refuses all.
    pub concurrent_queries: Option<u32>,
    /// Queries that wait at the same time; more are refused. 0 refuses instead of waiting; `None` is 10,000.
    pub queue_length: Option<u32>,
    /// How long a query waits before it is refused.
    pub queue_wait: Option<Duration>,
    /// Queries per minute, at an even pace but for bursts. 0 refuses all.
    pub queries_per_minute: Option<u32>,
    /// Queries that may come at once after a quiet time, at least 1; `None` is a minute's worth.
    pub burst: Option<u32>,
    /// How long one query may run. Carried for whoever runs it.
    pub query_time: Option<Duration>,
}

impl QuotaLimits {
    pub(super) fn queue_length(&self) -> u32 {
        self.queue_length.unwrap_or(QUEUE_LENGTH_DEFAULT)
    }
}

/// What a team uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Queries that hold a place, those inside transactions included.
    pub running: u32,
    /// Queries that wait for one.
    pub queued: u32,
}

/// The verdict on a query that is about to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// There is a place, and nobody waits for it.
    Admit,
    /// It goes to the end of the queue.
    Wait,
    /// Neither.
    Refuse(RefusalReason),
}

/// Decides by places and queue; the rate is a matter of time and is asked afterwards.
pub fn decide(limits: &QuotaLimits, usage: Usage) -> Admission {
    let Some(places) = limits.concurrent_queries else {
        return Admission::Admit;
    };
    if usage.running < places && usage.queued == 0 {
        return Admission::Admit;
    }
    // without any place nobody would ever be called
    if places == 0 || usage.queued >= limits.queue_length() {
        return Admission::Refuse(RefusalReason::QueueFull);
    }
    Admission::Wait
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_runs_if_there_is_a_place_and_nobody_waits() {
        let full = Admission::Refuse(RefusalReason::QueueFull);
        for (places, length, running, queued, verdict) in [
            (None, None, 1_000, 0, Admission::Admit),
            (None, Some(0), 1_000, 0, Admission::Admit),
            (Some(4), None, 3, 0, Admission::Admit),
            (Some(4), None, 3, 1, Admission::Wait),
            (Some(4), None, 4, 0, Admission::Wait),
            (Some(4), None, 7, 0, Admission::Wait),
            (Some(4), None, 4, 9_999, Admission::Wait),
            (Some(4), None, 4, 10_000, full),
            (Some(4), Some(2), 4, 1, Admission::Wait),
            (Some(4), Some(2), 4, 2, full),
            (Some(4), Some(2), 4, 3, full),
            (Some(4), Some(0), 3, 0, Admission::Admit),
            (Some(4), Some(0), 4, 0, full),
            (Some(0), None, 0, 0, full),
        ] {
            let limits = QuotaLimits {
                concurrent_queries: places,
                queue_length: length,
                ..QuotaLimits::default()
            };
            let usage = Usage { running, queued };
            assert_eq!(decide(&limits, usage), verdict, "{places:?} {length:?} {usage:?}");
        }
    }
}
