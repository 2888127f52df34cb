//! The gateway's own settings: `SHOW tollgate.last`, `SHOW tollgate.cache`, `SET tollgate.cache = on | off`.

use super::error::ServeError;
use super::local::{Answer, Commands};
use super::session::Last;
use crate::error::ClientError;
use crate::sql::{Backslash, SettingChange, analyze};
use crate::wire::{Column, ColumnType, TransactionStatus, Value};

const LAST: &str = "tollgate.last";
const CACHE: &str = "tollgate.cache";

static LAST_COLUMNS: [Column; 6] = [
    Column::new("verdict", ColumnType::Text),
    Column::new("reason", ColumnType::Text),
    Column::new("age_ms", ColumnType::Int8),
    Column::new("fingerprint", ColumnType::Text),
    Column::new("backend_ms", ColumnType::Float8),
    Column::new("rows", ColumnType::Int8),
];

static CACHE_COLUMNS: [Column; 1] = [Column::new(CACHE, ColumnType::Text)];

/// The settings of one session.
pub(super) struct OwnSettings<'a> {
    /// `tollgate.cache`.
    pub(super) caching: bool,
    /// What the last request came to.
    pub(super) last: Option<&'a Last>,
    /// The transaction's status; in one that has failed nothing but its end is answered.
    pub(super) status: TransactionStatus,
}

fn change(text: &[u8]) -> Option<SettingChange> {
    match analyze(text, Backslash::Literal).as_slice() {
        [located] => located.statement.setting.clone(),
        _ => None,
    }
}

impl Commands for OwnSettings<'_> {
    fn status(&self) -> TransactionStatus {
        self.status
    }

    fn fail(&mut self) {
        if self.status == TransactionStatus::InTransaction {
            self.status = TransactionStatus::Failed;
        }
    }

    fn columns(&self, text: &[u8]) -> Result<Option<&'static [Column]>, Box<dyn ClientError>> {
        if self.status == TransactionStatus::Failed {
            return Err(Box::new(ServeError::FailedTransaction));
        }
        match change(text) {
            Some(SettingChange::Show { name }) if *name == *LAST => Ok(Some(&LAST_COLUMNS)),
            Some(SettingChange::Show { name }) if *name == *CACHE => Ok(Some(&CACHE_COLUMNS)),
            Some(SettingChange::Show { name }) => Err(Box::new(ServeError::Setting(name.to_string()))),
            Some(
                SettingChange::Set { .. }
                | SettingChange::SetConfig { .. }
                | SettingChange::SetLocal { .. }
                | SettingChange::Reset { .. }
                | SettingChange::ResetAll,
            )
            | None => Ok(None),
        }
    }

    fn run(&mut self, text: &[u8]) -> Result<Option<Answer>, Box<dyn ClientError>> {
        if self.status() == TransactionStatus::Failed {
            return Err(Box::new(ServeError::FailedTransaction));
        }
        let Some(change) = change(text) else {
            return Ok(None);
        };
        match change {
            SettingChange::Show { name } if *name == *LAST => {
                let rows = self.last.map(row).into_iter().collect();
                Ok(Some(Answer::rows(&LAST_COLUMNS, rows)))
            }
            SettingChange::Show { name } if *name == *CACHE => {
                let value = if self.caching { "on" } else { "off" };
                Ok(Some(Answer::rows(&CACHE_COLUMNS, vec![vec![value.into()]])))
            }
            SettingChange::Set { name, value } if *name == *CACHE => {
                self.caching = match &value {
                    None => true,
                    Some(value) => switch(value).ok_or_else(|| -> Box<dyn ClientError> {
                        Box::new(ServeError::Value {
                            name: name.to_string(),
                            value: value.trim_matches('\'').to_owned(),
                        })
                    })?,
                };
                Ok(Some(Answer::done("SET")))
            }
            SettingChange::Reset { name } if *name == *CACHE => {
                self.caching = true;
                Ok(Some(Answer::done("RESET")))
            }
            SettingChange::SetLocal { name } if *name == *CACHE => Err(Box::new(ServeError::Unsupported(
                "SET LOCAL of the gateway's own settings",
            ))),
            SettingChange::Show { name }
            | SettingChange::Set { name, .. }
            | SettingChange::SetConfig { name, .. }
            | SettingChange::SetLocal { name }
            | SettingChange::Reset { name } => Err(Box::new(ServeError::Setting(name.to_string()))),
            SettingChange::ResetAll => Ok(None),
        }
    }
}

/// As PostgreSQL reads a boolean setting.
fn switch(value: &str) -> Option<bool> {
    match value.trim().trim_matches('\'').to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

fn row(last: &Last) -> Vec<Value> {
    let age = last.age.map_or(Value::Null, |age| {
        Value::from(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    });
    vec![
        last.verdict.as_str().into(),
        last.reason.into(),
        age,
        last.fingerprint.to_string().into(),
        Value::Float8((last.backend_time.as_secs_f64() * 1e6).round() / 1e3),
        last.rows.into(),
    ]
}
