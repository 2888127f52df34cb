//! What a relay learns from the replies that pass: how many rows, which error, what was confirmed, what to keep.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::error::ServeError;
use super::rename::Naming;
use super::sessions::SessionCard;
use super::told::Told;
use crate::backend::{Asked, Fate, Piece};
use crate::cache::Fill;
use crate::error::SqlState;
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
    /// A statement is at the connection under the client's own name, where SQL finds it. Whether it is the statement itself,
    /// or only takes the name, which whoever named it was to be refused or to take away.
    Visited(Arc<str>, bool),
    /// SQL prepared a statement.
    PreparedBySql(Arc<str>),
    /// SQL closed a statement, or all of them: `DEALLOCATE`, `DISCARD ALL`.
    Deallocated(Option<Arc<str>>),
    /// BindComplete.
    Bound(Box<[u8]>, Portal),
    /// CloseComplete of a statement.
    ClosedStatement(Box<[u8]>),
    /// A reply that changes nothing here: CloseComplete of a portal, BindComplete of one that ends with its request.
    Nothing,
}

/// What the backend is to confirm, in the order it was sent, and how far it has.
#[derive(Debug, Default)]
pub(super) struct Confirmations {
    queue: VecDeque<Confirmation>,
    confirmed: usize,
}

impl Confirmations {
    /// Adds what is to be confirmed after the rest; `more` is empty afterwards.
    pub(super) fn expect(&mut self, more: &mut VecDeque<Confirmation>) {
        if self.queue.is_empty() {
            std::mem::swap(&mut self.queue, more);
        } else {
            self.queue.append(more);
        }
    }

    /// The next one to be confirmed.
    fn next(&self) -> Option<&Confirmation> {
        self.queue.get(self.confirmed)
    }

    /// The next one is confirmed.
    fn confirm(&mut self) {
        self.confirmed = (self.confirmed + 1).min(self.queue.len());
    }

    /// What SQL was to do before the next message was not done as it was read: it is not confirmed.
    fn pass_over_sql(&mut self) {
        while matches!(
            self.next(),
            Some(Confirmation::Visited(..) | Confirmation::PreparedBySql(_) | Confirmation::Deallocated(_))
        ) {
            self.queue.remove(self.confirmed);
        }
    }

    /// What was to be put there for SQL was not needed: it is not confirmed.
    fn pass_over_visits(&mut self) {
        while matches!(self.next(), Some(Confirmation::Visited(..))) {
            self.queue.remove(self.confirmed);
        }
    }

    /// What nothing asked for, and is confirmed now.
    fn insert(&mut self, confirmation: Confirmation) {
        self.queue.insert(self.confirmed, confirmation);
        self.confirmed += 1;
    }

    /// The rest will not be confirmed any more.
    fn fail(&mut self) {
        self.queue.truncate(self.confirmed);
    }

    /// Takes out what was confirmed.
    pub(super) fn take_confirmed(&mut self) -> impl Iterator<Item = Confirmation> {
        let confirmed = std::mem::take(&mut self.confirmed);
        self.queue.drain(..confirmed)
    }

    /// Everything counts as confirmed.
    pub(super) fn confirm_all(&mut self) {
        self.confirmed = self.queue.len();
    }

    /// What is still to be confirmed, once what was has been taken out.
    pub(super) fn into_rest(self) -> VecDeque<Confirmation> {
        self.queue
    }
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
    /// The client has sent a message of this type instead, and the gateway lets the COPY fail.
    Interrupted(u8),
}

/// Why the gateway lets a COPY fail: it is told by this that the COPY did so for no other reason.
const INTERRUPTED: &str = "the gateway got a message that is no part of COPY data";

/// What a request's replies told.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each was seen or not, none is a state"
)]
pub(super) struct Observer {
    /// Collects the answer.
    pub(super) fill: Option<Fill>,
    /// What is to be confirmed.
    pub(super) confirmations: Confirmations,
    /// What to say when the query was cut short by its team's time limit.
    pub(super) time_exceeded: Option<QueryTimeExceeded>,
    /// The RowDescription, while an answer is collected.
    pub(super) row_description: Option<Bytes>,
    /// The CommandComplete, while an answer is collected.
    pub(super) command_complete: Option<Bytes>,
    /// Statements that completed.
    pub(super) completions: u64,
    /// Statements of the client that ran: to their end, or as far as rows were asked for.
    pub(super) ran: usize,
    /// Rows.
    pub(super) rows: u64,
    /// Bytes, of every reply.
    pub(super) bytes: u64,
    /// The first error's SQLSTATE.
    pub(super) error: Option<[u8; 5]>,
    /// The first error arose within code that was called.
    pub(super) error_within: bool,
    /// The relay ended before the whole request was sent: the backend may have a part of a message.
    pub(super) torn: bool,
    /// A fatal error was relayed: the client knows why the session ends.
    pub(super) fatal: bool,
    /// Descriptions of statements that the client was told.
    pub(super) described: Vec<(Box<[u8]>, Description)>,
    /// Where the request names statements, and what they are called at the connection.
    pub(super) namings: Vec<Naming>,
    /// The unnamed statement could not be prepared: there is none any more.
    pub(super) unnamed_failed: bool,
    /// A `Parse` of the client's or the gateway's has failed that may have been of the unnamed statement: the connection may
    /// have none any more.
    pub(super) unnamed_lost: bool,
    /// A statement that the connection should have is not there.
    pub(super) lost_statement: bool,
    /// A statement did what was not foreseen, and has left something.
    pub(super) unforeseen: bool,
    /// A statement that was bound has another description than the client was told: the error that the server has for
    /// what was sent in its place is to be told as this.
    pub(super) plan_changed: bool,
    /// The connection has no prepared statement any more.
    pub(super) all_closed: bool,
    /// Of each transaction that a statement ended, whether it was committed.
    pub(super) ends: Vec<bool>,
    /// `DISCARD ALL` succeeded: the backend's session is as new.
    pub(super) discarded: bool,
    /// What the client was told of parameters, lent by its session.
    pub(super) told: Told,
    /// ParameterStatus that came, name and value.
    pub(super) parameters: Vec<(String, String)>,
    extended: bool,
    /// The gateway asks for itself, before the client's messages are sent.
    pub(super) asking: bool,
    copy_in: CopyIn,
    /// Ends of COPY data that were sent before the backend asked for the data.
    ends_ahead: u32,
    /// The backend has asked for COPY data.
    copy_in_begun: bool,
    /// It did so for a portal, not for a simple query, which may stand at the end of a series, too.
    copy_in_series: bool,
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

    /// Whether the backend reads COPY data for a portal: it then ignores a Sync, which counts after the end of the data.
    pub(super) fn copying_in_series(&self) -> bool {
        self.copy_in_series && self.copying_in()
    }

    /// Whether the backend reads COPY data.
    pub(super) fn copying_in(&self) -> bool {
        self.copy_in == CopyIn::Reading
    }

    /// Whether the client has ended its COPY in the extended protocol, and the backend says nothing to it before it is made
    /// to: by a Sync, or whatever comes.
    pub(super) fn copy_in_unanswered(&self) -> bool {
        self.copy_in_series && self.copy_in == CopyIn::Ended
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
        } else {
            self.ends_ahead += 1;
        }
    }

    /// The client has sent a message of type `tag` where COPY data were due: writes to `out` what lets the COPY fail.
    pub(super) fn interrupt_copy(&mut self, tag: u8, out: &mut BytesMut) {
        self.copy_in = CopyIn::Interrupted(tag);
        wire::copy_fail_frame(INTERRUPTED, out);
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
                self.confirmations.pass_over_sql();
                self.confirmations.confirm();
            }
            b'1' if piece.answers == Some(Asked::Parse(None))
                && matches!(self.confirmations.next(), Some(Confirmation::Visited(..))) =>
            {
                self.confirmations.confirm();
            }
            b'T' | b'n' if piece.described.is_some() => {
                if let (Some(Confirmation::Described(name)), Some(description)) =
                    (self.confirmations.next(), piece.described)
                {
                    self.described.push((name.clone(), description));
                    self.confirmations.confirm();
                }
            }
            b'E' if piece.heads > 0 => {
                let unnamed = piece.answers == Some(Asked::Parse(None));
                let confirms_it = matches!(self.confirmations.next(), Some(Confirmation::Prepared(name, _)) if name.is_empty());
                self.unnamed_failed |= unnamed && confirms_it;
                let of_another = matches!(
                    self.confirmations.next(),
                    Some(Confirmation::Prepared(..) | Confirmation::Visited(..))
                );
                self.unnamed_lost |= unnamed && (confirms_it || !of_another);
                return self.see_error(bytes, piece.whole, card);
            }
            b'S' => return self.see_parameter(bytes),
            b'Z' if piece.fate == Fate::Relay => return self.see_ready(bytes),
            // a notice is not kept, so an answer that came with one is not either
            b's' => {
                self.partial = true;
                self.ran += usize::from(piece.fate == Fate::Relay);
            }
            b'I' | b'H' | b'N' => self.partial = true,
            b'G' => {
                self.partial = true;
                // the client may have sent all of it before it was asked
                self.copy_in = if self.ends_ahead > 0 {
                    self.ends_ahead -= 1;
                    CopyIn::Ended
                } else {
                    CopyIn::Reading
                };
                self.copy_in_begun = true;
                self.copy_in_series = piece.answers == Some(Asked::Execute);
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
        if self.asking {
            // it is set back before the client's own messages are sent
            return Seen::Replace(Bytes::new());
        }
        let frame = self.told.report(&name, &value, self.error.is_some());
        self.parameters.push((name, value));
        Seen::Replace(frame)
    }

    /// What the client has to hear before it is told that the server is ready.
    fn see_ready(&mut self, bytes: &[u8]) -> Seen {
        if self.fatal {
            // the last that the client hears
            return Seen::Replace(Bytes::new());
        }
        let mut frames = self.told.ready(self.error.is_some());
        if frames.is_empty() {
            return Seen::Relay;
        }
        frames.extend_from_slice(bytes);
        Seen::Replace(frames.freeze())
    }

    fn see_completion(&mut self, piece: &Piece, bytes: &[u8]) {
        self.copy_in = CopyIn::None;
        self.completions += 1;
        let tag = wire::command_tag(bytes);
        self.ran += usize::from(piece.fate == Fate::Relay);
        self.discarded |= tag == b"DISCARD ALL";
        if matches!(tag, b"COMMIT" | b"ROLLBACK") {
            self.ends.push(tag == b"COMMIT");
        }
        self.see_deallocation(tag);
        if self.fill.is_some() {
            self.partial |= !piece.whole || self.command_complete.is_some();
            self.command_complete = Some(Bytes::copy_from_slice(bytes));
        }
    }

    /// A completion of what SQL did with statements confirms it.
    fn see_deallocation(&mut self, tag: &[u8]) {
        if matches!(tag, b"PREPARE" | b"DEALLOCATE") {
            self.confirmations.pass_over_visits();
        }
        let next = self.confirmations.next();
        match tag {
            b"PREPARE" if matches!(next, Some(Confirmation::PreparedBySql(_))) => {
                self.confirmations.confirm();
            }
            b"PREPARE" => self.unforeseen = true,
            b"DEALLOCATE" if matches!(next, Some(Confirmation::Deallocated(Some(_)))) => {
                self.confirmations.confirm();
            }
            b"DISCARD ALL" | b"DEALLOCATE ALL" => {
                self.all_closed = true;
                if matches!(next, Some(Confirmation::Deallocated(None))) {
                    self.confirmations.confirm();
                } else {
                    self.confirmations.insert(Confirmation::Deallocated(None));
                }
            }
            _ => {}
        }
    }

    fn see_error(&mut self, bytes: &[u8], whole: bool, card: &SessionCard) -> Seen {
        let fields = wire::ErrorFields::of(bytes);
        let copy_in = std::mem::take(&mut self.copy_in);
        self.confirmations.fail();
        self.fill = None;
        self.fatal |= matches!(fields.severity, b"FATAL" | b"PANIC");
        let code = fields.code.first_chunk::<5>().copied().unwrap_or(*b"XX000");
        if let CopyIn::Interrupted(tag) = copy_in
            && memchr::memmem::find(fields.message, INTERRUPTED.as_bytes()).is_some()
        {
            return self.out_of_step(tag, bytes);
        }
        if self.plan_changed && code == *b"26000" {
            let error = ServeError::PlanChanged;
            self.error.get_or_insert(*b"0A000");
            let mut frame = BytesMut::new();
            wire::error_response(&error, &mut frame);
            return Seen::Replace(frame.freeze());
        }
        if self.error.is_none() {
            self.error = Some(code);
            // of a long message only the beginning was read
            self.error_within = !whole || !fields.context.is_empty();
        }
        match &self.time_exceeded {
            Some(exceeded) if code == *b"57014" && card.signals.timed_out() => {
                let mut frame = BytesMut::new();
                wire::error_response(exceeded, &mut frame);
                Seen::Replace(frame.freeze())
            }
            Some(_) | None => self.in_the_clients_words(bytes, fields.message),
        }
    }

    /// A COPY failed since a message of type `tag` came in its midst: told as the server would, which then closes the
    /// connection. `bytes` are its error, which says where in the data that was.
    fn out_of_step(&mut self, tag: u8, bytes: &[u8]) -> Seen {
        let message = format!("unexpected message type 0x{tag:02X} during COPY from stdin");
        let code = SqlState::PROTOCOL_VIOLATION.as_str().as_bytes();
        let no_source = [(b'F', &b""[..]), (b'L', b""), (b'R', b"")];
        let changed = [&[(b'C', code), (b'M', message.as_bytes())], &no_source[..]].concat();
        let mut frames = BytesMut::from(&wire::with_fields(bytes, &changed)[..]);
        wire::error_response(&ServeError::OutOfStep, &mut frames);
        self.error = code.first_chunk().copied();
        self.fatal = true;
        Seen::Replace(frames.freeze())
    }

    /// An error that names a statement as the connection does is told with the client's name for it.
    fn in_the_clients_words(&mut self, bytes: &[u8], message: &[u8]) -> Seen {
        let renamed = self.namings.iter().find_map(|naming| {
            let number = naming.number?.to_string();
            let at = memchr::memmem::find(message, number.as_bytes())?;
            // a longer number begins with a shorter one
            let whole = message
                .get(at + number.len())
                .is_none_or(|next| !next.is_ascii_digit());
            let known = naming.known().filter(|_| whole)?;
            Some((at, number.len(), Arc::clone(&known.name)))
        });
        let Some((at, len, name)) = renamed else {
            return Seen::Relay;
        };
        let (before, after) = (message.get(..at), message.get(at + len..));
        self.lost_statement |= self.error == Some(*b"26000");
        let told = [before.unwrap_or_default(), &*name, after.unwrap_or_default()].concat();
        Seen::Replace(wire::with_fields(bytes, &[(b'M', &told)]))
    }
}
