use super::*;
use crate::policy::Catalog;
use crate::policy::samples::{aggregate, catalog, definitions, path, statement};
use crate::sql::{PinReason, SettingChange, TransactionControl};

fn verdict(statement: &Statement, catalog: &Catalog, schemas: &str) -> Cacheability {
    cacheability(statement, catalog, &path(schemas), CacheWhat::Aggregates)
}

#[test]
fn an_aggregate_over_known_tables_is_kept_until_one_of_them_is_written() {
    let catalog = catalog();
    for (reads, schemas, expected) in [
        ("events", "public", vec![1]),
        ("events", "sales", vec![3]),
        // the role may lack the right to use `sales`
        ("events", "sales public", vec![1, 3]),
        ("public.events users", "sales public", vec![1, 2]),
        ("very_active events", "public", vec![1, 2, 10]),
        ("daily daily_1", "public", vec![10, 11]),
        ("over_totals", "public", vec![30]),
    ] {
        let found = verdict(
            &aggregate(reads, "count date_trunc", "select from"),
            &catalog,
            schemas,
        );
        assert_eq!(
            found,
            Cacheability::Cacheable(expected.into()),
            "{reads} in {schemas}"
        );
    }
}

#[test]
fn what_is_not_known_to_be_safe_is_refused_with_its_reason() {
    use BypassReason as R;
    let catalog = catalog();
    for (reads, functions, identifiers, reason) in [
        ("", "count", "", R::NoRelation),
        ("nosuch", "count", "", R::UnknownRelation),
        ("events nosuch", "count", "", R::UnknownRelation),
        ("pg_class", "count", "", R::SystemRelation),
        ("information_schema.tables", "count", "", R::SystemRelation),
        ("accounts", "count", "", R::RowSecurity),
        ("remote", "count", "", R::ForeignTable),
        ("numbers", "count", "", R::Sequence),
        ("zoned", "count", "", R::ColumnType),
        ("recent", "count", "", R::Moment),
        ("opaque", "count", "", R::ViewNotUnderstood),
        ("loop_a", "count", "", R::NoRelation),
        ("events", "now", "", R::Moment),
        ("events", "count nosuch", "", R::UnknownFunction),
        ("events", "double_it", "", R::UserFunction),
        ("events", "random", "", R::Volatile),
        ("events", "version", "", R::SessionDependent),
        ("events", "to_tsvector", "", R::StableFunction),
        ("events", "count", "current_date", R::Moment),
        ("events", "count", "user", R::SessionDependent),
        ("events", "count", "regclass", R::SessionDependent),
        ("events", "count", "today_of", R::UserFunction),
        ("events", "count", "pg_backend_pid", R::SessionDependent),
        ("events", "count", "ctid", R::SystemColumn),
        ("events", "count", "tablesample", R::Sample),
        ("events", "count", "lucky_number", R::UserType),
        ("events", "count explain", "", R::Explain),
        ("shifts", "count", "at time zone", R::Moment),
        ("shifts", "timezone", "", R::Moment),
        ("events", "time", "time zone", R::Moment),
    ] {
        let found = verdict(&aggregate(reads, functions, identifiers), &catalog, "public");
        assert_eq!(
            found,
            Cacheability::Bypass(reason),
            "{reads} / {functions} / {identifiers}"
        );
    }
}

#[test]
fn only_plain_reads_are_kept() {
    use BypassReason as R;
    let catalog = catalog();
    let plain = || aggregate("events", "count", "");
    for (statement, reason) in [
        (statement(StatementKind::Write), R::NotRead),
        (statement(StatementKind::Unparsed), R::NotRead),
        (
            Statement {
                writes: plain().reads,
                ..plain()
            },
            R::NotRead,
        ),
        (
            Statement {
                setting: Some(SettingChange::Show {
                    name: "timezone".into(),
                }),
                ..plain()
            },
            R::NotRead,
        ),
        (
            Statement {
                transaction: Some(TransactionControl::Begin),
                ..plain()
            },
            R::NotRead,
        ),
        (
            Statement {
                pin: Some(PinReason::AdvisoryLock),
                ..plain()
            },
            R::Pinned,
        ),
        (
            Statement {
                locking: true,
                ..plain()
            },
            R::Locking,
        ),
        (
            Statement {
                aggregate: false,
                ..plain()
            },
            R::NotAggregate,
        ),
        (
            Statement {
                operators: vec!["+".into(), "<=>".into()],
                ..plain()
            },
            R::UserOperator,
        ),
    ] {
        assert_eq!(
            verdict(&statement, &catalog, "public"),
            Cacheability::Bypass(reason),
            "{statement:?}"
        );
    }
}

#[test]
fn what_is_kept_is_a_setting() {
    let catalog = catalog();
    let read = Statement {
        aggregate: false,
        ..aggregate("events", "", "")
    };
    let judge = |what| cacheability(&read, &catalog, &path("public"), what);
    assert_eq!(judge(CacheWhat::Reads), Cacheability::Cacheable([1].into()));
    assert_eq!(
        judge(CacheWhat::Aggregates),
        Cacheability::Bypass(BypassReason::NotAggregate)
    );
    assert_eq!(
        judge(CacheWhat::Off),
        Cacheability::Bypass(BypassReason::CacheOff)
    );
}

#[test]
fn code_that_applies_unseen_stops_everything() {
    for (operator, casts, reason) in [
        ("=", false, BypassReason::UserOperator),
        ("<=>", true, BypassReason::UserCast),
    ] {
        let mut definitions = definitions();
        definitions.operators = vec![operator.into()];
        definitions.casts = casts;
        let catalog = Catalog::new(definitions, 1);
        let found = verdict(&aggregate("events", "count", ""), &catalog, "public");
        assert_eq!(found, Cacheability::Bypass(reason), "{operator}");
    }
}
