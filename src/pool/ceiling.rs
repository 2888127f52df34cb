//! A limit over several pools together.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

/// A pool under the limit.
pub(super) trait Tenant: Send + Sync {
    /// Connections that it has open.
    fn open(&self) -> usize;
    /// Since when its oldest idle connection is idle.
    fn oldest_idle(&self) -> Option<Instant>;
    /// Closes that one; false when there is none any more.
    fn close_oldest_idle(&self) -> bool;
    /// Grants what is free to whoever waits.
    fn serve(self: Arc<Self>);
}

/// How many connections several pools may have open together.
pub struct Ceiling {
    max: AtomicUsize,
    open: AtomicUsize,
    /// A pool was denied a place since somebody looked last.
    denied: AtomicBool,
    tenants: Mutex<Vec<Weak<dyn Tenant>>>,
}

impl Default for Ceiling {
    /// No limit.
    fn default() -> Self {
        Self {
            max: AtomicUsize::new(usize::MAX),
            open: AtomicUsize::new(0),
            denied: AtomicBool::new(false),
            tenants: Mutex::default(),
        }
    }
}

impl Ceiling {
    /// Connections that may be open.
    pub fn max(&self) -> usize {
        self.max.load(Ordering::SeqCst)
    }

    /// Connections that are open: idle, on loan and being opened.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Takes another limit. Under a lower one, idle connections close now, others as they come back.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::SeqCst);
        while self.exceeded() && self.make_room() {}
        self.serve_denied();
    }

    /// Whether more are open than may be.
    pub(super) fn exceeded(&self) -> bool {
        self.open() > self.max()
    }

    pub(super) fn admit(&self, tenant: Weak<dyn Tenant>) {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.retain(|tenant| tenant.strong_count() > 0);
        tenants.push(tenant);
    }

    /// Takes a place, if there is one.
    pub(super) fn take(&self) -> bool {
        if self.try_take() {
            return true;
        }
        // noted before the second look: whoever frees a place looks at the note afterwards
        self.denied.store(true, Ordering::SeqCst);
        self.try_take()
    }

    fn try_take(&self) -> bool {
        let max = self.max();
        self.open
            .try_update(Ordering::SeqCst, Ordering::SeqCst, |open| {
                (open < max).then_some(open + 1)
            })
            .is_ok()
    }

    /// Gives a place back. Not to be called under a pool's lock.
    pub(super) fn give_back(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether a pool was denied a place since somebody looked last.
    pub(super) fn is_wanted(&self) -> bool {
        self.denied.load(Ordering::SeqCst)
    }

    /// Whether a pool with so many open connections has to close one that comes back, when another was denied a place:
    /// it has more than an even share.
    pub(super) fn claims(&self, open: usize) -> bool {
        open > self.max() / self.tenants().len().max(1)
    }

    /// Lets the pools that were denied a place try again, those with the fewest connections first. Not to be called
    /// under a pool's lock.
    pub(super) fn serve_denied(&self) {
        // read first: in the common case nobody was, and all threads only read
        if !self.denied.load(Ordering::SeqCst) || !self.denied.swap(false, Ordering::SeqCst) {
            return;
        }
        let mut tenants = self.tenants();
        tenants.sort_by_cached_key(|tenant| tenant.open());
        for tenant in tenants {
            tenant.serve();
        }
    }

    /// Closes the connection that is idle for longest in any of the pools; false when none is idle. Not to be called
    /// under a pool's lock.
    pub(super) fn make_room(&self) -> bool {
        let tenants = self.tenants();
        let oldest = tenants
            .iter()
            .filter_map(|tenant| Some((tenant.oldest_idle()?, tenant)))
            .min_by_key(|(since, _)| *since);
        oldest.is_some_and(|(_, tenant)| tenant.close_oldest_idle())
    }

    fn tenants(&self) -> Vec<Arc<dyn Tenant>> {
        let tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.iter().filter_map(Weak::upgrade).collect()
    }
}
