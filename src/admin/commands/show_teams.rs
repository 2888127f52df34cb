//! `SHOW TEAMS`.

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::moment::milliseconds;
use crate::admin::words::Arguments;

use super::number_or_null;

const COLUMNS: Columns = columns! {
    "team": Text = "The team.",
    "backend": Text = "Where its queries go.",
    "clients": Int8 = "Clients of it that are logged in.",
    "running": Int8 = "Queries of it that run now.",
    "concurrent_queries": Int8 = "How many may; NULL is no limit.",
    "queued": Int8 = "Queries of it that wait for a place.",
    "queue_length": Int8 = "How many may; NULL is no limit.",
    "oldest_wait_ms": Int8 = "How long the first of them has waited.",
    "queue_wait_ms": Int8 = "How long one may; NULL is no limit.",
    "queries_per_minute": Int8 = "How many queries may begin in a minute; NULL is no limit.",
    "burst": Int8 = "How many of them at once; NULL is a minute's worth.",
    "query_time_ms": Int8 = "How long one query may run; NULL is no limit.",
    "admitted": Int8 = "Queries that were let through since the start.",
    "waited": Int8 = "Queries that had to wait since the start.",
    "refused_rate": Int8 = "Queries refused for `queries_per_minute` since the start.",
    "refused_queue_full": Int8 = "Queries refused for `queue_length` since the start.",
    "refused_queue_wait": Int8 = "Queries refused for `queue_wait` since the start.",
};

/// Lists the teams with their quotas.
pub(crate) struct ShowTeams;

impl AdminCommand for ShowTeams {
    fn name(&self) -> &'static str {
        "SHOW TEAMS"
    }

    fn help(&self) -> &'static str {
        "One row for each team: what it uses of its quota now, its limits, and what was refused. Answers from memory cost \
         nothing and are not counted here."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, _: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let sessions = state.gateway.sessions.list();
        let realm = state.gateway.realm();
        Ok(realm
            .teams
            .values()
            .map(|team| {
                let quota = team.quota.snapshot(state.now.steady);
                let limits = quota.limits;
                let clients = sessions
                    .iter()
                    .filter(|session| session.login.team.as_ref() == Some(&team.name))
                    .count();
                vec![
                    team.name.as_str().into(),
                    team.backend.name.as_str().into(),
                    clients.into(),
                    u64::from(quota.running).into(),
                    number_or_null(limits.concurrent_queries),
                    u64::from(quota.queued).into(),
                    number_or_null(limits.queue_length),
                    milliseconds(quota.oldest_wait).into(),
                    number_or_null(limits.queue_wait.map(milliseconds)),
                    number_or_null(limits.queries_per_minute),
                    number_or_null(limits.burst),
                    number_or_null(limits.query_time.map(milliseconds)),
                    quota.admitted_total.into(),
                    quota.queued_total.into(),
                    quota.refused_rate_total.into(),
                    quota.refused_queue_full_total.into(),
                    quota.refused_queue_wait_total.into(),
                ]
            })
            .collect())
    }
}
