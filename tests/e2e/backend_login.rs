//! How the gateway logs in at the backend: passwords of commands, users as themselves, what the backend refuses.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::login::refused;
use crate::stage::{Stage, database, server};
use crate::support::frames::Frames;
use crate::support::gateway::{ANA, Gateway, Setup, add_roles};
use crate::support::tls::Certificate;
use crate::support::wait::{becomes, eventually};
use crate::support::wire::{Login, Wire};
use crate::support::{PasswordForm, Postgres, give_to_server};

/// A team whose users log in as they are.
pub(crate) const SELF: &str = "[team.self]\nbackend = \"warehouse\"\nlogin = { as_user = true }";

/// A user of that team, with what the server stores of its password.
pub(crate) fn member(setup: Setup, name: &str) -> Setup {
    let stored = server().run(&format!(
        "SELECT rolpassword FROM pg_authid WHERE rolname = '{name}'"
    ));
    let variable = format!("STORED_{}", name.to_uppercase());
    setup
        .more(&format!(
            "[user.{name}]\nteam = \"self\"\npassword = {{ env = \"{variable}\" }}"
        ))
        .variable(&variable, &stored)
}

#[test]
fn users_log_in_at_the_backend_as_themselves() {
    for (name, form) in [
        ("self_scram", PasswordForm::Scram),
        ("self_other", PasswordForm::Scram),
        ("self_md5", PasswordForm::Md5),
    ] {
        server().add_user(name, "own secret", form);
    }
    let mut setup = Setup::new().more(SELF);
    for name in ["self_scram", "self_other", "self_md5"] {
        setup = member(setup, name);
    }
    let schema = "
        CREATE TABLE own (owner text, a int);
        INSERT INTO own VALUES ('self_scram', 1), ('self_other', 2), ('self_md5', 3);
        ALTER TABLE own ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON own USING (owner = current_user);
        GRANT SELECT ON own TO PUBLIC";
    let stage = Stage::with(schema, &setup);
    for (name, rows) in [("self_scram", "1"), ("self_other", "2"), ("self_md5", "3")] {
        for _ in 0..2 {
            let mut wire = stage.gateway.session((name, "own secret"));
            assert_eq!(
                wire.value("SELECT session_user || ' ' || current_user"),
                format!("{name} {name}")
            );
            // an answer kept for one is not one for the others
            assert_eq!(wire.value("SELECT sum(a) FROM own"), rows, "{name}");
        }
        let wrong = Login::new(name, "wrong", &stage.database);
        assert_eq!(refused(&stage.gateway, &wrong).field('C'), "28P01", "{name}");
    }
    // the team's role is still the team's
    assert_eq!(stage.ana().value("SELECT current_user"), "growth");
    // nothing of it is written down
    let log = stage.gateway.log().join("\n");
    assert!(
        !log.contains("own secret") && !log.contains("SCRAM-SHA-256$"),
        "{log}"
    );
}

#[test]
fn a_password_that_the_backend_stores_otherwise_is_told() {
    server().add_user("self_changed", "own secret", PasswordForm::Scram);
    let setup = member(Setup::new().more(SELF), "self_changed");
    // another salt
    server().run("ALTER ROLE self_changed PASSWORD 'own secret'");
    let stage = Stage::with("", &setup);
    let error = refused(
        &stage.gateway,
        &Login::new("self_changed", "own secret", &stage.database),
    );
    assert_eq!(
        (error.field('S'), error.field('C')),
        ("FATAL".to_owned(), "08006".to_owned())
    );
    assert!(error.field('D').contains("salt or iterations"), "{error:?}");
}

/// CVE-2025-2291: a pooler that logged users in by itself forgot that their passwords end.
#[test]
fn trap_25_a_password_that_is_no_longer_valid_logs_nobody_in() {
    server().add_user("self_expired", "own secret", PasswordForm::Scram);
    server().add_user("self_expired_md5", "own secret", PasswordForm::Md5);
    let mut setup = Setup::new().more(SELF);
    for name in ["self_expired", "self_expired_md5"] {
        server().run(&format!("ALTER ROLE {name} VALID UNTIL '2001-01-01'"));
        setup = member(setup, name);
    }
    let stage = Stage::with("", &setup);
    let error = |user| refused(&stage.gateway, &Login::new(user, "own secret", &stage.database));
    // the server asks for a proof of a password that nobody has
    for (user, detail) in [("self_expired", "no longer valid"), ("self_expired_md5", "SCRAM")] {
        let error = error(user);
        assert_eq!(
            (error.field('S'), error.field('C')),
            ("FATAL".to_owned(), "08006".to_owned())
        );
        assert!(error.field('D').contains(detail), "{error:?}");
    }
}

#[test]
fn a_command_gives_the_password_and_is_run_again() {
    server().add_user("commanded", "first secret", PasswordForm::Scram);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("the secret");
    std::fs::write(&file, "first secret\n").expect("a file");
    let setup = Setup::new().more(&format!(
        "[team.commanded]\nbackend = \"warehouse\"\n\
             login = {{ user = \"commanded\", password = {{ command = \"cat '{}'\", refresh = \"1s\" }} }}\n\
             [user.carl]\nteam = \"commanded\"\npassword = {{ env = \"ANA_PASSWORD\" }}",
        file.display()
    ));
    let stage = Stage::with("", &setup);
    let carl = ("carl", ANA.1);
    assert_eq!(
        stage.gateway.session(carl).value("SELECT current_user"),
        "commanded"
    );
    let end_connections = || {
        let left =
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'commanded'";
        becomes(&"0".to_owned(), || server().run(left));
    };
    for text in ["backend unreachable", "backend lost", "password command failed"] {
        stage.gateway.expect_log(text);
    }
    server().run("ALTER ROLE commanded PASSWORD 'second secret'");
    std::fs::write(&file, "second secret\n").expect("a file");
    end_connections();
    let again = || {
        let mut wire = Wire::try_login(
            stage.gateway.address(),
            &Login::new(carl.0, carl.1, &stage.database),
        )
        .ok()?;
        let reply = wire.query("SELECT current_user");
        reply.error().is_none().then_some(())
    };
    eventually("the new password is used", again);
    // a command that fails leaves the password before in use
    std::fs::remove_file(&file).expect("the file is there");
    let failed = stage.gateway.await_log("password command failed");
    assert_eq!(
        (&failed["level"], &failed["login"]),
        (&"WARN".into(), &"commanded@warehouse".into())
    );
    end_connections();
    eventually("the password before is used", again);
    let log = stage.gateway.log().join("\n");
    assert!(
        !log.contains("first secret") && !log.contains("second secret"),
        "{log}"
    );
}

#[test]
fn a_command_that_never_gave_a_password_is_told_to_clients_and_the_control_login_takes_one() {
    let setup = Setup::new()
        .more(
            "[team.commanded]\nbackend = \"warehouse\"\n\
             login = { user = \"nobody\", password = { command = [\"false\"] } }\n\
             [user.carl]\nteam = \"commanded\"\npassword = { env = \"ANA_PASSWORD\" }",
        )
        .control_password("{ command = [\"printenv\", \"CONTROL_PASSWORD\"], refresh = \"1h\" }");
    let database = database("CREATE TABLE t (a int)");
    let gateway = Gateway::start(server(), &[&database], &setup);
    gateway.expect_log("password command failed");
    gateway.expect_log("backend unreachable");
    let error = refused(&gateway, &Login::new("carl", ANA.1, &database));
    assert_eq!(
        (error.field('S'), error.field('C')),
        ("FATAL".to_owned(), "08006".to_owned())
    );
    assert_eq!(error.field('M'), "the gateway has no password for the backend");
    // definitions were read with the other command's
    let mut ana = gateway.session(ANA);
    assert_eq!(ana.value("SELECT count(*) FROM t"), "0");
    assert_eq!(ana.verdict(), "miss");
}

/// A server that says no, or not yet.
#[test]
fn what_the_backend_answers_to_the_login_is_relayed() {
    server().add_user("crowded", "crowded secret", PasswordForm::Scram);
    server().run("ALTER ROLE crowded CONNECTION LIMIT 0");
    let setup = Setup::new()
        .more(
            "[team.crowded]\nbackend = \"warehouse\"\nlogin = { user = \"crowded\", password = { env = \"CROWDED\" } }\n\
             [user.carl]\nteam = \"crowded\"\npassword = { env = \"ANA_PASSWORD\" }",
        )
        .variable("CROWDED", "crowded secret");
    let stage = Stage::with("", &setup);
    stage.gateway.expect_log("backend unreachable");
    let error = refused(&stage.gateway, &Login::new("carl", ANA.1, &stage.database));
    assert_eq!(
        (error.field('S'), error.field('C')),
        ("FATAL".to_owned(), "53300".to_owned())
    );
    assert_eq!(error.field('M'), "too many connections for role \"crowded\"");
    server().run("ALTER ROLE crowded CONNECTION LIMIT -1");
    // the gateway asks again after a pause
    let carl = Login::new("carl", ANA.1, &stage.database);
    let mut wire = eventually("carl is let in", || {
        Wire::try_login(stage.gateway.address(), &carl).ok()
    });
    assert_eq!(wire.value("SELECT 1"), "1");
}

/// Who is asked how, by a server with TLS.
const ACCESS: &str = "\
local all postgres trust
host all clear 127.0.0.1/32 password
host all all 127.0.0.1/32 md5
";

/// Teams whose roles are asked in each way.
fn asked_in_each_way(setup: Setup) -> Setup {
    ["scram", "hashed", "clear"].iter().fold(setup, |setup, name| {
        setup.more(&format!(
            "[team.{name}]\nbackend = \"warehouse\"\nlogin = {{ user = \"{name}\", password = {{ env = \"ROLE\" }} }}\n\
             [user.u_{name}]\nteam = \"{name}\"\npassword = {{ env = \"ANA_PASSWORD\" }}"
        ))
    })
    .variable("ROLE", "role secret")
}

/// Lets the server's account look into a directory of this test.
fn open_to_all(directory: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).expect("permissions");
}

#[test]
fn every_way_of_asking_is_answered_under_every_kind_of_tls() {
    let certificate = Certificate::new();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let access = directory.path().join("pg_hba.conf");
    std::fs::write(&access, ACCESS).expect("a file");
    // the server's own copies
    let files = ["server.crt", "server.key"].map(|name| directory.path().join(name));
    std::fs::copy(certificate.path(), &files[0]).expect("a copy");
    std::fs::copy(certificate.key(), &files[1]).expect("a copy");
    for file in files.iter().chain([&access]) {
        give_to_server(file);
    }
    open_to_all(directory.path());
    let text = |path: &std::path::Path| path.display().to_string();
    let server = Postgres::start_with(&[
        ("ssl", "on"),
        ("ssl_cert_file", &text(&files[0])),
        ("ssl_key_file", &text(&files[1])),
        ("hba_file", &text(&access)),
    ]);
    add_roles(&server);
    for (name, form) in [
        ("scram", PasswordForm::Scram),
        ("hashed", PasswordForm::Md5),
        ("clear", PasswordForm::Scram),
    ] {
        server.add_user(name, "role secret", form);
    }
    server.add_database("ways", "scram");
    let ca = format!("tls = \"verify-full\"\nca = \"{}\"", certificate.path().display());
    for (settings, encrypted) in [("tls = \"off\"", "f"), ("tls = \"require\"", "t"), (&ca, "t")] {
        let setup = asked_in_each_way(Setup::new().backend(settings));
        let gateway = Gateway::start(&server, &["ways"], &setup);
        for (user, role) in [("u_scram", "scram"), ("u_hashed", "hashed"), ("u_clear", "clear")] {
            let login = Login::new(user, ANA.1, "ways");
            if role == "clear" && encrypted == "f" {
                gateway.expect_log("backend unreachable");
                let error = refused(&gateway, &login);
                assert_eq!(
                    (error.field('C'), error.field('S')),
                    ("08006".to_owned(), "FATAL".to_owned())
                );
                assert!(error.field('D').contains("password in clear"), "{error:?}");
                continue;
            }
            let mut wire = Wire::login(gateway.address(), &login);
            let state = "SELECT current_user || ' ' || ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            let encrypted = if encrypted == "t" { "true" } else { "false" };
            assert_eq!(wire.value(state), format!("{role} {encrypted}"), "{settings}");
        }
    }
    // a certificate that nobody vouches for
    let other = Certificate::new();
    let setup = asked_in_each_way(Setup::new().backend(&format!(
        "tls = \"verify-full\"\nca = \"{}\"",
        other.path().display()
    )));
    let gateway = Gateway::start_unready(&server, &["ways"], &setup);
    gateway.expect_log("backend unreachable");
    gateway.expect_log("catalog");
    let error = refused(&gateway, &Login::new("u_scram", ANA.1, "ways"));
    assert_eq!(error.field('C'), "08006");
    assert!(error.field('M').contains("TLS handshake"), "{error:?}");
    assert!(error.field('D').contains("certificate"), "{error:?}");
}

#[test]
fn a_certificate_of_another_name_is_refused_in_full_verification() {
    let certificate = Certificate::of(&["warehouse.example"]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    open_to_all(directory.path());
    let files = ["server.crt", "server.key"].map(|name| directory.path().join(name));
    std::fs::copy(certificate.path(), &files[0]).expect("a copy");
    std::fs::copy(certificate.key(), &files[1]).expect("a copy");
    for file in &files {
        give_to_server(file);
    }
    let text = |path: &std::path::Path| path.display().to_string();
    let server = Postgres::start_with(&[
        ("ssl", "on"),
        ("ssl_cert_file", &text(&files[0])),
        ("ssl_key_file", &text(&files[1])),
    ]);
    add_roles(&server);
    server.add_database("ways", "growth");
    let setup = Setup::new().backend(&format!(
        "tls = \"verify-full\"\nca = \"{}\"",
        certificate.path().display()
    ));
    let gateway = Gateway::start_unready(&server, &["ways"], &setup);
    gateway.expect_log("backend unreachable");
    gateway.expect_log("catalog");
    let error = refused(&gateway, &Login::new(ANA.0, ANA.1, "ways"));
    assert_eq!(error.field('C'), "08006");
    assert!(error.field('D').contains("not valid for name"), "{error:?}");
    assert!(error.field('H').contains("tls"), "{error:?}");
    // encrypted only, the name does not matter
    let gateway = Gateway::start(&server, &["ways"], &Setup::new().backend("tls = \"require\""));
    assert_eq!(gateway.session(ANA).value("SELECT 1"), "1");
}

/// A server that answers every start-up packet with a notice and then with an error.
fn refusing(code: &'static str, message: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let fields = |severity: &str, code: &str, message: &str| {
            format!("S{severity}\0V{severity}\0C{code}\0M{message}\0\0").into_bytes()
        };
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            let mut packet = [0; 1024];
            // who goes away again is none of this server's business
            drop(stream.read(&mut packet));
            let frames = Frames::new()
                .frame(b'N', &[&fields("NOTICE", "00000", "not yet")])
                .frame(b'E', &[&fields("FATAL", code, message)]);
            drop(stream.write_all(&frames));
        }
    });
    address
}

#[test]
fn a_backend_that_is_starting_up_is_told_in_its_own_words() {
    for (code, message) in [
        ("57P03", "the database system is starting up"),
        ("53300", "sorry, too many clients already"),
    ] {
        let setup = Setup::new().backend_address(refusing(code, message));
        let database = database("");
        let gateway = Gateway::start_unready(server(), &[&database], &setup);
        gateway.expect_log("catalog");
        gateway.expect_log("backend unreachable");
        let error = refused(&gateway, &Login::new(ANA.0, ANA.1, &database));
        assert_eq!(
            (error.field('S'), error.field('C')),
            ("FATAL".to_owned(), code.to_owned())
        );
        assert_eq!(error.field('M'), message);
    }
}
