//! A session's prepared statements and portals, as far as the gateway must know them.
//!
//! They are noted when the backend confirms them, never before: a `Parse` that fails leaves what was there. What is not
//! noted (there is a bound) is not known, and whatever is not known is taken to do anything.

use std::collections::HashMap;

use crate::sql::Analysis;

/// Names and texts noted at most; a session that prepares more goes on, its later ones are not known.
const MAX_NOTED: usize = 10_000;

/// Bytes of texts noted at most.
const MAX_BYTES: usize = 16 << 20;

/// A prepared statement.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Its SQL text.
    pub text: Box<[u8]>,
    /// Type OIDs that `Parse` gave, four bytes each.
    pub types: Box<[u8]>,
    /// The facts.
    pub analysis: Analysis,
}

/// A portal that outlives its request, inside a transaction.
#[derive(Clone, Debug)]
pub struct Portal {
    /// The facts of its statement; `None` when that is not known.
    pub analysis: Option<Analysis>,
    /// What the gateway runs by itself when it is executed; `None` for a portal of the backend's.
    pub local: Option<LocalPortal>,
}

/// A portal of which the backend knows nothing.
#[derive(Clone, Debug)]
pub struct LocalPortal {
    /// The text of its statement.
    pub text: Box<[u8]>,
    /// The formats of its columns, as `Bind` gave them.
    pub formats: Box<[i16]>,
}

/// What a session has prepared and bound.
#[derive(Debug, Default)]
pub struct Statements {
    unnamed: Option<Prepared>,
    named: HashMap<Box<[u8]>, Prepared>,
    bytes: usize,
    portals: HashMap<Box<[u8]>, Portal>,
}

impl Statements {
    /// The statement `name`, empty for the unnamed one.
    pub fn prepared(&self, name: &[u8]) -> Option<&Prepared> {
        if name.is_empty() {
            self.unnamed.as_ref()
        } else {
            self.named.get(name)
        }
    }

    /// Notes that `name` was prepared.
    pub fn note_prepared(&mut self, name: &[u8], prepared: Prepared) {
        if name.is_empty() {
            self.unnamed = Some(prepared);
            return;
        }
        let bytes = name.len() + prepared.text.len() + prepared.types.len();
        if self.named.len() >= MAX_NOTED || self.bytes + bytes > MAX_BYTES {
            return;
        }
        self.bytes += bytes;
        if let Some(old) = self.named.insert(name.into(), prepared) {
            self.bytes = self
                .bytes
                .saturating_sub(name.len() + old.text.len() + old.types.len());
        }
    }

    /// Notes that `name` is gone.
    pub fn note_closed(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed = None;
        } else if let Some(old) = self.named.remove(name) {
            self.bytes = self
                .bytes
                .saturating_sub(name.len() + old.text.len() + old.types.len());
        }
    }

    /// Forgets every named statement: `DEALLOCATE ALL`, `DISCARD ALL`.
    pub fn note_all_closed(&mut self) {
        self.named.clear();
        self.bytes = 0;
    }

    /// The portal `name`.
    pub fn portal(&self, name: &[u8]) -> Option<&Portal> {
        self.portals.get(name)
    }

    /// Notes that a portal was bound.
    pub fn note_bound(&mut self, name: &[u8], portal: Portal) {
        if self.portals.len() < MAX_NOTED || self.portals.contains_key(name) {
            self.portals.insert(name.into(), portal);
        }
    }

    /// Notes that the portal `name` was closed.
    pub fn note_portal_closed(&mut self, name: &[u8]) {
        self.portals.remove(name);
    }

    /// Forgets every portal: they end with their transaction.
    pub fn note_transaction_ended(&mut self) {
        self.portals.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Backslash;

    fn prepared(text: &str) -> Prepared {
        Prepared {
            text: text.as_bytes().into(),
            types: Box::default(),
            analysis: Analysis::of(text.as_bytes(), Backslash::Literal),
        }
    }

    #[test]
    fn names_are_kept_apart_and_bounded() {
        let mut statements = Statements::default();
        statements.note_prepared(b"", prepared("SELECT 1"));
        statements.note_prepared(b"a", prepared("SELECT 2"));
        assert_eq!(
            statements.prepared(b"").map(|known| &*known.text),
            Some(&b"SELECT 1"[..])
        );
        statements.note_closed(b"");
        assert!(statements.prepared(b"").is_none() && statements.prepared(b"a").is_some());
        statements.note_closed(b"a");
        assert_eq!(statements.bytes, 0);
        for number in 0..=MAX_NOTED {
            statements.note_prepared(number.to_string().as_bytes(), prepared("SELECT 3"));
        }
        assert_eq!(statements.named.len(), MAX_NOTED);
        statements.note_all_closed();
        assert_eq!((statements.named.len(), statements.bytes), (0, 0));
    }
}
