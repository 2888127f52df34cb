//! `RELOAD`.

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;

const COLUMNS: Columns = columns! {
    "setting": Text = "The setting, or the section that came or went.",
    "change": Text = "From what to what; of a secret only that it changed.",
    "applied": Text = "`now`, or `after a restart`.",
};

/// Reads the configuration again.
pub(crate) struct Reload;

impl AdminCommand for Reload {
    fn name(&self) -> &'static str {
        "RELOAD"
    }

    fn help(&self) -> &'static str {
        "Reads the configuration's file again, as SIGHUP does, and answers one row for each setting that changed. A file \
         with a mistake changes nothing; every mistake is in the error's detail."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, _: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let changes = state.gateway.reload().map_err(ConsoleError::Reload)?;
        Ok(changes
            .into_iter()
            .map(|change| {
                let applied = if change.restart { "after a restart" } else { "now" };
                vec![change.path.into(), change.how.into(), applied.into()]
            })
            .collect())
    }
}
