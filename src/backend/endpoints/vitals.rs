//! What a server says of itself when it is asked how it does.

use super::replay::Lsn;
use crate::backend::{BackendError, Connection};
use crate::config::BackendKind;

/// Cheap, and needs no rights. `pg_current_wal_insert_lsn` is ahead of every commit that a client has heard of, also with
/// `synchronous_commit = off`.
const POSTGRES: &str = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() \
     THEN 'reader ' || coalesce(pg_catalog.pg_last_wal_replay_lsn()::pg_catalog.text, '') \
     ELSE 'primary ' || pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text END";

/// Redshift has none of that.
const REDSHIFT: &str = "SELECT 'unknown'";

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows another server.
    Reader,
    /// It does not say.
    Unknown,
}

/// What it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// What it is.
    pub role: Role,
    /// How far it has written, or followed, where it says so.
    pub lsn: Option<Lsn>,
}

impl Vitals {
    fn of(answer: &str) -> Self {
        let (role, lsn) = answer.split_once(' ').unwrap_or((answer, ""));
        Self {
            role: match role {
                "primary" => Role::Primary,
                "reader" => Role::Reader,
                _ => Role::Unknown,
            },
            lsn: lsn.parse().ok(),
        }
    }
}

/// Asks the server at the other end of `connection`.
///
/// # Errors
///
/// It does not answer.
pub async fn ask(connection: &mut Connection, kind: BackendKind) -> Result<Vitals, BackendError> {
    let sql = match kind {
        BackendKind::Postgres => POSTGRES,
        BackendKind::Redshift => REDSHIFT,
    };
    let answer = connection.ask(sql).await?;
    Ok(Vitals::of(&answer.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        for (answer, role, lsn) in [
            ("primary 0/1A", Role::Primary, Some(Lsn(26))),
            ("reader 1/0", Role::Reader, Some(Lsn(1 << 32))),
            ("reader ", Role::Reader, None),
            ("unknown", Role::Unknown, None),
            ("", Role::Unknown, None),
        ] {
            assert_eq!(Vitals::of(answer), Vitals { role, lsn }, "{answer}");
        }
    }
}
