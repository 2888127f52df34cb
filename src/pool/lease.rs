//! A place in the pool, and a connection that has one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::home::Home;
use super::state::{Grant, Idle, ShelfNumber, Shelved};
use super::{Connect, Shared};

/// The right to have one connection open, of the key that the shelf is for. Dropped, it goes to whoever waits.
pub(super) struct Place<C: Connect> {
    pub(super) shared: Arc<Shared<C>>,
    pub(super) shelf: ShelfNumber,
    pub(super) epoch: u64,
}

impl<C: Connect> Place<C> {
    /// Hands free places to waiters until there is neither.
    pub(super) fn serve(shared: &Arc<Shared<C>>) {
        loop {
            let Some((waiter, grant)) = shared.state().next_grant(shared) else {
                return;
            };
            // whoever stopped waiting lets the grant drop here, outside the lock, which frees its place again
            drop(waiter.send(grant));
        }
    }
}

impl<C: Connect> Drop for Place<C> {
    fn drop(&mut self) {
        self.shared.state().release(self.shelf);
        Self::serve(&self.shared);
    }
}

/// A connection on loan. Dropped, it closes; [`Lease::give_back`] is the only way to reuse it.
pub struct Lease<C: Connect> {
    // in this order: the connection is closed before its place is free
    connection: C::Connection,
    place: Place<C>,
    opened: Instant,
    fresh: bool,
}

impl<C: Connect> Lease<C> {
    pub(super) fn new(place: Place<C>, connection: C::Connection, opened: Instant) -> Self {
        Self {
            connection,
            place,
            opened,
            fresh: true,
        }
    }

    pub(super) fn from_idle(idle: Idle<C>) -> Self {
        Self {
            connection: idle.connection,
            place: idle.place,
            opened: idle.opened,
            fresh: false,
        }
    }

    /// Whether it was opened for this loan.
    pub fn fresh(&self) -> bool {
        self.fresh
    }

    pub(super) fn is_quiet(&mut self) -> bool {
        C::quiet(&mut self.connection)
    }

    /// Gives the connection to whoever waits, or keeps it for later. It is closed instead when it is too old, or was
    /// opened before [`super::Pool::reconnect`].
    #[expect(
        clippy::only_used_in_recursion,
        reason = "the proof is what it is, not what it does"
    )]
    pub fn give_back(self, proof: C::AtRest, now: Instant) {
        let shared = Arc::clone(&self.place.shared);
        let age = now.saturating_duration_since(self.opened);
        let Self {
            connection,
            place,
            opened,
            ..
        } = self;
        let mut state = shared.state();
        if !state.keeps(place.epoch, age) {
            drop(state);
            drop(connection);
            drop(place);
            return;
        }
        let shelved = state.shelve(Idle {
            connection,
            place,
            opened,
            since: now,
            home: Home::here(),
        });
        drop(state);
        match shelved {
            Shelved::Kept(in_the_way) => drop(in_the_way),
            Shelved::Wanted(waiter, idle) => {
                if let Err(Grant::Lease(lease)) = waiter.send(Grant::Lease(Self::from_idle(idle))) {
                    // whoever waited is gone: the connection is as good as before
                    lease.give_back(proof, now);
                }
            }
        }
    }
}

impl<C: Connect> std::ops::Deref for Lease<C> {
    type Target = C::Connection;

    fn deref(&self) -> &C::Connection {
        &self.connection
    }
}

impl<C: Connect> std::ops::DerefMut for Lease<C> {
    fn deref_mut(&mut self) -> &mut C::Connection {
        &mut self.connection
    }
}

/// Whether `age` is within `limit`, where zero is no limit.
pub(super) fn within(age: Duration, limit: Duration) -> bool {
    limit.is_zero() || age < limit
}
