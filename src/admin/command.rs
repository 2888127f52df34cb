//! What a command is, and the list of all of them.

use super::columns::Columns;
use super::commands::{
    Disconnect, Invalidate, Kill, Pause, Reconnect, Reload, Resume, ShowCache, ShowClients, ShowConfig,
    ShowDatabases, ShowEndpoints, ShowHelp, ShowLists, ShowPins, ShowPools, ShowServers, ShowStats,
    ShowTeams, ShowUsers, ShowVersion,
};
use super::error::ConsoleError;
use super::moment::Moment;
use super::words::Arguments;
use crate::pipeline::Gateway;
use crate::types::UserName;
use crate::wire::Value;

/// The rows of an answer, in the order in which they are shown.
pub type Rows = Vec<Vec<Value>>;

/// What a command works with.
pub struct ConsoleState<'a> {
    /// The gateway.
    pub gateway: &'a Gateway,
    /// Who asks.
    pub user: &'a UserName,
    /// When.
    pub now: Moment,
}

/// A command of the console.
pub trait AdminCommand: Sync {
    /// Its words, in capitals.
    fn name(&self) -> &'static str;

    /// What may follow them, as the help shows it; empty when nothing may.
    fn arguments(&self) -> &'static str {
        ""
    }

    /// What it does, in whole sentences.
    fn help(&self) -> &'static str;

    /// What it answers with.
    fn columns(&self) -> Columns;

    /// Does it.
    ///
    /// # Errors
    ///
    /// It cannot be done; nothing has changed then.
    fn run(&self, state: &ConsoleState<'_>, arguments: &Arguments<'_>) -> Result<Rows, ConsoleError>;
}

/// Every command, in the order of the help.
pub static COMMANDS: &[&dyn AdminCommand] = &[
    &ShowHelp,
    &ShowVersion,
    &ShowPools,
    &ShowClients,
    &ShowServers,
    &ShowEndpoints,
    &ShowPins,
    &ShowStats,
    &ShowTeams,
    &ShowUsers,
    &ShowDatabases,
    &ShowCache,
    &ShowConfig,
    &ShowLists,
    &Reload,
    &Pause,
    &Resume,
    &Reconnect,
    &Disconnect,
    &Invalidate,
    &Kill,
];

/// The command and its arguments, as one would type them.
pub(super) fn usage(command: &dyn AdminCommand) -> String {
    let (name, arguments) = (command.name(), command.arguments());
    if arguments.is_empty() {
        name.to_owned()
    } else {
        format!("{name} {arguments}")
    }
}
