//! One database's definitions, read into a [`Catalog`].

use std::error::Error as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    ConfigConnectImpl, Connect, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Transaction,
};
use tokio::task::JoinHandle;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, IsolationLevel, NoTls, Socket};

use super::queries;
use super::rows::Rows;
use crate::backend::CommandPassword;
use crate::policy::Catalog;
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
    /// Where the database listens; of several, the first that takes writes is used.
    pub addresses: Vec<CatalogAddress>,
    /// The database.
    pub database: DatabaseName,
    /// The control user.
    pub user: String,
    /// Its password, when it needs one.
    pub password: Option<CatalogPassword>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long one query may take, waiting for locks included. A whole load may take four times as long.
    pub query_timeout: Duration,
}

/// The control user's password.
#[derive(Clone, Debug)]
pub enum CatalogPassword {
    /// The password.
    Text(Secret<String>),
    /// A command prints it; asked at each connection.
    Command(Arc<CommandPassword>),
}

/// Connects with the password of the moment.
struct Connecting<T> {
    tls: T,
    password: Option<CatalogPassword>,
}

type Connected = Result<(Client, JoinHandle<()>), tokio_postgres::Error>;

impl<T> Connect for Connecting<T>
where
    T: MakeTlsConnect<Socket> + Clone + Sync + Send + 'static,
    T::Stream: Sync + Send,
    T::TlsConnect: Sync + Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn connect(
        &self,
        config: &tokio_postgres::Config,
    ) -> Pin<Box<dyn Future<Output = Connected> + Send + '_>> {
        let mut config = config.clone();
        Box::pin(async move {
            match &self.password {
                None => {}
                Some(CatalogPassword::Text(password)) => {
                    config.password(password.expose());
                }
                Some(CatalogPassword::Command(command)) => {
                    // without one the server asks in vain, and the log says why the command gave none
                    if let Ok(password) = command.password().await {
                        config.password(password.expose());
                    }
                }
            }
            let connect = ConfigConnectImpl {
                tls: self.tls.clone(),
            };
            connect.connect(&config).await
        })
    }
}

/// Why definitions could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// No connection could be had.
    #[error("could not connect for the catalog")]
    Connect(#[from] PoolError),
    /// A query failed, or answered in a shape that is not expected.
    #[error("could not read the catalog")]
    Query(#[from] tokio_postgres::Error),
    /// Reading took too long.
    #[error("reading the catalog took longer than {} ms", .0.as_millis())]
    TooSlow(Duration),
    /// The pool of connections could not be made.
    #[error("could not set up connections for the catalog")]
    Setup(#[from] deadpool_postgres::BuildError),
    /// Connecting the definitions failed: a bug.
    #[error("could not build the catalog")]
    Build(#[from] tokio::task::JoinError),
}

impl CatalogError {
    /// The message and those of all causes, for logs and the console.
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
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
}

impl CatalogSource {
    /// A source without TLS.
    pub fn new(settings: &CatalogSettings) -> Result<Self, CatalogError> {
        Self::with_tls(settings, NoTls)
    }

    /// A source whose connections are made through `tls`.
    pub fn with_tls<T>(settings: &CatalogSettings, tls: T) -> Result<Self, CatalogError>
    where
        T: MakeTlsConnect<Socket> + Clone + Sync + Send + 'static,
        T::Stream: Sync + Send,
        T::TlsConnect: Sync + Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let mut config = tokio_postgres::Config::new();
        for address in &settings.addresses {
            match address {
                CatalogAddress::Tcp { host, port } => config.host(host).port(*port),
                CatalogAddress::Unix { directory, port } => config.host_path(directory).port(*port),
            };
        }
        if settings.addresses.len() > 1 {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config
            .user(&settings.user)
            .dbname(settings.database.as_str())
            .application_name("tollgate catalog")
            .connect_timeout(settings.connect_timeout);
        let connecting = Connecting {
            tls,
            password: settings.password.clone(),
        };
        let connections = deadpool_postgres::Manager::from_connect(
            config,
            connecting,
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
        })
    }

    /// Reads all definitions, in one snapshot that begins after the call, and stamps them with `generation`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a dropped load is rolled back; the next use of its connection waits for its last query.
    pub async fn load(&self, generation: u64) -> Result<Snapshot, CatalogError> {
        let (rows, digest) = self
            .bounded(4, async |transaction| {
                let rows = Rows::read(&transaction).await?;
                let digest = digest(&transaction).await?;
                transaction.rollback().await?;
                Ok((rows, digest))
            })
            .await?;
        // tens of thousands of relations and views take long enough to hold up whatever shares the thread
        let catalog = tokio::task::spawn_blocking(move || {
            Ok::<_, tokio_postgres::Error>(Catalog::new(rows.definitions()?, generation))
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
        let mut connection = self.pool.get().await?;
        let result = tokio::time::timeout(limit, async {
            let transaction = connection
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .read_only(true)
                .start()
                .await?;
            transaction
                .batch_execute(&queries::preamble(self.query_timeout.as_millis()))
                .await?;
            read(transaction).await
        })
        .await
        .map_err(|_| CatalogError::TooSlow(limit))
        .and_then(|result| result.map_err(CatalogError::from));
        if result.is_err() {
            drop(Object::take(connection));
        }
        result
    }
}

async fn digest(transaction: &Transaction<'_>) -> Result<String, tokio_postgres::Error> {
    transaction.query_one(queries::DIGEST, &[]).await?.try_get(0)
}
