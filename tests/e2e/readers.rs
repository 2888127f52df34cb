//! Which of several readers answers: the one that has the least to do.

use crate::ha::{direct, gateway_with, server};
use crate::operations::cells;
use crate::support::Postgres;
use crate::support::frames::Frames;
use crate::support::gateway::{ANA, Gateway};
use crate::support::wait::becomes;
use crate::support::wire::Wire;

/// A primary and two readers, which are no copies: their rows tell who answered.
struct Servers {
    primary: Postgres,
    readers: [Postgres; 2],
}

/// What the reader of an index answers.
const ANSWERS: [&str; 2] = ["2", "3"];

impl Servers {
    fn start() -> Self {
        let with = |row: &str| {
            server(&format!(
                "CREATE TABLE t (a int); INSERT INTO t VALUES ({row}); CREATE TABLE busy AS SELECT * FROM t"
            ))
        };
        Self {
            primary: with("1"),
            readers: ANSWERS.map(with),
        }
    }

    /// How many queries wait at each reader.
    fn waiting(&self) -> [usize; 2] {
        self.readers.each_ref().map(|reader| {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            reader.run(sql).parse().unwrap()
        })
    }

    /// Makes whoever reads `busy` there wait, as long as it lives.
    fn block(&self, reader: usize) -> Wire {
        let mut lock = direct(&self.readers[reader]);
        lock.run("BEGIN; LOCK TABLE busy");
        lock
    }
}

/// A session whose query goes to the reader that then has one more waiting; and which one that is.
fn keep_busy(gateway: &Gateway, servers: &Servers) -> (usize, Wire) {
    let before = servers.waiting();
    let mut wire = gateway.session(ANA);
    wire.send(&Frames::new().query("SELECT a FROM busy"));
    let total = |waiting: [usize; 2]| waiting.iter().sum::<usize>();
    becomes(&(total(before) + 1), || total(servers.waiting()));
    (usize::from(servers.waiting()[0] == before[0]), wire)
}

/// Waits until sessions have that many connections to the readers.
fn await_in_use(gateway: &Gateway, counts: [&str; 2]) {
    let mut console = gateway.console();
    becomes(&counts.map(str::to_owned).to_vec(), || {
        let view = console.run("SHOW ENDPOINTS");
        cells(&view, "role", "reader", "in_use")
    });
}

#[test]
fn the_reader_with_the_fewest_queries_gets_the_next() {
    let servers = Servers::start();
    let [first, second] = &servers.readers;
    let gateway = gateway_with(&servers.primary, "readers", &[first, second], "");
    let mut asking = gateway.session(ANA);
    let mut answers =
        |count: usize| -> Vec<String> { (0..count).map(|_| asking.value("SELECT a FROM t")).collect() };
    for round in 0..2 {
        let locks = [servers.block(0), servers.block(1)];
        // one is busy: everything else goes to the other
        let (busy, waits) = keep_busy(&gateway, &servers);
        assert_eq!(answers(10), vec![ANSWERS[1 - busy]; 10], "round {round}");
        // as many at each, whatever their order
        let mut waiting = vec![waits];
        for expected in [[1, 1], [2, 2], [3, 3]] {
            while servers.waiting() != expected {
                let (_, waits) = keep_busy(&gateway, &servers);
                waiting.push(waits);
                assert!(
                    servers.waiting().iter().max() <= expected.iter().max(),
                    "round {round}"
                );
            }
        }
        await_in_use(&gateway, ["3", "3"]);
        // one becomes free: it gets everything, until it has as much to do
        let free = busy;
        let [lock_0, lock_1] = locks;
        let (released, held) = if free == 0 {
            (lock_0, lock_1)
        } else {
            (lock_1, lock_0)
        };
        drop(released);
        await_in_use(&gateway, if free == 0 { ["0", "3"] } else { ["3", "0"] });
        assert_eq!(answers(10), vec![ANSWERS[free]; 10], "round {round}");
        // both are free
        drop(held);
        await_in_use(&gateway, ["0", "0"]);
        let mut told: Vec<String> = waiting.iter_mut().map(|wire| wire.ready().value()).collect();
        told.sort();
        assert_eq!(told, ["2", "2", "2", "3", "3", "3"], "round {round}");
        // in turns, where there is nothing else to choose by
        let mut told = answers(10);
        told.sort();
        told.dedup();
        assert_eq!(told, ANSWERS, "round {round}");
    }
}
