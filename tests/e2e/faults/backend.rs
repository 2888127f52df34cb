//! The backend goes, at every moment of a session, in every way.

use super::moment::{Moment, SCHEMA};
use super::rest::Rest;
use crate::stage::{Stage, server};
use crate::support::fault_proxy::{Direction, Fault, FaultProxy};
use crate::support::gateway::{ANA, BEN, Setup};
use crate::support::wait::becomes;
use crate::support::wire::{Login, Message, Wire};

/// How a backend goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// An administrator of the server ends the session.
    Terminated,
    /// The connection is closed.
    Cut,
    /// The connection is reset.
    Reset,
    /// The server says no more; whatever is sent to it is taken.
    HalfOpen,
}

const TERMINATE: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
     WHERE datname = current_database() AND usename IN ('growth', 'bi')";

pub(super) fn stage() -> (Stage, FaultProxy) {
    let proxy = FaultProxy::before(server().address());
    let setup = Setup::new().connections(3).backend_address(proxy.address());
    let stage = Stage::with(SCHEMA, &setup);
    stage.gateway.expect_log("backend lost");
    // the gateway's own connections go through the same network
    stage.gateway.expect_log("could not follow the catalog");
    stage.gateway.expect_log("deadpool");
    (stage, proxy)
}

impl Way {
    pub(super) fn happen(self, moment: Moment, stage: &Stage, proxy: &FaultProxy) {
        match self {
            Self::Terminated => {
                stage.superuser().run(TERMINATE);
                stage.await_activity("usename IN ('growth', 'bi')", 0);
            }
            Self::Cut => {
                proxy.cut();
                becomes(&0, || proxy.open());
            }
            Self::Reset => {
                proxy.reset();
                becomes(&0, || proxy.open());
            }
            Self::HalfOpen => {
                // where rows come, it happens when the client reads what is on the way
                let waiting = usize::from(moment.rows_come());
                let awaited = proxy.half_closed() + proxy.open() - waiting;
                proxy.set(Direction::Down, Fault::HalfOpenAfter(0));
                becomes(&true, || proxy.half_closed() >= awaited);
            }
        }
    }
}

/// What a client hears whose backend is gone: one error, which ends the session, and then the end of the stream. Where rows
/// come, the stream may end within one, and then there is no error: it would be taken for a part of the row.
pub(super) fn told(wire: &mut Wire, rows: bool, what: &str) {
    let bytes = wire.rest();
    let mut rest = bytes.as_slice();
    let mut errors = Vec::new();
    while let Some((header, behind)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize - 4;
        let Some((body, behind)) = behind.split_at_checked(length) else {
            break;
        };
        if header[0] == b'E' {
            errors.push(Message {
                tag: b'E',
                body: body.to_vec(),
            });
        }
        rest = behind;
    }
    if rows && !rest.is_empty() {
        assert!(errors.is_empty(), "{what}: {errors:?}");
        let spoilt = rest.windows(5).any(|bytes| bytes == b"FATAL");
        assert!(!spoilt, "{what}: an error within a row");
        return;
    }
    let ([error], []) = (errors.as_slice(), rest) else {
        panic!("{what}: {errors:?} and then {rest:?}")
    };
    assert_eq!(error.field('S'), "FATAL", "{what}: {error:?}");
    assert!(
        matches!(error.field('C').as_str(), "57P01" | "08006"),
        "{what}: {error:?}"
    );
}

fn at_every_moment(way: Way) {
    let (stage, proxy) = stage();
    let rest = Rest::of(&stage);
    let mut doubts = 0;
    for moment in Moment::ALL {
        let what = format!("{way:?} at {moment:?}");
        // what COPY in the extended protocol writes to, and everything at once for a COPY of a query, whose functions may
        // write; not what a simple COPY writes to, which cannot have succeeded
        doubts += u64::from(matches!(moment, Moment::CopyInExtended | Moment::CopyOut));
        let lock = Moment::lock(&stage);
        let mut ana = stage.ana();
        moment.enter(&mut ana, &stage);
        way.happen(moment, &stage, &proxy);
        if moment.holds_a_connection() {
            told(&mut ana, moment.rows_come(), &what);
            proxy.heal();
        } else {
            proxy.heal();
            assert_eq!(ana.value("SELECT a FROM t"), "1", "{what}");
        }
        drop(ana);
        lock.release();
        assert_eq!(stage.gateway.session(BEN).value("SELECT a FROM t"), "1", "{what}");
        rest.returns(&stage, doubts, &what);
    }
}

each! { at_every_moment:
    a_terminated_backend_leaves_nothing_behind = Way::Terminated;
    a_connection_to_the_backend_that_is_closed_leaves_nothing_behind = Way::Cut;
    a_connection_to_the_backend_that_is_reset_leaves_nothing_behind = Way::Reset;
    a_backend_that_says_no_more_leaves_nothing_behind = Way::HalfOpen;
}

/// What a new client is answered: a value, or an error's SQLSTATE.
fn asked(stage: &Stage) -> String {
    let login = Login::new(ANA.0, ANA.1, &stage.database);
    match Wire::try_login(stage.gateway.address(), &login) {
        Ok(mut wire) => {
            let reply = wire.query("SELECT a FROM t");
            if reply.error().is_some() {
                reply.sqlstate()
            } else {
                reply.value()
            }
        }
        Err(error) => error.field('C'),
    }
}

#[test]
fn an_idle_connection_that_the_server_closes_is_closed_before_anybody_asks_for_it() {
    let (stage, proxy) = stage();
    let rest = Rest::of(&stage);
    let idle = || {
        stage
            .gateway
            .metric("tollgate_pool_connections{backend=\"warehouse\",state=\"idle\"}")
    };
    let mut ana = stage.ana();
    for way in [Way::Terminated, Way::Cut, Way::Reset, Way::HalfOpen] {
        assert_eq!(ana.value("SELECT a FROM t"), "1", "{way:?}");
        assert_eq!(idle(), 1, "{way:?}");
        way.happen(Moment::Idle, &stage, &proxy);
        becomes(&0, &idle);
        proxy.heal();
    }
    assert_eq!(ana.value("SELECT a FROM t"), "1");
    drop(ana);
    rest.returns(&stage, 0, "idle connections that the server closed");
}

#[test]
fn a_backend_that_goes_at_any_byte_of_its_login_is_an_error_and_the_next_attempt_works() {
    let (stage, proxy) = stage();
    stage.gateway.expect_log("connect");
    let rest = Rest::of(&stage);
    // the lengths of what a server says at a login, and some between them
    for bytes in [0, 1, 5, 23, 24, 60, 110, 140, 300, 400] {
        for fault in [Fault::CutAfter(bytes), Fault::ResetAfter(bytes)] {
            // every connection goes, so that another one has to be made
            proxy.cut();
            becomes(&0, || proxy.open());
            proxy.set(Direction::Down, fault);
            let login = Login::new(ANA.0, ANA.1, &stage.database);
            let login = login.with(&[("extra_float_digits", "2")]);
            match Wire::try_login(stage.gateway.address(), &login) {
                Ok(mut wire) => {
                    let reply = wire.query("SELECT a FROM t");
                    assert!(
                        matches!(reply.sqlstate().as_str(), "08006" | "08001" | "57P01"),
                        "{fault:?}: {reply:?}"
                    );
                }
                Err(error) => assert!(
                    matches!(error.field('C').as_str(), "08006" | "08001" | "57P01"),
                    "{fault:?}: {error:?}"
                ),
            }
            proxy.heal();
            // after several failures the gateway waits for a moment before it tries again
            becomes(&"1".to_owned(), || asked(&stage));
        }
    }
    rest.returns(&stage, 0, "logins cut off");
}

#[test]
fn a_backend_that_goes_while_a_cancel_request_is_under_way_leaves_nothing_behind() {
    let (stage, proxy) = stage();
    stage.gateway.expect_log("cancel");
    let rest = Rest::of(&stage);
    let lock = Moment::lock(&stage);
    for round in 0..4 {
        let mut ana = stage.ana();
        Moment::BeforeRows.enter(&mut ana, &stage);
        // the answers to the query and to the cancel request are both kept back
        proxy.set(Direction::Down, Fault::BlackholeAfter(0));
        let before = proxy.open();
        let mut other = Wire::connect(stage.gateway.address());
        other.send(&crate::support::frames::cancel(&ana.greeting.key));
        becomes(&(before + 1), || proxy.open());
        stage.await_blocked(0);
        if round % 2 == 0 {
            proxy.cut();
        } else {
            proxy.reset();
        }
        proxy.heal();
        told(&mut ana, false, "cancelled and lost");
        assert!(other.rest().is_empty());
    }
    lock.release();
    assert_eq!(stage.ana().value("SELECT a FROM t"), "1");
    rest.returns(&stage, 0, "cancelled and lost");
}
