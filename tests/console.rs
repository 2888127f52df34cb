//! The console and readiness against a real PostgreSQL.

mod support;

use std::path::Path;
use std::sync::Arc;

use support::{Postgres, SUPERUSER};
use tollgate::admin::Console;
use tollgate::config::{self, RealEnvironment};
use tollgate::http::Readiness;
use tollgate::pipeline::{Commands, Database, Gateway};
use tollgate::types::{BackendName, DatabaseName, UserName};
use tollgate::wire::Value;

fn gateway(postgres: &Postgres) -> Arc<Gateway> {
    let directory = postgres.socket_directory().display();
    let port = postgres.port();
    let text = format!(
        r#"
[backend.warehouse]
address = "{directory}:{port}"
databases = ["postgres"]
control = {{ user = "{SUPERUSER}" }}
[team.growth]
backend = "warehouse"
login = {{ user = "{SUPERUSER}" }}
[user.root]
admin = true
password = "md568e256fda3a5bc363bebdce506974683"
"#
    );
    let environment = RealEnvironment::of_file(Path::new("tollgate.toml"));
    let config = config::parse(&text, &environment).expect("a sound configuration");
    Arc::new(Gateway::new(config, None, None).expect("it can be set up"))
}

fn database(gateway: &Gateway) -> Arc<Database> {
    let key = (BackendName::new("warehouse"), DatabaseName::new("postgres"));
    let realm = gateway.realm();
    Arc::clone(realm.databases.get(&key).expect("the database is configured"))
}

fn rows(gateway: &Arc<Gateway>, text: &str) -> Result<Vec<String>, String> {
    let mut console = Console::new(Arc::clone(gateway), UserName::new("root"));
    let answer = console.run(text.as_bytes()).map_err(|error| error.to_string())?;
    let answer = answer.expect("an answer");
    let row = |row: &Vec<Value>| {
        let fields = row.iter().map(|value| match value {
            Value::Text(text) => text.clone(),
            Value::Null | Value::Bool(_) | Value::Int4(_) | Value::Int8(_) | Value::Float8(_) => {
                String::new()
            }
        });
        fields.collect::<Vec<_>>().join("|")
    };
    Ok(answer.rows.iter().map(row).collect())
}

#[tokio::test]
async fn an_invalidation_by_name_reaches_what_depends_on_it_and_nothing_else() {
    let postgres = Postgres::start();
    postgres.run(
        "CREATE SCHEMA sales; \
         CREATE TABLE sales.orders (id int, day date) PARTITION BY RANGE (day); \
         CREATE TABLE sales.orders_2026 PARTITION OF sales.orders FOR VALUES FROM ('2026-01-01') TO ('2027-01-01'); \
         CREATE VIEW daily AS SELECT day, count(*) FROM sales.orders GROUP BY day; \
         CREATE TABLE users (id int)",
    );
    let gateway = gateway(&postgres);
    let database = database(&gateway);
    let catalog = database.watch.ready().await.expect("the catalog");
    let tag = |schema: &str, name: &str| {
        let name = tollgate::sql::RelationName {
            schema: Some(schema.into()),
            name: name.into(),
        };
        tollgate::cache::TagId {
            scope: database.scope,
            relation: catalog.resolve(&name, &[]).expect("it exists").definition.oid,
        }
    };
    let orders = || gateway.tags.snapshot(&[tag("sales", "orders")]);
    let users = gateway.tags.snapshot(&[tag("public", "users")]);

    let before = orders();
    let partition = [
        "warehouse|postgres|sales.orders",
        "warehouse|postgres|sales.orders_2026",
    ];
    assert_eq!(
        rows(&gateway, "INVALIDATE sales.orders_2026"),
        Ok(partition.map(str::to_owned).to_vec())
    );
    assert!(!before.is_current());
    let before = orders();
    assert_eq!(rows(&gateway, "INVALIDATE Daily;").map(|rows| rows.len()), Ok(3));
    assert!(!before.is_current());
    let before = orders();
    assert_eq!(
        rows(&gateway, "INVALIDATE orders"),
        Err("relation \"public.orders\" does not exist".to_owned())
    );
    assert!(before.is_current() && users.is_current());

    let databases = rows(&gateway, "SHOW DATABASES").expect("an answer");
    assert!(databases[0].contains("|no|current|"), "{databases:?}");
}

#[tokio::test]
async fn the_gateway_is_ready_once_a_backend_was_reached() {
    let postgres = Postgres::start();
    let gateway = gateway(&postgres);
    let readiness = Readiness::default();
    assert!(readiness.check(&gateway).is_err(), "nothing was read yet");
    database(&gateway).watch.ready().await.expect("the catalog");
    assert_eq!(readiness.check(&gateway), Ok(()));
    readiness.drain();
    assert!(readiness.check(&gateway).is_err());
}
