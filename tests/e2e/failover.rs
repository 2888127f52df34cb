//! Clients that go, or give up, while the primary fails over: nothing of them is left, and nobody else is meant.

use crate::faults::rest::{await_rest, sum};
use crate::ha::{direct, server};
use crate::support::fault_proxy::{Direction, Fault, FaultProxy};
use crate::support::frames::{self, Frames};
use crate::support::gateway::{ANA, BEN, Gateway, Setup};
use crate::support::wait::{becomes, eventually};
use crate::support::wire::{Login, Wire};
use crate::support::{Postgres, SUPERUSER, SUPERUSER_PASSWORD, http};

/// A primary, a standby that will be the next, and a gateway that reaches both through networks of their own.
struct Pair {
    gateway: Gateway,
    to_primary: FaultProxy,
    to_standby: FaultProxy,
    standby: Postgres,
}

impl Pair {
    /// With its primary, which is to go.
    fn start() -> (Self, Postgres) {
        let primary = server("CREATE TABLE t AS SELECT 1 AS a; CREATE TABLE locked AS SELECT 1 AS a");
        let standby = Postgres::start_standby(&primary);
        let to_primary = FaultProxy::before(primary.address());
        let to_standby = FaultProxy::before(standby.address());
        let setup = Setup::new()
            .backend_address(to_primary.address())
            .connections(3)
            .backend(&format!(
                "fallbacks = [\"{}\"]\nhealth_interval = \"100ms\"\nconnect_timeout = \"5min\"\nconnect_retry = \"100ms\"",
                to_standby.address()
            ));
        let gateway = Gateway::start(&primary, &["dev"], &setup);
        for warning in [
            "server down",
            "primary moved",
            "backend lost",
            "backend unreachable",
            "circuit",
            "cancel",
            "could not follow the catalog",
            "deadpool.postgres",
        ] {
            gateway.expect_log(warning);
        }
        let pair = Self {
            gateway,
            to_primary,
            to_standby,
            standby,
        };
        (pair, primary)
    }

    /// Requests that wait for a connection, or for one to be made.
    fn waiting(&self) -> u64 {
        let (_, metrics) = http::get(self.gateway.http(), "/metrics");
        sum(&metrics, "tollgate_pool_waiting", "")
            + sum(&metrics, "tollgate_pool_connections", "state=\"connecting\"")
    }
}

/// Makes whoever reads `locked` there wait, as long as it lives.
fn block(server: &Postgres) -> Wire {
    let mut lock = direct(server);
    lock.run("BEGIN; LOCK TABLE locked");
    lock
}

fn superuser(server: &Postgres) -> Wire {
    Wire::login(
        server.address(),
        &Login::new(SUPERUSER, SUPERUSER_PASSWORD, "dev"),
    )
}

/// Waits until so many queries wait for a lock there.
fn await_blocked(server: &Postgres, count: usize) {
    let mut superuser = superuser(server);
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'dev'";
    becomes(&count.to_string(), || superuser.value(sql));
}

/// How a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Closes,
    SaysNoMore,
    TakesItsLeave,
}

impl Way {
    const ALL: [Self; 3] = [Self::Closes, Self::SaysNoMore, Self::TakesItsLeave];
}

/// Sends a cancel request, and waits until it was dealt with.
fn cancel(gateway: &Gateway, key: &[u8]) {
    let mut other = Wire::connect(gateway.address());
    other.send(&frames::cancel(key));
    assert!(other.rest().is_empty(), "a cancel request has no answer");
}

fn told_fatal(wire: &mut Wire) {
    let reply = wire.until(b'Z');
    assert_eq!(reply.error().expect("an error").field('S'), "FATAL", "{reply:?}");
    assert!(wire.read().is_none(), "it is the last word");
}

#[test]
fn who_gives_up_while_the_primary_fails_over_leaves_nothing_and_cancels_nobody_else() {
    let (pair, primary) = Pair::start();
    let gateway = &pair.gateway;
    let asks = Frames::new().query("SELECT a FROM t");
    let mut patient = gateway.session(BEN);
    let going = Way::ALL.map(|way| (way, gateway.session(ANA)));
    let mut cancelling = gateway.session(ANA);
    // one waits there, one has a transaction open
    let (mut running, mut open) = (gateway.session(ANA), gateway.session(BEN));
    let mut keys: Vec<Vec<u8>> = going.iter().map(|(_, wire)| wire.greeting.key.clone()).collect();
    keys.extend([&running, &open].map(|wire| wire.greeting.key.clone()));
    let lock = block(&primary);
    running.send(&Frames::new().query("SELECT a FROM locked"));
    open.run("BEGIN; INSERT INTO t VALUES (2)");
    await_blocked(&primary, 1);

    // the primary is gone, and the next one does not answer yet
    pair.to_standby.set(Direction::Down, Fault::BlackholeAfter(0));
    drop((primary, lock));
    told_fatal(&mut running);
    told_fatal(&mut open);
    patient.send(&asks);
    becomes(&1, || pair.waiting());
    for (way, wire) in going {
        let mut wire = wire;
        wire.send(&asks);
        becomes(&(way, 2), || (way, pair.waiting()));
        match way {
            Way::Closes => drop(wire),
            Way::SaysNoMore => drop(wire.hang_up()),
            Way::TakesItsLeave => {
                wire.send(&Frames::new().terminate());
                drop(wire);
            }
        }
        becomes(&(way, 1), || (way, pair.waiting()));
    }
    cancelling.send(&asks);
    becomes(&2, || pair.waiting());
    cancelling.cancel();
    assert_eq!(cancelling.ready().sqlstate(), "57014");

    // it answers, and takes writes
    pair.standby.run("SELECT pg_promote()");
    pair.to_standby.heal();
    assert_eq!(patient.ready().value(), "1", "who has waited gets an answer");
    eventually("it takes writes", || {
        patient
            .query("INSERT INTO t VALUES (3)")
            .error()
            .is_none()
            .then_some(())
    });
    // requests to cancel what ran before, or was to run, are for nobody who runs now
    let lock = block(&pair.standby);
    patient.send(&Frames::new().query("SELECT a FROM locked"));
    await_blocked(&pair.standby, 1);
    for key in &keys {
        cancel(gateway, key);
    }
    cancelling.cancel();
    await_blocked(&pair.standby, 1);
    drop(lock);
    assert_eq!(patient.ready().value(), "1");
    assert_eq!(
        cancelling.value("SELECT count(*) FROM t"),
        "2",
        "what was open is not there"
    );
    drop((patient, cancelling));
    await_rest(gateway, &mut superuser(&pair.standby));
}

#[test]
fn a_cancel_request_under_way_while_the_primary_fails_over_ends_with_it() {
    let (pair, primary) = Pair::start();
    let gateway = &pair.gateway;
    let (mut ana, mut ben) = (gateway.session(ANA), gateway.session(BEN));
    let lock = block(&primary);
    ana.send(&Frames::new().query("SELECT a FROM locked"));
    await_blocked(&primary, 1);
    // it leaves the gateway and does not arrive
    pair.to_primary.set(Direction::Up, Fault::BlackholeAfter(0));
    let before = pair.to_primary.open();
    let mut request = Wire::connect(gateway.address());
    request.send(&frames::cancel(&ana.greeting.key));
    becomes(&true, || pair.to_primary.open() > before);
    drop((primary, lock));
    pair.standby.run("SELECT pg_promote()");
    told_fatal(&mut ana);
    eventually("the other server takes writes", || {
        ben.query("INSERT INTO t VALUES (2)")
            .error()
            .is_none()
            .then_some(())
    });
    let lock = block(&pair.standby);
    ben.send(&Frames::new().query("SELECT a FROM locked"));
    await_blocked(&pair.standby, 1);
    // now it is delivered, if it still is
    pair.to_primary.heal();
    assert!(request.rest().is_empty());
    await_blocked(&pair.standby, 1);
    drop(lock);
    assert_eq!(ben.ready().value(), "1");
    drop(ben);
    await_rest(gateway, &mut superuser(&pair.standby));
}

#[test]
fn a_cancel_request_that_meets_another_server_at_the_same_address_cancels_nobody_there() {
    let old = server("CREATE TABLE t AS SELECT 1 AS a; CREATE TABLE locked AS SELECT 1 AS a");
    let new = server("CREATE TABLE t AS SELECT 2 AS a; CREATE TABLE locked AS SELECT 2 AS a");
    let proxy = FaultProxy::before(old.address());
    let setup = Setup::new()
        .backend_address(proxy.address())
        .connections(3)
        .backend("cancel_timeout = \"500ms\"");
    let gateway = Gateway::start(&old, &["dev"], &setup);
    for warning in [
        "backend lost",
        "cancel",
        "could not follow the catalog",
        "deadpool.postgres",
    ] {
        gateway.expect_log(warning);
    }
    let asks = Frames::new().query("SELECT a FROM locked");
    let (mut ana, mut gone, mut ben) = (gateway.session(ANA), gateway.session(ANA), gateway.session(BEN));
    let old_lock = block(&old);
    ana.send(&asks);
    gone.send(&asks);
    await_blocked(&old, 2);
    // the name leads elsewhere, and the server before goes on
    proxy.lead_to(new.address());
    gateway.console().run("RECONNECT");
    let lock = block(&new);
    ben.send(&asks);
    await_blocked(&new, 1);
    // what ran there cannot be cancelled any more, and nobody else is
    ana.cancel();
    drop(gone);
    becomes(&2, || gateway.metric("tollgate_clients{state=\"active\"}"));
    await_blocked(&new, 1);
    drop(old_lock);
    assert_eq!(ana.ready().value(), "1");
    drop(lock);
    assert_eq!(ben.ready().value(), "2");
    assert_eq!(ana.value("SELECT a FROM t"), "2");
    drop((ana, ben));
    await_rest(&gateway, &mut superuser(&new));
}
