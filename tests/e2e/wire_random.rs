//! Random conversations of one to three clients at PostgreSQL itself and through the gateway: the same bytes.
//!
//! A case is a script as those of `sql-fixtures/wire/`, made of legal messages in any order, and sent in pieces of random
//! length. The gateway has as many connections as there are clients, so that statements and settings must travel. A case
//! that fails is made smaller and printed; as a file in `sql-fixtures/wire/` it stays.
//!
//! `TOLLGATE_TEST_SEED` plays a seed again, `TOLLGATE_WIRE_SECONDS` searches for so long, from a seed of the moment.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::prop_oneof;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::script::{Script, Venue};
use crate::support::Postgres;
use crate::support::gateway::{GROWTH, Gateway, Setup, add_roles};
use crate::support::wait::eventually;
use crate::support::wire::{Login, Reply, Wire};
use crate::wire_scripts::{Direct, Through, comparable, difference};

/// What is played without `TOLLGATE_WIRE_SECONDS`: always the same, so that a failure is a change's.
const CASES: u32 = 40;
const SEED: u64 = 1;
/// How long a failure may be made smaller.
const SHRINKING: Duration = Duration::from_mins(2);
const CLIENTS: usize = 3;
const DATABASE: &str = "random";
/// How long an answer may take; a case that hangs must not take all the time that there is to make it smaller.
const PATIENCE: Duration = Duration::from_secs(10);

/// Texts without parameters; `{me}` is the client's own number, `{any}` anybody's.
const TEXTS: &[&str] = &[
    "SELECT 1",
    "SELECT g FROM generate_series(1, 5) g",
    "SELECT a, b FROM t{me} ORDER BY a, b",
    "SELECT count(*) FROM t{any}",
    "SELECT a, count(*) FROM t{any} GROUP BY a ORDER BY a",
    "SELECT max(at) FROM t{any}",
    "SELECT date '2024-02-01'",
    "SELECT repeat('wide', 20000), g FROM generate_series(1, 3) g",
    "SHOW DateStyle",
    "INSERT INTO t{me} VALUES (7, 'seven')",
    "INSERT INTO t{me} VALUES (8, 'eight'), (9, NULL) RETURNING a",
    "UPDATE t{me} SET a = a + 1",
    "DELETE FROM t{me} WHERE a > 8",
    "SELECT 1/0",
    "SELECT 10 / (3 - g) FROM generate_series(1, 5) g",
    "SELEKT",
    "SELECT * FROM nowhere",
    "",
    "BEGIN",
    "BEGIN",
    "BEGIN READ ONLY",
    "START TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "COMMIT",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE s",
    "SET DateStyle = 'German'",
    "SET DateStyle = 'SQL'",
    "SET LOCAL DateStyle = 'Postgres'",
    "RESET DateStyle",
    "SET TimeZone = 'Asia/Tokyo'",
    "SELECT set_config('DateStyle', 'German, MDY', false)",
    "SELECT set_config('DateStyle', 'SQL, DMY', true)",
    "SELECT * FROM d{me}",
    "ALTER TABLE d{me} ADD COLUMN c text DEFAULT 'new'",
    "ALTER TABLE d{me} DROP COLUMN c",
    "PREPARE s0 AS SELECT 'prepared'",
    "PREPARE s1 AS SELECT set_config('DateStyle', 'German', false)",
    "PREPARE p1 (int) AS INSERT INTO t{me} VALUES ($1, 'prepared') RETURNING b",
    "EXECUTE s0",
    "EXECUTE s1",
    "EXECUTE p1 (6)",
    "EXECUTE p0 (1)",
    "DEALLOCATE s0",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "RESET ALL",
    "CREATE TEMP TABLE own (a int)",
    "SELECT count(*) FROM own",
    "DROP TABLE own",
    "CREATE TEMP TABLE t{me} AS SELECT 1 AS a, 'mine'::text AS b, date '2024-05-06' AS at",
    "SELECT count(*) FROM pg_temp.t{me}",
    "DISCARD TEMP",
    "DISCARD PLANS",
    "COMMIT AND CHAIN",
    "ROLLBACK AND CHAIN",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "RESET default_transaction_read_only",
    "SHOW transaction_read_only",
    "SHOW transaction_isolation",
    "SET ROLE other",
    "SET LOCAL ROLE other",
    "RESET ROLE",
    "SELECT current_user",
    "SET search_path = pg_catalog",
    "SET LOCAL search_path = pg_catalog",
    "RESET search_path",
    "SET app.mark = 'of {me}'",
    "SET LOCAL app.mark = 'passing'",
    "RESET app.mark",
    "SHOW app.mark",
    "SELECT current_setting('app.mark', true)",
    "SELECT pg_advisory_lock({me})",
    "SELECT pg_advisory_unlock({me})",
    "SELECT pg_try_advisory_xact_lock({me})",
    "SELECT nextval('n{me}')",
    "SELECT nextval('n{me}'), currval('n{me}')",
    "EXPLAIN (COSTS OFF) SELECT a FROM t{me}",
    "SELECT a FROM t{me} WHERE a = 1 FOR UPDATE",
    "DECLARE c CURSOR FOR SELECT g FROM generate_series(1, 5) g",
    "DECLARE h CURSOR WITH HOLD FOR SELECT g FROM generate_series(1, 5) g",
    "FETCH 2 FROM h",
    "CLOSE ALL",
    "FETCH 2 FROM c",
    "CLOSE c",
    "LISTEN n{me}",
    "NOTIFY n{me}, 'word'",
    "UNLISTEN *",
    // where an inserted row stands in the table depends on what was there before the case
    "COPY (SELECT * FROM t{me} ORDER BY a, b) TO STDOUT",
    "DO $$ BEGIN RAISE NOTICE 'noted'; END $$",
];

/// Texts with one parameter.
const PARAMETERIZED: &[&str] = &[
    "SELECT $1::int + 1",
    "SELECT $1::text, 1::bigint",
    "SELECT g FROM generate_series(1, $1::int) g",
    "SELECT count(*) FROM t{any} WHERE a > $1",
    "INSERT INTO t{me} VALUES ($1, 'given')",
    "DELETE FROM t{me} WHERE a = $1",
    "SELECT 10 / $1::int",
    "SELECT set_config('DateStyle', CASE WHEN $1::int > 3 THEN 'German' ELSE 'SQL' END, false)",
];

/// Function calls: `abs(int4)`, the same with too few bytes, `set_config('DateStyle', 'SQL', false)`, and one that is not
/// there.
const CALLS: &[&str] = &[
    r#"{"oid": 1397, "values": [{"hex": "ffffffd6"}]}"#,
    r#"{"oid": 1397, "values": [{"hex": "ff"}]}"#,
    r#"{"oid": 2078, "values": ["DateStyle", "SQL", {"hex": "00"}]}"#,
    r#"{"oid": 1, "values": []}"#,
];

/// What is there before each case.
const TABLES: &str = "DELETE FROM t1; DELETE FROM t2; DELETE FROM t3;
INSERT INTO t1 VALUES (1, 'one'), (2, NULL);
INSERT INTO t2 VALUES (3, 'three');
INSERT INTO t3 VALUES (3, 'three'), (3, 'drei'), (4, 'four');
SELECT setval('n1', 1, false), setval('n2', 1, false), setval('n3', 1, false);";

/// A client's next messages.
#[derive(Clone, Debug)]
enum Item {
    /// A message that is none of the following, as a script writes it.
    Message(String),
    Sync,
    /// A Flush, and perhaps its answer is awaited.
    Flush(bool),
    Query(Vec<&'static str>),
    Call(&'static str),
    /// Parse, Bind, perhaps Describe, Execute.
    Whole {
        statement: &'static str,
        text: &'static str,
        value: Option<&'static str>,
        portal: &'static str,
        describe: bool,
        binary: bool,
        max_rows: i32,
    },
    CopyIn {
        extended: bool,
        early_sync: bool,
        data: Vec<&'static str>,
        done: bool,
    },
    Terminate,
}

/// What one client does before it is another's turn.
#[derive(Clone, Debug)]
struct Turn {
    client: usize,
    /// Whose table `{any}` is.
    any: usize,
    items: Vec<Item>,
}

#[derive(Clone, Debug)]
struct Case {
    clients: usize,
    turns: Vec<Turn>,
    pieces: Vec<usize>,
}

/// A statement's name; those with a parameter begin with `p`.
fn statement() -> impl Strategy<Value = &'static str> {
    select(
        &[
            "",
            "",
            "s0",
            "s0",
            "s1",
            "s1",
            "p0",
            "p0",
            "p1",
            "p1",
            "tollgate_1",
        ][..],
    )
}

fn portal() -> impl Strategy<Value = &'static str> {
    select(&["", "", "", "x", "y"][..])
}

fn value() -> impl Strategy<Value = &'static str> {
    select(&["1", "1", "1", "3", "3", "5", "0", "x", LONG, NOT_TEXT][..])
}

/// Stands for a value that does not fit into a buffer.
const LONG: &str = "long";
/// Stands for a value that is not UTF-8.
const NOT_TEXT: &str = "not text";

/// A value as a script writes it.
fn written(value: &str) -> Value {
    match value {
        LONG => json!({"repeat": "12", "times": 40_000}),
        NOT_TEXT => json!({"hex": "31ff"}),
        _ => json!(value),
    }
}

fn message() -> impl Strategy<Value = Item> {
    let bind =
        (portal(), statement(), value(), any::<bool>()).prop_map(|(portal, statement, value, binary)| {
            let values = if statement.starts_with('p') {
                json!([written(value)])
            } else {
                json!([])
            };
            let results = if binary { json!([1]) } else { json!([]) };
            let bind =
                json!({"portal": portal, "statement": statement, "values": values, "results": results});
            format!("Bind {bind}")
        });
    let name = prop_oneof![
        statement().prop_map(|name| json!({"statement": name})),
        portal().prop_map(|name| json!({"portal": name})),
    ];
    let execute = (portal(), 0..3)
        .prop_map(|(portal, rows)| format!("Execute {}", json!({"portal": portal, "max_rows": rows})));
    prop_oneof![
        3 => bind,
        2 => name.clone().prop_map(|name| format!("Describe {name}")),
        2 => name.prop_map(|name| format!("Close {name}")),
        4 => execute,
    ]
    .prop_map(Item::Message)
}

fn whole() -> impl Strategy<Value = Item> {
    let text =
        prop_oneof![
            (
                select(&["", "", "", "", "s0", "s0", "s1", "s1", "tollgate_1"][..]),
                select(TEXTS)
            )
                .prop_map(|(name, text)| {
                    // what an EXECUTE was described as when it was prepared is not known at another connection
                    let name = if text.starts_with("EXECUTE") { "" } else { name };
                    (name, text, None)
                }),
            (select(&["", "p0", "p1"][..]), select(PARAMETERIZED), value())
                .prop_map(|(name, text, value)| (name, text, Some(value))),
        ];
    (
        text,
        portal(),
        any::<bool>(),
        any::<bool>(),
        select(&[0, 0, 0, 1, 2][..]),
    )
        .prop_map(
            |((statement, text, value), portal, describe, binary, max_rows)| Item::Whole {
                statement,
                text,
                value,
                portal,
                describe,
                binary,
                max_rows,
            },
        )
}

fn item() -> impl Strategy<Value = Item> {
    let copy_in = (
        any::<bool>(),
        any::<bool>(),
        vec(select(&["5\tfive\n", "6", "\t\\N\n", "x\n"][..]), 0..4),
        any::<bool>(),
    )
        .prop_map(|(extended, early_sync, data, done)| Item::CopyIn {
            extended,
            early_sync,
            data,
            done,
        });
    prop_oneof![
        8 => vec(select(TEXTS), 1..4).prop_map(Item::Query),
        8 => select(TEXTS).prop_map(|text| Item::Query(vec![text])),
        1 => select(CALLS).prop_map(Item::Call),
        14 => whole(),
        14 => message(),
        6 => Just(Item::Sync),
        2 => any::<bool>().prop_map(Item::Flush),
        1 => copy_in,
        1 => Just(Item::Terminate),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    (1..=CLIENTS).prop_flat_map(|clients| {
        let turn = (0..clients, 1..=CLIENTS, vec(item(), 1..6)).prop_map(|(client, any, items)| Turn {
            client,
            any,
            items,
        });
        let pieces = vec(prop_oneof![1..4_usize, 1..60_usize, Just(usize::MAX)], 1..20);
        (vec(turn, 1..12), pieces).prop_map(move |(turns, pieces)| Case {
            clients,
            turns,
            pieces,
        })
    })
}

/// What one client has sent and not yet waited for.
#[derive(Default)]
struct Pending {
    lines: Vec<String>,
    /// How many ReadyForQuery come; wrong when `unsure`.
    ready: usize,
    /// Whether an error may have changed how many there are.
    unsure: bool,
    /// Close messages since the last wait.
    closes: usize,
    /// Whether something was sent since the last Sync.
    in_series: bool,
    /// Whether the last message was a Close.
    closed: bool,
}

impl Pending {
    /// Adds a message of a series.
    fn message(&mut self, line: String) {
        let close = line.starts_with("Close ");
        // two of them tell where a step ends
        if close && self.closed {
            return;
        }
        self.closed = close;
        self.closes += usize::from(close);
        self.in_series = true;
        self.lines.push(line);
    }

    fn sync(&mut self) {
        self.lines.push("Sync".to_owned());
        self.ready += 1;
        self.in_series = false;
        self.closed = false;
    }

    fn query(&mut self, text: &str) {
        self.answered_alone(format!("Query {}", json!(text)));
    }

    /// Adds a message that is answered by itself, unless an error came before it in the series.
    fn answered_alone(&mut self, line: String) {
        self.lines.push(line);
        self.unsure |= self.in_series;
        self.ready += 1;
        self.in_series = false;
        self.closed = false;
    }

    /// Writes the step that waits for everything; afterwards there is nothing pending.
    fn finish(&mut self, client: char, script: &mut String) {
        if self.in_series {
            self.sync();
        }
        if self.lines.is_empty() {
            return;
        }
        let until = if self.unsure {
            let mark = || format!("Close {}", json!({"portal": "mark"}));
            self.lines
                .extend(["Sync".to_owned(), mark(), mark(), "Sync".to_owned()]);
            "CloseComplete CloseComplete ReadyForQuery".to_owned()
        } else {
            format!("{} ReadyForQuery", self.ready)
        };
        self.step(client, &until, script);
        *self = Self::default();
    }

    /// Writes the step that waits for what a Flush brings.
    fn flush(&mut self, client: char, script: &mut String) {
        self.lines.push(format!("Close {}", json!({"portal": "mark"})));
        self.lines.push("Flush".to_owned());
        let until = format!("{} CloseComplete or an error", self.closes + 1);
        self.step(client, &until, script);
        *self = Self {
            in_series: true,
            ..Self::default()
        };
    }

    fn step(&mut self, client: char, until: &str, script: &mut String) {
        write!(
            script,
            "\n{client} send until {until}\n{}\n----\n",
            self.lines.join("\n")
        )
        .expect("a text");
        self.lines.clear();
    }

    fn item(&mut self, item: &Item, client: char, texts: &dyn Fn(&str) -> String, script: &mut String) {
        match item {
            Item::Message(line) => self.message(line.clone()),
            Item::Sync => self.sync(),
            Item::Flush(true) if self.ready == 0 && !self.unsure => self.flush(client, script),
            Item::Flush(_) => self.lines.push("Flush".to_owned()),
            Item::Call(call) => self.answered_alone(format!("FunctionCall {call}")),
            Item::Query(parts) => self.query(&texts(&parts.join("; "))),
            Item::Whole {
                statement,
                text,
                value,
                portal,
                describe,
                binary,
                max_rows,
            } => {
                self.message(format!(
                    "Parse {}",
                    json!({"statement": statement, "query": texts(text)})
                ));
                let values: Vec<Value> = value.iter().map(|value| written(value)).collect();
                let results: &[i16] = if *binary { &[1] } else { &[] };
                let bind =
                    json!({"portal": portal, "statement": statement, "values": values, "results": results});
                self.message(format!("Bind {bind}"));
                if *describe {
                    self.message(format!("Describe {}", json!({"portal": portal})));
                }
                self.message(format!(
                    "Execute {}",
                    json!({"portal": portal, "max_rows": max_rows})
                ));
            }
            Item::CopyIn {
                extended,
                early_sync,
                data,
                done,
            } => {
                let copy = texts("COPY t{me} FROM STDIN");
                if *extended {
                    self.message(format!("Parse {}", json!({"query": copy})));
                    self.message("Bind {}".to_owned());
                    self.message("Execute {}".to_owned());
                    if *early_sync {
                        self.sync();
                        // ignored when the COPY has begun
                        self.unsure = true;
                    }
                } else {
                    self.query(&copy);
                }
                self.lines
                    .extend(data.iter().map(|data| format!("CopyData {}", json!(data))));
                self.lines.push(if *done {
                    "CopyDone".to_owned()
                } else {
                    "CopyFail \"no\"".to_owned()
                });
                if *extended {
                    self.sync();
                }
            }
            Item::Terminate => {
                self.finish(client, script);
                write!(script, "\n{client} send until the end\nTerminate\n----\n").expect("a text");
            }
        }
    }
}

impl Case {
    /// The case as a script.
    fn script(&self) -> String {
        let mut script = String::new();
        let mut pending: BTreeMap<usize, Pending> = BTreeMap::new();
        for turn in &self.turns {
            let number = turn.client + 1;
            let client = ['A', 'B', 'C'][turn.client];
            let texts = |text: &str| {
                text.replace("{me}", &number.to_string())
                    .replace("{any}", &turn.any.to_string())
            };
            let own = pending.entry(turn.client).or_default();
            for item in &turn.items {
                own.item(item, client, &texts, &mut script);
            }
            // a series that was flushed may stay open while others have their turn
            if !own.lines.is_empty() {
                own.finish(client, &mut script);
            }
        }
        script
    }

    fn changes_tables(&self) -> bool {
        self.script().contains("ALTER TABLE")
    }
}

/// Where cases are played.
struct Ground {
    /// Its own: what is legal has crashed servers, and a crash ends everybody's sessions.
    server: Postgres,
    /// With one connection, two, three.
    gateways: Vec<Gateway>,
    /// Whether the last case may have changed columns.
    changed: bool,
}

impl Ground {
    fn new() -> Self {
        let mut columns = String::new();
        for client in 1..=CLIENTS {
            write!(
                columns,
                "CREATE TABLE t{client} (a int, b text, at date DEFAULT '2024-03-04'); CREATE TABLE d{client} (a int);
                CREATE SEQUENCE n{client};"
            )
            .expect("a text");
        }
        columns.push_str("GRANT SELECT ON t1 TO other;");
        let server = Postgres::start();
        add_roles(&server);
        server.run(&format!("CREATE ROLE other; GRANT other TO {}", GROWTH.0));
        server.add_database(DATABASE, GROWTH.0);
        let owner = Login::new(GROWTH.0, GROWTH.1, DATABASE);
        Wire::login(server.address(), &owner).run(&columns);
        let gateways = (1..=CLIENTS)
            .map(|count| {
                let setup = Setup::new()
                    .connections(count)
                    .backend("checkout_timeout = \"10s\"");
                let gateway = Gateway::start(&server, &[DATABASE], &setup);
                for expected in [
                    "could not follow the catalog",
                    "onnection",
                    "backend unreachable",
                    "backend lost",
                ] {
                    gateway.expect_log(expected);
                }
                gateway
            })
            .collect();
        Self {
            server,
            gateways,
            changed: true,
        }
    }

    /// The difference between the server and the gateway, if there is one.
    fn play(&mut self, case: &Case) -> Option<String> {
        let text = case.script();
        let mut script = Script::read(&text).unwrap_or_else(|why| panic!("{why}:\n{text}"));
        let changes = case.changes_tables();
        let mut restore = TABLES.to_owned();
        if changes || self.changed {
            for client in 1..=CLIENTS {
                write!(
                    restore,
                    "DROP TABLE d{client}; CREATE TABLE d{client} (a int); INSERT INTO d{client} VALUES ({client});"
                )
                .expect("a text");
            }
        }
        self.changed = changes;
        let gateway = &self.gateways[case.clients - 1];
        let crashes = || self.server.log().matches("was terminated by signal").count();
        let before = crashes();
        let mut direct = Direct {
            server: &self.server,
            database: DATABASE,
            patience: PATIENCE,
        };
        let mut through = Through {
            gateway,
            database: DATABASE,
            patience: PATIENCE,
        };
        // one client by each way, so that nothing from before is in the gateway's memory
        let restored = |venue: &mut dyn Venue| {
            let mut wire = eventually("there is a session", || venue.connect(&[]).ok());
            eventually("the tables are as they were", || {
                wire.query(&restore).error().is_none().then_some(())
            });
        };
        restored(&mut direct);
        let (mut expected, mut ended) = played(&script, &mut direct, &[usize::MAX]);
        // what is sent to a session that the server has ended gets no answer, or cannot be sent, as chance has it
        let fatal = |reply: &Reply| {
            reply
                .0
                .iter()
                .any(|message| message.tag == b'E' && message.field('S') == "FATAL")
        };
        if let Some(end) = expected.iter().position(fatal) {
            expected.truncate(end + 1);
            script.steps.truncate(end + 1);
            ended = true;
        }
        // nobody else ends a session that has not said farewell; the log tells it a moment later
        let cut_off = |replies: &[Reply]| {
            let mut steps = replies.iter().zip(&script.steps);
            steps.any(|(reply, step)| !step.is_answered_by(reply))
        };
        let crashed = |suspicious: bool| {
            let deadline = Instant::now() + PATIENCE;
            while suspicious && crashes() == before && Instant::now() < deadline {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            crashes() > before
        };
        let is_fatal = expected.last().is_some_and(fatal);
        if crashed(!is_fatal && (!ended || cut_off(&expected))) {
            eprintln!("not counted, because it crashes the server itself:\n{text}");
            self.changed = true;
            return None;
        }
        assert!(
            ended,
            "the server itself gives no answer to step {} of\n{text}",
            expected.len() + 1
        );
        restored(&mut through);
        let (found, ended) = played(&script, &mut through, &case.pieces);
        let difference = difference("through the gateway", &expected, &found)?;
        if crashed(!ended || cut_off(&found)) {
            eprintln!("not counted, because it crashes the server at times:\n{text}");
            self.changed = true;
            return None;
        }
        script.head = format!("# Found by chance.\n# connections: {}\n", case.clients);
        Some(format!("{}\n{difference}", script.rewritten(&expected)))
    }

    /// Makes a failing case smaller; gives the last difference.
    fn shrink(
        &mut self,
        tree: &mut dyn proptest::strategy::ValueTree<Value = Case>,
        found: String,
    ) -> String {
        let mut last = found;
        let begun = Instant::now();
        let mut more = tree.simplify();
        while more && begun.elapsed() < SHRINKING {
            more = match self.play(&tree.current()) {
                Some(found) => {
                    last = found;
                    tree.simplify()
                }
                None => tree.complicate(),
            };
        }
        last
    }
}

/// What was answered, and whether everything was.
fn played(script: &Script, venue: &mut dyn Venue, pieces: &[usize]) -> (Vec<Reply>, bool) {
    let mut replies = Vec::new();
    let ended = catch_unwind(AssertUnwindSafe(|| script.play(venue, pieces, &mut replies)));
    (
        replies.into_iter().map(comparable).map(settled).collect(),
        ended.is_ok(),
    )
}

/// A reply without what the server itself does not know. After a simple query has failed in a transaction, its unnamed
/// portal is still there, while the list of its statements is not: whoever executes it makes PostgreSQL 15 look into
/// memory that was freed. By what stands there it crashes, or says one of two things.
fn settled(mut reply: Reply) -> Reply {
    const ABORTED: &[u8] = b"SERROR\0VERROR\0C25P02\0Mcurrent transaction is aborted, \
        commands ignored until end of transaction block\0\0";
    for message in &mut reply.0 {
        if message.tag == b'E' && message.field('M') == "portal \"\" cannot be run" {
            message.body = ABORTED.to_vec();
        }
    }
    reply
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn random_conversations_are_answered_as_by_the_server_itself() {
    let searching = number("TOLLGATE_WIRE_SECONDS").map(Duration::from_secs);
    let seed = number("TOLLGATE_TEST_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
        searching.map_or(SEED, |_| u64::from(now.subsec_nanos()))
    });
    eprintln!("seed {seed}: TOLLGATE_TEST_SEED={seed} plays it again");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let mut ground = Ground::new();
    let began = Instant::now();
    let mut cases = 0;
    while searching.map_or(cases < CASES, |longest| began.elapsed() < longest) {
        let mut tree = case().new_tree(&mut runner).expect("a case");
        if let Some(found) = ground.play(&tree.current()) {
            let smallest = ground.shrink(&mut tree, found);
            panic!("seed {seed}, case {cases}; as a script:\n{smallest}");
        }
        cases += 1;
    }
    eprintln!("{cases} cases");
    assert!(cases > 0);
}
