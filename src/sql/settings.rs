//! `SET`, `RESET`, `SHOW` and transaction control, read without a parser.
//!
//! Source: the pages "SET", "RESET", "SHOW", "SET TRANSACTION", "BEGIN", "COMMIT", "ROLLBACK" of PostgreSQL's and
//! Redshift's manuals. What does not follow them is not understood, and so pins the session.

use std::sync::Arc;

use super::facts::{Cursor, Draft};
use super::statement::{PinReason, SessionUse, SettingChange, StatementKind, TransactionControl};
use super::token::TokenKind;

/// After `SET`.
pub(super) fn set(cursor: &mut Cursor<'_>) -> Draft {
    let unfollowed = Draft::pinned(StatementKind::Session, PinReason::Setting);
    if cursor.sees(&["transaction"]) && !assigns(cursor, 1) {
        return Draft::transaction(TransactionControl::Other);
    }
    if cursor.sees(&["constraints"]) && !assigns(cursor, 1) {
        return Draft::new(StatementKind::Utility);
    }
    let mut local = false;
    if (cursor.sees(&["local"]) || cursor.sees(&["session"])) && !assigns(cursor, 1) {
        local = cursor.take(&["local"]);
        if !local {
            cursor.take(&["session"]);
            if cursor.take(&["characteristics"]) {
                return Draft {
                    pin: Some(PinReason::Setting),
                    ..Draft::transaction(TransactionControl::Other)
                };
            }
            if cursor.take(&["authorization"]) {
                return if last_word(cursor, "default") {
                    Draft::session(SessionUse::ResetAuthorization, None)
                } else {
                    Draft::session(SessionUse::SetAuthorization, Some(PinReason::Role))
                };
            }
        }
    }
    let (name, value) = if cursor.take(&["time", "zone"]) {
        if cursor.take(&["local"]) || cursor.take(&["default"]) {
            (Some("timezone".to_owned()), cursor.at_end().then_some(None))
        } else {
            (Some("timezone".to_owned()), zone(cursor))
        }
    } else if cursor.sees(&["names"]) && !assigns(cursor, 1) {
        cursor.take(&["names"]);
        let value = if cursor.at_end() {
            Some(None)
        } else {
            values(cursor)
        };
        (Some("client_encoding".to_owned()), value)
    } else if cursor.sees(&["schema"]) && !assigns(cursor, 1) {
        cursor.take(&["schema"]);
        (Some("search_path".to_owned()), single_text(cursor))
    } else if cursor.sees(&["role"]) && !assigns(cursor, 1) {
        cursor.take(&["role"]);
        return if local {
            Draft::session(SessionUse::Passing, None)
        } else if last_word(cursor, "none") {
            Draft::session(SessionUse::ResetRole, None)
        } else {
            Draft::session(SessionUse::SetRole, Some(PinReason::Role))
        };
    } else {
        let Some(name) = name(cursor) else {
            return unfollowed;
        };
        // `SET name TO value` and `SET name = value`; anything else (`FROM CURRENT`, `XML OPTION`) is not followed
        if !cursor.take(&["to"]) && !cursor.take_operator("=") {
            return unfollowed;
        }
        (Some(name), values(cursor))
    };
    let (Some(name), Some(value)) = (name, value) else {
        return unfollowed;
    };
    match name.as_str() {
        "role" | "session_authorization" if local => Draft::session(SessionUse::Passing, None),
        "role" if value.is_none() => Draft::session(SessionUse::ResetRole, None),
        "role" => Draft::session(SessionUse::SetRole, Some(PinReason::Role)),
        "session_authorization" => Draft::session(SessionUse::SetAuthorization, Some(PinReason::Role)),
        // these end with the transaction, or are no settings that can be given again
        "transaction_isolation" | "transaction_read_only" | "transaction_deferrable" | "seed" => unfollowed,
        _ if local => Draft::setting(SettingChange::SetLocal {
            name: Arc::from(name),
        }),
        _ => Draft::setting(SettingChange::Set {
            name: Arc::from(name),
            value,
        }),
    }
}

/// Whether `word` is all that follows.
fn last_word(cursor: &mut Cursor<'_>, word: &str) -> bool {
    cursor.take(&[word]) && cursor.at_end()
}

/// Whether `=` or `TO` stands `ahead` tokens from here, so that the words before are a setting's name.
fn assigns(cursor: &Cursor<'_>, ahead: usize) -> bool {
    cursor.rest().get(ahead).is_some_and(|token| {
        token.is_word(cursor.text, "to")
            || (token.kind == TokenKind::Operator && token.bytes(cursor.text) == b"=")
    })
}

/// A setting's name: without regard to case, perhaps with a point.
fn name(cursor: &mut Cursor<'_>) -> Option<String> {
    Some(cursor.dotted()?.join(".").to_ascii_lowercase())
}

/// The rest as a list of values: `Some(None)` is `DEFAULT`, `None` is not followed.
#[allow(
    clippy::option_option,
    reason = "not followed, the default, and a value are three things"
)]
fn values(cursor: &mut Cursor<'_>) -> Option<Option<Arc<str>>> {
    if cursor.sees(&["default"]) && cursor.rest().len() == 1 {
        return Some(None);
    }
    let text = cursor.rest_as_text()?;
    loop {
        if !cursor.take_operator("-") {
            cursor.take_operator("+");
        }
        match cursor.next()?.kind {
            TokenKind::Word
            | TokenKind::QuotedName
            | TokenKind::Text
            | TokenKind::EscapeText
            | TokenKind::DollarText
            | TokenKind::Number => {}
            TokenKind::UnicodeName
            | TokenKind::NationalText
            | TokenKind::UnicodeText
            | TokenKind::Bits
            | TokenKind::GluedNumber
            | TokenKind::Parameter
            | TokenKind::Operator
            | TokenKind::Punctuation
            | TokenKind::Invalid => return None,
        }
        if cursor.at_end() {
            return Some(Some(Arc::from(text)));
        }
        if !cursor.take_mark(",") {
            return None;
        }
    }
}

/// A time zone that can also be written as a value; `INTERVAL …` cannot.
#[allow(clippy::option_option, reason = "as for `values`")]
fn zone(cursor: &mut Cursor<'_>) -> Option<Option<Arc<str>>> {
    let value = values(cursor)?;
    value
        .as_deref()
        .is_none_or(|text| !text.contains(','))
        .then_some(value)
}

#[allow(clippy::option_option, reason = "as for `values`")]
fn single_text(cursor: &mut Cursor<'_>) -> Option<Option<Arc<str>>> {
    let [token] = cursor.rest() else { return None };
    if token.kind != TokenKind::Text {
        return None;
    }
    values(cursor)
}

/// After `RESET`.
pub(super) fn reset(cursor: &mut Cursor<'_>) -> Draft {
    if cursor.take(&["session", "authorization"]) {
        return Draft::session(SessionUse::ResetAuthorization, None);
    }
    if last_word(&mut cursor.clone(), "role") {
        return Draft::session(SessionUse::ResetRole, None);
    }
    if cursor.take(&["all"]) && cursor.at_end() {
        return Draft::setting(SettingChange::ResetAll);
    }
    let name = if cursor.take(&["time", "zone"]) {
        Some("timezone".to_owned())
    } else if cursor.take(&["transaction", "isolation", "level"]) {
        None
    } else {
        name(cursor)
    };
    match name {
        Some(name) if name == "session_authorization" => Draft::session(SessionUse::ResetAuthorization, None),
        Some(name) if cursor.at_end() => Draft::setting(SettingChange::Reset {
            name: Arc::from(name),
        }),
        _ => Draft::pinned(StatementKind::Session, PinReason::Setting),
    }
}

/// After `SHOW`. One name is a setting; Redshift's `SHOW TABLES …` and its like read the catalog.
pub(super) fn show(cursor: &mut Cursor<'_>) -> Draft {
    let name = if cursor.take(&["time", "zone"]) {
        Some("timezone".to_owned())
    } else if cursor.take(&["transaction", "isolation", "level"]) {
        Some("transaction_isolation".to_owned())
    } else if cursor.take(&["session", "authorization"]) {
        Some("session_authorization".to_owned())
    } else {
        name(cursor)
    };
    match name {
        Some(name) if cursor.at_end() => Draft::setting(SettingChange::Show {
            name: Arc::from(name),
        }),
        Some(_) => {
            let mut draft = Draft::new(StatementKind::Read);
            // no function of this name exists: so a rule that asks for known functions refuses it
            draft.calls("show");
            draft
        }
        None => Draft::unparsed(),
    }
}

/// Transaction control by its first word, which has been taken; what does not follow the grammar is not understood.
pub(super) fn transaction(first: &str, cursor: &mut Cursor<'_>) -> Draft {
    let control = match first {
        "begin" => {
            cursor.take_any(&["work", "transaction"]);
            modes(cursor).then_some(TransactionControl::Begin)
        }
        "start" if cursor.take(&["transaction"]) => modes(cursor).then_some(TransactionControl::Begin),
        "commit" | "end" => {
            if cursor.take(&["prepared"]) {
                Some(TransactionControl::Other)
            } else {
                cursor.take_any(&["work", "transaction"]);
                chain(cursor).then_some(TransactionControl::Commit)
            }
        }
        "rollback" | "abort" => {
            if cursor.take(&["prepared"]) {
                Some(TransactionControl::Other)
            } else {
                cursor.take_any(&["work", "transaction"]);
                if cursor.take(&["to"]) {
                    cursor.take(&["savepoint"]);
                    savepoint(cursor)
                } else {
                    chain(cursor).then_some(TransactionControl::Rollback)
                }
            }
        }
        "savepoint" => savepoint(cursor),
        "release" => {
            cursor.take(&["savepoint"]);
            savepoint(cursor)
        }
        _ => None,
    };
    control.map_or_else(Draft::unparsed, Draft::transaction)
}

fn savepoint(cursor: &mut Cursor<'_>) -> Option<TransactionControl> {
    cursor.name()?;
    cursor.at_end().then_some(TransactionControl::Savepoint)
}

/// `AND [NO] CHAIN`, or nothing.
fn chain(cursor: &mut Cursor<'_>) -> bool {
    let _ = cursor.take(&["and", "chain"]) || cursor.take(&["and", "no", "chain"]);
    cursor.at_end()
}

/// Modes of a transaction, with commas between them or without.
fn modes(cursor: &mut Cursor<'_>) -> bool {
    const MODES: [&[&str]; 9] = [
        &["isolation", "level", "serializable"],
        &["isolation", "level", "repeatable", "read"],
        &["isolation", "level", "read", "committed"],
        &["isolation", "level", "read", "uncommitted"],
        &["isolation", "level", "snapshot"],
        &["read", "only"],
        &["read", "write"],
        &["deferrable"],
        &["not", "deferrable"],
    ];
    let mut more = !cursor.at_end();
    while more {
        if !MODES.iter().any(|mode| cursor.take(mode)) {
            return false;
        }
        // behind a comma there is one more
        more = cursor.take_mark(",") || !cursor.at_end();
    }
    true
}
