//! Keeps one database's catalog snapshot current.
//!
//! Requests to load are counted. A load answers for the requests that were made before it began to read, so a snapshot
//! is current only while no request has come since: `loaded == requested`. DDL through the gateway makes a request when
//! its transaction has ended and before its client hears of it; from then until a load that began later has finished,
//! there is no current catalog, and nothing is kept.
//!
//! Code of users may change definitions without a word of it. Then a look is asked for: whether they are still what was read.
//! Until it is done there is no current catalog either.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::source::{CatalogError, CatalogSource, Snapshot};
use crate::policy::Catalog;

/// When to look and how long to wait.
#[derive(Clone, Copy, Debug)]
pub struct WatchSettings {
    /// How often to look for definitions that changed past the gateway; zero means never.
    pub interval: Duration,
    /// How long to wait after a first failure; doubled after each, up to [`Self::longest_pause`].
    pub pause: Duration,
    /// The longest wait after failures.
    pub longest_pause: Duration,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(10),
        }
    }
}

/// A catalog that follows its database. Clones share it; the task ends with the last of them.
#[derive(Clone)]
pub struct CatalogWatch {
    shared: Arc<Shared>,
    _task: Arc<Task>,
}

struct Shared {
    /// Requests so far; the first one is made at the start.
    requested: AtomicU64,
    /// Looks that were asked for.
    suspected: AtomicU64,
    /// Looks that were asked for and are done.
    looked: AtomicU64,
    /// The request since which code of users may be other.
    code: AtomicU64,
    snapshot: ArcSwapOption<Catalog>,
    wake: Notify,
    /// When definitions were last said, or found, to have changed.
    changed: Mutex<Option<Instant>>,
    /// Counts loads and failures, for those who wait for one.
    turned: tokio::sync::watch::Sender<u64>,
    last_error: Mutex<Option<Arc<CatalogError>>>,
}

struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl CatalogWatch {
    /// Starts to follow `source` on the current tokio runtime. `changed` is called, before the new catalog is
    /// published, whenever definitions were found to have changed past the gateway: every entry of the database is
    /// stale then. It must not block.
    pub fn spawn(
        source: CatalogSource,
        settings: WatchSettings,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            requested: AtomicU64::new(1),
            suspected: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            code: AtomicU64::new(1),
            snapshot: ArcSwapOption::empty(),
            wake: Notify::new(),
            changed: Mutex::new(None),
            turned: tokio::sync::watch::Sender::new(0),
            last_error: Mutex::new(None),
        });
        let task = tokio::spawn(follow(Arc::clone(&shared), source, settings, changed));
        Self {
            shared,
            _task: Arc::new(Task(task.abort_handle())),
        }
    }

    /// The catalog, when it answers for every request so far.
    ///
    /// Take the versions of what a statement depends on *before* this: then a change of definitions between the two is
    /// seen either here or in the versions.
    pub fn current(&self) -> Option<Arc<Catalog>> {
        let catalog = self.shared.snapshot.load_full()?;
        self.is_current(&catalog).then_some(catalog)
    }

    /// Whether no request has been made since `catalog` was read, and no look is under way that was asked for. To be asked
    /// again before an answer is kept that was judged by it.
    pub fn is_current(&self, catalog: &Catalog) -> bool {
        // in this order: a look that finds a change makes a request before it is done
        !self.shared.is_suspicious() && catalog.generation == self.shared.requested.load(Ordering::SeqCst)
    }

    /// The catalog, when it answers for every request so far; a look may be under way. Enough to foresee what a statement
    /// does, if [`Self::is_current`] is asked when it has run.
    pub fn probable(&self) -> Option<Arc<Catalog>> {
        let catalog = self.shared.snapshot.load_full()?;
        (catalog.generation == self.shared.requested.load(Ordering::SeqCst)).then_some(catalog)
    }

    /// The newest catalog, current or not, unless code of users may be other since: enough to know what a statement runs.
    pub fn of_code(&self) -> Option<Arc<Catalog>> {
        let catalog = self.shared.snapshot.load_full()?;
        (catalog.generation >= self.shared.code.load(Ordering::SeqCst)).then_some(catalog)
    }

    /// Whether there is a catalog [`Self::of_code`].
    pub fn knows_code(&self) -> bool {
        let code = self.shared.code.load(Ordering::SeqCst);
        let snapshot = self.shared.snapshot.load();
        snapshot
            .as_ref()
            .is_some_and(|catalog| catalog.generation >= code)
    }

    /// From here on [`Self::of_code`] waits for the [`Self::refresh`] that is to follow.
    pub fn expect_code(&self) {
        let next = self.shared.requested.load(Ordering::SeqCst) + 1;
        self.shared.code.fetch_max(next, Ordering::SeqCst);
    }

    /// The newest catalog, current or not: enough to find a write's closure when writes are taken to change everything
    /// while it is not current.
    pub fn latest(&self) -> Option<Arc<Catalog>> {
        self.shared.snapshot.load_full()
    }

    /// Asks for a load, at once; requests that come while one is under way are answered together by the next. From this
    /// call on there is no current catalog until that load is done.
    ///
    /// To be called when definitions have changed: after the commit at the database, before anyone is told of it, and
    /// before entries are made stale.
    pub fn refresh(&self) {
        self.shared.note_change();
        self.shared.requested.fetch_add(1, Ordering::SeqCst);
        self.shared.wake.notify_one();
    }

    /// Asks for a look, at once; as [`Self::refresh`], where definitions may have changed and probably have not.
    pub fn suspect(&self) {
        self.shared.suspected.fetch_add(1, Ordering::SeqCst);
        self.shared.wake.notify_one();
    }

    /// When definitions were last said, or found, to have changed: what is at a copy of the database that has not everything
    /// from before then may be defined otherwise. `None` when they never were.
    pub fn changed(&self) -> Option<std::time::Instant> {
        let changed = self.shared.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.map(Instant::into_std)
    }

    /// Waits until there is a current catalog, or a load has failed.
    ///
    /// # Errors
    ///
    /// Why the last load failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn ready(&self) -> Result<Arc<Catalog>, Arc<CatalogError>> {
        let mut turned = self.shared.turned.subscribe();
        loop {
            turned.mark_unchanged();
            if let Some(catalog) = self.current() {
                return Ok(catalog);
            }
            if let Some(error) = self.last_error() {
                return Err(error);
            }
            if turned.changed().await.is_err() {
                // the sender lives as long as `self`
                std::future::pending::<()>().await;
            }
        }
    }

    /// Why the last look or load failed; `None` after a good one.
    pub fn last_error(&self) -> Option<Arc<CatalogError>> {
        self.shared
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Shared {
    fn note_change(&self) {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn note(&self, error: Option<CatalogError>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error.map(Arc::new);
        self.turned.send_modify(|turns| *turns += 1);
    }

    /// Whether a look was asked for that is not done.
    fn is_suspicious(&self) -> bool {
        let looked = self.looked.load(Ordering::SeqCst);
        self.suspected.load(Ordering::SeqCst) != looked
    }

    /// Whether a request has come since the newest load began.
    fn is_behind(&self) -> bool {
        let loaded = self
            .snapshot
            .load()
            .as_ref()
            .map_or(0, |catalog| catalog.generation);
        loaded != self.requested.load(Ordering::SeqCst)
    }
}

async fn follow(shared: Arc<Shared>, source: CatalogSource, settings: WatchSettings, changed: impl Fn()) {
    let mut known: Option<String> = None;
    let mut failures = 0_u32;
    loop {
        let result = if shared.is_behind() {
            load(&shared, &source, &mut known, &changed).await
        } else {
            look(&shared, &source, known.as_deref()).await
        };
        match result {
            Ok(()) => failures = 0,
            Err(error) => {
                failures = failures.saturating_add(1);
                tracing::warn!(
                    error = error.with_causes(),
                    failures,
                    "could not follow the catalog"
                );
                shared.note(Some(error));
            }
        }
        if (shared.is_behind() || shared.is_suspicious()) && failures == 0 {
            continue;
        }
        rest(&shared, settings, failures).await;
    }
}

/// Loads once, and publishes.
async fn load(
    shared: &Shared,
    source: &CatalogSource,
    known: &mut Option<String>,
    changed: &impl Fn(),
) -> Result<(), CatalogError> {
    // read before the snapshot begins: what is asked for later is not in it
    let generation = shared.requested.load(Ordering::SeqCst);
    let suspected = shared.suspected.load(Ordering::SeqCst);
    let started = Instant::now();
    let Snapshot { catalog, digest } = source.load(generation).await?;
    let (relations, elapsed) = (catalog.len(), started.elapsed());
    let differs = known.as_ref().is_some_and(|known| *known != digest);
    *known = Some(digest);
    if differs {
        changed();
    }
    shared.snapshot.store(Some(Arc::new(catalog)));
    shared.looked.store(suspected, Ordering::SeqCst);
    shared.note(None);
    tracing::debug!(
        relations,
        generation,
        elapsed_ms = elapsed.as_millis(),
        "read the catalog"
    );
    Ok(())
}

/// Looks whether definitions have changed past the gateway, and asks for a load then.
async fn look(shared: &Shared, source: &CatalogSource, known: Option<&str>) -> Result<(), CatalogError> {
    let suspected = shared.suspected.load(Ordering::SeqCst);
    let digest = source.digest().await?;
    if known != Some(&*digest) {
        shared.note_change();
        shared.requested.fetch_add(1, Ordering::SeqCst);
    }
    shared.looked.store(suspected, Ordering::SeqCst);
    shared.note(None);
    Ok(())
}

/// Waits for a request, for the next look, or for a pause after failures to be over. A request does not cut a pause
/// short: a database that is down is not asked more often because clients try to change it.
async fn rest(shared: &Shared, settings: WatchSettings, failures: u32) {
    if failures > 0 {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        tokio::time::sleep(settings.pause.saturating_mul(factor).min(settings.longest_pause)).await;
    } else if settings.interval.is_zero() {
        shared.wake.notified().await;
    } else {
        // an error means that the time is over
        drop(tokio::time::timeout(settings.interval, shared.wake.notified()).await);
    }
}
