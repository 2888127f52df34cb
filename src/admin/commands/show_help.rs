//! `SHOW HELP`.

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, COMMANDS, ConsoleState, Rows, usage};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;

const COLUMNS: Columns = columns! {
    "command": Text = "How it is written; what stands in brackets may be left out.",
    "description": Text = "What it does.",
};

/// Lists the commands.
pub(crate) struct ShowHelp;

impl AdminCommand for ShowHelp {
    fn name(&self) -> &'static str {
        "SHOW HELP"
    }

    fn help(&self) -> &'static str {
        "Lists the commands."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, _: &ConsoleState<'_>, _: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        Ok(COMMANDS
            .iter()
            .map(|command| vec![usage(*command).into(), command.help().into()])
            .collect())
    }
}
