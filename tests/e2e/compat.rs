//! What suites of real clients stumbled over.

use std::fmt::Write as _;

use crate::stage::Stage;
use crate::support::frames::Frames;
use crate::support::gateway::{ANA, Setup};
use crate::support::wire::{Login, Wire};

/// A call of the function `oid` with binary arguments and a binary result.
fn call(oid: u32, arguments: &[&[u8]]) -> Frames {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 1]);
    body.extend(u16::try_from(arguments.len()).expect("few").to_be_bytes());
    for argument in arguments {
        body.extend(u32::try_from(argument.len()).expect("short").to_be_bytes());
        body.extend(*argument);
    }
    body.extend([0, 1]);
    Frames::new().frame(b'F', &[&body])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text takes it");
        text
    })
}

// psycopg2: tests/test_lobject.py, test_read_large
#[test]
fn a_function_call_is_answered_however_long_it_is() {
    let stage = Stage::new();
    let mut wire = stage.ana();
    let oid = |wire: &mut Wire, name: &str| -> u32 {
        let sql = format!("SELECT oid FROM pg_proc WHERE proname = '{name}'");
        wire.value(&sql).parse().expect("an oid")
    };
    let digest_of = oid(&mut wire, "sha256");
    for size in [1, 1 << 20, 3 << 20] {
        let bytes = vec![b'x'; size];
        let expected = wire.value(&format!(
            "SELECT encode(sha256(repeat('x', {size})::bytea), 'hex')"
        ));
        // outside of a transaction, inside of one, and with the next request right behind it
        for transaction in ["", "BEGIN", ""] {
            if !transaction.is_empty() {
                wire.run(transaction);
            }
            let mut asked = call(digest_of, &[&bytes]).to_vec();
            asked.extend(&*Frames::new().query("SELECT 'next'"));
            let reply = wire.ask(&asked);
            assert_eq!(reply.tags(), "VZ", "{size} bytes");
            let digest = hex(&reply.0[0].body[4..]);
            assert_eq!(digest, expected, "{size} bytes");
            assert_eq!(wire.ready().value(), "next");
            if !transaction.is_empty() {
                wire.run("COMMIT");
            }
        }
    }
    // one that fails, and one that is refused, leave a session that goes on
    let reply = wire.ask(&call(4_000_000_000, &[&vec![0; 2 << 20]]));
    assert_eq!(reply.tags(), "EZ");
    assert_eq!(wire.value("SELECT 1"), "1");
}

// a message that is longer than what is held is refused or ignored whole, not read as messages from its middle on
#[test]
fn a_long_message_that_is_refused_is_answered_once() {
    let setup = Setup::new().connections(1).backend("checkout_timeout = \"0s\"");
    let stage = Stage::with("CREATE TABLE t (a int)", &setup);
    let (mut ana, mut ben) = (stage.ana(), stage.ana());
    ana.run("BEGIN; LOCK TABLE t");
    for size in [1, 3 << 20] {
        let long = "x".repeat(size);
        let text = format!("SELECT '{long}'");
        for (what, asked) in [
            ("function call", call(3419, &[long.as_bytes()])),
            ("query", Frames::new().query(&text)),
            ("parse", Frames::new().parse("", &text, &[]).sync()),
            (
                "bind",
                Frames::new()
                    .parse("", "SELECT $1::text", &[])
                    .bind("", "", &[], &[Some(long.as_bytes())], &[])
                    .execute("", 0)
                    .sync(),
            ),
            (
                "series that is ignored",
                Frames::new()
                    .parse("", "SELECT 1", &[])
                    .flush()
                    .parse("", &text, &[])
                    .sync(),
            ),
        ] {
            let reply = ben.ask(&asked);
            assert_eq!(reply.tags(), "EZ", "{what} of {size} bytes");
            assert_eq!(reply.sqlstate(), "53300", "{what} of {size} bytes");
        }
    }
    ana.run("COMMIT");
    assert_eq!(ben.value("SELECT 1"), "1");
}

// redshift_connector reads the version as a number, and a PostgreSQL's has words behind it
#[test]
fn drivers_of_amazon_are_told_a_version_of_redshift() {
    let stage = Stage::new();
    let own = stage.superuser().value("SHOW server_version");
    for (parameters, expected) in [
        (&[("driver_version", "Redshift Python Driver 2.2.0")][..], "8.0.2"),
        (&[("client_protocol_version", "2")][..], "8.0.2"),
        (&[("application_name", "psql")][..], own.as_str()),
    ] {
        let login = Login::new(ANA.0, ANA.1, &stage.database).with(parameters);
        let wire = Wire::login(stage.gateway.address(), &login);
        assert_eq!(
            wire.greeting.parameter("server_version"),
            Some(expected),
            "{parameters:?}"
        );
    }
}

// pgjdbc prepares again, unseen, when it is told so by this code and this routine; it describes portals, not statements
#[test]
fn a_prepared_statement_whose_columns_change_fails_as_at_the_server() {
    let stage = Stage::with(
        "CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, 2)",
        &Setup::new(),
    );
    let described_portal = Frames::new()
        .parse("s", "SELECT * FROM t", &[])
        .bind("", "s", &[], &[], &[])
        .describe_portal("")
        .execute("", 0)
        .sync();
    let described_statement = Frames::new()
        .parse("s", "SELECT * FROM t", &[])
        .describe_statement("s")
        .bind("", "s", &[], &[], &[])
        .execute("", 0)
        .sync();
    let undescribed = Frames::new()
        .parse("s", "SELECT * FROM t", &[])
        .bind("", "s", &[], &[], &[])
        .execute("", 0)
        .sync();
    let again = |formats: &[i16]| {
        Frames::new()
            .bind("", "s", &[], &[], formats)
            .execute("", 0)
            .sync()
    };
    for (what, first) in [
        ("portal", described_portal),
        ("statement", described_statement),
        ("nothing", undescribed),
    ] {
        for formats in [&[][..], &[1], &[1, 1]] {
            let outcomes = [stage.direct(), stage.ana()].map(|mut wire| {
                wire.run("DROP TABLE t; CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, 2)");
                wire.ask(&first);
                let before = wire.ask(&again(formats)).tags();
                wire.run("ALTER TABLE t ADD COLUMN c int");
                let after = wire.ask(&again(formats));
                let fields = after.0[0].fields();
                (before, after.tags(), fields, wire.ask(&first.clone()[..]).tags())
            });
            let [direct, through] = outcomes;
            assert_eq!(through.0, direct.0, "described {what}, {formats:?}, before");
            assert_eq!(through.1, direct.1, "described {what}, {formats:?}");
            for letter in ['C', 'M', 'R'] {
                let field = |fields: &[(char, String)]| {
                    fields
                        .iter()
                        .find(|(found, _)| *found == letter)
                        .map(|(_, text)| text.clone())
                };
                assert_eq!(
                    field(&through.2),
                    field(&direct.2),
                    "described {what}, {formats:?}: {letter}"
                );
            }
            assert_eq!(
                through.3, direct.3,
                "described {what}, {formats:?}, prepared again"
            );
        }
    }
}

// pgjdbc: a new statement and a parameter of megabytes, in one series
#[test]
fn a_named_statement_can_be_bound_to_a_long_parameter_in_the_series_that_prepares_it() {
    let stage = Stage::new();
    let mut wire = stage.ana();
    for (size, describes) in [(1, false), (3 << 20, false), (3 << 20, true), (1 << 20, true)] {
        let long = vec![b'x'; size];
        let name = format!("s{size}{describes}");
        let mut frames = Frames::new().parse(&name, "SELECT length($1::text)", &[]);
        if describes {
            frames = frames.describe_statement(&name);
        }
        let frames = frames
            .bind("", &name, &[], &[Some(&long)], &[])
            .describe_portal("")
            .execute("", 0)
            .sync();
        let reply = wire.ask(&frames);
        assert_eq!(reply.value(), size.to_string(), "{size} bytes: {reply:?}");
        let again = Frames::new()
            .bind("", &name, &[], &[Some(b"four")], &[])
            .execute("", 0)
            .sync();
        assert_eq!(wire.ask(&again).value(), "4", "{size} bytes, again");
    }
}
