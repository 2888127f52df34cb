//! Many at once: cancel requests, connections, sessions that do nothing.

use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::moment::SCHEMA;
use super::rest::Rest;
use crate::stage::Stage;
use crate::support::frames;
use crate::support::gateway::{BEN, Setup};
use crate::support::wire::{Login, Wire};

/// A user whose login costs a client next to nothing.
const EVE: (&str, &str) = ("eve", "eve");

/// `setup` with eve, and room for many clients.
fn crowded(setup: Setup) -> Setup {
    setup
        .listen("max_connections = 20000\nmax_connections_per_address = 0\nlogin_timeout = \"2min\"")
        .more("[user.eve]\nteam = \"growth\"\npassword = { env = \"EVE_PASSWORD\" }")
        .variable("EVE_PASSWORD", "md5367839a45e1e757296b6b751b2907a6b")
        .log_level("info")
}

/// How many of `wanted` connections this process can have, each with `each` descriptors, after it has asked for all that
/// the system allows.
fn room_for(wanted: usize, each: u64) -> usize {
    const FOR_OTHERS: u64 = 2_000;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    }
    let room = hard.saturating_sub(FOR_OTHERS) / each;
    let count = wanted.min(usize::try_from(room).unwrap_or(usize::MAX));
    if count < wanted {
        eprintln!("{count} instead of {wanted}: a process may have {hard} descriptors here");
    }
    count
}

/// A number from the environment, for longer runs.
fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn a_thousand_cancel_requests_among_two_hundred_clients_hit_their_own_queries_or_none() {
    const CLIENTS: usize = 200;
    const CANCELS_EACH: usize = 10;
    let stage = Stage::with(SCHEMA, &crowded(Setup::new().connections(40)));
    let rest = Rest::of(&stage);
    let (begin, cancelled, answered) = (Barrier::new(CLIENTS), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (stage, begin, cancelled, answered) = (&stage, &begin, &cancelled, &answered);
            scope.spawn(move || {
                let mut wire = stage.gateway.session(EVE);
                let (key, address) = (wire.greeting.key.clone(), wire.address());
                let done = AtomicBool::new(false);
                begin.wait();
                thread::scope(|scope| {
                    // every other client is cancelled, each request from its first byte to its end
                    let requests = scope.spawn(|| {
                        let requests = (0..if number % 2 == 0 { CANCELS_EACH } else { 0 }).map(|_| {
                            let start = Instant::now();
                            let mut other = Wire::connect(address);
                            other.send(&frames::cancel(&key));
                            other.rest();
                            (start, Instant::now())
                        });
                        let requests: Vec<_> = requests.collect();
                        done.store(true, Ordering::Release);
                        requests
                    });
                    let mut hit = Vec::new();
                    let mut asked = 0;
                    while asked < 10 || !done.load(Ordering::Acquire) {
                        let start = Instant::now();
                        let reply =
                            wire.query(&format!("SELECT 'client {number}', {asked}, pg_sleep(0.005)"));
                        match reply.sqlstate().as_str() {
                            "" => {
                                let row = reply.rows().swap_remove(0);
                                assert_eq!(row[0].as_deref(), Some(&*format!("client {number}")));
                                assert_eq!(row[1].as_deref(), Some(&*asked.to_string()));
                                answered.fetch_add(1, Ordering::Relaxed);
                            }
                            "57014" => hit.push((start, Instant::now())),
                            _ => panic!("client {number}: {reply:?}"),
                        }
                        asked += 1;
                    }
                    let requests = requests.join().unwrap();
                    assert!(
                        hit.len() <= requests.len(),
                        "client {number}: {hit:?} by {requests:?}"
                    );
                    for (start, end) in &hit {
                        let meant = requests
                            .iter()
                            .any(|(sent, closed)| sent <= end && start <= closed);
                        assert!(
                            meant,
                            "client {number} was cancelled by nobody: {hit:?} by {requests:?}"
                        );
                    }
                    cancelled.fetch_add(hit.len(), Ordering::Relaxed);
                });
            });
        }
    });
    let (cancelled, answered) = (cancelled.into_inner(), answered.into_inner());
    eprintln!(
        "{} cancel requests: {cancelled} queries cancelled, {answered} answered",
        CLIENTS / 2 * CANCELS_EACH
    );
    rest.returns(&stage, 0, "a storm of cancel requests");
}

#[test]
fn thousands_of_connects_at_once_all_get_in() {
    const THREADS: usize = 8;
    let each = room_for(number("TOLLGATE_TEST_CONNECTS", 2_000), 2) / THREADS;
    let stage = Stage::with(SCHEMA, &crowded(Setup::new().connections(10)));
    let rest = Rest::of(&stage);
    let begin = Barrier::new(THREADS);
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let login = Login::new(EVE.0, EVE.1, &stage.database);
                begin.wait();
                let mut wires: Vec<Wire> = (0..each)
                    .map(|_| Wire::connect(stage.gateway.address()))
                    .collect();
                for wire in &mut wires {
                    wire.authenticate(&login).expect("it gets in");
                }
                begin.wait();
                // they are all there at once; some of them ask
                for wire in wires.iter_mut().step_by(10) {
                    assert_eq!(wire.value("SELECT a FROM t"), "1");
                }
            });
        }
    });
    eprintln!("{} connects in {:?}", each * THREADS, start.elapsed());
    rest.returns(&stage, 0, "a storm of connects");
}

#[test]
fn idle_clients_cost_little_memory() {
    /// What one may cost, in a build without optimization.
    const MOST_KIB: u64 = 32;
    let count = room_for(number("TOLLGATE_TEST_IDLE_CLIENTS", 1_000), 1);
    let stage = Stage::with(SCHEMA, &crowded(Setup::new().connections(4)));
    let rest = Rest::of(&stage);
    let mut ben = stage.gateway.session(BEN);
    let ask = |ben: &mut Wire| {
        for _ in 0..200 {
            assert_eq!(ben.value("SELECT a FROM t"), "1");
        }
    };
    ask(&mut ben);
    let before = stage.gateway.resident_kib();
    let idle: Vec<TcpStream> = (0..count)
        .map(|_| {
            let mut wire = stage.gateway.session(EVE);
            assert_eq!(wire.value("SELECT a FROM t"), "1");
            wire.into_socket()
        })
        .collect();
    // beside them, somebody works as before
    ask(&mut ben);
    let after = stage.gateway.resident_kib();
    let each = after.saturating_sub(before) / u64::try_from(count).unwrap();
    eprintln!("{count} idle clients: {before} KiB before, {after} KiB with them, {each} KiB each");
    assert!(each <= MOST_KIB, "{each} KiB for each of {count} idle clients");
    assert_eq!(
        stage.gateway.metric("tollgate_clients{state=\"idle\"}"),
        u64::try_from(count).unwrap() + 1
    );
    drop((idle, ben));
    rest.returns(&stage, 0, "idle clients");
}
