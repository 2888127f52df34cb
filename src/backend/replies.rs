//! What a backend still owes: a queue of expected replies, pure.
//!
//! A connection may be given back only when the queue is empty, every extended message was followed by a Sync, and the
//! last ReadyForQuery said idle. Replies to what the gateway asked for itself are hidden from the client. Source:
//! <https://www.postgresql.org/docs/current/protocol-flow.html>, and for what a server skips after an error
//! `ignore_till_sync` in its `postgres.c`.

use std::collections::VecDeque;

use super::statements::StatementNumber;
use crate::wire::TransactionStatus;

/// A message that was sent and is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `Q`: anything, then ReadyForQuery.
    Query,
    /// `F`.
    FunctionCall,
    /// `P`; of a shared statement where it has a number.
    Parse(Option<StatementNumber>),
    /// `B`.
    Bind,
    /// `D` of a statement, a shared one where it has a number: two replies.
    DescribeStatement(Option<StatementNumber>),
    /// `D` of a portal.
    DescribePortal,
    /// `E`.
    Execute,
    /// `C`; of a shared statement where it has a number.
    Close(Option<StatementNumber>),
    /// `S`.
    Sync,
    /// `c` or `f`, sent before the server was seen to read COPY data: it has no answer, and tells which Sync is ignored.
    CopyEnd,
}

/// Who asked, and so who gets the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The client: relayed.
    Client,
    /// The gateway: hidden. An error is relayed all the same, since it ends what the client asked for.
    Gateway,
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is for the client.
    Relay,
    /// It answers the gateway.
    Hide,
}

/// A reply that nothing asked for: the connection cannot be trusted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the backend sent a message of type {0:?} that nothing asked for")]
pub struct Unexpected(pub char);

/// The replies that are still to come.
#[derive(Debug, Default)]
pub struct Replies {
    queue: VecDeque<(Asked, Asker)>,
    /// Extended messages were sent since the last Sync.
    unsynced: bool,
    /// An error was seen and no Sync has been sent yet: the server ignores what comes.
    skipping: bool,
    /// The server reads COPY data in the extended protocol, and ignores a Sync.
    copying_in: bool,
}

impl Replies {
    /// Notes that a message was sent.
    pub fn sent(&mut self, asked: Asked, asker: Asker) {
        match asked {
            Asked::Sync => {
                if self.copying_in {
                    return;
                }
                self.skipping = false;
                self.unsynced = false;
            }
            Asked::Query | Asked::FunctionCall => self.unsynced = self.skipping,
            Asked::Parse(_)
            | Asked::Bind
            | Asked::DescribeStatement(_)
            | Asked::DescribePortal
            | Asked::Execute
            | Asked::Close(_) => self.unsynced = true,
            Asked::CopyEnd => return self.copy_ended(),
        }
        if !self.skipping {
            self.queue.push_back((asked, asker));
        }
    }

    /// Notes that a CopyDone or a CopyFail was sent: from here on a Sync counts again.
    pub fn copy_ended(&mut self) {
        let ahead = self.queue.iter().any(|(asked, _)| *asked == Asked::Execute);
        if !self.copying_in && ahead && !self.skipping {
            self.queue.push_back((Asked::CopyEnd, Asker::Client));
        }
        self.copying_in = false;
    }

    /// What the next frame answers, unless it is one that comes at any time.
    pub fn awaited(&self) -> Option<Asked> {
        self.queue.front().map(|(asked, _)| *asked)
    }

    /// Takes the tag of a frame that came.
    ///
    /// # Errors
    ///
    /// Nothing asked for it.
    pub fn seen(&mut self, tag: u8) -> Result<Fate, Unexpected> {
        // at any time: notice, parameter, notification
        if matches!(tag, b'N' | b'S' | b'A') {
            return Ok(Fate::Relay);
        }
        let Some(&(asked, asker)) = self.queue.front() else {
            return self.seen_unasked(tag);
        };
        let fate = match asker {
            Asker::Client => Fate::Relay,
            Asker::Gateway => Fate::Hide,
        };
        if tag == b'E' {
            self.failed(asked);
            return Ok(Fate::Relay);
        }
        let step = match asked {
            Asked::Query => match tag {
                b'T' | b'D' | b'C' | b'I' | b'G' | b'H' | b'W' | b'd' | b'c' => Step::More,
                b'Z' => Step::Done,
                _ => Step::Wrong,
            },
            Asked::FunctionCall => match tag {
                b'V' => Step::More,
                b'Z' => Step::Done,
                _ => Step::Wrong,
            },
            Asked::Parse(_) => done_if(tag == b'1'),
            Asked::Bind => done_if(tag == b'2'),
            Asked::Close(_) => done_if(tag == b'3'),
            Asked::DescribeStatement(_) => match tag {
                b't' => Step::More,
                b'T' | b'n' => Step::Done,
                _ => Step::Wrong,
            },
            Asked::DescribePortal => done_if(matches!(tag, b'T' | b'n')),
            Asked::Execute => match tag {
                b'D' | b'H' | b'W' | b'd' | b'c' => Step::More,
                b'G' => {
                    self.copy_begins();
                    Step::More
                }
                b'C' | b'I' | b's' => Step::Done,
                _ => Step::Wrong,
            },
            Asked::Sync => done_if(tag == b'Z'),
            Asked::CopyEnd => Step::Wrong,
        };
        match step {
            Step::More => {}
            Step::Done => {
                self.queue.pop_front();
                // there was no COPY for it to end
                while matches!(self.queue.front(), Some((Asked::CopyEnd, _))) {
                    self.queue.pop_front();
                }
            }
            Step::Wrong => return Err(Unexpected(char::from(tag))),
        }
        Ok(fate)
    }

    /// Whether nothing is owed: every reply came and every extended message was closed by a Sync.
    pub fn settled(&self) -> bool {
        self.queue.is_empty() && !self.unsynced && !self.skipping
    }

    /// Whether the server ignores what comes, up to a Sync.
    pub fn skips(&self) -> bool {
        self.skipping
    }

    /// Whether every reply came; the client may still have to send a Sync.
    pub fn drained(&self) -> bool {
        self.queue.is_empty()
    }

    fn seen_unasked(&mut self, tag: u8) -> Result<Fate, Unexpected> {
        match tag {
            // a COPY that failed before it read the Sync behind it: the server took that Sync for its own
            b'Z' if self.skipping => {
                self.skipping = false;
                self.unsynced = false;
                Ok(Fate::Relay)
            }
            // the server says why it closes the connection
            b'E' => Ok(Fate::Relay),
            _ => Err(Unexpected(char::from(tag))),
        }
    }

    fn failed(&mut self, asked: Asked) {
        match asked {
            // ReadyForQuery follows
            Asked::Query | Asked::FunctionCall | Asked::Sync | Asked::CopyEnd => {}
            Asked::Parse(_)
            | Asked::Bind
            | Asked::DescribeStatement(_)
            | Asked::DescribePortal
            | Asked::Execute
            | Asked::Close(_) => {
                self.copying_in = false;
                let sync = self.queue.iter().position(|(asked, _)| *asked == Asked::Sync);
                self.queue.drain(..sync.unwrap_or(self.queue.len()));
                self.skipping = sync.is_none();
            }
        }
    }

    /// The server now reads COPY data, and swallows the Syncs that were sent behind the Execute, up to the end of the
    /// data.
    fn copy_begins(&mut self) {
        while self.queue.get(1).is_some_and(|(asked, _)| *asked == Asked::Sync) {
            self.queue.remove(1);
        }
        self.copying_in = !matches!(self.queue.get(1), Some((Asked::CopyEnd, _)));
        if !self.copying_in {
            self.queue.remove(1);
        }
        self.unsynced = !matches!(self.queue.back(), Some((Asked::Sync, _)));
    }
}

enum Step {
    More,
    Done,
    Wrong,
}

fn done_if(right: bool) -> Step {
    if right { Step::Done } else { Step::Wrong }
}

/// Whether a connection in this state can serve somebody else.
pub(super) fn at_rest(replies: &Replies, status: TransactionStatus) -> bool {
    replies.settled() && status == TransactionStatus::Idle
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends what the upper-case letters of `sent` stand for (`d` describes a statement, `x` ends a COPY), takes the
    /// tags of `replies`, and tells each one's fate: `r`elayed, `h`idden, `!` unexpected; then whether all is settled.
    fn transcript(sent: &str, seen: &str) -> String {
        let mut replies = Replies::default();
        let mut asker = Asker::Client;
        for letter in sent.chars() {
            let asked = match letter {
                'Q' => Asked::Query,
                'F' => Asked::FunctionCall,
                'P' => Asked::Parse(None),
                'B' => Asked::Bind,
                'd' => Asked::DescribeStatement(None),
                'D' => Asked::DescribePortal,
                'E' => Asked::Execute,
                'C' => Asked::Close(None),
                'S' => Asked::Sync,
                'x' => Asked::CopyEnd,
                _ => {
                    asker = Asker::Gateway;
                    continue;
                }
            };
            replies.sent(asked, asker);
            asker = Asker::Client;
        }
        let fates = run(&mut replies, seen);
        format!("{fates} {}", if replies.settled() { "settled" } else { "open" })
    }

    fn run(replies: &mut Replies, seen: &str) -> String {
        seen.bytes()
            .map(|tag| match replies.seen(tag) {
                Ok(Fate::Relay) => 'r',
                Ok(Fate::Hide) => 'h',
                Err(_) => '!',
            })
            .collect()
    }

    #[test]
    fn each_reply_answers_what_was_sent() {
        for (sent, seen, expected) in [
            ("Q", "TDDCZ", "rrrrr settled"),
            ("Q", "TDDC", "rrrr open"),
            ("Q", "TDCIGdcEZ", "rrrrrrrrr settled"),
            ("QQ", "CZ", "rr open"),
            ("QQ", "CZTCZ", "rrrrr settled"),
            ("F", "VZ", "rr settled"),
            ("PBDES", "12TDDCZ", "rrrrrrr settled"),
            ("PdS", "1tTZ", "rrrr settled"),
            ("PdS", "1tnZ", "rrrr settled"),
            ("PBE", "12DC", "rrrr open"),
            ("BES", "2DsZ", "rrrr settled"),
            ("BES", "2IZ", "rrr settled"),
            ("CS", "3Z", "rr settled"),
            // asynchronous messages anywhere
            ("PBES", "N1S2DNCAZ", "rrrrrrrrr settled"),
            // what the gateway asked for itself is hidden, an error of it is not
            (".PBES", "12DCZ", "hrrrr settled"),
            (".PBES", "EZ", "rr settled"),
            ("P.DES", "1TDCZ", "rhrrr settled"),
            // an error skips to the next Sync, and only to that
            ("PBESPBES", "E", "r open"),
            ("PBESPBES", "EZ12CZ", "rrrrrr settled"),
            ("PBES", "12DEZ", "rrrrr settled"),
            ("PBES", "12CEZ", "rrrrr settled"),
            // without a Sync nothing settles
            ("PBE", "E", "r open"),
            ("", "", " settled"),
            // replies that nobody asked for
            ("", "Z", "! settled"),
            ("PS", "2", "! open"),
            ("BS", "1", "! open"),
            ("S", "T", "! open"),
            ("", "D", "! settled"),
            ("", "E", "r settled"),
        ] {
            assert_eq!(transcript(sent, seen), expected, "{sent} answered by {seen}");
        }
    }

    #[test]
    fn after_an_error_without_a_sync_everything_is_ignored_until_one_comes() {
        let mut replies = Replies::default();
        replies.sent(Asked::Parse(None), Asker::Client);
        assert_eq!(run(&mut replies, "E"), "r");
        for asked in [Asked::Bind, Asked::Execute, Asked::Query] {
            replies.sent(asked, Asker::Client);
        }
        assert!(replies.drained() && !replies.settled());
        replies.sent(Asked::Sync, Asker::Client);
        assert_eq!(run(&mut replies, "Z"), "r");
        assert!(replies.settled());
    }

    #[test]
    fn a_copy_in_the_extended_protocol_swallows_the_sync_behind_it() {
        let mut replies = Replies::default();
        for asked in [Asked::Parse(None), Asked::Bind, Asked::Execute, Asked::Sync] {
            replies.sent(asked, Asker::Client);
        }
        assert_eq!(run(&mut replies, "12G"), "rrr");
        replies.sent(Asked::Sync, Asker::Client);
        replies.copy_ended();
        assert_eq!(run(&mut replies, "C"), "r");
        assert!(replies.drained() && !replies.settled(), "a Sync is still owed");
        replies.sent(Asked::Sync, Asker::Client);
        assert_eq!(run(&mut replies, "Z"), "r");
        assert!(replies.settled());
    }

    #[test]
    fn a_copy_whose_end_was_sent_before_its_beginning_was_seen_ignores_the_syncs_between() {
        for (sent, seen) in [
            ("PBESxS", "12GCZ"),
            ("PBExS", "12GCZ"),
            ("PBESSxS", "12GCZ"),
            // it fails by its data
            ("PBESxS", "12GEZ"),
            // it does not begin
            ("PBESxS", "12EZZ"),
            // it was no COPY at all
            ("PBExS", "12CZ"),
            ("PBESxS", "12CZZ"),
        ] {
            let fates = "r".repeat(seen.len());
            assert_eq!(
                transcript(sent, seen),
                format!("{fates} settled"),
                "{sent} answered by {seen}"
            );
        }
    }

    #[test]
    fn a_copy_that_fails_waits_for_the_sync_or_takes_the_one_it_did_not_read() {
        for (later_sync, seen) in [(true, "Z"), (false, "Z")] {
            let mut replies = Replies::default();
            for asked in [Asked::Parse(None), Asked::Bind, Asked::Execute, Asked::Sync] {
                replies.sent(asked, Asker::Client);
            }
            assert_eq!(run(&mut replies, "12GE"), "rrrr");
            assert!(!replies.settled());
            if later_sync {
                replies.copy_ended();
                replies.sent(Asked::Sync, Asker::Client);
            }
            assert_eq!(run(&mut replies, seen), "r");
            assert!(replies.settled());
        }
    }
}
