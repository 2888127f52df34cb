//! `SHOW DATABASES`.

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;

use super::yes;
use crate::pipeline::Database;
use crate::wire::Value;

const COLUMNS: Columns = columns! {
    "name": Text = "The database.",
    "backend": Text = "The backend that has it.",
    "kind": Text = "What the backend is: `postgres` or `redshift`.",
    "address": Text = "Where the backend is.",
    "pool_mode": Text = "`transaction`: a client has a connection for as long as its transaction, or its pin, lasts.",
    "max_connections": Int8 = "Connections that the backend may have, to all its databases together.",
    "current_connections": Int8 = "Connections to this database.",
    "paused": Text = "`yes` while PAUSE is in force.",
    "catalog": Text = "`current`, `reading`, or why the definitions cannot be read; without them no answer is kept.",
    "relations": Int8 = "Relations that are known; NULL before they were read.",
};

/// Lists the databases.
pub(crate) struct ShowDatabases;

impl AdminCommand for ShowDatabases {
    fn name(&self) -> &'static str {
        "SHOW DATABASES"
    }

    fn help(&self) -> &'static str {
        "One row for each database that clients may name: where it is, and whether its definitions are known."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, _: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let realm = state.gateway.realm();
        let servers = state.gateway.servers.list();
        Ok(realm
            .databases
            .iter()
            .filter_map(|((backend, name), database)| {
                let settings = realm.config.backends.get(backend)?;
                let connections = servers
                    .iter()
                    .filter(|server| server.key.backend == *backend && server.key.database == *name)
                    .count();
                let paused = realm
                    .backends
                    .get(backend)
                    .is_some_and(|backend| backend.paused());
                let relations = database.watch.latest().map(|catalog| catalog.len());
                Some(vec![
                    name.as_str().into(),
                    backend.as_str().into(),
                    settings.kind.as_str().into(),
                    settings.address.to_string().into(),
                    "transaction".into(),
                    u64::from(settings.max_connections).into(),
                    connections.into(),
                    yes(paused),
                    catalog(database).into(),
                    relations.map_or(Value::Null, Value::from),
                ])
            })
            .collect())
    }
}

fn catalog(database: &Database) -> String {
    match (database.watch.last_error(), database.watch.current()) {
        (Some(error), _) => error.with_causes(),
        (None, Some(_)) => "current".to_owned(),
        (None, None) => "reading".to_owned(),
    }
}
