//! One database's definitions, read into a [`Catalog`].

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Transaction};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{IsolationLevel, NoTls, Row, Socket};

use super::queries;
use crate::policy::{
    BypassReason, Catalog, Definitions, FunctionDefinition, RelationDefinition, RelationKind, ViewDefinition,
    Volatility,
};
use crate::sql::Statement;
use crate::types::{DatabaseName, Secret};

/// Connections that one source keeps: one to load, one to look for changes.
const MAX_CONNECTIONS: usize = 2;

/// Where the database listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogAddress {
    /// A host name or an IP address.
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// A directory with a socket `.s.PGSQL.<port>`.
    Unix {
        /// The directory.
        directory: PathBuf,
        /// The port in the socket's name.
        port: u16,
    },
}

/// How to reach one database for its definitions. The user needs no rights but to connect.
#[derive(Clone, Debug)]
pub struct CatalogSettings {
    /// Where the database listens.
    pub address: CatalogAddress,
    /// The database.
    pub database: DatabaseName,
    /// The control user.
    pub user: String,
    /// Its password, when it needs one.
    pub password: Option<Secret<String>>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long one query may take, waiting for locks included. A whole load may take four times as long.
    pub query_timeout: Duration,
}

/// Facts of a view's query.
#[derive(Clone, Debug)]
pub struct ViewFacts {
    /// The facts.
    pub statement: Arc<Statement>,
    /// A literal in the text names the moment, e.g. `'today'`.
    pub moment_literal: bool,
}

/// Analyzes the text of a view's query; `None` when it is not understood, or not one statement.
pub type ViewReader = Arc<dyn Fn(&str) -> Option<ViewFacts> + Send + Sync>;

/// Why definitions could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// No connection could be had.
    #[error("could not connect for the catalog{}", causes(.0))]
    Connect(#[from] PoolError),
    /// A query failed, or answered in a shape that is not expected.
    #[error("could not read the catalog{}", causes(.0))]
    Query(#[from] tokio_postgres::Error),
    /// Reading took too long.
    #[error("reading the catalog took longer than {} ms", .0.as_millis())]
    TooSlow(Duration),
    /// The pool of connections could not be made.
    #[error("could not set up connections for the catalog{}", causes(.0))]
    Setup(#[from] deadpool_postgres::BuildError),
    /// Connecting the definitions failed: a bug.
    #[error("could not build the catalog")]
    Build(#[from] tokio::task::JoinError),
}

/// `tokio_postgres` says "db error" and keeps the rest in its source.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = format!(": {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        // a cause repeats the text of its own cause in part; both are wanted
        if write!(text, ": {cause}").is_err() {
            break;
        }
        source = cause.source();
    }
    text
}

/// What one load gives.
#[derive(Debug)]
pub struct Snapshot {
    /// The definitions.
    pub catalog: Catalog,
    /// Differs from another load's when definitions, privileges or roles do.
    pub digest: String,
}

/// Reads the definitions of one database. Cheap to make: it connects when first used.
pub struct CatalogSource {
    pool: Pool,
    query_timeout: Duration,
    read_view: ViewReader,
}

impl CatalogSource {
    /// A source without TLS.
    pub fn new(settings: &CatalogSettings, read_view: ViewReader) -> Result<Self, CatalogError> {
        Self::with_tls(settings, read_view, NoTls)
    }

    /// A source whose connections are made through `tls`.
    pub fn with_tls<T>(
        settings: &CatalogSettings,
        read_view: ViewReader,
        tls: T,
    ) -> Result<Self, CatalogError>
    where
        T: MakeTlsConnect<Socket> + Clone + Sync + Send + 'static,
        T::Stream: Sync + Send,
        T::TlsConnect: Sync + Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let mut config = tokio_postgres::Config::new();
        match &settings.address {
            CatalogAddress::Tcp { host, port } => config.host(host).port(*port),
            CatalogAddress::Unix { directory, port } => config.host_path(directory).port(*port),
        };
        config
            .user(&settings.user)
            .dbname(settings.database.as_str())
            .application_name("tollgate catalog")
            .connect_timeout(settings.connect_timeout);
        if let Some(password) = &settings.password {
            config.password(password.expose());
        }
        let connections = deadpool_postgres::Manager::from_config(
            config,
            tls,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(connections)
            .max_size(MAX_CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .create_timeout(Some(settings.connect_timeout))
            .wait_timeout(Some(settings.connect_timeout))
            .recycle_timeout(Some(settings.connect_timeout))
            .build()?;
        Ok(Self {
            pool,
            query_timeout: settings.query_timeout,
            read_view,
        })
    }

    /// Reads all definitions, in one snapshot that begins after the call, and stamps them with `generation`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a dropped load closes its connection.
    pub async fn load(&self, generation: u64) -> Result<Snapshot, CatalogError> {
        let (rows, digest) = self
            .bounded(4, async |transaction| {
                let rows = Rows::read(&transaction).await?;
                let digest = digest(&transaction).await?;
                transaction.rollback().await?;
                Ok((rows, digest))
            })
            .await?;
        let read_view = Arc::clone(&self.read_view);
        // tens of thousands of relations and views take long enough to hold up whatever shares the thread
        let catalog = tokio::task::spawn_blocking(move || {
            Ok::<_, tokio_postgres::Error>(Catalog::new(rows.definitions(&read_view)?, generation))
        })
        .await??;
        Ok(Snapshot { catalog, digest })
    }

    /// What [`Snapshot::digest`] would be now; cheaper than a load.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`Self::load`].
    pub async fn digest(&self) -> Result<String, CatalogError> {
        self.bounded(1, async |transaction| {
            let digest = digest(&transaction).await?;
            transaction.rollback().await?;
            Ok(digest)
        })
        .await
    }

    /// Runs `read` in a read-only transaction with one snapshot; a connection on which anything failed is closed.
    async fn bounded<T>(
        &self,
        queries: u32,
        read: impl AsyncFnOnce(Transaction<'_>) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, CatalogError> {
        let limit = self.query_timeout.saturating_mul(queries);
        let mut connection = Doubtful(Some(self.pool.get().await?));
        let Some(client) = connection.0.as_mut() else {
            return Err(CatalogError::TooSlow(Duration::ZERO));
        };
        let run = async {
            let transaction = client
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .read_only(true)
                .start()
                .await?;
            transaction
                .batch_execute(&queries::preamble(self.query_timeout.as_millis()))
                .await?;
            read(transaction).await
        };
        let result = tokio::time::timeout(limit, run)
            .await
            .map_err(|_| CatalogError::TooSlow(limit))??;
        connection.is_at_rest();
        Ok(result)
    }
}

/// A connection that does not go back to the pool unless it is known to be at rest.
struct Doubtful(Option<Object>);

impl Doubtful {
    fn is_at_rest(&mut self) {
        drop(self.0.take());
    }
}

impl Drop for Doubtful {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}

async fn digest(transaction: &Transaction<'_>) -> Result<String, tokio_postgres::Error> {
    transaction.query_one(queries::DIGEST, &[]).await?.try_get(0)
}

/// The answers, not yet taken apart.
struct Rows {
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
}

impl Rows {
    async fn read(transaction: &Transaction<'_>) -> Result<Self, tokio_postgres::Error> {
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
        })
    }

    fn definitions(&self, read_view: &ViewReader) -> Result<Definitions, tokio_postgres::Error> {
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
                .map(|row| view(row, &read_code, read_view))
                .collect::<Result<_, _>>()?,
            functions: self.functions.iter().map(function).collect::<Result<_, _>>()?,
            operators: self
                .operators
                .iter()
                .map(|row| text(row, 0))
                .collect::<Result<_, _>>()?,
            types: types.names,
            casts: self.casts.try_get(0)?,
        })
    }
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

fn view(row: &Row, code: &ReadCode, read_view: &ViewReader) -> Result<ViewDefinition, tokio_postgres::Error> {
    let oid = row.try_get(0)?;
    // null when the view has been dropped since the snapshot began
    let facts = row
        .try_get::<_, Option<&str>>(1)?
        .and_then(|text| read_view(text));
    Ok(ViewDefinition {
        oid,
        user_code: code.in_view.get(&oid).copied(),
        moment_literal: facts.as_ref().is_some_and(|facts| facts.moment_literal),
        query: facts.map(|facts| facts.statement),
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
