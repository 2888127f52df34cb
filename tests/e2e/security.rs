//! Who may try to log in, from where, and what is written down of it.

use crate::login::refused;
use crate::stage::{Stage, server};
use crate::support::gateway::{ANA, BEN, DASH, ROOT, Setup};
use crate::support::wire::{Login, Wire};

#[test]
fn failed_logins_bar_the_user_and_then_the_address() {
    let limits = "failed_logins_per_user = 2\nfailed_logins_per_address = 4";
    let stage = Stage::with("", &Setup::new().listen(limits));
    let database = stage.database.as_str();
    let error = |user: &str, password: &str| refused(&stage.gateway, &Login::new(user, password, database));
    for _ in 0..2 {
        assert_eq!(error(ANA.0, "wrong").field('C'), "28P01");
    }
    // the right password does not help, and those who are refused do not make it worse
    for password in [ANA.1, "wrong", ANA.1] {
        let error = error(ANA.0, password);
        assert_eq!(
            (error.field('S'), error.field('C')),
            ("FATAL".to_owned(), "28000".to_owned())
        );
        assert_eq!(error.field('M'), "too many failed logins of user \"ana\"");
        assert!(error.field('H').starts_with("Try again in "), "{error:?}");
    }
    let mut ben = stage.gateway.session(BEN);
    assert_eq!(error("nobody", "wrong").field('C'), "28P01");
    assert_eq!(error("somebody", "wrong").field('C'), "28P01");
    for (user, password) in [DASH, ROOT, ("nobody", "wrong")] {
        let error = error(user, password);
        assert_eq!(error.field('C'), "28000");
        assert_eq!(
            error.field('M'),
            "too many failed logins from this address",
            "{user}"
        );
    }
    // sessions go on
    assert_eq!(ben.value("SELECT 1"), "1");
    assert!(stage.gateway.metric("tollgate_logins_total{outcome=\"barred\"}") >= 6);
    // and the administrator may let everybody try again
    let unlimited = "failed_logins_per_user = 0\nfailed_logins_per_address = 0";
    stage.gateway.reload(server(), &Setup::new().listen(unlimited));
    for _ in 0..4 {
        assert_eq!(error(ANA.0, "wrong").field('C'), "28P01");
    }
    assert_eq!(stage.ana().value("SELECT 1"), "1");
}

#[test]
fn a_user_that_does_not_exist_is_barred_as_one_that_does() {
    let limits = "failed_logins_per_user = 2\nfailed_logins_per_address = 0";
    let stage = Stage::with("", &Setup::new().listen(limits));
    let told = |user: &str| {
        let login = Login::new(user, "wrong", &stage.database);
        let error = |_| {
            let error = refused(&stage.gateway, &login);
            (error.field('C'), error.field('M').replace(user, "USER"))
        };
        (0..4).map(error).collect::<Vec<_>>()
    };
    let known = told(ANA.0);
    assert_eq!(
        known.iter().map(|(code, _)| code.as_str()).collect::<Vec<_>>(),
        ["28P01", "28P01", "28000", "28000"]
    );
    for name in ["nobody", "somebody"] {
        assert_eq!(told(name), known, "{name}");
    }
}

#[test]
fn users_and_teams_come_only_from_their_networks() {
    let user = |name: &str, team: &str, allow: &str| {
        format!(
            "[user.{name}]\nteam = \"{team}\"\npassword = {{ env = \"ANA_PASSWORD\" }}\nallow = {allow}\n"
        )
    };
    let setup = Setup::new()
        .listen("failed_logins_per_user = 2")
        .more(&user("here", "growth", "[\"10.0.0.0/8\", \"127.0.0.0/8\"]"))
        .more(&user("there", "growth", "[\"10.0.0.0/8\", \"::1\"]"))
        .more(&user("narrow", "far", "[\"127.0.0.1\"]"))
        .more(
            "[team.far]\nbackend = \"warehouse\"\nlogin = { user = \"elsewhere\" }\nallow = [\"192.0.2.0/24\"]",
        );
    let stage = Stage::with("", &setup);
    let mut wire = stage.gateway.session(("here", ANA.1));
    assert_eq!(wire.value("SELECT 1"), "1");
    for user in ["there", "narrow"] {
        let error = refused(&stage.gateway, &Login::new(user, ANA.1, &stage.database));
        assert_eq!(
            (error.field('S'), error.field('C')),
            ("FATAL".to_owned(), "28000".to_owned())
        );
        assert_eq!(
            error.field('M'),
            format!("user \"{user}\" may not log in from address 127.0.0.1")
        );
        assert!(error.field('H').contains("allow"), "{error:?}");
    }
    // who does not know the password does not learn that, and cannot lock the user out from here
    for _ in 0..4 {
        let error = refused(&stage.gateway, &Login::new("there", "wrong", &stage.database));
        assert_eq!(error.field('C'), "28P01");
    }
    let error = refused(&stage.gateway, &Login::new("there", ANA.1, &stage.database));
    assert!(error.field('M').contains("may not log in"), "{error:?}");
}

#[test]
fn logins_refusals_and_commands_are_written_down() {
    let stage = Stage::with("", &Setup::new().log_level("info"));
    let mut ana = stage.ana();
    let opened = stage.gateway.await_log("session opened");
    for (field, expected) in [
        ("level", "INFO"),
        ("user", "ana"),
        ("database", stage.database.as_str()),
        ("method", "scram-sha-256"),
    ] {
        assert_eq!(opened[field], expected, "{opened}");
    }
    assert_eq!(opened["tls"], false);
    assert_eq!(opened["address"], ana.local_address().to_string());
    drop(refused(
        &stage.gateway,
        &Login::new("eve\nroot", "secret guess", &stage.database),
    ));
    let failed = stage.gateway.await_log("login refused");
    for (field, expected) in [
        ("user", "eve\nroot"),
        ("database", stage.database.as_str()),
        ("outcome", "wrong_password"),
        ("sqlstate", "28P01"),
    ] {
        assert_eq!(failed[field], expected, "{failed}");
    }
    stage.gateway.console().run("PAUSE");
    let commanded = stage.gateway.await_log("console command");
    assert_eq!(
        (&commanded["user"], &commanded["command"]),
        (&"root".into(), &"PAUSE".into())
    );
    stage.gateway.console().run("RESUME");
    assert_eq!(ana.value("SELECT 1"), "1");
    let log = stage.gateway.log().join("\n");
    assert!(
        !log.contains("secret guess") && !log.contains("SELECT 1"),
        "{log}"
    );
}

/// CVE-2026-6667: a pooler's console did not check who may end others.
#[test]
fn trap_25_only_an_administrator_ends_sessions() {
    let stage = Stage::new();
    let mut victim = stage.gateway.session(BEN);
    let error = refused(&stage.gateway, &Login::new(ANA.0, ANA.1, "tollgate"));
    assert_eq!(error.field('C'), "42501");
    // in another database it is a statement like any other, for the server
    let mut ana = stage.ana();
    for command in ["KILL 1", "KILL_CLIENT 1", "SHUTDOWN", "PAUSE", "RELOAD"] {
        assert_eq!(ana.query(command).sqlstate(), "42601", "{command}");
    }
    assert_eq!(victim.value("SELECT 1"), "1");
}

/// CVE-2025-12819: the pooler's own queries ran with the search path of the start-up packet.
#[test]
fn trap_25_a_search_path_at_startup_reaches_no_query_of_the_gateways_own() {
    // functions and a relation that stand before the system's own
    let schema = "
        CREATE SCHEMA evil;
        CREATE TABLE evil.caught (by text);
        CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql VOLATILE
            AS $$ INSERT INTO evil.caught VALUES (session_user) RETURNING by $$;
        CREATE FUNCTION evil.format_type(oid, int) RETURNS text LANGUAGE sql VOLATILE
            AS $$ INSERT INTO evil.caught VALUES (session_user) RETURNING by $$;
        GRANT USAGE ON SCHEMA evil TO PUBLIC; GRANT ALL ON ALL TABLES IN SCHEMA evil TO PUBLIC;
        CREATE TABLE t (a int); INSERT INTO t VALUES (1)";
    let stage = Stage::with(schema, &Setup::new());
    let path = [("search_path", "evil, pg_catalog, public")];
    let login = Login::new(ANA.0, ANA.1, &stage.database).with(&path);
    let mut wire = Wire::login(stage.gateway.address(), &login);
    assert_eq!(wire.value("SELECT count(*) FROM t"), "1");
    wire.run("CREATE TABLE public.u (a int)");
    assert_eq!(wire.value("SELECT count(*) FROM u"), "0");
    let path = [("options", "-c search_path=evil,pg_catalog,public")];
    let login = Login::new(ANA.0, ANA.1, &stage.database).with(&path);
    assert_eq!(
        Wire::login(stage.gateway.address(), &login).value("SELECT count(*) FROM t"),
        "1"
    );
    // nor a session that comes after it on the same connection
    assert_eq!(stage.ana().value("SHOW search_path"), "\"$user\", public");
    assert_eq!(stage.superuser().value("SELECT count(*) FROM evil.caught"), "0");
}

/// Settings in the start-up packet hold for the session, by name and in `options`, and a wrong one is refused.
#[test]
fn settings_of_the_startup_packet_hold() {
    let stage = Stage::new();
    let address = stage.gateway.address();
    for (parameters, setting, expected) in [
        (("statement_timeout", "10000"), "statement_timeout", "10s"),
        (("search_path", "a, \"B c\""), "search_path", "a, \"B c\""),
        (
            ("options", "-c statement_timeout=7s -csearch_path=x"),
            "statement_timeout",
            "7s",
        ),
        (("options", "--lock-timeout=3s"), "lock_timeout", "3s"),
        (("options", "-c search_path=a,\\ b"), "search_path", "a, b"),
        (("TimeZone", "Asia/Tokyo"), "timezone", "Asia/Tokyo"),
        (("DateStyle", "German"), "datestyle", "German, DMY"),
        (("extra_float_digits", "2"), "extra_float_digits", "2"),
        (
            ("idle_in_transaction_session_timeout", "5000"),
            "idle_in_transaction_session_timeout",
            "5s",
        ),
    ] {
        let parameters = [parameters];
        let login = Login::new(ANA.0, ANA.1, &stage.database).with(&parameters);
        let mut wire = Wire::login(address, &login);
        assert_eq!(wire.value(&format!("SHOW {setting}")), expected, "{parameters:?}");
        // and is that of this session only
        assert_ne!(
            stage.ana().value(&format!("SHOW {setting}")),
            expected,
            "{parameters:?}"
        );
        assert_eq!(wire.value(&format!("SHOW {setting}")), expected, "{parameters:?}");
    }
    let short = [("statement_timeout", "50")];
    let login = Login::new(ANA.0, ANA.1, &stage.database).with(&short);
    assert_eq!(
        Wire::login(address, &login)
            .query("SELECT pg_sleep(60)")
            .sqlstate(),
        "57014"
    );
    for (parameter, code) in [
        (("statement_timeout", "soon"), "22023"),
        (("no_such_setting", "1"), "42704"),
        (("search_path; DROP TABLE t", "x"), "42704"),
        (("options", "-c statement_timeout"), "42601"),
        (("options", "-c log_statement=all"), "42501"),
        (("replication", "database"), "0A000"),
        (("replication", "true"), "0A000"),
    ] {
        let parameters = [parameter];
        let error = refused(
            &stage.gateway,
            &Login::new(ANA.0, ANA.1, &stage.database).with(&parameters),
        );
        assert_eq!(
            (error.field('S'), error.field('C')),
            ("FATAL".to_owned(), code.to_owned()),
            "{parameter:?}"
        );
    }
    let off = [("replication", "false")];
    assert_eq!(
        Wire::login(address, &Login::new(ANA.0, ANA.1, &stage.database).with(&off)).value("SELECT 1"),
        "1"
    );
}
