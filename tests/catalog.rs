//! The catalog snapshot against a real PostgreSQL.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::{PasswordForm, Postgres, SUPERUSER};
use tollgate::backend::catalog::{
    CatalogAddress, CatalogError, CatalogSettings, CatalogSource, CatalogWatch, ViewFacts, ViewReader,
    WatchSettings,
};
use tollgate::policy::{BypassReason, Catalog, FunctionClass, Volatility, WriteClosure};
use tollgate::sql::{Fingerprint, RelationName, Statement, StatementKind};
use tollgate::types::{DatabaseName, Secret};

const SCHEMA: &str = include_str!("catalog.sql");

fn settings(server: &Postgres) -> CatalogSettings {
    CatalogSettings {
        address: CatalogAddress::Unix {
            directory: server.socket_directory().to_owned(),
            port: server.port(),
        },
        database: DatabaseName::new("postgres"),
        user: SUPERUSER.to_owned(),
        password: None,
        connect_timeout: Duration::from_secs(30),
        query_timeout: Duration::from_secs(30),
    }
}

fn reader() -> ViewReader {
    Arc::new(|_| None)
}

async fn load(server: &Postgres) -> Catalog {
    CatalogSource::new(&settings(server), reader())
        .unwrap()
        .load(7)
        .await
        .unwrap()
        .catalog
}

#[tokio::test]
async fn loads() {
    let server = Postgres::start();
    let catalog = load(&server).await;
    assert_eq!(catalog.generation, 7);
}
