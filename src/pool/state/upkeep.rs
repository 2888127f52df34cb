//! What is done now and then: close what is old, open what is to be ready.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Idle, ShelfNumber, State};
use crate::pool::gate::Who;
use crate::pool::lease::{Place, within};
use crate::pool::{Connect, Limits, Shared};

/// How long after the last question for a key connections are kept ready for it.
const IN_USE: Duration = Duration::from_hours(1);

impl<C: Connect> State<C> {
    /// Takes out what the peer has closed, what is too old, and what has been idle for too long and is not kept ready.
    pub(in crate::pool) fn take_old(&mut self, now: Instant) -> Vec<Idle<C>> {
        let (lifetime, timeout) = (self.limits.lifetime, self.limits.idle_timeout);
        let ready = self.limits.min_connections;
        let old = |idle: &Idle<C>| {
            let age = now.saturating_duration_since(idle.opened);
            !within(age, lifetime / 1000 * u32::from(idle.life)) || C::ended(&idle.connection)
        };
        let mut closed = Vec::new();
        for shelf in &mut self.shelves {
            let before = closed.len();
            closed.extend(shelf.idle.extract_if(.., |idle| old(idle)));
            let in_use = within(now.saturating_duration_since(shelf.asked), IN_USE);
            let kept = if in_use { ready } else { 0 };
            let open = shelf.open.saturating_sub(closed.len() - before);
            let mut spare = open.saturating_sub(kept);
            closed.extend(shelf.idle.extract_if(.., |idle| {
                let idle_for = now.saturating_duration_since(idle.since);
                let goes = spare > 0 && !within(idle_for, timeout);
                spare -= usize::from(goes);
                goes
            }));
        }
        closed
    }

    /// Places for connections that the pool opens by itself: one that finds out whether the backend is back, and those
    /// that are to be ready.
    pub(in crate::pool) fn places_to_open(
        &mut self,
        shared: &Arc<Shared<C>>,
        now: Instant,
    ) -> Vec<(Place<C>, C::Key)> {
        let mut places = Vec::new();
        if self.paused {
            return places;
        }
        if self.gate.circuit().is_open() {
            if let Some(number) = self.failed
                && self.gate.hold(Who::Pool, now).is_none()
                && let Some(key) = self.shelves.get(number.0).map(|shelf| shelf.key.clone())
                && let Ok(place) = self.place(number, shared)
            {
                places.push((place, key));
            }
            return places;
        }
        for number in (0..self.shelves.len()).map(ShelfNumber) {
            let wanted = self.shelves.get(number.0).is_some_and(|shelf| {
                shelf.open < self.limits.min_connections
                    && within(now.saturating_duration_since(shelf.asked), IN_USE)
            });
            if wanted
                && self.held(number, now).is_none()
                && let Some(key) = self.shelves.get(number.0).map(|shelf| shelf.key.clone())
                && shared.connector.may_open(&key)
                && let Ok(place) = self.place(number, shared)
            {
                places.push((place, key));
            }
        }
        places
    }

    /// Whether the pool cannot find out if the backend is back, because every place is taken.
    pub(in crate::pool) fn probe_is_blocked(&self, now: Instant) -> bool {
        self.gate.circuit().is_open()
            && self.gate.hold(Who::Pool, now).is_none()
            && self.failed.is_some_and(|number| self.short(number).is_some())
    }

    pub(in crate::pool) fn reconnect(&mut self) -> Vec<Idle<C>> {
        self.epoch += 1;
        self.take_idle(|_| true)
    }

    /// Takes out what was used last at `since` or before.
    pub(in crate::pool) fn take_idle_since(&mut self, since: Instant) -> Vec<Idle<C>> {
        self.take_idle(|idle| idle.since <= since)
    }

    fn take_idle(&mut self, old: impl Fn(&Idle<C>) -> bool) -> Vec<Idle<C>> {
        self.shelves
            .iter_mut()
            .flat_map(|shelf| shelf.idle.extract_if(.., |idle| old(idle)))
            .collect()
    }

    pub(in crate::pool) fn set_limits(&mut self, limits: Limits<C::Group>) -> Vec<Idle<C>> {
        let mut excess = self.open.saturating_sub(limits.max_connections);
        self.limits = limits;
        let mut closed = Vec::new();
        for shelf in &mut self.shelves {
            let some = shelf.idle.len().min(excess);
            excess -= some;
            closed.extend(shelf.idle.drain(..some));
        }
        closed
    }
}
