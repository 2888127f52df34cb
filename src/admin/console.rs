//! One administrator's console: text in, answer out, in either protocol.

use std::borrow::Cow;
use std::sync::Arc;

use super::command::{AdminCommand, COMMANDS, ConsoleState, usage};
use super::courtesy::{self, Courtesy};
use super::error::ConsoleError;
use super::moment::Moment;
use super::words::{NotOne, Words};
use crate::error::ClientError;
use crate::pipeline::{Answer, Commands, Gateway};
use crate::telemetry::event::ConsoleCommand;
use crate::types::UserName;
use crate::wire::Column;

/// No command is longer, however much comment stands around it.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// The console as one administrator's session sees it.
pub struct Console {
    gateway: Arc<Gateway>,
    user: UserName,
}

/// What a text asks for.
enum Meant {
    /// Nothing: it is empty.
    Nothing,
    /// A command of the console.
    Command(&'static dyn AdminCommand),
    /// What drivers send of themselves.
    Courtesy(Courtesy),
}

impl Console {
    /// The console of `user`, who must be an administrator.
    pub fn new(gateway: Arc<Gateway>, user: UserName) -> Self {
        Self { gateway, user }
    }
}

impl Commands for Console {
    fn columns(&self, text: &[u8]) -> Result<Option<&'static [Column]>, Box<dyn ClientError>> {
        let text = legible(text)?;
        let columns = match meant(&words(&text)?)? {
            Meant::Nothing => &[],
            Meant::Command(command) => command.columns().wire,
            Meant::Courtesy(courtesy) => courtesy.columns(),
        };
        Ok((!columns.is_empty()).then_some(columns))
    }

    fn run(&mut self, text: &[u8]) -> Result<Option<Answer>, Box<dyn ClientError>> {
        let text = legible(text)?;
        let words = words(&text)?;
        let state = ConsoleState {
            gateway: &self.gateway,
            user: &self.user,
            now: Moment::now(),
        };
        match meant(&words)? {
            Meant::Nothing => Ok(None),
            Meant::Command(command) => {
                let answer = answer(command, &state, &words);
                ConsoleCommand {
                    user: &self.user,
                    command: command.name(),
                    arguments: words.after(command.name()).written(),
                    sqlstate: answer.as_ref().err().map(ClientError::sqlstate),
                }
                .emit();
                Ok(Some(answer?))
            }
            Meant::Courtesy(courtesy) => Ok(Some(courtesy.answer(&self.user))),
        }
    }
}

/// The text as characters. What is no UTF-8 is no command either, and is shown as far as it can be.
fn legible(text: &[u8]) -> Result<Cow<'_, str>, ConsoleError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(ConsoleError::TooLong {
            limit: MAX_TEXT_BYTES,
        });
    }
    Ok(String::from_utf8_lossy(text))
}

fn words(text: &str) -> Result<Words<'_>, ConsoleError> {
    Words::of(text).map_err(|error| match error {
        NotOne::Several => ConsoleError::SeveralCommands,
    })
}

fn meant(words: &Words<'_>) -> Result<Meant, ConsoleError> {
    if words.is_empty() {
        return Ok(Meant::Nothing);
    }
    let command = COMMANDS.iter().find(|command| words.begin_with(command.name()));
    if let Some(command) = command {
        return Ok(Meant::Command(*command));
    }
    match courtesy::to(words) {
        Some(courtesy) => Ok(Meant::Courtesy(courtesy)),
        None => Err(ConsoleError::NoCommand {
            text: words.beginning(),
            meant: closest(words),
        }),
    }
}

fn answer(
    command: &dyn AdminCommand,
    state: &ConsoleState<'_>,
    words: &Words<'_>,
) -> Result<Answer, ConsoleError> {
    let arguments = words.after(command.name());
    if command.arguments().is_empty() && !arguments.is_empty() {
        return Err(ConsoleError::Arguments {
            name: command.name(),
            given: arguments.written().to_owned(),
            usage: usage(command),
        });
    }
    let rows = command.run(state, &arguments)?;
    let tag = command.name().split(' ').next().unwrap_or_default();
    Ok(Answer {
        columns: command.columns().wire,
        rows,
        tag: tag.to_owned(),
    })
}

/// The command that was probably meant: a third of the letters may differ.
fn closest(words: &Words<'_>) -> Option<&'static str> {
    const LONGEST_NAME: usize = 40;
    let given = words.canonical(LONGEST_NAME).to_ascii_uppercase();
    COMMANDS
        .iter()
        .map(|command| {
            (
                strsim::damerau_levenshtein(&given, command.name()),
                command.name(),
            )
        })
        .filter(|(distance, name)| *distance <= name.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
