//! `SHOW PINS`.

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;

use super::or_null;

const COLUMNS: Columns = columns! {
    "id": Int8 = "The client, `id` of SHOW CLIENTS.",
    "user": Text = "Whom it logged in as.",
    "team": Text = "Its team.",
    "database": Text = "The database.",
    "application_name": Text = "What it calls itself.",
    "reason": Text = "What it used that connections cannot share.",
    "connect_time": Text = "When it logged in.",
};

/// Lists the sessions that keep their connections.
pub(crate) struct ShowPins;

impl AdminCommand for ShowPins {
    fn name(&self) -> &'static str {
        "SHOW PINS"
    }

    fn help(&self) -> &'static str {
        "One row for each client that keeps its connection until it leaves, and why. Such connections serve nobody else."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, _: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let sessions = state.gateway.sessions.list();
        Ok(sessions
            .iter()
            .filter_map(|session| Some((session, session.pinned()?)))
            .map(|(session, reason)| {
                vec![
                    session.id.0.into(),
                    session.login.user.as_str().into(),
                    or_null(session.login.team.as_ref()),
                    session.login.database.as_str().into(),
                    session.login.application_name.as_str().into(),
                    reason.into(),
                    state.now.time_of(session.since).into(),
                ]
            })
            .collect())
    }
}
