//! Why an answer is not kept.

/// Why a statement goes to the backend instead of the cache. Default deny: whatever is not known to be safe has a
/// reason here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BypassReason {
    /// The configuration has the cache off.
    CacheOff,
    /// The session has the cache off.
    SessionOff,
    /// Another process of the gateway still serves its sessions, and their writes are not seen here.
    TakingOver,
    /// Inside an explicit transaction.
    InTransaction,
    /// The session keeps its backend connection, so what it sees may differ from what others see; or the statement
    /// makes it do so.
    Pinned,
    /// The database's definitions are not loaded, or are being loaded again.
    NoCatalog,
    /// Not a statement that only reads.
    NotRead,
    /// `EXPLAIN`: the plan, not the data.
    Explain,
    /// Takes row locks.
    Locking,
    /// No aggregate, and only aggregates are kept.
    NotAggregate,
    /// Reads no relation.
    NoRelation,
    /// Reads more relations than an entry may depend on.
    TooManyRelations,
    /// Reads a relation that the catalog snapshot does not have.
    UnknownRelation,
    /// Reads a system catalog or the information schema.
    SystemRelation,
    /// Reads a sequence.
    Sequence,
    /// Reads a foreign table, whose writes are not seen here.
    ForeignTable,
    /// Reads a table with row security: each user may see other rows.
    RowSecurity,
    /// Reads a view whose definition could not be analyzed.
    ViewNotUnderstood,
    /// Reads a column whose type is read or printed in a way that is not fixed.
    ColumnType,
    /// Names a system column that changes without a write, e.g. `ctid`.
    SystemColumn,
    /// `TABLESAMPLE`.
    Sample,
    /// Depends on the moment.
    Moment,
    /// Depends on who asks, or on the session, or on the catalog.
    SessionDependent,
    /// Calls a built-in function that is volatile.
    Volatile,
    /// Calls a built-in stable function that is not on the list of those that depend only on arguments and settings.
    StableFunction,
    /// Calls a function that the catalog snapshot does not have.
    UnknownFunction,
    /// Calls a function or an aggregate that a user defined.
    UserFunction,
    /// Uses an operator that a user defined with a function that is not immutable.
    UserOperator,
    /// Names a type whose values are made by code that a user defined and that is not immutable.
    UserType,
    /// The database has a cast with a function that a user defined and that is not immutable: it may apply unseen.
    UserCast,
}

impl BypassReason {
    /// Every reason, for metrics and documentation.
    pub const ALL: [Self; 30] = [
        Self::CacheOff,
        Self::SessionOff,
        Self::TakingOver,
        Self::InTransaction,
        Self::Pinned,
        Self::NoCatalog,
        Self::NotRead,
        Self::Explain,
        Self::Locking,
        Self::NotAggregate,
        Self::NoRelation,
        Self::TooManyRelations,
        Self::UnknownRelation,
        Self::SystemRelation,
        Self::Sequence,
        Self::ForeignTable,
        Self::RowSecurity,
        Self::ViewNotUnderstood,
        Self::ColumnType,
        Self::SystemColumn,
        Self::Sample,
        Self::Moment,
        Self::SessionDependent,
        Self::Volatile,
        Self::StableFunction,
        Self::UnknownFunction,
        Self::UserFunction,
        Self::UserOperator,
        Self::UserType,
        Self::UserCast,
    ];

    /// A short label in snake case: the value of a metric's label and of `SHOW tollgate.last`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CacheOff => "cache_off",
            Self::SessionOff => "session_off",
            Self::TakingOver => "taking_over",
            Self::InTransaction => "in_transaction",
            Self::Pinned => "pinned",
            Self::NoCatalog => "no_catalog",
            Self::NotRead => "not_read",
            Self::Explain => "explain",
            Self::Locking => "row_locks",
            Self::NotAggregate => "not_aggregate",
            Self::NoRelation => "no_relation",
            Self::TooManyRelations => "too_many_relations",
            Self::UnknownRelation => "unknown_relation",
            Self::SystemRelation => "system_relation",
            Self::Sequence => "sequence",
            Self::ForeignTable => "foreign_table",
            Self::RowSecurity => "row_security",
            Self::ViewNotUnderstood => "view_not_understood",
            Self::ColumnType => "column_type",
            Self::SystemColumn => "system_column",
            Self::Sample => "sample",
            Self::Moment => "moment",
            Self::SessionDependent => "session_dependent",
            Self::Volatile => "volatile_function",
            Self::StableFunction => "stable_function",
            Self::UnknownFunction => "unknown_function",
            Self::UserFunction => "user_function",
            Self::UserOperator => "user_operator",
            Self::UserType => "user_type",
            Self::UserCast => "user_cast",
        }
    }

    /// A sentence for people.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::CacheOff => "The cache is off in the configuration.",
            Self::SessionOff => "The cache is off in this session.",
            Self::TakingOver => {
                "Another process of the gateway still serves sessions, whose writes are not seen here."
            }
            Self::InTransaction => {
                "Statements inside an explicit transaction are always run by the database."
            }
            Self::Pinned => "The session keeps its database connection, so its answers may be its own.",
            Self::NoCatalog => "The database's definitions are not loaded yet, or are being loaded again.",
            Self::NotRead => "Only statements that do nothing but read are kept.",
            Self::Explain => "EXPLAIN shows a plan, and plans change without a write.",
            Self::Locking => "The statement takes row locks, so the database must run it.",
            Self::NotAggregate => "Only aggregates (GROUP BY, DISTINCT, aggregate functions) are kept.",
            Self::NoRelation => "The statement reads no table.",
            Self::TooManyRelations => "The statement reads more tables than an entry may depend on.",
            Self::UnknownRelation => "The statement reads a table that is not known, e.g. a temporary one.",
            Self::SystemRelation => "System catalogs change without a write that can be seen.",
            Self::Sequence => "Sequences change without a write that can be seen.",
            Self::ForeignTable => "Writes to foreign tables cannot be seen.",
            Self::RowSecurity => "The table has row security, so each user may see other rows.",
            Self::ViewNotUnderstood => "The view's definition could not be analyzed.",
            Self::ColumnType => {
                "The table has a column of a type whose values may be read differently at another moment."
            }
            Self::SystemColumn => "System columns such as ctid and xmin change without a write.",
            Self::Sample => "TABLESAMPLE picks other rows each time.",
            Self::Moment => "The answer depends on the moment.",
            Self::SessionDependent => "The answer depends on the user, the session or the catalog.",
            Self::Volatile => "The statement calls a volatile function.",
            Self::StableFunction => {
                "The statement calls a stable function that may depend on more than its arguments."
            }
            Self::UnknownFunction => "The statement calls a function that is not known.",
            Self::UserFunction => "The statement calls a function defined by a user.",
            Self::UserOperator => "The statement uses an operator defined by a user that is not immutable.",
            Self::UserType => "The statement uses a type defined by a user whose input is not immutable.",
            Self::UserCast => "The database has a cast defined by a user that is not immutable.",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn labels_are_distinct_and_snake_case() {
        let labels: BTreeSet<_> = BypassReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(labels.len(), BypassReason::ALL.len());
        for label in labels {
            assert!(
                label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{label}"
            );
        }
    }

    #[test]
    fn explanations_are_sentences() {
        for reason in BypassReason::ALL {
            assert!(reason.explanation().ends_with('.'), "{reason:?}");
        }
    }
}
