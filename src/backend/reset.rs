//! What has to be done before a connection that a session used for itself can serve another one.

use crate::config::BackendKind;

/// What a session may have left at its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a set of what does not depend on each other"
)]
pub struct Remains {
    /// Settings that were not followed.
    pub settings: bool,
    /// Temporary tables.
    pub temporary_tables: bool,
    /// Prepared statements with a name.
    pub prepared_statements: bool,
    /// Channels that it listens to.
    pub channels: bool,
    /// Advisory locks of the session.
    pub advisory_locks: bool,
    /// Cursors that outlive their transaction.
    pub cursors: bool,
    /// Another role, or another session's authorization.
    pub role: bool,
    /// Something that nobody knows of.
    pub anything: bool,
}

impl Remains {
    /// Whatever can be left.
    pub const UNKNOWN: Self = Self {
        settings: true,
        temporary_tables: true,
        prepared_statements: true,
        channels: true,
        advisory_locks: true,
        cursors: true,
        role: true,
        anything: true,
    };

    /// This and what `other` says.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            settings: self.settings || other.settings,
            temporary_tables: self.temporary_tables || other.temporary_tables,
            prepared_statements: self.prepared_statements || other.prepared_statements,
            channels: self.channels || other.channels,
            advisory_locks: self.advisory_locks || other.advisory_locks,
            cursors: self.cursors || other.cursors,
            role: self.role || other.role,
            anything: self.anything || other.anything,
        }
    }

    /// What a session leaves that was pinned for `reason`, one of the words of the table in the guide. A word that is not
    /// known leaves whatever can be left.
    pub fn of_pin(reason: &str) -> Self {
        let nothing = Self::default();
        match reason {
            "prepared_statement" => Self {
                prepared_statements: true,
                ..nothing
            },
            "temporary_table" => Self {
                temporary_tables: true,
                ..nothing
            },
            "cursor" => Self {
                cursors: true,
                ..nothing
            },
            "listen" => Self {
                channels: true,
                ..nothing
            },
            "advisory_lock" => Self {
                advisory_locks: true,
                ..nothing
            },
            "role" => Self {
                role: true,
                ..nothing
            },
            // the role is a setting, too, that RESET ALL leaves
            "setting" => Self {
                settings: true,
                role: true,
                ..nothing
            },
            // nothing at the server; its connection is closed all the same
            "backend_pid" => nothing,
            _ => Self::UNKNOWN,
        }
    }
}

/// How a connection is made as new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reset {
    /// By these statements, each sent by itself, outside of a transaction. None, when nothing was left.
    Run(Vec<&'static str>),
    /// Not at all: it is closed.
    Close,
}

impl Reset {
    /// How to remove `remains` at a server of that `kind`.
    ///
    /// What cannot be told apart from what the gateway relies on, or has no statement that removes it for certain, closes.
    pub fn of(kind: BackendKind, remains: Remains) -> Self {
        match kind {
            BackendKind::Postgres => Self::postgres(remains),
            BackendKind::Redshift => Self::redshift(remains),
        }
    }

    /// In the order of PostgreSQL's own `DISCARD ALL`: the authorization first, which may be in the way of the others.
    fn postgres(remains: Remains) -> Self {
        let Remains {
            settings,
            temporary_tables,
            prepared_statements,
            channels,
            advisory_locks,
            cursors,
            role,
            anything,
        } = remains;
        if anything {
            return Self::Run(vec!["DISCARD ALL"]);
        }
        let mut run = Vec::new();
        let mut add = |needed: bool, statements: &[&'static str]| {
            if needed {
                run.extend_from_slice(statements);
            }
        };
        add(cursors, &["CLOSE ALL"]);
        // RESET ALL leaves the role as it is
        add(role, &["SET SESSION AUTHORIZATION DEFAULT", "RESET ROLE"]);
        add(settings || role, &["RESET ALL"]);
        add(prepared_statements, &["DEALLOCATE ALL"]);
        add(channels, &["UNLISTEN *"]);
        add(advisory_locks, &["SELECT pg_catalog.pg_advisory_unlock_all()"]);
        add(temporary_tables, &["DISCARD TEMP"]);
        // plans and sequences remember what is gone
        add(temporary_tables || role, &["DISCARD PLANS", "DISCARD SEQUENCES"]);
        Self::Run(run)
    }

    /// Redshift has no `DISCARD` and no `UNLISTEN`, its `DEALLOCATE` wants a name, and no statement drops the temporary
    /// tables of a session without their names. Cursors end with their transaction there.
    fn redshift(remains: Remains) -> Self {
        let Remains {
            settings,
            temporary_tables,
            prepared_statements,
            channels,
            advisory_locks,
            cursors: _,
            role,
            anything,
        } = remains;
        if anything || temporary_tables || prepared_statements || channels || advisory_locks {
            return Self::Close;
        }
        let mut run = Vec::new();
        if role {
            run.push("SET SESSION AUTHORIZATION DEFAULT");
        }
        if settings || role {
            run.push("RESET ALL");
        }
        Self::Run(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pin_is_undone_by_what_the_server_has() {
        let run = |statements: &[&'static str]| Reset::Run(statements.to_vec());
        for (reason, postgres, redshift) in [
            ("prepared_statement", run(&["DEALLOCATE ALL"]), Reset::Close),
            (
                "temporary_table",
                run(&["DISCARD TEMP", "DISCARD PLANS", "DISCARD SEQUENCES"]),
                Reset::Close,
            ),
            ("cursor", run(&["CLOSE ALL"]), run(&[])),
            ("listen", run(&["UNLISTEN *"]), Reset::Close),
            (
                "advisory_lock",
                run(&["SELECT pg_catalog.pg_advisory_unlock_all()"]),
                Reset::Close,
            ),
            (
                "role",
                run(&[
                    "SET SESSION AUTHORIZATION DEFAULT",
                    "RESET ROLE",
                    "RESET ALL",
                    "DISCARD PLANS",
                    "DISCARD SEQUENCES",
                ]),
                run(&["SET SESSION AUTHORIZATION DEFAULT", "RESET ALL"]),
            ),
            (
                "setting",
                run(&[
                    "SET SESSION AUTHORIZATION DEFAULT",
                    "RESET ROLE",
                    "RESET ALL",
                    "DISCARD PLANS",
                    "DISCARD SEQUENCES",
                ]),
                run(&["SET SESSION AUTHORIZATION DEFAULT", "RESET ALL"]),
            ),
            ("procedure", run(&["DISCARD ALL"]), Reset::Close),
            ("unparsed", run(&["DISCARD ALL"]), Reset::Close),
            ("a word of tomorrow", run(&["DISCARD ALL"]), Reset::Close),
        ] {
            let remains = Remains::of_pin(reason);
            assert_eq!(remains.and(Remains::default()), remains);
            assert_eq!(remains.and(Remains::UNKNOWN), Remains::UNKNOWN);
            assert_eq!(Reset::of(BackendKind::Postgres, remains), postgres, "{reason}");
            assert_eq!(Reset::of(BackendKind::Redshift, remains), redshift, "{reason}");
        }
    }

    #[test]
    fn redshift_is_never_sent_what_it_does_not_know() {
        for bits in 0..=u8::MAX {
            let bit = |place: u8| bits & (1 << place) != 0;
            let remains = Remains {
                settings: bit(0),
                temporary_tables: bit(1),
                prepared_statements: bit(2),
                channels: bit(3),
                advisory_locks: bit(4),
                cursors: bit(5),
                role: bit(6),
                anything: bit(7),
            };
            match Reset::of(BackendKind::Redshift, remains) {
                Reset::Close => {}
                Reset::Run(statements) => {
                    assert!(!bit(1) && !bit(2) && !bit(3) && !bit(4) && !bit(7), "{remains:?}");
                    let unknown = |sql: &&&str| {
                        ["DISCARD", "UNLISTEN", "DEALLOCATE"]
                            .iter()
                            .any(|word| sql.starts_with(word))
                    };
                    assert_eq!(statements.iter().find(unknown), None, "{remains:?}");
                }
            }
            assert_ne!(Reset::of(BackendKind::Postgres, remains), Reset::Close);
        }
    }
}
