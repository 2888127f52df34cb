//! What a reload changed, and what of it waits for a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::sections::Config;
use super::summary::Row;

/// One setting, or one whole optional section, that differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The setting or section, e.g. `team.growth.quota.burst` or `team.growth`.
    pub path: String,
    /// How it changed, with secrets masked, e.g. `50 -> 60`, `added`, `removed`.
    pub how: String,
    /// Whether it is applied only by a restart.
    pub restart: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let restart = if self.restart { " (needs a restart)" } else { "" };
        write!(f, "{}: {}{restart}", self.path, self.how)
    }
}

impl Config {
    /// What is different in `new`, one line per setting, sorted by path. Of secrets it says only that they changed.
    pub fn diff(&self, new: &Self) -> Vec<String> {
        self.changes(new).iter().map(ToString::to_string).collect()
    }

    /// What is different in `new`, sorted by path.
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let (old_rows, new_rows) = (self.rows(), new.rows());
        let (old, new) = (by_path(&old_rows), by_path(&new_rows));
        let (old_sections, new_sections) = (sections(&old_rows), sections(&new_rows));

        let mut changes: BTreeMap<&str, Change> = BTreeMap::new();
        let mut note = |path, how: String, restart| {
            let change = changes.entry(path).or_insert_with(|| Change {
                path: path.to_owned(),
                how,
                restart,
            });
            change.restart |= restart;
        };
        for path in old.keys().chain(new.keys()) {
            match (old.get(path), new.get(path)) {
                (Some(old), Some(new)) if old.value != new.value => {
                    note(*path, format!("{} -> {}", old.value, new.value), new.restart);
                }
                (Some(old), Some(new)) if old.digest != new.digest => {
                    note(*path, "changed".to_owned(), new.restart);
                }
                (Some(_), Some(_)) | (None, None) => {}
                (Some(row), None) => {
                    note(outermost(row, &new_sections), "removed".to_owned(), row.restart);
                }
                (None, Some(row)) => note(outermost(row, &old_sections), "added".to_owned(), row.restart),
            }
        }
        changes.into_values().collect()
    }
}

fn by_path(rows: &[Row]) -> BTreeMap<&str, &Row> {
    // that a section is not there is told by the rows of the configuration where it is
    rows.iter()
        .filter(|row| !row.stands_for_section)
        .map(|row| (row.path.as_str(), row))
        .collect()
}

fn sections(rows: &[Row]) -> BTreeSet<&str> {
    rows.iter()
        .flat_map(|row| &row.within)
        .map(String::as_str)
        .collect()
}

/// The outermost section around `row` that the other configuration lacks, else the row itself.
fn outermost<'r>(row: &'r Row, others: &BTreeSet<&str>) -> &'r str {
    row.within
        .iter()
        .find(|section| !others.contains(section.as_str()))
        .unwrap_or(&row.path)
}
