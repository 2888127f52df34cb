//! Which server a request goes to: the primary, unless a reader would surely answer the same.

use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use super::backend::Backend;
use super::endpoints::{Endpoint, Freshness};
use super::error::ServeError;
use super::facts::{Facts, Form};
use super::notice::for_connection;
use super::run::Stopped;
use super::session::{Binding, Session};
use crate::backend::{BackendError, Connector};
use crate::config::{BackendKind, ReadAfterWrite};
use crate::pool::{CheckoutError, Connect as _, Failure, Lease};
use crate::telemetry::event::{BackendConnected, BackendUnreachable};
use crate::wire::TransactionStatus;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// The primary.
    Primary,
    /// A reader that is as fresh as this, or else the primary.
    Reader(Freshness),
}

/// When a session wrote last, for what it reads then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wrote {
    /// It has not.
    #[default]
    Never,
    /// By its last request.
    Now,
    /// Before this moment.
    Before(Instant),
}

impl Wrote {
    /// The moment before which everything that was written is committed; `now`, when another request begins.
    fn settle(&mut self, now: Instant) -> Option<Instant> {
        if *self == Self::Now {
            *self = Self::Before(now);
        }
        match self {
            Self::Never | Self::Now => None,
            Self::Before(moment) => Some(*moment),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Which servers may answer the request. One whose answer is to be kept (`collects`) goes to a reader only if that has
    /// everything that was written through the gateway: the cache promises so.
    pub(super) fn wants(&mut self, facts: &Facts, collects: bool) -> Wants {
        let backend = &self.identity.team.backend;
        if backend.endpoints.readers().is_empty() {
            return Wants::Primary;
        }
        let wrote = self.wrote.settle(Instant::now());
        if !self.reads_alone(facts) {
            return Wants::Primary;
        }
        let Some((_, statement)) = facts.single() else {
            return Wants::Primary;
        };
        let database = &self.identity.database;
        let Some(catalog) = database.watch.current() else {
            return Wants::Primary;
        };
        let verdicts = self
            .judged
            .verdicts(&self.gateway, statement, database, &catalog, &self.search_path);
        if !verdicts.elsewhere {
            return Wants::Primary;
        }
        let own = wrote.filter(|_| backend.read_after_write == ReadAfterWrite::Primary);
        // of what was written before the gateway began nothing is known
        let last = || self.gateway.tags.last_write().unwrap_or(self.gateway.started);
        let everybodys = collects.then(last);
        Wants::Reader(Freshness {
            since: own.max(everybodys),
            definitions: database.watch.changed(),
        })
    }

    /// Whether the request is by itself, outside of a transaction, in a session that has nothing at the primary.
    fn reads_alone(&self, facts: &Facts) -> bool {
        let alone = match facts.form {
            Form::Simple | Form::Portal(_) => !facts.unknown && !facts.names_statement,
            Form::Series => false,
        };
        // a standby takes no transaction that is serializable, or that writes
        let plain = ["default_transaction_isolation", "default_transaction_read_only"]
            .iter()
            .all(|name| self.settings.value(name).is_none());
        let backend = &self.identity.team.backend;
        let plain =
            plain && (backend.kind == BackendKind::Redshift || self.identity.greeting.reads_committed);
        alone
            && plain
            && matches!(self.binding, Binding::Free)
            // also one that the backend has not heard of yet
            && self.status() == TransactionStatus::Idle
            && !self.pins.any()
            && self.backslash.is_some()
            && !self.path_unknown
            && !self.settings_unknown
    }

    /// A connection to a reader that is as fresh as that, with the session's settings; false when there is none.
    pub(super) async fn bind_reader(&mut self, freshness: Freshness) -> Result<bool, Stopped> {
        let backend = Arc::clone(&self.identity.team.backend);
        let asked = Instant::now();
        for reader in backend.endpoints.fitting(freshness, asked) {
            let idle = reader
                .pool
                .checkout_idle(&self.identity.key, |idle| idle.suits(&self.settings, &[]));
            let lease = if let Some(lease) = idle {
                lease
            } else {
                match Box::pin(self.wait_for_reader(&backend, reader, asked)).await? {
                    Some(lease) => lease,
                    None => continue,
                }
            };
            // settings of somebody's own are left there; the primary's connections are opened anew for that
            if !lease.suits(&self.settings, &[]) {
                continue;
            }
            let fresh = lease.fresh();
            match self.hold(lease).await {
                Ok(()) => {
                    backend.metrics.checkout(asked.elapsed());
                    if fresh {
                        BackendConnected {
                            duration: asked.elapsed(),
                        }
                        .emit(&backend.metrics);
                    }
                    return Ok(true);
                }
                Err(Stopped::Refused(ServeError::Unavailable(error))) if refuses(&error) => {
                    // it is the setting that is refused: the primary says so, too
                    return Ok(false);
                }
                Err(Stopped::Refused(error)) => backend.endpoints.note_failure(reader, &error.to_string()),
                Err(interrupted @ Stopped::Interrupted(_)) => return Err(interrupted),
            }
        }
        Ok(false)
    }

    /// A connection to `reader`; `None` where there is none to be had, and the next one, or at last the primary, can still
    /// answer.
    async fn wait_for_reader(
        &mut self,
        backend: &Backend,
        reader: &Endpoint,
        asked: Instant,
    ) -> Result<Option<Lease<Connector>>, Stopped> {
        self.card.note_waiting();
        let (key, after) = (&self.identity.key, self.identity.team.queue_notice);
        let checkout = reader.pool.checkout(key, backend.checkout_timeout());
        let notice = || for_connection(&backend.name, after, &reader.pool.jam(key, asked));
        let line = Self::attend_in_line(&mut self.client, &self.card, checkout, after, notice);
        match line.await {
            Ok(Ok(lease)) => return Ok(Some(lease)),
            Ok(Err(CheckoutError::Timeout { .. } | CheckoutError::Held(_))) => {}
            Ok(Err(CheckoutError::Connect(error))) => {
                if Connector::failure(&error) == Failure::Unreachable {
                    backend.endpoints.note_failure(reader, &causes(&*error));
                } else {
                    // it refuses this login, or has no place: others may be welcome
                    BackendUnreachable { error: &*error }.emit(&backend.metrics);
                }
            }
            Err(interrupted) => return Err(Stopped::Interrupted(interrupted)),
        }
        Ok(None)
    }
}

/// Whether a server that is well said no.
fn refuses(error: &BackendError) -> bool {
    matches!(error, BackendError::Refused { code, .. } if !code.starts_with("57"))
}

/// The error with its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.extend([": ", &cause.to_string()]);
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_over_when_the_next_request_begins() {
        let now = Instant::now();
        let later = now + std::time::Duration::from_secs(1);
        let mut wrote = Wrote::default();
        assert_eq!(wrote.settle(now), None);
        wrote = Wrote::Now;
        assert_eq!(wrote.settle(now), Some(now));
        assert_eq!(wrote.settle(later), Some(now));
    }
}
