//! Who has what: the pool's counts, changed under one short lock.

mod tell;
mod upkeep;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::census::Short;
use super::gate::{Circuit, Failure, Gate, Hold, Pass, Pauses, Turn, Who};
use super::home::Home;
use super::lease::{Lease, Place, within};
use super::lines::{GroupNumber, Lines, Waiter};
use super::{Connect, Limits, Shared, now};

/// News of the circuit that nobody asked for.
const MAX_NEWS: usize = 16;

/// An idle connection.
pub(super) struct Idle<C: Connect> {
    // in this order: the connection is closed before its place is free
    pub(super) connection: C::Connection,
    pub(super) place: Place<C>,
    pub(super) opened: Instant,
    pub(super) since: Instant,
    /// Where it was used last.
    pub(super) home: Home,
    /// How much of its lifetime it has, in thousandths.
    pub(super) life: u16,
}

impl<C: Connect> Idle<C> {
    /// Closes it; whoever calls serves those who wait.
    pub(super) fn close(mut self) {
        self.place.quiet = true;
    }
}

/// What a waiter gets.
pub(super) enum Grant<C: Connect> {
    Lease(Lease<C>),
    Place(Place<C>),
    Refused(Hold<C::Error>),
}

/// What asking leads to.
pub(super) enum Taken<C: Connect> {
    Granted(Grant<C>),
    Wait(oneshot::Receiver<Grant<C>>),
}

/// What can be done for whoever waits.
pub(super) enum Step<C: Connect> {
    Grant(oneshot::Sender<Grant<C>>, Grant<C>),
    /// Close a connection that stands in the way, outside the lock.
    Close(Idle<C>),
    /// One of another pool stands in the way.
    Elsewhere,
    Rest,
}

/// A key's shelf, once it has one; never used for another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShelfNumber(usize);

struct Shelf<C: Connect> {
    key: C::Key,
    group: GroupNumber,
    idle: Vec<Idle<C>>,
    /// Idle, on loan and being opened.
    open: usize,
    /// When somebody asked for one last.
    asked: Instant,
    /// Whether the server takes this key.
    gate: Gate<C::Error>,
}

impl<C: Connect> Shelf<C> {
    /// The connection used last of those at `home`, else the one used last of all. Only so many are looked at: a
    /// connection that has to move costs less than a long search.
    fn pick(&self, home: Home, suits: impl Fn(&C::Connection) -> bool) -> Option<usize> {
        const LOOKED_AT: usize = 64;
        let newest = self.idle.len().saturating_sub(LOOKED_AT);
        let looked_at = || self.idle.iter().skip(newest);
        let near = looked_at().rposition(|idle| idle.home == home && suits(&idle.connection));
        let any = || looked_at().rposition(|idle| suits(&idle.connection));
        near.or_else(any).map(|place| newest + place)
    }
}

struct Group<C: Connect> {
    key: C::Group,
    open: usize,
}

pub(super) struct State<C: Connect> {
    limits: Limits<C::Group>,
    numbers: HashMap<C::Key, ShelfNumber>,
    /// One for each key that was ever asked for; keys come from the configuration.
    shelves: Vec<Shelf<C>>,
    groups: Vec<Group<C>>,
    lines: Lines<C>,
    open: usize,
    paused: bool,
    epoch: u64,
    /// Whether the backend takes connections.
    gate: Gate<C::Error>,
    /// Whom the last attempt that failed was for.
    failed: Option<ShelfNumber>,
    news: Vec<Turn>,
}

impl<C: Connect> State<C> {
    pub(super) fn new(limits: Limits<C::Group>) -> Self {
        Self {
            limits,
            numbers: HashMap::new(),
            shelves: Vec::new(),
            groups: Vec::new(),
            lines: Lines::new(),
            open: 0,
            paused: false,
            epoch: 0,
            gate: Gate::new(),
            failed: None,
            news: Vec::new(),
        }
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// An idle connection for `key`, unless somebody waits, or it should be asked first whether it still answers.
    pub(super) fn take_idle_of(
        &mut self,
        key: &C::Key,
        suits: impl Fn(&C::Connection) -> bool,
    ) -> Option<Lease<C>> {
        if self.paused || !self.lines.nobody() {
            return None;
        }
        let number = *self.numbers.get(key)?;
        let sure = self.gate.is_sound();
        let limit = self.limits.check_after_idle;
        let shelf = self.shelves.get_mut(number.0)?;
        let picked = shelf.pick(Home::here(), suits)?;
        let rested = now();
        shelf.asked = rested;
        let since = shelf.idle.get(picked)?.since;
        if !sure || !within(rested.saturating_duration_since(since), limit) {
            return None;
        }
        Some(Lease::from_idle(shelf.idle.remove(picked)))
    }

    /// Whether to ask it if it still answers.
    pub(super) fn doubts(&self, lease: &Lease<C>) -> bool {
        let idle = |since| now().saturating_duration_since(since);
        lease
            .rested()
            .is_some_and(|since| !self.gate.is_sound() || !within(idle(since), self.limits.check_after_idle))
    }

    pub(super) fn take(&mut self, key: &C::Key, shared: &Arc<Shared<C>>) -> Taken<C> {
        let number = self.number(key);
        let now = now();
        if let Some(shelf) = self.shelf(number) {
            shelf.asked = now;
        }
        if !self.paused && self.lines.nobody() {
            if let Some(lease) = self.take_from(number) {
                return Taken::Granted(Grant::Lease(lease));
            }
            match self.held(number, now) {
                Some(hold) if self.is_hopeless(number) => return Taken::Granted(Grant::Refused(hold)),
                Some(_) => {}
                None => {
                    if let Ok(place) = self.place(number, shared) {
                        return Taken::Granted(Grant::Place(place));
                    }
                }
            }
        }
        let (grant, waiting) = oneshot::channel();
        let waiter = Waiter {
            shelf: number,
            since: now,
            grant,
        };
        if let Some(group) = self.shelf(number).map(|shelf| shelf.group) {
            self.lines.stand(group, waiter);
        }
        Taken::Wait(waiting)
    }

    fn take_from(&mut self, number: ShelfNumber) -> Option<Lease<C>> {
        let shelf = self.shelf(number)?;
        let picked = shelf.pick(Home::here(), |_| true)?;
        Some(Lease::from_idle(shelf.idle.remove(picked)))
    }

    fn number(&mut self, key: &C::Key) -> ShelfNumber {
        if let Some(number) = self.numbers.get(key) {
            return *number;
        }
        let number = ShelfNumber(self.shelves.len());
        let group = self.group(C::group(key));
        self.shelves.push(Shelf {
            key: key.clone(),
            group,
            idle: Vec::new(),
            open: 0,
            asked: now(),
            gate: Gate::new(),
        });
        self.numbers.insert(key.clone(), number);
        number
    }

    fn group(&mut self, key: C::Group) -> GroupNumber {
        if let Some(number) = self.groups.iter().position(|group| group.key == key) {
            return GroupNumber(number);
        }
        self.groups.push(Group { key, open: 0 });
        self.lines.add_group()
    }

    fn shelf(&mut self, number: ShelfNumber) -> Option<&mut Shelf<C>> {
        self.shelves.get_mut(number.0)
    }

    /// Why no connection may be opened for that shelf now, though there be places.
    fn held(&self, number: ShelfNumber, now: Instant) -> Option<Hold<C::Error>> {
        let shelf = self.shelves.get(number.0)?;
        let key = shelf.gate.hold(Who::Client, now);
        key.or_else(|| self.gate.hold(Who::Client, now))
    }

    /// Whether none will become free either.
    fn is_hopeless(&self, number: ShelfNumber) -> bool {
        self.gate.circuit().is_open() || self.shelves.get(number.0).is_none_or(|shelf| shelf.open == 0)
    }

    /// Where there is no place for another connection of that shelf.
    fn short(&self, number: ShelfNumber) -> Option<Short> {
        let group = self.shelves.get(number.0)?.group;
        let cap = self.groups.get(group.0).and_then(|group| {
            let cap = *self.limits.groups.get(&group.key)?;
            (group.open >= cap).then_some(Short::Group(cap))
        });
        let max = self.limits.max_connections;
        cap.or((self.open >= max).then_some(Short::Pool(max)))
    }

    /// A free place, counted as taken.
    fn place(&mut self, number: ShelfNumber, shared: &Arc<Shared<C>>) -> Result<Place<C>, Short> {
        if let Some(short) = self.short(number) {
            return Err(short);
        }
        if !shared.ceiling.take() {
            return Err(Short::Ceiling(shared.ceiling.max()));
        }
        self.open += 1;
        let mut passes = [self.gate.enter(), Pass::Free];
        if let Some(shelf) = self.shelves.get_mut(number.0) {
            shelf.open += 1;
            passes = [passes[0], shelf.gate.enter()];
            if let Some(group) = self.groups.get_mut(shelf.group.0) {
                group.open += 1;
            }
        }
        Ok(Place {
            shared: Arc::clone(shared),
            shelf: number,
            epoch: self.epoch,
            passes,
            quiet: false,
        })
    }

    /// The connection unused for longest of those that `stands`.
    fn take_oldest(&mut self, stands: impl Fn(ShelfNumber, GroupNumber) -> bool) -> Option<Idle<C>> {
        let shelves = self.shelves.iter_mut().enumerate();
        let (_, shelf) = shelves
            .filter(|(number, shelf)| !shelf.idle.is_empty() && stands(ShelfNumber(*number), shelf.group))
            .min_by_key(|(_, shelf)| shelf.idle.first().map(|idle| idle.since))?;
        Some(shelf.idle.remove(0))
    }

    /// The connection unused for longest.
    pub(super) fn take_oldest_idle(&mut self) -> Option<Idle<C>> {
        self.take_oldest(|_, _| true)
    }

    /// Since when it is.
    pub(super) fn oldest_idle(&self) -> Option<Instant> {
        let firsts = self.shelves.iter().filter_map(|shelf| shelf.idle.first());
        firsts.map(|idle| idle.since).min()
    }

    /// What can be done next for those who wait: the groups in turns, in each the one who came first.
    pub(super) fn next_step(&mut self, shared: &Arc<Shared<C>>) -> Step<C> {
        if self.paused || self.lines.nobody() {
            return Step::Rest;
        }
        let fronts: Vec<_> = self.lines.fronts().collect();
        let now = now();
        let mut in_the_way = Vec::new();
        for (group, number) in fronts {
            let grant = match self.take_from(number) {
                Some(lease) => Grant::Lease(lease),
                None if self.held(number, now).is_some() => continue,
                None => match self.place(number, shared) {
                    Ok(place) => Grant::Place(place),
                    Err(short) => {
                        in_the_way.push((group, number, short));
                        continue;
                    }
                },
            };
            if let Some(waiter) = self.lines.call(group) {
                return Step::Grant(waiter.grant, grant);
            }
        }
        if let Some((waiter, hold)) = self.next_refusal(now) {
            return Step::Grant(waiter.grant, Grant::Refused(hold));
        }
        for (group, number, short) in in_the_way {
            let idle = match short {
                Short::Group(_) => self.take_oldest(|other, its| other != number && its == group),
                Short::Pool(_) | Short::Ceiling(_) => self.take_oldest(|other, _| other != number),
                Short::Paused | Short::Nothing => None,
            };
            match (idle, short) {
                (Some(idle), _) => return Step::Close(idle),
                (None, Short::Ceiling(_)) => return Step::Elsewhere,
                (None, _) => {}
            }
        }
        Step::Rest
    }

    /// Somebody who waits in vain.
    fn next_refusal(&mut self, now: Instant) -> Option<(Waiter<C>, Hold<C::Error>)> {
        if self.gate.is_sound() && self.shelves.iter().all(|shelf| shelf.gate.is_sound()) {
            return None;
        }
        let hopeless: Vec<bool> = (0..self.shelves.len())
            .map(ShelfNumber)
            .map(|number| self.is_hopeless(number) && self.held(number, now).is_some())
            .collect();
        let waiter = self
            .lines
            .call_hopeless(|number| hopeless.get(number.0).is_some_and(|hopeless| *hopeless))?;
        let hold = self.held(waiter.shelf, now)?;
        Some((waiter, hold))
    }

    pub(super) fn release(&mut self, number: ShelfNumber, passes: [Pass; 2]) {
        let [of_backend, of_key] = passes;
        self.open = self.open.saturating_sub(1);
        self.gate.leave(of_backend);
        let Some(shelf) = self.shelves.get_mut(number.0) else {
            return;
        };
        shelf.open = shelf.open.saturating_sub(1);
        shelf.gate.leave(of_key);
        if let Some(group) = self.groups.get_mut(shelf.group.0) {
            group.open = group.open.saturating_sub(1);
        }
    }

    /// The connection of `place` is open. True where none could be opened before.
    pub(super) fn opened(&mut self, place: &mut Place<C>) -> bool {
        place.passes = [Pass::Free; 2];
        let recovered = !self.gate.is_sound();
        let turn = self.gate.succeeded();
        self.tell(turn);
        let key = self.shelf(place.shelf).map(|shelf| {
            let failing = !shelf.gate.is_sound();
            shelf.gate.succeeded();
            failing
        });
        recovered || key == Some(true)
    }

    /// The connection of `place` could not be opened.
    pub(super) fn failed(
        &mut self,
        place: &mut Place<C>,
        failure: Failure,
        error: &Arc<C::Error>,
        when: (Instant, Instant),
        jitter: u32,
    ) {
        let [_, of_key] = std::mem::replace(&mut place.passes, [Pass::Free; 2]);
        let retry = self.limits.retry;
        match failure {
            Failure::Key | Failure::Busy => {
                // it did answer
                let turn = self.gate.succeeded();
                self.tell(turn);
                let pauses = if failure == Failure::Key {
                    Pauses::key(&retry)
                } else {
                    Pauses::busy(&retry, jitter)
                };
                if let Some(shelf) = self.shelf(place.shelf) {
                    shelf.gate.failed(error, when, pauses);
                }
            }
            Failure::Unreachable => {
                if let Some(shelf) = self.shelf(place.shelf) {
                    shelf.gate.leave(of_key);
                }
                self.failed = Some(place.shelf);
                let turn = self.gate.failed(error, when, Pauses::unreachable(&retry, jitter));
                self.tell(turn);
            }
        }
    }

    fn tell(&mut self, turn: Option<Turn>) {
        if self.news.len() < MAX_NEWS {
            self.news.extend(turn);
        }
    }

    pub(super) fn take_news(&mut self) -> Vec<Turn> {
        std::mem::take(&mut self.news)
    }

    pub(super) fn circuit(&self) -> Circuit<C::Error> {
        self.gate.circuit()
    }

    /// The next attempts may be made at once, for every key.
    pub(super) fn forgive(&mut self, now: Instant) {
        self.gate.forgive(now);
        for shelf in &mut self.shelves {
            shelf.gate.forgive(now);
        }
    }

    /// Whether a connection of that age may be used again.
    pub(super) fn keeps(&self, epoch: u64, age: Duration, life: u16) -> bool {
        epoch == self.epoch && self.alive(age, life) && self.open <= self.limits.max_connections
    }

    fn alive(&self, age: Duration, life: u16) -> bool {
        // rounded down to thousandths, which a lifetime does not notice
        within(age, self.limits.lifetime / 1000 * u32::from(life))
    }

    /// Keeps `idle`. True where somebody waits. It comes back where it has no shelf, which does not happen; it must not
    /// be dropped under the lock.
    pub(super) fn shelve(&mut self, idle: Idle<C>) -> Result<bool, Idle<C>> {
        match self.shelf(idle.place.shelf) {
            Some(shelf) => shelf.idle.push(idle),
            None => return Err(idle),
        }
        Ok(!self.lines.nobody())
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
}
