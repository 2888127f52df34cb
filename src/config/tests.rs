use std::io;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::{ProptestConfig, any, proptest};

use super::*;
use crate::types::{ByteSize, Secret, TeamName, UserName};

/// Every variable is `tiger`, except those that say otherwise; every file is a certificate with its key.
struct Fixed;

impl Environment for Fixed {
    fn variable(&self, name: &str) -> Option<String> {
        Some(name.strip_prefix("IS_").unwrap_or("tiger").to_owned())
    }

    fn read(&self, _: &Path) -> io::Result<String> {
        Ok("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n".to_owned())
    }
}

const MINIMAL: &str = r#"
[backend.warehouse]
address = "127.0.0.1:5432"
databases = ["dev"]
control = { user = "tollgate" }

[team.growth]
backend = "warehouse"
login = { user = "growth", password = { env = "GROWTH_PASSWORD" } }

[user.ana]
team = "growth"
password = { env = "ANA_PASSWORD" }
"#;

fn read(text: &str) -> Config {
    parse(text, &Fixed).unwrap_or_else(|mistakes| {
        panic!(
            "{:#?}",
            mistakes.iter().map(ToString::to_string).collect::<Vec<_>>()
        );
    })
}

#[test]
fn what_is_written_arrives_and_what_is_not_is_at_its_default() {
    let config = read(&format!(
        "{MINIMAL}\n[cache]\nwhat = \"reads\"\nmemory = \"1GiB\"\n\
         [team.growth.quota]\nconcurrent_queries = 4\nqueue_length = 0\nquery_time = \"90s\"\n",
    ));
    assert_eq!(
        config.listen.address,
        Address::Tcp {
            host: "127.0.0.1".to_owned(),
            port: 5439
        }
    );
    assert_eq!(config.listen.login_timeout, Duration::from_secs(15));
    assert!(config.http.is_none() && config.listen.tls.is_none());
    assert_eq!(
        (config.cache.what, config.cache.memory),
        (CacheWhat::Reads, ByteSize(1 << 30))
    );
    let team = &config.teams[&TeamName::new("growth")];
    assert_eq!(
        team.login.password,
        Some(LoginPassword::Text(Secret::new("tiger".to_owned())))
    );
    let quota = Quota {
        concurrent_queries: Some(4),
        queue_length: Some(0),
        queue_wait: None,
        queries_per_minute: None,
        burst: None,
        query_time: Some(Duration::from_secs(90)),
    };
    assert_eq!(team.quota, quota);
    let ana = &config.users[&UserName::new("ana")];
    assert_eq!(
        ana.password,
        Some(Password::Plain(Secret::new("tiger".to_owned())))
    );
    assert_eq!(
        (ana.team.as_ref(), ana.admin),
        (Some(&TeamName::new("growth")), false)
    );
}

#[test]
fn a_redshift_has_defaults_of_its_own() {
    let text = MINIMAL.replace("databases", "kind = \"redshift\"\ndatabases");
    let config = read(&text);
    let backend = config.backends.values().next().unwrap();
    assert_eq!((backend.tls, backend.max_connections), (TlsMode::Require, 50));
    let rows = config.rows();
    let row = rows
        .iter()
        .find(|row| row.path == "backend.warehouse.max_connections")
        .unwrap();
    assert!(row.default, "{row:?}");
}

#[test]
fn rows_show_every_setting_and_no_secret() {
    let rows = read(MINIMAL).rows();
    let shown = |path: &str| {
        rows.iter()
            .find(|row| row.path == path)
            .map(|row| (row.value.as_str(), row.default))
    };
    assert_eq!(shown("listen.drain_timeout"), Some(("30s", true)));
    assert_eq!(shown("backend.warehouse.databases"), Some(("[\"dev\"]", false)));
    assert_eq!(
        shown("team.growth.quota.burst"),
        Some(("as many as `queries_per_minute`", true))
    );
    assert_eq!(shown("team.growth.login.password"), Some(("***", false)));
    assert_eq!(shown("user.ana.password"), Some(("*** (plain text)", false)));
    assert_eq!(shown("http"), Some(("no HTTP listener", true)));

    // a default that is not written as it would be shown makes a row look changed
    let written: Vec<&str> = rows
        .iter()
        .filter(|row| !row.default)
        .map(|row| row.path.as_str())
        .collect();
    assert_eq!(
        written,
        [
            "backend.warehouse.address",
            "backend.warehouse.databases",
            "backend.warehouse.control.user",
            "team.growth.backend",
            "team.growth.login.user",
            "team.growth.login.password",
            "user.ana.password",
            "user.ana.team",
        ]
    );
}

#[test]
fn printing_a_configuration_shows_no_secret() {
    let text = MINIMAL
        .replace("GROWTH_PASSWORD", "IS_hunter2")
        .replace("ANA_PASSWORD", "IS_hunter2");
    let config = read(&text);
    assert!(!format!("{config:?} {:?}", config.rows()).contains("hunter2"));
}

#[test]
fn a_reload_is_told_by_setting_and_by_whole_sections() {
    let ops = "\n[team.ops]\nbackend = \"warehouse\"\nlogin = { user = \"ops\" }\n";
    let tls = "\n[listen]\ntls = { certificate = \"a.crt\", key = \"a.key\" }\n";
    let lake = "\n[backend.lake]\naddress = \"/tmp\"\ndatabases = [\"l\"]\ncontrol = { user = \"t\" }\n";
    for (new, changes) in [
        (String::from(MINIMAL), &[] as &[&str]),
        (format!("{MINIMAL}\n[cache]\nttl = \"600s\"\n"), &[]),
        (
            format!("{MINIMAL}\n[cache]\nttl = \"5min\"\n"),
            &["cache.ttl: 10min -> 5min"],
        ),
        (
            format!("{MINIMAL}\n[listen]\naddress = \"[::]:5439\"\n"),
            &["listen.address: 127.0.0.1:5439 -> [::]:5439 (needs a restart)"],
        ),
        (format!("{MINIMAL}{ops}"), &["team.ops: added"]),
        (format!("{MINIMAL}{tls}"), &["listen.tls: added"]),
        (
            format!("{MINIMAL}{lake}"),
            &["backend.lake: added (needs a restart)"],
        ),
        (format!("{MINIMAL}\n[http]\n"), &["http: added (needs a restart)"]),
        (
            MINIMAL.replace("ANA_PASSWORD", "IS_hunter2"),
            &["user.ana.password: changed"],
        ),
        (
            MINIMAL
                .replace("ana]", "eve]")
                .replace("growth\", pass", "role\", pass"),
            &[
                "team.growth.login.user: growth -> role",
                "user.ana: removed",
                "user.eve: added",
            ],
        ),
    ] {
        assert_eq!(read(MINIMAL).diff(&read(&new)), changes, "{new}");
    }
}

#[test]
fn mistakes_are_sorted_by_line_and_a_mistake_makes_no_others() {
    let text = MINIMAL.replace("databases", "tls = \"verify_full\"\nca = \"ca.crt\"\ndatabases");
    let mistakes = parse(&format!("{text}\n[cache]\nttl = \"0s\"\nmemory = \"1\""), &Fixed).unwrap_err();
    let places: Vec<(usize, &str)> = mistakes
        .iter()
        .map(|mistake| (mistake.line, mistake.path.as_str()))
        .collect();
    assert_eq!(
        places,
        [
            (4, "backend.warehouse.tls"),
            (18, "cache.ttl"),
            (19, "cache.memory")
        ]
    );
}

#[test]
fn a_file_that_is_too_long_is_not_read() {
    let mistakes = parse(&"#".repeat(MAX_TEXT_BYTES + 1), &Fixed).unwrap_err();
    assert_eq!(
        mistakes.first().unwrap().to_string(),
        "1: the file is longer than 1048576 bytes"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is cut out of a configuration or put into it: an answer with a place in the file, and no panic.
    #[test]
    fn damaged_configurations_are_answered(from: usize, length in 0..40usize, put in any::<String>()) {
        let text = reference::example().replace("ANA_PASSWORD", "IS_hunter2");
        let mut letters: Vec<char> = text.chars().collect();
        let from = from % letters.len();
        let to = (from + length).min(letters.len());
        letters.splice(from..to, put.chars());
        let damaged: String = letters.into_iter().collect();
        for mistake in parse(&damaged, &Fixed).err().unwrap_or_default() {
            let lines = damaged.split('\n').count();
            assert!((1..=lines).contains(&mistake.line) && !mistake.message.is_empty(), "{mistake}");
        }
    }
}
