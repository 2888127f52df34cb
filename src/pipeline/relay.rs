//! Bytes in both directions, until the backend has answered.
//!
//! Both directions are polled in turn, so that neither can block the other when both are full; rows go from the socket's
//! buffer to the client without being decoded or copied. While it runs, the client is read too: COPY data goes on to the
//! backend, and a client that goes away is noticed.

use std::future::poll_fn;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use super::client::Client;
use super::observe::{Observer, Seen};
use super::sessions::SessionCard;
use crate::backend::{Asked, Asker, BackendError, Connection, Fate};
use crate::wire::{self, FrontendTag};

/// Bytes that are read ahead from a client while its query runs; more waits in the socket.
const READ_AHEAD: usize = 64 * 1024;

/// How a relay ended.
#[derive(Debug)]
pub(super) enum RelayEnd {
    /// Every reply that was asked for has come and was sent on.
    Done,
    /// The client is gone.
    ClientGone,
    /// The connection to the backend is gone, or cannot be trusted any more.
    BackendGone(BackendError),
    /// The administrator ends the session.
    Killed,
    /// The backend did not stop a query that ran for too long.
    Unresponsive,
}

/// One relay.
pub(super) struct Relay<'a, S> {
    pub(super) client: &'a mut Client<S>,
    pub(super) backend: &'a mut Connection,
    pub(super) card: &'a SessionCard,
    pub(super) observer: &'a mut Observer,
    /// Bytes at the front of the inbox that belong to the request.
    pub(super) to_send: usize,
    /// Bytes of the request's last message that have not come yet.
    pub(super) to_come: usize,
    /// Whether replies are due. Not after a part of a series, which the server answers later.
    pub(super) answered: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Relay<'_, S> {
    /// Relays until the end.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a connection whose relay was dropped must be closed.
    pub(super) async fn run(mut self) -> RelayEnd {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let end = self.poll_both(cx);
        if end.is_ready() {
            self.observer.torn = self.to_send > 0 || self.to_come > 0;
        }
        end
    }

    fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        self.card.signals.register(cx);
        if self.card.signals.killed() {
            self.part();
            return Poll::Ready(RelayEnd::Killed);
        }
        if self.card.signals.unresponsive() {
            self.part();
            return Poll::Ready(RelayEnd::Unresponsive);
        }
        // each direction goes on until it has to wait or has nothing to do; only what the client says meanwhile can give
        // one of them more
        loop {
            if let Err(error) = self.upstream(cx) {
                return Poll::Ready(self.backend_gone(error, cx));
            }
            if let Err(end) = self.downstream(cx) {
                return Poll::Ready(end);
            }
            if self.finished() {
                return Poll::Ready(RelayEnd::Done);
            }
            match self.listen(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(end) => return Poll::Ready(end),
            }
        }
    }

    /// Whether everything was sent and answered. The last replies are then in the outbox: whoever asked hears them after what
    /// they mean was settled, so that the next to come finds the place free and what was written stale.
    fn finished(&mut self) -> bool {
        if !self.answered_in_full() {
            return false;
        }
        let window = self.backend.window().len();
        self.client.outbox().extend_from_slice(self.backend.window());
        self.backend.consume(window);
        true
    }

    fn answered_in_full(&mut self) -> bool {
        self.to_send == 0
            && self.to_come == 0
            && self.backend.outgoing().is_empty()
            && (!self.answered || self.backend.replies().drained())
    }

    /// Sends what is there for the backend, until it has to wait.
    fn upstream(&mut self, cx: &mut Context<'_>) -> Result<(), BackendError> {
        while self.to_send > 0 || !self.backend.outgoing().is_empty() {
            let bytes = self.client.inbox().get(..self.to_send).unwrap_or_default();
            match self.backend.poll_send(bytes, cx) {
                Poll::Ready(Ok(sent)) => {
                    self.client.consume(sent);
                    self.to_send -= sent;
                    if self.to_send == 0 {
                        match self.backend.poll_flush(cx) {
                            Poll::Ready(Ok(())) | Poll::Pending => {}
                            Poll::Ready(Err(error)) => return Err(error),
                        }
                    }
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Looks at what came from the backend, sends it on, and receives more, until it has to wait.
    fn downstream(&mut self, cx: &mut Context<'_>) -> Result<(), RelayEnd> {
        loop {
            if let Err(error) = self.scan() {
                return Err(self.backend_gone(error, cx));
            }
            if self.answered_in_full() {
                return Ok(());
            }
            self.send_window(cx)?;
            if !self.backend.wants_to_receive() || (self.answered && self.backend.replies().drained()) {
                return Ok(());
            }
            match self.backend.poll_receive(cx) {
                Poll::Ready(Ok(0)) => return Err(self.backend_gone(BackendError::Closed, cx)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(self.backend_gone(error, cx)),
                Poll::Pending => return Ok(()),
            }
        }
    }

    fn scan(&mut self) -> Result<(), BackendError> {
        while let Some(piece) = self.backend.next_piece()? {
            let seen = self.observer.see(&piece, self.backend.bytes(&piece), self.card);
            if seen == Seen::Relay && piece.fate == Fate::Relay {
                continue;
            }
            // what stands before it goes ahead by way of the outbox
            let before = self.backend.window().get(..piece.start).unwrap_or_default();
            self.client.outbox().extend_from_slice(before);
            if let Seen::Replace(frame) = seen {
                self.client.outbox().extend_from_slice(&frame);
            }
            self.backend.consume(piece.end);
        }
        Ok(())
    }

    fn send_window(&mut self, cx: &mut Context<'_>) -> Result<(), RelayEnd> {
        while !self.backend.window().is_empty() || !self.client.outbox().is_empty() {
            match self.client.poll_send(self.backend.window(), cx) {
                Poll::Ready(Ok(sent)) => {
                    self.backend.consume(sent);
                    if self.backend.window().is_empty() && self.client.poll_flush(cx).is_pending() {
                        break;
                    }
                }
                Poll::Ready(Err(_)) => return Err(RelayEnd::ClientGone),
                Poll::Pending => {
                    // others wait for this answer: a slow client must not hold it up. What is collected is bounded
                    if self.observer.collects() && !self.backend.window().is_empty() {
                        let window = self.backend.window().len();
                        self.client.outbox().extend_from_slice(self.backend.window());
                        self.backend.consume(window);
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    /// Receives from the client: the rest of a long message, COPY data, or the end.
    fn listen(&mut self, cx: &mut Context<'_>) -> Result<bool, RelayEnd> {
        let mut progress = false;
        if self.to_send == 0 {
            let answered = self.answered;
            progress |= self.take_copy_messages() || self.answered != answered;
        }
        if self.observer.copying_in() && self.to_send == 0 && self.to_come == 0 {
            progress |= self.look_for_interruption()?;
        }
        if self.client.inbox().len() >= READ_AHEAD {
            return Ok(progress);
        }
        match self.client.poll_receive(cx) {
            Poll::Ready(Ok(0) | Err(_)) => Err(RelayEnd::ClientGone),
            Poll::Ready(Ok(received)) => {
                if self.to_come > 0 {
                    let some = received.min(self.to_come);
                    self.to_come -= some;
                    self.to_send += some;
                }
                Ok(true)
            }
            Poll::Pending => Ok(progress),
        }
    }

    /// What is no part of COPY data ends them, and the session: true when the COPY was ended. The server is not sent it, which
    /// may have ended the COPY by itself and would take it for the next request.
    fn look_for_interruption(&mut self) -> Result<bool, RelayEnd> {
        let inbox = self.client.inbox();
        match inbox.first() {
            None => Ok(false),
            // whoever says farewell in the midst of its data waits for nothing
            Some(b'X') => Err(RelayEnd::ClientGone),
            Some(b'd' | b'c' | b'f' | b'S' | b'H') => match wire::client_header(inbox) {
                Ok(_) => Ok(false),
                Err(_) => Err(RelayEnd::ClientGone),
            },
            Some(&tag) => {
                self.observer.interrupt_copy(tag, self.backend.outgoing());
                self.backend.note_copy_ended();
                Ok(true)
            }
        }
    }

    /// COPY messages at the front of the inbox belong to the query that runs, and so do Sync and Flush while it reads.
    fn take_copy_messages(&mut self) -> bool {
        let before = self.to_send;
        while self.to_come == 0 {
            let rest = self.client.inbox().get(self.to_send..).unwrap_or_default();
            // an invalid header is found again, and answered, when the next request is collected
            let Ok(Some((tag, header))) = wire::client_header(rest) else {
                break;
            };
            match tag {
                FrontendTag::CopyData => {}
                // also a part of one: a reason for failing may be long
                FrontendTag::CopyDone | FrontendTag::CopyFail => {
                    self.backend.note_copy_ended();
                    self.observer.copy_in_ends();
                }
                FrontendTag::Sync if self.observer.copying_in() && rest.len() >= header.len => {
                    if self.observer.copying_in_series() {
                        self.backend.note_sent(Asked::Sync, Asker::Client);
                    }
                }
                FrontendTag::Flush if self.observer.copying_in() && rest.len() >= header.len => {}
                // the backend keeps its answer to the COPY back until something makes it send it
                FrontendTag::Sync | FrontendTag::Flush
                    if self.observer.copy_in_unanswered() && rest.len() >= header.len =>
                {
                    if tag == FrontendTag::Sync {
                        self.backend.note_sent(Asked::Sync, Asker::Client);
                        self.observer.copy_in_is_due();
                    }
                }
                FrontendTag::Query
                | FrontendTag::Parse
                | FrontendTag::Bind
                | FrontendTag::Describe
                | FrontendTag::Execute
                | FrontendTag::Close
                | FrontendTag::FunctionCall
                    if self.observer.copy_in_unanswered() =>
                {
                    // the next request of the same series, which the answer comes with
                    self.answered = false;
                    break;
                }
                FrontendTag::Sync
                | FrontendTag::Flush
                | FrontendTag::Query
                | FrontendTag::Parse
                | FrontendTag::Bind
                | FrontendTag::Describe
                | FrontendTag::Execute
                | FrontendTag::Close
                | FrontendTag::FunctionCall
                | FrontendTag::Terminate => break,
            }
            let here = header.len.min(rest.len());
            self.to_send += here;
            self.to_come = header.len - here;
        }
        self.to_send > before
    }

    /// What the backend said last may explain why it closed the connection: the client gets it.
    fn backend_gone(&mut self, error: BackendError, cx: &mut Context<'_>) -> RelayEnd {
        while let Poll::Ready(Ok(received)) = self.backend.poll_receive(cx) {
            if received == 0 {
                break;
            }
        }
        // what cannot be trusted any more ends where it could be
        drop(self.scan());
        self.part();
        RelayEnd::BackendGone(error)
    }

    /// The client gets what was looked at, of which it may have a part already: what it is told then must not stand
    /// within a message. A message of which the backend owes the rest is the end of its stream.
    fn part(&mut self) {
        let window = self.backend.window().len();
        self.client.outbox().extend_from_slice(self.backend.window());
        self.backend.consume(window);
        if self.backend.within_frame() {
            self.client.tear();
        }
    }
}
