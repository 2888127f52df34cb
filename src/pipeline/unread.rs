//! A short wait for definitions, where a statement may run code of which nothing is known yet.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::facts::Facts;
use super::session::{Interrupted, Session};
use crate::policy::runs_hidden_code;
use crate::wire::TransactionStatus;

/// How long at most; then it is judged by what is known.
const PATIENCE: Duration = Duration::from_secs(2);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Waits for definitions that are being read since code was brought, e.g. by `CREATE FUNCTION`, if the request may run
    /// such code. In a transaction it does not wait: the reading may wait for what the transaction has locked.
    ///
    /// # Errors
    ///
    /// The wait was interrupted.
    pub(super) async fn await_code(&mut self, facts: &Facts) -> Result<(), Interrupted> {
        let database = &self.identity.database;
        if !database.awaits_code()
            || self.status() != TransactionStatus::Idle
            || !facts.statements().any(|statement| runs_hidden_code(statement))
        {
            return Ok(());
        }
        let database = Arc::clone(database);
        self.card.note_waiting();
        let ready = tokio::time::timeout(PATIENCE, database.watch.ready());
        // too late, or unreadable: it is judged without
        Self::attend(&mut self.client, &self.card, ready).await.map(drop)
    }
}
