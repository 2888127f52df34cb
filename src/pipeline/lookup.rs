//! Whether a request's answer is in memory, will be soon, or is to be kept.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::facts::{Facts, Form};
use super::local::formats;
use super::replay::{replays, wants_description};
use super::serve::Story;
use super::session::{Binding, Interrupted, Session};
use crate::cache::{Entry, Fill, KeyBuilder, KeyParameter, Lookup, Outcome, TagId};
use crate::policy::{BypassReason, Cacheability, Catalog};
use crate::session::{Request, Statements};
use crate::sql::{Analysis, Statement, names_a_moment};
use crate::telemetry::Verdict;
use crate::wire::{self, FrontendTag, TransactionStatus};

/// Where an answer comes from.
pub(super) enum Way {
    /// From memory.
    Memory(Arc<Entry>, Verdict),
    /// From the backend, and perhaps into memory.
    Backend(Option<Collecting>),
}

/// An answer that is to be kept, and the definitions that this was decided by.
pub(super) struct Collecting {
    pub(super) fill: Fill,
    pub(super) catalog: Arc<Catalog>,
}

/// A request whose answer may be kept.
struct Cacheable<'f> {
    analysis: &'f Analysis,
    statement: &'f Statement,
    catalog: Arc<Catalog>,
    tags: Vec<TagId>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Looks whether the answer is in memory, or will be soon.
    pub(super) async fn look_up(
        &mut self,
        request: &Request,
        facts: &Facts,
        story: &mut Story,
    ) -> Result<Way, Interrupted> {
        let cacheable = match self.cacheable(facts) {
            Ok(cacheable) => cacheable,
            Err(reason) => {
                story.reason = reason;
                return Ok(Way::Backend(None));
            }
        };
        let mut keys = std::mem::take(&mut self.keys);
        let way = self
            .look_up_key(request, facts, cacheable, &mut keys, story)
            .await;
        self.keys = keys;
        way
    }

    async fn look_up_key(
        &mut self,
        request: &Request,
        facts: &Facts,
        cacheable: Cacheable<'_>,
        keys: &mut KeyBuilder,
        story: &mut Story,
    ) -> Result<Way, Interrupted> {
        let Cacheable {
            analysis,
            statement,
            catalog,
            tags,
        } = cacheable;
        let described = facts.form == Form::Simple || wants_description(request);
        let bytes = self.client.inbox().get(..request.len).unwrap_or_default();
        self.canonical.clear();
        let Some(portal) = bound(request, bytes, facts, &self.statements) else {
            story.reason = BypassReason::Moment.as_str();
            return Ok(Way::Backend(None));
        };
        analysis.canonical_into(portal.text, &mut self.canonical);
        let key = keys.build(&self.scope, &self.canonical, portal.parameters, &portal.formats);
        loop {
            let gateway = &self.gateway;
            match gateway
                .cache
                .lookup(key, described, story.began, || gateway.tags.snapshot(&tags))
            {
                Lookup::Hit(entry) => {
                    return Ok(usable(entry, Verdict::Hit, facts, statement, request, story));
                }
                Lookup::Bypass(reason) => {
                    story.reason = reason.as_str();
                    return Ok(Way::Backend(None));
                }
                Lookup::Lead(fill) => {
                    // definitions may have changed between the verdict and the snapshot of versions
                    if !self.identity.database.watch.is_current(&catalog) {
                        story.reason = BypassReason::NoCatalog.as_str();
                        return Ok(Way::Backend(None));
                    }
                    story.verdict = Verdict::Miss;
                    return Ok(Way::Backend(Some(Collecting { fill, catalog })));
                }
                Lookup::Follow(follower) => {
                    self.card.note_waiting();
                    match Self::attend(&mut self.client, &self.card, follower.wait()).await? {
                        Outcome::Entry(entry) => {
                            return Ok(usable(entry, Verdict::Follow, facts, statement, request, story));
                        }
                        Outcome::Retry => {}
                    }
                }
            }
        }
    }

    /// Whether the answer may be kept, by what is known of the session and of the statement.
    fn cacheable<'f>(&mut self, facts: &'f Facts) -> Result<Cacheable<'f>, &'static str> {
        if let Some(reason) = self.obstacle() {
            return Err(reason.as_str());
        }
        let Some((analysis, statement)) = facts.single() else {
            return Err("several_statements");
        };
        match facts.form {
            Form::Simple => {}
            // what it is at the server is told when it is prepared
            Form::Portal(_) if facts.names_statement => return Err("prepares_statement"),
            // the backend would have it from here on, or has it already
            Form::Portal(portal) if portal.named && self.status() != TransactionStatus::Idle => {
                return Err(BypassReason::InTransaction.as_str());
            }
            Form::Portal(_) => {}
            Form::Series => return Err("pipeline"),
        }
        if analysis.moment_literal() {
            return Err(BypassReason::Moment.as_str());
        }
        let database = &self.identity.database;
        let Some(catalog) = database.watch.current() else {
            return Err(BypassReason::NoCatalog.as_str());
        };
        let verdicts = self
            .judged
            .verdicts(&self.gateway, statement, database, &catalog, &self.search_path);
        match &verdicts.cacheability {
            Cacheability::Bypass(reason) => Err(reason.as_str()),
            Cacheability::Cacheable(relations) => {
                let tags = relations.iter().map(|relation| TagId {
                    scope: database.scope,
                    relation: *relation,
                });
                Ok(Cacheable {
                    analysis,
                    statement,
                    tags: tags.collect(),
                    catalog,
                })
            }
        }
    }

    /// Why this session's requests go past the cache now, whatever they are.
    fn obstacle(&self) -> Option<BypassReason> {
        if !self.caching {
            return Some(BypassReason::SessionOff);
        }
        if self.gateway.shared() {
            return Some(BypassReason::TakingOver);
        }
        if self.pins.any() || self.backslash.is_none() {
            return Some(BypassReason::Pinned);
        }
        let settled = match &self.binding {
            Binding::Held(lease) => lease.replies().settled(),
            Binding::Free => true,
        };
        let open = match self.status() {
            TransactionStatus::Idle => false,
            TransactionStatus::InTransaction => !self.clean,
            TransactionStatus::Failed => true,
        };
        (open || !settled).then_some(BypassReason::InTransaction)
    }
}

/// The entry as the answer, unless the client needs what it does not have.
fn usable(
    entry: Arc<Entry>,
    verdict: Verdict,
    facts: &Facts,
    statement: &Statement,
    request: &Request,
    story: &mut Story,
) -> Way {
    // a client that was told other columns is to be told so, and by the server
    let told = facts
        .namings
        .iter()
        .filter_map(|naming| naming.known()?.told)
        .any(|told| entry.columns != Some(told.columns()));
    if told {
        story.reason = "plan_changed";
        return Way::Backend(None);
    }
    // a parameter that was given a type counts whether or not the text names it
    let describes_statement = facts.describes_statement && (statement.parameters > 0 || facts.parameterized);
    if describes_statement || !replays(request, facts.form, &entry) {
        story.reason = "not_describable";
        return Way::Backend(None);
    }
    Way::Memory(entry, verdict)
}

/// What is bound: the text, and what is filled in.
pub(super) struct Bound<'b> {
    pub(super) text: &'b [u8],
    pub(super) parameters: Vec<KeyParameter<'b>>,
    pub(super) formats: Vec<i16>,
}

/// Text and parameters of the request's single statement; `None` where a parameter names a moment, or what the client
/// sent is not sound (the backend will say so).
pub(super) fn bound<'b>(
    request: &Request,
    bytes: &'b [u8],
    facts: &'b Facts,
    statements: &'b Statements,
) -> Option<Bound<'b>> {
    match facts.form {
        Form::Simple => Some(Bound {
            text: wire::query_text(bytes).ok()?,
            parameters: Vec::new(),
            formats: Vec::new(),
        }),
        Form::Series => None,
        Form::Portal(portal) => bound_by(request, bytes, portal.bind, statements),
    }
}

/// As [`bound`], by the `Bind` that is the request's frame number `bind`.
pub(super) fn bound_by<'b>(
    request: &Request,
    bytes: &'b [u8],
    bind: usize,
    statements: &'b Statements,
) -> Option<Bound<'b>> {
    let frame = |index: usize| {
        let frame = request.frames.get(index)?;
        bytes.get(frame.start..frame.end)
    };
    let bind = wire::bind(frame(bind)?).ok()?;
    let parsed = request
        .frames
        .iter()
        .position(|frame| frame.tag == FrontendTag::Parse);
    let (text, types) = if let Some(index) = parsed {
        let parse = wire::parse(frame(index)?).ok()?;
        if parse.name != bind.statement {
            return None;
        }
        (parse.text, parse.types)
    } else {
        let prepared = statements.prepared(bind.statement)?;
        (&*prepared.text, &*prepared.types)
    };
    let codes = formats(bind.parameter_formats);
    // types of parameters that are not bound, and formats of some of them, are errors
    if types.len() / 4 > bind.parameter_count || (codes.len() > 1 && codes.len() != bind.parameter_count) {
        return None;
    }
    let mut parameters = Vec::with_capacity(bind.parameter_count);
    for (index, value) in bind.values().enumerate() {
        let format = match codes.as_slice() {
            [] => 0,
            [all] => *all,
            each => *each.get(index)?,
        };
        // a text that the backend may read as a date of the moment, such as 'today'; texts are the same in both formats
        if value.is_some_and(names_a_moment) {
            return None;
        }
        let type_oid = types
            .as_chunks::<4>()
            .0
            .get(index)
            .map_or(0, |oid| u32::from_be_bytes(*oid));
        parameters.push(KeyParameter {
            type_oid,
            format,
            value,
        });
    }
    Some(Bound {
        text,
        parameters,
        formats: formats(bind.result_formats),
    })
}
