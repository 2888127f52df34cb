//! Who waits: in which order, for what, and how long.

use super::*;

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
