//! Answers from memory: which, to whom, and how long.

use crate::stage::Stage;
use crate::support::frames::Frames;
use crate::support::gateway::{ANA, BEN, Setup};
use crate::support::wait::eventually;
use crate::support::wire::{Login, Reply, Wire};
use std::thread;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE events (id int PRIMARY KEY, kind text, at timestamptz, amount float8);
    INSERT INTO events
        SELECT g, (ARRAY['web', 'app'])[g % 2 + 1], timestamptz '2024-01-01 00:00:00+00' + g * interval '5 hours', g / 3.0
        FROM generate_series(1, 60) g;
    CREATE TABLE quiet (a int);
    INSERT INTO quiet VALUES (1)";

pub(crate) const COUNT: &str = "SELECT kind, count(*) FROM events GROUP BY kind ORDER BY kind";

/// Asks twice; the second answer must come from memory and be the first one.
pub(crate) fn warm(wire: &mut Wire, sql: &str) -> Reply {
    let first = wire.run(sql);
    let second = wire.run(sql);
    assert_eq!(wire.last(), ("hit".into(), String::new()), "{sql}");
    assert_eq!(first, second, "{sql}");
    second
}

#[test]
fn the_second_answer_comes_from_memory_for_every_user_of_the_team() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let mut ana = stage.ana();
    let first = ana.run(COUNT);
    assert_eq!(ana.last(), ("miss".into(), String::new()));
    let reply = ana.run("SHOW tollgate.last");
    assert_eq!(reply.completions(), ["SHOW"]);
    let row = &reply.rows()[0];
    assert_eq!(row[5].as_deref(), Some("2"), "rows: {row:?}");
    for user in [ANA, BEN] {
        let mut wire = stage.gateway.session(user);
        assert_eq!(wire.run(COUNT), first);
        assert_eq!(wire.verdict(), "hit");
        // neither letter case nor space nor comments make another question
        let other = "select  kind ,count(*) -- how many\n from EVENTS group by kind order by kind";
        assert_eq!(wire.run(other).rows(), first.rows());
        assert_eq!(wire.verdict(), "hit");
    }
    // other literals do
    ana.run("SELECT count(*) FROM events WHERE kind = 'web'");
    ana.run("SELECT count(*) FROM events WHERE kind = 'app'");
    assert_eq!(ana.verdict(), "miss");
    assert!(
        stage
            .gateway
            .metric("tollgate_cache_lookups_total{team=\"growth\",outcome=\"hit\"}")
            >= 4
    );
}

#[test]
fn each_way_past_the_cache_has_its_reason() {
    let schema = format!(
        "{SCHEMA};
         CREATE SEQUENCE numbers;
         CREATE FUNCTION own(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
         CREATE TABLE secured (a int);
         ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
         CREATE VIEW random_view AS SELECT count(*), random() FROM events"
    );
    let stage = Stage::with(&schema, &Setup::new());
    let mut ana = stage.ana();
    for (sql, reason) in [
        ("SELECT kind FROM events", "not_aggregate"),
        ("SELECT count(*) FROM generate_series(1, 2)", "no_relation"),
        ("SELECT count(*) FROM pg_class", "system_relation"),
        (
            "SELECT count(*) FROM information_schema.tables",
            "system_relation",
        ),
        (
            "SELECT count(*) FROM events WHERE amount > random()",
            "volatile_function",
        ),
        ("SELECT max(last_value) FROM numbers", "sequence"),
        ("SELECT sum(own(id)) FROM events", "user_function"),
        ("SELECT count(*) FROM secured", "row_security"),
        ("SELECT max(count) FROM random_view", "volatile_function"),
        ("SELECT count(*) FROM events WHERE at < now()", "moment"),
        ("SELECT count(*) FROM events WHERE at < current_date", "moment"),
        ("SELECT count(*) FROM events WHERE at < 'today'", "moment"),
        ("SELECT count(*), current_user FROM events", "session_dependent"),
        ("SELECT count(*) FROM events TABLESAMPLE system (50)", "sample"),
        ("SELECT max(ctid) FROM events", "system_column"),
        ("EXPLAIN SELECT count(*) FROM events", "explain"),
        (
            "SELECT count(*) FROM (SELECT 1 FROM events FOR UPDATE) e",
            "row_locks",
        ),
        ("SELECT count(*) FROM events; SELECT 1", "several_statements"),
        ("DELETE FROM quiet WHERE a = 7", "not_read"),
    ] {
        for _ in 0..2 {
            ana.run(sql);
            assert_eq!(ana.last(), ("bypass".into(), reason.into()), "{sql}");
        }
    }
    ana.run("BEGIN");
    ana.run("DELETE FROM quiet WHERE a = 7");
    ana.run(COUNT);
    ana.run("COMMIT");
    ana.run("SET tollgate.cache = off");
    ana.run(COUNT);
    assert_eq!(ana.last(), ("bypass".into(), "session_off".into()));
    let bypass = |reason: &str| {
        stage
            .gateway
            .metric(&format!("tollgate_cache_bypass_total{{reason=\"{reason}\"}}"))
    };
    assert!(
        bypass("in_transaction") >= 1,
        "the SELECT in the transaction is counted"
    );
    assert!(bypass("moment") >= 6);
}

#[test]
fn a_parameter_that_speaks_of_the_moment_is_seen_in_both_formats() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let mut ana = stage.ana();
    let sql = "SELECT count(*) FROM events WHERE at < $1::text::timestamptz";
    for (format, value, expected) in [(0, "now", "moment"), (1, "now", "moment"), (1, "2020-01-01", "")] {
        let ask = Frames::new()
            .parse("", sql, &[])
            .bind("", "", &[format], &[Some(value.as_bytes())], &[])
            .execute("", 0)
            .sync();
        assert_eq!(ana.ask(&ask).tags(), "12DCZ");
        assert_eq!(ana.last().1, expected, "{value} in format {format}");
    }
}

#[test]
fn a_text_that_is_read_as_the_moment_is_seen_before_it_is_made() {
    let schema = "CREATE TABLE events (at timestamptz, label text); INSERT INTO events VALUES (now(), 'now');
        CREATE VIEW labelled AS SELECT at, label FROM events WHERE at <= label::timestamptz;
        CREATE VIEW dated AS SELECT at::date AS day FROM events";
    let stage = Stage::with(schema, &Setup::new());
    let mut ana = stage.ana();
    for sql in [
        "SELECT count(*) FROM events WHERE at <= ('no' || 'w')::timestamptz",
        "SELECT count(*) FROM events WHERE at <= label::timestamptz",
        "SELECT max(timestamptz(label)) FROM events",
        "SELECT max(d::date) FROM (SELECT upper(label) AS d FROM events) q",
        "SELECT count(*) FROM labelled",
    ] {
        for _ in 0..2 {
            ana.run(sql);
            assert_eq!(ana.last(), ("bypass".into(), "moment".into()), "{sql}");
        }
    }
    for sql in [
        "SELECT at::date, count(*) FROM events GROUP BY 1",
        "SELECT date_trunc('month', at)::date, count(*) FROM events GROUP BY 1",
        "SELECT count(*) FROM dated WHERE day::timestamp > '2024-01-01'::date",
    ] {
        warm(&mut ana, sql);
    }
}

#[test]
fn what_must_not_be_kept_is_run_each_time() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let mut ana = stage.ana();
    // the answers differ each time, so a kept one would be seen
    for sql in [
        "SELECT count(*), clock_timestamp() FROM events",
        "SELECT count(*), gen_random_uuid() FROM events",
        "SELECT count(*), txid_current() FROM events",
        "SELECT DISTINCT random() FROM quiet",
    ] {
        let (first, second) = (ana.run(sql), ana.run(sql));
        assert_ne!(first.rows(), second.rows(), "{sql}");
    }
}

#[test]
fn a_session_can_do_without_the_cache() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let mut ana = stage.ana();
    assert_eq!(ana.value("SHOW tollgate.cache"), "on");
    warm(&mut ana, COUNT);
    assert_eq!(ana.run("SET tollgate.cache = off").completions(), ["SET"]);
    assert_eq!(ana.value("SHOW tollgate.cache"), "off");
    ana.run(COUNT);
    assert_eq!(ana.verdict(), "bypass");
    let mut other = stage.ana();
    other.run(COUNT);
    assert_eq!(other.verdict(), "hit", "it is the session's own choice");
    for on in ["SET tollgate.cache TO on", "RESET tollgate.cache"] {
        ana.run("SET tollgate.cache = off");
        ana.run(on);
        ana.run(COUNT);
        assert_eq!(ana.verdict(), "hit", "{on}");
    }
    assert_eq!(ana.query("SET tollgate.cache = perhaps").sqlstate(), "22023");
    assert_eq!(ana.query("SET tollgate.nothing = 1").sqlstate(), "42704");
    assert_eq!(ana.query("SHOW tollgate.nothing").sqlstate(), "42704");
    // in the extended protocol, too
    let reply = ana.extended("SET tollgate.cache = off", &[], &[]);
    assert_eq!(
        (reply.tags().as_str(), reply.completions()),
        ("12nCZ", vec!["SET".to_owned()])
    );
    let reply = ana.extended("SHOW tollgate.cache", &[], &[]);
    assert_eq!((reply.tags().as_str(), reply.value().as_str()), ("12TDCZ", "off"));
}

#[test]
fn settings_that_change_the_answer_make_another_one() {
    let schema = format!(
        "{SCHEMA};
         CREATE SCHEMA other;
         CREATE TABLE other.quiet AS SELECT 7 AS a FROM generate_series(1, 7)"
    );
    let stage = Stage::with(&schema, &Setup::new());
    let mut direct = stage.direct();
    let mut ana = stage.ana();
    for (setting, sql) in [
        ("SET search_path = other, public", "SELECT count(*) FROM quiet"),
        (
            "SET TimeZone = 'Asia/Tokyo'",
            "SELECT date_trunc('day', at) AS day, count(*) FROM events GROUP BY 1 ORDER BY 1",
        ),
        ("SET DateStyle = 'German'", "SELECT max(at::date) FROM events"),
        ("SET extra_float_digits = -5", "SELECT sum(amount) FROM events"),
        (
            "SET bytea_output = 'escape'",
            "SELECT max('\\x01'::bytea::text) FROM events",
        ),
        (
            "SET IntervalStyle = 'iso_8601'",
            "SELECT max(at) - min(at) FROM events",
        ),
        (
            "SET lc_monetary = 'C'",
            "SELECT count(*), 1::numeric::text FROM events",
        ),
    ] {
        let plain = warm(&mut ana, sql);
        ana.run(setting);
        direct.run(setting);
        for _ in 0..2 {
            let (found, expected) = (ana.run(sql), direct.run(sql));
            assert_eq!(
                found.rows(),
                expected.rows(),
                "{setting}: {sql}: {:?}",
                ana.last()
            );
        }
        ana.run("RESET ALL");
        direct.run("RESET ALL");
        assert_eq!(ana.run(sql).rows(), plain.rows(), "after {setting}");
    }
}

#[test]
fn settings_of_the_startup_packet_make_another_answer() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let sql = "SELECT min(at) FROM events";
    let login = Login::new(ANA.0, ANA.1, &stage.database);
    let mut plain = stage.ana();
    let utc = warm(&mut plain, sql);
    for parameters in [
        [("TimeZone", "Asia/Tokyo")],
        [("options", "-c timezone=Asia/Tokyo")],
        [("options", "-ctimezone=Asia/Tokyo")],
    ] {
        let mut tokyo = Wire::login(stage.gateway.address(), &login.clone().with(&parameters));
        assert_ne!(tokyo.run(sql).rows(), utc.rows(), "{parameters:?}");
        assert!(tokyo.value(sql).ends_with("+09"), "{parameters:?}");
        assert_eq!(plain.run(sql).rows(), utc.rows());
    }
}

#[test]
fn parameters_and_their_types_belong_to_the_question() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let mut ana = stage.ana();
    let sql = "SELECT count(*) FROM events WHERE id < $1";
    let mut ask = |types: &[u32], format: i16, value: Option<&[u8]>| {
        let reply = ana.ask(
            &Frames::new()
                .parse("", sql, types)
                .bind("", "", &[format], &[value], &[])
                .describe_portal("")
                .execute("", 0)
                .sync(),
        );
        assert!(reply.error().is_none(), "{reply:?}");
        (reply.value(), ana.verdict())
    };
    let answer = |value: &str, verdict: &str| (value.to_owned(), verdict.to_owned());
    assert_eq!(ask(&[], 0, Some(b"10")), answer("9", "miss"));
    assert_eq!(ask(&[], 0, Some(b"10")), answer("9", "hit"));
    assert_eq!(ask(&[], 0, Some(b"11")), answer("10", "miss"));
    assert_eq!(ask(&[], 0, None), answer("0", "miss"));
    assert_eq!(ask(&[], 0, None), answer("0", "hit"));
    assert_eq!(ask(&[23], 1, Some(&[0, 0, 0, 10])), answer("9", "miss"));
    assert_eq!(ask(&[23], 1, Some(&[0, 0, 0, 10])), answer("9", "hit"));
    assert_eq!(
        ask(&[700], 1, Some(&[0, 0, 0, 10])),
        answer("0", "miss"),
        "the same bytes as a float"
    );
}

#[test]
fn an_answer_that_is_too_large_goes_through_and_is_not_kept() {
    let setup = Setup::new().cache("max_entry = \"16KiB\"");
    let stage = Stage::with(SCHEMA, &setup);
    let mut ana = stage.ana();
    let sql = "SELECT g, count(*) FROM events, generate_series(1, 5000) g GROUP BY g";
    for _ in 0..2 {
        assert_eq!(ana.run(sql).rows().len(), 5000);
        assert_eq!(ana.last().1, "too_big");
    }
    warm(&mut ana, COUNT);
    assert!(
        stage
            .gateway
            .metric("tollgate_cache_discards_total{reason=\"too_big\"}")
            >= 1
    );
}

#[test]
fn memory_stays_within_its_bound() {
    let setup = Setup::new().cache("memory = \"256KiB\"\nmax_entry = \"64KiB\"");
    let stage = Stage::with(SCHEMA, &setup);
    let mut ana = stage.ana();
    for number in 0..200 {
        ana.run(&format!(
            "SELECT g, {number}, count(*) FROM events, generate_series(1, 100) g GROUP BY g"
        ));
    }
    eventually("the store is within its bound", || {
        (stage.gateway.metric("tollgate_cache_bytes") <= 256 * 1024).then_some(())
    });
    assert!(stage.gateway.metric("tollgate_cache_entries") > 0);
}

#[test]
fn an_answer_becomes_too_old() {
    let stage = Stage::with(SCHEMA, &Setup::new().cache("ttl = \"1s\""));
    let mut ana = stage.ana();
    warm(&mut ana, COUNT);
    // past the gateway, which does not see it
    stage.direct().run("DELETE FROM events");
    eventually("the answer has expired", || {
        ana.run(COUNT).rows().is_empty().then_some(())
    });
}

#[test]
fn answers_from_memory_need_no_connection() {
    let stage = Stage::with(SCHEMA, &Setup::new().connections(1));
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    let expected = warm(&mut ana, COUNT);
    ben.run("BEGIN");
    assert_eq!(ana.run(COUNT), expected);
    let reply = ana.extended(COUNT, &[], &[]);
    assert_eq!(reply.tags(), "12TDDCZ");
    ben.run("COMMIT");
}

#[test]
fn every_read_is_kept_if_the_configuration_says_so_and_none_if_it_says_that() {
    let stage = Stage::with(SCHEMA, &Setup::new().cache("what = \"reads\""));
    let mut ana = stage.ana();
    warm(&mut ana, "SELECT id, kind FROM events WHERE id < 10 ORDER BY id");
    warm(&mut ana, "TABLE quiet");
    let stage = Stage::with(SCHEMA, &Setup::new().cache("what = \"off\""));
    let mut ana = stage.ana();
    ana.run(COUNT);
    ana.run(COUNT);
    assert_eq!(ana.last(), ("bypass".into(), "cache_off".into()));
}

#[test]
fn many_sessions_asking_and_changing_settings_get_their_own_answers() {
    let stage = Stage::with(SCHEMA, &Setup::new().connections(4));
    let zones = ["UTC", "Asia/Tokyo", "America/New_York", "Asia/Kolkata"];
    let sql = "SELECT to_char(min(at), 'YYYY-MM-DD HH24:MI OF') FROM events";
    let expected: Vec<String> = zones
        .iter()
        .map(|zone| {
            let mut direct = stage.direct();
            direct.run(&format!("SET TimeZone = '{zone}'"));
            direct.value(sql)
        })
        .collect();
    thread::scope(|scope| {
        for number in 0..8 {
            let (gateway, expected) = (&stage.gateway, &expected);
            scope.spawn(move || {
                let mut wire = gateway.session([ANA, BEN][number % 2]);
                for round in 0..20 {
                    let choice = (number + round) % zones.len();
                    wire.run(&format!("SET TimeZone = '{}'", zones[choice]));
                    assert_eq!(wire.value(sql), expected[choice]);
                    assert_eq!(wire.extended(sql, &[], &[]).value(), expected[choice]);
                }
            });
        }
    });
}

/// A write may name a relation by a path that the session's settings do not tell.
#[test]
fn a_write_by_a_search_path_of_its_own_makes_the_answer_new() {
    let schema = "CREATE TABLE t (a int); CREATE SCHEMA other; CREATE TABLE other.t (a int);
         GRANT ALL ON SCHEMA other TO PUBLIC; GRANT ALL ON ALL TABLES IN SCHEMA other TO PUBLIC";
    let stage = Stage::with(schema, &Setup::new());
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    for (written, write) in [
        "BEGIN; SET LOCAL search_path = other; INSERT INTO t VALUES (1); COMMIT",
        "SET search_path = other; INSERT INTO t VALUES (1)",
        "SELECT set_config('search_path', 'other', false); INSERT INTO t VALUES (1)",
    ]
    .into_iter()
    .enumerate()
    {
        warm(&mut ana, "SELECT count(*) FROM other.t");
        assert_eq!(ben.run(write).error(), None, "{write}");
        let expected = (written + 1).to_string();
        assert_eq!(ana.value("SELECT count(*) FROM other.t"), expected, "{write}");
    }
    // also when the path was changed by a request before
    warm(&mut ana, "SELECT count(*) FROM other.t");
    let mut cara = stage.gateway.session(BEN);
    cara.run("BEGIN");
    cara.run("SET LOCAL search_path = other");
    cara.run("INSERT INTO t VALUES (1)");
    cara.run("COMMIT");
    assert_eq!(ana.value("SELECT count(*) FROM other.t"), "4");
}

#[test]
fn what_follows_discard_all_in_a_pipeline_stays_the_sessions_own() {
    let stage = Stage::with(SCHEMA, &Setup::new().connections(2));
    let mut ana = stage.ana();
    let frames = Frames::new()
        .unnamed("DISCARD ALL")
        .unnamed("CREATE TEMPORARY TABLE quiet (a int)")
        .sync();
    let reply = ana.ask(&frames);
    let mut ben = stage.gateway.session(BEN);
    assert_eq!(ben.value("SELECT count(*) FROM quiet"), "1", "{reply:?}");
}
