//! Process ids: a client knows its session's number as the process that serves it, and reaches sessions by it.

use crate::stage::Stage;
use crate::support::frames::Frames;
use crate::support::gateway::{BEN, Setup};
use crate::support::wire::{Message, Reply, Wire};

/// The largest process id that Linux gives (`PID_MAX_LIMIT`).
const LAST_PROCESS: u32 = 1 << 22;

/// The process id that `wire` was told at its login.
fn number(wire: &Wire) -> u32 {
    u32::from_be_bytes(wire.greeting.key[..4].try_into().expect("a key"))
}

/// The only column's name and type.
fn column(reply: &Reply) -> (String, u32) {
    let description = reply.0.iter().find(|message| message.tag == b'T').expect("rows");
    let end = description.body[2..]
        .iter()
        .position(|byte| *byte == 0)
        .expect("a name")
        + 2;
    let name = String::from_utf8_lossy(&description.body[2..end]).into_owned();
    let oid = description.body[end + 7..end + 11].try_into().expect("an oid");
    (name, u32::from_be_bytes(oid))
}

/// A session that waits for a lock at the server, and has asked.
fn blocked(stage: &Stage) -> Wire {
    let mut wire = stage.ana();
    wire.send(&Frames::new().query("SELECT count(*) FROM t"));
    stage.await_blocked(1);
    wire
}

#[test]
fn a_session_knows_itself_by_the_number_of_its_login() {
    let stage = Stage::with("", &Setup::new().connections(1));
    let mut sessions: Vec<Wire> = (0..3).map(|_| stage.ana()).collect();
    let mut numbers: Vec<u32> = sessions.iter().map(number).collect();
    for wire in &mut sessions {
        let own = number(wire);
        assert!(own > LAST_PROCESS && own < 1 << 31, "{own}");
        for (text, name) in [
            ("SELECT pg_backend_pid()", "pg_backend_pid"),
            ("select pg_catalog.pg_backend_pid() as pid;", "pid"),
        ] {
            let reply = wire.run(text);
            assert_eq!(
                (reply.tags().as_str(), reply.value()),
                ("TDCZ", own.to_string()),
                "{text}"
            );
            assert_eq!(column(&reply), (name.to_owned(), 23), "{text}");
            assert_eq!(reply.completions(), ["SELECT 1"]);
            let reply = wire.extended(text, &[], &[]);
            assert_eq!(
                (reply.tags().as_str(), reply.value()),
                ("12TDCZ", own.to_string()),
                "{text}"
            );
            let reply = wire.extended(text, &[], &[1]);
            let row = reply.0[3].columns().swap_remove(0);
            assert_eq!(row.as_deref(), Some(&own.to_be_bytes()[..]), "{text}");
        }
        assert_eq!(wire.last().1, "process_id");
        // in a transaction of which the server knows, and in one of which it does not
        for first in ["", "SELECT 'there'"] {
            wire.run("BEGIN");
            if !first.is_empty() {
                wire.run(first);
            }
            let reply = wire.run("SELECT pg_backend_pid()");
            assert_eq!((reply.value(), reply.status()), (own.to_string(), 'T'));
            wire.run("COMMIT");
        }
        // a statement that the server prepared, and one that it has not seen
        let prepare = Frames::new()
            .parse("s", "SELECT pg_backend_pid()", &[])
            .describe_statement("s")
            .sync();
        assert_eq!(wire.ask(&prepare).tags(), "1tTZ");
        for _ in 0..2 {
            let run = Frames::new().bind("", "s", &[], &[], &[]).execute("", 0).sync();
            let reply = wire.ask(&run);
            assert_eq!((reply.tags().as_str(), reply.value()), ("2DCZ", own.to_string()));
        }
        let at_once = Frames::new()
            .parse("u", "SELECT pg_backend_pid()", &[])
            .describe_statement("u")
            .bind("", "u", &[], &[], &[])
            .execute("", 0)
            .sync();
        assert_eq!(wire.ask(&at_once).tags(), "1tT2DCZ");
        let close = Frames::new().close_statement("u").close_statement("s").sync();
        assert_eq!(wire.ask(&close).tags(), "33Z");
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), sessions.len(), "each has its own");
}

// psycopg2: tests/test_cursor.py, test_external_close_async, ended whichever backend had the number
#[test]
fn a_session_is_cancelled_and_ended_by_its_number() {
    let stage = Stage::with("CREATE TABLE t (a int)", &Setup::new().connections(4));
    let lock = stage.block("t");
    let mut other = stage.ana();
    let texts = [
        "SELECT pg_cancel_backend(N)",
        "SELECT pg_catalog.pg_cancel_backend('N') AS done",
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid='N'",
        "SELECT pg_cancel_backend(procpid) FROM pg_stat_activity WHERE procpid = N",
    ];
    let mut victim = stage.ana();
    let own = number(&victim);
    for text in texts {
        victim.send(&Frames::new().query("SELECT count(*) FROM t"));
        stage.await_blocked(1);
        let reply = other.run(&text.replace('N', &own.to_string()));
        assert_eq!((reply.value(), column(&reply).1), ("t".to_owned(), 16), "{text}");
        assert_eq!(victim.ready().sqlstate(), "57014", "{text}");
    }
    victim.send(&Frames::new().query("SELECT count(*) FROM t"));
    stage.await_blocked(1);
    let reply = other.run(&format!("CANCEL {own} 'takes too long'"));
    assert_eq!(
        (reply.tags().as_str(), reply.completions()),
        ("CZ", vec!["CANCEL".to_owned()])
    );
    assert_eq!(victim.ready().sqlstate(), "57014");
    // what is idle is not harmed
    assert_eq!(other.value(&format!("SELECT pg_cancel_backend({own})")), "t");
    assert_eq!(victim.value("SELECT 1"), "1");

    // one that waits for its client, and one that runs
    let own = own.to_string();
    let reply = other.extended("SELECT pg_terminate_backend($1)", &[Some(own.as_bytes())], &[]);
    assert_eq!((reply.tags().as_str(), reply.value()), ("12TDCZ", "t".to_owned()));
    let word = victim.read().expect("a last word");
    assert_eq!(
        (word.field('S'), word.field('C')),
        ("FATAL".to_owned(), "57P01".to_owned())
    );
    assert!(victim.gone());
    let mut victim = blocked(&stage);
    let binary = number(&victim).to_be_bytes();
    let reply = other.ask(
        &Frames::new()
            .parse("e", "SELECT pg_terminate_backend($1::int)", &[23])
            .describe_statement("e")
            .bind("", "e", &[1], &[Some(&binary)], &[1])
            .execute("", 0)
            .sync(),
    );
    assert_eq!(reply.tags(), "1tT2DCZ");
    assert_eq!(reply.0[4].columns(), [Some(vec![1])]);
    let word = victim.read().expect("a last word");
    assert_eq!(word.field('C'), "57P01");
    assert!(victim.gone());
    stage.await_blocked(0);
    lock.release();

    // nobody has the number any more: it is the server that says so
    let reply = other.run(&format!("SELECT pg_terminate_backend({own})"));
    assert_eq!((reply.tags().as_str(), reply.value()), ("TNDCZ", "f".to_owned()));
    // a prepared statement goes to whom its parameter means
    let process = stage.superuser().value("SELECT pg_backend_pid()");
    for parameter in [&own, &process] {
        let run = Frames::new()
            .bind("", "e", &[], &[Some(parameter.as_bytes())], &[])
            .execute("", 0)
            .sync();
        let reply = other.ask(&run);
        let answer = reply
            .error()
            .map_or_else(|| reply.value(), |error| error.field('C'));
        assert!(["f", "42501"].contains(&answer.as_str()), "{answer}");
    }
}

#[test]
fn a_session_can_end_itself_and_those_of_its_user_only() {
    let stage = Stage::with("CREATE TABLE t (a int)", &Setup::new());
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    for (text, message) in [
        (
            "pg_cancel_backend",
            "must be a member of the role whose query is being canceled or member of pg_signal_backend",
        ),
        (
            "pg_terminate_backend",
            "must be a member of the role whose process is being terminated or member of pg_signal_backend",
        ),
    ] {
        let reply = ben.query(&format!("SELECT {text}({})", number(&ana)));
        let error = reply.error().expect(text);
        assert_eq!(
            (error.field('C'), error.field('M')),
            ("42501".to_owned(), message.to_owned())
        );
        assert_eq!(ana.value("SELECT 1"), "1");
    }
    let reply = ana.query(&format!("SELECT pg_cancel_backend({})", number(&ana)));
    assert_eq!(reply.sqlstate(), "57014");
    assert_eq!(ana.value("SELECT 1"), "1");
    ana.run("BEGIN; INSERT INTO t VALUES (1)");
    ana.send(&Frames::new().query(&format!("SELECT pg_terminate_backend({})", number(&ana))));
    assert_eq!(ana.read().expect("a last word").field('C'), "57P01");
    assert!(ana.gone());
    assert_eq!(ben.value("SELECT count(*) FROM t"), "0");
}

#[test]
fn whoever_learns_a_process_id_of_the_server_keeps_its_connection() {
    let stage = Stage::with("", &Setup::new().connections(2));
    for end in ["", "DISCARD ALL"] {
        let mut ana = stage.ana();
        let process: u32 = ana
            .value("SELECT pg_backend_pid() + 0")
            .parse()
            .expect("a number");
        assert!(process <= LAST_PROCESS);
        if end.is_empty() {
            assert_eq!(ana.value("SELECT 0 + pg_backend_pid()"), process.to_string());
            let reply = stage.gateway.console().run("SHOW PINS");
            let pinned = format!("{reply:?}");
            assert!(pinned.contains("backend_pid"), "{pinned}");
        } else {
            ana.run(end);
        }
        // among others it is the server's to answer
        let series = Frames::new()
            .unnamed("SELECT pg_backend_pid()")
            .bind("", "", &[], &[], &[])
            .execute("", 0)
            .sync();
        let reply = ana.ask(&series);
        let told: Vec<u32> = reply
            .rows()
            .into_iter()
            .flatten()
            .flatten()
            .map(|value| value.parse().expect("a number"))
            .collect();
        assert!(
            told.len() == 2 && told.iter().all(|process| *process <= LAST_PROCESS),
            "{told:?}"
        );
        drop(ana);
        for process in [process, told[0]] {
            stage.await_activity(&format!("pid = {process}"), 0);
        }
    }
}

// pg8000 and redshift_connector send each message with a Flush
#[test]
fn a_flush_behind_each_message_changes_nothing() {
    let stage = Stage::with("", &Setup::new());
    let (mut ana, mut victim) = (stage.ana(), stage.ana());
    let (own, other) = (number(&ana).to_string(), number(&victim).to_string());
    for (text, values, expected) in [
        ("SELECT pg_backend_pid()", &[][..], own.as_str()),
        (
            "SELECT pg_terminate_backend($1)",
            &[Some(other.as_bytes())][..],
            "t",
        ),
        ("SELECT 'other'", &[], "other"),
        ("ROLLBACK", &[], ""),
        ("BEGIN", &[], ""),
        ("SELECT pg_backend_pid()", &[], own.as_str()),
        ("COMMIT", &[], ""),
        ("COMMIT", &[], ""),
    ] {
        let prepare = Frames::new().parse("", text, &[]).sync();
        assert_eq!(ana.ask(&prepare).tags(), "1Z", "{text}");
        let described = ana.ask(
            &Frames::new()
                .describe_statement("")
                .sync()
                .bind("", "", &[], values, &[])
                .flush(),
        );
        assert_eq!(described.0.len(), 3, "{text}: {described:?}");
        assert_eq!(ana.until(b'2').tags(), "2", "{text}");
        ana.send(&Frames::new().execute("", 0).flush());
        let reply = ana.until(b'C');
        if !expected.is_empty() {
            assert_eq!(
                (reply.tags().as_str(), reply.value()),
                ("DC", expected.to_owned()),
                "{text}"
            );
        }
        assert_eq!(ana.ask(&Frames::new().sync()).tags(), "Z", "{text}");
    }
    assert_eq!(victim.read().expect("a last word").field('C'), "57P01");
}

fn notifier(message: &Message) -> u32 {
    assert_eq!(message.tag, b'A', "{message:?}");
    u32::from_be_bytes(message.body[..4].try_into().expect("a process"))
}

// psycopg2: tests/test_notify.py
#[test]
fn a_notification_says_whose_it_is() {
    let stage = Stage::with("", &Setup::new().connections(3));
    let (mut ana, mut other) = (stage.ana(), stage.ana());
    ana.run("LISTEN news");
    let reply = ana.run("NOTIFY news, 'own'");
    let own = reply.0.iter().find(|message| message.tag == b'A').expect("news");
    assert_eq!(notifier(own), number(&ana));
    // unasked, while the client waits for nothing
    other.run("NOTIFY news, 'other'");
    let told = ana.read().expect("news");
    assert_eq!(notifier(&told), number(&other));
    // nobody's session
    let mut direct = stage.direct();
    direct.run("NOTIFY news, 'past the gateway'");
    let told = ana.read().expect("news");
    assert_eq!(notifier(&told), number(&direct));
}
