//! The commands, a file each; the list with all of them is [`COMMANDS`](super::COMMANDS).

mod invalidate;
mod kill;
mod pause;
mod reload;
mod show_cache;
mod show_clients;
mod show_config;
mod show_databases;
mod show_endpoints;
mod show_help;
mod show_lists;
mod show_pins;
mod show_pools;
mod show_servers;
mod show_stats;
mod show_teams;
mod show_users;
mod show_version;

pub(super) use invalidate::Invalidate;
pub(super) use kill::Kill;
pub(super) use pause::{Disconnect, Pause, Reconnect, Resume};
pub(super) use reload::Reload;
pub(super) use show_cache::ShowCache;
pub(super) use show_clients::ShowClients;
pub(super) use show_config::ShowConfig;
pub(super) use show_databases::ShowDatabases;
pub(super) use show_endpoints::ShowEndpoints;
pub(super) use show_help::ShowHelp;
pub(super) use show_lists::ShowLists;
pub(super) use show_pins::ShowPins;
pub(super) use show_pools::ShowPools;
pub(super) use show_servers::ShowServers;
pub(super) use show_stats::ShowStats;
pub(super) use show_teams::ShowTeams;
pub(super) use show_users::ShowUsers;
pub(super) use show_version::ShowVersion;

use super::command::{AdminCommand, usage};
use super::error::ConsoleError;
use super::words::Arguments;
use crate::pipeline::{Backend, Realm, SessionCard};
use crate::wire::Value;

/// `yes` or `no`.
fn yes(is: bool) -> Value {
    if is { "yes".into() } else { "no".into() }
}

/// A name that may be missing, as NULL.
fn or_null(name: Option<impl ToString>) -> Value {
    name.map_or(Value::Null, |name| Value::Text(name.to_string()))
}

/// A number that may be missing, as NULL.
fn number_or_null(number: Option<impl Into<u64>>) -> Value {
    number.map_or(Value::Null, |number| Value::from(number.into()))
}

/// Whether the session's queries go to `backend`.
fn serves(realm: &Realm, session: &SessionCard, backend: &Backend) -> bool {
    let team = session.login.team.as_ref().and_then(|team| realm.teams.get(team));
    team.is_some_and(|team| team.backend.name == backend.name)
}

/// The argument is not what the command takes.
fn refused(command: &dyn AdminCommand, arguments: &Arguments<'_>) -> ConsoleError {
    ConsoleError::Arguments {
        name: command.name(),
        given: arguments.written().to_owned(),
        usage: usage(command),
    }
}
