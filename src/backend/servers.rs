//! Every open backend connection, as the console shows it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::connect::ServerKey;

/// What a connection is doing, in PgBouncer's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerActivity {
    /// Nobody uses it.
    Idle,
    /// A session uses it.
    Active,
}

impl ServerActivity {
    /// The word of the console.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct ServerCard {
    /// Its number within this process.
    pub id: u64,
    /// Where to and as whom.
    pub key: ServerKey,
    /// The backend's process id.
    pub pid: u32,
    /// When it was opened.
    pub opened: Instant,
    session: AtomicU64,
    number: AtomicU32,
}

impl ServerCard {
    /// Notes which session uses it, 0 for none.
    pub fn used_by(&self, session: u64) {
        self.session.store(session, Ordering::Relaxed);
    }

    /// Notes the number that the session which uses it, or was the last to, has for its client in place of `pid`.
    pub fn speaks_for(&self, number: u32) {
        self.number.store(number, Ordering::Relaxed);
    }

    /// What it is doing, and for which session.
    pub fn activity(&self) -> (ServerActivity, Option<u64>) {
        match self.session.load(Ordering::Relaxed) {
            0 => (ServerActivity::Idle, None),
            session => (ServerActivity::Active, Some(session)),
        }
    }
}

/// All of them. Bounded by the pools' limits.
#[derive(Debug, Default)]
pub struct Servers {
    next: AtomicU64,
    cards: Mutex<BTreeMap<u64, Arc<ServerCard>>>,
}

impl Servers {
    fn cards(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<ServerCard>>> {
        self.cards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a connection until the returned value is dropped.
    pub(super) fn register(self: &Arc<Self>, key: ServerKey, pid: u32, opened: Instant) -> Registered {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let card = Arc::new(ServerCard {
            id,
            key,
            pid,
            opened,
            session: AtomicU64::new(0),
            number: AtomicU32::new(0),
        });
        self.cards().insert(id, Arc::clone(&card));
        Registered {
            card,
            servers: Arc::clone(self),
        }
    }

    /// The number of the session that uses the connection of process `pid` at the backend of `key`, or was the last to.
    pub(super) fn number_for(&self, key: &ServerKey, pid: u32) -> Option<u32> {
        let cards = self.cards();
        let card = cards
            .values()
            .rfind(|card| card.pid == pid && card.key.backend == key.backend)?;
        Some(card.number.load(Ordering::Relaxed)).filter(|number| *number > 0)
    }

    /// Every card, oldest first.
    pub fn list(&self) -> Vec<Arc<ServerCard>> {
        self.cards().values().cloned().collect()
    }
}

/// A registration that ends with its connection.
pub(super) struct Registered {
    pub(super) card: Arc<ServerCard>,
    servers: Arc<Servers>,
}

impl Registered {
    /// What clients know the process `pid` of the same server as, where a session uses it or did so last.
    pub(super) fn number_for(&self, pid: u32) -> Option<u32> {
        self.servers.number_for(&self.card.key, pid)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.servers.cards().remove(&self.card.id);
    }
}
