//! The console against a gateway whose backend nobody runs.

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;

use super::Console;
use crate::config::{self, Config, RealEnvironment};
use crate::error::ClientError;
use crate::pipeline::{Answer, Commands, Gateway, Login, answer_simple};
use crate::types::{DatabaseName, TeamName, UserName};
use crate::wire::Value;

const CONFIG: &str = r#"
[backend.warehouse]
address = "/nonexistent/tollgate"
databases = ["dev", "stage"]
control = { user = "tollgate" }
[team.growth]
backend = "warehouse"
login = { user = "growth_role" }
quota = { concurrent_queries = 4, queue_wait = "30s" }
[user.ana]
team = "growth"
password = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
[user.root]
admin = true
password = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
"#;

fn config(text: &str) -> Config {
    config::parse(text, &RealEnvironment::of_file(Path::new("tollgate.toml"))).expect("a sound configuration")
}

/// A gateway whose backend cannot be reached.
pub(crate) fn lonely_gateway() -> Arc<Gateway> {
    Arc::new(Gateway::new(config(CONFIG), None, None).expect("it can be set up"))
}

fn console(gateway: &Arc<Gateway>) -> Console {
    Console::new(Arc::clone(gateway), UserName::new("root"))
}

fn ask(gateway: &Arc<Gateway>, text: &str) -> Result<Option<Answer>, Box<dyn ClientError>> {
    let mut console = console(gateway);
    let columns = console.columns(text.as_bytes())?.map(<[_]>::len);
    let answer = console.run(text.as_bytes())?;
    if let Some(answer) = &answer {
        let width = columns.unwrap_or(0);
        assert_eq!(answer.columns.len(), width, "{text}: described as it is answered");
        for row in &answer.rows {
            assert_eq!(row.len(), width, "{text}: {row:?}");
        }
    }
    Ok(answer)
}

/// Rows as text: columns by `|`, rows by line.
fn rows(gateway: &Arc<Gateway>, text: &str) -> String {
    let answer = ask(gateway, text).map_err(|error| error.to_string());
    let answer = answer.expect(text).expect("an answer");
    let rows = answer.rows.iter().map(|row| {
        let fields = row.iter().map(|value| match value {
            Value::Null => "-".to_owned(),
            Value::Text(text) => text.clone(),
            Value::Bool(yes) => yes.to_string(),
            Value::Int4(number) => number.to_string(),
            Value::Int8(number) => number.to_string(),
            Value::Float8(number) => number.to_string(),
        });
        fields.collect::<Vec<_>>().join("|")
    });
    rows.collect::<Vec<_>>().join("\n")
}

fn error(gateway: &Arc<Gateway>, text: &str) -> [String; 4] {
    let error = ask(gateway, text).expect_err(text);
    [
        error.sqlstate().to_string(),
        error.to_string(),
        error.detail().unwrap_or_default(),
        error.hint().unwrap_or_default(),
    ]
}

fn log_in(gateway: &Gateway, port: u16) -> u64 {
    let login = Login {
        user: UserName::new("ana"),
        team: Some(TeamName::new("growth")),
        database: DatabaseName::new("dev"),
        address: [127, 0, 0, 1].into(),
        port,
        application_name: "psql".to_owned(),
        tls: false,
    };
    let id = gateway.sessions.next_id();
    gateway.sessions.register(id, login, 0);
    id.0
}

#[tokio::test]
async fn every_command_answers_as_it_is_described() {
    let gateway = lonely_gateway();
    log_in(&gateway, 50_000);
    for command in super::COMMANDS {
        // a command that fails here needs an argument, a file or a backend
        if let Err(error) = ask(&gateway, command.name()) {
            assert!(
                ["KILL", "RELOAD"].contains(&command.name()),
                "{}: {error}",
                command.name()
            );
        }
    }
}

#[tokio::test]
async fn pools_clients_and_teams_are_counted() {
    let gateway = lonely_gateway();
    let id = log_in(&gateway, 50_000);
    assert_eq!(
        rows(&gateway, "show pools;"),
        "dev|growth_role|1|0|0|0|0|0|0|transaction|warehouse|growth|no|closed\n\
         stage|growth_role|0|0|0|0|0|0|0|transaction|warehouse|growth|no|closed"
    );
    let clients = rows(&gateway, "SHOW CLIENTS");
    assert!(
        clients.starts_with("C|ana|dev|idle|127.0.0.1|50000|20"),
        "{clients}"
    );
    assert!(
        clients.ends_with(&format!(" UTC|{id}|-|no|psql|growth|0|0|-")),
        "{clients}"
    );
    assert_eq!(
        rows(&gateway, "SHOW TEAMS"),
        "growth|warehouse|1|0|4|0|-|0|30000|-|-|-|0|0|0|0|0"
    );
    assert_eq!(rows(&gateway, "SHOW USERS"), "ana|growth|no|1\nroot|-|yes|0");
    assert_eq!(rows(&gateway, "SHOW SERVERS"), "");
    assert_eq!(
        rows(&gateway, "SHOW ENDPOINTS"),
        "warehouse|primary|/nonexistent/tollgate|unknown|0|-|-"
    );
    assert_eq!(rows(&gateway, "SHOW PINS"), "");
    gateway.sessions.list()[0].note_pinned(Some("temporary table"));
    assert_eq!(rows(&gateway, "SHOW PINS"), "temporary table|1|0");
    assert_eq!(rows(&gateway, "SHOW STATS"), "growth|0|0|0|0|0|0|0|0|0|0");
    assert!(rows(&gateway, "SHOW LISTS").contains("idle_clients|1\n"));
}

#[tokio::test]
async fn settings_are_shown_without_secrets() {
    let gateway = lonely_gateway();
    assert_eq!(
        rows(&gateway, "SHOW CONFIG team.growth.quota.queue_wait"),
        "team.growth.quota.queue_wait|30s|no|yes"
    );
    let all = rows(&gateway, "SHOW CONFIG");
    assert!(all.contains("\ncache.ttl|10min|yes|yes\n"), "{all}");
    assert!(
        all.contains("\nuser.ana.password|*** (SCRAM verifier)|no|yes\n"),
        "{all}"
    );
    assert!(!all.contains("c2FsdHNhbHRzYWx0"), "{all}");
    assert!(rows(&gateway, "show config 'team.growth'").lines().count() > 5);
    assert_eq!(rows(&gateway, "SHOW CONFIG team.grow"), "");
}

#[tokio::test]
async fn pause_and_resume_take_one_backend_or_all() {
    let gateway = lonely_gateway();
    let paused = || gateway.realm().backends["warehouse"].paused();
    assert_eq!(rows(&gateway, "PAUSE"), "warehouse|yes|0");
    assert!(paused());
    assert!(rows(&gateway, "SHOW POOLS").ends_with("|yes|closed"));
    assert_eq!(rows(&gateway, "resume warehouse"), "warehouse|no|0");
    assert!(!paused());
    assert_eq!(
        error(&gateway, "PAUSE lake"),
        [
            "42704",
            "backend \"lake\" does not exist",
            "",
            "There are: warehouse."
        ]
    );
    assert!(!paused());
}

#[tokio::test]
async fn an_invalidation_makes_everything_stale_or_says_why_not() {
    let gateway = lonely_gateway();
    let before = gateway.tags.snapshot(&[]);
    assert_eq!(rows(&gateway, "INVALIDATE"), "warehouse|dev|*\nwarehouse|stage|*");
    assert!(!before.is_current());

    let [code, message, detail, hint] = error(&gateway, "INVALIDATE dev.public.events");
    assert_eq!(
        (&*code, &*message),
        ("42P01", "relation \"public.events\" does not exist")
    );
    assert_eq!(
        detail,
        "The relations of database \"dev\" of backend \"warehouse\" are not known yet: the backend has not been reached."
    );
    assert!(hint.starts_with("Write schema.relation"));
    let [code, message, ..] = error(&gateway, "INVALIDATE prod.public.events");
    assert_eq!((&*code, &*message), ("3D000", "database \"prod\" does not exist"));
}

#[tokio::test]
async fn a_client_is_ended_by_its_number() {
    let gateway = lonely_gateway();
    log_in(&gateway, 50_000);
    let id = log_in(&gateway, 50_001);
    assert_eq!(rows(&gateway, &format!("KILL {id}")), format!("{id}|ana|idle"));
    let [other, killed] = &gateway.sessions.list()[..] else {
        panic!("two sessions")
    };
    // the current thread's runtime gets to what was spawned when this task yields
    while !killed.signals.killed() {
        tokio::task::yield_now().await;
    }
    assert!(!other.signals.killed());
    assert_eq!(rows(&gateway, "KILL USER root"), "");
    assert_eq!(rows(&gateway, "kill user ana").lines().count(), 2);
    while !other.signals.killed() {
        tokio::task::yield_now().await;
    }
    assert_eq!(rows(&gateway, "KILL warehouse").lines().count(), 2);
    assert_eq!(rows(&gateway, "RESUME"), "warehouse|no|0");
    assert_eq!(rows(&gateway, "RECONNECT warehouse"), "warehouse|no|0");
    assert_eq!(rows(&gateway, "DISCONNECT"), "warehouse|no|0");
    let [code, message, ..] = error(&gateway, "KILL USER eve");
    assert_eq!((&*code, &*message), ("42704", "user \"eve\" does not exist"));
    let [code, message, ..] = error(&gateway, "KILL 4711");
    assert_eq!((&*code, &*message), ("42704", "client 4711 does not exist"));
}

#[tokio::test]
async fn what_is_no_command_says_what_to_do() {
    let gateway = lonely_gateway();
    for (text, code, message, hint) in [
        (
            "SELECT * FROM events",
            "42601",
            "unrecognized console command: SELECT * FROM events",
            "Use SHOW HELP.",
        ),
        (
            "show pool",
            "42601",
            "unrecognized console command: show pool",
            "Use SHOW HELP. Did you mean SHOW POOLS?",
        ),
        (
            "SHOW POOLS growth",
            "42601",
            "SHOW POOLS does not take: growth",
            "Write: SHOW POOLS",
        ),
        (
            "PAUSE a b",
            "42601",
            "PAUSE does not take: a b",
            "Write: PAUSE [backend]",
        ),
        (
            "KILL",
            "42601",
            "KILL needs an argument",
            "Write: KILL client | USER name | backend",
        ),
        (
            "KILL USER a b",
            "42601",
            "KILL does not take: USER a b",
            "Write: KILL client | USER name | backend",
        ),
        (
            "RELOAD; RELOAD",
            "42601",
            "cannot insert multiple commands into a prepared statement",
            "Send them one by one, or by the simple protocol.",
        ),
    ] {
        let expected = [code, message, "", hint].map(str::to_owned);
        assert_eq!(error(&gateway, text), expected, "{text}");
    }
    let long = format!("SHOW POOLS -- {}", "x".repeat(100_000));
    assert_eq!(error(&gateway, &long)[0], "54000");
    let mut console = console(&gateway);
    assert!(console.run(b"SHOW \xff\xfe").is_err());
}

#[tokio::test]
async fn a_reload_tells_what_changed_and_refuses_all_mistakes_at_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("tollgate.toml");
    std::fs::write(&path, CONFIG).expect("a file");
    let gateway = Gateway::new(config(CONFIG), Some(path.clone()), None).expect("it can be set up");
    let gateway = Arc::new(gateway);
    assert_eq!(rows(&gateway, "RELOAD"), "");

    let changed = CONFIG.replace("\"30s\"", "\"40s\"") + "[http]\naddress = \"127.0.0.1:0\"\n";
    std::fs::write(&path, changed).expect("a file");
    assert_eq!(
        rows(&gateway, "RELOAD"),
        "http|added|after a restart\nteam.growth.quota.queue_wait|30s -> 40s|now"
    );

    let broken = CONFIG
        .replace("\"30s\"", "\"30\"")
        .replace("admin = true", "admin = 1");
    std::fs::write(&path, broken).expect("a file");
    let [code, _, detail, hint] = error(&gateway, "RELOAD");
    assert_eq!(code, "F0000");
    let lines: Vec<_> = detail.lines().collect();
    assert_eq!(lines.len(), 2, "{detail}");
    assert!(
        lines[0].contains("tollgate.toml:9: team.growth.quota.queue_wait: "),
        "{detail}"
    );
    assert!(lines[1].contains("user.root.admin: "), "{detail}");
    assert_eq!(hint, "Correct the file and send RELOAD again.");
    assert_eq!(
        rows(&gateway, "SHOW CONFIG team.growth.quota.queue_wait"),
        "team.growth.quota.queue_wait|40s|no|yes"
    );

    let [code, _, detail, _] = error(&lonely_gateway(), "RELOAD");
    assert_eq!(
        (&*code, &*detail),
        ("F0000", "the configuration did not come from a file")
    );
}

#[tokio::test]
async fn several_commands_in_one_text_are_answered_up_to_the_first_error() {
    let gateway = lonely_gateway();
    for (text, tags, fine) in [
        ("SET a = 1; SHOW VERSION;", "CTDC", true),
        ("SHOW VERSION; NONSENSE; SHOW VERSION", "TDCE", false),
        (" ; ", "I", true),
        ("BEGIN; SELECT 1; COMMIT", "CTDCC", true),
    ] {
        let mut out = BytesMut::new();
        assert_eq!(
            answer_simple(text.as_bytes(), &mut console(&gateway), &mut out),
            fine
        );
        let mut found = String::new();
        let mut rest = &out[..];
        while let [tag, a, b, c, d, ..] = rest {
            found.push(char::from(*tag));
            let len = u32::from_be_bytes([*a, *b, *c, *d]);
            rest = &rest[usize::try_from(len).expect("a length") + 1..];
        }
        assert_eq!(found, tags, "{text}");
    }
}
