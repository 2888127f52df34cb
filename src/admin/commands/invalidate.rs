//! `INVALIDATE`.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;
use crate::cache::TagId;
use crate::pipeline::Database;
use crate::policy::{Catalog, RelationKind, WriteClosure};
use crate::sql::RelationName;
use crate::types::BackendName;
use crate::wire::Value;

use super::refused;

const COLUMNS: Columns = columns! {
    "backend": Text = "The backend.",
    "database": Text = "The database.",
    "relation": Text = "A relation whose readers are stale now; `*` is all of them.",
};

/// Where a relation without a schema is looked for.
const DEFAULT_SCHEMA: &str = "public";

/// Makes answers stale.
pub(crate) struct Invalidate;

impl AdminCommand for Invalidate {
    fn name(&self) -> &'static str {
        "INVALIDATE"
    }

    fn arguments(&self) -> &'static str {
        "[[database.]schema.relation]"
    }

    fn help(&self) -> &'static str {
        "Makes every answer stale that was computed from the relation, as a write to it would, in each database that has \
         it, or every answer at all. For data that were loaded past the gateway. Without a schema, public is meant."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, arguments: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let gateway = state.gateway;
        let realm = gateway.realm();
        let all = || {
            // first the versions, so that a run under way leaves nothing behind; then the memory
            gateway.tags.invalidate_all();
            gateway.cache.clear();
            realm
                .databases
                .iter()
                .map(|((backend, _), database)| row(backend, database, "*"))
                .collect()
        };
        if arguments.is_empty() {
            return Ok(all());
        }
        let Target { database, relation } =
            Target::read(arguments).ok_or_else(|| refused(self, arguments))?;
        let within: Vec<(&BackendName, &Arc<Database>)> = realm
            .databases
            .iter()
            .filter(|((_, name), _)| {
                database
                    .as_deref()
                    .is_none_or(|database| database == name.as_str())
            })
            .map(|((backend, _), database)| (backend, database))
            .collect();
        if let (Some(name), []) = (database, within.as_slice()) {
            return Err(ConsoleError::NoDatabase {
                name,
                known: realm.databases.keys().map(|(_, name)| name.to_string()).collect(),
            });
        }
        let mut rows = Vec::new();
        let mut unread = Vec::new();
        for (backend, database) in within {
            let Some(catalog) = database.watch.latest() else {
                unread.push(format!("database \"{}\" of backend \"{backend}\"", database.name));
                continue;
            };
            match readers(&catalog, &relation) {
                Readers::NoSuchRelation => {}
                Readers::Of(oids) => {
                    let tags: Vec<TagId> = oids
                        .iter()
                        .map(|oid| TagId {
                            scope: database.scope,
                            relation: *oid,
                        })
                        .collect();
                    gateway.tags.invalidate(&tags);
                    let names = oids.iter().filter_map(|oid| catalog.relation(*oid));
                    rows.extend(names.map(|relation| {
                        let name = format!("{}.{}", relation.definition.schema, relation.definition.name);
                        row(backend, database, &name)
                    }));
                }
                Readers::All => return Ok(all()),
            }
        }
        if rows.is_empty() {
            return Err(ConsoleError::NoRelation {
                name: relation.to_string(),
                unread,
            });
        }
        Ok(rows)
    }
}

fn row(backend: &BackendName, database: &Database, relation: &str) -> Vec<Value> {
    vec![
        backend.as_str().into(),
        database.name.as_str().into(),
        relation.into(),
    ]
}

/// What is to be made stale.
struct Target {
    database: Option<String>,
    relation: RelationName,
}

impl Target {
    fn read(arguments: &Arguments<'_>) -> Option<Self> {
        let parts = arguments.dotted_name()?;
        let (database, schema, name) = match parts.as_slice() {
            [name] => (None, DEFAULT_SCHEMA, name),
            [schema, name] => (None, schema.as_str(), name),
            [database, schema, name] => (Some(database.clone()), schema.as_str(), name),
            [] | [_, _, _, ..] => return None,
        };
        Some(Self {
            database,
            relation: RelationName {
                schema: Some(schema.into()),
                name: name.as_str().into(),
            },
        })
    }
}

/// Whose readers are stale when a relation is.
#[derive(Debug, PartialEq, Eq)]
enum Readers {
    /// Nobody's: there is no such relation, or it is a system relation, from which no answer is kept.
    NoSuchRelation,
    /// Those of these relations.
    Of(BTreeSet<u32>),
    /// Which ones cannot be told.
    All,
}

/// As for a write to the relation; of a view, as for writes to all that it reads.
fn readers(catalog: &Catalog, name: &RelationName) -> Readers {
    let Some(relation) = catalog.resolve(name, &[]) else {
        return Readers::NoSuchRelation;
    };
    if relation.definition.kind == RelationKind::System {
        return Readers::NoSuchRelation;
    }
    let mut oids: BTreeSet<u32> = relation.base.iter().copied().collect();
    match catalog.write_closure(relation) {
        WriteClosure::Relations(closure) => oids.extend(closure.iter().copied()),
        WriteClosure::Unknown => return Readers::All,
    }
    oids.insert(relation.definition.oid);
    Readers::Of(oids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::words::Words;
    use crate::policy::{Definitions, RelationDefinition};

    fn relation(oid: u32, name: &str, kind: RelationKind) -> RelationDefinition {
        RelationDefinition {
            oid,
            schema: if kind == RelationKind::System {
                "pg_catalog".into()
            } else {
                "public".into()
            },
            name: name.into(),
            kind,
            row_security: false,
            write_code: name == "guarded",
            read_code: false,
            unfixed_columns: false,
            time_columns: false,
            unlogged: false,
        }
    }

    fn catalog() -> Catalog {
        Catalog::new(
            Definitions {
                relations: vec![
                    relation(1, "events", RelationKind::Partitioned),
                    relation(2, "events_2026", RelationKind::Table),
                    relation(3, "daily", RelationKind::View),
                    relation(4, "users", RelationKind::Table),
                    relation(5, "guarded", RelationKind::Table),
                    relation(6, "pg_class", RelationKind::System),
                ],
                children: vec![(1, 2)],
                view_reads: vec![(3, 1)],
                ..Definitions::default()
            },
            1,
        )
    }

    #[test]
    fn an_invalidation_reaches_whatever_a_write_would() {
        let catalog = catalog();
        let of = |oids: &[u32]| Readers::Of(oids.iter().copied().collect());
        for (text, expected) in [
            ("users", of(&[4])),
            ("PUBLIC.Users", of(&[4])),
            ("dev.public.users", of(&[4])),
            ("events", of(&[1, 2])),
            ("events_2026", of(&[1, 2])),
            ("daily", of(&[1, 2, 3])),
            ("guarded", Readers::All),
            ("\"Users\"", Readers::NoSuchRelation),
            ("sales.users", Readers::NoSuchRelation),
            ("pg_catalog.pg_class", Readers::NoSuchRelation),
            ("pg_class", Readers::NoSuchRelation),
        ] {
            let text = format!("INVALIDATE {text}");
            let words = Words::of(&text).expect("one command");
            let target = Target::read(&words.after("INVALIDATE")).expect("a name");
            assert_eq!(readers(&catalog, &target.relation), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["a.b.c.d", "a b", "'a'", "1", "a.", ".a", "a..b", "a.*"] {
            let text = format!("INVALIDATE {text}");
            let words = Words::of(&text).expect("one command");
            assert!(Target::read(&words.after("INVALIDATE")).is_none(), "{text}");
        }
    }
}
