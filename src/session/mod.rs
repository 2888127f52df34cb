//! What one client's session is: its settings, its statements and portals, and what it asked for.

mod description;
mod pins;
mod request;
mod settings;
mod startup;
mod statements;

pub use description::{Columns, Description};
pub use pins::Pins;
pub use request::{Collected, Collector, Ending, FrameSpan, MAX_HELD, Request};
pub use settings::{SettingValue, Settings};
pub use startup::{StartupError, StartupRequest};
pub use statements::{LocalPortal, Named, Portal, Prepared, SharedStatements, StatementKey, Statements};
