//! What is known of a statement: facts, no syntax tree.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// What sort of statement it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatementKind {
    /// Reads only: `SELECT`, `VALUES`, `TABLE`, `WITH … SELECT`, `EXPLAIN` without `ANALYZE`, `SHOW` of a
    /// backend setting.
    Read,
    /// Changes rows: `INSERT`, `UPDATE`, `DELETE`, `MERGE`, `TRUNCATE`, `SELECT … INTO`, a writing CTE,
    /// `REFRESH MATERIALIZED VIEW`.
    Write,
    /// Changes definitions or privileges: `CREATE`, `ALTER`, `DROP`, `GRANT`, `REVOKE`, `COMMENT` …
    Ddl,
    /// `BEGIN`, `COMMIT`, `ROLLBACK`, `SAVEPOINT` …
    Transaction,
    /// `SET`, `RESET`, `SHOW`, of a name that Tollgate can follow.
    Setting,
    /// Uses what lives in one backend session: `PREPARE`, `LISTEN`, `DECLARE`, `DISCARD`, `SET ROLE` …
    Session,
    /// `COPY` in either direction, `UNLOAD`.
    Copy,
    /// The rest that is understood: `VACUUM`, `ANALYZE`, `LOCK`, `CHECKPOINT` …
    Utility,
    /// Not understood. It is forwarded as it is and treated as able to change anything.
    Unparsed,
}

/// A relation as it was written: folded as PostgreSQL folds, not yet resolved by a search path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelationName {
    /// The schema, when it was written.
    pub schema: Option<Arc<str>>,
    /// The relation's own name.
    pub name: Arc<str>,
}

impl RelationName {
    /// Whether the name says that the relation is temporary.
    pub fn is_temporary(&self) -> bool {
        self.name.starts_with('#')
            || self
                .schema
                .as_deref()
                .is_some_and(|schema| schema.starts_with("pg_temp"))
    }
}

impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A function as it was called, folded; the same shape as a relation's name.
pub type FunctionName = RelationName;

/// A statement's shape: equal for texts that differ only in literals, comments, white space and keyword case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u128);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What a statement does to the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionControl {
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`; also with `AND CHAIN`.
    Commit,
    /// `ROLLBACK`, `ABORT`; also with `AND CHAIN`.
    Rollback,
    /// `SAVEPOINT`, `RELEASE`, `ROLLBACK TO`.
    Savepoint,
    /// `SET TRANSACTION`, `SET SESSION CHARACTERISTICS`, and the two-phase forms, whose effect outlives the transaction
    /// or cannot be followed.
    Other,
}

/// What a statement does to a session setting.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SettingChange {
    /// `SET [SESSION] name = value`: `value` is the client's own text of the value list (so that it can be sent again
    /// as it was), `None` for `DEFAULT`.
    Set {
        /// Folded to lower case.
        name: Arc<str>,
        /// As written, e.g. `'UTC'`, `a, b`, `off`.
        value: Option<Arc<str>>,
    },
    /// `SELECT set_config('name', 'value', false)`.
    SetConfig {
        /// Folded to lower case.
        name: Arc<str>,
        /// The whole value, not as SQL text.
        value: Arc<str>,
    },
    /// `SET LOCAL`, `SELECT set_config('name', 'value', true)`: gone with the transaction.
    SetLocal {
        /// Folded to lower case.
        name: Arc<str>,
    },
    /// `RESET name`.
    Reset {
        /// Folded to lower case.
        name: Arc<str>,
    },
    /// `RESET ALL`.
    ResetAll,
    /// `SHOW name`; changes nothing.
    Show {
        /// Folded to lower case, e.g. `tollgate.last`.
        name: Arc<str>,
    },
}

/// Why a session must keep its backend connection from this statement on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PinReason {
    /// Creates a temporary table, view or sequence (also `SELECT … INTO TEMP`, `INTO #name`).
    TemporaryTable,
    /// SQL-level `PREPARE`.
    PreparedStatement,
    /// `DECLARE … WITH HOLD`.
    Cursor,
    /// `LISTEN`.
    Listen,
    /// A function that takes a session-level advisory lock.
    AdvisoryLock,
    /// `SET ROLE`, `SET SESSION AUTHORIZATION`.
    Role,
    /// `SET` of something that cannot be followed, `set_config(…)`, `SET SESSION CHARACTERISTICS`.
    Setting,
    /// A query that tells the process id of its connection, which may be used to end it.
    BackendPid,
    /// `LOAD`, `DO`, `CALL`: what it leaves behind is not known.
    Procedure,
    /// Text that was not understood.
    Unparsed,
}

/// What a statement that is about a process, by its number, does, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProcessUse {
    /// `SELECT pg_backend_pid()`.
    Number,
    /// `SELECT pg_cancel_backend(number)`, `CANCEL number`.
    Cancel,
    /// `SELECT pg_terminate_backend(number)`.
    Terminate,
}

/// What a statement does with what lives in one backend session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SessionUse {
    /// `PREPARE name`.
    Prepare(Arc<str>),
    /// `EXECUTE name`.
    Execute(Arc<str>),
    /// `DEALLOCATE name`; `None` for `ALL`.
    Deallocate(Option<Arc<str>>),
    /// `DECLARE name … WITH HOLD`: a cursor that outlives its transaction.
    DeclareHeld(Arc<str>),
    /// `CLOSE name`; `None` for `ALL`.
    CloseCursor(Option<Arc<str>>),
    /// `DECLARE` of a cursor that ends with its transaction, `FETCH`, `MOVE`, `SET LOCAL ROLE`, `DISCARD PLANS`,
    /// `DISCARD SEQUENCES`: nothing is left that another session could notice.
    Passing,
    /// `LISTEN channel`.
    Listen(Arc<str>),
    /// `UNLISTEN channel`; `None` for `*`.
    Unlisten(Option<Arc<str>>),
    /// `SET ROLE`.
    SetRole,
    /// `RESET ROLE`, `SET ROLE NONE`.
    ResetRole,
    /// `SET SESSION AUTHORIZATION`.
    SetAuthorization,
    /// `RESET SESSION AUTHORIZATION`, `SET SESSION AUTHORIZATION DEFAULT`; the role goes with it.
    ResetAuthorization,
    /// `DISCARD ALL`.
    DiscardAll,
    /// `DISCARD TEMP`.
    DiscardTemporary,
    /// `pg_advisory_unlock_all()`.
    UnlockAll,
}

/// Facts of one statement. They depend on the statement's shape, not on its literals, but for `setting`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What sort of statement it is.
    pub kind: StatementKind,
    /// Relations read, sorted, each once; names of CTEs are resolved away.
    pub reads: Vec<RelationName>,
    /// Relations written, sorted, each once.
    pub writes: Vec<RelationName>,
    /// Functions called, sorted, each once; also those written without parentheses (`current_date`).
    pub functions: Vec<FunctionName>,
    /// Every identifier and operator in the statement, folded, sorted, each once: what a rule that must not overlook
    /// anything looks at.
    pub identifiers: Vec<Arc<str>>,
    /// Operator symbols, sorted, each once.
    pub operators: Vec<Arc<str>>,
    /// Has `GROUP BY`, an aggregate function, or `DISTINCT`, anywhere.
    pub aggregate: bool,
    /// Takes row locks: `FOR UPDATE`, `FOR SHARE` …
    pub locking: bool,
    /// The highest `$n`, 0 without parameters.
    pub parameters: u16,
    /// The shape.
    pub fingerprint: Fingerprint,
    /// What it does to the transaction.
    pub transaction: Option<TransactionControl>,
    /// What it does to a setting.
    pub setting: Option<SettingChange>,
    /// What it does with what lives in one backend session, where that can be told.
    pub session: Option<SessionUse>,
    /// What it asks of a process, where it does nothing else; of which one is told by its text: [`super::ProcessCall`].
    pub process: Option<ProcessUse>,
    /// Why the session must keep its backend connection afterwards.
    pub pin: Option<PinReason>,
    /// Why it must keep its connection beside that, for what it prepares to be run later.
    pub within: Option<PinReason>,
    /// What it does with the numbers of sequences.
    pub numbers: NumberUse,
    /// What must hold of columns that it casts to a date or a time.
    pub casts: TimeCasts,
}

/// Casts to dates and times, and what else reads texts as such: a text such as `'now'` is another moment each time. Literals
/// are told apart by [`super::Analysis::moment_literal`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeCasts {
    /// An operand may be such a text, whatever the columns are.
    pub unsure: bool,
    /// Columns that must be dates or times, or else an operand may be such a text; sorted.
    pub columns: Vec<Arc<str>>,
    /// Names that the statement itself gives to what is none: no column of a table that has one of them may be a text.
    /// Sorted.
    pub named: Vec<Arc<str>>,
}

/// What a statement does with the numbers of sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NumberUse {
    /// It may take a number, by a column's default if not by itself.
    pub takes: bool,
    /// It asks which number the server's session took last.
    pub asks: bool,
}

impl Statement {
    /// Whether it may change relations that `writes` does not name: then everything that was remembered is in doubt.
    ///
    /// So for what was not understood, for what runs other text (`EXECUTE`, `CALL`, `DO`), for a change of definitions
    /// that names no relation (`GRANT`, `DROP SCHEMA` …), and for anything with `CASCADE`.
    pub fn writes_unknown(&self) -> bool {
        match self.kind {
            StatementKind::Unparsed => true,
            StatementKind::Session => {
                matches!(self.session, Some(SessionUse::Execute(_)))
                    || (self.pin == Some(PinReason::Procedure)
                        && (self.mentions("call") || self.mentions("do")))
            }
            StatementKind::Ddl => self.writes.is_empty() || self.mentions("cascade"),
            StatementKind::Write => self.writes.is_empty() || self.mentions("cascade"),
            StatementKind::Copy => self.writes.is_empty() && self.reads.is_empty(),
            StatementKind::Read
            | StatementKind::Transaction
            | StatementKind::Setting
            | StatementKind::Utility => false,
        }
    }

    /// Whether the identifier or keyword `word` (folded) stands anywhere in it.
    pub fn mentions(&self, word: &str) -> bool {
        self.identifiers
            .binary_search_by(|known| known.as_ref().cmp(word))
            .is_ok()
    }
}

/// A statement and where it stands in the client's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Bytes of the client's text, without the closing semicolon.
    pub span: Range<usize>,
    /// The facts.
    pub statement: Arc<Statement>,
}
