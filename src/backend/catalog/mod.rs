//! The control plane: snapshots of a database's definitions, read through connections of their own.
//!
//! [`CatalogSource`] reads one snapshot, [`CatalogWatch`] keeps one current. Neither carries a client's statements.

mod queries;
mod rows;
mod source;
mod watch;

pub use source::{CatalogAddress, CatalogError, CatalogPassword, CatalogSettings, CatalogSource, Snapshot};
pub use watch::{CatalogWatch, WatchSettings};
