//! Tollgate: a Redshift-compatible SQL gateway.
//!
//! The modules stand in order of dependency: a module uses only those above it, and `tests/architecture.rs`
//! enforces that from the order of the lines below. The upper half decides (no sockets, no clock); the lower
//! half moves bytes. `docs/architecture.md` walks one query through all of them.

// vocabulary: no I/O, no clock
pub mod types;
pub mod error;
pub mod config;
pub mod telemetry;
// pure: bytes or text in, facts or verdicts out
pub mod wire;
pub mod auth;
pub mod sql;
pub mod policy;
// state in memory, generic over sockets
pub mod session;
pub mod quota;
pub mod cache;
pub mod pool;
// I/O to the server
pub mod backend;
pub mod standin;
// flow
pub mod pipeline;
// surfaces
pub mod admin;
pub mod frontend;
pub mod http;
pub mod app;
