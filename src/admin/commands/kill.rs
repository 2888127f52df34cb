//! `KILL`.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows, usage};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;

use super::refused;

const COLUMNS: Columns = columns! {
    "id": Int8 = "The client.",
    "user": Text = "Whom it logged in as.",
    "state": Text = "What it was doing.",
};

/// How long the backend may take to be told, when the client has no team that says it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ends a client's session.
pub(crate) struct Kill;

impl AdminCommand for Kill {
    fn name(&self) -> &'static str {
        "KILL"
    }

    fn arguments(&self) -> &'static str {
        "client"
    }

    fn help(&self) -> &'static str {
        "Ends the session of the client with that id in SHOW CLIENTS, with SQLSTATE 57P01; what it runs is cancelled."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, arguments: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        if arguments.is_empty() {
            return Err(ConsoleError::ArgumentMissing {
                name: self.name(),
                usage: usage(self),
            });
        }
        let id: u64 = arguments
            .written()
            .parse()
            .map_err(|_| refused(self, arguments))?;
        let sessions = state.gateway.sessions.list();
        let session = sessions
            .iter()
            .find(|session| session.id.0 == id)
            .ok_or(ConsoleError::NoClient { id })?;
        let realm = state.gateway.realm();
        let patience = session
            .login
            .team
            .as_ref()
            .and_then(|team| realm.teams.get(team))
            .map_or(PATIENCE, |team| team.backend.cancel_timeout());
        let row = vec![
            id.into(),
            session.login.user.as_str().into(),
            session.activity().as_str().into(),
        ];
        let session = Arc::clone(session);
        tracing::info!(session = id, by = state.user.as_str(), "killed from the console");
        // its query is cancelled over a connection of its own, which may take a while
        tokio::spawn(async move { session.kill(patience).await });
        Ok(vec![row])
    }
}
