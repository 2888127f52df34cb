//! Whether a statement's answer may be kept, and what makes it stale. Default deny.

use std::sync::Arc;

use super::catalog::{Catalog, Relation};
use super::reason::BypassReason;
use crate::config::CacheWhat;
use crate::sql::{Statement, StatementKind};

/// The verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cacheability {
    /// The answer may be kept until a write to one of these relations (oids, sorted, each once, never empty).
    Cacheable(Arc<[u32]>),
    /// It may not.
    Bypass(BypassReason),
}

/// The most relations that an entry may depend on; checking them costs about 10 ns each on every hit.
pub const MAX_TAGS: usize = 1_024;

/// Settings of a PostgreSQL session on which the text or the value of an answer may depend, `role` and `search_path`
/// apart: a cache key that leaves one out is wrong.
///
/// Source: <https://www.postgresql.org/docs/current/runtime-config-client.html>.
pub const RESULT_SETTINGS: &[&str] = &[
    "array_nulls",
    "backslash_quote",
    "bytea_output",
    "client_encoding",
    "datestyle",
    "default_text_search_config",
    "escape_string_warning",
    "extra_float_digits",
    "intervalstyle",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "quote_all_identifiers",
    "standard_conforming_strings",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmlbinary",
    "xmloption",
];

/// System columns that change without a write of the row's values.
const SYSTEM_COLUMNS: &[&str] = &["cmax", "cmin", "ctid", "xmax", "xmin"];

/// Judges `statement` as run with `search_path` (see [`super::search_path`]).
///
/// Not judged here, but by the caller: the session's state (transaction, pin, switch), and literals and parameters that
/// name a moment such as `'today'`.
pub fn cacheability(
    statement: &Statement,
    catalog: &Catalog,
    search_path: &[Arc<str>],
    what: CacheWhat,
) -> Cacheability {
    match tags(statement, catalog, search_path, what) {
        Ok(tags) => Cacheability::Cacheable(tags),
        Err(reason) => Cacheability::Bypass(reason),
    }
}

fn tags(
    statement: &Statement,
    catalog: &Catalog,
    search_path: &[Arc<str>],
    what: CacheWhat,
) -> Result<Arc<[u32]>, BypassReason> {
    shape_obstacle(statement).map_or(Ok(()), Err)?;
    match what {
        CacheWhat::Off => return Err(BypassReason::CacheOff),
        CacheWhat::Aggregates if !statement.aggregate => return Err(BypassReason::NotAggregate),
        CacheWhat::Aggregates | CacheWhat::Reads => {}
    }
    statement_obstacle(statement, catalog).map_or(Ok(()), Err)?;
    if statement.reads.is_empty() {
        return Err(BypassReason::NoRelation);
    }
    let mut tags: Vec<u32> = Vec::with_capacity(statement.reads.len());
    for name in &statement.reads {
        let mut candidates = catalog.candidates(name, search_path).peekable();
        if candidates.peek().is_none() {
            return Err(BypassReason::UnknownRelation);
        }
        for relation in candidates {
            relation_obstacle(relation, statement).map_or(Ok(()), Err)?;
            tags.extend_from_slice(&relation.base);
        }
    }
    if catalog.may_read_moment(statement, search_path) {
        return Err(BypassReason::Moment);
    }
    tags.sort_unstable();
    tags.dedup();
    match tags.len() {
        0 => Err(BypassReason::NoRelation),
        1..=MAX_TAGS => Ok(tags.into()),
        _ => Err(BypassReason::TooManyRelations),
    }
}

/// What the statement is.
fn shape_obstacle(statement: &Statement) -> Option<BypassReason> {
    if statement.kind != StatementKind::Read
        || !statement.writes.is_empty()
        || statement.setting.is_some()
        || statement.transaction.is_some()
    {
        return Some(BypassReason::NotRead);
    }
    if statement.pin.is_some() {
        return Some(BypassReason::Pinned);
    }
    if statement.locking {
        return Some(BypassReason::Locking);
    }
    has_function(statement, "explain").then_some(BypassReason::Explain)
}

/// What the statement calls and names, relations apart; views' definitions are judged by it too.
pub(super) fn statement_obstacle(statement: &Statement, catalog: &Catalog) -> Option<BypassReason> {
    catalog
        .hidden_user_code()
        .or_else(|| {
            statement
                .functions
                .iter()
                .find_map(|name| catalog.functions.obstacle(name))
        })
        .or_else(|| {
            statement
                .identifiers
                .iter()
                .find_map(|word| word_obstacle(word, catalog))
        })
        .or_else(|| {
            let mut symbols = statement.operators.iter();
            symbols
                .any(|symbol| catalog.is_user_operator(symbol))
                .then_some(BypassReason::UserOperator)
        })
        .or_else(|| {
            (has_function(statement, "time") && names_a_zone(statement)).then_some(BypassReason::Moment)
        })
        .or_else(|| {
            (catalog.touched_by(statement) || catalog.writes_by_code(statement))
                .then_some(BypassReason::UserFunction)
        })
}

pub(super) fn word_obstacle(word: &str, catalog: &Catalog) -> Option<BypassReason> {
    if SYSTEM_COLUMNS.contains(&word) {
        return Some(BypassReason::SystemColumn);
    }
    if word == "tablesample" {
        return Some(BypassReason::Sample);
    }
    if catalog.is_user_type(word) {
        return Some(BypassReason::UserType);
    }
    catalog.functions.word_obstacle(word)
}

fn relation_obstacle(relation: &Relation, statement: &Statement) -> Option<BypassReason> {
    if relation.obstacle.is_some() {
        return relation.obstacle;
    }
    (relation.time_columns && names_a_zone(statement)).then_some(BypassReason::Moment)
}

/// Whether a time of day may be moved to a zone, which takes the zone's offset of today.
pub(super) fn names_a_zone(statement: &Statement) -> bool {
    has_function(statement, "timezone") || has_word(statement, "zone")
}

fn has_word(statement: &Statement, word: &str) -> bool {
    statement
        .identifiers
        .iter()
        .any(|identifier| **identifier == *word)
}

pub(super) fn has_function(statement: &Statement, name: &str) -> bool {
    statement.functions.iter().any(|function| *function.name == *name)
}

#[cfg(test)]
mod tests;
