//! `SHOW USERS`.

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;

use super::{or_null, yes};

const COLUMNS: Columns = columns! {
    "name": Text = "The name of the login.",
    "team": Text = "Its team; NULL for an administrator without one.",
    "admin": Text = "`yes` when it may use this console.",
    "clients": Int8 = "Clients that are logged in as it.",
};

/// Lists the users.
pub(crate) struct ShowUsers;

impl AdminCommand for ShowUsers {
    fn name(&self) -> &'static str {
        "SHOW USERS"
    }

    fn help(&self) -> &'static str {
        "One row for each user of the configuration."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, _: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let sessions = state.gateway.sessions.list();
        let realm = state.gateway.realm();
        Ok(realm
            .users
            .iter()
            .map(|(name, user)| {
                let clients = sessions
                    .iter()
                    .filter(|session| session.login.user == *name)
                    .count();
                vec![
                    name.as_str().into(),
                    or_null(user.team.as_ref()),
                    yes(user.admin),
                    clients.into(),
                ]
            })
            .collect())
    }
}
