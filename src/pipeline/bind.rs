//! A connection for a request: the one that the session has, one that is free, or one that it waits for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use super::backend::Backend;
use super::error::ServeError;
use super::notice::for_connection;
use super::route::Wants;
use super::run::Stopped;
use super::session::{Binding, Session};
use crate::backend::{BackendError, Connection, Connector};
use crate::pool::{CheckoutError, Lease};
use crate::session::SettingValue;
use crate::telemetry::event::BackendConnected;
use crate::wire::TransactionStatus;

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// A connection with the session's settings, and without those of others' own, but for `defines`, which the request
    /// makes exist by itself.
    pub(super) async fn bind(&mut self, wants: Wants, defines: &[Arc<str>]) -> Result<(), Stopped> {
        if let Binding::Held(lease) = &mut self.binding {
            // a connection that is kept was set by the session itself, but for what a RESET left to be set again; while the
            // session is pinned, what is not known of it is its own affair
            let followed = lease.settings().is_some() || !self.pins.any();
            if lease.replies().settled() && lease.status() == TransactionStatus::Idle && followed {
                let restored = lease.restore(&self.settings).await;
                self.unnamed_here &= self.pins.any();
                return restored.map_err(|error| Stopped::Refused(self.drop_lease(error)));
            }
            return Ok(());
        }
        if let Wants::Reader(freshness) = wants
            && self.bind_reader(freshness).await?
        {
            return Ok(());
        }
        let backend = Arc::clone(&self.identity.team.backend);
        let patience = backend.checkout_timeout();
        let (pool, key) = (&backend.pool, &self.identity.key);
        let suits = |idle: &Connection| idle.suits(&self.settings, defines);
        // whoever has settings of its own takes a connection that has some, and leaves the others as they are
        let own = || {
            (!defines.is_empty()).then(|| pool.checkout_idle(key, |idle| idle.has_custom() && suits(idle)))?
        };
        if let Some(lease) = own().or_else(|| pool.checkout_idle(key, |idle| suits(idle))) {
            backend.metrics.checkout(Duration::ZERO);
            return self.hold(lease).await;
        }
        // few wait, and those who do need much room for it
        let lease = Box::pin(self.wait_for_connection(&backend, patience, defines)).await?;
        self.hold(lease).await
    }

    /// As [`Self::bind`] where none is free.
    async fn wait_for_connection(
        &mut self,
        backend: &Backend,
        patience: Duration,
        defines: &[Arc<str>],
    ) -> Result<Lease<Connector>, Stopped> {
        let asked = Instant::now();
        self.card.note_waiting();
        let checkout = backend.pool.checkout(&self.identity.key, patience);
        let after = self.identity.team.queue_notice;
        let notice = || for_connection(&backend.name, after, &backend.pool.jam(&self.identity.key, asked));
        let line = Self::attend_in_line(&mut self.client, &self.card, checkout, after, notice).await;
        let lease = match line {
            Ok(Ok(lease)) => lease,
            Ok(Err(error)) => return Err(Stopped::Refused(backend.no_connection(error).into())),
            Err(interrupted) => return Err(Stopped::Interrupted(interrupted)),
        };
        let lease = if lease.suits(&self.settings, defines) {
            lease
        } else {
            let renewed = Self::attend(&mut self.client, &self.card, lease.renew(&self.identity.key)).await;
            let error = |error| backend.no_connection(CheckoutError::Connect(error)).into();
            renewed
                .map_err(Stopped::Interrupted)?
                .map_err(|why| Stopped::Refused(error(why)))?
        };
        backend.metrics.checkout(asked.elapsed());
        if lease.fresh() {
            BackendConnected {
                duration: asked.elapsed(),
            }
            .emit(&backend.metrics);
        }
        Ok(lease)
    }

    /// Makes `lease` the session's, with its settings.
    pub(super) async fn hold(&mut self, mut lease: Lease<Connector>) -> Result<(), Stopped> {
        let asked = self.identity.database.numbers_asked();
        let mut made = lease.restore(&self.settings).await;
        if made.is_ok() && asked && lease.has_numbers() {
            made = lease.forget_numbers().await;
        }
        if made.is_ok() && self.is_read_otherwise(&lease) {
            made = lease.restore(&self.settings).await;
        }
        if let Err(error) = made {
            return Err(Stopped::Refused(ServeError::Unavailable(error)));
        }
        self.foreign_numbers = lease.has_numbers();
        lease.card().used_by(self.card.id.0);
        lease.card().speaks_for(self.card.key.id);
        self.unnamed_here = false;
        self.numbers_taken = false;
        self.binding = Binding::Held(lease);
        self.note_kept();
        Ok(())
    }

    /// Whether the connection was opened after a change of how the login's text is read, of which the client was not told: it
    /// quotes by what it was told, and that is a setting of its own from here on.
    fn is_read_otherwise(&mut self, lease: &Connection) -> bool {
        const RULE: &str = "standard_conforming_strings";
        let told = self.identity.greeting.parameters.get(RULE);
        let Some(told) = told.filter(|told| lease.parameters().get(RULE) != Some(told)) else {
            return false;
        };
        if self.settings.value(RULE).is_some() {
            return false;
        }
        self.settings.set(RULE, SettingValue::Plain(told.as_str().into()));
        self.settings_changed();
        // others are to be told how it is
        self.gateway.forget_greetings();
        true
    }

    /// Whether names still mean what they meant when the request was judged: a connection that was opened after `ALTER
    /// ROLE … SET search_path` begins with another path than the session was greeted with.
    pub(super) fn search_path_holds(&mut self) -> bool {
        let Binding::Held(lease) = &self.binding else {
            return true;
        };
        if *lease.default_search_path() == self.identity.default_search_path {
            return true;
        }
        self.identity.default_search_path = Arc::clone(lease.default_search_path());
        self.settings_changed();
        false
    }

    pub(super) fn drop_lease(&mut self, error: BackendError) -> ServeError {
        self.binding = Binding::Free;
        ServeError::Unavailable(error)
    }
}
