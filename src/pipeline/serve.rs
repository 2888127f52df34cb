//! One request: look into the cache, admit, bind, run, settle. This file is the order of things; each step is elsewhere.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use super::error::ServeError;
use super::facts::{Facts, Form, Reader, Spare};
use super::local::{answer_extended, answer_simple};
use super::lookup::Way;
use super::own::OwnSettings;
use super::replay::{Rest, replay};
use super::session::{Binding, Interrupted, Last, Over, Session};
use crate::cache::Entry;
use crate::error::ClientError;
use crate::session::Request;
use crate::sql::Fingerprint;
use crate::telemetry::event::{RequestEnd, RequestFinished};
use crate::telemetry::{ErrorSource, RequestKind, Verdict};
use crate::wire;

/// What a request came to, for the log, the metrics and `SHOW tollgate.last`.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) began: Instant,
    /// When the backend's last reply had been sent on.
    pub(super) ended: Option<Instant>,
    pub(super) kind: RequestKind,
    pub(super) fingerprint: Fingerprint,
    pub(super) verdict: Verdict,
    pub(super) reason: &'static str,
    pub(super) age: Option<Duration>,
    pub(super) rows: u64,
    /// Of the request.
    pub(super) received: u64,
    /// Of the answer.
    pub(super) bytes: u64,
    pub(super) backend_time: Duration,
    pub(super) saved_time: Duration,
    pub(super) queue_time: Duration,
}

impl Story {
    pub(super) fn of(facts: &Facts, request: &Request, began: Instant) -> Self {
        Self {
            began,
            ended: None,
            kind: facts.kind(),
            fingerprint: facts
                .single()
                .map_or(Fingerprint(0), |(_, statement)| statement.fingerprint),
            verdict: Verdict::Bypass,
            reason: "",
            age: None,
            rows: 0,
            received: u64::try_from(request.len).unwrap_or(u64::MAX),
            bytes: 0,
            backend_time: Duration::ZERO,
            saved_time: Duration::ZERO,
            queue_time: Duration::ZERO,
        }
    }
}

/// Whether the session goes on after a request.
pub(super) type Served = Result<(), Over>;

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Serves one request; its bytes are at the front of the inbox.
    pub(super) async fn serve(&mut self, request: &Request) -> Served {
        let began = Instant::now();
        let bytes = self.client.inbox().get(..request.len).unwrap_or_default();
        let spare = Spare {
            confirmations: if self.late.is_empty() {
                std::mem::take(&mut self.late)
            } else {
                VecDeque::new()
            },
            namings: std::mem::take(&mut self.namings),
        };
        let reader = Reader {
            statements: &self.statements,
            pins: &self.pins,
            late: &self.late,
            analyzer: &self.gateway.analyzer,
            backslash: self.backslash,
            shared: &self.gateway.statements,
            scope: (!self.settings_unknown).then_some(&self.scope),
            settings: &self.settings,
        };
        let read = Facts::read(request, bytes, &reader, spare);
        let mut facts = match read {
            Ok(facts) => facts,
            // where messages begin and end is known, so the next can be read
            Err(error) => {
                self.drop_request(request);
                self.refuse(request, &error.into());
                return Ok(());
            }
        };
        if facts.own > 0 {
            return self.serve_own(request, &facts);
        }
        if self.controls(&facts) {
            return self.serve_control(request, facts, began);
        }
        if let Some(asked) = self.asks_process(request, &facts) {
            return self.serve_process(request, facts, asked, began).await;
        }
        let mut story = Story::of(&facts, request, began);
        if facts.too_many {
            self.refuse_with(request, &ServeError::TooManyStatements, &mut story);
            return Ok(());
        }
        if let Some(name) = facts.reserved_name() {
            let error = ServeError::ReservedName(name.to_string());
            self.refuse_with(request, &error, &mut story);
            return Ok(());
        }
        if self.asks_for_a_strangers_number(&facts) {
            self.refuse_with(request, &ServeError::NumberOfSequence, &mut story);
            return Ok(());
        }
        match self.look_up(request, &facts, &mut story).await {
            Ok(Way::Memory(entry, verdict)) => {
                story.verdict = verdict;
                self.serve_from_memory(request, facts, &entry, &mut story).await
            }
            Ok(Way::Backend(collecting)) => {
                self.serve_from_backend(request, &mut facts, collecting, &mut story)
                    .await
            }
            Err(interrupted) => self.interrupted(request, interrupted, None, &mut story),
        }
    }

    /// Ends the session over a message that is not the protocol.
    pub(super) fn protocol_error(&mut self, error: &ServeError) -> Served {
        wire::error_response(error, self.client.outbox());
        Err(Over::Told)
    }

    /// Answers what is about the gateway's own settings.
    fn serve_own(&mut self, request: &Request, facts: &Facts) -> Served {
        let unsettled = matches!(&self.binding, Binding::Held(lease) if !lease.replies().settled());
        if facts.foreign > 0 || unsettled {
            self.client.consume(request.len);
            self.refuse(
                request,
                &ServeError::NotAlone("a statement about the gateway's own settings"),
            );
            return Ok(());
        }
        let status = self.status();
        let mut own = OwnSettings {
            caching: self.caching,
            last: self.last.as_ref(),
            status,
        };
        let (bytes, out) = self.client.boxes();
        let bytes = bytes.get(..request.len).unwrap_or_default();
        let goes_on = if facts.form == Form::Simple {
            answer_simple(wire::query_text(bytes).unwrap_or_default(), &mut own, out);
            wire::ready_for_query(own.status, out);
            Ok(true)
        } else {
            answer_extended(request, bytes, &mut self.statements, &mut own, out)
        };
        self.caching = own.caching;
        let failed = own.status != status;
        self.client.consume(request.len);
        if failed {
            self.note_failed();
        }
        match goes_on {
            Ok(true) => {}
            Ok(false) => self.skip_to_sync(),
            Err(error) => return self.protocol_error(&error.into()),
        }
        Ok(())
    }

    /// Answers from an entry, which [`Self::look_up`] found to suffice.
    async fn serve_from_memory(
        &mut self,
        request: &Request,
        facts: Facts,
        entry: &Arc<Entry>,
        story: &mut Story,
    ) -> Served {
        let status = self.status();
        let parameters = facts.single().map_or(0, |(_, statement)| statement.parameters);
        let (bytes, out) = self.client.boxes();
        let bytes = bytes.get(..request.len).unwrap_or_default();
        let Ok(Rest { rows, tail }) = replay(request, bytes, facts.form, parameters, entry, status, out)
        else {
            // looked at before: an entry does not change
            return self.protocol_error(&ServeError::Internal("the answer in memory does not fit"));
        };
        self.note_answered(request, facts);
        self.client.consume(request.len);
        let sent = self.send_rows(&rows, &tail).await;
        story.rows = entry.row_count;
        story.bytes = u64::try_from(entry.size()).unwrap_or(u64::MAX);
        story.saved_time = entry.backend_time;
        story.age = Some(entry.age(story.began));
        self.card.note_query(true);
        match sent {
            Ok(()) => self.finish(story, RequestEnd::Completed),
            Err(interrupted) => return self.interrupted(request, interrupted, None, story),
        }
        Ok(())
    }

    /// Sends a large answer from where it lies; a small one is in the outbox and goes with the next flush.
    async fn send_rows(&mut self, rows: &[u8], tail: &[u8]) -> Result<(), Interrupted> {
        if rows.is_empty() {
            return Ok(());
        }
        self.send_all(rows).await?;
        self.client.outbox().extend_from_slice(tail);
        Ok(())
    }

    /// What was asked for is done, one way or the other: tells everybody whom it concerns.
    pub(super) fn finish(&mut self, story: &Story, end: RequestEnd<'_>) {
        RequestFinished {
            session: self.card.id,
            user: &self.identity.user,
            kind: story.kind,
            end,
            verdict: story.verdict,
            reason: story.reason,
            fingerprint: story.fingerprint.0,
            rows: story.rows,
            bytes: story.bytes,
            backend_time: story.backend_time,
            saved_time: story.saved_time,
            queue_time: story.queue_time,
            total_time: story
                .ended
                .unwrap_or_else(Instant::now)
                .saturating_duration_since(story.began),
        }
        .emit(&self.identity.team.metrics);
        self.gateway.metrics.relayed(story.received, story.bytes);
        self.last = Some(Last {
            verdict: story.verdict,
            reason: story.reason,
            age: story.age,
            fingerprint: story.fingerprint,
            backend_time: story.backend_time,
            rows: story.rows,
        });
    }

    /// Refuses a request with an error of the gateway's own.
    pub(super) fn refuse_with(&mut self, request: &Request, error: &ServeError, story: &mut Story) {
        self.drop_request(request);
        self.refuse(request, error);
        let sqlstate = error.sqlstate().as_str();
        self.finish(
            story,
            RequestEnd::Failed {
                sqlstate,
                source: ErrorSource::Gateway,
            },
        );
    }

    /// A wait ended early.
    pub(super) fn interrupted(
        &mut self,
        request: &Request,
        interrupted: Interrupted,
        limit: Option<Duration>,
        story: &mut Story,
    ) -> Served {
        match interrupted {
            Interrupted::Gone => {
                self.finish(story, RequestEnd::Abandoned);
                Err(Over::Client)
            }
            Interrupted::Cancelled => {
                self.refuse_with(request, &ServeError::Cancelled, story);
                Ok(())
            }
            Interrupted::Timeout => {
                let error = self.time_exceeded(limit.unwrap_or_default());
                self.refuse_with(request, &ServeError::Time(error), story);
                Ok(())
            }
            Interrupted::Killed => {
                let error = ServeError::Shutdown;
                wire::error_response(&error, self.client.outbox());
                let end = RequestEnd::Failed {
                    sqlstate: error.sqlstate().as_str(),
                    source: ErrorSource::Gateway,
                };
                self.finish(story, end);
                Err(Over::Told)
            }
        }
    }
}
