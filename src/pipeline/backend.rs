//! One backend: its servers, the pools of connections to them, and what a reload changes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::TcpKeepalive;

use super::endpoints::{Endpoint, EndpointSettings, Endpoints, Probe};
use super::no_connection::NoConnection;
use super::realm::GatewayError;
use super::secrets::secrets;
use crate::auth::BackendSecret;
use crate::backend::catalog::CatalogPassword;
use crate::backend::{
    BackendError, Connector, Learnt, Route, SecretSource, Secrets, ServerKey, Servers, TcpOptions,
    client_config,
};
use crate::cache::Tags;
use crate::config::{self, BackendKind, Config, ReadAfterWrite, TlsMode};
use crate::pool::{Ceiling, CheckoutError, Circuit, Limits, Opening, Pool, Retry};
use crate::telemetry::event::{BackendConnected, BackendUnreachable, CircuitClosed, CircuitOpened};
use crate::telemetry::{BackendMetrics, Metrics};
use crate::types::{BackendName, TeamName};

/// What all backends share.
pub(super) struct Common<'a> {
    /// Versions of relations.
    pub(super) tags: &'a Arc<Tags>,
    /// Counters.
    pub(super) metrics: &'a Metrics,
    /// Where connections are listed.
    pub(super) servers: &'a Arc<Servers>,
    /// The limit over all connections.
    pub(super) ceiling: &'a Arc<Ceiling>,
}

/// A backend.
pub struct Backend {
    /// Its name.
    pub name: BackendName,
    /// What it is.
    pub kind: BackendKind,
    /// Its connections to the primary.
    pub pool: Pool<Connector>,
    /// Its servers, the readers among them.
    pub endpoints: Endpoints,
    /// Where a session reads that has written.
    pub read_after_write: ReadAfterWrite,
    /// Its counters.
    pub metrics: BackendMetrics,
    checkout_timeout_ms: AtomicU64,
    cancel_timeout_ms: AtomicU64,
    max_prepared_statements: AtomicUsize,
}

impl Backend {
    /// As `settings` say, the backend's part of `config`; nothing is connected yet. `control` gives the password of the
    /// gateway's own questions, where servers are to be asked how they do.
    pub(super) fn new(
        name: &BackendName,
        settings: &config::Backend,
        config: &Config,
        common: &Common<'_>,
        learnt: &Arc<Learnt>,
        control: &mut dyn FnMut() -> Option<CatalogPassword>,
    ) -> Result<Self, GatewayError> {
        let route = Route {
            address: settings.address.clone(),
            fallbacks: settings.fallbacks.clone(),
            tls: tls(name, settings)?,
            tcp: tcp_options(&settings.tcp_keepalive, settings.tcp_user_timeout),
            connect_timeout: settings.connect_timeout,
            secrets: secrets(config, name, &Secrets::default(), learnt),
        };
        let connect = |route: &Route| {
            Pool::under(
                Arc::clone(common.ceiling),
                Connector::new(route.clone(), Arc::clone(common.servers)),
                pool_limits(config, name, settings),
            )
        };
        let pool = connect(&route);
        let routes: Vec<Route> = settings
            .readers
            .iter()
            .map(|address| Route {
                address: address.clone(),
                fallbacks: Vec::new(),
                ..route.clone()
            })
            .collect();
        let readers = routes
            .iter()
            .map(|route| Endpoint::new(route.address.clone(), connect(route)))
            .collect();
        let probes = if settings.readers.is_empty() && settings.fallbacks.is_empty() {
            Vec::new()
        } else {
            let control = control();
            std::iter::once(&route)
                .chain(&routes)
                .filter_map(|route| probe(name, settings, route, control.clone()))
                .collect()
        };
        let stale = Arc::clone(common.tags);
        let backend = Self {
            name: name.clone(),
            kind: settings.kind,
            endpoints: Endpoints::new(
                name.clone(),
                EndpointSettings {
                    kind: settings.kind,
                    interval: settings.health_interval,
                    patience: settings.connect_timeout,
                    max_lag: settings.reader_max_lag,
                },
                pool.clone(),
                readers,
                probes,
                move || stale.invalidate_all(),
            ),
            pool,
            read_after_write: settings.read_after_write,
            metrics: common.metrics.backend(name),
            checkout_timeout_ms: AtomicU64::new(0),
            cancel_timeout_ms: AtomicU64::new(0),
            max_prepared_statements: AtomicUsize::new(0),
        };
        backend.set_limits(settings);
        Ok(backend)
    }

    /// How long a request may wait for a connection.
    pub fn checkout_timeout(&self) -> Duration {
        Duration::from_millis(self.checkout_timeout_ms.load(Ordering::Relaxed))
    }

    /// Tells that a request got no connection, where it is news, and in which words its client hears of it.
    pub fn no_connection(&self, error: CheckoutError<BackendError>) -> NoConnection {
        let error = self.no_connection_of_its_own(error);
        if let Some(error) = error.attempt() {
            BackendUnreachable { error }.emit(&self.metrics);
        }
        error
    }

    /// The same for a user who logs in there as itself: that the backend refuses it is no news of the backend.
    pub fn no_connection_of_its_own(&self, error: CheckoutError<BackendError>) -> NoConnection {
        NoConnection::new(self.name.clone(), error)
    }

    /// Every pool: that of the primary, and the readers'.
    pub fn pools(&self) -> impl Iterator<Item = &Pool<Connector>> {
        let readers = self.endpoints.readers().iter().map(|reader| &reader.pool);
        std::iter::once(&self.pool).chain(readers)
    }

    /// Lends no connections until [`Self::resume`].
    pub fn pause(&self) {
        self.pools().for_each(Pool::pause);
    }

    /// Lends connections again.
    pub fn resume(&self) {
        self.pools().for_each(Pool::resume);
    }

    /// Whether no connections are lent.
    pub fn paused(&self) -> bool {
        self.pool.paused()
    }

    /// Closes every connection that nobody uses, and the others when they come back.
    pub fn reconnect(&self) {
        self.pools().for_each(Pool::reconnect);
    }

    /// Connections that sessions have.
    pub fn in_use(&self, now: Instant) -> usize {
        let used = |pool: &Pool<Connector>| -> usize {
            pool.census(now).keys.iter().map(|(_, key)| key.active).sum()
        };
        self.pools().map(used).sum()
    }

    /// Closes what is idle for too long, opens what is to be ready, finds out whether a dead backend is back. To be
    /// called several times a second.
    pub(super) fn look_after_connections(self: &Arc<Self>, now: Instant) {
        let swept = self.pool.sweep(now);
        if swept.opened > 0
            && let Circuit::Open { last, .. } = self.pool.circuit()
        {
            CircuitOpened { error: &*last }.emit(&self.metrics);
        }
        if swept.closed > 0 && !self.pool.circuit().is_open() {
            CircuitClosed.emit(&self.metrics);
        }
        self.open(swept.openings);
        for reader in self.endpoints.readers() {
            // its circuit is no news: whether it is there is told when it is asked how it does
            let openings = reader.pool.sweep(now).openings;
            if reader.is_up() {
                self.open(openings);
            }
        }
    }

    fn open(self: &Arc<Self>, openings: Vec<Opening<Connector>>) {
        for opening in openings {
            let backend = Arc::clone(self);
            tokio::spawn(async move {
                let began = Instant::now();
                match opening.run().await {
                    Ok(()) => BackendConnected {
                        duration: began.elapsed(),
                    }
                    .emit(&backend.metrics),
                    Err(error) => BackendUnreachable { error: &*error }.emit(&backend.metrics),
                }
            });
        }
    }

    /// How long a cancel request may take.
    pub fn cancel_timeout(&self) -> Duration {
        Duration::from_millis(self.cancel_timeout_ms.load(Ordering::Relaxed))
    }

    /// How many prepared statements one connection has at most.
    pub fn max_prepared_statements(&self) -> usize {
        self.max_prepared_statements.load(Ordering::Relaxed)
    }

    /// Takes what a reload may change: `settings`, the backend's part of `config`.
    pub(super) fn reconfigure(&self, config: &Config, settings: &config::Backend, learnt: &Arc<Learnt>) {
        self.set_limits(settings);
        // commands that run already go on, and each runs once for all servers
        let secrets = secrets(config, &self.name, &self.pool.connector().route().secrets, learnt);
        for pool in self.pools() {
            pool.set_limits(pool_limits(config, &self.name, settings));
            let route = pool.connector().route();
            pool.connector().set_route(Route {
                tcp: tcp_options(&settings.tcp_keepalive, settings.tcp_user_timeout),
                connect_timeout: settings.connect_timeout,
                secrets: secrets.clone(),
                ..(*route).clone()
            });
            pool.forgive();
        }
    }

    fn set_limits(&self, config: &config::Backend) {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.checkout_timeout_ms
            .store(ms(config.checkout_timeout), Ordering::Relaxed);
        self.cancel_timeout_ms
            .store(ms(config.cancel_timeout), Ordering::Relaxed);
        let statements = usize::try_from(config.max_prepared_statements).unwrap_or(usize::MAX);
        self.max_prepared_statements.store(statements, Ordering::Relaxed);
    }
}

/// What asks the server at the end of `route` how it does. It logs in as the gateway itself, with `password`, and is no
/// connection of a pool.
fn probe(
    name: &BackendName,
    settings: &config::Backend,
    route: &Route,
    password: Option<CatalogPassword>,
) -> Option<Probe> {
    let user: Arc<str> = settings.control.user.as_str().into();
    let source = password.map(|password| match password {
        CatalogPassword::Text(text) => SecretSource::Fixed(BackendSecret::Password(text)),
        CatalogPassword::Command(command) => SecretSource::Command(command),
    });
    let route = Route {
        secrets: Secrets {
            sources: source
                .map(|source| (Arc::clone(&user), source))
                .into_iter()
                .collect(),
            learnt: Arc::default(),
        },
        ..route.clone()
    };
    let key = ServerKey {
        backend: name.clone(),
        database: settings.databases.first()?.clone(),
        user,
        // counted in no pool, so for no team
        team: TeamName::new(""),
        pooling: config::Pooling::Transaction,
    };
    Some(Probe::new(Connector::new(route, Arc::default()), key))
}

/// TLS towards the backend, unless it is off.
pub(super) fn tls(
    name: &BackendName,
    settings: &config::Backend,
) -> Result<Option<Arc<rustls::ClientConfig>>, GatewayError> {
    let authorities = match settings.tls {
        TlsMode::Off => return Ok(None),
        TlsMode::Require => None,
        TlsMode::VerifyFull => Some(settings.ca.as_ref().map_or("", |ca| ca.text.expose().as_str())),
    };
    let config = client_config(authorities);
    config.map(Some).map_err(|source| GatewayError::Tls {
        backend: name.clone(),
        source,
    })
}

/// Both as the socket takes them; none where they are off.
pub fn tcp_options(keepalive: &config::TcpKeepalive, user_timeout: Duration) -> TcpOptions {
    let probes = || {
        TcpKeepalive::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.probes)
    };
    TcpOptions {
        keepalive: (!keepalive.idle.is_zero()).then(probes),
        user_timeout: (!user_timeout.is_zero()).then_some(user_timeout),
    }
}

fn pool_limits(config: &Config, name: &BackendName, settings: &config::Backend) -> Limits<TeamName> {
    let teams = config.teams.iter().filter(|(_, team)| team.backend == *name);
    Limits {
        max_connections: count(settings.max_connections),
        groups: teams
            .filter_map(|(name, team)| Some((name.clone(), count(team.max_connections?))))
            .collect(),
        min_connections: count(settings.min_connections),
        idle_timeout: settings.idle_timeout,
        lifetime: settings.lifetime,
        check_after_idle: settings.check_after_idle,
        retry: Retry {
            pause: settings.connect_retry,
            circuit_after: settings.circuit_breaker,
            key_pause: settings.login_retry,
        },
    }
}

/// A number of the configuration.
pub(super) fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
