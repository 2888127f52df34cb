//! What the cache did so far.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of one [`ResultCache`](super::ResultCache), for its whole life, and its size now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Entries held now.
    pub entries: u64,
    /// Bytes held now, with keys and overhead.
    pub bytes: u64,
    /// Bytes that may be held.
    pub memory: u64,
    /// Runs that collect an answer now.
    pub flights: u64,
    /// Bytes that those runs collected so far.
    pub filling_bytes: u64,
    /// Lookups answered by an entry.
    pub hits: u64,
    /// Lookups that started a run which may become an entry.
    pub misses: u64,
    /// Lookups that joined a run under way.
    pub follows: u64,
    /// Lookups that had to go past the cache.
    pub bypasses: u64,
    /// Entries found that a write had expired.
    pub stale: u64,
    /// Entries found that were older than the time to live.
    pub expired: u64,
    /// Runs whose answer was not kept because a write began meanwhile.
    pub overtaken: u64,
    /// Runs whose answer was larger than an entry may be.
    pub too_big: u64,
    /// Runs that ended without an answer.
    pub abandoned: u64,
    /// Backend time that hits and followers did not spend.
    pub saved: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) hits: Count,
    pub(super) misses: Count,
    pub(super) follows: Count,
    pub(super) bypasses: Count,
    pub(super) stale: Count,
    pub(super) expired: Count,
    pub(super) overtaken: Count,
    pub(super) too_big: Count,
    pub(super) abandoned: Count,
    pub(super) saved_us: Count,
}

impl Counters {
    pub(super) fn save(&self, backend_time: Duration) {
        self.saved_us
            .add(u64::try_from(backend_time.as_micros()).unwrap_or(u64::MAX));
    }
}

#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
