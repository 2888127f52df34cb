//! Cancel requests to a backend, and the gate that keeps them from reaching a later query.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures_util::task::AtomicWaker;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::error::BackendError;
use super::transport::{TcpOptions, Transport};
use crate::config::Address;
use crate::wire::CancelKey;

/// What to cancel.
#[derive(Clone)]
pub struct CancelTarget {
    /// The backend.
    pub address: Address,
    /// TLS towards it.
    pub tls: Option<Arc<ClientConfig>>,
    /// The key of the connection that runs the query.
    pub key: CancelKey,
    /// The gate of that connection.
    pub gate: Arc<CancelGate>,
}

/// Counts the cancel requests that are on their way to one connection. The connection is not given back before they
/// have arrived: one that came later would hit somebody else's query.
#[derive(Default)]
pub struct CancelGate {
    under_way: AtomicUsize,
    /// One may arrive late: nobody else may have the connection.
    tainted: AtomicBool,
    waker: AtomicWaker,
}

impl CancelGate {
    /// One more is under way, until the returned value is dropped.
    pub fn enter(self: &Arc<Self>) -> CancelPass {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        CancelPass(Arc::clone(self))
    }

    /// Notes that a request was given up which may arrive all the same.
    pub fn taint(&self) {
        self.tainted.store(true, Ordering::Release);
    }

    /// Whether the connection may serve somebody else: none is under way, and none was given up.
    pub fn clean(&self) -> bool {
        self.clear() && !self.tainted.load(Ordering::Acquire)
    }

    /// Whether none is under way.
    pub fn clear(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }

    /// Waits until none is under way.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn cleared(&self) {
        poll_fn(|cx| {
            if self.clear() {
                return Poll::Ready(());
            }
            self.waker.register(cx.waker());
            if self.clear() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// A cancel request under way.
pub struct CancelPass(Arc<CancelGate>);

impl Drop for CancelPass {
    fn drop(&mut self) {
        if self.0.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.waker.wake();
        }
    }
}

/// Sends a cancel request and waits until the server has acted on it: it closes the connection after it has signalled
/// the process that runs the query (`processCancelRequest`), so from then on the signal hits that query or none.
///
/// # Errors
///
/// The backend does not answer, within `patience`.
pub async fn cancel(target: &CancelTarget, patience: Duration) -> Result<(), BackendError> {
    let send = async {
        let mut transport =
            Transport::connect(&target.address, target.tls.as_ref(), &TcpOptions::default()).await?;
        let mut packet = BytesMut::new();
        packet.put_u32(u32::try_from(12 + target.key.secret.len()).unwrap_or(16));
        packet.put_slice(&[0x04, 0xd2, 0x16, 0x2e]);
        packet.put_u32(target.key.id);
        packet.put_slice(&target.key.secret);
        transport.write_all(&packet).await.map_err(BackendError::Lost)?;
        transport.flush().await.map_err(BackendError::Lost)?;
        let mut rest = [0; 16];
        // any end will do: the server has nothing to say here
        drop(transport.read(&mut rest).await);
        Ok(())
    };
    tokio::time::timeout(patience, send)
        .await
        .map_err(|_| BackendError::Slow(patience))?
}
