//! Tollgate beside PgBouncer and beside PostgreSQL itself: the same load, on one machine, in turn.
//!
//! Times on a shared machine mean little by themselves, so every limit is a ratio of two runs that stand next to each
//! other, and the median over several rounds counts. `benches/README.md` says how to read the table.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what the bench finds goes to the terminal"
)]

mod bulk;
mod client;
mod idle;
mod machine;
mod others;
mod pgbench;
mod report;
mod servers;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::others::Other;
use crate::pgbench::{Load, Mode, Sample};
use crate::report::{Clients, Report, Round};
use crate::servers::{POOL, Servers};

/// The bench's own errors are for the person who runs it.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// Compares Tollgate with PgBouncer and with PostgreSQL itself.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds of each run.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rounds; the medians count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Numbers of clients, e.g. 16,128.
    #[arg(long, default_value = "16", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=200))]
    clients: Vec<u32>,
    /// Threads of pgbench.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// Size of pgbench's tables, in 100,000 accounts. The bulk result has all accounts, 12 MB in each.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    scale: u32,
    /// Idle clients beside the relay, in a run of its own with the first number of clients.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=18_000))]
    idle: u32,
    /// Only these: simple, extended, prepared, bulk, idle, others.
    #[arg(long, value_delimiter = ',', default_value = "simple,extended,prepared,bulk,idle,others", value_parser = ["simple", "extended", "prepared", "bulk", "idle", "others"])]
    only: Vec<String>,
    /// Threads of Tollgate that serve clients; 0 is one for each core. PgBouncer always has one.
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// Only runs through Tollgate, for a profiler; there is no table then.
    #[arg(long)]
    alone: bool,
    /// Put the table into benches/README.md.
    #[arg(long)]
    write: bool,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("side_by_side: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Outcome<()> {
    let modes: Vec<Mode> = Mode::ALL
        .into_iter()
        .filter(|mode| arguments.only.iter().any(|only| only == mode.as_str()))
        .collect();
    let with = |what: &str| arguments.only.iter().any(|only| only == what);
    let with_bulk = with("bulk");
    let idle = if with("idle") && !arguments.alone {
        idle::room_for(arguments.idle)?
    } else {
        0
    };
    let others: &[Other] = if with("others") { &Other::ALL } else { &[] };
    for other in others.iter().filter(|other| other.program().is_none()) {
        eprintln!("{} is not installed and not measured", other.as_str());
    }
    eprintln!("starting PostgreSQL, PgBouncer and Tollgate, and filling the tables");
    let servers = Servers::start(arguments.scale, arguments.workers)?;
    let load = Load {
        threads: arguments.threads,
        length: Duration::from_secs(arguments.seconds),
    };
    if arguments.alone {
        return alone(&servers, load, arguments, &modes, with_bulk);
    }

    let mut report = Report::default();
    for round in 0..arguments.rounds {
        for &clients in &arguments.clients {
            for &mode in &modes {
                if mode == Mode::Prepared && clients > POOL {
                    // such a session keeps its connection, so more of them than connections cannot run
                    continue;
                }
                let samples = side_by_side(&servers, load, mode, clients, round)?;
                eprintln!(
                    "round {}: {}, {clients} clients: {samples}",
                    round + 1,
                    mode.as_str()
                );
                report.add(mode, Clients(clients), samples);
                for &other in others {
                    if let Some(sample) = other.measure(&servers, load, mode, clients)? {
                        eprintln!(
                            "round {}: {}, {clients} clients: {} {sample}",
                            round + 1,
                            mode.as_str(),
                            other.as_str()
                        );
                        report.add_other(mode, Clients(clients), other, sample);
                    }
                }
            }
        }
        if let Some(&clients) = arguments.clients.first()
            && idle > 0
        {
            let reversed = !round.is_multiple_of(2);
            let beside = idle::side_by_side(&servers, load, clients, idle, arguments.workers, reversed)?;
            eprintln!("round {}: {idle} idle beside: {beside}", round + 1);
            report.add_idle(Clients(clients), Clients(idle), beside);
        }
        if with_bulk {
            for turn in 0..3 {
                let bulk = bulk::side_by_side(&servers, (round + turn) % 2 == 1)?;
                eprintln!("round {}: bulk: {bulk}", round + 1);
                report.add_bulk(bulk);
            }
        }
    }
    let table = report.tables(others);
    println!("{table}");
    if arguments.write {
        let description = machine::description(arguments)?;
        report::write(&description, &table)?;
        eprintln!("wrote benches/README.md");
    }
    Ok(())
}

/// One run of each, in an order that changes from round to round so that none always comes first.
fn side_by_side(servers: &Servers, load: Load, mode: Mode, clients: u32, round: u32) -> Outcome<Round> {
    let bouncer = servers.pgbouncer(mode);
    let relay = |server| load.select_only(server, mode, clients);
    let mut direct = Sample::default();
    let mut pgbouncer = Sample::default();
    let mut tollgate = Sample::default();
    let order = if round.is_multiple_of(2) {
        [0, 1, 2]
    } else {
        [2, 1, 0]
    };
    for turn in order {
        match turn {
            0 => direct = relay(&servers.direct)?,
            1 => pgbouncer = relay(bouncer)?,
            _ => tollgate = relay(&servers.tollgate)?,
        }
    }
    let hit = load.cached(servers, mode, clients)?;
    Ok(Round {
        direct,
        pgbouncer,
        tollgate,
        hit,
    })
}

fn alone(
    servers: &Servers,
    load: Load,
    arguments: &Arguments,
    modes: &[Mode],
    with_bulk: bool,
) -> Outcome<()> {
    if let Some(pid) = servers.tollgate.pid() {
        eprintln!("Tollgate's process is {pid}");
    }
    for &clients in &arguments.clients {
        for &mode in modes {
            let relay = load.select_only(&servers.tollgate, mode, clients)?;
            let hit = load.cached(servers, mode, clients)?;
            println!("{}, {clients} clients: relay {relay}; hits {hit}", mode.as_str());
        }
    }
    if with_bulk {
        for _ in 0..arguments.rounds {
            let before = servers.tollgate.cpu()?;
            let took = bulk::read_all(&servers.tollgate)?;
            let spent = servers.tollgate.cpu()?.saturating_sub(before);
            println!(
                "bulk: {:.3} s, CPU {:.3} s",
                took.as_secs_f64(),
                spent.as_secs_f64()
            );
        }
    }
    Ok(())
}
