//! Many clients read aggregates through the cache while others write: each answer must be one that the database would
//! have given at some moment between the question and the answer.
//!
//! Every write to a table adds one to the version that the table's rows hold, so an answer tells which writes it saw.
//! Writers of one table take turns, so versions have an order; the version read must not be older than the last one
//! whose commit was acknowledged before the read began, nor newer than the last one whose commit was sent before the
//! read ended.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::stage::Stage;
use crate::support::gateway::{ANA, BEN, DASH, Setup};
use crate::support::wire::Wire;

const TABLES: usize = 4;
const READERS: usize = 6;
const WRITERS: usize = 3;
/// Of each writer.
const WRITES: usize = 120;

/// Rows of each table; every one holds the table's version.
const ROWS: usize = 5;

/// One table's versions.
#[derive(Default)]
struct Versions {
    /// The newest version whose commit was sent.
    sent: AtomicU64,
    /// The newest version whose commit was acknowledged.
    acknowledged: AtomicU64,
    /// Whoever writes to the table.
    writer: Mutex<()>,
}

impl Versions {
    fn write(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().expect("no writer panics")
    }
}

fn schema() -> String {
    let mut sql = String::new();
    for table in 0..TABLES {
        write!(
            sql,
            "CREATE TABLE t{table} (version bigint NOT NULL, part int NOT NULL);
             INSERT INTO t{table} SELECT 0, g FROM generate_series(1, {ROWS}) g;
             CREATE VIEW v{table} AS SELECT version, part FROM t{table} WHERE part > 0;
             GRANT ALL ON t{table}, v{table} TO bi;"
        )
        .expect("a text");
    }
    sql
}

/// The seed: that of the last failure, if it is given.
fn seed() -> u64 {
    std::env::var("TOLLGATE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
            u64::from(now.subsec_nanos())
        })
}

/// Questions whose answer is the version of the table, or of both tables.
fn question(random: &mut StdRng, one: usize, other: usize) -> (String, Vec<usize>) {
    match random.random_range(0..7) {
        0 => (format!("SELECT max(version) FROM t{one}"), vec![one]),
        1 => (format!("SELECT version FROM t{one} GROUP BY version"), vec![one]),
        2 => (format!("SELECT DISTINCT version FROM t{one}"), vec![one]),
        3 => (
            format!("SELECT (sum(version) / {ROWS})::bigint FROM v{one} AS seen"),
            vec![one],
        ),
        4 => (
            format!("WITH w AS (SELECT min(version) AS version FROM t{one}) SELECT version FROM w"),
            vec![one],
        ),
        5 => (
            format!("SELECT (SELECT max(version) FROM t{one}), (SELECT max(version) FROM v{other})"),
            vec![one, other],
        ),
        _ => (
            format!("SELECT max(a.version), min(b.version) FROM t{one} a JOIN t{other} b USING (part)"),
            vec![one, other],
        ),
    }
}

/// Asks until there is nothing more to see; gives how many answers came from memory.
fn read(wire: &mut Wire, random: &mut StdRng, tables: &[Versions], done: &AtomicBool) -> (u64, u64) {
    let (mut asked, mut hits) = (0, 0);
    while !done.load(Ordering::Acquire) {
        let (one, other) = (random.random_range(0..TABLES), random.random_range(0..TABLES));
        let (sql, asks) = question(random, one, other);
        let extended = random.random_bool(0.5);
        let oldest: Vec<u64> = asks
            .iter()
            .map(|table| tables[*table].acknowledged.load(Ordering::SeqCst))
            .collect();
        let reply = if extended {
            wire.extended(&sql, &[], &[])
        } else {
            wire.query(&sql)
        };
        let newest: Vec<u64> = asks
            .iter()
            .map(|table| tables[*table].sent.load(Ordering::SeqCst))
            .collect();
        assert!(reply.error().is_none(), "{sql}: {reply:?}");
        let rows = reply.rows();
        assert_eq!(rows.len(), 1, "{sql}: not the state of one moment: {rows:?}");
        for (index, value) in rows[0].iter().enumerate() {
            let version: u64 = value.as_deref().expect("a number").parse().expect("a number");
            let (oldest, newest) = (oldest[index], newest[index]);
            assert!(
                (oldest..=newest).contains(&version),
                "{sql} (extended: {extended}): version {version} of t{table}, but {oldest} was acknowledged before \
                 and {newest} was sent last; the verdict: {last:?}",
                table = asks[index],
                last = wire.last()
            );
        }
        asked += 1;
        hits += u64::from(wire.verdict() == "hit");
    }
    (asked, hits)
}

/// One change of one table, or a change that is taken back.
fn write_once(wire: &mut Wire, random: &mut StdRng, tables: &[Versions], procedures: bool) {
    let table = random.random_range(0..TABLES);
    let versions = &tables[table];
    let _turn = versions.write();
    let next = versions.acknowledged.load(Ordering::SeqCst) + 1;
    let update = format!("UPDATE t{table} SET version = {next}");
    let sent = || versions.sent.store(next, Ordering::SeqCst);
    match random.random_range(0..if procedures { 9 } else { 8 }) {
        0 => {
            sent();
            wire.run(&update);
        }
        1 => {
            sent();
            let reply = wire.extended(
                &format!("UPDATE t{table} SET version = $1::bigint"),
                &[Some(next.to_string().as_bytes())],
                &[],
            );
            assert!(reply.error().is_none(), "{reply:?}");
        }
        2 => {
            wire.run("BEGIN");
            wire.run(&update);
            sent();
            wire.run("COMMIT");
        }
        3 => {
            sent();
            wire.run(&format!("BEGIN; {update}; COMMIT"));
        }
        4 => {
            wire.run("BEGIN");
            wire.run(&update);
            assert_eq!(
                wire.value(&format!("SELECT max(version) FROM t{table}")),
                next.to_string(),
                "a transaction sees what it has written"
            );
            wire.run("ROLLBACK");
            return;
        }
        5 => {
            // an error in the middle takes everything back
            let reply = wire.query(&format!("{update}; SELECT 1/0"));
            assert_eq!(reply.sqlstate(), "22012");
            return;
        }
        6 => {
            // a write in a CTE of a query
            sent();
            wire.run(&format!(
                "WITH w AS ({update} RETURNING version) SELECT count(*) FROM w"
            ));
        }
        7 => {
            wire.run("BEGIN");
            // not TRUNCATE: at the server itself a query with an older snapshot sees nothing then
            wire.run(&format!("DELETE FROM t{table}"));
            wire.run(&format!(
                "INSERT INTO t{table} SELECT {next}, g FROM generate_series(1, {ROWS}) g"
            ));
            sent();
            wire.run("COMMIT");
        }
        _ => {
            // in a block that the gateway knows nothing of; it keeps its connection afterwards
            sent();
            wire.run(&format!("DO $$ BEGIN {update}; END $$"));
        }
    }
    versions.acknowledged.store(next, Ordering::SeqCst);
}

/// Runs until the writers are done; the seed is in the message of every failure.
fn run(setup: &Setup, users: &[(&str, &str)], procedures: bool) {
    let seed = seed();
    eprintln!("seed {seed}: TOLLGATE_TEST_SEED={seed} plays it again");
    let stage = Stage::with(&schema(), setup);
    let tables: Vec<Versions> = (0..TABLES).map(|_| Versions::default()).collect();
    let done = AtomicBool::new(false);
    let (asked, hits) = thread::scope(|scope| {
        let (tables, done, gateway) = (&tables, &done, &stage.gateway);
        let readers: Vec<_> = (0..READERS)
            .map(|number| {
                scope.spawn(move || {
                    let user = users[number % users.len()];
                    let mut random = StdRng::seed_from_u64(seed + number as u64);
                    read(&mut gateway.session(user), &mut random, tables, done)
                })
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                scope.spawn(move || {
                    let user = users[number % users.len()];
                    let mut random = StdRng::seed_from_u64(seed + 100 + number as u64);
                    let mut wire = gateway.session(user);
                    for _ in 0..WRITES {
                        write_once(&mut wire, &mut random, tables, procedures);
                    }
                })
            })
            .collect();
        let failed = writers
            .into_iter()
            .filter_map(|writer| writer.join().err())
            .last();
        done.store(true, Ordering::Release);
        let read: Vec<_> = readers
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        assert!(failed.is_none(), "a writer failed, see above; seed {seed}");
        read.into_iter()
            .map(|read| read.unwrap_or_else(|_| panic!("a reader failed, see above; seed {seed}")))
            .fold((0, 0), |(asked, hits), (more, others)| {
                (asked + more, hits + others)
            })
    });
    assert!(
        asked > 100 && hits > 0,
        "the cache took part: {asked} questions, {hits} hits seen; seed {seed}"
    );
}

#[test]
fn cached_answers_are_those_of_some_moment_between_question_and_answer() {
    run(&Setup::new(), &[ANA, DASH, BEN], true);
}

#[test]
fn cached_answers_are_right_when_connections_and_memory_are_short() {
    let setup = Setup::new()
        .connections(3)
        .cache("memory = \"64KiB\"\nmax_entry = \"16KiB\"");
    run(&setup, &[ANA, BEN], false);
}
