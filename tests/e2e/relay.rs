//! What goes through: long, many, in parts, and what is no message at all.

use crate::stage::Stage;
use crate::support::frames::Frames;
use crate::support::gateway::{ANA, BEN, Setup};
use crate::support::wire::Login;
use std::fmt::Write as _;

/// One connection to the backend, so that whatever a session leaves there meets the next.
pub(crate) fn narrow() -> Setup {
    Setup::new().connections(1)
}

#[test]
fn a_large_result_comes_whole() {
    let stage = Stage::new();
    let mut ana = stage.ana();
    let sql = "SELECT g, repeat('x', 1000) FROM generate_series(1, 30000) g";
    for reply in [ana.query(sql), ana.extended(sql, &[], &[1])] {
        assert_eq!(reply.completions(), ["SELECT 30000"]);
        let rows = reply.0.iter().filter(|message| message.tag == b'D');
        assert_eq!(rows.count(), 30000);
    }
}

#[test]
fn a_client_that_does_not_read_makes_the_server_wait_and_not_the_gateway_swell() {
    let stage = Stage::new();
    let mut ana = stage.ana();
    ana.send(&Frames::new().query("SELECT g, repeat('x', 10000) FROM generate_series(1, 30000) g"));
    stage.await_activity("wait_event = 'ClientWrite'", 1);
    let resident = stage.gateway.resident_kib();
    assert!(resident < 150_000, "{resident} KiB resident");
    // others are not held up
    assert_eq!(stage.ana().value("SELECT 1"), "1");
    assert_eq!(ana.ready().completions(), ["SELECT 30000"]);
    assert_eq!(ana.value("SELECT 2"), "2");
}

#[test]
fn long_texts_and_long_parameters_arrive() {
    let stage = Stage::with("", &narrow());
    for size in [1_000, 60_000, 900_000, 1_048_570, 1_048_576, 1_100_000, 5_000_000] {
        // what is too long to be looked at may have done anything, so its session keeps its connection
        let mut ana = stage.ana();
        let text = "x".repeat(size);
        assert_eq!(
            ana.value(&format!("SELECT length('{text}')")),
            size.to_string(),
            "in a query of {size}"
        );
        assert_eq!(
            ana.extended(&format!("SELECT length('{text}')"), &[], &[])
                .value(),
            size.to_string(),
            "in a Parse of {size}"
        );
        assert_eq!(
            ana.extended("SELECT length($1::text)", &[Some(text.as_bytes())], &[])
                .value(),
            size.to_string(),
            "in a Bind of {size}"
        );
        drop(ana);
        let mut ben = stage.gateway.session(BEN);
        assert_eq!(ben.value("SELECT 1"), "1", "the connection is sound after {size}");
    }
}

#[test]
fn a_long_text_that_fails_leaves_a_sound_session() {
    let stage = Stage::with("", &narrow());
    let mut ana = stage.ana();
    let text = format!("SELEKT '{}'", "x".repeat(3_000_000));
    assert_eq!(ana.query(&text).sqlstate(), "42601");
    assert_eq!(ana.value("SELECT 1"), "1");
    let reply = ana.extended(&text, &[], &[]);
    assert_eq!((reply.sqlstate().as_str(), reply.status()), ("42601", 'I'));
    assert_eq!(ana.value("SELECT 2"), "2");
    // an error in front of a long message: it is ignored whole, up to the Sync
    let reply = ana.ask(&Frames::new().parse("", "SELEKT", &[]).unnamed(&text).sync());
    assert_eq!(reply.tags(), "EZ");
    assert_eq!(ana.value("SELECT 3"), "3");
}

#[test]
fn a_batch_of_many_statements_in_one_packet_is_answered_in_order() {
    let stage = Stage::with("", &narrow());
    let mut ana = stage.ana();
    let mut frames = Frames::new();
    for number in 0..2_000 {
        frames = frames
            .parse("", "SELECT $1::int", &[])
            .bind("", "", &[], &[Some(number.to_string().as_bytes())], &[])
            .execute("", 0);
        if number % 3 == 0 {
            frames = frames.sync();
        }
    }
    let frames = frames.sync();
    ana.send(&frames);
    let mut rows = Vec::new();
    let mut ready = 0;
    while ready < 668 {
        let reply = ana.ready();
        assert!(reply.error().is_none(), "{reply:?}");
        ready += 1;
        rows.extend(reply.rows().into_iter().map(|mut row| row.remove(0).unwrap()));
    }
    let expected: Vec<String> = (0..2_000).map(|number: i32| number.to_string()).collect();
    assert_eq!(rows, expected);
    assert_eq!(ana.value("SELECT 'after'"), "after");
}

#[test]
fn copy_moves_many_rows_in_both_directions() {
    let stage = Stage::with("CREATE TABLE t (a int, b text)", &narrow());
    let mut ana = stage.ana();
    ana.send(&Frames::new().query("COPY t FROM STDIN"));
    assert_eq!(ana.until(b'G').tags(), "G");
    let mut expected = Vec::new();
    for block in 0..200 {
        let mut lines = String::new();
        for line in 0..500 {
            writeln!(lines, "{}\t{}", block * 500 + line, "y".repeat(100)).unwrap();
        }
        // not at the borders of lines
        for piece in lines.as_bytes().chunks(7_777) {
            ana.send(&Frames::new().copy_data(piece));
        }
        expected.extend(lines.into_bytes());
    }
    assert_eq!(ana.ask(&Frames::new().copy_done()).completions(), ["COPY 100000"]);
    let reply = ana.query("COPY t TO STDOUT");
    let copied: Vec<u8> = reply
        .0
        .iter()
        .filter(|message| message.tag == b'd')
        .flat_map(|message| message.body.clone())
        .collect();
    assert!(copied == expected, "the rows come back as they went");
    assert_eq!(
        stage.gateway.session(BEN).value("SELECT count(*) FROM t"),
        "100000"
    );
}

#[test]
fn a_copy_whose_rows_are_refused_ends_although_the_client_goes_on_sending() {
    let stage = Stage::with("CREATE TABLE t (a int)", &narrow());
    let mut ana = stage.ana();
    ana.send(&Frames::new().query("COPY t FROM STDIN"));
    ana.until(b'G');
    ana.send(&Frames::new().copy_data(b"not a number\n"));
    for _ in 0..300 {
        ana.send(&Frames::new().copy_data("1\n".repeat(4_000).as_bytes()));
    }
    let reply = ana.ask(&Frames::new().copy_done());
    assert_eq!((reply.sqlstate().as_str(), reply.status()), ("22P02", 'I'));
    assert_eq!(ana.value("SELECT count(*) FROM t"), "0");
    assert_eq!(stage.gateway.session(BEN).value("SELECT 1"), "1");
}

#[test]
fn a_client_that_goes_away_in_the_middle_of_a_copy_leaves_nothing() {
    let stage = Stage::with("CREATE TABLE t (a int)", &narrow());
    let mut ana = stage.ana();
    ana.send(&Frames::new().query("COPY t FROM STDIN"));
    ana.until(b'G');
    ana.send(&Frames::new().copy_data(b"1\n2\n"));
    drop(ana);
    let mut ben = stage.gateway.session(BEN);
    assert_eq!(ben.value("SELECT count(*) FROM t"), "0");
    // in the middle of a message, too
    let mut ana = stage.ana();
    let insert = Frames::new().query("INSERT INTO t VALUES (1)");
    ana.send(&insert[..insert.len() - 3]);
    drop(ana);
    let mut ana = stage.ana();
    let mut long = Frames::new().query(&format!(
        "INSERT INTO t SELECT length('{}')",
        "x".repeat(3_000_000)
    ));
    let cut = long.len() - 100;
    ana.send(&long[..cut]);
    drop(ana);
    long = Frames::new();
    drop(long);
    assert_eq!(ben.value("SELECT count(*) FROM t"), "0");
}

#[test]
fn garbage_after_login_ends_the_session_with_a_protocol_error() {
    let stage = Stage::with("", &narrow());
    let cases: [(&str, Vec<u8>); 9] = [
        ("a Flush of a megabyte and a half", b"H\0\x16\xe3\x60".to_vec()),
        ("a Sync of as much", b"S\0\x16\xe3\x60xx".to_vec()),
        ("a long Close in a pipeline", {
            let pipeline = Frames::new()
                .parse("", "SELECT 1", &[])
                .bind("", "", &[], &[], &[]);
            [&pipeline.to_vec()[..], b"C\0\x16\xe3\x60S"].concat()
        }),
        ("an unknown message", Frames::new().frame(b'!', &[b"x"]).to_vec()),
        ("a length below four", b"Q\0\0\0\x03".to_vec()),
        ("a length of two gigabytes", b"Q\x7f\xff\xff\xff".to_vec()),
        ("a negative length", b"Q\xff\xff\xff\xff".to_vec()),
        (
            "a password after the login",
            Frames::new().password(b"x").to_vec(),
        ),
        ("a startup packet", Login::new("ana", "", "x").packet()),
    ];
    for (what, bytes) in cases {
        let mut ana = stage.ana();
        ana.send(&bytes);
        let reply = ana.until(b'E');
        let error = reply.error().unwrap_or_else(|| panic!("{what}: {reply:?}"));
        assert_eq!(
            (error.field('C').as_str(), error.field('S').as_str()),
            ("08P01", "FATAL"),
            "{what}"
        );
        assert!(ana.rest().is_empty(), "{what}");
    }
    assert_eq!(stage.ana().value("SELECT 1"), "1");
}

#[test]
fn a_malformed_message_is_answered_as_an_error_and_the_session_goes_on() {
    let stage = Stage::with("CREATE TABLE written (a int)", &narrow());
    let cases: [(&str, Frames); 10] = [
        (
            "a query without its zero",
            Frames::new().frame(b'Q', &[b"SELECT 1"]),
        ),
        ("an empty query", Frames::new().frame(b'Q', &[])),
        ("an empty Parse", Frames::new().frame(b'P', &[]).sync()),
        ("an empty Bind", Frames::new().frame(b'B', &[]).sync()),
        ("an empty Describe", Frames::new().frame(b'D', &[]).sync()),
        ("an empty Execute", Frames::new().frame(b'E', &[]).sync()),
        ("an empty Close", Frames::new().frame(b'C', &[]).sync()),
        (
            "a Describe of something else",
            Frames::new().frame(b'D', &[b"X\0"]).sync(),
        ),
        (
            "a Bind whose value is longer than the message",
            Frames::new()
                .parse("", "SELECT $1::text", &[])
                .frame(b'B', &[b"\0\0\0\0\0\x01\x7f\xff\xff\xff", b"abc"])
                .sync(),
        ),
        (
            "an Execute behind one that would write",
            Frames::new()
                .parse("", "INSERT INTO written VALUES (1)", &[])
                .bind("", "", &[], &[], &[])
                .execute("", 0)
                .frame(b'E', &[b"\0"])
                .sync(),
        ),
    ];
    let told = |reply: &crate::support::wire::Reply| {
        let error = reply.error().expect("an error");
        (error.field('C'), error.field('S'))
    };
    for (what, bytes) in &cases {
        // outside of a transaction, in one that the server does not know of, and in one that it knows
        for before in ["", "BEGIN", "BEGIN; INSERT INTO written VALUES (2)"] {
            let (mut direct, mut ana) = (stage.direct(), stage.ana());
            for wire in [&mut direct, &mut ana] {
                wire.run(before);
            }
            let (expected, found) = (direct.ask(bytes), ana.ask(bytes));
            assert_eq!(told(&found), told(&expected), "{what} after {before:?}");
            assert_eq!(
                found.0.last().map(|message| &message.body),
                expected.0.last().map(|message| &message.body),
                "{what} after {before:?}"
            );
            for wire in [&mut direct, &mut ana] {
                let code = if before.is_empty() { "" } else { "25P02" };
                let reply = wire.query("SELECT 1");
                assert_eq!(
                    reply.error().map_or(String::new(), |error| error.field('C')),
                    code
                );
                wire.run("ROLLBACK");
            }
            assert_eq!(ana.value("SELECT count(*) FROM written"), "0", "{what}");
            assert_eq!(stage.gateway.session(BEN).value("SELECT 1"), "1", "{what}");
        }
    }
    // in the middle of a series: what is behind it is ignored up to the Sync
    let mut ana = stage.ana();
    ana.send(&Frames::new().parse("", "SELECT 1", &[]).flush());
    ana.until(b'1');
    ana.send(&Frames::new().frame(b'B', &[]).flush());
    assert_eq!(ana.until(b'E').sqlstate(), "08P01");
    ana.send(&Frames::new().parse("", "SELECT 2", &[]).flush());
    assert_eq!(ana.ask(&Frames::new().sync()).tags(), "Z");
    assert_eq!(ana.value("SELECT 3"), "3");
}

#[test]
fn psql_sees_what_it_sees_at_the_server() {
    let schema = "CREATE TABLE people (id int PRIMARY KEY, name text NOT NULL);
                  COMMENT ON TABLE people IS 'who';
                  CREATE VIEW names AS SELECT name FROM people";
    let stage = Stage::with(schema, &Setup::new());
    let script = r"
        \set ON_ERROR_STOP 0
        \conninfo
        \d
        \d people
        \d+ names
        \df
        \dn
        \timing off
        \copy people FROM stdin
1	one
2	two
\.
        SELECT * FROM people ORDER BY id;
        \copy (SELECT name FROM people ORDER BY id) TO stdout
        \gset
        SELECT count(*) AS number FROM people \gset
        \echo :number
        SELECT 1 AS a, 2 AS b \gdesc
        SELECT 1/0;
        BEGIN;
        DELETE FROM people;
        ROLLBACK;
        TABLE people;
        SELECT 1 \; SELECT 2;
        \set FETCH_COUNT 2
        SELECT g FROM generate_series(1, 5) g;
        TRUNCATE people;
    ";
    let script: String = script
        .lines()
        .map(|line| line.trim_start_matches("        ").to_owned() + "\n")
        .filter(|line| !line.starts_with(r"\conninfo"))
        .collect();
    let direct = crate::support::Postgres::psql_as(
        crate::stage::server(),
        crate::support::gateway::GROWTH,
        &stage.database,
        &script,
    );
    let through = stage.gateway.psql(ANA, &script);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&through.stderr), text(&direct.stderr));
    assert_eq!(text(&through.stdout), text(&direct.stdout));
    assert_eq!(through.status.code(), direct.status.code());
}
