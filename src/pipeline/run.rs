//! A request at the backend: a place, a connection, the bytes, and what is left of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::ServeError;
use super::facts::{Facts, Form};
use super::lookup::Collecting;
use super::observe::Observer;
use super::relay::{Relay, RelayEnd};
use super::route::{Wants, Wrote};
use super::serve::{Served, Story};
use super::session::{Binding, Interrupted, Over, Session};
use super::settle::{Aftermath, take_over};
use crate::backend::{Asked, Asker, BackendError, Connector};
use crate::cache::WriteGuard;
use crate::error::ClientError;
use crate::pool::{CheckoutError, Lease};
use crate::quota::{Permit, QueryTimeExceeded};
use crate::session::{Ending, Request};
use crate::telemetry::ErrorSource;
use crate::telemetry::event::{BackendConnected, BackendLost, BackendUnreachable, QuotaRefused, RequestEnd};
use crate::wire::{self, FrontendTag, TransactionStatus};

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Lets the backend answer.
    pub(super) async fn serve_from_backend(
        &mut self,
        request: &Request,
        facts: Facts,
        collecting: Option<Collecting>,
        story: &mut Story,
    ) -> Served {
        let permit = match self.admit(story).await {
            Ok(permit) => permit,
            Err(Stopped::Refused(error)) => {
                self.refuse_with(request, &error, story);
                return Ok(());
            }
            Err(Stopped::Interrupted(why)) => return self.interrupted(request, why, None, story),
        };
        let limit = permit.time_limit();
        self.card.note_deadline(limit, story.began + story.queue_time);
        let wants = self.wants(&facts, collecting.is_some());
        let collecting = match self.bind(wants).await {
            Ok(()) => collecting.filter(|_| self.search_path_holds()),
            Err(Stopped::Refused(error)) => {
                self.refuse_with(request, &error, story);
                return Ok(());
            }
            Err(Stopped::Interrupted(why)) => return self.interrupted(request, why, limit, story),
        };
        self.run_request(request, facts, collecting, limit, story).await
    }

    /// A place of the team.
    async fn admit(&mut self, story: &mut Story) -> Result<Permit, Stopped> {
        let quota = Arc::clone(&self.identity.team.quota);
        if !matches!(self.binding, Binding::Free) && self.status() != TransactionStatus::Idle {
            return Ok(quota.admit_in_transaction(story.began));
        }
        self.card.note_waiting();
        match Self::attend(&mut self.client, &self.card, quota.admit(story.began)).await {
            Ok(Ok(permit)) => {
                story.queue_time = permit.waited();
                Ok(permit)
            }
            Ok(Err(refusal)) => {
                let usage = quota.snapshot(story.began);
                QuotaRefused {
                    session: self.card.id,
                    user: &self.identity.user,
                    reason: refusal.reason.as_str(),
                    running: usage.running,
                    queued: usage.queued,
                }
                .emit(&self.identity.team.metrics);
                Err(Stopped::Refused(refusal.into()))
            }
            Err(interrupted) => Err(Stopped::Interrupted(interrupted)),
        }
    }

    /// A connection with the session's settings.
    async fn bind(&mut self, wants: Wants) -> Result<(), Stopped> {
        if let Binding::Held(lease) = &mut self.binding {
            // a connection that is kept was set by the session itself, but for what a RESET left to be set again
            if lease.replies().settled() && lease.status() == TransactionStatus::Idle && self.pin.is_none() {
                let restored = lease.restore(&self.settings).await;
                self.unnamed_here = false;
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
        if let Some(lease) = backend.pool.checkout_idle(&self.identity.key) {
            backend.metrics.checkout(Duration::ZERO);
            return self.hold(lease).await;
        }
        let asked = Instant::now();
        self.card.note_waiting();
        let checkout = backend.pool.checkout(&self.identity.key, patience);
        let lease = match Self::attend(&mut self.client, &self.card, checkout).await {
            Ok(Ok(lease)) => lease,
            Ok(Err(CheckoutError::Timeout(patience))) => {
                return Err(Stopped::Refused(ServeError::Busy {
                    backend: backend.name.clone(),
                    patience,
                }));
            }
            Ok(Err(CheckoutError::Connect(error))) => {
                BackendUnreachable { error: &error }.emit(&backend.metrics);
                return Err(Stopped::Refused(ServeError::Unavailable(error)));
            }
            Err(interrupted) => return Err(Stopped::Interrupted(interrupted)),
        };
        backend.metrics.checkout(asked.elapsed());
        if lease.fresh() {
            BackendConnected {
                duration: asked.elapsed(),
            }
            .emit(&backend.metrics);
        }
        self.hold(lease).await
    }

    /// Makes `lease` the session's, with its settings.
    pub(super) async fn hold(&mut self, mut lease: Lease<Connector>) -> Result<(), Stopped> {
        if let Err(error) = lease.restore(&self.settings).await {
            return Err(Stopped::Refused(ServeError::Unavailable(error)));
        }
        lease.card().used_by(self.card.id.0);
        self.unnamed_here = false;
        self.binding = Binding::Held(lease);
        Ok(())
    }

    /// Whether names still mean what they meant when the request was judged: a connection that was opened after `ALTER
    /// ROLE … SET search_path` begins with another path than the session was greeted with.
    fn search_path_holds(&mut self) -> bool {
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

    fn drop_lease(&mut self, error: BackendError) -> ServeError {
        self.binding = Binding::Free;
        ServeError::Unavailable(error)
    }

    async fn run_request(
        &mut self,
        request: &Request,
        facts: Facts,
        collecting: Option<Collecting>,
        limit: Option<Duration>,
        story: &mut Story,
    ) -> Served {
        let idle = self.status() == TransactionStatus::Idle;
        let mut aftermath = Aftermath::of(
            &facts,
            &self.gateway,
            &mut self.judged,
            &self.identity.database,
            &self.search_path,
            idle,
        );
        self.path_unknown |= aftermath.moves_path;
        if self.path_unknown {
            aftermath.distrust_names();
        }
        for stale in &aftermath.stale {
            self.writes.add(stale);
        }
        if aftermath.changes_defaults {
            self.writes.add_defaults();
        }
        let database = Arc::clone(&self.identity.database);
        let guard = if aftermath.may_commit {
            self.writes.begin(&self.gateway.tags, database.scope)
        } else {
            None
        };
        if guard.is_some() {
            self.wrote = Wrote::Now;
        }

        let mut observer = Observer::new(facts.form != Form::Simple);
        let catalog = collecting.map(|collecting| {
            observer.fill = Some(collecting.fill);
            collecting.catalog
        });
        observer.told = self.told_parameters(&aftermath);
        observer.time_exceeded = limit.map(|limit| self.time_exceeded(limit));
        let Binding::Held(lease) = &mut self.binding else {
            return Err(Over::Client);
        };
        // whoever cancels from here on reaches the backend; who did before is heard now
        self.card.note_running(Arc::clone(lease.cancel_target()));
        let stopped = match (self.card.signals.timed_out(), self.card.signals.cancelled()) {
            (true, _) => Some(Interrupted::Timeout),
            (false, true) => Some(Interrupted::Cancelled),
            (false, false) => None,
        };
        if let Some(interrupted) = stopped {
            drop(guard);
            if idle {
                self.writes.clear();
            }
            let served = self.interrupted(request, interrupted, limit, story);
            self.release(Instant::now()).await;
            return served;
        }
        let prepares_unnamed = !facts.needs_unnamed || self.unnamed_here;
        let injected = !prepares_unnamed && inject_unnamed(&self.statements, lease);
        let to_send = if observer.collects() && hidden_describe(&facts, request).is_some() {
            send_with_describe(request, &facts, &mut self.client, lease)
        } else {
            let bytes = self.client.inbox().get(..request.len).unwrap_or_default();
            Facts::note_sent(request, bytes, lease);
            request.len
        };
        if facts.unknown && facts.parses_unnamed {
            // its text was not read, so it cannot be prepared elsewhere; the session is pinned
            self.statements.note_closed(b"");
        }
        // what an earlier part of the series still has to hear comes first
        observer.awaited = std::mem::take(&mut self.late);
        observer.awaited.extend(facts.confirmations);
        let began = Instant::now();
        let relay = Relay {
            client: &mut self.client,
            backend: lease,
            card: &self.card,
            observer: &mut observer,
            to_send,
            to_come: match request.ending {
                Ending::Long { left } => left,
                Ending::Call | Ending::Sync | Ending::Flush | Ending::Full => 0,
            },
            answered: match request.ending {
                Ending::Call | Ending::Sync | Ending::Flush => true,
                Ending::Full => false,
                Ending::Long { .. } => request
                    .frames
                    .last()
                    .is_some_and(|frame| frame.tag == FrontendTag::Query),
            },
        };
        let end = relay.run().await;
        let ended = Instant::now();
        story.backend_time = ended.saturating_duration_since(began);
        story.ended = Some(ended);
        story.rows = observer.rows;
        story.bytes = observer.bytes;
        self.card.note_query(false);
        // after an error it is not known whether a Parse was skipped: the next use prepares it again
        self.unnamed_here = facts.form != Form::Simple
            && observer.error.is_none()
            && (self.unnamed_here || injected || facts.parses_unnamed);
        match end {
            RelayEnd::Done => {
                self.settle(facts.form, &aftermath, &mut observer, guard, catalog, story)
                    .await;
                Ok(())
            }
            RelayEnd::ClientGone => {
                drop(observer.fill.take());
                self.abandon(observer.copying_in()).await;
                self.end_or_lose_writes(&aftermath, guard);
                self.finish(story, RequestEnd::Abandoned);
                Err(Over::Client)
            }
            RelayEnd::BackendGone(error) => Err(self.lose_backend(error, &observer, guard, story)),
            RelayEnd::Unresponsive => {
                self.lose_writes(guard);
                self.binding = Binding::Free;
                let error = ServeError::Time(self.time_exceeded(limit.unwrap_or_default()));
                wire::error_response(&error, self.client.outbox());
                wire::error_response(&ServeError::Shutdown, self.client.outbox());
                self.finish(story, failed(&error));
                Err(Over::Told)
            }
            RelayEnd::Killed => {
                self.abandon(observer.copying_in()).await;
                self.end_or_lose_writes(&aftermath, guard);
                wire::error_response(&ServeError::Shutdown, self.client.outbox());
                self.finish(story, failed(&ServeError::Shutdown));
                Err(Over::Told)
            }
        }
    }

    fn lose_backend(
        &mut self,
        error: BackendError,
        observer: &Observer,
        guard: Option<WriteGuard>,
        story: &mut Story,
    ) -> Over {
        self.lose_writes(guard);
        self.binding = Binding::Free;
        BackendLost {
            session: Some(self.card.id),
            error: &error,
        }
        .emit(&self.identity.team.backend.metrics);
        let error = ServeError::Lost(error);
        if !observer.fatal {
            wire::error_response(&error, self.client.outbox());
        }
        self.finish(story, failed(&error));
        Over::Told
    }

    /// The error for a query that ran for longer than `limit`.
    pub(super) fn time_exceeded(&self, limit: Duration) -> QueryTimeExceeded {
        QueryTimeExceeded {
            team: self.identity.team.name.clone(),
            limit,
        }
    }

    /// Notes what an answer from memory means for the unnamed statement: the client thinks that it has prepared it.
    pub(super) fn note_unnamed(&mut self, request: &Request, facts: Facts) {
        if facts.form == Form::Simple {
            self.statements.note_closed(b"");
        }
        let mut observer = Observer::new(true);
        observer.confirmed.extend(facts.confirmations);
        take_over(&mut observer, &mut self.statements, false);
        if request.frames.iter().any(|frame| frame.tag == FrontendTag::Parse) || facts.form == Form::Simple {
            self.unnamed_here = false;
        }
    }
}

/// Why a request does not get to the backend.
pub(super) enum Stopped {
    Refused(ServeError),
    Interrupted(Interrupted),
}

fn failed(error: &ServeError) -> RequestEnd<'static> {
    RequestEnd::Failed {
        sqlstate: error.sqlstate().as_str(),
        source: ErrorSource::Gateway,
    }
}

/// Prepares the session's unnamed statement at a connection that does not have it; closes what is there under that name
/// if the session has none, so that nobody else's is run.
fn inject_unnamed(
    statements: &crate::session::Statements,
    lease: &mut crate::pool::Lease<crate::backend::Connector>,
) -> bool {
    if let Some(prepared) = statements.prepared(b"") {
        wire::parse_frame(b"", &prepared.text, &prepared.types, lease.outgoing());
        lease.note_sent(Asked::Parse, Asker::Gateway);
        return true;
    }
    wire::close_statement_frame(b"", lease.outgoing());
    lease.note_sent(Asked::Close, Asker::Gateway);
    false
}

/// Where a Describe of the portal has to be put in, so that the answer can be kept with its RowDescription.
fn hidden_describe(facts: &Facts, _request: &Request) -> Option<usize> {
    match facts.form {
        Form::Portal(portal) if !portal.described => Some(portal.execute),
        Form::Portal(_) | Form::Simple | Form::Series => None,
    }
}

/// Puts the request with a hidden Describe before its Execute into the backend's outgoing bytes; nothing is left to be
/// sent from the inbox.
fn send_with_describe<S: AsyncRead + AsyncWrite + Unpin + Send>(
    request: &Request,
    facts: &Facts,
    client: &mut super::client::Client<S>,
    lease: &mut crate::pool::Lease<crate::backend::Connector>,
) -> usize {
    let execute = hidden_describe(facts, request);
    let mut out = BytesMut::with_capacity(request.len + 16);
    for (index, frame) in request.frames.iter().enumerate() {
        let bytes = client.inbox().get(frame.start..frame.end).unwrap_or_default();
        if Some(index) == execute {
            let portal = wire::execute(bytes)
                .map(|execute| execute.portal)
                .unwrap_or_default();
            wire::describe_portal_frame(portal, &mut out);
            lease.note_sent(Asked::DescribePortal, Asker::Gateway);
        }
        out.extend_from_slice(bytes);
        Facts::note_frame(frame, client.inbox(), lease);
    }
    lease.outgoing().extend_from_slice(&out);
    client.consume(request.len);
    0
}
