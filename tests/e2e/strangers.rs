//! What comes before a login: other protocols, garbage, silence, too many.

use crate::login::refused;
use crate::stage::Stage;
use crate::support::frames::{Frames, SSL_REQUEST, startup};
use crate::support::gateway::{ANA, DASH, Setup};
use crate::support::wait::{becomes, eventually};
use crate::support::wire::{Login, Wire};

#[test]
fn newer_protocols_are_negotiated_down() {
    let stage = Stage::with("CREATE TABLE locked (a int)", &Setup::new());
    for (minor, parameters, negotiated) in [
        (0, vec![], None),
        (2, vec![], None),
        (9999, vec![], Some((0x0003_0002, vec![]))),
        (
            0,
            vec![("_pq_.compression", "lz4:1")],
            Some((0x0003_0000, vec!["_pq_.compression".to_owned()])),
        ),
        (
            2,
            vec![("_pq_.one", "1"), ("_pq_.two", "2")],
            Some((0x0003_0002, vec!["_pq_.one".to_owned(), "_pq_.two".to_owned()])),
        ),
    ] {
        let login = Login {
            minor,
            ..Login::new(ANA.0, ANA.1, &stage.database).with(&parameters)
        };
        let mut wire = Wire::login(stage.gateway.address(), &login);
        assert_eq!(wire.greeting.negotiated, negotiated, "3.{minor} {parameters:?}");
        let key = wire.greeting.key.len();
        // process id and secret: four bytes each in 3.0, 32 of the secret from 3.2 on
        assert_eq!(key, if minor == 0 { 8 } else { 36 }, "3.{minor}");
        let blocked = stage.block("locked");
        wire.send(&Frames::new().query("SELECT * FROM locked"));
        stage.await_blocked(1);
        wire.cancel();
        assert_eq!(wire.ready().sqlstate(), "57014", "3.{minor}: the key works");
        blocked.release();
    }
}

#[test]
fn first_bytes_that_are_no_startup_packet_are_refused() {
    let stage = Stage::new();
    let mut long = startup(0, &[("user", "ana"), ("application_name", &"x".repeat(20_000))]);
    let mut two = startup(0, &[("user", "ana")]);
    two[5] = 2;
    two[4] = 0;
    let cases: [(&str, Vec<u8>); 9] = [
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("a TLS handshake", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
        ("zeros", vec![0; 64]),
        ("ones", vec![0xff; 64]),
        ("a length of four", vec![0, 0, 0, 4]),
        ("a packet that is too long", std::mem::take(&mut long)),
        ("protocol 2", two),
        ("a packet without its last zero", {
            let mut packet = startup(0, &[("user", "ana")]);
            packet.pop();
            packet[3] -= 1;
            packet
        }),
        ("no user", startup(0, &[("database", "x")])),
    ];
    for (what, bytes) in cases {
        let mut wire = Wire::connect(stage.gateway.address());
        wire.send(&bytes);
        let answer = wire.rest();
        if !answer.is_empty() {
            assert_eq!(answer[0], b'E', "{what}: {}", answer.escape_ascii());
            let text = String::from_utf8_lossy(&answer).into_owned();
            assert!(text.contains("FATAL"), "{what}: {text}");
        }
    }
    assert_eq!(stage.ana().value("SELECT 1"), "1");
}

#[test]
fn messages_that_do_not_belong_to_a_login_are_refused() {
    let stage = Stage::new();
    let cases: [(&str, Vec<u8>); 6] = [
        ("a query", Frames::new().query("SELECT 1").to_vec()),
        (
            "an empty password message",
            Frames::new().frame(b'p', &[]).to_vec(),
        ),
        (
            "a password message of garbage",
            Frames::new().frame(b'p', &[&[0xff; 40]]).to_vec(),
        ),
        (
            "a password message that is too long",
            Frames::new()
                .frame(b'p', &["x".repeat(100_000).as_bytes()])
                .to_vec(),
        ),
        ("a length of two gigabytes", b"p\x7f\xff\xff\xff".to_vec()),
        (
            "another mechanism",
            Frames::new()
                .frame(b'p', &[b"SCRAM-SHA-1\0\0\0\0\x05n,,n="])
                .to_vec(),
        ),
    ];
    for (what, bytes) in cases {
        let mut wire = Wire::connect(stage.gateway.address());
        wire.send(&Login::new(ANA.0, ANA.1, &stage.database).packet());
        assert_eq!(wire.read().map(|message| message.tag), Some(b'R'));
        // the server may have closed already
        drop(wire.try_send(&bytes));
        let error = wire.read().unwrap_or_else(|| panic!("{what}: no word"));
        assert_eq!(
            (error.tag, error.field('S').as_str()),
            (b'E', "FATAL"),
            "{what}: {error:?}"
        );
        assert!(wire.rest().is_empty(), "{what}");
    }
}

#[test]
fn trap_12_a_startup_packet_may_come_byte_by_byte() {
    let stage = Stage::new();
    let mut wire = Wire::connect(stage.gateway.address());
    for byte in SSL_REQUEST {
        wire.send(&[byte]);
    }
    assert_eq!(wire.byte(), Some(b'N'));
    let packet = Login::new(ANA.0, ANA.1, &stage.database).packet();
    for byte in &packet[..packet.len() - 1] {
        wire.send(&[*byte]);
    }
    let last = packet[packet.len() - 1];
    wire.send(&[last]);
    assert_eq!(wire.read().map(|message| message.tag), Some(b'R'));
}

const TIMEOUTS: &str = "tollgate_logins_total{outcome=\"timeout\"}";

#[test]
fn a_login_that_takes_too_long_is_ended() {
    let stage = Stage::with("", &Setup::new().listen("login_timeout = \"1s\""));
    // nothing at all, half a packet, and no password
    let packet = Login::new(ANA.0, ANA.1, &stage.database).packet();
    for (what, bytes) in [
        ("nothing", &packet[..0]),
        ("half a packet", &packet[..10]),
        ("no password", &packet[..]),
    ] {
        let mut wire = Wire::connect(stage.gateway.address());
        wire.send(bytes);
        let answer = wire.rest();
        assert!(answer.len() < 500, "{what}: {}", answer.escape_ascii());
    }
    becomes(&3, || stage.gateway.metric(TIMEOUTS));
    // who is in may be silent for longer
    let login = Login::new(ANA.0, ANA.1, &stage.database);
    let mut ana = eventually("the login is fast enough", || {
        Wire::try_login(stage.gateway.address(), &login).ok()
    });
    let before = stage.gateway.metric(TIMEOUTS);
    drop(Wire::connect(stage.gateway.address()).rest());
    becomes(&(before + 1), || stage.gateway.metric(TIMEOUTS));
    assert_eq!(ana.value("SELECT 1"), "1");
}

#[test]
fn connections_are_limited_in_all_and_by_address() {
    for (setting, detail) in [
        ("max_connections = 3", "The limit is 3 connections."),
        (
            "max_connections_per_address = 3",
            "The limit is 3 connections from one address.",
        ),
    ] {
        let stage = Stage::with("", &Setup::new().listen(setting));
        let login = Login::new(ANA.0, ANA.1, &stage.database);
        // a session that has just ended may still have its place
        let mut sessions = Vec::new();
        while sessions.len() < 3 {
            sessions.push(eventually("there is a place", || {
                Wire::try_login(stage.gateway.address(), &login).ok()
            }));
        }
        let error = refused(&stage.gateway, &login);
        assert_eq!(
            (error.field('C').as_str(), error.field('S').as_str()),
            ("53300", "FATAL"),
            "{setting}"
        );
        assert_eq!(error.field('D'), detail);
        // a running query can still be cancelled
        sessions[0].cancel();
        assert_eq!(sessions[0].value("SELECT 1"), "1");
        sessions.pop();
        let mut next = eventually("the place is free again", || {
            Wire::try_login(stage.gateway.address(), &login).ok()
        });
        assert_eq!(next.value("SELECT 1"), "1");
    }
}

#[test]
fn a_storm_of_strangers_keeps_nobody_out() {
    let stage = Stage::new();
    let mut silent = Vec::new();
    for number in 0..200_usize {
        let mut wire = Wire::connect(stage.gateway.address());
        match number % 4 {
            0 => wire.send(&SSL_REQUEST[..4]),
            1 => wire.send(&Login::new("nobody", "", "x").packet()),
            2 => {}
            _ => {
                drop(wire);
                continue;
            }
        }
        silent.push(wire);
    }
    assert_eq!(stage.ana().value("SELECT 1"), "1");
    assert_eq!(stage.gateway.session(DASH).value("SELECT 1"), "1");
    drop(silent);
}
