//! The answers of the catalog queries, and what they mean.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use deadpool_postgres::Transaction;
use tokio_postgres::Row;

use super::queries;
use crate::policy::{
    BypassReason, CodeDefinition, ColumnsDefinition, Definitions, FunctionDefinition, Occasion,
    RelationDefinition, RelationKind, ViewDefinition, Volatility,
};
use crate::sql::{Analysis, Backslash, Code};

/// The answers, not yet taken apart.
pub(super) struct Rows {
    relations: Vec<Row>,
    children: Vec<Row>,
    foreign_keys: Vec<Row>,
    view_reads: Vec<Row>,
    write_code: Vec<Row>,
    read_code: Vec<Row>,
    views: Vec<Row>,
    functions: Vec<Row>,
    operators: Vec<Row>,
    types: Vec<Row>,
    casts: Row,
    sources: Vec<Row>,
    occasions: Vec<Row>,
    columns: Vec<Row>,
}

impl Rows {
    /// Asks all questions.
    pub(super) async fn read(transaction: &Transaction<'_>) -> Result<Self, tokio_postgres::Error> {
        let query = async |sql: &'static str| transaction.query(sql, &[]).await;
        Ok(Self {
            relations: query(queries::RELATIONS).await?,
            children: query(queries::CHILDREN).await?,
            foreign_keys: query(queries::FOREIGN_KEYS).await?,
            view_reads: query(queries::VIEW_READS).await?,
            write_code: query(queries::WRITE_CODE).await?,
            read_code: query(queries::READ_CODE).await?,
            views: query(queries::VIEWS).await?,
            functions: query(queries::FUNCTIONS).await?,
            operators: query(queries::OPERATORS).await?,
            types: query(queries::TYPES).await?,
            casts: transaction.query_one(queries::CASTS, &[]).await?,
            sources: query(queries::SOURCES).await?,
            occasions: query(queries::OCCASIONS).await?,
            columns: query(queries::COLUMNS).await?,
        })
    }

    /// Takes the answers apart. Views are analyzed here, so it takes its time.
    pub(super) fn definitions(&self) -> Result<Definitions, tokio_postgres::Error> {
        let types = Types::new(&self.types)?;
        let read_code = ReadCode::new(&self.read_code)?;
        let write_code = self
            .write_code
            .iter()
            .map(|row| row.try_get(0))
            .collect::<Result<HashSet<u32>, _>>()?;
        let relations = self
            .relations
            .iter()
            .map(|row| {
                let oid = row.try_get(0)?;
                Ok(RelationDefinition {
                    oid,
                    schema: text(row, 1)?,
                    name: text(row, 2)?,
                    kind: kind(row.try_get(3)?, row.try_get(5)?),
                    row_security: row.try_get(4)?,
                    write_code: write_code.contains(&oid),
                    read_code: read_code.may_write.contains(&oid),
                    unfixed_columns: types.unfixed_columns.contains(&oid),
                    time_columns: types.time_columns.contains(&oid),
                    unlogged: row.try_get(6)?,
                })
            })
            .collect::<Result<_, tokio_postgres::Error>>()?;
        let mut cascades = Vec::new();
        let mut references = Vec::new();
        for row in &self.foreign_keys {
            let edge = pair(row)?;
            references.push(edge);
            if row.try_get(2)? {
                cascades.push(edge);
            }
        }
        Ok(Definitions {
            relations,
            children: pairs(&self.children)?,
            view_reads: pairs(&self.view_reads)?,
            cascades,
            references,
            views: self
                .views
                .iter()
                .map(|row| view(row, &read_code))
                .collect::<Result<_, _>>()?,
            functions: self.functions.iter().map(function).collect::<Result<_, _>>()?,
            operators: self
                .operators
                .iter()
                .map(|row| text(row, 0))
                .collect::<Result<_, _>>()?,
            types: types.names,
            casts: self.casts.try_get(0)?,
            code: self.code()?,
            columns: self.columns.iter().map(columns).collect::<Result<_, _>>()?,
        })
    }
}

impl Rows {
    /// What users' code says, and what runs it.
    fn code(&self) -> Result<Vec<CodeDefinition>, tokio_postgres::Error> {
        let functions = self.sources.iter().map(function_code);
        let occasions = self.occasions.iter().map(occasion);
        let views = self.views.iter().map(|row| {
            Ok(CodeDefinition {
                occasion: Occasion::Read(row.try_get(0)?),
                code: expression(row.try_get(1)?),
            })
        });
        functions.chain(occasions).chain(views).collect()
    }
}

fn columns(row: &Row) -> Result<ColumnsDefinition, tokio_postgres::Error> {
    let names = |column| {
        let names = row.try_get::<_, Vec<&str>>(column)?;
        Ok::<_, tokio_postgres::Error>(names.into_iter().map(Arc::from).collect())
    };
    Ok(ColumnsDefinition {
        relation: row.try_get(0)?,
        times: names(1)?,
        texts: names(2)?,
    })
}

fn function_code(row: &Row) -> Result<CodeDefinition, tokio_postgres::Error> {
    let (source, standard): (Option<&str>, bool) = (row.try_get(1)?, row.try_get(2)?);
    let body = match source {
        Some(source) if standard => Code::of_expression(source),
        Some(source) => Code::of_body(source),
        None => Code::unread(),
    };
    let defaults = row.try_get::<_, Option<&str>>(3)?.unwrap_or_default();
    Ok(CodeDefinition {
        occasion: Occasion::Called(text(row, 0)?),
        code: body.and(Code::of_expression(defaults)),
    })
}

fn occasion(row: &Row) -> Result<CodeDefinition, tokio_postgres::Error> {
    let relation = || Ok::<u32, tokio_postgres::Error>(row.try_get::<_, Option<u32>>(1)?.unwrap_or_default());
    let occasion = match row.try_get(0)? {
        "w" => Occasion::Written(relation()?),
        "u" => Occasion::Used(relation()?),
        "o" => Occasion::Operator(text(row, 2)?),
        "d" => Occasion::Ddl,
        _ => Occasion::Unseen,
    };
    Ok(CodeDefinition {
        occasion,
        code: expression(row.try_get(3)?),
    })
}

/// Null when what it belongs to was dropped since the snapshot began.
fn expression(text: Option<&str>) -> Code {
    text.map_or_else(Code::default, Code::of_expression)
}

fn text(row: &Row, column: usize) -> Result<Arc<str>, tokio_postgres::Error> {
    row.try_get::<_, &str>(column).map(Arc::from)
}

fn pair(row: &Row) -> Result<(u32, u32), tokio_postgres::Error> {
    Ok((row.try_get(0)?, row.try_get(1)?))
}

fn pairs(rows: &[Row]) -> Result<Vec<(u32, u32)>, tokio_postgres::Error> {
    rows.iter().map(pair).collect()
}

/// `pg_class.relkind`; the query asks for these six only.
fn kind(relkind: i8, system: bool) -> RelationKind {
    if system {
        return RelationKind::System;
    }
    match relkind.unsigned_abs() {
        b'r' => RelationKind::Table,
        b'p' => RelationKind::Partitioned,
        b'v' => RelationKind::View,
        b'm' => RelationKind::MaterializedView,
        b'S' => RelationKind::Sequence,
        _ => RelationKind::Foreign,
    }
}

fn function(row: &Row) -> Result<FunctionDefinition, tokio_postgres::Error> {
    let volatility = match row.try_get::<_, i32>(2)? {
        0 => Volatility::Immutable,
        1 => Volatility::Stable,
        _ => Volatility::Volatile,
    };
    Ok(FunctionDefinition {
        name: text(row, 0)?,
        builtin: row.try_get(1)?,
        volatility,
        attribute: row.try_get(3)?,
    })
}

fn view(row: &Row, code: &ReadCode) -> Result<ViewDefinition, tokio_postgres::Error> {
    let oid = row.try_get(0)?;
    // null when the view has been dropped since the snapshot began
    let analysis = row
        .try_get::<_, Option<&str>>(1)?
        .map(|text| Analysis::of(text.as_bytes(), Backslash::Literal));
    Ok(ViewDefinition {
        oid,
        user_code: code.in_view.get(&oid).copied(),
        moment_literal: analysis.as_ref().is_some_and(Analysis::moment_literal),
        query: analysis.as_ref().and_then(Analysis::single).cloned(),
    })
}

/// Code of users that reads run.
#[derive(Default)]
struct ReadCode {
    may_write: HashSet<u32>,
    in_view: HashMap<u32, BypassReason>,
}

impl ReadCode {
    fn new(rows: &[Row]) -> Result<Self, tokio_postgres::Error> {
        let mut code = Self::default();
        for row in rows {
            let (oid, by_view, immutable, operator): (u32, bool, bool, bool) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            if !immutable {
                code.may_write.insert(oid);
            }
            match (by_view, operator, immutable) {
                (true, false, _) => code.in_view.insert(oid, BypassReason::UserFunction),
                (true, true, false) => code.in_view.insert(oid, BypassReason::UserOperator),
                (true, true, true) | (false, _, _) => None,
            };
        }
        Ok(code)
    }
}

/// Types whose values are not fixed by their text, and the relations that have columns of them.
#[derive(Default)]
struct Types {
    names: Vec<Arc<str>>,
    unfixed_columns: HashSet<u32>,
    time_columns: HashSet<u32>,
}

impl Types {
    fn new(rows: &[Row]) -> Result<Self, tokio_postgres::Error> {
        let mut types = Self::default();
        for row in rows {
            let (by_user, time, column): (bool, bool, bool) =
                (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            // naming `time` is judged with the words around it; naming a user's domain over it is, too
            if by_user && !time {
                types.names.push(text(row, 0)?);
            }
            let relations: Vec<u32> = row.try_get(4)?;
            match (time, column) {
                (true, _) => types.time_columns.extend(relations),
                (false, true) => types.unfixed_columns.extend(relations),
                (false, false) => {}
            }
        }
        Ok(types)
    }
}
