//! HTTP for machines: metrics for Prometheus, liveness and readiness for whoever starts and stops the gateway.
//!
//! Nothing here changes anything, and nobody logs in: whoever reaches the address may read.

mod limits;
mod readiness;
mod server;

pub use readiness::{Readiness, Unready};
pub use server::HttpTask;
