//! A request at the backend: a place, a connection, the bytes, and what is left of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use super::error::ServeError;
use super::facts::{Facts, Form};
use super::following::defined_first;
use super::lookup::Collecting;
use super::notice::for_place;
use super::numbers::{may_ask, takes_numbers};
use super::observe::Observer;
use super::outgoing::{hidden_describe, inject_unnamed, place_of_unnamed, send_changed};
use super::relay::{Relay, RelayEnd};
use super::rename::Renaming;
use super::route::Wrote;
use super::serve::{Served, Story};
use super::session::{Binding, Interrupted, Over, Session};
use super::settle::Aftermath;
use crate::backend::BackendError;
use crate::cache::WriteGuard;
use crate::error::ClientError;
use crate::quota::Permit;
use crate::session::{Ending, Request, StatementKey};
use crate::telemetry::ErrorSource;
use crate::telemetry::event::{BackendLost, QuotaRefused, RequestEnd};
use crate::wire::{self, TransactionStatus};

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Lets the backend answer.
    pub(super) async fn serve_from_backend(
        &mut self,
        request: &Request,
        facts: &mut Facts,
        collecting: Option<Collecting>,
        story: &mut Story,
    ) -> Served {
        if let Err(why) = self.await_code(facts).await {
            return self.interrupted(request, why, None, story);
        }
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
        let wants = self.wants(facts, collecting.is_some());
        let asks = self.gives_numbers() && may_ask(facts);
        if asks {
            self.identity.database.note_numbers_asked();
        }
        let kept = matches!(self.binding, Binding::Held(_));
        let mut bound = self.bind(wants, &defined_first(facts)).await;
        if bound.is_ok() && (asks || self.may_ask_unseen(facts)) {
            bound = Box::pin(self.forget_strangers_numbers()).await;
        }
        let collecting = match bound {
            Ok(()) => collecting.filter(|_| self.search_path_holds()),
            // what the session had there is gone: it must not go on as if it had it
            Err(Stopped::Refused(ServeError::Unavailable(error))) if kept => {
                return Err(self.lose_backend(error, &Observer::new(false), None, story));
            }
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
        let team = &self.identity.team;
        let (admitted, after) = (quota.admit(story.began), team.queue_notice);
        let notice = || {
            for_place(
                &team.name,
                after,
                quota.ahead(story.began),
                &quota.snapshot(story.began),
            )
        };
        match Self::attend_in_line(&mut self.client, &self.card, admitted, after, notice).await {
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

    async fn run_request(
        &mut self,
        request: &Request,
        facts: &mut Facts,
        collecting: Option<Collecting>,
        limit: Option<Duration>,
        story: &mut Story,
    ) -> Served {
        let idle = self.status() == TransactionStatus::Idle;
        let cacheable = collecting.is_some();
        let mut aftermath = Aftermath::of(
            facts,
            &self.gateway,
            &mut self.judged,
            &self.identity.database,
            &self.search_path,
            idle,
            self.writes.code(),
        );
        self.clean &= !idle && aftermath.only_reads(cacheable);
        if takes_numbers(facts, !aftermath.stale.is_empty()) {
            self.numbers_taken = true;
            if let Binding::Held(lease) = &mut self.binding {
                lease.note_numbers();
            }
        }
        self.path_unknown |= aftermath.moves_path;
        self.settings_unknown |= aftermath.moves_settings;
        self.rereads |= facts.rereads;
        if self.path_unknown {
            aftermath.distrust_names();
        }
        for stale in &aftermath.stale {
            self.writes.add(stale);
        }
        if aftermath.changes_defaults {
            self.writes.add_defaults();
        }
        if aftermath.brings_code {
            self.writes.add_code();
        }
        if aftermath.may_define {
            self.writes.add_unseen();
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
        observer.time_exceeded = limit.map(|limit| self.time_exceeded(limit));
        let Binding::Held(lease) = &mut self.binding else {
            return Err(Over::Client);
        };
        for name in &aftermath.defines {
            lease.note_defined(name);
        }
        if aftermath.defines_any {
            lease.spoil();
        }
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
        self.told.foresee(&aftermath);
        observer.told = std::mem::take(&mut self.told);
        let began = Instant::now();
        if lease.replies().settled() {
            lease.clear_leftovers();
        }
        let mut end = self.carry_begin(&mut observer).await.map(|()| Vec::new());
        let refused = observer.error.is_some();
        if end.is_ok() && !refused && !facts.namings.is_empty() {
            end = self.check_statements(&facts.namings, &mut observer).await;
        }
        let before = self.before();
        if let Ok(changed) = &end
            && observer.error.is_none()
            && !facts.namings.is_empty()
            && facts.form == Form::Simple
            && before == Before::Nothing
        {
            let brought = self.bring_visited(facts, changed, &mut observer).await;
            end = brought.and(end);
        }
        let lacking = facts
            .needs_unnamed
            .filter(|_| !self.unnamed_here && before != Before::Error);
        let sent = Sent {
            form: facts.form,
            leaves_unnamed: facts.parses_unnamed,
            unnamed_before: lacking.map(|needs| place_of_unnamed(request, needs)),
            before,
        };
        let end = match end {
            // without its transaction the request must not run
            Ok(_) if refused => {
                self.drop_request(request);
                self.end_refused(request);
                RelayEnd::Done
            }
            // the server has said why what it needs cannot be prepared
            Ok(_) if observer.error.is_some() && self.is_settled() => {
                self.drop_request(request);
                self.end_refused(request);
                RelayEnd::Done
            }
            Ok(changed) => {
                observer.plan_changed = !changed.is_empty();
                self.exchange(request, facts, &changed, &sent, &mut observer)
                    .await
            }
            Err(end) => end,
        };
        let ended = Instant::now();
        story.backend_time = ended.saturating_duration_since(began);
        story.ended = Some(ended);
        story.rows = observer.rows;
        story.bytes = observer.bytes;
        self.card.note_query(false);
        let guard = guard.filter(|_| self.may_be_committed(&end, &aftermath, &observer));
        match end {
            RelayEnd::Done => {
                let fatal = observer.fatal;
                self.settle(sent, aftermath, &mut observer, guard, catalog, story)
                    .await;
                // the server has said why it closes the connection
                if fatal { Err(Over::Told) } else { Ok(()) }
            }
            RelayEnd::ClientGone => {
                drop(observer.fill.take());
                Box::pin(self.abandon(observer.copying_in(), observer.torn)).await;
                if aftermath.touches_session() {
                    // what it did there before it was stopped is not known
                    self.binding = Binding::Free;
                }
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
                Box::pin(self.abandon(observer.copying_in(), observer.torn)).await;
                if aftermath.touches_session() {
                    // what it did there before it was stopped is not known
                    self.binding = Binding::Free;
                }
                self.end_or_lose_writes(&aftermath, guard);
                wire::error_response(&ServeError::Shutdown, self.client.outbox());
                self.finish(story, failed(&ServeError::Shutdown));
                Err(Over::Told)
            }
        }
    }

    fn is_settled(&self) -> bool {
        matches!(&self.binding, Binding::Held(lease) if lease.replies().settled())
    }

    fn before(&self) -> Before {
        match &self.binding {
            Binding::Held(lease) if lease.replies().skips() => Before::Error,
            Binding::Held(lease) if !lease.replies().drained() => Before::Owed,
            Binding::Held(lease) if !lease.replies().settled() => Before::Answered,
            Binding::Held(_) | Binding::Free => Before::Nothing,
        }
    }

    /// Sends the request and relays what is answered.
    async fn exchange(
        &mut self,
        request: &Request,
        facts: &mut Facts,
        changed: &[StatementKey],
        sent: &Sent,
        observer: &mut Observer,
    ) -> RelayEnd {
        let Binding::Held(lease) = &mut self.binding else {
            return RelayEnd::BackendGone(BackendError::Closed);
        };
        self.unnamed_here |= sent.unnamed_before.is_some();
        let as_it_is = sent.unnamed_before.is_none_or(|place| place == 0)
            && facts.namings.is_empty()
            && !(observer.collects() && hidden_describe(facts).is_some());
        let to_send = if as_it_is {
            if sent.unnamed_before.is_some() {
                inject_unnamed(&self.statements, lease);
            }
            let bytes = self.client.inbox().get(..request.len).unwrap_or_default();
            Facts::note_sent(request, bytes, lease);
            request.len
        } else {
            let renaming = Renaming {
                backend: lease,
                epoch: self.identity.database.epoch(),
                limit: self.identity.team.backend.max_prepared_statements(),
                changed,
            };
            let unnamed = sent.unnamed_before.map(|place| (place, &self.statements));
            send_changed(
                request,
                facts,
                observer.collects(),
                unnamed,
                &mut self.client,
                renaming,
            );
            0
        };
        observer.namings = std::mem::take(&mut facts.namings);
        if facts.unread_parse {
            // its text was not read, so it cannot be prepared elsewhere; the session is pinned
            self.statements.note_closed(b"");
        }
        // what an earlier part of the series still has to hear comes first
        observer.confirmations.expect(&mut self.late);
        if observer.error.is_none() {
            observer.confirmations.expect(&mut facts.confirmations);
        }
        // of a long message some has come while the request waited
        let left = request.left();
        let held = if to_send == 0 { 0 } else { request.len };
        let more = left.min(self.client.inbox().len() - held);
        let relay = Relay {
            client: &mut self.client,
            backend: lease,
            card: &self.card,
            observer,
            to_send: to_send + more,
            to_come: left - more,
            answered: match request.ending {
                Ending::Call | Ending::Sync | Ending::Flush => true,
                Ending::Full => false,
                Ending::Long { .. } => request.calls(),
            },
        };
        relay.run().await
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
}

/// What matters of a request once it was sent.
pub(super) struct Sent {
    pub(super) form: Form,
    /// It prepares the unnamed statement.
    pub(super) leaves_unnamed: bool,
    /// The message before which the gateway prepares the unnamed statement, at a connection that does not have it.
    pub(super) unnamed_before: Option<usize>,
    /// What was sent before it.
    pub(super) before: Before,
}

/// What of a series stands before a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing: it begins one, or is none.
    Nothing,
    /// A part that was answered.
    Answered,
    /// A part whose answers are still to come.
    Owed,
    /// An error: nothing of the request runs.
    Error,
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
