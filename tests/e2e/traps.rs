//! Mistakes that gateways between PostgreSQL and its clients are known for; each has a number, here and elsewhere in the
//! names of these tests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::login::refused;
use crate::relay::narrow;
use crate::stage::{Stage, server};
use crate::support::frames::{Frames, startup};
use crate::support::gateway::{ANA, BEN, DASH, GROWTH, Gateway, Setup};
use crate::support::interposer::{Said, Side, interposed};
use crate::support::wait::becomes;
use crate::support::wire::{Login, Wire};
use crate::support::{SUPERUSER, SUPERUSER_PASSWORD};

/// A batch up to its Execute.
fn open_batch(mark: &str) -> Frames {
    Frames::new().unnamed(&format!("SELECT '{mark}'"))
}

/// Clients of `users` at once; each asks for marks of its own.
fn side_by_side(
    gateway: &Gateway,
    users: &[(&str, &str)],
    clients: usize,
    ask: impl Fn(&mut Wire, usize) + Sync,
) {
    thread::scope(|scope| {
        for client in 0..clients {
            let ask = &ask;
            scope.spawn(move || {
                let mut wire = gateway.session(users[client % users.len()]);
                ask(&mut wire, client);
            });
        }
    });
}

#[test]
fn trap_01_batches_in_one_packet_and_a_sync_at_the_start_of_the_next_stay_in_step() {
    let stage = Stage::with("", &narrow());
    side_by_side(&stage.gateway, &[ANA, BEN, DASH], 3, |wire, client| {
        for round in 0..20 {
            let mark = |batch: &str| format!("{client} {round} {batch}");
            // the Sync of each batch is the first message of the packet that brings the next
            wire.send(&open_batch(&mark("a")));
            let mut packet = Frames::new().sync().to_vec();
            packet.extend(&*open_batch(&mark("b")));
            wire.send(&packet);
            let mut packet = Frames::new().sync().to_vec();
            packet.extend(
                &*open_batch(&mark("c"))
                    .sync()
                    .query(&format!("SELECT '{}'", mark("d"))),
            );
            wire.send(&packet);
            for batch in ["a", "b", "c", "d"] {
                assert_eq!(wire.ready().value(), mark(batch));
            }
        }
    });
}

#[test]
fn trap_02_rows_reach_the_client_that_asked_although_the_backend_is_slow_and_others_give_up() {
    let stage = Stage::with("", &Setup::new().connections(2));
    side_by_side(&stage.gateway, &[ANA, BEN, DASH], 6, |wire, client| {
        for round in 0..8 {
            let mark = format!("{client} {round}");
            let sql = format!("SELECT '{mark}' || substr(pg_sleep(0.0{client})::text, 1)");
            // somebody who does not wait for the answer
            if client % 3 == 2 {
                let mut hasty = Wire::login(wire.address(), &Login::new(BEN.0, BEN.1, &stage.database));
                hasty.send(&Frames::new().query(&sql));
                if round % 2 == 0 {
                    hasty.cancel();
                }
            }
            assert_eq!(wire.value(&sql), mark);
            assert_eq!(wire.extended(&sql, &[], &[]).value(), mark);
        }
    });
}

#[test]
fn trap_03_a_copy_by_the_extended_protocol_gives_its_connection_back() {
    let stage = Stage::with("CREATE TABLE t (a int)", &narrow());
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    let begin = Frames::new().unnamed("COPY t FROM STDIN");
    for (what, frames, tags) in [
        (
            "a Sync too early",
            begin.clone().sync().copy_data(b"1\n").copy_done().sync(),
            "12GCZ",
        ),
        (
            "one Sync",
            begin.clone().copy_data(b"1\n").copy_done().sync(),
            "12GCZ",
        ),
        (
            "the client gives up",
            begin.clone().sync().copy_fail("no").sync(),
            "12GEZ",
        ),
        (
            "wrong data",
            begin.sync().copy_data(b"x\n").copy_done().sync(),
            "12GEZ",
        ),
    ] {
        assert_eq!(ana.ask(&frames).tags(), tags, "{what}");
        assert_eq!(ben.value("SELECT 1"), "1", "{what}");
    }
    assert_eq!(ben.value("SELECT count(*) FROM t"), "2");
    // a farewell in the midst of the data
    ana.send(&Frames::new().query("COPY t FROM STDIN"));
    assert_eq!(ana.until(b'G').tags(), "G");
    ana.send(&Frames::new().copy_data(b"3\n").terminate());
    ana.rest();
    assert_eq!(ben.value("SELECT count(*) FROM t"), "2");
}

#[test]
fn trap_04_a_part_of_a_pipeline_keeps_nobody_waiting() {
    let stage = Stage::with("", &narrow());
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    // neither Sync nor Flush: nothing is asked for yet
    ana.send(&open_batch("ana"));
    assert_eq!(ben.value("SELECT 'ben'"), "ben");
    assert_eq!(ana.ask(&Frames::new().sync()).value(), "ana");
    // after a Flush the connection is the client's until its Sync, or until it goes away
    let frames = open_batch("ana").flush();
    ana.send(&frames);
    assert_eq!(ana.until(b'C').tags(), "12DC");
    ben.send(&Frames::new().query("SELECT 'ben'"));
    stage.gateway.await_waiting();
    drop(ana);
    assert_eq!(ben.ready().value(), "ben");
}

#[test]
fn trap_05_close_and_many_statements_keep_the_order_of_replies_and_the_next_client_clean() {
    const STATEMENTS: usize = 300;
    let stage = Stage::with("", &Setup::new().connections(2));
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    let execute = |frames: Frames, number: usize| {
        frames
            .bind("", &format!("s{number}"), &[], &[], &[])
            .execute("", 0)
    };
    for (wire, mark) in [(&mut ana, "ana"), (&mut ben, "ben")] {
        let mut frames = Frames::new();
        for number in 0..STATEMENTS {
            frames = frames.parse(&format!("s{number}"), &format!("SELECT '{mark} {number}'"), &[]);
        }
        assert_eq!(wire.ask(&frames.sync()).tags(), "1".repeat(STATEMENTS) + "Z");
    }
    for round in 0..3 {
        for (wire, mark) in [(&mut ana, "ana"), (&mut ben, "ben")] {
            let mut frames = Frames::new();
            let mut expected = Vec::new();
            for number in (round..STATEMENTS).step_by(7) {
                let name = format!("s{number}");
                frames = execute(frames, number)
                    .close_statement(&name)
                    .close_statement("never there")
                    .parse(&name, &format!("SELECT '{mark} {number} {round}'"), &[]);
                frames = execute(frames, number);
                if number % 2 == 0 {
                    frames = frames.close_portal("").describe_statement(&name);
                }
                expected.push(format!("{mark} {number} {round}"));
            }
            let reply = wire.ask(&frames.sync());
            assert!(reply.error().is_none(), "{:?}", reply.error());
            let second: Vec<String> = reply
                .rows()
                .chunks(2)
                .map(|rows| rows[1][0].clone().unwrap_or_default())
                .collect();
            assert_eq!(second, expected);
        }
    }
    drop(ana);
    let mut next = stage.ana();
    assert_eq!(
        next.ask(&execute(Frames::new(), 1).sync()).sqlstate(),
        "26000",
        "nothing of it is left"
    );
}

#[test]
fn trap_06_an_error_is_told_once_and_ready_for_query_only_after_the_sync() {
    let stage = Stage::with(
        "CREATE TABLE t (a int)",
        &narrow().backend("checkout_timeout = \"200ms\""),
    );
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("BEGIN; INSERT INTO t VALUES (1)");
    // no connection is free: the error comes at once, what follows is skipped, nothing says ready before the Sync
    ben.send(&open_batch("ben").flush());
    let error = ben.read().expect("an error");
    assert_eq!((error.tag, error.field('C').as_str()), (b'E', "53300"));
    ben.send(&open_batch("ignored").flush());
    assert_eq!(ben.ask(&Frames::new().sync()).tags(), "Z");
    ana.run("COMMIT");
    // a Flush is not lost, and of two errors in one batch only the first is told
    ben.send(&Frames::new().parse("", "SELECT 1", &[]).flush());
    assert_eq!(ben.until(b'1').tags(), "1");
    let two = Frames::new()
        .parse("", "SELEKT", &[])
        .parse("", "SELEKT", &[])
        .flush()
        .bind("", "no such", &[], &[], &[])
        .sync();
    assert_eq!(ben.ask(&two).tags(), "EZ");
    assert_eq!(ben.value("SELECT 2"), "2");
}

#[test]
fn trap_07_four_times_as_many_clients_as_connections_cost_the_server_no_more() {
    const CONNECTIONS: usize = 2;
    const QUERIES: usize = 240;
    // what the server hears over the clients' connections, by the messages' letters
    let heard: Arc<Mutex<BTreeMap<char, usize>>> = Arc::default();
    let ears = Arc::clone(&heard);
    let address = interposed(server().address(), move |Said { by, message, login }| {
        let theirs = login
            .windows(GROWTH.0.len())
            .any(|part| part == GROWTH.0.as_bytes());
        if by == Side::Client && theirs {
            *ears.lock().unwrap().entry(char::from(message.tag)).or_default() += 1;
        }
        None
    });
    let setup = Setup::new().connections(CONNECTIONS).backend_address(address);
    let stage = Stage::with("CREATE TABLE t (a int)", &setup);
    // every connection that there may be
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    for wire in [&mut ana, &mut ben] {
        wire.run("BEGIN; SELECT 1");
    }
    for wire in [&mut ana, &mut ben] {
        wire.run("COMMIT");
    }
    for clients in [CONNECTIONS, 4 * CONNECTIONS] {
        let mut expected = heard.lock().unwrap().clone();
        side_by_side(&stage.gateway, &[ANA, BEN], clients, |wire, client| {
            for round in 0..QUERIES / clients {
                let mark = format!("{client} {round}");
                assert_eq!(wire.value(&format!("SELECT '{mark}'")), mark);
            }
        });
        *expected.entry('Q').or_default() += QUERIES;
        assert_eq!(*heard.lock().unwrap(), expected, "{clients} clients");
    }
}

#[test]
fn trap_07_above_capacity_every_connection_is_at_work_at_every_moment() {
    const CONNECTIONS: usize = 2;
    const CLIENTS: usize = 4 * CONNECTIONS;
    let stage = Stage::with("CREATE TABLE t (a int)", &Setup::new().connections(CONNECTIONS));
    let waiting = || {
        let series = "tollgate_pool_waiting{backend=\"warehouse\"}";
        usize::try_from(stage.gateway.metric(series)).unwrap()
    };
    let lock = stage.block("t");
    let mut line: VecDeque<Wire> = VecDeque::new();
    for count in 1..=CLIENTS {
        let mut wire = stage.ana();
        wire.send(&Frames::new().query("SELECT count(*) FROM t WHERE random() < 2"));
        line.push_back(wire);
        becomes(&count.saturating_sub(CONNECTIONS), waiting);
    }
    // who came first is served first; when one is done, the next one is at work
    for left in (0..=CLIENTS - CONNECTIONS).rev() {
        stage.await_blocked(CONNECTIONS);
        becomes(&left, waiting);
        if left > 0 {
            let mut first = line.pop_front().unwrap();
            first.cancel();
            assert_eq!(first.ready().sqlstate(), "57014");
        }
    }
    lock.release();
    for mut wire in line {
        assert_eq!(wire.ready().value(), "0");
    }
}

#[test]
fn trap_10_a_session_whose_reset_fails_takes_its_connection_with_it() {
    let stage = Stage::with("", &narrow());
    let mut ana = stage.ana();
    ana.run("SET DateStyle = 'German'");
    ana.run("CREATE TEMPORARY TABLE mine (a int)");
    let pid = stage.process();
    // whatever is sent to reset it meets a connection that has ended
    stage
        .superuser()
        .run(&format!("SELECT pg_terminate_backend({pid})"));
    stage.await_activity(&format!("pid = {pid}"), 0);
    drop(ana);
    let mut ben = stage.gateway.session(BEN);
    for _ in 0..3 {
        assert_eq!(ben.value("SHOW DateStyle"), "ISO, MDY");
        assert_ne!(stage.process(), pid);
        assert_eq!(ben.query("SELECT * FROM mine").sqlstate(), "42P01");
    }
}

// a backend of the kind is a PostgreSQL here, which would take what Redshift refuses: so its log is read
#[test]
fn trap_11_redshift_is_sent_nothing_that_it_does_not_know_between_two_sessions() {
    let database = crate::stage::database("");
    let mut superuser = Wire::login(
        server().address(),
        &Login::new(SUPERUSER, SUPERUSER_PASSWORD, &database),
    );
    superuser.run(&format!("ALTER DATABASE {database} SET log_statement = 'all'"));
    let gateway = Gateway::start(
        server(),
        &[&database],
        &narrow().backend("kind = \"redshift\"\ntls = \"off\""),
    );
    for left in [
        "CREATE TEMPORARY TABLE mine (a int)",
        "PREPARE mine AS SELECT 1",
        "LISTEN mine",
        "SET search_path TO mine",
        "SET DateStyle = 'German'",
    ] {
        let mut ana = gateway.session(ANA);
        ana.run(left);
        drop(ana);
        let mut ben = gateway.session(BEN);
        assert_eq!(ben.value("SHOW DateStyle"), "ISO, MDY", "after {left}");
        assert_eq!(ben.value("SHOW search_path"), "\"$user\", public", "after {left}");
        assert_eq!(
            ben.query("SELECT * FROM mine").sqlstate(),
            "42P01",
            "after {left}"
        );
        assert_eq!(ben.query("EXECUTE mine").sqlstate(), "26000", "after {left}");
        assert_eq!(
            ben.value("SELECT count(*) FROM pg_listening_channels()"),
            "0",
            "after {left}"
        );
    }
    let log = server().log();
    assert!(
        log.contains("statement: LISTEN mine"),
        "the log has what was sent"
    );
    // other tests' databases are not logged
    for unknown in ["DISCARD", "UNLISTEN", "DEALLOCATE ALL", "RESET ROLE", "CLOSE ALL"] {
        assert!(!log.contains(&format!("statement: {unknown}")), "{unknown}");
    }
}

#[test]
fn trap_15_statements_of_one_name_and_text_mean_what_their_sessions_mean() {
    let stage = Stage::with(
        "CREATE SCHEMA a; CREATE SCHEMA b;
         CREATE TABLE a.t AS SELECT 'a'::text AS v; CREATE TABLE b.t AS SELECT 7 AS v",
        &Setup::new().connections(3),
    );
    let mut sessions = [
        ("a", stage.ana()),
        ("b", stage.gateway.session(BEN)),
        ("a", stage.ana()),
    ];
    for (path, wire) in &mut sessions {
        wire.run(&format!("SET search_path = {path}"));
        let reply = wire.ask(
            &Frames::new()
                .parse("s", "SELECT * FROM t", &[])
                .describe_statement("s")
                .sync(),
        );
        assert_eq!(reply.tags(), "1tTZ");
    }
    let execute = Frames::new().bind("", "s", &[], &[], &[]).execute("", 0).sync();
    for _ in 0..3 {
        for (path, wire) in &mut sessions {
            let value = if *path == "a" { "a" } else { "7" };
            assert_eq!(wire.ask(&execute).value(), value);
        }
    }
    // what a client described is not what it would get now, so it must hear that
    stage.direct().run("ALTER TABLE a.t ADD COLUMN more int");
    for (path, wire) in &mut sessions {
        let reply = wire.ask(&execute);
        if *path == "a" {
            assert_eq!(reply.sqlstate(), "0A000", "{reply:?}");
            let again = Frames::new()
                .close_statement("s")
                .parse("s", "SELECT * FROM t", &[])
                .bind("", "s", &[], &[], &[])
                .execute("", 0)
                .sync();
            assert_eq!(wire.ask(&again).rows()[0].len(), 2);
        } else {
            assert_eq!(reply.value(), "7");
        }
    }
}

#[test]
fn trap_16_statements_without_end_do_not_fill_the_memory() {
    let stage = Stage::with("", &Setup::new().connections(2).log_level("info"));
    let mut ana = stage.ana();
    let mut number = 0;
    let mut more = |count: usize| {
        for _ in 0..count / 100 {
            let mut frames = Frames::new();
            for _ in 0..100 {
                number += 1;
                // as some drivers do: a name and a text of its own each time, closed or forgotten
                let name = if number % 4 == 0 {
                    format!("s{number}")
                } else {
                    String::new()
                };
                frames = frames
                    .parse(&name, &format!("SELECT {number} AS column_{number}"), &[])
                    .bind("", &name, &[], &[], &[])
                    .execute("", 0);
                if number % 8 == 0 {
                    frames = frames.close_statement(&name);
                }
            }
            let reply = ana.ask(&frames.sync());
            assert!(reply.error().is_none(), "{:?}", reply.error());
        }
    };
    more(2_000);
    let before = stage.gateway.resident_kib();
    more(8_000);
    let grown = stage.gateway.resident_kib().saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB more after 8,000 statements");
}

#[test]
fn trap_25_nothing_said_before_or_at_the_login_is_run_or_outlives_it() {
    let stage = Stage::with("CREATE TABLE t (a int)", &narrow());
    let address = stage.gateway.address();
    let login = Login::new(ANA.0, ANA.1, &stage.database);
    let evil = "public'; DROP TABLE t; --";
    for parameters in [
        [("search_path", evil)],
        [("options", "-c search_path=public';DROP\\ TABLE\\ t;--")],
        [("application_name", "x'; DROP TABLE t; --")],
        [("DateStyle", "ISO'; DROP TABLE t; --")],
    ] {
        // taken literally or refused, as by the server
        if let Ok(mut wire) = Wire::try_login(address, &login.clone().with(&parameters)) {
            assert_eq!(wire.value("SELECT 1"), "1");
            if parameters[0].0 == "search_path" {
                assert_eq!(wire.value("SHOW search_path"), evil);
            }
        }
        let mut ben = stage.gateway.session(BEN);
        assert_eq!(ben.value("SELECT count(*) FROM t"), "0");
        assert_eq!(ben.value("SHOW search_path"), "\"$user\", public");
    }
    // the console is for administrators
    let error = refused(&stage.gateway, &Login::new(ANA.0, ANA.1, "tollgate"));
    assert_eq!(error.field('S'), "FATAL");
    // a packet that announces far more than it may hold, from somebody unknown
    let mut stranger = Wire::connect(address);
    let mut packet = startup(0, &[("user", "ana")]);
    packet[..4].copy_from_slice(&[0x3f, 0xff, 0xff, 0xff]);
    stranger.send(&packet);
    assert!(stranger.rest().len() < 500);
    becomes(&"1".to_owned(), || stage.ana().value("SELECT 1"));
}

#[test]
fn trap_14_what_drivers_send_at_their_start_does_not_break_the_console() {
    let stage = Stage::new();
    let mut console = stage.gateway.console();
    for sql in [
        "SET extra_float_digits = 3",
        "SET application_name = 'PostgreSQL JDBC Driver'",
        "SET application_name TO ''",
        "SET client_encoding TO 'UTF8'",
        "SET DateStyle TO 'ISO'",
        "SET statement_timeout = 0",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SHOW transaction_isolation",
        "BEGIN",
        "SELECT 1",
        "ROLLBACK",
    ] {
        let simple = console.query(sql);
        assert!(simple.error().is_none(), "{sql}: {simple:?}");
        let extended = console.extended(sql, &[], &[]);
        assert!(extended.error().is_none(), "{sql}, extended: {extended:?}");
    }
    assert!(!console.run("SHOW VERSION").rows().is_empty());
}
