//! The stand-in: a private PostgreSQL that Tollgate starts, watches and stops, filled with demo data.
//!
//! [`StandIn::start`] turns a directory into a running server: it finds PostgreSQL's programs, initialises a
//! cluster of its own, runs it on a Unix socket that only its owner can reach, and loads a messenger's
//! analytics. Nothing here listens on TCP, and no other PostgreSQL on the machine is touched.
//!
//! - `locate`: which PostgreSQL
//! - `owner`: which system user runs it
//! - `directory`: what is ours on disk, the lock, the secrets
//! - `cluster`, `settings`, `supervision`: initialise, start, watch, stop
//! - `stand_in`: what the rest of the program sees of it
//! - `calendar`, `random`, `population`, `generate`, `rows`: the demo data, pure
//! - `demo`: loads them
//! - `config_text`: the gateway's config for it

mod calendar;
mod cluster;
mod config_text;
mod demo;
mod directory;
mod error;
mod generate;
mod locate;
mod owner;
mod population;
mod random;
mod rows;
mod settings;
mod stand_in;
mod supervision;

pub use calendar::Day;

pub use config_text::demo_config_toml;
pub use error::StandInError;
pub use stand_in::{BackendLogin, StandIn};

use std::path::PathBuf;

/// The number of events that the demo has unless asked otherwise.
pub const DEFAULT_EVENTS: u64 = 1_000_000;

/// The most events that can be asked for; the generator's memory grows with them (about 3 bytes an event).
pub const MAX_EVENTS: u64 = 100_000_000;

/// The database of the demo.
pub const DATABASE: &str = "dev";

/// The teams of the demo; each has a role of the same name at the server.
pub const TEAMS: [&str; 2] = ["growth", "bi"];

/// What to start.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// The directory of the cluster and its secrets; made when missing. `None`: the user's data directory
    /// (`$XDG_DATA_HOME/tollgate/demo`, else `~/.local/share/tollgate/demo`; `/var/lib/tollgate/demo` as root).
    pub data: Option<PathBuf>,
    /// How many events to load into a new directory, up to [`MAX_EVENTS`]; 0 loads no demo data at all. A
    /// directory that has data keeps them.
    pub events: u64,
    /// The directory of PostgreSQL's programs. `None`: `TOLLGATE_PG_BIN`, then `PATH`, then Debian's places.
    pub pg_bin: Option<PathBuf>,
    /// The last day that the demo data cover. `None`: today in UTC.
    pub last_day: Option<Day>,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self {
            data: None,
            events: DEFAULT_EVENTS,
            pg_bin: None,
            last_day: None,
        }
    }
}
