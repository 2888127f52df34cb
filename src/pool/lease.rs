//! A place in the pool, and a connection that has one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::gate::{Failure, Pass};
use super::home::Home;
use super::state::{Grant, Idle, ShelfNumber, Step};
use super::{Connect, Shared, now};

/// Of its lifetime, a connection lives at least so many thousandths: those that were opened together do not close together.
const SHORTEST_LIFE: u16 = 900;

/// The right to have one connection open, of the key that the shelf is for. Dropped, it goes to whoever waits.
pub(super) struct Place<C: Connect> {
    pub(super) shared: Arc<Shared<C>>,
    pub(super) shelf: ShelfNumber,
    pub(super) epoch: u64,
    /// With which right the connection is being opened: the backend's and the key's.
    pub(super) passes: [Pass; 2],
    /// Whoever drops it serves those who wait.
    pub(super) quiet: bool,
}

impl<C: Connect> Place<C> {
    /// Hands free places to waiters until there is neither.
    pub(super) fn serve(shared: &Arc<Shared<C>>) {
        loop {
            let step = shared.state().next_step(shared);
            match step {
                Step::Grant(waiter, grant) => match waiter.send(grant) {
                    Ok(()) | Err(Grant::Refused(_)) => {}
                    // whoever waited is gone: the connection is as good as before
                    Err(Grant::Lease(lease)) => lease.put_back(),
                    Err(Grant::Place(mut place)) => {
                        place.quiet = true;
                        drop(place);
                    }
                },
                Step::Close(idle) => idle.close(),
                Step::Elsewhere => {
                    if !shared.ceiling.make_room() {
                        return;
                    }
                }
                Step::Rest => return,
            }
        }
    }

    /// Opens the connection that the place is for, and tells the pool what came of it.
    pub(super) async fn open(mut self, key: &C::Key) -> Result<Lease<C>, Arc<C::Error>> {
        let shared = Arc::clone(&self.shared);
        let began = now();
        let opened = shared.connector.connect(key).await;
        let ended = now();
        match opened {
            Ok(connection) => {
                let recovered = shared.state().opened(&mut self);
                if recovered {
                    // whoever was held may ask again
                    Self::serve(&shared);
                }
                Ok(Lease {
                    connection,
                    place: self,
                    opened: ended,
                    rested: None,
                    life: rand::random_range(SHORTEST_LIFE..=1000),
                })
            }
            Err(error) => {
                let failure = C::failure(&error);
                let error = Arc::new(error);
                self.failed(failure, &error, (began, ended));
                Err(error)
            }
        }
    }

    fn failed(mut self, failure: Failure, error: &Arc<C::Error>, when: (Instant, Instant)) {
        let jitter = rand::random_range(0..=500);
        let shared = Arc::clone(&self.shared);
        shared.state().failed(&mut self, failure, error, when, jitter);
    }
}

impl<C: Connect> Drop for Place<C> {
    fn drop(&mut self) {
        self.shared.state().release(self.shelf, self.passes);
        self.shared.ceiling.give_back();
        if !self.quiet {
            self.shared.ceiling.serve_denied();
            Self::serve(&self.shared);
        }
    }
}

/// A connection on loan. Dropped, it closes; [`Lease::give_back`] is the only way to reuse it.
pub struct Lease<C: Connect> {
    // in this order: the connection is closed before its place is free
    connection: C::Connection,
    place: Place<C>,
    opened: Instant,
    /// Since when it was idle before this loan; `None` for one that was opened for it.
    rested: Option<Instant>,
    life: u16,
}

impl<C: Connect> Lease<C> {
    pub(super) fn from_idle(idle: Idle<C>) -> Self {
        Self {
            connection: idle.connection,
            place: idle.place,
            opened: idle.opened,
            rested: Some(idle.since),
            life: idle.life,
        }
    }

    /// Closes the connection and opens another one in its place.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    ///
    /// # Cancel safety
    ///
    /// Safe: its place is free again.
    pub async fn renew(self, key: &C::Key) -> Result<Self, Arc<C::Error>> {
        let Self {
            connection, place, ..
        } = self;
        drop(connection);
        place.open(key).await
    }

    /// Whether it was opened for this loan.
    pub fn fresh(&self) -> bool {
        self.rested.is_none()
    }

    pub(super) fn rested(&self) -> Option<Instant> {
        self.rested
    }

    pub(super) fn is_quiet(&mut self) -> bool {
        C::quiet(&mut self.connection)
    }

    /// Whether it still answers.
    pub(super) async fn answers(&mut self) -> bool {
        C::check(&mut self.connection).await
    }

    /// Gives the connection to whoever waits, or keeps it for later. It is closed instead when it is too old, or was
    /// opened before [`super::Pool::reconnect`].
    pub fn give_back(self, _proof: C::AtRest, now: Instant) {
        let shared = Arc::clone(&self.place.shared);
        match self.shelve(now) {
            Shelved::Kept => {}
            Shelved::Wanted => Place::serve(&shared),
            Shelved::Closed(lease) => drop(lease),
        }
    }

    /// Keeps it, nobody having used it; whoever calls serves those who wait.
    pub(super) fn put_back(self) {
        let since = self.rested.unwrap_or_else(now);
        if let Shelved::Closed(mut lease) = self.shelve(since) {
            lease.place.quiet = true;
        }
    }

    fn shelve(self, since: Instant) -> Shelved<C> {
        let shared = Arc::clone(&self.place.shared);
        let age = since.saturating_duration_since(self.opened);
        let mut state = shared.state();
        if !state.keeps(self.place.epoch, age, self.life) || shared.ceiling.exceeded() {
            drop(state);
            return Shelved::Closed(self);
        }
        if shared.ceiling.is_wanted() {
            let open = state.open();
            drop(state);
            if shared.ceiling.claims(open) {
                return Shelved::Closed(self);
            }
            state = shared.state();
        }
        let shelved = state.shelve(Idle {
            connection: self.connection,
            place: self.place,
            opened: self.opened,
            since,
            home: Home::here(),
            life: self.life,
        });
        drop(state);
        match shelved {
            Ok(true) => Shelved::Wanted,
            Ok(false) => Shelved::Kept,
            Err(idle) => Shelved::Closed(Self::from_idle(idle)),
        }
    }
}

/// What becomes of a connection that comes back.
enum Shelved<C: Connect> {
    /// It is idle, and nobody waits.
    Kept,
    /// It is idle, and somebody waits.
    Wanted,
    /// It is to be closed, outside the lock.
    Closed(Lease<C>),
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
