use super::*;
use crate::policy::samples::{catalog, definitions, name, path};

fn oids(closure: &WriteClosure) -> String {
    match closure {
        WriteClosure::Relations(oids) => oids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
        WriteClosure::Unknown => "unknown".to_owned(),
    }
}

#[test]
fn names_are_found_as_postgresql_finds_them() {
    let catalog = catalog();
    for (text, schemas, expected) in [
        ("events", "public", Some(1)),
        ("events", "sales public", Some(3)),
        ("events", "public sales", Some(1)),
        ("events", "nosuch sales", Some(3)),
        ("events", "", None),
        ("public.events", "", Some(1)),
        ("sales.events", "public", Some(3)),
        ("sales.users", "public", None),
        ("Events", "public", None),
        ("pg_class", "public", Some(60)),
        ("pg_class", "public pg_catalog", Some(60)),
        ("tables", "public", None),
        ("information_schema.tables", "public", Some(61)),
        ("pg_temp.events", "public", None),
    ] {
        let found = catalog
            .resolve(&name(text), &path(schemas))
            .map(|relation| relation.definition.oid);
        assert_eq!(found, expected, "{text} in {schemas}");
    }
}

#[test]
fn a_schema_that_the_role_may_not_use_is_passed_over_so_all_candidates_count() {
    let catalog = catalog();
    let (name, path) = (name("events"), path("sales public"));
    let found: Vec<u32> = catalog
        .candidates(&name, &path)
        .map(|relation| relation.definition.oid)
        .collect();
    assert_eq!(found, [3, 1]);
}

#[test]
fn a_read_depends_on_the_tables_under_it() {
    use BypassReason as R;
    let catalog = catalog();
    for (text, base, obstacle) in [
        ("events", "1", None),
        ("daily", "10", None),
        ("active", "1 2", None),
        ("very_active", "1 2 10", None),
        ("totals", "30", None),
        ("over_totals", "30", None),
        ("recent", "1", Some(R::Moment)),
        ("over_recent", "1", Some(R::Moment)),
        ("opaque", "1", Some(R::ViewNotUnderstood)),
        ("catalog_view", "", Some(R::SystemRelation)),
        ("logging", "1", Some(R::UserFunction)),
        ("accounts", "41", Some(R::RowSecurity)),
        ("remote", "", Some(R::ForeignTable)),
        ("mixed", "44", Some(R::ForeignTable)),
        ("numbers", "", Some(R::Sequence)),
        ("zoned", "47", Some(R::ColumnType)),
        ("pg_class", "", Some(R::SystemRelation)),
        ("loop_a", "", None),
    ] {
        let name = name(text);
        let public = path("public");
        let relation = catalog.resolve(&name, &public).unwrap();
        let found = oids(&WriteClosure::Relations(Arc::clone(&relation.base)));
        assert_eq!((found.as_str(), relation.obstacle), (base, obstacle), "{text}");
    }
}

#[test]
fn a_write_reaches_descendants_ancestors_and_cascades() {
    let catalog = catalog();
    for (text, written, truncated) in [
        ("events", "1", "1"),
        // a foreign key without an action is followed by TRUNCATE … CASCADE only
        ("users", "2 10 11 12 13", "2 10 11 12 13 50 51 52 53"),
        ("daily", "10 11 12 13", "10 11 12 13"),
        ("daily_2", "10 12 13", "10 12 13"),
        ("daily_2a", "10 12 13", "10 12 13"),
        ("daily_1", "10 11", "10 11"),
        ("orders", "50 51 52", "50 51 52 53"),
        ("active", "1 2 10 11 12 13", "1 2 10 11 12 13 50 51 52 53"),
        ("totals", "30", "30"),
        ("audited", "unknown", "unknown"),
        ("remote", "unknown", "unknown"),
        ("mixed", "unknown", "unknown"),
        ("logging", "unknown", "unknown"),
        ("numbers", "", ""),
        ("pg_class", "unknown", "unknown"),
    ] {
        let name = name(text);
        let public = path("public");
        let relation = catalog.resolve(&name, &public).unwrap();
        let found = (
            oids(catalog.write_closure(relation)),
            oids(catalog.truncate_closure(relation)),
        );
        assert_eq!(
            (found.0.as_str(), found.1.as_str()),
            (written, truncated),
            "{text}"
        );
    }
}

#[test]
fn a_view_that_was_not_analyzed_is_not_trusted() {
    let mut definitions = definitions();
    definitions.views.clear();
    let catalog = Catalog::new(definitions, 1);
    let active = catalog.relation(20).unwrap();
    assert_eq!(active.obstacle, Some(BypassReason::ViewNotUnderstood));
}

#[test]
fn a_literal_in_a_view_that_names_the_moment_counts() {
    let mut definitions = definitions();
    for view in &mut definitions.views {
        view.moment_literal = view.oid == 20;
    }
    let catalog = Catalog::new(definitions, 1);
    assert_eq!(catalog.relation(20).unwrap().obstacle, Some(BypassReason::Moment));
    assert_eq!(
        catalog.relation(21).unwrap().obstacle,
        Some(BypassReason::Moment),
        "through another view"
    );
}
