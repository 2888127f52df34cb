//! Which thread a connection is at home on.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A thread that uses connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home(usize);

impl Home {
    /// The current thread.
    pub fn here() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static HERE: Home = Home(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        HERE.with(|here| *here)
    }
}
