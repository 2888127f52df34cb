//! What happens to clients.

use std::net::SocketAddr;
use std::time::Duration;

use tracing::{debug, info};

use super::causes;
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
    /// How it proved who it is, e.g. `"scram-sha-256"`.
    pub method: &'static str,
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
            method,
            application,
        } = self;
        info!(
            %session, user = user.as_str(), database, %address, tls, method, application, "session opened"
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
    /// The database it asked for, if it came so far.
    pub database: Option<&'a str>,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Why.
    pub outcome: LoginOutcome,
    /// The error it was told, if it was told one.
    pub sqlstate: Option<SqlState>,
    /// The same with its causes, which it was not told.
    pub error: &'a (dyn std::error::Error + 'static),
}

impl LoginRefused<'_> {
    /// Tells it.
    pub fn emit(&self, metrics: &Metrics) {
        let Self {
            address,
            user,
            database,
            tls,
            outcome,
            sqlstate,
            error,
        } = self;
        metrics.login(*outcome);
        if let Some(sqlstate) = sqlstate {
            let source = match outcome {
                LoginOutcome::WrongPassword | LoginOutcome::NotAllowed | LoginOutcome::Protocol => {
                    ErrorSource::Client
                }
                LoginOutcome::Barred => ErrorSource::Client,
                LoginOutcome::Accepted
                | LoginOutcome::Limit
                | LoginOutcome::Timeout
                | LoginOutcome::Unavailable => ErrorSource::Gateway,
            };
            metrics.error(sqlstate.as_str(), source);
        }
        let sqlstate = sqlstate.map(SqlState::as_str);
        info!(
            %address,
            user,
            database,
            tls,
            outcome = outcome.as_str(),
            sqlstate,
            error = causes(*error),
            "login refused"
        );
    }
}

/// An administrator gave a command at the console.
#[derive(Clone, Copy, Debug)]
pub struct ConsoleCommanded<'a> {
    /// Who.
    pub user: &'a UserName,
    /// The command, e.g. `"KILL"`, without what follows it.
    pub command: &'static str,
    /// What follows it; 200 characters of it are told.
    pub arguments: &'a str,
    /// The SQLSTATE of the error, if it was not done.
    pub sqlstate: Option<SqlState>,
}

impl ConsoleCommanded<'_> {
    /// Tells it: what only shows something at DEBUG, since monitors ask all the time.
    pub fn emit(&self) {
        /// Names are short; what is longer is no name.
        const SHOWN: usize = 200;
        let Self {
            user,
            command,
            arguments,
            sqlstate,
        } = self;
        let end = arguments.char_indices().nth(SHOWN).map(|(end, _)| end);
        let arguments = end.and_then(|end| arguments.get(..end)).unwrap_or(arguments);
        let (user, sqlstate) = (user.as_str(), sqlstate.map(SqlState::as_str));
        if command.starts_with("SHOW") {
            debug!(user, command, arguments, sqlstate, "console command");
        } else {
            info!(user, command, arguments, sqlstate, "console command");
        }
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
