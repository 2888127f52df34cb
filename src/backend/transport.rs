//! The bytes' way to a backend: TCP, a Unix socket, or TLS over either.

use std::io;
use std::mem::{self, MaybeUninit};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::BackendError;
use crate::auth::{Link, end_point_hash};
use crate::config::Address;

/// An `SSLRequest`.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// How the death of the peer's machine is noticed.
#[derive(Clone, Debug, Default)]
pub struct TcpOptions {
    /// Probes while the connection is silent, unless there are none.
    pub keepalive: Option<TcpKeepalive>,
    /// How long sent bytes may stay unacknowledged, or untransmitted because the peer takes none; `None`: as long as the
    /// system has it.
    pub user_timeout: Option<Duration>,
}

impl TcpOptions {
    /// Sets them on `socket`.
    ///
    /// # Errors
    ///
    /// As the socket has them.
    pub fn apply(&self, socket: &SockRef<'_>) -> io::Result<()> {
        if let Some(keepalive) = &self.keepalive {
            socket.set_tcp_keepalive(keepalive)?;
        }
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        Ok(())
    }
}

/// A connected socket.
pub enum Transport {
    /// TCP in clear.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
    /// Closed: it could not be moved to another thread.
    Lost,
}

impl Transport {
    /// Connects to `address`, with TLS where `tls` is given, and over TCP with `options`.
    ///
    /// # Errors
    ///
    /// The address does not resolve or answer, or the server has no TLS or the wrong certificate.
    pub async fn connect(
        address: &Address,
        tls: Option<&Arc<ClientConfig>>,
        options: &TcpOptions,
    ) -> Result<Self, BackendError> {
        let unreachable = |source| BackendError::Unreachable {
            address: address.to_string(),
            source,
        };
        let (host, port) = match address {
            Address::Tcp { host, port } => (host.as_str(), *port),
            Address::Unix { .. } => {
                let path = address.socket().unwrap_or_default();
                return UnixStream::connect(path)
                    .await
                    .map(Self::Unix)
                    .map_err(unreachable);
            }
        };
        let mut stream = TcpStream::connect((host, port)).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        options.apply(&SockRef::from(&stream)).map_err(unreachable)?;
        let Some(tls) = tls else {
            return Ok(Self::Tcp(stream));
        };
        stream.write_all(&SSL_REQUEST).await.map_err(unreachable)?;
        // one byte and no more: what came with it in clear must not be taken for what TLS protects
        let mut answer = [0; 1];
        stream.read_exact(&mut answer).await.map_err(unreachable)?;
        if answer != *b"S" {
            return Err(BackendError::NoTls(address.to_string()));
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| unreachable(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream = TlsConnector::from(Arc::clone(tls))
            .connect(name, stream)
            .await
            .map_err(|source| BackendError::Tls {
                address: address.to_string(),
                source,
            })?;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// What a login through it goes through: nobody can listen to TLS, nor to a socket of this machine.
    pub fn link(&self) -> Link {
        let binding = match self {
            Self::Tls(stream) => {
                let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
                shown.first().and_then(|certificate| end_point_hash(certificate))
            }
            Self::Tcp(_) | Self::Unix(_) | Self::Lost => None,
        };
        Link {
            protected: matches!(self, Self::Unix(_) | Self::Tls(_)),
            binding,
        }
    }

    /// Whether [`Self::move_here`] can move it. TLS stays where it began: its stream cannot be taken apart.
    pub(super) fn moves(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => true,
            Self::Tls(_) | Self::Lost => false,
        }
    }

    /// Lets the reactor of the current thread watch the socket. True where nothing came for it that was not read.
    ///
    /// # Errors
    ///
    /// The reactor cannot take it; the socket is closed then.
    pub(super) fn move_here(&mut self) -> io::Result<bool> {
        let (moved, quiet) = match mem::replace(self, Self::Lost) {
            Self::Tcp(stream) => {
                let stream = stream.into_std()?;
                let quiet = is_quiet(&SockRef::from(&stream));
                (Self::Tcp(TcpStream::from_std(stream)?), quiet)
            }
            Self::Unix(stream) => {
                let stream = stream.into_std()?;
                let quiet = is_quiet(&SockRef::from(&stream));
                (Self::Unix(UnixStream::from_std(stream)?), quiet)
            }
            other @ (Self::Tls(_) | Self::Lost) => (other, true),
        };
        *self = moved;
        Ok(quiet)
    }

    /// Whether the reactor that watches the socket has seen the peer close it, whatever is still to be read. On any
    /// thread; costs no system call.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::Tcp(stream) => is_closed(stream.ready(Interest::READABLE)),
            Self::Unix(stream) => is_closed(stream.ready(Interest::READABLE)),
            Self::Tls(stream) => is_closed(stream.get_ref().0.ready(Interest::READABLE)),
            Self::Lost => true,
        }
    }

    /// Writes what fits now, without waiting; for a farewell.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
            // the peer takes the closed socket for the farewell
            Self::Tls(_) | Self::Lost => Ok(0),
        }
    }
}

/// Whether what is known of a socket by now says that nothing will come any more.
fn is_closed(readiness: impl Future<Output = io::Result<Ready>>) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(readiness).poll(&mut cx) {
        Poll::Ready(Ok(ready)) => ready.is_read_closed(),
        // its reactor is gone
        Poll::Ready(Err(_)) => true,
        Poll::Pending => false,
    }
}

/// Whether nothing waits to be read, not even the end of the stream. A new registration does not know that yet.
fn is_quiet(socket: &SockRef<'_>) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    socket
        .peek(&mut byte)
        .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn options_reach_the_socket() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = SockRef::from(&stream);
        TcpOptions::default().apply(&socket).unwrap();
        assert!(!socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
        let options = TcpOptions {
            keepalive: Some(TcpKeepalive::new().with_time(Duration::from_mins(1))),
            user_timeout: Some(Duration::from_mins(5)),
        };
        options.apply(&socket).unwrap();
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), options.user_timeout);
    }

    #[test]
    fn a_socket_whose_peer_has_closed_it_is_known_to_have_ended_whatever_it_said_before() {
        let limit = Duration::from_mins(1);
        for said in [&b""[..], b"farewell"] {
            runtime().block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let (mut peer, _) = listener.accept().await.unwrap();
                let transport = Transport::Tcp(stream);
                assert!(!transport.has_ended());
                peer.write_all(said).await.unwrap();
                drop(peer);
                let told = async {
                    while !transport.has_ended() {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(limit, told).await.unwrap();
                // also by a thread without a reactor
                std::thread::scope(|scope| {
                    let elsewhere = scope.spawn(|| transport.has_ended());
                    assert!(elsewhere.join().unwrap());
                });
            });
        }
    }

    #[test]
    fn a_socket_goes_on_at_another_threads_reactor() {
        for (sent, quiet) in [(&b""[..], true), (b"something", false)] {
            let (there, here) = (runtime(), runtime());
            let (mut peer, mut moved) = there.block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let (mut peer, _) = listener.accept().await.unwrap();
                peer.write_all(sent).await.unwrap();
                // once the socket is readable, what was sent has come
                if !sent.is_empty() {
                    stream.readable().await.unwrap();
                }
                (peer, Transport::Tcp(stream))
            });
            here.block_on(async { assert_eq!(moved.move_here().unwrap(), quiet) });
            there.block_on(peer.write_all(b"!")).unwrap();
            drop(there);
            let mut received = vec![0; sent.len() + 1];
            here.block_on(moved.read_exact(&mut received)).unwrap();
            assert_eq!(received, [sent, b"!"].concat());
        }
    }
}
