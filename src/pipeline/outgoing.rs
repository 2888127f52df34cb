//! What is sent for a request, where that is not what the client sent.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::Client;
use super::facts::{Facts, Form};
use super::rename::Renaming;
use crate::backend::{Asked, Asker, Connection};
use crate::session::{Request, Statements};
use crate::wire::{self, FrontendTag};

/// Prepares the session's unnamed statement at a connection that does not have it; closes what is there under that name
/// if the session has none, so that nobody else's is run.
pub(super) fn inject_unnamed(statements: &Statements, backend: &mut Connection) {
    let mut out = std::mem::take(backend.outgoing());
    put_unnamed(statements, backend, &mut out);
    *backend.outgoing() = out;
}

fn put_unnamed(statements: &Statements, backend: &mut Connection, out: &mut BytesMut) {
    if let Some(prepared) = statements.prepared(b"") {
        wire::parse_frame(b"", &prepared.text, &prepared.types, out);
        backend.note_sent(Asked::Parse(None), Asker::Gateway);
        return;
    }
    wire::close_statement_frame(b"", out);
    backend.note_sent(Asked::Close(None), Asker::Gateway);
}

/// Before which message the unnamed statement is prepared: the request's first, unless what runs before the message that
/// `needs` it may have to be the first in its transaction, as a BEGIN with options has to.
pub(super) fn place_of_unnamed(request: &Request, needs: usize) -> usize {
    let mut before = request.frames.iter().take(needs);
    if before.any(|frame| frame.tag == FrontendTag::Execute) {
        needs
    } else {
        0
    }
}

/// Where a Describe of the portal has to be put in, so that the answer can be kept with its RowDescription.
pub(super) fn hidden_describe(facts: &Facts) -> Option<usize> {
    match facts.form {
        Form::Portal(portal) if !portal.described => Some(portal.execute),
        Form::Portal(_) | Form::Simple | Form::Series => None,
    }
}

/// Puts the request, with the connection's names for statements and, where it `collects` an answer, with a hidden Describe
/// before its Execute, into the backend's outgoing bytes; nothing is left to be sent from the inbox. The unnamed statement
/// is prepared before the message `unnamed`, if there is one.
pub(super) fn send_changed<S: AsyncRead + AsyncWrite + Unpin + Send>(
    request: &Request,
    facts: &mut Facts,
    collects: bool,
    unnamed: Option<(usize, &Statements)>,
    client: &mut Client<S>,
    mut renaming: Renaming<'_>,
) {
    let described = hidden_describe(facts).filter(|_| collects);
    let to_come = request.left();
    let mut out = std::mem::take(renaming.backend.outgoing());
    out.reserve(request.len + 64);
    let mut namings = facts.namings.iter_mut().peekable();
    for (index, frame) in request.frames.iter().enumerate() {
        let bytes = client.inbox().get(frame.start..frame.end).unwrap_or_default();
        if let Some((_, statements)) = unnamed.filter(|(place, _)| *place == index) {
            put_unnamed(statements, renaming.backend, &mut out);
        }
        if Some(index) == described {
            describe_portal(bytes, renaming.backend, &mut out);
        }
        while namings
            .next_if(|naming| naming.frame == index && renaming.visit(frame.tag, naming, &mut out))
            .is_some()
        {}
        if let Some(naming) = namings.next_if(|naming| naming.frame == index) {
            renaming.write(bytes, bytes.len() + to_come, naming, &mut out);
        } else {
            out.extend_from_slice(bytes);
            Facts::note_frame(frame, client.inbox(), renaming.backend);
        }
    }
    *renaming.backend.outgoing() = out;
    client.consume(request.len);
}

fn describe_portal(execute: &[u8], backend: &mut Connection, out: &mut BytesMut) {
    let portal = wire::execute(execute)
        .map(|execute| execute.portal)
        .unwrap_or_default();
    wire::describe_portal_frame(portal, out);
    backend.note_sent(Asked::DescribePortal, Asker::Gateway);
}
