//! The server's own words: whatever it says in an error or a notice, and whenever, reaches who asked, and nobody else.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use crate::backend_login::{SELF, member};
use crate::login::refused;
use crate::relay::narrow;
use crate::stage::{Stage, server};
use crate::support::PasswordForm;
use crate::support::frames::Frames;
use crate::support::gateway::{ANA, BEN, CONTROL, DASH, Setup};
use crate::support::interposer::{Said, Side, bytes_of, interposed};
use crate::support::wire::{Login, Message, Reply};

/// What errors and notices have instead of the server's fields, byte for byte. The number of one is in the name of the table
/// that is asked for.
static ODD: LazyLock<[Vec<u8>; 7]> = LazyLock::new(|| {
    let long = "x".repeat(3 << 20);
    [
        // letters that no PostgreSQL knows, bytes that are no UTF-8
        b"SFEHLER\0VERROR\0C22012\0Mtod durch \xfc\xff\0Dnull\0Zodd\0zodd\0a\xc3\x28\0~\x01\0\xe9odd\0R\0\0"
            .to_vec(),
        // the same twice, and in another order than the server's
        b"Mfirst\0Zone\0Ztwo\0Msecond\0C22012\0VERROR\0SERROR\0\0".to_vec(),
        // no severity, no code, no message
        b"Zodd\0\0".to_vec(),
        b"\0".to_vec(),
        // a code that is none
        b"SERROR\0VERROR\0C\xff\xfe\0Mwhat?\0\0".to_vec(),
        // something behind the end
        b"SERROR\0VERROR\0C22012\0Mend\0\0more".to_vec(),
        // more than is held
        [b"SERROR\0VERROR\0C22012\0M", long.as_bytes(), b"\0Zodd\0\0"].concat(),
    ]
});

/// A server whose errors and notices about tables `odd_0` and so on are the odd ones.
fn odd_server() -> SocketAddr {
    interposed(server().address(), |Said { by, message, .. }| {
        let about = |number: &usize| {
            let name = format!("\"odd_{number}\"");
            message.field('M').contains(&name)
        };
        if by == Side::Client || !matches!(message.tag, b'E' | b'N') {
            return None;
        }
        let body = ODD[(0..ODD.len()).find(about)?].clone();
        Some(bytes_of(&Message {
            tag: message.tag,
            body,
        }))
    })
}

/// What `tag` brought.
fn bodies(reply: &Reply, tag: u8) -> Vec<&[u8]> {
    let found = reply.0.iter().filter(|message| message.tag == tag);
    found.map(|message| message.body.as_slice()).collect()
}

#[test]
fn errors_arrive_byte_for_byte_whatever_fields_they_have() {
    let stage = Stage::with("CREATE TABLE t (a int)", &narrow().backend_address(odd_server()));
    let mut ana = stage.ana();
    for (number, odd) in ODD.iter().enumerate() {
        let asked = format!("SELECT a FROM odd_{number}");
        let counted = format!("SELECT count(*) FROM odd_{number}");
        let parsed = |name: &str| Frames::new().parse(name, &asked, &[]);
        let in_transaction = format!("BEGIN; SELECT 1; {asked}; SELECT 2");
        for (what, frames, tags) in [
            ("simple", Frames::new().query(&asked), "EZ"),
            // whose answer would have been kept
            ("counted", Frames::new().query(&counted), "EZ"),
            ("among others", Frames::new().query(&in_transaction), "CTDCEZ"),
            ("in a failed transaction", Frames::new().query("ROLLBACK"), "CZ"),
            ("unnamed", parsed("").sync(), "EZ"),
            ("named", parsed("mine").describe_statement("mine").sync(), "EZ"),
            (
                "in a series",
                Frames::new().unnamed("SELECT 1").unnamed(&asked).sync(),
                "12DCEZ",
            ),
        ] {
            let what = format!("{what}, {number}");
            let reply = ana.ask(&frames);
            assert_eq!(reply.tags(), tags, "{what}");
            for body in bodies(&reply, b'E') {
                assert!(body == odd, "{what}: {}", body.escape_ascii());
            }
        }
        // nothing is left of it, here or at the connection
        assert_eq!(ana.run("SELECT 1").tags(), "TDCZ", "{number}");
        assert_eq!(stage.gateway.session(BEN).value("SELECT count(*) FROM t"), "0");
    }
}

#[test]
fn notices_arrive_byte_for_byte_whatever_fields_they_have() {
    let stage = Stage::with("", &narrow().backend_address(odd_server()));
    let mut ana = stage.ana();
    for (number, odd) in ODD.iter().enumerate() {
        let asked = format!("DROP TABLE IF EXISTS odd_{number}");
        for (what, reply, tags) in [
            ("simple", ana.query(&asked), "NCZ"),
            ("extended", ana.extended(&asked, &[], &[]), "12nNCZ"),
            (
                "in a transaction",
                ana.query(&format!("BEGIN; {asked}; {asked}; COMMIT")),
                "CNCNCCZ",
            ),
        ] {
            assert_eq!(reply.tags(), tags, "{what}, {number}");
            for body in bodies(&reply, b'N') {
                assert!(body == odd, "{what}, {number}: {}", body.escape_ascii());
            }
        }
        assert_eq!(
            stage.gateway.session(BEN).run("SELECT 1").tags(),
            "TDCZ",
            "{number}"
        );
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

/// A server that says [`news`] before each of its messages with one of these tags; and how many times it has.
fn talkative(tags: &'static [u8]) -> (SocketAddr, Arc<AtomicU64>) {
    let said = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&said);
    let news = news();
    let address = interposed(server().address(), move |Said { by, message, login }| {
        // the library that reads definitions takes none before it is let in
        let control = message.tag == b'R' && contains(login, CONTROL.0);
        if by == Side::Client || !tags.contains(&message.tag) || control {
            return None;
        }
        counted.fetch_add(1, Ordering::Relaxed);
        Some([&*news, &bytes_of(message)].concat())
    });
    (address, said)
}

/// A notice, and a parameter that the client has not heard of.
fn news() -> Frames {
    Frames::new()
        .frame(b'N', &[b"SNOTICE\0VNOTICE\0C00000\0Mhm\0\0"])
        .frame(b'S', &[b"odd\0value\0"])
}

#[test]
fn what_a_server_says_before_and_within_a_login_is_for_the_user_whose_login_it_is() {
    const OWN: (&str, &str) = ("self_talked_to", "own secret");
    // before it asks for a password, while it does, and between that and the end
    let (address, said) = talkative(b"RK");
    server().add_user(OWN.0, OWN.1, PasswordForm::Scram);
    let setup = member(Setup::new().more(SELF), OWN.0);
    let stage = Stage::with("", &setup.backend_address(address));
    assert!(said.load(Ordering::Relaxed) > 0, "definitions are read");
    // as a role that several users share, by SCRAM and by MD5
    for user in [ANA, DASH] {
        let before = said.load(Ordering::Relaxed);
        let mut first = stage.gateway.session(user);
        assert!(
            said.load(Ordering::Relaxed) > before,
            "a connection was made for it"
        );
        let mut second = stage.gateway.session(user);
        for wire in [&mut first, &mut second] {
            let tags: Vec<u8> = wire.greeting.messages.iter().map(|message| message.tag).collect();
            assert!(!tags.contains(&b'N'), "{tags:?}");
            assert_eq!(wire.run("SELECT 1").tags(), "TDCZ");
        }
        // one is opened for a session that was greeted long ago
        first.run("BEGIN; SELECT 1");
        let before = said.load(Ordering::Relaxed);
        let reply = second.run("BEGIN; SELECT 1");
        assert_eq!(reply.tags(), "CTDCZ");
        assert!(
            said.load(Ordering::Relaxed) > before,
            "a connection was made for it"
        );
    }
    // as the user itself, whom the server talks to
    for _ in 0..2 {
        let mut own = stage.gateway.session(OWN);
        let notices: Vec<_> = own
            .greeting
            .messages
            .iter()
            .filter(|message| message.tag == b'N')
            .collect();
        // of each request of SCRAM, the welcome and the key
        assert_eq!(notices.len(), 5, "{notices:?}");
        assert!(
            notices.iter().all(|notice| notice.field('M') == "hm"),
            "{notices:?}"
        );
        assert_eq!(own.run("SELECT 1").tags(), "TDCZ");
    }
}

#[test]
fn notices_and_parameters_between_any_two_messages_disturb_nothing() {
    let (address, said) = talkative(b"RSKZ123TtnDCIEsGH");
    let stage = Stage::with(
        "CREATE TABLE t (a int); INSERT INTO t VALUES (1)",
        &narrow().backend_address(address),
    );
    let (mut ana, mut ben) = (stage.ana(), stage.gateway.session(BEN));
    let process = stage.process();
    let own = |reply: &Reply| reply.tags().replace(['N', 'S'], "");
    let named = Frames::new()
        .parse("mine", "SELECT a FROM t", &[])
        .describe_statement("mine")
        .sync();
    let bound = Frames::new()
        .bind("", "mine", &[], &[], &[])
        .execute("", 0)
        .sync();
    for round in 0..3 {
        for (sql, tags) in [
            ("SELECT a FROM t", "TDCZ"),
            ("SELECT count(*) FROM t", "TDCZ"),
            ("SELEKT", "EZ"),
            ("", "IZ"),
            // not heard of by the server before the next
            ("BEGIN", "CZ"),
            ("SELECT a FROM t", "TDCZ"),
            ("SELECT 1/0", "EZ"),
            ("SELECT 1", "EZ"),
            ("ROLLBACK", "CZ"),
            ("SET DateStyle = 'German'", "CZ"),
            ("SELECT a FROM t; SELECT 2", "TDCTDCZ"),
        ] {
            let reply = ana.query(sql);
            assert_eq!(own(&reply), tags, "{sql}, {round}");
        }
        let reply = ana.ask(&named);
        assert_eq!(own(&reply), "1tTZ", "{round}");
        // another's settings are put back in between, and so is ana's statement
        ben.run("SET DateStyle = 'SQL'; SELECT 1");
        assert_eq!(own(&ana.ask(&bound)), "2DCZ", "{round}");
        assert_eq!(ana.value("SHOW DateStyle"), "German, DMY");
        ana.ask(&Frames::new().close_statement("mine").sync());
        ana.send(&Frames::new().query("COPY t TO STDOUT"));
        assert_eq!(ana.ready().tags().replace(['N', 'S'], ""), "HdcCZ", "{round}");
    }
    // the parameter is told when it is news
    let mut fresh = stage.ana();
    let reply = fresh.query("SELECT a FROM t");
    let parameters = bodies(&reply, b'S');
    assert!(
        parameters.iter().filter(|body| **body == b"odd\0value\0").count() <= 1,
        "{parameters:?}"
    );
    // what was left at the connection is taken away, and nobody hears of that
    fresh.run("CREATE TEMPORARY TABLE mine (a int)");
    drop(fresh);
    assert_eq!(own(&ben.query("SELECT a FROM mine")), "EZ");
    assert_eq!(ben.value("SHOW DateStyle"), "SQL, MDY");
    assert_eq!(stage.process(), process, "it is still the same connection");
    assert!(said.load(Ordering::Relaxed) > 100);
}

#[test]
fn errors_of_a_users_own_login_arrive_with_all_their_fields() {
    const FULL: (&str, &str) = ("self_full", "own secret");
    const ODD: &[u8] = b"SFEHLER\0VFEHLER\0C53300\0Mvoll \xfc\0Zodd\0a\xc3\x28\0R\0\0";
    server().add_user(FULL.0, FULL.1, PasswordForm::Scram);
    server().run(&format!("ALTER ROLE {} CONNECTION LIMIT 0", FULL.0));
    let address = interposed(server().address(), |Said { by, message, login }| {
        let its = by == Side::Server && message.tag == b'E' && contains(login, FULL.0);
        its.then(|| Frames::new().frame(b'E', &[ODD]).to_vec())
    });
    let setup = member(Setup::new().more(SELF), FULL.0);
    let stage = Stage::with("", &setup.backend_address(address));
    let error = refused(&stage.gateway, &Login::new(FULL.0, FULL.1, &stage.database));
    // an error at the login ends the session, whatever the server calls it
    let expected = b"SFATAL\0VFATAL\0C53300\0Mvoll \xfc\0Zodd\0a\xc3\x28\0R\0\0";
    assert!(error.body == expected, "{error:?}");
}
