//! `SHOW POOLS`.

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::live::pool_rows;
use crate::admin::words::Arguments;

use super::yes;

const COLUMNS: Columns = columns! {
    "database": Text = "The database.",
    "user": Text = "The role that the connections log in as at the backend.",
    "cl_active": Int8 = "Clients that wait for nothing of the gateway's: those whose query runs, and those that are idle.",
    "cl_waiting": Int8 = "Clients whose request waits: for a place of its team, for a connection, or for an equal query that runs already.",
    "sv_active": Int8 = "Connections in use.",
    "sv_idle": Int8 = "Connections that nobody uses.",
    "sv_login": Int8 = "Connections being made.",
    "maxwait": Int8 = "How long the first request in the line has waited for a connection, in whole seconds.",
    "maxwait_us": Int8 = "The rest of that time, in microseconds.",
    "pool_mode": Text = "`transaction`: a client has a connection for as long as its transaction, or its pin, lasts.",
    "backend": Text = "The backend.",
    "team": Text = "The teams that use it.",
    "paused": Text = "`yes` while PAUSE is in force.",
    "circuit": Text = "`open` while requests are refused because the backend does not answer, else `closed`.",
};

/// Lists the pools.
pub(crate) struct ShowPools;

impl AdminCommand for ShowPools {
    fn name(&self) -> &'static str {
        "SHOW POOLS"
    }

    fn help(&self) -> &'static str {
        "One row for each database and login: clients and connections by state, and the longest wait."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, _: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let rows = pool_rows(state.gateway, state.now.steady);
        Ok(rows
            .into_iter()
            .map(|((backend, database, user), row)| {
                vec![
                    database.into(),
                    user.into(),
                    row.clients_active.into(),
                    row.clients_waiting.into(),
                    row.servers_active.into(),
                    row.servers_idle.into(),
                    row.servers_login.into(),
                    row.longest_wait.as_secs().into(),
                    u64::from(row.longest_wait.subsec_micros()).into(),
                    "transaction".into(),
                    backend.into(),
                    row.teams.join(", ").into(),
                    yes(row.paused),
                    if row.circuit_open { "open" } else { "closed" }.into(),
                ]
            })
            .collect())
    }
}
