//! What happens to requests.

use std::time::Duration;

use tracing::debug;

use crate::error::SqlState;
use crate::telemetry::metrics::TeamMetrics;
use crate::telemetry::vocabulary::{ErrorSource, RequestKind, RequestOutcome, Verdict};
use crate::types::{SessionId, UserName};

use super::micros;

/// How a request ended, with the error if there was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEnd<'a> {
    /// Every reply came.
    Completed,
    /// The client was told an error; of several the first.
    Failed {
        /// Its SQLSTATE, as sent.
        sqlstate: &'a str,
        /// Who made it.
        source: ErrorSource,
    },
    /// The client went away.
    Abandoned,
}

impl RequestEnd<'_> {
    /// The word for it.
    pub fn outcome(self) -> RequestOutcome {
        match self {
            Self::Completed => RequestOutcome::Completed,
            Self::Abandoned => RequestOutcome::Abandoned,
            Self::Failed { sqlstate, .. } if sqlstate == SqlState::QUERY_CANCELED.as_str() => {
                RequestOutcome::Cancelled
            }
            Self::Failed {
                sqlstate,
                source: ErrorSource::Gateway,
            } if sqlstate == SqlState::CONFIGURATION_LIMIT_EXCEEDED.as_str() => RequestOutcome::Refused,
            Self::Failed { .. } => RequestOutcome::Failed,
        }
    }
}

/// A request ended.
#[derive(Clone, Copy, Debug)]
pub struct RequestFinished<'a> {
    /// The client.
    pub session: SessionId,
    /// Its user.
    pub user: &'a UserName,
    /// What it ran.
    pub kind: RequestKind,
    /// How it ended.
    pub end: RequestEnd<'a>,
    /// How the cache took part.
    pub verdict: Verdict,
    /// Why, in one word; empty for a hit.
    pub reason: &'static str,
    /// The statement's shape.
    pub fingerprint: u128,
    /// Rows given to the client.
    pub rows: u64,
    /// Bytes of the answer.
    pub bytes: u64,
    /// Time the backend worked on it.
    pub backend_time: Duration,
    /// Time the backend would have worked, had the answer not come from memory or from another run.
    pub saved_time: Duration,
    /// Time it waited for a place of its team.
    pub queue_time: Duration,
    /// From its last byte to the last byte of its answer.
    pub total_time: Duration,
}

impl RequestFinished<'_> {
    /// Tells it. Some ten atomic additions when DEBUG is off.
    pub fn emit(&self, team: &TeamMetrics) {
        let outcome = self.end.outcome();
        team.request(self.kind, outcome);
        team.verdict(self.verdict, self.reason, self.total_time);
        team.result(self.rows, self.bytes);
        team.time(self.backend_time, self.saved_time, self.queue_time);
        let sqlstate = match self.end {
            RequestEnd::Completed | RequestEnd::Abandoned => None,
            RequestEnd::Failed { sqlstate, source } => {
                team.error(sqlstate, source);
                Some(sqlstate)
            }
        };
        debug!(
            target: "tollgate::request",
            session = %self.session,
            user = self.user.as_str(),
            team = team.team().as_str(),
            kind = self.kind.as_str(),
            outcome = outcome.as_str(),
            sqlstate,
            verdict = self.verdict.as_str(),
            reason = self.reason,
            fingerprint = %format_args!("{:032x}", self.fingerprint),
            rows = self.rows,
            bytes = self.bytes,
            backend_us = micros(self.backend_time),
            saved_us = micros(self.saved_time),
            queue_us = micros(self.queue_time),
            total_us = micros(self.total_time),
            "request finished"
        );
    }
}

/// A quota refused a request, or cut it short. The request's own event follows.
#[derive(Clone, Copy, Debug)]
pub struct QuotaRefused<'a> {
    /// The client.
    pub session: SessionId,
    /// Its user.
    pub user: &'a UserName,
    /// Which limit: `rate`, `queue_full`, `queue_wait` or `query_time`.
    pub reason: &'static str,
    /// Queries of the team that run.
    pub running: u32,
    /// Queries of the team that wait.
    pub queued: u32,
}

impl QuotaRefused<'_> {
    /// Tells it.
    pub fn emit(&self, team: &TeamMetrics) {
        let Self {
            session,
            user,
            reason,
            running,
            queued,
        } = self;
        team.rejection(reason);
        debug!(
            %session, user = user.as_str(), team = team.team().as_str(), reason, running, queued, "quota refused"
        );
    }
}
