//! Every metric: its name, what it counts, and its labels. The reference page is made from this list.

use std::borrow::Cow;

use prometheus_client::registry::{Metric, Registry};

use super::vocabulary::{ErrorSource, LoginOutcome, RequestKind, RequestOutcome, Verdict};

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// A state at the moment of the scrape.
    Gauge,
    /// Counts by range.
    Histogram,
}

impl MetricKind {
    /// The word of the exposition format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a label may be.
#[derive(Clone, Copy, Debug)]
pub enum LabelValues {
    /// One of these words.
    Words(&'static [&'static str]),
    /// Described in words; bounded by the config file or by the program.
    Described(&'static str),
}

/// One label of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: LabelValues,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct MetricSpec {
    /// The name as it is scraped.
    pub name: &'static str,
    /// How it behaves.
    pub kind: MetricKind,
    /// Its labels, in order.
    pub labels: &'static [Label],
    /// What it says, without the full stop.
    pub help: &'static str,
}

/// The labels of one series.
pub(super) type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];

impl MetricSpec {
    const fn counter(name: &'static str, labels: &'static [Label], help: &'static str) -> Self {
        Self {
            name,
            kind: MetricKind::Counter,
            labels,
            help,
        }
    }

    const fn gauge(name: &'static str, labels: &'static [Label], help: &'static str) -> Self {
        Self {
            name,
            kind: MetricKind::Gauge,
            labels,
            help,
        }
    }

    const fn histogram(name: &'static str, labels: &'static [Label], help: &'static str) -> Self {
        Self {
            name,
            kind: MetricKind::Histogram,
            labels,
            help,
        }
    }

    fn section(&self) -> String {
        let labels: String = self.labels.iter().map(Label::line).collect();
        let gap = if labels.is_empty() { "" } else { "\n" };
        format!(
            "\n## {}\n\n{}. ({})\n{gap}{labels}",
            self.name,
            self.help,
            self.kind.as_str()
        )
    }

    /// Names `values` by this metric's labels.
    pub(super) fn labels<const N: usize>(&self, values: [Cow<'static, str>; N]) -> Labels<N> {
        debug_assert_eq!(self.labels.len(), N, "{}", self.name);
        let mut names = self.labels.iter().map(|label| label.name);
        values.map(|value| (names.next().unwrap_or("label"), value))
    }

    /// Puts `metric` into `registry` under this name.
    pub(super) fn register(&self, registry: &mut Registry, metric: impl Metric) {
        // the encoder writes the suffix of counters itself
        registry.register(self.name.trim_end_matches("_total"), self.help, metric);
    }
}

impl Label {
    fn line(&self) -> String {
        let values = match self.values {
            LabelValues::Described(text) => text.to_owned(),
            LabelValues::Words(words) => words
                .iter()
                .map(|word| format!("`{word}`"))
                .collect::<Vec<_>>()
                .join(", "),
        };
        format!("- `{}`: {values}\n", self.name)
    }
}

const fn words(name: &'static str, words: &'static [&'static str]) -> Label {
    Label {
        name,
        values: LabelValues::Words(words),
    }
}

const fn described(name: &'static str, text: &'static str) -> Label {
    Label {
        name,
        values: LabelValues::Described(text),
    }
}

const TEAM: Label = described("team", "a team of the config file");
const BACKEND: Label = described("backend", "a backend of the config file");

/// States of clients.
pub(super) const CLIENT_STATES: &[&str] = &["login", "idle", "active", "waiting"];
/// States of backend connections.
pub(super) const CONNECTION_STATES: &[&str] = &["connecting", "idle", "leased", "pinned"];
/// Why an answer was not kept, or not used although kept.
pub(super) const DISCARD_REASONS: &[&str] = &["stale", "expired", "overtaken", "too_big", "abandoned"];
/// What becomes of a connection to a backend.
pub(super) const CONNECT_OUTCOMES: &[&str] = &["connected", "failed", "lost"];

macro_rules! catalog {
    ($($spec:ident = $make:ident($name:literal, [$($label:expr),*], $help:literal);)+) => {
        $(pub(super) const $spec: MetricSpec = MetricSpec::$make($name, &[$($label),*], $help);)+

        /// Every metric, in the order of the reference.
        pub static CATALOG: &[MetricSpec] = &[$($spec),+];
    };
}

catalog! {
    REQUESTS = counter(
        "tollgate_requests_total",
        [TEAM, words("kind", RequestKind::WORDS), words("outcome", RequestOutcome::WORDS)],
        "Requests that ended; a request is what a client sends before it waits"
    );
    REQUEST_DURATION = histogram(
        "tollgate_request_duration_seconds",
        [TEAM, words("verdict", Verdict::WORDS)],
        "From a request's last byte to the last byte of its answer, waiting included"
    );
    ROWS = counter("tollgate_rows_total", [TEAM], "Rows given to clients");
    RESULT_BYTES = counter("tollgate_result_bytes_total", [TEAM], "Bytes of answers given to clients");
    RELAYED_BYTES = counter(
        "tollgate_client_bytes_total",
        [words("direction", &["received", "sent"])],
        "Bytes read from and written to clients after login, counted when a session's requests end"
    );
    CACHE_LOOKUPS = counter(
        "tollgate_cache_lookups_total",
        [TEAM, words("outcome", Verdict::WORDS)],
        "How the cache took part in requests"
    );
    CACHE_BYPASS = counter(
        "tollgate_cache_bypass_total",
        [described("reason", "why; `tollgate explain` names the same reasons")],
        "Requests that went past the cache"
    );
    CACHE_DISCARDS = counter(
        "tollgate_cache_discards_total",
        [words("reason", DISCARD_REASONS)],
        "Answers that were not kept, or were found but no longer held"
    );
    CACHE_ENTRIES = gauge("tollgate_cache_entries", [], "Answers held");
    CACHE_BYTES = gauge("tollgate_cache_bytes", [], "Bytes of answers held, with keys and overhead");
    CACHE_MEMORY = gauge("tollgate_cache_memory_bytes", [], "Bytes of answers that may be held");
    CACHE_FILLING = gauge("tollgate_cache_filling_bytes", [], "Bytes of answers that are being collected");
    CACHE_FLIGHTS = gauge("tollgate_cache_flights", [], "Runs whose answer is being collected");
    WAREHOUSE_SECONDS = counter(
        "tollgate_warehouse_seconds_total",
        [TEAM],
        "Time that backends worked for requests"
    );
    WAREHOUSE_SECONDS_SAVED = counter(
        "tollgate_warehouse_seconds_saved_total",
        [TEAM],
        "Time that backends would have worked for answers that came from memory or from another request's run"
    );
    QUEUE_SECONDS = counter(
        "tollgate_queue_seconds_total",
        [TEAM],
        "Time that requests waited for a place of their team"
    );
    QUOTA_REJECTIONS = counter(
        "tollgate_quota_rejections_total",
        [TEAM, described("reason", "`rate`, `queue_full`, `queue_wait` or `query_time`")],
        "Requests refused or cancelled because their team was over a limit"
    );
    QUOTA_RUNNING = gauge("tollgate_quota_running", [TEAM], "Queries that hold a place of their team");
    QUOTA_QUEUED = gauge("tollgate_quota_queued", [TEAM], "Queries that wait for a place of their team");
    QUOTA_OLDEST_WAIT = gauge(
        "tollgate_quota_oldest_wait_seconds",
        [TEAM],
        "How long the first of them has waited"
    );
    ERRORS = counter(
        "tollgate_errors_total",
        [
            described("sqlstate_class", "the first two characters of the SQLSTATE"),
            words("source", ErrorSource::WORDS)
        ],
        "Errors told to clients"
    );
    LOGINS = counter("tollgate_logins_total", [words("outcome", LoginOutcome::WORDS)], "Attempts to log in");
    CANCELS = counter(
        "tollgate_cancels_total",
        [words("outcome", &["forwarded", "idle", "unknown"])],
        "Cancel requests: of a running query, of a session that ran none, or with a key that nobody has"
    );
    PINS = counter(
        "tollgate_pins_total",
        [described("reason", "what the session used that cannot be shared")],
        "Sessions that began to keep their backend connection"
    );
    CLIENTS = gauge("tollgate_clients", [words("state", CLIENT_STATES)], "Client connections by state");
    POOL_CONNECTIONS = gauge(
        "tollgate_pool_connections",
        [BACKEND, words("state", CONNECTION_STATES)],
        "Connections to a backend by state"
    );
    POOL_CONNECTIONS_MAX = gauge(
        "tollgate_pool_connections_max",
        [BACKEND],
        "Connections to a backend that there may be"
    );
    POOL_WAITING = gauge("tollgate_pool_waiting", [BACKEND], "Requests that wait for a connection to a backend");
    POOL_CHECKOUT = histogram(
        "tollgate_pool_checkout_duration_seconds",
        [BACKEND],
        "How long requests waited for a connection to a backend"
    );
    BACKEND_CONNECTIONS = counter(
        "tollgate_backend_connections_total",
        [BACKEND, words("outcome", CONNECT_OUTCOMES)],
        "Connections to a backend that were made, that could not be made, and that broke"
    );
    CIRCUIT_OPEN = gauge(
        "tollgate_backend_circuit_open",
        [BACKEND],
        "1 while requests are refused because the backend does not answer"
    );
    CONFIG_RELOADS = counter(
        "tollgate_config_reloads_total",
        [words("outcome", &["applied", "rejected"])],
        "Attempts to load the config file again"
    );
    UPTIME = gauge("tollgate_uptime_seconds", [], "Time since the gateway started");
    CACHE_IN_DOUBT = gauge(
        "tollgate_cache_relations_in_doubt",
        [],
        "Relations that no answer is kept of now, since a write may be committing; 1 more when that may be any relation"
    );
    TASKS = gauge(
        "tollgate_tasks",
        [],
        "Tasks of the threads that serve clients: one per client, logged in or not, and cancel requests on their way"
    );
    BUILD = gauge("tollgate_build", [described("version", "the program's version")], "Always 1");
}

/// The page `docs/reference/metrics.md`.
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\nGenerated from `src/telemetry/catalog.rs`; `UPDATE_DOCS=1 cargo test telemetry` writes it anew.\n\n\
         Scrape `/metrics` of the HTTP address. Durations are seconds, sizes bytes. Every label's values are bounded: words\n\
         of the program, or names of the config file. A series appears when it is first counted.\n",
    );
    page.extend(CATALOG.iter().map(MetricSpec::section));
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn names_follow_the_convention() {
        let mut seen = BTreeSet::new();
        for spec in CATALOG {
            let MetricSpec {
                name,
                kind,
                labels,
                help,
            } = spec;
            assert!(seen.insert(*name), "{name} stands twice");
            assert!(name.starts_with("tollgate_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            assert!(!help.is_empty() && !help.ends_with('.'), "{name}: {help}");
            for label in *labels {
                assert!(
                    label.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn the_reference_page_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/metrics.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, reference()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == reference(),
            "docs/reference/metrics.md is old: UPDATE_DOCS=1 cargo test telemetry"
        );
    }
}
