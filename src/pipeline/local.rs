//! Answers that the gateway gives by itself, in both protocols: its own settings, and the console's commands.

use bytes::BytesMut;

use crate::error::ClientError;
use crate::session::{Ending, Prepared, Request, Statements};
use crate::sql::{Analysis, Backslash};
use crate::wire::{
    self, Column, FrontendTag, TargetKind, TransactionStatus, Value, WireError, command_complete, data_row,
    error_response, ready_for_query, row_description, simple,
};

/// What a command answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The columns; none for a command without rows.
    pub columns: &'static [Column],
    /// The rows.
    pub rows: Vec<Vec<Value>>,
    /// The command tag.
    pub tag: String,
}

impl Answer {
    /// Rows of `columns`, as a SHOW.
    pub fn rows(columns: &'static [Column], rows: Vec<Vec<Value>>) -> Self {
        Self {
            columns,
            rows,
            tag: "SHOW".to_owned(),
        }
    }

    /// A command without rows.
    pub fn done(tag: impl Into<String>) -> Self {
        Self {
            columns: &[],
            rows: Vec::new(),
            tag: tag.into(),
        }
    }
}

/// Something that answers commands.
pub trait Commands {
    /// The columns that `text` will answer with; `None` for a command without rows.
    ///
    /// # Errors
    ///
    /// There is no such command.
    fn columns(&self, text: &[u8]) -> Result<Option<&'static [Column]>, Box<dyn ClientError>>;

    /// Does what `text` says; `None` for an empty one.
    ///
    /// # Errors
    ///
    /// It cannot be done.
    fn run(&mut self, text: &[u8]) -> Result<Option<Answer>, Box<dyn ClientError>>;
}

/// Answers a text of the simple protocol, without the ReadyForQuery. True when it went well.
pub fn answer_simple(text: &[u8], commands: &mut dyn Commands, out: &mut BytesMut) -> bool {
    match commands.run(text) {
        Ok(Some(answer)) => {
            if !answer.columns.is_empty() {
                row_description(answer.columns, &[], out);
            }
            finish(&answer, &[], out);
            true
        }
        Ok(None) => {
            wire::empty_query(out);
            true
        }
        Err(error) => {
            error_response(&*error, out);
            false
        }
    }
}

fn finish(answer: &Answer, formats: &[i16], out: &mut BytesMut) {
    for row in &answer.rows {
        data_row(row, formats, out);
    }
    command_complete(&answer.tag, out);
}

/// Answers a request of the extended protocol. False when it ended with an error and no Sync has come yet: what the
/// client sends up to its next Sync is to be ignored.
///
/// # Errors
///
/// A message whose body is not what its tag promises.
pub fn answer_extended(
    request: &Request,
    bytes: &[u8],
    statements: &mut Statements,
    commands: &mut dyn Commands,
    status: TransactionStatus,
    out: &mut BytesMut,
) -> Result<bool, WireError> {
    let mut portals: Vec<LocalPortal> = Vec::new();
    let mut failed = false;
    for frame in &request.frames {
        if failed && frame.tag != FrontendTag::Sync {
            continue;
        }
        let body = bytes.get(frame.start..frame.end).unwrap_or_default();
        let outcome: Result<(), Box<dyn ClientError>> = match frame.tag {
            FrontendTag::Parse => {
                let parse = wire::parse(body)?;
                let prepared = Prepared {
                    text: parse.text.into(),
                    types: parse.types.into(),
                    analysis: Analysis::of(parse.text, Backslash::Literal),
                };
                commands.columns(parse.text).map(|_| {
                    statements.note_prepared(parse.name, prepared);
                    simple(b'1', out);
                })
            }
            FrontendTag::Bind => {
                let bind = wire::bind(body)?;
                match statements.prepared(bind.statement) {
                    None => Err(undefined(bind.statement)),
                    Some(prepared) => {
                        let formats = formats(bind.result_formats);
                        portals.push(LocalPortal {
                            name: bind.portal.into(),
                            text: prepared.text.clone(),
                            formats,
                        });
                        simple(b'2', out);
                        Ok(())
                    }
                }
            }
            FrontendTag::Describe => {
                let target = wire::target(body)?;
                match target.kind {
                    TargetKind::Statement => match statements.prepared(target.name) {
                        None => Err(undefined(target.name)),
                        Some(prepared) => commands.columns(&prepared.text).map(|columns| {
                            wire::parameter_description(&[], out);
                            describe(columns, &[], out);
                        }),
                    },
                    TargetKind::Portal => match portal(&portals, target.name) {
                        None => Err(undefined(target.name)),
                        Some((text, formats)) => commands
                            .columns(text)
                            .map(|columns| describe(columns, formats, out)),
                    },
                }
            }
            FrontendTag::Execute => {
                let execute = wire::execute(body)?;
                match portal(&portals, execute.portal) {
                    None => Err(undefined(execute.portal)),
                    Some((text, formats)) => commands.run(text).map(|answer| match answer {
                        Some(answer) => finish(&answer, formats, out),
                        None => wire::empty_query(out),
                    }),
                }
            }
            FrontendTag::Close => {
                let target = wire::target(body)?;
                if target.kind == TargetKind::Statement {
                    statements.note_closed(target.name);
                }
                simple(b'3', out);
                Ok(())
            }
            FrontendTag::Sync => {
                failed = false;
                ready_for_query(status, out);
                Ok(())
            }
            FrontendTag::Query => {
                let text = wire::query_text(body)?;
                answer_simple(text, commands, out);
                ready_for_query(status, out);
                Ok(())
            }
            FrontendTag::Flush
            | FrontendTag::FunctionCall
            | FrontendTag::CopyData
            | FrontendTag::CopyDone
            | FrontendTag::CopyFail
            | FrontendTag::Terminate => Ok(()),
        };
        if let Err(error) = outcome {
            error_response(&*error, out);
            failed = true;
        }
    }
    Ok(!failed || request.ending == Ending::Sync)
}

/// A portal of an answer that is given here; it ends with its request.
struct LocalPortal {
    name: Box<[u8]>,
    text: Box<[u8]>,
    formats: Vec<i16>,
}

fn portal<'p>(portals: &'p [LocalPortal], name: &[u8]) -> Option<(&'p [u8], &'p [i16])> {
    let portal = portals.iter().rev().find(|portal| *portal.name == *name)?;
    Some((&portal.text, &portal.formats))
}

fn describe(columns: Option<&[Column]>, formats: &[i16], out: &mut BytesMut) {
    match columns {
        Some(columns) => row_description(columns, formats, out),
        None => simple(b'n', out),
    }
}

fn undefined(name: &[u8]) -> Box<dyn ClientError> {
    let name = String::from_utf8_lossy(name);
    let what = if name.is_empty() {
        "unnamed prepared statement does not exist".to_owned()
    } else {
        format!("prepared statement \"{name}\" does not exist")
    };
    Box::new(super::ServeError::Undefined(what))
}

/// Format codes, two bytes each, as numbers.
pub(super) fn formats(bytes: &[u8]) -> Vec<i16> {
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|code| i16::from_be_bytes(*code))
        .collect()
}
