//! The side that hands over: it answers at its path for as long as the process lives.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::unistd::geteuid;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::letter::{Kind, Letter, send_with, wrong};
use super::successor::Predecessors;
use crate::frontend::cancel::PATIENCE;
use crate::pipeline::Gateway;
use crate::wire::CancelKey;

/// How long a successor may take to set itself up.
const SET_UP: Duration = Duration::from_mins(2);

/// How long a connection may take to say what it wants.
const QUESTION: Duration = Duration::from_secs(10);

/// Connections served at a time; each is another process of the gateway, or a cancel request that one forwards.
const MAX_CONNECTIONS: usize = 256;

/// Only the gateway's own user may connect.
const MODE: u32 = 0o600;

/// What a successor waits for.
pub struct Asked {
    /// To be answered once nothing is accepted any more.
    stopped: oneshot::Sender<()>,
    /// Whether the successor has heard of it.
    gone: oneshot::Receiver<bool>,
}

impl Asked {
    /// Tells the successor that nothing is accepted here any more. False when it does not hear it: then nobody accepts, and
    /// the caller has to go on with it.
    pub async fn go(self) -> bool {
        if self.stopped.send(()).is_err() {
            return false;
        }
        self.gone.await.unwrap_or(false)
    }
}

/// How this process ended, for its successors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Not yet.
    Alive,
    /// No session is left, and no write in doubt.
    Clean,
}

/// Answers at the path of this process until it is dropped, and then removes the path.
pub struct Predecessor {
    shared: Arc<Shared>,
    asked: mpsc::Receiver<Asked>,
    task: AbortHandle,
}

struct Shared {
    gateway: Arc<Gateway>,
    /// Those that came before this one.
    before: Arc<Predecessors>,
    clients: OwnedFd,
    http: Option<OwnedFd>,
    path: Mutex<PathBuf>,
    asked: mpsc::Sender<Asked>,
    farewell: watch::Sender<Farewell>,
    /// One successor at a time.
    turn: Semaphore,
}

impl Predecessor {
    /// Listens at `path`, to hand over the sockets for clients and for HTTP.
    ///
    /// # Errors
    ///
    /// Another process listens there, or the path cannot be used.
    pub fn listen(
        path: &Path,
        gateway: Arc<Gateway>,
        before: Arc<Predecessors>,
        (clients, http): (OwnedFd, Option<OwnedFd>),
    ) -> io::Result<Self> {
        let listener = listen(path)?;
        let (sender, asked) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            gateway,
            before,
            clients,
            http,
            path: Mutex::new(path.to_owned()),
            asked: sender,
            farewell: watch::Sender::new(Farewell::Alive),
            turn: Semaphore::new(1),
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, asked, task })
    }

    /// Waits until a successor is ready to begin.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn asked(&mut self) -> Asked {
        match self.asked.recv().await {
            Some(asked) => asked,
            // the sender lives as long as this
            None => std::future::pending().await,
        }
    }

    /// Tells those who watch that nothing is left in doubt.
    pub async fn farewell(&self) {
        self.shared.farewell.send_replace(Farewell::Clean);
        // they are gone when they have read it; one that does not read is not waited for
        drop(tokio::time::timeout(QUESTION, self.shared.farewell.closed()).await);
    }
}

impl Drop for Predecessor {
    fn drop(&mut self) {
        self.task.abort();
        // nobody is there any more; somebody else may have removed it
        drop(std::fs::remove_file(&*self.shared.path()));
    }
}

impl Shared {
    fn path(&self) -> std::sync::MutexGuard<'_, PathBuf> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the path to the successor, and is within reach at another.
    fn make_room(&self) -> io::Result<PathBuf> {
        let mut path = self.path();
        let mut aside = path.clone().into_os_string();
        aside.push(format!(".{}", std::process::id()));
        let aside = PathBuf::from(aside);
        std::fs::rename(&*path, &aside)?;
        path.clone_from(&aside);
        Ok(aside)
    }

    /// Takes the path back from a successor that did not begin.
    fn return_to(&self, before: &Path) -> io::Result<()> {
        let mut path = self.path();
        std::fs::rename(&*path, before)?;
        before.clone_into(&mut path);
        Ok(())
    }
}

/// Listens at `path`; what a process that is gone left there is removed.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if path.exists() {
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            Err(error) => return Err(error),
        }
    }
    let listener = UnixListener::bind(path)?;
    // until then the file is the umask's; whoever connected so far is asked for its user, too
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    Ok(listener)
}

async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, &shared).await {
                        tracing::debug!(%error, "a question at the take-over socket was not answered");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed at the take-over socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    let user = stream.peer_cred()?.uid();
    if user != 0 && user != geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let question = tokio::time::timeout(QUESTION, receive(&mut stream)).await??;
    match question.kind {
        Kind::TakeOver => hand_over(stream, shared).await,
        Kind::Cancel => {
            let cancelled = cancel(&question.body, &shared.gateway).await;
            let body = if cancelled { "1" } else { "0" };
            send(&mut stream, &Letter::new(Kind::Cancelled, body)).await
        }
        Kind::Watch => watch(stream, shared).await,
        Kind::Sockets | Kind::Ready | Kind::Go | Kind::Cancelled | Kind::Farewell => {
            Err(wrong("an answer to nothing"))
        }
    }
}

/// Hands the sockets over and waits for the successor to begin; then tells it how this process ends.
async fn hand_over(mut stream: UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    let Ok(_turn) = shared.turn.try_acquire() else {
        return Err(wrong("another successor is being served"));
    };
    let paths: Vec<String> = shared
        .before
        .paths()
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let letter = Letter::new(Kind::Sockets, paths.join("\n")).encode()?;
    let sockets: Vec<_> = std::iter::once(&shared.clients)
        .chain(&shared.http)
        .map(AsFd::as_fd)
        .collect();
    let sent = stream
        .async_io(Interest::WRITABLE, || send_with(&stream, &letter, &sockets))
        .await?;
    stream.write_all(letter.get(sent..).unwrap_or_default()).await?;
    let ready = tokio::time::timeout(SET_UP, receive(&mut stream)).await??;
    if ready.kind != Kind::Ready {
        return Err(wrong("the successor is not ready"));
    }
    let (stopped, has_stopped) = oneshot::channel();
    let (tell, gone) = oneshot::channel();
    let asked = shared.asked.send(Asked { stopped, gone }).await;
    asked.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    has_stopped
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    let path = shared.path().clone();
    let outcome = async {
        let aside = shared.make_room()?;
        send(&mut stream, &Letter::new(Kind::Go, aside.display().to_string())).await?;
        // it confirms, so that a successor that died meanwhile is found out
        let heard = tokio::time::timeout(QUESTION, receive(&mut stream)).await??;
        if heard.kind == Kind::Watch {
            Ok(())
        } else {
            Err(wrong("the successor did not begin"))
        }
    };
    let outcome = outcome.await;
    if outcome.is_err()
        && let Err(error) = shared.return_to(&path)
    {
        tracing::warn!(%error, "the take-over socket is not where it was");
    }
    let told = tell.send(outcome.is_ok());
    // nobody listens any more where this process ends
    told.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    outcome?;
    watch(stream, shared).await
}

/// Tells whoever watches how this process ends; also that it is gone, by the end of the connection.
async fn watch(mut stream: UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    let mut farewell = shared.farewell.subscribe();
    let mut nothing = [0; 1];
    tokio::select! {
        ended = farewell.wait_for(|farewell| *farewell == Farewell::Clean) => drop(ended),
        // it says nothing more; the end of the stream is its own end
        _ = stream.read(&mut nothing) => return Ok(()),
    }
    send(&mut stream, &Letter::new(Kind::Farewell, "")).await
}

/// Cancels what the session with that id (four bytes) and secret (the rest) runs; false when there is nothing.
async fn cancel(key: &[u8], gateway: &Gateway) -> bool {
    let Some((id, secret)) = key.split_first_chunk() else {
        return false;
    };
    let key = CancelKey {
        id: u32::from_be_bytes(*id),
        secret: bytes::Bytes::copy_from_slice(secret),
    };
    match gateway.sessions.find(&key) {
        Some(session) => session.cancel(PATIENCE).await,
        None => false,
    }
}

/// Sends a letter.
///
/// # Errors
///
/// As the socket has them.
pub(super) async fn send(stream: &mut UnixStream, letter: &Letter) -> io::Result<()> {
    stream.write_all(&letter.encode()?).await
}

/// Receives a letter; nothing may follow it.
///
/// # Errors
///
/// The stream ends, or what comes is no letter.
pub(super) async fn receive(stream: &mut UnixStream) -> io::Result<Letter> {
    let mut bytes = Vec::new();
    loop {
        if let Some((letter, length)) = Letter::decode(&bytes)? {
            return if length == bytes.len() {
                Ok(letter)
            } else {
                Err(wrong("more came than was asked for"))
            };
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
