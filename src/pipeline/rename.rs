//! Prepared statements of any session at any connection: the names that a client gave are replaced on the way by those
//! that the statements have there, and what the connection lacks is prepared first.
//!
//! A client's `Parse` is always a `Parse` at the server, so that an error, the types of parameters and a change of
//! definitions are told when the client asks; only later uses rely on what is there. Source for what a server does:
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY>.

use std::io::Write;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use crate::backend::{Asked, Asker, Connection, NOBODYS, StatementNumber};
use crate::session::{Description, Prepared, StatementKey};
use crate::sql::StatementKind;
use crate::wire::{self, FrontendTag, TransactionStatus};

/// A named statement that the gateway knows.
#[derive(Clone, Debug)]
pub(super) struct KnownStatement {
    /// What its client calls it.
    pub(super) name: Arc<[u8]>,
    /// What it is at any connection.
    pub(super) key: StatementKey,
    /// Its text, and what goes with it.
    pub(super) prepared: Arc<Prepared>,
    /// What its client was told of it.
    pub(super) told: Option<Description>,
}

/// Where in a message a statement is named, and which it is.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    /// The message, among the request's.
    pub(super) frame: usize,
    /// Where in the message the name begins.
    pub(super) start: usize,
    /// The name's length, without its NUL.
    pub(super) len: usize,
    /// What the message does with it.
    pub(super) act: NamingAct,
    /// What it is called at the connection, once that is known.
    pub(super) number: Option<StatementNumber>,
    /// A transaction that has failed may be over by then: something before it in the request ends one.
    pub(super) after_end: bool,
}

impl Naming {
    /// The statement that SQL runs by its name, if the client prepared it by protocol.
    pub(super) fn visited(&self) -> Option<&Prepared> {
        match &self.act {
            NamingAct::Visit(known) => Some(&known.prepared),
            NamingAct::Prepare(_)
            | NamingAct::PrepareAgain
            | NamingAct::PrepareTaken
            | NamingAct::Bind(_)
            | NamingAct::BindUnknown
            | NamingAct::Describe(_)
            | NamingAct::DescribeUnknown
            | NamingAct::Close
            | NamingAct::TakeName(_) => None,
        }
    }

    /// The statement, if the gateway knows it.
    pub(super) fn known(&self) -> Option<&KnownStatement> {
        match &self.act {
            NamingAct::Prepare(known) | NamingAct::Bind(known) | NamingAct::Describe(known) => Some(known),
            NamingAct::PrepareAgain
            | NamingAct::PrepareTaken
            | NamingAct::BindUnknown
            | NamingAct::DescribeUnknown
            | NamingAct::Close
            | NamingAct::Visit(_)
            | NamingAct::TakeName(_) => None,
        }
    }
}

/// What a message does with a named statement.
#[derive(Clone, Debug)]
pub(super) enum NamingAct {
    /// `Parse`.
    Prepare(KnownStatement),
    /// `Parse` under a name that the session has given already: the server is to say so.
    PrepareAgain,
    /// `Parse` under a name that SQL has given: it is taken at the connection, too.
    PrepareTaken,
    /// `Bind` of a statement.
    Bind(KnownStatement),
    /// `Describe` of a statement.
    Describe(KnownStatement),
    /// `Bind` of what the gateway does not know.
    BindUnknown,
    /// `Describe` of what the gateway does not know.
    DescribeUnknown,
    /// `Close` of a statement.
    Close,
    /// SQL names a statement, and is to find it.
    Visit(KnownStatement),
    /// SQL names a statement to close it, or to prepare another one, which is refused: the name has to be taken, whatever by.
    TakeName(KnownStatement),
}

/// The connection's side of a renaming.
pub(super) struct Renaming<'a> {
    pub(super) backend: &'a mut Connection,
    /// The state of the database's definitions.
    pub(super) epoch: u64,
    /// Statements at one connection at most.
    pub(super) limit: usize,
    /// Statements of which the client was told another description than they have now.
    pub(super) changed: &'a [StatementKey],
}

impl Renaming<'_> {
    /// Appends `message` to `out` as the connection must see it, after what has to be prepared or closed for it.
    /// `whole` is the message's length, of which `message` may be only the beginning.
    pub(super) fn write(&mut self, message: &[u8], whole: usize, naming: &mut Naming, out: &mut BytesMut) {
        let name = message
            .get(naming.start..naming.start + naming.len)
            .unwrap_or_default();
        match &naming.act {
            NamingAct::Prepare(known) => {
                let number = self.prepare(known.key, out);
                put(message, whole, naming, &Name::Shared(number), out);
                self.backend.note_sent(Asked::Parse(Some(number)), Asker::Client);
                // its columns are what its client may rely on from here on
                wire::describe_statement_frame(number.to_string().as_bytes(), out);
                self.backend
                    .note_sent(Asked::DescribeStatement(Some(number)), Asker::Gateway);
                naming.number = Some(number);
            }
            NamingAct::PrepareAgain => {
                // the name must be taken at this connection for the server to say that it is
                wire::parse_frame(name, b"", b"", out);
                self.backend.note_sent(Asked::Parse(None), Asker::Gateway);
                self.backend.leave_behind(name);
                out.extend_from_slice(message);
                self.backend.note_sent(Asked::Parse(None), Asker::Client);
            }
            NamingAct::PrepareTaken => {
                out.extend_from_slice(message);
                self.backend.note_sent(Asked::Parse(None), Asker::Client);
            }
            NamingAct::Bind(known) if self.changed.contains(&known.key) => {
                // the server refuses what does not exist, and so ends what the client asked for
                put(message, whole, naming, &Name::Bytes(NOBODYS), out);
                self.backend.note_sent(Asked::Bind, Asker::Client);
            }
            NamingAct::Bind(known) => {
                let number = self.provide(known, out);
                put(message, whole, naming, &Name::Shared(number), out);
                self.backend.note_sent(Asked::Bind, Asker::Client);
                naming.number = Some(number);
            }
            NamingAct::Describe(known) => {
                let stands_in = self.stands_in(known);
                let number = if stands_in {
                    let number = self.prepare(known.key, out);
                    let name = number.to_string();
                    wire::parse_frame(name.as_bytes(), b"ROLLBACK", &known.prepared.types, out);
                    self.backend.note_sent(Asked::Parse(Some(number)), Asker::Gateway);
                    number
                } else {
                    self.provide(known, out)
                };
                put(message, whole, naming, &Name::Shared(number), out);
                self.backend
                    .note_sent(Asked::DescribeStatement(Some(number)), Asker::Client);
                if stands_in {
                    self.drop_statement(known.key, out);
                }
                naming.number = Some(number);
            }
            NamingAct::BindUnknown => {
                put(message, whole, naming, &self.unknown(name), out);
                self.backend.note_sent(Asked::Bind, Asker::Client);
            }
            NamingAct::DescribeUnknown => {
                put(message, whole, naming, &self.unknown(name), out);
                self.backend
                    .note_sent(Asked::DescribeStatement(None), Asker::Client);
            }
            NamingAct::Close => {
                // for others it stays
                put(message, whole, naming, &Name::Bytes(NOBODYS), out);
                self.backend.note_sent(Asked::Close(None), Asker::Client);
            }
            NamingAct::Visit(_) | NamingAct::TakeName(_) => out.extend_from_slice(message),
        }
    }

    /// Makes a statement that SQL names be at the connection under the name that the client gave it. True when that is all
    /// there is to `naming`.
    pub(super) fn visit(&mut self, tag: FrontendTag, naming: &Naming, out: &mut BytesMut) -> bool {
        let (known, prepared) = match &naming.act {
            // the server refuses what does not exist
            NamingAct::Visit(known) if self.changed.contains(&known.key) => return true,
            NamingAct::Visit(known) => (known, Some(&known.prepared)),
            NamingAct::TakeName(known) => (known, None),
            NamingAct::Prepare(_)
            | NamingAct::PrepareAgain
            | NamingAct::PrepareTaken
            | NamingAct::Bind(_)
            | NamingAct::Describe(_)
            | NamingAct::BindUnknown
            | NamingAct::DescribeUnknown
            | NamingAct::Close => return false,
        };
        let (text, types) = prepared.map_or((&[][..], &[][..]), |prepared| (&prepared.text, &prepared.types));
        // in a transaction that has failed the server looks at no name; an error of a Parse would keep it from answering, but
        // a text that is empty makes none
        let failed = self.backend.status() == TransactionStatus::Failed && !naming.after_end;
        if tag == FrontendTag::Query && failed && !text.is_empty() {
            return true;
        }
        wire::parse_frame(&known.name, text, types, out);
        self.backend.note_sent(Asked::Parse(None), Asker::Gateway);
        // until it is known what became of it
        self.backend.leave_behind(&known.name);
        true
    }

    /// A name that the gateway does not know, unless it is one of the gateway's own.
    fn unknown<'n>(&self, name: &'n [u8]) -> Name<'n> {
        let taken = self.backend.statements().has_given(name);
        Name::Bytes(if taken { NOBODYS } else { name })
    }

    /// The statement's number here; it is prepared first if the connection lacks it.
    pub(super) fn provide(&mut self, known: &KnownStatement, out: &mut BytesMut) -> StatementNumber {
        let epoch = self.epoch;
        // in a transaction that has failed nothing is run, and nothing can be prepared
        let failed = self.backend.status() == TransactionStatus::Failed;
        let statements = self.backend.statements_mut();
        let there = statements.find(known.key, epoch);
        if let Some(number) = there.or_else(|| statements.find_old(known.key).filter(|_| failed)) {
            return number;
        }
        let number = self.prepare(known.key, out);
        let name = number.to_string();
        wire::parse_frame(name.as_bytes(), &known.prepared.text, &known.prepared.types, out);
        self.backend.note_sent(Asked::Parse(Some(number)), Asker::Gateway);
        number
    }

    /// Whether a ROLLBACK has to stand in for a statement that is to be described: in a transaction that has failed nothing
    /// else can be prepared, and what has no columns can be described there all the same.
    fn stands_in(&mut self, known: &KnownStatement) -> bool {
        let control = || {
            let statement = known.prepared.analysis.single();
            statement.is_some_and(|statement| statement.kind == StatementKind::Transaction)
        };
        self.backend.status() == TransactionStatus::Failed
            && self.backend.statements().find_old(known.key).is_none()
            && known.told.map_or_else(control, |told| {
                told == Description::without_columns(&known.prepared.types)
            })
    }

    /// Closes `key`, if it is there.
    pub(super) fn drop_statement(&mut self, key: StatementKey, out: &mut BytesMut) {
        if let Some(number) = self.backend.statements_mut().forget(key) {
            wire::close_statement_frame(number.to_string().as_bytes(), out);
            self.backend.note_sent(Asked::Close(Some(number)), Asker::Gateway);
        }
    }

    /// A new number for `key`, after what is closed for it.
    fn prepare(&mut self, key: StatementKey, out: &mut BytesMut) -> StatementNumber {
        let (epoch, limit) = (self.epoch, self.limit);
        let (number, closed) = self.backend.statements_mut().prepare(key, epoch, limit);
        for old in closed {
            wire::close_statement_frame(old.to_string().as_bytes(), out);
            self.backend.note_sent(Asked::Close(Some(old)), Asker::Gateway);
        }
        number
    }
}

/// A name in a message.
enum Name<'n> {
    Shared(StatementNumber),
    Bytes(&'n [u8]),
}

/// Appends `message` with another name in it.
fn put(message: &[u8], whole: usize, naming: &Naming, name: &Name<'_>, out: &mut BytesMut) {
    let before = out.len();
    out.extend_from_slice(message.get(..naming.start).unwrap_or_default());
    let named = out.len();
    match name {
        // a buffer that grows takes every byte
        Name::Shared(number) => drop(write!(out.writer(), "{number}")),
        Name::Bytes(name) => out.extend_from_slice(name),
    }
    let len = whole - naming.len + (out.len() - named) - 1;
    out.extend_from_slice(message.get(naming.start + naming.len..).unwrap_or_default());
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(place) = out.get_mut(before + 1..before + 5) {
        place.copy_from_slice(&len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_same_but_for_the_name() {
        let message = b"B\0\0\0\x11p\0name\0\0\0\0\0\0\0";
        let naming = Naming {
            frame: 0,
            start: 7,
            len: 4,
            act: NamingAct::BindUnknown,
            number: None,
            after_end: false,
        };
        let renamed = |name: &[u8], whole| {
            let mut out = BytesMut::from(&b"before"[..]);
            put(message, whole, &naming, &Name::Bytes(name), &mut out);
            out.split_off(6).to_vec()
        };
        assert_eq!(
            renamed(b"other_name", message.len()),
            b"B\0\0\0\x17p\0other_name\0\0\0\0\0\0\0"
        );
        assert_eq!(renamed(b"name", message.len()), message);
        assert_eq!(
            renamed(b"n", 1_000_000)[..8],
            *b"B\0\x0f\x42\x3cp\0n",
            "of a message whose rest is to come"
        );
    }
}
