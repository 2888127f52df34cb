//! The servers of a backend beside each other: the primary and its readers, looked at in the background.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::backend::endpoints::{Health, Replay, Role, State, Vitals, ask};
use crate::backend::{BackendError, Connection, Connector, ServerKey};
use crate::config::{Address, BackendKind};
use crate::pool::{Connect as _, Pool};
use crate::telemetry::event::{EndpointDown, EndpointUp, PrimaryMoved};
use crate::types::BackendName;

/// How to look at servers, and what is asked of readers.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndpointSettings {
    /// The backend's kind.
    pub(super) kind: BackendKind,
    /// The pause between two looks at a server.
    pub(super) interval: Duration,
    /// How long a server may take to answer.
    pub(super) patience: Duration,
    /// How far behind a reader may be to get queries; zero is any.
    pub(super) max_lag: Duration,
}

/// A reader.
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// Its connections.
    pub pool: Pool<Connector>,
    known: Mutex<Known>,
}

/// What is known of a reader.
#[derive(Debug)]
struct Known {
    health: Health,
    role: Role,
    /// Everything that was committed before this moment is there, as far as it tells.
    caught_up: Option<Instant>,
}

/// What a query asks of the reader that answers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Freshness {
    /// What was committed before this moment must be there, for sure.
    pub(super) since: Option<Instant>,
    /// What was committed before this moment must be there, of a reader that can tell.
    pub(super) definitions: Option<Instant>,
}

/// One server, as the console shows it.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// Where it is.
    pub address: String,
    /// Whether it is a reader.
    pub reader: bool,
    /// What is known of it.
    pub state: State,
    /// How far behind it is, where that is known.
    pub lag: Option<Duration>,
    /// Connections that sessions have there.
    pub in_use: usize,
    /// Why it did not answer the last time.
    pub error: Option<Arc<str>>,
}

/// The servers of one backend.
pub struct Endpoints {
    shared: Arc<Shared>,
    /// How often readers were looked for: of those that are alike another one comes first each time.
    turns: AtomicUsize,
    task: Option<AbortHandle>,
}

struct Shared {
    backend: BackendName,
    settings: EndpointSettings,
    primary: Pool<Connector>,
    health: Mutex<Health>,
    replay: Mutex<Replay>,
    readers: Vec<Endpoint>,
    /// To be called when the primary is another server: what the one before had may be lost.
    stale: Box<dyn Fn() + Send + Sync>,
    /// The primary is another server since [`Endpoints::take_moved`].
    moved: AtomicBool,
}

/// Asks one server how it does, over a connection of its own.
pub(super) struct Probe {
    connector: Connector,
    key: ServerKey,
    connection: Option<Box<Connection>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Probe {
    /// Opens its connections with `connector`.
    pub(super) fn new(connector: Connector, key: ServerKey) -> Self {
        Self {
            connector,
            key,
            connection: None,
        }
    }

    async fn ask(&mut self, settings: &EndpointSettings) -> Result<Vitals, BackendError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connector.connect(&self.key).await?,
        };
        let asked = tokio::time::timeout(settings.patience, ask(&mut connection, settings.kind)).await;
        let vitals = asked.map_err(|_| BackendError::Slow(settings.patience))??;
        self.connection = Some(connection);
        Ok(vitals)
    }
}

impl Endpoint {
    /// A reader at `address`, of which nothing is known.
    pub(super) fn new(address: Address, pool: Pool<Connector>) -> Self {
        Self {
            address,
            pool,
            known: Mutex::new(Known {
                health: Health::default(),
                role: Role::Unknown,
                caught_up: None,
            }),
        }
    }

    /// Whether it gets queries.
    pub(super) fn is_up(&self) -> bool {
        locked(&self.known).health.is_up()
    }

    /// Sessions that use it or wait for it.
    fn load(&self, now: Instant) -> usize {
        let census = self.pool.census(now);
        census.keys.iter().map(|(_, key)| key.active + key.waiting).sum()
    }
}

impl Endpoints {
    /// The servers of `backend`, whose primary's connections are in `primary`. With `probes`, one for the primary and then
    /// one for each of `readers`, they are looked at on the current runtime until this is dropped. `stale` is called when the
    /// primary is another server; it must not block.
    pub(super) fn new(
        backend: BackendName,
        settings: EndpointSettings,
        primary: Pool<Connector>,
        readers: Vec<Endpoint>,
        probes: Vec<Probe>,
        stale: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            backend,
            settings,
            primary,
            health: Mutex::default(),
            replay: Mutex::default(),
            readers,
            stale: Box::new(stale),
            moved: AtomicBool::new(false),
        });
        let told = Arc::downgrade(&shared);
        shared.primary.connector().on_move(move |from, to| {
            if let Some(shared) = told.upgrade() {
                shared.primary_moved(from, to);
            }
        });
        let task = (!probes.is_empty()).then(|| {
            let watched = Arc::clone(&shared);
            tokio::spawn(async move { watched.watch(probes).await }).abort_handle()
        });
        Self {
            shared,
            turns: AtomicUsize::new(0),
            task,
        }
    }

    /// The readers.
    pub fn readers(&self) -> &[Endpoint] {
        &self.shared.readers
    }

    /// Those readers that can answer a query that asks for `freshness`, the least busy first, in turns where they are alike.
    pub(super) fn fitting(&self, freshness: Freshness, now: Instant) -> Vec<&Endpoint> {
        let latest = locked(&self.shared.replay).latest();
        let mut fitting: Vec<_> = self
            .readers()
            .iter()
            .filter(|reader| locked(&reader.known).suits(freshness, latest, self.shared.settings.max_lag))
            .map(|reader| (reader.load(now), reader))
            .collect();
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let first = turn.checked_rem(fitting.len()).unwrap_or(0);
        fitting.rotate_left(first);
        fitting.sort_by_key(|(load, _)| *load);
        fitting.into_iter().map(|(_, reader)| reader).collect()
    }

    /// A reader did not take a query.
    pub(super) fn note_failure(&self, reader: &Endpoint, error: &str) {
        self.shared.note_reader_failure(reader, error);
    }

    /// Whether the primary is another server than when this was asked last.
    pub(super) fn take_moved(&self) -> bool {
        self.shared.moved.swap(false, Ordering::AcqRel)
    }

    /// Every server that is looked at, the primary first.
    pub fn view(&self, now: Instant) -> Vec<EndpointView> {
        let in_use = |pool: &Pool<Connector>| -> usize {
            pool.census(now).keys.iter().map(|(_, key)| key.active).sum()
        };
        let shared = &self.shared;
        let health = locked(&shared.health).clone();
        let primary = EndpointView {
            address: shared.primary.connector().primary().to_string(),
            reader: false,
            state: health.state(),
            lag: None,
            in_use: in_use(&shared.primary),
            error: health.error().cloned(),
        };
        let latest = locked(&shared.replay).latest();
        let readers = shared.readers.iter().map(|reader| {
            let known = locked(&reader.known);
            EndpointView {
                address: reader.address.to_string(),
                reader: true,
                state: known.health.state(),
                lag: known.lag(latest),
                in_use: in_use(&reader.pool),
                error: known.health.error().cloned(),
            }
        });
        std::iter::once(primary).chain(readers).collect()
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Known {
    /// How far it is behind the primary as that was when it was asked last.
    fn lag(&self, latest: Option<Instant>) -> Option<Duration> {
        Some(latest?.saturating_duration_since(self.caught_up?))
    }

    fn suits(&self, freshness: Freshness, latest: Option<Instant>, max_lag: Duration) -> bool {
        let has = |moment: Option<Instant>| {
            moment.is_none_or(|moment| self.caught_up.is_some_and(|caught_up| caught_up > moment))
        };
        let tells = self.role == Role::Reader;
        let near = !tells || max_lag.is_zero() || self.lag(latest).is_some_and(|lag| lag <= max_lag);
        self.health.is_up() && near && has(freshness.since) && (!tells || has(freshness.definitions))
    }
}

impl Shared {
    async fn watch(&self, probes: Vec<Probe>) {
        let mut probes = probes.into_iter();
        let primary = probes.next().map(|probe| self.watch_primary(probe));
        let readers = self
            .readers
            .iter()
            .zip(probes)
            .map(|(reader, probe)| self.watch_reader(reader, probe));
        tokio::join!(join_all(primary), join_all(readers));
    }

    fn ticks(&self) -> tokio::time::Interval {
        let mut ticks = tokio::time::interval(self.settings.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    async fn watch_primary(&self, mut probe: Probe) {
        let mut ticks = self.ticks();
        loop {
            ticks.tick().await;
            // before it is asked: what is committed by now is before what it answers
            let asked = Instant::now();
            let vitals = probe.ask(&self.settings).await.and_then(|vitals| {
                if vitals.role == Role::Reader {
                    // it was demoted since the connection was made
                    probe.connection = None;
                    return Err(BackendError::Standby(probe.connector.primary().to_string()));
                }
                Ok(vitals)
            });
            let vitals = match vitals {
                Ok(vitals) => vitals,
                Err(error) => {
                    if locked(&self.health).note_failure(&error.to_string(), asked) {
                        EndpointDown {
                            backend: &self.backend,
                            address: &probe.connector.primary().to_string(),
                            error: &error,
                        }
                        .emit();
                    }
                    continue;
                }
            };
            let found = probe.connector.primary();
            self.primary.connector().prefer(&found);
            if let Some(lsn) = vitals.lsn {
                locked(&self.replay).note(asked, lsn);
            }
            if locked(&self.health).note_answer() {
                self.primary.forgive();
                self.tell_up(&found);
            }
        }
    }

    async fn watch_reader(&self, reader: &Endpoint, mut probe: Probe) {
        let mut ticks = self.ticks();
        loop {
            ticks.tick().await;
            let asked = Instant::now();
            if !locked(&reader.known).health.is_due(asked) {
                continue;
            }
            let vitals = match probe.ask(&self.settings).await {
                Ok(vitals) => vitals,
                Err(error) => {
                    self.note_reader_failure(reader, &error.to_string());
                    continue;
                }
            };
            let is_primary =
                vitals.role == Role::Primary && reader.address == self.primary.connector().primary();
            let caught_up = match vitals.role {
                Role::Reader => vitals.lsn.and_then(|lsn| locked(&self.replay).caught_up(lsn)),
                // the primary has what was committed at the primary
                Role::Primary => is_primary.then_some(asked),
                Role::Unknown => None,
            };
            let mut known = locked(&reader.known);
            known.role = vitals.role;
            known.caught_up = caught_up;
            let news = known.health.note_answer();
            drop(known);
            if news {
                reader.pool.forgive();
                self.tell_up(&reader.address);
            }
        }
    }

    /// The primary is another server. What the one before had committed may be lost, and it may still answer.
    fn primary_moved(&self, from: &Address, to: &Address) {
        locked(&self.replay).forget();
        for reader in &self.readers {
            locked(&reader.known).caught_up = None;
        }
        // in this order: whatever is lent from now on is new, and what was looked up before is not kept
        self.primary.reconnect();
        // what failed at the one before says nothing of this one
        self.primary.forgive();
        (self.stale)();
        self.moved.store(true, Ordering::Release);
        PrimaryMoved {
            backend: &self.backend,
            from: &from.to_string(),
            to: &to.to_string(),
        }
        .emit();
    }

    fn tell_up(&self, address: &Address) {
        EndpointUp {
            backend: &self.backend,
            address: &address.to_string(),
        }
        .emit();
    }

    fn note_reader_failure(&self, reader: &Endpoint, error: &str) {
        let mut known = locked(&reader.known);
        known.caught_up = None;
        let news = known.health.note_failure(error, Instant::now());
        drop(known);
        if news {
            // what is idle there may be half dead
            reader.pool.reconnect();
            EndpointDown {
                backend: &self.backend,
                address: &reader.address.to_string(),
                error: &error,
            }
            .emit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_a_query_only_when_it_is_up_near_and_as_fresh_as_it_asks() {
        let start = Instant::now();
        let at = |second| Some(start + Duration::from_secs(second));
        let since = |since, definitions| Freshness { since, definitions };
        let anything = Freshness::default();
        for (role, caught_up, freshness, max_lag, suits) in [
            (Role::Reader, at(10), anything, 5, true),
            (Role::Reader, at(4), anything, 5, false),
            (Role::Reader, at(4), anything, 0, true),
            (Role::Reader, None, anything, 5, false),
            (Role::Reader, None, anything, 0, true),
            (Role::Reader, at(8), since(at(7), None), 5, true),
            (Role::Reader, at(8), since(at(8), None), 5, false),
            (Role::Reader, at(8), since(None, at(9)), 5, false),
            (Role::Unknown, None, anything, 5, true),
            (Role::Unknown, None, since(None, at(9)), 5, true),
            (Role::Unknown, None, since(at(1), None), 0, false),
            (Role::Primary, None, anything, 5, true),
        ] {
            let mut known = Known {
                health: Health::default(),
                role,
                caught_up,
            };
            let max_lag = Duration::from_secs(max_lag);
            assert!(!known.suits(freshness, at(10), max_lag), "nobody has looked yet");
            known.health.note_answer();
            assert_eq!(
                known.suits(freshness, at(10), max_lag),
                suits,
                "{known:?} {freshness:?} {max_lag:?}"
            );
            known.health.note_failure("gone", start);
            assert!(!known.suits(freshness, at(10), max_lag));
        }
    }
}
