//! What the gateway tells about itself: events, each one place for a log line and its metrics.
//!
//! [`event`] has one struct per event; `emit` writes the line and counts. [`metrics`] holds what is counted, resolved to
//! plain fields so that a query costs a few atomic additions; [`catalog`] is the one list of names, labels and help;
//! [`live`] is what is measured at the moment of a scrape. [`log`] sends the lines to standard error. No SQL text and no
//! parameter is told above the level DEBUG, and none by the events here; a statement's fingerprint stands for it.

pub mod catalog;
pub mod event;
mod histogram;
pub mod live;
pub mod log;
pub mod metrics;
mod vocabulary;

pub use live::LiveState;
pub use metrics::{BackendMetrics, Metrics, TeamMetrics};
pub use vocabulary::{ErrorSource, LoginOutcome, RequestKind, RequestOutcome, Verdict};
