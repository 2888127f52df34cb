//! The gateway's state at one moment, gathered from those who know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{ServerActivity, ServerCard, ServerKey};
use crate::pipeline::{Activity, Backend, Gateway, Realm, SessionCard, TeamLogin};
use crate::telemetry::LiveState;
use crate::telemetry::live::{CacheState, ClientCounts, PoolState, TeamState};

/// The state of `gateway` at `now`, for a scrape.
pub fn live_state(gateway: &Gateway, now: Instant) -> LiveState {
    let realm = gateway.realm();
    let sessions = gateway.sessions.list();
    let servers = gateway.servers.list();
    let pinned = pinned(&sessions);
    LiveState {
        uptime: now.saturating_duration_since(gateway.started),
        clients: client_counts(&sessions),
        pools: realm
            .backends
            .values()
            .map(|backend| pool_state(backend, &servers, &pinned, now))
            .collect(),
        teams: realm
            .teams
            .values()
            .map(|team| {
                let quota = team.quota.snapshot(now);
                TeamState {
                    team: team.name.clone(),
                    running: quota.running.into(),
                    queued: quota.queued.into(),
                    oldest_wait: quota.oldest_wait,
                }
            })
            .collect(),
        cache: cache_state(gateway),
        // the threads belong to the frontend, which tells
        tasks: 0,
    }
}

/// Numbers of the sessions that keep their connections.
fn pinned(sessions: &[Arc<SessionCard>]) -> BTreeSet<u64> {
    sessions
        .iter()
        .filter(|session| session.pinned().is_some())
        .map(|session| session.id.0)
        .collect()
}

fn client_counts(sessions: &[Arc<SessionCard>]) -> ClientCounts {
    let mut counts = ClientCounts::default();
    for session in sessions {
        match session.activity() {
            Activity::Idle | Activity::IdleInTransaction => counts.idle += 1,
            Activity::Active => counts.active += 1,
            Activity::Waiting => counts.waiting += 1,
        }
    }
    counts
}

fn pool_state(
    backend: &Backend,
    servers: &[Arc<ServerCard>],
    pinned: &BTreeSet<u64>,
    now: Instant,
) -> PoolState {
    let censuses: Vec<_> = backend.pools().map(|pool| pool.census(now)).collect();
    let cards = || servers.iter().filter(|server| server.key.backend == backend.name);
    let connected = cards().count();
    let pinned = cards()
        .filter(|server| {
            server
                .activity()
                .1
                .is_some_and(|session| pinned.contains(&session))
        })
        .count();
    let sum = |count: fn(&crate::pool::KeyCensus) -> usize| -> usize {
        let keys = censuses.iter().flat_map(|census| &census.keys);
        keys.map(|(_, key)| count(key)).sum()
    };
    // a place is taken before its connection is there; the two are not counted in the same instant
    let open: usize = censuses.iter().map(|census| census.open).sum();
    let connecting = open.saturating_sub(connected);
    let leased = sum(|key| key.active)
        .saturating_sub(connecting)
        .saturating_sub(pinned);
    PoolState {
        backend: backend.name.clone(),
        connecting: count(connecting),
        idle: count(sum(|key| key.idle)),
        leased: count(leased),
        pinned: count(pinned),
        max: count(censuses.iter().map(|census| census.max_connections).sum()),
        waiting: count(sum(|key| key.waiting)),
        circuit_open: backend.pool.circuit().is_open(),
    }
}

fn cache_state(gateway: &Gateway) -> CacheState {
    let stats = gateway.cache.stats();
    CacheState {
        entries: stats.entries,
        bytes: stats.bytes,
        memory: stats.memory,
        filling_bytes: stats.filling_bytes,
        flights: stats.flights,
        in_doubt: count(gateway.tags.in_doubt()),
        stale: stats.stale,
        expired: stats.expired,
        overtaken: stats.overtaken,
        too_big: stats.too_big,
        abandoned: stats.abandoned,
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// One pool as PgBouncer counts it: connections to one database of one backend with one login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolRow {
    /// Clients that wait for nothing of the gateway's.
    pub(super) clients_active: usize,
    /// Clients whose request waits.
    pub(super) clients_waiting: usize,
    /// Connections in use.
    pub(super) servers_active: usize,
    /// Connections that nobody uses.
    pub(super) servers_idle: usize,
    /// Connections being made.
    pub(super) servers_login: usize,
    /// How long the first request has waited for a connection.
    pub(super) longest_wait: Duration,
    /// Teams that use it.
    pub(super) teams: Vec<String>,
    /// Whether the backend is paused.
    pub(super) paused: bool,
    /// Whether requests are refused because the backend does not answer.
    pub(super) circuit_open: bool,
}

/// Every pool: those the configuration asks for, and those that are left of one before it.
pub(super) fn pool_rows(gateway: &Gateway, now: Instant) -> BTreeMap<(String, String, String), PoolRow> {
    let realm = gateway.realm();
    let mut rows: BTreeMap<(String, String, String), PoolRow> = BTreeMap::new();
    for team in realm.teams.values() {
        let databases = realm
            .databases
            .keys()
            .filter(|(backend, _)| *backend == team.backend.name);
        for (backend, database) in databases {
            // of a team whose users log in as they are, the pools are those in use
            if let TeamLogin::Role(role) = &team.login {
                let key = (backend.to_string(), database.to_string(), role.to_string());
                rows.entry(key).or_default().teams.push(team.name.to_string());
            }
        }
    }
    for backend in realm.backends.values() {
        for (key, census) in backend.pools().flat_map(|pool| pool.census(now).keys) {
            let row = rows.entry(pool_key(&key)).or_default();
            row.servers_login += census.active + census.idle;
            row.servers_idle += census.idle;
            row.longest_wait = row.longest_wait.max(census.longest_wait);
        }
    }
    for server in gateway.servers.list() {
        let row = rows.entry(pool_key(&server.key)).or_default();
        row.servers_login = row.servers_login.saturating_sub(1);
        if server.activity().0 == ServerActivity::Active {
            row.servers_active += 1;
        }
    }
    for session in gateway.sessions.list() {
        let Some(key) = session_key(&session, &realm) else {
            continue;
        };
        let row = rows.entry(key).or_default();
        match session.activity() {
            Activity::Waiting => row.clients_waiting += 1,
            Activity::Idle | Activity::Active | Activity::IdleInTransaction => row.clients_active += 1,
        }
    }
    for ((backend, ..), row) in &mut rows {
        let Some(backend) = realm.backends.get(backend.as_str()) else {
            continue;
        };
        row.paused = backend.paused();
        row.circuit_open = backend.pool.circuit().is_open();
    }
    rows
}

fn pool_key(key: &ServerKey) -> (String, String, String) {
    (
        key.backend.to_string(),
        key.database.to_string(),
        key.user.to_string(),
    )
}

/// The pool that a session takes its connections from; none for a session of the console.
fn session_key(session: &SessionCard, realm: &Realm) -> Option<(String, String, String)> {
    let team = realm.teams.get(session.login.team.as_ref()?)?;
    Some((
        team.backend.name.to_string(),
        session.login.database.to_string(),
        team.login.role(session.login.user.as_str()).to_string(),
    ))
}
