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
    assert_eq!(outcome(second.await), "Pool(1) 0");
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
async fn an_idle_connection_that_the_peer_has_closed_is_closed_at_the_next_sweep() {
    let pool = pool(3);
    pool.connector().opened.store(298, Ordering::Relaxed);
    let mut leases = Vec::new();
    for _ in 0..3 {
        leases.push(pool.checkout(&"a", PATIENCE).await.unwrap());
    }
    let now = Instant::now();
    for lease in leases {
        lease.give_back(Rested, now);
    }
    assert_eq!(counts(&pool, "a"), (0, 3, 0));
    assert!(pool.sweep(now).openings.is_empty());
    assert_eq!(counts(&pool, "a"), (0, 2, 0));
    // one that is to be ready is opened anew
    pool.set_limits(Limits {
        min_connections: 3,
        ..limits(3)
    });
    assert_eq!(pool.sweep(now).openings.len(), 1);
}

#[tokio::test]
async fn a_failed_connect_gives_its_place_to_the_next() {
    let pool = pool(1);
    pool.connector().refuse("too many");
    assert_eq!(outcome(pool.checkout(&"a", PATIENCE).await), "too many");
    pool.connector().refuse(None);
    assert!(pool.checkout(&"b", PATIENCE).await.is_ok());
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
    let nothing = pool.sweep(now + Duration::from_secs(59));
    assert_eq!(
        (nothing.openings.len(), nothing.opened, nothing.closed),
        (0, 0, 0)
    );
    assert_eq!(counts(&pool, "a"), (0, 1, 0));
    drop(pool.sweep(now + Duration::from_secs(61)));
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
    pool.set_limits(limits(1));
    one.give_back(Rested, Instant::now());
    assert_eq!(counts(&pool, "a"), (1, 0, 0));
    two.give_back(Rested, Instant::now());
    assert_eq!(counts(&pool, "a"), (0, 1, 0));
}

/// Waits for `keys` in that order, gives one connection back and forth, and tells who got it when.
async fn served(pool: &Pool<Counting>, keys: &[&'static str]) -> Vec<&'static str> {
    let first = pool.checkout(&"first", PATIENCE).await.unwrap();
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut all = tokio::task::JoinSet::new();
    for &key in keys {
        let (pool, served) = (pool.clone(), Arc::clone(&served));
        let before = waiting(&pool);
        all.spawn({
            let pool = pool.clone();
            async move {
                let lease = pool.checkout(&key, PATIENCE).await.unwrap();
                served.lock().unwrap().push(key);
                lease.give_back(Rested, now());
            }
        });
        while waiting(&pool) == before {
            tokio::task::yield_now().await;
        }
    }
    first.give_back(Rested, now());
    while all.join_next().await.transpose().unwrap().is_some() {}
    served.lock().unwrap().clone()
}

fn waiting(pool: &Pool<Counting>) -> usize {
    pool.census(now())
        .keys
        .iter()
        .map(|(_, census)| census.waiting)
        .sum()
}

#[tokio::test(start_paused = true)]
async fn groups_are_served_in_turns_and_each_in_order() {
    let pool = pool(1);
    let keys = ["a/1", "a/2", "a/1", "a/3", "b/1", "b/2", "c/1"];
    let order = served(&pool, &keys).await;
    assert_eq!(order, ["a/1", "b/1", "c/1", "a/2", "b/2", "a/1", "a/3"]);
}

#[tokio::test(start_paused = true)]
async fn a_group_at_its_limit_waits_and_the_others_do_not() {
    let pool = pool(3);
    pool.set_limits(Limits {
        groups: HashMap::from([("a", 2)]),
        ..limits(3)
    });
    let one = pool.checkout(&"a/1", PATIENCE).await.unwrap();
    let _two = pool.checkout(&"a/2", PATIENCE).await.unwrap();
    let mut third = Box::pin(pool.checkout(&"a/3", PATIENCE));
    assert!(futures_util::poll!(&mut third).is_pending());
    let jam = pool.jam(&"a/3", now() + Duration::from_secs(1));
    assert_eq!((jam.short, jam.in_use, jam.ahead), (Short::Group(2), 2, 1));
    // though somebody waits, there is a place for another group
    let other = pool.checkout(&"b/1", PATIENCE).await.unwrap();
    assert_eq!(*other, 3);
    // and that one's coming back changes nothing for who waits
    other.give_back(Rested, now());
    assert!(futures_util::poll!(&mut third).is_pending());
    // one of its own, idle at another key, makes room
    one.give_back(Rested, now());
    assert_eq!(outcome(third.await), "4");
    let refused = pool.checkout(&"a/4", Duration::ZERO).await;
    assert_eq!(outcome(refused), "5", "the third's was dropped");
}

#[tokio::test(start_paused = true)]
async fn a_group_at_its_limit_does_not_keep_another_from_having_room_made() {
    let pool = pool(3);
    pool.set_limits(Limits {
        groups: HashMap::from([("a", 1)]),
        ..limits(3)
    });
    let _held = pool.checkout(&"a/1", PATIENCE).await.unwrap();
    let _other = pool.checkout(&"b/1", PATIENCE).await.unwrap();
    let idle = pool.checkout(&"c/1", PATIENCE).await.unwrap();
    let mut stuck = Box::pin(pool.checkout(&"a/1", PATIENCE));
    assert!(futures_util::poll!(&mut stuck).is_pending());
    idle.give_back(Rested, now());
    let refused = pool.checkout(&"b/1", Duration::ZERO).await;
    assert_eq!(outcome(refused), "4", "the idle one of c was closed for it");
    assert!(futures_util::poll!(&mut stuck).is_pending());
}

#[tokio::test(start_paused = true)]
async fn a_ceiling_holds_over_all_pools_and_none_keeps_more_than_its_share_from_the_others() {
    let ceiling = Arc::new(Ceiling::default());
    ceiling.set_max(2);
    let pools = [0, 1].map(|_| Pool::under(Arc::clone(&ceiling), Counting::default(), limits(10)));
    let [here, there] = &pools;
    let one = here.checkout(&"a", PATIENCE).await.unwrap();
    let two = here.checkout(&"a", PATIENCE).await.unwrap();
    assert_eq!(outcome(here.checkout(&"a", Duration::ZERO).await), "Ceiling(2) 0");
    let mut more = Box::pin(here.checkout(&"a", PATIENCE));
    let mut other = Box::pin(there.checkout(&"b", PATIENCE));
    assert!(futures_util::poll!(&mut more).is_pending());
    assert!(futures_util::poll!(&mut other).is_pending());
    // the pool that has both gives one up, though its own client came first
    one.give_back(Rested, now());
    let other = other.await.unwrap();
    assert!(futures_util::poll!(&mut more).is_pending());
    two.give_back(Rested, now());
    let more = more.await.unwrap();
    assert_eq!((ceiling.open(), *more), (2, 2));
    // an idle one of another pool makes room
    other.give_back(Rested, now());
    let third = here.checkout(&"a", PATIENCE).await.unwrap();
    assert_eq!((ceiling.open(), there.census(now()).open), (2, 0));
    drop((more, third));
    assert_eq!(ceiling.open(), 0);
    ceiling.set_max(usize::MAX);
    assert!(there.checkout(&"b", PATIENCE).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_idle_is_asked_and_the_next_one_lent() {
    let pool = pool(5);
    pool.set_limits(Limits {
        check_after_idle: Duration::from_secs(30),
        idle_timeout: Duration::ZERO,
        ..limits(5)
    });
    pool.connector().opened.store(97, Ordering::Relaxed);
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(pool.checkout(&"a", PATIENCE).await.unwrap());
    }
    let numbers: Vec<u32> = leases.iter().map(|lease| **lease).collect();
    assert_eq!(numbers, [98, 99, 100, 101]);
    for lease in leases {
        lease.give_back(Rested, now());
    }
    tokio::time::advance(Duration::from_secs(29)).await;
    let lease = pool.checkout_idle(&"a", |_| true).unwrap();
    assert_eq!(*lease, 101, "used lately, so not asked");
    lease.give_back(Rested, now());
    tokio::time::advance(Duration::from_secs(2)).await;
    // 101 is young enough, the others are not
    drop(pool.checkout_idle(&"a", |_| true).unwrap());
    assert!(
        pool.checkout_idle(&"a", |_| true).is_none(),
        "100 has to be asked, which takes time"
    );
    pool.connector().opened.store(200, Ordering::Relaxed);
    // 100 does not answer; what is as old as that is not asked
    assert_eq!(outcome(pool.checkout(&"a", PATIENCE).await), "201");
    assert_eq!(pool.census(now()).open, 0);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_does_not_answer_is_left_alone_and_found_again() {
    let pool = pool(5);
    let lease = pool.checkout(&"a", PATIENCE).await.unwrap();
    pool.connector().refuse("refused");
    let asked = || pool.connector().asked.load(Ordering::Relaxed);
    assert_eq!(outcome(pool.checkout(&"b", PATIENCE).await), "refused");
    // who has a connection to hope for waits, who has none is told at once
    assert_eq!(outcome(pool.checkout(&"b", PATIENCE).await), "held: refused");
    let mut patient = Box::pin(pool.checkout(&"a", PATIENCE));
    assert!(futures_util::poll!(&mut patient).is_pending());
    assert_eq!(asked(), 2);
    lease.give_back(Rested, now());
    patient.await.unwrap().give_back(Rested, now());
    assert!(
        pool.checkout_idle(&"a", |_| true).is_none(),
        "in doubt: it has to be asked"
    );
    for failures in 2..=3 {
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(
            outcome(pool.checkout(&"b", PATIENCE).await),
            "refused",
            "{failures}"
        );
    }
    assert!(pool.circuit().is_open());
    let swept = pool.sweep(now());
    assert_eq!((swept.opened, swept.closed, swept.openings.len()), (1, 0, 0));
    tokio::time::advance(Duration::from_mins(1)).await;
    assert_eq!(outcome(pool.checkout(&"b", PATIENCE).await), "open: refused");
    assert_eq!(asked(), 4, "no client asks any more");

    let mut swept = pool.sweep(now());
    assert_eq!(pool.sweep(now()).openings.len(), 0, "one at a time");
    assert!(swept.openings.pop().unwrap().run().await.is_err());
    assert_eq!(pool.sweep(now()).openings.len(), 0, "not again at once");
    tokio::time::advance(Duration::from_secs(5)).await;
    pool.connector().refuse(None);
    let mut swept = pool.sweep(now());
    swept.openings.pop().unwrap().run().await.unwrap();
    assert_eq!(pool.sweep(now()).closed, 1);
    assert_eq!((pool.circuit().is_open(), counts(&pool, "b")), (false, (0, 1, 0)));
    assert!(pool.checkout_idle(&"b", |_| true).is_some());
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_when_the_backend_goes_away() {
    let pool = Pool::new(
        Counting {
            slow: Some(tokio::sync::Semaphore::new(0)),
            ..Counting::default()
        },
        limits(1),
    );
    let slow = pool.connector().slow.as_ref().unwrap();
    let mut first = Box::pin(pool.checkout(&"a", PATIENCE));
    let mut second = Box::pin(pool.checkout(&"b", PATIENCE));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut second).is_pending());
    pool.connector().refuse("refused");
    slow.add_permits(1);
    assert_eq!(outcome(first.await), "refused");
    assert_eq!(outcome(second.await), "held: refused");
    // somebody who gives up while trying lets the next one try
    tokio::time::advance(Duration::from_secs(1)).await;
    let mut gone = Box::pin(pool.checkout(&"a", PATIENCE));
    assert!(futures_util::poll!(&mut gone).is_pending());
    assert_eq!(outcome(pool.checkout(&"b", PATIENCE).await), "held: refused");
    drop(gone);
    slow.add_permits(1);
    assert_eq!(outcome(pool.checkout(&"b", PATIENCE).await), "refused");
    assert_eq!(pool.census(now()).open, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_remembered_for_its_key_alone() {
    let pool = pool(5);
    pool.connector().refuse("wrong password");
    assert_eq!(outcome(pool.checkout(&"a", PATIENCE).await), "wrong password");
    for _ in 0..10 {
        assert_eq!(
            outcome(pool.checkout(&"a", PATIENCE).await),
            "held: wrong password"
        );
    }
    assert_eq!(pool.connector().asked.load(Ordering::Relaxed), 1);
    pool.connector().refuse(None);
    assert!(pool.checkout(&"b", PATIENCE).await.is_ok());
    tokio::time::advance(Duration::from_secs(14)).await;
    assert_eq!(
        outcome(pool.checkout(&"a", PATIENCE).await),
        "held: wrong password"
    );
    pool.forgive();
    assert!(pool.checkout(&"a", PATIENCE).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn connections_are_kept_ready_for_keys_in_use() {
    let pool = pool(3);
    pool.set_limits(Limits {
        min_connections: 2,
        ..limits(3)
    });
    assert_eq!(pool.sweep(now()).openings.len(), 0, "nobody asked yet");
    let lease = pool.checkout(&"a", PATIENCE).await.unwrap();
    lease.give_back(Rested, now());
    drop(pool.checkout(&"a/not logged in", PATIENCE).await.unwrap());
    for opening in pool.sweep(now()).openings {
        opening.run().await.unwrap();
    }
    assert_eq!(counts(&pool, "a"), (0, 2, 0));
    assert_eq!(counts(&pool, "a/not logged in"), (0, 0, 0), "it could not log in");
    assert_eq!(pool.sweep(now()).openings.len(), 0);
    tokio::time::advance(Duration::from_mins(2)).await;
    drop(pool.sweep(now()));
    assert_eq!(counts(&pool, "a"), (0, 2, 0), "idle for longer than idle_timeout");
    tokio::time::advance(Duration::from_mins(61)).await;
    assert_eq!(pool.sweep(now()).openings.len(), 0);
    assert_eq!(counts(&pool, "a"), (0, 0, 0), "not in use any more");
}

#[tokio::test(start_paused = true)]
async fn connections_opened_together_do_not_close_together() {
    let pool = pool(100);
    let mut leases = Vec::new();
    for _ in 0..100 {
        leases.push(pool.checkout(&"a", PATIENCE).await.unwrap());
    }
    let opened = now();
    let at = |share: u32| opened + Duration::from_hours(1) / 1000 * share;
    for lease in leases {
        lease.give_back(Rested, opened);
    }
    pool.set_limits(Limits {
        idle_timeout: Duration::ZERO,
        ..limits(100)
    });
    let left = |share| {
        drop(pool.sweep(at(share)));
        pool.census(opened).open
    };
    assert_eq!(left(899), 100);
    let halfway = left(950);
    assert!((10..90).contains(&halfway), "{halfway}");
    assert_eq!(left(1000), 0);
}
