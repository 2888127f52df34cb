//! Connections to the backend: who gets one, who is told what while waiting, and what becomes of bad ones.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::stage::{Stage, server};
use crate::support::gateway::{ANA, BEN, DASH, GROWTH, Gateway, Setup};
use crate::support::wait::{becomes, eventually};
use crate::support::wire::{Login, Wire};

const SCHEMA: &str = "CREATE TABLE t (a int); INSERT INTO t VALUES (1); GRANT ALL ON t TO bi";

const WAITING: &str = "tollgate_pool_waiting{backend=\"warehouse\"}";
const FAILED: &str = "tollgate_backend_connections_total{backend=\"warehouse\",outcome=\"failed\"}";
const CIRCUIT: &str = "tollgate_backend_circuit_open{backend=\"warehouse\"}";

#[test]
fn a_team_at_its_limit_waits_and_another_does_not() {
    let setup = Setup::new()
        .backend("checkout_timeout = \"300ms\"")
        .team("max_connections = 1");
    let stage = Stage::with(SCHEMA, &setup);
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    let mut dash = stage.gateway.session(DASH);
    ana.run("BEGIN");
    ana.run("INSERT INTO t VALUES (2)");
    let refused = ben.query("SELECT a FROM t");
    let error = refused.error().expect("no connection");
    assert_eq!(error.field('C'), "53300");
    assert_eq!(
        error.field('D'),
        "1 of the team's 1 connections are in use, and no other query waits."
    );
    assert!(error.field('H').contains("of the team"), "{error:?}");
    assert_eq!(dash.value("SELECT a FROM t"), "1");
    ana.run("ROLLBACK");
    assert_eq!(ben.value("SELECT a FROM t"), "1");
}

#[test]
fn a_ceiling_over_all_backends_is_told_as_such() {
    let setup = Setup::new()
        .backend("checkout_timeout = \"300ms\"")
        .more("[pool]\nmax_connections = 1");
    let stage = Stage::with(SCHEMA, &setup);
    let (mut ana, mut dash) = (stage.ana(), stage.gateway.session(DASH));
    ana.run("BEGIN");
    ana.run("INSERT INTO t VALUES (2)");
    let refused = dash.query("SELECT a FROM t");
    let error = refused.error().expect("no connection");
    assert!(
        error.field('D').starts_with("All backends together have 1 of 1"),
        "{error:?}"
    );
    ana.run("ROLLBACK");
    // the idle one, which is of another team, makes room
    assert_eq!(dash.value("SELECT a FROM t"), "1");
}

#[test]
fn who_waits_for_long_is_told_once_and_at_once() {
    let setup = Setup::new().connections(1).team("queue_notice = \"200ms\"");
    let stage = Stage::with(SCHEMA, &setup);
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("BEGIN");
    ana.run("INSERT INTO t VALUES (2)");
    let sql = "SELECT count(*) FROM t";
    ben.send(&crate::support::frames::Frames::new().query(sql));
    // it comes while the query still waits
    let notice = ben.read().expect("a notice");
    assert_eq!((notice.tag, notice.field('S').as_str()), (b'N', "NOTICE"));
    assert_eq!(
        notice.field('M'),
        "waiting for a connection to backend \"warehouse\" for 200ms: number 1 in the team's line; 1 of the backend's 1 \
         connections are in use, and 1 query waits"
    );
    assert_eq!(stage.gateway.metric(WAITING), 1);
    ana.run("ROLLBACK");
    assert_eq!(ben.ready().tags(), "TDCZ", "told once");
    // and it is not part of the answer that is kept
    let again = ben.query(sql);
    assert_eq!((again.tags().as_str(), again.value().as_str()), ("TDCZ", "1"));
    assert_eq!(ben.verdict(), "hit");
}

#[test]
fn who_waits_for_a_place_of_the_team_is_told_too() {
    let setup = Setup::new()
        .quota("concurrent_queries = 1")
        .team("queue_notice = \"200ms\"");
    let stage = Stage::with(SCHEMA, &setup);
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    let lock = stage.block("t");
    ana.send(&crate::support::frames::Frames::new().query("SELECT a FROM t"));
    stage.await_blocked(1);
    ben.send(&crate::support::frames::Frames::new().query("SELECT 1"));
    let notice = ben.read().expect("a notice");
    assert_eq!(
        notice.field('M'),
        "waiting for a place of team \"growth\" for 200ms: number 1 in line, 1 of 1 places are in use"
    );
    lock.release();
    assert_eq!(ana.ready().value(), "1");
    assert_eq!(ben.ready().tags(), "TDCZ");
}

#[test]
fn a_connection_that_does_not_answer_any_more_is_replaced_unnoticed() {
    let setup = Setup::new().backend("check_after_idle = \"1ms\"");
    let stage = Stage::with(SCHEMA, &setup);
    let mut ana = stage.ana();
    ana.run("SELECT 1");
    let pid: i32 = stage.process().parse().expect("a number");
    // nobody uses it for long enough; then it is there, and says nothing more
    let idle = "usename = 'growth' AND clock_timestamp() - state_change > interval '100 ms'";
    stage.await_activity(idle, 1);
    kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("it runs");
    assert_eq!(ana.value("SELECT 'there'"), "there");
    kill(Pid::from_raw(pid), Signal::SIGCONT).expect("it is there");
    // the other one is left
    stage.await_activity(&format!("pid = {pid}"), 0);
    assert_ne!(stage.process(), pid.to_string());
}

#[test]
fn connections_are_kept_ready() {
    let setup = Setup::new().backend("min_connections = 3");
    let stage = Stage::with(SCHEMA, &setup);
    let mut ana = stage.ana();
    assert_eq!(ana.value("SELECT a FROM t"), "1");
    stage.await_activity("usename = 'growth'", 3);
    becomes(&3, || {
        stage
            .gateway
            .metric("tollgate_pool_connections{backend=\"warehouse\",state=\"idle\"}")
    });
}

#[test]
fn a_wrong_password_is_sent_once_and_a_reload_forgets_it() {
    // a server of its own: the role is changed
    let server = crate::support::Postgres::start();
    crate::support::gateway::add_roles(&server);
    server.add_database("own", GROWTH.0);
    server.run("ALTER ROLE growth PASSWORD 'another'");
    let setup = Setup::new().backend("login_retry = \"10min\"");
    let gateway = Gateway::start(&server, &["own"], &setup);
    gateway.expect_log("unreachable");
    let login = Login::new(ANA.0, ANA.1, "own");
    for attempt in 1..=5 {
        let error = Wire::try_login(gateway.address(), &login).expect_err("a wrong password");
        assert!(
            error.field('M').contains("password authentication failed"),
            "{error:?}"
        );
        let told = error.field('H').contains("the gateway tries again in");
        assert_eq!(told, attempt > 1, "{error:?}");
    }
    assert_eq!(gateway.metric(FAILED), 1);
    server.run(&format!("ALTER ROLE growth PASSWORD '{}'", GROWTH.1));
    assert!(Wire::try_login(gateway.address(), &login).is_err());
    gateway.reload(&server, &setup);
    assert_eq!(gateway.session(ANA).value("SELECT 1"), "1");
}

#[test]
fn a_backend_that_is_gone_fails_fast_and_is_found_again() {
    let database = crate::stage::database(SCHEMA);
    let address = free_address();
    let setup = Setup::new()
        .backend_address(address)
        .backend("connect_retry = \"100ms\"\ncircuit_breaker = 3");
    let gateway = Gateway::start_unready(server(), &[&database], &setup);
    for warning in ["unreachable", "catalog", "circuit opened"] {
        gateway.expect_log(warning);
    }
    let login = Login::new(ANA.0, ANA.1, &database);
    let open = eventually("the circuit opens", || {
        let error = Wire::try_login(gateway.address(), &login).expect_err("nobody is there");
        assert_eq!(error.field('C'), "08006");
        (error.field('M') == "backend \"warehouse\" does not answer").then_some(error)
    });
    assert!(
        open.field('D').starts_with("The last attempt: could not connect"),
        "{open:?}"
    );
    assert!(open.field('H').contains("the gateway tries again in"), "{open:?}");
    becomes(&1, || gateway.metric(CIRCUIT));
    let circuit = || {
        let reply = gateway.console().query("SHOW POOLS");
        reply.rows()[0].last().cloned().flatten()
    };
    assert_eq!(circuit().as_deref(), Some("open"));
    // it comes back, and nobody has to ask for that
    forward(address);
    becomes(&0, || gateway.metric(CIRCUIT));
    gateway.await_log("circuit closed");
    assert_eq!(gateway.session(ANA).value("SELECT a FROM t"), "1");
    assert_eq!(circuit().as_deref(), Some("closed"));
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address")
}

/// Forwards connections to `address` to the server, until the test's process ends.
fn forward(address: SocketAddr) {
    let listener = TcpListener::bind(address).expect("the port is still free");
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(server().address()).expect("the server");
            for (mut from, mut to) in [
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server, client),
            ] {
                thread::spawn(move || {
                    // either side may go at any time
                    drop(io::copy(&mut from, &mut to));
                    drop(to.shutdown(Shutdown::Both));
                });
            }
        }
    });
}
