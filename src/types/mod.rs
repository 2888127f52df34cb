//! Words that every module uses: identifiers, names, units, secrets. No I/O, no clock.

mod ids;
mod names;
mod secret;
mod units;

pub use ids::SessionId;
pub use names::{BackendName, DatabaseName, TeamName, UserName};
pub use secret::Secret;
pub use units::{ByteSize, HumanDuration, UnitError};
