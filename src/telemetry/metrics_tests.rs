use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::telemetry::catalog::{CATALOG, LabelValues};
use crate::telemetry::live::{CacheState, ClientCounts, PoolState, TeamState};

fn live() -> LiveState {
    let backend = BackendName::new("warehouse");
    LiveState {
        uptime: Duration::from_secs(5),
        clients: ClientCounts {
            login: 1,
            idle: 2,
            active: 3,
            waiting: 4,
        },
        pools: vec![PoolState {
            backend,
            connecting: 1,
            idle: 2,
            leased: 3,
            pinned: 4,
            max: 20,
            waiting: 5,
            circuit_open: true,
        }],
        teams: vec![TeamState {
            team: TeamName::new("growth"),
            running: 4,
            queued: 2,
            oldest_wait: Duration::from_millis(1_500),
        }],
        cache: CacheState {
            entries: 7,
            stale: 3,
            ..CacheState::default()
        },
        tasks: 10,
    }
}

/// Counts something in every metric there is.
fn touch_all(metrics: &Metrics) {
    let team = metrics.team(&TeamName::new("growth"));
    team.request(RequestKind::Read, RequestOutcome::Completed);
    team.verdict(Verdict::Bypass, "volatile", Duration::from_millis(3));
    team.result(2, 100);
    team.time(
        Duration::from_secs(1),
        Duration::from_secs(2),
        Duration::from_secs(3),
    );
    team.error("42P01", ErrorSource::Server);
    team.rejection("rate");
    let backend = metrics.backend(&BackendName::new("warehouse"));
    backend.checkout(Duration::from_millis(1));
    backend.connected.inc();
    metrics.relayed(10, 20);
    metrics.login(LoginOutcome::WrongPassword);
    metrics.cancel("forwarded");
    metrics.reload("applied");
    metrics.pin("listen");
}

/// The value of one series, as text.
fn series(text: &str, name: &str) -> Option<String> {
    text.lines()
        .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned()))
}

#[test]
fn what_is_scraped_is_what_the_catalog_lists() {
    let metrics = Metrics::new();
    touch_all(&metrics);
    let text = metrics.encode(&live());
    assert!(text.ends_with("# EOF\n"));
    let listed: BTreeMap<&str, _> = CATALOG
        .iter()
        .map(|spec| (spec.name.trim_end_matches("_total"), spec))
        .collect();
    let mut scraped = BTreeSet::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                assert_eq!(help, format!("{}.", listed[name].help));
                assert!(scraped.insert(name), "{name} twice");
            }
            ["#", "TYPE", name, kind] => assert_eq!(kind, listed[name].kind.as_str(), "{name}"),
            ["#", "EOF"] => {}
            _ => check_labels(line, &listed),
        }
    }
    assert_eq!(scraped, listed.keys().copied().collect());
}

fn check_labels(line: &str, listed: &BTreeMap<&str, &MetricSpec>) {
    let (series, _value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let name = ["_total", "_bucket", "_sum", "_count"]
        .iter()
        .fold(name, |name, end| name.trim_end_matches(end));
    let found: Vec<(&str, &str)> = labels
        .trim_end_matches('}')
        .split(',')
        .filter_map(|label| label.split_once('='))
        .filter(|(name, _)| *name != "le")
        .collect();
    let spec = listed[name];
    assert_eq!(found.len(), spec.labels.len(), "{line}");
    for (label, (name, value)) in spec.labels.iter().zip(found) {
        assert_eq!(label.name, name, "{line}");
        if let LabelValues::Words(words) = label.values {
            assert!(
                words.contains(&value.trim_matches('"')),
                "{line}: none of {words:?}"
            );
        }
    }
}

#[test]
fn a_scrape_shows_counts_and_the_state_of_the_moment() {
    let metrics = Metrics::new();
    touch_all(&metrics);
    let text = metrics.encode(&live());
    for (name, value) in [
        (
            "tollgate_requests_total{team=\"growth\",kind=\"read\",outcome=\"completed\"}",
            "1",
        ),
        ("tollgate_cache_bypass_total{reason=\"volatile\"}", "1"),
        ("tollgate_warehouse_seconds_saved_total{team=\"growth\"}", "2.0"),
        (
            "tollgate_errors_total{sqlstate_class=\"42\",source=\"server\"}",
            "1",
        ),
        (
            "tollgate_pool_connections{backend=\"warehouse\",state=\"leased\"}",
            "3.0",
        ),
        ("tollgate_quota_oldest_wait_seconds{team=\"growth\"}", "1.5"),
        ("tollgate_cache_discards_total{reason=\"stale\"}", "3"),
        ("tollgate_client_bytes_total{direction=\"sent\"}", "20"),
    ] {
        assert_eq!(series(&text, name).as_deref(), Some(value), "{name} in\n{text}");
    }
    let quiet = metrics.encode(&LiveState::default());
    assert!(
        !quiet.contains("tollgate_pool_connections{"),
        "a backend that is gone is not listed"
    );
}

#[test]
fn a_team_asked_for_again_counts_on() {
    let metrics = Metrics::new();
    for _ in 0..2 {
        metrics
            .team(&TeamName::new("a\"b\n"))
            .request(RequestKind::Copy, RequestOutcome::Abandoned);
    }
    let text = metrics.encode(&LiveState::default());
    let name = "tollgate_requests_total{team=\"a\\\"b\\n\",kind=\"copy\",outcome=\"abandoned\"}";
    assert_eq!(series(&text, name).as_deref(), Some("2"), "{text}");
}

#[test]
fn labels_stay_bounded_whatever_comes() {
    for (sqlstate, class) in [
        ("42P01", "42"),
        ("XX000", "XX"),
        ("99999", "other"),
        ("", "other"),
        ("é", "other"),
        ("4", "other"),
    ] {
        assert_eq!(sqlstate_class(sqlstate), class);
    }
    let metrics = Metrics::new();
    for n in 0..200_u32 {
        let reason: &'static str = Box::leak(format!("reason {n}").into_boxed_str());
        metrics.pin(reason);
        metrics.pin(reason);
    }
    let text = metrics.encode(&LiveState::default());
    let pins = text
        .lines()
        .filter(|line| line.starts_with("tollgate_pins_total{"))
        .count();
    assert_eq!(pins, REASONS_MAX + 1);
    assert_eq!(
        series(&text, "tollgate_pins_total{reason=\"reason 3\"}").as_deref(),
        Some("2")
    );
    assert_eq!(
        series(&text, "tollgate_pins_total{reason=\"other\"}").as_deref(),
        Some("272")
    );
}
