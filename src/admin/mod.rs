//! The console: the database `tollgate`, where administrators look at the gateway and steer it.
//!
//! A text becomes words (`words.rs`), the words name one of [`COMMANDS`] (a file each in `commands/`), the command
//! answers rows. What drivers send before anybody has typed anything is answered in `courtesy.rs`. Who may come in is
//! not decided here, nor is how an answer is sent.

mod columns;
mod command;
mod commands;
mod console;
mod courtesy;
mod error;
mod live;
mod moment;
#[cfg(test)]
mod reference;
#[cfg(test)]
pub(crate) mod tests;
mod words;

pub use columns::Columns;
pub use command::{AdminCommand, COMMANDS, ConsoleState, Rows};
pub use console::Console;
pub use courtesy::version;
pub use error::ConsoleError;
pub use live::live_state;
pub use words::Arguments;
