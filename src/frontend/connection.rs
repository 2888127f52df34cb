//! One accepted client, from its first byte to its last.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use socket2::SockRef;

use crate::auth::Proven;
use crate::backend::{BackendError, ServerKey};
use crate::config;
use crate::error::SqlState;
use crate::pipeline::{
    Client, Gateway, Greeting, Identity, Login, NoConnection, ServeError, Session, SessionCard, Team,
    TeamLogin, changes_reading, tcp_options,
};
use crate::session::{Settings, StartupRequest};
use crate::telemetry::event::{LoginRefused, SessionClosed, SessionOpened};
use crate::types::{DatabaseName, UserName};
use crate::wire::{self, TransactionStatus};

use super::attempts::Attempts;
use super::error::LoginError;
use super::handover::Predecessors;
use super::login::{Door, Opening};
use super::places::{Place, Places};
use super::workers::Accepted;
use super::{cancel, console};

/// How long a client for whom there is no place has to send its start-up packet, which the refusal answers.
const NO_PLACE: Duration = Duration::from_secs(1);

/// The database that is the console.
const CONSOLE: &str = "tollgate";

/// The version that Redshift reports. Amazon's drivers read it as one of theirs, and stumble over a PostgreSQL's, which may
/// have words behind its numbers.
const REDSHIFT_VERSION: &str = "8.0.2";

/// What every client meets.
pub struct Frontend {
    gateway: Arc<Gateway>,
    places: Places,
    attempts: Attempts,
    predecessors: Arc<Predecessors>,
    draining: AtomicBool,
}

/// Who got in.
enum Guest {
    /// A user of a team.
    Member(Box<Identity>),
    /// An administrator at the console.
    Admin,
}

impl Frontend {
    /// In front of `gateway`; cancel requests of sessions that are not here go to `predecessors`.
    pub fn new(gateway: Arc<Gateway>, places: Places, predecessors: Arc<Predecessors>) -> Self {
        Self {
            gateway,
            places,
            attempts: Attempts::default(),
            predecessors,
            draining: AtomicBool::new(false),
        }
    }

    /// Lets nobody in any more.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Serves a client to its end.
    pub(super) async fn serve(&self, client: Accepted) {
        let Accepted { stream, address } = client;
        let realm = self.gateway.realm();
        let listen = &realm.config.listen;
        if !prepared(&stream, listen) {
            return;
        }
        let Ok(stream) = tokio::net::TcpStream::from_std(stream) else {
            return;
        };
        let place = self.places.take(
            address.ip(),
            listen.max_connections,
            listen.max_connections_per_address,
        );
        // somebody who finds no place has no time either
        let timeout = if place.is_ok() {
            listen.login_timeout
        } else {
            NO_PLACE.min(listen.login_timeout)
        };
        let door = Door::new(stream);
        // somebody who finds no place is told so in the protocol, which takes a start-up packet first
        let opened = tokio::time::timeout(timeout, door.open(&realm)).await;
        let (mut door, request) = match opened {
            Ok(Ok((door, Opening::Startup(request)))) => (door, request),
            Ok(Ok((_, Opening::Cancel(key)))) => {
                return cancel::cancel(&self.gateway, &self.predecessors, &key, address).await;
            }
            Ok(Err((mut door, error))) => return self.refuse(&mut door, address, None, &error).await,
            // a client that says nothing gets no answer
            Err(_) => return self.count_refusal(address, None, false, &LoginError::Timeout),
        };
        let place = match place {
            Ok(place) => place,
            Err(full) => {
                let error = LoginError::Full(full);
                return self.refuse(&mut door, address, Some(&request), &error).await;
            }
        };
        let admitted = tokio::time::timeout(timeout, self.admit(&mut door, &request, address.ip()));
        let admitted = admitted.await.unwrap_or(Err(LoginError::Timeout));
        match admitted {
            Ok((guest, proven)) => self.host(door, request, guest, proven, address, place).await,
            Err(error) => self.refuse(&mut door, address, Some(&request), &error).await,
        }
    }

    /// Checks the password, and then whether the user may go where it wants.
    async fn admit(
        &self,
        door: &mut Door,
        request: &StartupRequest,
        address: IpAddr,
    ) -> Result<(Guest, Proven), LoginError> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(LoginError::Draining);
        }
        let mut proven = door
            .authenticate(request, &self.gateway, &self.attempts, address)
            .await?;
        let realm = self.gateway.realm();
        // only now: who does not know the password does not learn from where to come
        if !realm.allows(&request.user, address) {
            let user = request.user.clone();
            return Err(LoginError::Address { user, address });
        }
        let member = realm.users.get(request.user.as_str());
        if request.database == CONSOLE {
            return if member.is_some_and(|member| member.admin) {
                Ok((Guest::Admin, proven))
            } else {
                Err(LoginError::NotAdmin)
            };
        }
        let team = member
            .and_then(|member| member.team.as_ref())
            .and_then(|team| realm.teams.get(team));
        let team = Arc::clone(team.ok_or_else(|| LoginError::NoTeam(request.user.clone()))?);
        let name = DatabaseName::new(request.database.as_str());
        let place = (team.backend.name.clone(), name.clone());
        let database = realm.databases.get(&place).map(Arc::clone);
        let database = database.ok_or_else(|| LoginError::NoDatabase(request.database.clone()))?;
        if team.login == TeamLogin::AsUser
            && let Some(secret) = proven.secret.take()
        {
            realm.learnt.note(&request.user, secret);
        }
        let key = ServerKey {
            backend: team.backend.name.clone(),
            database: name,
            user: team.login.role(&request.user),
            team: team.name.clone(),
            pooling: team.pooling,
        };
        let greeting = self.greeting(&key, &team, &request.settings).await?;
        let reads_differently = greeting
            .parameters
            .iter()
            .any(|(name, value)| changes_reading(name, value));
        // the greeting is for all names of applications
        let name = request.settings.value("application_name").cloned();
        let mut startup = request.settings.as_reported(&greeting.parameters);
        if let Some(name) = name {
            startup.set("application_name", name);
        }
        let identity = Identity {
            user: UserName::new(request.user.as_str()),
            team,
            database,
            key,
            default_search_path: Arc::clone(&greeting.search_path),
            greeting: Arc::clone(&greeting),
            startup,
            reads_differently,
        };
        wire::authentication_ok(&mut door.outbox);
        for (name, value) in &greeting.parameters {
            let value = match name.as_str() {
                "application_name" => &request.application_name,
                "server_version" if request.amazon_driver => REDSHIFT_VERSION,
                _ => value,
            };
            wire::parameter_status_frame(name, value, &mut door.outbox);
        }
        door.outbox.extend_from_slice(&greeting.notices);
        Ok((Guest::Member(Box::new(identity)), proven))
    }

    /// What the backend tells a session with these settings at login; asked once for each combination, and then again
    /// only after a reload. A setting that the backend refuses is refused here.
    async fn greeting(
        &self,
        key: &ServerKey,
        team: &Team,
        startup: &Settings,
    ) -> Result<Arc<Greeting>, LoginError> {
        let settings = startup.without("application_name");
        let mut form = Vec::new();
        settings.encode_into(&mut form);
        if let Some(known) = self.gateway.greeting(key, &form) {
            return Ok(known);
        }
        let backend = &team.backend;
        let patience = backend.checkout_timeout();
        let checkout = backend.pool.checkout(key, patience).await;
        let mut lease = checkout.map_err(|error| match &team.login {
            TeamLogin::AsUser => refused_login(backend.no_connection_of_its_own(error)),
            TeamLogin::Role(_) => ServeError::from(backend.no_connection(error)).into(),
        })?;
        // what a value means may depend on the one before: here it stands for the first of a session
        let restored = async {
            lease.restore(&Settings::default()).await?;
            lease.restore(&settings).await
        };
        restored.await.map_err(refused_setting)?;
        let greeting = Arc::new(Greeting {
            parameters: lease.parameters().clone(),
            // what it says to the gateway's own login is for nobody else
            notices: match &team.login {
                TeamLogin::AsUser => lease.login_notices().clone(),
                TeamLogin::Role(_) => Bytes::new(),
            },
            search_path: Arc::clone(lease.default_search_path()),
            reads_committed: lease.reads_committed(),
        });
        if let Some(proof) = lease.at_rest() {
            lease.give_back(proof, Instant::now());
        }
        self.gateway.note_greeting(key, form, Arc::clone(&greeting));
        Ok(greeting)
    }

    /// The session itself.
    async fn host(
        &self,
        mut door: Door,
        request: StartupRequest,
        guest: Guest,
        proven: Proven,
        address: SocketAddr,
        _place: Place,
    ) {
        let id = self.gateway.sessions.next_id();
        let login = Login {
            user: UserName::new(request.user.as_str()),
            team: match &guest {
                Guest::Member(identity) => Some(identity.team.name.clone()),
                Guest::Admin => None,
            },
            database: DatabaseName::new(request.database.as_str()),
            address: address.ip(),
            port: address.port(),
            application_name: request.application_name.clone(),
            tls: door.stream.tls(),
        };
        SessionOpened {
            session: id,
            user: &login.user,
            database: login.database.as_str(),
            address,
            tls: login.tls,
            method: proven.method,
            application: Some(request.application_name.as_str()).filter(|name| !name.is_empty()),
        }
        .emit(&self.gateway.metrics);
        let card = self.gateway.sessions.register(id, login, request.minor);
        if matches!(guest, Guest::Admin) {
            wire::authentication_ok(&mut door.outbox);
            greet_admin(&request, &mut door);
        }
        wire::backend_key_data(&card.key, &mut door.outbox);
        wire::ready_for_query(TransactionStatus::Idle, &mut door.outbox);
        // registered until the end, also when the task is dropped
        let _registered = Registered {
            gateway: &self.gateway,
            card: &card,
        };
        if door.flush().await.is_err() {
            return;
        }
        if self.draining.load(Ordering::Relaxed) {
            card.drain();
        }
        let client = Client::new(door.stream, door.inbox);
        match guest {
            Guest::Member(identity) => {
                Session::new(Arc::clone(&self.gateway), client, Arc::clone(&card), *identity)
                    .run()
                    .await;
            }
            Guest::Admin => console::run(client, &card, Arc::clone(&self.gateway)).await,
        }
    }

    async fn refuse(
        &self,
        door: &mut Door,
        address: SocketAddr,
        request: Option<&StartupRequest>,
        error: &LoginError,
    ) {
        self.count_refusal(address, request, door.stream.tls(), error);
        if matches!(error, LoginError::Gone(_)) {
            return;
        }
        door.outbox.clear();
        error.tell(&mut door.outbox);
        // the last words; a client that does not read them does not get them
        drop(tokio::time::timeout(Duration::from_secs(1), door.flush()).await);
    }

    fn count_refusal(
        &self,
        address: SocketAddr,
        request: Option<&StartupRequest>,
        tls: bool,
        error: &LoginError,
    ) {
        use crate::error::ClientError;
        LoginRefused {
            address,
            user: request.map(|request| request.user.as_str()),
            database: request.map(|request| request.database.as_str()),
            tls,
            outcome: error.outcome(),
            sqlstate: Some(error.sqlstate()),
            error,
        }
        .emit(&self.gateway.metrics);
    }
}

/// What the backend says to a user who logs in there as itself is for that user; what it says to the gateway's own login
/// is not, beyond that it is not to be had.
fn refused_login(error: NoConnection) -> LoginError {
    if let Some(BackendError::Refused { code, message, frame }) = error.cause()
        && let Some(code) = SqlState::of_login(code)
    {
        return LoginError::Refused {
            code,
            message: message.clone(),
            frame: frame.clone(),
        };
    }
    ServeError::from(error).into()
}

/// A setting of the start-up packet that the backend does not take is refused in the backend's own words.
fn refused_setting(error: BackendError) -> LoginError {
    if let BackendError::Refused { code, message, frame } = &error
        && let Some(code) = SqlState::of_setting(code)
    {
        return LoginError::Refused {
            code,
            message: message.clone(),
            frame: frame.clone(),
        };
    }
    ServeError::Unavailable(error).into()
}

/// Sets what every client's socket has; false when the client is gone already.
fn prepared(stream: &std::net::TcpStream, listen: &config::Listen) -> bool {
    let options = tcp_options(&listen.tcp_keepalive, listen.tcp_user_timeout);
    options.apply(&SockRef::from(stream)).is_ok() && stream.set_nodelay(true).is_ok()
}

/// Takes a session off the list when it is over.
struct Registered<'a> {
    gateway: &'a Gateway,
    card: &'a SessionCard,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.gateway.sessions.remove(self.card);
        SessionClosed {
            session: self.card.id,
            user: &self.card.login.user,
            reason: "end",
            duration: self.card.since.elapsed(),
        }
        .emit();
    }
}

/// Parameters that drivers want to see, for the console.
fn greet_admin(request: &StartupRequest, door: &mut Door) {
    for (name, value) in [
        (
            "server_version",
            concat!("8.0.2/tollgate-", env!("CARGO_PKG_VERSION")),
        ),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("application_name", request.application_name.as_str()),
    ] {
        wire::parameter_status_frame(name, value, &mut door.outbox);
    }
}
