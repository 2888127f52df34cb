//! What a request leaves behind: writes, settings, a pin. Decided before it runs, taken over once it is known how it
//! ended.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite};

use super::facts::{Facts, Form};
use super::gateway::Gateway;
use super::judged::Judged;
use super::observe::{Confirmation, Observer};
use super::realm::Database;
use super::rename::Naming;
use super::role::ActsAs;
use super::session::{Binding, Session};
use crate::policy::{
    Catalog, Invalidation, brings_code, invalidation, may_define, reads_unknown, runs_hidden_code,
};
use crate::session::{Request, is_custom};
use crate::sql::{PinReason, SessionUse, SettingChange, Statement, StatementKind, TransactionControl};
use crate::wire::{FrontendTag, TransactionStatus};

/// What a request will leave behind.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is foreseen by itself, none is a state"
)]
pub(super) struct Aftermath {
    /// What it makes stale.
    pub(super) stale: Vec<Invalidation>,
    /// It may end a transaction by a commit, so that others see what was written.
    pub(super) may_commit: bool,
    /// What it leaves at its connection.
    pub(super) pins: Vec<(PinReason, Option<SessionUse>)>,
    /// What it takes away there.
    pub(super) unpins: Vec<SessionUse>,
    /// What it does to settings, and to the transaction that they belong to, in order.
    pub(super) steps: Vec<Step>,
    /// It only reads, or ends the transaction.
    pub(super) reads: bool,
    /// It runs one statement, and that is known.
    pub(super) alone: bool,
    /// It may change the search path in a way that is not followed, or not yet.
    pub(super) moves_path: bool,
    /// It may change any setting in a way that is not followed, or not yet.
    pub(super) moves_settings: bool,
    /// A simple query stands at the end of its series.
    pub(super) queries: bool,
    /// The definitions it was judged by.
    pub(super) generation: Option<u64>,
    /// Settings that exist afterwards, if they did not before.
    pub(super) defines: Vec<Arc<str>>,
    /// Settings of any name may exist afterwards.
    pub(super) defines_any: bool,
    /// Something runs that is not known.
    pub(super) unknown: bool,
    /// How much of it each statement leaves, with all before it.
    pub(super) marks: SmallVec<[Mark; 1]>,
    /// What it last did to who the session acts as.
    pub(super) acts_as: Option<ActsAs>,
    /// It may change what sessions begin with: `ALTER ROLE … SET`, `ALTER DATABASE … SET`.
    pub(super) changes_defaults: bool,
    /// Other statements may run code that they did not.
    pub(super) brings_code: bool,
    /// It may change definitions though it is no change of definitions.
    pub(super) may_define: bool,
    /// It reads a relation that is not known.
    pub(super) reads_unknown: bool,
    /// It was judged while it was being looked whether definitions have changed.
    pub(super) provisional: bool,
}

/// How a request ended, as far as that matters for what it leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Everything ran.
    Completed,
    /// It failed, and its [`Aftermath`] was cut to what ran before.
    Cut,
    /// It failed, and what ran before is not known.
    Failed,
}

/// How many of each there are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    pins: usize,
    unpins: usize,
    steps: usize,
    defines: usize,
    /// What the statement is, is not known.
    unparsed: bool,
}

/// One thing that matters for the settings of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A setting is changed.
    Change(SettingChange),
    /// A transaction ends; whether by a commit is told by the server.
    End,
    /// What was done since a savepoint is undone.
    ToSavepoint,
}

/// The word for why a session keeps its connection whose team shares none.
pub(super) const SESSION_POOLING: &str = "session_pooling";

/// The word for why a session is pinned.
pub(super) fn pin_word(reason: PinReason) -> &'static str {
    match reason {
        PinReason::TemporaryTable => "temporary_table",
        PinReason::PreparedStatement => "prepared_statement",
        PinReason::Cursor => "cursor",
        PinReason::Listen => "listen",
        PinReason::AdvisoryLock => "advisory_lock",
        PinReason::Role => "role",
        PinReason::Setting => "setting",
        PinReason::BackendPid => "backend_pid",
        PinReason::Procedure => "procedure",
        PinReason::Unparsed => "unparsed",
    }
}

impl Aftermath {
    /// Foresees what `facts` leave behind. `idle`: no transaction is open; `brought`: the one that is has brought code of
    /// which nothing is known yet.
    pub(super) fn of(
        facts: &Facts,
        gateway: &Gateway,
        judged: &mut Judged,
        database: &Database,
        search_path: &Arc<[Arc<str>]>,
        idle: bool,
        brought: bool,
    ) -> Self {
        let catalog = database.watch.probable();
        let is_old = |catalog: &Arc<Catalog>| !database.watch.is_current(catalog);
        let mut aftermath = Self {
            provisional: catalog.as_ref().is_some_and(is_old),
            may_define: facts.unknown,
            generation: catalog.as_ref().map(|catalog| catalog.generation),
            // an autocommit ends its transaction, and so does whatever is not known
            may_commit: idle || facts.unknown,
            queries: facts.queries,
            unknown: facts.unknown,
            ..Self::default()
        };
        if facts.unknown {
            aftermath.stale.push(Invalidation::Everything);
            aftermath.pins.push((PinReason::Unparsed, None));
            aftermath.moves_path = true;
            aftermath.moves_settings = true;
        }
        aftermath.alone = facts.single().is_some();
        aftermath.reads = !facts.unknown
            && facts
                .statements()
                .all(|statement| statement.kind == StatementKind::Read && !statement.locking);
        for visited in facts.namings.iter().filter_map(Naming::visited) {
            for located in visited.analysis.statements() {
                let code = database.touches_session(&located.statement);
                aftermath.note_within(located.statement.pin, code);
            }
        }
        for statement in facts.statements() {
            let (stale, code) = match &catalog {
                Some(catalog) if remembered(statement) => {
                    let verdicts = judged.verdicts(gateway, statement, database, catalog, search_path);
                    aftermath.may_define |= verdicts.may_define;
                    aftermath.reads_unknown |= verdicts.reads_unknown;
                    (verdicts.invalidation.clone(), verdicts.touches_session)
                }
                catalog => {
                    let known = catalog.as_deref();
                    aftermath.may_define |= may_define(statement, database.watch.latest().as_deref());
                    aftermath.reads_unknown |=
                        known.is_some_and(|catalog| reads_unknown(statement, catalog, search_path));
                    (
                        invalidation(statement, known, search_path),
                        database.touches_session(statement),
                    )
                }
            };
            let brought = brought || aftermath.brings_code;
            aftermath.note_within(statement.within, code || (brought && runs_hidden_code(statement)));
            aftermath.brings_code |= brings_code(statement) || (statement.kind == StatementKind::Ddl && code);
            if stale != Invalidation::Nothing {
                aftermath.stale.push(stale);
            }
            aftermath.may_commit |= ends_transaction(statement);
            if changes_defaults(statement) {
                aftermath.changes_defaults = true;
                aftermath.stale.push(Invalidation::Everything);
            }
            aftermath.note_session(statement);
            aftermath.note_settings(statement, facts.single().is_some() && idle);
            aftermath.mark(statement);
        }
        // a statement that changes how text is read, in the midst of others: theirs may mean something else
        let rereads = |reason| {
            matches!(
                reason,
                PinReason::Setting | PinReason::Procedure | PinReason::Unparsed
            )
        };
        if facts.runs.len() > 1
            && facts
                .statements()
                .any(|statement| statement.pin.is_some_and(rereads))
        {
            aftermath.stale.push(Invalidation::Everything);
        }
        aftermath
    }

    /// Names may mean other relations than the session's search path says: a write to one is a write to any.
    pub(super) fn distrust_names(&mut self) {
        if self
            .stale
            .iter()
            .any(|stale| matches!(stale, Invalidation::Relations(_)))
        {
            self.stale.push(Invalidation::Everything);
        }
    }

    /// Whether it may change what its connection has beside rows.
    pub(super) fn touches_session(&self) -> bool {
        !(self.pins.is_empty() && self.unpins.is_empty() && self.steps.is_empty() && self.defines.is_empty())
            || self.moves_settings
            || self.defines_any
    }

    /// Whether nothing was done that a later read of the same transaction would have to see. A read whose answer is
    /// collected is known to be one; of others it is known by what they leave.
    pub(super) fn only_reads(&self, collected: bool) -> bool {
        collected
            || (self.reads
                && self.stale.is_empty()
                && self.pins.is_empty()
                && self.steps.is_empty()
                && !self.moves_settings)
    }

    fn mark(&mut self, statement: &Statement) {
        self.marks.push(Mark {
            pins: self.pins.len(),
            unpins: self.unpins.len(),
            steps: self.steps.len(),
            defines: self.defines.len(),
            unparsed: statement.kind == StatementKind::Unparsed,
        });
    }

    /// Of a request that failed: what is left by the first `ran` statements, and by the next, of which it is not known how
    /// far it came; nothing when it was `skipped`. False when that cannot be told.
    pub(super) fn cut(&mut self, ran: usize, skipped: bool) -> bool {
        let ran = if skipped { 0 } else { ran };
        let read = !self.unknown && self.marks.iter().take(ran).all(|mark| !mark.unparsed);
        let known = skipped || (read && ran <= self.marks.len());
        if known {
            let last = ran.checked_sub(1).and_then(|last| self.marks.get(last));
            let done = last.copied().unwrap_or_default();
            // what goes by name is there, or it is not
            let next = self.marks.get(ran).filter(|_| !skipped);
            let begun = next.map_or(done.pins, |mark| mark.pins);
            let mut at = 0..;
            self.pins.retain(|(reason, _)| {
                let at = at.next().unwrap_or(0);
                at < done.pins || (at < begun && !goes_by_name(*reason))
            });
            self.unpins.truncate(done.unpins);
            self.steps.truncate(done.steps);
            self.defines.truncate(done.defines);
        }
        known
    }

    /// What runs within a statement: `pin` is its own, `code` whether it is of users.
    fn note_within(&mut self, pin: Option<PinReason>, code: bool) {
        for reason in pin.into_iter().chain(code.then_some(PinReason::Procedure)) {
            self.pins.push((reason, None));
            self.moves_path = true;
            self.moves_settings = true;
        }
    }

    fn note_session(&mut self, statement: &Statement) {
        self.acts_as = ActsAs::after(statement).or(self.acts_as);
        if let Some(reason) = statement.pin {
            self.defines_any |= reason == PinReason::Setting && statement.mentions("set_config");
            self.pins.push((reason, statement.session.clone()));
            let unknown = match reason {
                PinReason::Role | PinReason::Setting | PinReason::Procedure | PinReason::Unparsed => true,
                PinReason::TemporaryTable
                | PinReason::PreparedStatement
                | PinReason::Cursor
                | PinReason::Listen
                | PinReason::AdvisoryLock
                | PinReason::BackendPid => false,
            };
            self.moves_path |= unknown;
            self.moves_settings |= unknown;
        } else if let Some(session) = &statement.session {
            // SET LOCAL ROLE: "$user" in the search path is another until the transaction ends
            self.moves_path |= *session == SessionUse::Passing
                && (statement.mentions("role") || statement.mentions("session_authorization"));
            self.unpins.push(session.clone());
        }
    }

    /// `alone`: it is followed by itself, as soon as it has succeeded.
    fn note_settings(&mut self, statement: &Statement, alone: bool) {
        match statement.transaction {
            Some(TransactionControl::Commit | TransactionControl::Rollback) => self.steps.push(Step::End),
            Some(TransactionControl::Savepoint) if statement.mentions("rollback") => {
                self.steps.push(Step::ToSavepoint);
            }
            Some(TransactionControl::Begin | TransactionControl::Savepoint | TransactionControl::Other)
            | None => {}
        }
        let discards = statement.session == Some(SessionUse::DiscardAll);
        let change = statement.setting.as_ref();
        let Some(change) = change.or(discards.then_some(&SettingChange::ResetAll)) else {
            return;
        };
        self.defines.extend(defined_by(change).cloned());
        let path = match change {
            SettingChange::Show { .. } => return,
            SettingChange::Set { name, .. }
            | SettingChange::SetConfig { name, .. }
            | SettingChange::SetLocal { name }
            | SettingChange::Reset { name } => **name == *"search_path",
            SettingChange::ResetAll => true,
        };
        self.moves_path |= path && !alone;
        self.moves_settings |= !alone;
        if !matches!(change, SettingChange::SetLocal { .. }) {
            self.steps.push(Step::Change(change.clone()));
        }
    }
}

/// Whether a statement for which a session is pinned leaves nothing when it fails. Code that was called may have done
/// anything before one of its own statements was refused.
pub(super) fn goes_by_name(reason: PinReason) -> bool {
    matches!(
        reason,
        PinReason::PreparedStatement | PinReason::Cursor | PinReason::Listen
    )
}

/// The setting that exists after a change, if it did not before.
pub(super) fn defined_by(change: &SettingChange) -> Option<&Arc<str>> {
    match change {
        SettingChange::Set { name, .. }
        | SettingChange::SetConfig { name, .. }
        | SettingChange::SetLocal { name }
        | SettingChange::Reset { name } => Some(name).filter(|name| is_custom(name)),
        SettingChange::ResetAll | SettingChange::Show { .. } => None,
    }
}

/// Whether verdicts on it are worth remembering: those that look into the definitions.
fn remembered(statement: &Statement) -> bool {
    match statement.kind {
        StatementKind::Read | StatementKind::Write | StatementKind::Copy => true,
        StatementKind::Ddl
        | StatementKind::Transaction
        | StatementKind::Setting
        | StatementKind::Session
        | StatementKind::Utility
        | StatementKind::Unparsed => false,
    }
}

/// Whether it may end a transaction that is open, with a commit.
fn ends_transaction(statement: &Statement) -> bool {
    match statement.transaction {
        Some(TransactionControl::Commit | TransactionControl::Other) => true,
        Some(TransactionControl::Begin | TransactionControl::Rollback | TransactionControl::Savepoint) => {
            false
        }
        // Redshift's TRUNCATE commits, and so may procedures and whatever was not understood
        None => match statement.kind {
            StatementKind::Write => statement.reads.is_empty() && statement.mentions("truncate"),
            StatementKind::Session | StatementKind::Utility | StatementKind::Unparsed => true,
            StatementKind::Read
            | StatementKind::Ddl
            | StatementKind::Transaction
            | StatementKind::Setting
            | StatementKind::Copy => false,
        },
    }
}

/// Whether it may change what sessions begin with. Rather one time too often: it only makes connections new.
fn changes_defaults(statement: &Statement) -> bool {
    let alters = statement.kind == StatementKind::Ddl
        && statement.mentions("alter")
        && ["role", "user", "database", "system"]
            .iter()
            .any(|word| statement.mentions(word));
    alters || statement.mentions("pg_reload_conf")
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Takes over what the backend confirmed.
    pub(super) fn take_over(&mut self, observer: &mut Observer, in_transaction: bool) {
        let pinned = self.pins.reason();
        for confirmation in observer.confirmations.take_confirmed() {
            match confirmation {
                Confirmation::Prepared(name, prepared) => {
                    self.unnamed_here |= name.is_empty();
                    self.statements.note_prepared(&name, prepared);
                }
                Confirmation::ClosedStatement(name) => {
                    self.statements.note_closed(&name);
                    if let Ok(name) = std::str::from_utf8(&name) {
                        self.pins.remove(&SessionUse::Deallocate(Some(name.into())));
                    }
                }
                Confirmation::Bound(name, portal) if in_transaction => {
                    self.statements.note_bound(&name, portal);
                }
                // from here on it is there as if SQL had prepared it
                Confirmation::Visited(name, true) | Confirmation::PreparedBySql(name) => {
                    self.not_left_behind(&name);
                    let session = SessionUse::Prepare(name);
                    self.pin_for(PinReason::PreparedStatement, Some(&session));
                }
                Confirmation::Deallocated(name) => {
                    match &name {
                        None => self.statements.note_all_closed(),
                        Some(name) => {
                            self.statements.note_closed(name.as_bytes());
                            self.not_left_behind(name);
                        }
                    }
                    self.pins.remove(&SessionUse::Deallocate(name));
                }
                Confirmation::Visited(_, false)
                | Confirmation::Bound(..)
                | Confirmation::Described(_)
                | Confirmation::Nothing => {}
            }
        }
        self.note_unpinned(pinned);
        for (name, description) in observer.described.drain(..) {
            self.statements.note_described(&name, description);
        }
        if !in_transaction {
            self.statements.note_transaction_ended();
        }
    }

    /// Notes what an answer from memory means for the transaction and for the unnamed statement: the client thinks that it
    /// has prepared it.
    pub(super) fn note_answered(&mut self, request: &Request, mut facts: Facts) {
        if facts.form == Form::Simple {
            self.statements.note_closed(b"");
        }
        self.begun.note_query();
        let mut observer = Observer::new(true);
        observer.confirmations.expect(&mut facts.confirmations);
        observer.confirmations.confirm_all();
        let in_transaction = self.status() != TransactionStatus::Idle;
        self.take_over(&mut observer, in_transaction);
        if self.late.is_empty() {
            self.late = observer.confirmations.into_rest();
        }
        self.spare_namings(facts.namings);
        if request.frames.iter().any(|frame| frame.tag == FrontendTag::Parse) || facts.form == Form::Simple {
            self.unnamed_here = false;
        }
    }

    fn not_left_behind(&mut self, name: &str) {
        if let Binding::Held(lease) = &mut self.binding {
            lease.not_left_behind(name.as_bytes());
        }
    }
}
