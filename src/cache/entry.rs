//! One kept answer: the frames a client would have got from the backend.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::tags::TagSnapshot;
use crate::session::Columns;

/// Bytes that an entry costs beside its frames and key: the structures, and the store's own (337 bytes, measured).
const OVERHEAD_BYTES: usize = 512;

/// What a run gave beside its rows.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The whole `RowDescription` frame, if the run asked for one.
    pub row_description: Option<Bytes>,
    /// How many `DataRow` frames there were.
    pub row_count: u64,
    /// The whole `CommandComplete` frame.
    pub command_complete: Bytes,
    /// How long the backend worked on it.
    pub backend_time: Duration,
    /// The statement's shape.
    pub fingerprint: u128,
}

/// A whole and successful answer.
#[derive(Debug)]
pub struct Entry {
    /// The whole `RowDescription` frame (tag `T`); `None` when the run that made the entry did not ask for it.
    pub row_description: Option<Bytes>,
    /// The columns that it describes.
    pub columns: Option<Columns>,
    /// All `DataRow` frames (tag `D`), back to back.
    pub rows: Bytes,
    /// How many rows there are.
    pub row_count: u64,
    /// The whole `CommandComplete` frame (tag `C`).
    pub command_complete: Bytes,
    /// When its run began; its age counts from here.
    pub created: Instant,
    /// What the backend spent on it, and what every use saves.
    pub backend_time: Duration,
    /// What it was computed from, noted before its query was sent.
    pub tags: TagSnapshot,
    /// The statement's shape.
    pub fingerprint: u128,
}

impl Entry {
    /// Bytes of its frames.
    pub fn size(&self) -> usize {
        self.row_description.as_ref().map_or(0, Bytes::len) + self.rows.len() + self.command_complete.len()
    }

    /// Bytes it occupies with a key of `key_len` bytes.
    pub(super) fn weight(&self, key_len: usize) -> u32 {
        u32::try_from(self.size() + key_len + self.tags.bytes() + OVERHEAD_BYTES).unwrap_or(u32::MAX)
    }

    /// How old it is.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.created)
    }
}
