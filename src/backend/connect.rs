//! Opening a connection: socket, TLS, start-up packet, login.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::BytesMut;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::cancel::{CancelGate, CancelTarget};
use super::connection::{AtRest, Connection, LoggedIn, refusal};
use super::error::BackendError;
use super::secrets::Secrets;
use super::servers::Servers;
use super::transport::{TcpOptions, Transport};
use crate::auth::{BackendLogin, LoginStep};
use crate::config::{Address, Pooling};
use crate::pool::{Connect, Failure};
use crate::types::{BackendName, DatabaseName, TeamName};
use crate::wire;

/// Messages of a login are small; a server that sends more is none.
const MAX_LOGIN_FRAME: usize = 64 * 1024;

/// Notices of a login that are kept for its user, in bytes.
const MAX_LOGIN_NOTICES: usize = 16 * 1024;

/// How long a connection that was idle may take to answer that it is there.
const CHECK: Duration = Duration::from_secs(3);

/// What connections of one backend are told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKey {
    /// The backend.
    pub backend: BackendName,
    /// The database.
    pub database: DatabaseName,
    /// Whom the gateway logs in as.
    pub user: Arc<str>,
    /// For which team.
    pub team: TeamName,
    /// Whether its sessions share it; those that did leave what `DISCARD ALL` takes away.
    pub pooling: Pooling,
}

impl Hash for ServerKey {
    /// The role tells nearly all keys of a pool apart: it is for one backend, and each team has a role of its own.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.user.hash(state);
    }
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}/{}", self.user, self.backend, self.database)
    }
}

/// Where a backend is and how to get in; replaced as a whole by a reload.
#[derive(Clone)]
pub struct Route {
    /// The address.
    pub address: Address,
    /// Where else the primary may be, in the order in which they are tried.
    pub fallbacks: Vec<Address>,
    /// TLS, unless it is off.
    pub tls: Option<Arc<ClientConfig>>,
    /// How a dead machine is noticed.
    pub tcp: TcpOptions,
    /// How long socket, TLS and login may take together.
    pub connect_timeout: Duration,
    /// What to log in with.
    pub secrets: Secrets,
}

/// Opens connections to one backend.
pub struct Connector {
    route: ArcSwap<Route>,
    servers: Arc<Servers>,
    /// Which of the route's addresses was right the last time; 0 is `address`.
    pub(super) preferred: AtomicUsize,
    /// To be told when that changes, from which address to which.
    pub(super) on_move: OnceLock<OnMove>,
}

/// Whoever is told that the primary is at another address.
pub(super) type OnMove = Box<dyn Fn(&Address, &Address) + Send + Sync>;

impl Connector {
    /// Along `route`, each one registered with `servers`.
    pub fn new(route: Route, servers: Arc<Servers>) -> Self {
        Self {
            route: ArcSwap::from_pointee(route),
            servers,
            preferred: AtomicUsize::new(0),
            on_move: OnceLock::new(),
        }
    }

    /// Takes another route for the connections to come.
    pub fn set_route(&self, route: Route) {
        self.route.store(Arc::new(route));
    }

    /// The route of the next connection.
    pub fn route(&self) -> Arc<Route> {
        self.route.load_full()
    }

    /// Opens a connection to `address` within the time that the route allows.
    pub(super) async fn open_within(
        &self,
        key: &ServerKey,
        route: &Route,
        address: &Address,
    ) -> Result<Box<Connection>, BackendError> {
        tokio::time::timeout(route.connect_timeout, self.open(key, route, address))
            .await
            .map_err(|_| BackendError::Slow(route.connect_timeout))?
    }

    async fn open(
        &self,
        key: &ServerKey,
        route: &Route,
        address: &Address,
    ) -> Result<Box<Connection>, BackendError> {
        let mut stream = Transport::connect(address, route.tls.as_ref(), &route.tcp).await?;
        let mut out = BytesMut::new();
        // nothing else, so that the defaults are the server's own
        let parameters = [("user", &*key.user), ("database", key.database.as_str())];
        wire::startup_message(parameters, &mut out);
        stream.write_all_buf(&mut out).await.map_err(BackendError::Lost)?;
        stream.flush().await.map_err(BackendError::Lost)?;

        let secret = route.secrets.of(&key.user).await?;
        let mut login = BackendLogin::new(&key.user, secret.as_ref(), stream.link());
        let mut received = BytesMut::with_capacity(8 * 1024);
        let mut reported = BTreeMap::new();
        let mut notices = BytesMut::new();
        let mut cancel_key = None;
        loop {
            let Some(header) =
                wire::header(&received, MAX_LOGIN_FRAME)?.filter(|header| received.len() >= header.len)
            else {
                if stream.read_buf(&mut received).await.map_err(BackendError::Lost)? == 0 {
                    return Err(BackendError::Closed);
                }
                continue;
            };
            let frame = received.split_to(header.len);
            match header.tag {
                b'R' => match login.next(&frame, &mut out)? {
                    LoginStep::Answer => {
                        stream.write_all_buf(&mut out).await.map_err(BackendError::Lost)?;
                        stream.flush().await.map_err(BackendError::Lost)?;
                    }
                    LoginStep::Wait | LoginStep::Done => {}
                },
                b'S' => {
                    let (name, value) = wire::parameter_status(&frame)?;
                    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                    reported.insert(text(name), text(value));
                }
                b'K' => cancel_key = Some(wire::backend_key(&frame)?),
                b'E' => return Err(refusal(&frame)),
                b'Z' => break,
                b'N' if notices.len() + frame.len() <= MAX_LOGIN_NOTICES => notices.extend_from_slice(&frame),
                // too many notices, and the answer to protocol versions and options that were not asked for
                b'N' | b'v' => {}
                _ => return Err(wire::WireError::Malformed("login").into()),
            }
        }
        let key_of_cancel = cancel_key.ok_or(wire::WireError::Malformed("login without a cancel key"))?;
        let registered = self
            .servers
            .register(key.clone(), key_of_cancel.id, Instant::now());
        let cancel = CancelTarget {
            address: address.clone(),
            tls: route.tls.clone(),
            key: key_of_cancel,
            gate: Arc::new(CancelGate::default()),
        };
        let mut connection = Box::new(Connection::new(LoggedIn {
            stream,
            received,
            parameters: reported,
            notices: notices.freeze(),
            cancel,
            registered,
        }));
        connection.learn_defaults().await?;
        Ok(connection)
    }
}

impl Connect for Connector {
    type Key = ServerKey;
    type Group = TeamName;
    // boxed: a lease changes hands several times per request
    type Connection = Box<Connection>;
    type AtRest = AtRest;
    type Error = BackendError;

    fn group(key: &ServerKey) -> TeamName {
        key.team.clone()
    }

    async fn connect(&self, key: &ServerKey) -> Result<Box<Connection>, BackendError> {
        let route = self.route.load_full();
        self.open_first(key, &route).await
    }

    fn may_open(&self, key: &ServerKey) -> bool {
        self.route.load().secrets.may_know(&key.user)
    }

    fn failure(error: &BackendError) -> Failure {
        match error {
            // it is the login, or the database, that is refused; another may be welcome
            BackendError::Refused { code, .. } if code.starts_with("28") => Failure::Key,
            BackendError::Refused { code, .. } if code == "3D000" || code == "42501" => Failure::Key,
            BackendError::Login(_) | BackendError::Password(_) => Failure::Key,
            BackendError::Refused { .. } => Failure::Busy,
            BackendError::Unreachable { .. }
            | BackendError::Slow(_)
            | BackendError::NoTls(_)
            | BackendError::Tls { .. }
            | BackendError::Wire(_)
            | BackendError::Unexpected(_)
            | BackendError::Closed
            | BackendError::Lost(_)
            | BackendError::Standby(_) => Failure::Unreachable,
        }
    }

    fn quiet(connection: &mut Box<Connection>) -> bool {
        connection.is_quiet()
    }

    fn ended(connection: &Box<Connection>) -> bool {
        connection.has_ended()
    }

    async fn check(connection: &mut Box<Connection>) -> bool {
        let asked = tokio::time::timeout(CHECK, connection.ask_nothing()).await;
        asked.is_ok_and(|answer| answer.is_ok())
    }
}
