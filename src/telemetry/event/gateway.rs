//! What happens to backends and to the gateway itself.

use std::net::SocketAddr;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::telemetry::metrics::{BackendMetrics, Metrics};
use crate::types::{BackendName, SessionId};

use super::{causes, micros};

/// A connection to a backend was made.
#[derive(Clone, Copy, Debug)]
pub struct BackendConnected {
    /// How long it took, login included.
    pub duration: Duration,
}

impl BackendConnected {
    /// Tells it.
    pub fn emit(&self, backend: &BackendMetrics) {
        backend.connected.inc();
        let name = backend.backend().as_str();
        debug!(
            backend = name,
            duration_us = micros(self.duration),
            "backend connected"
        );
    }
}

/// A connection to a backend could not be made.
#[derive(Clone, Copy, Debug)]
pub struct BackendUnreachable<'a> {
    /// Why.
    pub error: &'a (dyn std::error::Error + 'static),
}

impl BackendUnreachable<'_> {
    /// Tells it.
    pub fn emit(&self, backend: &BackendMetrics) {
        backend.failed.inc();
        warn!(
            backend = backend.backend().as_str(),
            error = causes(self.error),
            "backend unreachable"
        );
    }
}

/// A backend does not answer: requests for it are refused at once.
#[derive(Clone, Copy, Debug)]
pub struct CircuitOpened<'a> {
    /// Why the last attempt to connect failed.
    pub error: &'a (dyn std::error::Error + 'static),
}

impl CircuitOpened<'_> {
    /// Tells it.
    pub fn emit(&self, backend: &BackendMetrics) {
        warn!(
            backend = backend.backend().as_str(),
            error = causes(self.error),
            "circuit opened"
        );
    }
}

/// A command printed a password for a backend.
#[derive(Clone, Copy, Debug)]
pub struct PasswordRenewed<'a> {
    /// Whose, e.g. `growth@warehouse`.
    pub login: &'a str,
}

impl PasswordRenewed<'_> {
    /// Tells it.
    pub fn emit(&self) {
        debug!(login = self.login, "password renewed");
    }
}

/// A command did not print a password for a backend. The one before it stays in use.
#[derive(Clone, Copy, Debug)]
pub struct PasswordCommandFailed<'a> {
    /// Whose, e.g. `growth@warehouse`.
    pub login: &'a str,
    /// Why; nothing of what it printed.
    pub error: &'a (dyn std::error::Error + 'static),
    /// When it is run again.
    pub retry: Duration,
}

impl PasswordCommandFailed<'_> {
    /// Tells it.
    pub fn emit(&self) {
        warn!(
            login = self.login,
            error = causes(self.error),
            retry_s = self.retry.as_secs_f64(),
            "password command failed"
        );
    }
}

/// A backend answers again.
#[derive(Clone, Copy, Debug)]
pub struct CircuitClosed;

impl CircuitClosed {
    /// Tells it.
    pub fn emit(&self, backend: &BackendMetrics) {
        info!(backend = backend.backend().as_str(), "circuit closed");
    }
}

/// A connection to a backend broke while it was in use.
#[derive(Clone, Copy, Debug)]
pub struct BackendLost<'a> {
    /// Who used it.
    pub session: Option<SessionId>,
    /// Why.
    pub error: &'a (dyn std::error::Error + 'static),
}

impl BackendLost<'_> {
    /// Tells it.
    pub fn emit(&self, backend: &BackendMetrics) {
        backend.lost.inc();
        let session = self.session.map(tracing::field::display);
        warn!(
            backend = backend.backend().as_str(),
            session,
            error = causes(self.error),
            "backend lost"
        );
    }
}

/// A server of a backend answers, and did not before.
#[derive(Clone, Copy, Debug)]
pub struct EndpointUp<'a> {
    /// The backend.
    pub backend: &'a BackendName,
    /// Where the server is.
    pub address: &'a str,
}

impl EndpointUp<'_> {
    /// Tells it.
    pub fn emit(&self) {
        info!(
            backend = self.backend.as_str(),
            address = self.address,
            "server up"
        );
    }
}

/// A server of a backend does not answer, and did before.
#[derive(Clone, Copy)]
pub struct EndpointDown<'a> {
    /// The backend.
    pub backend: &'a BackendName,
    /// Where the server is.
    pub address: &'a str,
    /// Why.
    pub error: &'a dyn std::fmt::Display,
}

impl EndpointDown<'_> {
    /// Tells it.
    pub fn emit(&self) {
        warn!(
            backend = self.backend.as_str(),
            address = self.address,
            error = %self.error,
            "server down"
        );
    }
}

/// Another server is a backend's primary.
#[derive(Clone, Copy, Debug)]
pub struct PrimaryMoved<'a> {
    /// The backend.
    pub backend: &'a BackendName,
    /// Where it was.
    pub from: &'a str,
    /// Where it is.
    pub to: &'a str,
}

impl PrimaryMoved<'_> {
    /// Tells it.
    pub fn emit(&self) {
        warn!(
            backend = self.backend.as_str(),
            from = self.from,
            to = self.to,
            "primary moved"
        );
    }
}

/// The config file was loaded again.
#[derive(Clone, Copy, Debug)]
pub struct ConfigReloaded<'a> {
    /// What changed, one line each.
    pub changes: &'a [String],
}

impl ConfigReloaded<'_> {
    /// Tells it.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.reload("applied");
        info!(changes = ?self.changes, "config reloaded");
    }
}

/// The config file was read again and changed nothing, for it is wrong.
#[derive(Clone, Copy, Debug)]
pub struct ConfigRejected<'a> {
    /// What is wrong with it.
    pub error: &'a (dyn std::error::Error + 'static),
}

impl ConfigRejected<'_> {
    /// Tells it.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.reload("rejected");
        error!(
            error = causes(self.error),
            "config rejected, the one before stays in force"
        );
    }
}

/// The gateway takes clients.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
}

impl Listening {
    /// Tells it.
    pub fn emit(&self) {
        info!(address = %self.address, tls = self.tls, "listening");
    }
}

/// Another process accepts clients now; the sessions here go on.
#[derive(Clone, Copy, Debug)]
pub struct TakenOverBy {
    /// Clients that are here.
    pub clients: u64,
    /// How long they may stay.
    pub patience: Duration,
}

impl TakenOverBy {
    /// Tells it.
    pub fn emit(&self) {
        info!(
            clients = self.clients,
            patience_s = self.patience.as_secs_f64(),
            "taken over by another process"
        );
    }
}

/// The gateway finishes what runs and takes nothing more.
#[derive(Clone, Copy, Debug)]
pub struct Draining {
    /// Sessions that are open.
    pub sessions: u64,
    /// How long they may take.
    pub patience: Duration,
}

impl Draining {
    /// Tells it.
    pub fn emit(&self) {
        info!(
            sessions = self.sessions,
            patience_s = self.patience.as_secs_f64(),
            "draining"
        );
    }
}
