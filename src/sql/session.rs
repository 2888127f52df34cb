//! Statements about what lives in one backend session: prepared statements, cursors, channels, `DISCARD`, and
//! `set_config` where it is all of a query.
//!
//! Source: the pages of these statements in PostgreSQL's manual. What does not follow them is not understood.

use std::sync::Arc;

use super::facts::{Cursor, Draft};
use super::statement::{PinReason, SessionUse, SettingChange};
use super::token::{Token, TokenKind};

/// The facts of a statement whose first word, `first`, was taken.
pub(super) fn of(first: &str, cursor: &mut Cursor<'_>) -> Draft {
    let (session, pin) = match first {
        "execute" => (named(cursor).map(SessionUse::Execute), None),
        "deallocate" => {
            cursor.take(&["prepare"]);
            (all_or_named(cursor, "all").map(SessionUse::Deallocate), None)
        }
        "fetch" | "move" => (Some(SessionUse::Passing), None),
        "close" => (all_or_named(cursor, "all").map(SessionUse::CloseCursor), None),
        "listen" => (last_name(cursor).map(SessionUse::Listen), Some(PinReason::Listen)),
        "unlisten" if cursor.take_operator("*") => {
            (cursor.at_end().then_some(SessionUse::Unlisten(None)), None)
        }
        "unlisten" => (
            last_name(cursor).map(|channel| SessionUse::Unlisten(Some(channel))),
            None,
        ),
        _ => (discard(cursor), None),
    };
    session.map_or_else(Draft::unparsed, |session| Draft::session(session, pin))
}

fn named(cursor: &mut Cursor<'_>) -> Option<Arc<str>> {
    cursor.name().map(Arc::from)
}

fn last_name(cursor: &mut Cursor<'_>) -> Option<Arc<str>> {
    named(cursor).filter(|_| cursor.at_end())
}

/// `ALL` or a name, and nothing behind it.
#[allow(
    clippy::option_option,
    reason = "not understood, all, and one are three things"
)]
fn all_or_named(cursor: &mut Cursor<'_>, all: &str) -> Option<Option<Arc<str>>> {
    let found = if cursor.take(&[all]) {
        Some(None)
    } else {
        named(cursor).map(Some)
    };
    found.filter(|_| cursor.at_end())
}

/// What `SELECT [pg_catalog.]set_config('name', 'value', flag) [AS name]` does, with literals only.
pub(super) fn set_config(text: &[u8], tokens: &[Token]) -> Option<SettingChange> {
    let cursor = &mut Cursor::new(text, tokens);
    let begins = cursor.take(&["select"]);
    if cursor.take(&["pg_catalog"]) && !cursor.take_mark(".") {
        return None;
    }
    if !begins || !cursor.take(&["set_config"]) || !cursor.take_mark("(") {
        return None;
    }
    let name = literal(cursor)?.to_ascii_lowercase();
    let value = cursor.take_mark(",").then(|| literal(cursor)).flatten()?;
    let comma = cursor.take_mark(",");
    let local = cursor.take(&["true"]);
    if !comma || (!local && !cursor.take(&["false"])) || !cursor.take_mark(")") {
        return None;
    }
    if cursor.take(&["as"]) || !cursor.at_end() {
        cursor.name()?;
    }
    // what these mean for names is another matter
    let followed = cursor.at_end() && !matches!(name.as_str(), "role" | "session_authorization");
    followed.then(|| {
        let name = Arc::from(name);
        if local {
            SettingChange::SetLocal { name }
        } else {
            let value = Arc::from(value);
            SettingChange::SetConfig { name, value }
        }
    })
}

/// A literal that every server reads alike.
fn literal(cursor: &mut Cursor<'_>) -> Option<String> {
    let token = cursor.next().filter(|token| token.kind == TokenKind::Text)?;
    let quoted = std::str::from_utf8(token.bytes(cursor.text)).ok()?;
    let inner = quoted.strip_prefix('\'')?.strip_suffix('\'')?;
    (!inner.contains('\\')).then(|| inner.replace("''", "'"))
}

fn discard(cursor: &mut Cursor<'_>) -> Option<SessionUse> {
    let session = if cursor.take(&["all"]) {
        SessionUse::DiscardAll
    } else if cursor.take_any(&["temp", "temporary"]) {
        SessionUse::DiscardTemporary
    } else if cursor.take_any(&["plans", "sequences"]) {
        SessionUse::Passing
    } else {
        return None;
    };
    cursor.at_end().then_some(session)
}
