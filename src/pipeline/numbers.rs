//! `currval` and `lastval`, which tell what the session took of a sequence last: the server's session, not the client's.
//!
//! On a connection that is shared they would tell what another client took. So they are refused unless the session has
//! kept its connection since it took a number itself, in the same transaction or because it is pinned. Sources:
//! <https://www.postgresql.org/docs/current/functions-sequence.html>, `lastval` in PostgreSQL's `sequence.c`.

use tokio::io::{AsyncRead, AsyncWrite};

use super::facts::Facts;
use super::run::Stopped;
use super::session::{Binding, Session};
use crate::config::{BackendKind, Pooling};
use crate::sql::{PinReason, Statement};
use crate::wire::TransactionStatus;

/// Whether a request may take a number; `stale`: it may write.
pub(super) fn takes_numbers(facts: &Facts, stale: bool) -> bool {
    stale || facts.unknown || facts.statements().any(|statement| statement.numbers.takes)
}

/// Whether a request may ask for the number that was taken last, also in code that is not seen.
pub(super) fn may_ask(facts: &Facts) -> bool {
    facts.unknown
        || facts.statements().any(|statement| {
            let unseen = statement
                .pin
                .is_some_and(|reason| matches!(reason, PinReason::Procedure | PinReason::Unparsed));
            statement.numbers.asks || unseen
        })
}

/// Whether one of `statements`, which run in this order, asks for a number that none took before it.
fn asks_for_a_strangers<'a>(taken: bool, statements: impl Iterator<Item = &'a Statement>) -> bool {
    let mut taken = taken;
    for statement in statements {
        taken |= statement.numbers.takes;
        if statement.numbers.asks && !taken {
            return true;
        }
    }
    false
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Whether a connection tells which numbers were taken there, and can be made to forget them. Redshift has no sequences.
    pub(super) fn gives_numbers(&self) -> bool {
        self.identity.team.pooling == Pooling::Transaction
            && self.identity.team.backend.kind == BackendKind::Postgres
    }

    /// Whether the request asks for a number that another session may have taken.
    pub(super) fn asks_for_a_strangers_number(&self, facts: &Facts) -> bool {
        let taken = self.numbers_taken && matches!(self.binding, Binding::Held(_));
        self.identity.team.pooling == Pooling::Transaction
            && asks_for_a_strangers(taken, facts.statements().map(|statement| &**statement))
    }

    /// Whether there is something to be told here, and a function that the request calls may tell it.
    pub(super) fn may_ask_unseen(&self, facts: &Facts) -> bool {
        let database = &self.identity.database;
        let may = self.foreign_numbers
            && self.gives_numbers()
            && facts
                .statements()
                .any(|statement| !statement.functions.is_empty() && database.touches_session(statement));
        if may {
            database.note_numbers_asked();
        }
        may
    }

    /// Before a request that may ask for it: has the connection forget what others took there, unless this session may have
    /// taken a number since. From the first such request on, connections forget it before anybody uses them.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub(super) async fn forget_strangers_numbers(&mut self) -> Result<(), Stopped> {
        let Binding::Held(lease) = &mut self.binding else {
            return Ok(());
        };
        let can = lease.replies().settled() && lease.status() != TransactionStatus::Failed;
        if !self.foreign_numbers || self.numbers_taken || !can {
            return Ok(());
        }
        self.foreign_numbers = false;
        let forgotten = lease.forget_numbers().await;
        forgotten.map_err(|error| Stopped::Refused(self.drop_lease(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Backslash, analyze};

    #[test]
    fn only_a_number_of_ones_own_is_told() {
        for (text, taken, refused) in [
            ("SELECT lastval()", false, true),
            ("SELECT lastval()", true, false),
            ("SELECT pg_catalog.CURRVAL('s')", false, true),
            ("SELECT nextval('s'), currval('s')", false, false),
            ("INSERT INTO a VALUES (1); SELECT lastval()", false, false),
            ("SELECT 1; SELECT lastval()", false, true),
            ("BEGIN; SET a.b = 1; SELECT lastval()", false, true),
            ("PREPARE p AS SELECT 1", false, false),
            ("SELECT lastval FROM measures", false, false),
            ("SELECT 'lastval()'", false, false),
        ] {
            let located = analyze(text.as_bytes(), Backslash::Literal);
            let statements = located.iter().map(|located| &*located.statement);
            assert_eq!(asks_for_a_strangers(taken, statements), refused, "{text}");
        }
    }
}
