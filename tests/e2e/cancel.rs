//! A query ends when its user wants it, when its user is gone, and when the server loses it; others do not notice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::stage::Stage;
use crate::support::frames::{self, Frames};
use crate::support::gateway::{ANA, BEN, Setup};
use crate::support::wire::Wire;

const SCHEMA: &str = "CREATE TABLE t (a int); INSERT INTO t VALUES (1); CREATE TABLE u (a int)";

fn blocked_query() -> Frames {
    Frames::new().query("SELECT a FROM t")
}

#[test]
fn a_cancel_request_ends_the_query_that_was_meant() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let lock = stage.block("t");
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.send(&blocked_query());
    ben.send(&blocked_query());
    stage.await_blocked(2);
    ana.cancel();
    let reply = ana.ready();
    assert_eq!((reply.sqlstate().as_str(), reply.status()), ("57014", 'I'));
    assert_eq!(
        reply.error().unwrap().field('M'),
        "canceling statement due to user request"
    );
    stage.await_blocked(1);
    lock.release();
    assert_eq!(ben.ready().value(), "1");
    assert_eq!(ana.value("SELECT a FROM t"), "1");
}

#[test]
fn a_cancel_request_ends_an_extended_query_and_the_batch() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let lock = stage.block("t");
    let mut ana = stage.ana();
    ana.send(
        &Frames::new()
            .unnamed("SELECT a FROM t")
            .bind("", "", &[], &[], &[])
            .execute("", 0)
            .sync(),
    );
    stage.await_blocked(1);
    ana.cancel();
    let reply = ana.ready();
    // the Parse waits already
    assert_eq!(
        (reply.sqlstate().as_str(), reply.tags().as_str()),
        ("57014", "EZ")
    );
    lock.release();
    assert_eq!(ana.value("SELECT a FROM t"), "1");
}

#[test]
fn a_cancel_request_in_a_transaction_fails_the_transaction_only() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let lock = stage.block("t");
    let mut ana = stage.ana();
    ana.run("BEGIN");
    ana.send(&blocked_query());
    stage.await_blocked(1);
    ana.cancel();
    let reply = ana.ready();
    assert_eq!((reply.sqlstate().as_str(), reply.status()), ("57014", 'E'));
    ana.run("ROLLBACK");
    lock.release();
    assert_eq!(ana.value("SELECT a FROM t"), "1");
}

#[test]
fn a_cancel_request_of_an_idle_session_harms_nobody() {
    let stage = Stage::with(SCHEMA, &Setup::new().connections(1));
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("SELECT 1");
    // the connection that ana has used now works for ben
    let lock = stage.block("t");
    ben.send(&blocked_query());
    stage.await_blocked(1);
    ana.cancel();
    ana.cancel();
    stage.await_blocked(1);
    lock.release();
    assert_eq!(ben.ready().value(), "1");
    assert_eq!(ana.value("SELECT 1"), "1");
}

#[test]
fn a_wrong_key_cancels_nothing() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let lock = stage.block("t");
    let mut ana = stage.ana();
    ana.send(&blocked_query());
    stage.await_blocked(1);
    let mut wrong = ana.greeting.key.clone();
    *wrong.last_mut().unwrap() ^= 1;
    for key in [wrong, ana.greeting.key[..4].to_vec(), [0; 300].to_vec()] {
        let mut other = Wire::connect(stage.gateway.address());
        other.send(&frames::cancel(&key));
        drop(other.rest());
    }
    stage.await_blocked(1);
    lock.release();
    assert_eq!(ana.ready().value(), "1");
}

#[test]
fn a_query_that_waits_for_a_connection_can_be_cancelled() {
    let stage = Stage::with(SCHEMA, &Setup::new().connections(1));
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("BEGIN; SELECT 1");
    ben.send(&Frames::new().query("SELECT 'waits'"));
    stage.gateway.await_waiting();
    ben.cancel();
    let reply = ben.ready();
    assert_eq!((reply.sqlstate().as_str(), reply.status()), ("57014", 'I'));
    ana.run("COMMIT");
    assert_eq!(ben.value("SELECT 1"), "1");
}

#[test]
fn trap_08_cancel_requests_without_end_never_hit_another_session() {
    let stage = Stage::with(SCHEMA, &Setup::new().connections(1));
    let done = AtomicBool::new(false);
    let mut cancelled = 0;
    thread::scope(|scope| {
        let mut ana = stage.ana();
        let key = ana.greeting.key.clone();
        let (gateway, done) = (&stage.gateway, &done);
        let storm = scope.spawn(move || {
            while !done.load(Ordering::Acquire) {
                let mut other = Wire::connect(gateway.address());
                other.send(&frames::cancel(&key));
                other.rest();
            }
        });
        let other = scope.spawn(move || {
            let mut ben = gateway.session(BEN);
            while !done.load(Ordering::Acquire) {
                let reply = ben.query("SELECT count(*) FROM generate_series(1, 1000)");
                assert!(reply.error().is_none(), "ben cancelled nothing: {reply:?}");
            }
        });
        for _ in 0..150 {
            let reply = ana.query("SELECT count(*) FROM generate_series(1, 20000)");
            match reply.sqlstate().as_str() {
                "" => {}
                "57014" => cancelled += 1,
                other => panic!("{other}: {reply:?}"),
            }
            assert_eq!(reply.status(), 'I');
        }
        done.store(true, Ordering::Release);
        storm.join().unwrap();
        other.join().unwrap();
    });
    eprintln!("{cancelled} of 150 queries were cancelled");
}

#[test]
fn trap_09_a_client_that_goes_away_has_its_query_cancelled() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let lock = stage.block("t");
    for query in [
        blocked_query(),
        Frames::new().unnamed("SELECT a FROM t").sync(),
        // an aggregate, whose answer would be kept
        Frames::new().query("SELECT count(*) FROM t"),
        Frames::new().query("BEGIN; SELECT a FROM t"),
    ] {
        let mut ana = stage.ana();
        ana.send(&query);
        stage.await_blocked(1);
        drop(ana);
        stage.await_blocked(0);
        stage.await_activity("state IN ('active', 'idle in transaction') AND backend_type = 'client backend' AND usename = 'growth'", 0);
    }
    lock.release();
    assert_eq!(stage.ana().value("SELECT a FROM t"), "1");
}

#[test]
fn a_client_that_goes_away_while_rows_come_has_its_query_stopped() {
    let stage = Stage::with(SCHEMA, &Setup::new().connections(1));
    let mut ana = stage.ana();
    ana.send(&Frames::new().query("SELECT generate_series(1, 100000000), repeat('x', 1000)"));
    ana.until(b'D');
    drop(ana);
    stage.await_activity("state = 'active' AND usename = 'growth'", 0);
    assert_eq!(stage.ana().value("SELECT 1"), "1");
}

#[test]
fn a_killed_backend_is_a_clean_error_and_others_go_on() {
    let stage = Stage::with(SCHEMA, &Setup::new().connections(3));
    stage.gateway.expect_log("backend lost");
    let lock = stage.block("t");
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.send(&blocked_query());
    stage.await_blocked(1);
    ben.run("BEGIN");
    stage.superuser().run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'",
    );
    let reply = ana.until(b'Z');
    let error = reply.error().unwrap();
    assert_eq!(error.field('C'), "57P01", "{reply:?}");
    assert_eq!(error.field('S'), "FATAL");
    assert_eq!(ben.value("SELECT 1"), "1");
    ben.run("COMMIT");
    lock.release();
    assert_eq!(stage.ana().value("SELECT a FROM t"), "1");
}

#[test]
fn idle_connections_that_the_server_closed_are_not_used() {
    let stage = Stage::with(SCHEMA, &Setup::new().connections(4));
    let mut sessions = [stage.ana(), stage.ana(), stage.gateway.session(BEN)];
    for round in 0..3 {
        for session in &mut sessions {
            session.run("BEGIN");
        }
        for session in &mut sessions {
            session.run("COMMIT");
        }
        stage.superuser().run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND usename = 'growth'",
        );
        stage.await_activity("usename = 'growth'", 0);
        for session in &mut sessions {
            assert_eq!(session.value("SELECT 1"), "1", "round {round}");
        }
    }
}

#[test]
fn a_session_whose_transaction_lost_its_backend_is_told_and_ended() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    stage.gateway.expect_log("backend lost");
    let mut ana = stage.ana();
    ana.run("BEGIN; INSERT INTO t VALUES (2)");
    stage.superuser().run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND state = 'idle in transaction'",
    );
    let reply = ana.until(b'Z');
    assert_eq!(reply.error().unwrap().field('S'), "FATAL", "{reply:?}");
    assert_eq!(stage.gateway.session(ANA).value("SELECT count(*) FROM t"), "1");
}
