//! Statements by their first words: what a parser of queries need not see, or would not understand.
//!
//! Sources: PostgreSQL's "SQL Commands", Redshift's "SQL commands".

use std::sync::Arc;

use super::facts::{Cursor, Draft, name_of, relation};
use super::statement::{PinReason, SessionUse, StatementKind, TransactionControl};
use super::token::{Token, TokenKind};
use super::{session, settings};

/// What is to be done with a statement after a look at its first words.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// Everything is known.
    Done(Draft),
    /// It is a query or changes rows: parse all of it.
    Parse,
    /// The draft, and what the query in it reads, calls and writes.
    Inner(Draft, &'a [Token]),
    /// `UNLOAD`: the query is in this literal.
    Unload(Token),
    /// `EXPLAIN`, whether it runs the statement, and the statement.
    Explain {
        /// `ANALYZE` was written and not turned off.
        runs: bool,
        /// The statement explained.
        statement: &'a [Token],
    },
}

/// Classifies the statement.
pub(super) fn classify<'a>(text: &'a [u8], tokens: &'a [Token]) -> Step<'a> {
    let cursor = &mut Cursor::new(text, tokens);
    let Some(first) = cursor.peek() else {
        return Step::Done(Draft::new(StatementKind::Read));
    };
    if first.is(text, "(") {
        return Step::Parse;
    }
    if first.kind != TokenKind::Word {
        return Step::Done(Draft::unparsed());
    }
    let Some(word) = cursor.name() else {
        return Step::Done(Draft::unparsed());
    };
    let utility = Draft::new(StatementKind::Utility);
    let pinned = |pin| Step::Done(Draft::pinned(StatementKind::Session, pin));
    match word.as_str() {
        "select" | "with" | "values" | "table" | "insert" | "update" | "delete" | "merge" => Step::Parse,
        "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" => {
            Step::Done(settings::transaction(&word, cursor))
        }
        "set" => Step::Done(settings::set(cursor)),
        "reset" => Step::Done(settings::reset(cursor)),
        "show" => Step::Done(settings::show(cursor)),
        "prepare" if cursor.take(&["transaction"]) => {
            Step::Done(Draft::transaction(TransactionControl::Other))
        }
        "prepare" => match cursor.clone().name() {
            Some(name) => inner(
                Draft::session(
                    SessionUse::Prepare(Arc::from(name)),
                    Some(PinReason::PreparedStatement),
                ),
                cursor,
                "as",
            ),
            None => Step::Done(Draft::unparsed()),
        },
        "declare" => declare(cursor),
        "execute" | "deallocate" | "fetch" | "move" | "close" | "listen" | "unlisten" | "discard" => {
            Step::Done(session::of(&word, cursor))
        }
        "load" | "do" | "call" => pinned(PinReason::Procedure),
        // Redshift: the current database, for the session
        "use" => pinned(PinReason::Setting),
        "copy" => copy(cursor),
        "unload" => unload(cursor),
        "explain" => explain(cursor),
        "create" => create(cursor),
        "drop" => Step::Done(drop_object(cursor)),
        "alter" => Step::Done(alter(cursor)),
        "comment" => Step::Done(comment(cursor)),
        "grant" | "revoke" | "security" | "reassign" | "import" | "attach" | "detach" => {
            Step::Done(Draft::new(StatementKind::Ddl))
        }
        "truncate" => Step::Done(truncate(cursor)),
        "refresh" => Step::Done(refresh(cursor)),
        "vacuum" | "analyze" | "analyse" | "lock" | "cluster" | "reindex" | "checkpoint" | "notify"
        | "cancel" | "desc" | "describe" => Step::Done(utility),
        _ => Step::Done(Draft::unparsed()),
    }
}

/// Whether a query may begin here.
fn begins_query(cursor: &Cursor<'_>) -> bool {
    const FIRST: [&str; 8] = [
        "select", "with", "values", "table", "insert", "update", "delete", "merge",
    ];
    cursor.sees_mark("(") || FIRST.iter().any(|word| cursor.sees(&[word]))
}

/// The draft with the query that follows `word`, which stands outside of parentheses.
fn inner<'a>(draft: Draft, cursor: &mut Cursor<'a>, word: &str) -> Step<'a> {
    while !cursor.at_end() {
        if cursor.skip_parentheses() {
            continue;
        }
        if cursor.take(&[word]) {
            if begins_query(cursor) {
                return Step::Inner(draft, without_closing(cursor.text, cursor.rest()));
            }
        } else {
            cursor.next();
        }
    }
    Step::Done(draft)
}

/// The query without the clause that may close a definition: `WITH NO SCHEMA BINDING`, `WITH NO DATA`,
/// `WITH CHECK OPTION`.
fn without_closing<'a>(text: &[u8], query: &'a [Token]) -> &'a [Token] {
    const LAST: [&str; 3] = ["binding", "data", "option"];
    let ends = query
        .last()
        .is_some_and(|last| LAST.iter().any(|word| last.is_word(text, word)));
    // the clause has at most four words
    let with = query.iter().rposition(|token| token.is_word(text, "with"));
    match with {
        Some(at) if ends && at > 0 && query.len() - at <= 4 => query.get(..at).unwrap_or(query),
        _ => query,
    }
}

/// `COPY relation [(columns)] {FROM | TO} …`, `COPY (query) TO …`.
fn copy<'a>(cursor: &mut Cursor<'a>) -> Step<'a> {
    let mut draft = Draft::new(StatementKind::Copy);
    cursor.take(&["binary"]);
    if cursor.sees_mark("(") {
        let rest = cursor.rest();
        cursor.skip_parentheses();
        let query = rest.len() - cursor.rest().len();
        let query = query
            .checked_sub(1)
            .and_then(|end| rest.get(1..end))
            .unwrap_or_default();
        return if cursor.take(&["to"]) {
            Step::Inner(draft, query)
        } else {
            Step::Done(Draft::unparsed())
        };
    }
    let Some(relation) = cursor.relation() else {
        return Step::Done(Draft::unparsed());
    };
    cursor.skip_parentheses();
    if cursor.take(&["from"]) {
        draft.writes.insert(relation);
        condition_of_copy(&mut draft, cursor);
    } else if cursor.take(&["to"]) {
        draft.reads.insert(relation);
    } else {
        return Step::Done(Draft::unparsed());
    }
    Step::Done(draft)
}

/// What `COPY … FROM … WHERE condition` calls: every name before a parenthesis that is no word of an expression.
fn condition_of_copy(draft: &mut Draft, cursor: &mut Cursor<'_>) {
    const NO_CALL: [&str; 15] = [
        "all", "and", "any", "as", "between", "else", "from", "in", "is", "like", "not", "or", "some",
        "then", "when",
    ];
    while !cursor.at_end() && !cursor.take(&["where"]) {
        if !cursor.skip_parentheses() {
            cursor.next();
        }
    }
    while let Some(token) = cursor.peek() {
        let mut parts = Vec::new();
        while let Some(part) = cursor.name() {
            parts.push(part);
            if !cursor.take_mark(".") {
                break;
            }
        }
        let operator = NO_CALL.iter().any(|word| token.is_word(cursor.text, word));
        if parts.is_empty() {
            cursor.next();
        } else if cursor.sees_mark("(") && !operator {
            draft.functions.extend(relation(&parts));
        }
    }
}

/// `UNLOAD ('query') TO …`.
fn unload<'a>(cursor: &mut Cursor<'a>) -> Step<'a> {
    cursor.take_mark("(");
    match cursor.next() {
        Some(token) if token.kind.holds_text() && cursor.sees_mark(")") => Step::Unload(*token),
        _ => Step::Done(Draft::unparsed()),
    }
}

/// `EXPLAIN [ANALYZE] [VERBOSE] …`, `EXPLAIN (options) …`.
fn explain<'a>(cursor: &mut Cursor<'a>) -> Step<'a> {
    let mut runs = false;
    if cursor.sees_mark("(") {
        let options = cursor.clone();
        if !cursor.skip_parentheses() {
            return Step::Done(Draft::unparsed());
        }
        if begins_query(&options) && cursor.at_end() {
            // `EXPLAIN (SELECT …)`: no options, a query in parentheses
            return Step::Explain {
                runs,
                statement: options.rest(),
            };
        }
        let options = options
            .rest()
            .get(..options.rest().len() - cursor.rest().len())
            .unwrap_or_default();
        for (at, option) in options.iter().enumerate() {
            // quoted it is the same option
            if name_of(option, cursor.text).is_some_and(|name| matches!(&*name, "analyze" | "analyse")) {
                // a literal's value is not looked at: facts must hold for all texts of a shape
                runs = !options.get(at + 1).is_some_and(|value| {
                    ["off", "false"]
                        .iter()
                        .any(|word| value.is_word(cursor.text, word))
                });
            }
        }
    } else {
        runs = cursor.take_any(&["analyze", "analyse"]);
        cursor.take(&["verbose"]);
        // `EXPLAIN VERBOSE ANALYZE` is refused by PostgreSQL; the rest then begins with `ANALYZE`
    }
    if cursor.at_end() || cursor.sees(&["explain"]) {
        return Step::Done(Draft::unparsed());
    }
    Step::Explain {
        runs,
        statement: cursor.rest(),
    }
}

/// `DECLARE name … CURSOR [WITH HOLD] … FOR query`.
fn declare<'a>(cursor: &mut Cursor<'a>) -> Step<'a> {
    let Some(name) = cursor.name() else {
        return Step::Done(Draft::unparsed());
    };
    let mut held = false;
    while !cursor.at_end() && !cursor.sees(&["for"]) {
        held |= cursor.sees(&["with", "hold"]);
        cursor.next();
    }
    let draft = if held {
        Draft::session(SessionUse::DeclareHeld(Arc::from(name)), Some(PinReason::Cursor))
    } else {
        Draft::session(SessionUse::Passing, None)
    };
    inner(draft, cursor, "for")
}

fn create<'a>(cursor: &mut Cursor<'a>) -> Step<'a> {
    let mut draft = Draft::new(StatementKind::Ddl);
    cursor.take(&["or", "replace"]);
    let _ = cursor.take(&["local"]) || cursor.take(&["global"]);
    if cursor.take_any(&["temp", "temporary"]) {
        draft.pin = Some(PinReason::TemporaryTable);
    }
    let _ = cursor.take(&["unlogged"]) || cursor.take(&["external"]) || cursor.take(&["foreign"]);
    if cursor.take(&["table"]) {
        cursor.take(&["if", "not", "exists"]);
        let Some(relation) = cursor.relation() else {
            return Step::Done(draft);
        };
        draft.writes.insert(relation);
        if cursor.take(&["partition", "of"]) {
            // the parent's rows are looked for in the new partition too
            draft.writes.extend(cursor.relation());
            return Step::Done(draft);
        }
        return inner(draft, cursor, "as");
    }
    let _ = cursor.take(&["recursive"]) || cursor.take(&["materialized"]);
    if cursor.take(&["view"]) {
        cursor.take(&["if", "not", "exists"]);
        draft.writes.extend(cursor.relation());
        return inner(draft, cursor, "as");
    }
    if cursor.take(&["sequence"]) {
        cursor.take(&["if", "not", "exists"]);
        draft.writes.extend(cursor.relation());
        return Step::Done(draft);
    }
    cursor.take(&["unique"]);
    if cursor.take(&["index"]) {
        while !cursor.at_end() && !cursor.take(&["on"]) {
            cursor.next();
        }
        cursor.take(&["only"]);
        draft.writes.extend(cursor.relation());
    }
    Step::Done(draft)
}

/// Takes the words that name a sort of relation.
fn takes_relation_sort(cursor: &mut Cursor<'_>) -> bool {
    const SORTS: [&[&str]; 7] = [
        &["table"],
        &["view"],
        &["materialized", "view"],
        &["foreign", "table"],
        &["external", "table"],
        &["sequence"],
        &["index"],
    ];
    SORTS.iter().any(|sort| cursor.take(sort))
}

fn drop_object(cursor: &mut Cursor<'_>) -> Draft {
    let mut draft = Draft::new(StatementKind::Ddl);
    if takes_relation_sort(cursor) {
        cursor.take(&["concurrently"]);
        cursor.take(&["if", "exists"]);
        draft.writes.extend(cursor.relations().unwrap_or_default());
    }
    draft
}

fn alter(cursor: &mut Cursor<'_>) -> Draft {
    // these reach a relation that stands elsewhere in the text, or change what a name means
    const REACHING: [&str; 6] = ["rename", "schema", "attach", "detach", "append", "inherit"];
    let mut draft = Draft::new(StatementKind::Ddl);
    if takes_relation_sort(cursor) && !cursor.sees(&["all"]) {
        cursor.take(&["if", "exists"]);
        cursor.take(&["only"]);
        draft.writes.extend(cursor.relation());
        let rest = cursor.rest();
        if REACHING
            .iter()
            .any(|word| rest.iter().any(|token| token.is_word(cursor.text, word)))
        {
            draft.writes.clear();
        }
    }
    draft
}

fn comment(cursor: &mut Cursor<'_>) -> Draft {
    let mut draft = Draft::new(StatementKind::Ddl);
    cursor.take(&["on"]);
    if takes_relation_sort(cursor) {
        draft.writes.extend(cursor.relation());
    } else if cursor.take(&["column"])
        && let Some(parts) = cursor.dotted()
        && let Some((_, table)) = parts.split_last()
    {
        draft.writes.extend(relation(table));
    }
    draft
}

fn truncate(cursor: &mut Cursor<'_>) -> Draft {
    cursor.take(&["table"]);
    match cursor.relations() {
        Some(relations) => {
            let mut draft = Draft::new(StatementKind::Write);
            draft.writes.extend(relations);
            draft
        }
        None => Draft::unparsed(),
    }
}

fn refresh(cursor: &mut Cursor<'_>) -> Draft {
    if cursor.take(&["materialized", "view"]) {
        cursor.take(&["concurrently"]);
        if let Some(relation) = cursor.relation() {
            let mut draft = Draft::new(StatementKind::Write);
            draft.writes.insert(relation);
            return draft;
        }
    }
    Draft::unparsed()
}
