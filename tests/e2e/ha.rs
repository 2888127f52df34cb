//! High availability: a restart that nobody notices, limits on idle clients, servers that fail and others that step in.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::operations::cells;
use crate::stage::Stage;
use crate::support::Postgres;
use crate::support::frames::Frames;
use crate::support::gateway::{ANA, BEN, GROWTH, Gateway, Setup, add_roles};
use crate::support::http;
use crate::support::wait::{becomes, eventually};
use crate::support::wire::{Login, Wire};

const SCHEMA: &str = "CREATE TABLE t (a int); INSERT INTO t VALUES (1)";

/// A gateway whose sockets can be taken over by the path in the directory.
fn replaceable(patience: &str) -> (Setup, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("take-over.sock");
    let setup = Setup::new().listen(&format!(
        "take_over_socket = \"{}\"\ntake_over_patience = \"{patience}\"",
        path.display()
    ));
    (setup, directory)
}

/// The same gateway, which another process has taken over.
fn replaced(old: &Gateway) -> Gateway {
    let new = old.take_over();
    assert_eq!((new.address(), new.http()), (old.address(), old.http()));
    old.await_log("taken over by another process");
    new
}

#[test]
fn a_restart_under_load_refuses_nobody() {
    let (setup, _directory) = replaceable("5min");
    let stage = Stage::with(SCHEMA, &setup);
    let address = stage.gateway.address();
    let (done, rounds, scrapes) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let (newer, newest) = thread::scope(|scope| {
        let stage = &stage;
        let mut load = Vec::new();
        // clients that come and go
        for _ in 0..4 {
            load.push(scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let mut ana = Wire::login(address, &Login::new(ANA.0, ANA.1, &stage.database));
                    assert_eq!(ana.value("SELECT count(*) FROM t"), "1");
                    ana.send(&Frames::new().terminate());
                    assert!(ana.rest().is_empty(), "no farewell but the client's own");
                    rounds.fetch_add(1, Ordering::AcqRel);
                }
            }));
        }
        // clients that stay, and are in the midst of a transaction
        for _ in 0..2 {
            load.push(scope.spawn(|| {
                let mut ben = Wire::login(address, &Login::new(BEN.0, BEN.1, &stage.database));
                while !done.load(Ordering::Acquire) {
                    for sql in ["BEGIN", "SELECT a FROM t", "COMMIT"] {
                        ben.run(sql);
                    }
                    rounds.fetch_add(1, Ordering::AcqRel);
                }
            }));
        }
        load.push(scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                assert_eq!(http::get(stage.gateway.http(), "/livez").0, 200);
                scrapes.fetch_add(1, Ordering::AcqRel);
            }
        }));
        let more = |count: usize| {
            let (now, scraped) = (rounds.load(Ordering::Acquire), scrapes.load(Ordering::Acquire));
            eventually("the load goes on", || {
                let busy = load.iter().all(|thread| !thread.is_finished());
                assert!(busy, "a client met an error");
                (rounds.load(Ordering::Acquire) > now + count
                    && scrapes.load(Ordering::Acquire) > scraped + 2)
                    .then_some(())
            });
        };
        more(20);
        let newer = replaced(&stage.gateway);
        more(40);
        // and once more, while the first of the three still serves those who stayed
        let newest = replaced(&newer);
        more(40);
        done.store(true, Ordering::Release);
        for thread in load {
            thread.join().unwrap();
        }
        (newer, newest)
    });
    let mut stage = stage;
    assert!(stage.gateway.wait().success());
    drop(newer);
    newest.await_log("every process before this one has ended: answers are kept again");
    let mut ana = newest.session(ANA);
    eventually("answers are kept again", || {
        ana.run("SELECT count(*) FROM t");
        (ana.verdict() == "hit").then_some(())
    });
}

#[test]
fn no_answer_comes_from_memory_while_two_processes_write() {
    let (setup, _directory) = replaceable("5min");
    let stage = Stage::with(SCHEMA, &setup);
    let mut early = stage.ana();
    assert_eq!(early.value("SELECT count(*) FROM t"), "1");
    let new = replaced(&stage.gateway);
    let mut late = new.session(ANA);
    for count in 1..5 {
        for session in [&mut early, &mut late] {
            assert_eq!(session.value("SELECT count(*) FROM t"), count.to_string());
            let last = session.last();
            assert_eq!((last.0.as_str(), last.1.as_str()), ("bypass", "taking_over"));
        }
        let writer = if count % 2 == 0 { &mut early } else { &mut late };
        writer.run("INSERT INTO t VALUES (2)");
    }
    drop(early);
    // the old process has ended by itself, with nothing in doubt
    let mut stage = stage;
    assert!(stage.gateway.wait().success());
    eventually("answers are kept again", || {
        assert_eq!(late.value("SELECT count(*) FROM t"), "5");
        (late.verdict() == "hit").then_some(())
    });
}

#[test]
fn a_cancel_request_reaches_a_session_of_the_old_process() {
    let (setup, _directory) = replaceable("5min");
    let stage = Stage::with(SCHEMA, &setup);
    let lock = stage.block("t");
    let mut ana = stage.ana();
    let newer = replaced(&stage.gateway);
    let mut ben = newer.session(BEN);
    let newest = replaced(&newer);
    for session in [&mut ana, &mut ben] {
        session.send(&Frames::new().query("SELECT a FROM t"));
        stage.await_blocked(1);
        // by the newest, who accepts
        session.cancel();
        assert_eq!(session.ready().sqlstate(), "57014");
        stage.await_blocked(0);
    }
    lock.release();
    assert_eq!(ana.value("SELECT a FROM t"), "1");
    drop((ana, ben, newest));
}

#[test]
fn sessions_that_stay_too_long_after_a_take_over_are_told_to_go() {
    let (setup, _directory) = replaceable("0s");
    let stage = Stage::with(SCHEMA, &setup);
    let (mut idle, mut busy) = (stage.ana(), stage.ana());
    busy.run("BEGIN");
    let new = replaced(&stage.gateway);
    let reply = idle.until(b'Z');
    assert_eq!(reply.sqlstate(), "57P01");
    assert_eq!(busy.value("SELECT a FROM t"), "1");
    busy.run("COMMIT");
    assert_eq!(busy.until(b'Z').sqlstate(), "57P01");
    let mut stage = stage;
    assert!(stage.gateway.wait().success());
    assert_eq!(new.session(ANA).value("SELECT a FROM t"), "1");
}

#[test]
fn a_second_start_by_mistake_changes_nothing() {
    let (setup, directory) = replaceable("5min");
    let stage = Stage::with(SCHEMA, &setup);
    let mut ana = stage.ana();
    let path = directory.path().join("take-over.sock");
    // somebody who asks and goes away before it is ready
    for said in [&b"T\0\0"[..], b"X", b""] {
        use std::io::{Read as _, Write as _};
        let mut stranger = std::os::unix::net::UnixStream::connect(&path).unwrap();
        stranger.write_all(said).unwrap();
        if said.len() > 1 {
            let mut answer = [0; 3];
            stranger.read_exact(&mut answer).unwrap();
            assert_eq!(answer[0], b'S');
        }
    }
    // the same addresses, and nobody said --take-over
    let text = std::fs::read_to_string(stage.gateway.config()).unwrap();
    let port = format!("address = \"{}\"", stage.gateway.address());
    let other = directory.path().join("other.toml");
    std::fs::write(&other, text.replacen("address = \"127.0.0.1:0\"", &port, 1)).unwrap();
    let output = crate::support::gateway::program()
        .args(["serve", "--config"])
        .arg(&other)
        .envs(stage.gateway.environment())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(told.contains("in use") && told.contains("--take-over"), "{told}");
    assert_eq!(ana.value("SELECT a FROM t"), "1");
    assert_eq!(stage.ana().value("SELECT a FROM t"), "1");
    becomes(&"hit".to_owned(), || {
        ana.run("SELECT count(*) FROM t");
        ana.verdict()
    });
}

#[test]
fn clients_that_ask_for_nothing_are_sent_away() {
    let limits = "client_idle = \"400ms\"\nidle_in_transaction = \"200ms\"";
    let stage = Stage::with(SCHEMA, &Setup::new().connections(1).listen(limits));
    let mut idle = stage.ana();
    let reply = idle.until(b'Z');
    let error = reply.error().unwrap();
    assert_eq!(
        (error.field('S'), error.field('C'), error.field('M')),
        (
            "FATAL".to_owned(),
            "57P05".to_owned(),
            "terminating connection due to idle-session timeout".to_owned()
        )
    );
    let mut open = stage.ana();
    open.run("BEGIN; INSERT INTO t VALUES (2)");
    let reply = open.until(b'Z');
    let error = reply.error().unwrap();
    assert_eq!(
        (error.field('C'), error.field('M')),
        (
            "25P03".to_owned(),
            "terminating connection due to idle-in-transaction timeout".to_owned()
        )
    );
    // the only connection is back, and what was written is not there
    let mut busy = stage.ana();
    assert_eq!(busy.value("SELECT count(*) FROM t"), "1");
    // a query that runs is no idleness, and neither is an administrator who thinks
    let mut console = stage.gateway.console();
    assert_eq!(busy.value("SELECT 'done' FROM pg_sleep(1)"), "done");
    assert_eq!(busy.value("BEGIN; SELECT 'done' FROM pg_sleep(0.7)"), "done");
    assert!(console.run("SHOW VERSION").error().is_none());
}

#[test]
fn the_console_disconnects_and_kills_and_says_who_did_it() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let mut console = stage.gateway.console();
    let (mut idle, mut open) = (stage.ana(), stage.gateway.session(BEN));
    idle.run("SELECT a FROM t");
    open.run("BEGIN");
    open.run("SELECT a FROM t");
    console.run("DISCONNECT warehouse");
    assert_eq!(open.until(b'Z').sqlstate(), "57P01");
    assert_eq!(idle.value("SELECT a FROM t"), "1");
    console.run("KILL USER ana");
    assert_eq!(idle.until(b'Z').sqlstate(), "57P01");
    let mut ana = stage.ana();
    console.run("KILL warehouse");
    assert_eq!(ana.until(b'Z').sqlstate(), "57P01");
    // paused until RESUME
    let mut ana = stage.ana();
    ana.send(&Frames::new().query("SELECT a FROM t"));
    stage.gateway.await_waiting();
    console.run("RESUME");
    assert_eq!(ana.ready().value(), "1");
    console.run("RECONNECT");
    assert_eq!(ana.value("SELECT a FROM t"), "1");
    let process = Stage::process_of(&mut ana, "before");
    console.run("RECONNECT");
    assert_ne!(Stage::process_of(&mut ana, "after"), process);
    let line = stage.gateway.await_log("console command");
    assert_eq!(
        (
            &line["level"],
            &line["user"],
            &line["command"],
            &line["arguments"]
        ),
        (
            &"INFO".into(),
            &"root".into(),
            &"DISCONNECT".into(),
            &"warehouse".into()
        )
    );
    assert!(!console.query("KILL 4711").sqlstate().is_empty());
    let failed = |line: &String| line.contains("\"KILL\"") && line.contains("42704");
    eventually("the failed command is told", || {
        stage.gateway.log().iter().any(failed).then_some(())
    });
}

/// A server of a test's own, with the gateway's roles and a database of the role `growth` in which `schema` was run.
pub(crate) fn server(schema: &str) -> Postgres {
    let server = Postgres::start();
    add_roles(&server);
    server.add_database("dev", GROWTH.0);
    direct(&server).run(schema);
    server
}

/// A session of the role `growth`, past the gateway.
pub(crate) fn direct(server: &Postgres) -> Wire {
    Wire::login(server.address(), &Login::new(GROWTH.0, GROWTH.1, "dev"))
}

/// A gateway before `primary` that knows of the other servers, once all of them answer.
pub(crate) fn gateway_with(primary: &Postgres, setting: &str, others: &[&Postgres], more: &str) -> Gateway {
    let addresses: Vec<String> = others.iter().map(|server| server.address().to_string()).collect();
    let setup = Setup::new().backend(&format!(
        "{setting} = {addresses:?}\nhealth_interval = \"100ms\"\nreader_max_lag = \"0s\"\n{more}"
    ));
    let gateway = Gateway::start(primary, &["dev"], &setup);
    becomes_up(&gateway);
    gateway
}

pub(crate) fn becomes_up(gateway: &Gateway) {
    let mut console = gateway.console();
    eventually("every server answers", || {
        let states = cells(&console.run("SHOW ENDPOINTS"), "backend", "warehouse", "state");
        states.iter().all(|state| state == "up").then_some(())
    });
}

#[test]
fn readers_answer_what_only_reads_and_the_primary_everything_else() {
    let primary = server("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    // not a copy: the rows tell who answered
    let reader = server("CREATE TABLE t (a int); INSERT INTO t VALUES (2)");
    let gateway = gateway_with(&primary, "readers", &[&reader], "");
    gateway.expect_log("server down");
    let (mut ana, mut ben) = (gateway.session(ANA), gateway.session(BEN));
    for (sql, answer) in [
        ("SELECT a FROM t", "2"),
        ("SELECT a FROM t WHERE now() > '2020-01-01'", "2"),
        // it might write, or tell of the server
        ("SELECT a FROM t WHERE random() < 2", "1"),
        ("SELECT a FROM t WHERE current_user = 'growth'", "1"),
        ("SELECT a FROM t FOR UPDATE", "1"),
        ("BEGIN; SELECT a FROM t; COMMIT", "1"),
        // an answer that is to be kept comes from a server that is sure to have everything
        ("SELECT max(a) FROM t", "1"),
    ] {
        let reply = ana.run(sql);
        assert_eq!(reply.rows()[0][0].as_deref(), Some(answer), "{sql}");
    }
    assert_eq!(
        ana.extended("SELECT a FROM t WHERE a > $1", &[Some(b"0")], &[])
            .value(),
        "2"
    );
    ana.run("SET tollgate.cache = off");
    assert_eq!(ana.value("SELECT max(a) FROM t"), "2");
    ana.run("BEGIN READ ONLY");
    assert_eq!(ana.value("SELECT a FROM t"), "1");
    ana.run("COMMIT");
    assert_eq!(ana.value("SELECT a FROM t"), "2");
    // a session that has written reads what it wrote; others may go on
    ana.run("UPDATE t SET a = 3");
    assert_eq!(ana.value("SELECT a FROM t"), "3");
    assert_eq!(ben.value("SELECT a FROM t"), "2");
    // pinned sessions stay where what they have is
    ben.run("LISTEN news");
    assert_eq!(ben.value("SELECT a FROM t"), "3");
    let mut ben = gateway.session(BEN);
    assert_eq!(ben.value("SELECT a FROM t"), "2");
    // a query at a reader is cancelled there
    let mut locking = direct(&reader);
    locking.run("BEGIN; LOCK TABLE t");
    ben.send(&Frames::new().query("SELECT a FROM t"));
    eventually("the query waits at the reader", || {
        (reader.run("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == "1")
            .then_some(())
    });
    ben.cancel();
    assert_eq!(ben.ready().sqlstate(), "57014");
    drop(locking);
    assert_eq!(ben.value("SELECT a FROM t"), "2");
    // and when it is gone, nobody notices
    drop(reader);
    assert_eq!(ben.value("SELECT a FROM t"), "3");
    assert_eq!(gateway.session(BEN).value("SELECT a FROM t"), "3");
}

/// What a session sees of the last insert.
const NEWEST: &str = "SELECT a FROM t ORDER BY a DESC LIMIT 1";

#[test]
fn what_a_session_wrote_it_reads_and_what_lags_is_never_kept() {
    let primary = server("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let standby = Postgres::start_standby(&primary);
    let gateway = gateway_with(&primary, "readers", &[&standby], "");
    let (mut ana, mut ben) = (gateway.session(ANA), gateway.session(BEN));
    // an answer from a reader that has everything is kept
    eventually("the reader answers a query whose answer is kept", || {
        ana.run("SELECT count(*) FROM t");
        (ana.verdict() == "hit").then_some(())
    });
    standby.run("SELECT pg_wal_replay_pause()");
    eventually("the standby stands still", || {
        (standby.run("SELECT pg_get_wal_replay_pause_state()") == "paused").then_some(())
    });
    ana.run("INSERT INTO t VALUES (2)");
    for _ in 0..20 {
        assert_eq!(ana.value(NEWEST), "2", "its own write");
        assert_eq!(ben.value(NEWEST), "1", "the reader, as it was");
        // whoever asks, what is kept is what is written
        assert_eq!(ben.value("SELECT count(*) FROM t"), "2");
        assert_eq!(ana.value("SELECT count(*) FROM t"), "2");
    }
    standby.run("SELECT pg_wal_replay_resume()");
    becomes(&"2".to_owned(), || ben.value(NEWEST));
    // once the reader has it, ana reads there again: what is written past the gateway, while it stands still, she misses
    becomes(&"yes".to_owned(), || {
        standby.run("SELECT pg_wal_replay_pause()");
        eventually("the standby stands still", || {
            (standby.run("SELECT pg_get_wal_replay_pause_state()") == "paused").then_some(())
        });
        direct(&primary).run("INSERT INTO t SELECT max(a) + 1 FROM t");
        let newest = direct(&primary).value(NEWEST);
        let missed = ana.value(NEWEST) != newest;
        standby.run("SELECT pg_wal_replay_resume()");
        if missed { "yes".to_owned() } else { "no".to_owned() }
    });
    // a table that is new at the primary is not looked for at a reader that does not have it yet
    standby.run("SELECT pg_wal_replay_pause()");
    ana.run("CREATE TABLE fresh (a int)");
    eventually("the definitions are known", || {
        let mut console = gateway.console();
        (cells(&console.run("SHOW DATABASES"), "name", "dev", "catalog") == ["current"]).then_some(())
    });
    assert!(ben.run("SELECT a FROM fresh").rows().is_empty());
    standby.run("SELECT pg_wal_replay_resume()");
}

#[test]
fn another_server_becomes_the_primary() {
    let primary = server("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let standby = Postgres::start_standby(&primary);
    let gateway = gateway_with(&primary, "fallbacks", &[&standby], "");
    for warning in [
        "server down",
        "primary moved",
        "backend lost",
        "backend unreachable",
        "could not follow the catalog",
        "deadpool.postgres",
    ] {
        gateway.expect_log(warning);
    }
    let (mut idle, mut busy) = (gateway.session(ANA), gateway.session(BEN));
    assert_eq!(idle.value("SELECT a FROM t"), "1");
    busy.run("BEGIN; INSERT INTO t VALUES (2)");
    eventually("the standby has followed", || {
        let written = primary.run("SELECT pg_current_wal_flush_lsn()");
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        (standby.run(&sql) == "t").then_some(())
    });
    drop(primary);
    // what ran there is lost, and says so
    assert_eq!(busy.until(b'Z').error().unwrap().field('S'), "FATAL");
    // nobody takes writes: told at once
    let reply = idle.query("INSERT INTO t VALUES (3)");
    assert_eq!(reply.sqlstate(), "08006", "{reply:?}");
    assert!(!reply.error().unwrap().field('H').is_empty());
    standby.run("SELECT pg_promote()");
    eventually("the same session writes at the other server", || {
        let reply = idle.query("INSERT INTO t VALUES (4)");
        reply.error().is_none().then_some(())
    });
    assert_eq!(idle.value("SELECT a FROM t WHERE a > 1"), "4");
    eventually("the other server is told", || {
        let view = gateway.console().run("SHOW ENDPOINTS");
        (cells(&view, "role", "primary", "address") == [standby.address().to_string()]).then_some(())
    });
    becomes_up(&gateway);
    // a cancel request goes to where the query runs
    let mut locking = direct(&standby);
    locking.run("BEGIN; LOCK TABLE t");
    idle.send(&Frames::new().query("SELECT a FROM t"));
    eventually("the query waits", || {
        (standby.run("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == "1")
            .then_some(())
    });
    idle.cancel();
    assert_eq!(idle.ready().sqlstate(), "57014");
    locking.run("ROLLBACK");
    // answers are kept again, by the definitions of the other server
    eventually("answers are kept", || {
        assert_eq!(idle.value("SELECT count(*) FROM t"), "2");
        (idle.verdict() == "hit").then_some(())
    });
}
