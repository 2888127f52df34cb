//! Who gets in, and what the others are told.

use crate::stage::Stage;
use crate::support::gateway::{ANA, Gateway, ROOT, Setup};
use crate::support::tls::Certificate;
use crate::support::wire::{Login, Message, Wire};

/// SCRAM for `scram`, with 4096 rounds and a fixed salt; the password is `secret`.
const SCRAM_USER: &str = "[user.scram]\nteam = \"growth\"\npassword = { env = \"SCRAM_VERIFIER\" }";
const MD5_USER: &str = "[user.hashed]\nteam = \"growth\"\npassword = { env = \"MD5_HASH\" }";

const DIGEST_USER: &str = "[user.digested]\nteam = \"growth\"\npassword = { env = \"DIGEST\" }";

/// What `tollgate password` makes of `secret`.
fn made(arguments: &[&str]) -> String {
    let made = crate::support::gateway::program()
        .arg("password")
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            use std::io::Write as _;
            child.stdin.take().expect("a pipe").write_all(b"secret\n")?;
            child.wait_with_output()
        })
        .expect("tollgate password runs");
    String::from_utf8(made.stdout).expect("UTF-8").trim().to_owned()
}

/// Users whose passwords are kept in any form; all are `secret`.
fn with_forms() -> Setup {
    let verifier = made(&[]);
    assert!(verifier.starts_with("SCRAM-SHA-256$"), "{verifier}");
    let digest = made(&["--digest"]);
    assert!(digest.starts_with("sha256|"), "{digest}");
    let hash = postgres_protocol::password::md5(b"secret", "hashed");
    Setup::new()
        .more(SCRAM_USER)
        .more(MD5_USER)
        .more(DIGEST_USER)
        .variable("DIGEST", &digest)
        .variable("SCRAM_VERIFIER", &verifier)
        .variable("MD5_HASH", &hash)
}

const AMAZON: [(&str, &str); 4] = [
    ("client_protocol_version", "2"),
    ("driver_version", "Redshift Python Driver 2.2.0"),
    ("os_version", "Linux"),
    ("application_name", "report"),
];

pub(crate) fn refused(gateway: &Gateway, login: &Login<'_>) -> Message {
    Wire::try_login(gateway.address(), login).expect_err("it is refused")
}

#[test]
fn passwords_are_checked_by_scram_and_by_md5() {
    let stage = Stage::with("", &with_forms());
    for (user, password, codes) in [
        (ANA.0, ANA.1, vec![10, 11, 12, 0]),
        ("scram", "secret", vec![10, 11, 12, 0]),
        ("hashed", "secret", vec![5, 0]),
    ] {
        let login = Login::new(user, password, &stage.database);
        let mut wire = Wire::login(stage.gateway.address(), &login);
        assert_eq!(wire.greeting.authentication, codes, "{user}");
        if codes.len() > 2 {
            assert_eq!(wire.greeting.mechanisms, ["SCRAM-SHA-256"]);
        }
        assert_eq!(wire.value("SELECT 1"), "1", "{user}");
        let wrong = Login::new(user, "wrong", &stage.database);
        let error = refused(&stage.gateway, &wrong);
        assert_eq!(error.field('C'), "28P01", "{user}");
        assert_eq!(error.field('S'), "FATAL", "{user}");
        assert_eq!(
            error.field('M'),
            format!("password authentication failed for user \"{user}\"")
        );
        let empty = Login::new(user, "", &stage.database);
        assert_eq!(refused(&stage.gateway, &empty).field('C'), "28P01", "{user}");
    }
    assert!(
        stage
            .gateway
            .metric("tollgate_logins_total{outcome=\"wrong_password\"}")
            >= 6
    );
}

/// What a client sees of a login that fails, without what is random in it.
fn exchange(gateway: &Gateway, login: &Login<'_>) -> Vec<(u8, usize, String)> {
    let mut wire = Wire::connect(gateway.address());
    drop(wire.authenticate(login));
    wire.greeting
        .messages
        .iter()
        .map(|message| {
            let code = u32::from_be_bytes(message.body[..4].try_into().expect("four bytes"));
            let text = match (message.tag, code) {
                // nonce and salt are random; their lengths and the count of rounds are not
                (b'R', 11) => String::from_utf8_lossy(&message.body)
                    .split(',')
                    .map(|part| part.strip_prefix("i=").unwrap_or("").to_owned() + &part.len().to_string())
                    .collect::<Vec<_>>()
                    .join(","),
                (b'R', 5 | 13) => String::new(),
                _ => String::from_utf8_lossy(&message.body).replace(login.user, "USER"),
            };
            (
                message.tag,
                message.body.len() - login.user.len() * usize::from(message.tag == b'E'),
                text,
            )
        })
        .collect()
}

#[test]
fn a_user_that_does_not_exist_looks_like_a_wrong_password() {
    let stage = Stage::with("", &with_forms());
    let database = stage.database.as_str();
    // of each form that passwords are kept in here; the digest takes TLS or a driver of Amazon's
    let known = ["scram", "hashed", "digested"]
        .map(|name| exchange(&stage.gateway, &Login::new(name, "wrong", database)));
    assert_eq!(known.each_ref().map(Vec::len), [3, 2, 1], "{known:?}");
    for name in ["nobody", "someone else", "тест", "x", "y", "z"] {
        let unknown = exchange(&stage.gateway, &Login::new(name, "wrong", database));
        assert!(
            known.contains(&unknown),
            "{name}: {unknown:?} is none of {known:?}"
        );
        assert_eq!(
            unknown,
            exchange(&stage.gateway, &Login::new(name, "wrong", database)),
            "{name}"
        );
    }
    // the same salt each time, as a stored one would be
    let names: Vec<String> = (0..)
        .map(|number| format!("nobody{number}"))
        .filter(|name| exchange(&stage.gateway, &Login::new(name, "wrong", database)).len() == 3)
        .take(2)
        .collect();
    let salt = |name: &str| {
        let mut wire = Wire::connect(stage.gateway.address());
        drop(wire.authenticate(&Login::new(name, "wrong", database)));
        let first = wire.greeting.messages[1].body[4..].to_vec();
        let text = String::from_utf8(first).expect("ASCII");
        text.split(',')
            .find_map(|part| part.strip_prefix("s=").map(str::to_owned))
    };
    assert_eq!(salt(&names[0]), salt(&names[0]));
    assert_ne!(salt(&names[0]), salt(&names[1]));
}

#[test]
fn a_database_that_is_not_offered_does_not_exist() {
    let stage = Stage::new();
    for name in ["nowhere", "postgres", "template1"] {
        let error = refused(&stage.gateway, &Login::new(ANA.0, ANA.1, name));
        assert_eq!(error.field('C'), "3D000");
        assert_eq!(error.field('M'), format!("database \"{name}\" does not exist"));
    }
    // the password first
    let error = refused(&stage.gateway, &Login::new(ANA.0, "wrong", "nowhere"));
    assert_eq!(error.field('C'), "28P01");
    // the console is for administrators, and an administrator without a team has no database
    let error = refused(&stage.gateway, &Login::new(ANA.0, ANA.1, "tollgate"));
    assert_eq!(error.field('C'), "42501");
    let error = refused(&stage.gateway, &Login::new(ROOT.0, ROOT.1, &stage.database));
    assert_eq!(error.field('S'), "FATAL");
    assert_eq!(stage.gateway.console().greeting.authentication.last(), Some(&0));
}

#[test]
fn trap_13_amazons_drivers_are_never_offered_scram_and_their_parameters_are_taken() {
    let certificate = Certificate::new();
    let stage = Stage::with("", &with_forms().listen(&certificate.setting(false)));
    let address = stage.gateway.address();
    for (user, password, codes) in [
        ("scram", "secret", vec![3, 0]),
        ("hashed", "secret", vec![5, 0]),
        ("digested", "secret", vec![13, 0]),
        (ANA.0, ANA.1, vec![13, 0]),
    ] {
        let login = Login::new(user, password, &stage.database).with(&AMAZON);
        let mut wire = Wire::connect(address).start_tls(certificate.client());
        wire.authenticate(&login).expect("it gets in");
        assert_eq!(wire.greeting.authentication, codes, "{user} with TLS");
        assert_eq!(wire.greeting.parameter("application_name"), Some("report"));
        assert_eq!(wire.greeting.parameter("server_protocol_version"), None);
        assert_eq!(wire.value("SELECT 1"), "1");
        let wrong = Login::new(user, "wrong", &stage.database).with(&AMAZON);
        let mut wire = Wire::connect(address).start_tls(certificate.client());
        assert_eq!(wire.authenticate(&wrong).expect_err("wrong").field('C'), "28P01");
    }
    // their digest needs no TLS
    for (user, password) in [("digested", "secret"), ANA] {
        let login = Login::new(user, password, &stage.database).with(&AMAZON);
        let mut wire = Wire::login(address, &login);
        assert_eq!(wire.greeting.authentication, [13, 0], "{user}");
        assert_eq!(wire.value("SELECT 1"), "1");
    }
    // other clients do not have it: the password itself, inside TLS
    let login = Login::new("digested", "secret", &stage.database);
    let mut wire = Wire::connect(address).start_tls(certificate.client());
    wire.authenticate(&login).expect("it gets in");
    assert_eq!(wire.greeting.authentication, [3, 0]);
    assert_eq!(refused(&stage.gateway, &login).field('C'), "28000");
    // a verifier, no TLS: it cannot be, and the hint says what can
    let error = refused(
        &stage.gateway,
        &Login::new("scram", "secret", &stage.database).with(&AMAZON),
    );
    assert_eq!(error.field('C'), "28000");
    assert!(error.field('H').contains("TLS"), "{error:?}");
    // each of them by itself makes it one of Amazon's
    for parameter in [
        ("client_protocol_version", "1"),
        ("driver_version", "Redshift JDBC Driver 2.2.6"),
    ] {
        let login = Login::new("hashed", "secret", &stage.database);
        let wire = Wire::login(address, &login.with(&[parameter]));
        assert_eq!(wire.greeting.authentication, [5, 0]);
    }
}

#[test]
fn a_user_that_does_not_exist_looks_the_same_to_amazons_drivers() {
    let certificate = Certificate::new();
    let stage = Stage::with("", &with_forms().listen(&certificate.setting(false)));
    let database = stage.database.as_str();
    let outcome = |user: &str, tls: bool| {
        let mut wire = Wire::connect(stage.gateway.address());
        if tls {
            wire = wire.start_tls(certificate.client());
        }
        let error = wire
            .authenticate(&Login::new(user, "wrong", database).with(&AMAZON))
            .expect_err("wrong");
        let codes = wire.greeting.authentication.clone();
        (
            codes,
            error.field('C'),
            error.field('M').replace(user, "USER"),
            error.field('H'),
        )
    };
    for tls in [true, false] {
        let known = ["scram", "hashed", "digested", ANA.0].map(|name| outcome(name, tls));
        for name in ["nobody", "somebody", "x", "y", "z"] {
            let unknown = outcome(name, tls);
            assert!(
                known.contains(&unknown),
                "{name}, TLS: {tls}: {unknown:?} is none of {known:?}"
            );
        }
    }
}
