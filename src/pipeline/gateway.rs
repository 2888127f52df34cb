//! What all sessions share: who may log in, the backends with their pools and catalogs, quotas, cache.
//!
//! The part that the configuration decides is a [`Realm`], replaced as a whole by a reload; what goes on living across
//! it (pools, quotas, counters) is taken over.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::backend::Common;
use super::realm::{Database, GatewayError, Realm, build, cache_limits, ceiling, quota_limits};
use super::sessions::{IdleLimits, Sessions};
use crate::backend::{ServerKey, Servers};
use crate::cache::{ResultCache, Tags, WriteGuard};
use crate::config::{self, CacheWhat, Change, Config, Mistake, RealEnvironment};
use crate::policy::{
    Cacheability, Catalog, Invalidation, cacheability, invalidation, may_define, may_read_elsewhere,
    reads_unknown, touches_session,
};
use crate::pool::Ceiling;
use crate::session::SharedStatements;
use crate::sql::{Analyzer, Fingerprint, Statement};
use crate::telemetry::Metrics;
use crate::telemetry::event::{ConfigRejected, ConfigReloaded};
use crate::telemetry::log::LogControl;
use crate::types::{BackendName, ByteSize};

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

/// What is decided of a statement as long as definitions and search path stay.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a verdict of its own")]
pub struct Verdicts {
    /// Whether its answer may be kept.
    pub cacheability: Cacheability,
    /// What it makes stale.
    pub invalidation: Invalidation,
    /// Whether a reader may answer it.
    pub elsewhere: bool,
    /// Whether it may run code that does something to the server's session.
    pub touches_session: bool,
    /// Whether it may change definitions though it is no change of definitions.
    pub may_define: bool,
    /// Whether it reads a relation that is not known.
    pub reads_unknown: bool,
}

#[derive(PartialEq, Eq)]
struct VerdictKey {
    fingerprint: Fingerprint,
    scope: u32,
    generation: u64,
    what: CacheWhat,
    search_path: Arc<[Arc<str>]>,
}

impl Hash for VerdictKey {
    /// The fingerprint tells nearly all keys apart.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

/// What a backend told at login, for sessions with the same login and settings.
#[derive(Debug)]
pub struct Greeting {
    /// ParameterStatus by name.
    pub parameters: BTreeMap<String, String>,
    /// Notices for users who log in there as themselves, as frames.
    pub notices: Bytes,
    /// The login's own search path.
    pub search_path: Arc<str>,
    /// Each statement of the login's transactions sees what is committed when it begins.
    pub reads_committed: bool,
}

/// Greetings by login and settings.
type Greetings = HashMap<(ServerKey, Vec<u8>), Arc<Greeting>>;

/// What all sessions share.
pub struct Gateway {
    realm: ArcSwap<Realm>,
    /// What is known of statements.
    pub analyzer: Analyzer,
    /// Named statements that sessions have prepared.
    pub statements: SharedStatements,
    /// Answers.
    pub cache: ResultCache,
    /// Versions of relations.
    pub tags: Arc<Tags>,
    /// Sessions.
    pub sessions: Sessions,
    /// Backend connections.
    pub servers: Arc<Servers>,
    /// The limit over those of all backends.
    pub connections: Arc<Ceiling>,
    /// Counters.
    pub metrics: Metrics,
    /// When it started.
    pub started: Instant,
    /// Another process writes to the same backends, and what it writes is not heard of here.
    shared: AtomicBool,
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
        let connections = Arc::new(Ceiling::default());
        connections.set_max(ceiling(&config));
        let common = Common {
            tags: &tags,
            metrics: &metrics,
            servers: &servers,
            ceiling: &connections,
        };
        let realm = build(config, None, &common)?;
        Ok(Self {
            realm: ArcSwap::from_pointee(realm),
            analyzer: Analyzer::new(ANALYZER_MEMORY),
            statements: SharedStatements::default(),
            cache,
            tags,
            sessions: Sessions::default(),
            servers,
            connections,
            metrics,
            started: Instant::now(),
            shared: AtomicBool::new(false),
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
    pub fn reload(&self) -> Result<Vec<Change>, ReloadError> {
        let outcome = self.read_and_apply();
        match &outcome {
            Ok(changes) => {
                let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
                ConfigReloaded { changes: &changes }.emit(&self.metrics);
            }
            Err(error) => ConfigRejected { error }.emit(&self.metrics),
        }
        outcome
    }

    fn read_and_apply(&self) -> Result<Vec<Change>, ReloadError> {
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
        let changes = self.realm.load().config.changes(&config);
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
        let common = Common {
            tags: &self.tags,
            metrics: &self.metrics,
            servers: &self.servers,
            ceiling: &self.connections,
        };
        let realm = build(config, Some(&old), &common)?;
        self.connections.set_max(ceiling(&realm.config));
        for (name, config) in &realm.config.backends {
            if let Some(backend) = realm.backends.get(name) {
                backend.reconfigure(&realm.config, config, &realm.learnt);
            }
        }
        for (name, backend) in &old.backends {
            if !realm.backends.contains_key(name) {
                // nobody looks after it any more
                backend.reconnect();
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

    /// Which answers are kept, now.
    pub(super) fn what(&self) -> CacheWhat {
        self.realm.load().config.cache.what
    }

    /// What is decided of `statement`, remembered by its shape.
    pub fn verdicts(
        &self,
        statement: &Statement,
        database: &Database,
        catalog: &Catalog,
        search_path: &Arc<[Arc<str>]>,
    ) -> Arc<Verdicts> {
        let what = self.what();
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
            elsewhere: may_read_elsewhere(statement, catalog, search_path),
            touches_session: touches_session(statement, Some(catalog)),
            may_define: may_define(statement, Some(catalog)),
            reads_unknown: reads_unknown(statement, catalog, search_path),
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

    /// Notes whether another process of the gateway serves the same backends. While one does, no answer comes from memory.
    /// When it ends, everything is stale and definitions are read again.
    pub fn note_shared(&self, shared: bool) {
        if !shared {
            for database in self.realm.load().databases.values() {
                database.definitions_changed();
            }
            self.forget_greetings();
            self.tags.invalidate_all();
        }
        self.shared.store(shared, Ordering::Release);
    }

    /// Whether another process of the gateway serves the same backends.
    pub(super) fn shared(&self) -> bool {
        self.shared.load(Ordering::Acquire)
    }

    /// Whether the outcome of some write is not known.
    pub fn doubts(&self) -> bool {
        !self
            .doubts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
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

    /// Another server is the primary of `backend`: what was learnt from the one before may be wrong.
    fn note_moved(&self, realm: &Realm, backend: &BackendName) {
        let databases = realm.databases.iter().filter(|((name, _), _)| name == backend);
        for (_, database) in databases {
            database.definitions_changed();
        }
        self.forget_greetings();
        self.tags.invalidate_all();
    }

    /// What has to be done now and then: a few times a second.
    pub fn housekeep(&self, now: Instant) {
        let realm = self.realm.load();
        let idle = IdleLimits {
            session: realm.config.listen.client_idle,
            transaction: realm.config.listen.idle_in_transaction,
        };
        self.sessions.sweep(now, Duration::from_secs(10), idle);
        {
            let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
            while doubts
                .pop_front_if(|(since, _)| now.saturating_duration_since(*since) >= DOUBT)
                .is_some()
            {}
        }
        for backend in realm.backends.values() {
            if backend.endpoints.take_moved() {
                self.note_moved(&realm, &backend.name);
            }
            backend.look_after_connections(now);
        }
    }
}
