//! One run for many: the leader fills, followers wait for what it gets.
//!
//! A follower joins only while no write to the relations has begun since before the leader's query was sent. Then the
//! leader's answer is what the backend held at some moment between the follower's request and its answer, even if a
//! write begins later and the answer is not kept. Failures are not shared: a follower of a failed run asks again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;

use super::entry::{Completion, Entry};
use super::key::CacheKey;
use super::stats::Counters;
use super::store::Store;
use super::tags::TagSnapshot;
use crate::session::Columns;

/// Runs under way in one store; lookups beyond go past the cache.
pub(super) const FLIGHTS_MAX: usize = 4_096;

/// Runs under way by key, and how much they hold together.
#[derive(Debug, Default)]
pub(super) struct Flights {
    by_key: Mutex<HashMap<CacheKey, Arc<Flight>>>,
    filling_bytes: AtomicU64,
}

/// A run that others may wait for.
#[derive(Debug)]
pub(super) struct Flight {
    tags: TagSnapshot,
    /// Whether the answer will have a `RowDescription`.
    described: bool,
    landing: watch::Sender<Landing>,
}

#[derive(Clone, Debug)]
enum Landing {
    UnderWay,
    Landed(Arc<Entry>),
    /// Failed, given up, or too large.
    Lost,
}

/// Where a run tells how it ended.
#[derive(Debug)]
pub(super) struct LandingOf(watch::Receiver<Landing>);

/// What [`Flights::board`] decided for a lookup that no entry answers.
pub(super) enum Boarding {
    Follow(LandingOf),
    Lead(CacheKey, Arc<Flight>),
    /// An entry appeared meanwhile.
    Found(Arc<Entry>),
    WriteInFlight,
    Full,
}

impl Flights {
    /// Joins the run for `key`, or starts one. `find` looks for an entry once more: a run that has just landed put it there
    /// before it left.
    pub(super) fn board(
        &self,
        key: &[u8],
        described: bool,
        find: impl FnOnce() -> Option<Arc<Entry>>,
        tags: impl FnOnce() -> TagSnapshot,
    ) -> Boarding {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let present = by_key.get(key);
        if let Some(flight) = present
            && (flight.described || !described)
            && flight.tags.is_current()
        {
            return Boarding::Follow(LandingOf(flight.landing.subscribe()));
        }
        if present.is_none() && by_key.len() >= FLIGHTS_MAX {
            return Boarding::Full;
        }
        if let Some(entry) = find() {
            return Boarding::Found(entry);
        }
        let tags = tags();
        if !tags.is_current() {
            return Boarding::WriteInFlight;
        }
        let key = CacheKey::new(key);
        let flight = Arc::new(Flight {
            tags,
            described,
            landing: watch::Sender::new(Landing::UnderWay),
        });
        // a run that a write has overtaken loses its place: nobody may join it any more
        by_key.insert(key.clone(), Arc::clone(&flight));
        Boarding::Lead(key, flight)
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn filling_bytes(&self) -> u64 {
        self.filling_bytes.load(Ordering::Relaxed)
    }

    fn leave(&self, key: &CacheKey, flight: &Arc<Flight>) {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if by_key
            .get(key)
            .is_some_and(|present| Arc::ptr_eq(present, flight))
        {
            by_key.remove(key);
        }
    }

    /// Takes `bytes` of the room that all runs share; false when there is not so much.
    fn reserve(&self, bytes: u64, limit: u64) -> bool {
        let before = self.filling_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= limit;
        if !fits {
            self.filling_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

/// Why an answer did not become an entry. The leader's own client has its answer all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotStored {
    /// A write to one of its relations began meanwhile.
    #[error("a write overtook the query")]
    Stale,
    /// It is larger than an entry may be.
    #[error("the answer is larger than an entry may be")]
    TooBig,
    /// The runs under way hold as much as they may together.
    #[error("too many answers are being collected")]
    Crowded,
}

/// The one run that makes an entry. Dropped before [`commit`](Fill::commit), it is given up and followers ask again.
#[must_use = "dropped, the run is given up"]
#[derive(Debug)]
pub struct Fill {
    store: Arc<Store>,
    counters: Arc<Counters>,
    key: CacheKey,
    flight: Arc<Flight>,
    created: Instant,
    rows: Vec<u8>,
    reserved: u64,
    /// Why nothing more is collected.
    over: Option<NotStored>,
    landed: bool,
}

impl Fill {
    pub(super) fn new(
        store: Arc<Store>,
        counters: Arc<Counters>,
        key: CacheKey,
        flight: Arc<Flight>,
        created: Instant,
    ) -> Self {
        Self {
            store,
            counters,
            key,
            flight,
            created,
            rows: Vec::new(),
            reserved: 0,
            over: None,
            landed: false,
        }
    }

    /// How many others wait for the same answer.
    pub fn followers(&self) -> usize {
        self.flight.landing.receiver_count()
    }

    /// Adds whole or partial `DataRow` frames in the order they came.
    ///
    /// # Errors
    ///
    /// When the answer is too large the run is over, here and at every later call: its followers are told, what was
    /// collected is freed, and equal requests go past the cache for a while. The fill may then be dropped.
    pub fn push(&mut self, frames: &[u8]) -> Result<(), NotStored> {
        if let Some(over) = self.over {
            return Err(over);
        }
        let limits = self.store.limits();
        let bytes = frames.len() as u64;
        if self.rows.len() as u64 + bytes > limits.max_entry {
            return Err(self.give_up(NotStored::TooBig));
        }
        if !self.store.flights().reserve(bytes, limits.filling_max()) {
            return Err(self.give_up(NotStored::Crowded));
        }
        self.reserved += bytes;
        self.rows.extend_from_slice(frames);
        Ok(())
    }

    /// Makes the entry, keeps it and gives it to the followers. Call it when the whole answer has come without an error.
    ///
    /// # Errors
    ///
    /// [`NotStored::Stale`] when a write overtook the query: followers, who joined before the write began, get the answer,
    /// later requests do not. The others as [`push`](Self::push) tells.
    pub fn commit(mut self, completion: Completion) -> Result<Arc<Entry>, NotStored> {
        if let Some(over) = self.over {
            return Err(over);
        }
        let Completion {
            row_description,
            row_count,
            command_complete,
            backend_time,
            fingerprint,
        } = completion;
        let mut rows = std::mem::take(&mut self.rows);
        rows.shrink_to_fit();
        let entry = Arc::new(Entry {
            columns: row_description.as_deref().map(Columns::of),
            row_description,
            rows: Bytes::from(rows),
            row_count,
            command_complete,
            created: self.created,
            backend_time,
            tags: self.flight.tags.clone(),
            fingerprint,
        });
        if entry.size() as u64 > self.store.limits().max_entry {
            return Err(self.give_up(NotStored::TooBig));
        }
        let current = entry.tags.is_current();
        if current {
            self.store.keep(self.key.clone(), Arc::clone(&entry));
        } else {
            self.counters.overtaken.add(1);
        }
        self.land(Landing::Landed(Arc::clone(&entry)));
        if current { Ok(entry) } else { Err(NotStored::Stale) }
    }

    fn give_up(&mut self, why: NotStored) -> NotStored {
        self.over = Some(why);
        self.rows = Vec::new();
        match why {
            NotStored::TooBig => {
                self.counters.too_big.add(1);
                self.store.remember_too_big(self.key.as_bytes());
            }
            NotStored::Crowded | NotStored::Stale => self.counters.abandoned.add(1),
        }
        self.land(Landing::Lost);
        why
    }

    /// Ends the run once: the room it took, its place, its followers' wait.
    fn land(&mut self, landing: Landing) {
        if std::mem::replace(&mut self.landed, true) {
            return;
        }
        let flights = self.store.flights();
        flights
            .filling_bytes
            .fetch_sub(std::mem::take(&mut self.reserved), Ordering::Relaxed);
        flights.leave(&self.key, &self.flight);
        self.flight.landing.send_replace(landing);
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if !self.landed {
            self.counters.abandoned.add(1);
            self.land(Landing::Lost);
        }
    }
}

/// A place in somebody else's run.
#[must_use = "dropped, nobody waits"]
#[derive(Debug)]
pub struct Follower {
    landing: LandingOf,
    described: bool,
    counters: Arc<Counters>,
}

/// How a run ended for a follower.
#[derive(Debug)]
pub enum Outcome {
    /// The answer, to be replayed.
    Entry(Arc<Entry>),
    /// There is none: look up again. After an answer that was too large the lookup says to go past the cache.
    Retry,
}

impl Follower {
    pub(super) fn new(landing: LandingOf, described: bool, counters: Arc<Counters>) -> Self {
        Self {
            landing,
            described,
            counters,
        }
    }

    /// Waits until the run ends. There is no limit here: race it against the client's own patience.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped, the client just waits no longer; the run and the other followers go on.
    pub async fn wait(mut self) -> Outcome {
        let landing = self
            .landing
            .0
            .wait_for(|landing| !matches!(landing, Landing::UnderWay))
            .await;
        // a leader always lands before it lets go of the channel; if it ever did not, asking again is right too
        let Ok(landing) = landing else {
            return Outcome::Retry;
        };
        match &*landing {
            Landing::Landed(entry) if entry.row_description.is_some() || !self.described => {
                self.counters.save(entry.backend_time);
                Outcome::Entry(Arc::clone(entry))
            }
            Landing::Landed(_) | Landing::Lost | Landing::UnderWay => Outcome::Retry,
        }
    }
}
