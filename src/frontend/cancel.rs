//! A cancel request, on a connection of its own that gets no answer.

use std::net::SocketAddr;

use super::handover::Predecessors;
use crate::pipeline::Gateway;
use crate::telemetry::event::CancelRequested;
use crate::wire::CancelKey;

/// How long a cancel request may take to reach the backend.
pub(super) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Cancels what the session with that key runs, if there is one; a process before this one may have it.
pub(super) async fn cancel(
    gateway: &Gateway,
    predecessors: &Predecessors,
    key: &CancelKey,
    address: SocketAddr,
) {
    let session = gateway.sessions.find(key);
    let forwarded = match &session {
        Some(session) => session.cancel(PATIENCE).await,
        None => predecessors.cancel(key).await,
    };
    CancelRequested {
        address,
        session: session.map(|session| session.id),
        forwarded,
    }
    .emit(&gateway.metrics);
}
