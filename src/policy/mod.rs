//! Verdicts with reasons: what may be answered from memory, and what a write makes stale.
//!
//! Facts of a statement ([`crate::sql::Statement`]) and a snapshot of a database's definitions ([`Catalog`]) go in, a
//! verdict comes out. Nothing here reads a socket, a file or a clock.

mod cacheability;
mod catalog;
mod functions;
mod invalidation;
mod reason;
mod routing;
#[cfg(test)]
mod samples;
mod touching;

pub use cacheability::{Cacheability, MAX_TAGS, RESULT_SETTINGS, cacheability};
pub use catalog::{
    Catalog, CodeDefinition, ColumnsDefinition, Definitions, Occasion, Relation, RelationDefinition,
    RelationKind, ViewDefinition, WriteClosure, search_path,
};
pub use functions::{FunctionClass, FunctionDefinition, Functions, Volatility};
pub use invalidation::{Invalidation, invalidation, reads_unknown};
pub use reason::BypassReason;
pub use routing::may_read_elsewhere;
pub use touching::{brings_code, may_define, runs_hidden_code, touches_session};
