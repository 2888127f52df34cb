//! Connections on loan. The pool knows that something connects, not what: it is tested with plain numbers.
//!
//! One pool serves one backend under one limit; inside it, connections of different keys (database and login) share
//! the places. Idle ones are taken last in first out, so that spares grow old and are closed; whoever waits is served
//! first in first out. A lease that is dropped closes its connection; only a proof of rest makes it reusable.
//!
//! Of several idle ones, a thread gets the one that it used last itself: that one's socket is watched by this thread's
//! reactor, so nobody else has to be woken for it.

mod home;
mod lease;
mod state;

pub use home::Home;
pub use lease::Lease;
pub use state::{Census, KeyCensus};

use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use lease::Place;
use state::{Grant, State, Taken};

/// Something that connects.
pub trait Connect: Send + Sync + 'static {
    /// What connections are told apart by.
    type Key: Clone + Eq + Hash + Send + Sync + 'static;
    /// A connection. Dropping it closes it.
    type Connection: Send + 'static;
    /// Evidence that a connection can serve somebody else; only whoever talks to the backend can make one.
    type AtRest;
    /// Why there is no connection.
    type Error: Send + 'static;

    /// Opens a connection.
    fn connect(&self, key: &Self::Key) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// Whether an idle connection is still open and has said nothing. Called on the thread that will use it.
    fn quiet(connection: &mut Self::Connection) -> bool;
}

/// Limits of a pool; they can change while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at most, idle, on loan and being opened together. At least 1.
    pub max_connections: usize,
    /// How long a connection may be idle; zero is for ever.
    pub idle_timeout: Duration,
    /// How old a connection may get before it is closed at its return; zero is for ever.
    pub lifetime: Duration,
}

/// Why there is no lease.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckoutError<E> {
    /// None became free in time.
    #[error("no connection became free within {0:?}")]
    Timeout(Duration),
    /// The connection could not be opened.
    #[error("no connection could be opened")]
    Connect(E),
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
    state: Mutex<State<C>>,
}

impl<C: Connect> Shared<C> {
    fn state(&self) -> MutexGuard<'_, State<C>> {
        // nothing panics while it holds the lock, and the counts are whole after each step
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Connect> Pool<C> {
    /// An empty pool.
    pub fn new(connector: C, limits: Limits) -> Self {
        Self {
            shared: Arc::new(Shared {
                connector,
                state: Mutex::new(State::new(limits)),
            }),
        }
    }

    /// What opens the connections.
    pub fn connector(&self) -> &C {
        &self.shared.connector
    }

    /// A connection for `key` that is idle, if there is one that nobody waits for. Does not wait.
    pub fn checkout_idle(&self, key: &C::Key) -> Option<Lease<C>> {
        let mut lease = self.shared.state().take_idle_of(key)?;
        lease.is_quiet().then_some(lease)
    }

    /// A connection for `key`: an idle one, a new one while there are places, or the first that becomes free. The
    /// second value is true where it was opened for this call.
    ///
    /// # Errors
    ///
    /// None became free within `patience`, or it could not be opened.
    ///
    /// # Cancel safety
    ///
    /// Safe: whoever is dropped while it waits leaves the queue, and what was granted to it goes on to the next.
    pub async fn checkout(
        &self,
        key: &C::Key,
        patience: Duration,
    ) -> Result<Lease<C>, CheckoutError<C::Error>> {
        loop {
            let taken = self.shared.state().take(key, &self.shared);
            let grant = match taken {
                Taken::Granted(grant) => grant,
                Taken::Wait(waiting, in_the_way) => {
                    drop(in_the_way);
                    self.wait(waiting, patience).await?
                }
            };
            match grant {
                Grant::Lease(mut lease) => {
                    if lease.is_quiet() {
                        return Ok(lease);
                    }
                }
                Grant::Place(place) => {
                    let connection = self
                        .shared
                        .connector
                        .connect(key)
                        .await
                        .map_err(CheckoutError::Connect)?;
                    return Ok(Lease::new(place, connection, Instant::now()));
                }
            }
        }
    }

    async fn wait(
        &self,
        mut waiting: oneshot::Receiver<Grant<C>>,
        patience: Duration,
    ) -> Result<Grant<C>, CheckoutError<C::Error>> {
        let granted = tokio::time::timeout(patience, &mut waiting).await;
        // a grant may come in the same moment as the timeout; it must not be lost with the channel
        waiting.close();
        match granted {
            Ok(Ok(grant)) => Ok(grant),
            Ok(Err(_)) | Err(_) => waiting.try_recv().map_err(|_| CheckoutError::Timeout(patience)),
        }
    }

    /// Closes what has been idle for too long. To be called now and then.
    pub fn sweep(&self, now: Instant) {
        let old = self.shared.state().sweep(now);
        drop(old);
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
        self.serve();
    }

    /// Whether [`Self::pause`] is in force.
    pub fn paused(&self) -> bool {
        self.shared.state().paused()
    }

    /// Sets new limits. Fewer places close idle connections at once, others as they come back.
    pub fn set_limits(&self, limits: Limits) {
        let old = self.shared.state().set_limits(limits);
        drop(old);
        self.serve();
    }

    /// Counts of connections and of whoever waits.
    pub fn census(&self, now: Instant) -> Census<C::Key> {
        self.shared.state().census(now)
    }

    /// Grants what is free to whoever waits.
    fn serve(&self) {
        Place::serve(&self.shared);
        loop {
            // closed outside the lock; its place goes to whoever waits
            let in_the_way = self.shared.state().make_room();
            if in_the_way.is_none() {
                return;
            }
            drop(in_the_way);
        }
    }
}

#[cfg(test)]
mod tests;
