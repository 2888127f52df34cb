//! `SHOW PINS`.

use std::collections::BTreeMap;

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;

const COLUMNS: Columns = columns! {
    "reason": Text = "What was used that connections cannot share.",
    "clients": Int8 = "Clients that keep their connections for it now; column `pinned` of SHOW CLIENTS says which.",
    "total": Int8 = "How often a client was pinned for it since the start.",
};

/// Counts the sessions that keep their connections.
pub(crate) struct ShowPins;

impl AdminCommand for ShowPins {
    fn name(&self) -> &'static str {
        "SHOW PINS"
    }

    fn help(&self) -> &'static str {
        "One row for each reason why clients keep their connections, and how many do. Such connections serve nobody else."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, _: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let mut reasons: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (reason, total) in state.gateway.metrics.pins() {
            reasons.entry(reason).or_default().1 = total;
        }
        for session in state.gateway.sessions.list() {
            if let Some(reason) = session.pinned() {
                reasons.entry(reason).or_default().0 += 1;
            }
        }
        Ok(reasons
            .into_iter()
            .map(|(reason, (clients, total))| vec![reason.into(), clients.into(), total.into()])
            .collect())
    }
}
