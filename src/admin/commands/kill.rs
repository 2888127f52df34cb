//! `KILL`.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows, usage};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;
use crate::pipeline::{Realm, SessionCard};
use crate::types::UserName;

use super::{refused, serves};

const COLUMNS: Columns = columns! {
    "id": Int8 = "The client.",
    "user": Text = "Whom it logged in as.",
    "state": Text = "What it was doing.",
};

/// How long the backend may take to be told, when the client has no team that says it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ends clients' sessions.
pub(crate) struct Kill;

impl AdminCommand for Kill {
    fn name(&self) -> &'static str {
        "KILL"
    }

    fn arguments(&self) -> &'static str {
        "client | USER name | backend"
    }

    fn help(&self) -> &'static str {
        "Ends sessions with SQLSTATE 57P01, and cancels what they run: that of the client with that id in SHOW CLIENTS, those \
         of a user, or those of all teams of a backend, which is paused first, as by PAUSE, until RESUME."
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
        let realm = state.gateway.realm();
        let sessions = state.gateway.sessions.list();
        if let Ok(id) = arguments.written().parse::<u64>() {
            let found: Vec<_> = sessions
                .into_iter()
                .filter(|session| session.id.0 == id)
                .collect();
            if found.is_empty() {
                return Err(ConsoleError::NoClient { id });
            }
            return Ok(end(found, &realm));
        }
        if let Some(name) = arguments.behind("USER") {
            let name = name.name().ok_or_else(|| refused(self, arguments))?;
            let user = UserName::new(name.as_str());
            let found: Vec<_> = sessions
                .into_iter()
                .filter(|session| session.login.user == user)
                .collect();
            // one that a reload removed may still have sessions
            if found.is_empty() && !realm.users.contains_key(&user) {
                return Err(ConsoleError::NoUser { name });
            }
            return Ok(end(found, &realm));
        }
        let name = arguments.name().ok_or_else(|| refused(self, arguments))?;
        let Some(backend) = realm.backends.get(name.as_str()) else {
            return Err(ConsoleError::NoBackend {
                name,
                known: realm.backends.keys().map(ToString::to_string).collect(),
            });
        };
        backend.pause();
        backend.reconnect();
        let found = sessions
            .into_iter()
            .filter(|session| serves(&realm, session, backend));
        Ok(end(found.collect(), &realm))
    }
}

/// Ends `sessions`, and tells what they were doing.
pub(super) fn end(sessions: Vec<Arc<SessionCard>>, realm: &Realm) -> Rows {
    let mut rows = Vec::with_capacity(sessions.len());
    for session in sessions {
        rows.push(vec![
            session.id.0.into(),
            session.login.user.as_str().into(),
            session.activity().as_str().into(),
        ]);
        let team = session.login.team.as_ref().and_then(|team| realm.teams.get(team));
        let patience = team.map_or(PATIENCE, |team| team.backend.cancel_timeout());
        // its query is cancelled over a connection of its own, which may take a while
        tokio::spawn(async move { session.kill(patience).await });
    }
    rows
}
