//! What a client reads when its team is over a limit.

use std::fmt;
use std::time::Duration;

use crate::error::{ClientError, SqlState};
use crate::types::{HumanDuration, TeamName};

use super::admission::{QuotaLimits, Usage};

/// Which limit refused a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// Too many queries per minute.
    Rate,
    /// No place, and no place in the queue.
    QueueFull,
    /// It waited in the queue as long as it may.
    QueueWait,
}

impl RefusalReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Rate, Self::QueueFull, Self::QueueWait];

    /// The reason as logs and metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::QueueFull => "queue_full",
            Self::QueueWait => "queue_wait",
        }
    }
}

/// A query that may not run now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRefusal {
    /// Whose limit it is.
    pub team: TeamName,
    /// Which one.
    pub reason: RefusalReason,
    /// The limits in force.
    pub limits: QuotaLimits,
    /// What the team used at that moment, without this query.
    pub usage: Usage,
    /// When the rate has room again; `None` when that is not known, or never.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for QuotaRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            team,
            reason,
            limits,
            usage: _,
            retry_after: _,
        } = self;
        let places = Concurrent(limits.concurrent_queries.unwrap_or(0));
        match reason {
            RefusalReason::Rate => {
                let limit = limits.queries_per_minute.unwrap_or(0);
                write!(
                    f,
                    "team \"{team}\" is over its limit of {} per minute",
                    Queries(limit)
                )
            }
            RefusalReason::QueueFull => {
                write!(f, "team \"{team}\" is over its limit of {places}")?;
                match (limits.concurrent_queries, limits.queue_length()) {
                    (Some(0), _) | (_, 0) => Ok(()),
                    (_, queue) => write!(f, " and {queue} waiting"),
                }
            }
            RefusalReason::QueueWait => {
                let wait = HumanDuration(limits.queue_wait.unwrap_or_default());
                write!(
                    f,
                    "no place among the {places} of team \"{team}\" became free within its limit of {wait}"
                )
            }
        }
    }
}

impl std::error::Error for QuotaRefusal {}

impl ClientError for QuotaRefusal {
    fn sqlstate(&self) -> SqlState {
        match self.reason {
            RefusalReason::Rate | RefusalReason::QueueFull | RefusalReason::QueueWait => {
                SqlState::CONFIGURATION_LIMIT_EXCEEDED
            }
        }
    }

    fn detail(&self) -> Option<String> {
        let Usage { running, queued } = self.usage;
        let verb = |count| if count == 1 { "is" } else { "are" };
        Some(format!(
            "{} of the team {} running and {queued} {} waiting.",
            Queries(running),
            verb(running),
            verb(queued)
        ))
    }

    fn hint(&self) -> Option<String> {
        let QuotaLimits {
            concurrent_queries,
            queries_per_minute,
            ..
        } = self.limits;
        match (self.reason, self.retry_after) {
            (RefusalReason::Rate, Some(wait)) => Some(format!("Try again in {} s.", whole_seconds(wait))),
            (RefusalReason::Rate, None) if queries_per_minute == Some(0) => Some(NEVER.to_owned()),
            (RefusalReason::QueueFull, _) if concurrent_queries == Some(0) => Some(NEVER.to_owned()),
            (RefusalReason::Rate | RefusalReason::QueueFull | RefusalReason::QueueWait, _) => {
                Some("Try again when some of them have finished.".to_owned())
            }
        }
    }
}

const NEVER: &str = "The team may run no queries at all; ask an administrator to raise its limit.";

/// A query was cancelled because it ran longer than its team's queries may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("query cancelled after the time limit of {} of team \"{team}\"", HumanDuration(*.limit))]
pub struct QueryTimeExceeded {
    /// Whose limit it is.
    pub team: TeamName,
    /// The limit.
    pub limit: Duration,
}

impl ClientError for QueryTimeExceeded {
    fn sqlstate(&self) -> SqlState {
        SqlState::QUERY_CANCELED
    }

    fn hint(&self) -> Option<String> {
        Some(
            "Let the query read less, e.g., fewer days, or ask an administrator to raise \"query_time\" of the team."
                .to_owned(),
        )
    }
}

/// Rounded up, at least one: a client that comes back then is not too early.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs()
        .saturating_add(u64::from(wait.subsec_nanos() > 0))
        .max(1)
}

struct Queries(u32);

impl fmt::Display for Queries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, if self.0 == 1 { "query" } else { "queries" })
    }
}

struct Concurrent(u32);

impl fmt::Display for Concurrent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} concurrent {}",
            self.0,
            if self.0 == 1 { "query" } else { "queries" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_which_limit_the_usage_and_when_to_try_again() {
        let limits = QuotaLimits {
            concurrent_queries: Some(4),
            queue_length: Some(50),
            queue_wait: Some(Duration::from_secs(30)),
            queries_per_minute: Some(600),
            ..QuotaLimits::default()
        };
        let finished = "Try again when some of them have finished.";
        for (reason, limits, retry_after, message, hint) in [
            (
                RefusalReason::Rate,
                limits,
                Some(Duration::from_millis(2_100)),
                "team \"growth\" is over its limit of 600 queries per minute",
                "Try again in 3 s.",
            ),
            (
                RefusalReason::Rate,
                QuotaLimits {
                    queries_per_minute: Some(1),
                    ..limits
                },
                Some(Duration::ZERO),
                "team \"growth\" is over its limit of 1 query per minute",
                "Try again in 1 s.",
            ),
            (
                RefusalReason::Rate,
                QuotaLimits {
                    queries_per_minute: Some(0),
                    ..limits
                },
                None,
                "team \"growth\" is over its limit of 0 queries per minute",
                NEVER,
            ),
            (
                RefusalReason::QueueFull,
                limits,
                None,
                "team \"growth\" is over its limit of 4 concurrent queries and 50 waiting",
                finished,
            ),
            (
                RefusalReason::QueueFull,
                QuotaLimits {
                    concurrent_queries: Some(1),
                    queue_length: Some(0),
                    ..limits
                },
                None,
                "team \"growth\" is over its limit of 1 concurrent query",
                finished,
            ),
            (
                RefusalReason::QueueFull,
                QuotaLimits {
                    concurrent_queries: Some(0),
                    ..limits
                },
                None,
                "team \"growth\" is over its limit of 0 concurrent queries",
                NEVER,
            ),
            (
                RefusalReason::QueueWait,
                limits,
                None,
                "no place among the 4 concurrent queries of team \"growth\" became free within its limit of 30s",
                finished,
            ),
        ] {
            let usage = Usage {
                running: 1,
                queued: 12,
            };
            let refusal = QuotaRefusal {
                team: TeamName::new("growth"),
                reason,
                limits,
                usage,
                retry_after,
            };
            assert_eq!(refusal.to_string(), message);
            assert_eq!(refusal.hint().as_deref(), Some(hint), "{message}");
            assert_eq!(refusal.sqlstate().as_str(), "53400");
            assert_eq!(
                refusal.detail().as_deref(),
                Some("1 query of the team is running and 12 are waiting.")
            );
        }
    }

    #[test]
    fn a_query_over_its_time_reads_as_a_cancelled_one() {
        let error = QueryTimeExceeded {
            team: TeamName::new("growth"),
            limit: Duration::from_mins(5),
        };
        assert_eq!(
            error.to_string(),
            "query cancelled after the time limit of 5min of team \"growth\""
        );
        assert_eq!(error.sqlstate().as_str(), "57014");
        assert!(error.hint().is_some());
    }
}
