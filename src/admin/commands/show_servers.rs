//! `SHOW SERVERS`.

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;

use super::{number_or_null, or_null};

const COLUMNS: Columns = columns! {
    "type": Text = "`S`, a connection to a server.",
    "user": Text = "The role that it logged in as.",
    "database": Text = "The database.",
    "state": Text = "`active` while a client has it, else `idle`.",
    "addr": Text = "The backend's address; NULL when the configuration no longer has that backend.",
    "connect_time": Text = "When it was made.",
    "id": Int8 = "Its number.",
    "link": Int8 = "The client that has it, `id` of SHOW CLIENTS; NULL when none has.",
    "remote_pid": Int8 = "The process that serves it at the backend.",
    "backend": Text = "The backend.",
};

/// Lists the backend connections.
pub(crate) struct ShowServers;

impl AdminCommand for ShowServers {
    fn name(&self) -> &'static str {
        "SHOW SERVERS"
    }

    fn help(&self) -> &'static str {
        "One row for each connection to a backend, oldest first. Those that read the catalog are not among them."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, _: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let realm = state.gateway.realm();
        let servers = state.gateway.servers.list();
        Ok(servers
            .iter()
            .map(|server| {
                let (activity, session) = server.activity();
                let backend = realm.config.backends.get(&server.key.backend);
                vec![
                    "S".into(),
                    (*server.key.user).into(),
                    server.key.database.as_str().into(),
                    activity.as_str().into(),
                    or_null(backend.map(|backend| &backend.address)),
                    state.now.time_of(server.opened).into(),
                    server.id.into(),
                    number_or_null(session),
                    u64::from(server.pid).into(),
                    server.key.backend.as_str().into(),
                ]
            })
            .collect())
    }
}
