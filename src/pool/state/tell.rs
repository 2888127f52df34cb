//! What the state is, in numbers.

use std::time::Instant;

use super::{Shelf, State};
use crate::pool::census::{Census, Jam, KeyCensus, Short};
use crate::pool::{Connect, Shared};

impl<C: Connect> State<C> {
    /// Why somebody waits who asked for `key` at `since`.
    pub(in crate::pool) fn jam(&self, key: &C::Key, since: Instant, shared: &Shared<C>) -> Jam {
        let number = self.numbers.get(key).copied();
        let shelf = number.and_then(|number| self.shelves.get(number.0));
        let short = match number {
            _ if self.paused => Short::Paused,
            Some(number) => self.short(number).unwrap_or_else(|| {
                let max = shared.ceiling.max();
                if shared.ceiling.open() >= max {
                    Short::Ceiling(max)
                } else {
                    Short::Nothing
                }
            }),
            None => Short::Nothing,
        };
        let idle = |shelf: &Shelf<C>| shelf.idle.len();
        let group = shelf.map(|shelf| shelf.group);
        let in_use = match short {
            Short::Group(_) => {
                let own = self.shelves.iter().filter(|shelf| Some(shelf.group) == group);
                own.map(|shelf| shelf.open.saturating_sub(idle(shelf))).sum()
            }
            Short::Ceiling(_) => shared.ceiling.open(),
            Short::Pool(_) | Short::Paused | Short::Nothing => {
                self.open.saturating_sub(self.shelves.iter().map(idle).sum())
            }
        };
        Jam {
            short,
            in_use,
            waiting: self.lines.waiters().count(),
            ahead: group.map_or(0, |group| self.lines.ahead(group, since)),
        }
    }

    pub(in crate::pool) fn census(&self, now: Instant) -> Census<C::Key> {
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
        for waiter in self.lines.waiters() {
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
            circuit_open: self.gate.circuit().is_open(),
            keys,
        }
    }
}
