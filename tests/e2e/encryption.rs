//! TLS, and what is sent before it.

use crate::login::refused;
use crate::stage::Stage;
use crate::support::frames::{Frames, GSS_REQUEST, SSL_REQUEST};
use crate::support::gateway::{ANA, Setup};
use crate::support::tls::Certificate;
use crate::support::wire::{Login, Wire};

#[test]
fn encryption_that_is_not_there_is_declined_and_the_login_goes_on() {
    let stage = Stage::new();
    for requests in [
        vec![SSL_REQUEST],
        vec![GSS_REQUEST],
        vec![GSS_REQUEST, SSL_REQUEST],
        vec![SSL_REQUEST, GSS_REQUEST],
    ] {
        let mut wire = Wire::connect(stage.gateway.address());
        for request in requests {
            wire.send(&request);
            assert_eq!(wire.byte(), Some(b'N'));
        }
        wire.authenticate(&Login::new(ANA.0, ANA.1, &stage.database))
            .expect("it gets in");
        assert_eq!(wire.value("SELECT 1"), "1");
    }
    // not without end
    for request in [SSL_REQUEST, GSS_REQUEST] {
        let mut wire = Wire::connect(stage.gateway.address());
        wire.send(&request);
        assert_eq!(wire.byte(), Some(b'N'));
        wire.send(&request);
        let error = wire.read().expect("an error");
        assert_eq!((error.tag, error.field('C').as_str()), (b'E', "08P01"));
        assert!(wire.rest().is_empty());
    }
}

#[test]
fn tls_protects_the_whole_session() {
    let certificate = Certificate::new();
    let stage = Stage::with("", &Setup::new().listen(&certificate.setting(false)));
    let login = Login::new(ANA.0, ANA.1, &stage.database);
    let mut wire = Wire::connect(stage.gateway.address()).start_tls(certificate.client());
    wire.authenticate(&login).expect("it gets in");
    assert_eq!(wire.value("SELECT 'over TLS'"), "over TLS");
    let reply = wire.query("SELECT repeat('x', 1000) FROM generate_series(1, 5000)");
    assert_eq!(reply.completions(), ["SELECT 5000"]);
    let long = "y".repeat(2_000_000);
    assert_eq!(wire.value(&format!("SELECT length('{long}')")), "2000000");
    // an idle TLS session learns at once that there is news
    wire.run("LISTEN news");
    stage.direct().run("NOTIFY news, 'hello'");
    assert_eq!(wire.read().map(|message| message.tag), Some(b'A'));
    // who does not ask for it gets in without it
    assert_eq!(stage.ana().value("SELECT 1"), "1");
    // cancel over TLS
    let lock = {
        stage.direct().run("CREATE TABLE t (a int)");
        stage.block("t")
    };
    wire.send(&Frames::new().query("SELECT a FROM t"));
    stage.await_blocked(1);
    let key = wire.greeting.key.clone();
    let mut other = Wire::connect(stage.gateway.address()).start_tls(certificate.client());
    other.send(&crate::support::frames::cancel(&key));
    assert_eq!(wire.ready().sqlstate(), "57014");
    lock.release();
}

#[test]
fn trap_25_bytes_sent_ahead_of_tls_are_refused() {
    let certificate = Certificate::new();
    let stage = Stage::with("", &Setup::new().listen(&certificate.setting(false)));
    let mut wire = Wire::connect(stage.gateway.address());
    let mut bytes = SSL_REQUEST.to_vec();
    bytes.extend(Login::new(ANA.0, ANA.1, &stage.database).packet());
    wire.send(&bytes);
    let answer = wire.rest();
    assert!(!answer.starts_with(b"S"), "{}", answer.escape_ascii());
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        text.contains("received unencrypted data after SSL request"),
        "{text}"
    );
}

#[test]
fn where_tls_is_required_nobody_gets_in_without_it() {
    let certificate = Certificate::new();
    let setup = Setup::new().listen(&certificate.setting(true));
    let stage = Stage::with("", &setup);
    let login = Login::new(ANA.0, ANA.1, &stage.database);
    let error = refused(&stage.gateway, &login);
    assert_eq!(
        (error.field('C').as_str(), error.field('S').as_str()),
        ("28000", "FATAL")
    );
    assert!(error.field('H').contains("sslmode=require"), "{error:?}");
    let mut wire = Wire::connect(stage.gateway.address()).start_tls(certificate.client());
    wire.authenticate(&login).expect("it gets in");
    assert_eq!(wire.value("SELECT 1"), "1");
}

#[test]
fn a_client_that_does_not_trust_the_certificate_leaves_no_trace() {
    let certificate = Certificate::new();
    let stage = Stage::with("", &Setup::new().listen(&certificate.setting(false)));
    let mut wire = Wire::connect(stage.gateway.address());
    wire.send(&SSL_REQUEST);
    assert_eq!(wire.byte(), Some(b'S'));
    // no TLS at all
    wire.send(b"GET / HTTP/1.1\r\n\r\n");
    drop(wire.rest());
    let mut stranger = Wire::connect(stage.gateway.address());
    stranger.send(&SSL_REQUEST);
    assert_eq!(stranger.byte(), Some(b'S'));
    let other = Certificate::new();
    let login = Login::new(ANA.0, ANA.1, &stage.database);
    let mut stranger = stranger.wrap_in_tls(other.client());
    assert!(stranger.try_send(&login.packet()).is_err());
    drop(stranger);
    assert_eq!(stage.ana().value("SELECT 1"), "1");
}
