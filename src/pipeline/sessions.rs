//! Every session, as others see it: to cancel what it runs, to end it, to list it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use crate::backend::{CancelTarget, cancel};
use crate::types::{DatabaseName, SessionId, TeamName, UserName};
use crate::wire::CancelKey;

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Waiting for its client.
    Idle,
    /// Waiting for a place of its team, for a connection, or for somebody else's run.
    Waiting,
    /// A query runs at the backend.
    Active,
    /// In a transaction, waiting for its client.
    IdleInTransaction,
}

impl Activity {
    /// The word of the console.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Active => "active",
            Self::IdleInTransaction => "idle in transaction",
        }
    }
}

/// What others ask of a session.
#[derive(Debug, Default)]
pub struct Signals {
    flags: AtomicU8,
    waker: AtomicWaker,
}

/// Cancel what waits.
const CANCEL: u8 = 1;
/// End now.
const KILL: u8 = 2;
/// End when idle.
const DRAIN: u8 = 4;
/// The query ran for too long.
const TIMED_OUT: u8 = 8;
/// The backend did not react to the cancel request of a query that ran for too long.
const UNRESPONSIVE: u8 = 16;
/// It was idle for too long.
const IDLE: u8 = 32;
/// It was idle in a transaction for too long.
const IDLE_IN_TRANSACTION: u8 = 64;

/// How long sessions may ask for nothing; zero is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdleLimits {
    /// Outside of transactions.
    pub session: Duration,
    /// In a transaction.
    pub transaction: Duration,
}

/// Which of them a session ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdleTooLong {
    /// Outside of a transaction.
    #[error("terminating connection due to idle-session timeout")]
    Session,
    /// In a transaction.
    #[error("terminating connection due to idle-in-transaction timeout")]
    Transaction,
}

impl Signals {
    fn raise(&self, flag: u8) {
        self.flags.fetch_or(flag, Ordering::AcqRel);
        self.waker.wake();
    }

    fn has(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    /// Lets the current task be woken by the next signal.
    pub fn register(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// Whether what waits was cancelled.
    pub fn cancelled(&self) -> bool {
        self.has(CANCEL)
    }

    /// Whether the session must end now.
    pub fn killed(&self) -> bool {
        self.has(KILL)
    }

    /// Whether the session must end when it is idle.
    pub fn draining(&self) -> bool {
        self.has(DRAIN | KILL)
    }

    /// Whether the client has asked for nothing for too long.
    pub fn idle_too_long(&self) -> Option<IdleTooLong> {
        if self.has(IDLE_IN_TRANSACTION) {
            Some(IdleTooLong::Transaction)
        } else {
            self.has(IDLE).then_some(IdleTooLong::Session)
        }
    }

    /// Whether the query ran for too long.
    pub fn timed_out(&self) -> bool {
        self.has(TIMED_OUT)
    }

    /// Whether the backend did not react to being asked to stop.
    pub fn unresponsive(&self) -> bool {
        self.has(UNRESPONSIVE)
    }

    /// Forgets what was meant for a request that is over.
    fn request_over(&self) {
        self.flags.fetch_and(KILL | DRAIN, Ordering::AcqRel);
    }
}

/// Where a cancel request goes.
enum Doing {
    Idle { in_transaction: bool },
    Waiting,
    Running(Arc<CancelTarget>),
}

/// Who logged in, and from where.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user.
    pub user: UserName,
    /// Its team; none for an administrator at the console.
    pub team: Option<TeamName>,
    /// The database.
    pub database: DatabaseName,
    /// The client's address.
    pub address: IpAddr,
    /// The client's port.
    pub port: u16,
    /// What the client calls itself.
    pub application_name: String,
    /// Whether TLS protects it.
    pub tls: bool,
}

/// One session.
pub struct SessionCard {
    /// Its number; never used again.
    pub id: SessionId,
    /// Who it is.
    pub login: Login,
    /// When it logged in.
    pub since: Instant,
    /// Its key for cancel requests.
    pub key: CancelKey,
    /// What others ask of it.
    pub signals: Signals,
    doing: Mutex<Doing>,
    began: Instant,
    /// Milliseconds after `began` at which the query has run for too long; 0 for no limit.
    deadline_ms: AtomicU64,
    overdue: AtomicBool,
    /// Milliseconds after `began` at which a sweep first saw it idle; 0 while none has.
    idle_ms: AtomicU64,
    /// Requests so far, so that a cancel that was decided on late does not hit the next one. Changes under `doing`.
    request: AtomicU64,
    pinned: Mutex<Option<&'static str>>,
    queries: AtomicU64,
    hits: AtomicU64,
}

impl SessionCard {
    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is doing.
    pub fn activity(&self) -> Activity {
        match &*self.doing() {
            Doing::Idle {
                in_transaction: false,
            } => Activity::Idle,
            Doing::Idle { in_transaction: true } => Activity::IdleInTransaction,
            Doing::Waiting => Activity::Waiting,
            Doing::Running(_) => Activity::Active,
        }
    }

    /// It waits for its client; cancel requests have nothing to hit.
    pub fn note_idle(&self, in_transaction: bool) {
        let mut doing = self.doing();
        *doing = Doing::Idle { in_transaction };
        self.request.fetch_add(1, Ordering::Relaxed);
        self.deadline_ms.store(0, Ordering::Relaxed);
        self.overdue.store(false, Ordering::Relaxed);
        self.idle_ms.store(0, Ordering::Relaxed);
        self.signals.request_over();
    }

    /// It waits for something of the gateway's.
    pub fn note_waiting(&self) {
        *self.doing() = Doing::Waiting;
    }

    /// `target` runs its query from here on.
    pub fn note_running(&self, target: Arc<CancelTarget>) {
        *self.doing() = Doing::Running(target);
    }

    /// Its query may run for `limit` from `now` on.
    pub fn note_deadline(&self, limit: Option<Duration>, now: Instant) {
        let at = limit.map_or(0, |limit| {
            let ms = now
                .saturating_duration_since(self.began)
                .saturating_add(limit)
                .as_millis();
            u64::try_from(ms).unwrap_or(u64::MAX).max(1)
        });
        self.deadline_ms.store(at, Ordering::Relaxed);
    }

    /// Why it keeps its connection, `None` when it does not.
    pub fn note_pinned(&self, reason: Option<&'static str>) {
        *self.pinned.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Why it keeps its connection.
    pub fn pinned(&self) -> Option<&'static str> {
        *self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a query.
    pub fn note_query(&self, hit: bool) {
        self.queries.fetch_add(1, Ordering::Relaxed);
        self.hits.fetch_add(u64::from(hit), Ordering::Relaxed);
    }

    /// Queries so far, and those of them that were answered from memory.
    pub fn queries(&self) -> (u64, u64) {
        (
            self.queries.load(Ordering::Relaxed),
            self.hits.load(Ordering::Relaxed),
        )
    }

    /// Cancels what it runs or waits for; what it runs later is not touched. True if there was something.
    pub async fn cancel(&self, patience: Duration) -> bool {
        self.cancel_if(None, patience).await
    }

    async fn cancel_if(&self, overdue: Option<u64>, patience: Duration) -> bool {
        let (target, _pass) = {
            let doing = self.doing();
            if let Some(request) = overdue {
                if self.request.load(Ordering::Relaxed) != request {
                    return false;
                }
                self.signals.raise(TIMED_OUT);
            }
            match &*doing {
                Doing::Idle { .. } => return false,
                Doing::Waiting => {
                    self.signals.raise(CANCEL);
                    return true;
                }
                // entered under the lock: from here on the connection waits for this request before it is given back
                Doing::Running(target) => (Arc::clone(target), target.gate.enter()),
            }
        };
        // nobody is left to tell: whoever asked for this did so on a connection that gets no answer
        let arrived = cancel(&target, patience).await.is_ok();
        if !arrived {
            target.gate.taint();
        }
        arrived
    }

    /// Ends it now.
    pub async fn kill(&self, patience: Duration) {
        self.signals.raise(KILL);
        self.cancel(patience).await;
    }

    /// Ends it as soon as it is idle.
    pub fn drain(&self) {
        self.signals.raise(DRAIN);
    }

    /// Ends it when it has been idle for too long. No hot path takes the time for this: idleness begins when a sweep sees it,
    /// so it may last a sweep longer, and never less.
    fn end_if_idle(&self, now: Instant, limits: IdleLimits) {
        // held, so that a request that comes now finds either no signal, or one that its end takes back
        let doing = self.doing();
        let (limit, flag) = match &*doing {
            Doing::Idle {
                in_transaction: false,
            } => (limits.session, IDLE),
            Doing::Idle { in_transaction: true } => (limits.transaction, IDLE_IN_TRANSACTION),
            Doing::Waiting | Doing::Running(_) => return,
        };
        // an administrator at the console may take the time to think
        if limit.is_zero() || self.login.team.is_none() {
            return;
        }
        let ms = u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX);
        match self.idle_ms.load(Ordering::Relaxed) {
            0 => self.idle_ms.store(ms.max(1), Ordering::Relaxed),
            since if u128::from(ms.saturating_sub(since)) >= limit.as_millis() => self.signals.raise(flag),
            _ => {}
        }
    }

    /// Whether its query has run for too long since, and has not been told yet.
    fn becomes_overdue(&self, now: Instant) -> Overdue {
        let deadline = self.deadline_ms.load(Ordering::Relaxed);
        let ms = u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX);
        if deadline == 0 || ms < deadline {
            return Overdue::No;
        }
        if !self.overdue.swap(true, Ordering::Relaxed) {
            return Overdue::Now(self.request.load(Ordering::Relaxed));
        }
        if ms - deadline > UNRESPONSIVE_AFTER_MS {
            self.signals.raise(UNRESPONSIVE);
        }
        Overdue::No
    }
}

/// How long a backend may take to react to a cancel request before the session is cut off from it.
const UNRESPONSIVE_AFTER_MS: u64 = 10_000;

/// Clients take the number in their key for the process id of their backend. Numbers begin above every process id that
/// Linux gives (at most 2^22, `PID_MAX_LIMIT`): who asks to cancel or end the process of that number means a session, never a
/// backend that serves somebody else.
const FIRST_KEY: u32 = 5_000_000;

/// The key of the session that came as number `count`: above every process id, and positive as a signed number, which is
/// how clients read it.
fn key_number(count: u32) -> u32 {
    FIRST_KEY + count % ((1 << 31) - FIRST_KEY)
}

enum Overdue {
    No,
    /// Since now: the request with this number.
    Now(u64),
}

/// All sessions.
pub struct Sessions {
    next: AtomicU64,
    next_key: AtomicU32,
    began: Instant,
    cards: Mutex<HashMap<u32, Arc<SessionCard>>>,
    /// Counts those that have ended.
    left: tokio::sync::watch::Sender<u64>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(0),
            next_key: AtomicU32::new(0),
            began: Instant::now(),
            cards: Mutex::new(HashMap::new()),
            left: tokio::sync::watch::Sender::new(0),
        }
    }
}

impl Sessions {
    fn cards(&self) -> MutexGuard<'_, HashMap<u32, Arc<SessionCard>>> {
        self.cards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next session's number.
    pub fn next_id(&self) -> SessionId {
        SessionId(self.next.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Registers a session until [`Self::remove`]. Protocol 3.2 has longer secrets.
    pub fn register(&self, id: SessionId, login: Login, minor: u16) -> Arc<SessionCard> {
        let secret: [u8; 32] = rand::random();
        let secret = if minor >= 2 { &secret[..] } else { &secret[..4] };
        let mut cards = self.cards();
        let key = loop {
            let key = key_number(self.next_key.fetch_add(1, Ordering::Relaxed));
            if !cards.contains_key(&key) {
                break key;
            }
        };
        let card = Arc::new(SessionCard {
            id,
            login,
            since: Instant::now(),
            key: CancelKey {
                id: key,
                secret: Bytes::copy_from_slice(secret),
            },
            signals: Signals::default(),
            doing: Mutex::new(Doing::Idle {
                in_transaction: false,
            }),
            began: self.began,
            deadline_ms: AtomicU64::new(0),
            overdue: AtomicBool::new(false),
            idle_ms: AtomicU64::new(0),
            request: AtomicU64::new(0),
            pinned: Mutex::new(None),
            queries: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        });
        cards.insert(key, Arc::clone(&card));
        card
    }

    /// A session is over.
    pub fn remove(&self, card: &SessionCard) {
        self.cards().remove(&card.key.id);
        self.left.send_modify(|left| *left += 1);
    }

    /// The session with this key, if the secret is right too.
    pub fn find(&self, key: &CancelKey) -> Option<Arc<SessionCard>> {
        let card = self.cards().get(&key.id).cloned()?;
        let right: bool = subtle::ConstantTimeEq::ct_eq(&*card.key.secret, &*key.secret).into();
        right.then_some(card)
    }

    /// The session that its client knows by `number`.
    pub fn numbered(&self, number: u32) -> Option<Arc<SessionCard>> {
        self.cards().get(&number).cloned()
    }

    /// Every session, oldest first.
    pub fn list(&self) -> Vec<Arc<SessionCard>> {
        let mut cards: Vec<_> = self.cards().values().cloned().collect();
        cards.sort_by_key(|card| card.id);
        cards
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.cards().len()
    }

    /// Waits until there is none.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn emptied(&self) {
        let mut left = self.left.subscribe();
        while self.count() > 0 {
            // the sender lives as long as this
            if left.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ends every session as it becomes idle.
    pub fn drain(&self) {
        for card in self.list() {
            card.drain();
        }
    }

    /// Ends sessions that have been idle for too long, and cancels queries that have run for too long. To be called a few times a second; one sweep serves every session, so
    /// that a query needs no timer of its own.
    pub fn sweep(&self, now: Instant, patience: Duration, idle: IdleLimits) {
        if idle != IdleLimits::default() {
            for card in self.cards().values() {
                card.end_if_idle(now, idle);
            }
        }
        let overdue: Vec<_> = self
            .cards()
            .values()
            .filter_map(|card| match card.becomes_overdue(now) {
                Overdue::No => None,
                Overdue::Now(request) => Some((Arc::clone(card), request)),
            })
            .collect();
        for (card, request) in overdue {
            tokio::spawn(async move { card.cancel_if(Some(request), patience).await });
        }
    }
}
