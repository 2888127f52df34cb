//! Code that runs without being called: what it does to the server's session meets nobody, and what does nothing to it
//! keeps no connection.

use crate::relay::narrow;
use crate::stage::Stage;
use crate::support::frames::Frames;
use crate::support::gateway::{ANA, BEN};
use crate::support::wait::becomes;
use crate::support::wire::{Login, Wire};

/// `evil` changes a setting for the session; everything else runs it, each in a way of its own.
const EVIL: &str = "
    CREATE FUNCTION evil() RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('lock_timeout', '1234567', false); RETURN 1; END $$;
    CREATE FUNCTION evil_trigger() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('lock_timeout', '1234567', false); RETURN NEW; END $$;
    CREATE FUNCTION says_immutable(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('lock_timeout', '1234567', false); RETURN $1; END $$;
    CREATE FUNCTION inner_one() RETURNS int LANGUAGE sql AS 'SELECT public.\"evil\"()';
    CREATE FUNCTION outer_one() RETURNS int LANGUAGE sql AS 'SELECT inner_one()';
    CREATE FUNCTION standard() RETURNS int LANGUAGE sql RETURN evil();
    CREATE FUNCTION by_default(int DEFAULT evil()) RETURNS int LANGUAGE sql AS 'SELECT $1';
    CREATE FUNCTION dynamic() RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN EXECUTE 'SET lock' || '_timeout = 1234567'; RETURN 1; END $$;
    CREATE FUNCTION by_variable() RETURNS int LANGUAGE plpgsql AS
        $$ DECLARE function text := 'SET lock_timeout = 1234567'; BEGIN EXECUTE function; RETURN 1; END $$;
    CREATE FUNCTION by_backslash() RETURNS int LANGUAGE sql SET standard_conforming_strings = off AS
        $$ SELECT length('\\'' || set_config('lock_timeout', '1234567', false) /* ' */) $$;
    CREATE FUNCTION by_escapes() RETURNS text LANGUAGE sql AS
        $$ SELECT U&\"set!005fconfig\" UESCAPE '!' ('lock_timeout', '1234567', false) $$;
    CREATE FUNCTION step(int, int) RETURNS int LANGUAGE sql AS 'SELECT evil()';
    CREATE AGGREGATE evil_sum(int) (SFUNC = step, STYPE = int, INITCOND = '0');
    CREATE FUNCTION same(int, text) RETURNS boolean LANGUAGE sql AS 'SELECT evil() = 1';
    CREATE OPERATOR <=> (FUNCTION = same, LEFTARG = int, RIGHTARG = text);

    CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2);
    CREATE TABLE triggered (a int);
    CREATE TRIGGER e BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION evil_trigger();
    CREATE VIEW over_triggered AS SELECT * FROM triggered;
    CREATE TABLE parted (a int) PARTITION BY LIST (a);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
    CREATE TRIGGER e BEFORE INSERT ON parted_1 FOR EACH ROW EXECUTE FUNCTION evil_trigger();
    CREATE TABLE by_expression (a int) PARTITION BY LIST (says_immutable(a));
    CREATE TABLE by_expression_1 PARTITION OF by_expression FOR VALUES IN (1) PARTITION BY LIST (a);
    CREATE TABLE by_expression_1a PARTITION OF by_expression_1 FOR VALUES IN (1);
    CREATE TABLE owner (a int PRIMARY KEY); INSERT INTO owner VALUES (1);
    CREATE TABLE owned (a int REFERENCES owner ON DELETE CASCADE); INSERT INTO owned VALUES (1);
    CREATE TRIGGER e AFTER DELETE ON owned FOR EACH ROW EXECUTE FUNCTION evil_trigger();
    CREATE TABLE referred (a int PRIMARY KEY);
    CREATE TABLE referring (a int REFERENCES referred);
    CREATE TRIGGER e AFTER TRUNCATE ON referring EXECUTE FUNCTION evil_trigger();
    CREATE TABLE defaulted (a int, b int DEFAULT evil());
    CREATE TABLE built_in (a int, b text DEFAULT set_config('lock_timeout', '1234567', false));
    CREATE TABLE generated (a int, b int GENERATED ALWAYS AS (says_immutable(a)) STORED);
    CREATE TABLE checked (a int CHECK (evil() = 1));
    CREATE TABLE indexed (a int);
    CREATE INDEX ON indexed (says_immutable(a));
    CREATE TABLE ruled (a int);
    CREATE RULE r AS ON INSERT TO ruled DO INSTEAD SELECT evil();
    CREATE TABLE secured (a int); INSERT INTO secured VALUES (1);
    ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
    ALTER TABLE secured FORCE ROW LEVEL SECURITY;
    CREATE POLICY p ON secured USING (evil() = 1);
    CREATE FUNCTION aaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggg() RETURNS int LANGUAGE sql AS
        'SELECT evil()';
    CREATE VIEW vaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggg AS SELECT evil() AS a;
    CREATE VIEW viewed AS SELECT evil() AS a;
    CREATE VIEW over_viewed AS SELECT count(*) FROM viewed;
    CREATE VIEW setting AS SELECT set_config('lock_timeout', '1234567', false);
    CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM t;
    CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO triggered VALUES (1) RETURNING a';";

const LOOK: &str = "SELECT current_setting('lock_timeout')";

/// Why sessions keep their connections.
fn pins(stage: &Stage) -> String {
    let rows = stage.gateway.console().run("SHOW PINS").rows();
    let held = rows.iter().filter(|row| row[1].as_deref() != Some("0"));
    held.filter_map(|row| row[0].clone())
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn what_hidden_code_leaves_meets_nobody() {
    let stage = Stage::with(EVIL, &narrow());
    let clean = stage.ana().value(LOOK);
    for sql in [
        "SELECT evil()",
        "SELECT says_immutable(1)",
        "SELECT outer_one()",
        "SELECT standard()",
        "SELECT by_default()",
        "SELECT dynamic()",
        "SELECT by_variable()",
        "SELECT by_backslash()",
        "SELECT by_escapes()",
        "SELECT aaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggghhhh()",
        "SELECT a FROM vaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggghhhhhhh",
        "SELECT evil_sum(a) FROM t",
        "SELECT count(*) FROM t WHERE a <=> 'x'",
        "SELECT writes()",
        "INSERT INTO triggered VALUES (1)",
        "INSERT INTO over_triggered VALUES (1)",
        "COPY triggered FROM STDIN",
        "WITH w AS (INSERT INTO triggered VALUES (1) RETURNING a) SELECT * FROM w",
        "INSERT INTO parted VALUES (1)",
        "INSERT INTO by_expression_1 VALUES (1)",
        "INSERT INTO by_expression_1a VALUES (1)",
        "DELETE FROM owner",
        "TRUNCATE referred CASCADE",
        "INSERT INTO defaulted (a) VALUES (1)",
        "INSERT INTO built_in (a) VALUES (1)",
        "INSERT INTO generated (a) VALUES (1)",
        "INSERT INTO checked (a) VALUES (1)",
        "INSERT INTO indexed (a) VALUES (1)",
        "INSERT INTO ruled (a) VALUES (1)",
        "SELECT count(*) FROM secured",
        "UPDATE secured SET a = 2",
        "SELECT a FROM viewed",
        "SELECT * FROM over_viewed",
        "SELECT * FROM setting",
        "ALTER TABLE t ADD COLUMN added int DEFAULT evil()",
        "CREATE TABLE made AS SELECT evil()",
        "EXPLAIN SELECT says_immutable(1)",
    ] {
        let mut ana = stage.ana();
        if sql.starts_with("COPY") {
            ana.send(&Frames::new().query(sql));
            ana.until(b'G');
            ana.send(&Frames::new().copy_data(b"1\n").copy_done());
            ana.ready();
        } else {
            let reply = ana.query(sql);
            assert!(!reply.tags().contains('E'), "{sql}: {reply:?}");
        }
        assert_eq!(ana.value(LOOK), "1234567ms", "{sql}");
        let kept = pins(&stage);
        assert!(kept.contains("procedure"), "{sql}: {kept}");
        drop(ana);
        assert_eq!(stage.gateway.session(BEN).value(LOOK), clean, "after {sql}");
    }
}

#[test]
fn a_temporary_table_of_hidden_code_meets_nobody() {
    let bodies = [
        ("sql", "SELECT 5 AS a INTO TEMP remains; SELECT 1"),
        ("sql", "SELECT 5 AS a INTO LOCAL TEMP remains; SELECT 1"),
        ("sql", "SELECT 5 AS a INTO GLOBAL TEMPORARY remains; SELECT 1"),
        ("sql SET search_path = pg_temp", "SELECT 5 AS a INTO remains; SELECT 1"),
        (
            "sql",
            "EXPLAIN ANALYZE CREATE TEMP TABLE remains AS SELECT 5 AS a; SELECT 1",
        ),
        (
            "plpgsql",
            "DECLARE r text; BEGIN
                 FOR r IN EXPLAIN (ANALYZE, COSTS off) CREATE TEMP TABLE remains AS SELECT 5 AS a LOOP NULL; END LOOP;
                 RETURN 1;
             END",
        ),
    ];
    let functions: Vec<String> = bodies
        .iter()
        .enumerate()
        .map(|(number, (language, body))| {
            format!("CREATE FUNCTION f{number}() RETURNS int LANGUAGE {language} AS $${body}$$;")
        })
        .collect();
    let stage = Stage::with(&functions.join("\n"), &narrow());
    let look = "SELECT to_regclass('pg_temp.remains') IS NULL";
    for (number, (_, body)) in bodies.iter().enumerate() {
        let mut ana = stage.ana();
        assert_eq!(ana.value(&format!("SELECT f{number}()")), "1", "{body}");
        assert_eq!(ana.value(look), "f", "{body}");
        let kept = pins(&stage);
        assert!(kept.contains("procedure"), "{body}: {kept}");
        drop(ana);
        assert_eq!(stage.gateway.session(BEN).value(look), "t", "after {body}");
    }
}

/// What maintenance sets is undone at its end, but not all that it may leave: a lock stays.
#[test]
fn maintenance_that_runs_hidden_code_keeps_its_connection() {
    let locks = "CREATE FUNCTION locks(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_lock(1); RETURN $1; END $$;
        CREATE FUNCTION apart(int, int) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_lock(1); RETURN $1 - $2; END $$;";
    let indexed = "CREATE TABLE indexed (a int); INSERT INTO indexed VALUES (1), (2);
        CREATE TABLE \"analyze\" (a int);
        CREATE INDEX by_a ON indexed (locks(a)); CLUSTER indexed USING by_a;";
    let measured = "CREATE TABLE measured (a int); INSERT INTO measured VALUES (1), (2);
        CREATE STATISTICS s ON a, (locks(a)) FROM measured;";
    let spans = "CREATE TYPE span AS RANGE (SUBTYPE = int, SUBTYPE_DIFF = apart);
        CREATE TABLE spans (a span); INSERT INTO spans SELECT span(g, g + 2) FROM generate_series(1, 9) g;";
    let look = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    for (tables, texts) in [
        (
            indexed,
            &["ANALYZE", "REINDEX INDEX by_a", "CLUSTER", "VACUUM FULL indexed"][..],
        ),
        (measured, &["ANALYZE measured"]),
        (spans, &["ANALYZE spans"]),
    ] {
        let stage = Stage::with(&format!("{locks}{tables}"), &narrow());
        for sql in texts {
            let mut ana = stage.ana();
            ana.run(sql);
            let kept = pins(&stage);
            assert!(kept.contains("procedure"), "{sql}: {kept}");
            assert_eq!(ana.value(look), "t", "{sql}");
            drop(ana);
            assert_eq!(stage.gateway.session(BEN).value(look), "f", "after {sql}");
        }
    }
}

#[test]
fn code_that_leaves_nothing_keeps_no_connection() {
    let stage = Stage::with(
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN NEW.updated_at = now(); RETURN NEW; END $$;
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
             -- no EXECUTE, no set_config
             BEGIN
                 UPDATE counts SET n = n + 1;
                 INSERT INTO counts VALUES (1) ON CONFLICT (n) DO UPDATE SET n = excluded.n;
                 PERFORM pg_notify('noted', TG_OP), pg_advisory_xact_lock(1);
                 RETURN NULL;
             END $$;
         CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2';
         CREATE TABLE counts (n int PRIMARY KEY);
         CREATE TABLE t (a serial PRIMARY KEY, b int DEFAULT twice(2) CHECK (twice(1) > 0), updated_at timestamptz);
         CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch();
         CREATE TRIGGER note AFTER INSERT ON t EXECUTE FUNCTION note();
         CREATE VIEW v AS SELECT twice(a) FROM t;
         ALTER TABLE counts ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON counts USING (twice(n) > 0);",
        &narrow(),
    );
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    for sql in [
        "INSERT INTO t DEFAULT VALUES",
        "UPDATE t SET b = twice(3)",
        "SELECT * FROM v",
        "SELECT count(*) FROM counts WHERE twice(n) > 0",
        "DELETE FROM t",
    ] {
        let reply = ana.query(sql);
        assert!(!reply.tags().contains('E'), "{sql}: {reply:?}");
        // there is one connection
        ben.run("SELECT count(*) FROM t");
    }
    assert_eq!(pins(&stage), "");
}

#[test]
fn a_temporary_schema_in_the_search_path_at_start_up_keeps_the_connection() {
    let stage = Stage::new();
    for parameters in [
        [("search_path", "pg_temp")],
        [("options", "-c search_path=pg_temp,public")],
        [("options", "--search-path=PG_TEMP")],
    ] {
        let login = Login::new(ANA.0, ANA.1, &stage.database).with(&parameters);
        let mut ana = Wire::login(stage.gateway.address(), &login);
        ana.run("CREATE TABLE mine (a int)");
        assert_eq!(ana.value("SELECT count(*) FROM mine"), "0");
        let kept = pins(&stage);
        assert!(kept.contains("temporary_table"), "{parameters:?}: {kept}");
        drop(ana);
        becomes(&String::new(), || pins(&stage));
        let left = "SELECT count(*) FROM pg_class WHERE relname = 'mine'";
        assert_eq!(stage.gateway.session(BEN).value(left), "0", "{parameters:?}");
    }
}

#[test]
fn code_that_has_just_come_is_seen() {
    let stage = Stage::with("CREATE TABLE plain (a int)", &narrow());
    let clean = stage.ana().value(LOOK);
    let evil = "CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('lock_timeout', '1234567', false); RETURN NEW; END $$";
    let trigger = |table: &str| {
        format!("CREATE TRIGGER e BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION evil()")
    };
    stage.ana().run(evil);
    for (number, texts) in [
        &["CREATE TABLE t (a int)", "TRIGGER", "INSERT INTO t VALUES (1)"][..],
        &[
            "BEGIN",
            "CREATE TABLE t (a int)",
            "TRIGGER",
            "INSERT INTO t VALUES (1)",
            "COMMIT",
        ],
        &["CREATE TABLE t (a int); TRIGGER; INSERT INTO t VALUES (1)"],
        &[
            "CREATE TABLE t (a int)",
            "BEGIN; TRIGGER; COMMIT",
            "INSERT INTO t VALUES (1)",
        ],
        &[
            "CREATE TABLE t (a int DEFAULT length(set_config('lock_timeout', '1234567', false)))",
            "INSERT INTO t DEFAULT VALUES",
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let table = format!("t{number}");
        let mut ana = stage.ana();
        for text in texts {
            let text = text
                .replace("TRIGGER", &trigger("t"))
                .replace(" t ", &format!(" {table} "));
            ana.run(&text);
        }
        assert_eq!(ana.value(LOOK), "1234567ms", "{texts:?}");
        drop(ana);
        assert_eq!(stage.gateway.session(BEN).value(LOOK), clean, "after {texts:?}");
    }
    // whoever writes elsewhere meanwhile keeps nothing
    let mut ana = stage.ana();
    for number in 0..10 {
        ana.run(&format!(
            "CREATE FUNCTION f{number}() RETURNS int LANGUAGE sql AS 'SELECT 1'"
        ));
        ana.run("INSERT INTO plain VALUES (1)");
        ana.run(&format!("SELECT f{number}()"));
    }
    assert_eq!(pins(&stage), "");
}
