//! Accepts clients and hands them to the workers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

use super::workers::{Accepted, Workers};
use crate::config;

/// Connections that the kernel keeps waiting.
const BACKLOG: i32 = 4096;

/// How long accepting pauses when the process has no file descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A bound socket.
pub struct Listener {
    socket: TcpListener,
    keepalive: Option<TcpKeepalive>,
}

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

impl Listener {
    /// Accepts on `socket`, with probes that find dead clients.
    pub fn new(socket: TcpListener, keepalive: &config::TcpKeepalive) -> Self {
        let keepalive = (!keepalive.idle.is_zero()).then(|| {
            TcpKeepalive::new()
                .with_time(keepalive.idle)
                .with_interval(keepalive.interval)
                .with_retries(keepalive.probes)
        });
        Self { socket, keepalive }
    }

    /// Accepts until it is dropped.
    pub async fn run(self, workers: &Workers) {
        loop {
            match self.socket.accept().await {
                Ok((stream, address)) => {
                    if let Ok(stream) = self.prepare(stream) {
                        workers.hand_over(Accepted { stream, address });
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

    fn prepare(&self, stream: tokio::net::TcpStream) -> io::Result<std::net::TcpStream> {
        stream.set_nodelay(true)?;
        if let Some(keepalive) = &self.keepalive {
            SockRef::from(&stream).set_tcp_keepalive(keepalive)?;
        }
        stream.into_std()
    }
}
