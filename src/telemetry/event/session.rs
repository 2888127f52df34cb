//! What happens to clients.

use std::net::SocketAddr;
use std::time::Duration;

use tracing::{debug, info};

use crate::error::SqlState;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::vocabulary::{ErrorSource, LoginOutcome};
use crate::types::{SessionId, UserName};

/// A client logged in.
#[derive(Clone, Copy, Debug)]
pub struct SessionOpened<'a> {
    /// The client.
    pub session: SessionId,
    /// Its user.
    pub user: &'a UserName,
    /// The database it asked for.
    pub database: &'a str,
    /// Where it came from.
    pub address: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// What it calls itself, if it does.
    pub application: Option<&'a str>,
}

impl SessionOpened<'_> {
    /// Tells it.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.login(LoginOutcome::Accepted);
        let Self {
            session,
            user,
            database,
            address,
            tls,
            application,
        } = self;
        debug!(
            %session, user = user.as_str(), database, %address, tls, application, "session opened"
        );
    }
}

/// A session ended.
#[derive(Clone, Copy, Debug)]
pub struct SessionClosed<'a> {
    /// The client.
    pub session: SessionId,
    /// Its user.
    pub user: &'a UserName,
    /// Why, in a few words of the program's own, e.g., `"client closed"`.
    pub reason: &'static str,
    /// How long it lasted.
    pub duration: Duration,
}

impl SessionClosed<'_> {
    /// Tells it.
    pub fn emit(&self) {
        let Self {
            session,
            user,
            reason,
            duration,
        } = self;
        debug!(%session, user = user.as_str(), reason, seconds = duration.as_secs_f64(), "session closed");
    }
}

/// Somebody did not get in.
#[derive(Clone, Copy, Debug)]
pub struct LoginRefused<'a> {
    /// Where it came from.
    pub address: SocketAddr,
    /// The name it gave, if it came so far.
    pub user: Option<&'a str>,
    /// Why.
    pub outcome: LoginOutcome,
    /// The error it was told, if it was told one.
    pub sqlstate: Option<SqlState>,
}

impl LoginRefused<'_> {
    /// Tells it.
    pub fn emit(&self, metrics: &Metrics) {
        let Self {
            address,
            user,
            outcome,
            sqlstate,
        } = self;
        metrics.login(*outcome);
        if let Some(sqlstate) = sqlstate {
            let source = match outcome {
                LoginOutcome::WrongPassword | LoginOutcome::NotAllowed | LoginOutcome::Protocol => {
                    ErrorSource::Client
                }
                LoginOutcome::Accepted
                | LoginOutcome::Limit
                | LoginOutcome::Timeout
                | LoginOutcome::Unavailable => ErrorSource::Gateway,
            };
            metrics.error(sqlstate.as_str(), source);
        }
        info!(%address, user, outcome = outcome.as_str(), "login refused");
    }
}

/// A session keeps its backend connection from now on.
#[derive(Clone, Copy, Debug)]
pub struct SessionPinned {
    /// The client.
    pub session: SessionId,
    /// What it used that cannot be shared, in one word.
    pub reason: &'static str,
}

impl SessionPinned {
    /// Tells it.
    pub fn emit(&self, metrics: &Metrics) {
        let Self { session, reason } = self;
        metrics.pin(reason);
        debug!(%session, reason, "session pinned");
    }
}

/// A cancel request came.
#[derive(Clone, Copy, Debug)]
pub struct CancelRequested {
    /// Where it came from.
    pub address: SocketAddr,
    /// Whose query it means; `None` when nobody in this process has its key.
    pub session: Option<SessionId>,
    /// Whether a query ran and was cancelled.
    pub forwarded: bool,
}

impl CancelRequested {
    /// Tells it.
    pub fn emit(&self, metrics: &Metrics) {
        let Self {
            address,
            session,
            forwarded,
        } = self;
        let outcome = match (session, forwarded) {
            (_, true) => "forwarded",
            (None, false) => "unknown",
            (Some(_), false) => "idle",
        };
        metrics.cancel(outcome);
        let session = session.map(tracing::field::display);
        debug!(%address, session, outcome, "cancel requested");
    }
}
