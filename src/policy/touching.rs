//! Whether a statement may do something to the server's session that shows nowhere.

use super::catalog::Catalog;
use super::functions::{is_listed, is_syntax};
use crate::sql::{FunctionName, PinReason, SessionUse, Statement, StatementKind, touches_by_name};

/// Immutable and aggregate functions that clients call often, and what takes a number or chance. Sorted.
const COMMON: &[&str] = &[
    "abs",
    "array_agg",
    "array_append",
    "array_length",
    "array_lower",
    "array_position",
    "array_remove",
    "array_upper",
    "ascii",
    "avg",
    "bit_and",
    "bit_or",
    "bool_and",
    "bool_or",
    "btrim",
    "cardinality",
    "ceil",
    "ceiling",
    "char_length",
    "chr",
    "col_description",
    "corr",
    "count",
    "cume_dist",
    "currval",
    "decode",
    "dense_rank",
    "div",
    "encode",
    "every",
    "exp",
    "first_value",
    "floor",
    "format_type",
    "gen_random_uuid",
    "generate_subscripts",
    "initcap",
    "isfinite",
    "json_array_elements",
    "json_array_length",
    "json_each",
    "json_each_text",
    "json_extract_path",
    "json_extract_path_text",
    "json_object_keys",
    "json_typeof",
    "jsonb_array_elements",
    "jsonb_array_elements_text",
    "jsonb_array_length",
    "jsonb_each",
    "jsonb_each_text",
    "jsonb_extract_path",
    "jsonb_extract_path_text",
    "jsonb_object_keys",
    "jsonb_set",
    "jsonb_typeof",
    "justify_days",
    "justify_hours",
    "justify_interval",
    "lag",
    "last_value",
    "lastval",
    "lead",
    "left",
    "ln",
    "log",
    "lower",
    "lpad",
    "ltrim",
    "make_date",
    "make_interval",
    "make_timestamp",
    "max",
    "md5",
    "min",
    "mod",
    "mode",
    "nextval",
    "nth_value",
    "ntile",
    "obj_description",
    "octet_length",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "pg_sleep",
    "pi",
    "position",
    "power",
    "quote_ident",
    "random",
    "rank",
    "regexp_match",
    "regexp_matches",
    "regexp_replace",
    "regexp_split_to_array",
    "regexp_split_to_table",
    "repeat",
    "replace",
    "reverse",
    "right",
    "round",
    "row_number",
    "rpad",
    "rtrim",
    "setval",
    "sha256",
    "shobj_description",
    "sign",
    "split_part",
    "sqrt",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "string_to_array",
    "strpos",
    "substr",
    "substring",
    "sum",
    "to_hex",
    "translate",
    "trunc",
    "unnest",
    "upper",
    "var_pop",
    "var_samp",
    "variance",
    "width_bucket",
];

/// Words of definitions that bring code which is not read off them, or let run what did not.
const CODE_WORDS: &[&str] = &[
    "aggregate",
    "cast",
    "enable",
    "extension",
    "function",
    "language",
    "operator",
    "procedure",
    "routine",
    "transform",
    "type",
];

/// Whether `statement` may change definitions so that other statements run code of which nothing is known yet, as does the
/// end of a prepared transaction, in which anything was done. A change of definitions that itself
/// [touches the session](touches_session) names what does, and may make other statements run it.
pub fn brings_code(statement: &Statement) -> bool {
    let prepared = statement.kind == StatementKind::Transaction
        && statement.mentions("commit")
        && statement.mentions("prepared");
    let defines = statement.kind == StatementKind::Ddl
        && (CODE_WORDS.iter().any(|word| statement.mentions(word))
            || statement.identifiers.iter().any(|word| touches_by_name(word)));
    prepared || defines
}

/// Whether `statement` may run code that is not known: what it does to relations, and functions that are not common.
pub fn runs_hidden_code(statement: &Statement) -> bool {
    match statement.kind {
        StatementKind::Transaction | StatementKind::Setting => false,
        StatementKind::Ddl | StatementKind::Unparsed => true,
        StatementKind::Read
        | StatementKind::Write
        | StatementKind::Copy
        | StatementKind::Session
        | StatementKind::Utility => {
            !statement.reads.is_empty()
                || !statement.writes.is_empty()
                || !statement.functions.iter().all(is_common)
        }
    }
}

/// Whether `statement` may run code of users that changes a setting, a role or a temporary table of the server's session, or
/// anything else there that shows nowhere: by calling it, or by reading or writing what runs it. Functions that are not known
/// may do anything.
///
/// Without a catalog only what the statement itself calls is seen.
pub fn touches_session(statement: &Statement, catalog: Option<&Catalog>) -> bool {
    match catalog {
        Some(catalog) => {
            let functions = &catalog.functions;
            catalog.touched_by(statement)
                || statement
                    .functions
                    .iter()
                    .any(|name| functions.runs_anything(name))
        }
        None => !statement.functions.iter().all(is_common),
    }
}

/// Whether `statement` may change definitions or rights without being a change of definitions itself: by code of users, by
/// what it runs that is not known, or by the end of a transaction of which nothing is known.
pub fn may_define(statement: &Statement, catalog: Option<&Catalog>) -> bool {
    let unknown = matches!(statement.pin, Some(PinReason::Procedure | PinReason::Unparsed))
        || matches!(statement.session, Some(SessionUse::Execute(_)));
    match statement.kind {
        StatementKind::Unparsed => true,
        StatementKind::Transaction => statement.mentions("prepared"),
        StatementKind::Setting => false,
        StatementKind::Read
        | StatementKind::Write
        | StatementKind::Ddl
        | StatementKind::Copy
        | StatementKind::Session
        | StatementKind::Utility => {
            unknown
                || match catalog {
                    Some(catalog) => {
                        catalog.defines_by_code(statement)
                            || statement
                                .functions
                                .iter()
                                .any(|name| catalog.functions.runs_anything(name))
                    }
                    None => !statement.functions.iter().all(is_common),
                }
        }
    }
}

/// Whether a call of `name` is one of PostgreSQL's own functions that do nothing to the server's session, as far as that can
/// be said without definitions.
fn is_common(name: &FunctionName) -> bool {
    let text: &str = &name.name;
    match name.schema.as_deref() {
        None => is_syntax(name) || is_listed(text) || COMMON.binary_search(&text).is_ok(),
        Some("pg_catalog") => !touches_by_name(text),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::samples::catalog;
    use crate::sql::{Analysis, Backslash};

    fn judge(sql: &str, of: impl Fn(&Statement) -> bool) -> bool {
        let analysis = Analysis::of(sql.as_bytes(), Backslash::Literal);
        of(analysis.single().unwrap())
    }

    #[test]
    fn tables_of_words_are_sorted() {
        assert!(COMMON.is_sorted() && CODE_WORDS.is_sorted());
    }

    #[test]
    fn without_a_catalog_only_common_functions_are_trusted() {
        let catalog = catalog();
        for (sql, with, without) in [
            ("SELECT count(*), coalesce(max(a), 0), now() FROM t", false, false),
            ("SELECT pg_catalog.array_to_tsvector(a) FROM t", true, false),
            ("SELECT double_it(1)", false, true),
            ("SELECT app.count(1)", true, true),
            ("SELECT nosuch(1)", true, true),
            ("SELECT query_to_xml('SELECT 1', true, true, '')", true, true),
            (
                "SELECT pg_catalog.query_to_xml('SELECT 1', true, true, '')",
                true,
                true,
            ),
            ("INSERT INTO t VALUES (1)", false, false),
        ] {
            assert_eq!(judge(sql, |s| touches_session(s, Some(&catalog))), with, "{sql}");
            assert_eq!(judge(sql, |s| touches_session(s, None)), without, "{sql}");
        }
    }

    #[test]
    fn what_may_change_definitions_unseen() {
        let catalog = catalog();
        for (sql, with, without) in [
            ("SELECT count(*), now() FROM t", false, false),
            ("INSERT INTO events VALUES (1)", false, false),
            ("SELECT log_it(1)", false, true),
            ("SELECT nosuch(1)", true, true),
            ("DO $$ BEGIN END $$", true, true),
            ("CALL p()", true, true),
            ("EXECUTE p", true, true),
            ("COMMIT PREPARED 'x'", true, true),
            ("COMMIT", false, false),
            ("SET a.b = 1", false, false),
            ("SELEKT 1", true, true),
        ] {
            assert_eq!(judge(sql, |s| may_define(s, Some(&catalog))), with, "{sql}");
            assert_eq!(judge(sql, |s| may_define(s, None)), without, "{sql}");
        }
    }

    #[test]
    fn what_brings_code_is_told_by_its_words() {
        for (sql, expected) in [
            (
                "CREATE TABLE t (a int PRIMARY KEY, b timestamptz DEFAULT now())",
                false,
            ),
            ("CREATE VIEW v AS SELECT count(*) FROM events", false),
            ("CREATE INDEX ON events (a)", false),
            ("DROP TABLE events", false),
            ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", true),
            (
                "CREATE TRIGGER t BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION f()",
                true,
            ),
            ("ALTER TABLE events ENABLE TRIGGER ALL", true),
            ("CREATE VIEW v AS SELECT set_config('a.b', 'c', false)", true),
            ("CREATE EXTENSION hstore", true),
            ("COMMIT PREPARED 'x'", true),
            ("ROLLBACK PREPARED 'x'", false),
            ("COMMIT", false),
            ("SELECT 1", false),
        ] {
            assert_eq!(judge(sql, brings_code), expected, "{sql}");
        }
    }
}
