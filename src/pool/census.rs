//! Counts of a pool at one moment.

use std::time::Duration;

/// Counts of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyCensus {
    /// Connections on loan or being opened.
    pub active: usize,
    /// Connections that nobody uses.
    pub idle: usize,
    /// Sessions that wait.
    pub waiting: usize,
    /// How long the first of them has waited.
    pub longest_wait: Duration,
}

/// Counts of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census<K> {
    /// The limit.
    pub max_connections: usize,
    /// Connections of all keys, idle, on loan and being opened.
    pub open: usize,
    /// Whether nothing is granted.
    pub paused: bool,
    /// Whether requests are refused because the backend does not answer.
    pub circuit_open: bool,
    /// Counts by key.
    pub keys: Vec<(K, KeyCensus)>,
}

/// Which limit keeps somebody waiting, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// That of its group.
    Group(usize),
    /// That of the pool.
    Pool(usize),
    /// That of several pools together.
    Ceiling(usize),
    /// The pool is paused.
    Paused,
    /// None: a connection is being opened, or was free a moment ago.
    Nothing,
}

/// Why somebody waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jam {
    /// Which limit is reached.
    pub short: Short,
    /// Connections in use of those that the limit is for, with those that are being opened.
    pub in_use: usize,
    /// Everybody who waits for a connection of the pool.
    pub waiting: usize,
    /// How many of the same group came before.
    pub ahead: usize,
}
