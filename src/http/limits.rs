//! Bounds on what a stranger can hold: connections, time, bytes.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep};

/// Connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 256;

/// How long a connection may take from being accepted, or from its last answer, to its next answer. More than a minute, so
/// that a scraper that comes once a minute keeps its connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(75);

/// Bytes that a client may send for one answer: a request line, headers, and a body that nobody reads.
pub(super) const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// How long accepting pauses when the process has no file descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Whether connections are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepting {
    /// They are.
    Open,
    /// They wait in the socket's queue.
    Paused,
    /// Another process accepts them.
    Closed,
}

/// A listener whose connections are bounded.
pub(super) struct Bounded {
    /// None once it is closed.
    listener: Option<TcpListener>,
    address: SocketAddr,
    places: Arc<Semaphore>,
    accepting: watch::Receiver<Accepting>,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener, accepting: watch::Receiver<Accepting>) -> io::Result<Self> {
        Ok(Self {
            address: listener.local_addr()?,
            listener: Some(listener),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            accepting,
        })
    }

    /// The next connection, while they are accepted.
    async fn next(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let state = *self.accepting.borrow_and_update();
            if state == Accepting::Closed {
                self.listener = None;
            }
            let listener = self.listener.as_ref().filter(|_| state == Accepting::Open);
            let changed = async {
                if self.accepting.changed().await.is_err() {
                    // nobody is left to change it
                    std::future::pending::<()>().await;
                }
            };
            let Some(listener) = listener else {
                changed.await;
                continue;
            };
            tokio::select! {
                accepted = listener.accept() => return accepted,
                () = changed => {}
            }
        }
    }
}

impl Listener for Bounded {
    type Io = Limited<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // never closed, so there always is a place sooner or later
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        loop {
            match self.next().await {
                Ok((stream, address)) => return (Limited::new(stream, place), address),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(EXHAUSTED).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// A connection that fails when it takes too long or sends too much between two answers.
pub(super) struct Limited<S> {
    stream: S,
    deadline: Pin<Box<Sleep>>,
    received: usize,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> Limited<S> {
    fn new(stream: S, place: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            stream,
            deadline: Box::pin(tokio::time::sleep(PATIENCE)),
            received: 0,
            _place: place,
        }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// An answer is on its way.
    fn answered(&mut self) {
        self.received = 0;
        self.deadline.as_mut().reset(Instant::now() + PATIENCE);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        if self.received >= MAX_REQUEST_BYTES {
            return Poll::Ready(Err(io::Error::other("the request is too long")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.received += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        if sent > 0 {
            self.answered();
        }
        Poll::Ready(Ok(sent))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let sent = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        if sent > 0 {
            self.answered();
        }
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_no_answer_comes_in_time() {
        let (_client, server) = duplex(1_024);
        let mut server = Limited::new(server, None);
        let begun = Instant::now();
        let error = server.read_u8().await.expect_err("nothing was sent");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_begins_the_time_anew() {
        let (mut client, server) = duplex(1_024);
        let mut server = Limited::new(server, None);
        for _ in 0..3 {
            tokio::time::advance(PATIENCE / 2).await;
            client.write_u8(1).await.expect("room");
            assert_eq!(server.read_u8().await.ok(), Some(1));
            server.write_u8(2).await.expect("room");
        }
        // bytes that trickle in do not
        tokio::time::advance(PATIENCE / 2).await;
        client.write_u8(1).await.expect("room");
        assert_eq!(server.read_u8().await.ok(), Some(1));
        tokio::time::advance(PATIENCE / 2).await;
        assert!(server.read_u8().await.is_err());
    }

    #[tokio::test]
    async fn a_request_is_bounded() {
        let (mut client, server) = duplex(2 * MAX_REQUEST_BYTES);
        let mut server = Limited::new(server, None);
        client
            .write_all(&vec![b'x'; 2 * MAX_REQUEST_BYTES])
            .await
            .expect("room");
        let mut buffer = vec![0; MAX_REQUEST_BYTES];
        server.read_exact(&mut buffer).await.expect("as much as may be");
        assert!(server.read_u8().await.is_err());
        server.write_u8(1).await.expect("an answer");
        assert!(server.read_u8().await.is_ok(), "the next request");
    }
}
