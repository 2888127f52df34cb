//! The servers of one backend: a primary, which may have several addresses, and readers that follow it. Each is looked at off
//! the data path, so that a query is sent where it will be answered.

mod failover;
mod health;
mod replay;
mod vitals;

pub use health::{Health, State};
pub use replay::{Lsn, Replay};
pub use vitals::{Role, Vitals, ask};
