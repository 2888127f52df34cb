//! A syntax tree to facts.
//!
//! The parser's own visitor leads through the tree, so no place where a query or a function may stand is forgotten; this
//! file knows what each node means. A node that neither PostgreSQL nor Redshift has makes the whole unsure.

use std::collections::{HashSet, VecDeque};
use std::ops::ControlFlow;
use std::ptr::from_ref;

use sqlparser::ast::{
    ArrayElemTypeDef, DataType, Distinct, DuplicateTreatment, Expr, FromTable, Function, FunctionArguments,
    GroupByExpr, Ident, ObjectName, Query, Select, SelectFlavor, SelectInto, SetExpr, Statement as Tree,
    TableFactor, TableObject, TableWithJoins, TimezoneInfo, TrimWhereField, Visit, Visitor,
};

use super::times::Times;
use crate::sql::facts::{Draft, relation};
use crate::sql::statement::{PinReason, StatementKind};
use crate::sql::vocabulary::{AGGREGATES, KEYWORD_FUNCTIONS, RESERVED, holds};

/// The facts of a parsed query or change of rows; `None` when it holds what neither backend has.
pub(super) fn facts(tree: &Tree) -> Option<Draft> {
    let mut walk = Walk {
        draft: Draft::new(StatementKind::Read),
        scopes: Vec::new(),
        unread: Vec::new(),
        times: Times::default(),
    };
    match tree.visit(&mut walk) {
        ControlFlow::Continue(()) => Some(Draft {
            casts: walk.times.finish(),
            ..walk.draft
        }),
        ControlFlow::Break(Unsure) => None,
    }
}

/// The tree holds something that is not known to mean what it seems to.
struct Unsure;

struct Walk {
    draft: Draft,
    /// One per query around the current node, innermost last.
    scopes: Vec<Scope>,
    /// Addresses of names that will be visited as relations, but are not read: targets of writes, functions in `FROM`.
    unread: Vec<usize>,
    times: Times,
}

/// The names that a query's `WITH` gives.
struct Scope {
    /// In sight now.
    visible: HashSet<String>,
    /// Not yet, in order: each comes in sight when its own query, at this address, has been walked.
    pending: VecDeque<(usize, String)>,
}

fn address<T>(node: &T) -> usize {
    from_ref(node).addr()
}

type Flow = ControlFlow<Unsure>;

fn unless(unsure: bool) -> Flow {
    if unsure {
        ControlFlow::Break(Unsure)
    } else {
        ControlFlow::Continue(())
    }
}

/// Whether the name begins with a word that can be no name without quotes.
fn is_reserved(name: &ObjectName) -> bool {
    name.0
        .first()
        .and_then(|part| part.as_ident())
        .is_some_and(|ident| ident.quote_style.is_none() && holds(&RESERVED, &ident.value))
}

fn parts(name: &ObjectName) -> Option<Vec<String>> {
    name.0
        .iter()
        .map(|part| {
            let ident = part.as_ident()?;
            // the parser glues `@ a 1 = b` together, as other warehouses name a place of files: here it is no name, and
            // it holds a literal, which no fact may
            let glued = ident.quote_style.is_none() && ident.value.starts_with('@');
            (!glued).then(|| ident.value.clone())
        })
        .collect()
}

impl Walk {
    fn is_cte(&self, name: &str) -> bool {
        self.scopes.iter().any(|scope| scope.visible.contains(name))
    }

    fn read(&mut self, parts: &[String]) -> Flow {
        if let [name] = parts
            && self.is_cte(name)
        {
            return ControlFlow::Continue(());
        }
        let Some(relation) = relation(parts) else {
            return ControlFlow::Break(Unsure);
        };
        self.draft.reads.insert(relation);
        ControlFlow::Continue(())
    }

    fn write(&mut self, name: &ObjectName) -> Flow {
        unless(is_reserved(name))?;
        self.draft.kind = StatementKind::Write;
        self.unread.push(address(name));
        let Some(relation) = parts(name).and_then(|parts| relation(&parts)) else {
            return ControlFlow::Break(Unsure);
        };
        self.draft.writes.insert(relation);
        ControlFlow::Continue(())
    }

    /// The one table of an `UPDATE`, `DELETE` or `MERGE`.
    fn write_factor(&mut self, factor: &TableFactor) -> Flow {
        let TableFactor::Table { name, args: None, .. } = factor else {
            return ControlFlow::Break(Unsure);
        };
        self.write(name)
    }

    fn write_table(&mut self, table: &TableWithJoins) -> Flow {
        unless(!table.joins.is_empty())?;
        self.write_factor(&table.relation)
    }

    fn call(&mut self, name: &ObjectName) -> Flow {
        let Some(function) = parts(name).and_then(|parts| relation(&parts)) else {
            return ControlFlow::Break(Unsure);
        };
        self.draft.functions.insert(function);
        ControlFlow::Continue(())
    }

    fn function(&mut self, function: &Function) -> Flow {
        let Some(parts) = parts(&function.name) else {
            return ControlFlow::Break(Unsure);
        };
        // `ARRAY(SELECT …)` and `ROW(…)` are syntax
        if let [name] = parts.as_slice()
            && (name == "row" || name == "array" && matches!(function.args, FunctionArguments::Subquery(_)))
        {
            return ControlFlow::Continue(());
        }
        if function.over.is_none() {
            let distinct = matches!(
                &function.args,
                FunctionArguments::List(list) if list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
            );
            let known = match parts.as_slice() {
                [name] => is_aggregate(name),
                [schema, name] => schema == "pg_catalog" && is_aggregate(name),
                _ => false,
            };
            self.draft.aggregate |=
                known || distinct || function.filter.is_some() || !function.within_group.is_empty();
        }
        self.call(&function.name)
    }

    fn keyword_function(&mut self, ident: &Ident) {
        if ident.quote_style.is_none() && holds(&KEYWORD_FUNCTIONS, &ident.value) {
            self.draft.calls(&ident.value);
        }
    }

    /// Casts to a time of day count as calls of the functions that PostgreSQL has for them: their result can depend on
    /// the time zone's offset of today.
    fn cast(&mut self, data_type: &DataType) {
        let mut data_type = data_type;
        while let DataType::Array(
            ArrayElemTypeDef::SquareBracket(element, _)
            | ArrayElemTypeDef::AngleBracket(element)
            | ArrayElemTypeDef::Parenthesis(element),
        ) = data_type
        {
            data_type = element;
        }
        #[allow(clippy::wildcard_enum_match_arm, reason = "the parser knows a hundred types")]
        match data_type {
            DataType::Time(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => self.draft.calls("timetz"),
            DataType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => self.draft.calls("time"),
            _ => {}
        }
    }

    fn into(&mut self, into: &SelectInto) -> Flow {
        self.draft.kind = StatementKind::Write;
        if into.temporary {
            self.draft.pin = Some(PinReason::TemporaryTable);
        }
        let [target] = into.targets.as_slice() else {
            return ControlFlow::Break(Unsure);
        };
        let parts: Vec<String> = if let Expr::Identifier(ident) = target {
            vec![ident.value.clone()]
        } else if let Expr::CompoundIdentifier(idents) = target {
            idents.iter().map(|ident| ident.value.clone()).collect()
        } else {
            return ControlFlow::Break(Unsure);
        };
        let Some(relation) = relation(&parts) else {
            return ControlFlow::Break(Unsure);
        };
        self.draft.writes.insert(relation);
        ControlFlow::Continue(())
    }

    /// `TABLE name`, which the visitor does not show as a relation, in any branch of `UNION` and its like.
    fn table_commands(&mut self, body: &SetExpr) -> Flow {
        let mut rest = vec![body];
        while let Some(body) = rest.pop() {
            match body {
                SetExpr::SetOperation { left, right, .. } => rest.extend([left.as_ref(), right.as_ref()]),
                SetExpr::Table(table) => {
                    let parts: Vec<String> = table
                        .schema_name
                        .iter()
                        .chain(&table.table_name)
                        .cloned()
                        .collect();
                    self.read(&parts)?;
                }
                SetExpr::Select(_)
                | SetExpr::Query(_)
                | SetExpr::Values(_)
                | SetExpr::Insert(_)
                | SetExpr::Update(_)
                | SetExpr::Delete(_)
                | SetExpr::Merge(_) => {}
            }
        }
        ControlFlow::Continue(())
    }
}

fn is_aggregate(name: &str) -> bool {
    holds(&AGGREGATES, name)
}

impl Visitor for Walk {
    type Break = Unsure;

    fn pre_visit_query(&mut self, query: &Query) -> Flow {
        unless(
            query.for_clause.is_some()
                || query.settings.is_some()
                || query.format_clause.is_some()
                || !query.pipe_operators.is_empty(),
        )?;
        self.draft.locking |= !query.locks.is_empty();
        self.times.query(query);
        let mut names = VecDeque::new();
        let mut recursive = false;
        if let Some(with) = &query.with {
            recursive = with.recursive;
            for cte in &with.cte_tables {
                unless(cte.from.is_some())?;
                names.push_back((address(cte.query.as_ref()), cte.alias.name.value.clone()));
            }
        }
        // the body sees all of the names, the queries before it only those before them, unless `RECURSIVE`
        let visible = names.iter().map(|(_, name)| name.clone()).collect();
        self.scopes.push(Scope {
            visible,
            pending: VecDeque::new(),
        });
        self.table_commands(&query.body)?;
        if !recursive && let Some(scope) = self.scopes.last_mut() {
            *scope = Scope {
                visible: HashSet::new(),
                pending: names,
            };
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> Flow {
        self.scopes.pop();
        if let Some(scope) = self.scopes.last_mut()
            && let Some((_, name)) = scope
                .pending
                .pop_front_if(|(pending, _)| *pending == address(query))
        {
            scope.visible.insert(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> Flow {
        unless(
            !matches!(select.flavor, SelectFlavor::Standard)
                || !select.lateral_views.is_empty()
                || select.prewhere.is_some()
                || !select.cluster_by.is_empty()
                || !select.distribute_by.is_empty()
                || !select.sort_by.is_empty()
                || select.value_table_mode.is_some()
                || select.select_modifiers.is_some(),
        )?;
        let grouped = match &select.group_by {
            GroupByExpr::All(_) => true,
            GroupByExpr::Expressions(expressions, modifiers) => {
                !expressions.is_empty() || !modifiers.is_empty()
            }
        };
        let distinct = matches!(select.distinct, Some(Distinct::Distinct | Distinct::On(_)));
        self.draft.aggregate |= grouped || distinct || select.having.is_some();
        self.times.select(select);
        match &select.into {
            Some(into) => self.into(into),
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> Flow {
        if let Some(at) = self.unread.iter().rposition(|unread| *unread == address(name)) {
            self.unread.swap_remove(at);
            return ControlFlow::Continue(());
        }
        unless(is_reserved(name))?;
        match parts(name) {
            Some(parts) => self.read(&parts),
            None => ControlFlow::Break(Unsure),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Flow {
        self.times.factor(factor);
        match factor {
            TableFactor::Table {
                name,
                args,
                with_hints,
                version,
                partitions,
                index_hints,
                ..
            } => {
                unless(
                    !with_hints.is_empty()
                        || version.is_some()
                        || !partitions.is_empty()
                        || !index_hints.is_empty(),
                )?;
                if args.is_some() {
                    self.unread.push(address(name));
                    return self.call(name);
                }
            }
            TableFactor::Function { name, .. } => return self.call(name),
            TableFactor::UNNEST { with_offset, .. } => {
                unless(*with_offset)?;
                self.draft.calls("unnest");
            }
            TableFactor::XmlTable { .. } => self.draft.calls("xmltable"),
            TableFactor::JsonTable { .. } => self.draft.calls("json_table"),
            TableFactor::Pivot { .. } => self.draft.aggregate = true,
            TableFactor::Derived { .. }
            | TableFactor::NestedJoin { .. }
            | TableFactor::Unpivot { .. }
            | TableFactor::UnpivotExpr { .. } => {}
            TableFactor::TableFunction { .. }
            | TableFactor::OpenJsonTable { .. }
            | TableFactor::MatchRecognize { .. }
            | TableFactor::SemanticView { .. } => return ControlFlow::Break(Unsure),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Flow {
        #[allow(
            clippy::wildcard_enum_match_arm,
            reason = "most expressions are no calls; the visitor goes on into them"
        )]
        match expr {
            Expr::Function(function) => {
                self.times.call(function);
                return self.function(function);
            }
            Expr::Identifier(ident) => self.keyword_function(ident),
            Expr::Extract { .. } => self.draft.calls("extract"),
            Expr::AtTimeZone { .. } => self.draft.calls("timezone"),
            Expr::Cast { expr, data_type, .. } => {
                self.times.cast(data_type, expr);
                self.cast(data_type);
            }
            Expr::TypedString(literal) => self.cast(&literal.data_type),
            Expr::Ceil { .. } => self.draft.calls("ceil"),
            Expr::Floor { .. } => self.draft.calls("floor"),
            Expr::Position { .. } => self.draft.calls("position"),
            Expr::Substring { .. } => self.draft.calls("substring"),
            Expr::Overlay { .. } => self.draft.calls("overlay"),
            Expr::Convert { .. } => self.draft.calls("convert"),
            Expr::IsNormalized { .. } => self.draft.calls("is_normalized"),
            // by the names that PostgreSQL gives them
            Expr::Trim { trim_where, .. } => self.draft.calls(match trim_where {
                Some(TrimWhereField::Leading) => "ltrim",
                Some(TrimWhereField::Trailing) => "rtrim",
                Some(TrimWhereField::Both) | None => "btrim",
            }),
            Expr::MatchAgainst { .. }
            | Expr::Lambda(_)
            | Expr::MemberOf(_)
            | Expr::Struct { .. }
            | Expr::Dictionary(_)
            | Expr::Map(_)
            | Expr::InUnnest { .. }
            | Expr::RLike { .. } => return ControlFlow::Break(Unsure),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, tree: &Tree) -> Flow {
        #[allow(
            clippy::wildcard_enum_match_arm,
            reason = "only queries and changes of rows are parsed"
        )]
        match tree {
            Tree::Query(_) => ControlFlow::Continue(()),
            Tree::Insert(insert) => {
                unless(
                    insert.replace_into
                        || insert.overwrite
                        || insert.ignore
                        || insert.or.is_some()
                        || insert.partitioned.is_some()
                        || insert.has_table_keyword
                        || insert.output.is_some()
                        || insert.settings.is_some()
                        || insert.format_clause.is_some()
                        || insert.multi_table_insert_type.is_some()
                        || !insert.multi_table_into_clauses.is_empty(),
                )?;
                match &insert.table {
                    TableObject::TableName(name) => self.write(name),
                    TableObject::TableFunction(_) | TableObject::TableQuery(_) => ControlFlow::Break(Unsure),
                }
            }
            Tree::Update(update) => {
                unless(
                    update.or.is_some()
                        || update.output.is_some()
                        || !update.order_by.is_empty()
                        || update.limit.is_some(),
                )?;
                self.write_table(&update.table)
            }
            Tree::Delete(delete) => {
                unless(
                    !delete.tables.is_empty()
                        || delete.output.is_some()
                        || !delete.order_by.is_empty()
                        || delete.limit.is_some(),
                )?;
                match &delete.from {
                    FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables) => {
                        match tables.as_slice() {
                            [table] => self.write_table(table),
                            _ => ControlFlow::Break(Unsure),
                        }
                    }
                }
            }
            Tree::Merge(merge) => {
                unless(merge.output.is_some())?;
                self.write_factor(&merge.table)
            }
            _ => ControlFlow::Break(Unsure),
        }
    }
}
