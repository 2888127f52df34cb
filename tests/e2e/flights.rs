//! One run for many who ask the same at the same time.

use crate::cache::SCHEMA;
use crate::stage::Stage;
use crate::support::frames::Frames;
use crate::support::gateway::{ANA, BEN, Setup};
use crate::support::wait::becomes;
use crate::support::wire::Wire;

#[test]
fn one_run_answers_all_who_ask_at_the_same_time() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let sql = "SELECT count(*) FROM quiet";
    let lock = stage.block("quiet");
    let mut sessions: Vec<Wire> = (0..8)
        .map(|number| stage.gateway.session([ANA, BEN][number % 2]))
        .collect();
    for wire in &mut sessions {
        wire.send(&Frames::new().query(sql));
    }
    stage.await_blocked(1);
    becomes(&8, || {
        ["active", "waiting"]
            .iter()
            .map(|state| {
                stage
                    .gateway
                    .metric(&format!("tollgate_clients{{state=\"{state}\"}}"))
            })
            .sum::<u64>()
    });
    stage.await_blocked(1);
    lock.release();
    let mut verdicts = Vec::new();
    for wire in &mut sessions {
        assert_eq!(wire.ready().value(), "1");
        verdicts.push(wire.verdict());
    }
    verdicts.sort();
    let mut expected = vec!["follow".to_owned(); 7];
    expected.push("miss".to_owned());
    assert_eq!(verdicts, expected);
}

#[test]
fn those_who_follow_get_their_answer_when_the_first_one_gives_up() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    for leave in ["cancel", "vanish", "be killed"] {
        if leave == "be killed" {
            stage.gateway.expect_log("backend lost");
        }
        let lock = stage.block("quiet");
        let sql = Frames::new().query("SELECT count(*) FROM quiet");
        let mut leader = stage.ana();
        leader.send(&sql);
        stage.await_blocked(1);
        let mut followers: Vec<Wire> = (0..3).map(|_| stage.gateway.session(BEN)).collect();
        for wire in &mut followers {
            wire.send(&sql);
        }
        becomes(&3, || stage.gateway.metric("tollgate_clients{state=\"waiting\"}"));
        match leave {
            "cancel" => {
                leader.cancel();
                assert_eq!(leader.ready().sqlstate(), "57014");
            }
            "vanish" => drop(leader),
            _ => {
                stage.superuser().run(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock'",
                );
            }
        }
        // one of the others asks the server now
        stage.await_blocked(1);
        lock.release();
        for wire in &mut followers {
            assert_eq!(wire.ready().value(), "1", "leave by: {leave}");
        }
        // the next write must not meet what an abandoned run has left
        stage.ana().run("INSERT INTO quiet VALUES (1)");
        assert_eq!(stage.ana().value("SELECT count(*) FROM quiet"), "2");
        stage.ana().run("DELETE FROM quiet; INSERT INTO quiet VALUES (1)");
    }
}

#[test]
fn a_follower_can_cancel_and_leave_alone() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let lock = stage.block("quiet");
    let sql = Frames::new().query("SELECT count(*) FROM quiet");
    let mut leader = stage.ana();
    leader.send(&sql);
    stage.await_blocked(1);
    let (mut one, mut other) = (stage.gateway.session(BEN), stage.gateway.session(BEN));
    one.send(&sql);
    other.send(&sql);
    becomes(&2, || stage.gateway.metric("tollgate_clients{state=\"waiting\"}"));
    one.cancel();
    assert_eq!(one.ready().sqlstate(), "57014");
    drop(other);
    stage.await_blocked(1);
    lock.release();
    assert_eq!(leader.ready().value(), "1");
    assert_eq!(one.value("SELECT count(*) FROM quiet"), "1");
    // the answer may have been on its way into memory
    assert_ne!(one.verdict(), "miss");
}

#[test]
fn an_error_is_not_kept_and_reaches_all_who_asked() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let sql = "SELECT sum(1 / (a - 1)) FROM quiet";
    let lock = stage.block("quiet");
    let mut sessions: Vec<Wire> = (0..3).map(|_| stage.ana()).collect();
    for wire in &mut sessions {
        wire.send(&Frames::new().query(sql));
    }
    becomes(&2, || stage.gateway.metric("tollgate_clients{state=\"waiting\"}"));
    lock.release();
    for wire in &mut sessions {
        assert_eq!(wire.ready().sqlstate(), "22012");
    }
    let mut ana = stage.ana();
    ana.run("UPDATE quiet SET a = 2");
    assert_eq!(ana.value(sql), "1");
}
