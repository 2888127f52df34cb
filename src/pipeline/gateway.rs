//! What all sessions share: who may log in, the backends with their pools and catalogs, quotas, cache.
//!
//! The part that the configuration decides is a [`Realm`], replaced as a whole by a reload; what goes on living across
//! it (pools, quotas, counters) is taken over.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::auth::{Credential, CredentialForm};
use crate::backend::catalog::{
    CatalogAddress, CatalogError, CatalogSettings, CatalogSource, CatalogWatch, WatchSettings,
};
use crate::backend::{Connector, Route, ServerKey, Servers, client_config};
use crate::cache::{CacheLimits, ResultCache, Tags, WriteGuard};
use crate::config::{
    self, Address, BackendKind, CacheWhat, Config, Mistake, Password, RealEnvironment, TlsMode,
};
use crate::policy::{Cacheability, Catalog, Invalidation, cacheability, invalidation};
use crate::pool::{Limits, Pool};
use crate::quota::{Quota, QuotaLimits};
use crate::sql::{Analyzer, Fingerprint, Statement};
use crate::telemetry::event::{ConfigRejected, ConfigReloaded};
use crate::telemetry::log::LogControl;
use crate::telemetry::{BackendMetrics, Metrics, TeamMetrics};
use crate::types::{BackendName, ByteSize, DatabaseName, Secret, TeamName, UserName};

use super::listen_tls::server_config;
use super::sessions::Sessions;

/// Memory for what is known of statements.
const ANALYZER_MEMORY: ByteSize = ByteSize(64 << 20);

/// Verdicts remembered at most.
const MAX_VERDICTS: usize = 16_384;

/// Greetings remembered at most.
const MAX_GREETINGS: usize = 1_024;

/// How long the outcome of a write stays in doubt whose backend connection was lost: a server notices within this time
/// that its client is gone, or has committed.
const DOUBT: Duration = Duration::from_mins(1);

/// Doubts held at most; beyond that the oldest ends early, after everything was made stale once more.
const MAX_DOUBTS: usize = 1_024;

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

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration did not come from a file.
    #[error("the configuration did not come from a file")]
    NoFile,
    /// The file cannot be read.
    #[error("could not read {path}: {source}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has mistakes.
    #[error("{path} has mistakes: {first}", path = .path.display(), first = .mistakes.first().map_or_else(String::new, ToString::to_string))]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// All of them.
        mistakes: Vec<Mistake>,
    },
    /// It cannot be set up.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
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
    /// Its connections.
    pub pool: Pool<Connector>,
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

    fn set_timeouts(&self, config: &config::Backend) {
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

/// What is decided of a statement as long as definitions and search path stay.
#[derive(Debug)]
pub struct Verdicts {
    /// Whether its answer may be kept.
    pub cacheability: Cacheability,
    /// What it makes stale.
    pub invalidation: Invalidation,
}

#[derive(PartialEq, Eq, Hash)]
struct VerdictKey {
    fingerprint: Fingerprint,
    scope: u32,
    generation: u64,
    what: CacheWhat,
    search_path: Arc<[Arc<str>]>,
}

/// What a backend told at login, for sessions with the same login and settings.
#[derive(Debug)]
pub struct Greeting {
    /// ParameterStatus by name.
    pub parameters: BTreeMap<String, String>,
    /// The login's own search path.
    pub search_path: Arc<str>,
}

/// Greetings by login and settings.
type Greetings = HashMap<(ServerKey, Vec<u8>), Arc<Greeting>>;

/// What all sessions share.
pub struct Gateway {
    realm: ArcSwap<Realm>,
    /// What is known of statements.
    pub analyzer: Analyzer,
    /// Answers.
    pub cache: ResultCache,
    /// Versions of relations.
    pub tags: Arc<Tags>,
    /// Sessions.
    pub sessions: Sessions,
    /// Backend connections.
    pub servers: Arc<Servers>,
    /// Counters.
    pub metrics: Metrics,
    /// When it started.
    pub started: Instant,
    config_path: Option<PathBuf>,
    log: Option<LogControl>,
    verdicts: RwLock<HashMap<VerdictKey, Arc<Verdicts>>>,
    greetings: Mutex<Greetings>,
    doubts: Mutex<VecDeque<(Instant, WriteGuard)>>,
}

impl Gateway {
    /// Sets everything up as `config` says, which came from the file `config_path`; a reload also sets `log`'s level. Catalogs are followed on the current tokio runtime; nothing is connected yet.
    ///
    /// # Errors
    ///
    /// What the configuration asks for cannot be set up.
    pub fn new(
        config: Config,
        config_path: Option<PathBuf>,
        log: Option<LogControl>,
    ) -> Result<Self, GatewayError> {
        let cache = ResultCache::new(cache_limits(&config.cache));
        let tags = Arc::new(Tags::default());
        let metrics = Metrics::new();
        let servers = Arc::new(Servers::default());
        let realm = build(config, None, &tags, &metrics, &servers)?;
        Ok(Self {
            realm: ArcSwap::from_pointee(realm),
            analyzer: Analyzer::new(ANALYZER_MEMORY),
            cache,
            tags,
            sessions: Sessions::default(),
            servers,
            metrics,
            started: Instant::now(),
            config_path,
            log,
            verdicts: RwLock::default(),
            greetings: Mutex::default(),
            doubts: Mutex::default(),
        })
    }

    /// Reads the configuration's file again and applies it; tells what has changed, setting by setting.
    ///
    /// # Errors
    ///
    /// The file cannot be read or has mistakes, or what it asks for cannot be set up; nothing has changed then.
    pub fn reload(&self) -> Result<Vec<String>, ReloadError> {
        let outcome = self.read_and_apply();
        match &outcome {
            Ok(changes) => ConfigReloaded { changes }.emit(&self.metrics),
            Err(error) => ConfigRejected { error }.emit(&self.metrics),
        }
        outcome
    }

    fn read_and_apply(&self) -> Result<Vec<String>, ReloadError> {
        let path = self.config_path.as_ref().ok_or(ReloadError::NoFile)?;
        let text = std::fs::read_to_string(path).map_err(|source| ReloadError::Unreadable {
            path: path.clone(),
            source,
        })?;
        let config = config::parse(&text, &RealEnvironment::of_file(path)).map_err(|mistakes| {
            ReloadError::Mistakes {
                path: path.clone(),
                mistakes,
            }
        })?;
        let changes = self.realm.load().config.diff(&config);
        self.apply(config)?;
        Ok(changes)
    }

    /// Takes another configuration: all of it, or none where it cannot be set up.
    ///
    /// # Errors
    ///
    /// What it asks for cannot be set up; nothing has changed then.
    pub fn apply(&self, config: Config) -> Result<(), GatewayError> {
        let old = self.realm.load_full();
        let limits = cache_limits(&config.cache);
        let realm = build(config, Some(&old), &self.tags, &self.metrics, &self.servers)?;
        for (name, config) in &realm.config.backends {
            if let Some(backend) = realm.backends.get(name) {
                backend.pool.set_limits(pool_limits(config));
                backend.set_timeouts(config);
                let route = backend.pool.connector().route();
                backend.pool.connector().set_route(Route {
                    connect_timeout: config.connect_timeout,
                    passwords: passwords(&realm.config, name),
                    ..(*route).clone()
                });
            }
        }
        let now = Instant::now();
        for (name, team) in &realm.config.teams {
            if let Some(known) = realm.teams.get(name) {
                known.quota.reconfigure(quota_limits(&team.quota), now);
            }
        }
        if let Some(log) = &self.log {
            // the level is one of a list, which the filter always takes
            drop(log.set_filter(realm.config.log.level.as_str()));
        }
        if limits != self.cache.limits() {
            self.cache.reconfigure(limits);
        }
        self.realm.store(Arc::new(realm));
        self.forget_greetings();
        Ok(())
    }

    /// What the configuration decides, now.
    pub fn realm(&self) -> Arc<Realm> {
        self.realm.load_full()
    }

    /// What is decided of `statement`, remembered by its shape.
    pub fn verdicts(
        &self,
        statement: &Statement,
        database: &Database,
        catalog: &Catalog,
        search_path: &Arc<[Arc<str>]>,
    ) -> Arc<Verdicts> {
        let what = self.realm.load().config.cache.what;
        let key = VerdictKey {
            fingerprint: statement.fingerprint,
            scope: database.scope,
            generation: catalog.generation,
            what,
            search_path: Arc::clone(search_path),
        };
        if let Some(known) = self
            .verdicts
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Arc::clone(known);
        }
        let verdicts = Arc::new(Verdicts {
            cacheability: cacheability(statement, catalog, search_path, what),
            invalidation: invalidation(statement, Some(catalog), search_path),
        });
        let mut known = self.verdicts.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_VERDICTS {
            known.clear();
        }
        known.insert(key, Arc::clone(&verdicts));
        verdicts
    }

    /// What a backend told sessions with this login and these settings.
    pub fn greeting(&self, key: &ServerKey, settings: &[u8]) -> Option<Arc<Greeting>> {
        let greetings = self.greetings.lock().unwrap_or_else(PoisonError::into_inner);
        greetings.get(&(key.clone(), settings.to_vec())).cloned()
    }

    /// Remembers it.
    pub fn note_greeting(&self, key: &ServerKey, settings: Vec<u8>, greeting: Arc<Greeting>) {
        let mut greetings = self.greetings.lock().unwrap_or_else(PoisonError::into_inner);
        if greetings.len() >= MAX_GREETINGS {
            greetings.clear();
        }
        greetings.insert((key.clone(), settings), greeting);
    }

    /// Asks the backends anew: what sessions begin with may have changed.
    pub fn forget_greetings(&self) {
        self.greetings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Keeps a write in doubt whose outcome nobody can tell.
    pub fn doubt(&self, guard: WriteGuard, now: Instant) {
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        if doubts.len() >= MAX_DOUBTS {
            self.tags.invalidate_all();
            doubts.pop_front();
        }
        doubts.push_back((now, guard));
    }

    /// What has to be done now and then: a few times a second.
    pub fn housekeep(&self, now: Instant) {
        self.sessions.sweep(now, Duration::from_secs(10));
        {
            let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
            while doubts
                .pop_front_if(|(since, _)| now.saturating_duration_since(*since) >= DOUBT)
                .is_some()
            {}
        }
        for backend in self.realm.load().backends.values() {
            backend.pool.sweep(now);
        }
    }
}

fn build(
    config: Config,
    old: Option<&Realm>,
    tags: &Arc<Tags>,
    metrics: &Metrics,
    servers: &Arc<Servers>,
) -> Result<Realm, GatewayError> {
    let mut backends = BTreeMap::new();
    let mut databases = BTreeMap::new();
    for (name, settings) in &config.backends {
        let known = old.and_then(|old| old.backends.get(name)).map(Arc::clone);
        let backend = match known {
            Some(backend) => backend,
            None => Arc::new(new_backend(name, settings, &config, metrics, servers)?),
        };
        for database in &settings.databases {
            let key = (name.clone(), database.clone());
            let known = old.and_then(|old| old.databases.get(&key)).map(Arc::clone);
            let database = match known {
                Some(database) => database,
                None => Arc::new(new_database(name, database, settings, tags)?),
            };
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
) -> Result<Backend, GatewayError> {
    let route = Route {
        address: settings.address.clone(),
        tls: tls(name, settings)?,
        connect_timeout: settings.connect_timeout,
        passwords: passwords(config, name),
    };
    let backend = Backend {
        name: name.clone(),
        kind: settings.kind,
        pool: Pool::new(Connector::new(route, Arc::clone(servers)), pool_limits(settings)),
        metrics: metrics.backend(name),
        checkout_timeout_ms: AtomicU64::new(0),
        cancel_timeout_ms: AtomicU64::new(0),
    };
    backend.set_timeouts(settings);
    Ok(backend)
}

fn new_database(
    backend: &BackendName,
    name: &DatabaseName,
    settings: &config::Backend,
    tags: &Arc<Tags>,
) -> Result<Database, GatewayError> {
    let address = match &settings.address {
        Address::Tcp { host, port } => CatalogAddress::Tcp {
            host: host.clone(),
            port: *port,
        },
        Address::Unix { directory, port } => CatalogAddress::Unix {
            directory: directory.clone(),
            port: *port,
        },
    };
    let catalog = CatalogSettings {
        address,
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

fn passwords(config: &Config, backend: &BackendName) -> BTreeMap<Arc<str>, Secret<String>> {
    let teams = config.teams.values().filter(|team| team.backend == *backend);
    teams
        .filter_map(|team| Some((Arc::from(team.login.user.as_str()), team.login.password.clone()?)))
        .collect()
}

fn pool_limits(settings: &config::Backend) -> Limits {
    Limits {
        max_connections: usize::try_from(settings.max_connections).unwrap_or(usize::MAX),
        idle_timeout: settings.idle_timeout,
        lifetime: settings.lifetime,
    }
}

fn quota_limits(quota: &config::Quota) -> QuotaLimits {
    QuotaLimits {
        concurrent_queries: quota.concurrent_queries,
        queue_length: quota.queue_length,
        queue_wait: quota.queue_wait,
        queries_per_minute: quota.queries_per_minute,
        burst: quota.burst,
        query_time: quota.query_time,
    }
}

fn cache_limits(cache: &config::Cache) -> CacheLimits {
    CacheLimits {
        memory: cache.memory.0,
        max_entry: cache.max_entry.0,
        ttl: cache.ttl,
    }
}
