//! What happens while nobody asks: connections are closed, and kept ready.

use super::*;

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
