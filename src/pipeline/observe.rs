//! What a relay learns from the replies that pass: how many rows, which error, what was confirmed, what to keep.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::error::ServeError;
use super::gateway::Greeting;
use super::sessions::SessionCard;
use crate::backend::{Fate, Piece};
use crate::cache::Fill;
use crate::quota::QueryTimeExceeded;
use crate::session::{Description, Portal, Prepared};
use crate::wire;

/// What to do with a piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Send it on.
    Relay,
    /// Send this instead.
    Replace(Bytes),
}

/// What a reply of the backend confirms.
#[derive(Debug)]
pub(super) enum Confirmation {
    /// ParseComplete.
    Prepared(Box<[u8]>, Arc<Prepared>),
    /// The description of a statement whose name is given; what it said is in [`Observer::described`].
    Described(Box<[u8]>),
    /// `DEALLOCATE ALL` or `DISCARD ALL`: no statement is left.
    AllClosed,
    /// BindComplete.
    Bound(Box<[u8]>, Portal),
    /// CloseComplete of a statement.
    ClosedStatement(Box<[u8]>),
    /// A reply that changes nothing here: CloseComplete of a portal, BindComplete of one that ends with its request.
    Nothing,
}

/// A COPY from the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CopyIn {
    /// None, or answered.
    #[default]
    None,
    /// The backend reads what the client sends.
    Reading,
    /// The client has sent everything.
    Ended,
}

/// What a request's replies told.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each was seen or not, none is a state"
)]
pub(super) struct Observer {
    /// Collects the answer.
    pub(super) fill: Option<Fill>,
    /// What is to be confirmed, in the order it was sent.
    pub(super) awaited: VecDeque<Confirmation>,
    /// What was confirmed.
    pub(super) confirmed: Vec<Confirmation>,
    /// What to say when the query was cut short by its team's time limit.
    pub(super) time_exceeded: Option<QueryTimeExceeded>,
    /// The RowDescription, while an answer is collected.
    pub(super) row_description: Option<Bytes>,
    /// The CommandComplete, while an answer is collected.
    pub(super) command_complete: Option<Bytes>,
    /// Statements that completed.
    pub(super) completions: u64,
    /// Rows.
    pub(super) rows: u64,
    /// Bytes, of every reply.
    pub(super) bytes: u64,
    /// The first error's SQLSTATE.
    pub(super) error: Option<[u8; 5]>,
    /// A fatal error was relayed: the client knows why the session ends.
    pub(super) fatal: bool,
    /// Descriptions of statements that the client was told.
    pub(super) described: Vec<(Box<[u8]>, Description)>,
    /// A statement that was bound has another description than the client was told: the error that the server has for
    /// what was sent in its place is to be told as this.
    pub(super) plan_changed: bool,
    /// The connection has no prepared statement any more.
    pub(super) all_closed: bool,
    /// Of each transaction that a statement ended, whether it was committed.
    pub(super) ends: Vec<bool>,
    /// `DISCARD ALL` succeeded: the backend's session is as new.
    pub(super) discarded: bool,
    /// Parameters that the client is told as they were at its greeting.
    pub(super) told: Option<Greeting>,
    /// ParameterStatus that came, name and value.
    pub(super) parameters: Vec<(String, String)>,
    extended: bool,
    copy_in: CopyIn,
    /// The backend has asked for COPY data.
    copy_in_begun: bool,
    /// A CopyDone or CopyFail was sent, or goes with what is sent next; clients need not wait until the backend asks.
    copy_end_sent: bool,
    /// The answer is not whole: a portal was suspended, rows were copied, several statements ran.
    partial: bool,
}

impl Observer {
    /// For a request of the simple or the extended protocol.
    pub(super) fn new(extended: bool) -> Self {
        Self {
            extended,
            ..Self::default()
        }
    }

    /// Whether the request is one of the extended protocol.
    pub(super) fn extended(&self) -> bool {
        self.extended
    }

    /// Whether the backend reads COPY data.
    pub(super) fn copying_in(&self) -> bool {
        self.copy_in == CopyIn::Reading
    }

    /// Whether the client has ended its COPY in the extended protocol, and the backend says nothing to it before it is made
    /// to: by a Sync, or whatever comes.
    pub(super) fn copy_in_unanswered(&self) -> bool {
        self.extended && self.copy_in == CopyIn::Ended
    }

    /// Whether the backend has asked for COPY data and never heard that they end: that COPY cannot have succeeded.
    pub(super) fn copy_in_cut_off(&self) -> bool {
        self.copy_in_begun && !self.copy_end_sent
    }

    /// The client ended its COPY.
    pub(super) fn copy_in_ends(&mut self) {
        self.copy_end_sent = true;
        if self.copy_in == CopyIn::Reading {
            self.copy_in = CopyIn::Ended;
        }
    }

    /// The client has asked for the answer to its COPY.
    pub(super) fn copy_in_is_due(&mut self) {
        self.copy_in = CopyIn::None;
    }

    /// Whether the answer is being collected.
    pub(super) fn collects(&self) -> bool {
        self.fill.is_some()
    }

    /// Whether the answer is whole and without an error.
    pub(super) fn whole(&self) -> bool {
        !self.partial && self.error.is_none() && self.command_complete.is_some()
    }

    /// Looks at a piece; `bytes` are its bytes.
    pub(super) fn see(&mut self, piece: &Piece, bytes: &[u8], card: &SessionCard) -> Seen {
        self.bytes += bytes.len() as u64;
        match piece.tag {
            b'D' => {
                self.rows += piece.heads;
                if let Some(fill) = &mut self.fill
                    && fill.push(bytes).is_err()
                {
                    self.fill = None;
                }
            }
            b'C' => self.see_completion(piece, bytes),
            b'T' if self.fill.is_some() => {
                self.partial |= !piece.whole;
                self.row_description = Some(Bytes::copy_from_slice(bytes));
            }
            b'1' | b'2' | b'3' if piece.fate == Fate::Relay => {
                self.confirmed.extend(self.awaited.pop_front());
            }
            b'T' | b'n' if piece.fate == Fate::Relay && piece.described.is_some() => {
                if let (Some(Confirmation::Described(name)), Some(description)) =
                    (self.awaited.pop_front(), piece.described)
                {
                    self.described.push((name, description));
                }
            }
            b'E' if piece.heads > 0 => return self.see_error(bytes, card),
            b'S' => return self.see_parameter(bytes),
            // a notice is not kept, so an answer that came with one is not either
            b's' | b'I' | b'H' | b'N' => self.partial = true,
            b'G' => {
                self.partial = true;
                self.copy_in = CopyIn::Reading;
                self.copy_in_begun = true;
            }
            _ => {}
        }
        Seen::Relay
    }

    fn see_parameter(&mut self, bytes: &[u8]) -> Seen {
        let Ok((name, value)) = wire::parameter_status(bytes) else {
            return Seen::Relay;
        };
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let (name, value) = (text(name), text(value));
        let told = self
            .told
            .as_ref()
            .and_then(|greeting| greeting.parameters.get(&name));
        let seen = match told {
            Some(told) if *told != value => {
                let mut frame = BytesMut::new();
                wire::parameter_status_frame(&name, told, &mut frame);
                Seen::Replace(frame.freeze())
            }
            Some(_) | None => Seen::Relay,
        };
        self.parameters.push((name, value));
        seen
    }

    fn see_completion(&mut self, piece: &Piece, bytes: &[u8]) {
        self.copy_in = CopyIn::None;
        self.completions += 1;
        let tag = wire::command_tag(bytes);
        self.discarded |= tag == b"DISCARD ALL";
        if matches!(tag, b"COMMIT" | b"ROLLBACK") {
            self.ends.push(tag == b"COMMIT");
        }
        if matches!(tag, b"DISCARD ALL" | b"DEALLOCATE ALL") {
            self.all_closed = true;
            self.confirmed.push(Confirmation::AllClosed);
        }
        if self.fill.is_some() {
            self.partial |= !piece.whole || self.command_complete.is_some();
            self.command_complete = Some(Bytes::copy_from_slice(bytes));
        }
    }

    fn see_error(&mut self, bytes: &[u8], card: &SessionCard) -> Seen {
        let fields = wire::ErrorFields::of(bytes);
        self.copy_in = CopyIn::None;
        self.awaited.clear();
        self.fill = None;
        self.fatal |= matches!(fields.severity, b"FATAL" | b"PANIC");
        let code = fields.code.first_chunk::<5>().copied().unwrap_or(*b"XX000");
        if self.plan_changed && code == *b"26000" {
            let error = ServeError::PlanChanged;
            self.error.get_or_insert(*b"0A000");
            let mut frame = BytesMut::new();
            wire::error_response(&error, &mut frame);
            return Seen::Replace(frame.freeze());
        }
        self.error.get_or_insert(code);
        match &self.time_exceeded {
            Some(exceeded) if code == *b"57014" && card.signals.timed_out() => {
                let mut frame = BytesMut::new();
                wire::error_response(exceeded, &mut frame);
                Seen::Replace(frame.freeze())
            }
            Some(_) | None => Seen::Relay,
        }
    }
}
