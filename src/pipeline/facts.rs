//! What a request asks for, before anything is decided: its statements, in the order they run.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::observe::Confirmation;
use super::rename::{Naming, NamingAct};
use super::series::Series;
use crate::backend::{Asked, Asker, Connection, is_shared_name};
use crate::session::{Ending, FrameSpan, Pins, Request, Settings, SharedStatements, Statements};
use crate::sql::{
    Analysis, Analyzer, Backslash, SessionUse, SettingChange, Statement, StatementKind, TransactionControl,
};
use crate::telemetry::RequestKind;
use crate::wire::{self, FrontendTag, TargetKind, WireError};

/// The gateway's own settings begin with this.
pub(super) const OWN_PREFIX: &str = "tollgate.";

/// Bytes of a message that has no body.
pub(super) const EMPTY: usize = 5;

/// A single portal that is bound, run to its end and closed by a Sync: the extended request that an answer from memory
/// can take the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SinglePortal {
    /// The `Bind` among the frames.
    pub(super) bind: usize,
    /// The `Execute` among the frames.
    pub(super) execute: usize,
    /// The portal has a name, under which an open transaction keeps it.
    pub(super) named: bool,
    /// A `Describe` of the portal is among them.
    pub(super) described: bool,
}

/// The request's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One `Query`.
    Simple,
    /// One portal.
    Portal(SinglePortal),
    /// Anything else.
    Series,
}

/// What a request asks for.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, none a state"
)]
pub(super) struct Facts {
    /// The form.
    pub(super) form: Form,
    /// The texts that run, each with its statements.
    pub(super) runs: SmallVec<[Analysis; 1]>,
    /// Something runs that is not known.
    pub(super) unknown: bool,
    /// What the backend will confirm.
    pub(super) confirmations: VecDeque<Confirmation>,
    /// The first message that uses the unnamed statement of an earlier request.
    pub(super) needs_unnamed: Option<usize>,
    /// Where it names prepared statements.
    pub(super) namings: Vec<Naming>,
    /// Prepares a named statement.
    pub(super) names_statement: bool,
    /// Runs a portal of which only the gateway knows.
    pub(super) local_portal: bool,
    /// Binds parameters, or gives them types or formats.
    pub(super) parameterized: bool,
    /// Prepares more named statements than a session may have.
    pub(super) too_many: bool,
    /// Prepares the unnamed statement.
    pub(super) parses_unnamed: bool,
    /// A simple query stands at the end of the series.
    pub(super) queries: bool,
    /// The text of the unnamed statement, or of one that is named, was not seen whole.
    pub(super) unread_parse: bool,
    /// Describes a statement, parameters and all.
    pub(super) describes_statement: bool,
    /// What comes after it in its series may be read by other rules.
    pub(super) rereads: bool,
    /// Messages that are about the gateway's own settings, and messages that are not.
    pub(super) own: usize,
    /// Messages that are about a transaction's begin or end.
    pub(super) control: usize,
    /// See `own`.
    pub(super) foreign: usize,
}

/// Room that earlier requests had and do not need any more; empty.
#[derive(Debug, Default)]
pub(super) struct Spare {
    pub(super) confirmations: VecDeque<Confirmation>,
    pub(super) namings: Vec<Naming>,
}

/// What a request is read by: who sent it, and what is known of its session.
pub(super) struct Reader<'a> {
    /// What the session has prepared.
    pub(super) statements: &'a Statements,
    /// What keeps the session's connection.
    pub(super) pins: &'a Pins,
    /// What the server has still to confirm of a series of which the request is a later part.
    pub(super) late: &'a VecDeque<Confirmation>,
    /// Knows texts.
    pub(super) analyzer: &'a Analyzer,
    /// How the backend reads text; `None` when that is not known.
    pub(super) backslash: Option<Backslash>,
    /// What all sessions have prepared.
    pub(super) shared: &'a SharedStatements,
    /// Everything that the meaning of a statement depends on beside its text; `None` when it depends on what is not
    /// followed, so that a statement cannot be told to be another session's too.
    pub(super) scope: Option<&'a [u8]>,
    /// The session's settings.
    pub(super) settings: &'a Settings,
}

impl Reader<'_> {
    /// What is known of `text`.
    pub(super) fn analyze(&self, text: &[u8]) -> Analysis {
        match self.backslash {
            Some(backslash) => self.analyzer.analyze(text, backslash),
            None => Analysis::unread(text),
        }
    }
}

impl Facts {
    /// Reads `request` in `bytes`.
    ///
    /// # Errors
    ///
    /// A message whose body is not what its tag promises.
    pub(super) fn read(
        request: &Request,
        bytes: &[u8],
        reader: &Reader<'_>,
        spare: Spare,
    ) -> Result<Self, WireError> {
        let facts = Self {
            form: Form::Series,
            runs: SmallVec::new(),
            unknown: false,
            confirmations: spare.confirmations,
            needs_unnamed: None,
            namings: spare.namings,
            names_statement: false,
            local_portal: false,
            parameterized: false,
            too_many: false,
            queries: false,
            parses_unnamed: false,
            unread_parse: false,
            describes_statement: false,
            rereads: false,
            own: 0,
            control: 0,
            foreign: 0,
        };
        let frame = |span: &FrameSpan| bytes.get(span.start..span.end).unwrap_or_default();
        match (request.ending, request.frames.as_slice()) {
            (Ending::Long { .. }, [span]) => {
                let mut series = Series::new(facts, reader);
                series.read_beginning(span.tag, frame(span));
                Ok(series.facts)
            }
            (
                _,
                [
                    span @ FrameSpan {
                        tag: FrontendTag::Query,
                        ..
                    },
                ],
            ) => {
                let mut series = Series::new(facts, reader);
                let analysis = reader.analyze(wire::query_text(frame(span))?);
                series.facts.form = Form::Simple;
                series.facts.count(Some(&analysis));
                series.run(0, analysis);
                Ok(series.facts)
            }
            (_, frames) => {
                let mut series = Series::new(facts, reader);
                for (index, span) in frames.iter().enumerate() {
                    series.read(index, span.tag, frame(span))?;
                }
                let mut facts = series.facts;
                facts.form = portal_form(request, bytes).map_or(Form::Series, Form::Portal);
                Ok(facts)
            }
        }
    }

    /// Counts a message about `analysis`.
    pub(super) fn count(&mut self, analysis: Option<&Analysis>) {
        match analysis.and_then(Analysis::single) {
            Some(statement) if own(statement) => self.own += 1,
            Some(statement) if controls(statement) => self.control += 1,
            Some(_) | None => self.foreign += 1,
        }
    }

    /// Whether it prepares a statement under a name that is taken.
    pub(super) fn prepares_again(&self) -> bool {
        self.namings
            .iter()
            .any(|naming| matches!(naming.act, NamingAct::PrepareAgain | NamingAct::PrepareTaken))
    }

    /// A name for a statement in SQL that is one of the gateway's own.
    pub(super) fn reserved_name(&self) -> Option<&Arc<str>> {
        self.statements().find_map(|statement| match &statement.session {
            Some(
                SessionUse::Prepare(name) | SessionUse::Execute(name) | SessionUse::Deallocate(Some(name)),
            ) => Some(name).filter(|name| is_shared_name(name.as_bytes())),
            Some(_) | None => None,
        })
    }

    /// Every statement that runs.
    pub(super) fn statements(&self) -> impl Iterator<Item = &Arc<Statement>> {
        self.runs
            .iter()
            .flat_map(Analysis::statements)
            .map(|located| &located.statement)
    }

    /// The statement that runs, if it is exactly one and known.
    pub(super) fn single(&self) -> Option<(&Analysis, &Arc<Statement>)> {
        match self.runs.as_slice() {
            [run] if !self.unknown => run.single().map(|statement| (run, statement)),
            _ => None,
        }
    }

    /// What to count it as: the first that is not a read.
    pub(super) fn kind(&self) -> RequestKind {
        if self.unknown {
            return RequestKind::Unparsed;
        }
        let kinds = self.statements().map(|statement| statement.kind);
        let kind = kinds.reduce(|first, next| if first == StatementKind::Read { next } else { first });
        match kind {
            None => RequestKind::Utility,
            Some(StatementKind::Read) => RequestKind::Read,
            Some(StatementKind::Write) => RequestKind::Write,
            Some(StatementKind::Ddl) => RequestKind::Ddl,
            Some(StatementKind::Transaction) => RequestKind::Transaction,
            Some(StatementKind::Setting) => RequestKind::Setting,
            Some(StatementKind::Session) => RequestKind::Session,
            Some(StatementKind::Copy) => RequestKind::Copy,
            Some(StatementKind::Utility) => RequestKind::Utility,
            Some(StatementKind::Unparsed) => RequestKind::Unparsed,
        }
    }

    /// Notes with `backend` that the request's messages are sent.
    pub(super) fn note_sent(request: &Request, bytes: &[u8], backend: &mut Connection) {
        for frame in &request.frames {
            Self::note_frame(frame, bytes, backend);
        }
    }

    /// Notes with `backend` that one message is sent.
    pub(super) fn note_frame(frame: &FrameSpan, bytes: &[u8], backend: &mut Connection) {
        let asked = match frame.tag {
            FrontendTag::Query => Asked::Query,
            FrontendTag::FunctionCall => Asked::FunctionCall,
            FrontendTag::Parse => Asked::Parse(None),
            FrontendTag::Bind => Asked::Bind,
            FrontendTag::Execute => Asked::Execute,
            FrontendTag::Close => Asked::Close(None),
            FrontendTag::Sync => Asked::Sync,
            FrontendTag::Describe => {
                // byte 5 tells statement from portal, also in a frame that is too long to be held
                if bytes.get(frame.start + 5) == Some(&b'S') {
                    Asked::DescribeStatement(None)
                } else {
                    Asked::DescribePortal
                }
            }
            FrontendTag::CopyDone | FrontendTag::CopyFail => Asked::CopyEnd,
            FrontendTag::Flush | FrontendTag::CopyData | FrontendTag::Terminate => return,
        };
        backend.note_sent(asked, Asker::Client);
    }
}

/// Whether a statement is about the gateway's own settings.
pub(super) fn own(statement: &Statement) -> bool {
    statement
        .setting
        .as_ref()
        .and_then(setting_name)
        .is_some_and(|name| name.starts_with(OWN_PREFIX))
}

/// Whether a statement begins or ends a transaction, and nothing else.
fn controls(statement: &Statement) -> bool {
    match statement.transaction {
        Some(TransactionControl::Begin) => true,
        Some(TransactionControl::Commit | TransactionControl::Rollback) => !statement.mentions("chain"),
        Some(TransactionControl::Savepoint | TransactionControl::Other) | None => false,
    }
}

fn setting_name(change: &SettingChange) -> Option<&str> {
    match change {
        SettingChange::Set { name, .. }
        | SettingChange::SetConfig { name, .. }
        | SettingChange::SetLocal { name }
        | SettingChange::Reset { name }
        | SettingChange::Show { name } => Some(name),
        SettingChange::ResetAll => None,
    }
}

/// The form of a request that runs one portal to its end: Parse at most once, one Bind before one Execute of the same portal
/// without a limit of rows, Describe of that portal and of the statement that is bound, once it is what it is, and one Sync
/// without a body at the end. Whatever else a client may send has errors and answers of its own.
fn portal_form(request: &Request, bytes: &[u8]) -> Option<SinglePortal> {
    if request.ending != Ending::Sync {
        return None;
    }
    let body = |frame: &FrameSpan| bytes.get(frame.start..frame.end).unwrap_or_default();
    let (mut bind, mut execute, mut described) = (None, None, false);
    let (mut parsed, mut statement) = (false, None);
    for (index, frame) in request.frames.iter().enumerate() {
        match frame.tag {
            FrontendTag::Parse if !parsed && statement.is_none() && bind.is_none() => parsed = true,
            FrontendTag::Bind if bind.is_none() => {
                let read = wire::bind(body(frame)).ok()?;
                bind = Some((index, read.portal));
                if *statement.get_or_insert(read.statement) != read.statement {
                    return None;
                }
            }
            FrontendTag::Describe => {
                let target = wire::target(body(frame)).ok()?;
                match (target.kind, bind) {
                    (TargetKind::Statement, _) if *statement.get_or_insert(target.name) == target.name => {}
                    (TargetKind::Portal, Some((_, portal))) if portal == target.name && execute.is_none() => {
                        described = true;
                    }
                    (TargetKind::Statement | TargetKind::Portal, _) => return None,
                }
            }
            FrontendTag::Execute if execute.is_none() => {
                let (_, portal) = bind?;
                let wanted = wire::execute(body(frame)).ok()?;
                if wanted.portal != portal || wanted.max_rows != 0 {
                    return None;
                }
                execute = Some(index);
            }
            FrontendTag::Sync if frame.end - frame.start == EMPTY => {}
            FrontendTag::Sync
            | FrontendTag::Parse
            | FrontendTag::Bind
            | FrontendTag::Execute
            | FrontendTag::Close
            | FrontendTag::Flush
            | FrontendTag::Query
            | FrontendTag::FunctionCall
            | FrontendTag::CopyData
            | FrontendTag::CopyDone
            | FrontendTag::CopyFail
            | FrontendTag::Terminate => return None,
        }
    }
    let ((bind, portal), execute) = (bind?, execute?);
    Some(SinglePortal {
        named: !portal.is_empty(),
        bind,
        execute,
        described,
    })
}
