//! What is lent: which connection, and what becomes of it when it comes back.

use super::*;

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
