//! Wiring: the listener, the workers, HTTP, signals, drain.

mod signals;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use self::signals::{Signals, Wish};
use crate::config::{self, Address, Config, LogFormat, Mistake, RealEnvironment};
use crate::frontend::{
    Frontend, Listener, Places, Predecessor, Predecessors, TakeOverError, TakenOver, Workers, adopt, bind,
    take_over,
};
use crate::http::{self, HttpTask};
use crate::pipeline::{Gateway, GatewayError};
use crate::policy::{BypassReason, Cacheability, Invalidation};
use crate::sql::{Analysis, Backslash, describe};
use crate::standin::{DemoOptions, StandIn, StandInError, demo_config_toml};
use crate::telemetry::event::{Draining, Listening, TakenOverBy};
use crate::telemetry::log::{self, LogControl, LogError};
use crate::types::DatabaseName;

/// How often sessions and pools are looked after.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// How long sessions that were ended have to say farewell.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why the gateway does not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration cannot be read.
    #[error("could not read {path}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration has mistakes.
    #[error("{count} in {path}", count = counted(.mistakes.len()), path = .path.display())]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// All of them.
        mistakes: Vec<Mistake>,
    },
    /// It cannot be set up as configured.
    #[error("the gateway cannot be set up")]
    Gateway(#[from] GatewayError),
    /// The stand-in does not run.
    #[error("the stand-in cannot be started")]
    StandIn(#[from] StandInError),
    /// The address is taken, or not of this machine.
    #[error("could not listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The gateway that runs does not hand over its sockets.
    #[error("nothing was taken over")]
    TakeOver(#[from] TakeOverError),
    /// `explain` was told a database that is not there.
    #[error("the configuration has no database \"{0}\"")]
    NoDatabase(String),
    /// The definitions cannot be read.
    #[error("{0}")]
    Catalog(String),
    /// Logging.
    #[error("logging cannot be set up")]
    Log(#[from] LogError),
    /// The system refuses a thread, a signal, a file.
    #[error("the system refuses")]
    System(#[from] io::Error),
}

fn counted(mistakes: usize) -> String {
    if mistakes == 1 {
        "1 mistake".to_owned()
    } else {
        format!("{mistakes} mistakes")
    }
}

/// Reads and checks a configuration.
///
/// # Errors
///
/// It cannot be read, or has mistakes.
pub fn load(path: &Path) -> Result<Config, AppError> {
    let text = std::fs::read_to_string(path).map_err(|source| AppError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    config::parse(&text, &RealEnvironment::of_file(path)).map_err(|mistakes| AppError::Mistakes {
        path: path.to_owned(),
        mistakes,
    })
}

/// Serves as the configuration at `path` says, until a signal ends it or another process takes over. With `takes_over` it
/// takes the listening sockets over from the gateway that runs, where one does.
///
/// # Errors
///
/// It cannot begin.
pub fn serve(path: &Path, takes_over: bool) -> Result<(), AppError> {
    let config = load(path)?;
    let log = start_log(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(config, path, log, takes_over, |_, _| Ok(())))
}

/// Tells what is found out about `text`; with a configuration also what would be done with it, judged by the definitions
/// of the first database there, or of `database`.
///
/// # Errors
///
/// The configuration or the definitions cannot be read.
pub fn explain(text: &[u8], config: Option<&Path>, database: Option<&str>) -> Result<String, AppError> {
    let analysis = Analysis::of(text, Backslash::Literal);
    let mut told = describe(&analysis, text);
    let Some(path) = config else { return Ok(told) };
    let config = load(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let gateway = Gateway::new(config, None, None)?;
        let realm = gateway.realm();
        let wanted = |name: &DatabaseName| database.is_none_or(|wanted| wanted == name.as_str());
        let found = realm.databases.iter().find(|((_, name), _)| wanted(name));
        let Some(((backend, name), database)) = found else {
            return Err(AppError::NoDatabase(database.unwrap_or_default().to_owned()));
        };
        let catalog = database
            .watch
            .ready()
            .await
            .map_err(|error| AppError::Catalog(error.with_causes()))?;
        told.extend([format!(
            "\nJudged by the definitions of {backend}/{name}, search path \"$user\", public:\n"
        )]);
        let search_path: Arc<[Arc<str>]> = crate::policy::search_path("\"$user\", public", "").into();
        for (number, located) in analysis.statements().iter().enumerate() {
            let verdicts = gateway.verdicts(&located.statement, database, &catalog, &search_path);
            let names = |oids: &[u32]| {
                let names = oids.iter().filter_map(|oid| catalog.relation(*oid));
                names
                    .map(|relation| format!("{}.{}", relation.definition.schema, relation.definition.name))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let cache = match &verdicts.cacheability {
                Cacheability::Cacheable(_) if analysis.moment_literal() => {
                    format!("not kept: {}", BypassReason::Moment.explanation())
                }
                Cacheability::Cacheable(relations) => format!("kept until a write to {}", names(relations)),
                Cacheability::Bypass(reason) => format!("not kept: {}", reason.explanation()),
            };
            let stale = match &verdicts.invalidation {
                Invalidation::Nothing => "nothing".to_owned(),
                Invalidation::Relations(relations) => format!("answers from {}", names(relations)),
                Invalidation::Everything => "every answer".to_owned(),
                Invalidation::Definitions => "every answer, and the definitions are read again".to_owned(),
            };
            told.extend([format!(
                "statement {}\n  answer       {cache}\n  makes stale  {stale}\n",
                number + 1
            )]);
        }
        Ok(told)
    })
}

/// What `tollgate demo` was told.
#[derive(Clone, Debug)]
pub struct DemoArguments {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where HTTP is.
    pub http: SocketAddr,
    /// The stand-in.
    pub standin: DemoOptions,
}

/// Starts a stand-in with demo data, and serves it until a signal ends it.
///
/// # Errors
///
/// It cannot begin.
pub fn demo(arguments: DemoArguments) -> Result<(), AppError> {
    let log = log::init(log::LogFormat::Text, "warn")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let DemoArguments {
            listen,
            http,
            standin,
        } = arguments;
        let start = StandIn::start(standin, say);
        let standin = tokio::select! {
            started = start => started?,
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        };
        let path = standin.directory().join("tollgate.toml");
        let outcome = serve_demo(&standin, &path, listen, http, log).await;
        standin.stop().await;
        outcome
    })
}

async fn serve_demo(
    standin: &StandIn,
    path: &Path,
    listen: SocketAddr,
    http: SocketAddr,
    log: LogControl,
) -> Result<(), AppError> {
    std::fs::write(path, demo_config_toml(standin, listen, http))?;
    let config = load(path)?;
    run(config, path, log, false, |listen, http| {
        say("");
        say("Tollgate is ready. In another terminal:");
        say(&format!(
            "  psql 'postgres://ana:ana@{listen}/dev'        an analyst of team growth"
        ));
        say(&format!(
            "  psql 'postgres://dash:dash@{listen}/dev'      a dashboard of team bi"
        ));
        say(&format!(
            "  psql 'postgres://root:root@{listen}/tollgate' the administrator's console"
        ));
        if let Some(http) = http {
            say(&format!("  http://{http}/metrics"));
        }
        say(&format!("Its configuration: {}", path.display()));
        say("Ctrl-C stops everything; the data stay for the next time.");
        Ok(())
    })
    .await
}

/// Tells a person something, on standard output. Nobody may be listening.
fn say(line: &str) {
    drop(writeln!(io::stdout(), "{line}"));
}

fn start_log(config: &Config) -> Result<LogControl, AppError> {
    let format = match config.log.format {
        LogFormat::Text => log::LogFormat::Text,
        LogFormat::Json => log::LogFormat::Json,
    };
    Ok(log::init(format, config.log.level.as_str())?)
}

fn socket_address(address: &Address) -> Result<SocketAddr, AppError> {
    let unusable = |source| AppError::Listen {
        address: address.to_string(),
        source,
    };
    match address {
        Address::Tcp { host, port } => {
            let mut found =
                std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), *port)).map_err(unusable)?;
            found
                .next()
                .ok_or_else(|| unusable(io::ErrorKind::AddrNotAvailable.into()))
        }
        Address::Unix { .. } => Err(unusable(io::ErrorKind::Unsupported.into())),
    }
}

/// The socket for `address`: the one that was taken over, where it is for that address, else one of its own.
fn listen(address: &Address, taken: Option<&mut TakenOver>) -> Result<TcpListener, AppError> {
    let resolved = socket_address(address)?;
    let socket = match taken.and_then(|taken| taken.socket(resolved)) {
        Some(socket) => adopt(socket),
        None => bind(resolved),
    };
    socket.map_err(|source| AppError::Listen {
        address: address.to_string(),
        source,
    })
}

/// Everything, until a signal ends it.
async fn run(
    config: Config,
    path: &Path,
    log: LogControl,
    takes_over: bool,
    ready: impl FnOnce(SocketAddr, Option<SocketAddr>) -> io::Result<()>,
) -> Result<(), AppError> {
    raise_descriptor_limit();
    let listen_settings = config.listen.clone();
    let take_over_path = listen_settings.take_over_socket.as_deref().map(Path::new);
    let mut taken = match (takes_over, take_over_path) {
        (false, _) => None,
        (true, Some(path)) => take_over(path)?,
        (true, None) => return Err(TakeOverError::NoPath.into()),
    };
    let socket = listen(&config.listen.address, taken.as_mut())?;
    let http_socket = config
        .http
        .as_ref()
        .map(|http| listen(&http.address, taken.as_mut()))
        .transpose()?;
    let (address, http_listen) = (
        socket.local_addr()?,
        http_socket.as_ref().map(TcpListener::local_addr).transpose()?,
    );
    let gateway = Arc::new(Gateway::new(config, Some(path.to_owned()), Some(log))?);
    let places = Places::default();
    let predecessors = Arc::new(Predecessors::default());
    let frontend = Arc::new(Frontend::new(
        Arc::clone(&gateway),
        places.clone(),
        Arc::clone(&predecessors),
    ));
    let workers = Workers::start(listen_settings.workers, &frontend)?;
    let mut signals = Signals::listen()?;
    let took_over = taken.is_some();
    if let Some(taken) = taken {
        taken.begin(&gateway, &predecessors)?;
    }
    let copies = (copied(&socket)?, http_socket.as_ref().map(copied).transpose()?);
    let listening =
        take_over_path.map(|path| Predecessor::listen(path, Arc::clone(&gateway), predecessors, copies));
    let mut successor = match listening.transpose() {
        Ok(successor) => successor,
        // nobody else accepts any more
        Err(error) if took_over => {
            tracing::error!(%error, "the take-over socket cannot be used: the next restart will refuse clients");
            None
        }
        Err(source) => {
            return Err(AppError::Listen {
                address: listen_settings.take_over_socket.unwrap_or_default(),
                source,
            });
        }
    };

    let readiness = Arc::new(http::Readiness::default());
    let http = http_socket
        .map(|socket| HttpTask::start(socket, &gateway, places, workers.runtimes(), &readiness))
        .transpose()?;
    let looked_after = Arc::clone(&gateway);
    let housekeeping = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(HOUSEKEEPING);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            looked_after.housekeep(Instant::now());
        }
    });

    Listening {
        address,
        tls: listen_settings.tls.is_some(),
    }
    .emit();
    ready(address, http_listen)?;
    let replaced = accept(
        socket,
        &workers,
        &gateway,
        &mut signals,
        successor.as_mut(),
        http.as_ref(),
    )
    .await?;
    if replaced {
        if let Some(http) = &http {
            http.close();
        }
        outlast(&gateway, &workers, &mut signals).await;
    }
    frontend.drain();
    readiness.drain();
    let patience = gateway.realm().config.listen.drain_timeout;
    tokio::select! {
        () = drain(&gateway, patience) => {}
        // a second signal ends the patience
        () = signals.end() => {}
    }
    end_sessions(&gateway).await;
    if let Some(successor) = successor.filter(|_| gateway.sessions.count() == 0 && !gateway.doubts()) {
        successor.farewell().await;
    }
    housekeeping.abort();
    if let Some(http) = http {
        http.stop(FAREWELL).await;
    }
    workers.stop();
    Ok(())
}

/// Another descriptor of the same socket, which stays open when that one is closed.
fn copied(socket: &TcpListener) -> io::Result<OwnedFd> {
    socket.as_fd().try_clone_to_owned()
}

/// Accepts clients until a signal ends it (false) or another process has taken over (true).
async fn accept(
    socket: TcpListener,
    workers: &Workers,
    gateway: &Arc<Gateway>,
    signals: &mut Signals,
    mut successor: Option<&mut Predecessor>,
    http: Option<&HttpTask>,
) -> io::Result<bool> {
    let spare = copied(&socket)?;
    let mut socket = Some(socket);
    loop {
        let accepted = match socket.take() {
            Some(socket) => socket,
            None => adopt(spare.try_clone()?.into())?,
        };
        let asked = {
            let accepting = Listener::new(accepted).run(workers);
            tokio::pin!(accepting);
            loop {
                let asked = async {
                    match successor.as_mut() {
                        Some(successor) => successor.asked().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = &mut accepting => return Ok(false),
                    wish = signals.next() => match wish {
                        Wish::Reload => drop(gateway.reload()),
                        Wish::End => return Ok(false),
                    },
                    asked = asked => break asked,
                }
            }
        };
        // nothing is accepted here from now on, and nothing that the successor's sessions write is missed
        gateway.note_shared(true);
        if let Some(http) = http {
            http.pause();
        }
        if asked.go().await {
            return Ok(true);
        }
        tracing::warn!("a successor did not begin: this process goes on");
        gateway.note_shared(false);
        if let Some(http) = http {
            http.resume();
        }
    }
}

/// Serves the sessions that are there until they leave, for as long as `listen.take_over_patience` lasts.
async fn outlast(gateway: &Gateway, workers: &Workers, signals: &mut Signals) {
    let patience = gateway.realm().config.listen.take_over_patience;
    TakenOverBy {
        clients: u64::try_from(workers.clients()).unwrap_or(u64::MAX),
        patience,
    }
    .emit();
    let left = async {
        let mut ticks = tokio::time::interval(HOUSEKEEPING);
        while workers.clients() > 0 {
            ticks.tick().await;
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(patience, left) => {}
        () = signals.end() => {}
    }
}

/// Lets running queries finish and tells idle sessions to go, for as long as `patience` lasts.
async fn drain(gateway: &Gateway, patience: Duration) {
    Draining {
        sessions: u64::try_from(gateway.sessions.count()).unwrap_or(u64::MAX),
        patience,
    }
    .emit();
    gateway.sessions.drain();
    drop(tokio::time::timeout(patience, gateway.sessions.emptied()).await);
}

/// Ends whoever is still there.
async fn end_sessions(gateway: &Gateway) {
    let ended = gateway
        .sessions
        .list()
        .into_iter()
        .map(|card| async move { card.kill(FAREWELL).await });
    let all = futures_util::future::join_all(ended);
    drop(tokio::time::timeout(FAREWELL, all).await);
    drop(tokio::time::timeout(FAREWELL, gateway.sessions.emptied()).await);
}

/// Every client and every backend connection is a descriptor; the usual soft limit is 1,024.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, hard, "the limit of open files stays low");
    }
}
