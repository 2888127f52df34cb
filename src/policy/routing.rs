//! Whether a copy of the database may answer a statement. Default deny.

use std::sync::Arc;

use super::cacheability::{has_function, word_obstacle};
use super::catalog::{Catalog, Relation, RelationKind};
use super::reason::BypassReason;
use crate::sql::{Statement, StatementKind};

/// Whether a server that only follows the primary answers `statement` as the primary would, as far as it has followed: it
/// reads relations that are copied, and calls nothing that writes, or tells of the server or the session.
///
/// Not judged here, but by the caller: the session's state.
pub fn may_read_elsewhere(statement: &Statement, catalog: &Catalog, search_path: &[Arc<str>]) -> bool {
    if statement.kind != StatementKind::Read
        || !statement.writes.is_empty()
        || statement.setting.is_some()
        || statement.transaction.is_some()
        || statement.pin.is_some()
        || statement.locking
        || statement.reads.is_empty()
        || has_function(statement, "explain")
        || catalog.hidden_user_code().is_some()
        || catalog.writes_by_code(statement)
    {
        return false;
    }
    let calls = statement
        .functions
        .iter()
        .filter_map(|name| catalog.functions.obstacle(name));
    let words = statement
        .identifiers
        .iter()
        .filter_map(|word| word_obstacle(word, catalog));
    if !calls.chain(words).all(harmless) {
        return false;
    }
    if statement
        .operators
        .iter()
        .any(|symbol| catalog.is_user_operator(symbol))
    {
        return false;
    }
    statement.reads.iter().all(|name| {
        let mut candidates = catalog.candidates(name, search_path).peekable();
        candidates.peek().is_some() && candidates.all(|relation| copied(relation, catalog))
    })
}

/// Whether a follower has the relation's rows, and reading them runs no code of users.
fn copied(relation: &Relation, catalog: &Catalog) -> bool {
    let there = |oid: &u32| {
        let base = catalog.relation(*oid);
        base.is_some_and(|base| !base.definition.unlogged)
    };
    // of a view only the first obstacle is known
    let view = relation.definition.kind == RelationKind::View;
    let harmless = relation.obstacle.is_none_or(|reason| !view && harmless(reason));
    !relation.read_may_write && harmless && relation.base.iter().all(there)
}

/// Whether what keeps an answer from being kept is no reason to ask the primary for it.
fn harmless(reason: BypassReason) -> bool {
    match reason {
        BypassReason::Moment
        | BypassReason::StableFunction
        | BypassReason::ColumnType
        | BypassReason::RowSecurity
        | BypassReason::NotAggregate
        | BypassReason::TooManyRelations => true,
        BypassReason::CacheOff
        | BypassReason::SessionOff
        | BypassReason::TakingOver
        | BypassReason::InTransaction
        | BypassReason::Pinned
        | BypassReason::NoCatalog
        | BypassReason::NotRead
        | BypassReason::Explain
        | BypassReason::Locking
        | BypassReason::NoRelation
        | BypassReason::UnknownRelation
        | BypassReason::SystemRelation
        | BypassReason::Sequence
        | BypassReason::ForeignTable
        | BypassReason::ViewNotUnderstood
        | BypassReason::SystemColumn
        | BypassReason::Sample
        | BypassReason::SessionDependent
        | BypassReason::Volatile
        | BypassReason::UnknownFunction
        | BypassReason::UserFunction
        | BypassReason::UserOperator
        | BypassReason::UserType
        | BypassReason::UserCast => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::samples::{aggregate, catalog, path, write};

    #[test]
    fn what_only_reads_copied_tables_may_be_read_elsewhere() {
        let (catalog, path) = (catalog(), path("public"));
        for (reads, functions, words, expected) in [
            ("events", "count", "", true),
            ("events", "count now", "", true),
            ("", "count", "", false),
            ("nowhere", "count", "", false),
            ("events", "random", "", false),
            ("events", "nextval", "", false),
            ("events", "current_user", "", false),
            ("events", "unheard_of", "", false),
            ("events", "count", "ctid", false),
        ] {
            let statement = aggregate(reads, functions, words);
            assert_eq!(
                may_read_elsewhere(&statement, &catalog, &path),
                expected,
                "{reads} {functions} {words}"
            );
        }
        let locking = Statement {
            locking: true,
            ..aggregate("events", "", "")
        };
        assert!(!may_read_elsewhere(&locking, &catalog, &path));
        assert!(!may_read_elsewhere(&write("events", "", ""), &catalog, &path));
    }
}
