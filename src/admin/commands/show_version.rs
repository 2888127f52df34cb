//! `SHOW VERSION`.

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;

const COLUMNS: Columns = columns! {
    "version": Text = "The program and its version.",
};

/// Tells the version.
pub(crate) struct ShowVersion;

impl AdminCommand for ShowVersion {
    fn name(&self) -> &'static str {
        "SHOW VERSION"
    }

    fn help(&self) -> &'static str {
        "Tells which version of the gateway runs."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, _: &ConsoleState<'_>, _: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        Ok(vec![vec![concat!("Tollgate ", env!("CARGO_PKG_VERSION")).into()]])
    }
}
