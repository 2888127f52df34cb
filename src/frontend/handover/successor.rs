//! The side that takes over, and what it keeps of those that were there before.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::letter::{Kind, Letter, receive_with, wrong};
use super::predecessor;
use crate::frontend::cancel::PATIENCE;
use crate::pipeline::Gateway;
use crate::wire::CancelKey;

/// How long the predecessor may take for an answer.
const ANSWER: Duration = Duration::from_secs(30);

/// How long a write may be in doubt whose process ended without a farewell: by then the server has committed it, or has
/// noticed that its client is gone.
const DOUBT: Duration = Duration::from_mins(1);

/// Processes that may be draining at the same time; each take-over adds one.
const MAX_PREDECESSORS: usize = 64;

/// Why nothing was taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// The gateway that runs did not answer as it should.
    #[error("the gateway that runs did not hand over its sockets by {path}", path = .path.display())]
    Refused {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration names no path.
    #[error("listen.take_over_socket is not set: the gateway that runs can hand nothing over without it")]
    NoPath,
}

/// What the predecessor handed over: it still accepts, too.
pub struct TakenOver {
    stream: UnixStream,
    path: PathBuf,
    sockets: Vec<TcpListener>,
    before: Vec<PathBuf>,
}

/// Asks the gateway at `path` for its sockets; `None` when there is none.
///
/// # Errors
///
/// It is there, and does not hand them over.
pub fn take_over(path: &Path) -> Result<Option<TakenOver>, TakeOverError> {
    let stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(refused(path)(error)),
    };
    ask(stream, path).map(Some).map_err(refused(path))
}

fn refused(path: &Path) -> impl Fn(io::Error) -> TakeOverError + '_ {
    |source| TakeOverError::Refused {
        path: path.to_owned(),
        source,
    }
}

fn ask(mut stream: UnixStream, path: &Path) -> io::Result<TakenOver> {
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    stream.write_all(&Letter::new(Kind::TakeOver, "").encode()?)?;
    let mut sockets = Vec::new();
    let letter = receive(&stream, Kind::Sockets, &mut sockets)?;
    let sockets: Vec<TcpListener> = sockets.into_iter().map(TcpListener::from).collect();
    let text = String::from_utf8(letter.body).map_err(|_| wrong("the paths are no text"))?;
    Ok(TakenOver {
        stream,
        path: path.to_owned(),
        sockets,
        before: text.lines().take(MAX_PREDECESSORS).map(PathBuf::from).collect(),
    })
}

fn receive(stream: &UnixStream, kind: Kind, sockets: &mut Vec<OwnedFd>) -> io::Result<Letter> {
    let mut bytes = Vec::new();
    loop {
        if let Some((letter, length)) = Letter::decode(&bytes)? {
            return if letter.kind == kind && length == bytes.len() {
                Ok(letter)
            } else {
                Err(wrong("an answer to something else"))
            };
        }
        let mut some = [0; 4096];
        let count = receive_with(stream, &mut some, sockets)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(some.get(..count).unwrap_or_default());
    }
}

impl TakenOver {
    /// The socket that listens at `address`, where port 0 is any; `None` when there is none like that.
    pub fn socket(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let fits = |socket: &TcpListener| {
            socket
                .local_addr()
                .is_ok_and(|found| found == address || (address.port() == 0 && found.ip() == address.ip()))
        };
        let place = self.sockets.iter().position(fits)?;
        Some(self.sockets.remove(place))
    }

    /// Tells the predecessor to stop, now that everything is ready. When this returns it accepts no more.
    ///
    /// `gateway` keeps nothing in memory from now on until every process before it has ended: what is written there is not
    /// heard of here. `predecessors` hears of all of them.
    ///
    /// # Errors
    ///
    /// The predecessor did not stop: it goes on, and this process must not begin.
    pub fn begin(
        mut self,
        gateway: &Arc<Gateway>,
        predecessors: &Arc<Predecessors>,
    ) -> Result<(), TakeOverError> {
        gateway.note_shared(true);
        let path = self.path.clone();
        let mut talk = || {
            self.stream.write_all(&Letter::new(Kind::Ready, "").encode()?)?;
            let go = receive(&self.stream, Kind::Go, &mut Vec::new())?;
            self.stream.write_all(&Letter::new(Kind::Watch, "").encode()?)?;
            let aside = String::from_utf8(go.body).map_err(|_| wrong("the path is no text"))?;
            self.stream.set_nonblocking(true)?;
            Ok(PathBuf::from(aside))
        };
        let aside = talk().map_err(refused(&path))?;
        let mut watched: Vec<(PathBuf, Option<UnixStream>)> =
            self.before.drain(..).map(|path| (path, None)).collect();
        watched.push((aside, Some(self.stream)));
        predecessors.add(watched.iter().map(|(path, _)| path.clone()));
        let (gateway, predecessors) = (Arc::clone(gateway), Arc::clone(predecessors));
        tokio::spawn(async move {
            let all = watched
                .into_iter()
                .map(|(path, stream)| outlive(path, stream, &predecessors));
            futures_util::future::join_all(all).await;
            gateway.note_shared(false);
            tracing::info!("every process before this one has ended: answers are kept again");
        });
        Ok(())
    }
}

/// Waits until the process at `path` has ended, and what it wrote is no more in doubt.
async fn outlive(path: PathBuf, stream: Option<UnixStream>, predecessors: &Predecessors) {
    let clean = async {
        let mut stream = if let Some(stream) = stream {
            tokio::net::UnixStream::from_std(stream)?
        } else {
            let mut stream = tokio::net::UnixStream::connect(&path).await?;
            predecessor::send(&mut stream, &Letter::new(Kind::Watch, "")).await?;
            stream
        };
        predecessor::receive(&mut stream).await
    };
    let farewell = clean.await;
    predecessors.remove(&path);
    if !farewell.is_ok_and(|letter| letter.kind == Kind::Farewell) {
        tracing::info!(
            path = %path.display(),
            "a process before this one ended in the midst of its work: nothing is kept for a minute"
        );
        tokio::time::sleep(DOUBT).await;
    }
}

/// Processes that were there before and still serve their sessions.
#[derive(Debug, Default)]
pub struct Predecessors(Mutex<Vec<PathBuf>>);

impl Predecessors {
    fn list(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, paths: impl Iterator<Item = PathBuf>) {
        self.list().extend(paths);
    }

    fn remove(&self, path: &Path) {
        self.list().retain(|known| known != path);
    }

    /// Where they are.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.list().clone()
    }

    /// Forwards a cancel request to whoever has the session; true if that cancelled its query.
    pub(in crate::frontend) async fn cancel(&self, key: &CancelKey) -> bool {
        let body = [&key.id.to_be_bytes()[..], &key.secret].concat();
        for path in self.paths() {
            let asked = async {
                let mut stream = tokio::net::UnixStream::connect(&path).await?;
                predecessor::send(&mut stream, &Letter::new(Kind::Cancel, body.as_slice())).await?;
                predecessor::receive(&mut stream).await
            };
            // it has the same patience with its backend
            let answer = tokio::time::timeout(PATIENCE + ANSWER, asked).await;
            if let Ok(Ok(answer)) = answer
                && answer.kind == Kind::Cancelled
                && answer.body == b"1"
            {
                return true;
            }
        }
        false
    }
}
