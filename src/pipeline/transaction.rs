//! Transactions that begin when they must: a BEGIN is answered at once, and the first statement that needs the backend
//! carries it there. A transaction that never needs it ends without one.
//!
//! So a driver that opens a transaction around every query holds no connection while it thinks, and its queries can be
//! answered from memory. Source of what a server says:
//! <https://www.postgresql.org/docs/current/sql-begin.html>,
//! <https://www.postgresql.org/docs/current/transaction-iso.html>.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use super::error::ServeError;
use super::facts::{Facts, Form};
use super::local::{Answer, Commands, answer_extended, answer_simple, is_empty};
use super::observe::{Confirmation, Observer};
use super::relay::RelayEnd;
use super::serve::{Served, Story};
use super::session::{Binding, Session};
use super::settle::Aftermath;
use crate::backend::{Asked, Asker, BackendError, Connection};
use crate::config::{BackendKind, Pooling};
use crate::error::ClientError;
use crate::session::{Ending, LocalPortal, Prepared, Request};
use crate::sql::{Analysis, Analyzer, Backslash, Statement, TransactionControl};
use crate::telemetry::event::RequestEnd;
use crate::wire::{self, Column, FrontendTag, TransactionStatus};

/// A transaction of which the backend does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Begun {
    /// None, or the backend knows.
    #[default]
    No,
    /// Begun with this text.
    Yes(Arc<[u8]>),
    /// Begun with this text; queries in it were answered without the backend, so what it is cannot be set any more.
    Queried(Arc<[u8]>),
    /// Begun with this text, and failed before the backend heard of it.
    Failed(Arc<[u8]>),
}

impl Begun {
    /// What the client is told of it; `None` if there is none.
    pub(super) fn status(&self) -> Option<TransactionStatus> {
        match self {
            Self::No => None,
            Self::Yes(_) | Self::Queried(_) => Some(TransactionStatus::InTransaction),
            Self::Failed(_) => Some(TransactionStatus::Failed),
        }
    }

    /// An error was told in it.
    pub(super) fn fail(&mut self) {
        if let Self::Yes(text) | Self::Queried(text) = self {
            *self = Self::Failed(Arc::clone(text));
        }
    }

    /// A query in it was answered without the backend.
    pub(super) fn note_query(&mut self) {
        if let Self::Yes(text) = self {
            *self = Self::Queried(Arc::clone(text));
        }
    }

    /// What `statement`, whose text is `text`, makes of it and answers; `None` where the server has to say more.
    fn after(&self, statement: &Statement, text: &[u8], kind: BackendKind) -> Option<(Self, &'static str)> {
        match (self, statement.transaction?) {
            // an error must come when the client waits for it, and only one of them knows the word
            (Self::No, TransactionControl::Begin)
                if statement.mentions(match kind {
                    BackendKind::Redshift => "deferrable",
                    BackendKind::Postgres => "snapshot",
                }) =>
            {
                None
            }
            (Self::No, TransactionControl::Begin) => {
                let tag = if statement.mentions("start") {
                    "START TRANSACTION"
                } else {
                    "BEGIN"
                };
                Some((Self::Yes(text.into()), tag))
            }
            (Self::Yes(_) | Self::Queried(_), TransactionControl::Commit) => Some((Self::No, "COMMIT")),
            (Self::Yes(_) | Self::Queried(_) | Self::Failed(_), TransactionControl::Rollback)
            | (Self::Failed(_), TransactionControl::Commit) => Some((Self::No, "ROLLBACK")),
            _ => None,
        }
    }
}

/// Whether each statement of a transaction that began with `begin` sees what is committed when it begins, where that is
/// what the login has by default.
fn reads_committed(begin: &Statement) -> bool {
    let stricter = ["uncommitted", "repeatable", "serializable", "snapshot"];
    !begin.mentions("isolation") || !stricter.iter().any(|level| begin.mentions(level))
}

/// Answers begins and ends.
struct Control<'a> {
    begun: &'a mut Begun,
    /// Set by a begin: what is read may be from memory.
    clean: &'a mut bool,
    reads_committed: bool,
    analyzer: &'a Analyzer,
    backslash: Option<Backslash>,
    kind: BackendKind,
    /// What the request prepares, in order.
    prepared: VecDeque<Confirmation>,
}

impl Control<'_> {
    fn statement(&self, text: &[u8]) -> Option<Arc<Statement>> {
        self.analyzer.analyze(text, self.backslash?).single().cloned()
    }
}

impl Commands for Control<'_> {
    fn columns(&self, text: &[u8]) -> Result<Option<&'static [Column]>, Box<dyn ClientError>> {
        // the empty query is prepared and described whatever has failed
        if is_empty(text) {
            return Ok(None);
        }
        self.bind(text).map(|()| None)
    }

    fn bind(&self, text: &[u8]) -> Result<(), Box<dyn ClientError>> {
        let ends = self
            .statement(text)
            .is_some_and(|statement| self.begun.after(&statement, text, self.kind).is_some());
        if matches!(self.begun, Begun::Failed(_)) && !ends {
            return Err(Box::new(ServeError::FailedTransaction));
        }
        Ok(())
    }

    fn run(&mut self, text: &[u8]) -> Result<Option<Answer>, Box<dyn ClientError>> {
        let Some(statement) = self.statement(text) else {
            return match self.begun {
                Begun::Failed(_) => Err(Box::new(ServeError::FailedTransaction)),
                Begun::No | Begun::Yes(_) | Begun::Queried(_) => Ok(None),
            };
        };
        let Some((after, tag)) = self.begun.after(&statement, text, self.kind) else {
            return Err(Box::new(ServeError::FailedTransaction));
        };
        if matches!(after, Begun::Yes(_)) {
            *self.clean = self.reads_committed && reads_committed(&statement);
        }
        *self.begun = after;
        Ok(Some(Answer::done(tag)))
    }

    fn status(&self) -> TransactionStatus {
        self.begun.status().unwrap_or(TransactionStatus::Idle)
    }

    fn fail(&mut self) {
        self.begun.fail();
    }

    fn prepare(&mut self, parse: &wire::Parse<'_>) -> Arc<Prepared> {
        while let Some(confirmation) = self.prepared.pop_front() {
            if let Confirmation::Prepared(name, prepared) = confirmation
                && *name == *parse.name
            {
                return prepared;
            }
        }
        Arc::new(Prepared {
            text: parse.text.into(),
            types: parse.types.into(),
            analysis: crate::sql::Analysis::unread(parse.text),
            key: None,
            settings: crate::session::Settings::default(),
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Whether the gateway answers the request by itself, since it is about nothing but a transaction that the backend
    /// need not know of.
    pub(super) fn controls(&self, facts: &Facts) -> bool {
        // the backend knows nothing of it, and need not before something else comes with its end, or with a savepoint
        if matches!(self.begun, Begun::Failed(_)) {
            let ends = |statement: &Arc<Statement>| {
                let ends = statement.transaction;
                ends.is_some_and(|control| control != TransactionControl::Begin)
            };
            return facts.foreign == 0 || !facts.statements().any(ends);
        }
        if !matches!(self.binding, Binding::Free) || facts.prepares_again() || facts.too_many {
            return false;
        }
        if facts.foreign > 0 || facts.unknown || facts.parameterized {
            return false;
        }
        // what is bound in a transaction goes along with its BEGIN
        if facts.local_portal && self.begun == Begun::No {
            return true;
        }
        let kind = self.identity.team.backend.kind;
        // what is bound now and run by a later request has to be answered here too
        let bound = facts
            .confirmations
            .iter()
            .filter_map(|confirmation| match confirmation {
                Confirmation::Bound(_, portal) => Some(portal),
                Confirmation::Prepared(..)
                | Confirmation::Described(_)
                | Confirmation::Visited(..)
                | Confirmation::PreparedBySql(_)
                | Confirmation::Deallocated(_)
                | Confirmation::ClosedStatement(_)
                | Confirmation::Nothing => None,
            });
        let here = |analysis: &Analysis| {
            let statement = analysis.single();
            statement.is_some_and(|statement| self.begun.after(statement, b"", kind).is_some())
        };
        if bound.clone().count() > facts.runs.len()
            && !bound
                .into_iter()
                .all(|portal| portal.analysis.as_ref().is_some_and(here))
        {
            return false;
        }
        let mut begun = self.begun.clone();
        facts.statements().all(|statement| {
            let Some((after, _)) = begun.after(statement, b"", kind) else {
                return false;
            };
            begun = after;
            true
        })
    }

    /// Answers a request about a transaction that the backend need not know of.
    pub(super) fn serve_control(&mut self, request: &Request, mut facts: Facts, began: Instant) -> Served {
        let mut story = Story::of(&facts, request, began);
        story.reason = "held_back";
        let asks = !facts.runs.is_empty();
        let mut control = Control {
            begun: &mut self.begun,
            clean: &mut self.clean,
            reads_committed: self.identity.greeting.reads_committed
                && self.settings.value("default_transaction_isolation").is_none(),
            analyzer: &self.gateway.analyzer,
            backslash: self.backslash,
            kind: self.identity.team.backend.kind,
            prepared: std::mem::take(&mut facts.confirmations),
        };
        let (bytes, out) = self.client.boxes();
        let bytes = bytes.get(..request.len).unwrap_or_default();
        let unanswerable = matches!(request.ending, Ending::Long { .. })
            || request
                .frames
                .iter()
                .any(|frame| frame.tag == FrontendTag::FunctionCall);
        let goes_on = match (facts.form, request.ending) {
            _ if unanswerable => Ok(false),
            (Form::Simple, _) => {
                if answer_simple(wire::query_text(bytes).unwrap_or_default(), &mut control, out) {
                    self.statements.note_portal_closed(b"");
                }
                let status = control.status();
                wire::ready_for_query(status, out);
                self.statements.note_closed(b"");
                if status == TransactionStatus::Idle {
                    self.statements.note_transaction_ended();
                }
                Ok(true)
            }
            (Form::Portal(_) | Form::Series, _) => {
                answer_extended(request, bytes, &mut self.statements, &mut control, out)
            }
        };
        if facts.parses_unnamed || facts.form == Form::Simple {
            self.unnamed_here = false;
        }
        if unanswerable {
            let error = ServeError::FailedTransaction;
            self.refuse_with(request, &error, &mut story);
            return Ok(());
        }
        self.client.consume(request.len);
        match goes_on {
            Ok(true) => {}
            Ok(false) => self.skip_to_sync(),
            Err(error) => return self.protocol_error(&error.into()),
        }
        if asks {
            self.finish(&story, RequestEnd::Completed);
        }
        Ok(())
    }

    /// The transaction status that the client knows.
    pub(super) fn status(&self) -> TransactionStatus {
        match (&self.begun, &self.binding) {
            (Begun::No, Binding::Held(lease)) => {
                let status = lease.status();
                if self.fails_at_backend && status == TransactionStatus::InTransaction {
                    return TransactionStatus::Failed;
                }
                status
            }
            // also while a connection is at hand that has not heard of the transaction yet
            (begun, _) => begun.status().unwrap_or(TransactionStatus::Idle),
        }
    }

    /// An error of the gateway's own was told: what is open has failed, be it a transaction or a series without its Sync, as
    /// after an error of the server.
    pub(super) fn note_failed(&mut self) {
        self.begun.fail();
        self.fails_at_backend |= self.begun == Begun::No
            && matches!(&self.binding, Binding::Held(lease)
                if !lease.replies().settled() || lease.status() == TransactionStatus::InTransaction);
    }

    /// Has it fail at the backend, where [`Self::note_failed`] found something there: otherwise what was done before the
    /// error would be committed.
    pub(super) async fn carry_failure(&mut self) -> Served {
        if !std::mem::take(&mut self.fails_at_backend) {
            return Ok(());
        }
        let Binding::Held(lease) = &mut self.binding else {
            return Ok(());
        };
        // the server forgets its unnamed statement with it
        self.unnamed_here = false;
        let open = lease.status() != TransactionStatus::Idle;
        self.pending.fail_whole(open);
        if !open {
            self.statements.note_transaction_ended();
        }
        let failed = if lease.replies().drained() {
            lease.fail().await
        } else {
            // answers that the client does not wait for any more are still to come
            Err(BackendError::Closed)
        };
        let Err(error) = failed else {
            self.end_writes(&Aftermath::default(), None);
            self.release(Instant::now()).await;
            return Ok(());
        };
        // it is undone with its connection
        self.lose_writes(None);
        self.pending.fail_whole(false);
        self.statements.note_transaction_ended();
        self.late.clear();
        self.binding = Binding::Free;
        if self.pins.any() || self.identity.team.pooling == Pooling::Session {
            return self.protocol_error(&ServeError::Lost(error));
        }
        if open {
            self.begun = Begun::Failed(b"BEGIN".as_slice().into());
        }
        Ok(())
    }

    /// Begins at the backend the transaction that the client has begun, and lets it fail if it has failed for the client.
    /// An error of the BEGIN is relayed, and noted with the observer.
    ///
    /// # Errors
    ///
    /// As a relay ends.
    pub(super) async fn carry_begin(&mut self, observer: &mut Observer) -> Result<(), RelayEnd> {
        let failed = matches!(self.begun, Begun::Failed(_));
        let (text, queried) = match &self.begun {
            Begun::No => return Ok(()),
            Begun::Yes(text) | Begun::Failed(text) => (text, false),
            Begun::Queried(text) => (text, true),
        };
        let Binding::Held(lease) = &mut self.binding else {
            return Err(RelayEnd::BackendGone(BackendError::Closed));
        };
        let portals: Vec<_> = self.statements.local_portals().collect();
        put_begin(text, queried, &portals, lease);
        self.begun = Begun::No;
        // the server forgets its unnamed statement with it
        self.unnamed_here = false;
        self.hear(observer).await?;
        if observer.error.is_none() {
            self.statements.note_portals_carried();
            if failed && let Binding::Held(lease) = &mut self.binding {
                let told = lease.fail().await;
                told.map_err(RelayEnd::BackendGone)?;
            }
        }
        // what the server said of the BEGIN is not a part of the answer
        observer.ends.clear();
        observer.completions = 0;
        observer.command_complete = None;
        observer.row_description = None;
        observer.bytes = 0;
        Ok(())
    }
}

/// A query that answers nothing. A transaction that has run one is what it is.
const QUERY: &str = "SELECT 1 WHERE false";

/// Begins the transaction, has it run a query if the client's has, and binds what the client has bound in it: the names are
/// taken there too, and the portal that began the transaction cannot be run again.
fn put_begin(text: &[u8], queried: bool, portals: &[(&[u8], &LocalPortal)], backend: &mut Connection) {
    let begun_by = portals.iter().position(|(_, portal)| portal.done);
    // the one that began it comes first
    let (begin, others) = portals.split_at(begun_by.map_or(0, |index| index + 1));
    let mut bound = begin.iter().rev().chain(others).peekable();
    if begun_by.is_none() {
        put_query(text, backend);
    }
    if queried {
        if begun_by.is_some() {
            put_portals(bound.by_ref().take(1), backend);
        }
        put_query(QUERY.as_bytes(), backend);
    }
    if bound.peek().is_some() {
        put_portals(bound, backend);
    }
}

fn put_query(text: &[u8], backend: &mut Connection) {
    wire::query_frame(text, backend.outgoing());
    backend.note_sent(Asked::Query, Asker::Gateway);
}

fn put_portals<'p>(portals: impl Iterator<Item = &'p (&'p [u8], &'p LocalPortal)>, backend: &mut Connection) {
    for (name, portal) in portals {
        wire::parse_frame(b"", &portal.text, b"", backend.outgoing());
        backend.note_sent(Asked::Parse(None), Asker::Gateway);
        wire::bind_frame(name, b"", backend.outgoing());
        backend.note_sent(Asked::Bind, Asker::Gateway);
        if portal.done {
            wire::execute_frame(name, backend.outgoing());
            backend.note_sent(Asked::Execute, Asker::Gateway);
        }
    }
    wire::sync_frame(backend.outgoing());
    backend.note_sent(Asked::Sync, Asker::Gateway);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_answered_for_as_the_server_would() {
        let pg = BackendKind::Postgres;
        for (texts, kind, expected) in [
            ("BEGIN|COMMIT", pg, "BEGIN T|COMMIT I"),
            ("begin work|end", pg, "BEGIN T|COMMIT I"),
            (
                "START TRANSACTION READ ONLY|ABORT",
                pg,
                "START TRANSACTION T|ROLLBACK I",
            ),
            ("BEGIN|ROLLBACK", pg, "BEGIN T|ROLLBACK I"),
            ("BEGIN|!|COMMIT", pg, "BEGIN T|E|ROLLBACK I"),
            ("BEGIN|!|ROLLBACK", pg, "BEGIN T|E|ROLLBACK I"),
            // the server has something to say
            ("BEGIN|BEGIN", pg, "BEGIN T|-"),
            ("COMMIT", pg, "-"),
            ("BEGIN|!|BEGIN", pg, "BEGIN T|E|-"),
            ("BEGIN|SAVEPOINT a", pg, "BEGIN T|-"),
            ("SELECT 1", pg, "-"),
            ("BEGIN ISOLATION LEVEL SERIALIZABLE DEFERRABLE", pg, "BEGIN T"),
            ("BEGIN DEFERRABLE", BackendKind::Redshift, "-"),
            ("BEGIN ISOLATION LEVEL SNAPSHOT", BackendKind::Redshift, "BEGIN T"),
            ("BEGIN ISOLATION LEVEL SNAPSHOT", pg, "-"),
            ("BEGIN READ ONLY,", pg, "-"),
            ("BEGIN NONSENSE", pg, "-"),
        ] {
            let mut begun = Begun::No;
            let said: Vec<String> = texts
                .split('|')
                .map(|text| {
                    if text == "!" {
                        begun.fail();
                        return "E".to_owned();
                    }
                    let analysis = Analysis::of(text.as_bytes(), Backslash::Literal);
                    let statement = analysis.single().expect("one statement");
                    let Some((after, tag)) = begun.after(statement, text.as_bytes(), kind) else {
                        return "-".to_owned();
                    };
                    begun = after;
                    let status = begun.status().unwrap_or(TransactionStatus::Idle);
                    format!("{tag} {}", char::from(status.byte()))
                })
                .collect();
            assert_eq!(said.join("|"), expected, "{texts}");
        }
    }

    #[test]
    fn only_read_committed_reads_what_is_committed_meanwhile() {
        for (text, expected) in [
            ("BEGIN", true),
            ("BEGIN READ ONLY", true),
            ("BEGIN ISOLATION LEVEL READ COMMITTED", true),
            ("BEGIN ISOLATION LEVEL READ UNCOMMITTED", false),
            ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ", false),
            ("BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY", false),
            (
                "BEGIN ISOLATION LEVEL READ COMMITTED, ISOLATION LEVEL SERIALIZABLE",
                false,
            ),
        ] {
            let analysis = Analysis::of(text.as_bytes(), Backslash::Literal);
            assert_eq!(
                analysis.single().map(|begin| reads_committed(begin)),
                Some(expected),
                "{text}"
            );
        }
    }
}
