//! Prepared statements that a connection has, by what they mean: sessions share them.
//!
//! A statement is known under a number, which makes its name at the server; a number is used once in a connection's life,
//! so that no reply can be taken for another statement's. It counts as there once the server has confirmed it. How many
//! there are is bounded: the one that was used the longest time ago is closed first. Source:
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY>.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU64;

use crate::session::{Description, StatementKey};

/// A statement's number at its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatementNumber(NonZeroU64);

/// Names of shared statements at the server begin with this.
const PREFIX: &str = "tollgate_";

impl fmt::Display for StatementNumber {
    /// Its name at the server.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0)
    }
}

/// A statement that nobody prepares: closing it does nothing and is confirmed all the same.
pub const NOBODYS: &[u8] = b"tollgate_none";

/// Whether `name` could be one of the gateway's own.
pub fn is_shared_name(name: &[u8]) -> bool {
    name.starts_with(PREFIX.as_bytes())
}

#[derive(Clone, Copy, Debug)]
struct Known {
    number: StatementNumber,
    /// The state of the database's definitions when it was prepared, as [`Statements::find`] is told.
    epoch: u64,
    /// Its description, where the server has given it.
    description: Option<Description>,
    confirmed: bool,
    /// The round that used it last.
    used: u64,
}

/// The statements of one connection.
#[derive(Debug)]
pub struct Statements {
    known: HashMap<StatementKey, Known>,
    /// Asked to be closed, and not confirmed yet.
    closing: Vec<StatementNumber>,
    /// Still there: the request to close them was skipped after an error. They are closed with the next that is prepared.
    lingering: Vec<StatementNumber>,
    first: NonZeroU64,
    next: NonZeroU64,
    round: u64,
}

impl Default for Statements {
    fn default() -> Self {
        // not to be guessed: code that a client runs could take the name before
        let first = NonZeroU64::MIN.saturating_add(rand::random::<u64>() >> 16);
        Self {
            known: HashMap::new(),
            closing: Vec::new(),
            lingering: Vec::new(),
            first,
            next: first,
            round: 0,
        }
    }
}

impl Statements {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether `name` is that of a statement that is or was here.
    pub fn has_given(&self, name: &[u8]) -> bool {
        let number = name.strip_prefix(PREFIX.as_bytes());
        let number = number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
        number.is_some_and(|number| (self.first..self.next).contains(&number))
    }

    /// A request begins: what it uses is not closed before the next begins. `settled`: everything asked for before was
    /// answered, so what is not confirmed by now never will be.
    pub fn begin_round(&mut self, settled: bool) {
        self.round += 1;
        if settled {
            self.known.retain(|_, known| known.confirmed);
            self.lingering.append(&mut self.closing);
        }
    }

    /// The statement `key`, if it is there and was prepared in `epoch`, so that a change of definitions since then cannot
    /// have made it another.
    pub fn find(&mut self, key: StatementKey, epoch: u64) -> Option<StatementNumber> {
        let round = self.round;
        let known = self.known.get_mut(&key).filter(|known| known.epoch == epoch)?;
        known.used = round;
        Some(known.number)
    }

    /// The statement `key`, if it is there, whatever happened to definitions since it was prepared.
    pub fn find_old(&self, key: StatementKey) -> Option<StatementNumber> {
        self.known.get(&key).map(|known| known.number)
    }

    /// What the server said of `key`.
    pub fn description(&self, key: StatementKey) -> Option<Description> {
        self.known.get(&key)?.description
    }

    /// Notes that `key` is about to be prepared: its new number, and what to close for it first, of which there are at most
    /// `limit` then.
    pub fn prepare(
        &mut self,
        key: StatementKey,
        epoch: u64,
        limit: usize,
    ) -> (StatementNumber, Vec<StatementNumber>) {
        let mut closed = std::mem::take(&mut self.lingering);
        self.closing.extend(&closed);
        closed.extend(self.forget(key));
        while self.known.len() >= limit.max(1) {
            let oldest = self
                .known
                .iter()
                .filter(|(_, known)| known.used < self.round)
                .min_by_key(|(_, known)| known.used)
                .map(|(key, _)| *key);
            // what the request itself uses stays, also beyond the limit
            let Some(oldest) = oldest else { break };
            closed.extend(self.forget(oldest));
        }
        let number = StatementNumber(self.next);
        self.next = self.next.saturating_add(1);
        let known = Known {
            number,
            epoch,
            description: None,
            confirmed: false,
            used: self.round,
        };
        self.known.insert(key, known);
        (number, closed)
    }

    /// Notes that the server has confirmed `number`.
    pub fn confirm(&mut self, number: StatementNumber) {
        if let Some(known) = self.known.values_mut().find(|known| known.number == number) {
            known.confirmed = true;
        }
    }

    /// Notes what the server said of `number`.
    pub fn describe(&mut self, number: StatementNumber, description: Description) {
        if let Some(known) = self.known.values_mut().find(|known| known.number == number) {
            known.description = Some(description);
        }
    }

    /// Forgets `key`; its number, if it was there, is to be closed.
    pub fn forget(&mut self, key: StatementKey) -> Option<StatementNumber> {
        let number = self.known.remove(&key)?.number;
        self.closing.push(number);
        Some(number)
    }

    /// Notes that the server has closed `number`.
    pub fn confirm_closed(&mut self, number: StatementNumber) {
        self.closing.retain(|closing| *closing != number);
    }

    /// Forgets all: the server has none any more.
    pub fn clear(&mut self) {
        self.known.clear();
        self.closing.clear();
        self.lingering.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u128) -> StatementKey {
        StatementKey(number)
    }

    #[test]
    fn a_statement_is_there_once_it_was_confirmed() {
        let mut statements = Statements::default();
        statements.begin_round(true);
        let (number, closed) = statements.prepare(key(1), 0, 10);
        let name = number.to_string();
        assert!(closed.is_empty() && is_shared_name(name.as_bytes()));
        assert!(statements.has_given(name.as_bytes()) && !statements.has_given(b"tollgate_1"));
        assert_eq!(
            statements.find(key(1), 0),
            Some(number),
            "asked for in the same breath"
        );
        statements.begin_round(true);
        assert_eq!(
            statements.find(key(1), 0),
            None,
            "it failed, or was skipped after an error"
        );
        let (number, _) = statements.prepare(key(1), 0, 10);
        statements.confirm(number);
        statements.begin_round(true);
        assert_eq!(statements.find(key(1), 0), Some(number));
        assert_eq!(statements.find(key(1), 1), None, "definitions have changed since");
        assert_eq!(
            statements.prepare(key(1), 1, 10).1,
            [number],
            "its predecessor is closed"
        );
    }

    #[test]
    fn what_an_error_kept_from_being_closed_is_closed_with_the_next() {
        let mut statements = Statements::default();
        statements.begin_round(true);
        let (first, _) = statements.prepare(key(1), 0, 1);
        statements.confirm(first);
        statements.begin_round(true);
        let (second, closed) = statements.prepare(key(2), 0, 1);
        assert_eq!(closed, [first]);
        // skipped, both of them
        statements.begin_round(true);
        let (third, closed) = statements.prepare(key(3), 0, 1);
        assert_eq!(closed, [first], "the second was never there");
        statements.confirm_closed(first);
        statements.confirm(third);
        statements.begin_round(true);
        let (_, closed) = statements.prepare(key(4), 0, 1);
        assert_eq!(closed, [third]);
        assert_ne!(second, third);
    }

    #[test]
    fn the_least_recently_used_goes_first_and_never_what_is_in_use() {
        let mut statements = Statements::default();
        for number in 1..=3 {
            statements.begin_round(true);
            let (number, closed) = statements.prepare(key(number), 0, 3);
            assert!(closed.is_empty());
            statements.confirm(number);
        }
        statements.begin_round(true);
        let first = statements.find(key(1), 0);
        let second = statements.find(key(2), 0);
        assert!(first.is_some() && second.is_some());
        let third = statements.known[&key(3)].number;
        let (fourth, closed) = statements.prepare(key(4), 0, 3);
        assert_eq!(closed, [third]);
        let (_, closed) = statements.prepare(key(5), 0, 3);
        assert!(closed.is_empty(), "all the others are in use");
        statements.confirm(fourth);
        statements.confirm_closed(third);
        statements.begin_round(true);
        assert_eq!(statements.len(), 3, "the fifth was never confirmed");
        let (_, closed) = statements.prepare(key(6), 0, 1);
        assert_eq!(closed.len(), 3, "a lower limit takes effect");
        statements.clear();
        assert!(statements.is_empty());
    }
}
