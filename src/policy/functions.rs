//! What is known of functions: which may be called by a statement whose answer is kept.
//!
//! Built-in functions are classed by `pg_proc.provolatile`. "Stable" there means constant within one statement, which
//! covers both `to_char` (arguments and settings only) and `now` (the moment): [`STABLE_ALLOWED`] tells them apart.
//! Sources: <https://www.postgresql.org/docs/current/xfunc-volatility.html>,
//! <https://www.postgresql.org/docs/current/functions.html>, and `pg_proc.dat` of PostgreSQL 13 to 17.

use std::collections::HashMap;
use std::sync::Arc;

use super::reason::BypassReason;
use crate::sql::FunctionName;

/// PostgreSQL's own promise about a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Volatility {
    /// Same arguments, same result, for ever.
    Immutable,
    /// Same arguments, same result, within one statement.
    Stable,
    /// Anything, side effects too.
    Volatile,
}

/// One function as the catalog has it; overloads are separate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionDefinition {
    /// Its name, as stored.
    pub name: Arc<str>,
    /// Comes with PostgreSQL, in `pg_catalog` or `information_schema`.
    pub builtin: bool,
    /// PostgreSQL's promise.
    pub volatility: Volatility,
    /// Can be called as `row.name`: takes one row (or a pseudo-type), with at most defaults after it.
    pub attribute: bool,
}

/// The worst that a function's name can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FunctionClass {
    /// PostgreSQL's own, the worst of its overloads.
    Builtin(Volatility),
    /// A user defined it, and says that it is immutable.
    UserImmutable,
    /// A user defined it.
    UserOther,
}

/// Every function of a database, by name.
#[derive(Clone, Debug, Default)]
pub struct Functions {
    builtin: HashMap<Arc<str>, Volatility>,
    user: HashMap<Arc<str>, Volatility>,
    /// Of users, that can be called as `row.name`.
    attributes: HashMap<Arc<str>, Volatility>,
}

/// Calls whose result depends on the moment. `age` with one argument does; the argument count is not known here.
/// `timetz` takes the session zone's offset of today.
const MOMENT: &[&str] = &[
    "age",
    "clock_timestamp",
    "current_date",
    "current_time",
    "current_timestamp",
    "getdate",
    "localtime",
    "localtimestamp",
    "now",
    "statement_timestamp",
    "sysdate",
    "timeofday",
    "timetz",
    "transaction_timestamp",
];

/// Calls whose result depends on the user, the session or the catalog.
const SESSION: &[&str] = &[
    "current_catalog",
    "current_database",
    "current_query",
    "current_role",
    "current_schema",
    "current_schemas",
    "current_setting",
    "current_user",
    "current_user_id",
    "getpgusername",
    "row_security_active",
    "session_user",
    "set_config",
    "system_user",
    "user",
    "version",
];

/// Beginnings of names of built-in functions that look at the session or the catalog, unless immutable.
const SESSION_PREFIXES: &[&str] = &["pg_", "has_", "inet_", "to_reg", "reg", "txid_"];

/// Words that are calls without parentheses: a second net under the analyzer, looked for among all identifiers.
const BARE_MOMENT: &[&str] = &[
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
    "sysdate",
    "timetz",
];

/// The same for the session.
const BARE_SESSION: &[&str] = &[
    "current_catalog",
    "current_role",
    "current_schema",
    "current_user",
    "regclass",
    "regcollation",
    "regconfig",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
    "session_user",
    "system_user",
    "user",
];

/// Syntax that looks like a call but has no row in `pg_proc`; its result depends on its arguments only.
const SYNTAX: &[&str] = &[
    "all",
    "any",
    "array",
    "cast",
    "coalesce",
    "cube",
    "exists",
    "extract",
    "greatest",
    "grouping",
    "grouping_sets",
    "interval",
    "json_array",
    "json_arrayagg",
    "json_exists",
    "json_object",
    "json_objectagg",
    "json_query",
    "json_scalar",
    "json_serialize",
    "json_value",
    "least",
    "nullif",
    "rollup",
    "row",
    "some",
    "trim",
];

/// Stable built-in functions that depend on their arguments and on [`super::RESULT_SETTINGS`] only.
const STABLE_ALLOWED: &[&str] = &[
    "array_to_json",
    "array_to_string",
    "concat",
    "concat_ws",
    "convert",
    "convert_from",
    "convert_to",
    "date",
    "date_add",
    "date_part",
    "date_subtract",
    "date_trunc",
    "enum_first",
    "enum_last",
    "enum_range",
    "extract",
    "format",
    "generate_series",
    "interval",
    "json_agg",
    "json_agg_strict",
    "json_build_array",
    "json_build_object",
    "json_object_agg",
    "json_object_agg_strict",
    "json_object_agg_unique",
    "json_object_agg_unique_strict",
    "json_to_record",
    "json_to_recordset",
    "jsonb_agg",
    "jsonb_agg_strict",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_object_agg",
    "jsonb_object_agg_strict",
    "jsonb_object_agg_unique",
    "jsonb_object_agg_unique_strict",
    "jsonb_path_exists_tz",
    "jsonb_path_match_tz",
    "jsonb_path_query_array_tz",
    "jsonb_path_query_first_tz",
    "jsonb_path_query_tz",
    "jsonb_to_record",
    "jsonb_to_recordset",
    "length",
    "make_timestamptz",
    "numeric",
    "overlaps",
    "quote_literal",
    "quote_nullable",
    "row_to_json",
    "time",
    "timestamp",
    "timestamptz",
    "timezone",
    "to_char",
    "to_date",
    "to_json",
    "to_jsonb",
    "to_number",
    "to_timestamp",
];

/// Built-in functions that run SQL text they are given, or read relations that only their arguments name.
const RUNS_SQL: &[&str] = &[
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "database_to_xmlschema",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "schema_to_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "table_to_xmlschema",
    "ts_rewrite",
    "ts_stat",
];

impl Functions {
    /// Collects definitions; of several of one name the worst counts.
    pub fn new(definitions: impl IntoIterator<Item = FunctionDefinition>) -> Self {
        let mut functions = Self::default();
        for definition in definitions {
            let FunctionDefinition {
                name,
                builtin,
                volatility,
                attribute,
            } = definition;
            let note = |worst: &mut HashMap<Arc<str>, Volatility>| {
                worst
                    .entry(Arc::clone(&name))
                    .and_modify(|known| *known = (*known).max(volatility))
                    .or_insert(volatility);
            };
            if builtin {
                note(&mut functions.builtin);
            } else {
                note(&mut functions.user);
                if attribute {
                    note(&mut functions.attributes);
                }
            }
        }
        functions
    }

    /// The worst class that `name` can stand for, `None` when no function of that name is known. A schema narrows it
    /// to PostgreSQL's own or to users'.
    pub fn class(&self, name: &FunctionName) -> Option<FunctionClass> {
        let builtin = || {
            self.builtin
                .get(&name.name)
                .map(|volatility| FunctionClass::Builtin(*volatility))
        };
        let user = || {
            self.user.get(&name.name).map(|volatility| match volatility {
                Volatility::Immutable => FunctionClass::UserImmutable,
                Volatility::Stable | Volatility::Volatile => FunctionClass::UserOther,
            })
        };
        match name.schema.as_deref() {
            // a user may have put a function into pg_catalog
            Some("pg_catalog" | "information_schema") | None => user().or_else(builtin),
            Some(_) => user(),
        }
    }

    /// Why a statement that calls `name` is not kept; `None` when it may be.
    pub(super) fn obstacle(&self, name: &FunctionName) -> Option<BypassReason> {
        let text: &str = &name.name;
        let own = matches!(name.schema.as_deref(), None | Some("pg_catalog"));
        if own && MOMENT.contains(&text) {
            return Some(BypassReason::Moment);
        }
        if own && SESSION.contains(&text) {
            return Some(BypassReason::SessionDependent);
        }
        match self.class(name) {
            None if name.schema.is_none() && SYNTAX.contains(&text) => None,
            None => Some(BypassReason::UnknownFunction),
            Some(FunctionClass::UserImmutable | FunctionClass::UserOther) => Some(BypassReason::UserFunction),
            Some(FunctionClass::Builtin(Volatility::Immutable)) => None,
            Some(FunctionClass::Builtin(_))
                if SESSION_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) =>
            {
                Some(BypassReason::SessionDependent)
            }
            Some(FunctionClass::Builtin(Volatility::Volatile)) => Some(BypassReason::Volatile),
            Some(FunctionClass::Builtin(Volatility::Stable)) => {
                (!STABLE_ALLOWED.contains(&text)).then_some(BypassReason::StableFunction)
            }
        }
    }

    /// Why a statement in which `word` stands anywhere is not kept: calls without parentheses, and `row.name`, which
    /// calls a function.
    pub(super) fn word_obstacle(&self, word: &str) -> Option<BypassReason> {
        if BARE_MOMENT.contains(&word) {
            return Some(BypassReason::Moment);
        }
        if BARE_SESSION.contains(&word) {
            return Some(BypassReason::SessionDependent);
        }
        let attribute = self.attributes.get(word);
        if attribute.is_some_and(|volatility| *volatility != Volatility::Immutable) {
            return Some(BypassReason::UserFunction);
        }
        let builtin = word.starts_with("pg_").then(|| self.builtin.get(word)).flatten();
        builtin
            .is_some_and(|volatility| *volatility != Volatility::Immutable)
            .then_some(BypassReason::SessionDependent)
    }

    /// Whether a call of `name` runs what is not known: a function that is not, or text that it is given.
    pub(super) fn runs_anything(&self, name: &FunctionName) -> bool {
        match self.class(name) {
            None => !is_syntax(name),
            Some(_) => RUNS_SQL.contains(&&*name.name),
        }
    }

    /// Whether `row.word` can call a function of users.
    pub(super) fn is_attribute(&self, word: &str) -> bool {
        self.attributes.contains_key(word)
    }
}

/// Whether a function of PostgreSQL's own stands in a list here, or would by the beginning of its name, and runs no text that
/// it is given.
pub(super) fn is_listed(name: &str) -> bool {
    !RUNS_SQL.contains(&name)
        && ([MOMENT, SESSION, STABLE_ALLOWED]
            .iter()
            .any(|names| names.contains(&name))
            || SESSION_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// Keyword calls and syntax have no row in `pg_proc`; `explain` marks the command.
pub(super) fn is_syntax(name: &FunctionName) -> bool {
    let text: &str = &name.name;
    name.schema.is_none()
        && (text == "explain"
            || [SYNTAX, MOMENT, SESSION]
                .iter()
                .any(|names| names.contains(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::samples::{function, functions};

    #[test]
    fn a_call_is_judged_by_the_worst_that_its_name_stands_for() {
        use BypassReason as R;
        let functions = functions();
        for (name, expected) in [
            ("count", None),
            ("coalesce", None),
            ("date_trunc", None),
            ("to_char", None),
            ("length", None),
            ("pg_catalog.sum", None),
            ("now", Some(R::Moment)),
            ("pg_catalog.now", Some(R::Moment)),
            ("age", Some(R::Moment)),
            ("getdate", Some(R::Moment)),
            ("current_user", Some(R::SessionDependent)),
            ("current_setting", Some(R::SessionDependent)),
            ("pg_backend_pid", Some(R::SessionDependent)),
            ("has_table_privilege", Some(R::SessionDependent)),
            ("to_regclass", Some(R::SessionDependent)),
            ("random", Some(R::Volatile)),
            ("nextval", Some(R::Volatile)),
            ("to_tsvector", Some(R::StableFunction)),
            ("query_to_xml", Some(R::Volatile)),
            ("nosuch", Some(R::UnknownFunction)),
            ("app.coalesce", Some(R::UnknownFunction)),
            ("app.sum", Some(R::UnknownFunction)),
            ("double_it", Some(R::UserFunction)),
            ("app.double_it", Some(R::UserFunction)),
            ("log_it", Some(R::UserFunction)),
            // a user's overload of a built-in name
            ("lower", Some(R::UserFunction)),
            ("pg_size_pretty", None),
        ] {
            assert_eq!(functions.obstacle(&function(name)), expected, "{name}");
        }
    }

    #[test]
    fn what_runs_anything_is_what_nobody_knows() {
        let functions = functions();
        for (name, expected) in [
            ("count", false),
            ("random", false),
            ("nextval", false),
            ("coalesce", false),
            ("current_date", false),
            ("double_it", false),
            ("log_it", false),
            ("app.log_it", false),
            ("nosuch", true),
            ("app.coalesce", true),
            ("query_to_xml", true),
        ] {
            assert_eq!(functions.runs_anything(&function(name)), expected, "{name}");
        }
    }

    #[test]
    fn tables_of_names_are_sorted_and_disjoint() {
        for table in [
            MOMENT,
            SESSION,
            SYNTAX,
            STABLE_ALLOWED,
            RUNS_SQL,
            BARE_MOMENT,
            BARE_SESSION,
        ] {
            assert!(table.is_sorted(), "{table:?}");
        }
        for name in STABLE_ALLOWED {
            assert!(
                !MOMENT.contains(name) && !SESSION.contains(name) && !RUNS_SQL.contains(name),
                "{name}"
            );
        }
    }
}
