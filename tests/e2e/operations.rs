//! What an administrator does: check, start, watch, reload, end.

use crate::stage::{Stage, server};
use crate::support::frames::Frames;
use crate::support::gateway::{ANA, BEN, Setup, free_address, program};
use crate::support::http;
use crate::support::wait::{becomes, eventually};
use crate::support::wire::{Login, Reply, Wire};
use nix::sys::signal::Signal;
use std::process::{Command, Output};

pub(crate) const SCHEMA: &str = "CREATE TABLE t (a int); INSERT INTO t VALUES (1); CREATE TABLE quiet (a int); INSERT INTO quiet VALUES (1)";

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(command: &mut Command) -> Output {
    command.output().expect("the program runs")
}

/// The value in column `column` of the rows whose column `key` is `value`.
pub(crate) fn cells(reply: &Reply, key: &str, value: &str, column: &str) -> Vec<String> {
    let description = reply
        .0
        .iter()
        .find(|message| message.tag == b'T')
        .expect("a table");
    let names = crate::script::columns(&description.body);
    let place = |name: &str| {
        names
            .iter()
            .position(|found| found == name)
            .unwrap_or_else(|| panic!("no column {name} in {names:?}"))
    };
    let (key, column) = (place(key), place(column));
    reply
        .rows()
        .into_iter()
        .filter(|row| row[key].as_deref() == Some(value))
        .map(|row| row[column].clone().unwrap_or_default())
        .collect()
}

#[test]
fn a_wrong_config_is_told_whole_and_starts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.toml");
    std::fs::write(
        &file,
        "[listen]\nadress = \"127.0.0.1:5439\"\nlogin_timeout = \"15\"\n[backend.w]\naddress = \"127.0.0.1:1\"\n",
    )
    .unwrap();
    for verb in ["check", "serve"] {
        let output = run(program().args([verb, "--config"]).arg(&file));
        assert_eq!(output.status.code(), Some(1), "{verb}");
        let said = text(&output.stderr);
        for part in [
            "wrong.toml:2:",
            "address",
            "wrong.toml:3:",
            "15s",
            "databases",
            "control",
        ] {
            assert!(said.contains(part), "{verb}: {part} is not in\n{said}");
        }
    }
    let missing = directory.path().join("missing.toml");
    for verb in ["check", "serve"] {
        let output = run(program().args([verb, "--config"]).arg(&missing));
        assert_eq!(output.status.code(), Some(1), "{verb}");
        assert!(text(&output.stderr).contains("missing.toml"));
    }
}

#[test]
fn the_config_of_a_running_gateway_is_fine() {
    let stage = Stage::new();
    let output = run(program()
        .args(["check", "--config"])
        .arg(stage.gateway.config())
        .envs(stage.gateway.environment()));
    assert!(output.status.success(), "{}", text(&output.stderr));
    // without the passwords in the environment it says which are missing
    let output = run(program().args(["check", "--config"]).arg(stage.gateway.config()));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("ANA_PASSWORD"));
}

#[test]
fn a_second_gateway_at_the_same_address_says_so() {
    let stage = Stage::new();
    for (from, taken) in [
        ("127.0.0.1:0", stage.gateway.address()),
        (&*stage.gateway.http().to_string(), stage.gateway.http()),
    ] {
        let config = std::fs::read_to_string(stage.gateway.config()).unwrap();
        let config = if taken == stage.gateway.http() {
            config
        } else {
            config
                .replacen(from, &taken.to_string(), 1)
                .replace(&stage.gateway.http().to_string(), &free_address().to_string())
        };
        let file = stage.gateway.directory().join("second.toml");
        std::fs::write(&file, config).unwrap();
        let output = run(program()
            .args(["serve", "--config"])
            .arg(&file)
            .envs(stage.gateway.environment()));
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains(&taken.to_string()), "{said}");
        assert!(said.contains("in use"), "{said}");
    }
}

#[test]
fn health_and_metrics_are_served() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let mut ana = stage.ana();
    ana.run("SELECT a FROM t");
    assert_eq!(ana.query("SELECT nonsense").sqlstate(), "42703");
    let http = stage.gateway.http();
    assert_eq!(http::get(http, "/livez"), (200, "alive\n".to_owned()));
    assert_eq!(http::get(http, "/readyz").0, 200);
    assert_eq!(http::get(http, "/nothing").0, 404);
    // a request is counted just after its answer
    for (series, count) in [
        (
            "tollgate_requests_total{team=\"growth\",kind=\"read\",outcome=\"completed\"}",
            1,
        ),
        (
            "tollgate_requests_total{team=\"growth\",kind=\"read\",outcome=\"failed\"}",
            1,
        ),
        (
            "tollgate_errors_total{sqlstate_class=\"42\",source=\"server\"}",
            1,
        ),
        ("tollgate_logins_total{outcome=\"accepted\"}", 1),
        ("tollgate_rows_total{team=\"growth\"}", 1),
        ("tollgate_pool_connections_max{backend=\"warehouse\"}", 20),
    ] {
        becomes(&(series, count), || (series, stage.gateway.metric(series)));
    }
    let (status, metrics) = http::get(http, "/metrics");
    assert_eq!(status, 200);
    assert!(
        metrics.contains("# TYPE tollgate_requests_total counter")
            || metrics.contains("# TYPE tollgate_requests counter")
    );
    assert!(!metrics.contains("nonsense"));
}

#[test]
fn nothing_of_a_query_or_a_password_is_in_the_log() {
    let setup = Setup::new().more("").log_level("info");
    let stage = Stage::with(SCHEMA, &setup);
    let mut ana = stage.ana();
    ana.query("SELECT 'a secret literal' FROM nowhere");
    ana.extended("SELECT $1::text", &[Some(b"a secret parameter")], &[]);
    ana.query("SELEKT 'a secret literal'");
    drop(Wire::try_login(
        stage.gateway.address(),
        &Login::new(ANA.0, "a secret password", &stage.database),
    ));
    drop(Wire::try_login(
        stage.gateway.address(),
        &Login::new("a\nforged ERROR line", "x", &stage.database),
    ));
    stage.gateway.await_log("login refused");
    for line in stage.gateway.log() {
        assert!(!line.contains("secret"), "{line}");
        assert!(line.starts_with('{'), "{line}");
    }
}

#[test]
fn a_reload_applies_what_can_be_applied_and_a_bad_file_changes_nothing() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let mut ana = stage.ana();
    let login = Login::new("carl", "carl", &stage.database);
    let with_carl = Setup::new()
        .more("[user.carl]\nteam = \"bi\"\npassword = { env = \"ANA_PASSWORD\" }")
        .cache("what = \"off\"");
    let carl = Login {
        password: "ana",
        ..login
    };
    assert!(Wire::try_login(stage.gateway.address(), &carl).is_err());
    stage.gateway.reload(server(), &with_carl);
    let mut session = Wire::login(stage.gateway.address(), &carl);
    assert_eq!(session.value("SELECT current_user"), "bi");
    ana.run("SELECT count(*) FROM quiet");
    assert_eq!(ana.last().1, "cache_off");
    // a bad file: nothing changes, the log and the console say why
    stage.gateway.expect_log("config rejected");
    stage.gateway.write_file("[listen]\nadress = 1\n");
    stage.gateway.signal(Signal::SIGHUP);
    becomes(&1, || {
        stage
            .gateway
            .metric("tollgate_config_reloads_total{outcome=\"rejected\"}")
    });
    let mut console = stage.gateway.console();
    let reply = console.query("RELOAD");
    let error = reply.error().expect("a bad file is an error");
    assert!(error.field('D').contains("adress"), "{error:?}");
    assert_eq!(reply.status(), 'I');
    assert_eq!(Wire::login(stage.gateway.address(), &carl).value("SELECT 1"), "1");
    // a user who is gone cannot come again, and the cache is on again
    stage.gateway.write_config(server(), &Setup::new());
    let reply = console.run("RELOAD");
    assert!(
        reply
            .rows()
            .iter()
            .any(|row| row[0].as_deref().is_some_and(|name| name.contains("carl"))),
        "{reply:?}"
    );
    assert!(Wire::try_login(stage.gateway.address(), &carl).is_err());
    ana.run("SELECT count(*) FROM quiet");
    assert_eq!(ana.verdict(), "miss");
    // what takes a restart says so
    stage
        .gateway
        .write_config(server(), &Setup::new().listen("workers = 7"));
    let reply = console.run("RELOAD");
    assert_eq!(
        cells(&reply, "setting", "listen.workers", "applied"),
        ["after a restart"]
    );
}

#[test]
fn sigterm_lets_running_queries_finish_and_sends_idle_clients_away() {
    let mut stage = Stage::with(SCHEMA, &Setup::new());
    let lock = stage.block("t");
    let (mut busy, mut idle, mut open) = (stage.ana(), stage.gateway.session(BEN), stage.ana());
    let mut console = stage.gateway.console();
    busy.send(&Frames::new().query("SELECT a FROM t"));
    open.run("BEGIN");
    open.run("INSERT INTO quiet VALUES (2)");
    stage.await_blocked(1);
    stage.gateway.signal(Signal::SIGTERM);
    for wire in [&mut idle, &mut console] {
        let reply = wire.until(0);
        let error = reply.error().expect("a farewell");
        assert_eq!(
            (error.field('C').as_str(), error.field('S').as_str()),
            ("57P01", "FATAL")
        );
    }
    assert_eq!(http::get(stage.gateway.http(), "/readyz").0, 503);
    assert_eq!(http::get(stage.gateway.http(), "/livez").0, 200);
    assert!(stage.gateway.ended().is_none(), "a query is running");
    // nobody gets in any more
    let login = Login::new(ANA.0, ANA.1, &stage.database);
    let refused = std::panic::catch_unwind(|| Wire::try_login(stage.gateway.address(), &login).is_err());
    assert!(refused.unwrap_or(true));
    // a transaction may be ended
    open.run("INSERT INTO quiet VALUES (3)");
    assert!(open.query("COMMIT").error().is_none());
    let last = open.until(0);
    assert_eq!(
        last.error().map(|error| error.field('C')).as_deref(),
        Some("57P01")
    );
    lock.release();
    assert_eq!(busy.ready().value(), "1");
    let last = busy.until(0);
    assert_eq!(
        last.error().map(|error| error.field('C')).as_deref(),
        Some("57P01")
    );
    let status = stage.gateway.wait();
    assert_eq!(status.code(), Some(0));
    assert_eq!(stage.direct().value("SELECT count(*) FROM quiet"), "3");
}

#[test]
fn sigterm_does_not_wait_for_ever() {
    let mut stage = Stage::with(SCHEMA, &Setup::new().listen("drain_timeout = \"300ms\""));
    let lock = stage.block("t");
    let mut busy = stage.ana();
    busy.send(&Frames::new().query("SELECT a FROM t"));
    stage.await_blocked(1);
    stage.gateway.signal(Signal::SIGTERM);
    let reply = busy.until(0);
    assert!(
        reply.0.iter().any(|message| message.field('C') == "57P01"),
        "{reply:?}"
    );
    assert_eq!(stage.gateway.wait().code(), Some(0));
    stage.await_blocked(0);
    lock.release();
}

#[test]
fn a_gateway_that_is_killed_leaves_no_query_behind() {
    let mut stage = Stage::with(SCHEMA, &Setup::new());
    let mut ana = stage.ana();
    ana.run("BEGIN");
    ana.run("INSERT INTO t VALUES (2)");
    stage.gateway.kill();
    stage.await_activity("usename IN ('growth', 'tollgate_control')", 0);
    assert_eq!(stage.direct().value("SELECT count(*) FROM t"), "1");
}

#[test]
fn a_backend_that_is_down_is_told_to_clients_and_comes_back() {
    let address = free_address();
    let stage = Stage::new();
    drop(stage);
    let database = crate::stage::database(SCHEMA);
    // nothing listens there yet
    let config = Setup::new().backend_address(address);
    let gateway = crate::support::gateway::Gateway::start_unready(server(), &[&database], &config);
    gateway.expect_log("unreachable");
    gateway.expect_log("catalog");
    assert_eq!(http::get(gateway.http(), "/livez").0, 200);
    eventually("the gateway is not ready", || {
        (http::get(gateway.http(), "/readyz").0 == 503).then_some(())
    });
    let error =
        Wire::try_login(gateway.address(), &Login::new(ANA.0, ANA.1, &database)).expect_err("no backend");
    assert_eq!(error.field('S'), "FATAL");
    assert!(error.field('C').starts_with("08"), "{error:?}");
    assert!(!error.field('M').contains("secret"), "{error:?}");
    // the console works all the same
    let mut console = gateway.console();
    assert!(!console.run("SHOW DATABASES").rows().is_empty());
}
