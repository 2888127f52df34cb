//! Casts to dates and times whose operand may be a text that names the moment, such as `'now'`.
//!
//! A literal is looked at by itself, wherever it stands; here is what else can become such a text. Each expression is judged by
//! what is sure of it; columns are left to whoever knows their types.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::ControlFlow;

use sqlparser::ast::{
    DataType, Expr, Function, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    TableAlias, TableFactor, Visit, Visitor,
};

use super::sure::{
    Meaning, Sure, TIMES, argument, arguments, call, function_name, is_time, meaning, sure, worst,
};
use crate::sql::statement::TimeCasts;

/// Names that PostgreSQL gives to columns that have none, beside names in their expression. Sorted.
const UNNAMED: &[&str] = &[
    "array", "bpchar", "case", "char", "coalesce", "greatest", "least", "nullif", "row", "text", "varchar",
];

/// What is known of casts and of names while a statement is walked.
#[derive(Default)]
pub(super) struct Times {
    unsure: bool,
    columns: BTreeSet<String>,
    names: BTreeMap<String, Vec<Meaning>>,
    /// A source of rows whose columns' names are not told.
    opaque: bool,
    /// Branches of `UNION` and its like, which make one column of several.
    combined: bool,
}

impl Times {
    /// A cast of `operand`.
    pub(super) fn cast(&mut self, to: &DataType, operand: &Expr) {
        if is_time(to) {
            self.reads_text(operand);
        }
    }

    /// A call, which may be another way to write a cast.
    pub(super) fn call(&mut self, function: &Function) {
        let is_cast = function_name(function).is_some_and(|name| TIMES.binary_search(&name).is_ok());
        if is_cast {
            for argument in arguments(function) {
                match argument {
                    Some(argument) => self.reads_text(argument),
                    None => self.unsure = true,
                }
            }
        }
    }

    fn reads_text(&mut self, operand: &Expr) {
        let mut columns = Vec::new();
        self.unsure |= sure(operand, &mut columns) == Sure::Not;
        self.columns.extend(columns);
    }

    /// A query: names of its parts.
    pub(super) fn query(&mut self, query: &Query) {
        self.combined |= matches!(*query.body, SetExpr::SetOperation { .. });
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.columns_of(&cte.alias, &cte.query);
        }
    }

    /// A `SELECT`: names of what it gives.
    pub(super) fn select(&mut self, select: &Select) {
        for item in &select.projection {
            match item {
                SelectItem::ExprWithAlias { expr, alias } => self.name(&alias.value, expr),
                SelectItem::UnnamedExpr(Expr::Identifier(_) | Expr::CompoundIdentifier(_))
                | SelectItem::Wildcard(_)
                | SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(_), _) => {}
                SelectItem::UnnamedExpr(expr) => self.unnamed(expr),
                SelectItem::ExprWithAliases { .. } | SelectItem::QualifiedWildcard(..) => self.opaque = true,
            }
        }
    }

    /// A source of rows: names of its columns.
    pub(super) fn factor(&mut self, factor: &TableFactor) {
        #[allow(
            clippy::wildcard_enum_match_arm,
            reason = "most of them are not of PostgreSQL"
        )]
        match factor {
            TableFactor::Table {
                args: None, alias, ..
            } => {
                for column in alias.iter().flat_map(|alias| &alias.columns) {
                    self.note(&column.name.value, (Sure::Not, Vec::new()));
                }
            }
            TableFactor::Table {
                name,
                args: Some(args),
                alias,
                ..
            } => {
                let name = name.0.last().and_then(|part| part.as_ident());
                let meaning = call(
                    name.map(|name| name.value.as_str()),
                    args.args.iter().map(argument),
                );
                self.rows(name.map(|name| name.value.as_str()), alias.as_ref(), meaning);
            }
            TableFactor::Function {
                name, args, alias, ..
            } => {
                let name = name.0.last().and_then(|part| part.as_ident());
                let meaning = call(name.map(|name| name.value.as_str()), args.iter().map(argument));
                self.rows(name.map(|name| name.value.as_str()), alias.as_ref(), meaning);
            }
            TableFactor::UNNEST {
                alias, array_exprs, ..
            } => {
                let meaning = worst(array_exprs.iter().map(Some));
                self.rows(Some("unnest"), alias.as_ref(), meaning);
            }
            TableFactor::Derived { subquery, alias, .. } => match alias {
                Some(alias) => self.columns_of(alias, subquery),
                None => self.opaque |= is_values(subquery),
            },
            TableFactor::NestedJoin { .. } => {}
            _ => self.opaque = true,
        }
    }

    /// Rows that a function gives, all of whose columns are `meaning`.
    fn rows(&mut self, name: Option<&str>, alias: Option<&TableAlias>, meaning: Meaning) {
        self.opaque |= meaning.0 == Sure::Not;
        match alias {
            Some(alias) => {
                self.note(&alias.name.value, meaning.clone());
                for column in &alias.columns {
                    let typed = column.data_type.as_ref();
                    // `json_to_record(…) AS t(at timestamptz)` reads texts
                    if typed.is_some_and(is_time) {
                        self.unsure = true;
                    }
                    self.note(&column.name.value, meaning.clone());
                }
            }
            None => {
                if let Some(name) = name {
                    self.note(name, meaning);
                }
            }
        }
    }

    /// The columns of a query that has names for them.
    fn columns_of(&mut self, alias: &TableAlias, query: &Query) {
        // a wildcard may stand for any number of columns
        let wild = matches!(query.body.as_ref(), SetExpr::Select(select) if select.projection.iter().any(is_wildcard));
        for (at, column) in alias.columns.iter().enumerate() {
            let meaning = match query.body.as_ref() {
                SetExpr::Values(values) => worst(values.rows.iter().map(|row| row.content.get(at))),
                SetExpr::Select(select) => match select.projection.get(at) {
                    Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) if !wild => {
                        meaning(expr)
                    }
                    _ => (Sure::Not, Vec::new()),
                },
                SetExpr::Query(_)
                | SetExpr::SetOperation { .. }
                | SetExpr::Insert(_)
                | SetExpr::Update(_)
                | SetExpr::Delete(_)
                | SetExpr::Merge(_)
                | SetExpr::Table(_) => (Sure::Not, Vec::new()),
            };
            self.note(&column.name.value, meaning);
        }
        self.opaque |= alias.columns.is_empty() && is_values(query);
    }

    fn name(&mut self, name: &str, expr: &Expr) {
        self.note(name, meaning(expr));
    }

    fn note(&mut self, name: &str, meaning: Meaning) {
        self.names.entry(name.to_owned()).or_default().push(meaning);
    }

    /// What has no name gets one by rules of its own: perhaps that of anything in it.
    fn unnamed(&mut self, expr: &Expr) {
        let meaning = meaning(expr);
        if meaning == (Sure::NoText, Vec::new()) && !matches!(expr, Expr::Function(_)) {
            return;
        }
        let mut inner = Names::default();
        if let Expr::Function(function) = expr {
            // by its own name
            inner.0.extend(function_name(function).map(str::to_owned));
        } else {
            let ControlFlow::Continue(()) = expr.visit(&mut inner);
            inner.0.extend(UNNAMED.iter().map(|name| (*name).to_owned()));
        }
        for name in inner.0 {
            self.note(&name, meaning.clone());
        }
    }

    /// What must hold of columns so that no cast reads a text that names the moment.
    pub(super) fn finish(self) -> TimeCasts {
        let mut casts = TimeCasts {
            unsure: self.unsure,
            ..TimeCasts::default()
        };
        let mut open: Vec<String> = self.columns.into_iter().collect();
        let mut seen: BTreeSet<String> = open.iter().cloned().collect();
        casts.unsure |= self.opaque && !open.is_empty();
        let mut named = BTreeSet::new();
        let mut columns = BTreeSet::new();
        while let Some(name) = open.pop() {
            match self.names.get(&name) {
                None => drop(columns.insert(name)),
                Some(meanings) => {
                    for (sure, inner) in meanings {
                        casts.unsure |= match sure {
                            Sure::NoText => false,
                            // with what other branches give it becomes a text
                            Sure::NoMoment => self.combined,
                            Sure::Not => true,
                        };
                        for column in inner {
                            if *column == name {
                                columns.insert(name.clone());
                            } else if seen.insert(column.clone()) {
                                open.push(column.clone());
                            }
                        }
                    }
                    named.insert(name);
                }
            }
        }
        casts.named = named
            .difference(&columns)
            .map(|name| name.as_str().into())
            .collect();
        casts.columns = columns.into_iter().map(Into::into).collect();
        casts
    }
}

fn is_values(query: &Query) -> bool {
    matches!(*query.body, SetExpr::Values(_))
}

fn is_wildcard(item: &SelectItem) -> bool {
    matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
}

/// Every name of a column or a function in an expression.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl Visitor for Names {
    type Break = Infallible;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Infallible> {
        #[allow(
            clippy::wildcard_enum_match_arm,
            reason = "the visitor goes on into the others"
        )]
        match expr {
            Expr::Identifier(ident) => drop(self.0.insert(ident.value.clone())),
            Expr::CompoundIdentifier(idents) => self.0.extend(idents.last().map(|ident| ident.value.clone())),
            Expr::Function(function) => {
                let name = function.name.0.last().and_then(|part| part.as_ident());
                self.0.extend(name.map(|name| name.value.clone()));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_words_are_sorted() {
        assert!(UNNAMED.is_sorted());
    }
}
