//! What a request leaves behind: writes, settings, a pin. Decided before it runs, taken over once it is known how it
//! ended.

use std::sync::Arc;

use super::facts::Facts;
use super::gateway::Gateway;
use super::judged::Judged;
use super::observe::{Confirmation, Observer};
use super::realm::Database;
use crate::policy::{Invalidation, invalidation};
use crate::session::{SettingValue, Settings, Statements};
use crate::sql::{PinReason, SettingChange, Statement, StatementKind, TransactionControl};

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
    /// Why the session has to keep its connection afterwards.
    pub(super) pin: Option<&'static str>,
    /// What it does to a setting, where that can be followed.
    pub(super) setting: Option<SettingChange>,
    /// It runs one statement that is known, and prepares nothing.
    pub(super) alone: bool,
    /// It may change the search path in a way that is not followed.
    pub(super) moves_path: bool,
    /// The definitions it was judged by.
    pub(super) generation: Option<u64>,
    /// It may change what sessions begin with: `ALTER ROLE … SET`, `ALTER DATABASE … SET`.
    pub(super) changes_defaults: bool,
}

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
        PinReason::Procedure => "procedure",
        PinReason::Unparsed => "unparsed",
    }
}

impl Aftermath {
    /// Foresees what `facts` leave behind. `idle`: no transaction is open.
    pub(super) fn of(
        facts: &Facts,
        gateway: &Gateway,
        judged: &mut Judged,
        database: &Database,
        search_path: &Arc<[Arc<str>]>,
        idle: bool,
    ) -> Self {
        let catalog = database.watch.current();
        let mut aftermath = Self {
            generation: catalog.as_ref().map(|catalog| catalog.generation),
            // an autocommit ends its transaction, and so does whatever is not known
            may_commit: idle || facts.unknown,
            ..Self::default()
        };
        if facts.unknown {
            aftermath.stale.push(Invalidation::Everything);
            aftermath.pin = Some(pin_word(PinReason::Unparsed));
            aftermath.moves_path = true;
        }
        aftermath.alone = facts.single().is_some() && !facts.names_statement;
        let alone = facts.single().is_some();
        for statement in facts.statements() {
            let stale = match &catalog {
                Some(catalog) if remembered(statement) => judged
                    .verdicts(gateway, statement, database, catalog, search_path)
                    .invalidation
                    .clone(),
                Some(catalog) => invalidation(statement, Some(catalog), search_path),
                None => invalidation(statement, None, search_path),
            };
            if stale != Invalidation::Nothing {
                aftermath.stale.push(stale);
            }
            aftermath.may_commit |= ends_transaction(statement);
            aftermath.changes_defaults |= changes_defaults(statement);
            aftermath.note_session(statement, alone, idle);
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

    fn note_session(&mut self, statement: &Statement, alone: bool, idle: bool) {
        if let Some(reason) = statement.pin {
            self.pin = Some(pin_word(reason));
            self.moves_path |= match reason {
                PinReason::Role | PinReason::Setting | PinReason::Procedure | PinReason::Unparsed => true,
                PinReason::TemporaryTable
                | PinReason::PreparedStatement
                | PinReason::Cursor
                | PinReason::Listen
                | PinReason::AdvisoryLock => false,
            };
        }
        match &statement.setting {
            None | Some(SettingChange::Show { .. }) => {}
            Some(SettingChange::SetLocal { .. }) => self.moves_path = true,
            // by itself and outside of a transaction it can be followed: it holds if it succeeds
            Some(change) if alone && idle => self.setting = Some(change.clone()),
            Some(_) => {
                self.pin = Some(pin_word(PinReason::Setting));
                self.moves_path = true;
            }
        }
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
    statement.kind == StatementKind::Ddl
        && statement.mentions("alter")
        && ["role", "user", "database", "system"]
            .iter()
            .any(|word| statement.mentions(word))
}

/// Takes over into `statements` what the backend confirmed.
pub(super) fn take_over(observer: &mut Observer, statements: &mut Statements, in_transaction: bool) {
    for confirmation in observer.confirmed.drain(..) {
        match confirmation {
            Confirmation::Prepared(name, prepared) => statements.note_prepared(&name, prepared),
            Confirmation::ClosedStatement(name) => statements.note_closed(&name),
            Confirmation::Bound(name, portal) if in_transaction => statements.note_bound(&name, portal),
            Confirmation::AllClosed => statements.note_all_closed(),
            Confirmation::Bound(..) | Confirmation::Described(_) | Confirmation::Nothing => {}
        }
    }
    for (name, description) in observer.described.drain(..) {
        statements.note_described(&name, description);
    }
    if !in_transaction {
        statements.note_transaction_ended();
    }
}

/// The settings after `change` succeeded, and those that the connection has then (`None`: not known).
pub(super) fn changed_settings(
    settings: &Settings,
    startup: &Settings,
    change: &SettingChange,
) -> (Settings, Option<Settings>) {
    let mut changed = settings.clone();
    match change {
        SettingChange::Set {
            name,
            value: Some(value),
        } => {
            changed.set(name, SettingValue::Sql(Arc::clone(value)));
            (changed.clone(), Some(changed))
        }
        SettingChange::Set { name, value: None } | SettingChange::Reset { name } => {
            // the connection now has the backend's own value; a session's own is the one that it began with
            changed.reset(name);
            let at_connection = changed.clone();
            if let Some(value) = startup.value(name) {
                changed.set(name, value.clone());
            }
            (changed, Some(at_connection))
        }
        SettingChange::ResetAll => (startup.clone(), Some(Settings::default())),
        SettingChange::SetLocal { .. } | SettingChange::Show { .. } => (changed.clone(), Some(changed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_goes_back_to_what_the_session_began_with() {
        let mut startup = Settings::default();
        startup.set("timezone", SettingValue::Plain("Europe/Berlin".into()));
        let set = SettingChange::Set {
            name: "timezone".into(),
            value: Some("'UTC'".into()),
        };
        let (settings, connection) = changed_settings(&startup, &startup, &set);
        assert_eq!(
            settings.value("timezone"),
            Some(&SettingValue::Sql("'UTC'".into()))
        );
        assert_eq!(connection.as_ref(), Some(&settings));
        for reset in [
            SettingChange::Reset {
                name: "timezone".into(),
            },
            SettingChange::ResetAll,
        ] {
            let (settings, connection) = changed_settings(&settings, &startup, &reset);
            assert_eq!(settings, startup, "{reset:?}");
            assert_eq!(
                connection,
                Some(Settings::default()),
                "the backend knows nothing of the start-up"
            );
        }
    }
}
