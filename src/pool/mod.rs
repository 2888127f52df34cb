//! Connections on loan. The pool knows that something connects, not what: it is tested with plain numbers.
//!
//! One pool serves one backend under one limit; inside it, connections of different keys (database and login) share
//! the places. Keys belong to groups (teams), which may have limits of their own; a [`Ceiling`] limits several pools
//! together. Idle connections are taken last in first out, so that spares grow old and are closed. Whoever waits is
//! served first in first out within its group, and the groups in turns, so that one that asks for much does not starve
//! another. A lease that is dropped closes its connection; only a proof of rest makes it reusable.
//!
//! Of several idle ones, a thread gets the one that it used last itself: that one's socket is watched by this thread's
//! reactor, so nobody else has to be woken for it.

mod ceiling;
mod census;
mod gate;
mod home;
mod lease;
mod lines;
mod state;

pub use ceiling::Ceiling;
pub use census::{Census, Jam, KeyCensus, Short};
pub use gate::{Circuit, Failure, Hold, Retry};
pub use home::Home;
pub use lease::Lease;

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use ceiling::Tenant;
use gate::Turn;
use lease::Place;
use state::{Grant, State, Taken};

/// Something that connects.
pub trait Connect: Send + Sync + 'static {
    /// What connections are told apart by.
    type Key: Clone + Eq + Hash + Send + Sync + 'static;
    /// Who shares a limit, and a turn among those who wait.
    type Group: Clone + Eq + Hash + Send + Sync + 'static;
    /// A connection. Dropping it closes it.
    type Connection: Send + 'static;
    /// Evidence that a connection can serve somebody else; only whoever talks to the backend can make one.
    type AtRest;
    /// Why there is no connection.
    type Error: Send + Sync + 'static;

    /// The group of a key.
    fn group(key: &Self::Key) -> Self::Group;

    /// Opens a connection.
    fn connect(&self, key: &Self::Key) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// Whether the pool may open a connection of `key` that nobody asks for: whether that can succeed, as far as is known.
    fn may_open(&self, key: &Self::Key) -> bool;

    /// What a failure tells of the next attempt.
    fn failure(error: &Self::Error) -> Failure;

    /// Whether an idle connection is still open and has said nothing. Called on the thread that will use it.
    fn quiet(connection: &mut Self::Connection) -> bool;

    /// Whether the peer is known to have closed an idle connection. Called under the pool's lock, on any thread, and often:
    /// asks nobody.
    fn ended(connection: &Self::Connection) -> bool;

    /// Asks an idle connection whether it still answers, in a bounded time.
    fn check(connection: &mut Self::Connection) -> impl Future<Output = bool> + Send;
}

/// Limits of a pool; they can change while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits<G: Eq + Hash> {
    /// Connections at most, idle, on loan and being opened together. At least 1.
    pub max_connections: usize,
    /// The same for single groups. A group that is not here has no limit of its own.
    pub groups: HashMap<G, usize>,
    /// Connections that are kept ready for each key that was asked for in the last hour, as far as there are places.
    pub min_connections: usize,
    /// How long a connection may be idle; zero is for ever.
    pub idle_timeout: Duration,
    /// How old a connection may get before it is closed at its return; zero is for ever. Each gets nine tenths of it at
    /// least.
    pub lifetime: Duration,
    /// A connection that was idle for longer is asked whether it still answers before it is lent; zero never asks.
    pub check_after_idle: Duration,
    /// How to go on when connections cannot be opened.
    pub retry: Retry,
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError<E> {
    /// None became free in time.
    #[error("no connection became free within {patience:?}")]
    Timeout {
        /// How long was waited.
        patience: Duration,
        /// What for.
        jam: Jam,
    },
    /// The connection could not be opened.
    #[error("no connection could be opened")]
    Connect(Arc<E>),
    /// None could be opened a moment ago, and it is not tried again yet.
    #[error("no connection could be opened a moment ago")]
    Held(Hold<E>),
}

/// What a pool has to say when it was looked after.
pub struct Swept<C: Connect> {
    /// Connections to be opened now, each by a task of its own.
    pub openings: Vec<Opening<C>>,
    /// How often the circuit opened since the last time, with its state now.
    pub opened: usize,
    /// How often it closed.
    pub closed: usize,
}

/// A connection that the pool wants by itself.
pub struct Opening<C: Connect> {
    place: Place<C>,
    key: C::Key,
}

impl<C: Connect> Opening<C> {
    /// Opens it, and keeps it for whoever asks first.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    ///
    /// # Cancel safety
    ///
    /// Safe: its place is free again.
    pub async fn run(self) -> Result<(), Arc<C::Error>> {
        let shared = Arc::clone(&self.place.shared);
        let lease = self.place.open(&self.key).await?;
        lease.put_back();
        Place::serve(&shared);
        Ok(())
    }
}

/// The time, as tokio has it: tests stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Connections to one backend.
pub struct Pool<C: Connect> {
    shared: Arc<Shared<C>>,
}

impl<C: Connect> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

struct Shared<C: Connect> {
    connector: C,
    ceiling: Arc<Ceiling>,
    state: Mutex<State<C>>,
}

impl<C: Connect> Shared<C> {
    fn state(&self) -> MutexGuard<'_, State<C>> {
        // nothing panics while it holds the lock, and the counts are whole after each step
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Connect> Tenant for Shared<C> {
    fn open(&self) -> usize {
        self.state().open()
    }

    fn oldest_idle(&self) -> Option<Instant> {
        self.state().oldest_idle()
    }

    fn close_oldest_idle(&self) -> bool {
        let oldest = self.state().take_oldest_idle();
        oldest.map(state::Idle::close).is_some()
    }

    fn serve(self: Arc<Self>) {
        Place::serve(&self);
    }
}

impl<C: Connect> Pool<C> {
    /// An empty pool, under no limit but its own.
    pub fn new(connector: C, limits: Limits<C::Group>) -> Self {
        Self::under(Arc::default(), connector, limits)
    }

    /// An empty pool under a limit that it shares with others.
    pub fn under(ceiling: Arc<Ceiling>, connector: C, limits: Limits<C::Group>) -> Self {
        let shared = Arc::new(Shared {
            connector,
            ceiling,
            state: Mutex::new(State::new(limits)),
        });
        let tenant: Arc<dyn Tenant> = Arc::<Shared<C>>::clone(&shared);
        shared.ceiling.admit(Arc::downgrade(&tenant));
        Self { shared }
    }

    /// What opens the connections.
    pub fn connector(&self) -> &C {
        &self.shared.connector
    }

    /// A connection for `key` that is idle and `suits`, if there is one that nobody waits for and that was used lately. Does
    /// not wait.
    pub fn checkout_idle(&self, key: &C::Key, suits: impl Fn(&C::Connection) -> bool) -> Option<Lease<C>> {
        let mut lease = self.shared.state().take_idle_of(key, suits)?;
        lease.is_quiet().then_some(lease)
    }

    /// A connection for `key`: an idle one, a new one while there are places, or the first that becomes free.
    ///
    /// # Errors
    ///
    /// None became free within `patience`; or it could not be opened, now or a moment ago.
    ///
    /// # Cancel safety
    ///
    /// Safe: whoever is dropped while it waits leaves the queue, and what was granted to it goes on to the next.
    pub async fn checkout(
        &self,
        key: &C::Key,
        patience: Duration,
    ) -> Result<Lease<C>, CheckoutError<C::Error>> {
        let began = now();
        loop {
            let taken = self.shared.state().take(key, &self.shared);
            let grant = match taken {
                Taken::Granted(grant) => grant,
                Taken::Wait(waiting) => {
                    Place::serve(&self.shared);
                    self.wait(key, waiting, (began, patience)).await?
                }
            };
            match grant {
                Grant::Lease(mut lease) => {
                    if lease.is_quiet() && self.still_answers(&mut lease).await {
                        return Ok(lease);
                    }
                }
                Grant::Place(place) => return place.open(key).await.map_err(CheckoutError::Connect),
                Grant::Refused(hold) => return Err(CheckoutError::Held(hold)),
            }
        }
    }

    /// Asks a connection that was idle for long. When it does not answer, those that were idle for as long are not asked.
    async fn still_answers(&self, lease: &mut Lease<C>) -> bool {
        let Some(since) = lease.rested().filter(|_| self.shared.state().doubts(lease)) else {
            return true;
        };
        if lease.answers().await {
            return true;
        }
        let as_old = self.shared.state().take_idle_since(since);
        drop(as_old);
        false
    }

    async fn wait(
        &self,
        key: &C::Key,
        mut waiting: oneshot::Receiver<Grant<C>>,
        (began, patience): (Instant, Duration),
    ) -> Result<Grant<C>, CheckoutError<C::Error>> {
        let left = patience.saturating_sub(now().saturating_duration_since(began));
        let granted = tokio::time::timeout(left, &mut waiting).await;
        // a grant may come in the same moment as the timeout; it must not be lost with the channel
        waiting.close();
        match granted {
            Ok(Ok(grant)) => Ok(grant),
            Ok(Err(_)) | Err(_) => waiting.try_recv().map_err(|_| CheckoutError::Timeout {
                patience,
                jam: self.jam(key, began),
            }),
        }
    }

    /// Why somebody waits who asked for `key` at `since`.
    pub fn jam(&self, key: &C::Key, since: Instant) -> Jam {
        self.shared.state().jam(key, since, &self.shared)
    }

    /// Whether requests are refused because the backend does not answer.
    pub fn circuit(&self) -> Circuit<C::Error> {
        self.shared.state().circuit()
    }

    /// Forgets failures: the next attempt to connect may be made at once, with every key.
    pub fn forgive(&self) {
        self.shared.state().forgive(now());
        Place::serve(&self.shared);
    }

    /// Closes what has been idle for too long or was closed by the peer, and tells what else is to be done. To be called
    /// several times a second.
    #[must_use]
    pub fn sweep(&self, now: Instant) -> Swept<C> {
        let old = self.shared.state().take_old(now);
        drop(old);
        let blocking = {
            let mut state = self.shared.state();
            state.probe_is_blocked(now).then(|| state.take_oldest_idle())
        };
        if let Some(idle) = blocking.flatten() {
            idle.close();
        }
        // pauses after failures are over without anybody telling those who wait
        Place::serve(&self.shared);
        let (places, news) = {
            let mut state = self.shared.state();
            (state.places_to_open(&self.shared, now), state.take_news())
        };
        let count = |turn| news.iter().filter(|news| **news == turn).count();
        Swept {
            openings: places
                .into_iter()
                .map(|(place, key)| Opening { place, key })
                .collect(),
            opened: count(Turn::Opened),
            closed: count(Turn::Closed),
        }
    }

    /// Closes every idle connection now, and every other one when it comes back.
    pub fn reconnect(&self) {
        let old = self.shared.state().reconnect();
        drop(old);
    }

    /// Grants nothing until [`Self::resume`]; whoever asks waits.
    pub fn pause(&self) {
        self.shared.state().pause();
    }

    /// Grants again.
    pub fn resume(&self) {
        self.shared.state().resume();
        Place::serve(&self.shared);
    }

    /// Whether [`Self::pause`] is in force.
    pub fn paused(&self) -> bool {
        self.shared.state().paused()
    }

    /// Sets new limits. Fewer places close idle connections at once, others as they come back.
    pub fn set_limits(&self, limits: Limits<C::Group>) {
        let old = self.shared.state().set_limits(limits);
        drop(old);
        Place::serve(&self.shared);
    }

    /// Counts of connections and of whoever waits.
    pub fn census(&self, now: Instant) -> Census<C::Key> {
        self.shared.state().census(now)
    }
}

#[cfg(test)]
mod tests;
