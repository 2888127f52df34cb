//! What is under way when the backend goes runs once or not at all; what was not sent yet runs elsewhere.

use super::backend::{Way, stage, told};
use super::moment::Moment;
use super::rest::Rest;
use crate::stage::Stage;
use crate::support::fault_proxy::{Direction, Fault};
use crate::support::frames::Frames;
use crate::support::gateway::BEN;
use crate::support::wait::becomes;
use crate::support::wire::Wire;

/// How a session asks for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Simple,
    Extended,
    /// By a statement that it has prepared before.
    Prepared,
    /// As the last of a transaction of one message.
    Transaction,
    /// As a transaction of which the backend hears only now.
    Begun,
}

const WRITE: &str = "INSERT INTO copied VALUES (1)";

impl Form {
    const ALL: [Self; 5] = [
        Self::Simple,
        Self::Extended,
        Self::Prepared,
        Self::Transaction,
        Self::Begun,
    ];

    /// Prepares a session for [`Self::frames`].
    fn prepare(self, wire: &mut Wire, sql: &str) {
        match self {
            Self::Prepared => {
                wire.ask(&Frames::new().parse("mine", sql, &[]).sync());
            }
            Self::Begun => {
                wire.run("BEGIN");
            }
            Self::Simple | Self::Extended | Self::Transaction => {}
        }
    }

    fn frames(self, sql: &str) -> Frames {
        match self {
            Self::Simple => Frames::new().query(sql),
            Self::Extended => Frames::new().unnamed(sql).sync(),
            Self::Prepared => Frames::new()
                .bind("", "mine", &[], &[], &[])
                .execute("", 0)
                .sync(),
            Self::Transaction => Frames::new().query(&format!("BEGIN; {sql}; COMMIT")),
            Self::Begun => Frames::new().query(&format!("{sql}; COMMIT")),
        }
    }
}

/// How many rows were written, whoever wrote them.
fn written(stage: &Stage) -> String {
    stage.superuser().value("SELECT count(*) FROM copied")
}

/// Somebody else gets an answer, and the same session's successor too: if what was lost were run again, it would be now.
fn others_go_on(stage: &Stage, what: &str) {
    for mut wire in [stage.ana(), stage.gateway.session(BEN)] {
        assert_eq!(wire.value("SELECT a FROM t"), "1", "{what}");
    }
}

#[test]
fn a_write_whose_answer_is_lost_has_run_once() {
    let (stage, proxy) = stage();
    let rest = Rest::of(&stage);
    for way in [Way::Terminated, Way::Cut, Way::Reset, Way::HalfOpen] {
        for form in Form::ALL {
            let what = format!("{way:?}, {form:?}");
            stage.superuser().run("TRUNCATE copied");
            let mut ana = stage.ana();
            form.prepare(&mut ana, WRITE);
            if form == Form::Begun {
                // else it is the answer to the BEGIN that is waited for
                ana.run("SELECT a FROM t");
            }
            // the answer is kept back until the row is there for everybody
            proxy.set(Direction::Down, Fault::BlackholeAfter(0));
            ana.send(&form.frames(WRITE));
            becomes(&"1".to_owned(), || written(&stage));
            way.happen(Moment::Pinned, &stage, &proxy);
            if matches!(way, Way::Terminated) {
                // what the server has said at last does not arrive either
                proxy.cut();
            }
            told(&mut ana, false, &what);
            proxy.heal();
            others_go_on(&stage, &what);
            assert_eq!(written(&stage), "1", "{what}");
        }
    }
    rest.returns(&stage, 1, "writes whose answers were lost");
}

#[test]
fn a_write_that_did_not_get_through_has_not_run() {
    let (stage, proxy) = stage();
    let rest = Rest::of(&stage);
    let running = || {
        let state = |name| format!("tollgate_pool_connections{{backend=\"warehouse\",state=\"{name}\"}}");
        stage.gateway.metric(&state("leased")) + stage.gateway.metric(&state("pinned"))
    };
    for way in [Way::Cut, Way::Reset] {
        for form in Form::ALL {
            let what = format!("{way:?}, {form:?}");
            let mut ana = stage.ana();
            form.prepare(&mut ana, WRITE);
            assert_eq!(stage.gateway.session(BEN).value("SELECT a FROM t"), "1", "{what}");
            becomes(&0, running);
            proxy.set(Direction::Up, Fault::BlackholeAfter(0));
            ana.send(&form.frames(WRITE));
            becomes(&1, running);
            way.happen(Moment::Pinned, &stage, &proxy);
            told(&mut ana, false, &what);
            proxy.heal();
            others_go_on(&stage, &what);
            assert_eq!(written(&stage), "0", "{what}");
        }
    }
    rest.returns(&stage, 1, "writes that did not get through");
}

#[test]
fn a_write_that_is_ended_while_it_waits_has_not_run() {
    let (stage, proxy) = stage();
    let rest = Rest::of(&stage);
    for form in Form::ALL {
        let mut ana = stage.ana();
        form.prepare(&mut ana, WRITE);
        let lock = stage.block("copied");
        ana.send(&form.frames(WRITE));
        stage.await_blocked(1);
        Way::Terminated.happen(Moment::Pinned, &stage, &proxy);
        told(&mut ana, false, &format!("{form:?}"));
        lock.release();
        others_go_on(&stage, &format!("{form:?}"));
        assert_eq!(written(&stage), "0", "{form:?}");
    }
    rest.returns(&stage, 1, "writes that were ended");
}

#[test]
fn who_meets_a_connection_that_is_dead_already_does_not_notice() {
    const ROUNDS: usize = 8;
    let (stage, proxy) = stage();
    let rest = Rest::of(&stage);
    let mut rows = 0;
    for way in [Way::Terminated, Way::Cut, Way::Reset] {
        for form in Form::ALL {
            for round in 0..ROUNDS {
                let what = format!("{way:?}, {form:?}, {round}");
                let mut ana = stage.ana();
                form.prepare(&mut ana, WRITE);
                // one that is idle, and that everybody would take
                assert_eq!(stage.gateway.session(BEN).value("SELECT a FROM t"), "1", "{what}");
                way.happen(Moment::Idle, &stage, &proxy);
                // at once, whether or not the gateway has looked after it meanwhile
                let reply = ana.ask(&form.frames(WRITE));
                assert!(reply.error().is_none(), "{what}: {reply:?}");
                rows += 1;
                assert_eq!(written(&stage), rows.to_string(), "{what}");
            }
        }
    }
    rest.returns(&stage, 0, "idle connections that were dead");
}
