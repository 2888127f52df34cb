//! Why a session must keep its backend connection: what it has left there that cannot be carried to another.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::sql::{PinReason, SessionUse};

/// Names remembered of each sort at most; with more of them it is not known any more when the last is gone.
const MAX_NAMES: usize = 1_000;

/// What a session has at its connection. Empty: it may have another connection for each transaction.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    prepared: Names,
    cursors: Names,
    channels: Names,
    role: bool,
    authorization: bool,
    /// What cannot be told to be gone, but by `DISCARD` or the end of the session.
    lasting: BTreeSet<PinReason>,
}

/// Things that go one by one.
#[derive(Clone, Debug, Default)]
struct Names {
    known: BTreeSet<Arc<str>>,
    /// There were more than are known.
    more: bool,
}

impl Names {
    fn add(&mut self, name: &Arc<str>) {
        if self.known.len() < MAX_NAMES {
            self.known.insert(Arc::clone(name));
        } else {
            self.more = true;
        }
    }

    fn remove(&mut self, name: Option<&Arc<str>>) {
        match name {
            Some(name) => drop(self.known.remove(name)),
            None => *self = Self::default(),
        }
    }

    fn any(&self) -> bool {
        self.more || !self.known.is_empty()
    }
}

impl Pins {
    /// Whether the session must keep its connection.
    pub fn any(&self) -> bool {
        !self.lasting.is_empty()
            || self.prepared.any()
            || self.cursors.any()
            || self.channels.any()
            || self.role
            || self.authorization
    }

    /// The first reason, of those there are, for which the session must keep its connection.
    pub fn reason(&self) -> Option<PinReason> {
        self.reasons().next()
    }

    /// Every reason for which the session must keep its connection.
    pub fn reasons(&self) -> impl Iterator<Item = PinReason> {
        let by_name = [
            (self.prepared.any(), PinReason::PreparedStatement),
            (self.cursors.any(), PinReason::Cursor),
            (self.channels.any(), PinReason::Listen),
            (self.role || self.authorization, PinReason::Role),
        ];
        let by_name = by_name.into_iter().filter(|(any, _)| *any);
        self.lasting
            .iter()
            .copied()
            .chain(by_name.map(|(_, reason)| reason))
    }

    /// Whether SQL has prepared a statement `name`.
    pub fn prepared(&self, name: &str) -> bool {
        self.prepared.known.contains(name)
    }

    /// Notes what a statement left: `reason` is its own, `session` what is known of it.
    pub fn add(&mut self, reason: PinReason, session: Option<&SessionUse>) {
        match session {
            Some(SessionUse::Prepare(name)) => self.prepared.add(name),
            Some(SessionUse::DeclareHeld(name)) => self.cursors.add(name),
            Some(SessionUse::Listen(channel)) => self.channels.add(channel),
            Some(SessionUse::SetRole) => self.role = true,
            Some(SessionUse::SetAuthorization) => self.authorization = true,
            Some(
                SessionUse::Execute(_)
                | SessionUse::Deallocate(_)
                | SessionUse::CloseCursor(_)
                | SessionUse::Passing
                | SessionUse::Unlisten(_)
                | SessionUse::ResetRole
                | SessionUse::ResetAuthorization
                | SessionUse::DiscardAll
                | SessionUse::DiscardTemporary
                | SessionUse::UnlockAll,
            )
            | None => drop(self.lasting.insert(reason)),
        }
    }

    /// Notes what a statement took away; it has succeeded, and is not undone by the end of a transaction.
    pub fn remove(&mut self, session: &SessionUse) {
        match session {
            SessionUse::Deallocate(name) => self.prepared.remove(name.as_ref()),
            SessionUse::CloseCursor(name) => self.cursors.remove(name.as_ref()),
            SessionUse::Unlisten(channel) => self.channels.remove(channel.as_ref()),
            SessionUse::ResetRole => self.role = false,
            SessionUse::ResetAuthorization => (self.role, self.authorization) = (false, false),
            SessionUse::DiscardAll => {
                // statements are told by themselves: some may have been prepared since
                let prepared = std::mem::take(&mut self.prepared);
                *self = Self {
                    prepared,
                    ..Self::default()
                };
            }
            SessionUse::DiscardTemporary => drop(self.lasting.remove(&PinReason::TemporaryTable)),
            SessionUse::UnlockAll => drop(self.lasting.remove(&PinReason::AdvisoryLock)),
            SessionUse::Prepare(_)
            | SessionUse::Execute(_)
            | SessionUse::DeclareHeld(_)
            | SessionUse::Passing
            | SessionUse::Listen(_)
            | SessionUse::SetRole
            | SessionUse::SetAuthorization => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_free_once_every_cause_is_gone() {
        let name = |name: &str| Arc::<str>::from(name);
        let mut pins = Pins::default();
        assert!(!pins.any());
        let left = [
            (PinReason::PreparedStatement, SessionUse::Prepare(name("p"))),
            (PinReason::PreparedStatement, SessionUse::Prepare(name("q"))),
            (PinReason::Cursor, SessionUse::DeclareHeld(name("c"))),
            (PinReason::Listen, SessionUse::Listen(name("l"))),
            (PinReason::Role, SessionUse::SetRole),
            (PinReason::Role, SessionUse::SetAuthorization),
        ];
        for (reason, session) in &left {
            pins.add(*reason, Some(session));
        }
        pins.add(PinReason::TemporaryTable, None);
        pins.add(PinReason::AdvisoryLock, None);
        for (session, next) in [
            (SessionUse::Deallocate(Some(name("r"))), PinReason::TemporaryTable),
            (SessionUse::DiscardTemporary, PinReason::AdvisoryLock),
            (SessionUse::UnlockAll, PinReason::PreparedStatement),
            (
                SessionUse::Deallocate(Some(name("p"))),
                PinReason::PreparedStatement,
            ),
            (SessionUse::Deallocate(None), PinReason::Cursor),
            (SessionUse::CloseCursor(Some(name("c"))), PinReason::Listen),
            (SessionUse::Unlisten(Some(name("l"))), PinReason::Role),
            (SessionUse::ResetRole, PinReason::Role),
        ] {
            pins.remove(&session);
            assert_eq!(pins.reason(), Some(next), "{session:?}");
        }
        pins.remove(&SessionUse::ResetAuthorization);
        assert!(!pins.any());
        pins.add(PinReason::Procedure, None);
        pins.remove(&SessionUse::Deallocate(None));
        assert_eq!(pins.reason(), Some(PinReason::Procedure));
        pins.remove(&SessionUse::DiscardAll);
        assert!(!pins.any());
    }

    #[test]
    fn names_are_bounded() {
        let mut pins = Pins::default();
        for number in 0..=MAX_NAMES {
            let session = SessionUse::Listen(number.to_string().into());
            pins.add(PinReason::Listen, Some(&session));
        }
        for number in 0..=MAX_NAMES {
            pins.remove(&SessionUse::Unlisten(Some(number.to_string().into())));
        }
        assert!(pins.any(), "one more was not noted");
        pins.remove(&SessionUse::Unlisten(None));
        assert!(!pins.any());
    }
}
