//! One test's own database and gateway, at a server that all tests of this binary share.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::gateway::{ANA, GROWTH, Gateway, Setup, add_roles};
use crate::support::wait::becomes;
use crate::support::wire::{Login, Wire};
use crate::support::{Postgres, SUPERUSER, SUPERUSER_PASSWORD};

static SERVER: LazyLock<Postgres> = LazyLock::new(|| {
    let server = Postgres::start_with(&[("max_connections", "400"), ("max_prepared_transactions", "4")]);
    add_roles(&server);
    server
});

static NEXT: AtomicU32 = AtomicU32::new(1);

/// The server that the tests share.
pub(crate) fn server() -> &'static Postgres {
    &SERVER
}

/// A database of one test, and the gateway before it.
pub(crate) struct Stage {
    pub(crate) gateway: Gateway,
    pub(crate) database: String,
}

impl Stage {
    /// An empty database.
    pub(crate) fn new() -> Self {
        Self::with("", &Setup::new())
    }

    /// A database in which `schema` was run, by the role `growth` that owns it.
    pub(crate) fn with(schema: &str, setup: &Setup) -> Self {
        let database = database(schema);
        let gateway = Gateway::start(server(), &[&database], setup);
        Self { gateway, database }
    }

    /// A session of ana, through the gateway.
    pub(crate) fn ana(&self) -> Wire {
        self.gateway.session(ANA)
    }

    /// A session of the role `growth`, past the gateway.
    pub(crate) fn direct(&self) -> Wire {
        direct(&self.database)
    }

    /// A session of the superuser, past the gateway.
    pub(crate) fn superuser(&self) -> Wire {
        Wire::login(
            server().address(),
            &Login::new(SUPERUSER, SUPERUSER_PASSWORD, &self.database),
        )
    }

    /// Locks `table`, past the gateway.
    pub(crate) fn block(&self, table: &str) -> Blocked {
        let mut wire = self.superuser();
        wire.run(&format!("BEGIN; LOCK TABLE {table}"));
        Blocked(wire)
    }

    /// The only process of the role `growth` that serves this database.
    pub(crate) fn process(&self) -> String {
        let sql =
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = 'growth'";
        self.superuser().value(sql)
    }

    /// The process at the server that runs the queries of `wire`. `mark` tells its query from everybody else's.
    pub(crate) fn process_of(wire: &mut Wire, mark: &str) -> String {
        wire.value(&format!(
            "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{mark} looks%'"
        ))
    }

    /// Waits until exactly `count` queries of this database wait for a lock.
    pub(crate) fn await_blocked(&self, count: usize) {
        self.await_activity("wait_event_type = 'Lock'", count);
    }

    /// Waits until exactly `count` sessions of this database at the server are as `condition` says.
    pub(crate) fn await_activity(&self, condition: &str, count: usize) {
        let mut wire = self.superuser();
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND {condition}"
        );
        becomes(&count.to_string(), || wire.value(&sql));
    }
}

/// A table that nobody can read as long as this lives: whoever asks waits.
pub(crate) struct Blocked(Wire);

impl Blocked {
    /// Lets them go on.
    pub(crate) fn release(mut self) {
        self.0.run("COMMIT");
    }
}

/// A session of the role `growth` in `database`, past every gateway.
pub(crate) fn direct(database: &str) -> Wire {
    Wire::login(server().address(), &Login::new(GROWTH.0, GROWTH.1, database))
}

/// Makes an empty database in `encoding`, of the role `growth`.
pub(crate) fn database_of(encoding: &str) -> String {
    let name = format!("stage{}", NEXT.fetch_add(1, Ordering::Relaxed));
    server().run(&format!(
        "CREATE DATABASE {name} OWNER {owner} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'",
        owner = GROWTH.0
    ));
    name
}

/// Makes a database in which `schema` was run, by the role `growth` that owns it.
pub(crate) fn database(schema: &str) -> String {
    let name = format!("stage{}", NEXT.fetch_add(1, Ordering::Relaxed));
    server().add_database(&name, GROWTH.0);
    if !schema.is_empty() {
        direct(&name).run(schema);
    }
    name
}
