//! Drivers as programs use them: tokio-postgres, psycopg, node-postgres.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::stage::Stage;
use crate::support::gateway::{ANA, BEN, Setup};

const SCHEMA: &str = "
    CREATE TABLE people (id int PRIMARY KEY, name text, born date, score float8, at timestamptz);
    INSERT INTO people SELECT g, 'p' || g, date '2000-01-01' + g, g / 4.0, timestamptz '2024-01-01 00:00:00+00' + g * interval '1 minute'
        FROM generate_series(1, 100) g";

/// How long a client's program may take; reached only by a test that fails.
const LIMIT: Duration = Duration::from_mins(1);

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("it gets in");
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn tokio_postgres_works_as_at_the_server() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    tokio::time::timeout(LIMIT, work(&stage))
        .await
        .expect("every answer in time");
}

async fn work(stage: &Stage) {
    let mut client = connect(&stage.gateway.url(ANA)).await;
    // prepared, typed, binary
    for _ in 0..2 {
        let statement = client
            .prepare("SELECT count(*), max(score), min(born) FROM people WHERE id <= $1")
            .await
            .unwrap();
        let row = client.query_one(&statement, &[&10_i32]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, f64>(1)), (10, 2.5));
    }
    let rows = client
        .query(
            "SELECT id, name FROM people WHERE id = ANY($1) ORDER BY id",
            &[&vec![3, 5, 7]],
        )
        .await
        .unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.get(1)).collect();
    assert_eq!(names, ["p3", "p5", "p7"]);
    let error = client.query("SELECT nothing", &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42703");
    let typed = client
        .query_typed("SELECT $1 + 1", &[(&41_i32, Type::INT4)])
        .await
        .unwrap();
    assert_eq!(typed[0].get::<_, i32>(0), 42);
    // a transaction, taken back and kept; a portal in parts
    let transaction = client.transaction().await.unwrap();
    transaction
        .execute("DELETE FROM people WHERE id > 50", &[])
        .await
        .unwrap();
    transaction.rollback().await.unwrap();
    let mut transaction = client.transaction().await.unwrap();
    let portal = transaction
        .bind("SELECT id FROM people ORDER BY id", &[])
        .await
        .unwrap();
    let mut sizes = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 30).await.unwrap();
        if rows.is_empty() {
            break;
        }
        sizes.push(rows.len());
    }
    assert_eq!(sizes, [30, 30, 30, 10]);
    let savepoint = transaction.savepoint("s").await.unwrap();
    savepoint.execute("DELETE FROM people", &[]).await.unwrap();
    savepoint.rollback().await.unwrap();
    transaction.commit().await.unwrap();
    // copy in both directions
    let sink = client.copy_in("COPY people (id, name) FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(bytes::Bytes::from_static(b"101\tone\n102\ttwo\n"))
        .await
        .unwrap();
    assert_eq!(sink.finish().await.unwrap(), 2);
    let copied: Vec<bytes::Bytes> = client
        .copy_out("COPY (SELECT name FROM people WHERE id > 100 ORDER BY id) TO STDOUT")
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(copied.concat(), b"one\ntwo\n");
    // simple queries
    let messages = client.simple_query("SELECT 1 AS a; SELECT 2").await.unwrap();
    let values: Vec<&str> = messages
        .iter()
        .filter_map(|message| {
            let SimpleQueryMessage::Row(row) = message else {
                return None;
            };
            row.get(0)
        })
        .collect();
    assert_eq!(values, ["1", "2"]);
    // many at once on one connection
    let counts = futures_util::future::join_all((1..=20).map(|limit: i32| {
        let client = &client;
        async move {
            client
                .query_one("SELECT count(*) FROM people WHERE id <= $1", &[&limit])
                .await
                .unwrap()
                .get::<_, i64>(0)
        }
    }))
    .await;
    assert_eq!(counts, (1..=20).collect::<Vec<i64>>());
}

#[tokio::test]
async fn tokio_postgres_streams_and_cancels() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    tokio::time::timeout(LIMIT, stream(&stage))
        .await
        .expect("every answer in time");
}

async fn stream(stage: &Stage) {
    let client = connect(&stage.gateway.url(ANA)).await;
    let parameters: [i32; 1] = [100_000];
    let rows = client
        .query_raw("SELECT g FROM generate_series(1, $1) g", parameters)
        .await
        .unwrap();
    let sum = rows
        .try_fold(0_i64, |sum, row| async move {
            Ok(sum + i64::from(row.get::<_, i32>(0)))
        })
        .await
        .unwrap();
    assert_eq!(sum, 5_000_050_000);
    let rows = client
        .query_raw(
            "SELECT generate_series(1, $1), repeat('x', 1000)",
            [100_000_000_i32],
        )
        .await
        .unwrap();
    let mut rows = std::pin::pin!(rows);
    rows.next().await.unwrap().unwrap();
    client.cancel_token().cancel_query(NoTls).await.unwrap();
    let mut end = Ok(());
    while let Some(row) = rows.next().await {
        if let Err(error) = row {
            end = Err(error);
        }
    }
    assert_eq!(end.unwrap_err().code().unwrap().code(), "57014");
    assert_eq!(
        client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0),
        1
    );
}

/// The directory of the clients of other languages, which `tests/install.sh` fills.
fn clients() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    target.parent().expect("the target directory").join("clients")
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name)
}

/// Runs `command`, which says `done` at its end.
fn run(command: &mut Command) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; tests/install.sh installs it"));
    let deadline = Instant::now() + LIMIT;
    let mut ended = child.try_wait().expect("its status");
    while ended.is_none() && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(10));
        ended = child.try_wait().expect("its status");
    }
    if ended.is_none() {
        child.kill().expect("it is there");
    }
    let output = child.wait_with_output().expect("its output");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.ends_with("done\n"),
        "{status}: {said}{}",
        String::from_utf8_lossy(&output.stderr),
        status = output.status
    );
}

#[test]
fn psycopg_works_as_at_the_server() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    run(Command::new(clients().join("python/bin/python"))
        .arg(script("psycopg_client.py"))
        .args([stage.gateway.url(ANA), stage.gateway.url(BEN)])
        .arg(stage.gateway.console_url()));
}

#[test]
fn node_postgres_works_as_at_the_server() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    run(Command::new("node")
        .arg(script("node_client.cjs"))
        .args([stage.gateway.url(ANA), stage.gateway.url(BEN)])
        .arg(stage.gateway.console_url())
        .env("NODE_PATH", clients().join("node/node_modules")));
}
