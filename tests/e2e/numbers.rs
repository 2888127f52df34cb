//! What a session took of a sequence: its own, or an error that says what to do.

use crate::relay::narrow;
use crate::stage::{Stage, server};
use crate::support::frames::Frames;
use crate::support::gateway::{BEN, Setup};
use crate::support::interposer::{Side, interposed};
use crate::support::wait::becomes;

const TABLE: &str = "CREATE TABLE counted (id serial, what text)";

#[test]
fn a_number_of_another_session_is_never_told() {
    let stage = Stage::with(TABLE, &narrow());
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("INSERT INTO counted (what) VALUES ('ana')");
    for sql in ["SELECT lastval()", "SELECT currval('counted_id_seq')"] {
        for wire in [&mut ben, &mut ana] {
            let refused = wire.query(sql);
            assert_eq!(refused.sqlstate(), "0A000", "{sql}");
            let error = refused.error().expect("an error");
            assert!(error.field('H').contains("RETURNING"), "{error:?}");
        }
    }
    // a transaction that has only read, also one that the server has not heard of
    for first in ["", "SELECT 1;"] {
        ben.run("BEGIN");
        if !first.is_empty() {
            ben.run(first);
        }
        assert_eq!(ben.query("SELECT lastval()").sqlstate(), "0A000");
        ben.run("ROLLBACK");
    }
    // one's own, in one go and in a transaction
    let own = |reply: &str| reply.to_owned();
    assert_eq!(
        ana.query("INSERT INTO counted (what) VALUES ('ana'); SELECT lastval()")
            .value(),
        own("2")
    );
    ben.run("BEGIN");
    ben.run("INSERT INTO counted (what) VALUES ('ben')");
    assert_eq!(ben.query("SELECT currval('counted_id_seq')").value(), own("3"));
    ben.run("COMMIT");
    assert_eq!(ben.query("SELECT lastval()").sqlstate(), "0A000");
}

#[test]
fn no_way_of_asking_tells_a_number_of_another_session() {
    const MORE: &str = "CREATE TABLE counted (id serial, what text); CREATE TABLE told (number bigint)";
    for ask in [
        &["COPY (SELECT lastval()) TO STDOUT"][..],
        &["INSERT INTO told SELECT lastval() RETURNING number"],
        &["SELECT U&\"last\\0076al\"()"],
        &["SELECT query_to_xml('SELECT lastval()', true, true, '')"],
        &["DO $$ BEGIN PERFORM lastval(); END $$"],
        &["CREATE TEMP TABLE x AS SELECT lastval()"],
        &["PREPARE p AS SELECT lastval()", "EXECUTE p"],
        &["BEGIN", "DECLARE c CURSOR FOR SELECT lastval()", "FETCH c"],
        &["CREATE TEMP TABLE x (a int)", "SELECT lastval()"],
        &["LISTEN a", "SELECT lastval()"],
        &["BEGIN", "SELECT * FROM told FOR UPDATE", "SELECT lastval()"],
    ] {
        let stage = Stage::with(MORE, &narrow());
        let mut ana = stage.ana();
        // the first who asks, and one who comes later
        for round in 0..2 {
            ana.run("INSERT INTO counted (what) VALUES ('ana')");
            let mut ben = stage.gateway.session(BEN);
            let said: Vec<String> = ask.iter().map(|sql| ben.query(sql).sqlstate()).collect();
            let last = said.last().expect("one was asked").as_str();
            // behind something that may have taken a number the very first question is let through
            let first = round == 0 && ask.len() > 1;
            assert!(
                first || ["55000", "0A000"].contains(&last),
                "{ask:?}, round {round}: {said:?}"
            );
        }
    }
}

#[test]
fn a_session_ends_that_loses_its_connection_while_numbers_are_forgotten() {
    let dies = interposed(server().address(), |said| {
        let forgets = said.by == Side::Client && said.message.body.starts_with(b"DISCARD SEQUENCES");
        forgets.then(|| {
            Frames::new()
                .query("SELECT pg_terminate_backend(pg_backend_pid())")
                .to_vec()
        })
    });
    let stage = Stage::with(TABLE, &narrow().backend_address(dies));
    stage.gateway.expect_log("backend lost");
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("INSERT INTO counted (what) VALUES ('ana')");
    ben.run("BEGIN");
    assert_eq!(ben.value("SELECT what FROM counted"), "ana");
    ben.send(&Frames::new().query("DO $$ BEGIN PERFORM lastval(); END $$"));
    let end = String::from_utf8_lossy(&ben.rest()).into_owned();
    assert!(end.starts_with('E') && end.contains("SFATAL"), "{end:?}");
    assert_eq!(ana.value("SELECT what FROM counted"), "ana");
}

#[test]
fn a_team_without_sharing_keeps_its_connections_and_leaves_nothing() {
    let setup = Setup::new().connections(2).team("pooling = \"session\"");
    let stage = Stage::with(TABLE, &setup);
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    let (first, other) = (
        Stage::process_of(&mut ana, "ana"),
        Stage::process_of(&mut ben, "ben"),
    );
    assert_ne!(first, other);
    for wire in [&mut ana, &mut ben] {
        wire.run("INSERT INTO counted (what) VALUES ('x')");
    }
    for (wire, number) in [(&mut ana, "1"), (&mut ben, "2")] {
        assert_eq!(wire.query("SELECT lastval()").value(), number);
    }
    assert_eq!(Stage::process_of(&mut ana, "ana"), first);
    let pinned = stage
        .gateway
        .console()
        .query("SHOW CLIENTS")
        .rows()
        .iter()
        .filter(|row| row.iter().flatten().any(|field| field == "session_pooling"))
        .count();
    assert_eq!(pinned, 2);
    // answers from memory as ever
    let count = "SELECT count(*) FROM counted";
    assert_eq!(ana.query(count).value(), "2");
    assert_eq!(ben.query(count).value(), "2");
    assert_eq!(ben.last().0, "hit");
    ana.run("SET TimeZone = 'Asia/Tokyo'; CREATE TEMP TABLE t ()");
    drop(ana);
    // the next gets the connection as new
    let mut next = stage.ana();
    becomes(&first, || Stage::process_of(&mut next, "next"));
    assert_eq!(next.query("SELECT lastval()").sqlstate(), "55000");
    assert_eq!(next.query("SELECT * FROM t").sqlstate(), "42P01");
    assert_eq!(
        next.query("SHOW TimeZone").value(),
        ben.query("SHOW TimeZone").value()
    );
}
