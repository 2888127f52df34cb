//! A network that is slow, or gone without a word.

use super::moment::{Moment, SCHEMA};
use super::rest::Rest;
use crate::stage::{Stage, server};
use crate::support::fault_proxy::{Direction, Fault, FaultProxy};
use crate::support::frames::Frames;
use crate::support::gateway::{ANA, BEN, Setup};
use crate::support::wait::becomes;
use crate::support::wire::{Login, Wire};
use std::time::Duration;

/// What every client does: log in, and ask in all ways.
fn a_session(wire: &mut Wire) {
    assert_eq!(wire.value("SELECT a FROM t"), "1");
    assert_eq!(wire.value("SELECT count(*) FROM t"), "1");
    let reply = wire.extended("SELECT $1::text || a FROM t", &[Some(b"x")], &[1]);
    assert_eq!(reply.value(), "x1");
    wire.send(&Frames::new().query("COPY copied FROM STDIN"));
    wire.until(b'G');
    let reply = wire.ask(&Frames::new().copy_data(b"1\n2\n").copy_done());
    assert_eq!(reply.completions(), ["COPY 2"]);
    let reply = wire.run("COPY copied TO STDOUT");
    assert_eq!(reply.completions(), ["COPY 2"]);
    assert_eq!(wire.run("TRUNCATE copied").completions(), ["TRUNCATE TABLE"]);
    let failed = wire.query("SELEKT; SELECT 1");
    assert_eq!((failed.sqlstate().as_str(), failed.status()), ("42601", 'I'));
}

#[test]
fn bytes_that_come_one_at_a_time_or_late_are_the_same_bytes() {
    let towards_server = FaultProxy::before(server().address());
    let setup = Setup::new()
        .connections(1)
        .backend_address(towards_server.address());
    let stage = Stage::with(SCHEMA, &setup);
    stage.gateway.expect_log("could not follow the catalog");
    stage.gateway.expect_log("deadpool");
    let towards_gateway = FaultProxy::before(stage.gateway.address());
    let rest = Rest::of(&stage);
    for proxy in [&towards_gateway, &towards_server] {
        for fault in [Fault::Dribble, Fault::Delay(Duration::from_millis(2))] {
            for direction in [Direction::Up, Direction::Down] {
                proxy.set(direction, fault);
            }
            // the connection to the backend is made anew, so that its login is slow as well
            towards_server.cut();
            becomes(&0, || towards_server.open());
            let login = Login::new(ANA.0, ANA.1, &stage.database);
            a_session(&mut Wire::login(towards_gateway.address(), &login));
            proxy.heal();
        }
    }
    rest.returns(&stage, 0, "slow sessions");
}

#[test]
fn a_client_that_reads_a_big_result_slowly_costs_no_memory() {
    const ROWS: usize = 20_000;
    let stage = Stage::with(SCHEMA, &Setup::new());
    let rest = Rest::of(&stage);
    let proxy = FaultProxy::before(stage.gateway.address());
    let sql = format!("SELECT g, repeat('x', 10000) FROM generate_series(1, {ROWS}) g");
    let login = Login::new(ANA.0, ANA.1, &stage.database);
    stage.ana().run("SELECT a FROM t");
    let before = stage.gateway.resident_kib();
    for frames in [
        Frames::new().query(&sql),
        Frames::new()
            .parse("", &sql, &[])
            .bind("", "", &[], &[], &[1])
            .execute("", 0)
            .sync(),
        Frames::new().query(&format!("COPY ({sql}) TO STDOUT")),
    ] {
        let mut slow = Wire::login(proxy.address(), &login);
        proxy.set(Direction::Down, Fault::BlackholeAfter(100_000));
        slow.send(&frames);
        // everything between the client and the server is full now
        stage.await_activity("wait_event = 'ClientWrite'", 1);
        let stalled = stage.gateway.resident_kib();
        assert!(
            stalled < before + 16_000,
            "{before} KiB before, {stalled} KiB now"
        );
        // and others do not wait
        assert_eq!(stage.gateway.session(BEN).value("SELECT a FROM t"), "1");
        proxy.heal();
        let mut rows = 0;
        while let Some(message) = slow.read() {
            rows += usize::from(matches!(message.tag, b'D' | b'd'));
            if message.tag == b'Z' {
                break;
            }
            if rows % 5_000 == 1 {
                let now = stage.gateway.resident_kib();
                assert!(
                    now < before + 16_000,
                    "{before} KiB before, {now} KiB at row {rows}"
                );
            }
        }
        assert_eq!(rows, ROWS);
    }
    rest.returns(&stage, 0, "slow readers");
}

#[test]
fn a_backend_that_nobody_hears_of_any_more_is_given_up_when_its_limits_say_so() {
    let proxy = FaultProxy::before(server().address());
    let setup = Setup::new()
        .connections(2)
        .quota("query_time = \"300ms\"")
        .backend("connect_timeout = \"500ms\"\ncancel_timeout = \"500ms\"")
        .backend_address(proxy.address());
    let stage = Stage::with(SCHEMA, &setup);
    for text in ["cancel", "backend", "could not follow the catalog", "deadpool"] {
        stage.gateway.expect_log(text);
    }
    let rest = Rest::of(&stage);
    // in a query: the limit ends it, the cancel request gets no answer, and then the connection is given up
    let mut ana = stage.ana();
    ana.run("SELECT a FROM t");
    proxy.set(Direction::Up, Fault::BlackholeAfter(0));
    proxy.set(Direction::Down, Fault::BlackholeAfter(0));
    ana.send(&Frames::new().query("SELECT a FROM t"));
    let reply = ana.until(b'Z');
    assert!(
        matches!(reply.sqlstate().as_str(), "57014" | "08006"),
        "{reply:?}"
    );
    drop(ana);
    // nor can another connection be made
    let reply = Wire::try_login(
        stage.gateway.address(),
        &Login::new(ANA.0, ANA.1, &stage.database),
    );
    if let Ok(mut wire) = reply {
        let reply = wire.query("SELECT a FROM t");
        assert!(reply.error().is_some(), "{reply:?}");
    }
    proxy.cut();
    proxy.heal();
    becomes(&"1".to_owned(), || {
        let reply = stage.gateway.session(BEN).query("SELECT a FROM t");
        if reply.error().is_some() {
            reply.sqlstate()
        } else {
            reply.value()
        }
    });
    rest.returns(&stage, 0, "a network that was gone");
}

#[test]
fn a_client_that_writes_its_query_slowly_holds_no_connection() {
    let stage = Stage::with(SCHEMA, &Setup::new().connections(1));
    let rest = Rest::of(&stage);
    let proxy = FaultProxy::before(stage.gateway.address());
    let login = Login::new(ANA.0, ANA.1, &stage.database);
    let mut slow = Wire::login(proxy.address(), &login);
    // half of a message, and then nothing for a while
    proxy.set(Direction::Up, Fault::BlackholeAfter(20));
    slow.send(&Frames::new().query("SELECT 'a long text', a FROM t"));
    let mut ben = stage.gateway.session(BEN);
    for _ in 0..20 {
        assert_eq!(ben.value("SELECT a FROM t"), "1");
    }
    proxy.set(Direction::Up, Fault::Dribble);
    assert_eq!(slow.ready().completions(), ["SELECT 1"]);
    let lock = Moment::lock(&stage);
    drop((slow, ben));
    lock.release();
    rest.returns(&stage, 0, "a slow writer");
}
