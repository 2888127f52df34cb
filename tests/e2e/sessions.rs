//! What belongs to a session stays with it: statements, settings, temporary tables, transactions.

use crate::relay::narrow;
use crate::stage::Stage;
use crate::support::frames::Frames;
use crate::support::gateway::{ANA, BEN, DASH, Setup};
use crate::support::wait::becomes;
use crate::support::wire::{Login, Wire};
use std::thread;

#[test]
fn the_unnamed_statement_is_the_sessions_own_whatever_connection_it_meets() {
    let stage = Stage::with("", &narrow());
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    let prepare = |sql: &str| Frames::new().parse("", sql, &[]).sync();
    let execute = Frames::new().bind("", "", &[], &[], &[]).execute("", 0).sync();
    assert_eq!(ana.ask(&prepare("SELECT 'ana'")).tags(), "1Z");
    assert_eq!(ben.ask(&prepare("SELECT 'ben'")).tags(), "1Z");
    for _ in 0..3 {
        assert_eq!(ana.ask(&execute).value(), "ana");
        assert_eq!(ben.ask(&execute).value(), "ben");
    }
    let described = ana.ask(&Frames::new().describe_statement("").sync());
    assert_eq!(described.tags(), "tTZ");
    // a simple query ends it, whichever connection it ran on
    ana.run("SELECT 1");
    assert_eq!(ana.ask(&execute).sqlstate(), "26000");
    assert_eq!(ben.ask(&execute).value(), "ben");
    // a third has none, although the connection does
    assert_eq!(stage.ana().ask(&execute).sqlstate(), "26000");
}

#[test]
fn named_statements_of_two_sessions_do_not_meet() {
    let stage = Stage::with("", &Setup::new().connections(2));
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.ask(&Frames::new().parse("s", "SELECT 'ana', $1::text", &[]).sync());
    ben.ask(&Frames::new().parse("s", "SELECT 'ben', $1::text", &[]).sync());
    let execute = Frames::new()
        .bind("", "s", &[], &[Some(b"x")], &[])
        .execute("", 0)
        .sync();
    for _ in 0..3 {
        assert_eq!(ana.ask(&execute).rows()[0][0].as_deref(), Some("ana"));
        assert_eq!(ben.ask(&execute).rows()[0][0].as_deref(), Some("ben"));
    }
    drop(ana);
    // what the session leaves behind is not there for the next
    let mut next = stage.ana();
    becomes(&"26000".to_owned(), || next.ask(&execute).sqlstate());
    assert_eq!(
        next.ask(&Frames::new().parse("s", "SELECT 'next'", &[]).sync())
            .tags(),
        "1Z"
    );
}

#[test]
fn trap_10_settings_follow_their_session_and_nobody_else() {
    const NAMES: [&str; 5] = [
        "TimeZone",
        "search_path",
        "statement_timeout",
        "DateStyle",
        "work_mem",
    ];
    let stage = Stage::with("CREATE SCHEMA other", &narrow());
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    let before = NAMES.map(|name| ben.value(&format!("SHOW {name}")));
    ana.run("SET TimeZone = 'Asia/Tokyo'");
    ana.run("SET search_path = other, public");
    ana.run("SET statement_timeout TO 12345");
    ana.run("SET DateStyle TO 'German'");
    ana.run("SET SESSION work_mem = '7MB'");
    for _ in 0..2 {
        for (name, (own, others)) in NAMES.iter().zip(
            ["Asia/Tokyo", "other, public", "12345ms", "German, DMY", "7MB"]
                .iter()
                .zip(&before),
        ) {
            assert_eq!(&ana.value(&format!("SHOW {name}")), own);
            assert_eq!(&ben.value(&format!("SHOW {name}")), others);
        }
    }
    // a setting whose value is that of no other session, in a transaction and taken back
    ana.run("BEGIN; SET LOCAL work_mem = '9MB'");
    assert_eq!(ana.value("SHOW work_mem"), "9MB");
    ana.run("COMMIT");
    assert_eq!(ana.value("SHOW work_mem"), "7MB");
    assert_eq!(ben.value("SHOW work_mem"), before[4]);
    ana.run("RESET TimeZone");
    assert_eq!(ana.value("SHOW TimeZone"), before[0]);
    ana.run("RESET ALL");
    assert_eq!(ana.value("SHOW DateStyle"), before[3]);
    drop(ana);
    let mut next = stage.ana();
    assert_eq!(next.value("SHOW search_path"), before[1]);
}

#[test]
fn a_setting_that_is_taken_back_does_not_stay() {
    let stage = Stage::with("", &Setup::new().connections(3));
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    let before = ben.value("SHOW work_mem");
    ana.run("BEGIN");
    ana.run("SET work_mem = '9MB'");
    ana.run("ROLLBACK");
    assert_eq!(ana.value("SHOW work_mem"), before);
    ana.run("SELECT set_config('work_mem', '8MB', false)");
    assert_eq!(ana.value("SHOW work_mem"), "8MB");
    assert_eq!(ben.value("SHOW work_mem"), before);
    let reply = ana.query("SET work_mem = '6MB'; SELECT 1/0");
    assert_eq!(reply.sqlstate(), "22012");
    assert_eq!(ana.value("SHOW work_mem"), "8MB");
    drop(ana);
    for _ in 0..3 {
        assert_eq!(stage.ana().value("SHOW work_mem"), before);
    }
}

#[test]
fn settings_of_the_startup_packet_hold_for_the_session() {
    let stage = Stage::with("", &narrow());
    let address = stage.gateway.address();
    let login = Login::new(ANA.0, ANA.1, &stage.database);
    let mut tokyo = Wire::login(
        address,
        &login.clone().with(&[
            ("TimeZone", "Asia/Tokyo"),
            ("options", "-c statement_timeout=12345 --work_mem=7MB"),
            ("application_name", "report"),
        ]),
    );
    let mut plain = Wire::login(address, &login);
    assert_eq!(tokyo.greeting.parameter("TimeZone"), Some("Asia/Tokyo"));
    assert_eq!(tokyo.greeting.parameter("application_name"), Some("report"));
    assert_ne!(plain.greeting.parameter("TimeZone"), Some("Asia/Tokyo"));
    for _ in 0..2 {
        assert_eq!(tokyo.value("SHOW TimeZone"), "Asia/Tokyo");
        assert_eq!(tokyo.value("SHOW statement_timeout"), "12345ms");
        assert_eq!(tokyo.value("SHOW work_mem"), "7MB");
        assert_eq!(plain.value("SHOW statement_timeout"), "0");
        assert_ne!(plain.value("SHOW TimeZone"), "Asia/Tokyo");
    }
    tokyo.run("SET TimeZone = 'UTC'");
    assert_eq!(tokyo.value("SHOW TimeZone"), "UTC");
    let reply = tokyo.run("RESET TimeZone");
    assert_eq!(tokyo.value("SHOW TimeZone"), "Asia/Tokyo");
    let told: Vec<_> = reply.0.iter().filter(|message| message.tag == b'S').collect();
    assert_eq!(
        told.last().map(|status| status.texts()[1].clone()).as_deref(),
        Some("Asia/Tokyo")
    );
    let wrong = Wire::try_login(address, &login.clone().with(&[("TimeZone", "Nowhere/Land")]));
    assert_eq!(wrong.expect_err("no such zone").field('C'), "22023");
    let unknown = Wire::try_login(address, &login.with(&[("no_such_setting", "1")]));
    assert_eq!(unknown.expect_err("no such setting").field('C'), "42704");
}

#[test]
fn the_greeting_is_the_servers() {
    let stage = Stage::new();
    let parameters = |wire: &Wire| {
        let mut all = wire.greeting.parameters.clone();
        all.sort();
        all
    };
    assert_eq!(parameters(&stage.ana()), parameters(&stage.direct()));
}

#[test]
fn a_temporary_table_is_its_sessions_and_ends_with_it() {
    let stage = Stage::with("", &Setup::new().connections(2));
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("CREATE TEMP TABLE mine (a int)");
    ana.run("INSERT INTO mine VALUES (1)");
    for _ in 0..3 {
        assert_eq!(ben.query("SELECT * FROM mine").sqlstate(), "42P01");
        assert_eq!(ana.value("SELECT count(*) FROM mine"), "1");
    }
    drop(ana);
    let mut next = stage.ana();
    for _ in 0..3 {
        assert_eq!(next.query("SELECT * FROM mine").sqlstate(), "42P01");
        assert_eq!(ben.query("SELECT * FROM mine").sqlstate(), "42P01");
    }
}

#[test]
fn an_advisory_lock_is_held_by_its_session_until_it_ends() {
    let stage = Stage::with("", &Setup::new().connections(2));
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("SELECT pg_advisory_lock(7)");
    for _ in 0..3 {
        assert_eq!(ana.value("SELECT pg_try_advisory_lock(7)"), "t");
        assert_eq!(ben.value("SELECT pg_try_advisory_lock(7)"), "f");
    }
    drop(ana);
    becomes(&"t".to_owned(), || {
        ben.value("SELECT pg_try_advisory_xact_lock(7)")
    });
}

#[test]
fn notifications_reach_the_session_that_listens_while_it_is_idle() {
    let stage = Stage::with("", &Setup::new().connections(2));
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("LISTEN news");
    ben.run("NOTIFY news, 'hello'");
    let message = ana.read().unwrap();
    assert_eq!(message.tag, b'A');
    assert!(message.body.ends_with(b"news\0hello\0"), "{message:?}");
    ben.run("SELECT pg_notify('news', 'again')");
    let message = ana.read().unwrap();
    assert!(message.body.ends_with(b"news\0again\0"), "{message:?}");
    assert_eq!(ana.value("SELECT 1"), "1");
    drop(ana);
    // nobody else hears what the session listened to
    let mut next = stage.ana();
    for _ in 0..3 {
        ben.run("NOTIFY news, 'late'");
        assert_eq!(next.run("SELECT 1").tags(), "TDCZ");
    }
}

#[test]
fn a_transaction_keeps_its_connection_and_others_wait_for_it() {
    let stage = Stage::with("CREATE TABLE t (a int)", &narrow());
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("BEGIN");
    ana.run("INSERT INTO t VALUES (1)");
    ben.send(&Frames::new().query("SELECT count(*) FROM t"));
    for _ in 0..3 {
        assert_eq!(ana.value("SELECT count(*) FROM t"), "1");
    }
    ana.run("COMMIT");
    assert_eq!(ben.ready().value(), "1");
}

#[test]
fn a_session_that_goes_away_in_a_transaction_takes_it_back() {
    let stage = Stage::with("CREATE TABLE t (a int)", &narrow());
    for terminate in [true, false] {
        let mut ana = stage.ana();
        ana.run("BEGIN");
        ana.run("INSERT INTO t VALUES (1)");
        ana.run("SET LOCAL work_mem = '9MB'");
        if terminate {
            ana.send(&Frames::new().terminate());
        }
        drop(ana);
        let mut ben = stage.gateway.session(BEN);
        assert_eq!(ben.value("SELECT count(*) FROM t"), "0");
        assert_ne!(ben.value("SHOW work_mem"), "9MB");
    }
}

#[test]
fn no_connection_in_time_is_an_error_that_says_so() {
    let setup = narrow().backend("checkout_timeout = \"200ms\"");
    let stage = Stage::with("", &setup);
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    ana.run("BEGIN; SELECT 1");
    let reply = ben.query("SELECT 1");
    assert_eq!(
        (reply.sqlstate().as_str(), reply.status()),
        ("53300", 'I'),
        "{reply:?}"
    );
    assert_eq!(reply.tags(), "EZ");
    let reply = ben.extended("SELECT 1", &[], &[]);
    assert_eq!(
        (reply.sqlstate().as_str(), reply.tags().as_str()),
        ("53300", "EZ")
    );
    // in the batch after the error nothing runs before the Sync
    let reply = ben.ask(
        &Frames::new()
            .parse("", "SELECT 1", &[])
            .flush()
            .bind("", "", &[], &[], &[])
            .execute("", 0)
            .sync(),
    );
    assert_eq!(
        (reply.sqlstate().as_str(), reply.tags().as_str()),
        ("53300", "EZ")
    );
    ana.run("COMMIT");
    assert_eq!(ben.value("SELECT 1"), "1");
}

#[test]
fn two_teams_are_two_roles() {
    let stage = Stage::with("", &narrow());
    let mut sessions = [
        stage.ana(),
        stage.gateway.session(DASH),
        stage.gateway.session(BEN),
    ];
    for _ in 0..2 {
        for (session, role) in sessions.iter_mut().zip(["growth", "bi", "growth"]) {
            assert_eq!(session.value("SELECT current_user"), role);
            assert_eq!(session.value("SELECT session_user"), role);
        }
    }
}

#[test]
fn many_sessions_over_few_connections_each_get_their_own_answers() {
    let stage = Stage::with("", &Setup::new().connections(4));
    thread::scope(|scope| {
        for number in 0..12 {
            let gateway = &stage.gateway;
            scope.spawn(move || {
                let mut wire = gateway.session([ANA, BEN, ANA, DASH][number % 4]);
                for round in 0..12 {
                    let expected = format!("{number}-{round}");
                    assert_eq!(wire.value(&format!("SELECT '{expected}'")), expected);
                    let reply = wire.extended("SELECT $1::text", &[Some(expected.as_bytes())], &[]);
                    assert_eq!(reply.value(), expected);
                    if round % 4 == number % 4 {
                        wire.run("BEGIN");
                        assert_eq!(wire.query("SELECT 1/0").status(), 'E');
                        wire.run("ROLLBACK");
                    }
                }
            });
        }
    });
}
