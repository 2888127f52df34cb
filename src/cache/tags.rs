//! Which relations were written, and which are being written right now.
//!
//! Every relation has a [`Tag`]: one atomic word of a version and a number of writes in doubt, i.e., whose commit was sent
//! and whose outcome is not known yet. A writer marks its relations before it sends the commit and lets go after the
//! reply; a reader notes the words before it sends its query. As long as the words are what the reader noted, and none
//! was in doubt then, no write that the gateway knows of can have changed the answer.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use crate::types::{BackendName, DatabaseName};

/// Relations that are known at once. When more are named, those not being written are forgotten and every snapshot
/// taken before expires.
const TAGS_MAX: usize = 65_536;
/// Relations of one write that are marked one by one; a write of more marks everything.
const RELATIONS_PER_WRITE_MAX: usize = 1_024;
/// Pairs of backend and database that get a number of their own.
const SCOPES_MAX: u32 = 65_536;

/// The low bits of a tag count writes in doubt, the others are the version.
const DOUBT_BITS: u32 = 20;
/// The largest count. It is sticky: a tag that ever got there stays in doubt for good, which costs hits and never
/// correctness. A million commits in flight to one relation need a million backend connections.
const DOUBT: u64 = (1 << DOUBT_BITS) - 1;
/// One version. The 44 bits above the count last for 200 days of a million writes a second to one relation; a wrapped
/// version would have to meet an entry of exactly that age to do harm.
const VERSION: u64 = 1 << DOUBT_BITS;

/// One relation of one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagId {
    /// The backend and database, numbered by [`Tags::scope`].
    pub scope: u32,
    /// The relation's `oid` there.
    pub relation: u32,
}

/// Version and doubt of one relation, or of everything.
#[derive(Debug, Default)]
struct Tag(AtomicU64);

impl Tag {
    fn seen(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// A commit is about to be sent.
    fn begin(&self) {
        self.change(|word| if word & DOUBT == DOUBT { word } else { word + 1 });
    }

    /// A commit's outcome is known, and it may have changed rows.
    fn end(&self) {
        self.change(|word| if word & DOUBT == DOUBT { word } else { word - 1 }.wrapping_add(VERSION));
    }

    /// A commit did not happen: the word is again what it was, so entries made before hold again.
    fn undo(&self) {
        self.change(|word| if word & DOUBT == DOUBT { word } else { word - 1 });
    }

    fn change(&self, next: impl Fn(u64) -> u64) {
        let mut word = self.0.load(Ordering::Relaxed);
        while let Err(other) =
            self.0
                .compare_exchange_weak(word, next(word), Ordering::SeqCst, Ordering::Relaxed)
        {
            word = other;
        }
    }
}

/// All relations that were read into the cache or written, and a tag for writes whose relations are not known.
pub struct Tags {
    relations: RwLock<HashMap<TagId, Arc<Tag>>>,
    /// Part of every snapshot.
    epoch: Arc<Tag>,
    scopes: Mutex<HashMap<(BackendName, DatabaseName), u32>>,
    limit: usize,
    last: Arc<LastWrite>,
}

/// When the last write ended, of all that were told of.
#[derive(Debug, Default)]
struct LastWrite(Mutex<Option<Instant>>);

impl LastWrite {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tags")
            .field("relations", &self.len())
            .finish_non_exhaustive()
    }
}

impl Default for Tags {
    fn default() -> Self {
        Self::with_limit(TAGS_MAX)
    }
}

impl Tags {
    /// A registry of at most `limit` relations.
    pub fn with_limit(limit: usize) -> Self {
        Self {
            relations: RwLock::default(),
            epoch: Arc::default(),
            scopes: Mutex::default(),
            limit,
            last: Arc::default(),
        }
    }

    /// The number that stands for a database of a backend in a [`TagId`]; the same pair has the same number for the life
    /// of the registry. Pairs beyond 65,536 share one number: a write to one of them then expires entries of the others.
    pub fn scope(&self, backend: &BackendName, database: &DatabaseName) -> u32 {
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        let next = u32::try_from(scopes.len()).unwrap_or(SCOPES_MAX);
        if let Some(scope) = scopes.get(&(backend.clone(), database.clone())) {
            return *scope;
        }
        if next >= SCOPES_MAX {
            return SCOPES_MAX;
        }
        scopes.insert((backend.clone(), database.clone()), next);
        next
    }

    /// How many relations are known.
    pub fn len(&self) -> usize {
        self.relations
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// How many relations have a write in doubt; one more when a write whose relations are not known is.
    pub fn in_doubt(&self) -> usize {
        let relations = self.relations.read().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(&self.epoch)
            .chain(relations.values())
            .filter(|tag| tag.seen() & DOUBT != 0)
            .count()
    }

    /// Whether no relation is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Marks a write to `ids` as in flight: call it before the commit (or the statement that commits by itself) is sent,
    /// and drop the guard when its reply has been read and before the client hears of it.
    ///
    /// When the outcome stays unknown (the connection was lost while the commit was in flight), keep the guard until the
    /// backend must have finished with it, e.g., by moving it into a task that holds it for a grace time.
    pub fn begin_write(&self, ids: &[TagId]) -> WriteGuard {
        if ids.len() > RELATIONS_PER_WRITE_MAX {
            return self.begin_write_all();
        }
        // marked under the lock: a tag that is in doubt is never forgotten
        self.with_tags(ids, |_, tags| {
            for tag in &tags {
                tag.begin();
            }
            self.guard(tags)
        })
        .unwrap_or_else(|| self.begin_write_all())
    }

    /// Marks a write that could have changed anything as in flight; as [`begin_write`](Self::begin_write).
    pub fn begin_write_all(&self) -> WriteGuard {
        self.epoch.begin();
        self.guard(vec![Arc::clone(&self.epoch)])
    }

    fn guard(&self, tags: Vec<Arc<Tag>>) -> WriteGuard {
        WriteGuard {
            tags,
            last: Arc::clone(&self.last),
        }
    }

    /// When the last write ended, to whatever relation: a copy of the database that has everything from before then is as
    /// good as the original, as far as a snapshot taken before this call is clean.
    pub fn last_write(&self) -> Option<Instant> {
        *self.last.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Expires what was computed from `ids`: a write that happened elsewhere and is over.
    pub fn invalidate(&self, ids: &[TagId]) {
        drop(self.begin_write(ids));
    }

    /// Expires everything.
    pub fn invalidate_all(&self) {
        drop(self.begin_write_all());
    }

    /// Notes the state of `ids`, to be called before the query is sent. With an empty list the snapshot expires only
    /// when everything does.
    pub fn snapshot(&self, ids: &[TagId]) -> TagSnapshot {
        let taken = self.with_tags(ids, |epoch, tags| {
            std::iter::once(Arc::clone(epoch))
                .chain(tags)
                .map(|tag| (tag.seen(), tag))
                .collect::<Arc<[_]>>()
        });
        match taken {
            Some(seen) => TagSnapshot {
                clean: seen.iter().all(|(word, _)| word & DOUBT == 0),
                seen,
            },
            None => TagSnapshot {
                clean: false,
                seen: Arc::new([]),
            },
        }
    }

    /// Calls `with` with the tags of `ids`, made where they are missing; `None` when there is no room for them.
    fn with_tags<T>(&self, ids: &[TagId], with: impl FnOnce(&Arc<Tag>, Vec<Arc<Tag>>) -> T) -> Option<T> {
        {
            let relations = self.relations.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(tags) = ids.iter().map(|id| relations.get(id).cloned()).collect() {
                return Some(with(&self.epoch, tags));
            }
        }
        let mut relations = self.relations.write().unwrap_or_else(PoisonError::into_inner);
        if relations.len() + ids.len() > self.limit {
            // snapshots hold tags that nobody marks any more once they are forgotten, so they must all expire
            relations.retain(|_, tag| tag.seen() & DOUBT != 0);
            self.epoch.begin();
            self.epoch.end();
            if relations.len() + ids.len() > self.limit {
                return None;
            }
        }
        let tags = ids
            .iter()
            .map(|id| Arc::clone(relations.entry(*id).or_default()))
            .collect();
        Some(with(&self.epoch, tags))
    }
}

/// A write in flight. Dropped, it counts as done: entries made from its relations have expired.
#[must_use = "dropped at once, the write counts as done before it began"]
#[derive(Debug)]
pub struct WriteGuard {
    tags: Vec<Arc<Tag>>,
    last: Arc<LastWrite>,
}

impl WriteGuard {
    /// The write certainly changed nothing (the transaction was rolled back): entries made before it hold again.
    pub fn rolled_back(mut self) {
        for tag in std::mem::take(&mut self.tags) {
            tag.undo();
        }
    }
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        if self.tags.is_empty() {
            return;
        }
        // first: whoever sees that the write is over sees when it was
        self.last.note();
        for tag in &self.tags {
            tag.end();
        }
    }
}

/// What was known of some relations at one moment.
#[derive(Clone, Debug)]
pub struct TagSnapshot {
    seen: Arc<[(u64, Arc<Tag>)]>,
    clean: bool,
}

impl TagSnapshot {
    /// Whether no write to the relations was in flight when it was taken, and none has begun since.
    pub fn is_current(&self) -> bool {
        self.clean && self.seen.iter().all(|(word, tag)| tag.seen() == *word)
    }

    /// Bytes that it occupies, for weighing.
    pub(super) fn bytes(&self) -> usize {
        std::mem::size_of_val(&*self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(relation: u32) -> TagId {
        TagId { scope: 0, relation }
    }

    #[test]
    fn the_end_of_the_last_write_is_known() {
        let tags = Tags::default();
        assert_eq!(tags.last_write(), None);
        tags.begin_write(&[id(1)]).rolled_back();
        assert_eq!(tags.last_write(), None);
        let guard = tags.begin_write(&[id(1)]);
        let before = Instant::now();
        drop(guard);
        let first = tags.last_write().expect("a write ended");
        assert!(first >= before && first <= Instant::now());
        tags.invalidate_all();
        assert!(tags.last_write().expect("and another") >= first);
    }

    #[test]
    fn a_snapshot_expires_when_a_write_to_one_of_its_relations_begins() {
        for (read, written, current) in [
            (&[1][..], &[1][..], false),
            (&[1, 2], &[2, 3], false),
            (&[1, 2], &[3], true),
            (&[], &[1], true),
            (&[1], &[], true),
        ] {
            let ids = |list: &[u32]| list.iter().copied().map(id).collect::<Vec<_>>();
            let tags = Tags::default();
            let snapshot = tags.snapshot(&ids(read));
            assert!(snapshot.is_current());
            let guard = tags.begin_write(&ids(written));
            assert_eq!(
                snapshot.is_current(),
                current,
                "{read:?} while {written:?} is written"
            );
            drop(guard);
            assert_eq!(
                snapshot.is_current(),
                current,
                "{read:?} after {written:?} was written"
            );
            assert!(tags.snapshot(&ids(read)).is_current());
        }
    }

    #[test]
    fn a_snapshot_taken_while_a_write_is_in_flight_is_never_current() {
        let tags = Tags::default();
        let first = tags.begin_write(&[id(1)]);
        let second = tags.begin_write(&[id(1)]);
        let during = tags.snapshot(&[id(1)]);
        assert!(!during.is_current());
        drop(first);
        assert!(
            !tags.snapshot(&[id(1)]).is_current(),
            "the second is still in flight"
        );
        drop(second);
        assert!(!during.is_current());
        assert!(tags.snapshot(&[id(1)]).is_current());
    }

    #[test]
    fn an_unknown_write_expires_everything() {
        let tags = Tags::default();
        let snapshot = tags.snapshot(&[]);
        let guard = tags.begin_write_all();
        assert!(!snapshot.is_current());
        assert!(!tags.snapshot(&[id(9)]).is_current());
        drop(guard);
        assert!(!snapshot.is_current());
        assert!(tags.snapshot(&[id(9)]).is_current());
    }

    #[test]
    fn a_rollback_expires_nothing_unless_another_write_did() {
        let tags = Tags::default();
        let snapshot = tags.snapshot(&[id(1)]);
        let guard = tags.begin_write(&[id(1)]);
        assert!(!snapshot.is_current());
        guard.rolled_back();
        assert!(snapshot.is_current());
        let rolled_back = tags.begin_write(&[id(1)]);
        tags.invalidate(&[id(1)]);
        rolled_back.rolled_back();
        assert!(!snapshot.is_current());
    }

    #[test]
    fn relations_in_doubt_are_counted() {
        let tags = Tags::default();
        assert_eq!(tags.in_doubt(), 0);
        let two = tags.begin_write(&[id(1), id(2)]);
        let again = tags.begin_write(&[id(2)]);
        let any = tags.begin_write_all();
        assert_eq!(tags.in_doubt(), 3);
        drop(two);
        any.rolled_back();
        assert_eq!(tags.in_doubt(), 1);
        drop(again);
        assert_eq!(tags.in_doubt(), 0);
    }

    #[test]
    fn forgetting_relations_expires_every_snapshot_but_keeps_what_is_in_doubt() {
        let tags = Tags::with_limit(2);
        let snapshot = tags.snapshot(&[id(1)]);
        let guard = tags.begin_write(&[id(2)]);
        assert!(tags.snapshot(&[id(3)]).is_current());
        assert!(!snapshot.is_current(), "its tag was forgotten");
        assert!(!tags.snapshot(&[id(2)]).is_current(), "still in doubt");
        assert_eq!(tags.len(), 2);
        let other = tags.begin_write(&[id(3)]);
        assert!(!tags.snapshot(&[id(4)]).is_current(), "no room");
        let everything = tags.begin_write(&[id(4)]);
        drop((guard, other));
        assert!(
            !tags.snapshot(&[id(1)]).is_current(),
            "without room the write counts for everything"
        );
        drop(everything);
        assert!(tags.snapshot(&[id(1)]).is_current());
    }

    #[test]
    fn a_count_that_overflowed_stays_in_doubt() {
        let tag = Tag(AtomicU64::new(DOUBT - 1));
        tag.begin();
        tag.begin();
        assert_eq!(tag.seen(), DOUBT);
        tag.end();
        tag.undo();
        assert_eq!(tag.seen(), DOUBT + VERSION);
        let wrapped = Tag(AtomicU64::new(!DOUBT));
        wrapped.begin();
        wrapped.end();
        assert_eq!(wrapped.seen(), 0);
    }

    #[test]
    fn a_database_keeps_its_number() {
        let tags = Tags::default();
        let scope = |backend: &str, database: &str| {
            tags.scope(&BackendName::new(backend), &DatabaseName::new(database))
        };
        let first = scope("a", "bc");
        assert_ne!(first, scope("ab", "c"));
        assert_eq!(first, scope("a", "bc"));
    }
}
