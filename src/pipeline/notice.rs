//! Waiting with an eye on the client, and a word to one that waits for longer than usual.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::client::Client;
use super::no_connection::in_use;
use super::session::{Interrupted, Session};
use super::sessions::SessionCard;
use crate::pool::Jam;
use crate::quota::QuotaSnapshot;
use crate::types::{BackendName, TeamName};
use crate::wire;

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Waits for `future` while the client may go away, cancel, or be ended.
    pub(super) async fn attend<T>(
        client: &mut Client<S>,
        card: &SessionCard,
        future: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        /// A client that sends ahead while it waits is read up to here.
        const READ_AHEAD: usize = 64 * 1024;
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            card.signals.register(cx);
            if card.signals.killed() {
                return Poll::Ready(Err(Interrupted::Killed));
            }
            if card.signals.timed_out() {
                return Poll::Ready(Err(Interrupted::Timeout));
            }
            if card.signals.cancelled() {
                return Poll::Ready(Err(Interrupted::Cancelled));
            }
            while client.inbox().len() < READ_AHEAD {
                match client.poll_receive(cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Interrupted::Gone)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => break,
                }
            }
            Poll::Pending
        })
        .await
    }

    /// As [`Self::attend`]; a client that has waited for `after` is sent `notice` once, zero never. What its socket does
    /// not take at once goes with the answer.
    pub(super) async fn attend_in_line<T>(
        client: &mut Client<S>,
        card: &SessionCard,
        future: impl Future<Output = T>,
        after: Duration,
        notice: impl FnOnce() -> String,
    ) -> Result<T, Interrupted> {
        let mut future = pin!(future);
        // most do not wait at all: no timer for them
        if let Poll::Ready(value) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Ok(value);
        }
        if after.is_zero() {
            return Self::attend(client, card, future).await;
        }
        let soon = tokio::time::timeout(after, future.as_mut());
        if let Ok(value) = Self::attend(client, card, soon).await? {
            return Ok(value);
        }
        wire::notice_response(&notice(), None, client.outbox());
        poll_fn(|cx| {
            if client.poll_send(&[], cx).is_ready() {
                // a client that is gone is noticed by whoever reads it
                drop(client.poll_flush(cx));
            }
            Poll::Ready(())
        })
        .await;
        Self::attend(client, card, future).await
    }
}

/// What a query is told that has waited for `waited` for one of its team's places, with `ahead` before it.
pub(super) fn for_place(team: &TeamName, waited: Duration, ahead: usize, quota: &QuotaSnapshot) -> String {
    let places = quota.limits.concurrent_queries.unwrap_or(quota.running);
    format!(
        "waiting for a place of team \"{team}\" for {waited:?}: number {position} in line, {running} of {places} places are \
         in use",
        position = ahead + 1,
        running = quota.running,
    )
}

/// What a query is told that has waited for `waited` for a connection.
pub(super) fn for_connection(backend: &BackendName, waited: Duration, jam: &Jam) -> String {
    format!(
        "waiting for a connection to backend \"{backend}\" for {waited:?}: number {position} in the team's line; {in_use}",
        position = jam.ahead + 1,
        in_use = in_use(jam).trim_end_matches('.'),
    )
}
