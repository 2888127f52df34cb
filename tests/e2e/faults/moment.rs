//! Where in the protocol a session is when something breaks.

use crate::stage::{Blocked, Stage};
use crate::support::frames::Frames;
use crate::support::wire::Wire;

/// The relations that the moments are about.
pub(crate) const SCHEMA: &str = "CREATE TABLE t (a int); INSERT INTO t VALUES (1);
     CREATE TABLE locked (a int); INSERT INTO locked VALUES (1);
     CREATE TABLE copied (a int)";

/// More rows than all buffers on the way hold.
const ENDLESS: &str = "SELECT generate_series(1, 100000000), repeat('x', 1000)";

/// A moment of a session's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// It has asked and was answered.
    Idle,
    InTransaction,
    InFailedTransaction,
    /// A simple query waits.
    BeforeRows,
    /// An aggregate, whose answer would be kept, waits.
    BeforeKeptRows,
    /// An extended query waits.
    BeforeExtendedRows,
    /// Rows come, and the client does not read them.
    WithinRows,
    /// A portal was read in part.
    PortalSuspended,
    CopyIn,
    /// In the extended protocol.
    CopyInExtended,
    CopyOut,
    /// A batch was answered up to a Flush; its Sync is still to come.
    BeforeSync,
    /// The first of several batches that were sent together is answered, the second one waits.
    BetweenSyncs,
    /// It keeps its connection for a temporary table.
    Pinned,
}

impl Moment {
    pub(crate) const ALL: [Self; 14] = [
        Self::Idle,
        Self::InTransaction,
        Self::InFailedTransaction,
        Self::BeforeRows,
        Self::BeforeKeptRows,
        Self::BeforeExtendedRows,
        Self::WithinRows,
        Self::PortalSuspended,
        Self::CopyIn,
        Self::CopyInExtended,
        Self::CopyOut,
        Self::BeforeSync,
        Self::BetweenSyncs,
        Self::Pinned,
    ];

    /// Whether the session has a connection to the backend at this moment.
    pub(crate) fn holds_a_connection(self) -> bool {
        self != Self::Idle
    }

    /// Whether the session is in the middle of rows.
    pub(crate) fn rows_come(self) -> bool {
        matches!(self, Self::WithinRows | Self::CopyOut)
    }

    /// What makes the queries wait that have to.
    pub(crate) fn lock(stage: &Stage) -> Blocked {
        stage.block("locked")
    }

    /// Brings a session there, while [`Self::lock`] holds.
    pub(crate) fn enter(self, wire: &mut Wire, stage: &Stage) {
        let batch = |sql: &str| Frames::new().unnamed(sql);
        let blocked = |wire: &mut Wire, frames: &Frames| {
            wire.send(frames);
            stage.await_blocked(1);
        };
        match self {
            Self::Idle => {
                wire.run("SELECT a FROM t");
            }
            Self::InTransaction => {
                wire.run("BEGIN");
                wire.run("SELECT a FROM t");
            }
            Self::InFailedTransaction => {
                wire.run("BEGIN");
                assert_eq!(wire.query("SELECT a FROM nowhere").status(), 'E');
            }
            Self::BeforeRows => blocked(wire, &Frames::new().query("SELECT a FROM locked")),
            Self::BeforeKeptRows => blocked(wire, &Frames::new().query("SELECT count(*) FROM locked")),
            Self::BeforeExtendedRows => blocked(wire, &batch("SELECT a FROM locked").sync()),
            Self::WithinRows => {
                wire.send(&Frames::new().query(ENDLESS));
                wire.until(b'D');
                stage.await_activity("wait_event = 'ClientWrite'", 1);
            }
            Self::PortalSuspended => {
                wire.run("BEGIN");
                wire.ask(
                    &Frames::new()
                        .parse("", "SELECT generate_series(1, 10)", &[])
                        .bind("p", "", &[], &[], &[])
                        .execute("p", 2)
                        .sync(),
                );
            }
            Self::CopyIn => {
                wire.send(&Frames::new().query("COPY copied FROM STDIN"));
                wire.until(b'G');
                wire.send(&Frames::new().copy_data(b"1\n2\n"));
            }
            Self::CopyInExtended => {
                wire.send(&batch("COPY copied FROM STDIN").flush());
                wire.until(b'G');
                wire.send(&Frames::new().copy_data(b"1\n2\n"));
            }
            Self::CopyOut => {
                wire.send(&Frames::new().query(&format!("COPY ({ENDLESS}) TO STDOUT")));
                wire.until(b'd');
                stage.await_activity("wait_event = 'ClientWrite'", 1);
            }
            Self::BeforeSync => {
                wire.send(&batch("SELECT a FROM t").flush());
                wire.until(b'C');
            }
            Self::BetweenSyncs => {
                let frames = batch("SELECT a FROM t")
                    .sync()
                    .unnamed("SELECT a FROM locked")
                    .sync()
                    .unnamed("SELECT a FROM t")
                    .sync();
                wire.send(&frames);
                assert_eq!(wire.ready().value(), "1");
                stage.await_blocked(1);
            }
            Self::Pinned => {
                wire.run("CREATE TEMPORARY TABLE own (a int)");
            }
        }
    }
}
