//! The stand-in as its users meet it: real PostgreSQL, real crashes, the demo's questions.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "this is a test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::time::{interval, timeout};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tollgate::standin::{BackendLogin, Day, DemoOptions, StandIn, StandInError};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// Names the directory for [`a_process_that_is_killed_leaves_no_server_behind`] in the process that is killed.
const HOLD: &str = "TOLLGATE_TEST_HOLD_STANDIN";

/// A directory that every user may enter, as the server's user must.
fn root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    root
}

fn options(data: &Path, events: u64) -> DemoOptions {
    DemoOptions {
        data: Some(data.to_owned()),
        events,
        ..DemoOptions::default()
    }
}

/// Starts a stand-in; the second part is what it said.
async fn start(options: DemoOptions) -> Result<(StandIn, Vec<String>), StandInError> {
    let mut said = Vec::new();
    let stand_in = StandIn::start(options, |text| said.push(text.to_owned())).await?;
    Ok((stand_in, said))
}

/// Starts a stand-in and gives up as soon as it says something with `word`.
async fn start_until(options: DemoOptions, word: &str) {
    let said = tokio::sync::Notify::new();
    let starting = StandIn::start(options, |text| {
        if text.contains(word) {
            said.notify_one();
        }
    });
    tokio::select! {
        started = starting => panic!("it went on after \"{word}\": {:?}", started.map(drop)),
        () = said.notified() => {}
    }
}

async fn connect(stand_in: &StandIn, login: &BackendLogin) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::Config::new()
        .host_path(stand_in.socket_directory())
        .port(stand_in.port())
        .user(&login.user)
        .password(login.password.expose())
        .dbname("dev")
        .connect(NoTls)
        .await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

async fn rows(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = client
        .simple_query(sql)
        .await
        .unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    let mut rows = Vec::new();
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push(
                (0..row.len())
                    .map(|column| row.get(column).map(str::to_owned))
                    .collect(),
            );
        }
    }
    rows
}

async fn value(client: &Client, sql: &str) -> String {
    rows(client, sql).await.remove(0).remove(0).unwrap_or_default()
}

fn postmaster(directory: &Path) -> Pid {
    let text = fs::read_to_string(directory.join("data/postmaster.pid")).unwrap();
    Pid::from_raw(text.lines().next().unwrap().parse().unwrap())
}

/// Waits until `process` is gone.
async fn gone(process: Pid) {
    let mut ticks = interval(Duration::from_millis(20));
    let waiting = async {
        while kill(process, None).is_ok() {
            ticks.tick().await;
        }
    };
    assert!(
        timeout(PATIENCE, waiting).await.is_ok(),
        "process {process} lives on"
    );
}

fn questions() -> BTreeMap<String, String> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sql-fixtures/demo");
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn every_question_has_a_title_of_its_own() {
    let questions = questions();
    assert!(questions.len() >= 18);
    let mut titles = BTreeMap::new();
    for (name, text) in &questions {
        let title = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("-- "))
            .unwrap_or_default();
        assert!(title.len() > 5, "{name} has no title");
        assert_eq!(titles.insert(title, name), None, "{name}: {title}");
        assert!(
            text.trim_end().ends_with(';'),
            "{name} does not end with a semicolon"
        );
    }
}

#[tokio::test]
async fn the_questions_have_answers_and_the_teams_may_ask_them() {
    let root = root();
    let (stand_in, said) = start(options(&root.path().join("demo"), 60_000)).await.unwrap();
    assert!(
        said.iter().any(|text| text.contains("loading 60000 events")),
        "{said:?}"
    );
    let growth = connect(&stand_in, stand_in.team_login("growth").unwrap())
        .await
        .unwrap();
    let bi = connect(&stand_in, stand_in.team_login("bi").unwrap())
        .await
        .unwrap();

    let mut answers = BTreeMap::new();
    for (name, text) in questions() {
        let answer = rows(&growth, &text).await;
        let first = answer.first().unwrap_or_else(|| panic!("{name} has no rows"));
        assert!(first.iter().any(Option::is_some), "{name} begins with nothing");
        answers.insert(name, answer);
    }
    let number = |name: &str, row: usize, column: usize| -> f64 {
        answers[name][row][column].as_deref().unwrap().parse().unwrap()
    };
    for (name, count) in [
        ("daily_active_users", 30),
        ("moving_average_of_messages", 90),
        ("peak_hours_utc", 24),
        ("power_users", 10),
    ] {
        assert_eq!(answers[name].len(), count, "{name}");
    }
    let stickiness = number("stickiness", 0, 2);
    assert!((10.0..70.0).contains(&stickiness), "stickiness {stickiness}%");
    assert!((number("power_users", 0, 3)) > 20.0, "the most active do most");
    let funnel: Vec<f64> = (0..5)
        .map(|column| number("newcomer_funnel", 0, column))
        .collect();
    assert!(
        funnel.is_sorted_by(|a, b| a >= b) && funnel[1] > 0.0,
        "{funnel:?}"
    );
    let retention = &answers["retention_by_cohort"];
    assert!(
        retention.iter().any(|row| row[1].as_deref() == Some("5")),
        "cohorts live for weeks"
    );

    // the summary agrees with what it sums up
    let sums = "SELECT (SELECT sum(messages) FROM messages_daily) = count(*) FROM events \
                WHERE event_kind = 'message_sent'";
    assert_eq!(value(&bi, sums).await, "t");
    // teams write, make tables, and read each other's
    growth
        .batch_execute("CREATE TABLE mine AS SELECT 7 AS n; DELETE FROM events WHERE event_id = 1")
        .await
        .unwrap();
    assert_eq!(value(&bi, "SELECT n FROM mine").await, "7");
    assert!(bi.batch_execute("DROP TABLE mine").await.is_err());
    let strangers = BackendLogin {
        user: "bootstrap".to_owned(),
        ..stand_in.control_login().clone()
    };
    assert!(
        connect(&stand_in, &strangers).await.is_err(),
        "nobody logs in as the bootstrap superuser"
    );
    stand_in.stop().await;
}

/// The tables' contents for a fixed day, as the server sees them.
const CONTENTS: [(&str, &str, &str); 6] = [
    ("countries", "country_code", "c281e63795ca12cb1d51d96ca913f8e1"),
    ("event_kinds", "event_kind", "a38d30d72e264cefe024dc625a125db6"),
    ("users", "user_id", "dc01d9cabca7f480cddd7dc226defbd4"),
    ("sessions", "session_id", "fd3b84619f94ab0e408d47c543e59787"),
    ("events", "event_id", "0d3861ce349e4e1d9f10431ea240f13a"),
    (
        "messages_daily",
        "day, country_code, chat_kind",
        "454fda22194cb7ec59361be1fe20d7f3",
    ),
];

#[tokio::test]
async fn the_data_outlive_interruptions_crashes_and_restarts() {
    let root = root();
    let directory = root.path().join("demo");
    let fixed = |events| DemoOptions {
        last_day: Some(Day(20_484)),
        ..options(&directory, events)
    };

    // given up while it is initialised, and while it is loaded
    start_until(fixed(20_000), "initialising").await;
    start_until(fixed(20_000), "loading").await;
    let (stand_in, said) = start(fixed(20_000)).await.unwrap();
    assert!(
        said.iter().any(|text| text.contains("up to 2026-01-31")),
        "the load was redone: {said:?}"
    );

    let client = connect(&stand_in, stand_in.control_login()).await.unwrap();
    let mut wrong = Vec::new();
    for (table, key, expected) in CONTENTS {
        let sql = format!("SELECT md5(string_agg(t::text, E'\\n' ORDER BY {key})) FROM {table} t");
        let found = value(&client, &sql).await;
        if found != expected {
            wrong.push(format!("{table}: {found}"));
        }
    }
    assert!(wrong.is_empty(), "the demo's data have changed: {wrong:?}");
    drop(client);

    // a second one at the same time
    let error = start(fixed(20_000)).await.map(drop).unwrap_err();
    assert!(
        matches!(&error, StandInError::InUse { process, .. } if *process == std::process::id().to_string())
    );

    // the server dies and comes back
    let killed = postmaster(stand_in.directory());
    kill(killed, Signal::SIGKILL).unwrap();
    gone(killed).await;
    let mut ticks = interval(Duration::from_millis(50));
    let back = async {
        loop {
            ticks.tick().await;
            if let Ok(client) = connect(&stand_in, stand_in.control_login()).await {
                return value(&client, "SELECT count(*) FROM events").await;
            }
        }
    };
    assert_eq!(timeout(PATIENCE, back).await.unwrap(), "20000");
    let last = postmaster(stand_in.directory());
    stand_in.stop().await;
    assert!(kill(last, None).is_err(), "stop waits until the server is gone");

    // a stale postmaster.pid that names a living process, lost passwords, and another number of events
    fs::write(
        directory.join("data/postmaster.pid"),
        format!("{}\n", std::process::id()),
    )
    .unwrap();
    fs::remove_dir_all(directory.join("secrets")).unwrap();
    let (stand_in, said) = start(fixed(30_000)).await.unwrap();
    let kept =
        "keeping the demo data that are there: 20000 events up to 2026-01-31 (not the 30000 asked for)";
    assert!(said.iter().any(|text| text.starts_with(kept)), "{said:?}");
    let client = connect(&stand_in, stand_in.team_login("growth").unwrap())
        .await
        .unwrap();
    assert_eq!(value(&client, "SELECT count(*) FROM events").await, "20000");

    // dropped without a stop: the server goes all the same
    let last = postmaster(stand_in.directory());
    drop(stand_in);
    gone(last).await;
}

#[tokio::test]
async fn a_process_that_is_killed_leaves_no_server_behind() {
    if let Some(directory) = std::env::var_os(HOLD) {
        let _stand_in = start(options(Path::new(&directory), 0)).await.unwrap();
        println!("\nholding");
        // until the other end closes, or we are killed
        std::io::stdin().read_line(&mut String::new()).unwrap();
        return;
    }
    let root = root();
    let directory = root.path().join("demo");
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_process_that_is_killed_leaves_no_server_behind",
            "--nocapture",
        ])
        .env(HOLD, &directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(
        lines.map_while(Result::ok).any(|line| line == "holding"),
        "the other process did not start"
    );
    let server = postmaster(&directory);
    assert!(kill(server, None).is_ok());
    holder.kill().unwrap();
    holder.wait().unwrap();
    gone(server).await;
    let (stand_in, said) = start(options(&directory, 0)).await.unwrap();
    assert!(!said.iter().any(|text| text.contains("initialising")), "{said:?}");
    stand_in.stop().await;
}

#[tokio::test]
async fn what_cannot_be_started_is_refused_with_a_reason() {
    let root = root();
    let path = |name: &str| root.path().join(name);
    fs::create_dir_all(path("old/data")).unwrap();
    fs::write(path("old/tollgate-standin"), "").unwrap();
    fs::write(path("old/data/PG_VERSION"), "9\n").unwrap();
    fs::create_dir(path("other")).unwrap();
    fs::write(path("other/file"), "").unwrap();
    fs::write(path("file"), "").unwrap();
    for (options, reason) in [
        (
            options(&path("old"), 0),
            "was made by PostgreSQL 9, but PostgreSQL",
        ),
        (
            options(&path("other"), 0),
            "is not empty and was not made by tollgate; nothing was changed",
        ),
        (options(&path("file"), 0), "could not list"),
        (options(&path("new"), 100_000_001), "are more than the 100000000"),
        (
            DemoOptions {
                pg_bin: Some(path("other")),
                ..options(&path("new"), 0)
            },
            "TOLLGATE_PG_BIN",
        ),
    ] {
        let error = start(options).await.map(drop).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
