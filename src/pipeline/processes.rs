//! Process ids: what a client knows as the process that serves it is the number of its session.
//!
//! A session has no process of its own at the server, and the process that runs its next query may be another than the
//! one that ran its last. So `pg_backend_pid()` is the number that the client was told with its key for cancel requests,
//! and who cancels or ends the process of that number reaches the session: never a process that serves somebody else.
//! Every other number is the server's affair.

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::ServeError;
use super::facts::{EMPTY, Facts, Form};
use super::lookup::{bound, bound_by};
use super::replay::confirm;
use super::serve::{Served, Story};
use super::session::{Binding, Interrupted, Session};
use super::sessions::SessionCard;
use crate::cache::KeyParameter;
use crate::session::{Ending, FrameSpan, LocalPortal, Portal, Request};
use crate::sql::{Backslash, ProcessCall, ProcessTarget, ProcessUse};
use crate::telemetry::event::RequestEnd;
use crate::wire::{self, ColumnType, FrontendTag, TargetKind, TransactionStatus, Value};

/// The types that a process id can have as a parameter: `integer`, and none said.
const PROCESS_TYPES: [u32; 3] = [0, 23, 705];

/// A request about processes that the gateway answers by itself.
pub(super) struct Asked {
    call: ProcessCall,
    step: Step,
    /// The session that is to be cancelled or ended, if there is one of its number.
    other: Option<Arc<SessionCard>>,
    /// In which formats the answer was asked for.
    formats: Vec<i16>,
}

/// What of the call a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Everything.
    Whole,
    /// Binds it: it is run by a later request of the series.
    Bind(usize),
    /// Runs what was bound.
    Run,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// What the request asks of a session by its number, where that is all it does.
    pub(super) fn asks_process(&self, request: &Request, facts: &Facts) -> Option<Asked> {
        let settled = match &self.binding {
            Binding::Held(lease) => lease.replies().settled(),
            Binding::Free => true,
        };
        // in a transaction that has failed, and under a name that is taken, it is the server that has something to say
        if !settled || self.status() == TransactionStatus::Failed || facts.too_many || facts.prepares_again()
        {
            return None;
        }
        let bytes = self.client.inbox().get(..request.len).unwrap_or_default();
        let (step, bound) = if facts.form == Form::Series {
            match series_step(request, bytes)? {
                Step::Bind(at) => (Step::Bind(at), bound_by(request, bytes, at, &self.statements)?),
                Step::Whole | Step::Run => return self.runs_process(request, bytes),
            }
        } else {
            facts.single()?.1.process?;
            (Step::Whole, bound(request, bytes, facts, &self.statements)?)
        };
        let mut call = ProcessCall::of(bound.text, self.backslash?)?;
        // parameters that it does not have, and formats of columns that it does not have, are errors
        let parameters = usize::from(call.target == ProcessTarget::Parameter);
        let sound = bound.formats.len() <= 1 && bound.formats.iter().all(|format| matches!(format, 0 | 1));
        if bound.parameters.len() != parameters || !sound {
            return None;
        }
        if call.target == ProcessTarget::Parameter && step != Step::Whole {
            call.target = ProcessTarget::Number(number_in(bound.parameters.first()?)?);
        }
        let number = match call.target {
            ProcessTarget::Own => None,
            ProcessTarget::Number(number) => Some(number),
            ProcessTarget::Parameter => Some(number_in(bound.parameters.first()?)?),
        };
        let other = match number {
            None => None,
            Some(number) => Some(self.gateway.sessions.numbered(number)?),
        };
        Some(Asked {
            call,
            step,
            other,
            formats: bound.formats,
        })
    }

    /// As [`Self::asks_process`], of a portal that an earlier request has bound.
    fn runs_process(&self, request: &Request, bytes: &[u8]) -> Option<Asked> {
        let execute = request
            .frames
            .iter()
            .find(|frame| frame.tag == FrontendTag::Execute)?;
        let execute = wire::execute(bytes.get(execute.start..execute.end)?).ok()?;
        let local = self.statements.portal(execute.portal)?.local.as_ref()?;
        let call = ProcessCall::of(&local.text, self.backslash?)?;
        let other = match call.target {
            ProcessTarget::Own | ProcessTarget::Parameter => None,
            ProcessTarget::Number(number) => self.gateway.sessions.numbered(number),
        };
        Some(Asked {
            call,
            step: Step::Run,
            other,
            formats: local.formats.to_vec(),
        })
    }

    /// Answers what [`Self::asks_process`] found.
    pub(super) async fn serve_process(
        &mut self,
        request: &Request,
        facts: Facts,
        asked: Asked,
        began: Instant,
    ) -> Served {
        let mut story = Story::of(&facts, request, began);
        story.reason = "process_id";
        let Asked {
            call,
            step,
            other,
            formats,
        } = asked;
        let value = match (call.usage, other) {
            (ProcessUse::Number, _) => Value::Int4(i32::try_from(self.card.key.id).unwrap_or(i32::MAX)),
            // it has ended since
            (ProcessUse::Cancel | ProcessUse::Terminate, None) => Value::Bool(false),
            (ProcessUse::Cancel | ProcessUse::Terminate, Some(_)) if matches!(step, Step::Bind(_)) => {
                Value::Bool(true)
            }
            (usage @ (ProcessUse::Cancel | ProcessUse::Terminate), Some(other)) => {
                if let Err(error) = self.may_signal(&other, usage) {
                    self.refuse_with(request, &error, &mut story);
                    return Ok(());
                }
                if let Err(interrupted) = self.signal(other, usage).await {
                    if matches!(interrupted, Interrupted::Killed) {
                        self.drop_request(request);
                    }
                    return self.interrupted(request, interrupted, None, &mut story);
                }
                Value::Bool(true)
            }
        };
        let status = self.status();
        let text = call.to_text();
        let said = Said { call, value, formats };
        let (bytes, out) = self.client.boxes();
        let bytes = bytes.get(..request.len).unwrap_or_default();
        let before = out.len();
        said.write(request, bytes, facts.form, status, out);
        story.bytes = u64::try_from(out.len() - before).unwrap_or(u64::MAX);
        if let Step::Bind(at) = step {
            let frame = request.frames.get(at);
            let frame = frame.and_then(|frame| bytes.get(frame.start..frame.end));
            if let Some(Ok(bind)) = frame.map(wire::bind) {
                let portal = Portal {
                    analysis: Some(self.gateway.analyzer.analyze(text.as_bytes(), Backslash::Literal)),
                    local: Some(LocalPortal {
                        text: text.as_bytes().into(),
                        formats: said.formats.as_slice().into(),
                        done: false,
                    }),
                };
                self.statements.note_bound(bind.portal, portal);
            }
            self.client.consume(request.len);
            return Ok(());
        }
        story.rows = 1;
        self.note_answered(request, facts);
        self.client.consume(request.len);
        self.card.note_query(false);
        self.finish(&story, RequestEnd::Completed);
        Ok(())
    }

    /// Whether this user may cancel or end `other`: his own sessions, and an administrator every one.
    fn may_signal(&self, other: &SessionCard, usage: ProcessUse) -> Result<(), ServeError> {
        let user = &self.identity.user;
        let realm = self.gateway.realm();
        if other.login.user == *user || realm.users.get(user).is_some_and(|member| member.admin) {
            return Ok(());
        }
        Err(ServeError::NotYours(match usage {
            ProcessUse::Number | ProcessUse::Cancel => "query is being canceled",
            ProcessUse::Terminate => "process is being terminated",
        }))
    }

    /// Cancels or ends `other`, which may be this session itself.
    async fn signal(&mut self, other: Arc<SessionCard>, usage: ProcessUse) -> Result<(), Interrupted> {
        let ends = usage == ProcessUse::Terminate;
        if other.id == self.card.id {
            return Err(if ends {
                Interrupted::Killed
            } else {
                Interrupted::Cancelled
            });
        }
        tracing::info!(
            session = other.id.0,
            by = self.identity.user.as_str(),
            ends,
            "signalled by its number"
        );
        let patience = self.identity.team.backend.cancel_timeout();
        self.card.note_waiting();
        // not dropped half-way when this client goes: a request under way must be waited for
        let signal = tokio::spawn(async move {
            if ends {
                other.kill(patience).await;
            } else {
                other.cancel(patience).await;
            }
        });
        Self::attend(&mut self.client, &self.card, signal).await.map(drop)
    }
}

/// What a part of a series does, if it does no more than to bind one portal and describe what it is bound to, or to run one.
fn series_step(request: &Request, bytes: &[u8]) -> Option<Step> {
    let body = |frame: &FrameSpan| bytes.get(frame.start..frame.end).unwrap_or_default();
    let (mut bind, mut statement, mut executes, mut other_portal) = (None, None, 0, false);
    for (index, frame) in request.frames.iter().enumerate() {
        match frame.tag {
            FrontendTag::Bind if bind.is_none() => {
                let read = wire::bind(body(frame)).ok()?;
                if other_portal || *statement.get_or_insert(read.statement) != read.statement {
                    return None;
                }
                bind = Some((index, read.portal));
            }
            FrontendTag::Describe => {
                let target = wire::target(body(frame)).ok()?;
                match (target.kind, bind) {
                    (TargetKind::Statement, _) if *statement.get_or_insert(target.name) == target.name => {}
                    (TargetKind::Portal, Some((_, portal))) if portal == target.name => {}
                    (TargetKind::Portal, None) => other_portal = true,
                    (TargetKind::Statement | TargetKind::Portal, _) => return None,
                }
            }
            FrontendTag::Execute => executes += 1,
            FrontendTag::Flush | FrontendTag::Sync if body(frame).len() == EMPTY => {}
            FrontendTag::Query
            | FrontendTag::Parse
            | FrontendTag::Bind
            | FrontendTag::Close
            | FrontendTag::Flush
            | FrontendTag::Sync
            | FrontendTag::FunctionCall
            | FrontendTag::CopyData
            | FrontendTag::CopyDone
            | FrontendTag::CopyFail
            | FrontendTag::Terminate => return None,
        }
    }
    match (bind, executes) {
        (Some((bind, _)), 0) if request.ending == Ending::Flush => Some(Step::Bind(bind)),
        (None, 1) => Some(Step::Run),
        _ => None,
    }
}

/// The process id in a parameter.
fn number_in(parameter: &KeyParameter<'_>) -> Option<u32> {
    let value = parameter.value?;
    if !PROCESS_TYPES.contains(&parameter.type_oid) {
        return None;
    }
    match parameter.format {
        0 => std::str::from_utf8(value).ok()?.trim().parse().ok(),
        1 => Some(u32::from_be_bytes(value.try_into().ok()?)),
        _ => None,
    }
}

/// An answer of one row, or of a command.
struct Said {
    call: ProcessCall,
    value: Value,
    formats: Vec<i16>,
}

impl Said {
    fn write(
        &self,
        request: &Request,
        bytes: &[u8],
        form: Form,
        status: TransactionStatus,
        out: &mut BytesMut,
    ) {
        if form == Form::Simple {
            if self.call.column.is_some() {
                self.describe(&[], out);
            }
            self.run(&[], out);
            wire::ready_for_query(status, out);
            return;
        }
        let asked_for = &self.formats;
        for span in &request.frames {
            let frame = bytes.get(span.start..span.end).unwrap_or_default();
            if span.tag == FrontendTag::Execute {
                self.run(asked_for, out);
            } else if span.tag != FrontendTag::Describe {
                confirm(span.tag, status, out);
            } else if wire::target(frame).is_ok_and(|target| target.kind == TargetKind::Statement) {
                let types: &[u32] = match self.call.target {
                    ProcessTarget::Parameter => &[23],
                    ProcessTarget::Own | ProcessTarget::Number(_) => &[],
                };
                wire::parameter_description(types, out);
                self.describe(&[], out);
            } else {
                self.describe(asked_for, out);
            }
        }
    }

    fn describe(&self, formats: &[i16], out: &mut BytesMut) {
        let kind = match self.value {
            Value::Int4(_) => ColumnType::Int4,
            Value::Bool(_) | Value::Null | Value::Text(_) | Value::Int8(_) | Value::Float8(_) => {
                ColumnType::Bool
            }
        };
        match &self.call.column {
            Some(name) => wire::column_description(name, kind, formats, out),
            None => wire::simple(b'n', out),
        }
    }

    fn run(&self, formats: &[i16], out: &mut BytesMut) {
        if self.call.column.is_some() {
            wire::data_row(std::slice::from_ref(&self.value), formats, out);
            wire::command_complete("SELECT 1", out);
        } else {
            wire::command_complete("CANCEL", out);
        }
    }
}
