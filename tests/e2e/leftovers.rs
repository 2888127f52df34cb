//! What a client that vanishes, an error or a rollback leaves behind: nothing that the next one meets, and nothing less than
//! what is still there.

use std::net::Shutdown;
use std::time::Duration;

use socket2::SockRef;

use crate::relay::narrow;
use crate::stage::{Stage, direct};
use crate::support::frames::Frames;
use crate::support::gateway::{ANA, BEN, Setup};
use crate::support::http;
use crate::support::wait::becomes;
use crate::support::wire::{Login, Reply, Wire};

/// How a client vanishes.
#[derive(Clone, Copy, Debug)]
enum End {
    Closed,
    Reset,
    /// It says no more, before it closes.
    HalfClosed,
}

impl End {
    const ALL: [Self; 3] = [Self::Closed, Self::Reset, Self::HalfClosed];

    fn of(self, wire: Wire) {
        let socket = wire.into_socket();
        match self {
            Self::Closed => {}
            Self::Reset => SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap(),
            Self::HalfClosed => socket.shutdown(Shutdown::Write).unwrap(),
        }
    }
}

/// When it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// With the last byte of its message.
    AtOnce,
    /// In the middle of its message.
    Half,
    /// In the middle of a message that is too long to be held.
    HalfOfLong,
    /// While another statement of the same message waits.
    Within,
    /// While the message behind it waits.
    Behind,
}

impl When {
    const ALL: [Self; 5] = [
        Self::AtOnce,
        Self::Half,
        Self::HalfOfLong,
        Self::Within,
        Self::Behind,
    ];
}

/// In which protocol it asks.
#[derive(Clone, Copy, Debug)]
enum Protocol {
    Simple,
    Extended,
}

/// Everything that a session has beside rows, as one row; none of the names that are compared is the gateway's.
const LEFT: &str = "SELECT current_setting('TimeZone'), current_user, session_user,
    (SELECT count(*) FROM pg_listening_channels()),
    (SELECT count(*) FROM pg_prepared_statements WHERE name NOT LIKE 'tollgate%'),
    (SELECT count(*) FROM pg_cursors),
    (SELECT count(*) FROM pg_class WHERE relname = 'mine')";

/// Locks that a session holds; one whose client is gone may take a moment to end.
const LOCKS: &str = "SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// A blocked table, and a role that `growth` may take on.
fn stage(setup: &Setup) -> (Stage, String) {
    let stage = Stage::with("CREATE TABLE t (a int); CREATE TABLE locked (a int)", setup);
    let role = format!("{}_other", stage.database);
    stage.superuser().run(&format!(
        "CREATE ROLE {role}; GRANT {role} TO growth; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    ));
    (stage, role)
}

fn clients(stage: &Stage) -> u64 {
    let (_, metrics) = http::get(stage.gateway.http(), "/metrics");
    metrics
        .lines()
        .filter_map(|line| line.strip_prefix("tollgate_clients{")?.rsplit_once(' '))
        .map(|(_, value)| value.trim_end_matches(".0").parse::<u64>().unwrap())
        .sum()
}

fn frames(sql: &str, protocol: Protocol) -> Frames {
    match protocol {
        Protocol::Simple => Frames::new().query(sql),
        Protocol::Extended => Frames::new().unnamed(sql).sync(),
    }
}

/// Asks for `sql` and vanishes.
fn vanish(stage: &Stage, sql: &str, protocol: Protocol, when: When, end: End) {
    let mut ana = stage.ana();
    match when {
        When::AtOnce => ana.send(&frames(sql, protocol)),
        When::Half => {
            let bytes = frames(sql, protocol);
            ana.send(&bytes[..bytes.len() / 2]);
        }
        When::HalfOfLong => {
            let bytes = frames(&format!("{sql} /* {} */", "x".repeat(3 << 20)), protocol);
            ana.send(&bytes[..bytes.len() / 2]);
        }
        When::Within => {
            let lock = stage.block("locked");
            match protocol {
                Protocol::Simple => ana.send(&Frames::new().query(&format!("{sql}; SELECT a FROM locked"))),
                Protocol::Extended => {
                    let series = |frames: Frames, sql: &str| frames.unnamed(sql);
                    ana.send(&series(series(Frames::new(), sql), "SELECT a FROM locked").sync());
                }
            }
            stage.await_blocked(1);
            end.of(ana);
            // its query is cancelled, although the lock is held
            stage.await_blocked(0);
            lock.release();
            return;
        }
        When::Behind => {
            let lock = stage.block("locked");
            let mut bytes = frames(sql, protocol).to_vec();
            bytes.extend_from_slice(&frames("SELECT a FROM locked", protocol));
            ana.send(&bytes);
            stage.await_blocked(1);
            end.of(ana);
            stage.await_blocked(0);
            lock.release();
            return;
        }
    }
    end.of(ana);
}

fn what_vanishes(protocol: Protocol) {
    let (stage, role) = stage(&narrow());
    let mut next = stage.gateway.session(BEN);
    let fresh = next.run(LEFT).rows();
    for sql in [
        "SET TimeZone = 'Asia/Tokyo'",
        "SELECT set_config('TimeZone', 'Asia/Tokyo', false)",
        &format!("SET ROLE {role}"),
        "LISTEN x",
        "SELECT pg_advisory_lock(1)",
        "CREATE TEMP TABLE mine (a int)",
        "SELECT 1 AS a INTO TEMP mine",
        "PREPARE p AS SELECT 1",
        "DECLARE c CURSOR WITH HOLD FOR SELECT a FROM t",
        "DO $$ BEGIN PERFORM set_config('TimeZone', 'Asia/Tokyo', false); PERFORM pg_advisory_lock(2); END $$",
    ] {
        for when in When::ALL {
            for end in End::ALL {
                let what = format!("{sql}, {protocol:?}, {when:?}, {end:?}");
                vanish(&stage, sql, protocol, when, end);
                // only when it is gone, so that the next does not come first
                becomes(&1, || clients(&stage));
                assert_eq!(next.run(LEFT).rows(), fresh, "{what}");
                becomes(&(&*what, "0".to_owned()), || (&*what, next.value(LOCKS)));
            }
        }
    }
}

each! { what_vanishes:
    the_next_client_meets_nothing_of_one_that_vanished = Protocol::Simple;
    the_next_client_meets_nothing_of_one_that_vanished_in_the_extended_protocol = Protocol::Extended;
}

#[test]
fn a_session_whose_unlisten_was_rolled_back_still_hears() {
    for undo in [
        &["BEGIN", "UNLISTEN *", "ROLLBACK"][..],
        &["BEGIN; UNLISTEN *; ROLLBACK"],
        &["BEGIN; UNLISTEN x; ROLLBACK"],
        &["BEGIN", "UNLISTEN *; ROLLBACK"],
        &["BEGIN", "UNLISTEN x", "SELECT 1/0", "COMMIT"],
        &["BEGIN", "SAVEPOINT s", "UNLISTEN *", "ROLLBACK TO s", "COMMIT"],
        &["UNLISTEN *; SELECT 1/0"],
    ] {
        let stage = Stage::with("", &Setup::new().connections(2));
        let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
        ana.run("LISTEN x");
        for sql in undo {
            let reply = ana.query(sql);
            assert!(reply.error().is_none() || sql.contains("1/0"), "{reply:?}");
        }
        let listens = stage
            .gateway
            .console()
            .query("SHOW CLIENTS")
            .rows()
            .iter()
            .filter(|row| row.iter().flatten().any(|field| field == "listen"))
            .count();
        assert_eq!(listens, 1, "{undo:?}");
        for word in ["one", "two"] {
            ben.run(&format!("NOTIFY x, '{word}'"));
            let message = ana.read().unwrap();
            assert_eq!(message.tag, b'A', "{undo:?}: {message:?}");
            assert!(
                message.body.ends_with(format!("x\0{word}\0").as_bytes()),
                "{message:?}"
            );
        }
        assert_eq!(ana.value("SELECT count(*) FROM pg_listening_channels()"), "1");
    }
}

/// One error and the end of the series, and nothing else.
fn refused(reply: &Reply, sqlstate: &str, status: char, what: &str) {
    assert_eq!(
        (reply.tags().as_str(), reply.sqlstate().as_str(), reply.status()),
        ("EZ", sqlstate, status),
        "{what}: {reply:?}"
    );
}

#[test]
fn a_statement_that_cannot_be_prepared_again_leaves_settings_as_they_are() {
    let use_it = || Frames::new().bind("", "s1", &[], &[], &[]).execute("", 0);
    for (what, frames) in [
        ("bound", use_it().sync()),
        ("described", Frames::new().describe_statement("s1").sync()),
        (
            "bound twice",
            use_it().bind("", "s1", &[], &[], &[]).execute("", 0).sync(),
        ),
        (
            "with another behind it",
            use_it().parse("", "SELECT 1", &[]).sync(),
        ),
    ] {
        let stage = Stage::with("CREATE TABLE t (a timestamptz)", &narrow());
        let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
        let default = ben.value("SHOW TimeZone");
        ana.run("SET TimeZone = 'Asia/Tokyo'");
        let parsed = ana.ask(
            &Frames::new()
                .parse("s1", "SELECT a FROM t", &[])
                .describe_statement("s1")
                .sync(),
        );
        assert_eq!(parsed.tags(), "1tTZ", "{what}");
        ana.run("SET TimeZone = 'UTC'");
        ben.run("DROP TABLE t");
        for _ in 0..2 {
            refused(&ana.ask(&frames), "42P01", 'I', what);
            // right afterwards, and nothing is left to be read
            assert_eq!(ana.value("SHOW TimeZone"), "UTC", "{what}");
            assert_eq!(ben.value("SHOW TimeZone"), default, "{what}");
        }
        refused(&ana.ask(&frames), "42P01", 'I', what);
        assert_eq!(ben.value("SHOW TimeZone"), default, "{what}");
        // as soon as it can be prepared again, it is as its client prepared it
        ben.run("CREATE TABLE t (a timestamptz); INSERT INTO t VALUES ('2020-01-01 00:00:00+00')");
        let answer = ana.ask(&use_it().sync());
        assert_eq!(answer.value(), "2020-01-01 00:00:00+00", "{what}");
        assert_eq!(ana.value("SHOW TimeZone"), "UTC", "{what}");
        assert_eq!(ben.value("SHOW TimeZone"), default, "{what}");
    }
}

#[test]
fn a_failed_transaction_gets_no_answer_from_memory() {
    const COUNT: &str = "SELECT count(*) FROM t";
    let stage = Stage::with("CREATE TABLE t (a int); INSERT INTO t VALUES (1)", &narrow());
    let mut ana = stage.ana();
    let bound = Frames::new()
        .bind("", "counted", &[], &[], &[])
        .execute("", 0)
        .sync();
    ana.ask(&Frames::new().parse("counted", COUNT, &[]).sync());
    for _ in 0..2 {
        assert_eq!(ana.value(COUNT), "1");
        assert_eq!(ana.extended(COUNT, &[], &[]).value(), "1");
        assert_eq!(ana.ask(&bound).value(), "1");
    }
    assert_eq!(ana.verdict(), "hit");
    for (fail, sqlstate) in [
        (&["BEGIN", "SELECT 1/0"][..], "22012"),
        (&["BEGIN; SELECT 1/0"], "22012"),
        (&["BEGIN; SELECT 1/0;"], "22012"),
        // a hit before the error, so that the server hears of the BEGIN late, or of nothing
        (&["BEGIN", COUNT, "SELECT 1/0"], "22012"),
        (&["BEGIN", "SELECT lastval()"], "0A000"),
        (&["BEGIN", COUNT, "SELECT lastval()"], "0A000"),
        (&["BEGIN", "SELECT 1", "SELECT lastval()"], "0A000"),
        (&["BEGIN", "SAVEPOINT s", "SELECT 1/0"], "22012"),
    ] {
        let mut failed = Vec::new();
        for sql in fail {
            failed.push(ana.query(sql).sqlstate());
        }
        assert_eq!(failed.last().map(String::as_str), Some(sqlstate), "{fail:?}");
        for _ in 0..2 {
            refused(&ana.query(COUNT), "25P02", 'E', "simple");
            refused(&ana.extended(COUNT, &[], &[]), "25P02", 'E', "extended");
            refused(&ana.ask(&bound), "25P02", 'E', "prepared");
        }
        assert_eq!(ana.run("ROLLBACK").status(), 'I', "{fail:?}");
        assert_eq!(ana.value(COUNT), "1");
    }
}

/// Calls `pi()`, which has no arguments, and wants text.
fn function_call(frames: Frames) -> Frames {
    const PI: u32 = 1610;
    frames.frame(b'F', &[&PI.to_be_bytes(), &[0; 6]])
}

#[test]
fn a_function_call_in_a_transaction_that_the_gateway_made_fail_is_answered() {
    let stage = Stage::with("", &narrow());
    let mut direct = direct(&stage.database);
    for begin in [&["BEGIN"][..], &["BEGIN", "SELECT 1"]] {
        for _ in 0..2 {
            let mut ana = stage.ana();
            for sql in begin {
                ana.run(sql);
                direct.run(sql);
            }
            refused(&ana.query("SELECT lastval()"), "0A000", 'E', "lastval");
            // the same message as the server's, after an error of its own
            direct.query("SELECT 1/0");
            for _ in 0..2 {
                let (here, there) = (
                    ana.ask(&function_call(Frames::new())),
                    direct.ask(&function_call(Frames::new())),
                );
                refused(&here, "25P02", 'E', "a function call");
                assert_eq!(
                    here.error().unwrap().field('M'),
                    there.error().unwrap().field('M')
                );
            }
            // in one packet with what comes behind it, also with the end of the transaction
            ana.send(&function_call(function_call(Frames::new()).query("SELECT 1")).query("ROLLBACK"));
            for _ in 0..3 {
                refused(&ana.ready(), "25P02", 'E', "in one packet");
            }
            assert_eq!(ana.ready().status(), 'I');
            direct.run("ROLLBACK");
            // the connection is free
            assert_eq!(stage.gateway.session(BEN).value("SELECT 1"), "1");
            assert_eq!(ana.ask(&function_call(Frames::new())).tags(), "VZ");
        }
    }
}

#[test]
fn the_empty_query_in_a_transaction_that_the_gateway_made_fail_is_as_at_the_server() {
    let stage = Stage::with("", &narrow());
    let mut direct = direct(&stage.database);
    let mut ana = stage.ana();
    let prepared = |name: &str, sql: &str| Frames::new().parse(name, sql, &[]);
    let bind = |frames: Frames, name: &str| frames.bind("", name, &[], &[], &[]).execute("", 0).sync();
    for wire in [&mut ana, &mut direct] {
        wire.ask(&prepared("empty", "").sync());
        wire.ask(&prepared("one", "SELECT 1").sync());
    }
    // heard of by the server before the error or not; what is bound before it is there behind it
    let begin = || Frames::new().query("BEGIN");
    let bound = || {
        Frames::new()
            .bind("b", "empty", &[], &[], &[])
            .execute("b", 0)
            .sync()
    };
    for before in [
        &[begin()][..],
        &[begin(), Frames::new().query("SELECT 1")],
        &[begin(), bound()],
    ] {
        for frames in before {
            assert_eq!(ana.ask(frames).tags(), direct.ask(frames).tags());
        }
        refused(&ana.query("SELECT lastval()"), "0A000", 'E', "lastval");
        direct.query("SELECT 1/0");
        for (what, frames) in [
            ("prepared", prepared("", "").sync()),
            (
                "described",
                prepared("", " -- nothing\n;;").describe_statement("").sync(),
            ),
            (
                "described by name",
                Frames::new().describe_statement("empty").sync(),
            ),
            ("bound", bind(Frames::new(), "empty")),
            ("prepared and bound", bind(prepared("", ""), "")),
            (
                "prepared, and something else bound",
                bind(prepared("", ""), "one"),
            ),
            ("run", Frames::new().execute("b", 0).sync()),
            (
                "described and run",
                Frames::new().describe_portal("b").execute("b", 0).sync(),
            ),
            ("asked for", Frames::new().query("")),
            ("asked for in other words", Frames::new().query(" ; -- nothing")),
            ("something else prepared", prepared("", "SELECT 1").sync()),
        ] {
            for _ in 0..2 {
                let (here, there) = (ana.ask(&frames), direct.ask(&frames));
                assert_eq!(
                    (here.tags(), here.sqlstate(), here.status()),
                    (there.tags(), there.sqlstate(), there.status()),
                    "{what}"
                );
            }
        }
        assert_eq!(ana.run("ROLLBACK").status(), 'I');
        direct.run("ROLLBACK");
    }
}

#[test]
fn an_error_of_the_gateway_undoes_the_transaction_as_one_of_the_server_does() {
    let stage = Stage::with("CREATE TABLE t (a int)", &narrow());
    let mut ana = stage.ana();
    let count = |wire: &mut Wire| wire.value("SELECT count(*) FROM t");
    let extended = |sql: &str| frames(sql, Protocol::Extended);
    for (refused_with, request) in [
        (
            "0A000",
            Frames::new()
                .parse("", "SHOW tollgate.last", &[])
                .parse("", "SELECT 1", &[])
                .sync(),
        ),
        ("22023", Frames::new().query("SET tollgate.cache = 'perhaps'")),
        ("22023", extended("SET tollgate.cache = 'perhaps'")),
        ("42704", extended("SHOW tollgate.nothing")),
        ("26000", Frames::new().bind("", "nowhere", &[], &[], &[]).sync()),
        ("34000", Frames::new().execute("nowhere", 0).sync()),
    ] {
        for first in ["SELECT 1", "SELECT a FROM t", "INSERT INTO t VALUES (1)", ""] {
            let what = format!("{first}, {request:?}");
            ana.run("BEGIN");
            if !first.is_empty() {
                ana.run(first);
            }
            let reply = ana.ask(&request);
            assert_eq!(
                (reply.sqlstate().as_str(), reply.status()),
                (refused_with, 'E'),
                "{what}: {reply:?}"
            );
            refused(&ana.query("INSERT INTO t VALUES (2)"), "25P02", 'E', &what);
            refused(&ana.query("SHOW tollgate.last"), "25P02", 'E', &what);
            refused(&ana.ask(&extended("SHOW tollgate.cache")), "25P02", 'E', &what);
            assert_eq!(ana.run("COMMIT").completions(), ["ROLLBACK"], "{what}");
            assert_eq!(count(&mut ana), "0", "{what}");
        }
    }
    // a savepoint helps
    ana.run("BEGIN");
    ana.run("INSERT INTO t VALUES (1)");
    ana.run("SAVEPOINT s");
    ana.run("INSERT INTO t VALUES (2)");
    refused(
        &ana.query("SET tollgate.cache = 'perhaps'"),
        "22023",
        'E',
        "within a savepoint",
    );
    assert_eq!(ana.run("ROLLBACK TO s").status(), 'T');
    assert_eq!(ana.run("COMMIT").completions(), ["COMMIT"]);
    assert_eq!(count(&mut ana), "1");
    assert_eq!(stage.gateway.session(BEN).value("SELECT a FROM t"), "1");
}

#[test]
fn what_was_done_before_an_error_within_is_not_left_behind() {
    let stage = Stage::with(
        "CREATE FUNCTION locks() RETURNS int LANGUAGE plpgsql AS $$
         BEGIN PERFORM pg_advisory_lock(3); EXECUTE 'SELEC'; RETURN 1; END $$;
         CREATE FUNCTION long() RETURNS int LANGUAGE plpgsql AS $$
         BEGIN PERFORM pg_advisory_lock(4);
         RAISE EXCEPTION '%', repeat('x', 3000000) USING ERRCODE = '26000'; END $$",
        &narrow(),
    );
    let oid: u32 = stage
        .direct()
        .value("SELECT 'locks'::regproc::oid")
        .parse()
        .unwrap();
    let long = format!("/* {} */", "x".repeat(2 << 20));
    for (sqlstate, frames) in [
        ("42601", Frames::new().frame(b'F', &[&oid.to_be_bytes(), &[0; 6]])),
        // texts that are not read
        ("42601", Frames::new().query(&format!("SELECT locks() {long}"))),
        ("26000", Frames::new().query(&format!("SELECT long() {long}"))),
    ] {
        let mut ana = stage.ana();
        let reply = ana.ask(&frames);
        assert_eq!(reply.sqlstate(), sqlstate, "{reply:?}");
        assert_eq!(
            ana.value(LOCKS),
            "1",
            "it holds the lock, as it would on a connection of its own"
        );
        drop(ana);
        let mut next = stage.gateway.session(BEN);
        becomes(&"0".to_owned(), || next.value(LOCKS));
    }
}

#[test]
fn errors_do_not_let_a_connections_statements_grow_beyond_their_limit() {
    const LIMIT: usize = 3;
    let setup = narrow().backend(&format!("max_prepared_statements = {LIMIT}"));
    let stage = Stage::with("CREATE TABLE t (a int)", &setup);
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    let fails = |frames: Frames, round: usize| match round % 3 {
        0 => frames.unnamed("SELECT 1/0"),
        1 => frames.parse("", "SELEC", &[]),
        _ => frames.bind("", "nowhere", &[], &[], &[]),
    };
    let mut most = 0;
    for round in 0..60 {
        let name = format!("s{round}");
        let sql = format!("SELECT {round}");
        let bound = |frames: Frames| frames.bind("", &name, &[], &[], &[]).execute("", 0);
        // behind the error, so that what gives way is not closed; then whole; then before the error
        let behind = fails(Frames::new(), round).parse(&name, &sql, &[]);
        assert_eq!(ana.ask(&bound(behind).sync()).status(), 'I');
        if round % 4 == 0 {
            let reply = ana.ask(&bound(Frames::new().parse(&name, &sql, &[])).sync());
            assert_eq!(reply.value(), round.to_string());
        } else if round % 4 == 1 {
            let before = bound(Frames::new().parse(&name, &sql, &[]));
            ana.ask(&fails(before, round).sync());
        }
        if round % 7 == 0 {
            // all of them are prepared again
            ben.run("ALTER TABLE t ADD COLUMN b int; ALTER TABLE t DROP COLUMN b");
        }
        let there: usize = ben
            .value("SELECT count(*) FROM pg_prepared_statements")
            .parse()
            .unwrap();
        assert!(there <= LIMIT, "{there} statements after round {round}");
        most = most.max(there);
    }
    assert!(most >= LIMIT - 1, "it shared statements at all");
    // what was prepared first works as ever
    for round in [0, 4, 8, 56] {
        let name = format!("s{round}");
        let reply = ana.ask(&Frames::new().bind("", &name, &[], &[], &[]).execute("", 0).sync());
        assert_eq!(reply.value(), round.to_string());
    }
}

#[test]
fn an_error_of_the_gateway_undoes_its_series() {
    let stage = Stage::with("CREATE TABLE t (a int)", &narrow());
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    let batch = |sql: &str| Frames::new().unnamed(sql);
    let write = || batch("INSERT INTO t VALUES (1)");
    let default = ben.value("SHOW TimeZone");
    for sql in ["SET tollgate.cache = 'perhaps'", "SHOW tollgate.last"] {
        for (begin, end) in [(false, 'I'), (true, 'E')] {
            // its Sync comes with the error, behind it, and after another part
            for parts in 0..3 {
                let what = format!("{sql}, {begin}, {parts}");
                if begin {
                    ana.run("BEGIN");
                }
                for first in [write(), batch("SET TimeZone = 'Asia/Tokyo'")] {
                    ana.send(&first.flush());
                    assert_eq!(ana.until(b'C').tags(), "12C", "{what}");
                }
                let series = batch(sql);
                let reply = match parts {
                    0 => ana.ask(&series.sync()),
                    1 => {
                        ana.send(&series.flush());
                        let mut reply = ana.until(b'E');
                        reply.0.extend(ana.ask(&Frames::new().sync()).0);
                        reply
                    }
                    _ => {
                        ana.send(&series.flush());
                        let mut reply = ana.until(b'E');
                        reply.0.extend(ana.ask(&write().flush().sync()).0);
                        reply
                    }
                };
                assert_eq!(
                    (reply.tags().as_str(), reply.status()),
                    ("EZ", end),
                    "{what}: {reply:?}"
                );
                if begin {
                    refused(&ana.query("SELECT a FROM t"), "25P02", 'E', &what);
                    assert_eq!(ana.run("COMMIT").completions(), ["ROLLBACK"], "{what}");
                }
                for wire in [&mut ben, &mut ana] {
                    assert_eq!(wire.value("SELECT count(*) FROM t"), "0", "{what}");
                    assert_eq!(wire.value("SHOW TimeZone"), default, "{what}");
                }
            }
        }
    }
}

/// Functions of users, each of which leaves something of the session's.
const CODE: &str = "
    CREATE SCHEMA evil; CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2), (3); CREATE TABLE evil.t (a int);
    CREATE FUNCTION take_path() RETURNS text LANGUAGE sql AS $$ SELECT set_config('search_path', 'evil', false) $$;
    CREATE FUNCTION zone() RETURNS text LANGUAGE sql AS $$ SELECT set_config('TimeZone', 'Asia/Tokyo', false) $$;
    CREATE FUNCTION lock_it() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(1); RETURN 1; END $$;
    CREATE FUNCTION make_it() RETURNS int LANGUAGE plpgsql AS $$
        BEGIN CREATE TEMP TABLE t (a int); CREATE TEMP TABLE mine (a int); RETURN 1; END $$;";

#[test]
fn what_code_and_other_ways_of_setting_leave_meets_nobody() {
    let stage = Stage::with(CODE, &narrow());
    let role = format!("{}_other", stage.database);
    stage
        .superuser()
        .run(&format!("CREATE ROLE {role}; GRANT {role} TO growth"));
    let looks = format!(
        "SELECT l::text FROM ({LEFT}, current_setting('search_path'), (SELECT count(*) FROM t), ({LOCKS}),
            (SELECT count(*) FROM pg_type WHERE typnamespace = pg_my_temp_schema()),
            (SELECT count(*) FROM pg_proc WHERE pronamespace = pg_my_temp_schema())) AS l"
    );
    let clean = stage.ana().value(&looks);
    assert!(clean.ends_with(",3,0,0,0)"), "{clean}");
    let of_role = format!("PREPARE p AS SELECT set_config('role', '{role}', false)");
    for left in [
        &["SELECT public.take_path()"][..],
        &["SELECT zone() FROM t"],
        &["SELECT lock_it()"],
        &["SELECT make_it()"],
        &["SELECT query_to_xml('SELECT set_config(''search_path'', ''evil'', false)', true, true, '')"],
        &[&of_role, "EXECUTE p", "DEALLOCATE p"],
        &[
            "PREPARE p AS SELECT pg_advisory_lock(1)",
            "EXECUTE p",
            "DEALLOCATE p",
        ],
        &[
            "PREPARE p AS SELECT public.take_path()",
            "EXECUTE p",
            "DEALLOCATE p",
        ],
        &[
            "PREPARE p AS SELECT public.take_path()",
            "EXPLAIN ANALYZE EXECUTE p",
            "DEALLOCATE p",
        ],
        &["UPDATE pg_settings SET setting = 'evil' WHERE name = 'search_path'"],
        &[
            "SELECT pg_advisory_lock(1)",
            "SELECT pg_advisory_unlock_all() WHERE false",
        ],
        &[
            "SELECT pg_advisory_lock(1)",
            "EXPLAIN SELECT pg_advisory_unlock_all()",
        ],
        &["CREATE TABLE U&\"pg\\005ftemp\".t (a int)"],
        &["CREATE TABLE U&\"pg!005ftemp\" UESCAPE '!'.t (a int)"],
        &["CREATE DOMAIN pg_temp.text AS varchar(2)"],
        &["CREATE TYPE pg_temp.mood AS ENUM ('well')"],
        &["CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"],
        &[
            "CREATE TEMP TABLE first (a int)",
            "DISCARD TEMP",
            "CREATE TABLE pg_temp_{temp}.t (a int)",
        ],
        &[
            "SET search_path = pg_temp",
            "CREATE TABLE mine (a int)",
            "RESET search_path",
        ],
        &["BEGIN; SET LOCAL search_path = 'pg_temp'; CREATE TABLE mine (a int); COMMIT"],
        &[
            "SELECT set_config('search_path', 'pg_temp', false)",
            "CREATE TABLE mine (a int)",
            "RESET search_path",
        ],
    ] {
        let mut ana = stage.ana();
        for sql in left {
            let temp = sql.contains("{temp}").then(|| {
                let number = "SELECT regexp_replace(nspname, '\\D', '', 'g') FROM pg_namespace
                    WHERE nspname ~ '^pg_temp_' ORDER BY oid LIMIT 1";
                ana.value(number)
            });
            let sql = sql.replace("{temp}", &temp.unwrap_or_default());
            let reply = ana.query(&sql);
            assert!(!reply.tags().contains('E'), "{sql}: {reply:?}");
        }
        drop(ana);
        let mut ben = stage.gateway.session(BEN);
        assert_eq!(ben.value(&looks), clean, "after {left:?}");
        // and what ben is answered is kept for nobody else
        assert_eq!(ben.value("SELECT count(*) FROM t"), "3", "after {left:?}");
    }
}

#[test]
fn a_session_that_asks_to_be_ended_when_idle_is_ended_and_no_other() {
    let stage = Stage::with("", &Setup::new().connections(2));
    stage.gateway.expect_log("backend lost");
    let mut ben = stage.gateway.session(BEN);
    let setting = [("idle_session_timeout", "1ms")];
    let start = Login::new(ANA.0, ANA.1, &stage.database).with(&setting);
    for at_start in [false, true] {
        let mut ana = if at_start {
            Wire::login(stage.gateway.address(), &start)
        } else {
            let mut ana = stage.ana();
            ana.run("SET idle_session_timeout = '1ms'");
            ana
        };
        if at_start {
            // from its first query on it has a connection
            ana.send(&Frames::new().query("SELECT 1"));
        }
        let end = String::from_utf8_lossy(&ana.rest()).into_owned();
        assert!(end.contains("C57P05"), "at the start: {at_start}: {end:?}");
        for _ in 0..20 {
            assert_eq!(ben.value("SELECT 1"), "1");
        }
    }
}

#[test]
fn what_the_server_reads_anew_is_noticed() {
    let stage = Stage::with(
        "CREATE TABLE t AS SELECT timestamptz '2024-01-01 12:00+00' AS at",
        &narrow(),
    );
    let ask = "SELECT max(at) FROM t";
    let mut ana = stage.ana();
    let before = ana.value(ask);
    assert_eq!(ana.value(ask), before);
    stage
        .superuser()
        .run("GRANT EXECUTE ON FUNCTION pg_reload_conf() TO growth");
    ana.run("SELECT pg_reload_conf()");
    assert_eq!(ana.value(ask), before);
    assert_ne!(ana.last().0, "hit");
}

#[test]
fn a_statement_whose_settings_cannot_be_set_again_is_not_prepared_under_others() {
    const ROWS: &str =
        "CREATE TABLE t (at timestamptz); CREATE TEXT SEARCH CONFIGURATION own (COPY = simple);
        INSERT INTO t VALUES ('2024-01-01 00:00+00'), ('2023-12-31 16:00+00')";
    let stage = Stage::with(ROWS, &Setup::new().connections(2));
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("SET TimeZone = 'Asia/Tokyo'; SET default_text_search_config = 'public.own'");
    let text = "SELECT count(*) FROM t WHERE at >= '2024-01-01 00:00'";
    let use_it = Frames::new().bind("", "s1", &[], &[], &[]).execute("", 0).sync();
    assert_eq!(ana.ask(&Frames::new().parse("s1", text, &[]).sync()).tags(), "1Z");
    assert_eq!(ana.ask(&use_it).value(), "2");
    ana.run("RESET TimeZone; RESET default_text_search_config");
    stage.superuser().run("DROP TEXT SEARCH CONFIGURATION own");
    // at another connection
    ben.run("BEGIN");
    ben.run("LOCK TABLE t IN ACCESS SHARE MODE");
    for _ in 0..3 {
        refused(&ana.ask(&use_it), "22023", 'I', "the configuration is gone");
    }
    ben.run("COMMIT");
}

#[test]
fn a_client_is_read_by_the_rule_that_it_was_told() {
    let stage = Stage::with("", &narrow());
    let mut ana = stage.ana();
    assert_eq!(ana.value("SELECT length('\\')"), "1");
    // unseen, and then a new connection
    let alter = |value: &str| {
        format!(
            "DO $$ BEGIN ALTER ROLE growth IN DATABASE {} {value}; END $$",
            stage.database
        )
    };
    stage
        .superuser()
        .run(&alter("SET standard_conforming_strings = off"));
    stage.gateway.console().run("RECONNECT");
    assert_eq!(ana.value("SELECT length('\\')"), "1");
    drop(ana);
    let mut ben = stage.gateway.session(BEN);
    let told = ben
        .greeting
        .parameter("standard_conforming_strings")
        .map(str::to_owned);
    assert_eq!(
        told.as_deref(),
        Some(&*ben.value("SHOW standard_conforming_strings"))
    );
    assert_eq!(told.as_deref(), Some("off"));
}

#[test]
fn settings_of_clients_own_may_have_any_name() {
    let stage = Stage::with("", &narrow());
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    for name in ["app.user", "select.from", "app.É", "app.é"] {
        let set = |value: &str| format!("SELECT set_config('{name}', '{value}', false)");
        let show = format!("SELECT coalesce(current_setting('{name}', true), '')");
        for wire in [&mut ana, &mut ben] {
            assert_eq!(wire.value(&show), "", "{name}");
        }
        ana.run(&set("hers"));
        ben.run(&set("his"));
        assert_eq!(ana.value(&show), "hers", "{name}");
        assert_eq!(ben.value(&show), "his", "{name}");
    }
}

#[test]
fn the_encoding_of_one_client_does_not_change_what_another_has_set() {
    const SCHEMAS: &str = "CREATE SCHEMA \"größe\"; CREATE TABLE \"größe\".t AS SELECT 1 AS a;
        CREATE TABLE t AS SELECT generate_series(1, 10) AS a;";
    let stage = Stage::with(SCHEMAS, &Setup::new().connections(2));
    let ask = |wire: &mut Wire| wire.value("SELECT count(*) || current_setting('app.mark') FROM t");
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("SET search_path TO \"größe\", public; SET app.mark = 'é'");
    for encoding in ["latin1", "sjis", "euc_jp"] {
        ben.run(&format!("SET client_encoding = {encoding}"));
        ben.run("SELECT 1");
        assert_eq!(ask(&mut ana), "1é", "behind {encoding}");
    }
    drop(ana);
    // at the start, and at the only connection
    let stage = Stage::with(SCHEMAS, &narrow());
    let path = [("search_path", "\"größe\", public")];
    let login = Login::new(ANA.0, ANA.1, &stage.database).with(&path);
    let mut ana = Wire::login(stage.gateway.address(), &login);
    let mut ben = stage.gateway.session(BEN);
    for encoding in ["latin1", "euc_jp"] {
        ben.run(&format!("SET client_encoding = {encoding}"));
        assert_eq!(ana.value("SELECT count(*) FROM t"), "1", "behind {encoding}");
    }
}

#[test]
fn what_a_statement_of_the_protocol_leaves_when_sql_runs_it_meets_nobody() {
    let stage = Stage::with(CODE, &narrow());
    let mut ana = stage.ana();
    let prepared = ana.ask(&Frames::new().parse("p", "SELECT public.take_path()", &[]).sync());
    assert_eq!(prepared.tags(), "1Z");
    ana.run("EXECUTE p");
    ana.run("DEALLOCATE p");
    drop(ana);
    let mut ben = stage.gateway.session(BEN);
    assert_eq!(ben.value("SELECT count(*) FROM t"), "3");
}

#[test]
fn names_of_the_gateways_own_statements_are_nobodys_to_take() {
    let stage = Stage::with("CREATE TABLE t (a int)", &narrow());
    let mut ana = stage.ana();
    let mut ben = stage.gateway.session(BEN);
    let prepare = Frames::new().parse("s1", "SELECT count(*) FROM t", &[]).sync();
    assert_eq!(ana.ask(&prepare).tags(), "1Z");
    let own = ana.value("SELECT name FROM pg_prepared_statements WHERE name LIKE 'tollgate%'");
    let named = ben.ask(&Frames::new().close_statement(&own).sync());
    assert_eq!(named.tags(), "3Z");
    for sql in [
        format!("DEALLOCATE {own}"),
        format!("EXECUTE {own}"),
        format!("PREPARE {own} AS SELECT 1"),
        "PREPARE tollgate_none AS SELECT 'evil'".to_owned(),
    ] {
        assert_eq!(ben.query(&sql).sqlstate(), "42939", "{sql}");
    }
    let run = Frames::new().bind("", "s1", &[], &[], &[]).execute("", 0).sync();
    assert_eq!(ana.ask(&run).tags(), "2DCZ");
}
