//! Scripts of messages, `sql-fixtures/wire/*.pt`, and their answers as text. `sql-fixtures/README.md` describes the form.

mod message;
mod render;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use self::render::REPLIES;
pub(crate) use self::render::{columns, rendered};
use crate::support::frames::Frames;
use crate::support::wire::{Message, Reply, Wire};

/// The client of a step that names none.
const FIRST: char = 'A';

/// A script.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// The comment at its beginning, as written.
    pub(crate) head: String,
    /// What is run beforehand, once.
    pub(crate) setup: String,
    pub(crate) steps: Vec<Step>,
}

/// What one client does, and what is awaited.
#[derive(Debug)]
pub(crate) struct Step {
    /// The first line, as written.
    line: String,
    /// The messages or the startup parameters, as written.
    text: String,
    client: char,
    act: Act,
    pub(crate) expected: String,
}

#[derive(Debug)]
enum Act {
    /// Begins a session with startup parameters.
    Connect(Vec<(String, String)>),
    /// Sends what belongs together.
    Send { bytes: Vec<u8>, until: Until },
}

#[derive(Debug)]
enum Until {
    /// These replies, one directly after the other, so many times.
    Replies {
        tags: Vec<u8>,
        times: usize,
        or_error: bool,
    },
    Nothing,
    End,
}

impl Step {
    /// Whether `reply` ends as what is awaited does, and not because the session ended.
    pub(crate) fn is_answered_by(&self, reply: &Reply) -> bool {
        let Act::Send {
            until: Until::Replies { tags, or_error, .. },
            ..
        } = &self.act
        else {
            return true;
        };
        let last = reply.0.iter().rev().map(|reply| reply.tag);
        let failed = || reply.0.last().is_none_or(|reply| reply.tag == b'E');
        last.take(tags.len()).eq(tags.iter().rev().copied()) || (*or_error && failed())
    }
}

/// Where a script is played.
pub(crate) trait Venue {
    /// A new session.
    ///
    /// # Errors
    ///
    /// The server's error.
    fn connect(&mut self, parameters: &[(&str, &str)]) -> Result<Wire, Message>;

    /// Called between two steps when no transaction is open.
    fn between(&mut self) {}
}

/// A client while its script is played.
struct Player {
    wire: Wire,
    /// An error has ended what was sent before the next Sync.
    failed: bool,
    /// The last reply said that no transaction is open.
    idle: bool,
}

impl Player {
    fn new(wire: Wire) -> Self {
        Self {
            wire,
            failed: false,
            idle: true,
        }
    }

    /// Reads what `until` waits for.
    fn await_replies(&mut self, until: &Until) -> Reply {
        let mut replies: Vec<Message> = Vec::new();
        let mut missing = match until {
            Until::Nothing => 0,
            Until::Replies { or_error: true, .. } if self.failed => 0,
            Until::Replies { times, .. } => *times,
            Until::End => usize::MAX,
        };
        while missing > 0 {
            let Some(message) = self.wire.read() else { break };
            let tag = message.tag;
            self.failed = tag == b'E' || (self.failed && tag != b'Z');
            self.idle = tag == b'Z' && message.body == b"I";
            replies.push(message);
            if let Until::Replies { tags, or_error, .. } = until {
                let last = replies.iter().rev().map(|reply| reply.tag);
                if last.take(tags.len()).eq(tags.iter().rev().copied()) {
                    missing -= 1;
                }
                if *or_error && tag == b'E' {
                    missing = 0;
                }
            }
        }
        Reply(replies)
    }
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    ///
    /// Says which line is wrong.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut script = Self::default();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next_if(|line| line.starts_with('#')) {
            script.head.push_str(line);
            script.head.push('\n');
        }
        while let Some(line) = lines.next() {
            if line.is_empty() {
                continue;
            }
            let mut block = String::new();
            for line in lines.by_ref() {
                if line == "----" {
                    break;
                }
                block.push_str(line);
                block.push('\n');
            }
            let mut expected = String::new();
            while let Some(line) = lines.next_if(|line| !line.is_empty()) {
                expected.push_str(line);
                expected.push('\n');
            }
            if line == "setup" {
                script.setup.push_str(&block);
            } else {
                script.steps.push(Step::read(line, block, expected)?);
            }
        }
        Ok(script)
    }

    /// The value of the line `# name: value` at the beginning.
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        self.settings(name).next()
    }

    /// The values of all such lines.
    pub(crate) fn settings(&self, name: &str) -> impl Iterator<Item = &str> {
        self.head
            .lines()
            .filter_map(move |line| line.strip_prefix("# ")?.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Whether more than one client takes part.
    pub(crate) fn has_several_clients(&self) -> bool {
        self.steps.iter().any(|step| step.client != FIRST)
    }

    /// Plays all steps; what a client sends at once goes out in pieces whose lengths are `pieces`, again and again. The
    /// answers go to `replies`; the first client is given back when it is still there.
    pub(crate) fn play(
        &self,
        venue: &mut dyn Venue,
        pieces: &[usize],
        replies: &mut Vec<Reply>,
    ) -> Option<Wire> {
        let mut players: BTreeMap<char, Player> = BTreeMap::new();
        let mut pieces = pieces.iter().copied().cycle();
        for step in &self.steps {
            if players.values().all(|player| player.idle) {
                venue.between();
            }
            let reply = match &step.act {
                Act::Connect(parameters) => {
                    players.remove(&step.client);
                    let list: Vec<(&str, &str)> = parameters
                        .iter()
                        .map(|(name, value)| (name.as_str(), value.as_str()))
                        .collect();
                    match venue.connect(&list) {
                        Ok(wire) => {
                            let told = greeting(&wire, &list);
                            players.insert(step.client, Player::new(wire));
                            told
                        }
                        Err(error) => Reply(vec![error]),
                    }
                }
                Act::Send { bytes, until } => {
                    let player = players.entry(step.client).or_insert_with(|| {
                        Player::new(
                            venue
                                .connect(&[])
                                .unwrap_or_else(|error| panic!("the login is refused: {error:?}")),
                        )
                    });
                    let mut rest = bytes.as_slice();
                    while !rest.is_empty() {
                        let length = pieces.next().unwrap_or(usize::MAX).clamp(1, rest.len());
                        let (piece, tail) = rest.split_at(length);
                        let sent = player.wire.try_send(piece);
                        if sent.is_err() && matches!(until, Until::End) {
                            // who has heard a farewell need not wait for what is behind it
                            break;
                        }
                        sent.expect("the server takes it");
                        player.idle = false;
                        rest = tail;
                    }
                    let reply = player.await_replies(until);
                    if matches!(until, Until::End) {
                        players.remove(&step.client);
                    }
                    reply
                }
            };
            replies.push(reply);
        }
        players.remove(&FIRST).map(|player| player.wire)
    }

    /// The script with `replies` as what is expected.
    pub(crate) fn rewritten(&self, replies: &[Reply]) -> String {
        let mut text = self.head.clone();
        if !self.setup.is_empty() {
            write!(text, "\nsetup\n{}----\n", self.setup).expect("a text");
        }
        for (step, reply) in self.steps.iter().zip(replies) {
            write!(text, "\n{}\n{}----\n{}", step.line, step.text, rendered(reply)).expect("a text");
        }
        text
    }
}

/// What the server says of the settings that a client asks for at its start, by name.
fn greeting(wire: &Wire, parameters: &[(&str, &str)]) -> Reply {
    let mut told: Vec<Message> = wire
        .greeting
        .messages
        .iter()
        .filter(|message| message.tag == b'S')
        .filter(|message| {
            parameters
                .iter()
                .any(|(name, _)| message.texts()[0].eq_ignore_ascii_case(name))
        })
        .cloned()
        .collect();
    told.sort_by_key(Message::texts);
    Reply(told)
}

impl Step {
    fn read(line: &str, text: String, expected: String) -> Result<Self, String> {
        let (client, what) = match line.split_once(' ') {
            Some((name, rest)) if name.len() == 1 && name.starts_with(|c: char| c.is_ascii_uppercase()) => {
                (name.chars().next().unwrap_or(FIRST), rest)
            }
            _ => (FIRST, line),
        };
        let act = if what == "connect" {
            let parameters: Option<Vec<(String, String)>> = text
                .lines()
                .map(|line| {
                    let (name, value) = line.split_once(" = ")?;
                    Some((name.to_owned(), value.to_owned()))
                })
                .collect();
            Act::Connect(parameters.ok_or_else(|| format!("not startup parameters: {text}"))?)
        } else {
            let until = Until::read(what).ok_or_else(|| format!("not a step: {line}"))?;
            let mut frames = Frames::new();
            for line in text.lines() {
                frames =
                    message::add(frames, line).ok_or_else(|| format!("not a message of a client: {line}"))?;
            }
            Act::Send {
                bytes: frames.to_vec(),
                until,
            }
        };
        Ok(Self {
            line: line.to_owned(),
            text,
            client,
            act,
            expected,
        })
    }
}

impl Until {
    fn read(line: &str) -> Option<Self> {
        match line {
            "send" => {
                return Some(Self::Replies {
                    tags: vec![b'Z'],
                    times: 1,
                    or_error: false,
                });
            }
            "send and go on" => return Some(Self::Nothing),
            "send until the end" => return Some(Self::End),
            _ => {}
        }
        let names = line.strip_prefix("send until ")?;
        let (names, or_error) = names
            .strip_suffix(" or an error")
            .map_or((names, false), |names| (names, true));
        let (times, names) = match names.split_once(' ') {
            Some((times, rest)) if times.starts_with(|c: char| c.is_ascii_digit()) => {
                (times.parse().ok()?, rest)
            }
            _ => (1, names),
        };
        let tags: Option<Vec<u8>> = names
            .split(' ')
            .map(|name| {
                REPLIES
                    .iter()
                    .find_map(|(tag, known)| (*known == name).then_some(*tag))
            })
            .collect();
        Some(Self::Replies {
            tags: tags?,
            times,
            or_error,
        })
    }
}
