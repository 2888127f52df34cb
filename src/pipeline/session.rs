//! One client after login: it asks, it is answered, until one of the two sides ends it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::client::Client;
use super::error::ServeError;
use super::farewell::LAST_WORDS;
use super::following::Pending;
use super::gateway::{Gateway, Greeting};
use super::judged::Judged;
use super::observe::Confirmation;
use super::realm::{Database, Team};
use super::rename::Naming;
use super::route::Wrote;
use super::sessions::SessionCard;
use super::told::Told;
use super::transaction::Begun;
use super::writes::Writes;
use crate::backend::{BackendError, Connector, ServerKey};
use crate::cache::{KeyBuilder, WriteGuard};
use crate::config::BackendKind;
use crate::pool::Lease;
use crate::session::{Collected, Collector, Pins, Request, SettingValue, Settings, Statements};
use crate::sql::{Backslash, Fingerprint};
use crate::telemetry::Verdict;
use crate::types::UserName;
use crate::wire::{self, TransactionStatus, error_response};

/// Answers that may wait for a client while its next request, which came ahead, is served.
const MAX_UNSENT: usize = 64 * 1024;

/// Who a session is, and what it works with.
pub struct Identity {
    /// The user.
    pub user: UserName,
    /// Its team.
    pub team: Arc<Team>,
    /// Its database.
    pub database: Arc<Database>,
    /// Which backend connections can serve it.
    pub key: ServerKey,
    /// The search path that its login has by itself.
    pub default_search_path: Arc<str>,
    /// What it was greeted with.
    pub greeting: Arc<Greeting>,
    /// Settings of the start-up packet, which RESET goes back to.
    pub startup: Settings,
    /// The backend's login reads text by other rules than the gateway's.
    pub reads_differently: bool,
}

/// What a session keeps of the backend between requests.
pub(super) enum Binding {
    /// Nothing.
    Free,
    /// A connection: a transaction is open, a series has no Sync yet, or the session is pinned.
    Held(Lease<Connector>),
}

/// What `SHOW tollgate.last` tells.
#[derive(Clone, Debug)]
pub(super) struct Last {
    pub(super) verdict: Verdict,
    pub(super) reason: &'static str,
    pub(super) age: Option<Duration>,
    pub(super) fingerprint: Fingerprint,
    pub(super) backend_time: Duration,
    pub(super) rows: u64,
}

/// One session.
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches that do not depend on each other"
)]
pub struct Session<S> {
    pub(super) gateway: Arc<Gateway>,
    pub(super) client: Client<S>,
    pub(super) card: Arc<SessionCard>,
    pub(super) identity: Identity,
    pub(super) settings: Settings,
    pub(super) statements: Statements,
    pub(super) binding: Binding,
    pub(super) pins: Pins,
    /// A transaction of which the backend does not know.
    pub(super) begun: Begun,
    /// What is open at the backend has failed at the gateway, and the backend has still to be told.
    pub(super) fails_at_backend: bool,
    /// The transaction that is open has done nothing but read, and reads what is committed when each statement begins: it
    /// may be answered from memory.
    pub(super) clean: bool,
    /// The session may have taken a number of a sequence at the connection that is held.
    pub(super) numbers_taken: bool,
    /// What others took of sequences at the connection that is held may be told there.
    pub(super) foreign_numbers: bool,
    /// Changes of settings that are not committed yet.
    pub(super) pending: Pending,
    /// What the client was told of parameters; an [`Observer`](super::observe::Observer) has it while a request runs.
    pub(super) told: Told,
    pub(super) writes: Writes,
    /// When it wrote last.
    pub(super) wrote: Wrote,
    /// The writes of a series whose replies have not all come.
    pub(super) unanswered: Option<WriteGuard>,
    pub(super) last: Option<Last>,
    pub(super) caching: bool,
    /// The unnamed statement of this session is the one at the connection that is held.
    pub(super) unnamed_here: bool,
    /// How the backend reads this session's text; `None` when that cannot be told any more.
    pub(super) backslash: Option<Backslash>,
    /// The backend reported, once, that it reads this session's text by other rules.
    pub(super) reads_differently: bool,
    /// A part of the series may have changed how text is read, and what the backend reports of it comes with the series' end.
    pub(super) rereads: bool,
    /// The search path may be another than `search_path` says: it was changed in a way that is not followed.
    pub(super) path_unknown: bool,
    /// Any setting may be another than `settings` says.
    pub(super) settings_unknown: bool,
    /// What the backend has still to confirm of a series whose later parts are to come.
    pub(super) late: VecDeque<Confirmation>,
    /// Room for names of statements in a request; empty.
    pub(super) namings: Vec<Naming>,
    /// What a cached answer depends on beside its statement; computed anew when settings change.
    pub(super) scope: Vec<u8>,
    /// The search path in force.
    pub(super) search_path: Arc<[Arc<str>]>,
    /// What was decided last.
    pub(super) judged: Judged,
    /// Room for keys and texts, used again by every request.
    pub(super) keys: KeyBuilder,
    pub(super) canonical: Vec<u8>,
    collector: Collector,
    /// Bytes still to come of a long message that is not served.
    pub(super) unwanted: usize,
    /// An error was told in a series: what comes is ignored up to the next Sync.
    pub(super) skipping: bool,
}

/// Why a session is over.
pub(super) enum Over {
    /// The client said so, or is gone.
    Client,
    /// Told to the client as the last thing.
    Told,
}

/// Why a wait ended early.
#[derive(Clone, Copy, Debug)]
pub(super) enum Interrupted {
    /// The client is gone.
    Gone,
    /// The client cancelled.
    Cancelled,
    /// The administrator ends the session.
    Killed,
    /// The team's time limit for a query is over.
    Timeout,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// A session that has just been greeted.
    pub fn new(gateway: Arc<Gateway>, client: Client<S>, card: Arc<SessionCard>, identity: Identity) -> Self {
        let told = Told::new(identity.startup.clone(), Arc::clone(&identity.greeting));
        let mut session = Self {
            settings: identity.startup.clone(),
            reads_differently: identity.reads_differently,
            rereads: false,
            gateway,
            client,
            card,
            identity,
            statements: Statements::default(),
            binding: Binding::Free,
            pins: Pins::default(),
            begun: Begun::default(),
            fails_at_backend: false,
            clean: false,
            numbers_taken: false,
            foreign_numbers: false,
            pending: Pending::default(),
            told,
            writes: Writes::default(),
            wrote: Wrote::default(),
            unanswered: None,
            last: None,
            caching: true,
            unnamed_here: false,
            backslash: None,
            path_unknown: false,
            settings_unknown: false,
            late: VecDeque::new(),
            namings: Vec::new(),
            scope: Vec::new(),
            search_path: Arc::default(),
            judged: Judged::default(),
            keys: KeyBuilder::default(),
            canonical: Vec::new(),
            collector: Collector::default(),
            skipping: false,
            unwanted: 0,
        };
        session.settings_changed();
        session
    }

    /// Serves the client until the end of the session.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the session's connection is closed and what it runs goes on until the backend notices.
    pub async fn run(mut self) {
        // the client is told, where there was something to tell
        self.serve_all().await;
        drop(tokio::time::timeout(LAST_WORDS, self.client.flush()).await);
        self.card.note_idle(false);
        self.leave().await;
    }

    async fn serve_all(&mut self) -> Over {
        loop {
            let request = match self.next_request().await {
                Ok(Some(request)) => request,
                Ok(None) => return Over::Client,
                Err(error) => {
                    error_response(&error, self.client.outbox());
                    return Over::Told;
                }
            };
            if self.skipping {
                self.skip(&request);
            } else if let Err(over) = self.serve(&request).await {
                return over;
            }
            if self.fails_at_backend
                && let Err(over) = self.carry_failure().await
            {
                return over;
            }
            self.collector.recycle(request);
            // a client that sends ahead without reading does not fill the memory with answers
            if self.client.outbox().len() > MAX_UNSENT {
                match self.flush().await {
                    Ok(true) => {}
                    Ok(false) => return Over::Client,
                    Err(error) => {
                        error_response(&error, self.client.outbox());
                        return Over::Told;
                    }
                }
            }
        }
    }

    /// Sends what waits for the client; false when it is gone.
    async fn flush(&mut self) -> Result<bool, ServeError> {
        if self.client.outbox().is_empty() {
            return Ok(true);
        }
        match self.send_all(&[]).await {
            Ok(()) => Ok(true),
            Err(Interrupted::Killed) => Err(ServeError::Shutdown),
            Err(Interrupted::Gone | Interrupted::Cancelled | Interrupted::Timeout) => Ok(false),
        }
    }

    /// Waits for the next request; `None` when the client is gone or says farewell.
    async fn next_request(&mut self) -> Result<Option<Request>, ServeError> {
        let in_transaction = self.status() != TransactionStatus::Idle;
        self.card.note_idle(in_transaction);
        let unwanted = std::mem::take(&mut self.unwanted);
        if unwanted > 0 && !(self.flush().await? && self.discard(unwanted).await) {
            return Ok(None);
        }
        let in_series = matches!(&self.binding, Binding::Held(lease) if !lease.replies().settled());
        loop {
            match self.collector.collect(self.client.inbox(), in_series)? {
                Collected::Request(request) => {
                    if self.reads_differently || self.rereads {
                        self.backslash = None;
                    }
                    return Ok(Some(request));
                }
                Collected::Terminate => return Ok(None),
                Collected::Stray { len, left } => {
                    self.client.consume(len);
                    if !self.discard(left).await {
                        return Ok(None);
                    }
                }
                Collected::More => {
                    if !self.flush().await? {
                        return Ok(None);
                    }
                    if self.client.inbox().is_empty() {
                        self.client.shrink();
                    }
                    if !self.wait_for_client().await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Waits until the client has sent something; false when it is gone. What a held connection says meanwhile goes to
    /// the client.
    async fn wait_for_client(&mut self) -> Result<bool, ServeError> {
        let Self {
            client,
            binding,
            begun,
            card,
            reads_differently,
            told: known,
            ..
        } = self;
        // the server's last words and the end of the connection may come one after the other
        let mut told = false;
        poll_fn(|cx| {
            card.signals.register(cx);
            let at_ease = match binding {
                Binding::Free => begun.status().is_none(),
                Binding::Held(lease) => {
                    lease.replies().settled() && lease.status() == TransactionStatus::Idle
                }
            };
            if card.signals.killed() || (card.signals.draining() && at_ease) {
                return Poll::Ready(Err(ServeError::Shutdown));
            }
            if let Some(limit) = card.signals.idle_too_long() {
                return Poll::Ready(Err(limit.into()));
            }
            if let Poll::Ready(received) = client.poll_receive(cx) {
                return Poll::Ready(Ok(received.is_ok_and(|count| count > 0)));
            }
            // replies of a series whose later parts are to come wait for those: whoever relays them looks at them
            if let Binding::Held(lease) = binding
                && lease.replies().drained()
            {
                loop {
                    // a client that does not read gets it with the next answer
                    if client.poll_send(&[], cx).is_ready() && client.poll_flush(cx).is_pending() {
                        return Poll::Pending;
                    }
                    if client.outbox().len() >= MAX_UNSENT {
                        return Poll::Pending;
                    }
                    let Poll::Ready(received) = lease.poll_receive(cx) else {
                        break;
                    };
                    let received = received.unwrap_or(0);
                    while let Some(piece) = lease.next_piece().map_err(ServeError::Lost)? {
                        told |= piece.tag == b'E';
                        if piece.tag == b'S'
                            && let Ok((name, value)) = wire::parameter_status(lease.bytes(&piece))
                        {
                            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                            let (name, value) = (text(name), text(value));
                            *reads_differently |= changes_reading(&name, &value);
                            known.hears(&name, &value);
                            lease.note_parameter(name, value);
                        }
                    }
                    client.outbox().extend_from_slice(lease.window());
                    let count = lease.window().len();
                    lease.consume(count);
                    if received == 0 {
                        // the server's own last words, where it had some, say why
                        let lost = ServeError::Lost(BackendError::Closed);
                        return Poll::Ready(if told { Ok(false) } else { Err(lost) });
                    }
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Throws away the next `left` bytes of the client; false when it is gone.
    async fn discard(&mut self, mut left: usize) -> bool {
        while left > 0 {
            let some = left.min(self.client.inbox().len());
            self.client.consume(some);
            left -= some;
            if left > 0 && !self.wait_for_client().await.unwrap_or(false) {
                return false;
            }
        }
        true
    }

    /// Sends what is in the outbox and then `bytes`.
    pub(super) async fn send_all(&mut self, mut bytes: &[u8]) -> Result<(), Interrupted> {
        let Self { client, card, .. } = self;
        let all = bytes.len();
        poll_fn(|cx| {
            card.signals.register(cx);
            if card.signals.killed() {
                if bytes.len() < all {
                    client.tear();
                }
                return Poll::Ready(Err(Interrupted::Killed));
            }
            loop {
                match client.poll_send(bytes, cx) {
                    Poll::Ready(Ok(sent)) => bytes = bytes.get(sent..).unwrap_or_default(),
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Interrupted::Gone)),
                    Poll::Pending => return Poll::Pending,
                }
                if bytes.is_empty() {
                    break;
                }
            }
            if client.poll_flush(cx).is_pending() {
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Computes what depends on the settings.
    pub(super) fn settings_changed(&mut self) {
        let Identity {
            key,
            default_search_path,
            ..
        } = &self.identity;
        self.scope.clear();
        for part in [
            key.backend.as_str(),
            key.database.as_str(),
            &key.user,
            default_search_path,
        ] {
            self.scope
                .extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            self.scope.extend(part.as_bytes());
        }
        self.settings.scope_into(&mut self.scope);
        let path = match self.settings.value("search_path") {
            None => default_search_path,
            Some(SettingValue::Plain(path) | SettingValue::Sql(path)) => path,
        };
        self.search_path = crate::policy::search_path(path, &key.user).into();
        self.pin_by_settings();
        // text is read by these rules only while the backend reads it so too
        let plain = [
            "standard_conforming_strings",
            "backslash_quote",
            "escape_string_warning",
        ]
        .iter()
        .all(|name| self.settings.value(name).is_none());
        let encoding = match self.settings.value("client_encoding") {
            None => true,
            Some(SettingValue::Plain(name) | SettingValue::Sql(name)) => ascii_safe(name),
        };
        // Redshift, which is older than the standard's way, takes a backslash in a string for an escape
        let rules = match self.identity.team.backend.kind {
            BackendKind::Postgres => Backslash::Literal,
            BackendKind::Redshift => Backslash::Escape,
        };
        self.backslash = (plain && encoding && !self.reads_differently).then_some(rules);
    }
}

/// Whether the backend, having reported this parameter, reads text by other rules than the gateway's.
pub fn changes_reading(name: &str, value: &str) -> bool {
    match name {
        "standard_conforming_strings" => value != "on",
        "client_encoding" => !ascii_safe(value),
        _ => false,
    }
}

/// Whether no character of the encoding has bytes that look like quotes or backslashes, as is known of these. Source:
/// <https://www.postgresql.org/docs/current/multibyte.html#MULTIBYTE-CHARSET-SUPPORTED>.
fn ascii_safe(encoding: &str) -> bool {
    let name: String = encoding
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_ascii_uppercase();
    let safe = [
        "ALT",
        "EUC",
        "ISO8859",
        "KOI8",
        "LATIN",
        "MULEINTERNAL",
        "SQLASCII",
        "UNICODE",
        "UTF8",
        "WIN1",
        "WIN8",
        "WINDOWS1",
        "WINDOWS8",
    ];
    safe.iter().any(|known| name.starts_with(known))
}
