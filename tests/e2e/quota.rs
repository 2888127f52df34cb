//! What a team may spend, and what it reads when it wants more.

use std::time::{Duration, Instant};

use crate::stage::{Stage, server};
use crate::support::frames::Frames;
use crate::support::gateway::{ANA, BEN, DASH, Setup};
use crate::support::wait::becomes;
use crate::support::wire::{Message, Wire};

const SCHEMA: &str = "CREATE TABLE t (a int); INSERT INTO t VALUES (1); CREATE TABLE quiet (a int); INSERT INTO quiet VALUES (1);
    GRANT ALL ON t, quiet TO bi";

fn blocked() -> Frames {
    Frames::new().query("SELECT a FROM t")
}

impl Stage {
    fn await_queued(&self, count: u32) {
        becomes(&u64::from(count), || {
            self.gateway.metric("tollgate_quota_queued{team=\"growth\"}")
        });
    }

    fn await_running(&self, count: u32) {
        becomes(&u64::from(count), || {
            self.gateway.metric("tollgate_quota_running{team=\"growth\"}")
        });
    }

    fn rejections(&self, reason: &str) -> u64 {
        self.gateway.metric(&format!(
            "tollgate_quota_rejections_total{{team=\"growth\",reason=\"{reason}\"}}"
        ))
    }
}

/// Code, message, detail and hint.
fn told(error: Option<&Message>) -> [String; 4] {
    let error = error.expect("an error");
    ['C', 'M', 'D', 'H'].map(|letter| error.field(letter))
}

#[test]
fn too_many_queries_in_a_minute_are_refused_and_the_session_goes_on() {
    let stage = Stage::with(SCHEMA, &Setup::new().quota("queries_per_minute = 60\nburst = 5"));
    let mut ana = stage.ana();
    let refused = (0..10)
        .map(|_| ana.query("SELECT a FROM t"))
        .find(|reply| reply.error().is_some())
        .expect("ten queries are more than five");
    let [code, message, detail, hint] = told(refused.error());
    assert_eq!(code, "53400");
    assert_eq!(
        message,
        "team \"growth\" is over its limit of 60 queries per minute"
    );
    assert_eq!(detail, "0 queries of the team are running and 0 are waiting.");
    assert_eq!(hint, "Try again in 1 s.");
    assert_eq!((refused.tags().as_str(), refused.status()), ("EZ", 'I'));
    assert!(stage.rejections("rate") >= 1);
    // the whole team is over it, the other team is not
    assert_eq!(
        stage
            .gateway
            .session(BEN)
            .extended("SELECT a FROM t", &[], &[])
            .sqlstate(),
        "53400"
    );
    assert_eq!(stage.gateway.session(DASH).value("SELECT a FROM t"), "1");
    // and it passes
    becomes(&String::new(), || ana.query("SELECT a FROM t").sqlstate());
}

#[test]
fn answers_from_memory_cost_nothing() {
    let stage = Stage::with(SCHEMA, &Setup::new().quota("queries_per_minute = 1\nburst = 3"));
    let mut ana = stage.ana();
    let sql = "SELECT count(*) FROM quiet";
    assert_eq!(ana.value(sql), "1");
    for _ in 0..50 {
        assert_eq!(ana.value(sql), "1");
    }
    assert_eq!(ana.verdict(), "hit");
    let refused = (0..5).any(|_| ana.query("SELECT a FROM t").sqlstate() == "53400");
    assert!(refused, "the rest of the burst is soon used up");
    assert_eq!(ana.value(sql), "1", "what is in memory is still free");
}

#[test]
fn a_transaction_that_is_open_is_let_finish() {
    let stage = Stage::with(SCHEMA, &Setup::new().quota("queries_per_minute = 1\nburst = 2"));
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("BEGIN");
    for _ in 0..5 {
        ana.run("INSERT INTO t VALUES (2)");
    }
    // what it uses is charged all the same
    assert_eq!(ben.query("SELECT a FROM t").sqlstate(), "53400");
    ana.run("ROLLBACK");
    assert_eq!(ana.query("SELECT a FROM t").sqlstate(), "53400");
}

#[test]
fn a_refusal_in_a_transaction_leaves_its_status_true() {
    let stage = Stage::with(
        SCHEMA,
        &Setup::new().quota("concurrent_queries = 1\nqueue_length = 0"),
    );
    let lock = stage.block("t");
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    let opened = ben.query("BEGIN");
    assert_eq!(opened.status(), 'T', "{opened:?}");
    // its place is given back just after the answer
    stage.await_running(0);
    ana.send(&blocked());
    stage.await_blocked(1);
    let reply = ben.query("SELECT a FROM quiet");
    match reply.sqlstate().as_str() {
        // a transaction that is under way may keep its place
        "" => assert_eq!(reply.status(), 'T'),
        "53400" => assert!(matches!(reply.status(), 'T' | 'E'), "{reply:?}"),
        other => panic!("{other}"),
    }
    lock.release();
    assert_eq!(ana.ready().value(), "1");
    assert_eq!(ben.query("ROLLBACK").status(), 'I');
    assert_eq!(ben.value("SELECT a FROM quiet"), "1");
}

#[test]
fn queries_over_the_limit_wait_and_run_first_come_first_served() {
    let stage = Stage::with(
        SCHEMA,
        &Setup::new().quota("concurrent_queries = 1\nqueue_length = 10"),
    );
    let lock = stage.block("t");
    let mut first = stage.ana();
    first.send(&blocked());
    stage.await_blocked(1);
    let mut others: Vec<Wire> = Vec::new();
    for place in 1..=4 {
        let mut wire = stage.gateway.session([ANA, BEN][place as usize % 2]);
        wire.send(&Frames::new().query(&format!("INSERT INTO quiet VALUES (100 + {place})")));
        stage.await_queued(place);
        others.push(wire);
    }
    stage.await_running(1);
    stage.await_blocked(1);
    // the other team has places of its own
    let mut dash = stage.gateway.session(DASH);
    assert_eq!(dash.value("SELECT max(a) FROM quiet"), "1");
    lock.release();
    assert_eq!(first.ready().value(), "1");
    for wire in &mut others {
        assert_eq!(wire.ready().completions(), ["INSERT 0 1"]);
    }
    // one after the other, in the order they came
    assert_eq!(
        stage
            .direct()
            .value("SELECT string_agg(a::text, ' ' ORDER BY ctid) FROM quiet WHERE a > 100"),
        "101 102 103 104"
    );
    stage.await_queued(0);
    stage.await_running(0);
}

#[test]
fn a_full_queue_refuses() {
    let stage = Stage::with(
        SCHEMA,
        &Setup::new().quota("concurrent_queries = 1\nqueue_length = 1"),
    );
    let lock = stage.block("t");
    let (mut one, mut two, mut three) = (stage.ana(), stage.ana(), stage.gateway.session(BEN));
    one.send(&blocked());
    stage.await_blocked(1);
    two.send(&blocked());
    stage.await_queued(1);
    let reply = three.query("SELECT a FROM t");
    let [code, message, detail, hint] = told(reply.error());
    assert_eq!(code, "53400");
    assert_eq!(
        message,
        "team \"growth\" is over its limit of 1 concurrent query and 1 waiting"
    );
    assert_eq!(detail, "1 query of the team is running and 1 is waiting.");
    assert!(hint.starts_with("Try again when"), "{hint}");
    assert_eq!(stage.rejections("queue_full"), 1);
    lock.release();
    assert_eq!(one.ready().value(), "1");
    assert_eq!(two.ready().value(), "1");
    assert_eq!(three.value("SELECT a FROM t"), "1");
}

#[test]
fn who_waits_too_long_is_refused() {
    let stage = Stage::with(
        SCHEMA,
        &Setup::new().quota("concurrent_queries = 1\nqueue_length = 5\nqueue_wait = \"300ms\""),
    );
    let lock = stage.block("t");
    let (mut one, mut two) = (stage.ana(), stage.gateway.session(BEN));
    one.send(&blocked());
    stage.await_blocked(1);
    let began = Instant::now();
    let reply = two.query("SELECT a FROM t");
    let [code, message, ..] = told(reply.error());
    assert_eq!(code, "53400");
    assert_eq!(
        message,
        "no place among the 1 concurrent query of team \"growth\" became free within its limit of 300ms"
    );
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(stage.rejections("queue_wait"), 1);
    stage.await_queued(0);
    lock.release();
    assert_eq!(one.ready().value(), "1");
    assert_eq!(two.value("SELECT a FROM t"), "1");
}

#[test]
fn who_leaves_or_cancels_in_the_queue_frees_its_place() {
    let stage = Stage::with(
        SCHEMA,
        &Setup::new().quota("concurrent_queries = 1\nqueue_length = 5"),
    );
    let lock = stage.block("t");
    let (mut one, mut two, mut three) = (stage.ana(), stage.ana(), stage.gateway.session(BEN));
    one.send(&blocked());
    stage.await_blocked(1);
    two.send(&blocked());
    three.send(&blocked());
    stage.await_queued(2);
    drop(two);
    stage.await_queued(1);
    three.cancel();
    assert_eq!(three.ready().sqlstate(), "57014");
    stage.await_queued(0);
    // whoever holds the place frees it, too
    drop(one);
    stage.await_running(0);
    lock.release();
    assert_eq!(three.value("SELECT a FROM t"), "1");
}

#[test]
fn a_query_that_runs_too_long_is_cancelled_with_words_of_the_gateway() {
    let stage = Stage::with(SCHEMA, &Setup::new().quota("query_time = \"500ms\""));
    let lock = stage.block("t");
    let mut ana = stage.ana();
    for query in [
        blocked(),
        Frames::new().unnamed("SELECT a FROM t").sync(),
        Frames::new().query("SELECT count(*) FROM t"),
    ] {
        let began = Instant::now();
        let reply = ana.ask(&query);
        let [code, message, _, hint] = told(reply.error());
        assert_eq!(code, "57014");
        assert_eq!(
            message,
            "query cancelled after the time limit of 500ms of team \"growth\""
        );
        assert!(hint.contains("query_time"), "{hint}");
        assert_eq!(reply.status(), 'I');
        assert!(began.elapsed() >= Duration::from_millis(500));
        stage.await_blocked(0);
    }
    assert_eq!(stage.rejections("query_time"), 3);
    // a cancel of the user's own keeps the server's words
    let mut ben = stage.gateway.session(DASH);
    ben.send(&blocked());
    stage.await_blocked(1);
    ben.cancel();
    assert_eq!(
        told(ben.ready().error())[1],
        "canceling statement due to user request"
    );
    lock.release();
    assert_eq!(ana.value("SELECT a FROM t"), "1");
}

#[test]
fn a_query_in_a_transaction_that_runs_too_long_fails_the_transaction() {
    let stage = Stage::with(SCHEMA, &Setup::new().quota("query_time = \"300ms\""));
    let lock = stage.block("t");
    let mut ana = stage.ana();
    ana.run("BEGIN");
    let reply = ana.ask(&blocked());
    assert_eq!((reply.sqlstate().as_str(), reply.status()), ("57014", 'E'));
    ana.run("ROLLBACK");
    lock.release();
    assert_eq!(ana.value("SELECT a FROM t"), "1");
}

#[test]
fn an_idle_transaction_is_not_a_long_query() {
    let stage = Stage::with(
        SCHEMA,
        &Setup::new().quota("query_time = \"300ms\"\nconcurrent_queries = 1"),
    );
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("BEGIN");
    ana.run("SELECT a FROM t");
    // while it thinks, others of its team get their turn
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(500) {
        assert_eq!(ben.value("SELECT a FROM t"), "1");
    }
    assert_eq!(ana.value("SELECT a FROM t"), "1");
    ana.run("COMMIT");
}

#[test]
fn a_reload_changes_the_limits_of_sessions_that_are_there() {
    let setup = Setup::new().quota("concurrent_queries = 1\nqueue_length = 0");
    let stage = Stage::with(SCHEMA, &setup);
    let lock = stage.block("t");
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.send(&blocked());
    stage.await_blocked(1);
    assert_eq!(ben.query("SELECT a FROM t").sqlstate(), "53400");
    stage.gateway.reload(
        server(),
        &Setup::new().quota("concurrent_queries = 2\nqueue_length = 0"),
    );
    ben.send(&blocked());
    stage.await_blocked(2);
    assert_eq!(stage.ana().query("SELECT a FROM t").sqlstate(), "53400");
    lock.release();
    assert_eq!(ana.ready().value(), "1");
    assert_eq!(ben.ready().value(), "1");
}
