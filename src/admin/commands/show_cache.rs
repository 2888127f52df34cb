//! `SHOW CACHE`.

use crate::admin::columns::{Columns, columns};
use crate::admin::command::{AdminCommand, ConsoleState, Rows};
use crate::admin::error::ConsoleError;
use crate::admin::words::Arguments;
use crate::wire::Value;

const COLUMNS: Columns = columns! {
    "name": Text = "What is counted.",
    "value": Float8 = "How much of it.",
    "unit": Text = "In what unit.",
    "description": Text = "What it says.",
};

/// Tells what the cache holds and did.
pub(crate) struct ShowCache;

impl AdminCommand for ShowCache {
    fn name(&self) -> &'static str {
        "SHOW CACHE"
    }

    fn help(&self) -> &'static str {
        "What the cache holds now, and what it did since the start, one number a row."
    }

    fn columns(&self) -> Columns {
        COLUMNS
    }

    fn run(&self, state: &ConsoleState<'_>, _: &Arguments<'_>) -> Result<Rows, ConsoleError> {
        let cache = state.gateway.cache.stats();
        let served = cache.hits + cache.follows;
        let asked = served + cache.misses + cache.bypasses;
        let share = if asked == 0 {
            0.0
        } else {
            number(served) * 100.0 / number(asked)
        };
        let rows = [
            (
                "saved_seconds",
                cache.saved.as_secs_f64(),
                "s",
                "backend time that hits and follows did not spend",
            ),
            (
                "hit_ratio",
                round(share),
                "%",
                "lookups answered without a run of their own",
            ),
            ("hits", number(cache.hits), "", "lookups answered from memory"),
            (
                "follows",
                number(cache.follows),
                "",
                "lookups that shared a run under way",
            ),
            (
                "misses",
                number(cache.misses),
                "",
                "lookups that began a run to be kept",
            ),
            (
                "bypasses",
                number(cache.bypasses),
                "",
                "lookups that went past, e.g., during a write",
            ),
            ("entries", number(cache.entries), "", "answers held now"),
            ("bytes", number(cache.bytes), "B", "memory that they take"),
            ("memory", number(cache.memory), "B", "memory that they may take"),
            (
                "flights",
                number(cache.flights),
                "",
                "runs under way whose answers are to be kept",
            ),
            (
                "filling_bytes",
                number(cache.filling_bytes),
                "B",
                "what those runs have collected",
            ),
            (
                "stale",
                number(cache.stale),
                "",
                "entries found that a write had made stale",
            ),
            (
                "expired",
                number(cache.expired),
                "",
                "entries found that were too old",
            ),
            (
                "overtaken",
                number(cache.overtaken),
                "",
                "answers not kept, since a write began meanwhile",
            ),
            (
                "too_big",
                number(cache.too_big),
                "",
                "answers not kept for their size",
            ),
            (
                "abandoned",
                number(cache.abandoned),
                "",
                "runs that ended without an answer",
            ),
        ];
        Ok(rows
            .into_iter()
            .map(|(name, value, unit, description)| {
                vec![name.into(), Value::Float8(value), unit.into(), description.into()]
            })
            .collect())
    }
}

/// Counts are far below 2^53.
#[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

/// To hundredths.
fn round(share: f64) -> f64 {
    (share * 100.0).round() / 100.0
}
