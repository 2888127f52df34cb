//! A small database and statements for the tests of this module.

use std::sync::Arc;

use super::catalog::{
    Catalog, CodeDefinition, Definitions, Occasion, RelationDefinition, RelationKind, ViewDefinition,
};
use super::functions::{FunctionDefinition, Functions, Volatility};
use crate::sql::{Code, Fingerprint, FunctionName, RelationName, Statement, StatementKind};

/// `schema.name` or `name`.
pub(super) fn name(text: &str) -> RelationName {
    match text.split_once('.') {
        Some((schema, name)) => RelationName {
            schema: Some(schema.into()),
            name: name.into(),
        },
        None => RelationName {
            schema: None,
            name: text.into(),
        },
    }
}

pub(super) fn function(text: &str) -> FunctionName {
    name(text)
}

/// A statement that touches nothing.
pub(super) fn statement(kind: StatementKind) -> Statement {
    Statement {
        kind,
        reads: Vec::new(),
        writes: Vec::new(),
        functions: Vec::new(),
        identifiers: Vec::new(),
        operators: Vec::new(),
        aggregate: false,
        locking: false,
        parameters: 0,
        fingerprint: Fingerprint(0),
        transaction: None,
        setting: None,
        session: None,
        process: None,
        pin: None,
        within: None,
        numbers: crate::sql::NumberUse::default(),
        casts: crate::sql::TimeCasts::default(),
    }
}

fn names(text: &str) -> Vec<RelationName> {
    text.split_whitespace().map(name).collect()
}

fn words(text: &str) -> Vec<Arc<str>> {
    text.split_whitespace().map(Arc::from).collect()
}

/// An aggregate over `reads` that calls `functions`; `identifiers` are further words in it.
pub(super) fn aggregate(reads: &str, functions: &str, identifiers: &str) -> Statement {
    Statement {
        reads: names(reads),
        functions: names(functions),
        identifiers: words(identifiers),
        aggregate: true,
        ..statement(StatementKind::Read)
    }
}

/// A write to `writes` that calls `functions`; `identifiers` are further words in it.
pub(super) fn write(writes: &str, functions: &str, identifiers: &str) -> Statement {
    Statement {
        writes: names(writes),
        functions: names(functions),
        identifiers: words(identifiers),
        ..statement(StatementKind::Write)
    }
}

pub(super) fn path(text: &str) -> Vec<Arc<str>> {
    words(text)
}

fn relation(oid: u32, full_name: &str, kind: RelationKind) -> RelationDefinition {
    let RelationName { schema, name } = name(full_name);
    RelationDefinition {
        oid,
        schema: schema.unwrap_or_else(|| "public".into()),
        name,
        kind,
        row_security: false,
        write_code: false,
        read_code: false,
        unfixed_columns: false,
        time_columns: false,
        unlogged: false,
    }
}

fn view(oid: u32, query: Statement) -> ViewDefinition {
    ViewDefinition {
        oid,
        user_code: None,
        query: Some(Arc::new(query)),
        moment_literal: false,
    }
}

fn builtin(text: &str, volatility: Volatility) -> impl Iterator<Item = FunctionDefinition> {
    text.split_whitespace().map(move |name| FunctionDefinition {
        name: name.into(),
        builtin: true,
        volatility,
        attribute: false,
    })
}

fn user(name: &str, volatility: Volatility, attribute: bool) -> FunctionDefinition {
    FunctionDefinition {
        name: name.into(),
        builtin: false,
        volatility,
        attribute,
    }
}

fn function_definitions() -> Vec<FunctionDefinition> {
    builtin(
        "count sum avg min max lower length date_trunc string_agg pg_size_pretty age timezone",
        Volatility::Immutable,
    )
    .chain(builtin(
        "now age current_user current_setting date_trunc to_char length pg_backend_pid has_table_privilege \
             to_regclass to_tsvector version timezone time",
        Volatility::Stable,
    ))
    .chain(builtin(
        "random nextval query_to_xml clock_timestamp",
        Volatility::Volatile,
    ))
    .chain([
        user("double_it", Volatility::Immutable, false),
        user("log_it", Volatility::Volatile, false),
        user("today_of", Volatility::Stable, true),
        user("lower", Volatility::Immutable, false),
    ])
    .collect()
}

/// The sample database's functions.
pub(super) fn functions() -> Functions {
    Functions::new(function_definitions())
}

/// The sample database's rows.
pub(super) fn definitions() -> Definitions {
    use RelationKind as K;
    let mut relations = vec![
        relation(1, "events", K::Table),
        relation(2, "users", K::Table),
        relation(3, "sales.events", K::Table),
        relation(10, "daily", K::Partitioned),
        relation(11, "daily_1", K::Table),
        relation(12, "daily_2", K::Partitioned),
        relation(13, "daily_2a", K::Table),
        relation(20, "active", K::View),
        relation(21, "very_active", K::View),
        relation(22, "recent", K::View),
        relation(23, "opaque", K::View),
        relation(24, "catalog_view", K::View),
        relation(25, "logging", K::View),
        relation(26, "over_recent", K::View),
        relation(30, "totals", K::MaterializedView),
        relation(31, "over_totals", K::View),
        relation(40, "audited", K::Table),
        relation(41, "accounts", K::Table),
        relation(42, "remote", K::Foreign),
        relation(43, "numbers", K::Sequence),
        relation(44, "mixed", K::Partitioned),
        relation(45, "mixed_remote", K::Foreign),
        relation(46, "shifts", K::Table),
        relation(47, "zoned", K::Table),
        relation(50, "orders", K::Table),
        relation(51, "lines", K::Table),
        relation(52, "notes", K::Table),
        relation(53, "stamps", K::Table),
        relation(60, "pg_catalog.pg_class", K::System),
        relation(61, "information_schema.tables", K::System),
        relation(70, "loop_a", K::View),
        relation(71, "loop_b", K::View),
    ];
    for row in &mut relations {
        row.write_code = row.oid == 40;
        row.row_security = row.oid == 41;
        row.read_code = row.oid == 25;
        row.time_columns = row.oid == 46;
        row.unfixed_columns = row.oid == 47;
    }
    Definitions {
        relations,
        children: vec![(10, 11), (10, 12), (12, 13), (44, 45)],
        view_reads: vec![
            (20, 1),
            (20, 2),
            (21, 20),
            (21, 10),
            (22, 1),
            (23, 1),
            (25, 1),
            (26, 22),
            (30, 1),
            (31, 30),
            (70, 71),
            (71, 70),
        ],
        // orders <- lines (cascade) <- notes (set null); users <- orders (no action)
        cascades: vec![(50, 51), (51, 52), (2, 10)],
        references: vec![(50, 51), (51, 52), (2, 10), (2, 50), (52, 53)],
        views: vec![
            view(20, aggregate("public.events public.users", "count", "")),
            view(21, aggregate("public.active public.daily", "", "")),
            view(22, aggregate("public.events", "now", "")),
            ViewDefinition {
                oid: 23,
                user_code: None,
                query: None,
                moment_literal: false,
            },
            view(24, aggregate("pg_class", "count", "")),
            ViewDefinition {
                user_code: Some(super::BypassReason::UserFunction),
                ..view(25, aggregate("public.events", "app.log_it", ""))
            },
            view(26, aggregate("public.recent", "", "")),
            view(31, aggregate("public.totals", "", "")),
            view(70, aggregate("public.loop_b", "", "")),
            view(71, aggregate("public.loop_a", "", "")),
        ],
        functions: function_definitions(),
        operators: words("<=>"),
        types: words("lucky_number"),
        casts: false,
        code: ["log_it", "today_of"]
            .map(|name| CodeDefinition {
                occasion: Occasion::Called(name.into()),
                code: Code::of_body("INSERT INTO noted VALUES (1) RETURNING 1"),
            })
            .into(),
        columns: Vec::new(),
    }
}

/// The sample database.
pub(super) fn catalog() -> Catalog {
    Catalog::new(definitions(), 1)
}
