//! A team's places, and the queue for them: first in, first out, and nobody who left is waited for.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::types::TeamName;

use super::admission::{Admission, QuotaLimits, Usage, decide};
use super::rate::Rate;
use super::refusal::{QuotaRefusal, RefusalReason};

/// What one team may use and uses; shared by all its sessions.
pub struct Quota {
    team: TeamName,
    state: Mutex<State>,
}

struct State {
    limits: QuotaLimits,
    rate: Rate,
    running: u32,
    /// In the order of their tickets.
    queue: VecDeque<Waiter>,
    next_ticket: u64,
    totals: Totals,
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    admitted: u64,
    queued: u64,
    refused_rate: u64,
    refused_queue_full: u64,
    refused_queue_wait: u64,
}

struct Waiter {
    ticket: u64,
    since: Instant,
    call: oneshot::Sender<Permit>,
}

/// A team's quota at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaSnapshot {
    /// The limits in force.
    pub limits: QuotaLimits,
    /// Queries that hold a place, those inside transactions included.
    pub running: u32,
    /// Queries that wait for one.
    pub queued: u32,
    /// How long the first of them has waited; zero when nobody waits.
    pub oldest_wait: Duration,
    /// Permits given so far.
    pub admitted_total: u64,
    /// Queries that had to wait so far, whatever came of it.
    pub queued_total: u64,
    /// Queries refused for their rate so far.
    pub refused_rate_total: u64,
    /// Queries refused because the queue was full so far.
    pub refused_queue_full_total: u64,
    /// Queries refused after waiting as long as they may so far.
    pub refused_queue_wait_total: u64,
}

impl QuotaSnapshot {
    /// Queries refused so far, for any reason.
    pub fn refused_total(&self) -> u64 {
        self.refused_rate_total + self.refused_queue_full_total + self.refused_queue_wait_total
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quota")
            .field("team", &self.team)
            .field("usage", &self.lock().usage())
            .finish_non_exhaustive()
    }
}

/// What [`Quota::enter`] gives to a query that is not refused.
enum Entered {
    Admitted(Permit),
    Queued {
        ticket: Ticket,
        call: oneshot::Receiver<Permit>,
        patience: Option<Duration>,
    },
}

impl Quota {
    /// A quota of which nothing is used yet at `now`.
    pub fn new(team: TeamName, limits: QuotaLimits, now: Instant) -> Self {
        let state = State {
            limits,
            rate: Rate::new(&limits, now),
            running: 0,
            queue: VecDeque::new(),
            next_ticket: 0,
            totals: Totals::default(),
        };
        Self {
            team,
            state: Mutex::new(state),
        }
    }

    /// Whose quota it is.
    pub fn team(&self) -> &TeamName {
        &self.team
    }

    /// Takes a place for a query that came at `now`, waits for one in the queue, or says why not.
    ///
    /// # Errors
    ///
    /// When the team is over its rate, when the queue is full, or when the query has waited as long as it may.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped, the query leaves the queue, and a place that was just given to it goes to the next. Its place
    /// in the queue is lost; the rate stays charged.
    pub async fn admit(self: &Arc<Self>, now: Instant) -> Result<Permit, QuotaRefusal> {
        let (ticket, mut call, patience) = match self.enter(now)? {
            Entered::Admitted(permit) => return Ok(permit),
            Entered::Queued {
                ticket,
                call,
                patience,
            } => (ticket, call, patience),
        };
        let called = match patience.and_then(|patience| now.checked_add(patience)) {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), &mut call).await.ok(),
            None => Some((&mut call).await),
        };
        // out of the queue: from here nobody calls any more, but one may have called this instant
        drop(ticket);
        match called.and_then(Result::ok).or_else(|| call.try_recv().ok()) {
            Some(mut permit) => {
                permit.waited = tokio::time::Instant::now()
                    .into_std()
                    .saturating_duration_since(now);
                Ok(permit)
            }
            None => Err(self.refuse(&mut self.lock(), RefusalReason::QueueWait, None)),
        }
    }

    /// Takes a place at once, over the limit if need be, for a statement inside an open transaction: it may hold locks
    /// that the queries before it in the queue wait for. It is counted, and charged to the rate as far as there is room.
    pub fn admit_in_transaction(self: &Arc<Self>, now: Instant) -> Permit {
        let mut state = self.lock();
        // charged where possible, refused never
        state.rate.take(now).ok();
        self.permit(&mut state)
    }

    /// Takes other limits. Places that become free by it go to those who wait; those who run or wait already go on, with
    /// the patience they came with. What was used of the rate counts on unless the rate itself changed.
    pub fn reconfigure(self: &Arc<Self>, limits: QuotaLimits, now: Instant) {
        {
            let mut state = self.lock();
            state.limits = limits;
            if !state.rate.fits(&limits) {
                state.rate = Rate::new(&limits, now);
            }
        }
        self.call_waiting();
    }

    /// The state at `now`.
    pub fn snapshot(&self, now: Instant) -> QuotaSnapshot {
        let state = self.lock();
        let Usage { running, queued } = state.usage();
        let totals = state.totals;
        QuotaSnapshot {
            limits: state.limits,
            running,
            queued,
            oldest_wait: state.queue.front().map_or(Duration::ZERO, |waiter| {
                now.saturating_duration_since(waiter.since)
            }),
            admitted_total: totals.admitted,
            queued_total: totals.queued,
            refused_rate_total: totals.refused_rate,
            refused_queue_full_total: totals.refused_queue_full,
            refused_queue_wait_total: totals.refused_queue_wait,
        }
    }

    /// How many queries that came before `since` wait for a place.
    pub fn ahead(&self, since: Instant) -> usize {
        let state = self.lock();
        state
            .queue
            .iter()
            .take_while(|waiter| waiter.since < since)
            .count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, now: Instant) -> Result<Entered, QuotaRefusal> {
        let mut state = self.lock();
        let admission = decide(&state.limits, state.usage());
        if let Admission::Refuse(reason) = admission {
            return Err(self.refuse(&mut state, reason, None));
        }
        // asked last: a query that is refused for another reason does not use up the rate
        if let Err(too_soon) = state.rate.take(now) {
            return Err(self.refuse(&mut state, RefusalReason::Rate, too_soon.retry_after));
        }
        if admission == Admission::Admit {
            return Ok(Entered::Admitted(self.permit(&mut state)));
        }
        let (call, called) = oneshot::channel();
        let number = state.next_ticket;
        state.next_ticket += 1;
        state.totals.queued += 1;
        state.queue.push_back(Waiter {
            ticket: number,
            since: now,
            call,
        });
        let ticket = Ticket {
            quota: Arc::clone(self),
            number,
        };
        Ok(Entered::Queued {
            ticket,
            call: called,
            patience: state.limits.queue_wait,
        })
    }

    fn permit(self: &Arc<Self>, state: &mut State) -> Permit {
        state.running = state.running.saturating_add(1);
        state.totals.admitted += 1;
        Permit {
            quota: Some(Arc::clone(self)),
            waited: Duration::ZERO,
            time_limit: state.limits.query_time,
        }
    }

    fn refuse(
        &self,
        state: &mut State,
        reason: RefusalReason,
        retry_after: Option<Duration>,
    ) -> QuotaRefusal {
        match reason {
            RefusalReason::Rate => state.totals.refused_rate += 1,
            RefusalReason::QueueFull => state.totals.refused_queue_full += 1,
            RefusalReason::QueueWait => state.totals.refused_queue_wait += 1,
        }
        QuotaRefusal {
            team: self.team.clone(),
            reason,
            limits: state.limits,
            usage: state.usage(),
            retry_after,
        }
    }

    /// Gives free places to those who have waited longest.
    fn call_waiting(self: &Arc<Self>) {
        while let Some((call, permit)) = self.next_call() {
            if let Err(mut permit) = call.send(permit) {
                // it left this instant: take the place back here, or dropping the permit would call the next from within
                permit.quota = None;
                let mut state = self.lock();
                state.running = state.running.saturating_sub(1);
                state.totals.admitted -= 1;
            }
        }
    }

    fn next_call(self: &Arc<Self>) -> Option<(oneshot::Sender<Permit>, Permit)> {
        let mut state = self.lock();
        if state
            .limits
            .concurrent_queries
            .is_some_and(|places| state.running >= places)
        {
            return None;
        }
        let waiter = state.queue.pop_front()?;
        Some((waiter.call, self.permit(&mut state)))
    }
}

impl State {
    fn usage(&self) -> Usage {
        Usage {
            running: self.running,
            queued: u32::try_from(self.queue.len()).unwrap_or(u32::MAX),
        }
    }
}

/// The right of one query to run. Dropped, it gives the place to the one who has waited longest.
#[must_use = "dropped, the place is free again"]
pub struct Permit {
    /// `None` once the place was taken back.
    quota: Option<Arc<Quota>>,
    waited: Duration,
    time_limit: Option<Duration>,
}

impl Permit {
    /// How long the query waited for it in the queue.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// How long the query may run from now.
    pub fn time_limit(&self) -> Option<Duration> {
        self.time_limit
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("waited", &self.waited)
            .finish_non_exhaustive()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(quota) = self.quota.take() else { return };
        {
            let mut state = quota.lock();
            state.running = state.running.saturating_sub(1);
        }
        quota.call_waiting();
    }
}

/// A place in the queue. Dropped, it is given up.
struct Ticket {
    quota: Arc<Quota>,
    number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.quota.lock();
        if let Ok(index) = state
            .queue
            .binary_search_by_key(&self.number, |waiter| waiter.ticket)
        {
            state.queue.remove(index);
        }
    }
}

#[cfg(test)]
#[path = "permit_tests.rs"]
mod tests;
