//! What the configuration decides: users, teams, backends, databases. Built whole, and replaced whole by a reload; what goes
//! on living across it (pools, quotas, counters) is taken over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::TcpKeepalive;

use super::endpoints::{Endpoint, EndpointSettings, Endpoints, Probe};
use super::listen_tls::server_config;
use crate::auth::{Credential, CredentialForm};
use crate::backend::catalog::{
    CatalogAddress, CatalogError, CatalogSettings, CatalogSource, CatalogWatch, WatchSettings,
};
use crate::backend::{Connector, Route, ServerKey, Servers, client_config};
use crate::cache::{CacheLimits, Tags};
use crate::config::{self, Address, BackendKind, Config, Password, ReadAfterWrite, TlsMode};
use crate::pool::{Limits, Pool};
use crate::quota::{Quota, QuotaLimits};
use crate::telemetry::{BackendMetrics, Metrics, TeamMetrics};
use crate::types::{BackendName, DatabaseName, Secret, TeamName, UserName};

/// How long one query for the catalog may take.
const CATALOG_QUERY: Duration = Duration::from_secs(30);

/// Why the gateway cannot be set up as configured.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// TLS towards clients.
    #[error("listen.tls: certificate and key cannot be used: {0}")]
    ListenTls(rustls::Error),
    /// TLS towards a backend.
    #[error("backend \"{backend}\": TLS cannot be set up: {source}")]
    Tls {
        /// The backend.
        backend: BackendName,
        /// Why.
        source: rustls::Error,
    },
    /// The control plane of a backend.
    #[error("backend \"{backend}\": {source}")]
    Catalog {
        /// The backend.
        backend: BackendName,
        /// Why.
        source: CatalogError,
    },
}

/// One database of a backend.
pub struct Database {
    /// Its name.
    pub name: DatabaseName,
    /// What tells its relations from those of other databases.
    pub scope: u32,
    /// Its definitions.
    pub watch: CatalogWatch,
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
}

impl Backend {
    /// How long a request may wait for a connection.
    pub fn checkout_timeout(&self) -> Duration {
        Duration::from_millis(self.checkout_timeout_ms.load(Ordering::Relaxed))
    }

    /// How long a cancel request may take.
    pub fn cancel_timeout(&self) -> Duration {
        Duration::from_millis(self.cancel_timeout_ms.load(Ordering::Relaxed))
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

    pub(super) fn sweep(&self, now: Instant) {
        self.pools().for_each(|pool| pool.sweep(now));
    }

    pub(super) fn set_timeouts(&self, config: &config::Backend) {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.checkout_timeout_ms
            .store(ms(config.checkout_timeout), Ordering::Relaxed);
        self.cancel_timeout_ms
            .store(ms(config.cancel_timeout), Ordering::Relaxed);
    }
}

/// A team.
pub struct Team {
    /// Its name.
    pub name: TeamName,
    /// The backend its queries go to.
    pub backend: Arc<Backend>,
    /// Whom they log in as there.
    pub login: Arc<str>,
    /// What it may use.
    pub quota: Arc<Quota>,
    /// Its counters.
    pub metrics: Arc<TeamMetrics>,
}

/// A user of the configuration.
pub struct Member {
    /// How to check its password.
    pub credential: Credential,
    /// Its team.
    pub team: Option<TeamName>,
    /// Whether it may use the console.
    pub admin: bool,
}

/// What the configuration decides.
pub struct Realm {
    /// The configuration.
    pub config: Config,
    /// Backends by name.
    pub backends: BTreeMap<BackendName, Arc<Backend>>,
    /// Databases by backend and name.
    pub databases: BTreeMap<(BackendName, DatabaseName), Arc<Database>>,
    /// Teams by name.
    pub teams: BTreeMap<TeamName, Arc<Team>>,
    /// Users by name.
    pub users: BTreeMap<UserName, Member>,
    /// TLS for clients, unless there is none.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Realm {
    /// The user's credential, or one that no password fits, asked for as that of a user who might exist.
    pub fn credential(&self, user: &str) -> Credential {
        if let Some(member) = self.users.get(user) {
            return member.credential.clone();
        }
        let forms: Vec<CredentialForm> = self
            .users
            .values()
            .map(|member| member.credential.form())
            .collect();
        let pick = user.bytes().fold(0_usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(usize::from(byte))
        });
        let form = forms
            .get(pick % forms.len().max(1))
            .copied()
            .unwrap_or(CredentialForm::Scram);
        Credential::mock(user, form)
    }
}

pub(super) fn build(
    config: Config,
    old: Option<&Realm>,
    tags: &Arc<Tags>,
    metrics: &Metrics,
    servers: &Arc<Servers>,
) -> Result<Realm, GatewayError> {
    let mut backends = BTreeMap::new();
    let mut databases = BTreeMap::new();
    let mut shared: BTreeMap<(String, DatabaseName), Arc<Database>> = BTreeMap::new();
    for (name, settings) in &config.backends {
        let known = old.and_then(|old| old.backends.get(name)).map(Arc::clone);
        let backend = match known {
            Some(backend) => backend,
            None => Arc::new(new_backend(name, settings, &config, metrics, servers, tags)?),
        };
        for database in &settings.databases {
            let key = (name.clone(), database.clone());
            let known = old.and_then(|old| old.databases.get(&key)).map(Arc::clone);
            // one server's database has one catalog, however many backends lead to it: a change of definitions that came
            // by one of them is a change for all
            let place = (settings.address.to_string(), database.clone());
            let database = match known.or_else(|| shared.get(&place).map(Arc::clone)) {
                Some(database) => database,
                None => Arc::new(new_database(name, database, settings, tags)?),
            };
            shared.insert(place, Arc::clone(&database));
            databases.insert(key, database);
        }
        backends.insert(name.clone(), backend);
    }
    let now = Instant::now();
    let mut teams = BTreeMap::new();
    for (name, settings) in &config.teams {
        let Some(backend) = backends.get(&settings.backend) else {
            continue;
        };
        let known = old.and_then(|old| old.teams.get(name));
        let team = Team {
            name: name.clone(),
            backend: Arc::clone(backend),
            login: settings.login.user.as_str().into(),
            quota: known.map_or_else(
                || Arc::new(Quota::new(name.clone(), quota_limits(&settings.quota), now)),
                |team| Arc::clone(&team.quota),
            ),
            metrics: known.map_or_else(|| Arc::new(metrics.team(name)), |team| Arc::clone(&team.metrics)),
        };
        teams.insert(name.clone(), Arc::new(team));
    }
    let users = config
        .users
        .iter()
        .map(|(name, user)| {
            let credential = match &user.password {
                Password::Scram {
                    iterations,
                    salt,
                    stored_key,
                    server_key,
                } => Credential::scram(*iterations, salt.clone(), stored_key, server_key),
                Password::Md5(hash) => Credential::md5(hash.clone()),
                Password::Plain(password) => Credential::plain(name.as_str(), password.clone()),
            };
            (
                name.clone(),
                Member {
                    credential,
                    team: user.team.clone(),
                    admin: user.admin,
                },
            )
        })
        .collect();
    let tls = config
        .listen
        .tls
        .as_ref()
        .map(|tls| server_config(tls.certificate.text.expose(), tls.key.text.expose()))
        .transpose()
        .map_err(GatewayError::ListenTls)?;
    Ok(Realm {
        config,
        backends,
        databases,
        teams,
        users,
        tls,
    })
}

fn new_backend(
    name: &BackendName,
    settings: &config::Backend,
    config: &Config,
    metrics: &Metrics,
    servers: &Arc<Servers>,
    tags: &Arc<Tags>,
) -> Result<Backend, GatewayError> {
    let stale = Arc::clone(tags);
    let route = Route {
        address: settings.address.clone(),
        fallbacks: settings.fallbacks.clone(),
        tls: tls(name, settings)?,
        keepalive: keepalive(&settings.tcp_keepalive),
        connect_timeout: settings.connect_timeout,
        passwords: passwords(config, name),
    };
    let connect = |route: &Route| {
        let connector = Connector::new(route.clone(), Arc::clone(servers));
        Pool::new(connector, pool_limits(settings))
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
        .map(|route| Endpoint::new(route.address.clone(), connect(route)));
    let watched = !settings.readers.is_empty() || !settings.fallbacks.is_empty();
    let probes = std::iter::once(&route)
        .chain(&routes)
        .filter_map(|route| probe(name, settings, route))
        .filter(|_| watched);
    let backend = Backend {
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
            readers.collect(),
            probes.collect(),
            move || stale.invalidate_all(),
        ),
        pool,
        read_after_write: settings.read_after_write,
        metrics: metrics.backend(name),
        checkout_timeout_ms: AtomicU64::new(0),
        cancel_timeout_ms: AtomicU64::new(0),
    };
    backend.set_timeouts(settings);
    Ok(backend)
}

/// What asks the server at the end of `route` how it does; it logs in as the gateway itself, and is no connection of a
/// pool.
fn probe(name: &BackendName, settings: &config::Backend, route: &Route) -> Option<Probe> {
    let user: Arc<str> = settings.control.user.as_str().into();
    let password = settings.control.password.clone();
    let route = Route {
        passwords: password
            .map(|password| (Arc::clone(&user), password))
            .into_iter()
            .collect(),
        ..route.clone()
    };
    let key = ServerKey {
        backend: name.clone(),
        database: settings.databases.first()?.clone(),
        user,
    };
    Some(Probe::new(Connector::new(route, Arc::default()), key))
}

fn new_database(
    backend: &BackendName,
    name: &DatabaseName,
    settings: &config::Backend,
    tags: &Arc<Tags>,
) -> Result<Database, GatewayError> {
    let addresses = std::iter::once(&settings.address)
        .chain(&settings.fallbacks)
        .map(|address| match address {
            Address::Tcp { host, port } => CatalogAddress::Tcp {
                host: host.clone(),
                port: *port,
            },
            Address::Unix { directory, port } => CatalogAddress::Unix {
                directory: directory.clone(),
                port: *port,
            },
        })
        .collect();
    let catalog = CatalogSettings {
        addresses,
        database: name.clone(),
        user: settings.control.user.clone(),
        password: settings.control.password.clone(),
        connect_timeout: settings.connect_timeout,
        query_timeout: CATALOG_QUERY,
    };
    let source = match tls(backend, settings)? {
        None => CatalogSource::new(&catalog),
        Some(tls) => {
            let tls = tokio_postgres_rustls::MakeRustlsConnect::new((*tls).clone());
            CatalogSource::with_tls(&catalog, tls)
        }
    };
    let source = source.map_err(|source| GatewayError::Catalog {
        backend: backend.clone(),
        source,
    })?;
    let watch = WatchSettings {
        interval: settings.catalog_refresh,
        ..WatchSettings::default()
    };
    let stale = Arc::clone(tags);
    Ok(Database {
        name: name.clone(),
        // by address, so that two backends that are one server know of each other's writes
        scope: tags.scope(&BackendName::new(settings.address.to_string()), name),
        watch: CatalogWatch::spawn(source, watch, move || stale.invalidate_all()),
    })
}

fn tls(
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

/// Probes as the socket takes them; none where they are off.
pub fn keepalive(settings: &config::TcpKeepalive) -> Option<TcpKeepalive> {
    (!settings.idle.is_zero()).then(|| {
        TcpKeepalive::new()
            .with_time(settings.idle)
            .with_interval(settings.interval)
            .with_retries(settings.probes)
    })
}

pub(super) fn passwords(config: &Config, backend: &BackendName) -> BTreeMap<Arc<str>, Secret<String>> {
    let teams = config.teams.values().filter(|team| team.backend == *backend);
    teams
        .filter_map(|team| Some((Arc::from(team.login.user.as_str()), team.login.password.clone()?)))
        .collect()
}

pub(super) fn pool_limits(settings: &config::Backend) -> Limits {
    Limits {
        max_connections: usize::try_from(settings.max_connections).unwrap_or(usize::MAX),
        idle_timeout: settings.idle_timeout,
        lifetime: settings.lifetime,
    }
}

pub(super) fn quota_limits(quota: &config::Quota) -> QuotaLimits {
    QuotaLimits {
        concurrent_queries: quota.concurrent_queries,
        queue_length: quota.queue_length,
        queue_wait: quota.queue_wait,
        queries_per_minute: quota.queries_per_minute,
        burst: quota.burst,
        query_time: quota.query_time,
    }
}

pub(super) fn cache_limits(cache: &config::Cache) -> CacheLimits {
    CacheLimits {
        memory: cache.memory.0,
        max_entry: cache.max_entry.0,
        ttl: cache.ttl,
    }
}
