//! What the gateway asks a connection for by itself, between the requests of sessions.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::Connection;
use crate::backend::error::BackendError;
use crate::backend::replies::{Asked, Asker};
use crate::backend::statements::NOBODYS;
use crate::session::Settings;
use crate::wire::{self, ErrorFields};

/// What no server takes for a statement.
const NO_STATEMENT: &[u8] = b"-";

/// The setting that says how text that comes is encoded.
const ENCODING: &str = "client_encoding";

/// How long the answer to the gateway's own statements may take.
const OWN_STATEMENT: Duration = Duration::from_secs(30);

impl Connection {
    /// Makes it what `settings` say, where it is not. Parameters that the server reports on the way are noted.
    ///
    /// # Errors
    ///
    /// The server refuses a value, or the connection is lost. The connection is then not to be used again.
    pub async fn restore(&mut self, settings: &Settings) -> Result<(), BackendError> {
        if let Some(known) = &mut self.settings {
            known.agree_on_defaults(settings, &self.custom);
        }
        if self.settings.as_ref() == Some(settings) {
            return Ok(());
        }
        let mut sql = settings.restore_sql(self.settings.as_ref());
        let before = self.settings.take();
        self.note_all_defined(settings);
        if !sql.is_ascii()
            && before
                .as_ref()
                .is_none_or(|before| before.value(ENCODING).is_some())
        {
            // a whole text is converted from the encoding in which it came, before any of it is run
            let own = before.map(|before| before.without(ENCODING));
            let back = if own.is_some() {
                "RESET client_encoding"
            } else {
                "RESET ALL"
            };
            self.run_own(back).await?;
            sql = settings.restore_sql(Some(&own.unwrap_or_default()));
        }
        if !sql.is_empty() {
            self.run_own(&sql).await?;
        }
        self.settings = Some(settings.clone());
        Ok(())
    }

    /// Sets `settings` in the transaction that is open, and with it undone.
    ///
    /// # Errors
    ///
    /// The server refuses a value, or the connection is lost.
    pub async fn set_within(&mut self, settings: &Settings) -> Result<(), BackendError> {
        self.note_all_defined(settings);
        self.run_own(&settings.restore_sql(Some(&Settings::default())))
            .await
            .map(drop)
    }

    fn note_all_defined(&mut self, settings: &Settings) {
        for name in settings.names() {
            self.note_defined(name);
        }
    }

    /// Learns what the login has by itself: its search path, and how far its transactions see.
    pub(in crate::backend) async fn learn_defaults(&mut self) -> Result<(), BackendError> {
        const DEFAULTS: &str = "SELECT pg_catalog.current_setting('default_transaction_isolation') || ',' || \
                                pg_catalog.current_setting('search_path')";
        let row = self.run_own(DEFAULTS).await?.unwrap_or_default();
        let (isolation, search_path) = row.split_once(',').unwrap_or(("", &row));
        self.reads_committed = isolation == "read committed";
        self.search_path = search_path.into();
        Ok(())
    }

    /// Notes that a session may have taken a number of a sequence here.
    pub fn note_numbers(&mut self) {
        self.numbers = true;
    }

    /// Whether `currval` and `lastval` may tell here what some session took.
    pub fn has_numbers(&self) -> bool {
        self.numbers
    }

    /// Makes `currval` and `lastval` tell nothing.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub async fn forget_numbers(&mut self) -> Result<(), BackendError> {
        self.run_own("DISCARD SEQUENCES").await?;
        self.numbers = false;
        Ok(())
    }

    /// Asks for nothing, to hear whether it is still there.
    pub(in crate::backend) async fn ask_nothing(&mut self) -> Result<(), BackendError> {
        self.run_own("").await.map(drop)
    }

    /// Asks a question of the gateway's own; the first field of the last row comes back.
    pub(in crate::backend) async fn ask(&mut self, sql: &str) -> Result<Option<String>, BackendError> {
        self.run_own(sql).await
    }

    /// Ends a transaction that nobody will end.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub async fn roll_back(&mut self) -> Result<(), BackendError> {
        self.run_own("ROLLBACK").await.map(drop)
    }

    /// Makes fail what is open, be it a transaction or a series without its Sync, as an error of the server's own does: what
    /// it did is undone, unless it goes back to a savepoint. Everything asked for must have been answered.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub async fn fail(&mut self) -> Result<(), BackendError> {
        // a Parse leaves the unnamed portal as it is, and under a name the unnamed statement, too
        wire::parse_frame(NOBODYS, NO_STATEMENT, b"", &mut self.to_send);
        self.replies.sent(Asked::Parse(None), Asker::Gateway);
        wire::sync_frame(&mut self.to_send);
        self.replies.sent(Asked::Sync, Asker::Gateway);
        match self.finish_in_time().await {
            Err(BackendError::Refused { .. }) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes it as new after a session that left things behind, by `statements`.
    ///
    /// # Errors
    ///
    /// The server refuses, or the connection is lost. The connection is then not to be used again.
    pub async fn clean(&mut self, statements: &[&str]) -> Result<(), BackendError> {
        for sql in statements {
            self.settings = None;
            if matches!(*sql, "DISCARD ALL" | "DEALLOCATE ALL") {
                self.statements.clear();
            }
            self.numbers &= *sql != "DISCARD ALL";
            self.run_own(sql).await?;
        }
        Ok(())
    }

    /// Runs the gateway's own statements; the first field of the last row comes back.
    async fn run_own(&mut self, sql: &str) -> Result<Option<String>, BackendError> {
        wire::query_frame(sql, &mut self.to_send);
        self.replies.sent(Asked::Query, Asker::Gateway);
        self.finish_in_time().await
    }

    async fn finish_in_time(&mut self) -> Result<Option<String>, BackendError> {
        tokio::time::timeout(OWN_STATEMENT, self.finish_own())
            .await
            .map_err(|_| BackendError::Slow(OWN_STATEMENT))?
    }

    async fn finish_own(&mut self) -> Result<Option<String>, BackendError> {
        self.stream
            .write_all_buf(&mut self.to_send)
            .await
            .map_err(BackendError::Lost)?;
        self.stream.flush().await.map_err(BackendError::Lost)?;
        let (mut field, mut refused) = (None, None);
        while !self.replies.settled() {
            let Some(piece) = self.next_piece()? else {
                if poll_fn(|cx| self.poll_receive(cx)).await? == 0 {
                    return Err(BackendError::Closed);
                }
                continue;
            };
            let frame = self.bytes(&piece);
            match piece.tag {
                b'D' => field = first_field(frame),
                b'E' => refused = Some(refusal(frame)),
                b'S' => {
                    if let Ok((name, value)) = wire::parameter_status(frame) {
                        let name = String::from_utf8_lossy(name).into_owned();
                        let value = String::from_utf8_lossy(value).into_owned();
                        self.parameters.insert(name, value);
                    }
                }
                _ => {}
            }
            self.consume(piece.end);
        }
        match refused {
            Some(error) => Err(error),
            None => Ok(field),
        }
    }

    /// Reads what comes until everything owed has come, and throws it away: for a query whose client is gone.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing that is owed is forgotten.
    pub async fn drain_replies(&mut self) -> Result<(), BackendError> {
        loop {
            while let Some(piece) = self.next_piece()? {
                self.consume(piece.end);
            }
            if self.replies.drained() {
                return Ok(());
            }
            if poll_fn(|cx| self.poll_receive(cx)).await? == 0 {
                return Err(BackendError::Closed);
            }
        }
    }
}

fn first_field(row: &[u8]) -> Option<String> {
    let field = row.get(7..)?;
    let (len, rest) = field.split_first_chunk::<4>()?;
    let len = usize::try_from(i32::from_be_bytes(*len)).ok()?;
    Some(String::from_utf8_lossy(rest.get(..len)?).into_owned())
}

/// What an `ErrorResponse` of the server says.
pub(in crate::backend) fn refusal(frame: &[u8]) -> BackendError {
    let fields = ErrorFields::of(frame);
    BackendError::Refused {
        code: String::from_utf8_lossy(fields.code).into_owned(),
        message: String::from_utf8_lossy(fields.message).into_owned(),
        frame: Bytes::copy_from_slice(frame),
    }
}
