//! What a program writes to its standard error, as it comes.

use std::io::{BufRead as _, BufReader};
use std::process::ChildStderr;
use std::sync::{Condvar, Mutex};
use std::time::Instant;

use serde_json::Value;

use super::wait::PATIENCE;

/// The lines that a program wrote to its standard error.
#[derive(Debug, Default)]
pub(super) struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Log {
    /// Takes lines until the end of `messages`.
    pub(super) fn follow(&self, messages: ChildStderr) {
        for line in BufReader::new(messages).lines() {
            let Ok(line) = line else { break };
            self.lines.lock().expect("the log").0.push(line);
            self.more.notify_all();
        }
        self.lines.lock().expect("the log").1 = true;
        self.more.notify_all();
    }

    /// Every line so far.
    pub(super) fn all(&self) -> Vec<String> {
        self.lines.lock().expect("the log").0.clone()
    }

    /// Waits for a line that `found` makes something of; panics when there is none in time.
    pub(super) fn wait<T>(&self, what: &str, found: impl Fn(&Value) -> Option<T>) -> T {
        self.find(found)
            .unwrap_or_else(|| panic!("no line in the log with {what}:\n{}", self.all().join("\n")))
    }

    /// Waits for a line that `found` makes something of; `None` when the log ends, or when there is none in time.
    pub(super) fn find<T>(&self, found: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut guard = self.lines.lock().expect("the log");
        let mut seen = 0;
        loop {
            while let Some(line) = guard.0.get(seen) {
                if let Some(value) = serde_json::from_str(line).ok().as_ref().and_then(&found) {
                    return Some(value);
                }
                seen += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if guard.1 || left.is_zero() {
                return None;
            }
            guard = self.more.wait_timeout(guard, left).expect("the log").0;
        }
    }
}
