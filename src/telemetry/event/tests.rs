use std::io;
use std::net::SocketAddr;

use super::*;
use crate::error::SqlState;
use crate::telemetry::live::LiveState;
use crate::telemetry::log::LogFormat;
use crate::telemetry::log::tests::logged;
use crate::telemetry::{ErrorSource, LoginOutcome, Metrics, RequestKind, RequestOutcome, Verdict};
use crate::types::{BackendName, SessionId, TeamName, UserName};

#[derive(Debug, thiserror::Error)]
#[error("connection \"x\" broke")]
struct Broken(#[source] io::Error);

fn broken() -> Broken {
    Broken(io::Error::other("reset\nby peer"))
}

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5439))
}

fn finished<'a>(user: &'a UserName, end: RequestEnd<'a>) -> RequestFinished<'a> {
    RequestFinished {
        session: SessionId(42),
        user,
        kind: RequestKind::Read,
        end,
        verdict: Verdict::Miss,
        reason: "absent",
        fingerprint: 0xabc,
        rows: 3,
        bytes: 120,
        backend_time: Duration::from_millis(250),
        saved_time: Duration::ZERO,
        queue_time: Duration::from_micros(7),
        total_time: Duration::from_millis(251),
    }
}

#[test]
fn a_request_is_one_line_at_debug_and_none_above() {
    let metrics = Metrics::new();
    let team = metrics.team(&TeamName::new("growth"));
    let user = UserName::new("ana");
    let end = RequestEnd::Failed {
        sqlstate: "42P01",
        source: ErrorSource::Server,
    };
    let line = logged(LogFormat::Json, "debug", |_| finished(&user, end).emit(&team));
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    for (field, expected) in [
        ("message", "request finished"),
        ("level", "DEBUG"),
        ("session", "session-42"),
        ("team", "growth"),
        ("kind", "read"),
        ("outcome", "failed"),
        ("verdict", "miss"),
        ("fingerprint", "00000000000000000000000000000abc"),
        ("sqlstate", "42P01"),
    ] {
        assert_eq!(value[field], expected, "{field} in {line}");
    }
    assert_eq!(
        (&value["backend_us"], &value["rows"]),
        (&250_000.into(), &3.into())
    );
    let quiet = logged(LogFormat::Text, "info", |_| {
        finished(&user, RequestEnd::Completed).emit(&team);
    });
    assert_eq!(quiet, "");
    let text = metrics.encode(&LiveState::default());
    for line in [
        "tollgate_requests_total{team=\"growth\",kind=\"read\",outcome=\"failed\"} 1",
        "tollgate_requests_total{team=\"growth\",kind=\"read\",outcome=\"completed\"} 1",
        "tollgate_cache_lookups_total{team=\"growth\",outcome=\"miss\"} 2",
        "tollgate_rows_total{team=\"growth\"} 6",
        "tollgate_warehouse_seconds_total{team=\"growth\"} 0.5",
        "tollgate_errors_total{sqlstate_class=\"42\",source=\"server\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}

#[test]
fn the_outcome_follows_from_how_it_ended() {
    let failed = |sqlstate, source| RequestEnd::Failed { sqlstate, source };
    for (end, outcome) in [
        (RequestEnd::Completed, RequestOutcome::Completed),
        (RequestEnd::Abandoned, RequestOutcome::Abandoned),
        (failed("53400", ErrorSource::Gateway), RequestOutcome::Refused),
        (failed("53400", ErrorSource::Server), RequestOutcome::Failed),
        (failed("57014", ErrorSource::Gateway), RequestOutcome::Cancelled),
        (failed("57014", ErrorSource::Server), RequestOutcome::Cancelled),
        (failed("42601", ErrorSource::Server), RequestOutcome::Failed),
    ] {
        assert_eq!(end.outcome(), outcome, "{end:?}");
    }
}

/// Level, message, and what tells the event.
type Row<'a> = (&'a str, &'a str, Box<dyn Fn() + 'a>);

#[test]
fn each_event_is_one_line_with_its_level() {
    let metrics = Metrics::new();
    let team = metrics.team(&TeamName::new("growth"));
    let backend = metrics.backend(&BackendName::new("warehouse"));
    let user = UserName::new("ana");
    let session = SessionId(1);
    let error = broken();
    let rows: Vec<Row<'_>> = vec![
        (
            "INFO",
            "session opened",
            Box::new(|| {
                let (database, application) = ("dev", Some("psql\n"));
                SessionOpened {
                    session,
                    user: &user,
                    database,
                    address: address(),
                    tls: true,
                    method: "md5",
                    application,
                }
                .emit(&metrics);
            }),
        ),
        (
            "DEBUG",
            "session closed",
            Box::new(|| {
                let (reason, duration) = ("client closed", Duration::from_secs(1));
                SessionClosed {
                    session,
                    user: &user,
                    reason,
                    duration,
                }
                .emit();
            }),
        ),
        (
            "INFO",
            "login refused",
            Box::new(|| {
                let (user, outcome) = (Some("ana\nERROR forged"), LoginOutcome::WrongPassword);
                let sqlstate = Some(SqlState::INVALID_PASSWORD);
                LoginRefused {
                    address: address(),
                    user,
                    database: Some("dev"),
                    tls: false,
                    outcome,
                    sqlstate,
                    error: &error,
                }
                .emit(&metrics);
            }),
        ),
        (
            "DEBUG",
            "quota refused",
            Box::new(|| {
                QuotaRefused {
                    session,
                    user: &user,
                    reason: "rate",
                    running: 1,
                    queued: 2,
                }
                .emit(&team);
            }),
        ),
        (
            "DEBUG",
            "session pinned",
            Box::new(|| {
                SessionPinned {
                    session,
                    reason: "listen",
                }
                .emit(&metrics);
            }),
        ),
        (
            "DEBUG",
            "cancel requested",
            Box::new(|| {
                CancelRequested {
                    address: address(),
                    session: Some(session),
                    forwarded: true,
                }
                .emit(&metrics);
            }),
        ),
        (
            "DEBUG",
            "backend connected",
            Box::new(|| {
                BackendConnected {
                    duration: Duration::from_millis(3),
                }
                .emit(&backend);
            }),
        ),
        (
            "WARN",
            "backend unreachable",
            Box::new(|| BackendUnreachable { error: &error }.emit(&backend)),
        ),
        (
            "WARN",
            "circuit opened",
            Box::new(|| CircuitOpened { error: &error }.emit(&backend)),
        ),
        (
            "INFO",
            "circuit closed",
            Box::new(|| CircuitClosed.emit(&backend)),
        ),
        (
            "WARN",
            "backend lost",
            Box::new(|| {
                BackendLost {
                    session: Some(session),
                    error: &error,
                }
                .emit(&backend);
            }),
        ),
        (
            "INFO",
            "config reloaded",
            Box::new(|| {
                ConfigReloaded {
                    changes: &["cache.ttl".to_owned()],
                }
                .emit(&metrics);
            }),
        ),
        (
            "ERROR",
            "config rejected, the one before stays in force",
            Box::new(|| ConfigRejected { error: &error }.emit(&metrics)),
        ),
        (
            "INFO",
            "listening",
            Box::new(|| {
                Listening {
                    address: address(),
                    tls: false,
                }
                .emit();
            }),
        ),
        (
            "INFO",
            "draining",
            Box::new(|| {
                Draining {
                    sessions: 2,
                    patience: Duration::from_secs(30),
                }
                .emit();
            }),
        ),
    ];
    for (level, message, emit) in rows {
        let text = logged(LogFormat::Text, "debug", |_| emit());
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains(&format!(" {level} ")) && text.contains(message),
            "{text}"
        );
        let json = logged(LogFormat::Json, "debug", |_| emit());
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&value["level"], &value["message"]),
            (&level.into(), &message.into()),
            "{json}"
        );
    }
    let text = metrics.encode(&LiveState::default());
    for line in [
        "tollgate_logins_total{outcome=\"wrong_password\"} 2",
        "tollgate_cancels_total{outcome=\"forwarded\"} 2",
        "tollgate_backend_connections_total{backend=\"warehouse\",outcome=\"lost\"} 2",
        "tollgate_quota_rejections_total{team=\"growth\",reason=\"rate\"} 2",
        "tollgate_config_reloads_total{outcome=\"rejected\"} 2",
        "tollgate_errors_total{sqlstate_class=\"28\",source=\"client\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}

#[test]
fn an_error_is_told_with_its_causes_on_one_line() {
    assert_eq!(causes(&broken()), "connection \"x\" broke: reset\nby peer");
    let metrics = Metrics::new();
    let line = logged(LogFormat::Text, "info", |_| {
        ConfigRejected { error: &broken() }.emit(&metrics);
    });
    assert!(
        line.ends_with(" error=\"connection \\\"x\\\" broke: reset\\nby peer\"\n"),
        "{line}"
    );
}
