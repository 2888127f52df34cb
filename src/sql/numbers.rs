//! What a statement does with the numbers of sequences: it takes one, or asks which was taken last.
//!
//! Source: <https://www.postgresql.org/docs/current/functions-sequence.html>.

use super::statement::{NumberUse, Statement, StatementKind};

/// Functions that tell what was taken last.
const ASKING: [&str; 2] = ["currval", "lastval"];

/// Functions that take a number, or set the one that was taken last.
const TAKING: [&str; 2] = ["nextval", "setval"];

/// Reads it off the facts of `statement`.
pub(super) fn number_use(statement: &Statement) -> NumberUse {
    NumberUse {
        takes: takes(statement),
        asks: asks(statement),
    }
}

fn asks(statement: &Statement) -> bool {
    // of statements that are not parsed only the words are known
    let parsed = matches!(statement.kind, StatementKind::Read | StatementKind::Write);
    ASKING.iter().any(|name| {
        if parsed {
            statement
                .functions
                .iter()
                .any(|function| *function.name == **name)
        } else {
            statement.mentions(name)
        }
    })
}

fn takes(statement: &Statement) -> bool {
    match statement.kind {
        StatementKind::Read => TAKING.iter().any(|name| statement.mentions(name)),
        StatementKind::Transaction | StatementKind::Setting => false,
        StatementKind::Write
        | StatementKind::Copy
        | StatementKind::Ddl
        | StatementKind::Session
        | StatementKind::Utility
        | StatementKind::Unparsed => true,
    }
}
