//! `PAUSE` and `RESUME`.

use std::sync::Arc;

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;
use crate::pipeline::Backend;

use super::{refused, yes};

const COLUMNS: Columns = columns! {
    "backend": Text = "The backend.",
    "paused": Text = "`yes` while PAUSE is in force.",
    "in_use": Int8 = "Connections that clients have now; after PAUSE they end what they do.",
};

/// Keeps queries away from a backend.
pub(crate) struct Pause;

/// Lets them through again.
pub(crate) struct Resume;

impl AdminCommand for Pause {
    fn name(&self) -> &'static str {
        "PAUSE"
    }

    fn arguments(&self) -> &'static str {
        "[backend]"
    }

    fn help(&self) -> &'static str {
        "Gives no more connections to the backend, or to any, until RESUME: new requests wait, for checkout_timeout at \
         most; answers from memory go on. Returns at once: the backend is at rest when column in_use is 0, and clients \
         that are in a transaction or pinned go on with the connection that they have."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, arguments: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let backends = named(self, state, arguments)?;
        for backend in &backends {
            backend.pool.pause();
        }
        Ok(rows(state, &backends))
    }
}

impl AdminCommand for Resume {
    fn name(&self) -> &'static str {
        "RESUME"
    }

    fn arguments(&self) -> &'static str {
        "[backend]"
    }

    fn help(&self) -> &'static str {
        "Ends PAUSE, of the backend or of all."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, arguments: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let backends = named(self, state, arguments)?;
        for backend in &backends {
            backend.pool.resume();
        }
        Ok(rows(state, &backends))
    }
}

/// The backend that was named, or all.
fn named(
    command: &dyn AdminCommand,
    state: &ConsoleState<'_>,
    arguments: &Arguments<'_>,
) -> Result<Vec<Arc<Backend>>, ConsoleError> {
    let realm = state.gateway.realm();
    if arguments.is_empty() {
        return Ok(realm.backends.values().cloned().collect());
    }
    let name = arguments.name().ok_or_else(|| refused(command, arguments))?;
    match realm.backends.get(name.as_str()) {
        Some(backend) => Ok(vec![Arc::clone(backend)]),
        None => Err(ConsoleError::NoBackend {
            name,
            known: realm.backends.keys().map(ToString::to_string).collect(),
        }),
    }
}

fn rows(state: &ConsoleState<'_>, backends: &[Arc<Backend>]) -> Rows {
    backends
        .iter()
        .map(|backend| {
            let census = backend.pool.census(state.now.steady);
            let active: usize = census.keys.iter().map(|(_, key)| key.active).sum();
            vec![backend.name.as_str().into(), yes(census.paused), active.into()]
        })
        .collect()
}
