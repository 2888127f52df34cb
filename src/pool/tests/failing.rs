//! What cannot be opened: who is told what, and who tries again.

use super::*;

#[tokio::test]
async fn a_failed_connect_gives_its_place_to_the_next() {
    let pool = pool(1);
    pool.connector().refuse("too many");
    assert_eq!(outcome(pool.checkout(&"a", PATIENCE).await), "too many");
    pool.connector().refuse(None);
    assert!(pool.checkout(&"b", PATIENCE).await.is_ok());
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
