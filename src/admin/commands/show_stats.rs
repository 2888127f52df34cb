//! `SHOW STATS`.

use std::time::Duration;

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;

const COLUMNS: Columns = columns! {
    "team": Text = "The team.",
    "total_query_count": Int8 = "Requests since the start, answers from memory among them.",
    "total_sent": Int8 = "Bytes of answers.",
    "total_query_time": Int8 = "Time that the backend worked for them, in microseconds.",
    "total_wait_time": Int8 = "Time that they waited for a place of the team, in microseconds.",
    "avg_query_count": Int8 = "Requests per second, on the average since the start.",
    "avg_sent": Int8 = "Bytes of answers per second, on the average since the start.",
    "avg_query_time": Int8 = "Time that the backend worked for one request, on the average, in microseconds.",
    "avg_wait_time": Int8 = "Time that one request waited, on the average, in microseconds.",
    "total_rows": Int8 = "Rows of answers.",
    "total_saved_time": Int8 = "Time that the backend did not have to work, in microseconds.",
};

/// Counts what was done.
pub(crate) struct ShowStats;

impl AdminCommand for ShowStats {
    fn name(&self) -> &'static str {
        "SHOW STATS"
    }

    fn help(&self) -> &'static str {
        "One row for each team: what was done for it since the start, in PgBouncer's words where it has them."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, _: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let realm = state.gateway.realm();
        let up = state.now.steady.saturating_duration_since(state.gateway.started);
        let seconds = up.as_secs().max(1);
        Ok(realm
            .teams
            .values()
            .map(|team| {
                let totals = team.metrics.totals();
                let each = |time: Duration| micros(time) / totals.requests.max(1);
                vec![
                    team.name.as_str().into(),
                    totals.requests.into(),
                    totals.bytes.into(),
                    micros(totals.backend_time).into(),
                    micros(totals.queue_time).into(),
                    (totals.requests / seconds).into(),
                    (totals.bytes / seconds).into(),
                    each(totals.backend_time).into(),
                    each(totals.queue_time).into(),
                    totals.rows.into(),
                    micros(totals.saved_time).into(),
                ]
            })
            .collect())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
