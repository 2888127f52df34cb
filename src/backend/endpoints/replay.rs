//! How far a reader has followed its primary, as a moment: everything that was committed before it is there.

use std::collections::VecDeque;
use std::str::FromStr;
use std::time::Instant;

/// Moments that are remembered: of a reader that is further behind it is not known how far.
const MOMENTS: usize = 1_024;

/// A page of the write-ahead log, and the lengths of the headers that one begins with.
const PAGE: u64 = 8_192;
const HEADERS: [u64; 2] = [24, 40];

/// A position in the write-ahead log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

/// What is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position in the write-ahead log")]
pub struct NotAnLsn;

impl FromStr for Lsn {
    type Err = NotAnLsn;

    /// As PostgreSQL writes it: two hexadecimal numbers of 32 bits, e.g. `16/B374D848`.
    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let (high, low) = text.split_once('/').ok_or(NotAnLsn)?;
        let part = |text| u32::from_str_radix(text, 16).map_err(|_| NotAnLsn);
        Ok(Self((u64::from(part(high)?) << 32) | u64::from(part(low)?)))
    }
}

impl Lsn {
    /// Where a reader is that has all that was written up to here: the place where the next record will begin is behind
    /// the header of its page, and the end of the last one is before it (`GetXLogInsertRecPtr`).
    fn needed(self) -> u64 {
        let within = self.0 % PAGE;
        if HEADERS.contains(&within) {
            self.0 - within
        } else {
            self.0
        }
    }
}

/// Where the primary was, and when.
#[derive(Debug, Default)]
pub struct Replay {
    moments: VecDeque<(Instant, Lsn)>,
}

impl Replay {
    /// Asked at `asked`, the primary said that it had written up to `lsn`: everything committed before `asked` is before
    /// that.
    pub fn note(&mut self, asked: Instant, lsn: Lsn) {
        // a position that goes back is another history: what was known of the one before means nothing
        if self.moments.back().is_some_and(|(_, last)| *last > lsn) {
            self.moments.clear();
        }
        // a primary that rests is where it was, later
        if self.moments.len() >= 2
            && let Some((when, last)) = self.moments.back_mut()
            && *last == lsn
        {
            *when = asked;
            return;
        }
        if self.moments.len() >= MOMENTS {
            self.moments.pop_front();
        }
        self.moments.push_back((asked, lsn));
    }

    /// Nothing is known any more: the primary is another.
    pub fn forget(&mut self) {
        self.moments.clear();
    }

    /// The last moment before which everything was committed that a reader at `lsn` has; `None` when that is not known.
    pub fn caught_up(&self, lsn: Lsn) -> Option<Instant> {
        let reached = self
            .moments
            .iter()
            .rev()
            .find(|(_, written)| written.needed() <= lsn.0);
        reached.map(|(when, _)| *when)
    }

    /// When the primary was asked last.
    pub fn latest(&self) -> Option<Instant> {
        self.moments.back().map(|(when, _)| *when)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn positions_are_read() {
        assert_eq!("16/B374D848".parse(), Ok(Lsn(0x16_B374_D848)));
        assert_eq!("0/0".parse(), Ok(Lsn(0)));
        for text in ["", "16", "16/", "x/1", "1/123456789", "1/2/3"] {
            assert_eq!(text.parse::<Lsn>(), Err(NotAnLsn), "{text}");
        }
    }

    #[test]
    fn a_reader_has_what_was_committed_before_the_moment_that_it_has_reached() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut replay = Replay::default();
        assert_eq!(replay.caught_up(Lsn(u64::MAX)), None);
        for (second, lsn) in [(0, 100), (1, 200), (2, 300), (3, 300), (4, 300)] {
            replay.note(at(second), Lsn(lsn));
        }
        for (lsn, moment) in [
            (99, None),
            (100, Some(at(0))),
            (299, Some(at(1))),
            (300, Some(at(4))),
            (999, Some(at(4))),
        ] {
            assert_eq!(replay.caught_up(Lsn(lsn)), moment, "{lsn}");
        }
        assert_eq!(replay.latest(), Some(at(4)));
        // another history: a reader of the old one has nothing of it that is known
        replay.note(at(5), Lsn(250));
        assert_eq!(replay.caught_up(Lsn(240)), None);
        assert_eq!(replay.caught_up(Lsn(250)), Some(at(5)));
    }

    #[test]
    fn the_header_of_a_page_is_nothing_to_wait_for() {
        let now = Instant::now();
        for (written, replayed, there) in [
            (PAGE + 24, PAGE, true),
            (PAGE + 40, PAGE, true),
            (PAGE + 25, PAGE, false),
            (PAGE + 24, PAGE - 1, false),
        ] {
            let mut replay = Replay::default();
            replay.note(now, Lsn(written));
            assert_eq!(
                replay.caught_up(Lsn(replayed)).is_some(),
                there,
                "{written} {replayed}"
            );
        }
    }

    #[test]
    fn moments_are_bounded() {
        let mut replay = Replay::default();
        for lsn in 0..5_000 {
            replay.note(Instant::now(), Lsn(lsn));
        }
        assert_eq!(replay.moments.len(), MOMENTS);
    }
}
