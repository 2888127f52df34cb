//! The console: what it shows, and what it does.

use crate::operations::{SCHEMA, cells, text};
use crate::stage::Stage;
use crate::support::frames::Frames;
use crate::support::gateway::{BEN, ROOT, Setup};

#[test]
fn the_console_shows_what_is_there() {
    let stage = Stage::with(SCHEMA, &Setup::new().quota("concurrent_queries = 3"));
    let mut console = stage.gateway.console();
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("BEGIN");
    ana.run("SELECT a FROM t");
    ben.run("LISTEN news");
    ben.run("SELECT count(*) FROM quiet");
    let clients = console.run("SHOW CLIENTS");
    assert_eq!(cells(&clients, "user", "ana", "state"), ["idle in transaction"]);
    assert_eq!(cells(&clients, "user", "ben", "pinned"), ["listen"]);
    assert_eq!(cells(&clients, "user", "root", "database"), ["tollgate"]);
    let servers = console.run("SHOW SERVERS;");
    assert_eq!(cells(&servers, "user", "growth", "state"), ["active", "active"]);
    let pids = cells(&servers, "user", "growth", "remote_pid");
    let mut superuser = stage.superuser();
    for pid in pids {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = 'growth' AND pid = {pid}");
        assert_eq!(superuser.value(&sql), "1");
    }
    assert_eq!(
        cells(&console.run("show pins"), "reason", "listen", "clients"),
        ["1"]
    );
    let teams = console.run("SHOW TEAMS");
    assert_eq!(cells(&teams, "team", "growth", "concurrent_queries"), ["3"]);
    assert_eq!(cells(&teams, "team", "growth", "clients"), ["2"]);
    assert_eq!(
        cells(&console.run("SHOW DATABASES"), "name", &stage.database, "catalog"),
        ["current"]
    );
    let pools = console.run("SHOW POOLS");
    assert_eq!(cells(&pools, "user", "growth", "sv_active"), ["2"]);
    let config = console.run("SHOW CONFIG");
    assert_eq!(
        cells(&config, "key", "team.growth.quota.concurrent_queries", "value"),
        ["3"]
    );
    assert!(!format!("{config:?}").contains("growth secret"));
    for command in [
        "SHOW HELP",
        "SHOW VERSION",
        "SHOW USERS",
        "SHOW CACHE",
        "SHOW LISTS",
    ] {
        assert!(!console.run(command).rows().is_empty(), "{command}");
        let reply = console.extended(command, &[], &[]);
        assert!(
            reply.error().is_none() && !reply.rows().is_empty(),
            "{command}: {reply:?}"
        );
    }
    let wrong = console.query("SHOW NOTHING");
    assert_eq!((wrong.sqlstate().as_str(), wrong.status()), ("42601", 'I'));
    // what drivers send of themselves
    for courtesy in [
        "SET extra_float_digits = 3",
        "BEGIN",
        "SELECT version()",
        "COMMIT",
        "DISCARD ALL",
    ] {
        assert!(console.query(courtesy).error().is_none(), "{courtesy}");
    }
    ana.run("COMMIT");
}

#[test]
fn psql_works_with_the_console() {
    let stage = Stage::new();
    let output = stage.gateway.psql_in(
        ROOT,
        "tollgate",
        "SHOW VERSION;\nSHOW POOLS;\nSHOW CLIENTS;\nRELOAD;\n",
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).starts_with("Tollgate"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn a_paused_backend_makes_requests_wait_and_hits_go_on() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let mut console = stage.gateway.console();
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("SELECT count(*) FROM quiet");
    assert_eq!(
        console.run("PAUSE warehouse").rows()[0][1].as_deref(),
        Some("yes")
    );
    ben.send(&Frames::new().query("SELECT a FROM t"));
    stage.gateway.await_waiting();
    assert_eq!(ana.value("SELECT count(*) FROM quiet"), "1");
    assert_eq!(ana.verdict(), "hit");
    console.run("RESUME");
    assert_eq!(ben.ready().value(), "1");
    assert_eq!(console.query("PAUSE nowhere").status(), 'I');
}

#[test]
fn an_administrator_can_end_a_session_and_make_answers_stale() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let mut console = stage.gateway.console();
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("SELECT count(*) FROM quiet");
    stage.direct().run("INSERT INTO quiet VALUES (2)");
    assert_eq!(
        ana.value("SELECT count(*) FROM quiet"),
        "1",
        "written past the gateway"
    );
    console.run("INVALIDATE t");
    assert_eq!(ana.value("SELECT count(*) FROM quiet"), "1");
    console.run("INVALIDATE public.quiet");
    assert_eq!(ana.value("SELECT count(*) FROM quiet"), "2");
    stage.direct().run("INSERT INTO quiet VALUES (2)");
    console.run("INVALIDATE");
    assert_eq!(ana.value("SELECT count(*) FROM quiet"), "3");
    // a running query, and an idle session
    let lock = stage.block("t");
    ben.send(&Frames::new().query("SELECT a FROM t"));
    stage.await_blocked(1);
    let clients = console.run("SHOW CLIENTS");
    for user in ["ben", "ana"] {
        let id = cells(&clients, "user", user, "id").swap_remove(0);
        console.run(&format!("KILL {id}"));
    }
    for wire in [&mut ben, &mut ana] {
        let reply = wire.until(0);
        assert!(
            reply.0.iter().any(|message| message.field('C') == "57P01"),
            "{reply:?}"
        );
    }
    stage.await_blocked(0);
    lock.release();
    assert!(console.query("KILL 999999").error().is_some());
}
