//! Answers kept in memory, and served only while nothing they were computed from can have changed.
//!
//! A [`CacheKey`] is a request's exact identity; an [`Entry`] is its answer as frames; [`Tags`] know which relations were
//! written; a [`TagSnapshot`] taken *before* a query was sent tells whether its answer still holds. The rule: an entry is
//! served only if, at the moment of the lookup, no write that the gateway knows of has happened or is in flight to any
//! relation it was computed from since before its query was sent. Equal requests in flight share one run.
//!
//! What this module does not do: decide what may be cached, learn of writes past the gateway, replay frames.

mod entry;
mod flight;
mod key;
#[cfg(test)]
mod model;
mod stats;
mod store;
mod tags;

pub use entry::{Completion, Entry};
pub use flight::{Fill, Follower, NotStored, Outcome};
pub use key::{CacheKey, KeyBuilder, KeyParameter};
pub use stats::CacheStats;
pub use store::{BypassReason, CacheLimits, Lookup, ResultCache};
pub use tags::{TagId, TagSnapshot, Tags, WriteGuard};
