//! Waiting for something that can be seen.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait for anything; reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until there is something, and gives it; panics with `what` when there is nothing for too long.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain waited until {what}");
        thread::park_timeout(PAUSE);
    }
}

/// Looks until `look` gives `expected`; the panic tells what it gave last.
pub(crate) fn becomes<T: PartialEq + Debug>(expected: &T, mut look: impl FnMut() -> T) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = look();
        if found == *expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "in vain waited for {expected:?}; it is {found:?}"
        );
        thread::park_timeout(PAUSE);
    }
}
