//! Code that writes where nothing shows it: every answer that it may have changed is asked for anew.

use crate::stage::Stage;
use crate::support::frames::Frames;
use crate::support::gateway::Setup;
use crate::support::wait::eventually;

/// `note` writes to `log`; everything else runs it, each in a way of its own.
const NOTES: &str = "
    CREATE TABLE log (a int);
    CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2), (3);
    CREATE FUNCTION note() RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO log VALUES (1); RETURN 1; END $$;
    CREATE FUNCTION notes(int) RETURNS boolean LANGUAGE sql AS 'SELECT note() = 1';
    CREATE FUNCTION says_immutable(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
        $$ BEGIN PERFORM note(); RETURN $1; END $$;
    CREATE FUNCTION row_notes(t) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
        $$ BEGIN PERFORM note(); RETURN 1; END $$;
    CREATE FUNCTION both_immutable(int, int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
        $$ BEGIN PERFORM says_immutable($1); RETURN 1; END $$;
    CREATE OPERATOR @#@ (FUNCTION = both_immutable, LEFTARG = int, RIGHTARG = int);
    CREATE VIEW viewed AS SELECT note() AS a;
    CREATE VIEW immutable_viewed AS SELECT says_immutable(1) AS a;
    CREATE MATERIALIZED VIEW stored AS SELECT note() AS a;
    CREATE MATERIALIZED VIEW over_viewed AS SELECT * FROM immutable_viewed;
    CREATE TABLE copied (a int);
    CREATE TABLE generated (a int, b int GENERATED ALWAYS AS (says_immutable(a)) STORED);
    CREATE TABLE checked (a int CHECK (says_immutable(a) > 0));
    CREATE TABLE indexed (a int); INSERT INTO indexed SELECT generate_series(1, 3);
    CREATE INDEX indexed_note ON indexed (says_immutable(a));";

/// Where its answer comes from memory, runs `write`, and compares with what the database says.
fn sees(stage: &Stage, read: &str, write: &[&str]) {
    let mut ana = stage.ana();
    eventually("an answer from memory", || {
        ana.run(read);
        (ana.verdict() == "hit").then_some(())
    });
    let mut writer = stage.ana();
    for sql in write {
        if sql.contains("FROM STDIN") {
            writer.send(&Frames::new().query(sql));
            writer.until(b'G');
            writer.send(&Frames::new().copy_data(b"1\n").copy_done());
            writer.ready();
        } else {
            let reply = writer.query(sql);
            assert!(!reply.tags().contains('E'), "{sql}: {reply:?}");
        }
    }
    let (found, expected) = (ana.run(read), stage.direct().run(read));
    assert_eq!(found.rows(), expected.rows(), "{write:?}: {:?}", ana.last());
}

const LOG: &str = "SELECT count(*) FROM log";

#[test]
fn what_hidden_code_writes_is_seen() {
    let stage = Stage::with(NOTES, &Setup::new());
    for write in [
        &["SELECT note()"][..],
        &["SELECT says_immutable(1)"],
        &["EXPLAIN SELECT says_immutable(1)"],
        &["EXPLAIN (\"analyze\") INSERT INTO log VALUES (1)"],
        &["EXPLAIN (COSTS off, \"analyze\" true) INSERT INTO log VALUES (1)"],
        &["SELECT count(*) FROM t WHERE says_immutable(1) = 1"],
        &["SELECT 1 @#@ 1"],
        &["SELECT t.row_notes FROM t"],
        &["SELECT (t).\"row_notes\" FROM t"],
        &["SELECT * FROM viewed"],
        &["SELECT * FROM immutable_viewed"],
        &["COPY (SELECT * FROM t, immutable_viewed) TO STDOUT"],
        &[
            "BEGIN",
            "DECLARE c CURSOR FOR SELECT * FROM immutable_viewed",
            "FETCH c",
            "COMMIT",
        ],
        &["REFRESH MATERIALIZED VIEW stored"],
        &["REFRESH MATERIALIZED VIEW over_viewed"],
        &["INSERT INTO generated VALUES (1)"],
        &["INSERT INTO checked VALUES (1)"],
        &["INSERT INTO indexed VALUES (1)"],
        &["UPDATE t SET a = a WHERE says_immutable(a) > 0"],
        &["COPY copied FROM STDIN WHERE notes(a)"],
        &["COPY copied FROM STDIN WITH (FORMAT csv) WHERE a > 0 AND (public.\"notes\"(a))"],
        &["COPY copied FROM STDIN WHERE says_immutable(a) > 0"],
        &["ANALYZE indexed"],
        &["VACUUM ANALYZE"],
        &["REINDEX TABLE indexed"],
        &["REINDEX INDEX indexed_note"],
        &["CLUSTER indexed USING indexed_note"],
    ] {
        sees(&stage, LOG, write);
    }
}

#[test]
fn a_domain_that_writes_where_no_statement_names_it_is_seen() {
    let schema = format!(
        "{NOTES}
         CREATE DOMAIN noted AS int CHECK (notes(VALUE));
         CREATE TYPE pair AS (a int, b noted);
         CREATE VIEW casting AS SELECT '1'::noted AS a;"
    );
    let stage = Stage::with(&schema, &Setup::new());
    let (mut ana, mut direct) = (stage.ana(), stage.direct());
    let oid = |name: &str| {
        let sql = format!("SELECT '{name}'::regtype::oid");
        stage.direct().value(&sql).parse::<u32>().expect("an oid")
    };
    let by_oid = |of: &str, value: &str| {
        Frames::new()
            .parse("", "SELECT $1 IS NULL", &[oid(of)])
            .bind("", "", &[], &[Some(value.as_bytes())], &[])
            .execute("", 0)
            .sync()
    };
    let writes = [
        Frames::new().query("SELECT '1'::noted"),
        Frames::new().query("SELECT CAST('1' AS public.\"noted\")"),
        Frames::new().query("SELECT noted '1'"),
        Frames::new().query("SELECT '{1}'::noted[]"),
        Frames::new().query("VALUES ('1'::noted)"),
        Frames::new().query("SELECT row(1, 2)::pair"),
        Frames::new().query("SELECT * FROM json_to_record('{\"a\": 1}') AS x (a noted)"),
        Frames::new().query("SELECT json_populate_record(null::pair, '{\"b\": 1}')"),
        Frames::new().query("SELECT * FROM casting"),
        Frames::new().query("UPDATE t SET a = '3'::noted"),
        Frames::new().query("BEGIN; DECLARE c CURSOR FOR SELECT '1'::noted; FETCH c; COMMIT"),
        Frames::new().query("COPY (SELECT '1'::noted) TO STDOUT"),
        by_oid("noted", "1"),
        by_oid("noted[]", "{1}"),
    ];
    for write in writes {
        ana.run(LOG);
        ana.run(LOG);
        let before = direct.value(LOG);
        let mut writer = stage.ana();
        writer.send(&write);
        let reply = writer.ready();
        assert!(!reply.tags().contains('E'), "{reply:?}");
        assert_ne!(before, direct.value(LOG), "it writes: {reply:?}");
        assert_eq!(ana.value(LOG), direct.value(LOG), "{:?}", ana.last());
    }
}

#[test]
fn definitions_that_code_has_changed_are_read_before_anything_is_kept() {
    let change = "CREATE OR REPLACE VIEW v AS SELECT count(*) AS n FROM ";
    let schema = format!(
        "CREATE TABLE t0 (a int); CREATE TABLE t1 (a int); CREATE TABLE triggered (a int);
         CREATE VIEW v AS SELECT count(*) AS n FROM t0;
         CREATE FUNCTION define(of text) RETURNS int LANGUAGE plpgsql AS
             $$ BEGIN EXECUTE '{change}' || of; RETURN 1; END $$;
         CREATE FUNCTION says_immutable(of text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
             $$ BEGIN PERFORM define(of); RETURN 1; END $$;
         CREATE PROCEDURE define_it(of text) LANGUAGE plpgsql AS $$ BEGIN PERFORM define(of); END $$;
         CREATE FUNCTION on_write() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM define('t' || NEW.a); RETURN NEW; END $$;
         CREATE TRIGGER t BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION on_write();"
    );
    let stage = Stage::with(&schema, &Setup::new());
    let ways: [&[&str]; 9] = [
        &["DO $$ BEGIN CREATE OR REPLACE VIEW v AS SELECT count(*) AS n FROM t; END $$"],
        &[
            "BEGIN",
            "DO $$ BEGIN CREATE OR REPLACE VIEW v AS SELECT count(*) AS n FROM t; END $$",
            "COMMIT",
        ],
        &["SELECT define('t')"],
        &["SELECT says_immutable('t')"],
        &["CALL define_it('t')"],
        &["INSERT INTO triggered VALUES (N)"],
        &["PREPARE p AS SELECT define('t')", "EXECUTE p"],
        &["SELECT 1; SELECT define('t')"],
        &[
            "BEGIN",
            "CREATE OR REPLACE VIEW v AS SELECT count(*) AS n FROM t",
            "PREPARE TRANSACTION 'hidden'",
            "COMMIT PREPARED 'hidden'",
        ],
    ];
    for (at, way) in ways.into_iter().enumerate() {
        let number = (at + 1) % 2;
        let mut ana = stage.ana();
        for sql in way {
            let sql = sql
                .replace("'t'", &format!("'t{number}'"))
                .replace("FROM t", &format!("FROM t{number}"))
                .replace("(N)", &format!("({number})"));
            ana.run(&sql);
        }
        sees(
            &stage,
            "SELECT sum(n) FROM v",
            &[&format!("INSERT INTO t{number} VALUES (1)")],
        );
    }
}

#[test]
fn a_view_that_has_come_past_the_gateway_may_write() {
    let stage = Stage::with(NOTES, &Setup::new());
    stage.direct().run("CREATE VIEW fresh AS SELECT note() AS a");
    sees(&stage, LOG, &["SELECT * FROM fresh"]);
    stage.direct().run("CREATE VIEW fresher AS SELECT note() AS a");
    sees(&stage, LOG, &["BEGIN", "TABLE fresher", "COMMIT"]);
    // what fails, or is a session's own, disturbs nobody
    let (mut ana, mut other) = (stage.ana(), stage.ana());
    other.run("CREATE TEMP TABLE mine (a int)");
    eventually("an answer from memory", || {
        ana.run(LOG);
        (ana.verdict() == "hit").then_some(())
    });
    other.run("SELECT count(*) FROM mine");
    stage.ana().query("SELECT count(*) FROM nowhere");
    ana.run(LOG);
    assert_eq!(ana.verdict(), "hit");
}
