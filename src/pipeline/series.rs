//! Messages of the extended protocol, read one after the other: what each names stands for at its point of the series.

use std::sync::Arc;

use super::facts::{EMPTY, Facts, Reader};
use super::observe::Confirmation;
use super::rename::{KnownStatement, Naming, NamingAct};
use super::session::changes_reading;
use crate::backend::is_shared_name;
use crate::session::{Description, Portal, Prepared, Settings};
use crate::sql::{Analysis, PinReason, SessionUse, SettingChange, Statement, TransactionControl};
use crate::wire::{self, FrontendTag, TargetKind, WireError};

/// Where the name of a statement stands in a `Parse`, behind tag and length, and in a `Describe` or `Close`, behind the
/// kind too.
const NAME_OF_PARSE: usize = 5;
const NAME_OF_TARGET: usize = 6;

/// A series while it is read.
pub(super) struct Series<'a> {
    pub(super) facts: Facts,
    reader: &'a Reader<'a>,
    /// Something has run that may have changed settings: a text that is prepared now may not mean what it means elsewhere.
    moved: bool,
}

impl<'a> Series<'a> {
    pub(super) fn new(facts: Facts, reader: &'a Reader<'a>) -> Self {
        Self {
            facts,
            reader,
            moved: false,
        }
    }

    /// Reads the message `frame`, which is the request's message number `index`.
    pub(super) fn read(&mut self, index: usize, tag: FrontendTag, frame: &[u8]) -> Result<(), WireError> {
        match tag {
            FrontendTag::Parse => self.read_parse(index, &wire::parse(frame)?),
            FrontendTag::Bind => {
                let bind = wire::bind(frame)?;
                // formats of several parameters are an error without them
                self.facts.parameterized |= bind.parameter_count > 0 || bind.parameter_formats.len() > 2;
                self.read_bind(index, bind.portal, bind.statement);
            }
            FrontendTag::Execute => {
                let execute = wire::execute(frame)?;
                let analysis = self.portal(execute.portal);
                self.facts.local_portal |= self.is_local(execute.portal);
                self.facts.count(analysis.as_ref());
                match analysis {
                    Some(analysis) => self.run(index, analysis),
                    None => self.run_unknown(),
                }
            }
            FrontendTag::Describe => {
                let target = wire::target(frame)?;
                match target.kind {
                    TargetKind::Statement => self.read_describe(index, target.name),
                    TargetKind::Portal => {
                        let analysis = self.portal(target.name);
                        self.facts.count(analysis.as_ref());
                    }
                }
            }
            FrontendTag::Close => {
                let target = wire::target(frame)?;
                match target.kind {
                    TargetKind::Statement => self.read_close(index, target.name),
                    TargetKind::Portal => {
                        let analysis = self.portal(target.name);
                        self.facts.count(analysis.as_ref());
                        self.facts.confirmations.push_back(Confirmation::Nothing);
                    }
                }
            }
            FrontendTag::Query => {
                let analysis = self.analyze(wire::query_text(frame)?);
                self.facts.queries = true;
                self.facts.count(Some(&analysis));
                self.run(index, analysis);
            }
            FrontendTag::FunctionCall => {
                self.facts.foreign += 1;
                self.run_unknown();
            }
            // the server has something to say of their bodies
            FrontendTag::Flush | FrontendTag::Sync if frame.len() > EMPTY => self.facts.foreign += 1,
            FrontendTag::Flush
            | FrontendTag::Sync
            | FrontendTag::CopyData
            | FrontendTag::CopyDone
            | FrontendTag::CopyFail
            | FrontendTag::Terminate => {}
        }
        Ok(())
    }

    /// What is known of `text`: nothing, if what runs before it may change how it is read.
    fn analyze(&self, text: &[u8]) -> Analysis {
        if self.facts.rereads {
            return Analysis::unread(text);
        }
        self.reader.analyze(text)
    }

    fn run_unknown(&mut self) {
        self.facts.unknown = true;
        self.facts.rereads = true;
        self.moved = true;
    }

    /// The message number `index` runs `analysis`: what its statements do with prepared ones is to be confirmed, and what
    /// they name that was prepared by protocol has to be at the connection under that name first.
    pub(super) fn run(&mut self, index: usize, analysis: Analysis) {
        let mut first = self.facts.confirmations.len();
        for located in analysis.statements() {
            self.facts.rereads |= changes_rules(&located.statement);
            self.moved |= located.statement.setting.is_some() || located.statement.pin.is_some();
            let done = match &located.statement.session {
                Some(SessionUse::Execute(name)) => {
                    self.visit(index, name, true, &mut first);
                    continue;
                }
                Some(SessionUse::Prepare(name)) => {
                    // the name has to be taken there for the server to refuse it
                    self.visit(index, name, false, &mut first);
                    Confirmation::PreparedBySql(Arc::clone(name))
                }
                Some(SessionUse::Deallocate(name)) => {
                    if let Some(name) = name {
                        self.visit(index, name, false, &mut first);
                    }
                    Confirmation::Deallocated(name.clone())
                }
                Some(SessionUse::DiscardAll) => Confirmation::Deallocated(None),
                Some(_) | None => continue,
            };
            self.facts.confirmations.push_back(done);
        }
        self.facts.runs.push(analysis);
    }

    /// The message number `index` is about `analysis`: which columns an EXECUTE has is looked up when it is prepared, and
    /// when it is bound.
    fn look_up(&mut self, index: usize, analysis: &Analysis) {
        let mut first = self.facts.confirmations.len();
        for located in analysis.statements() {
            if let Some(SessionUse::Execute(name)) = &located.statement.session {
                self.visit(index, name, true, &mut first);
            }
        }
    }

    /// SQL names the statement `name` in the message number `index`, and finds it if it `stays` there. What is put there is
    /// confirmed before what the message does, as the number `first`.
    fn visit(&mut self, index: usize, name: &Arc<str>, stays: bool, first: &mut usize) {
        if self.known_to_sql(name.as_bytes()) {
            return;
        }
        let prepared = self.statement(name.as_bytes()).map(Arc::clone);
        let Some((key, prepared)) = prepared.and_then(|prepared| Some((prepared.key?, prepared))) else {
            return;
        };
        let (known, told) = self.told(name.as_bytes(), &prepared);
        let known = KnownStatement {
            name: known,
            key,
            prepared,
            told,
        };
        let act = if stays {
            NamingAct::Visit(known)
        } else {
            NamingAct::TakeName(known)
        };
        self.name(index, 0, b"", act);
        let visited = Confirmation::Visited(Arc::clone(name), stays);
        self.facts.confirmations.insert(*first, visited);
        *first += 1;
    }

    /// Reads what there is of a message that is too long to be held. Names stand at the front of a `Bind`, so its rest
    /// needs no reading; a text that is not seen can do anything.
    pub(super) fn read_beginning(&mut self, tag: FrontendTag, frame: &[u8]) {
        let mut names = frame
            .get(NAME_OF_PARSE..)
            .unwrap_or_default()
            .split(|byte| *byte == 0);
        let (first, second) = (names.next().unwrap_or_default(), names.next());
        // a name is whole if something stands behind it
        let second_is_whole = names.next().is_some();
        match (tag, second) {
            (FrontendTag::Bind, Some(statement)) if second_is_whole => self.read_bind(0, first, statement),
            (FrontendTag::Parse, Some(_)) => {
                self.facts.unknown = true;
                self.facts.foreign += 1;
                self.facts.unread_parse = true;
                self.facts.parses_unnamed = first.is_empty();
                self.facts.names_statement = !first.is_empty();
            }
            _ => {
                self.facts.unknown = true;
                self.facts.foreign += 1;
                self.facts.needs_unnamed = (tag == FrontendTag::Bind).then_some(0);
            }
        }
    }

    fn read_parse(&mut self, index: usize, parse: &wire::Parse<'_>) {
        let analysis = self.analyze(parse.text);
        self.facts.count(Some(&analysis));
        self.look_up(index, &analysis);
        let prepared = |key, analysis, settings: &Settings| Prepared {
            text: parse.text.into(),
            types: parse.types.into(),
            analysis,
            key,
            settings: settings.clone(),
        };
        self.facts.parameterized |= !parse.types.is_empty();
        let mut described = None;
        let confirmed = if parse.name.is_empty() {
            self.facts.parses_unnamed = true;
            Arc::new(prepared(None, analysis, self.reader.settings))
        } else {
            self.facts.names_statement = true;
            let taken = self.statement(parse.name).is_some();
            let by_sql = self.known_to_sql(parse.name);
            let Reader {
                statements,
                shared,
                scope,
                settings,
                ..
            } = self.reader;
            self.facts.too_many |= !statements.has_room(parse.text.len() + parse.types.len());
            // what depends on something that is not followed is this session's alone
            let alone = rand::random::<[u8; 16]>();
            let scope = scope.filter(|_| !self.moved);
            let key = shared.key(scope.unwrap_or(&alone), parse.text, parse.types);
            let prepared = shared.share(key, || prepared(Some(key), analysis, settings));
            let act = if by_sql {
                NamingAct::PrepareTaken
            } else if taken {
                NamingAct::PrepareAgain
            } else {
                described = Some(Confirmation::Described(parse.name.into()));
                NamingAct::Prepare(KnownStatement {
                    name: parse.name.into(),
                    key,
                    prepared: Arc::clone(&prepared),
                    told: None,
                })
            };
            self.name(index, NAME_OF_PARSE, parse.name, act);
            prepared
        };
        self.facts
            .confirmations
            .push_back(Confirmation::Prepared(parse.name.into(), confirmed));
        self.facts.confirmations.extend(described);
    }

    fn read_bind(&mut self, index: usize, portal: &[u8], statement: &[u8]) {
        let analysis = self.use_statement(
            index,
            NAME_OF_PARSE + portal.len() + 1,
            statement,
            NamingAct::Bind,
            NamingAct::BindUnknown,
        );
        let bound = Portal {
            analysis,
            local: None,
        };
        self.facts
            .confirmations
            .push_back(Confirmation::Bound(portal.into(), bound));
    }

    fn read_describe(&mut self, index: usize, name: &[u8]) {
        self.facts.describes_statement = true;
        self.use_statement(
            index,
            NAME_OF_TARGET,
            name,
            NamingAct::Describe,
            NamingAct::DescribeUnknown,
        );
        if self
            .statement(name)
            .is_some_and(|prepared| prepared.key.is_some())
        {
            self.facts
                .confirmations
                .push_back(Confirmation::Described(name.into()));
        }
    }

    fn read_close(&mut self, index: usize, name: &[u8]) {
        let analysis = self.statement(name).map(|prepared| prepared.analysis.clone());
        self.facts.count(analysis.as_ref());
        // what the gateway does not know may have been prepared by SQL
        let here = analysis.is_some() && !name.is_empty() && !self.known_to_sql(name);
        if here || is_shared_name(name) {
            self.name(index, NAME_OF_TARGET, name, NamingAct::Close);
        }
        self.facts
            .confirmations
            .push_back(Confirmation::ClosedStatement(name.into()));
    }

    /// Notes that the statement `name` is used; its facts.
    fn use_statement(
        &mut self,
        index: usize,
        start: usize,
        name: &[u8],
        known: impl FnOnce(KnownStatement) -> NamingAct,
        unknown: NamingAct,
    ) -> Option<Analysis> {
        let prepared = self.statement(name).map(Arc::clone);
        let analysis = prepared.as_ref().map(|prepared| prepared.analysis.clone());
        self.facts.count(analysis.as_ref());
        if let Some(analysis) = &analysis {
            self.look_up(index, analysis);
        }
        if name.is_empty() {
            if !self.facts.parses_unnamed {
                self.facts.needs_unnamed.get_or_insert(index);
            }
            return analysis;
        }
        let act = prepared
            .and_then(|prepared| Some((prepared.key?, prepared)))
            .map_or(unknown, |(key, prepared)| {
                let (name, told) = self.told(name, &prepared);
                known(KnownStatement {
                    name,
                    key,
                    prepared,
                    told,
                })
            });
        self.name(index, start, name, act);
        analysis
    }

    fn name(&mut self, frame: usize, start: usize, name: &[u8], act: NamingAct) {
        let after_end = self.facts.statements().any(|before| {
            let ends = before.transaction;
            ends.is_some_and(|control| control != TransactionControl::Begin)
        });
        self.facts.namings.push(Naming {
            after_end,
            frame,
            start,
            len: name.len(),
            act,
            number: None,
        });
    }

    /// The name to keep, and what the client was told of the statement if that is still `prepared`.
    fn told(&self, name: &[u8], prepared: &Arc<Prepared>) -> (Arc<[u8]>, Option<Description>) {
        match self.reader.statements.named_statement(name) {
            Some((name, named)) if Arc::ptr_eq(&named.prepared, prepared) => {
                (Arc::clone(name), named.description)
            }
            Some(_) | None => (name.into(), None),
        }
    }

    /// What the series has done so far and the server has still to confirm, the latest first.
    fn done(&self) -> impl Iterator<Item = &Confirmation> {
        let series = self.facts.confirmations.iter().rev();
        series.chain(self.reader.late.iter().rev())
    }

    /// The statement `name` as it is at this point of the series.
    fn statement(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        for confirmation in self.done() {
            if let Confirmation::Prepared(prepared, statement) = confirmation
                && **prepared == *name
            {
                return Some(statement);
            }
            let by_sql =
                matches!(confirmation, Confirmation::PreparedBySql(prepared) if prepared.as_bytes() == name);
            if by_sql || takes_away(confirmation, name) {
                return None;
            }
        }
        self.reader.statements.prepared(name)
    }

    /// Whether the statement `name` is at the connection under that name at this point of the series, so that SQL finds it.
    fn known_to_sql(&self, name: &[u8]) -> bool {
        for confirmation in self.done() {
            if let Confirmation::Visited(known, _) | Confirmation::PreparedBySql(known) = confirmation
                && known.as_bytes() == name
            {
                return true;
            }
            if takes_away(confirmation, name) {
                return false;
            }
        }
        let name = std::str::from_utf8(name);
        name.is_ok_and(|name| self.reader.pins.prepared(name))
    }

    /// Whether the portal `name` is one of which only the gateway knows.
    fn is_local(&self, name: &[u8]) -> bool {
        let bound = |confirmation: &Confirmation| matches!(confirmation, Confirmation::Bound(bound, _) if **bound == *name);
        let portal = self.reader.statements.portal(name);
        !self.facts.confirmations.iter().any(bound) && portal.is_some_and(|portal| portal.local.is_some())
    }

    fn portal(&self, name: &[u8]) -> Option<Analysis> {
        let bound = self.done().find_map(|done| {
            let Confirmation::Bound(bound, portal) = done else {
                return None;
            };
            (**bound == *name).then_some(portal)
        });
        bound
            .or_else(|| self.reader.statements.portal(name))
            .and_then(|portal| portal.analysis.clone())
    }
}

/// Whether a text that comes after `statement` may be read by other rules than before it, which are the gateway's. Going back
/// to what the session began with does not change them. Source:
/// <https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-STRINGS>.
fn changes_rules(statement: &Statement) -> bool {
    let setting = match &statement.setting {
        Some(SettingChange::Set {
            name,
            value: Some(value),
        }) => changes_reading(name, value),
        Some(SettingChange::SetConfig { name, value }) => changes_reading(name, value),
        Some(SettingChange::SetLocal { name }) => {
            ["standard_conforming_strings", "client_encoding"].contains(&&**name)
        }
        Some(
            SettingChange::Set { value: None, .. }
            | SettingChange::Reset { .. }
            | SettingChange::ResetAll
            | SettingChange::Show { .. },
        )
        | None => false,
    };
    let unseen = statement.pin.is_some_and(|reason| {
        matches!(
            reason,
            PinReason::Setting | PinReason::Procedure | PinReason::Unparsed
        )
    });
    setting || unseen
}

/// Whether there is no statement `name` after it. The unnamed statement is not SQL's to close.
fn takes_away(confirmation: &Confirmation, name: &[u8]) -> bool {
    match confirmation {
        Confirmation::ClosedStatement(closed) => **closed == *name,
        Confirmation::Deallocated(None) => !name.is_empty(),
        Confirmation::Deallocated(Some(closed)) => closed.as_bytes() == name,
        Confirmation::Prepared(..)
        | Confirmation::Described(_)
        | Confirmation::Visited(..)
        | Confirmation::PreparedBySql(_)
        | Confirmation::Bound(..)
        | Confirmation::Nothing => false,
    }
}
