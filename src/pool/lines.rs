//! Who waits: one line for each group, each first in first out, and the groups in turns.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::oneshot;

use super::Connect;
use super::state::{Grant, ShelfNumber};

/// Somebody who waits for a connection.
pub(super) struct Waiter<C: Connect> {
    pub(super) shelf: ShelfNumber,
    pub(super) since: Instant,
    pub(super) grant: oneshot::Sender<Grant<C>>,
}

impl<C: Connect> Waiter<C> {
    fn is_gone(&self) -> bool {
        self.grant.is_closed()
    }
}

/// A group's place among the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupNumber(pub(super) usize);

/// The lines of all groups.
pub(super) struct Lines<C: Connect> {
    by_group: Vec<VecDeque<Waiter<C>>>,
    /// Everybody in them, also those who are gone and not forgotten yet.
    standing: usize,
    /// The group whose turn it is.
    turn: usize,
}

impl<C: Connect> Lines<C> {
    pub(super) fn new() -> Self {
        Self {
            by_group: Vec::new(),
            standing: 0,
            turn: 0,
        }
    }

    pub(super) fn add_group(&mut self) -> GroupNumber {
        self.by_group.push(VecDeque::new());
        GroupNumber(self.by_group.len() - 1)
    }

    /// Whether nobody waits. Forgets those at the fronts who are gone.
    pub(super) fn nobody(&mut self) -> bool {
        if self.standing > 0 {
            for line in &mut self.by_group {
                while line.pop_front_if(|waiter| waiter.is_gone()).is_some() {
                    self.standing -= 1;
                }
            }
        }
        self.standing == 0
    }

    pub(super) fn stand(&mut self, group: GroupNumber, waiter: Waiter<C>) {
        let Some(line) = self.by_group.get_mut(group.0) else {
            return;
        };
        if line.len() == line.capacity() {
            // those that gave up in the middle of the line are dropped before it grows
            let before = line.len();
            line.retain(|waiter| !waiter.is_gone());
            self.standing -= before - line.len();
        }
        line.push_back(waiter);
        self.standing += 1;
    }

    /// The groups that wait, in the order in which they are served next, each with what its first waits for.
    pub(super) fn fronts(&self) -> impl Iterator<Item = (GroupNumber, ShelfNumber)> + '_ {
        let count = self.by_group.len();
        (0..count).filter_map(move |step| {
            let number = (self.turn + step) % count;
            let first = self.by_group.get(number)?.front()?;
            Some((GroupNumber(number), first.shelf))
        })
    }

    /// Takes the first of `group`, whose turn is over with that.
    pub(super) fn call(&mut self, group: GroupNumber) -> Option<Waiter<C>> {
        let waiter = self.by_group.get_mut(group.0)?.pop_front()?;
        self.standing -= 1;
        self.turn = (group.0 + 1) % self.by_group.len().max(1);
        Some(waiter)
    }

    /// Takes the first in any line of those that wait for a shelf for which `hopeless` holds.
    pub(super) fn call_hopeless(&mut self, hopeless: impl Fn(ShelfNumber) -> bool) -> Option<Waiter<C>> {
        for line in &mut self.by_group {
            if let Some(place) = line.iter().position(|waiter| hopeless(waiter.shelf)) {
                self.standing -= 1;
                return line.remove(place);
            }
        }
        None
    }

    /// How many of `group` came before `since` and still wait.
    pub(super) fn ahead(&self, group: GroupNumber, since: Instant) -> usize {
        let line = self.by_group.get(group.0);
        let ahead = |line: &VecDeque<Waiter<C>>| {
            let before = line.iter().take_while(|waiter| waiter.since < since);
            before.filter(|waiter| !waiter.is_gone()).count()
        };
        line.map_or(0, ahead)
    }

    /// Everybody who waits.
    pub(super) fn waiters(&self) -> impl Iterator<Item = &Waiter<C>> {
        self.by_group.iter().flatten().filter(|waiter| !waiter.is_gone())
    }
}
