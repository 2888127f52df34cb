//! What a statement makes stale once it has run.

use std::sync::Arc;

use super::catalog::{Catalog, RelationKind, WriteClosure};
use crate::sql::{PinReason, RelationName, SessionUse, Statement, StatementKind, TransactionControl};

/// The verdict. It holds from before the statement is sent until its transaction has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// Nothing.
    Nothing,
    /// Entries that depend on one of these relations (oids, sorted, each once, never empty).
    Relations(Arc<[u32]>),
    /// Every entry of every database: roles and rights are shared, and code may reach other databases.
    Everything,
    /// Every entry; and the definitions must be loaded again.
    Definitions,
}

/// Whether `statement` reads a relation that is not known: it does not exist, is temporary, or has come since definitions were
/// read; then reading it may run code that writes.
pub fn reads_unknown(statement: &Statement, catalog: &Catalog, search_path: &[Arc<str>]) -> bool {
    statement
        .reads
        .iter()
        .any(|name| !name.is_temporary() && catalog.candidates(name, search_path).next().is_none())
}

/// Judges `statement` as run with `search_path`. Without a catalog whatever may write is taken to write everywhere.
///
/// A read of an unknown relation makes nothing stale by this: see [`reads_unknown`].
pub fn invalidation(
    statement: &Statement,
    catalog: Option<&Catalog>,
    search_path: &[Arc<str>],
) -> Invalidation {
    match statement.kind {
        StatementKind::Read => called(statement, catalog, search_path),
        StatementKind::Write => written(statement, catalog, search_path),
        StatementKind::Copy => match (statement.writes.is_empty(), statement.reads.is_empty()) {
            (false, _) => written(statement, catalog, search_path),
            (true, false) => called(statement, catalog, search_path),
            (true, true) => Invalidation::Everything,
        },
        StatementKind::Ddl if statement.pin == Some(PinReason::TemporaryTable) => {
            written(statement, catalog, search_path)
        }
        StatementKind::Ddl => Invalidation::Definitions,
        StatementKind::Transaction => match statement.transaction {
            // COMMIT PREPARED ends a transaction whose writes were made elsewhere
            Some(TransactionControl::Other) if has_word(statement, "prepared") => Invalidation::Everything,
            Some(
                TransactionControl::Begin
                | TransactionControl::Commit
                | TransactionControl::Rollback
                | TransactionControl::Savepoint
                | TransactionControl::Other,
            )
            | None => Invalidation::Nothing,
        },
        StatementKind::Setting => Invalidation::Nothing,
        StatementKind::Session | StatementKind::Utility => session(statement, catalog, search_path),
        StatementKind::Unparsed => Invalidation::Everything,
    }
}

/// Statements that use what lives in one backend session.
fn session(statement: &Statement, catalog: Option<&Catalog>, search_path: &[Arc<str>]) -> Invalidation {
    // what EXECUTE and CALL run is not known
    if matches!(statement.session, Some(SessionUse::Execute(_))) {
        return Invalidation::Everything;
    }
    match statement.pin {
        Some(PinReason::Unparsed | PinReason::Procedure) => Invalidation::Everything,
        // PREPARE runs nothing
        Some(PinReason::PreparedStatement) => Invalidation::Nothing,
        Some(
            PinReason::Cursor
            | PinReason::TemporaryTable
            | PinReason::Listen
            | PinReason::AdvisoryLock
            | PinReason::BackendPid
            | PinReason::Role
            | PinReason::Setting,
        )
        | None
            if statement.writes.is_empty() =>
        {
            called(statement, catalog, search_path)
        }
        Some(_) | None => written(statement, catalog, search_path),
    }
}

/// What the functions make stale that a statement calls.
fn called(statement: &Statement, catalog: Option<&Catalog>, search_path: &[Arc<str>]) -> Invalidation {
    let Some(catalog) = catalog else {
        let nothing_called = statement.functions.is_empty() && statement.reads.is_empty();
        return if nothing_called {
            Invalidation::Nothing
        } else {
            Invalidation::Everything
        };
    };
    if runs_code(statement, catalog, search_path) {
        Invalidation::Everything
    } else {
        Invalidation::Nothing
    }
}

/// Whether `statement` runs code that may write: of users, by its source, or what runs text that it is given, or is not known.
fn runs_code(statement: &Statement, catalog: &Catalog, search_path: &[Arc<str>]) -> bool {
    let functions = &catalog.functions;
    catalog.writes_by_code(statement)
        || statement
            .functions
            .iter()
            .any(|name| functions.runs_anything(name))
        || statement
            .operators
            .iter()
            .any(|symbol| catalog.is_user_operator(symbol))
        || statement.reads.iter().any(|name| {
            catalog
                .candidates(name, search_path)
                .any(|relation| relation.read_may_write)
        })
}

/// What a write makes stale.
fn written(statement: &Statement, catalog: Option<&Catalog>, search_path: &[Arc<str>]) -> Invalidation {
    let Some(catalog) = catalog else {
        return Invalidation::Everything;
    };
    // the table it creates is not known, and nobody else can read it
    let temporary = statement.pin == Some(PinReason::TemporaryTable);
    if statement.writes.is_empty() && !temporary {
        return Invalidation::Everything;
    }
    if called(statement, Some(catalog), search_path) != Invalidation::Nothing {
        return Invalidation::Everything;
    }
    // TRUNCATE … CASCADE follows every foreign key
    let truncate = has_word(statement, "truncate");
    let mut oids: Vec<u32> = Vec::new();
    for name in &statement.writes {
        match written_by_name(name, catalog, search_path, truncate) {
            Closure::Relations(closure) => oids.extend(closure),
            Closure::NoSuchRelation if temporary => {}
            Closure::NoSuchRelation | Closure::Unknown => return Invalidation::Everything,
            Closure::System => return Invalidation::Definitions,
        }
    }
    oids.sort_unstable();
    oids.dedup();
    if oids.is_empty() {
        Invalidation::Nothing
    } else {
        Invalidation::Relations(oids.into())
    }
}

enum Closure {
    Relations(Vec<u32>),
    NoSuchRelation,
    Unknown,
    System,
}

fn written_by_name(
    name: &RelationName,
    catalog: &Catalog,
    search_path: &[Arc<str>],
    truncate: bool,
) -> Closure {
    let mut candidates = catalog.candidates(name, search_path).peekable();
    if candidates.peek().is_none() {
        return Closure::NoSuchRelation;
    }
    let mut oids = Vec::new();
    for relation in candidates {
        if relation.definition.kind == RelationKind::System {
            return Closure::System;
        }
        let closure = if truncate {
            catalog.truncate_closure(relation)
        } else {
            catalog.write_closure(relation)
        };
        match closure {
            WriteClosure::Relations(closure) => oids.extend_from_slice(closure),
            WriteClosure::Unknown => return Closure::Unknown,
        }
    }
    Closure::Relations(oids)
}

fn has_word(statement: &Statement, word: &str) -> bool {
    statement
        .identifiers
        .iter()
        .any(|identifier| **identifier == *word)
}

#[cfg(test)]
mod tests;
