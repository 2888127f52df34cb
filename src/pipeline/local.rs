//! Answers that the gateway gives by itself, in both protocols: its own settings, and the console's commands.

use std::sync::Arc;

use bytes::BytesMut;

use super::error::ServeError;
use crate::error::ClientError;
use crate::session::{Ending, LocalPortal, Portal, Prepared, Request, Settings, Statements};
use crate::sql::{Analysis, Backslash, Lexer};
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

    /// Whether a portal of `text` may be made.
    ///
    /// # Errors
    ///
    /// There is no such command, or it must not be run now.
    fn bind(&self, text: &[u8]) -> Result<(), Box<dyn ClientError>> {
        self.columns(text).map(drop)
    }

    /// Does what `text` says; `None` for an empty one.
    ///
    /// # Errors
    ///
    /// It cannot be done.
    fn run(&mut self, text: &[u8]) -> Result<Option<Answer>, Box<dyn ClientError>>;

    /// The transaction status after what was done so far.
    fn status(&self) -> TransactionStatus {
        TransactionStatus::Idle
    }

    /// An error was told: the transaction that is open, if there is one, has failed.
    fn fail(&mut self) {}

    /// The statement that `parse` prepares.
    fn prepare(&mut self, parse: &wire::Parse<'_>) -> Arc<Prepared> {
        Arc::new(Prepared {
            text: parse.text.into(),
            types: parse.types.into(),
            analysis: Analysis::of(parse.text, Backslash::Literal),
            key: None,
            settings: Settings::default(),
        })
    }
}

/// Answers a text of the simple protocol, statement by statement up to the first that fails, without the
/// ReadyForQuery. True when all went well.
pub fn answer_simple(text: &[u8], commands: &mut dyn Commands, out: &mut BytesMut) -> bool {
    let mut said = false;
    for statement in statements_of(text) {
        match commands.run(statement) {
            Ok(Some(answer)) => {
                if !answer.columns.is_empty() {
                    row_description(answer.columns, &[], out);
                }
                finish(&answer, &[], out);
                said = true;
            }
            Ok(None) => {}
            Err(error) => {
                error_response(&*error, out);
                commands.fail();
                return false;
            }
        }
    }
    if !said {
        wire::empty_query(out);
    }
    true
}

/// Whether a text is the empty query, as one of nothing but comments and semicolons is.
pub(super) fn is_empty(text: &[u8]) -> bool {
    statements_of(text).next().is_none()
}

/// The statements between the semicolons of a text, empty ones left out.
fn statements_of(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut tokens = Lexer::new(text, Backslash::Literal).peekable();
    std::iter::from_fn(move || {
        while tokens.next_if(|token| token.is(text, ";")).is_some() {}
        let first = tokens.next()?;
        let mut end = first.end;
        while let Some(token) = tokens.next_if(|token| !token.is(text, ";")) {
            end = token.end;
        }
        text.get(first.start..end)
    })
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
    out: &mut BytesMut,
) -> Result<bool, WireError> {
    let mut failed = false;
    for frame in &request.frames {
        if failed && frame.tag != FrontendTag::Sync {
            continue;
        }
        let body = bytes.get(frame.start..frame.end).unwrap_or_default();
        let outcome: Result<(), Box<dyn ClientError>> = match frame.tag {
            FrontendTag::Parse => {
                let parse = wire::parse(body)?;
                let prepared = commands.prepare(&parse);
                commands.columns(parse.text).map(|_| {
                    statements.note_prepared(parse.name, prepared);
                    simple(b'1', out);
                })
            }
            FrontendTag::Bind => {
                let bind = wire::bind(body)?;
                match statements.prepared(bind.statement).map(Arc::clone) {
                    None => Err(undefined(bind.statement)),
                    Some(prepared) => commands.bind(&prepared.text).map(|()| {
                        let portal = Portal {
                            analysis: Some(prepared.analysis.clone()),
                            local: Some(LocalPortal {
                                text: prepared.text.clone(),
                                formats: formats(bind.result_formats).into(),
                                done: false,
                            }),
                        };
                        statements.note_bound(bind.portal, portal);
                        simple(b'2', out);
                    }),
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
                    TargetKind::Portal => match local(statements, target.name) {
                        None => Err(undefined_portal(target.name)),
                        Some(portal) => commands
                            .columns(&portal.text)
                            .map(|columns| describe(columns, &portal.formats, out)),
                    },
                }
            }
            FrontendTag::Execute => {
                let execute = wire::execute(body)?;
                match local(statements, execute.portal) {
                    None => Err(undefined_portal(execute.portal)),
                    // in a transaction that has failed that is said first
                    Some(portal) if portal.done && commands.status() != TransactionStatus::Failed => {
                        Err(Box::new(ServeError::PortalDone(
                            String::from_utf8_lossy(execute.portal).into_owned(),
                        )))
                    }
                    Some(portal) => {
                        let before = commands.status();
                        match commands.run(&portal.text) {
                            Ok(Some(answer)) => {
                                finish(&answer, &portal.formats, out);
                                if answer.columns.is_empty() {
                                    statements.note_done(execute.portal);
                                }
                                if before != TransactionStatus::Idle {
                                    end_portals(statements, commands.status());
                                }
                                Ok(())
                            }
                            Ok(None) => {
                                wire::empty_query(out);
                                Ok(())
                            }
                            Err(error) => Err(error),
                        }
                    }
                }
            }
            FrontendTag::Close => {
                let target = wire::target(body)?;
                match target.kind {
                    TargetKind::Statement => statements.note_closed(target.name),
                    TargetKind::Portal => statements.note_portal_closed(target.name),
                }
                simple(b'3', out);
                Ok(())
            }
            FrontendTag::Sync => {
                failed = false;
                end_portals(statements, commands.status());
                ready_for_query(commands.status(), out);
                Ok(())
            }
            FrontendTag::Query => {
                let text = wire::query_text(body)?;
                // it takes the place of the unnamed statement, and of the unnamed portal where it runs
                statements.note_closed(b"");
                if answer_simple(text, commands, out) {
                    statements.note_portal_closed(b"");
                }
                end_portals(statements, commands.status());
                ready_for_query(commands.status(), out);
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
            commands.fail();
            end_portals(statements, commands.status());
            failed = true;
        }
    }
    Ok(!failed || request.ending == Ending::Sync)
}

/// A portal that is run here.
fn local<'s>(statements: &'s Statements, name: &[u8]) -> Option<&'s LocalPortal> {
    statements.portal(name)?.local.as_ref()
}

/// Portals end with their transaction, and each series outside of one is one.
fn end_portals(statements: &mut Statements, status: TransactionStatus) {
    if status == TransactionStatus::Idle {
        statements.note_transaction_ended();
    }
}

fn describe(columns: Option<&[Column]>, formats: &[i16], out: &mut BytesMut) {
    match columns {
        Some(columns) => row_description(columns, formats, out),
        None => simple(b'n', out),
    }
}

fn undefined(name: &[u8]) -> Box<dyn ClientError> {
    Box::new(ServeError::UndefinedStatement(
        String::from_utf8_lossy(name).into_owned(),
    ))
}

fn undefined_portal(name: &[u8]) -> Box<dyn ClientError> {
    Box::new(ServeError::UndefinedPortal(
        String::from_utf8_lossy(name).into_owned(),
    ))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_taken_apart_at_its_semicolons() {
        for (text, statements) in [
            ("SHOW POOLS", vec!["SHOW POOLS"]),
            ("SHOW POOLS;", vec!["SHOW POOLS"]),
            (" ;; -- nothing\n; /* at all */ ", vec![]),
            ("", vec![]),
            (
                "SET a = ';'; /* ; */ RELOAD ;SHOW \"x;y\"",
                vec!["SET a = ';'", "RELOAD", "SHOW \"x;y\""],
            ),
        ] {
            let found: Vec<_> = statements_of(text.as_bytes())
                .map(String::from_utf8_lossy)
                .collect();
            assert_eq!(found, statements, "{text}");
        }
    }
    /// Answers each text with itself, in one column.
    struct Echo;

    impl Commands for Echo {
        fn columns(&self, text: &[u8]) -> Result<Option<&'static [Column]>, Box<dyn ClientError>> {
            const COLUMNS: &[Column] = &[Column::new("text", wire::ColumnType::Text)];
            match text {
                b"bad" => Err(undefined(b"bad")),
                _ => Ok(Some(COLUMNS)),
            }
        }

        fn run(&mut self, text: &[u8]) -> Result<Option<Answer>, Box<dyn ClientError>> {
            let columns = self.columns(text)?.unwrap_or_default();
            let text = String::from_utf8_lossy(text).into_owned();
            Ok(Some(Answer::rows(columns, vec![vec![text.into()]])))
        }
    }

    fn message(tag: char) -> Vec<u8> {
        let body: &[u8] = match tag {
            'P' => b"\0text\0\0\0",
            'X' => b"\0bad\0\0\0",
            'B' => b"\0\0\0\0\0\0\0\0",
            'D' => b"S\0",
            'd' => b"P\0",
            'E' => b"\0\0\0\0\0",
            'C' => b"P\0",
            _ => b"",
        };
        let tag = match tag {
            'X' => b'P',
            'd' => b'D',
            other => u8::try_from(other).expect("ASCII"),
        };
        let len = u32::try_from(body.len() + 4).expect("short");
        [&[tag][..], &len.to_be_bytes(), body].concat()
    }

    #[test]
    fn the_extended_protocol_is_answered_request_by_request() {
        // one word for each request: its messages, and the tags of what is answered; the last letter tells whether what
        // follows up to the next Sync is ignored
        for (asked, answered) in [
            ("PBES", "12DCZ."),
            ("PDBdES", "1tT2TDCZ."),
            ("PS BdES", "1Z. 2TDCZ."),
            // a Flush ends a request, but not what was bound
            ("PH DH BH EH S", "1. tT. 2. DC. Z."),
            ("PBS ES", "12Z. EZ."),
            ("PBCES", "123EZ."),
            ("XBES", "EZ."),
            ("PBH XH S EH", "12. E! Z. E!"),
            ("BH", "E!"),
        ] {
            let mut statements = Statements::default();
            let mut found = Vec::new();
            for word in asked.split(' ') {
                let bytes: Vec<u8> = word.chars().flat_map(message).collect();
                let mut collector = crate::session::Collector::default();
                let Ok(crate::session::Collected::Request(request)) = collector.collect(&bytes, false) else {
                    panic!("{word} is a request");
                };
                let mut out = BytesMut::new();
                let goes_on = answer_extended(&request, &bytes, &mut statements, &mut Echo, &mut out);
                let mut tags = String::new();
                let mut rest = &out[..];
                while let [tag, a, b, c, d, ..] = rest {
                    tags.push(char::from(*tag));
                    let len = u32::from_be_bytes([*a, *b, *c, *d]);
                    rest = &rest[usize::try_from(len).expect("a length") + 1..];
                }
                tags.push(if goes_on.expect("sound messages") {
                    '.'
                } else {
                    '!'
                });
                found.push(tags);
            }
            assert_eq!(found.join(" "), answered, "{asked}");
        }
    }
}
