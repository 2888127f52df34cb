//! The end of a session, or of a query whose client is gone: the connection is saved where it can be trusted, and closed
//! where it cannot.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use super::session::{Binding, Session};
use super::settle::{SESSION_POOLING, pin_word};
use crate::backend::{Remains, Reset};
use crate::config::Pooling;
use crate::wire::TransactionStatus;

/// How long the backend has to answer a query whose client is gone, after it was asked to stop.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(10);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Gives the connection back as clean as it was, or closes it.
    pub(super) async fn leave(&mut self) {
        if let Some(guard) = self.unanswered.take() {
            self.gateway.doubt(guard, Instant::now());
        }
        // a series that was not ended may have left something running
        if matches!(&self.binding, Binding::Held(lease) if !lease.replies().drained()) {
            self.abandon(false, false).await;
        }
        let Binding::Held(mut lease) = std::mem::replace(&mut self.binding, Binding::Free) else {
            return;
        };
        let whole = self.identity.team.pooling == Pooling::Session;
        let remains = self
            .pins
            .reasons()
            .map(pin_word)
            .chain(whole.then_some(SESSION_POOLING))
            .map(Remains::of_pin)
            .fold(Remains::default(), Remains::and);
        let reset = Reset::of(self.identity.team.backend.kind, remains);
        let clean = async {
            if !lease.replies().settled() {
                return false;
            }
            if lease.status() != TransactionStatus::Idle && lease.roll_back().await.is_err() {
                return false;
            }
            match reset {
                Reset::Run(statements) => lease.clean(&statements).await.is_ok(),
                // what the session left there goes with its connection
                Reset::Close => false,
            }
        };
        let cleaned = tokio::time::timeout(LAST_WORDS, clean).await.unwrap_or(false);
        if cleaned {
            lease.cancel_target().gate.cleared().await;
            if let Some(proof) = lease.at_rest() {
                lease.card().used_by(0);
                lease.give_back(proof, Instant::now());
            }
        }
    }

    /// The client is gone while its query runs: the query is cancelled, and the connection is saved where its answer
    /// still comes. A backend that reads COPY data hears no cancel request; one that got a part of a message, `torn`, waits
    /// for the rest of it, if it runs nothing.
    pub(super) async fn abandon(&mut self, copying_in: bool, torn: bool) {
        let Binding::Held(lease) = &mut self.binding else {
            return;
        };
        if copying_in || !lease.outgoing().is_empty() {
            self.binding = Binding::Free;
            return;
        }
        let patience = self.identity.team.backend.cancel_timeout();
        let target = lease.cancel_target().clone();
        let stop = async {
            let cancel = crate::backend::cancel(&target, patience);
            if torn {
                // it may not have been heard: then nothing runs that would have to stop
                drop(cancel.await);
                return false;
            }
            let (cancelled, drained) = tokio::join!(cancel, lease.drain_replies());
            // a cancel request that may still be on its way would hit whoever has the connection next
            cancelled.is_ok() && drained.is_ok()
        };
        let drained = tokio::time::timeout(LAST_WORDS, stop).await.unwrap_or(false);
        if !drained {
            self.binding = Binding::Free;
        }
    }
}
