//! May a connection be opened now? After failures not at once, and not by everybody.
//!
//! A backend that does not answer is tried by one client at a time, after a pause that doubles; when it has failed often
//! enough the circuit is open: clients are refused at once, and only the pool itself tries, in the background. A login
//! that the server refuses is remembered in the same way, for its key alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first pause; each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// What a failure to connect tells of the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody is there, or nobody who speaks the protocol. Enough of them open the circuit.
    Unreachable,
    /// The server answers, but takes no connection of this key now.
    Busy,
    /// The server refuses this key, whatever becomes of others.
    Key,
}

/// How to go on after failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The longest pause between two attempts at a backend, also while the circuit is open.
    pub pause: Duration,
    /// How many failures in a row open the circuit; 0 never does.
    pub circuit_after: u32,
    /// How long a refusal of a key is remembered.
    pub key_pause: Duration,
}

/// Why there is no attempt now.
#[derive(Debug)]
pub struct Hold<E> {
    /// Why the last attempt failed.
    pub last: Arc<E>,
    /// When the next attempt may be made, from now.
    pub retry_in: Duration,
    /// Whether the circuit is open.
    pub circuit_open: bool,
}

impl<E> Clone for Hold<E> {
    fn clone(&self) -> Self {
        Self {
            last: Arc::clone(&self.last),
            ..*self
        }
    }
}

/// Whether requests are refused at once because the backend is gone.
#[derive(Debug)]
pub enum Circuit<E> {
    /// Connections are opened as they are needed.
    Closed,
    /// Nobody but the pool itself tries.
    Open {
        /// Since when.
        since: Instant,
        /// Why the last attempt failed.
        last: Arc<E>,
    },
}

impl<E> Circuit<E> {
    /// Whether requests are refused.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

/// Who wants to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Client,
    Pool,
}

/// The right to try. One that is `Sole` has to be given back to its gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Nothing failed last; many may try.
    Free,
    /// One may try, to find out.
    Sole,
}

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Opened,
    Closed,
}

enum Phase<E> {
    /// The last attempt succeeded, or there was none.
    Sound,
    /// The last attempt failed.
    Failing {
        open_since: Option<Instant>,
        trial: Trial<E>,
    },
}

struct Trial<E> {
    last: Arc<E>,
    failed: Instant,
    until: Instant,
    trying: bool,
    failures: u32,
}

/// Opens and closes with what becomes of attempts.
pub(super) struct Gate<E> {
    phase: Phase<E>,
}

impl<E> Gate<E> {
    pub(super) fn new() -> Self {
        Self { phase: Phase::Sound }
    }

    pub(super) fn is_sound(&self) -> bool {
        matches!(self.phase, Phase::Sound)
    }

    pub(super) fn circuit(&self) -> Circuit<E> {
        match &self.phase {
            Phase::Failing {
                open_since: Some(since),
                trial,
            } => Circuit::Open {
                since: *since,
                last: Arc::clone(&trial.last),
            },
            Phase::Sound | Phase::Failing { open_since: None, .. } => Circuit::Closed,
        }
    }

    /// Why `who` may not try now.
    pub(super) fn hold(&self, who: Who, now: Instant) -> Option<Hold<E>> {
        let Phase::Failing { open_since, trial } = &self.phase else {
            return None;
        };
        let shut = who == Who::Client && open_since.is_some();
        (shut || trial.trying || now < trial.until).then(|| Hold {
            last: Arc::clone(&trial.last),
            retry_in: trial.until.saturating_duration_since(now),
            circuit_open: open_since.is_some(),
        })
    }

    /// Lets somebody try whom [`Self::hold`] does not hold.
    pub(super) fn enter(&mut self) -> Pass {
        match &mut self.phase {
            Phase::Sound => Pass::Free,
            Phase::Failing { trial, .. } => {
                trial.trying = true;
                Pass::Sole
            }
        }
    }

    /// An attempt was given up.
    pub(super) fn leave(&mut self, pass: Pass) {
        if let (Pass::Sole, Phase::Failing { trial, .. }) = (pass, &mut self.phase) {
            trial.trying = false;
        }
    }

    pub(super) fn succeeded(&mut self) -> Option<Turn> {
        let was_open = self.circuit().is_open();
        self.phase = Phase::Sound;
        was_open.then_some(Turn::Closed)
    }

    /// The next attempt may be made at once.
    pub(super) fn forgive(&mut self, now: Instant) {
        if let Phase::Failing { trial, .. } = &mut self.phase {
            trial.until = now;
        }
    }

    /// An attempt that began at `began` failed. The next may be made after a pause of `pause`, after the first failures a
    /// shorter one. Attempts that were under way together count as one.
    pub(super) fn failed(
        &mut self,
        error: &Arc<E>,
        (began, now): (Instant, Instant),
        pauses: Pauses,
    ) -> Option<Turn> {
        let (open_since, failures) = match &self.phase {
            Phase::Sound => (None, 1),
            Phase::Failing { open_since, trial } if began < trial.failed => (*open_since, trial.failures),
            Phase::Failing { open_since, trial } => (*open_since, trial.failures.saturating_add(1)),
        };
        let opens = open_since.is_none() && pauses.opens_after.is_some_and(|count| failures >= count);
        let open_since = if opens { Some(now) } else { open_since };
        let pause = if open_since.is_some() {
            pauses.longest
        } else {
            pauses.after(failures)
        };
        self.phase = Phase::Failing {
            open_since,
            trial: Trial {
                last: Arc::clone(error),
                failed: now,
                until: now + pause,
                trying: false,
                failures,
            },
        };
        opens.then_some(Turn::Opened)
    }
}

/// How long to wait after failures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    first: Duration,
    longest: Duration,
    opens_after: Option<u32>,
    /// Of the pause, so much is left out: 0 to 500 thousandths.
    jitter: u32,
}

impl Pauses {
    /// Those of a backend that does not answer.
    pub(super) fn unreachable(retry: &Retry, jitter: u32) -> Self {
        Self {
            opens_after: (retry.circuit_after > 0).then_some(retry.circuit_after),
            ..Self::busy(retry, jitter)
        }
    }

    /// Those of a key that gets no connection now.
    pub(super) fn busy(retry: &Retry, jitter: u32) -> Self {
        Self {
            first: FIRST_PAUSE.min(retry.pause),
            longest: retry.pause,
            opens_after: None,
            jitter: jitter.min(500),
        }
    }

    /// Those of a key: the server has said no, and will not say yes because it is asked more often.
    pub(super) fn key(retry: &Retry) -> Self {
        Self {
            first: retry.key_pause,
            longest: retry.key_pause,
            opens_after: None,
            jitter: 0,
        }
    }

    fn after(&self, failures: u32) -> Duration {
        let doubled = failures.saturating_sub(1).min(20);
        let whole = self.first.saturating_mul(1 << doubled).min(self.longest);
        whole.saturating_sub(whole / 1000 * self.jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry {
        pause: Duration::from_secs(5),
        circuit_after: 3,
        key_pause: Duration::from_secs(15),
    };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_jitter_only_shortens() {
        let pauses = Pauses::unreachable(&RETRY, 0);
        for (failures, pause) in [
            (1, 100),
            (2, 200),
            (3, 400),
            (6, 3200),
            (7, 5000),
            (u32::MAX, 5000),
        ] {
            assert_eq!(pauses.after(failures), ms(pause), "{failures}");
            let hurried = Pauses::busy(&RETRY, 9_999).after(failures);
            assert_eq!(hurried, ms(pause) / 2, "{failures}");
        }
        assert_eq!(Pauses::key(&RETRY).after(1), ms(15_000));
        let impatient = Retry {
            pause: ms(30),
            ..RETRY
        };
        assert_eq!(Pauses::busy(&impatient, 0).after(1), ms(30));
    }

    #[test]
    fn one_at_a_time_tries_after_a_pause_and_the_circuit_opens_and_closes() {
        let start = Instant::now();
        let at = |millis| start + ms(millis);
        let pauses = Pauses::unreachable(&RETRY, 0);
        let mut gate = Gate::new();
        assert_eq!((gate.enter(), gate.enter()), (Pass::Free, Pass::Free));
        assert_eq!(gate.failed(&Arc::new("first"), (at(0), at(10)), pauses), None);
        // the other was under way already and tells nothing new
        assert_eq!(gate.failed(&Arc::new("with it"), (at(5), at(10)), pauses), None);
        let hold = gate.hold(Who::Client, at(50)).unwrap();
        assert_eq!(
            (*hold.last, hold.retry_in, hold.circuit_open),
            ("with it", ms(60), false)
        );
        assert!(gate.hold(Who::Client, at(110)).is_none());
        let pass = gate.enter();
        assert_eq!(pass, Pass::Sole);
        assert!(gate.hold(Who::Client, at(120)).is_some(), "one is trying");
        gate.leave(pass);
        assert!(gate.hold(Who::Client, at(120)).is_none(), "it gave up");
        gate.enter();
        assert_eq!(gate.failed(&Arc::new("second"), (at(120), at(130)), pauses), None);
        assert_eq!(gate.hold(Who::Client, at(130)).unwrap().retry_in, ms(200));
        assert_eq!(
            gate.failed(&Arc::new("third"), (at(330), at(330)), pauses),
            Some(Turn::Opened)
        );
        assert!(gate.circuit().is_open());
        // clients never try, the pool does once in a while
        assert!(gate.hold(Who::Pool, at(5_000)).is_some());
        assert!(gate.hold(Who::Client, at(60_000)).unwrap().circuit_open);
        assert!(gate.hold(Who::Pool, at(5_330)).is_none());
        gate.enter();
        assert_eq!(
            gate.failed(&Arc::new("fourth"), (at(5_330), at(5_340)), pauses),
            None,
            "told once"
        );
        assert_eq!(gate.succeeded(), Some(Turn::Closed));
        assert!(gate.is_sound() && gate.hold(Who::Client, at(5_340)).is_none());
    }

    #[test]
    fn a_server_that_answers_does_not_open_the_circuit() {
        let now = Instant::now();
        let never = Retry {
            circuit_after: 0,
            ..RETRY
        };
        for pauses in [
            Pauses::busy(&RETRY, 0),
            Pauses::key(&RETRY),
            Pauses::unreachable(&never, 0),
        ] {
            let mut gate = Gate::new();
            for round in 0..20 {
                let then = now + ms(round);
                assert_eq!(gate.failed(&Arc::new("no"), (then, then), pauses), None);
            }
            gate.forgive(now);
            assert!(gate.hold(Who::Client, now).is_none(), "{pauses:?}");
        }
    }
}
