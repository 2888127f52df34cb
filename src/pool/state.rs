//! Who has what: the pool's counts, changed under one short lock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::lease::{Lease, Place, within};
use super::{Connect, Limits, Shared};

/// An idle connection.
pub(super) struct Idle<C: Connect> {
    // in this order: the connection is closed before its place is free
    pub(super) connection: C::Connection,
    pub(super) place: Place<C>,
    pub(super) opened: Instant,
    pub(super) since: Instant,
}

/// What a waiter gets.
pub(super) enum Grant<C: Connect> {
    Lease(Lease<C>),
    Place(Place<C>),
}

/// What asking leads to.
pub(super) enum Taken<C: Connect> {
    Granted(Grant<C>),
    /// Wait, after closing a connection that stands in the way.
    Wait(oneshot::Receiver<Grant<C>>, Option<Idle<C>>),
}

/// What bringing a connection back leads to.
pub(super) enum Shelved<C: Connect> {
    /// It is idle now; one that stands in the way is to be closed.
    Kept(Option<Idle<C>>),
    /// The first waiter wants just that one.
    Wanted(oneshot::Sender<Grant<C>>, Idle<C>),
}

struct Waiter<C: Connect> {
    key: C::Key,
    since: Instant,
    grant: oneshot::Sender<Grant<C>>,
}

struct Shelf<C: Connect> {
    idle: Vec<Idle<C>>,
    /// Idle, on loan and being opened.
    open: usize,
}

impl<C: Connect> Default for Shelf<C> {
    fn default() -> Self {
        Self {
            idle: Vec::new(),
            open: 0,
        }
    }
}

pub(super) struct State<C: Connect> {
    limits: Limits,
    shelves: HashMap<C::Key, Shelf<C>>,
    open: usize,
    waiters: VecDeque<Waiter<C>>,
    paused: bool,
    epoch: u64,
}

/// Counts of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyCensus {
    /// Connections on loan or being opened.
    pub active: usize,
    /// Connections that nobody uses.
    pub idle: usize,
    /// Sessions that wait.
    pub waiting: usize,
    /// How long the first of them has waited.
    pub longest_wait: Duration,
}

/// Counts of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census<K> {
    /// The limit.
    pub max_connections: usize,
    /// Connections of all keys, idle, on loan and being opened.
    pub open: usize,
    /// Whether nothing is granted.
    pub paused: bool,
    /// Counts by key.
    pub keys: Vec<(K, KeyCensus)>,
}

impl<C: Connect> State<C> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            shelves: HashMap::new(),
            open: 0,
            waiters: VecDeque::new(),
            paused: false,
            epoch: 0,
        }
    }

    pub(super) fn take(&mut self, key: &C::Key, shared: &Arc<Shared<C>>) -> Taken<C> {
        self.forget_gone_waiters();
        if !self.paused && self.waiters.is_empty() {
            if let Some(idle) = self.shelves.get_mut(key).and_then(|shelf| shelf.idle.pop()) {
                return Taken::Granted(Grant::Lease(Lease::from_idle(idle)));
            }
            if let Some(place) = self.place(key, shared) {
                return Taken::Granted(Grant::Place(place));
            }
        }
        if self.waiters.len() == self.waiters.capacity() {
            // those that gave up in the middle of the queue are dropped before it grows
            self.waiters.retain(|waiter| !waiter.grant.is_closed());
        }
        let (grant, waiting) = oneshot::channel();
        self.waiters.push_back(Waiter {
            key: key.clone(),
            since: Instant::now(),
            grant,
        });
        Taken::Wait(waiting, self.make_room())
    }

    fn forget_gone_waiters(&mut self) {
        while self
            .waiters
            .pop_front_if(|waiter| waiter.grant.is_closed())
            .is_some()
        {}
    }

    /// A free place, counted as taken.
    fn place(&mut self, key: &C::Key, shared: &Arc<Shared<C>>) -> Option<Place<C>> {
        if self.open >= self.limits.max_connections {
            return None;
        }
        self.open += 1;
        self.shelves.entry(key.clone()).or_default().open += 1;
        Some(Place {
            shared: Arc::clone(shared),
            key: key.clone(),
            epoch: self.epoch,
        })
    }

    /// The idle connection of another key that stands in the way of whoever waits first: the one unused for longest. To
    /// be closed outside the lock, which its place takes when it comes back.
    fn make_room(&mut self) -> Option<Idle<C>> {
        if self.paused || self.open < self.limits.max_connections {
            return None;
        }
        let first = self.waiters.front()?;
        let (_, shelf) = self
            .shelves
            .iter_mut()
            .filter(|(key, shelf)| **key != first.key && !shelf.idle.is_empty())
            .min_by_key(|(_, shelf)| shelf.idle.first().map(|idle| idle.since))?;
        Some(shelf.idle.remove(0))
    }

    /// The next waiter that can be served, and what it gets.
    pub(super) fn next_grant(
        &mut self,
        shared: &Arc<Shared<C>>,
    ) -> Option<(oneshot::Sender<Grant<C>>, Grant<C>)> {
        if self.paused {
            return None;
        }
        self.forget_gone_waiters();
        let key = self.waiters.front()?.key.clone();
        let idle = self.shelves.get_mut(&key).and_then(|shelf| shelf.idle.pop());
        let grant = match idle {
            Some(idle) => Grant::Lease(Lease::from_idle(idle)),
            None => Grant::Place(self.place(&key, shared)?),
        };
        let waiter = self.waiters.pop_front()?;
        Some((waiter.grant, grant))
    }

    pub(super) fn release(&mut self, key: &C::Key) {
        self.open = self.open.saturating_sub(1);
        if let Some(shelf) = self.shelves.get_mut(key) {
            shelf.open = shelf.open.saturating_sub(1);
        }
    }

    /// Whether a connection of that age may be used again.
    pub(super) fn keeps(&self, epoch: u64, age: Duration) -> bool {
        epoch == self.epoch && within(age, self.limits.lifetime) && self.open <= self.limits.max_connections
    }

    /// Keeps `idle`, unless the first waiter wants just that.
    pub(super) fn shelve(&mut self, idle: Idle<C>) -> Shelved<C> {
        if !self.paused {
            self.forget_gone_waiters();
            if let Some(waiter) = self.waiters.pop_front_if(|waiter| waiter.key == idle.place.key) {
                return Shelved::Wanted(waiter.grant, idle);
            }
        }
        self.shelves
            .entry(idle.place.key.clone())
            .or_default()
            .idle
            .push(idle);
        Shelved::Kept(self.make_room())
    }

    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Idle<C>> {
        let limits = self.limits;
        self.take_idle(|idle| {
            !within(now.saturating_duration_since(idle.since), limits.idle_timeout)
                || !within(now.saturating_duration_since(idle.opened), limits.lifetime)
        })
    }

    pub(super) fn reconnect(&mut self) -> Vec<Idle<C>> {
        self.epoch += 1;
        self.take_idle(|_| true)
    }

    fn take_idle(&mut self, old: impl Fn(&Idle<C>) -> bool) -> Vec<Idle<C>> {
        self.shelves
            .values_mut()
            .flat_map(|shelf| shelf.idle.extract_if(.., |idle| old(idle)))
            .collect()
    }

    pub(super) fn pause(&mut self) {
        self.paused = true;
    }

    pub(super) fn resume(&mut self) {
        self.paused = false;
    }

    pub(super) fn paused(&self) -> bool {
        self.paused
    }

    pub(super) fn set_limits(&mut self, limits: Limits) -> Vec<Idle<C>> {
        self.limits = limits;
        let mut excess = self.open.saturating_sub(limits.max_connections);
        let mut closed = Vec::new();
        for shelf in self.shelves.values_mut() {
            let some = shelf.idle.len().min(excess);
            excess -= some;
            closed.extend(shelf.idle.drain(..some));
        }
        closed
    }

    pub(super) fn census(&self, now: Instant) -> Census<C::Key> {
        let mut keys: Vec<(C::Key, KeyCensus)> = self
            .shelves
            .iter()
            .map(|(key, shelf)| {
                let idle = shelf.idle.len();
                (
                    key.clone(),
                    KeyCensus {
                        active: shelf.open - idle,
                        idle,
                        ..KeyCensus::default()
                    },
                )
            })
            .collect();
        for waiter in self.waiters.iter().filter(|waiter| !waiter.grant.is_closed()) {
            let wait = now.saturating_duration_since(waiter.since);
            match keys.iter_mut().find(|(key, _)| *key == waiter.key) {
                Some((_, census)) => {
                    census.waiting += 1;
                    census.longest_wait = census.longest_wait.max(wait);
                }
                None => keys.push((
                    waiter.key.clone(),
                    KeyCensus {
                        waiting: 1,
                        longest_wait: wait,
                        ..KeyCensus::default()
                    },
                )),
            }
        }
        Census {
            max_connections: self.limits.max_connections,
            open: self.open,
            paused: self.paused,
            keys,
        }
    }
}
