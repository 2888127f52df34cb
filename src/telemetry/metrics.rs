//! What is counted while the gateway runs.
//!
//! A series is looked up once, when a team or backend is first seen; after that counting is an addition to a field.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::types::{BackendName, TeamName};

use super::catalog::{self, Labels, MetricSpec};
use super::histogram::DurationHistogram;
use super::live::LiveState;
use super::vocabulary::{ErrorSource, LoginOutcome, RequestKind, RequestOutcome, Verdict};

type Seconds = Counter<f64, AtomicU64>;

/// Reasons that are told apart; the words are the program's own, so more would be a mistake.
const REASONS_MAX: usize = 64;

/// Everything that is counted. One per process.
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels<3>, Counter>,
    durations: Family<Labels<2>, DurationHistogram>,
    rows: Family<Labels<1>, Counter>,
    result_bytes: Family<Labels<1>, Counter>,
    received_bytes: Counter,
    sent_bytes: Counter,
    lookups: Family<Labels<2>, Counter>,
    warehouse_seconds: Family<Labels<1>, Seconds>,
    saved_seconds: Family<Labels<1>, Seconds>,
    queue_seconds: Family<Labels<1>, Seconds>,
    rejections: Family<Labels<2>, Counter>,
    logins: Family<Labels<1>, Counter>,
    cancels: Family<Labels<1>, Counter>,
    checkouts: Family<Labels<1>, DurationHistogram>,
    backend_connections: Family<Labels<2>, Counter>,
    reloads: Family<Labels<1>, Counter>,
    pins: Reasons,
    shared: Arc<Shared>,
}

/// Counted for all teams together, from each team's requests.
struct Shared {
    bypasses: Reasons,
    errors: Family<Labels<2>, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let relayed = family::<1, Counter>(&mut registry, &catalog::RELAYED_BYTES);
        let direction =
            |word| relayed.get_or_create_owned(&catalog::RELAYED_BYTES.labels([Cow::Borrowed(word)]));
        Self {
            received_bytes: direction("received"),
            sent_bytes: direction("sent"),
            requests: family(&mut registry, &catalog::REQUESTS),
            durations: family(&mut registry, &catalog::REQUEST_DURATION),
            rows: family(&mut registry, &catalog::ROWS),
            result_bytes: family(&mut registry, &catalog::RESULT_BYTES),
            lookups: family(&mut registry, &catalog::CACHE_LOOKUPS),
            warehouse_seconds: family(&mut registry, &catalog::WAREHOUSE_SECONDS),
            saved_seconds: family(&mut registry, &catalog::WAREHOUSE_SECONDS_SAVED),
            queue_seconds: family(&mut registry, &catalog::QUEUE_SECONDS),
            rejections: family(&mut registry, &catalog::QUOTA_REJECTIONS),
            logins: family(&mut registry, &catalog::LOGINS),
            cancels: family(&mut registry, &catalog::CANCELS),
            checkouts: family(&mut registry, &catalog::POOL_CHECKOUT),
            backend_connections: family(&mut registry, &catalog::BACKEND_CONNECTIONS),
            reloads: family(&mut registry, &catalog::CONFIG_RELOADS),
            pins: Reasons::new(&mut registry, &catalog::PINS),
            shared: Arc::new(Shared {
                bypasses: Reasons::new(&mut registry, &catalog::CACHE_BYPASS),
                errors: family(&mut registry, &catalog::ERRORS),
            }),
            registry,
        }
    }

    /// A team's counters; ask once per team and share it. Asked again, it gives the same series.
    pub fn team(&self, team: &TeamName) -> TeamMetrics {
        let name = || Cow::Owned(team.as_str().to_owned());
        TeamMetrics {
            team: team.clone(),
            requests: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
            requests_family: self.requests.clone(),
            durations: by_verdict(|verdict| {
                let labels = catalog::REQUEST_DURATION.labels([name(), verdict]);
                self.durations.get_or_create_owned(&labels)
            }),
            lookups: by_verdict(|verdict| {
                self.lookups
                    .get_or_create_owned(&catalog::CACHE_LOOKUPS.labels([name(), verdict]))
            }),
            rows: self.rows.get_or_create_owned(&catalog::ROWS.labels([name()])),
            result_bytes: self
                .result_bytes
                .get_or_create_owned(&catalog::RESULT_BYTES.labels([name()])),
            warehouse_seconds: self
                .warehouse_seconds
                .get_or_create_owned(&catalog::WAREHOUSE_SECONDS.labels([name()])),
            saved_seconds: self
                .saved_seconds
                .get_or_create_owned(&catalog::WAREHOUSE_SECONDS_SAVED.labels([name()])),
            queue_seconds: self
                .queue_seconds
                .get_or_create_owned(&catalog::QUEUE_SECONDS.labels([name()])),
            rejections: self.rejections.clone(),
            shared: Arc::clone(&self.shared),
        }
    }

    /// A backend's counters; as [`team`](Self::team).
    pub fn backend(&self, backend: &BackendName) -> BackendMetrics {
        let name = || Cow::Owned(backend.as_str().to_owned());
        let outcome = |word| {
            let labels = catalog::BACKEND_CONNECTIONS.labels([name(), Cow::Borrowed(word)]);
            self.backend_connections.get_or_create_owned(&labels)
        };
        BackendMetrics {
            backend: backend.clone(),
            checkouts: self
                .checkouts
                .get_or_create_owned(&catalog::POOL_CHECKOUT.labels([name()])),
            connected: outcome("connected"),
            failed: outcome("failed"),
            lost: outcome("lost"),
        }
    }

    /// Bytes read from and written to a client; called now and then, not for each frame.
    pub fn relayed(&self, received: u64, sent: u64) {
        self.received_bytes.inc_by(received);
        self.sent_bytes.inc_by(sent);
    }

    /// An error told to a client outside a team's request. Inside one, the request's event counts it.
    pub fn error(&self, sqlstate: &str, source: ErrorSource) {
        self.shared.error(sqlstate, source);
    }

    pub(super) fn login(&self, outcome: LoginOutcome) {
        count(&self.logins, &catalog::LOGINS, [outcome.as_str()]);
    }

    pub(super) fn cancel(&self, outcome: &'static str) {
        count(&self.cancels, &catalog::CANCELS, [outcome]);
    }

    pub(super) fn reload(&self, outcome: &'static str) {
        count(&self.reloads, &catalog::CONFIG_RELOADS, [outcome]);
    }

    pub(super) fn pin(&self, reason: &'static str) {
        self.pins.count(reason);
    }

    /// How often sessions were pinned so far, by reason.
    pub fn pins(&self) -> Vec<(&'static str, u64)> {
        let known = self.pins.known.iter().filter_map(OnceLock::get);
        known.map(|(reason, counter)| (*reason, counter.get())).collect()
    }

    /// Everything in the text format of Prometheus (its dialect `OpenMetrics`), with `live` as the state of this moment.
    pub fn encode(&self, live: &LiveState) -> String {
        let mut out = String::new();
        let written = text::encode_registry(&mut out, &self.registry)
            .and_then(|()| text::encode_registry(&mut out, &live.registry()))
            .and_then(|()| text::encode_eof(&mut out));
        // writing into a String cannot fail, and no metric here refuses to be written
        debug_assert!(written.is_ok());
        out
    }
}

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Shared {
    fn error(&self, sqlstate: &str, source: ErrorSource) {
        let labels = catalog::ERRORS.labels([
            Cow::Owned(sqlstate_class(sqlstate).to_owned()),
            Cow::Borrowed(source.as_str()),
        ]);
        self.errors.get_or_create(&labels).inc();
    }
}

/// What was done for a team since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TeamTotals {
    /// Requests that ended.
    pub requests: u64,
    /// Rows of answers.
    pub rows: u64,
    /// Bytes of answers.
    pub bytes: u64,
    /// Time that backends worked.
    pub backend_time: Duration,
    /// Time that they did not have to.
    pub saved_time: Duration,
    /// Time that requests waited for a place.
    pub queue_time: Duration,
}

/// One team's counters, resolved.
pub struct TeamMetrics {
    team: TeamName,
    /// By kind and outcome; each is looked up when first counted, so that what never happens is not listed.
    requests: [[OnceLock<Counter>; RequestOutcome::COUNT]; RequestKind::COUNT],
    requests_family: Family<Labels<3>, Counter>,
    durations: [DurationHistogram; Verdict::COUNT],
    lookups: [Counter; Verdict::COUNT],
    rows: Counter,
    result_bytes: Counter,
    warehouse_seconds: Seconds,
    saved_seconds: Seconds,
    queue_seconds: Seconds,
    rejections: Family<Labels<2>, Counter>,
    shared: Arc<Shared>,
}

impl fmt::Debug for TeamMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TeamMetrics")
            .field("team", &self.team)
            .finish_non_exhaustive()
    }
}

impl TeamMetrics {
    /// Whose they are.
    pub fn team(&self) -> &TeamName {
        &self.team
    }

    /// What was counted so far.
    pub fn totals(&self) -> TeamTotals {
        let time = |seconds: &Seconds| Duration::try_from_secs_f64(seconds.get()).unwrap_or_default();
        TeamTotals {
            requests: self.lookups.iter().map(Counter::get).sum(),
            rows: self.rows.get(),
            bytes: self.result_bytes.get(),
            backend_time: time(&self.warehouse_seconds),
            saved_time: time(&self.saved_seconds),
            queue_time: time(&self.queue_seconds),
        }
    }

    pub(super) fn request(&self, kind: RequestKind, outcome: RequestOutcome) {
        let cell = self
            .requests
            .get(kind as usize)
            .and_then(|row| row.get(outcome as usize));
        let Some(cell) = cell else { return };
        let resolve = || {
            let labels = catalog::REQUESTS.labels([
                Cow::Owned(self.team.as_str().to_owned()),
                Cow::Borrowed(kind.as_str()),
                Cow::Borrowed(outcome.as_str()),
            ]);
            self.requests_family.get_or_create_owned(&labels)
        };
        cell.get_or_init(resolve).inc();
    }

    pub(super) fn verdict(&self, verdict: Verdict, reason: &'static str, total: Duration) {
        if let (Some(lookups), Some(duration)) = (
            self.lookups.get(verdict as usize),
            self.durations.get(verdict as usize),
        ) {
            lookups.inc();
            duration.observe(total);
        }
        if verdict == Verdict::Bypass {
            self.shared.bypasses.count(reason);
        }
    }

    pub(super) fn result(&self, rows: u64, bytes: u64) {
        self.rows.inc_by(rows);
        self.result_bytes.inc_by(bytes);
    }

    pub(super) fn time(&self, backend: Duration, saved: Duration, queue: Duration) {
        for (seconds, duration) in [
            (&self.warehouse_seconds, backend),
            (&self.saved_seconds, saved),
            (&self.queue_seconds, queue),
        ] {
            if !duration.is_zero() {
                seconds.inc_by(duration.as_secs_f64());
            }
        }
    }

    pub(super) fn error(&self, sqlstate: &str, source: ErrorSource) {
        self.shared.error(sqlstate, source);
    }

    pub(super) fn rejection(&self, reason: &'static str) {
        let team = Cow::Owned(self.team.as_str().to_owned());
        let labels = catalog::QUOTA_REJECTIONS.labels([team, Cow::Borrowed(reason)]);
        self.rejections.get_or_create(&labels).inc();
    }
}

/// One backend's counters, resolved.
pub struct BackendMetrics {
    backend: BackendName,
    checkouts: DurationHistogram,
    pub(super) connected: Counter,
    pub(super) failed: Counter,
    pub(super) lost: Counter,
}

impl fmt::Debug for BackendMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendMetrics")
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

impl BackendMetrics {
    /// Whose they are.
    pub fn backend(&self) -> &BackendName {
        &self.backend
    }

    /// A request waited so long for a connection.
    pub fn checkout(&self, waited: Duration) {
        self.checkouts.observe(waited);
    }
}

/// Counters by reason, found by walking the few that are in use.
struct Reasons {
    spec: &'static MetricSpec,
    family: Family<Labels<1>, Counter>,
    known: [OnceLock<(&'static str, Counter)>; REASONS_MAX],
}

impl Reasons {
    fn new(registry: &mut Registry, spec: &'static MetricSpec) -> Self {
        Self {
            spec,
            family: family(registry, spec),
            known: std::array::from_fn(|_| OnceLock::new()),
        }
    }

    fn count(&self, reason: &'static str) {
        for cell in &self.known {
            let (known, counter) = cell.get_or_init(|| (reason, self.resolve(reason)));
            if *known == reason {
                counter.inc();
                return;
            }
        }
        self.resolve("other").inc();
    }

    fn resolve(&self, reason: &'static str) -> Counter {
        self.family
            .get_or_create_owned(&self.spec.labels([Cow::Borrowed(reason)]))
    }
}

fn family<const N: usize, M>(registry: &mut Registry, spec: &MetricSpec) -> Family<Labels<N>, M>
where
    Family<Labels<N>, M>: prometheus_client::registry::Metric + Clone + Default,
{
    let family = Family::default();
    spec.register(registry, family.clone());
    family
}

fn count<const N: usize>(family: &Family<Labels<N>, Counter>, spec: &MetricSpec, values: [&'static str; N]) {
    family
        .get_or_create(&spec.labels(values.map(Cow::Borrowed)))
        .inc();
}

fn by_verdict<T>(mut make: impl FnMut(Cow<'static, str>) -> T) -> [T; Verdict::COUNT] {
    let mut words = Verdict::WORDS.iter();
    std::array::from_fn(|_| make(Cow::Borrowed(words.next().copied().unwrap_or_default())))
}

/// The first two characters, if they are a class that PostgreSQL or Redshift has; a backend can send anything.
fn sqlstate_class(sqlstate: &str) -> &str {
    const CLASSES: [&str; 44] = [
        "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "23",
        "24", "25", "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44",
        "53", "54", "55", "57", "58", "72", "F0", "HV", "P0", "XX",
    ];
    sqlstate
        .get(..2)
        .filter(|class| CLASSES.contains(class))
        .unwrap_or("other")
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
