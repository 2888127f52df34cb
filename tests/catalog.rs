//! The catalog snapshot against a real PostgreSQL.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::{PasswordForm, Postgres, SUPERUSER};
use tokio_postgres::NoTls;
use tollgate::backend::catalog::{
    CatalogAddress, CatalogPassword, CatalogSettings, CatalogSource, CatalogWatch, WatchSettings,
};
use tollgate::config::CacheWhat;
use tollgate::policy::{
    Cacheability, Catalog, FunctionClass, Invalidation, Volatility, cacheability, invalidation, search_path,
    touches_session,
};
use tollgate::sql::{Analysis, Backslash, FunctionName};
use tollgate::types::{DatabaseName, Secret};

const SCHEMA: &str = include_str!("catalog.sql");
/// Long enough for a busy machine; reached only by a failing test.
const PATIENCE: Duration = Duration::from_mins(1);

fn settings(server: &Postgres) -> CatalogSettings {
    CatalogSettings {
        addresses: vec![CatalogAddress::Unix {
            directory: server.socket_directory().to_owned(),
            port: server.port(),
        }],
        database: DatabaseName::new("postgres"),
        user: SUPERUSER.to_owned(),
        password: None,
        connect_timeout: Duration::from_secs(30),
        query_timeout: Duration::from_secs(30),
    }
}

fn source(server: &Postgres) -> CatalogSource {
    CatalogSource::new(&settings(server)).expect("a source")
}

/// No looks but those that are asked for.
fn on_request() -> WatchSettings {
    WatchSettings {
        interval: Duration::ZERO,
        ..WatchSettings::default()
    }
}

fn name(catalog: &Catalog, oid: u32) -> String {
    let relation = &catalog.relation(oid).expect("a relation").definition;
    match &*relation.schema {
        "public" => relation.name.to_string(),
        schema => format!("{schema}.{}", relation.name),
    }
}

fn names(catalog: &Catalog, oids: &[u32]) -> String {
    let mut names: Vec<String> = oids.iter().map(|oid| name(catalog, *oid)).collect();
    names.sort();
    names.join(" ")
}

fn kept(catalog: &Catalog, sql: &str) -> String {
    let analysis = Analysis::of(sql.as_bytes(), Backslash::Literal);
    let path = search_path("\"$user\", public", SUPERUSER);
    match cacheability(
        analysis.single().expect("one statement"),
        catalog,
        &path,
        CacheWhat::Reads,
    ) {
        Cacheability::Cacheable(oids) => names(catalog, &oids),
        Cacheability::Bypass(reason) => format!("! {}", reason.as_str()),
    }
}

fn stale(catalog: &Catalog, sql: &str) -> String {
    let analysis = Analysis::of(sql.as_bytes(), Backslash::Literal);
    let path = search_path("public", SUPERUSER);
    match invalidation(analysis.single().expect("one statement"), Some(catalog), &path) {
        Invalidation::Nothing => "nothing".to_owned(),
        Invalidation::Relations(oids) => names(catalog, &oids),
        Invalidation::Everything => "everything".to_owned(),
        Invalidation::Definitions => "definitions".to_owned(),
    }
}

/// The verdict of every row at once, so that a failure shows them all.
fn check(judge: impl Fn(&str) -> String, rows: &[(&str, &str)]) {
    let wrong: Vec<String> = rows
        .iter()
        .map(|(sql, expected)| (sql, expected, judge(sql)))
        .filter(|(_, expected, found)| found != *expected)
        .map(|(sql, expected, found)| format!("{sql}\n  expected {expected}\n  found    {found}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn verdicts_over_a_real_database() {
    let server = Postgres::start();
    server.run(SCHEMA);
    let catalog = source(&server).load(7).await.expect("a catalog").catalog;
    assert_eq!(catalog.generation, 7);

    let reads: Vec<(String, &str)> = [
        ("users", "users"),
        ("sales.events", "sales.events"),
        ("\"Odd Schema\".\"Odd \"\"Table\"\"\"", "Odd Schema.Odd \"Table\""),
        ("child", "child"),
        ("parent", "parent"),
        ("daily", "daily"),
        ("moods", "moods"),
        ("active_users", "events users"),
        ("busy_users", "events users"),
        ("with_daily", "daily events users"),
        ("formatted", "events"),
        ("frozen", "events"),
        ("counting", "users"),
        ("comparing_well", "users"),
        ("totals", "totals"),
        ("over_totals", "totals"),
        ("shifts", "shifts"),
        ("recent", "! moment"),
        ("over_recent", "! moment"),
        ("todays", "! moment"),
        ("dated", "events"),
        ("textual", "! moment"),
        ("mine", "! session_dependent"),
        ("relations", "! system_relation"),
        ("columns", "! system_relation"),
        ("logging", "! user_function"),
        ("doubling", "! user_function"),
        ("comparing", "! user_operator"),
        ("secured", "! row_security"),
        ("accounts", "! row_security"),
        ("lucky_view", "! user_type"),
        ("local_hours", "! moment"),
        ("clocks", "! column_type"),
        ("clock_domains", "! column_type"),
        ("clock_arrays", "! column_type"),
        ("remote", "! foreign_table"),
        ("spread", "! foreign_table"),
        ("events_id_seq", "! sequence"),
        ("pg_class", "! system_relation"),
        ("pg_stat_activity", "! system_relation"),
        ("information_schema.tables", "! system_relation"),
        ("tables", "! unknown_relation"),
        ("nosuch", "! unknown_relation"),
    ]
    .into_iter()
    .map(|(relation, expected)| (format!("SELECT * FROM {relation}"), expected))
    .collect();
    let reads: Vec<(&str, &str)> = reads
        .iter()
        .map(|(sql, expected)| (sql.as_str(), *expected))
        .collect();
    check(|sql| kept(&catalog, sql), &reads);
    check(
        |sql| kept(&catalog, sql),
        &[
            (
                "SELECT sum(id), string_agg(kind, ','), json_agg(kind) FROM users",
                "users",
            ),
            (
                "SELECT trim(kind), substring(kind FROM 1 FOR 2), position('a' IN kind) FROM users",
                "users",
            ),
            (
                "SELECT ceil(id), floor(id), abs(id), round(id / 2.0, 1), log(id), power(id, 2) FROM users",
                "users",
            ),
            (
                "SELECT * FROM users WHERE kind LIKE 'a%' AND kind SIMILAR TO 'b' AND kind ~* 'c'",
                "users",
            ),
            (
                "SELECT date_trunc('week', at), to_char(at, 'IYYY'), count(*) FROM events GROUP BY 1, 2",
                "events",
            ),
            (
                "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY id) FROM users",
                "users",
            ),
            (
                "SELECT split_part(kind, '-', 1), regexp_replace(kind, 'a', 'b'), md5(kind) FROM users",
                "users",
            ),
            (
                "SELECT lag(id) OVER (ORDER BY id), ntile(4) OVER (ORDER BY id) FROM users",
                "users",
            ),
            ("SELECT upper(kind) FROM users", "! user_function"),
            ("SELECT pg_catalog.lower(kind) FROM users", "users"),
            ("SELECT total(id) FROM users", "! user_function"),
            ("SELECT double_it(id) FROM users", "! user_function"),
            ("SELECT u.owner_name FROM users u", "! user_function"),
            ("SELECT id <=> 'x' FROM users", "! user_operator"),
            ("SELECT id === 1 FROM users", "users"),
            ("SELECT id::lucky FROM users", "! user_type"),
            ("SELECT id::positive FROM users", "users"),
            ("SELECT at::date, date(at), at::timestamp[] FROM events", "events"),
            ("SELECT day::timestamp FROM dated", "events"),
            ("SELECT kind::date FROM dated", "! moment"),
            (
                "SELECT born::date FROM users JOIN events ON user_id = users.id",
                "events users",
            ),
            ("SELECT date(kind) FROM users", "! moment"),
            ("SELECT ('no' || 'w')::timestamptz FROM users", "! moment"),
            ("SELECT kind::workday FROM users", "! user_type"),
            ("SELECT ('(no' || 'w,1)')::stay FROM users", "! user_type"),
            ("SELECT now() FROM users", "! moment"),
            ("SELECT random() FROM users", "! volatile_function"),
            ("SELECT pg_size_pretty(id::bigint) FROM users", "users"),
            (
                "SELECT pg_relation_size('users') FROM users",
                "! session_dependent",
            ),
            ("SELECT begins AT TIME ZONE 'UTC' FROM shifts", "! moment"),
        ],
    );
    check(
        |sql| stale(&catalog, sql),
        &[
            ("INSERT INTO events VALUES (1)", "events"),
            ("INSERT INTO sales.events VALUES (1)", "sales.events"),
            ("DELETE FROM users", "messages notes sessions users"),
            ("DELETE FROM sessions", "messages notes sessions"),
            ("DELETE FROM messages", "messages notes"),
            ("DELETE FROM countries", "countries"),
            (
                "TRUNCATE countries CASCADE",
                "countries messages notes sessions users",
            ),
            ("INSERT INTO child VALUES (1)", "child other_parent parent"),
            ("DELETE FROM parent", "child other_parent parent"),
            (
                "INSERT INTO daily_2025_01 VALUES ('2025-01-01', 1)",
                "daily daily_2025 daily_2025_01",
            ),
            (
                "INSERT INTO daily VALUES ('2025-01-01', 1)",
                "daily daily_2024 daily_2025 daily_2025_01",
            ),
            ("UPDATE frozen SET kind = 'x'", "events"),
            ("REFRESH MATERIALIZED VIEW totals", "totals"),
            ("INSERT INTO quiet VALUES (1)", "quiet"),
            ("UPDATE builtin_trigger SET id = 1", "builtin_trigger"),
            ("INSERT INTO audited VALUES (1)", "everything"),
            ("INSERT INTO split VALUES (1)", "everything"),
            ("INSERT INTO split_1 VALUES (1)", "everything"),
            ("INSERT INTO ruled VALUES (1)", "everything"),
            ("INSERT INTO defaulted DEFAULT VALUES", "everything"),
            ("INSERT INTO checked VALUES (1)", "everything"),
            ("DELETE FROM feeding", "everything"),
            ("INSERT INTO instead VALUES (1)", "everything"),
            ("INSERT INTO remote VALUES (1)", "everything"),
            ("INSERT INTO nosuch VALUES (1)", "everything"),
            ("UPDATE pg_class SET relname = relname", "definitions"),
            ("SELECT * FROM logging", "everything"),
            ("SELECT * FROM logged_accounts", "everything"),
            ("SELECT * FROM accounts", "nothing"),
            ("SELECT log_it(1)", "everything"),
            ("SELECT look(1), 1 <=> 'a'", "everything"),
            ("SELECT look(1), 1 === 1", "nothing"),
            ("SELECT double_it(1), nextval('events_id_seq')", "nothing"),
            (
                "SELECT count(*), coalesce(max(id), 0), now(), current_user FROM users",
                "nothing",
            ),
        ],
    );

    let class = |name: &str| {
        catalog.functions.class(&FunctionName {
            schema: None,
            name: name.into(),
        })
    };
    for (name, expected) in [
        ("sum", Some(FunctionClass::Builtin(Volatility::Immutable))),
        ("date_trunc", Some(FunctionClass::Builtin(Volatility::Stable))),
        ("nextval", Some(FunctionClass::Builtin(Volatility::Volatile))),
        ("double_it", Some(FunctionClass::UserImmutable)),
        ("total", Some(FunctionClass::UserImmutable)),
        ("look", Some(FunctionClass::UserOther)),
        ("nosuch", None),
    ] {
        assert_eq!(class(name), expected, "{name}");
    }
}

#[tokio::test]
async fn extensions_are_judged_by_what_is_known_of_them() {
    let server = Postgres::start();
    let extensions = [
        "citext",
        "cube",
        "hstore",
        "intarray",
        "ltree",
        "pg_trgm",
        "pgcrypto",
        "uuid-ossp",
        "btree_gist",
        "dblink",
        "tablefunc",
        "moddatetime",
    ];
    for extension in extensions {
        server.run(&format!("CREATE EXTENSION \"{extension}\""));
    }
    server.run(
        "CREATE TABLE t (id uuid DEFAULT uuid_generate_v4(), name citext, tags hstore, path ltree,
                         EXCLUDE USING gist (id WITH =));
         CREATE INDEX ON t USING gin (name gin_trgm_ops); CREATE INDEX ON t (lower(name));
         CREATE TABLE dated (at timestamptz);
         CREATE TRIGGER m BEFORE UPDATE ON dated FOR EACH ROW EXECUTE FUNCTION moddatetime(at);",
    );
    let catalog = source(&server).load(1).await.expect("a catalog").catalog;
    let touches = |sql: &str| {
        let analysis = Analysis::of(sql.as_bytes(), Backslash::Literal);
        let touches = touches_session(analysis.single().expect("one statement"), Some(&catalog));
        if touches { "touches" } else { "" }.to_owned()
    };
    check(
        touches,
        &[
            (
                "SELECT count(*) FROM t WHERE name = 'a' AND tags ? 'b' AND path <@ 'c'",
                "",
            ),
            ("INSERT INTO t (name) VALUES ('a')", ""),
            ("UPDATE dated SET at = NULL", ""),
            (
                "SELECT similarity(name, 'a'), crypt('a', 'b'), name::text FROM t WHERE name % 'b'",
                "",
            ),
            (
                "SELECT gen_random_uuid(), uuid_generate_v4(), hstore('a', 'b'), '{1}'::int[] @@ '1'",
                "",
            ),
            ("SELECT set_limit(0.1)", "touches"),
            ("SELECT * FROM dblink('a', 'SELECT 1') AS t(a int)", "touches"),
            ("SELECT * FROM crosstab('SELECT 1') AS t(a int)", "touches"),
        ],
    );
}

#[tokio::test]
async fn casts_of_users_stop_everything() {
    let server = Postgres::start();
    server.run(
        "CREATE TABLE t (id int); CREATE TYPE pair AS (a int, b int);
         CREATE FUNCTION to_text(pair) RETURNS text STABLE LANGUAGE sql AS 'SELECT $1.a::text';
         CREATE CAST (pair AS text) WITH FUNCTION to_text(pair) AS IMPLICIT;",
    );
    let catalog = source(&server).load(1).await.expect("a catalog").catalog;
    assert_eq!(kept(&catalog, "SELECT count(*) FROM t"), "! user_cast");
}

#[tokio::test]
async fn a_user_without_rights_reads_definitions_over_tcp() {
    let server = Postgres::start();
    server.run("CREATE TABLE t (id int); REVOKE ALL ON t FROM PUBLIC; CREATE VIEW v AS SELECT * FROM t");
    for (user, form) in [
        ("control_scram", PasswordForm::Scram),
        ("control_md5", PasswordForm::Md5),
    ] {
        server.add_user(user, "a secret", form);
        let address = server.address();
        let settings = CatalogSettings {
            addresses: vec![CatalogAddress::Tcp {
                host: address.ip().to_string(),
                port: address.port(),
            }],
            user: user.to_owned(),
            password: Some(CatalogPassword::Text(Secret::new("a secret".to_owned()))),
            ..settings(&server)
        };
        let catalog = CatalogSource::new(&settings)
            .expect("a source")
            .load(1)
            .await
            .expect("a catalog")
            .catalog;
        assert_eq!(kept(&catalog, "SELECT count(*) FROM v"), "t");

        let settings = CatalogSettings {
            password: Some(CatalogPassword::Text(Secret::new("wrong".to_owned()))),
            ..settings
        };
        let error = CatalogSource::new(&settings)
            .expect("a source")
            .load(1)
            .await
            .expect_err("refused");
        assert!(
            error.with_causes().contains("password authentication failed"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_request_takes_the_catalog_away_until_it_is_answered() {
    let server = Postgres::start();
    server.run("CREATE TABLE before (id int)");
    let watch = CatalogWatch::spawn(source(&server), on_request(), || {});
    let first = watch.ready().await.expect("a catalog");
    assert_eq!(kept(&first, "SELECT count(*) FROM after"), "! unknown_relation");
    server.run("CREATE TABLE after (id int)");
    watch.refresh();
    assert!(watch.current().is_none());
    assert!(!watch.is_current(&first));
    let second = watch.ready().await.expect("a catalog");
    assert_eq!(kept(&second, "SELECT count(*) FROM after"), "after");
    assert!(watch.is_current(&second) && watch.last_error().is_none());
}

/// A connection of the superuser.
async fn connected(server: &Postgres) -> tokio_postgres::Client {
    let url = server.url(SUPERUSER, support::SUPERUSER_PASSWORD, "postgres");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn a_snapshot_that_began_before_a_request_does_not_answer_it() {
    let server = Postgres::start();
    server.run("CREATE TABLE t (id int); CREATE VIEW v AS SELECT * FROM t");
    let mut client = connected(&server).await;
    let observer = connected(&server).await;

    // the definition of a view can be had only with a lock on what it reads
    let ddl = client.transaction().await.expect("a transaction");
    ddl.batch_execute("ALTER TABLE t ADD COLUMN n int; CREATE TABLE fresh (id int)")
        .await
        .expect("DDL");
    let watch = CatalogWatch::spawn(source(&server), on_request(), || {});
    until(async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                        WHERE application_name = 'tollgate catalog' AND wait_event_type = 'Lock'";
        observer
            .query_one(waiting, &[])
            .await
            .expect("a count")
            .get::<_, i64>(0)
            == 1
    })
    .await;
    ddl.commit().await.expect("a commit");
    watch.refresh();
    let catalog = watch.ready().await.expect("a catalog");
    assert_eq!(catalog.generation, 2);
    assert_eq!(kept(&catalog, "SELECT count(*) FROM fresh"), "fresh");
}

#[tokio::test]
async fn changes_past_the_gateway_are_found() {
    let server = Postgres::start();
    server.run("CREATE TABLE t (id int); CREATE VIEW v AS SELECT id FROM t; CREATE ROLE someone");
    let changes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&changes);
    let settings = WatchSettings {
        interval: Duration::from_millis(5),
        ..WatchSettings::default()
    };
    let watch = CatalogWatch::spawn(source(&server), settings, move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    watch.ready().await.expect("a catalog");
    for sql in [
        "CREATE OR REPLACE VIEW v AS SELECT id FROM t WHERE now() > '2000-01-01'",
        "CREATE TABLE fresh (id int)",
        "GRANT SELECT ON t TO someone",
        "REVOKE SELECT ON t FROM someone",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY p ON t USING (true)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER FUNCTION f() IMMUTABLE",
        "ALTER TABLE t ALTER COLUMN id SET DEFAULT 7",
        "CREATE INDEX ON t ((id + 1))",
        "CREATE DOMAIN d AS int DEFAULT 1",
        "ALTER DOMAIN d SET DEFAULT 2",
        "ALTER TABLE fresh ADD COLUMN n int",
        "ALTER ROLE someone SET search_path = 'x'",
        "GRANT pg_monitor TO someone",
        "DROP VIEW v",
    ] {
        let before = changes.load(Ordering::SeqCst);
        server.run(sql);
        until(async || changes.load(Ordering::SeqCst) > before).await;
        watch.ready().await.expect("a catalog");
    }
}

#[tokio::test]
async fn what_is_no_change_of_definitions_is_not_taken_for_one() {
    let server = Postgres::start();
    server.run("CREATE TABLE t (id int PRIMARY KEY); CREATE SEQUENCE s; CREATE MATERIALIZED VIEW m AS SELECT * FROM t");
    let source = source(&server);
    let before = source.digest().await.expect("a digest");
    for sql in [
        "INSERT INTO t SELECT generate_series(1, 1000)",
        "ANALYZE t",
        "VACUUM t",
        "VACUUM FULL t",
        "TRUNCATE t",
        "REFRESH MATERIALIZED VIEW m",
        "SELECT nextval('s')",
        "CREATE TEMP TABLE x (id int PRIMARY KEY, n int CHECK (n > 0)); CREATE TEMP VIEW y AS SELECT * FROM x",
    ] {
        server.run(sql);
        assert_eq!(source.digest().await.expect("a digest"), before, "{sql}");
    }
}

#[tokio::test]
async fn a_failure_is_told_and_tried_again() {
    let server = Postgres::start();
    let missing = CatalogSettings {
        database: DatabaseName::new("later"),
        ..settings(&server)
    };
    let settings = WatchSettings {
        pause: Duration::from_millis(5),
        ..on_request()
    };
    let watch = CatalogWatch::spawn(CatalogSource::new(&missing).expect("a source"), settings, || {});
    let error = watch.ready().await.expect_err("no such database");
    assert!(
        error.with_causes().contains("database \"later\" does not exist"),
        "{error}"
    );
    assert!(watch.current().is_none());
    server.add_database("later", SUPERUSER);
    until(async || watch.current().is_some()).await;
    assert!(watch.last_error().is_none());
}

#[tokio::test]
async fn a_lock_does_not_hold_up_a_load_for_ever() {
    let server = Postgres::start();
    server.run("CREATE TABLE t (id int); CREATE VIEW v AS SELECT * FROM t");
    let mut client = connected(&server).await;
    let holding = client.transaction().await.expect("a transaction");
    holding
        .batch_execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("a lock");
    let impatient = CatalogSettings {
        query_timeout: Duration::from_millis(200),
        ..settings(&server)
    };
    let source = CatalogSource::new(&impatient).expect("a source");
    let error = source.load(1).await.expect_err("a time limit");
    assert!(error.with_causes().contains("timeout"), "{error}");
    holding.rollback().await.expect("a rollback");
    source
        .load(2)
        .await
        .expect("the connection is usable, or another is made");
}

#[tokio::test]
async fn a_dropped_watch_stops_and_disconnects() {
    let server = Postgres::start();
    let observer = connected(&server).await;
    let connected = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tollgate catalog'";
        observer
            .query_one(sql, &[])
            .await
            .expect("a count")
            .get::<_, i64>(0)
    };
    let watch = CatalogWatch::spawn(source(&server), on_request(), || {});
    watch.ready().await.expect("a catalog");
    assert_eq!(connected().await, 1);
    let clone = watch.clone();
    drop(watch);
    clone.refresh();
    clone.ready().await.expect("a catalog: a clone keeps it going");
    drop(clone);
    until(async || connected().await == 0).await;
}

/// Asks again until `condition` holds.
async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    tokio::time::timeout(PATIENCE, async {
        while !condition().await {
            tick.tick().await;
        }
    })
    .await
    .expect("it holds in time");
}
