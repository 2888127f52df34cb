//! No answer from memory that a write has made stale.

use crate::cache::{COUNT, SCHEMA, warm};
use crate::stage::Stage;
use crate::support::frames::Frames;
use crate::support::gateway::{ANA, BEN, DASH, Setup};
use crate::support::wait::{becomes, eventually};

#[test]
fn a_write_makes_the_answer_new_before_it_is_acknowledged() {
    let schema = format!(
        "{SCHEMA};
         CREATE TABLE parents (id int PRIMARY KEY);
         CREATE TABLE children (parent int REFERENCES parents ON DELETE CASCADE);
         CREATE TABLE logged (a int);
         CREATE TABLE log (a int);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (NEW.a); RETURN NEW; END';
         CREATE TRIGGER t AFTER INSERT ON logged FOR EACH ROW EXECUTE FUNCTION note();
         CREATE VIEW totals AS SELECT kind, count(*) AS number FROM events GROUP BY kind;
         CREATE VIEW quiet_view AS SELECT a FROM quiet;
         CREATE TABLE parted (a int) PARTITION BY RANGE (a);
         CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100);
         CREATE TABLE base (a int);
         CREATE TABLE derived () INHERITS (base);
         CREATE TABLE ruled (a int);
         CREATE RULE r AS ON INSERT TO ruled DO ALSO INSERT INTO log VALUES (NEW.a);
         CREATE FUNCTION grow() RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO quiet VALUES (1); RETURN 1; END';
         CREATE PROCEDURE shrink() LANGUAGE plpgsql AS 'BEGIN DELETE FROM quiet WHERE a = 77; INSERT INTO quiet VALUES (2); END';
         CREATE MATERIALIZED VIEW stored AS SELECT count(*) AS n FROM quiet;
         INSERT INTO parents SELECT generate_series(1, 5);
         INSERT INTO children SELECT 1 + g % 5 FROM generate_series(1, 20) g"
    );
    let stage = Stage::with(&schema, &Setup::new());
    let mut ana = stage.ana();
    let mut direct = stage.direct();
    let quiet = "SELECT count(*), sum(a) FROM quiet";
    let rows: [(&str, &str); 38] = [
        ("INSERT INTO quiet VALUES (5)", quiet),
        ("UPDATE quiet SET a = a + 1", quiet),
        ("DELETE FROM quiet WHERE a = 6", quiet),
        ("INSERT INTO public.quiet VALUES (5)", quiet),
        ("INSERT INTO quiet SELECT id FROM events WHERE id < 4", quiet),
        (
            "WITH w AS (INSERT INTO quiet VALUES (9) RETURNING a) SELECT a FROM w",
            quiet,
        ),
        ("WITH w AS (SELECT 1) UPDATE quiet SET a = 3 WHERE a = 1", quiet),
        (
            "MERGE INTO quiet USING (SELECT 11 AS a) s ON quiet.a = s.a WHEN NOT MATCHED THEN INSERT VALUES (s.a)",
            quiet,
        ),
        ("BEGIN; INSERT INTO quiet VALUES (6); COMMIT", quiet),
        (
            "INSERT INTO quiet VALUES (1); INSERT INTO quiet VALUES (2)",
            quiet,
        ),
        ("SELECT 1; INSERT INTO quiet VALUES (7)", quiet),
        ("DO $$ BEGIN INSERT INTO quiet VALUES (8); END $$", quiet),
        ("SELECT grow()", quiet),
        ("CALL shrink()", quiet),
        ("PREPARE p AS INSERT INTO quiet VALUES (12)", quiet),
        ("EXECUTE p", quiet),
        ("EXPLAIN ANALYZE INSERT INTO quiet VALUES (13)", quiet),
        ("COPY quiet FROM PROGRAM 'echo 4'", quiet),
        ("TRUNCATE quiet", quiet),
        ("INSERT INTO quiet_view VALUES (4)", quiet),
        ("UPDATE quiet SET a = a * 2", "SELECT sum(a) FROM quiet_view"),
        (
            "DELETE FROM events WHERE id = 3",
            "SELECT sum(number) FROM totals",
        ),
        (
            "DELETE FROM parents WHERE id = 2",
            "SELECT count(*) FROM children",
        ),
        ("INSERT INTO logged VALUES (1)", "SELECT count(*) FROM log"),
        ("INSERT INTO ruled VALUES (1)", "SELECT count(*) FROM log"),
        ("INSERT INTO parted VALUES (1)", "SELECT count(*) FROM parted_low"),
        ("INSERT INTO parted_low VALUES (2)", "SELECT count(*) FROM parted"),
        ("INSERT INTO derived VALUES (1)", "SELECT count(*) FROM base"),
        ("UPDATE base SET a = 2", "SELECT sum(a) FROM derived"),
        ("TRUNCATE parents CASCADE", "SELECT count(*) FROM children"),
        ("REFRESH MATERIALIZED VIEW stored", "SELECT sum(n) FROM stored"),
        (
            "ALTER TABLE events ALTER amount TYPE float4",
            "SELECT sum(amount) FROM events",
        ),
        (
            "ALTER TABLE quiet RENAME a TO b; ALTER TABLE quiet RENAME b TO a",
            quiet,
        ),
        (
            "ALTER TABLE quiet ADD COLUMN extra int DEFAULT 5; ALTER TABLE quiet DROP COLUMN extra",
            quiet,
        ),
        (
            "CREATE OR REPLACE VIEW totals AS SELECT kind, count(*) + 1 AS number FROM events GROUP BY kind",
            "SELECT sum(number) FROM totals",
        ),
        (
            "ALTER TABLE quiet RENAME TO loud; ALTER TABLE events RENAME TO quiet; ALTER TABLE loud RENAME TO events",
            "SELECT count(*) FROM quiet",
        ),
        (
            "DROP TABLE base CASCADE; CREATE TABLE base (a int)",
            "SELECT count(*) FROM base",
        ),
        ("CREATE TABLE base2 AS SELECT 1 AS a", "SELECT count(*) FROM base"),
    ];
    for (index, (write, read)) in rows.into_iter().enumerate() {
        // a writer of its own: some writes keep their connection
        let mut writer = stage.gateway.session([ANA, BEN][index % 2]);
        if write == "EXECUTE p" {
            writer.run("PREPARE p AS INSERT INTO quiet VALUES (12)");
        }
        eventually("the definitions are known", || {
            ana.run(read);
            ana.run(read);
            (ana.verdict() == "hit").then_some(())
        });
        // a right of the role, which scripts that run meanwhile do not expect
        let programs = write.contains("PROGRAM");
        if programs {
            stage.superuser().run("GRANT pg_execute_server_program TO growth");
        }
        writer.run(write);
        if programs {
            stage
                .superuser()
                .run("REVOKE pg_execute_server_program FROM growth");
        }
        let (found, expected) = (ana.run(read), direct.run(read));
        assert_eq!(found.rows(), expected.rows(), "{write}: {read}: {:?}", ana.last());
    }
}

#[test]
fn a_write_leaves_answers_about_other_tables_alone() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let mut ana = stage.ana();
    warm(&mut ana, COUNT);
    for write in [
        "INSERT INTO quiet VALUES (5)",
        "BEGIN; DELETE FROM quiet; COMMIT",
        "TRUNCATE quiet",
        "INSERT INTO quiet SELECT id FROM events",
    ] {
        ana.run(write);
        ana.run(COUNT);
        assert_eq!(ana.verdict(), "hit", "{write}");
    }
}

#[test]
fn a_write_by_copy_makes_the_answer_new() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    warm(&mut ana, "SELECT count(*) FROM quiet");
    ben.send(&Frames::new().query("COPY quiet FROM STDIN"));
    ben.until(b'G');
    ben.send(&Frames::new().copy_data(b"1\n2\n"));
    // not yet
    assert_eq!(ana.value("SELECT count(*) FROM quiet"), "1");
    assert_eq!(ben.ask(&Frames::new().copy_done()).completions(), ["COPY 2"]);
    assert_eq!(ana.value("SELECT count(*) FROM quiet"), "3");
    // one that fails changes nothing
    warm(&mut ana, "SELECT count(*) FROM quiet");
    ben.send(&Frames::new().query("COPY quiet FROM STDIN"));
    ben.until(b'G');
    ben.ask(&Frames::new().copy_fail("no"));
    assert_eq!(ana.value("SELECT count(*) FROM quiet"), "3");
}

#[test]
fn a_transaction_is_seen_by_others_when_it_commits_and_not_before() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    let read = "SELECT count(*) FROM quiet";
    for (end, before, after) in [("COMMIT", "1", "2"), ("ROLLBACK", "2", "2"), ("COMMIT", "2", "3")] {
        warm(&mut ana, read);
        ben.run("BEGIN");
        ben.run("INSERT INTO quiet VALUES (1)");
        assert_eq!(ana.value(read), before);
        let own: i32 = ben.value(read).parse().unwrap();
        assert_eq!(own, before.parse::<i32>().unwrap() + 1, "the writer sees its own");
        assert_eq!(ana.value(read), before);
        ben.run(end);
        assert_eq!(ana.value(read), after, "after {end}");
        assert_eq!(ben.value(read), after, "after {end}");
    }
    // savepoints
    warm(&mut ana, read);
    ben.run("BEGIN");
    ben.run("SAVEPOINT s");
    ben.run("INSERT INTO quiet VALUES (1)");
    ben.run("ROLLBACK TO s");
    ben.run("INSERT INTO quiet VALUES (1)");
    ben.run("RELEASE s");
    ben.run("END");
    assert_eq!(ana.value(read), "4");
    // prepared for a commit later, by another session
    warm(&mut ana, read);
    ben.run("BEGIN");
    ben.run("INSERT INTO quiet VALUES (1)");
    ben.run("PREPARE TRANSACTION 'later'");
    assert_eq!(ana.value(read), "4");
    let mut other = stage.ana();
    other.run("COMMIT PREPARED 'later'");
    assert_eq!(ana.value(read), "5");
}

#[test]
fn a_write_whose_writer_vanishes_is_seen() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let mut ana = stage.ana();
    let read = "SELECT count(*) FROM quiet";
    warm(&mut ana, read);
    for sync in [true, false] {
        let before: i32 = ana.value(read).parse().unwrap();
        let mut ben = stage.gateway.session(BEN);
        // the writer does not wait for the answer
        if sync {
            ben.send(&Frames::new().query("INSERT INTO quiet VALUES (1)"));
        } else {
            ben.send(&Frames::new().unnamed("INSERT INTO quiet VALUES (1)").sync());
        }
        drop(ben);
        // whether it was done is up to the race; the cache must agree with the server in the end
        let mut direct = stage.direct();
        stage.await_activity("state = 'active'", 0);
        let now = direct.value(read);
        becomes(&now, || ana.value(read));
        assert!(now.parse::<i32>().unwrap() >= before);
    }
}

#[test]
fn privileges_are_those_of_the_team_and_of_the_moment() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let (mut ana, mut dash) = (stage.ana(), stage.gateway.session(DASH));
    warm(&mut ana, COUNT);
    assert_eq!(
        dash.query(COUNT).sqlstate(),
        "42501",
        "another role's answer is not theirs"
    );
    ana.run("GRANT SELECT ON events TO bi");
    eventually("the definitions are known", || {
        dash.run(COUNT);
        (dash.verdict() == "hit").then_some(())
    });
    ana.run("REVOKE SELECT ON events FROM bi");
    assert_eq!(dash.query(COUNT).sqlstate(), "42501", "{:?}", dash.last());
    ana.run("GRANT SELECT (id) ON events TO bi");
    assert_eq!(dash.query(COUNT).sqlstate(), "42501");
    assert_eq!(dash.value("SELECT count(id) FROM events"), "60");
}

#[test]
fn a_write_while_the_answer_is_made_keeps_it_from_being_kept() {
    let stage = Stage::with(SCHEMA, &Setup::new());
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    // the answer needs both tables; one of them is written while the other is waited for
    let sql = "SELECT (SELECT count(*) FROM events WHERE id > 59), (SELECT count(*) FROM quiet)";
    let lock = stage.block("quiet");
    ana.send(&Frames::new().query(sql));
    stage.await_blocked(1);
    ben.run("INSERT INTO events (id) VALUES (61)");
    lock.release();
    ana.ready();
    assert_eq!(
        ana.run(sql).rows()[0][0].as_deref(),
        Some("2"),
        "{:?}",
        ana.last()
    );
}
