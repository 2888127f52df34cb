//! `SHOW LISTS`.

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;
use crate::backend::ServerActivity;
use crate::pipeline::Activity;

const COLUMNS: Columns = columns! {
    "list": Text = "What is counted.",
    "items": Int8 = "How many there are.",
};

/// Counts what the other commands list.
pub(crate) struct ShowLists;

impl AdminCommand for ShowLists {
    fn name(&self) -> &'static str {
        "SHOW LISTS"
    }

    fn help(&self) -> &'static str {
        "Counts what the other commands list."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, _: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let realm = state.gateway.realm();
        let sessions = state.gateway.sessions.list();
        let servers = state.gateway.servers.list();
        let clients = |activity| {
            let doing = sessions.iter().filter(|session| session.activity() == activity);
            doing.count()
        };
        let used = servers
            .iter()
            .filter(|server| server.activity().0 == ServerActivity::Active)
            .count();
        let lists = [
            ("backends", realm.backends.len()),
            ("databases", realm.databases.len()),
            ("teams", realm.teams.len()),
            ("users", realm.users.len()),
            ("idle_clients", clients(Activity::Idle)),
            (
                "idle_in_transaction_clients",
                clients(Activity::IdleInTransaction),
            ),
            ("waiting_clients", clients(Activity::Waiting)),
            ("active_clients", clients(Activity::Active)),
            ("used_servers", used),
            ("free_servers", servers.len().saturating_sub(used)),
            ("tags", state.gateway.tags.len()),
        ];
        Ok(lists
            .into_iter()
            .map(|(list, items)| vec![list.into(), items.into()])
            .collect())
    }
}
