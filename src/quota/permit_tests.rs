use std::pin::Pin;
use std::task::Poll;

use futures_util::future::{BoxFuture, FutureExt};
use proptest::prelude::*;

use super::*;
use crate::error::ClientError;

const PLACES: QuotaLimits = QuotaLimits {
    concurrent_queries: Some(2),
    queue_length: Some(3),
    queue_wait: Some(Duration::from_secs(30)),
    queries_per_minute: None,
    burst: None,
    query_time: Some(Duration::from_mins(5)),
};

fn quota(limits: QuotaLimits) -> Arc<Quota> {
    Arc::new(Quota::new(TeamName::new("growth"), limits, now()))
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn usage(quota: &Quota) -> (u32, u32) {
    let snapshot = quota.snapshot(now());
    (snapshot.running, snapshot.queued)
}

type Waiting = BoxFuture<'static, Result<Permit, QuotaRefusal>>;

/// A query that has asked and, if it must, stands in the queue.
fn ask(quota: &Arc<Quota>) -> Waiting {
    let quota = Arc::clone(quota);
    let mut waiting = async move { quota.admit(now()).await }.boxed().fuse();
    let first = (&mut waiting).now_or_never();
    async move {
        match first {
            Some(answer) => answer,
            None => waiting.await,
        }
    }
    .boxed()
}

fn admitted(waiting: &mut Waiting) -> Option<Permit> {
    waiting.now_or_never().map(Result::unwrap)
}

#[tokio::test(start_paused = true)]
async fn places_are_given_in_the_order_of_asking() {
    let quota = quota(PLACES);
    let first = ask(&quota).await.unwrap();
    let second = ask(&quota).await.unwrap();
    assert_eq!(first.time_limit(), Some(Duration::from_mins(5)));
    let (mut third, mut fourth) = (ask(&quota), ask(&quota));
    assert!(admitted(&mut third).is_none() && admitted(&mut fourth).is_none());
    assert_eq!(usage(&quota), (2, 2));
    tokio::time::advance(Duration::from_secs(7)).await;
    assert_eq!(quota.snapshot(now()).oldest_wait, Duration::from_secs(7));
    drop(second);
    assert!(admitted(&mut fourth).is_none(), "the third came before");
    let mut fifth = ask(&quota);
    assert!(admitted(&mut fifth).is_none(), "a newcomer does not overtake");
    let third = admitted(&mut third).unwrap();
    assert_eq!(third.waited(), Duration::from_secs(7));
    drop(first);
    drop(third);
    assert!(admitted(&mut fourth).is_some());
    assert!(admitted(&mut fifth).is_some());
    assert_eq!(usage(&quota), (0, 0));
    let snapshot = quota.snapshot(now());
    assert_eq!(
        (
            snapshot.admitted_total,
            snapshot.queued_total,
            snapshot.refused_total()
        ),
        (5, 3, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_is_not_waited_for() {
    let quota = quota(QuotaLimits {
        concurrent_queries: Some(1),
        ..PLACES
    });
    let running = ask(&quota).await.unwrap();
    let (first, mut second) = (ask(&quota), ask(&quota));
    drop(first);
    assert_eq!(usage(&quota), (1, 1));
    drop(running);
    assert_eq!(usage(&quota), (1, 0), "called, though it has not looked yet");
    let third = ask(&quota);
    drop(admitted(&mut second).unwrap());
    assert_eq!(usage(&quota), (1, 0), "the third was called");
    drop(third);
    assert_eq!(usage(&quota), (0, 0), "a place given to one who left is free");
}

#[tokio::test(start_paused = true)]
async fn a_place_given_to_one_who_left_goes_to_the_next() {
    let quota = quota(QuotaLimits {
        concurrent_queries: Some(1),
        ..PLACES
    });
    let running = ask(&quota).await.unwrap();
    let (called, mut next) = (ask(&quota), ask(&quota));
    drop(running);
    drop(called);
    assert!(admitted(&mut next).is_some());
}

#[tokio::test(start_paused = true)]
async fn waiting_has_its_limit() {
    let quota = quota(QuotaLimits {
        concurrent_queries: Some(1),
        ..PLACES
    });
    let running = ask(&quota).await.unwrap();
    let started = tokio::time::Instant::now();
    let refusal = ask(&quota).await.unwrap_err();
    assert_eq!(started.elapsed(), Duration::from_secs(30));
    assert_eq!(
        (refusal.reason, refusal.usage),
        (
            RefusalReason::QueueWait,
            Usage {
                running: 1,
                queued: 0
            }
        )
    );
    assert_eq!(refusal.sqlstate().as_str(), "53400");
    drop(running);
    assert_eq!(usage(&quota), (0, 0));
    // called in the same instant as the limit: the place is taken, not lost
    let running = ask(&quota).await.unwrap();
    let waiting = ask(&quota);
    tokio::time::advance(Duration::from_secs(31)).await;
    drop(running);
    assert!(waiting.await.is_ok());
    assert_eq!(usage(&quota), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_and_a_high_rate_refuse_at_once() {
    let quota = quota(QuotaLimits {
        queries_per_minute: Some(60),
        burst: Some(6),
        ..PLACES
    });
    let _running = [ask(&quota).await.unwrap(), ask(&quota).await.unwrap()];
    let waiting = [ask(&quota), ask(&quota), ask(&quota)];
    let refusal = ask(&quota).await.unwrap_err();
    assert_eq!(
        (refusal.reason, refusal.usage),
        (
            RefusalReason::QueueFull,
            Usage {
                running: 2,
                queued: 3
            }
        )
    );
    drop(waiting);
    let _sixth = ask(&quota);
    let refusal = ask(&quota).await.unwrap_err();
    assert_eq!(
        (refusal.reason, refusal.retry_after),
        (RefusalReason::Rate, Some(Duration::from_secs(1)))
    );
    let snapshot = quota.snapshot(now());
    assert_eq!(
        (snapshot.refused_queue_full_total, snapshot.refused_rate_total),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_statement_inside_a_transaction_never_waits() {
    let limits = QuotaLimits {
        concurrent_queries: Some(1),
        queries_per_minute: Some(60),
        ..PLACES
    };
    let quota = quota(QuotaLimits {
        burst: Some(2),
        ..limits
    });
    let running = ask(&quota).await.unwrap();
    let mut waiting = ask(&quota);
    let inside = [
        quota.admit_in_transaction(now()),
        quota.admit_in_transaction(now()),
    ];
    assert_eq!(usage(&quota), (3, 1));
    drop(inside);
    assert!(admitted(&mut waiting).is_none(), "its places were over the limit");
    drop(running);
    assert!(admitted(&mut waiting).is_some());
}

#[tokio::test(start_paused = true)]
async fn new_limits_hold_at_once() {
    let quota = quota(QuotaLimits {
        concurrent_queries: Some(1),
        queries_per_minute: Some(60),
        ..PLACES
    });
    let running = ask(&quota).await.unwrap();
    let (mut first, mut second, mut third) = (ask(&quota), ask(&quota), ask(&quota));
    quota.reconfigure(PLACES, now());
    let first = admitted(&mut first).unwrap();
    assert!(admitted(&mut second).is_none());
    quota.reconfigure(
        QuotaLimits {
            concurrent_queries: None,
            ..PLACES
        },
        now(),
    );
    assert!(admitted(&mut second).is_some() && admitted(&mut third).is_some());
    quota.reconfigure(
        QuotaLimits {
            concurrent_queries: Some(1),
            ..PLACES
        },
        now(),
    );
    let mut fourth = ask(&quota);
    drop(first);
    assert_eq!(
        usage(&quota),
        (1, 1),
        "lowered: those who run go on, the next is called when there is room"
    );
    drop(running);
    assert!(admitted(&mut fourth).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_rate_used_counts_on_when_other_limits_change() {
    let rated = QuotaLimits {
        queries_per_minute: Some(60),
        burst: Some(1),
        ..QuotaLimits::default()
    };
    let quota = quota(rated);
    drop(ask(&quota).await.unwrap());
    quota.reconfigure(
        QuotaLimits {
            concurrent_queries: Some(5),
            ..rated
        },
        now(),
    );
    assert_eq!(ask(&quota).await.unwrap_err().reason, RefusalReason::Rate);
    quota.reconfigure(
        QuotaLimits {
            burst: Some(2),
            ..rated
        },
        now(),
    );
    assert!(ask(&quota).await.is_ok(), "another rate begins anew");
}

#[derive(Clone, Debug)]
enum Step {
    Ask,
    Finish(usize),
    Leave(usize),
    Look(usize),
    Inside,
    Limit(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Ask),
        4 => any::<usize>().prop_map(Step::Finish),
        2 => any::<usize>().prop_map(Step::Leave),
        4 => any::<usize>().prop_map(Step::Look),
        1 => Just(Step::Inside),
        1 => (1..4_u32).prop_map(Step::Limit),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nothing leaks, nobody starves, and nobody overtakes, whoever leaves when.
    #[test]
    fn every_place_comes_back(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        let mut limits = QuotaLimits { queue_length: Some(5), queue_wait: None, ..PLACES };
        let quota = quota(limits);
        let mut running: Vec<Permit> = Vec::new();
        let mut waiting: Vec<(u32, Waiting)> = Vec::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Ask => {
                    let mut query = ask(&quota);
                    match (&mut query).now_or_never() {
                        Some(Ok(permit)) => running.push(permit),
                        Some(Err(refusal)) => prop_assert_eq!(refusal.reason, RefusalReason::QueueFull),
                        None => waiting.push((next, query)),
                    }
                    next += 1;
                }
                Step::Finish(index) if !running.is_empty() => drop(running.swap_remove(index % running.len())),
                Step::Leave(index) if !waiting.is_empty() => drop(waiting.remove(index % waiting.len())),
                Step::Look(index) if !waiting.is_empty() => {
                    let index = index % waiting.len();
                    if let Some(permit) = admitted(&mut waiting[index].1) {
                        running.push(permit);
                        drop(waiting.remove(index));
                        // whoever came before was called before
                        for (number, earlier) in waiting.drain(..index) {
                            let mut earlier = earlier;
                            let permit = admitted(&mut earlier);
                            prop_assert!(permit.is_some(), "{} was overtaken", number);
                            running.extend(permit);
                        }
                    }
                }
                Step::Finish(_) | Step::Leave(_) | Step::Look(_) => {}
                Step::Inside => running.push(quota.admit_in_transaction(now())),
                Step::Limit(places) => {
                    limits.concurrent_queries = Some(places);
                    quota.reconfigure(limits, now());
                }
            }
            let (places_taken, queued) = usage(&quota);
            prop_assert_eq!(places_taken as usize + queued as usize, running.len() + waiting.len());
            let places = limits.concurrent_queries.unwrap_or(0);
            prop_assert!(queued == 0 || places_taken >= places, "somebody waits beside a free place");
        }
        running.clear();
        while !waiting.is_empty() {
            let before = waiting.len();
            waiting.retain_mut(|(_, query)| admitted(query).is_none());
            prop_assert!(waiting.len() < before, "nobody is called any more");
        }
        prop_assert_eq!(usage(&quota), (0, 0));
    }
}

/// On real threads: the places are never more than allowed, and none is lost.
#[test]
fn places_hold_across_threads() {
    use std::sync::atomic::{AtomicU32, Ordering};

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let limits = QuotaLimits {
            queue_length: Some(1_000),
            queue_wait: None,
            ..PLACES
        };
        let quota = quota(limits);
        let running = Arc::new(AtomicU32::new(0));
        let tasks: Vec<_> = (0..500)
            .map(|n| {
                let (quota, running) = (Arc::clone(&quota), Arc::clone(&running));
                tokio::spawn(async move {
                    let mut admit: Pin<Box<_>> = Box::pin(quota.admit(now()));
                    if n % 3 == 0 {
                        // asks and goes away, perhaps in the instant it is called
                        let polled = futures_util::poll!(&mut admit);
                        tokio::task::yield_now().await;
                        drop(admit);
                        return matches!(polled, Poll::Ready(_));
                    }
                    let permit = admit.await.unwrap();
                    assert!(running.fetch_add(1, Ordering::SeqCst) < 2);
                    tokio::task::yield_now().await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                    true
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(usage(&quota), (0, 0));
    });
}
