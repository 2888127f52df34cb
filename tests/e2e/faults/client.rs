//! The client goes, at every moment of its session, in every way.

use super::moment::{Moment, SCHEMA};
use super::rest::Rest;
use crate::stage::Stage;
use crate::support::fault_proxy::{Direction, Fault, FaultProxy};
use crate::support::frames::{self, Frames};
use crate::support::gateway::{ANA, BEN, Setup};
use crate::support::wire::{Login, Wire};

/// How a client goes.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// It closes its socket.
    Closed,
    /// Its connection is reset.
    Reset,
    /// It says no more, and still listens.
    HalfOpen,
    /// It says that it goes.
    Terminate,
}

fn stage() -> (Stage, FaultProxy) {
    let stage = Stage::with(SCHEMA, &Setup::new().connections(3));
    let proxy = FaultProxy::before(stage.gateway.address());
    (stage, proxy)
}

fn login(stage: &Stage) -> Login<'_> {
    Login::new(ANA.0, ANA.1, &stage.database)
}

fn at_every_moment(way: Way) {
    let (stage, proxy) = stage();
    let rest = Rest::of(&stage);
    let mut in_doubt = false;
    for moment in Moment::ALL {
        let what = format!("{way:?} at {moment:?}");
        let lock = Moment::lock(&stage);
        let mut ana = Wire::login(proxy.address(), &login(&stage));
        moment.enter(&mut ana, &stage);
        match way {
            Way::Closed => drop(ana),
            Way::Reset => {
                proxy.reset();
                drop(ana);
            }
            Way::HalfOpen => {
                proxy.set(Direction::Up, Fault::HalfOpenAfter(0));
                // what is still said to it ends
                drop(ana.rest());
                proxy.heal();
            }
            Way::Terminate => {
                ana.send(&Frames::new().terminate());
                drop(ana);
            }
        }
        // while the lock is held: nothing waits for what the client asked for
        stage.await_blocked(0);
        // not the simple COPY, which cannot have written anything; in the extended protocol the end may have gone with it
        in_doubt |= moment == Moment::CopyInExtended;
        rest.returns(&stage, in_doubt.into(), &what);
        lock.release();
        assert_eq!(stage.gateway.session(BEN).value("SELECT a FROM t"), "1", "{what}");
        assert_eq!(
            stage.gateway.session(BEN).value("SELECT count(*) FROM copied"),
            "0",
            "{what}"
        );
    }
}

each! { at_every_moment:
    a_client_that_closes_leaves_nothing_behind = Way::Closed;
    a_client_whose_connection_is_reset_leaves_nothing_behind = Way::Reset;
    a_client_that_says_no_more_leaves_nothing_behind = Way::HalfOpen;
    a_client_that_takes_its_leave_leaves_nothing_behind = Way::Terminate;
}

#[test]
fn a_client_that_goes_at_any_byte_of_its_login_leaves_nothing_behind() {
    let (stage, proxy) = stage();
    let rest = Rest::of(&stage);
    let length = login(&stage).packet().len();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // within and behind the start-up packet, and within the answers of SCRAM
    for bytes in [
        0,
        1,
        4,
        9,
        length - 1,
        length,
        length + 1,
        length + 40,
        length + 60,
        length + 150,
    ] {
        for fault in [
            Fault::CutAfter(bytes),
            Fault::ResetAfter(bytes),
            Fault::HalfOpenAfter(bytes),
        ] {
            proxy.set(Direction::Up, fault);
            let (user, password) = ANA;
            let mut config = tokio_postgres::Config::new();
            config
                .host(proxy.address().ip().to_string())
                .port(proxy.address().port())
                .user(user)
                .password(password)
                .dbname(&stage.database);
            // it may get in with the last bytes that go through
            drop(runtime.block_on(config.connect(tokio_postgres::NoTls)));
        }
    }
    proxy.heal();
    rest.returns(&stage, 0, "logins cut off");
}

#[test]
fn a_client_that_goes_while_its_cancel_request_is_under_way_leaves_nothing_behind() {
    let (stage, _proxy) = stage();
    let rest = Rest::of(&stage);
    let lock = Moment::lock(&stage);
    for _ in 0..10 {
        let mut ana = stage.ana();
        Moment::BeforeExtendedRows.enter(&mut ana, &stage);
        let mut others: Vec<Wire> = (0..4).map(|_| Wire::connect(stage.gateway.address())).collect();
        for other in &mut others {
            other.send(&frames::cancel(&ana.greeting.key));
        }
        drop(ana);
        drop(others);
        stage.await_blocked(0);
    }
    lock.release();
    rest.returns(&stage, 0, "clients gone with their cancel requests");
}
