//! Whether a server is worth being asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first ban.
const FIRST: Duration = Duration::from_secs(1);

/// No ban is longer.
const LONGEST: Duration = Duration::from_mins(1);

/// What is known of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has looked yet.
    Unknown,
    /// It answered when it was asked last.
    Up,
    /// It did not, and gets no queries until it has.
    Down,
}

impl State {
    /// The word of the console.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// One server's health. A failure bans it: it is asked again after a pause that doubles with each failure in a row, from
/// 1 s to 1 min, and gets queries again when it has answered.
#[derive(Clone, Debug)]
pub struct Health {
    state: State,
    failures: u32,
    /// Not to be asked before.
    until: Option<Instant>,
    error: Option<Arc<str>>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            state: State::Unknown,
            failures: 0,
            until: None,
            error: None,
        }
    }
}

impl Health {
    /// It answered. True when it had not before.
    pub fn note_answer(&mut self) -> bool {
        let news = self.state != State::Up;
        *self = Self {
            state: State::Up,
            ..Self::default()
        };
        news
    }

    /// It did not answer. True when it had before.
    pub fn note_failure(&mut self, error: &str, now: Instant) -> bool {
        let news = self.state != State::Down;
        // two requests that fail in the same moment are one failure
        let counted = self.until.is_none_or(|until| now >= until);
        if counted {
            let pause = FIRST
                .saturating_mul(2_u32.saturating_pow(self.failures))
                .min(LONGEST);
            self.failures = self.failures.saturating_add(1);
            self.until = Some(now + pause);
        }
        self.state = State::Down;
        self.error = Some(error.into());
        news
    }

    /// Whether it gets queries.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Whether it is to be asked how it does.
    pub fn is_due(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    /// What is known.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why it did not answer the last time, if it did not.
    pub fn error(&self) -> Option<&Arc<str>> {
        self.error.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_doubles_up_to_a_minute_and_an_answer_ends_it() {
        let mut health = Health::default();
        let mut now = Instant::now();
        assert!(!health.is_up() && health.is_due(now));
        assert!(health.note_answer());
        assert!(!health.note_answer() && health.is_up());
        for (number, seconds) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
            assert_eq!(health.note_failure("refused", now), number == 0);
            // the same failure, met by another request
            health.note_failure("refused", now);
            assert!(!health.is_up());
            assert!(!health.is_due(now + Duration::from_millis(seconds * 1_000 - 1)));
            now += Duration::from_secs(seconds);
            assert!(health.is_due(now));
        }
        assert_eq!(health.error().map(AsRef::as_ref), Some("refused"));
        assert!(health.note_answer());
        assert!(health.is_up() && health.error().is_none());
        health.note_failure("refused", now);
        assert!(health.is_due(now + FIRST));
    }
}
