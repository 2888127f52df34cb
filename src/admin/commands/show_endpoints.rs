//! `SHOW ENDPOINTS`.

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::moment::milliseconds;
use crate::admin::words::Arguments;

use super::{number_or_null, or_null};

const COLUMNS: Columns = columns! {
    "backend": Text = "The backend.",
    "role": Text = "`primary` or `reader`.",
    "address": Text = "Where the server is; of a primary with `fallbacks` the one that is used.",
    "state": Text = "`up`, `down`, or `unknown` before it was asked; a backend with one server is not asked.",
    "in_use": Int8 = "Connections that sessions have there.",
    "lag_ms": Int8 = "How far a reader is behind the primary, to within `health_interval`; NULL when it does not tell.",
    "error": Text = "Why it did not answer the last time; NULL when it did.",
};

/// Lists the servers.
pub(crate) struct ShowEndpoints;

impl AdminCommand for ShowEndpoints {
    fn name(&self) -> &'static str {
        "SHOW ENDPOINTS"
    }

    fn help(&self) -> &'static str {
        "One row for each server of each backend: whether it answers, and how far behind it is."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, _: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let realm = state.gateway.realm();
        let mut rows = Rows::new();
        for backend in realm.backends.values() {
            for server in backend.endpoints.view(state.now.steady) {
                let role = if server.reader { "reader" } else { "primary" };
                rows.push(vec![
                    backend.name.as_str().into(),
                    role.into(),
                    server.address.into(),
                    server.state.as_str().into(),
                    server.in_use.into(),
                    number_or_null(server.lag.map(milliseconds)),
                    or_null(server.error),
                ]);
            }
        }
        Ok(rows)
    }
}
