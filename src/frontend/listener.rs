//! Accepts clients and hands them to the workers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::workers::{Accepted, Workers};

/// Connections that the kernel keeps waiting.
const BACKLOG: i32 = 4096;

/// How long accepting pauses when the process has no file descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A bound socket.
pub struct Listener(TcpListener);

/// Binds `address`, which a server that just stopped may still have in `TIME_WAIT`.
///
/// # Errors
///
/// Somebody else listens there, or the address is not of this machine.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Goes on listening on `socket`, which another process bound.
///
/// # Errors
///
/// The runtime cannot watch it.
pub fn adopt(socket: std::net::TcpListener) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

impl Listener {
    /// Accepts on `socket`.
    pub fn new(socket: TcpListener) -> Self {
        Self(socket)
    }

    /// Accepts until it is dropped.
    pub async fn run(self, workers: &Workers) {
        loop {
            workers.room().await;
            match self.0.accept().await {
                Ok((stream, address)) => {
                    if let Ok(stream) = stream.into_std() {
                        workers.hand_over(Accepted { stream, address }).await;
                    }
                }
                // the client went away before it was accepted, or no descriptor is left: neither ends the listener
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(EXHAUSTED).await;
                }
            }
        }
    }
}
