//! The table: what was measured, as ratios, beside the limits that we hold ourselves to.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use crate::Outcome;
use crate::bulk::Bulk;
use crate::idle::Beside;
use crate::others::Other;
use crate::pgbench::{Mode, Sample};

/// A number of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Clients(pub(crate) u32);

/// Runs that stood next to each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) direct: Sample,
    pub(crate) pgbouncer: Sample,
    pub(crate) tollgate: Sample,
    pub(crate) hit: Sample,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "direct {:.0}/s, PgBouncer {}, Tollgate {}, hits {}",
            self.direct.throughput, self.pgbouncer, self.tollgate, self.hit
        )
    }
}

/// A bound on a ratio.
#[derive(Clone, Copy)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Limit {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "≥ {bound:.2}"),
            Self::AtMost(bound) => write!(f, "≤ {bound:.2}"),
        }
    }
}

/// A relay must not be slower than `PgBouncer`'s.
const RELAY_THROUGHPUT: Limit = Limit::AtLeast(1.0);
/// Nor cost more.
const RELAY_CPU: Limit = Limit::AtMost(1.0);
/// Answers from memory against single rows by primary key from `PostgreSQL`.
const HIT_THROUGHPUT: Limit = Limit::AtLeast(2.5);
/// 10 µs on a machine where `PgBouncer`'s relay costs 18 µs.
const HIT_CPU: Limit = Limit::AtMost(10.0 / 18.0);
/// A bulk result against the same without anything in the middle.
const BULK: Limit = Limit::AtMost(1.02);

/// What was measured.
#[derive(Default)]
pub(crate) struct Report {
    /// By number of clients and by mode's place in [`Mode::ALL`].
    rounds: BTreeMap<(Clients, usize), Vec<Round>>,
    bulk: Vec<Bulk>,
    /// By number of clients that ask, and of those that do not.
    idle: BTreeMap<(Clients, Clients), Vec<Beside>>,
    others: BTreeMap<(Clients, usize), BTreeMap<Other, Vec<Sample>>>,
}

/// The mode's place in [`Mode::ALL`].
fn place(mode: Mode) -> usize {
    Mode::ALL.iter().position(|known| *known == mode).unwrap_or(0)
}

impl Report {
    pub(crate) fn add(&mut self, mode: Mode, clients: Clients, round: Round) {
        self.rounds.entry((clients, place(mode))).or_default().push(round);
    }

    pub(crate) fn add_idle(&mut self, clients: Clients, idle: Clients, beside: Beside) {
        self.idle.entry((clients, idle)).or_default().push(beside);
    }

    pub(crate) fn add_other(&mut self, mode: Mode, clients: Clients, other: Other, sample: Sample) {
        let row = self.others.entry((clients, place(mode))).or_default();
        row.entry(other).or_default().push(sample);
    }

    pub(crate) fn add_bulk(&mut self, bulk: Bulk) {
        self.bulk.push(bulk);
    }

    /// Everything in Markdown, with a table of `others`.
    pub(crate) fn tables(&self, others: &[Other]) -> String {
        if others.is_empty() {
            return self.table();
        }
        format!("{}\n{}", self.table(), self.table_of_others(others))
    }

    /// What others gave, beside nothing: they do less.
    fn table_of_others(&self, others: &[Other]) -> String {
        let mut table = String::from("| others, for comparison |");
        for other in others {
            let missing = if other.program().is_none() {
                " (not installed)"
            } else {
                ""
            };
            table.extend([" ", other.as_str(), missing, " |"]);
        }
        table.push_str("\n|---|");
        table.push_str(&"--:|".repeat(others.len()));
        table.push('\n');
        for ((Clients(clients), place), row) in &self.others {
            let mode = Mode::ALL.get(*place).map_or("", |mode| mode.as_str());
            let mut add = |what: &str, tell: fn(f64) -> String, of: fn(&Sample) -> f64| {
                table.extend(["| ", what, ", ", mode, ", ", &clients.to_string(), " clients |"]);
                for other in others {
                    let told = row.get(other).map(|samples| tell(median(samples.iter().map(of))));
                    table.extend([" ", &told.unwrap_or_default(), " |"]);
                }
                table.push('\n');
            };
            add("queries/s", rate, |sample| sample.throughput);
            add("CPU per query", micros, |sample| sample.cpu);
        }
        table
    }

    /// What is held against limits.
    fn table(&self) -> String {
        let mut table = String::from(
            "| what | PostgreSQL | PgBouncer | Tollgate | ratio | limit | |\n\
             |---|--:|--:|--:|--:|--:|---|\n",
        );
        for ((Clients(clients), place), rounds) in &self.rounds {
            let mode = Mode::ALL.get(*place).map_or("", |mode| mode.as_str());
            let column = |of: fn(&Round) -> f64| median(rounds.iter().map(of));
            let mut row =
                |what: &str, columns: [Option<String>; 3], ratio: fn(&Round) -> f64, limit: Limit| {
                    let what = format!("{what}, {mode}, {clients} clients");
                    add_row(&mut table, &what, columns, column(ratio), limit);
                };
            let direct = Some(rate(column(|round| round.direct.throughput)));
            let bouncer_cpu = Some(micros(column(|round| round.pgbouncer.cpu)));
            row(
                "relay, queries/s",
                [
                    direct.clone(),
                    Some(rate(column(|round| round.pgbouncer.throughput))),
                    Some(rate(column(|round| round.tollgate.throughput))),
                ],
                |round| round.tollgate.throughput / round.pgbouncer.throughput,
                RELAY_THROUGHPUT,
            );
            row(
                "relay, CPU per query",
                [
                    None,
                    bouncer_cpu.clone(),
                    Some(micros(column(|round| round.tollgate.cpu))),
                ],
                |round| round.tollgate.cpu / round.pgbouncer.cpu,
                RELAY_CPU,
            );
            row(
                "hits, queries/s",
                [direct, None, Some(rate(column(|round| round.hit.throughput)))],
                |round| round.hit.throughput / round.direct.throughput,
                HIT_THROUGHPUT,
            );
            row(
                "hits, CPU per query",
                [None, bouncer_cpu, Some(micros(column(|round| round.hit.cpu)))],
                |round| round.hit.cpu / round.pgbouncer.cpu,
                HIT_CPU,
            );
        }
        for ((Clients(clients), Clients(idle)), runs) in &self.idle {
            let column = |of: fn(&Beside) -> f64| median(runs.iter().map(of));
            let columns = [
                None,
                Some(micros(column(|run| run.pgbouncer.cpu))),
                Some(micros(column(|run| run.tollgate.cpu))),
            ];
            let mode = Mode::Simple.as_str();
            let what = format!(
                "relay, CPU per query, {mode}, {clients} clients, {} idle beside",
                grouped(*idle)
            );
            let ratio = column(|run| run.tollgate.cpu / run.pgbouncer.cpu);
            add_row(&mut table, &what, columns, ratio, RELAY_CPU);
        }
        if !self.bulk.is_empty() {
            let column = |of: fn(&Bulk) -> f64| median(self.bulk.iter().map(of));
            let columns = [
                Some(seconds(column(|bulk| bulk.direct.as_secs_f64()))),
                Some(seconds(column(|bulk| bulk.pgbouncer.as_secs_f64()))),
                Some(seconds(column(|bulk| bulk.tollgate.as_secs_f64()))),
            ];
            let ratio = column(|bulk| bulk.tollgate.as_secs_f64() / bulk.direct.as_secs_f64());
            add_row(&mut table, "bulk result, wall time", columns, ratio, BULK);
        }
        table
    }
}

fn add_row(table: &mut String, what: &str, columns: [Option<String>; 3], ratio: f64, limit: Limit) {
    let mark = if limit.holds(ratio) { "met" } else { "**missed**" };
    let [direct, pgbouncer, tollgate] = columns.map(Option::unwrap_or_default);
    // writing to a String does not fail
    writeln!(
        table,
        "| {what} | {direct} | {pgbouncer} | {tollgate} | {ratio:.2} | {limit} | {mark} |"
    )
    .unwrap_or_default();
}

/// A number with its thousands apart.
fn grouped(number: u32) -> String {
    match number / 1_000 {
        0 => number.to_string(),
        thousands => format!("{},{:03}", grouped(thousands), number % 1_000),
    }
}

fn rate(value: f64) -> String {
    format!("{value:.0}")
}

fn micros(value: f64) -> String {
    format!("{value:.1} µs")
}

fn seconds(value: f64) -> String {
    format!("{value:.3} s")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let above = values.get(middle).copied().unwrap_or(f64::NAN);
    if values.len() % 2 == 1 {
        return above;
    }
    let below = middle
        .checked_sub(1)
        .and_then(|place| values.get(place))
        .copied()
        .unwrap_or(f64::NAN);
    f64::midpoint(below, above)
}

/// The table stands between these two lines of the page.
const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->\n";

/// Puts `description` and `table` into the page.
pub(crate) fn write(description: &str, table: &str) -> Outcome<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/README.md");
    let page = fs::read_to_string(&path)?;
    let (before, rest) = page
        .split_once(BEGIN)
        .ok_or("benches/README.md has no place for the table")?;
    let (_, after) = rest
        .split_once(END)
        .ok_or("benches/README.md has no end of the table")?;
    fs::write(
        path,
        format!("{before}{BEGIN}\n{description}\n{table}\n{END}{after}"),
    )?;
    Ok(())
}
