//! What the configuration decides: users, teams, backends, databases. Built whole, and replaced whole by a reload; what goes
//! on living across it (pools, quotas, counters) is taken over.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::backend::{Backend, Common, count, tls};
use super::listen_tls::{ListenTls, server_config};
use super::secrets::{control_password, logs_in_as_itself};
use crate::auth::{Credential, CredentialForm, DigestKey};
use crate::backend::Learnt;
use crate::backend::catalog::{
    CatalogAddress, CatalogError, CatalogPassword, CatalogSettings, CatalogSource, CatalogWatch,
    WatchSettings,
};
use crate::cache::{CacheLimits, Tags};
use crate::config::{self, Address, BackendKind, Config, Password, Pooling};
use crate::policy::touches_session;
use crate::quota::{Quota, QuotaLimits};
use crate::sql::Statement;
use crate::telemetry::TeamMetrics;
use crate::types::{BackendName, DatabaseName, TeamName, UserName};

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
    /// What its server is.
    pub kind: BackendKind,
    /// Its definitions.
    pub watch: CatalogWatch,
    /// Some session may ask which number of a sequence was taken last.
    numbers_asked: AtomicBool,
    epoch: Arc<AtomicU64>,
}

impl Database {
    /// The state of the definitions that prepared statements were prepared by: another number after every change that
    /// the gateway hears of.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Notes that a session may ask which number of a sequence was taken last.
    pub(super) fn note_numbers_asked(&self) {
        if !self.numbers_asked() {
            self.numbers_asked.store(true, Ordering::Relaxed);
        }
    }

    /// Whether any session has asked so since the gateway began.
    pub(super) fn numbers_asked(&self) -> bool {
        self.numbers_asked.load(Ordering::Relaxed)
    }

    /// Whether `statement` may run code that does something to the server's session, by the newest definitions that tell. On
    /// Redshift, whose definitions cannot be read, only procedures could, and `CALL` is told by itself.
    pub(super) fn touches_session(&self, statement: &Statement) -> bool {
        let catalog = self.watch.of_code();
        (catalog.is_some() || self.kind == BackendKind::Postgres)
            && touches_session(statement, catalog.as_deref())
    }

    /// Whether what users' code does to the server's session will be known once definitions have been read.
    pub(super) fn awaits_code(&self) -> bool {
        self.kind == BackendKind::Postgres && !self.watch.knows_code()
    }

    /// Any definitions may have changed: as [`Self::plain_definitions_changed`], and what statements run is not known until
    /// they are read.
    pub(super) fn definitions_changed(&self) {
        self.watch.expect_code();
        self.plain_definitions_changed();
    }

    /// Definitions have changed, by a statement that went through the gateway and brought no code: they are read again, and
    /// statements are prepared again.
    pub(super) fn plain_definitions_changed(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.watch.refresh();
    }
}

/// Whom a team's users log in as at the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TeamLogin {
    /// All as one role.
    Role(Arc<str>),
    /// Each as itself.
    AsUser,
}

impl TeamLogin {
    /// The role of `user`.
    pub fn role(&self, user: &str) -> Arc<str> {
        match self {
            Self::Role(role) => Arc::clone(role),
            Self::AsUser => user.into(),
        }
    }
}

/// A team.
pub struct Team {
    /// Its name.
    pub name: TeamName,
    /// The backend its queries go to.
    pub backend: Arc<Backend>,
    /// Whom they log in as there.
    pub login: TeamLogin,
    /// How long its sessions keep a connection.
    pub pooling: Pooling,
    /// What it may use.
    pub quota: Arc<Quota>,
    /// After how long a query that waits is told so; zero never.
    pub queue_notice: Duration,
    /// Its counters.
    pub metrics: Arc<TeamMetrics>,
}

/// A user of the configuration.
pub struct Member {
    /// How to check its password, if it has one.
    pub credential: Option<Credential>,
    /// The common name of the certificate that it must show, if it must.
    pub certificate: Option<String>,
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
    /// What users' own logins showed, where their team logs in as they are.
    pub learnt: Arc<Learnt>,
    /// TLS for clients, unless there is none.
    pub tls: Option<Arc<ListenTls>>,
}

impl Realm {
    /// Whether `user` may log in from `address`; a user that does not exist may come from everywhere.
    pub fn allows(&self, user: &str, address: IpAddr) -> bool {
        let Some(user) = self.config.users.get(user) else {
            return true;
        };
        let team = user.team.as_ref().and_then(|team| self.config.teams.get(team));
        [user.allow.as_ref(), team.and_then(|team| team.allow.as_ref())]
            .into_iter()
            .flatten()
            .all(|networks| networks.contains(address))
    }

    /// The user's credential, or for one who has none a credential that no password fits, asked for as that of a user who
    /// might exist.
    pub fn credential(&self, user: &str) -> Credential {
        let member = self.users.get(user);
        if let Some(credential) = member.and_then(|member| member.credential.as_ref()) {
            return credential.clone();
        }
        let credentials = self
            .users
            .values()
            .filter_map(|member| member.credential.as_ref());
        let forms: Vec<CredentialForm> = credentials.map(Credential::form).collect();
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

pub(super) fn build(config: Config, old: Option<&Realm>, common: &Common<'_>) -> Result<Realm, GatewayError> {
    let learnt = old.map_or_else(Arc::default, |old| Arc::clone(&old.learnt));
    let mut backends = BTreeMap::new();
    let mut databases = BTreeMap::new();
    let mut shared: BTreeMap<(String, DatabaseName), Arc<Database>> = BTreeMap::new();
    for (name, settings) in &config.backends {
        let known = old.and_then(|old| old.backends.get(name)).map(Arc::clone);
        // one run of a command for all who ask questions of the gateway's own
        let mut known_control = None;
        let mut control = || {
            let known = known_control.get_or_insert_with(|| control_password(name, settings));
            known.clone()
        };
        let backend = match known {
            Some(backend) => backend,
            None => Arc::new(Backend::new(
                name,
                settings,
                &config,
                common,
                &learnt,
                &mut control,
            )?),
        };
        for database in &settings.databases {
            let key = (name.clone(), database.clone());
            let known = old.and_then(|old| old.databases.get(&key)).map(Arc::clone);
            // one server's database has one catalog, however many backends lead to it: a change of definitions that came
            // by one of them is a change for all
            let place = (settings.address.to_string(), database.clone());
            let database = if let Some(known) = known.or_else(|| shared.get(&place).map(Arc::clone)) {
                known
            } else {
                Arc::new(new_database(name, database, settings, control(), common.tags)?)
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
            login: match &settings.login.user {
                Some(role) if !settings.login.as_user => TeamLogin::Role(role.as_str().into()),
                Some(_) | None => TeamLogin::AsUser,
            },
            quota: known.map_or_else(
                || Arc::new(Quota::new(name.clone(), quota_limits(&settings.quota), now)),
                |team| Arc::clone(&team.quota),
            ),
            pooling: settings.pooling,
            queue_notice: settings.queue_notice,
            metrics: known.map_or_else(
                || Arc::new(common.metrics.team(name)),
                |team| Arc::clone(&team.metrics),
            ),
        };
        teams.insert(name.clone(), Arc::new(team));
    }
    let users = config
        .users
        .iter()
        .map(|(name, user)| {
            let credential = user.password.as_ref().map(|password| match password {
                Password::Scram {
                    iterations,
                    salt,
                    stored_key,
                    server_key,
                } => Credential::scram(*iterations, salt.clone(), *stored_key, *server_key),
                Password::Md5(hash) => Credential::md5(hash.clone()),
                Password::Digest { hash, salt } => Credential::digest(DigestKey {
                    salt: salt.clone(),
                    hash: hash.clone(),
                }),
                Password::Plain(password) => Credential::plain(name.as_str(), password.clone()),
            });
            (
                name.clone(),
                Member {
                    credential,
                    certificate: user
                        .certificate
                        .as_ref()
                        .map(|certificate| certificate.cn.clone()),
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
        .map(server_config)
        .transpose()
        .map_err(GatewayError::ListenTls)?
        .map(Arc::new);
    if let Some(old) = old {
        learnt.retain(|user| {
            let kept = logs_in_as_itself(&config, user);
            kept.is_some() && kept == logs_in_as_itself(&old.config, user)
        });
    }
    Ok(Realm {
        config,
        backends,
        databases,
        teams,
        users,
        learnt,
        tls,
    })
}

fn new_database(
    backend: &BackendName,
    name: &DatabaseName,
    settings: &config::Backend,
    control: Option<CatalogPassword>,
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
        password: control,
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
    let epoch = Arc::new(AtomicU64::new(0));
    let changed = Arc::clone(&epoch);
    Ok(Database {
        name: name.clone(),
        kind: settings.kind,
        numbers_asked: AtomicBool::new(false),
        // by address, so that two backends that are one server know of each other's writes
        scope: tags.scope(&BackendName::new(settings.address.to_string()), name),
        watch: CatalogWatch::spawn(source, watch, move || {
            changed.fetch_add(1, Ordering::AcqRel);
            stale.invalidate_all();
        }),
        epoch,
    })
}

/// The limit over the connections of all backends.
pub(super) fn ceiling(config: &Config) -> usize {
    config.pool.max_connections.map_or(usize::MAX, count)
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
