//! The cache against a model of a database, in random order: an answer must be what the database held at some moment
//! between the request and the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;

const RELATIONS: usize = 3;

/// The queries: which relations each reads.
const QUERIES: [&[usize]; 4] = [&[0], &[1], &[0, 1], &[1, 2]];

#[derive(Clone, Debug)]
enum Step {
    /// A commit is about to be sent. Without relations: it is not known what it writes; the database changes all.
    BeginWrite(Vec<usize>),
    /// The backend makes a write visible, some time while it is in flight.
    Apply(usize),
    /// The reply is there. One that was not applied was rolled back: said so, or just let go.
    EndWrite(usize, bool),
    Lookup(usize),
    /// The backend takes a leader's snapshot, some time while it runs.
    Execute(usize),
    Commit(usize),
    Abandon(usize),
    /// A follower looks whether its leader has landed.
    Poll(usize),
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::vec(0..RELATIONS, 0..3).prop_map(Step::BeginWrite),
        4 => any::<usize>().prop_map(Step::Apply),
        3 => any::<(usize, bool)>().prop_map(|(write, told)| Step::EndWrite(write, told)),
        10 => (0..QUERIES.len()).prop_map(Step::Lookup),
        6 => any::<usize>().prop_map(Step::Execute),
        5 => any::<usize>().prop_map(Step::Commit),
        1 => any::<usize>().prop_map(Step::Abandon),
        4 => any::<usize>().prop_map(Step::Poll),
        1 => Just(Step::Clear),
    ]
}

struct Write {
    relations: Vec<usize>,
    guard: WriteGuard,
    applied: bool,
}

struct Leader {
    query: usize,
    fill: Fill,
    answer: Option<Vec<u8>>,
}

struct Waiting {
    query: usize,
    since: usize,
    follower: Follower,
}

struct World {
    cache: ResultCache,
    tags: Tags,
    start: Instant,
    /// All states of the database, the current one last.
    history: Vec<[u8; RELATIONS]>,
    writes: Vec<Write>,
    leaders: Vec<Leader>,
    waiting: Vec<Waiting>,
}

fn answer(query: usize, state: [u8; RELATIONS]) -> Vec<u8> {
    QUERIES[query].iter().map(|relation| state[*relation]).collect()
}

/// Takes one of `list`, if there is any.
fn pick<T>(list: &mut Vec<T>, index: usize) -> Option<T> {
    (!list.is_empty()).then(|| list.swap_remove(index % list.len()))
}

impl World {
    fn new(tags_limit: usize) -> Self {
        Self {
            cache: ResultCache::new(CacheLimits {
                memory: 1 << 20,
                max_entry: 100,
                ttl: Duration::from_mins(10),
            }),
            tags: Tags::with_limit(tags_limit),
            start: Instant::now(),
            history: vec![[0; RELATIONS]],
            writes: Vec::new(),
            leaders: Vec::new(),
            waiting: Vec::new(),
        }
    }

    fn now(&self) -> [u8; RELATIONS] {
        self.history[self.history.len() - 1]
    }

    fn tag_ids(relations: &[usize]) -> Vec<TagId> {
        relations
            .iter()
            .map(|n| TagId {
                scope: 0,
                relation: u32::try_from(*n).unwrap(),
            })
            .collect()
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::BeginWrite(relations) if relations.is_empty() => {
                let guard = self.tags.begin_write_all();
                self.writes.push(Write {
                    relations: (0..RELATIONS).collect(),
                    guard,
                    applied: false,
                });
            }
            Step::BeginWrite(mut relations) => {
                relations.sort_unstable();
                relations.dedup();
                let guard = self.tags.begin_write(&Self::tag_ids(&relations));
                self.writes.push(Write {
                    relations,
                    guard,
                    applied: false,
                });
            }
            Step::Apply(index) => {
                let count = self.writes.len().max(1);
                let mut state = self.now();
                if let Some(write) = self.writes.get_mut(index % count).filter(|write| !write.applied) {
                    write.applied = true;
                    for relation in &write.relations {
                        state[*relation] += 1;
                    }
                    self.history.push(state);
                }
            }
            Step::EndWrite(index, told) => match pick(&mut self.writes, index) {
                Some(write) if !write.applied && told => write.guard.rolled_back(),
                Some(write) => drop(write.guard),
                None => {}
            },
            Step::Lookup(query) => self.lookup(query)?,
            Step::Execute(index) => {
                let state = self.now();
                let count = self.leaders.len().max(1);
                if let Some(leader) = self.leaders.get_mut(index % count)
                    && leader.answer.is_none()
                {
                    leader.answer = Some(answer(leader.query, state));
                }
            }
            Step::Commit(index) => {
                if let Some(mut leader) = pick(&mut self.leaders, index) {
                    match leader.answer {
                        None => self.leaders.push(leader),
                        Some(answer) => {
                            leader.fill.push(&answer).unwrap();
                            let stored = leader.fill.commit(completion());
                            prop_assert!(matches!(stored, Ok(_) | Err(NotStored::Stale)));
                        }
                    }
                }
            }
            Step::Abandon(index) => drop(pick(&mut self.leaders, index)),
            Step::Poll(index) => {
                if let Some(waiting) = pick(&mut self.waiting, index) {
                    self.poll(waiting)?;
                }
            }
            Step::Clear => self.cache.clear(),
        }
        Ok(())
    }

    fn lookup(&mut self, query: usize) -> Result<(), TestCaseError> {
        let ids = Self::tag_ids(QUERIES[query]);
        let key = [u8::try_from(query).unwrap()];
        match self
            .cache
            .lookup(&key, false, self.start, || self.tags.snapshot(&ids))
        {
            Lookup::Hit(entry) => {
                prop_assert_eq!(&entry.rows, &answer(query, self.now()), "query {}", query);
            }
            Lookup::Follow(follower) => {
                self.waiting.push(Waiting {
                    query,
                    since: self.history.len() - 1,
                    follower,
                });
            }
            Lookup::Lead(fill) => self.leaders.push(Leader {
                query,
                fill,
                answer: None,
            }),
            Lookup::Bypass(reason) => prop_assert_eq!(reason, BypassReason::WriteInFlight),
        }
        Ok(())
    }

    fn poll(&mut self, waiting: Waiting) -> Result<(), TestCaseError> {
        let Waiting {
            query,
            since,
            follower,
        } = waiting;
        if let Some(Outcome::Entry(entry)) = follower.wait().now_or_never() {
            let legal = self.history[since..]
                .iter()
                .any(|state| entry.rows == answer(query, *state));
            prop_assert!(
                legal,
                "query {}: {:?} is none of {:?}",
                query,
                entry.rows,
                &self.history[since..]
            );
        }
        Ok(())
    }
}

fn completion() -> Completion {
    Completion {
        row_description: None,
        row_count: 1,
        command_complete: Bytes::new(),
        backend_time: Duration::from_millis(1),
        fingerprint: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_is_what_the_database_held_at_some_moment_of_the_request(
        tags_limit in prop_oneof![Just(2_usize), Just(100)],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(tags_limit);
        for step in steps {
            world.take(step)?;
        }
        for waiting in std::mem::take(&mut world.waiting) {
            world.poll(waiting)?;
        }
    }
}

/// The same on real threads: a reader that starts after a writer was told of its commit must see that commit.
#[test]
fn readers_on_other_threads_see_what_was_told() {
    use std::sync::atomic::{AtomicU64, Ordering};

    const WRITES: u64 = 20_000;
    let (cache, tags) = (world_cache(), Tags::default());
    let (database, told) = (AtomicU64::new(0), AtomicU64::new(0));
    let id = [TagId {
        scope: 0,
        relation: 1,
    }];
    let start = Instant::now();
    let hits = std::thread::scope(|scope| {
        scope.spawn(|| {
            for value in 1..=WRITES {
                let guard = tags.begin_write(&id);
                database.store(value, Ordering::SeqCst);
                drop(guard);
                told.store(value, Ordering::SeqCst);
                // readers need a moment between two writes to hit at all
                for _ in 0..200 {
                    std::hint::spin_loop();
                }
            }
        });
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut hits = 0_u64;
                    while told.load(Ordering::SeqCst) < WRITES {
                        let at_least = told.load(Ordering::SeqCst);
                        match cache.lookup(b"q", false, start, || tags.snapshot(&id)) {
                            Lookup::Hit(entry) => {
                                hits += 1;
                                assert!(value(&entry) >= at_least, "{} after {at_least}", value(&entry));
                            }
                            Lookup::Lead(mut fill) => {
                                let value = database.load(Ordering::SeqCst);
                                fill.push(&value.to_be_bytes()).unwrap();
                                drop(fill.commit(completion()));
                            }
                            Lookup::Follow(follower) => {
                                if let Some(Outcome::Entry(entry)) = follower.wait().now_or_never() {
                                    assert!(value(&entry) >= at_least);
                                }
                            }
                            Lookup::Bypass(_) => {}
                        }
                    }
                    hits
                })
            })
            .collect();
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum::<u64>()
    });
    assert!(hits > 0, "the test must have tested something");
}

fn world_cache() -> ResultCache {
    ResultCache::new(CacheLimits {
        memory: 1 << 20,
        max_entry: 100,
        ttl: Duration::from_mins(10),
    })
}

fn value(entry: &Arc<Entry>) -> u64 {
    u64::from_be_bytes(entry.rows[..].try_into().unwrap())
}
