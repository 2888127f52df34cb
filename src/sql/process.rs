//! Statements that ask for the number of their own process, or cancel or end a process by its number, and nothing else.
//!
//! Sources: "System Administration Functions" of PostgreSQL's manual, `CANCEL` and `PG_TERMINATE_BACKEND` of Redshift's;
//! the forms are those of drivers and tools (dbt, Superset, psycopg2).

use super::facts::Cursor;
use super::lex::Lexer;
use super::statement::ProcessUse;
use super::token::{Backslash, Token, TokenKind};

/// More tokens than any of these statements has.
const MAX_TOKENS: usize = 24;

/// The process that a statement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessTarget {
    /// That which runs the statement.
    Own,
    /// That with this number.
    Number(u32),
    /// That whose number is the first parameter.
    Parameter,
}

/// What a statement asks of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessCall {
    /// What it does.
    pub usage: ProcessUse,
    /// To which process.
    pub target: ProcessTarget,
    /// The name of the one column of its answer; `None` for a command, which has none.
    pub column: Option<String>,
}

impl ProcessCall {
    /// Of `text`, if it is one such statement and nothing else.
    pub fn of(text: &[u8], backslash: Backslash) -> Option<Self> {
        let mut tokens: Vec<Token> = Lexer::new(text, backslash).take(MAX_TOKENS + 2).collect();
        while tokens.pop_if(|token| token.is(text, ";")).is_some() {}
        Self::read(text, &tokens)
    }

    /// A text that says the same.
    pub fn to_text(&self) -> String {
        let target = match self.target {
            ProcessTarget::Own => String::new(),
            ProcessTarget::Number(number) => number.to_string(),
            ProcessTarget::Parameter => "$1".to_owned(),
        };
        let function = match (self.usage, &self.column) {
            (_, None) => return format!("CANCEL {target}"),
            (ProcessUse::Number, Some(_)) => "pg_backend_pid",
            (ProcessUse::Cancel, Some(_)) => "pg_cancel_backend",
            (ProcessUse::Terminate, Some(_)) => "pg_terminate_backend",
        };
        let column = self.column.as_deref().unwrap_or(function).replace('"', "\"\"");
        format!("SELECT {function}({target}) AS \"{column}\"")
    }

    /// Of the tokens of one statement.
    pub(super) fn read(text: &[u8], tokens: &[Token]) -> Option<Self> {
        if tokens.len() > MAX_TOKENS {
            return None;
        }
        let cursor = &mut Cursor::new(text, tokens);
        if cursor.take(&["cancel"]) {
            return cancel(cursor);
        }
        if !cursor.take(&["select"]) || (cursor.take(&["pg_catalog"]) && !cursor.take_mark(".")) {
            return None;
        }
        let function = cursor.name()?;
        let usage = match function.as_str() {
            "pg_backend_pid" => ProcessUse::Number,
            "pg_cancel_backend" => ProcessUse::Cancel,
            "pg_terminate_backend" => ProcessUse::Terminate,
            _ => return None,
        };
        if !cursor.take_mark("(") {
            return None;
        }
        let listed = ["pid", "procpid"]
            .into_iter()
            .find(|name| usage != ProcessUse::Number && cursor.take(&[name]));
        let mut target = match (usage, listed) {
            (ProcessUse::Number, _) | (_, Some(_)) => ProcessTarget::Own,
            (ProcessUse::Cancel | ProcessUse::Terminate, None) => target(cursor)?,
        };
        if !cursor.take_mark(")") {
            return None;
        }
        let mut column = function;
        if cursor.take(&["as"]) || (!cursor.at_end() && !cursor.sees(&["from"])) {
            column = cursor.name()?;
        }
        if let Some(name) = listed {
            let place = cursor.take(&["from"])
                && (!cursor.take(&["pg_catalog"]) || cursor.take_mark("."))
                && cursor.take(&["pg_stat_activity"])
                && cursor.take(&["where", name])
                && cursor.take_operator("=");
            if !place {
                return None;
            }
            target = self::target(cursor)?;
        }
        cursor.at_end().then_some(Self {
            usage,
            target,
            column: Some(column),
        })
    }
}

/// `CANCEL process_id ['message']`.
fn cancel(cursor: &mut Cursor<'_>) -> Option<ProcessCall> {
    let target = target(cursor)?;
    if cursor.peek().is_some_and(|token| token.kind == TokenKind::Text) {
        cursor.next();
    }
    cursor.at_end().then_some(ProcessCall {
        usage: ProcessUse::Cancel,
        target,
        column: None,
    })
}

/// A number, one in quotes, or the first parameter, perhaps with a cast to `integer`. What is no number of a process is 0:
/// whether a statement is of these must not depend on its literals.
fn target(cursor: &mut Cursor<'_>) -> Option<ProcessTarget> {
    let token = *cursor.next()?;
    let text = std::str::from_utf8(token.bytes(cursor.text)).unwrap_or_default();
    let found = if matches!(token.kind, TokenKind::Number | TokenKind::Text) {
        ProcessTarget::Number(text.trim_matches('\'').trim().parse().unwrap_or(0))
    } else if token.kind == TokenKind::Parameter && text == "$1" {
        ProcessTarget::Parameter
    } else {
        return None;
    };
    if cursor.take_mark("::") && !cursor.take_any(&["int", "integer", "int4"]) {
        return None;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_drivers_and_tools_are_known_and_no_others() {
        use ProcessTarget::{Number, Own, Parameter};
        let call = |usage, target, column: &str| {
            let column = (!column.is_empty()).then(|| column.to_owned());
            Some(ProcessCall {
                usage,
                target,
                column,
            })
        };
        let (pid, cancel, end) = ("pg_backend_pid", "pg_cancel_backend", "pg_terminate_backend");
        for (text, expected) in [
            ("SELECT pg_backend_pid()", call(ProcessUse::Number, Own, pid)),
            (
                "select PG_CATALOG.pg_backend_pid() ;",
                call(ProcessUse::Number, Own, pid),
            ),
            (
                "SELECT pg_backend_pid() AS \"My pid\"",
                call(ProcessUse::Number, Own, "My pid"),
            ),
            (
                "SELECT pg_backend_pid() pid",
                call(ProcessUse::Number, Own, "pid"),
            ),
            ("SELECT pg_backend_pid(), 1", None),
            ("SELECT pg_backend_pid() FROM t", None),
            ("SELECT pg_backend_pid() + 1", None),
            ("SELECT pg_backend_pid(); SELECT 1", None),
            ("SELECT other.pg_backend_pid()", None),
            (
                "SELECT pg_terminate_backend(5000001)",
                call(ProcessUse::Terminate, Number(5_000_001), end),
            ),
            (
                "SELECT pg_cancel_backend('5000001') AS done",
                call(ProcessUse::Cancel, Number(5_000_001), "done"),
            ),
            (
                "SELECT pg_terminate_backend($1::int)",
                call(ProcessUse::Terminate, Parameter, end),
            ),
            ("SELECT pg_terminate_backend($2)", None),
            ("SELECT pg_terminate_backend(-1)", None),
            (
                "SELECT pg_terminate_backend(99999999999)",
                call(ProcessUse::Terminate, Number(0), end),
            ),
            (
                "SELECT pg_terminate_backend('x')",
                call(ProcessUse::Terminate, Number(0), end),
            ),
            ("SELECT pg_terminate_backend(pg_backend_pid())", None),
            ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity", None),
            (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid='5000001'",
                call(ProcessUse::Terminate, Number(5_000_001), end),
            ),
            (
                "SELECT pg_cancel_backend(procpid) FROM pg_stat_activity WHERE procpid = 5000001",
                call(ProcessUse::Cancel, Number(5_000_001), cancel),
            ),
            (
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE procpid = 5000001",
                None,
            ),
            (
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = 5000001 OR true",
                None,
            ),
            ("CANCEL 5000001", call(ProcessUse::Cancel, Number(5_000_001), "")),
            (
                "CANCEL 5000001 'too long'",
                call(ProcessUse::Cancel, Number(5_000_001), ""),
            ),
            ("CANCEL 5000001, 5000002", None),
            ("CANCEL", None),
            ("", None),
        ] {
            let found = ProcessCall::of(text.as_bytes(), Backslash::Literal);
            assert_eq!(found, expected, "{text}");
            if let Some(call) = found {
                let again = ProcessCall::of(call.to_text().as_bytes(), Backslash::Literal);
                assert_eq!(again, Some(call), "{text}");
            }
        }
    }
}
