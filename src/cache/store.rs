//! The entries, weighed by bytes, and the way from a key to an answer or to the right to make one.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::entry::Entry;
use super::flight::{Boarding, Fill, Flights, Follower};
use super::key::CacheKey;
use super::stats::{CacheStats, Counters};
use super::tags::TagSnapshot;

/// Longer keys are not worth their memory.
const KEY_BYTES_MAX: usize = 256 << 10;
/// How long requests whose answer was too large go past the cache.
const TOO_BIG_REMEMBERED: Duration = Duration::from_mins(1);
/// How many such requests are remembered.
const TOO_BIG_MAX: u64 = 16_384;
/// The store accepts no longer time to live than a thousand years; this is as good as for ever.
const TTL_MAX: Duration = Duration::from_hours(100 * 365 * 24);

/// How much a [`ResultCache`] may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Bytes of all entries with keys and overhead. Runs under way may collect a quarter of that beside it, or one
    /// largest entry.
    pub memory: u64,
    /// Bytes of one answer's frames.
    pub max_entry: u64,
    /// How old an entry may become; counted from when its run began.
    pub ttl: Duration,
}

impl CacheLimits {
    /// Bytes that all runs under way may hold together.
    pub(super) fn filling_max(&self) -> u64 {
        self.max_entry.max(self.memory / 4)
    }
}

/// Why a lookup goes past the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BypassReason {
    /// The request is too long, or its answer was too large a short while ago.
    TooBig,
    /// One of the relations is being written at this moment.
    WriteInFlight,
    /// Too many runs are under way.
    Crowded,
}

impl BypassReason {
    /// The reason as logs, metrics and `SHOW tollgate.last` name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooBig => "too_big",
            Self::WriteInFlight => "write_in_flight",
            Self::Crowded => "crowded",
        }
    }
}

/// What the cache says to a request.
#[derive(Debug)]
pub enum Lookup {
    /// Replay this.
    Hit(Arc<Entry>),
    /// An equal request is under way: wait for its answer.
    Follow(Follower),
    /// Run it, and fill the entry from its answer.
    Lead(Fill),
    /// Run it; the answer is not collected.
    Bypass(BypassReason),
}

/// Answers by request. One per process; all methods may be called from any thread and none blocks on I/O.
pub struct ResultCache {
    store: ArcSwap<Store>,
    counters: Arc<Counters>,
}

impl fmt::Debug for ResultCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultCache")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl ResultCache {
    /// An empty cache.
    pub fn new(limits: CacheLimits) -> Self {
        Self {
            store: ArcSwap::from_pointee(Store::new(limits)),
            counters: Arc::default(),
        }
    }

    /// Looks for the answer to the request with this `key`.
    ///
    /// `described` says that the client expects a `RowDescription` (simple protocol, or `Describe` of the portal): an
    /// entry or a run without one does not serve it. `tags` is called at most once, and only when a run begins; it must
    /// take the snapshot when called, must not call this cache, and the query must be sent afterwards.
    pub fn lookup(
        &self,
        key: &[u8],
        described: bool,
        now: Instant,
        tags: impl FnOnce() -> TagSnapshot,
    ) -> Lookup {
        let store = self.store.load();
        let find = || store.find(key, described, now, &self.counters);
        if let Some(entry) = find() {
            return self.hit(entry);
        }
        if key.len() > KEY_BYTES_MAX || store.was_too_big(key) {
            return self.bypass(BypassReason::TooBig);
        }
        match store.flights.board(key, described, find, tags) {
            Boarding::Found(entry) => self.hit(entry),
            Boarding::Follow(landing) => {
                self.counters.follows.add(1);
                Lookup::Follow(Follower::new(landing, described, Arc::clone(&self.counters)))
            }
            Boarding::Lead(key, flight) => {
                self.counters.misses.add(1);
                let store = Arc::clone(&store);
                Lookup::Lead(Fill::new(store, Arc::clone(&self.counters), key, flight, now))
            }
            Boarding::WriteInFlight => self.bypass(BypassReason::WriteInFlight),
            Boarding::Full => self.bypass(BypassReason::Crowded),
        }
    }

    /// Drops all entries. Runs under way go on for their own clients and followers and leave nothing behind.
    pub fn clear(&self) {
        self.reconfigure(self.store.load().limits);
    }

    /// Takes other limits and begins empty; as [`clear`](Self::clear).
    pub fn reconfigure(&self, limits: CacheLimits) {
        self.store.store(Arc::new(Store::new(limits)));
    }

    /// The limits in force.
    pub fn limits(&self) -> CacheLimits {
        self.store.load().limits
    }

    /// What it did and holds. Settles pending evictions first, so it is not for the way of a query.
    pub fn stats(&self) -> CacheStats {
        let store = self.store.load();
        store.entries.run_pending_tasks();
        let counters = &self.counters;
        CacheStats {
            entries: store.entries.entry_count(),
            bytes: store.entries.weighted_size(),
            memory: store.limits.memory,
            flights: store.flights.len() as u64,
            filling_bytes: store.flights.filling_bytes(),
            hits: counters.hits.value(),
            misses: counters.misses.value(),
            follows: counters.follows.value(),
            bypasses: counters.bypasses.value(),
            stale: counters.stale.value(),
            expired: counters.expired.value(),
            overtaken: counters.overtaken.value(),
            too_big: counters.too_big.value(),
            abandoned: counters.abandoned.value(),
            saved: Duration::from_micros(counters.saved_us.value()),
        }
    }

    fn hit(&self, entry: Arc<Entry>) -> Lookup {
        self.counters.hits.add(1);
        self.counters.save(entry.backend_time);
        Lookup::Hit(entry)
    }

    fn bypass(&self, reason: BypassReason) -> Lookup {
        self.counters.bypasses.add(1);
        Lookup::Bypass(reason)
    }
}

/// Entries and runs under one set of limits. Replaced as a whole, so a run that began before a clear or a reload commits
/// into a store that nobody reads.
pub(super) struct Store {
    limits: CacheLimits,
    entries: moka::sync::Cache<CacheKey, Arc<Entry>>,
    flights: Flights,
    /// Hashes of keys: two keys that share one cost a hit, not a wrong answer.
    too_big: moka::sync::Cache<u64, ()>,
    hasher: RandomState,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Store {
    fn new(limits: CacheLimits) -> Self {
        let entries = moka::sync::Cache::builder()
            .max_capacity(limits.memory)
            .weigher(|key: &CacheKey, entry: &Arc<Entry>| entry.weight(key.as_bytes().len()))
            .time_to_live(limits.ttl.min(TTL_MAX))
            .build();
        let too_big = moka::sync::Cache::builder()
            .max_capacity(TOO_BIG_MAX)
            .time_to_live(TOO_BIG_REMEMBERED)
            .build();
        Self {
            limits,
            entries,
            flights: Flights::default(),
            too_big,
            hasher: RandomState::new(),
        }
    }

    pub(super) fn limits(&self) -> &CacheLimits {
        &self.limits
    }

    pub(super) fn flights(&self) -> &Flights {
        &self.flights
    }

    pub(super) fn keep(&self, key: CacheKey, entry: Arc<Entry>) {
        self.entries.insert(key, entry);
    }

    pub(super) fn remember_too_big(&self, key: &[u8]) {
        self.too_big.insert(self.hasher.hash_one(key), ());
    }

    fn was_too_big(&self, key: &[u8]) -> bool {
        self.too_big.contains_key(&self.hasher.hash_one(key))
    }

    fn find(&self, key: &[u8], described: bool, now: Instant, counters: &Counters) -> Option<Arc<Entry>> {
        let entry = self.entries.get(key)?;
        let reason = if !entry.tags.is_current() {
            &counters.stale
        } else if entry.age(now) >= self.limits.ttl {
            &counters.expired
        } else if described && entry.row_description.is_none() {
            // it still serves those who want none; the run that follows replaces it by one that serves both
            return None;
        } else {
            return Some(entry);
        };
        reason.add(1);
        // may remove an entry that was made this instant, which costs a run and nothing else
        self.entries.invalidate(key);
        None
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
