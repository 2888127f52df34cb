//! What a request asks for, before anything is decided: its statements, in the order they run.

use std::collections::VecDeque;
use std::sync::Arc;

use super::observe::Confirmation;
use crate::backend::{Asked, Asker, Connection};
use crate::session::{Ending, FrameSpan, Portal, Prepared, Request, Statements};
use crate::sql::{Analysis, Analyzer, Backslash, SettingChange, Statement, StatementKind};
use crate::telemetry::RequestKind;
use crate::wire::{self, FrontendTag, TargetKind, WireError};

/// The gateway's own settings begin with this.
pub(super) const OWN_PREFIX: &str = "tollgate.";

/// A single portal that is bound, run to its end and closed by a Sync: the extended request that an answer from memory
/// can take the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SinglePortal {
    /// The `Bind` among the frames.
    pub(super) bind: usize,
    /// The `Execute` among the frames.
    pub(super) execute: usize,
    /// A `Describe` of the portal is among them.
    pub(super) described: bool,
    /// A `Parse` of a named statement is among them, which the backend must see.
    pub(super) names_statement: bool,
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
    pub(super) runs: Vec<Analysis>,
    /// Something runs that is not known.
    pub(super) unknown: bool,
    /// What the backend will confirm.
    pub(super) confirmations: VecDeque<Confirmation>,
    /// Uses the unnamed statement of an earlier request.
    pub(super) needs_unnamed: bool,
    /// Prepares a named statement.
    pub(super) names_statement: bool,
    /// Prepares the unnamed statement.
    pub(super) parses_unnamed: bool,
    /// Describes a statement, parameters and all.
    pub(super) describes_statement: bool,
    /// Messages that are about the gateway's own settings, and messages that are not.
    pub(super) own: usize,
    /// See `own`.
    pub(super) foreign: usize,
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
        statements: &Statements,
        analyzer: &Analyzer,
        backslash: Option<Backslash>,
    ) -> Result<Self, WireError> {
        let mut facts = Self {
            form: Form::Series,
            runs: Vec::new(),
            unknown: matches!(request.ending, Ending::Long { .. }),
            confirmations: VecDeque::new(),
            needs_unnamed: false,
            names_statement: false,
            parses_unnamed: false,
            describes_statement: false,
            own: 0,
            foreign: 0,
        };
        // a text that is too long, or is read by rules that are not known, can do anything
        let (Some(backslash), false) = (backslash, facts.unknown) else {
            facts.unknown = true;
            facts.foreign = 1;
            facts.note_unread(request, bytes);
            return Ok(facts);
        };
        if let [
            FrameSpan {
                tag: FrontendTag::Query,
                start,
                end,
            },
        ] = request.frames.as_slice()
        {
            let text = wire::query_text(bytes.get(*start..*end).unwrap_or_default())?;
            let analysis = analyzer.analyze(text, backslash);
            facts.form = Form::Simple;
            let about_us = analysis.single().is_some_and(|statement| own(statement));
            facts.own = usize::from(about_us);
            facts.foreign = usize::from(!about_us);
            facts.runs.push(analysis);
            return Ok(facts);
        }
        let mut series = Series {
            facts,
            statements,
            binds: Vec::new(),
        };
        for frame in &request.frames {
            let frame_bytes = bytes.get(frame.start..frame.end).unwrap_or_default();
            series.read(frame.tag, frame_bytes, analyzer, backslash)?;
        }
        let mut facts = series.facts;
        facts.form = portal_form(request, bytes).map_or(Form::Series, Form::Portal);
        Ok(facts)
    }

    /// What matters of messages that cannot be read: whose unnamed statement they mean.
    fn note_unread(&mut self, request: &Request, bytes: &[u8]) {
        for frame in &request.frames {
            match frame.tag {
                FrontendTag::Parse => {
                    // the name comes first; where it has not come yet it may be either
                    let first = bytes.get(frame.start + 5);
                    self.parses_unnamed |= first.is_none_or(|byte| *byte == 0);
                    self.names_statement |= first.is_none_or(|byte| *byte != 0);
                }
                FrontendTag::Bind | FrontendTag::Describe => self.needs_unnamed |= !self.parses_unnamed,
                FrontendTag::Query
                | FrontendTag::Execute
                | FrontendTag::Close
                | FrontendTag::Flush
                | FrontendTag::Sync
                | FrontendTag::FunctionCall
                | FrontendTag::CopyData
                | FrontendTag::CopyDone
                | FrontendTag::CopyFail
                | FrontendTag::Terminate => {}
            }
        }
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
            FrontendTag::Parse => Asked::Parse,
            FrontendTag::Bind => Asked::Bind,
            FrontendTag::Execute => Asked::Execute,
            FrontendTag::Close => Asked::Close,
            FrontendTag::Sync => Asked::Sync,
            FrontendTag::Describe => {
                // byte 5 tells statement from portal, also in a frame that is too long to be held
                if bytes.get(frame.start + 5) == Some(&b'S') {
                    Asked::DescribeStatement
                } else {
                    Asked::DescribePortal
                }
            }
            FrontendTag::Flush
            | FrontendTag::CopyData
            | FrontendTag::CopyDone
            | FrontendTag::CopyFail
            | FrontendTag::Terminate => return,
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

fn setting_name(change: &SettingChange) -> Option<&str> {
    match change {
        SettingChange::Set { name, .. }
        | SettingChange::SetLocal { name }
        | SettingChange::Reset { name }
        | SettingChange::Show { name } => Some(name),
        SettingChange::ResetAll => None,
    }
}

/// Messages of the extended protocol, read one after the other.
struct Series<'a> {
    facts: Facts,
    statements: &'a Statements,
    /// Portals bound here, with the facts of their statements.
    binds: Vec<(Box<[u8]>, Option<Analysis>)>,
}

impl Series<'_> {
    fn read(
        &mut self,
        tag: FrontendTag,
        frame: &[u8],
        analyzer: &Analyzer,
        backslash: Backslash,
    ) -> Result<(), WireError> {
        match tag {
            FrontendTag::Parse => {
                let parse = wire::parse(frame)?;
                let analysis = analyzer.analyze(parse.text, backslash);
                self.count(Some(&analysis));
                self.facts.parses_unnamed |= parse.name.is_empty();
                self.facts.names_statement |= !parse.name.is_empty();
                let prepared = Prepared {
                    text: parse.text.into(),
                    types: parse.types.into(),
                    analysis,
                };
                self.facts
                    .confirmations
                    .push_back(Confirmation::Prepared(parse.name.into(), prepared));
            }
            FrontendTag::Bind => {
                let bind = wire::bind(frame)?;
                self.use_statement(bind.statement);
                let analysis = self
                    .statement(bind.statement)
                    .map(|prepared| prepared.analysis.clone());
                self.count(analysis.as_ref());
                self.facts.confirmations.push_back(Confirmation::Bound(
                    bind.portal.into(),
                    Portal {
                        analysis: analysis.clone(),
                        local: None,
                    },
                ));
                self.binds.push((bind.portal.into(), analysis));
            }
            FrontendTag::Execute => {
                let execute = wire::execute(frame)?;
                let analysis = self.portal(execute.portal);
                self.count(analysis.as_ref());
                match analysis {
                    Some(analysis) => self.facts.runs.push(analysis),
                    None => self.facts.unknown = true,
                }
            }
            FrontendTag::Describe => {
                let target = wire::target(frame)?;
                match target.kind {
                    TargetKind::Statement => {
                        self.facts.describes_statement = true;
                        self.use_statement(target.name);
                        let analysis = self
                            .statement(target.name)
                            .map(|prepared| prepared.analysis.clone());
                        self.count(analysis.as_ref());
                    }
                    TargetKind::Portal => {
                        let analysis = self.portal(target.name);
                        self.count(analysis.as_ref());
                    }
                }
            }
            FrontendTag::Close => {
                let target = wire::target(frame)?;
                let confirmation = match target.kind {
                    TargetKind::Statement => {
                        let analysis = self
                            .statement(target.name)
                            .map(|prepared| prepared.analysis.clone());
                        self.count(analysis.as_ref());
                        Confirmation::ClosedStatement(target.name.into())
                    }
                    TargetKind::Portal => {
                        let analysis = self.portal(target.name);
                        self.count(analysis.as_ref());
                        Confirmation::Nothing
                    }
                };
                self.facts.confirmations.push_back(confirmation);
            }
            FrontendTag::Query => {
                let analysis = analyzer.analyze(wire::query_text(frame)?, backslash);
                self.count(Some(&analysis));
                self.facts.runs.push(analysis);
            }
            FrontendTag::FunctionCall => {
                self.facts.foreign += 1;
                self.facts.unknown = true;
            }
            FrontendTag::Flush
            | FrontendTag::Sync
            | FrontendTag::CopyData
            | FrontendTag::CopyDone
            | FrontendTag::CopyFail
            | FrontendTag::Terminate => {}
        }
        Ok(())
    }

    fn count(&mut self, analysis: Option<&Analysis>) {
        let is_own = analysis
            .and_then(Analysis::single)
            .is_some_and(|statement| own(statement));
        if is_own {
            self.facts.own += 1;
        } else {
            self.facts.foreign += 1;
        }
    }

    fn use_statement(&mut self, name: &[u8]) {
        self.facts.needs_unnamed |= name.is_empty() && !self.facts.parses_unnamed;
    }

    /// The statement `name` as it is at this point of the series.
    fn statement(&self, name: &[u8]) -> Option<&Prepared> {
        for confirmation in self.facts.confirmations.iter().rev() {
            match confirmation {
                Confirmation::Prepared(prepared, statement) if **prepared == *name => return Some(statement),
                Confirmation::ClosedStatement(closed) if **closed == *name => return None,
                Confirmation::Prepared(..)
                | Confirmation::ClosedStatement(_)
                | Confirmation::Bound(..)
                | Confirmation::Nothing => {}
            }
        }
        self.statements.prepared(name)
    }

    fn portal(&self, name: &[u8]) -> Option<Analysis> {
        match self.binds.iter().rev().find(|(portal, _)| **portal == *name) {
            Some((_, analysis)) => analysis.clone(),
            None => self
                .statements
                .portal(name)
                .and_then(|portal| portal.analysis.clone()),
        }
    }
}

/// The form of a request that runs one portal to its end: Parse at most once, Describe of anything, one Bind before one
/// Execute of the same portal without a limit of rows, Close of statements, one Sync at the end.
fn portal_form(request: &Request, bytes: &[u8]) -> Option<SinglePortal> {
    if request.ending != Ending::Sync {
        return None;
    }
    let body = |frame: &FrameSpan| bytes.get(frame.start..frame.end).unwrap_or_default();
    let (mut bind, mut execute, mut described, mut parses, mut names_statement) =
        (None, None, false, 0, false);
    for (index, frame) in request.frames.iter().enumerate() {
        match frame.tag {
            FrontendTag::Parse if parses == 0 && bind.is_none() => {
                parses = 1;
                names_statement = !wire::parse(body(frame)).ok()?.name.is_empty();
            }
            FrontendTag::Bind if bind.is_none() => bind = Some((index, wire::bind(body(frame)).ok()?.portal)),
            FrontendTag::Describe => {
                let target = wire::target(body(frame)).ok()?;
                match (target.kind, bind) {
                    (TargetKind::Statement, _) => {}
                    (TargetKind::Portal, Some((_, portal))) if portal == target.name && execute.is_none() => {
                        described = true;
                    }
                    (TargetKind::Portal, _) => return None,
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
            FrontendTag::Sync => {}
            FrontendTag::Parse
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
    let ((bind, _), execute) = (bind?, execute?);
    Some(SinglePortal {
        bind,
        execute,
        described,
        names_statement,
    })
}
