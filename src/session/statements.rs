//! A session's prepared statements and portals, as far as the gateway must know them.
//!
//! They are noted when the backend confirms them, never before: a `Parse` that fails leaves what was there. What is not
//! known is taken to do anything. A named statement is the session's by name only: at a connection it has another name,
//! and is prepared there when it is used.

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use siphasher::sip128::{Hasher128, SipHasher24};

use super::description::Description;
use super::settings::Settings;
use crate::sql::{Analysis, StatementKind};

/// Names and texts noted at most; a session that prepares more is refused.
const MAX_NOTED: usize = 10_000;

/// Bytes of texts noted at most.
const MAX_BYTES: usize = 16 << 20;

/// What a statement is: a digest of its text, the types of its parameters, and everything that changes what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatementKey(pub u128);

/// A prepared statement.
#[derive(Debug)]
pub struct Prepared {
    /// Its SQL text.
    pub text: Box<[u8]>,
    /// Type OIDs that `Parse` gave, four bytes each.
    pub types: Box<[u8]>,
    /// The facts.
    pub analysis: Analysis,
    /// What it is at any connection; `None` for the unnamed statement, which is prepared anew wherever it is used.
    pub key: Option<StatementKey>,
    /// The settings of its session when it was prepared: its literals were read by these.
    pub settings: Settings,
}

impl Prepared {
    fn bytes(&self) -> usize {
        self.text.len() + self.types.len()
    }
}

/// Named statements that sessions have prepared, each once however many sessions have it.
#[derive(Debug)]
pub struct SharedStatements {
    known: Mutex<Known>,
    keys: (u64, u64),
}

#[derive(Debug, Default)]
struct Known {
    statements: HashMap<StatementKey, Weak<Prepared>>,
    /// At this many, those that nobody has any more are dropped.
    prune_at: usize,
}

impl Default for SharedStatements {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            // not to be guessed, so that nobody can make two statements that are taken for one
            keys: (rand::random(), rand::random()),
        }
    }
}

impl SharedStatements {
    /// The smallest number of statements at which the ones that nobody has are looked for.
    const PRUNE_AT: usize = 1_024;

    /// What `text` with parameters of `types` is, where `scope` is everything else that it depends on.
    pub fn key(&self, scope: &[u8], text: &[u8], types: &[u8]) -> StatementKey {
        let mut hasher = SipHasher24::new_with_keys(self.keys.0, self.keys.1);
        for part in [scope, text, types] {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        StatementKey(hasher.finish128().as_u128())
    }

    /// The statement `key`, made by `make` if no session has it.
    pub fn share(&self, key: StatementKey, make: impl FnOnce() -> Prepared) -> Arc<Prepared> {
        // nothing panics while it holds the lock, and the map is whole after each step
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = known.statements.get(&key).and_then(Weak::upgrade) {
            return prepared;
        }
        if known.statements.len() >= known.prune_at.max(Self::PRUNE_AT) {
            known.statements.retain(|_, prepared| prepared.strong_count() > 0);
            known.prune_at = known.statements.len() * 2;
        }
        let prepared = Arc::new(make());
        known.statements.insert(key, Arc::downgrade(&prepared));
        prepared
    }
}

/// A portal that outlives its request, inside a transaction.
#[derive(Clone, Debug)]
pub struct Portal {
    /// The facts of its statement; `None` when that is not known.
    pub analysis: Option<Analysis>,
    /// What the gateway runs by itself when it is executed; `None` for a portal of the backend's.
    pub local: Option<LocalPortal>,
}

impl Portal {
    /// Whether it begins or ends a transaction, or does nothing: what else the gateway runs by itself, the backend must not.
    fn controls(&self) -> bool {
        self.analysis
            .as_ref()
            .is_some_and(|analysis| match analysis.statements() {
                [] => true,
                [located] => located.statement.kind == StatementKind::Transaction,
                _ => false,
            })
    }
}

/// A portal of which the backend knows nothing.
#[derive(Clone, Debug)]
pub struct LocalPortal {
    /// The text of its statement.
    pub text: Box<[u8]>,
    /// The formats of its columns, as `Bind` gave them.
    pub formats: Box<[i16]>,
    /// It was run, and has no rows that could be asked for again.
    pub done: bool,
}

/// A named statement of a session.
#[derive(Debug)]
pub struct Named {
    /// The statement.
    pub prepared: Arc<Prepared>,
    /// What the client was told of it.
    pub description: Option<Description>,
}

/// What a session has prepared and bound.
#[derive(Debug, Default)]
pub struct Statements {
    unnamed: Option<Arc<Prepared>>,
    named: HashMap<Arc<[u8]>, Named>,
    bytes: usize,
    portals: HashMap<Box<[u8]>, Portal>,
}

impl Statements {
    /// The statement `name`, empty for the unnamed one.
    pub fn prepared(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        if name.is_empty() {
            self.unnamed.as_ref()
        } else {
            self.named.get(name).map(|named| &named.prepared)
        }
    }

    /// The named statement `name`, and its name to keep.
    pub fn named_statement(&self, name: &[u8]) -> Option<(&Arc<[u8]>, &Named)> {
        self.named.get_key_value(name)
    }

    /// What the client was told of the statement `name`.
    pub fn description(&self, name: &[u8]) -> Option<Description> {
        self.named.get(name)?.description
    }

    /// Whether there is room for one more named statement of this many bytes.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.named.len() < MAX_NOTED && self.bytes + bytes <= MAX_BYTES
    }

    /// How many named statements there are.
    pub fn named(&self) -> usize {
        self.named.len()
    }

    /// Notes that `name` was prepared.
    pub fn note_prepared(&mut self, name: &[u8], prepared: Arc<Prepared>) {
        if name.is_empty() {
            self.unnamed = Some(prepared);
            return;
        }
        self.bytes += name.len() + prepared.bytes();
        let named = Named {
            prepared,
            description: None,
        };
        if let Some(old) = self.named.insert(name.into(), named) {
            self.bytes = self.bytes.saturating_sub(name.len() + old.prepared.bytes());
        }
    }

    /// Notes what the client was told of the statement `name`.
    pub fn note_described(&mut self, name: &[u8], description: Description) {
        if let Some(named) = self.named.get_mut(name) {
            named.description = Some(description);
        }
    }

    /// Notes that `name` is gone.
    pub fn note_closed(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed = None;
        } else if let Some(old) = self.named.remove(name) {
            self.bytes = self.bytes.saturating_sub(name.len() + old.prepared.bytes());
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

    /// Notes that the portal `name`, which the gateway runs by itself, was run to its end.
    pub fn note_done(&mut self, name: &[u8]) {
        if let Some(local) = self
            .portals
            .get_mut(name)
            .and_then(|portal| portal.local.as_mut())
        {
            local.done = true;
        }
    }

    /// The portals of which the backend knows nothing, but may know, and their names.
    pub fn local_portals(&self) -> impl Iterator<Item = (&[u8], &LocalPortal)> {
        self.portals
            .iter()
            .filter(|(_, portal)| portal.controls())
            .filter_map(|(name, portal)| Some((&**name, portal.local.as_ref()?)))
    }

    /// Notes that the backend has the portals that [`Self::local_portals`] gave.
    pub fn note_portals_carried(&mut self) {
        for portal in self.portals.values_mut().filter(|portal| portal.controls()) {
            portal.local = None;
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

    fn prepared(text: &str) -> Arc<Prepared> {
        Arc::new(Prepared {
            text: text.as_bytes().into(),
            types: Box::default(),
            analysis: Analysis::of(text.as_bytes(), Backslash::Literal),
            key: None,
            settings: Settings::default(),
        })
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
        statements.note_described(b"a", Description::UNSEEN);
        assert_eq!(statements.description(b"a"), Some(Description::UNSEEN));
        statements.note_prepared(b"a", prepared("SELECT 3"));
        assert_eq!(statements.description(b"a"), None, "it is another one");
        statements.note_closed(b"");
        assert!(statements.prepared(b"").is_none() && statements.prepared(b"a").is_some());
        statements.note_closed(b"a");
        assert_eq!(statements.bytes, 0);
        let shared = prepared("SELECT 4");
        for number in 0..MAX_NOTED {
            assert!(statements.has_room(100), "{number}");
            statements.note_prepared(number.to_string().as_bytes(), Arc::clone(&shared));
        }
        assert!(!statements.has_room(1));
        statements.note_all_closed();
        assert_eq!((statements.named(), statements.bytes), (0, 0));
        assert!(!statements.has_room(MAX_BYTES + 1));
    }

    #[test]
    fn sessions_share_what_is_the_same() {
        let shared = SharedStatements::default();
        let key = shared.key(b"scope", b"SELECT 1", b"");
        assert_eq!(key, shared.key(b"scope", b"SELECT 1", b""));
        for other in [
            shared.key(b"other", b"SELECT 1", b""),
            shared.key(b"scope", b"SELECT 1", b"\0\0\0\x17"),
            shared.key(b"scop", b"eSELECT 1", b""),
        ] {
            assert_ne!(key, other);
        }
        let make = || Arc::into_inner(prepared("SELECT 1")).expect("the only one");
        let first = shared.share(key, make);
        let second = shared.share(key, || panic!("it is known"));
        assert!(Arc::ptr_eq(&first, &second));
        drop((first, second));
        for number in 0..10_000_u32 {
            let key = shared.key(&number.to_be_bytes(), b"SELECT 1", b"");
            drop(shared.share(key, make));
        }
        let known = shared.known.lock().expect("no panic");
        assert!(known.statements.len() <= 2 * SharedStatements::PRUNE_AT);
    }
}
