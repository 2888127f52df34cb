//! Before a request uses a statement of which its client was told the columns: whether they are still these.
//!
//! On a connection of its own a client that was told them gets the server's error "cached plan must not change result
//! type" after a change of definitions. Here the statement may have been prepared after the change, at a connection that
//! the client did not know, and would answer with columns that the client does not expect. So it is compared first, once
//! for a statement at a connection. The same is the moment to prepare what was prepared under other settings.

use tokio::io::{AsyncRead, AsyncWrite};

use super::facts::Facts;
use super::observe::Observer;
use super::relay::{Relay, RelayEnd};
use super::rename::{KnownStatement, Naming, NamingAct, Renaming};
use super::session::{Binding, Session};
use crate::backend::{Asked, Asker, BackendError, Connection};
use crate::session::{Settings, StatementKey};
use crate::wire::{self, FrontendTag, TransactionStatus};

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Compares the statements that the request uses with what the client was told of them; those that are others now
    /// come back. An error of the server is relayed, and noted with the observer.
    ///
    /// # Errors
    ///
    /// As a relay ends.
    pub(super) async fn check_statements(
        &mut self,
        namings: &[Naming],
        observer: &mut Observer,
    ) -> Result<Vec<StatementKey>, RelayEnd> {
        let epoch = self.identity.database.epoch();
        let limit = self.identity.team.backend.max_prepared_statements();
        let Binding::Held(lease) = &mut self.binding else {
            return Err(RelayEnd::BackendGone(BackendError::Closed));
        };
        let settled = lease.replies().settled();
        lease.statements_mut().begin_round(settled);
        let doubtful = doubtful(namings, lease, epoch, &self.settings);
        // in the midst of a series whose answers are still to come there is no time to ask
        let failed = lease.status() == TransactionStatus::Failed;
        if doubtful.is_empty() || failed || !lease.replies().drained() {
            return Ok(Vec::new());
        }
        // a SET would end the series' own transaction, and in an open one take the place of a SET LOCAL
        let resettable = settled && lease.status() == TransactionStatus::Idle;
        let mut out = std::mem::take(lease.outgoing());
        let mut renaming = Renaming {
            backend: lease,
            epoch,
            limit,
            changed: &[],
        };
        let mut set = false;
        for known in &doubtful {
            let theirs = &known.prepared.settings;
            let elsewhere = resettable && !theirs.reads_like(&self.settings);
            if elsewhere {
                // a client's own may have a value for this transaction, and do not matter here
                let (theirs, own) = (theirs.without_custom(), self.settings.without_custom());
                renaming.run(&theirs.restore_sql(Some(&own)), &mut out);
                self.unnamed_here = false;
            }
            renaming.compare(known, &mut out);
            if elsewhere {
                // set back whatever became of the statement
                wire::sync_frame(&mut out);
                renaming.backend.note_sent(Asked::Sync, Asker::Gateway);
                let (theirs, own) = (theirs.without_custom(), self.settings.without_custom());
                renaming.run(&own.restore_sql(Some(&theirs)), &mut out);
                set = true;
            }
        }
        if settled {
            // a series of its own: what the client begins with must be able to begin a transaction
            wire::sync_frame(&mut out);
            lease.note_sent(Asked::Sync, Asker::Gateway);
        } else {
            wire::flush_frame(&mut out);
        }
        *lease.outgoing() = out;
        observer.asking = true;
        let asked = self.hear(observer).await;
        observer.asking = false;
        asked?;
        let Binding::Held(lease) = &mut self.binding else {
            return Err(RelayEnd::BackendGone(BackendError::Closed));
        };
        if set && observer.error.is_some() {
            lease.note_settings(None);
            // what was prepared behind a SET that failed is another statement
            for known in &doubtful {
                lease.statements_mut().forget(known.key);
            }
        }
        let changed = doubtful
            .iter()
            .filter(|known| known.told.is_some() && lease.statements().description(known.key) != known.told);
        Ok(changed.map(|known| known.key).collect())
    }

    /// Puts the statements that a simple query names in SQL where it finds them, and waits for them: an error of theirs is
    /// the query's own, as when the server looks at a statement's text anew under another search path.
    ///
    /// # Errors
    ///
    /// As a relay ends.
    pub(super) async fn bring_visited(
        &mut self,
        facts: &mut Facts,
        changed: &[StatementKey],
        observer: &mut Observer,
    ) -> Result<(), RelayEnd> {
        let Binding::Held(lease) = &mut self.binding else {
            return Err(RelayEnd::BackendGone(BackendError::Closed));
        };
        let mut out = std::mem::take(lease.outgoing());
        let before = out.len();
        let mut renaming = Renaming {
            backend: lease,
            epoch: self.identity.database.epoch(),
            limit: self.identity.team.backend.max_prepared_statements(),
            changed,
        };
        facts
            .namings
            .retain(|naming| !renaming.visit(FrontendTag::Query, naming, &mut out));
        let visits = out.len() > before;
        if visits {
            wire::sync_frame(&mut out);
            lease.note_sent(Asked::Sync, Asker::Gateway);
        }
        *lease.outgoing() = out;
        if !visits {
            return Ok(());
        }
        observer.confirmations.expect(&mut self.late);
        observer.confirmations.expect(&mut facts.confirmations);
        self.hear(observer).await
    }

    /// Sends what the gateway asks by itself, and waits for the answers, which the client is not shown but for an error.
    ///
    /// # Errors
    ///
    /// As a relay ends.
    pub(super) async fn hear(&mut self, observer: &mut Observer) -> Result<(), RelayEnd> {
        let Binding::Held(lease) = &mut self.binding else {
            return Err(RelayEnd::BackendGone(BackendError::Closed));
        };
        let relay = Relay {
            client: &mut self.client,
            backend: lease,
            card: &self.card,
            observer,
            to_send: 0,
            to_come: 0,
            answered: true,
        };
        match relay.run().await {
            RelayEnd::Done => Ok(()),
            end @ (RelayEnd::ClientGone
            | RelayEnd::BackendGone(_)
            | RelayEnd::Killed
            | RelayEnd::Unresponsive) => Err(end),
        }
    }
}

/// Statements of which it is not known that they are here what the client was told, or that they would be prepared here
/// as their client prepared them.
fn doubtful<'n>(
    namings: &'n [Naming],
    backend: &mut Connection,
    epoch: u64,
    settings: &Settings,
) -> Vec<&'n KnownStatement> {
    let mut doubtful: Vec<&KnownStatement> = Vec::new();
    for naming in namings {
        let (NamingAct::Bind(known) | NamingAct::Describe(known) | NamingAct::Visit(known)) = &naming.act
        else {
            continue;
        };
        if doubtful.iter().any(|other| other.key == known.key) {
            continue;
        }
        let sound = match backend.statements_mut().find(known.key, epoch) {
            Some(_) => known.told.is_none() || backend.statements().description(known.key) == known.told,
            // what is put there for SQL must not fail: its error would be taken for that of the client's query
            None if matches!(naming.act, NamingAct::Visit(_)) => false,
            None => known.told.is_none() && known.prepared.settings.reads_like(settings),
        };
        if !sound && !prepared_before(namings, naming, known.key) {
            doubtful.push(known);
        }
    }
    doubtful
}

/// Whether the request itself prepares `key` before `naming`.
fn prepared_before(namings: &[Naming], naming: &Naming, key: StatementKey) -> bool {
    namings
        .iter()
        .take_while(|other| other.frame < naming.frame)
        .any(|other| matches!(&other.act, NamingAct::Prepare(known) if known.key == key))
}

impl Renaming<'_> {
    /// Prepares the statement if it is not there, or not as its client was told it, and asks what it is.
    fn compare(&mut self, known: &KnownStatement, out: &mut bytes::BytesMut) {
        let description = self.backend.statements().description(known.key);
        if description.is_some() && description != known.told {
            self.drop_statement(known.key, out);
        }
        let number = self.provide(known, out);
        if known.told.is_some() {
            wire::describe_statement_frame(number.to_string().as_bytes(), out);
            self.backend
                .note_sent(Asked::DescribeStatement(Some(number)), Asker::Gateway);
        }
    }

    fn run(&mut self, sql: &str, out: &mut bytes::BytesMut) {
        if !sql.is_empty() {
            wire::query_frame(sql, out);
            self.backend.note_sent(Asked::Query, Asker::Gateway);
        }
    }
}
