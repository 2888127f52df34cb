//! A pool of numbers.

mod failing;
mod lending;
mod upkeep;
mod waiting;

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Connections are the numbers 1, 2, 3 …; 13 has spoken, from 100 to 199 none answers, and 300 is closed by the peer. A key `team/database` is of
/// the group `team`.
#[derive(Default)]
struct Counting {
    opened: AtomicU32,
    asked: AtomicU32,
    refuse: Mutex<Option<&'static str>>,
    /// Each connect waits for one of these, where there is one.
    slow: Option<tokio::sync::Semaphore>,
}

impl Counting {
    fn refuse(&self, why: impl Into<Option<&'static str>>) {
        *self.refuse.lock().unwrap() = why.into();
    }
}

struct Rested;

impl Connect for Counting {
    type Key = &'static str;
    type Group = &'static str;
    type Connection = u32;
    type AtRest = Rested;
    type Error = &'static str;

    fn group(key: &&'static str) -> &'static str {
        key.split('/').next().unwrap()
    }

    async fn connect(&self, _: &&'static str) -> Result<u32, &'static str> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if let Some(slow) = &self.slow {
            slow.acquire().await.unwrap().forget();
        }
        if let Some(why) = *self.refuse.lock().unwrap() {
            return Err(why);
        }
        Ok(self.opened.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn quiet(connection: &mut u32) -> bool {
        *connection != 13
    }

    fn may_open(&self, key: &&'static str) -> bool {
        !key.ends_with("not logged in")
    }

    fn ended(connection: &u32) -> bool {
        *connection == 300
    }

    fn failure(error: &&'static str) -> Failure {
        match *error {
            "wrong password" => Failure::Key,
            "too many" => Failure::Busy,
            _ => Failure::Unreachable,
        }
    }

    async fn check(connection: &mut u32) -> bool {
        !(100..200).contains(connection)
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

fn limits(max_connections: usize) -> Limits<&'static str> {
    Limits {
        max_connections,
        groups: HashMap::new(),
        min_connections: 0,
        idle_timeout: Duration::from_mins(1),
        lifetime: Duration::from_hours(1),
        check_after_idle: Duration::ZERO,
        retry: Retry {
            pause: Duration::from_secs(5),
            circuit_after: 3,
            key_pause: Duration::from_secs(15),
        },
    }
}

fn pool(max_connections: usize) -> Pool<Counting> {
    Pool::new(Counting::default(), limits(max_connections))
}

/// What became of a checkout.
fn outcome(checkout: Result<Lease<Counting>, CheckoutError<&'static str>>) -> String {
    match checkout {
        Ok(lease) => format!("{}", *lease),
        Err(CheckoutError::Timeout { jam, .. }) => format!("{:?} {}", jam.short, jam.waiting),
        Err(CheckoutError::Connect(error)) => error.to_string(),
        Err(CheckoutError::Held(hold)) if hold.circuit_open => format!("open: {}", hold.last),
        Err(CheckoutError::Held(hold)) => format!("held: {}", hold.last),
    }
}

fn counts(pool: &Pool<Counting>, key: &str) -> (usize, usize, usize) {
    let census = pool.census(Instant::now());
    let keys = census.keys.into_iter().find(|(name, _)| *name == key);
    keys.map_or((0, 0, 0), |(_, census)| {
        (census.active, census.idle, census.waiting)
    })
}
