//! After a request's last reply: what it wrote is made stale, its answer is kept, the session takes over what it changed,
//! and the connection goes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use super::facts::Form;
use super::observe::Observer;
use super::relay::RelayEnd;
use super::rename::Naming;
use super::run::{Before, Sent};
use super::serve::Story;
use super::session::{Binding, Session, changes_reading};
use super::settle::{Aftermath, Outcome, SESSION_POOLING, Step, goes_by_name, pin_word};
use crate::cache::{Completion, NotStored, WriteGuard};
use crate::config::Pooling;
use crate::policy::{Catalog, Invalidation};
use crate::quota::QueryTimeExceeded;
use crate::session::{Pins, SettingValue, Settings};
use crate::sql::{PinReason, SessionUse};
use crate::telemetry::ErrorSource;
use crate::telemetry::event::{QuotaRefused, RequestEnd, SessionPinned};
use crate::wire::TransactionStatus;

/// Room that is kept for the next request, in messages.
const MAX_SPARE: usize = 32;

/// Errors of a statement that the server did not even begin: syntax, and statements and portals that do not exist, or do
/// already, and whatever comes after an error in a transaction.
const NOT_BEGUN: [[u8; 5]; 5] = [*b"42601", *b"26000", *b"34000", *b"42P05", IN_FAILED_TRANSACTION];
const IN_FAILED_TRANSACTION: [u8; 5] = *b"25P02";

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// The backend has answered everything.
    pub(super) async fn settle(
        &mut self,
        sent: Sent,
        mut aftermath: Aftermath,
        observer: &mut Observer,
        guard: Option<WriteGuard>,
        catalog: Option<Arc<Catalog>>,
        story: &mut Story,
    ) {
        let status = self.status();
        // without a Sync the series' own transaction goes on
        let settled = matches!(&self.binding, Binding::Held(lease) if lease.replies().settled());
        let in_transaction = status != TransactionStatus::Idle || !settled;
        // what failed has read nothing
        aftermath.reads_unknown &= !(aftermath.alone && observer.error.is_some());
        self.end_writes(&aftermath, guard);
        // in a transaction that has only read, an answer is what anybody would have got
        let private = !settled || (status != TransactionStatus::Idle && !self.clean);
        self.keep_answer(observer, catalog, story, private);
        // what ran before an error has done what it does
        let skipped = sent.before == Before::Error;
        let from_start = sent.before != Before::Owed;
        let outcome = if observer.error.is_none() && !skipped {
            Outcome::Completed
        } else if from_start && aftermath.cut(observer.ran, skipped) {
            Outcome::Cut
        } else {
            Outcome::Failed
        };
        self.take_over(observer, in_transaction);
        // also one whose text was not read
        self.unnamed_here |= sent.leaves_unnamed && outcome == Outcome::Completed;
        if observer.unnamed_failed {
            self.statements.note_closed(b"");
        }
        // a simple query ends the unnamed statement; one in a series is skipped after an error, and then nothing is settled
        if (sent.form == Form::Simple && !skipped) || (aftermath.queries && settled) {
            self.statements.note_closed(b"");
            self.unnamed_here = false;
        }
        // where it is not known whose error it was, or was to be prepared behind what has failed, it may be missing
        let first = from_start && sent.unnamed_before.is_none_or(|place| place == 0);
        self.unnamed_here &= !observer.unnamed_lost && (first || outcome == Outcome::Completed);
        // also one that is not there any more: a function may have run DEALLOCATE ALL
        let lost = observer.lost_statement;
        if (observer.all_closed || lost)
            && let Binding::Held(lease) = &mut self.binding
        {
            lease.statements_mut().clear();
        }
        self.note_parameters(observer);
        self.note_pins(&aftermath, observer, outcome, in_transaction);
        let followed = self
            .follow_settings(&aftermath.steps, observer, outcome, in_transaction)
            .await;
        self.note_defined(&aftermath, outcome);
        let acts = self.follow_role(&aftermath, outcome).await;
        if followed.and(acts).is_err() {
            self.pin_for(PinReason::Setting, None);
            if let Binding::Held(lease) = &mut self.binding {
                lease.note_settings(None);
            }
        }
        if settled && std::mem::take(&mut self.rereads) {
            self.settings_changed();
        }
        if !in_transaction && !self.pins.any() {
            self.path_unknown = false;
            self.settings_unknown = false;
        }
        let drained = matches!(&self.binding, Binding::Held(lease) if lease.replies().drained());
        let mut rest = std::mem::take(&mut observer.confirmations).into_rest();
        if drained {
            rest.clear();
            rest.shrink_to(MAX_SPARE);
        }
        self.late = rest;
        self.spare_namings(std::mem::take(&mut observer.namings));
        if observer.discarded && aftermath.alone && !in_transaction && observer.error.is_none() {
            self.start_over();
        }
        self.keep_many_settings();
        match observer.error {
            None => self.finish(story, RequestEnd::Completed),
            Some(code) => {
                let timed_out = self.card.signals.timed_out();
                if timed_out && code == *b"57014" {
                    let usage = self.identity.team.quota.snapshot(story.began);
                    QuotaRefused {
                        session: self.card.id,
                        user: &self.identity.user,
                        reason: "query_time",
                        running: usage.running,
                        queued: usage.queued,
                    }
                    .emit(&self.identity.team.metrics);
                }
                let sqlstate = std::str::from_utf8(&code).unwrap_or("XX000");
                let source = if timed_out {
                    ErrorSource::Gateway
                } else {
                    ErrorSource::Server
                };
                self.finish(story, RequestEnd::Failed { sqlstate, source });
            }
        }
        self.release(story.ended.unwrap_or_else(Instant::now)).await;
    }

    /// Keeps the room for the next request.
    pub(super) fn spare_namings(&mut self, mut namings: Vec<Naming>) {
        namings.clear();
        namings.shrink_to(MAX_SPARE);
        self.namings = namings;
    }

    /// The error for a query that ran for longer than `limit`.
    pub(super) fn time_exceeded(&self, limit: Duration) -> QueryTimeExceeded {
        QueryTimeExceeded {
            team: self.identity.team.name.clone(),
            limit,
        }
    }

    /// Gives the connection back, if nothing ties the session to it.
    pub(super) async fn release(&mut self, now: Instant) {
        let Binding::Held(lease) = &self.binding else {
            return;
        };
        let free = !self.pins.any()
            && self.identity.team.pooling == Pooling::Transaction
            && lease.replies().settled()
            && lease.status() == TransactionStatus::Idle;
        if !free {
            return;
        }
        // from here on a cancel request finds nothing; one that is on its way is waited for
        self.card.note_idle(false);
        if !lease.cancel_target().gate.clear() {
            lease.cancel_target().gate.cleared().await;
        }
        let Binding::Held(lease) = std::mem::replace(&mut self.binding, Binding::Free) else {
            return;
        };
        self.unnamed_here = false;
        if let Some(proof) = lease.at_rest() {
            lease.card().used_by(0);
            lease.give_back(proof, now);
        }
    }

    /// What the backend reported on the way.
    fn note_parameters(&mut self, observer: &mut Observer) {
        self.told = std::mem::take(&mut observer.told);
        for (name, value) in observer.parameters.drain(..) {
            if changes_reading(&name, &value) {
                self.reads_differently = true;
                self.backslash = None;
            }
            if let Binding::Held(lease) = &mut self.binding {
                lease.note_parameter(name, value);
            }
        }
    }

    /// The backend's session is as new after `DISCARD ALL`, and so is this one.
    fn start_over(&mut self) {
        self.pins = Pins::default();
        self.card.note_pinned(self.pinned_word());
        let before = std::mem::replace(&mut self.settings, self.identity.startup.clone());
        self.settings.define_all_of(&before);
        self.reads_differently = self.identity.reads_differently;
        self.path_unknown = false;
        self.settings_changed();
        if let Binding::Held(lease) = &mut self.binding {
            lease.note_settings(Some(Settings::default()));
        }
    }

    fn note_pins(
        &mut self,
        aftermath: &Aftermath,
        observer: &Observer,
        outcome: Outcome,
        in_transaction: bool,
    ) {
        // a statement that was refused before it began left nothing
        // code that was called may have done anything before one of its own statements was refused
        let refused = observer.error.filter(|_| !observer.error_within);
        let not_begun = refused.is_some_and(|code| NOT_BEGUN.contains(&code))
            && observer.rows == 0
            && observer.completions == 0;
        let failed_before = not_begun && refused == Some(IN_FAILED_TRANSACTION);
        for (reason, session) in &aftermath.pins {
            let refused =
                failed_before || not_begun && (*reason == PinReason::Unparsed || goes_by_name(*reason));
            // what is prepared was confirmed by itself
            let confirmed = matches!(session, Some(SessionUse::Prepare(_)));
            if !refused && !confirmed {
                self.pin_for(*reason, session.as_ref());
            }
        }
        if observer.unforeseen {
            self.pin_for(PinReason::Unparsed, None);
        }
        // what was done before an error may have been undone with it
        if aftermath.unpins.is_empty() || outcome != Outcome::Completed {
            return;
        }
        // what a transaction has undone is there as before
        let undone = aftermath
            .steps
            .iter()
            .any(|step| matches!(step, Step::End | Step::ToSavepoint));
        if in_transaction || undone {
            return;
        }
        let before = self.pins.reason();
        // of several statements a later one may leave again what an earlier one took away
        if aftermath.pins.is_empty() {
            for session in &aftermath.unpins {
                // what is prepared was confirmed by itself, in order with what was prepared since
                if !matches!(session, SessionUse::Deallocate(_)) {
                    self.pins.remove(session);
                }
            }
        }
        self.pin_by_settings();
        self.note_unpinned(before);
    }

    /// Keeps the connection of a session whose settings would mean something for others: a search path that names the schema
    /// of temporary tables, where it may make one by any name; a time after which the server ends what is idle.
    pub(super) fn pin_by_settings(&mut self) {
        let path = match self.settings.value("search_path") {
            None => &self.identity.default_search_path,
            Some(SettingValue::Plain(path) | SettingValue::Sql(path)) => path,
        };
        let temporary = path.to_ascii_lowercase().contains("pg_temp");
        let ends = self.settings.value("idle_session_timeout").is_some();
        for (reason, there) in [(PinReason::TemporaryTable, temporary), (PinReason::Setting, ends)] {
            if there && !self.pins.reasons().any(|known| known == reason) {
                self.pin_for(reason, None);
            }
        }
    }

    /// What the session was pinned for `before` may be gone.
    pub(super) fn note_unpinned(&mut self, before: Option<PinReason>) {
        if self.pins.reason() != before {
            self.card.note_pinned(self.pinned_word());
            if let Binding::Held(lease) = &mut self.binding
                && !self.pins.any()
            {
                // while it was pinned its settings were its own affair
                lease.note_settings(None);
            }
        }
    }

    /// Why the session keeps its connection, if it does.
    fn pinned_word(&self) -> Option<&'static str> {
        let whole = self.identity.team.pooling == Pooling::Session;
        self.pins
            .reason()
            .map(pin_word)
            .or(whole.then_some(SESSION_POOLING))
    }

    /// Tells that the session keeps the connection that it has just got, where its team's sessions do.
    pub(super) fn note_kept(&mut self) {
        if self.identity.team.pooling == Pooling::Session {
            self.card.note_pinned(self.pinned_word());
            SessionPinned {
                session: self.card.id,
                reason: SESSION_POOLING,
            }
            .emit(&self.gateway.metrics);
        }
    }

    /// From here on the session keeps its connection.
    pub(super) fn pin_for(&mut self, reason: PinReason, session: Option<&SessionUse>) {
        let first = !self.pins.any();
        self.pins.add(reason, session);
        if reason == PinReason::BackendPid
            && let Binding::Held(lease) = &mut self.binding
        {
            lease.note_known();
        }
        if first {
            let reason = pin_word(reason);
            self.card.note_pinned(Some(reason));
            SessionPinned {
                session: self.card.id,
                reason,
            }
            .emit(&self.gateway.metrics);
        }
    }

    /// Keeps the answer, where it was collected whole.
    fn keep_answer(
        &self,
        observer: &mut Observer,
        catalog: Option<Arc<Catalog>>,
        story: &mut Story,
        private: bool,
    ) {
        let collected = observer.fill.is_some();
        let sound = observer.whole() && !private && observer.parameters.is_empty();
        let Some(fill) = observer.fill.take() else {
            if catalog.is_some() && observer.error.is_none() {
                story.reason = "too_big";
            }
            return;
        };
        let (true, Some(catalog), Some(command_complete)) =
            (sound && collected, catalog, observer.command_complete.take())
        else {
            return;
        };
        if !self.identity.database.watch.is_current(&catalog) {
            return;
        }
        let completion = Completion {
            row_description: observer.row_description.take(),
            row_count: observer.rows,
            command_complete,
            backend_time: story.backend_time,
            fingerprint: story.fingerprint.0,
        };
        if let Err(why) = fill.commit(completion) {
            story.reason = match why {
                NotStored::Stale => "overtaken",
                NotStored::TooBig => "too_big",
                NotStored::Crowded => "crowded",
            };
        }
    }

    /// A transaction may have ended: what it wrote is stale for everybody before its client hears of it.
    pub(super) fn end_writes(&mut self, aftermath: &Aftermath, guard: Option<WriteGuard>) {
        let (drained, settled) = match &self.binding {
            Binding::Free => (true, true),
            Binding::Held(lease) => (lease.replies().drained(), lease.replies().settled()),
        };
        // what was sent without a Sync is committed by the Sync to come, whatever the last ReadyForQuery said
        let ended = settled && self.status() == TransactionStatus::Idle;
        let database = &self.identity.database;
        if aftermath.reads_unknown && !self.may_have_temporary(aftermath) {
            self.writes.add(&Invalidation::Everything);
            self.writes.add_unseen();
            if ended {
                database.watch.suspect();
                self.gateway.tags.invalidate_all();
            }
        } else if self.writes.unseen() && ended {
            database.watch.suspect();
        }
        if self.writes.definitions() && ended {
            if self.writes.code() {
                database.definitions_changed();
            } else {
                database.plain_definitions_changed();
            }
            if self.writes.defaults() {
                self.gateway.forget_greetings();
                self.identity.team.backend.reconnect();
            }
        } else if !aftermath.stale.is_empty() || aftermath.provisional {
            // judged by definitions that have changed meanwhile: what it wrote beside is not known
            let current = database.watch.current().map(|catalog| catalog.generation);
            if current != aftermath.generation {
                self.writes.add(&Invalidation::Everything);
                if ended {
                    self.gateway.tags.invalidate_all();
                }
            }
        }
        if drained {
            self.unanswered = None;
            drop(guard);
        } else if guard.is_some() {
            // a part of a series whose replies are still to come, and a COMMIT may be among them; this guard covers what
            // the one before it did
            self.unanswered = guard;
        }
        if ended {
            self.writes.clear();
        }
    }

    /// Whether relations that are not known may be temporary ones of the session.
    fn may_have_temporary(&self, aftermath: &Aftermath) -> bool {
        let made = aftermath.pins.iter().map(|(reason, _)| *reason);
        self.pins.reasons().chain(made).any(|reason| {
            matches!(
                reason,
                PinReason::TemporaryTable | PinReason::Procedure | PinReason::Unparsed
            )
        })
    }

    /// Whether a request that ended like this may have been committed. A simple query that is one COPY, and was cut off
    /// before the server heard of the end of the data, was not.
    pub(super) fn may_be_committed(
        &self,
        end: &RelayEnd,
        aftermath: &Aftermath,
        observer: &Observer,
    ) -> bool {
        let cut_off = aftermath.alone && !observer.extended() && observer.copy_in_cut_off();
        // of a series that was not ended, other parts may be
        matches!(end, RelayEnd::Done) || self.unanswered.is_some() || !cut_off
    }

    /// The client is gone: if its connection is too, what it wrote last may still be committed.
    pub(super) fn end_or_lose_writes(&mut self, aftermath: &Aftermath, guard: Option<WriteGuard>) {
        match self.binding {
            Binding::Free => self.lose_writes(guard),
            Binding::Held(_) => self.end_writes(aftermath, guard),
        }
    }

    /// The outcome of the writes is not known: they stay in doubt for a while.
    pub(super) fn lose_writes(&mut self, guard: Option<WriteGuard>) {
        if self.writes.definitions() {
            self.identity.database.definitions_changed();
        } else if self.writes.unseen() {
            self.identity.database.watch.suspect();
        }
        self.writes.clear();
        for guard in [guard, self.unanswered.take()].into_iter().flatten() {
            self.gateway.doubt(guard, Instant::now());
        }
    }
}
