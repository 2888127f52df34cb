//! One backend connection: its buffers, what it owes, and what it was set to.

mod own;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::cancel::CancelTarget;
use super::error::BackendError;
use super::replies::{Asked, Asker, Fate, Replies, at_rest};
use super::servers::{Registered, ServerCard};
use super::statements::Statements;
use super::transport::Transport;
use crate::pool::Home;
use crate::session::{Description, Settings, is_custom};
use crate::wire::{self, MAX_FRAME, TransactionStatus};

pub(super) use own::refusal;

/// Bytes that are read ahead of the client: more waits in the socket.
const READ_AHEAD: usize = 64 * 1024;

/// Frames that are looked into are held whole up to this size; a longer one passes through unread.
const MAX_INSPECTED: usize = 1 << 20;

/// Names of clients' own settings that are remembered of one connection.
const MAX_CUSTOM: usize = 1_000;

/// Evidence that a connection owes nothing, is in no transaction, and has no cancel request on its way to it.
pub struct AtRest(());

/// A frame, a part of a long one, or several rows, at the front of what was received. It lies in the buffer at `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The frame's tag.
    pub tag: u8,
    /// Where it begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// How many frames begin in it: none in the rest of a long one, several in a run of rows.
    pub heads: u64,
    /// Whether it is a whole frame.
    pub whole: bool,
    /// Who it is for.
    pub fate: Fate,
    /// It ends the description of a shared statement.
    pub described: Option<Description>,
    /// What it answers; `None` for what comes at any time, and in the rest of a long frame.
    pub answers: Option<Asked>,
}

/// The rest of a frame that is longer than what was received of it.
#[derive(Clone, Copy)]
struct Passing {
    tag: u8,
    left: usize,
    fate: Fate,
}

/// A logged-in connection.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, none a state"
)]
pub struct Connection {
    stream: Transport,
    received: BytesMut,
    /// Up to here, `received` was handed out as pieces.
    scanned: usize,
    passing: Option<Passing>,
    to_send: BytesMut,
    replies: Replies,
    status: TransactionStatus,
    /// What it was set to; `None` when that is not known.
    settings: Option<Settings>,
    /// Settings of clients' own that exist here, which no statement takes away.
    custom: BTreeSet<Arc<str>>,
    /// Numbers of sequences may have been taken since they were forgotten last.
    numbers: bool,
    statements: Statements,
    /// The description of a shared statement of which the parameters have come.
    parameters_digest: Option<u128>,
    /// It has something that nobody will take away: it is not to be used by anybody else.
    spoilt: bool,
    /// Names of statements that its session has left there and the gateway has to take away.
    leftovers: Vec<Box<[u8]>>,
    /// Somebody knows its process id, who may end it at whatever time: it is not to be used by anybody else.
    known: bool,
    parameters: BTreeMap<String, String>,
    login_notices: Bytes,
    search_path: Arc<str>,
    reads_committed: bool,
    cancel: Arc<CancelTarget>,
    registered: Registered,
    /// The thread whose reactor watches the socket.
    home: Home,
}

/// What login found out.
pub(super) struct LoggedIn {
    pub(super) stream: Transport,
    pub(super) received: BytesMut,
    pub(super) parameters: BTreeMap<String, String>,
    /// Whole frames.
    pub(super) notices: Bytes,
    pub(super) cancel: CancelTarget,
    pub(super) registered: Registered,
}

impl Connection {
    pub(super) fn new(login: LoggedIn) -> Self {
        Self {
            stream: login.stream,
            received: login.received,
            scanned: 0,
            passing: None,
            to_send: BytesMut::new(),
            replies: Replies::default(),
            status: TransactionStatus::Idle,
            settings: Some(Settings::default()),
            custom: BTreeSet::new(),
            numbers: false,
            statements: Statements::default(),
            parameters_digest: None,
            spoilt: false,
            leftovers: Vec::new(),
            known: false,
            parameters: login.parameters,
            login_notices: login.notices,
            search_path: "".into(),
            reads_committed: false,
            cancel: Arc::new(login.cancel),
            registered: login.registered,
            home: Home::here(),
        }
    }

    /// Parameters that the server reported at login.
    pub fn parameters(&self) -> &BTreeMap<String, String> {
        &self.parameters
    }

    /// The notices that came with the login, as frames; at most some thousand bytes.
    pub fn login_notices(&self) -> &Bytes {
        &self.login_notices
    }

    /// The search path that the login has by itself.
    pub fn default_search_path(&self) -> &Arc<str> {
        &self.search_path
    }

    /// Whether each statement of its transactions sees what is committed when it begins, unless they say otherwise.
    pub fn reads_committed(&self) -> bool {
        self.reads_committed
    }

    /// How to cancel what it runs.
    pub fn cancel_target(&self) -> &Arc<CancelTarget> {
        &self.cancel
    }

    /// Its line in the console.
    pub fn card(&self) -> &ServerCard {
        &self.registered.card
    }

    /// The transaction status of the last ReadyForQuery.
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// What it still owes.
    pub fn replies(&self) -> &Replies {
        &self.replies
    }

    /// Evidence that it can serve another session, if it can.
    pub fn at_rest(&self) -> Option<AtRest> {
        let rests = at_rest(&self.replies, self.status)
            && self.received.is_empty()
            && self.to_send.is_empty()
            && self.passing.is_none()
            && !self.spoilt
            && self.leftovers.is_empty()
            && !self.known
            && self.cancel.gate.clean();
        rests.then_some(AtRest(()))
    }

    /// What it is set to, where that is known.
    pub fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    /// Notes a parameter that the server reported while it answered a session.
    pub fn note_parameter(&mut self, name: String, value: String) {
        self.parameters.insert(name, value);
    }

    /// Notes what it is set to now; `None`: not known, so everything is set again before the next use.
    pub fn note_settings(&mut self, settings: Option<Settings>) {
        self.settings = settings;
    }

    /// Notes that a setting may exist from here on, where it is a client's own. With very many, nobody else gets the
    /// connection.
    pub fn note_defined(&mut self, name: &Arc<str>) {
        if !is_custom(name) || self.custom.contains(name) {
            return;
        }
        if self.custom.len() >= MAX_CUSTOM {
            self.spoilt = true;
        } else {
            self.custom.insert(Arc::clone(name));
        }
    }

    /// Whether it has settings of clients' own.
    pub fn has_custom(&self) -> bool {
        !self.custom.is_empty()
    }

    /// Whether a session with `settings` that is about to set `also` meets no setting that it has not set itself.
    pub fn suits(&self, settings: &Settings, also: &[Arc<str>]) -> bool {
        let mut custom = self.custom.iter();
        custom.all(|name| settings.value(name).is_some() || also.contains(name))
    }

    /// The prepared statements that it has for all sessions.
    pub fn statements(&self) -> &Statements {
        &self.statements
    }

    /// See [`Self::statements`].
    pub fn statements_mut(&mut self) -> &mut Statements {
        &mut self.statements
    }

    /// Nobody else is to use it: when it is free, it is closed.
    pub fn spoil(&mut self) {
        self.spoilt = true;
    }

    /// A statement may be left under a name that a client chose. Until it is taken away, nobody else is to use the
    /// connection.
    pub fn leave_behind(&mut self, name: &[u8]) {
        self.leftovers.push(name.into());
    }

    /// The name was taken away, whoever took it.
    pub fn not_left_behind(&mut self, name: &[u8]) {
        self.leftovers.retain(|left| **left != *name);
    }

    /// Asks for what was left behind to be taken away; outside of a series.
    pub fn clear_leftovers(&mut self) {
        for name in std::mem::take(&mut self.leftovers) {
            wire::close_statement_frame(&name, &mut self.to_send);
            self.replies.sent(Asked::Close(None), Asker::Gateway);
        }
    }

    /// A client knows its process id. Nobody else is to use it: when it is free, it is closed.
    pub fn note_known(&mut self) {
        self.known = true;
    }

    /// Notes that a message was sent, or will be with the next bytes.
    pub fn note_sent(&mut self, asked: Asked, asker: Asker) {
        self.replies.sent(asked, asker);
    }

    /// Notes that a CopyDone or CopyFail was sent.
    pub fn note_copy_ended(&mut self) {
        self.replies.copy_ended();
    }

    /// Where bytes for the server are put; [`Self::poll_send`] sends them.
    pub fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.to_send
    }

    /// The bytes of what was handed out as pieces and not taken yet.
    pub fn window(&self) -> &[u8] {
        self.received.get(..self.scanned).unwrap_or_default()
    }

    /// The bytes of `piece`.
    pub fn bytes(&self, piece: &Piece) -> &[u8] {
        self.received.get(piece.start..piece.end).unwrap_or_default()
    }

    /// Takes `count` bytes off the front of the window.
    pub fn consume(&mut self, count: usize) {
        let count = count.min(self.scanned);
        self.received.advance(count);
        self.scanned -= count;
    }

    /// The next piece of what was received; the window then reaches to its end.
    ///
    /// # Errors
    ///
    /// What was received is not the protocol, or answers nothing.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, BackendError> {
        let start = self.scanned;
        let waiting = self.received.get(start..).unwrap_or_default();
        if let Some(Passing { tag, left, fate }) = self.passing {
            let len = left.min(waiting.len());
            if len == 0 {
                return Ok(None);
            }
            self.passing = (left > len).then_some(Passing {
                tag,
                left: left - len,
                fate,
            });
            self.scanned += len;
            return Ok(Some(Piece {
                tag,
                start,
                end: start + len,
                heads: 0,
                whole: false,
                fate,
                described: None,
                answers: None,
            }));
        }
        let Some(header) = wire::header(waiting, MAX_FRAME)? else {
            return Ok(None);
        };
        let whole = waiting.len() >= header.len;
        if !whole && !passes(header.tag) && header.len <= MAX_INSPECTED {
            return Ok(None);
        }
        if header.tag == b'Z' {
            self.status = wire::ready_status(waiting)?;
        }
        let awaited = self.replies.awaited();
        let fate = self.replies.seen(header.tag)?;
        let (len, heads) = if whole && header.tag == b'D' {
            rows(waiting)
        } else {
            (header.len.min(waiting.len()), 1)
        };
        self.passing = (!whole).then(|| Passing {
            tag: header.tag,
            left: header.len - len,
            fate,
        });
        self.scanned += len;
        if header.tag == b'A' {
            self.rename_notifier(start);
        }
        let described = self.note_statement(awaited, header.tag, whole, start, len);
        Ok(Some(Piece {
            tag: header.tag,
            start,
            end: start + len,
            heads,
            whole,
            fate,
            described,
            answers: awaited,
        }))
    }

    /// A client knows sessions by their numbers, not the processes that serve them: the notification at `start` says whose
    /// process it was.
    fn rename_notifier(&mut self, start: usize) {
        let place = self.received.get_mut(start + 5..start + 9);
        if let Some(Ok(place)) = place.map(<&mut [u8; 4]>::try_from)
            && let Some(number) = self.registered.number_for(u32::from_be_bytes(*place))
        {
            *place = number.to_be_bytes();
        }
    }

    /// What a frame means for the shared statement that it is about.
    fn note_statement(
        &mut self,
        awaited: Option<Asked>,
        tag: u8,
        whole: bool,
        start: usize,
        len: usize,
    ) -> Option<Description> {
        match (awaited, tag) {
            (Some(Asked::Parse(Some(number))), b'1') => {
                self.statements.confirm(number);
                None
            }
            (Some(Asked::Close(Some(number))), b'3') => {
                self.statements.confirm_closed(number);
                None
            }
            (Some(Asked::DescribeStatement(Some(number))), b't' | b'T' | b'n') => {
                let frame = self.received.get(start..start + len).unwrap_or_default();
                let parameters = self.parameters_digest.take();
                if tag == b't' {
                    self.parameters_digest = whole.then(|| Description::parameters(frame));
                    return None;
                }
                let description = match parameters {
                    Some(parameters) if whole => Description::of(parameters, frame),
                    Some(_) | None => Description::UNSEEN,
                };
                self.statements.describe(number, description);
                Some(description)
            }
            _ => None,
        }
    }

    /// Whether what was looked at ends within a frame that is for the client.
    pub fn within_frame(&self) -> bool {
        matches!(
            self.passing,
            Some(Passing {
                fate: Fate::Relay,
                ..
            })
        )
    }

    /// Whether more may be received: what the client has not taken yet is bounded.
    pub fn wants_to_receive(&self) -> bool {
        self.scanned < READ_AHEAD
    }

    /// Receives some bytes. Ready with how many; 0 is the end of the stream.
    ///
    /// # Errors
    ///
    /// As the socket has them.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BackendError>> {
        if self.received.capacity() - self.received.len() < READ_AHEAD / 4 {
            self.received.reserve(READ_AHEAD);
        }
        let read = pin!(self.stream.read_buf(&mut self.received)).poll(cx);
        read.map_err(BackendError::Lost)
    }

    /// Sends what waits in [`Self::outgoing`] and then `more`; ready with how much of `more` was sent once everything
    /// or a part of it was.
    ///
    /// # Errors
    ///
    /// As the socket has them.
    pub fn poll_send(&mut self, more: &[u8], cx: &mut Context<'_>) -> Poll<Result<usize, BackendError>> {
        while !self.to_send.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.to_send) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(BackendError::Closed)),
                Poll::Ready(Ok(sent)) => self.to_send.advance(sent),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(BackendError::Lost(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
        if more.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match Pin::new(&mut self.stream).poll_write(cx, more) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(BackendError::Closed)),
            sent @ (Poll::Ready(_) | Poll::Pending) => sent.map_err(BackendError::Lost),
        }
    }

    /// Pushes what TLS holds back.
    ///
    /// # Errors
    ///
    /// As the socket has them.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BackendError>> {
        Pin::new(&mut self.stream)
            .poll_flush(cx)
            .map_err(BackendError::Lost)
    }

    /// Whether the server is known to have closed it, as [`Transport::has_ended`] has it.
    pub(super) fn has_ended(&self) -> bool {
        self.stream.has_ended()
    }

    /// Whether nothing came while nobody used it. Does not wait. A socket that another thread's reactor watches is
    /// moved to this one's: else each of its events would wake two threads.
    pub(super) fn is_quiet(&mut self) -> bool {
        let here = Home::here();
        if self.home != here && self.stream.moves() {
            self.home = here;
            return self.received.is_empty() && self.stream.move_here().is_ok_and(|quiet| quiet);
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.received.is_empty() && self.poll_receive(&mut cx).is_pending()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // a farewell, as libpq sends it, so that the server does not log a lost client; there is nobody to tell if it fails
        drop(self.stream.try_write(b"X\0\0\0\x04"));
    }
}

/// Bytes and number of the whole rows at the front of `waiting`, which are dealt with together.
fn rows(waiting: &[u8]) -> (usize, u64) {
    let (mut len, mut count) = (0, 0);
    while let Some(rest) = waiting.get(len..)
        && let Ok(Some(header)) = wire::header(rest, MAX_FRAME)
        && header.tag == b'D'
        && header.len <= rest.len()
    {
        len += header.len;
        count += 1;
    }
    (len, count)
}

/// Rows and COPY data are never looked into and pass in parts.
fn passes(tag: u8) -> bool {
    matches!(tag, b'D' | b'd')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_rows_ends_before_what_is_not_a_whole_row() {
        let row = b"D\0\0\0\x06\0\0";
        for (bytes, run) in [
            (row.to_vec(), (7, 1)),
            ([row, &row[..]].concat(), (14, 2)),
            ([row, &row[..6]].concat(), (7, 1)),
            ([row, &row[..3]].concat(), (7, 1)),
            ([row, &b"C\0\0\0\x05\0"[..], row].concat(), (7, 1)),
            ([row, &b"D\0\0\0\x03"[..]].concat(), (7, 1)),
        ] {
            assert_eq!(rows(&bytes), run, "{bytes:?}");
        }
    }
}
