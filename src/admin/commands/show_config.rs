//! `SHOW CONFIG`.

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;

use super::{refused, yes};

const COLUMNS: Columns = columns! {
    "key": Text = "The setting, with the sections that it stands in.",
    "value": Text = "Its value; of a secret only `***`, and of what kind it is.",
    "default": Text = "`yes` when that is the value that it has by itself.",
    "changeable": Text = "`yes` when RELOAD applies a change, `no` when only a restart does.",
};

/// Lists the settings.
pub(crate) struct ShowConfig;

impl AdminCommand for ShowConfig {
    fn name(&self) -> &'static str {
        "SHOW CONFIG"
    }

    fn arguments(&self) -> &'static str {
        "[section]"
    }

    fn help(&self) -> &'static str {
        "One row for each setting in force, written in the file or not; of one section when it is named, e.g., SHOW \
         CONFIG team.growth."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, arguments: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let section = match arguments.name() {
            None if !arguments.is_empty() => return Err(refused(self, arguments)),
            section => section,
        };
        let within = |path: &str| {
            section.as_ref().is_none_or(|section| {
                path.strip_prefix(section.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        let rows = state.gateway.realm().config.rows();
        Ok(rows
            .into_iter()
            .filter(|row| within(&row.path))
            .map(|row| {
                vec![
                    row.path.into(),
                    row.value.into(),
                    yes(row.default),
                    yes(!row.restart),
                ]
            })
            .collect())
    }
}
