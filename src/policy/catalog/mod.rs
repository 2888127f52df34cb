//! A snapshot of one database's definitions, and how names find their relations in it.

mod graph;
mod search_path;
mod touching;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

pub use search_path::search_path;
pub use touching::{CodeDefinition, Occasion};

use self::graph::Graph;
use self::touching::Causes;
use super::cacheability::{names_a_zone, statement_obstacle};
use super::functions::{FunctionDefinition, Functions};
use super::reason::BypassReason;
use crate::sql::{Effect, RelationName, Statement, StatementKind, TimeCasts};

/// What a relation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RelationKind {
    /// An ordinary table, or a partition.
    Table,
    /// A partitioned table.
    Partitioned,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A foreign table.
    Foreign,
    /// A sequence.
    Sequence,
    /// Anything in `pg_catalog` or `information_schema`.
    System,
}

/// One relation as the catalog has it.
#[allow(clippy::struct_excessive_bools, reason = "independent facts of one row")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationDefinition {
    /// `pg_class.oid`.
    pub oid: u32,
    /// The schema's name, as stored.
    pub schema: Arc<str>,
    /// Its own name, as stored.
    pub name: Arc<str>,
    /// What it is.
    pub kind: RelationKind,
    /// Row security is on.
    pub row_security: bool,
    /// A write of it runs code that a user defined: a trigger, a rule, a default, a check.
    pub write_code: bool,
    /// A read of it runs code that a user defined and that may write: a view's function, a policy's.
    pub read_code: bool,
    /// Has a column whose values are read or printed in a way that is not fixed, e.g. `timetz`.
    pub unfixed_columns: bool,
    /// Has a column of type `time`: `AT TIME ZONE` on it takes the zone's offset of today.
    pub time_columns: bool,
    /// Has rows that only the primary has: `CREATE UNLOGGED TABLE`.
    pub unlogged: bool,
}

/// A view's own text, analyzed.
#[derive(Clone, Debug)]
pub struct ViewDefinition {
    /// The view.
    pub oid: u32,
    /// Calls functions or uses operators that a user defined and that are not immutable (functions: at all).
    pub user_code: Option<BypassReason>,
    /// Facts of its query, with every name qualified that is not in `pg_catalog`; `None` when it was not understood.
    pub query: Option<Arc<Statement>>,
    /// A literal in it names the moment, e.g. `'today'`.
    pub moment_literal: bool,
}

/// What a catalog is made of: rows, not yet connected. Oids that name no relation of `relations` are passed over.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    /// Every relation but temporary ones.
    pub relations: Vec<RelationDefinition>,
    /// (parent, child) of inheritance and partitions.
    pub children: Vec<(u32, u32)>,
    /// (view, relation it reads).
    pub view_reads: Vec<(u32, u32)>,
    /// (referenced, referencing) of foreign keys that change the referencing rows on update or delete.
    pub cascades: Vec<(u32, u32)>,
    /// (referenced, referencing) of all foreign keys: what `TRUNCATE … CASCADE` follows.
    pub references: Vec<(u32, u32)>,
    /// Every view.
    pub views: Vec<ViewDefinition>,
    /// Every function.
    pub functions: Vec<FunctionDefinition>,
    /// Symbols of operators that a user defined with a function that is not immutable.
    pub operators: Vec<Arc<str>>,
    /// Names of types whose values are made by code that a user defined and that is not immutable.
    pub types: Vec<Arc<str>>,
    /// A cast uses a function that a user defined and that is not immutable.
    pub casts: bool,
    /// Code of users that may do something to the server's session; what is not here does nothing to it.
    pub code: Vec<CodeDefinition>,
    /// Columns, as far as their types matter. Relations that are not here have none of them.
    pub columns: Vec<ColumnsDefinition>,
}

/// Columns of one relation whose types tell how a cast to a date or a time reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnsDefinition {
    /// The relation.
    pub relation: u32,
    /// Those that are dates or times, or arrays or ranges of them.
    pub times: Vec<Arc<str>>,
    /// Those that may hold a text such as `'now'`.
    pub texts: Vec<Arc<str>>,
}

/// What a write to a relation changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteClosure {
    /// These relations, sorted. Their readers are stale.
    Relations(Arc<[u32]>),
    /// Not known: code that a user defined runs, or the relation is not PostgreSQL's own storage.
    Unknown,
}

/// One relation, connected to what it depends on.
#[derive(Debug)]
pub struct Relation {
    /// Its definition.
    pub definition: RelationDefinition,
    /// What a read depends on, sorted: itself, or for a view the tables and materialized views that it reads, through
    /// views. Children are not in it: a write to a child counts as a write to its parents.
    pub base: Arc<[u32]>,
    /// Why a read of it is never kept.
    pub obstacle: Option<BypassReason>,
    /// A read of it runs code that may write anywhere.
    pub read_may_write: bool,
    /// A read of it can see a column of type `time`.
    pub time_columns: bool,
    writes: OnceLock<WriteClosure>,
    truncates: OnceLock<WriteClosure>,
}

/// An immutable snapshot of one database's definitions.
#[derive(Debug)]
pub struct Catalog {
    /// Counts the requests to load definitions: a snapshot answers for all requests up to this one.
    pub generation: u64,
    /// The functions.
    pub functions: Functions,
    schemas: HashMap<Arc<str>, HashMap<Arc<str>, u32>>,
    relations: HashMap<u32, Relation>,
    columns: HashMap<u32, ColumnsDefinition>,
    graph: Graph,
    operators: HashSet<Arc<str>>,
    types: HashSet<Arc<str>>,
    hidden_user_code: Option<BypassReason>,
    touching: Causes,
    writing: Causes,
    defining: Causes,
}

/// Operators that stand behind syntax without a symbol: `IN`, `BETWEEN`, `LIKE`, `GROUP BY`, `ORDER BY`, `CASE`.
const IMPLIED_OPERATORS: &[&str] = &["=", "<>", "<", "<=", ">", ">=", "~~", "!~~", "~~*", "!~~*"];

impl Catalog {
    /// Connects `definitions`.
    pub fn new(definitions: Definitions, generation: u64) -> Self {
        let graph = Graph::new(&definitions);
        let [touching, writing, defining] = [Effect::Session, Effect::Rows, Effect::Definitions]
            .map(|effect| Causes::new(&definitions, effect));
        let Definitions {
            relations: rows,
            views,
            functions,
            operators,
            types,
            casts,
            columns,
            ..
        } = definitions;
        let functions = Functions::new(functions);
        let operators: HashSet<_> = operators.into_iter().collect();
        let hidden_user_code = if casts {
            Some(BypassReason::UserCast)
        } else if IMPLIED_OPERATORS.iter().any(|symbol| operators.contains(*symbol)) {
            Some(BypassReason::UserOperator)
        } else {
            None
        };
        let mut schemas: HashMap<Arc<str>, HashMap<Arc<str>, u32>> = HashMap::new();
        for row in &rows {
            schemas
                .entry(Arc::clone(&row.schema))
                .or_default()
                .insert(Arc::clone(&row.name), row.oid);
        }
        let mut catalog = Self {
            generation,
            functions,
            schemas,
            relations: HashMap::new(),
            columns: columns.into_iter().map(|row| (row.relation, row)).collect(),
            graph,
            operators,
            types: types.into_iter().collect(),
            hidden_user_code,
            touching,
            writing,
            defining,
        };
        let by_oid: HashMap<u32, &RelationDefinition> = rows.iter().map(|row| (row.oid, row)).collect();
        let verdicts: HashMap<u32, BypassReason> = views
            .iter()
            .filter_map(|view| {
                let reached = catalog.graph.reached_by_read(view.oid);
                let times = reached
                    .iter()
                    .filter_map(|oid| by_oid.get(oid))
                    .any(|row| row.time_columns);
                catalog
                    .view_obstacle(view, times)
                    .map(|reason| (view.oid, reason))
            })
            .collect();
        let analyzed: HashSet<u32> = views.iter().map(|view| view.oid).collect();
        let relations = rows
            .iter()
            .map(|row| {
                let own = |oid: u32| own_obstacle(by_oid.get(&oid).copied(), &verdicts, &analyzed);
                (row.oid, connect(row, &catalog.graph, &by_oid, own))
            })
            .collect();
        catalog.relations = relations;
        catalog
    }

    /// The relation that `name` stands for, found as PostgreSQL finds it: `pg_catalog` first unless the path names it.
    /// Temporary relations are never here.
    pub fn resolve(&self, name: &RelationName, search_path: &[Arc<str>]) -> Option<&Relation> {
        self.candidates(name, search_path).next()
    }

    /// Every relation that `name` could stand for, the likeliest first: PostgreSQL passes over schemas of the path that
    /// the role may not use, which is not known here.
    pub fn candidates<'a, 'n>(
        &'a self,
        name: &'n RelationName,
        search_path: &'n [Arc<str>],
    ) -> impl Iterator<Item = &'a Relation> + use<'a, 'n> {
        self.oids(name, search_path)
            .filter_map(|oid| self.relations.get(&oid))
    }

    fn oids<'a, 'n>(
        &'a self,
        name: &'n RelationName,
        search_path: &'n [Arc<str>],
    ) -> impl Iterator<Item = u32> + use<'a, 'n> {
        const IMPLICIT: &str = "pg_catalog";
        let qualified = name.schema.as_deref();
        let implicit = (qualified.is_none() && !search_path.iter().any(|schema| &**schema == IMPLICIT))
            .then_some(IMPLICIT);
        let path = if qualified.is_some() { &[] } else { search_path };
        qualified
            .into_iter()
            .chain(implicit)
            .chain(path.iter().map(|schema| &**schema))
            .filter_map(|schema| self.schemas.get(schema)?.get(&name.name).copied())
    }

    /// Whether a text that `statement` casts to a date or a time may name the moment.
    pub(super) fn may_read_moment(&self, statement: &Statement, search_path: &[Arc<str>]) -> bool {
        let TimeCasts {
            unsure,
            columns,
            named,
        } = &statement.casts;
        if *unsure || (columns.is_empty() && named.is_empty()) {
            return *unsure;
        }
        let read: Vec<&ColumnsDefinition> = statement
            .reads
            .iter()
            .flat_map(|name| self.oids(name, search_path))
            .filter_map(|oid| self.columns.get(&oid))
            .collect();
        let text = |name: &Arc<str>| read.iter().any(|columns| columns.texts.contains(name));
        let time = |name: &Arc<str>| read.iter().any(|columns| columns.times.contains(name));
        columns.iter().chain(named).any(text) || !columns.iter().all(time)
    }

    /// The relation with this oid.
    pub fn relation(&self, oid: u32) -> Option<&Relation> {
        self.relations.get(&oid)
    }

    /// How many relations there are.
    pub fn len(&self) -> usize {
        self.relations.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.relations.is_empty()
    }

    /// What an insert, update or delete changes: the relation, its descendants (all may be written through it), what
    /// foreign keys change then, and the ancestors of all of these, which are read through.
    pub fn write_closure<'a>(&'a self, relation: &'a Relation) -> &'a WriteClosure {
        relation.writes.get_or_init(|| self.closure(relation, false))
    }

    /// What `TRUNCATE … CASCADE` changes: as a write, along all foreign keys.
    pub fn truncate_closure<'a>(&'a self, relation: &'a Relation) -> &'a WriteClosure {
        relation.truncates.get_or_init(|| self.closure(relation, true))
    }

    fn closure(&self, relation: &Relation, truncate: bool) -> WriteClosure {
        let touched = self.graph.touched(relation.definition.oid, truncate);
        let runs_code = touched.iter().any(|oid| {
            self.relations.get(oid).is_none_or(|relation| {
                relation.definition.write_code
                    || match relation.definition.kind {
                        RelationKind::Foreign | RelationKind::System => true,
                        RelationKind::View => relation.read_may_write,
                        RelationKind::Table
                        | RelationKind::Partitioned
                        | RelationKind::MaterializedView
                        | RelationKind::Sequence => false,
                    }
            })
        });
        if runs_code {
            return WriteClosure::Unknown;
        }
        let mut oids = self.graph.with_ancestors(touched);
        oids.retain(|oid| {
            self.relations
                .get(oid)
                .is_some_and(|relation| is_stored(relation.definition.kind))
        });
        WriteClosure::Relations(oids.into())
    }

    /// Why no statement of this database is kept at all.
    pub(super) fn hidden_user_code(&self) -> Option<BypassReason> {
        self.hidden_user_code
    }

    pub(super) fn is_user_operator(&self, symbol: &str) -> bool {
        self.operators.contains(symbol)
    }

    pub(super) fn is_user_type(&self, name: &str) -> bool {
        self.types.contains(name)
    }

    /// Whether `statement` may run code that does something to the server's session: calls of functions that are not known
    /// apart.
    pub(super) fn touched_by(&self, statement: &Statement) -> bool {
        self.touching.caused_by(statement, |_| true)
    }

    /// Whether `statement` may run code that writes: calls of functions that are not known apart.
    pub(super) fn writes_by_code(&self, statement: &Statement) -> bool {
        self.writing
            .caused_by(statement, |word| self.may_call(statement, word))
    }

    /// Whether `statement` may run code that changes definitions or rights: calls of functions that are not known apart.
    pub(super) fn defines_by_code(&self, statement: &Statement) -> bool {
        self.defining
            .caused_by(statement, |word| self.may_call(statement, word))
    }

    /// Whether `word` may be a call where it is none by its form: `row.word`, or in what was not parsed.
    fn may_call(&self, statement: &Statement, word: &str) -> bool {
        !matches!(statement.kind, StatementKind::Read | StatementKind::Write)
            || self.functions.is_attribute(word)
    }

    /// Why a view's own text forbids to keep what it reads; `times` when it can see columns of type `time`.
    fn view_obstacle(&self, view: &ViewDefinition, times: bool) -> Option<BypassReason> {
        if let Some(reason) = view.user_code {
            return Some(reason);
        }
        let Some(query) = &view.query else {
            return Some(BypassReason::ViewNotUnderstood);
        };
        if query.kind != StatementKind::Read {
            return Some(BypassReason::ViewNotUnderstood);
        }
        if view.moment_literal || self.may_read_moment(query, &[]) || (times && names_a_zone(query)) {
            return Some(BypassReason::Moment);
        }
        // relations that come with PostgreSQL are not in the recorded dependencies; everything else is, and qualified
        let system = |name: &RelationName| {
            let schema = name.schema.as_deref().unwrap_or("pg_catalog");
            matches!(schema, "pg_catalog" | "information_schema" | "pg_toast")
                && self
                    .schemas
                    .get(schema)
                    .is_some_and(|names| names.contains_key(&name.name))
        };
        if query.reads.iter().any(system) {
            return Some(BypassReason::SystemRelation);
        }
        statement_obstacle(query, self)
    }
}

fn is_stored(kind: RelationKind) -> bool {
    match kind {
        RelationKind::Table | RelationKind::Partitioned | RelationKind::MaterializedView => true,
        RelationKind::View | RelationKind::Foreign | RelationKind::Sequence | RelationKind::System => false,
    }
}

/// Why a read of this one relation is not kept, what it depends on apart.
fn own_obstacle(
    definition: Option<&RelationDefinition>,
    verdicts: &HashMap<u32, BypassReason>,
    analyzed: &HashSet<u32>,
) -> Option<BypassReason> {
    let Some(definition) = definition else {
        return Some(BypassReason::UnknownRelation);
    };
    match definition.kind {
        RelationKind::System => return Some(BypassReason::SystemRelation),
        RelationKind::Sequence => return Some(BypassReason::Sequence),
        RelationKind::Foreign => return Some(BypassReason::ForeignTable),
        RelationKind::View => {
            if let Some(reason) = verdicts.get(&definition.oid) {
                return Some(*reason);
            }
            if !analyzed.contains(&definition.oid) {
                return Some(BypassReason::ViewNotUnderstood);
            }
        }
        RelationKind::Table | RelationKind::Partitioned | RelationKind::MaterializedView => {}
    }
    if definition.row_security {
        return Some(BypassReason::RowSecurity);
    }
    definition.unfixed_columns.then_some(BypassReason::ColumnType)
}

fn connect(
    row: &RelationDefinition,
    graph: &Graph,
    by_oid: &HashMap<u32, &RelationDefinition>,
    own: impl Fn(u32) -> Option<BypassReason>,
) -> Relation {
    let reached = graph.reached_by_read(row.oid);
    let definition = |oid: &u32| by_oid.get(oid).copied();
    let foreign_child = || {
        let kinds = reached
            .iter()
            .flat_map(|oid| graph.descendants(*oid))
            .filter_map(|oid| by_oid.get(&oid));
        let mut foreign = kinds.filter(|child| child.kind == RelationKind::Foreign);
        foreign.next().map(|_| BypassReason::ForeignTable)
    };
    let base: Vec<u32> = reached
        .iter()
        .filter(|oid| definition(oid).is_some_and(|definition| is_stored(definition.kind)))
        .copied()
        .collect();
    Relation {
        definition: row.clone(),
        base: base.into(),
        obstacle: own(row.oid)
            .or_else(|| reached.iter().find_map(|oid| own(*oid)))
            .or_else(foreign_child),
        read_may_write: reached
            .iter()
            .filter_map(definition)
            .any(|definition| definition.read_code),
        time_columns: reached
            .iter()
            .filter_map(definition)
            .any(|definition| definition.time_columns),
        writes: OnceLock::new(),
        truncates: OnceLock::new(),
    }
}

#[cfg(test)]
mod tests;
