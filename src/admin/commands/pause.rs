//! What keeps clients from a backend, or makes its connections new.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;
use crate::pipeline::Backend;

use super::kill::end;
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
            backend.pause();
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
            backend.resume();
        }
        Ok(rows(state, &backends))
    }
}

/// Makes connections new as they become free.
pub(crate) struct Reconnect;

/// Makes connections new now.
pub(crate) struct Disconnect;

impl AdminCommand for Reconnect {
    fn name(&self) -> &'static str {
        "RECONNECT"
    }

    fn arguments(&self) -> &'static str {
        "[backend]"
    }

    fn help(&self) -> &'static str {
        "Closes every connection to the backend, or to all, that nobody uses, and the others when they are given back: after a \
         change of addresses or roles, or behind a load balancer. Nobody notices."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, arguments: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let backends = named(self, state, arguments)?;
        for backend in &backends {
            backend.reconnect();
        }
        Ok(rows(state, &backends))
    }
}

impl AdminCommand for Disconnect {
    fn name(&self) -> &'static str {
        "DISCONNECT"
    }

    fn arguments(&self) -> &'static str {
        "[backend]"
    }

    fn help(&self) -> &'static str {
        "As RECONNECT, and the sessions that have a connection end now, with SQLSTATE 57P01. Other sessions stay and get new \
         connections."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, arguments: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let backends = named(self, state, arguments)?;
        let realm = state.gateway.realm();
        for backend in &backends {
            backend.reconnect();
            let servers = state.gateway.servers.list();
            let using: BTreeSet<u64> = servers
                .iter()
                .filter(|server| server.key.backend == backend.name)
                .filter_map(|server| server.activity().1)
                .collect();
            let sessions = state.gateway.sessions.list().into_iter();
            end(
                sessions.filter(|session| using.contains(&session.id.0)).collect(),
                &realm,
            );
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
            let active = backend.in_use(state.now.steady);
            vec![backend.name.as_str().into(), yes(backend.paused()), active.into()]
        })
        .collect()
}
