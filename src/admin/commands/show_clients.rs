//! `SHOW CLIENTS`.

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;

use super::{or_null, yes};

const COLUMNS: Columns = columns! {
    "type": Text = "`C`, a client.",
    "user": Text = "Whom it logged in as.",
    "database": Text = "The database it asked for; `tollgate` is the console.",
    "state": Text = "`idle`, `waiting`, `active` or `idle in transaction`.",
    "addr": Text = "Its IP address.",
    "port": Int8 = "Its port.",
    "connect_time": Text = "When it logged in.",
    "id": Int8 = "Its number, for KILL.",
    "link": Int8 = "The connection that it has, `id` of SHOW SERVERS; NULL when it has none.",
    "tls": Text = "`yes` when TLS protects it.",
    "application_name": Text = "What it calls itself.",
    "team": Text = "Its team; NULL for an administrator.",
    "queries": Int8 = "Queries so far.",
    "hits": Int8 = "Those of them that were answered from memory.",
    "pinned": Text = "Why it keeps its connection until it leaves; NULL when it does not.",
};

/// Lists the clients.
pub(crate) struct ShowClients;

impl AdminCommand for ShowClients {
    fn name(&self) -> &'static str {
        "SHOW CLIENTS"
    }

    fn help(&self) -> &'static str {
        "One row for each client that is logged in, oldest first: who it is, what it does, what it was answered."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, _: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let servers = state.gateway.servers.list();
        let link = |session: u64| {
            servers
                .iter()
                .find(|server| server.activity().1 == Some(session))
                .map(|server| server.id)
        };
        let sessions = state.gateway.sessions.list();
        Ok(sessions
            .iter()
            .map(|session| {
                let login = &session.login;
                let (queries, hits) = session.queries();
                vec![
                    "C".into(),
                    login.user.as_str().into(),
                    login.database.as_str().into(),
                    session.activity().as_str().into(),
                    login.address.to_string().into(),
                    u64::from(login.port).into(),
                    state.now.time_of(session.since).into(),
                    session.id.0.into(),
                    super::number_or_null(link(session.id.0)),
                    yes(login.tls),
                    login.application_name.as_str().into(),
                    or_null(login.team.as_ref()),
                    queries.into(),
                    hits.into(),
                    or_null(session.pinned()),
                ]
            })
            .collect())
    }
}
