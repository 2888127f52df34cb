use super::*;
use crate::policy::samples::{aggregate, catalog, path, statement, write};

fn verdict(statement: &Statement) -> String {
    words(&invalidation(statement, Some(&catalog()), &path("public")))
}

fn words(verdict: &Invalidation) -> String {
    match verdict {
        Invalidation::Nothing => "nothing".to_owned(),
        Invalidation::Relations(oids) => oids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
        Invalidation::Everything => "everything".to_owned(),
        Invalidation::Definitions => "definitions".to_owned(),
    }
}

#[test]
fn a_write_makes_its_closure_stale() {
    for (writes, functions, identifiers, expected) in [
        ("events", "", "", "1"),
        ("sales.events", "", "", "3"),
        ("daily_1", "", "", "10 11"),
        ("daily_1 events", "", "", "1 10 11"),
        ("orders", "", "", "50 51 52"),
        ("orders", "", "truncate cascade", "50 51 52 53"),
        ("active", "", "", "1 2 10 11 12 13"),
        ("totals", "", "", "30"),
        ("numbers", "", "", "nothing"),
        ("events", "random nextval now coalesce", "", "1"),
        ("events", "double_it", "", "1"),
        ("events", "log_it", "", "everything"),
        ("events", "nosuch", "", "everything"),
        ("audited", "", "", "everything"),
        ("events audited", "", "", "everything"),
        ("remote", "", "", "everything"),
        ("nosuch", "", "", "everything"),
        ("", "", "", "everything"),
        ("pg_class", "", "", "definitions"),
    ] {
        let found = verdict(&write(writes, functions, identifiers));
        assert_eq!(found, expected, "{writes} / {functions} / {identifiers}");
    }
}

#[test]
fn a_read_makes_stale_what_its_functions_may_write() {
    for (reads, functions, identifiers, expected) in [
        ("events", "count", "", "nothing"),
        ("events", "random nextval current_user", "", "nothing"),
        ("events", "double_it", "", "nothing"),
        ("events", "log_it", "", "everything"),
        ("events", "nosuch", "", "everything"),
        ("events", "query_to_xml", "", "everything"),
        ("events", "", "today_of", "everything"),
        ("logging", "", "", "everything"),
        ("nosuch", "", "", "nothing"),
    ] {
        let found = verdict(&aggregate(reads, functions, identifiers));
        assert_eq!(found, expected, "{reads} / {functions} / {identifiers}");
    }
}

#[test]
fn other_statements_by_kind() {
    use PinReason as P;
    use StatementKind as K;
    use TransactionControl as T;
    let base = |kind, pin, transaction, words: &str| Statement {
        pin,
        transaction,
        identifiers: path(words),
        ..statement(kind)
    };
    for (statement, expected) in [
        (base(K::Ddl, None, None, "create table"), "definitions"),
        (
            base(K::Ddl, Some(P::TemporaryTable), None, "create temp table"),
            "nothing",
        ),
        (
            base(K::Write, Some(P::TemporaryTable), None, "select into temp"),
            "nothing",
        ),
        (
            Statement {
                pin: Some(P::TemporaryTable),
                ..write("scratch events", "", "")
            },
            "1",
        ),
        (
            Statement {
                pin: Some(P::TemporaryTable),
                ..write("scratch", "log_it", "")
            },
            "everything",
        ),
        (base(K::Unparsed, Some(P::Unparsed), None, ""), "everything"),
        (base(K::Transaction, None, Some(T::Begin), "begin"), "nothing"),
        (base(K::Transaction, None, Some(T::Commit), "commit"), "nothing"),
        (
            base(K::Transaction, None, Some(T::Other), "set transaction"),
            "nothing",
        ),
        (
            base(K::Transaction, None, Some(T::Other), "commit prepared"),
            "everything",
        ),
        (base(K::Setting, None, None, "set"), "nothing"),
        (base(K::Utility, None, None, "vacuum"), "nothing"),
        (
            base(
                K::Session,
                Some(P::PreparedStatement),
                None,
                "prepare p as select",
            ),
            "nothing",
        ),
        (base(K::Session, None, None, "deallocate p"), "nothing"),
        (
            Statement {
                session: Some(SessionUse::Execute("p".into())),
                ..base(K::Session, None, None, "execute p")
            },
            "everything",
        ),
        (base(K::Session, Some(P::Procedure), None, "do"), "everything"),
        (base(K::Session, Some(P::Procedure), None, "call p"), "everything"),
        (base(K::Session, None, None, "discard all"), "nothing"),
        (base(K::Session, Some(P::Listen), None, "listen"), "nothing"),
        (base(K::Session, Some(P::Role), None, "set role"), "nothing"),
        (base(K::Session, Some(P::Cursor), None, "declare"), "nothing"),
        (base(K::Copy, None, None, "copy"), "everything"),
        (
            Statement {
                kind: K::Copy,
                ..write("daily_1", "", "copy from")
            },
            "10 11",
        ),
        (
            Statement {
                kind: K::Copy,
                ..aggregate("events", "", "copy to")
            },
            "nothing",
        ),
        (
            Statement {
                kind: K::Copy,
                ..aggregate("events", "log_it", "copy to")
            },
            "everything",
        ),
    ] {
        assert_eq!(verdict(&statement), expected, "{statement:?}");
    }
}

#[test]
fn without_a_catalog_whatever_may_write_writes_everywhere() {
    for (statement, expected) in [
        (write("events", "", ""), "everything"),
        (aggregate("events", "", ""), "everything"),
        (aggregate("", "count", ""), "everything"),
        (statement(StatementKind::Read), "nothing"),
        (statement(StatementKind::Setting), "nothing"),
        (statement(StatementKind::Ddl), "definitions"),
    ] {
        assert_eq!(
            words(&invalidation(&statement, None, &path("public"))),
            expected,
            "{statement:?}"
        );
    }
}
