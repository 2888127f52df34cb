//! What is measured at the moment of a scrape: asked of those who know, so that it cannot drift from the truth.

use std::borrow::Cow;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::types::{BackendName, TeamName};

use super::catalog::{self, Labels, MetricSpec};

/// The state of the gateway at one moment.
#[derive(Clone, Debug, Default)]
pub struct LiveState {
    /// Since the start.
    pub uptime: Duration,
    /// Client connections.
    pub clients: ClientCounts,
    /// Each backend's pool.
    pub pools: Vec<PoolState>,
    /// Each team's quota.
    pub teams: Vec<TeamState>,
    /// The cache.
    pub cache: CacheState,
    /// Tasks of the threads that serve clients.
    pub tasks: u64,
}

/// Client connections by state.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientCounts {
    /// Not logged in yet.
    pub login: u64,
    /// Logged in, no request under way.
    pub idle: u64,
    /// A request under way.
    pub active: u64,
    /// A request waits for a place of its team or for a backend connection.
    pub waiting: u64,
}

/// Connections to one backend by state.
#[derive(Clone, Debug)]
pub struct PoolState {
    /// The backend.
    pub backend: BackendName,
    /// Being made.
    pub connecting: u64,
    /// Free to lend.
    pub idle: u64,
    /// Lent for a request or a transaction.
    pub leased: u64,
    /// Lent for a session's life.
    pub pinned: u64,
    /// How many there may be.
    pub max: u64,
    /// Requests that wait for one.
    pub waiting: u64,
    /// Whether requests are refused because the backend does not answer.
    pub circuit_open: bool,
}

/// One team's quota.
#[derive(Clone, Debug)]
pub struct TeamState {
    /// The team.
    pub team: TeamName,
    /// Queries that hold a place.
    pub running: u64,
    /// Queries that wait for one.
    pub queued: u64,
    /// How long the first of them has waited.
    pub oldest_wait: Duration,
}

/// The cache's size, and what it counted itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheState {
    /// Answers held.
    pub entries: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Bytes that may be held.
    pub memory: u64,
    /// Bytes that runs under way have collected.
    pub filling_bytes: u64,
    /// Runs under way.
    pub flights: u64,
    /// Relations with a write that may be committing.
    pub in_doubt: u64,
    /// Entries found that a write had expired.
    pub stale: u64,
    /// Entries found that were too old.
    pub expired: u64,
    /// Answers not kept because a write began meanwhile.
    pub overtaken: u64,
    /// Answers not kept for their size.
    pub too_big: u64,
    /// Runs that ended without an answer.
    pub abandoned: u64,
}

type GaugeOf<const N: usize> = Family<Labels<N>, Gauge<f64, AtomicU64>>;

impl LiveState {
    /// A registry that holds this state and nothing else.
    pub(super) fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        let Self {
            uptime,
            clients,
            pools,
            teams,
            cache,
            tasks,
        } = self;
        single(&mut registry, &catalog::UPTIME, uptime.as_secs_f64());
        labelled(
            &mut registry,
            &catalog::BUILD,
            [([Cow::Borrowed(env!("CARGO_PKG_VERSION"))], 1.0)],
        );
        clients.register(&mut registry);
        register_pools(&mut registry, pools);
        register_teams(&mut registry, teams);
        cache.register(&mut registry);
        single(&mut registry, &catalog::TASKS, number(*tasks));
        registry
    }
}

impl ClientCounts {
    fn register(self, registry: &mut Registry) {
        let Self {
            login,
            idle,
            active,
            waiting,
        } = self;
        let counts = [login, idle, active, waiting];
        let series = catalog::CLIENT_STATES.iter().zip(counts);
        labelled(
            registry,
            &catalog::CLIENTS,
            series.map(|(state, count)| ([Cow::Borrowed(*state)], number(count))),
        );
    }
}

fn register_pools(registry: &mut Registry, pools: &[PoolState]) {
    let connections = pools.iter().flat_map(|pool| {
        let PoolState {
            backend,
            connecting,
            idle,
            leased,
            pinned,
            max: _,
            waiting: _,
            circuit_open: _,
        } = pool;
        let counts = [*connecting, *idle, *leased, *pinned];
        catalog::CONNECTION_STATES
            .iter()
            .zip(counts)
            .map(move |(state, count)| ([owned(backend.as_str()), Cow::Borrowed(*state)], number(count)))
    });
    labelled(registry, &catalog::POOL_CONNECTIONS, connections);
    let each = |value: fn(&PoolState) -> u64| {
        pools
            .iter()
            .map(move |pool| ([owned(pool.backend.as_str())], number(value(pool))))
    };
    labelled(registry, &catalog::POOL_CONNECTIONS_MAX, each(|pool| pool.max));
    labelled(registry, &catalog::POOL_WAITING, each(|pool| pool.waiting));
    labelled(
        registry,
        &catalog::CIRCUIT_OPEN,
        each(|pool| u64::from(pool.circuit_open)),
    );
}

fn register_teams(registry: &mut Registry, teams: &[TeamState]) {
    let each = |value: fn(&TeamState) -> f64| {
        teams
            .iter()
            .map(move |team| ([owned(team.team.as_str())], value(team)))
    };
    labelled(
        registry,
        &catalog::QUOTA_RUNNING,
        each(|team| number(team.running)),
    );
    labelled(registry, &catalog::QUOTA_QUEUED, each(|team| number(team.queued)));
    labelled(
        registry,
        &catalog::QUOTA_OLDEST_WAIT,
        each(|team| team.oldest_wait.as_secs_f64()),
    );
}

impl CacheState {
    fn register(self, registry: &mut Registry) {
        let Self {
            entries,
            bytes,
            memory,
            filling_bytes,
            flights,
            in_doubt,
            ..
        } = self;
        let Self {
            stale,
            expired,
            overtaken,
            too_big,
            abandoned,
            ..
        } = self;
        single(registry, &catalog::CACHE_ENTRIES, number(entries));
        single(registry, &catalog::CACHE_BYTES, number(bytes));
        single(registry, &catalog::CACHE_MEMORY, number(memory));
        single(registry, &catalog::CACHE_FILLING, number(filling_bytes));
        single(registry, &catalog::CACHE_FLIGHTS, number(flights));
        single(registry, &catalog::CACHE_IN_DOUBT, number(in_doubt));
        let family = Family::<Labels<1>, Counter>::default();
        let counts = [stale, expired, overtaken, too_big, abandoned];
        for (reason, count) in catalog::DISCARD_REASONS.iter().zip(counts) {
            let labels = catalog::CACHE_DISCARDS.labels([Cow::Borrowed(*reason)]);
            family.get_or_create(&labels).inc_by(count);
        }
        catalog::CACHE_DISCARDS.register(registry, family);
    }
}

fn single(registry: &mut Registry, spec: &MetricSpec, value: f64) {
    spec.register(registry, ConstGauge::new(value));
}

fn labelled<const N: usize>(
    registry: &mut Registry,
    spec: &MetricSpec,
    series: impl IntoIterator<Item = ([Cow<'static, str>; N], f64)>,
) {
    let family = GaugeOf::<N>::default();
    for (values, value) in series {
        family.get_or_create(&spec.labels(values)).set(value);
    }
    spec.register(registry, family);
}

fn owned(name: &str) -> Cow<'static, str> {
    Cow::Owned(name.to_owned())
}

/// Counts are far below 2^53, where the exposition format's numbers stop to be exact.
#[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}
