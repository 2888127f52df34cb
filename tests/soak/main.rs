//! Mixed clients and a network that fails, for as long as one likes: `make soak MINUTES=5`.
//!
//! Storms and calm take turns. Whatever a client reads carries its own mark, and what it has committed is seen in every
//! later answer, from memory or not. An error is right only where something provoked it: a storm, or the client's own
//! cancel request. In the end the gateway holds what it held in the beginning.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "this is a test"
)]

#[path = "../support/mod.rs"]
mod support;

mod client;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use client::{Client, Shared};
use nix::sys::signal::Signal;
use rand::RngExt as _;
use support::Postgres;
use support::fault_proxy::{Direction, Fault, FaultProxy};
use support::gateway::{ANA, Gateway, Setup, add_roles};
use support::http;
use support::wait::becomes;
use support::wire::{Login, Wire};

/// Clients at once.
const CLIENTS: usize = 48;
/// How long a storm takes, and a calm.
const PHASE: Duration = Duration::from_secs(8);
/// Operations that a calm has at least, and how long it may take for them.
const DONE_IN_A_CALM: u64 = 200;
const LONGEST_CALM: Duration = Duration::from_mins(2);
/// How long what a storm has begun may still take: the gateway gives a cancel request half of it.
const AFTERMATH: Duration = Duration::from_secs(6);
/// How much the gateway's memory may have grown between the warm-up and the end, in KiB.
const GROWTH_KIB: u64 = 24 * 1024;

const SCHEMA: &str = "CREATE TABLE marks (who int PRIMARY KEY, v int NOT NULL);
     INSERT INTO marks SELECT g, 0 FROM generate_series(0, 47) g;
     CREATE TABLE copied (who int, n int)";

#[test]
#[ignore = "it takes minutes: make soak"]
fn soak() {
    let minutes = std::env::var("MINUTES").map_or(5.0, |text| text.parse::<f64>().expect("minutes"));
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let server = Postgres::start_with(&[("max_connections", "200")]);
    add_roles(&server);
    server.add_database("soak", "growth");
    let mut owner = Wire::login(
        server.address(),
        &Login::new(support::gateway::GROWTH.0, support::gateway::GROWTH.1, "soak"),
    );
    owner.run(SCHEMA);
    let to_server = FaultProxy::before(server.address());
    let setup = Setup::new()
        .connections(20)
        .cache("memory = \"8MiB\"")
        .log_level("info")
        .backend("cancel_timeout = \"3s\"")
        .listen("max_connections_per_address = 0")
        .backend_address(to_server.address());
    let gateway = Gateway::start(&server, &["soak"], &setup);
    for text in [
        "backend lost",
        "could not follow the catalog",
        "deadpool",
        "cancel",
        "backend",
    ] {
        gateway.expect_log(text);
    }
    let to_gateway = FaultProxy::before(gateway.address());
    let shared = Arc::new(Shared::new([to_gateway.address(), gateway.address()]));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| runtime.spawn(Client::new(number, Arc::clone(&shared)).run()))
        .collect();
    let warm = weather(&gateway, &to_server, &to_gateway, &shared, end);
    shared.over.store(true, Ordering::Release);
    let mut known = Vec::new();
    for client in clients {
        known.push(runtime.block_on(client).expect("a client does not panic"));
    }
    drop(runtime);
    at_rest(&gateway);
    let after = gateway.resident_kib();
    let errors = shared.errors.lock().unwrap().clone();
    eprintln!(
        "{minutes} minutes, {} operations in {} sessions, {} provoked errors, {} cancelled queries, {} rows of their own; \
         {} KiB after the warm-up, {after} KiB at the end",
        shared.operations.load(Ordering::Relaxed),
        shared.sessions.load(Ordering::Relaxed),
        shared.provoked.load(Ordering::Relaxed),
        shared.cancelled.load(Ordering::Relaxed),
        shared.rows.load(Ordering::Relaxed),
        warm
    );
    assert!(
        errors.is_empty(),
        "errors that nothing provoked:\n{}",
        errors.join("\n")
    );
    assert!(
        after <= warm + GROWTH_KIB,
        "{warm} KiB after the warm-up, {after} KiB at the end"
    );
    // what the clients know of their rows is what the table has
    for (who, (least, most)) in known.into_iter().enumerate() {
        let value: i64 = owner
            .value(&format!("SELECT v FROM marks WHERE who = {who}"))
            .parse()
            .unwrap();
        assert!(
            (least..=most).contains(&value),
            "client {who}: {least} to {most}, {value}"
        );
    }
    let mut ana = gateway.session(ANA);
    assert_eq!(ana.value("SELECT 1"), "1");
}

/// Makes storms and calms until `end`; gives the gateway's memory after a quarter of the time.
fn weather(
    gateway: &Gateway,
    to_server: &FaultProxy,
    to_gateway: &FaultProxy,
    shared: &Shared,
    end: Instant,
) -> u64 {
    let start = Instant::now();
    let warm_at = start + end.saturating_duration_since(start) / 4;
    let mut warm = None;
    let mut random = rand::rng();
    while Instant::now() < end {
        let until = (Instant::now() + PHASE).min(end);
        shared.storms.fetch_add(1, Ordering::AcqRel);
        while Instant::now() < until {
            let proxy = if random.random() { to_server } else { to_gateway };
            let direction = if random.random() {
                Direction::Up
            } else {
                Direction::Down
            };
            let bytes = random.random_range(0..20_000);
            match random.random_range(0..9) {
                0 => proxy.cut(),
                1 => proxy.reset(),
                2 => proxy.set(direction, Fault::CutAfter(bytes)),
                3 => proxy.set(direction, Fault::ResetAfter(bytes)),
                4 => proxy.set(direction, Fault::HalfOpenAfter(bytes)),
                5 => proxy.set(direction, Fault::BlackholeAfter(bytes)),
                6 => proxy.set(direction, Fault::Delay(Duration::from_millis(3))),
                _ => proxy.heal(),
            }
            thread::park_timeout(Duration::from_millis(random.random_range(20..400)));
        }
        // the calm begins when nothing is left that the storm has touched
        for proxy in [to_server, to_gateway] {
            proxy.heal();
            proxy.reset();
        }
        thread::park_timeout(AFTERMATH);
        // nor before the gateway has found out that the server is there
        let begins = Instant::now();
        while !answers(gateway) && begins.elapsed() < LONGEST_CALM {
            thread::park_timeout(Duration::from_millis(100));
        }
        shared.storms.fetch_add(1, Ordering::AcqRel);
        let calm = Instant::now();
        let before = shared.operations.load(Ordering::Relaxed);
        let done = || shared.operations.load(Ordering::Relaxed) - before;
        let mut console = gateway.console();
        // a calm in which nobody got anything done would prove nothing
        while calm.elapsed() < PHASE || (done() < DONE_IN_A_CALM && calm.elapsed() < LONGEST_CALM) {
            for command in [
                "SHOW POOLS",
                "SHOW CLIENTS",
                "SHOW SERVERS",
                "SHOW PINS",
                "SHOW CACHE",
                "SHOW TEAMS",
            ] {
                let reply = console.query(command);
                assert!(reply.error().is_none(), "{command}: {reply:?}");
            }
            thread::park_timeout(Duration::from_millis(500));
        }
        if done() < DONE_IN_A_CALM {
            let pools = console.query("SHOW POOLS");
            let mut errors = shared.errors.lock().unwrap();
            errors.push(format!(
                "{} operations in a calm of {LONGEST_CALM:?}: {pools:?}",
                done()
            ));
        }
        eprintln!("{} operations in a calm of {:?}", done(), calm.elapsed());
        gateway.signal(Signal::SIGHUP);
        if warm.is_none() && Instant::now() >= warm_at {
            warm = Some(gateway.resident_kib());
        }
    }
    warm.unwrap_or_else(|| gateway.resident_kib())
}

/// Whether the gateway has an answer of the server's.
fn answers(gateway: &Gateway) -> bool {
    let mut wire = Wire::connect(gateway.address());
    wire.authenticate(&Login::new(ANA.0, ANA.1, "soak")).is_ok()
        && wire.query("SELECT pg_sleep(0)").error().is_none()
}

/// Waits until the gateway holds nothing for anybody. A write whose outcome was lost is in doubt for a minute.
fn at_rest(gateway: &Gateway) {
    let held = || -> Vec<String> {
        let (_, metrics) = http::get(gateway.http(), "/metrics");
        metrics
            .lines()
            .filter(|line| {
                let gauge = [
                    "tollgate_clients{",
                    "tollgate_tasks",
                    "tollgate_pool_waiting",
                    "tollgate_quota_running",
                    "tollgate_quota_queued",
                    "tollgate_cache_flights",
                    "tollgate_cache_filling_bytes",
                    "tollgate_cache_relations_in_doubt",
                ]
                .iter()
                .any(|name| line.starts_with(name));
                let busy = ["connecting", "leased", "pinned"]
                    .iter()
                    .any(|state| line.contains(&format!("state=\"{state}\"")));
                (gauge || busy) && !line.ends_with(" 0") && !line.ends_with(" 0.0")
            })
            .map(str::to_owned)
            .collect()
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !held().is_empty() && Instant::now() < deadline {
        thread::park_timeout(Duration::from_millis(100));
    }
    becomes(&Vec::<String>::new(), held);
}
