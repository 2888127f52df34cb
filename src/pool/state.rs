//! Who has what: the pool's counts, changed under one short lock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::home::Home;
use super::lease::{Lease, Place, within};
use super::{Connect, Limits, Shared};

/// An idle connection.
pub(super) struct Idle<C: Connect> {
    // in this order: the connection is closed before its place is free
    pub(super) connection: C::Connection,
    pub(super) place: Place<C>,
    pub(super) opened: Instant,
    pub(super) since: Instant,
    /// Where it was used last.
    pub(super) home: Home,
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
    shelf: ShelfNumber,
    since: Instant,
    grant: oneshot::Sender<Grant<C>>,
}

/// A key's shelf, once it has one; never used for another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShelfNumber(usize);

struct Shelf<C: Connect> {
    key: C::Key,
    idle: Vec<Idle<C>>,
    /// Idle, on loan and being opened.
    open: usize,
}

impl<C: Connect> Shelf<C> {
    /// The connection used last of those at `home`, else the one used last of all. Only so many are looked at: a
    /// connection that has to move costs less than a long search.
    fn take(&mut self, home: Home) -> Option<Idle<C>> {
        const LOOKED_AT: usize = 64;
        let newest = self.idle.len().saturating_sub(LOOKED_AT);
        let near = self.idle.iter().skip(newest).rposition(|idle| idle.home == home);
        match near {
            Some(place) => Some(self.idle.remove(newest + place)),
            None => self.idle.pop(),
        }
    }
}

pub(super) struct State<C: Connect> {
    limits: Limits,
    numbers: HashMap<C::Key, ShelfNumber>,
    /// One for each key that was ever asked for; keys come from the configuration.
    shelves: Vec<Shelf<C>>,
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
            numbers: HashMap::new(),
            shelves: Vec::new(),
            open: 0,
            waiters: VecDeque::new(),
            paused: false,
            epoch: 0,
        }
    }

    /// An idle connection for `key`, unless somebody waits.
    pub(super) fn take_idle_of(&mut self, key: &C::Key) -> Option<Lease<C>> {
        self.forget_gone_waiters();
        if self.paused || !self.waiters.is_empty() {
            return None;
        }
        let number = *self.numbers.get(key)?;
        self.shelf(number)?.take(Home::here()).map(Lease::from_idle)
    }

    pub(super) fn take(&mut self, key: &C::Key, shared: &Arc<Shared<C>>) -> Taken<C> {
        if let Some(lease) = self.take_idle_of(key) {
            return Taken::Granted(Grant::Lease(lease));
        }
        let number = self.number(key);
        if !self.paused
            && self.waiters.is_empty()
            && let Some(place) = self.place(number, shared)
        {
            return Taken::Granted(Grant::Place(place));
        }
        if self.waiters.len() == self.waiters.capacity() {
            // those that gave up in the middle of the queue are dropped before it grows
            self.waiters.retain(|waiter| !waiter.grant.is_closed());
        }
        let (grant, waiting) = oneshot::channel();
        self.waiters.push_back(Waiter {
            shelf: number,
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

    fn number(&mut self, key: &C::Key) -> ShelfNumber {
        if let Some(number) = self.numbers.get(key) {
            return *number;
        }
        let number = ShelfNumber(self.shelves.len());
        self.shelves.push(Shelf {
            key: key.clone(),
            idle: Vec::new(),
            open: 0,
        });
        self.numbers.insert(key.clone(), number);
        number
    }

    fn shelf(&mut self, number: ShelfNumber) -> Option<&mut Shelf<C>> {
        self.shelves.get_mut(number.0)
    }

    /// A free place, counted as taken.
    fn place(&mut self, number: ShelfNumber, shared: &Arc<Shared<C>>) -> Option<Place<C>> {
        if self.open >= self.limits.max_connections {
            return None;
        }
        self.shelf(number)?.open += 1;
        self.open += 1;
        Some(Place {
            shared: Arc::clone(shared),
            shelf: number,
            epoch: self.epoch,
        })
    }

    /// The idle connection of another key that stands in the way of whoever waits first: the one unused for longest. To
    /// be closed outside the lock, which its place takes when it comes back.
    pub(super) fn make_room(&mut self) -> Option<Idle<C>> {
        if self.paused || self.open < self.limits.max_connections {
            return None;
        }
        let first = self.waiters.front()?;
        let wanted = first.shelf.0;
        let (_, shelf) = self
            .shelves
            .iter_mut()
            .enumerate()
            .filter(|(number, shelf)| *number != wanted && !shelf.idle.is_empty())
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
        let number = self.waiters.front()?.shelf;
        let idle = self.shelf(number).and_then(|shelf| shelf.idle.pop());
        let grant = match idle {
            Some(idle) => Grant::Lease(Lease::from_idle(idle)),
            None => Grant::Place(self.place(number, shared)?),
        };
        let waiter = self.waiters.pop_front()?;
        Some((waiter.grant, grant))
    }

    pub(super) fn release(&mut self, number: ShelfNumber) {
        self.open = self.open.saturating_sub(1);
        if let Some(shelf) = self.shelf(number) {
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
            if let Some(waiter) = self
                .waiters
                .pop_front_if(|waiter| waiter.shelf == idle.place.shelf)
            {
                return Shelved::Wanted(waiter.grant, idle);
            }
        }
        match self.shelf(idle.place.shelf) {
            Some(shelf) => shelf.idle.push(idle),
            // no place is without its shelf; closed outside the lock all the same
            None => return Shelved::Kept(Some(idle)),
        }
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
            .iter_mut()
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
        for shelf in &mut self.shelves {
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
            .map(|shelf| {
                let idle = shelf.idle.len();
                (
                    shelf.key.clone(),
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
            if let Some((_, census)) = keys.get_mut(waiter.shelf.0) {
                census.waiting += 1;
                census.longest_wait = census.longest_wait.max(wait);
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
