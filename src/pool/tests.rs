use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;

/// Connections are the numbers 1, 2, 3 …
#[derive(Default)]
struct Counting {
    opened: AtomicU32,
    refuse: AtomicBool,
}

struct Rested;

impl Connect for Counting {
    type Key = &'static str;
    type Connection = u32;
    type AtRest = Rested;
    type Error = &'static str;

    async fn connect(&self, _: &&'static str) -> Result<u32, &'static str> {
        if self.refuse.load(Ordering::Relaxed) {
            return Err("refused");
        }
        Ok(self.opened.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn quiet(connection: &mut u32) -> bool {
        *connection != 13
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

fn pool(max_connections: usize) -> Pool<Counting> {
    let limits = Limits {
        max_connections,
        idle_timeout: Duration::from_mins(1),
        lifetime: Duration::from_hours(1),
    };
    Pool::new(Counting::default(), limits)
}

fn counts(pool: &Pool<Counting>, key: &str) -> (usize, usize, usize) {
    let census = pool.census(Instant::now());
    let keys = census.keys.into_iter().find(|(name, _)| *name == key);
    keys.map_or((0, 0, 0), |(_, census)| {
        (census.active, census.idle, census.waiting)
    })
}

#[tokio::test]
async fn a_lease_is_reused_only_with_proof() {
    let pool = pool(2);
    let lease = pool.checkout(&"a", PATIENCE).await.unwrap();
    assert_eq!((*lease, lease.fresh()), (1, true));
    lease.give_back(Rested, Instant::now());
    let lease = pool.checkout(&"a", PATIENCE).await.unwrap();
    assert_eq!((*lease, lease.fresh()), (1, false), "given back, so used again");
    drop(lease);
    assert_eq!(counts(&pool, "a"), (0, 0, 0));
    assert_eq!(
        *pool.checkout(&"a", PATIENCE).await.unwrap(),
        2,
        "dropped, so closed and replaced"
    );
}

#[tokio::test]
async fn a_thread_gets_the_connection_that_it_used_last() {
    let pool = pool(3);
    let mut leases = Vec::new();
    for _ in 0..3 {
        leases.push(pool.checkout(&"a", PATIENCE).await.unwrap());
    }
    let now = Instant::now();
    let elsewhere = leases.split_off(1);
    for lease in leases {
        lease.give_back(Rested, now);
    }
    std::thread::spawn(move || {
        for lease in elsewhere {
            lease.give_back(Rested, now);
        }
    })
    .join()
    .unwrap();
    let first = pool.checkout(&"a", PATIENCE).await.unwrap();
    assert_eq!(*first, 1, "used here, though 3 came back last");
    let second = pool.checkout(&"a", PATIENCE).await.unwrap();
    assert_eq!(*second, 3, "another thread's, rather than none");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_served_in_order_and_not_for_ever() {
    let pool = pool(1);
    let lease = pool.checkout(&"a", PATIENCE).await.unwrap();
    let mut first = Box::pin(pool.checkout(&"a", PATIENCE));
    let mut second = Box::pin(pool.checkout(&"a", PATIENCE));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut second).is_pending());
    assert_eq!(counts(&pool, "a"), (1, 0, 2));
    lease.give_back(Rested, Instant::now());
    assert!(
        futures_util::poll!(&mut second).is_pending(),
        "the second must not overtake"
    );
    let lease = first.await.unwrap();
    assert_eq!(*lease, 1);
    assert_eq!(second.await.err(), Some(CheckoutError::Timeout(PATIENCE)));
    assert_eq!(counts(&pool, "a"), (1, 0, 0));
}

#[tokio::test]
async fn a_waiter_that_goes_away_loses_nothing() {
    let pool = pool(1);
    let lease = pool.checkout(&"a", PATIENCE).await.unwrap();
    let mut gone = Box::pin(pool.checkout(&"a", PATIENCE));
    assert!(futures_util::poll!(&mut gone).is_pending());
    drop(gone);
    lease.give_back(Rested, Instant::now());
    assert_eq!(*pool.checkout(&"a", PATIENCE).await.unwrap(), 1);
    // also when the grant was already on its way
    let lease = pool.checkout(&"a", PATIENCE).await.unwrap();
    let mut gone = Box::pin(pool.checkout(&"a", PATIENCE));
    assert!(futures_util::poll!(&mut gone).is_pending());
    lease.give_back(Rested, Instant::now());
    drop(gone);
    assert!(pool.checkout(&"a", PATIENCE).await.is_ok());
    assert_eq!(pool.census(Instant::now()).open, 0);
}

#[tokio::test]
async fn an_idle_connection_of_another_key_makes_room() {
    let pool = pool(1);
    pool.checkout(&"a", PATIENCE)
        .await
        .unwrap()
        .give_back(Rested, Instant::now());
    let lease = pool.checkout(&"b", PATIENCE).await.unwrap();
    assert_eq!(*lease, 2);
    assert_eq!((counts(&pool, "a"), counts(&pool, "b")), ((0, 0, 0), (1, 0, 0)));
    // and one that comes back while another key waits does too
    let mut other = Box::pin(pool.checkout(&"a", PATIENCE));
    assert!(futures_util::poll!(&mut other).is_pending());
    lease.give_back(Rested, Instant::now());
    assert_eq!(*other.await.unwrap(), 3);
}

#[tokio::test]
async fn a_failed_connect_gives_its_place_to_the_next() {
    let pool = pool(1);
    pool.connector().refuse.store(true, Ordering::Relaxed);
    assert_eq!(
        pool.checkout(&"a", PATIENCE).await.err(),
        Some(CheckoutError::Connect("refused"))
    );
    pool.connector().refuse.store(false, Ordering::Relaxed);
    assert!(pool.checkout(&"a", PATIENCE).await.is_ok());
}

#[tokio::test]
async fn connections_that_spoke_are_old_or_outlived_a_reconnect_are_closed() {
    let pool = pool(20);
    pool.connector().opened.store(12, Ordering::Relaxed);
    pool.checkout(&"a", PATIENCE)
        .await
        .unwrap()
        .give_back(Rested, Instant::now());
    assert_eq!(*pool.checkout(&"a", PATIENCE).await.unwrap(), 14, "13 has spoken");

    let now = Instant::now();
    pool.checkout(&"a", PATIENCE)
        .await
        .unwrap()
        .give_back(Rested, now);
    pool.sweep(now + Duration::from_secs(59));
    assert_eq!(counts(&pool, "a"), (0, 1, 0));
    pool.sweep(now + Duration::from_secs(61));
    assert_eq!(counts(&pool, "a"), (0, 0, 0));

    let lease = pool.checkout(&"a", PATIENCE).await.unwrap();
    lease.give_back(Rested, now + Duration::from_secs(3601));
    assert_eq!(counts(&pool, "a"), (0, 0, 0), "too old");

    let lease = pool.checkout(&"a", PATIENCE).await.unwrap();
    pool.reconnect();
    lease.give_back(Rested, now);
    assert_eq!(counts(&pool, "a"), (0, 0, 0), "opened before the reconnect");
}

#[tokio::test]
async fn a_paused_pool_grants_nothing_until_it_is_resumed() {
    let pool = pool(2);
    pool.checkout(&"a", PATIENCE)
        .await
        .unwrap()
        .give_back(Rested, Instant::now());
    pool.pause();
    let mut waiting = Box::pin(pool.checkout(&"a", PATIENCE));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    pool.resume();
    assert_eq!(*waiting.await.unwrap(), 1);
}

#[tokio::test]
async fn fewer_places_take_effect_as_connections_come_back() {
    let pool = pool(2);
    let (one, two) = (
        pool.checkout(&"a", PATIENCE).await.unwrap(),
        pool.checkout(&"a", PATIENCE).await.unwrap(),
    );
    let limits = Limits {
        max_connections: 1,
        idle_timeout: Duration::ZERO,
        lifetime: Duration::ZERO,
    };
    pool.set_limits(limits);
    one.give_back(Rested, Instant::now());
    assert_eq!(counts(&pool, "a"), (1, 0, 0));
    two.give_back(Rested, Instant::now());
    assert_eq!(counts(&pool, "a"), (0, 1, 0));
}
