//! TLS, and what is sent before it.

use crate::login::refused;
use crate::stage::Stage;
use crate::stage::server;
use crate::support::frames::{Frames, GSS_REQUEST, SSL_REQUEST};
use crate::support::gateway::{ANA, Setup};
use crate::support::tls::{Authority, Certificate};
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

/// CVE-2021-23214 is `bytes_sent_ahead_of_tls_are_refused`; here is the other way in without an `SSLRequest`.
#[test]
fn tls_may_begin_at_once_with_the_protocols_name() {
    let certificate = Certificate::new();
    let stage = Stage::with("", &Setup::new().listen(&certificate.setting(true)));
    let login = Login::new(ANA.0, ANA.1, &stage.database);
    let connect = || Wire::connect(stage.gateway.address());
    let mut wire = connect().wrap_in_tls(certificate.client_speaking(b"postgresql"));
    wire.authenticate(&login).expect("it gets in");
    assert_eq!(wire.value("SELECT 1"), "1");
    // by a cancel request too
    stage.direct().run("CREATE TABLE t (a int)");
    let lock = stage.block("t");
    wire.send(&Frames::new().query("SELECT a FROM t"));
    stage.await_blocked(1);
    let mut other = connect().wrap_in_tls(certificate.client_speaking(b"postgresql"));
    other.send(&crate::support::frames::cancel(&wire.greeting.key.clone()));
    assert_eq!(wire.ready().sqlstate(), "57014");
    lock.release();
    // who does not say what it speaks is told so, and who speaks something else gets no TLS
    let mut wire = connect().wrap_in_tls(certificate.client());
    let error = wire
        .authenticate(&login)
        .expect_err("it does not say what it speaks");
    assert_eq!(error.field('C'), "08P01");
    assert!(error.field('M').contains("ALPN"), "{error:?}");
    let mut wire = connect().wrap_in_tls(certificate.client_speaking(b"http/1.1"));
    assert!(wire.try_send(&login.packet()).is_err());
    // after an SSLRequest it may be said or not
    let mut wire = connect().start_tls(certificate.client_speaking(b"postgresql"));
    wire.authenticate(&login).expect("it gets in");
    // a gateway without TLS does not understand it
    let plain = Stage::new();
    let mut wire =
        Wire::connect(plain.gateway.address()).wrap_in_tls(certificate.client_speaking(b"postgresql"));
    assert!(wire.try_send(&login.packet()).is_err());
    assert_eq!(plain.ana().value("SELECT 1"), "1");
}

/// A `ClientHello` that knows no TLS above `version`.
fn old_hello(version: [u8; 2]) -> Vec<u8> {
    let mut body = version.to_vec();
    body.extend([7; 32]);
    body.push(0);
    // ECDHE-ECDSA and ECDHE-RSA with AES-128-CBC-SHA, and RSA with it; no compression
    body.extend([0, 6, 0xc0, 0x09, 0xc0, 0x13, 0x00, 0x2f, 1, 0]);
    // curves: P-256 and X25519; point format: uncompressed
    let extensions = [0, 10, 0, 6, 0, 4, 0, 23, 0, 29, 0, 11, 0, 2, 1, 0];
    body.extend([0, u8::try_from(extensions.len()).expect("few")]);
    body.extend(extensions);
    let mut handshake = vec![1, 0, 0, u8::try_from(body.len()).expect("short")];
    handshake.extend(body);
    let mut record = vec![0x16, 3, 1, 0, u8::try_from(handshake.len()).expect("short")];
    record.extend(handshake);
    record
}

#[test]
fn tls_before_1_2_is_refused() {
    let certificate = Certificate::new();
    let stage = Stage::with("", &Setup::new().listen(&certificate.setting(false)));
    for version in [[3, 0], [3, 1], [3, 2]] {
        let mut wire = Wire::connect(stage.gateway.address());
        wire.send(&SSL_REQUEST);
        assert_eq!(wire.byte(), Some(b'S'));
        wire.send(&old_hello(version));
        let answer = wire.rest();
        // an alert, fatal: of the version, or of a handshake that cannot be
        assert!(
            matches!(answer.as_slice(), [0x15, 3, _, 0, 2, 2, 70 | 40]),
            "{version:?}: {}",
            answer.escape_ascii()
        );
    }
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut wire = Wire::connect(stage.gateway.address()).start_tls(certificate.client_of(version));
        let login = Login::new(ANA.0, ANA.1, &stage.database);
        assert!(wire.authenticate(&login).is_ok(), "{version:?}");
    }
}

#[test]
fn a_renewed_certificate_is_used_and_sessions_go_on() {
    let (old, new) = (Certificate::new(), Certificate::new());
    let setup = Setup::new().listen(&old.setting(false));
    let stage = Stage::with("", &setup);
    let login = Login::new(ANA.0, ANA.1, &stage.database);
    let mut before = Wire::connect(stage.gateway.address()).start_tls(old.client());
    before.authenticate(&login).expect("it gets in");
    before.run("BEGIN; CREATE TABLE t (a int)");
    let trusting_old = old.client();
    old.become_files_of(&new);
    stage.gateway.reload(server(), &setup);
    let mut after = Wire::connect(stage.gateway.address()).start_tls(new.client());
    after.authenticate(&login).expect("it gets in");
    assert_eq!(after.value("SELECT 1"), "1");
    assert_eq!(before.value("SELECT count(*) FROM t"), "0");
    before.run("COMMIT");
    let mut stranger = Wire::connect(stage.gateway.address()).start_tls(trusting_old);
    assert!(stranger.try_send(&login.packet()).is_err() || stranger.read().is_none());
    // half a renewal changes nothing
    stage.gateway.expect_log("config rejected");
    std::fs::write(
        old.key(),
        "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
    )
    .expect("a file");
    stage.gateway.signal(nix::sys::signal::Signal::SIGHUP);
    stage
        .gateway
        .await_log("config rejected, the one before stays in force");
    let mut after = Wire::connect(stage.gateway.address()).start_tls(new.client());
    after.authenticate(&login).expect("it gets in");
}

/// psql with settings of libpq's; what it printed, or its error.
fn psql(stage: &Stage, user: (&str, &str), settings: &str) -> Result<String, String> {
    let output = std::process::Command::new(crate::support::programs().join("psql"))
        .args(["-X", "-A", "-t", "-c", "SELECT 'in'"])
        .arg(format!(
            "host=127.0.0.1 port={} user={} dbname={} {settings}",
            stage.gateway.address().port(),
            user.0,
            stage.database
        ))
        .env("PGPASSWORD", user.1)
        .output()
        .expect("psql runs");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

#[test]
fn libpq_binds_its_login_to_the_connection() {
    let certificate = Certificate::new();
    let setup = Setup::new().listen(&certificate.setting(false)).log_level("info");
    let stage = Stage::with("", &setup);
    let required = format!(
        "sslmode=verify-full sslrootcert={} channel_binding=require",
        certificate.path().display()
    );
    assert_eq!(psql(&stage, ANA, &required), Ok("in".to_owned()));
    assert_eq!(
        stage.gateway.await_log("session opened")["method"],
        "scram-sha-256-plus"
    );
    let wrong = psql(&stage, (ANA.0, "wrong"), &required).expect_err("wrong");
    assert!(wrong.contains("password authentication failed"), "{wrong}");
    assert_eq!(
        psql(&stage, ANA, "sslmode=require channel_binding=disable"),
        Ok("in".to_owned())
    );
    let without = psql(&stage, ANA, "sslmode=disable channel_binding=require").expect_err("no TLS");
    assert!(without.contains("channel binding"), "{without}");
}

#[test]
fn a_certificate_logs_in_the_user_that_it_names() {
    let (certificate, authority, other) = (Certificate::new(), Authority::new(), Authority::new());
    let client_ca = format!(", client_ca = \"{}\"", authority.path().display());
    let user = |name: &str, more: &str| {
        format!("[user.{name}]\nteam = \"growth\"\ncertificate = {{ cn = \"Carl C.\" }}\n{more}")
    };
    let setup = Setup::new()
        .listen(&certificate.setting_with(false, &client_ca))
        .more(&user("carl", ""))
        .more(&user("both", "password = { env = \"ANA_PASSWORD\" }"))
        .log_level("info");
    let stage = Stage::with("", &setup);
    let (carl, eve, forged) = (
        authority.sign("Carl C."),
        authority.sign("eve"),
        other.sign("Carl C."),
    );
    let login = |name: &'static str, password: &'static str, client| {
        let mut wire = Wire::connect(stage.gateway.address()).start_tls(client);
        let login = Login::new(name, password, &stage.database);
        let outcome = wire
            .authenticate(&login)
            .map_err(|error| (error.field('C'), error.field('M')));
        outcome.map(|()| (wire.greeting.authentication.clone(), wire.value("SELECT 1")))
    };
    let none = || certificate.client();
    let showing = |shown| certificate.client_showing(shown);
    assert_eq!(login("carl", "", showing(&carl)), Ok((vec![0], "1".to_owned())));
    assert_eq!(stage.gateway.await_log("session opened")["method"], "certificate");
    // without it the user looks like one that does not exist
    let (code, message) = login("carl", "", none()).expect_err("no certificate");
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("28P01", "password authentication failed for user \"carl\"")
    );
    for name in ["carl", "both"] {
        let (code, message) = login(name, ANA.1, showing(&eve)).expect_err("another name");
        assert_eq!(code, "28000");
        assert_eq!(
            message,
            format!("certificate authentication failed for user \"{name}\"")
        );
    }
    // with a password as well both are needed
    assert!(login("both", ANA.1, showing(&carl)).is_ok());
    assert_eq!(
        login("both", "wrong", showing(&carl)).expect_err("wrong").0,
        "28P01"
    );
    assert_eq!(login("both", "wrong", none()).expect_err("wrong").0, "28P01");
    assert_eq!(
        login("both", ANA.1, none()).expect_err("no certificate").0,
        "28000"
    );
    // the others need none, and may show one
    assert!(login(ANA.0, ANA.1, none()).is_ok());
    assert!(login(ANA.0, ANA.1, showing(&eve)).is_ok());
    // a certificate of somebody else's authority ends the connection, whoever wants in
    let mut wire = Wire::connect(stage.gateway.address()).start_tls(showing(&forged));
    let packet = Login::new("carl", "", &stage.database).packet();
    assert!(wire.try_send(&packet).is_err() || wire.gone());
    // libpq shows it too
    let shown = format!(
        "sslmode=require sslcert={} sslkey={}",
        carl.certificate.display(),
        carl.key.display()
    );
    assert_eq!(psql(&stage, ("carl", ""), &shown), Ok("in".to_owned()));
}
