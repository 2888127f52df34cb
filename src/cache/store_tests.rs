use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;

use super::*;
use crate::cache::entry::Completion;
use crate::cache::flight::{NotStored, Outcome};
use crate::cache::tags::{TagId, Tags};

const LIMITS: CacheLimits = CacheLimits {
    memory: 1 << 20,
    max_entry: 1_000,
    ttl: Duration::from_mins(10),
};

fn relation(relation: u32) -> TagId {
    TagId { scope: 0, relation }
}

struct Bench {
    cache: ResultCache,
    tags: Tags,
    start: Instant,
}

impl Bench {
    fn new(limits: CacheLimits) -> Self {
        Self {
            cache: ResultCache::new(limits),
            tags: Tags::default(),
            start: Instant::now(),
        }
    }

    fn lookup(&self, key: &str) -> Lookup {
        self.lookup_as(key, true, 0)
    }

    fn lookup_as(&self, key: &str, described: bool, seconds: u64) -> Lookup {
        let now = self.start + Duration::from_secs(seconds);
        self.cache.lookup(key.as_bytes(), described, now, || {
            self.tags.snapshot(&[relation(1)])
        })
    }

    fn lead(&self, key: &str) -> Fill {
        lead(self.lookup(key))
    }

    fn keep(&self, key: &str, rows: &[u8]) {
        let mut fill = self.lead(key);
        fill.push(rows).unwrap();
        fill.commit(completion(true)).unwrap();
    }
}

fn lead(lookup: Lookup) -> Fill {
    let Lookup::Lead(fill) = lookup else {
        panic!("{lookup:?} instead of a lead")
    };
    fill
}

fn follow(lookup: Lookup) -> Follower {
    let Lookup::Follow(follower) = lookup else {
        panic!("{lookup:?} instead of a follow")
    };
    follower
}

fn completion(described: bool) -> Completion {
    Completion {
        row_description: described.then(|| Bytes::from_static(b"T")),
        row_count: 1,
        command_complete: Bytes::from_static(b"C"),
        backend_time: Duration::from_millis(250),
        fingerprint: 7,
    }
}

/// One word for what a lookup said; what it held is dropped.
fn word(lookup: &Lookup) -> String {
    match lookup {
        Lookup::Hit(entry) => String::from_utf8(entry.rows.to_vec()).unwrap(),
        Lookup::Follow(_) => "follow".to_owned(),
        Lookup::Lead(_) => "lead".to_owned(),
        Lookup::Bypass(reason) => reason.as_str().to_owned(),
    }
}

fn landed(follower: Follower) -> Option<String> {
    follower.wait().now_or_never().map(|outcome| match outcome {
        Outcome::Entry(entry) => String::from_utf8(entry.rows.to_vec()).unwrap(),
        Outcome::Retry => "retry".to_owned(),
    })
}

#[test]
fn an_entry_answers_until_it_is_written_to_or_too_old() {
    let bench = Bench::new(LIMITS);
    bench.keep("a", b"one");
    assert_eq!(word(&bench.lookup("a")), "one");
    assert_eq!(word(&bench.lookup("b")), "lead", "another key");
    assert_eq!(word(&bench.lookup_as("a", true, 599)), "one");
    assert_eq!(word(&bench.lookup_as("a", true, 600)), "lead", "too old");
    bench.keep("a", b"two");
    bench.tags.invalidate(&[relation(2)]);
    assert_eq!(word(&bench.lookup("a")), "two", "another relation was written");
    let write = bench.tags.begin_write(&[relation(1)]);
    assert_eq!(word(&bench.lookup("a")), "write_in_flight");
    drop(write);
    assert_eq!(word(&bench.lookup("a")), "lead");
    let stats = bench.cache.stats();
    assert_eq!(
        (stats.entries, stats.hits, stats.stale, stats.expired),
        (0, 3, 1, 1)
    );
    assert_eq!(stats.saved, Duration::from_millis(750));
    assert_eq!((stats.flights, stats.filling_bytes), (0, 0));
}

#[test]
fn a_description_is_given_to_those_who_ask_for_one() {
    let bench = Bench::new(LIMITS);
    let undescribed = lead(bench.lookup_as("a", false, 0));
    let same = follow(bench.lookup_as("a", false, 0));
    let described = lead(bench.lookup_as("a", true, 0));
    let joins_described = follow(bench.lookup_as("a", false, 0));
    undescribed.commit(completion(false)).unwrap();
    assert_eq!(landed(same).as_deref(), Some(""));
    assert_eq!(word(&bench.lookup_as("a", false, 0)), "");
    assert_eq!(
        word(&bench.lookup_as("a", true, 0)),
        "follow",
        "the entry has none, the run will"
    );
    described.commit(completion(true)).unwrap();
    assert_eq!(landed(joins_described).as_deref(), Some(""));
    assert_eq!(word(&bench.lookup_as("a", true, 0)), "");
    assert_eq!(word(&bench.lookup_as("a", false, 0)), "");
}

#[test]
fn followers_get_the_leaders_answer() {
    let bench = Bench::new(LIMITS);
    let mut fill = bench.lead("a");
    let first = follow(bench.lookup("a"));
    let waiting = follow(bench.lookup("a"));
    assert_eq!(landed(waiting), None, "not landed yet; dropped here");
    let second = follow(bench.lookup("a"));
    fill.push(b"on").unwrap();
    fill.push(b"e").unwrap();
    assert_eq!(fill.followers(), 2);
    fill.commit(completion(true)).unwrap();
    assert_eq!(landed(first).as_deref(), Some("one"));
    assert_eq!(landed(second).as_deref(), Some("one"));
    assert_eq!(bench.cache.stats().saved, Duration::from_millis(500));
}

#[test]
fn a_leaders_failure_is_nobody_elses() {
    let bench = Bench::new(LIMITS);
    let fill = bench.lead("a");
    let followers = [follow(bench.lookup("a")), follow(bench.lookup("a"))];
    drop(fill);
    for follower in followers {
        assert_eq!(landed(follower).as_deref(), Some("retry"));
    }
    let again = bench.lead("a");
    assert_eq!(
        word(&bench.lookup("a")),
        "follow",
        "one of them leads, the others follow"
    );
    again.commit(completion(true)).unwrap();
    assert_eq!(bench.cache.stats().abandoned, 1);
}

#[test]
fn a_write_divides_those_who_came_before_from_those_who_come_after() {
    let bench = Bench::new(LIMITS);
    let mut old = bench.lead("a");
    old.push(b"old").unwrap();
    let before = follow(bench.lookup("a"));
    bench.tags.invalidate(&[relation(1)]);
    let mut new = bench.lead("a");
    new.push(b"new").unwrap();
    let after = follow(bench.lookup("a"));
    assert_eq!(old.commit(completion(true)).unwrap_err(), NotStored::Stale);
    assert_eq!(
        landed(before).as_deref(),
        Some("old"),
        "it joined before the write began"
    );
    assert_eq!(
        word(&bench.lookup("a")),
        "follow",
        "the old run took only its own place with it"
    );
    new.commit(completion(true)).unwrap();
    assert_eq!(landed(after).as_deref(), Some("new"));
    assert_eq!(word(&bench.lookup("a")), "new");
    assert_eq!(bench.cache.stats().overtaken, 1);
}

#[test]
fn what_is_too_big_is_not_kept_and_nobody_waits_for_it_again() {
    for rows in [vec![1_001], vec![500, 501], vec![999]] {
        let bench = Bench::new(LIMITS);
        let mut fill = bench.lead("a");
        let follower = follow(bench.lookup("a"));
        let pushed: Result<(), _> = rows.iter().try_for_each(|bytes| fill.push(&vec![b'x'; *bytes]));
        if pushed.is_err() {
            assert_eq!(
                landed(follower).as_deref(),
                Some("retry"),
                "{rows:?}: told at once"
            );
            assert_eq!(fill.push(b""), Err(NotStored::TooBig), "{rows:?}");
        }
        // 999 bytes of rows and two of the other frames
        assert_eq!(
            fill.commit(completion(true)).unwrap_err(),
            NotStored::TooBig,
            "{rows:?}"
        );
        assert_eq!(word(&bench.lookup("a")), "too_big", "{rows:?}");
        assert_eq!(word(&bench.lookup("b")), "lead", "{rows:?}: only this request");
        let stats = bench.cache.stats();
        assert_eq!(
            (stats.too_big, stats.abandoned, stats.filling_bytes),
            (1, 1, 0),
            "{rows:?}"
        );
    }
    let bench = Bench::new(LIMITS);
    assert_eq!(
        word(&bench.lookup(&"k".repeat(KEY_BYTES_MAX + 1))),
        "too_big",
        "the key itself"
    );
}

#[test]
fn runs_under_way_hold_a_bounded_number_of_bytes_together() {
    let bench = Bench::new(CacheLimits {
        memory: 4_000,
        ..LIMITS
    });
    let mut first = bench.lead("a");
    first.push(&[b'x'; 600]).unwrap();
    let mut second = bench.lead("b");
    assert_eq!(second.push(&[b'x'; 600]), Err(NotStored::Crowded));
    assert_eq!(word(&bench.lookup("b")), "lead", "not held against the request");
    drop(first);
    let mut third = bench.lead("c");
    third.push(&[b'x'; 600]).unwrap();
    assert_eq!(bench.cache.stats().filling_bytes, 600);
}

#[test]
fn runs_under_way_are_bounded() {
    let bench = Bench::new(LIMITS);
    let fills: Vec<Fill> = (0..crate::cache::flight::FLIGHTS_MAX)
        .map(|n| bench.lead(&n.to_string()))
        .collect();
    assert_eq!(word(&bench.lookup("one more")), "crowded");
    assert_eq!(word(&bench.lookup("0")), "follow");
    drop(fills);
    assert_eq!(word(&bench.lookup("one more")), "lead");
}

#[test]
fn memory_is_bounded_by_weight() {
    let bench = Bench::new(CacheLimits {
        memory: 20_000,
        max_entry: 5_000,
        ..LIMITS
    });
    for n in 0..100 {
        bench.keep(&n.to_string(), &[b'x'; 3_000]);
    }
    let stats = bench.cache.stats();
    assert!(stats.bytes <= 20_000 && stats.entries <= 6, "{stats:?}");
}

#[test]
fn a_cleared_entry_does_not_come_back() {
    let bench = Bench::new(LIMITS);
    bench.keep("a", b"one");
    let mut fill = bench.lead("b");
    let follower = follow(bench.lookup("b"));
    bench.cache.clear();
    assert_eq!(word(&bench.lookup("a")), "lead");
    assert_eq!(word(&bench.lookup("b")), "lead", "a run of before is not joined");
    fill.push(b"two").unwrap();
    fill.commit(completion(true)).unwrap();
    assert_eq!(
        landed(follower).as_deref(),
        Some("two"),
        "who joined before gets the answer"
    );
    assert_eq!(word(&bench.lookup("b")), "lead");
    bench.cache.reconfigure(CacheLimits {
        max_entry: 2,
        ..LIMITS
    });
    let mut fill = bench.lead("c");
    assert_eq!(fill.push(b"two"), Err(NotStored::TooBig), "the new limit holds");
}

#[tokio::test]
async fn many_tasks_make_one_run() {
    let bench = Arc::new(Bench::new(LIMITS));
    let runs = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let (bench, runs) = (Arc::clone(&bench), Arc::clone(&runs));
            tokio::spawn(async move {
                loop {
                    match bench.lookup("a") {
                        Lookup::Hit(entry) => return entry.rows.clone(),
                        Lookup::Follow(follower) => match follower.wait().await {
                            Outcome::Entry(entry) => return entry.rows.clone(),
                            Outcome::Retry => {}
                        },
                        Lookup::Lead(mut fill) => {
                            // the first leaders fail, after others have joined
                            let run = runs.fetch_add(1, Ordering::Relaxed);
                            tokio::task::yield_now().await;
                            if run < 50 {
                                drop(fill);
                                assert!(n < 200);
                                return Bytes::from_static(b"failed");
                            }
                            fill.push(b"one").unwrap();
                            return fill.commit(completion(true)).unwrap().rows.clone();
                        }
                        Lookup::Bypass(reason) => panic!("{reason:?}"),
                    }
                }
            })
        })
        .collect();
    let mut failed = 0;
    for task in tasks {
        match &*task.await.unwrap() {
            b"failed" => failed += 1,
            b"one" => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((failed, runs.load(Ordering::Relaxed)), (50, 51));
}
