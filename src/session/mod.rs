//! What one client's session is: its settings, its statements and portals, and what it asked for.

mod pins;
mod request;
mod settings;
mod startup;
mod statements;

pub use pins::Pins;
pub use request::{Collected, Collector, Ending, FrameSpan, MAX_HELD, Request};
pub use settings::{SettingValue, Settings, is_custom};
pub use startup::{StartupError, StartupRequest};
pub use statements::{
    Description, LocalPortal, Portal, Prepared, SharedStatements, StatementKey, Statements,
};
