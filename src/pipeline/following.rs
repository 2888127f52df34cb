//! A session's settings as its statements change them: a change counts once its transaction is committed, and is undone
//! with it.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-set.html>.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::facts::Facts;
use super::observe::Observer;
use super::session::{Binding, Session};
use super::settle::{Aftermath, Outcome, Step, defined_by};
use crate::session::{SettingValue, Settings};
use crate::sql::{PinReason, SettingChange, StatementKind};
use crate::wire::TransactionStatus;

/// Changes in one transaction that are followed at most.
const MAX_PENDING: usize = 1_000;

/// Settings whose new value depends on the one before, unless it is given in full.
const RELATIVE: [&str; 1] = ["datestyle"];

/// Changes of settings that are not committed yet.
#[derive(Debug, Default)]
pub(super) struct Pending(Vec<SettingChange>);

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Now {
    /// It is open.
    Open,
    Committed,
    RolledBack,
}

/// It cannot be told any more what the settings are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost;

impl Pending {
    /// Takes the steps of a request that ran. `ends` tells of each transaction that ended in it whether it was
    /// committed, `now` what became of the last. What was committed comes back.
    ///
    /// # Errors
    ///
    /// What was undone with a savepoint cannot be told, or there are too many changes.
    fn follow(&mut self, steps: &[Step], ends: &[bool], now: Now) -> Result<Vec<SettingChange>, Lost> {
        let (mut committed, mut ends) = (Vec::new(), ends.iter());
        for step in steps {
            match step {
                Step::Change(change) => self.0.push(change.clone()),
                Step::End => match ends.next() {
                    Some(true) => committed.append(&mut self.0),
                    Some(false) => self.0.clear(),
                    None if self.0.is_empty() => {}
                    None => return Err(Lost),
                },
                Step::ToSavepoint if self.0.is_empty() => {}
                Step::ToSavepoint => return Err(Lost),
            }
        }
        match now {
            Now::Open => {}
            Now::Committed => committed.append(&mut self.0),
            Now::RolledBack => self.0.clear(),
        }
        if self.0.len() > MAX_PENDING {
            return Err(Lost);
        }
        Ok(committed)
    }

    /// Everything that is open has failed; `in_transaction`: going back to a savepoint may save some of it.
    pub(super) fn fail_whole(&mut self, in_transaction: bool) {
        if !in_transaction {
            self.0.clear();
        }
    }

    /// Takes the steps of a request that failed, where it is not known which of them were done.
    ///
    /// # Errors
    ///
    /// Some of them may have been committed before.
    fn fail(&mut self, steps: &[Step], in_transaction: bool) -> Result<(), Lost> {
        let changes = steps.iter().any(|step| matches!(step, Step::Change(_)));
        if (changes || !self.0.is_empty()) && steps.contains(&Step::End) {
            return Err(Lost);
        }
        // what was sent in one go was one transaction
        self.fail_whole(in_transaction);
        if in_transaction && changes {
            // going back to a savepoint may save some of them: then it is not known which
            self.0.extend(steps.iter().filter_map(|step| match step {
                Step::Change(change) => Some(change.clone()),
                Step::End | Step::ToSavepoint => None,
            }));
        }
        Ok(())
    }
}

/// What is set after `changes`, and not reset again by one of them.
fn set_by(changes: &[SettingChange]) -> BTreeSet<Arc<str>> {
    let mut names = BTreeSet::new();
    for change in changes {
        match change {
            SettingChange::Set { name, value: Some(_) } | SettingChange::SetConfig { name, .. } => {
                names.insert(Arc::clone(name));
            }
            SettingChange::Set { name, value: None } | SettingChange::Reset { name } => {
                names.remove(name);
            }
            SettingChange::ResetAll => names.clear(),
            SettingChange::SetLocal { .. } | SettingChange::Show { .. } => {}
        }
    }
    names
}

/// Changes the settings of a session, which began with `startup`, and those of its connection. What the session has no room
/// for is not followed.
fn apply(change: &SettingChange, startup: &Settings, session: &mut Settings, connection: &mut Settings) {
    if defined_by(change).is_some_and(|name| !session.has_room_for(name)) {
        return;
    }
    match change {
        SettingChange::Set {
            name,
            value: Some(value),
        } => {
            let value = SettingValue::Sql(Arc::clone(value));
            session.set(name, value.clone());
            connection.set(name, value);
        }
        SettingChange::SetConfig { name, value } => {
            let value = SettingValue::Plain(Arc::clone(value));
            session.set(name, value.clone());
            connection.set(name, value);
        }
        SettingChange::Set { name, value: None } | SettingChange::Reset { name } => {
            // the connection has the backend's own value then; a session's own is the one that it began with
            connection.reset(name);
            session.reset(name);
            session.define(name);
            if let Some(value) = startup.value(name) {
                session.set(name, value.clone());
            }
        }
        SettingChange::ResetAll => {
            connection.reset_all();
            let before = std::mem::replace(session, startup.clone());
            session.define_all_of(&before);
        }
        SettingChange::SetLocal { .. } | SettingChange::Show { .. } => {}
    }
}

/// Settings of the client's own that a request makes exist before it could look at one that does not.
pub(super) fn defined_first(facts: &Facts) -> Vec<Arc<str>> {
    if facts.unknown {
        return Vec::new();
    }
    let mut names = Vec::new();
    for statement in facts.statements() {
        match &statement.setting {
            Some(change) => names.extend(defined_by(change).cloned()),
            None if statement.kind == StatementKind::Transaction => {}
            None => break,
        }
    }
    names
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Notes which settings exist after a request, whatever their values: they do also when it is undone.
    pub(super) fn note_defined(&mut self, aftermath: &Aftermath, outcome: Outcome) {
        if outcome == Outcome::Failed || aftermath.defines.is_empty() {
            return;
        }
        let before = self.settings.clone();
        for name in &aftermath.defines {
            if self.settings.has_room_for(name) {
                self.settings.define(name);
            }
        }
        if self.settings != before {
            self.settings_changed();
        }
    }

    /// Takes over what a request did to settings.
    ///
    /// # Errors
    ///
    /// It cannot be told what they are now.
    pub(super) async fn follow_settings(
        &mut self,
        steps: &[Step],
        observer: &Observer,
        outcome: Outcome,
        in_transaction: bool,
    ) -> Result<(), Lost> {
        let now = match outcome {
            Outcome::Failed => return self.pending.fail(steps, in_transaction),
            _ if in_transaction => Now::Open,
            Outcome::Completed => Now::Committed,
            Outcome::Cut => Now::RolledBack,
        };
        let committed = self.pending.follow(steps, &observer.ends, now)?;
        if !committed.is_empty() {
            let mut connection = match &self.binding {
                Binding::Held(lease) => lease.settings().cloned(),
                Binding::Free => None,
            };
            let mut unknown = Settings::default();
            for change in &committed {
                let connection = connection.as_mut().unwrap_or(&mut unknown);
                apply(change, &self.identity.startup, &mut self.settings, connection);
            }
            for name in set_by(&committed) {
                if in_transaction {
                    // what was reported last may be the value of the transaction that is open
                    if RELATIVE.contains(&&*name) {
                        return Err(Lost);
                    }
                } else if let Binding::Held(lease) = &self.binding {
                    for settings in [&mut self.settings, connection.as_mut().unwrap_or(&mut unknown)] {
                        settings.take_reported(&name, lease.parameters());
                    }
                }
            }
            if let Binding::Held(lease) = &mut self.binding {
                lease.note_settings(connection);
            }
            self.settings_changed();
        }
        if in_transaction {
            return self.set_again(steps).await;
        }
        Ok(())
    }

    /// A session with so many settings of its own that not all of them are followed keeps its connection: no other has them,
    /// and no statement takes them away.
    pub(super) fn keep_many_settings(&mut self) {
        if !self.settings.is_full() {
            return;
        }
        self.pin_for(PinReason::Setting, None);
        if let Binding::Held(lease) = &mut self.binding {
            lease.note_settings(None);
        }
    }

    /// A RESET within a transaction went to the backend's own values: sets those that the session began with.
    async fn set_again(&mut self, steps: &[Step]) -> Result<(), Lost> {
        let mut wanted = Settings::default();
        let startup = &self.identity.startup;
        for step in steps {
            match step {
                Step::Change(SettingChange::ResetAll) => wanted = startup.without_identity(),
                Step::Change(SettingChange::Reset { name } | SettingChange::Set { name, value: None }) => {
                    if let Some(value) = startup.value(name) {
                        wanted.set(name, value.clone());
                    }
                }
                Step::Change(_) | Step::End | Step::ToSavepoint => {}
            }
        }
        let Binding::Held(lease) = &mut self.binding else {
            return Ok(());
        };
        if wanted.is_empty() {
            return Ok(());
        }
        // in the midst of a series a statement of the gateway's own would end the transaction
        if !lease.replies().settled() || lease.status() != TransactionStatus::InTransaction {
            return Err(Lost);
        }
        lease.set_within(&wanted).await.map_err(|_| Lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(text: &str) -> SettingChange {
        match text.split_once('=') {
            Some((name, value)) => SettingChange::Set {
                name: name.into(),
                value: Some(value.into()),
            },
            None if text == "all" => SettingChange::ResetAll,
            None => SettingChange::Reset { name: text.into() },
        }
    }

    /// Requests as words: changes, `;` ends a transaction, `<` goes back to a savepoint; `!` at the end: it failed; `+`:
    /// a transaction is open afterwards. `commits` has one letter for each end.
    fn run(requests: &str, commits: &str) -> String {
        let (mut pending, mut said) = (Pending::default(), Vec::new());
        let mut commits = commits.chars().map(|end| end == 'c');
        for request in requests.split(" | ") {
            let words: Vec<&str> = request.split(' ').collect();
            let steps: Vec<Step> = words
                .iter()
                .filter(|word| !matches!(**word, "!" | "+"))
                .map(|word| match *word {
                    ";" => Step::End,
                    "<" => Step::ToSavepoint,
                    word => Step::Change(change(word)),
                })
                .collect();
            let in_transaction = words.contains(&"+");
            if words.contains(&"!") {
                said.push(
                    pending
                        .fail(&steps, in_transaction)
                        .map_or("lost", |()| "")
                        .to_owned(),
                );
                continue;
            }
            let ends: Vec<bool> = words
                .iter()
                .filter(|word| **word == ";")
                .filter_map(|_| commits.next())
                .collect();
            let now = if in_transaction { Now::Open } else { Now::Committed };
            said.push(match pending.follow(&steps, &ends, now) {
                Ok(committed) => committed
                    .iter()
                    .map(|change| {
                        let SettingChange::Set {
                            name,
                            value: Some(value),
                        } = change
                        else {
                            panic!("only such are used here");
                        };
                        format!("{name}={value}")
                    })
                    .collect::<Vec<_>>()
                    .join(" "),
                Err(Lost) => "lost".to_owned(),
            });
        }
        said.join("|")
    }

    #[test]
    fn a_change_counts_once_it_is_committed() {
        for (requests, commits, expected) in [
            ("a=1", "", "a=1"),
            ("a=1 b=2", "", "a=1 b=2"),
            ("a=1 +", "", ""),
            ("a=1 + | ;", "c", "|a=1"),
            ("a=1 + | ;", "r", "|"),
            ("a=1 + | b=2 ;", "c", "|a=1 b=2"),
            ("a=1 ; b=2", "c", "a=1 b=2"),
            ("a=1 ; b=2", "r", "b=2"),
            ("a=1 + | < +", "", "|lost"),
            ("< + | a=1 + | ;", "c", "||a=1"),
            ("a=1 !", "", ""),
            ("a=1 ! | b=1", "", "|b=1"),
            ("a=1 ; b=2 !", "", "lost"),
            ("a=1 + | ! + | ;", "r", "||"),
            ("a=1 + ! | < +", "", "|lost"),
            // a COMMIT of a transaction that has failed says ROLLBACK
            ("a=1 + | ! + | ; b=2", "r", "||b=2"),
        ] {
            assert_eq!(run(requests, commits), expected, "{requests}");
        }
        let mut pending = Pending::default();
        let many: Vec<Step> = (0..=MAX_PENDING).map(|_| Step::Change(change("a=1"))).collect();
        assert_eq!(pending.follow(&many, &[], Now::Open), Err(Lost));
        let mut pending = Pending::default();
        let undone = [
            Step::Change(change("a=1")),
            Step::End,
            Step::Change(change("b=2")),
        ];
        assert_eq!(
            pending.follow(&undone, &[true], Now::RolledBack),
            Ok(vec![change("a=1")]),
            "it failed after what was committed in it"
        );
        assert_eq!(pending.follow(&[], &[], Now::Committed), Ok(vec![]));
    }

    #[test]
    fn a_reset_goes_back_to_what_the_session_began_with() {
        let mut startup = Settings::default();
        startup.set("timezone", SettingValue::Plain("Europe/Berlin".into()));
        for reset in ["timezone", "all"] {
            let (mut session, mut connection) = (startup.clone(), startup.clone());
            apply(&change("timezone='UTC'"), &startup, &mut session, &mut connection);
            assert_eq!(
                session.value("timezone"),
                Some(&SettingValue::Sql("'UTC'".into()))
            );
            assert_eq!(connection, session);
            apply(&change(reset), &startup, &mut session, &mut connection);
            assert_eq!(session, startup, "{reset}");
            assert_eq!(
                connection,
                Settings::default(),
                "the backend knows nothing of the start-up"
            );
        }
    }
}
