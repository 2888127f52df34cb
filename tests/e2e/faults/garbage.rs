//! Bytes that are no protocol, at every stage of a connection.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::moment::{Moment, SCHEMA};
use super::rest::Rest;
use crate::stage::Stage;
use crate::support::frames::{Frames, SSL_REQUEST};
use crate::support::gateway::{ANA, BEN, ROOT, Setup};
use crate::support::wire::{Login, Wire};

/// Garbage of several kinds: anything, what looks like a message of any type and any length, and what is known to be
/// sent to ports of PostgreSQL.
fn garbage(random: &mut StdRng, round: usize) -> Vec<u8> {
    let noise = |random: &mut StdRng, most: usize| -> Vec<u8> {
        let len = random.random_range(0..=most);
        (0..len).map(|_| random.random()).collect()
    };
    match round % 6 {
        0 => noise(random, 5_000),
        1 => vec![0; random.random_range(1..200)],
        2 => {
            // a header that is believed, and nothing like its message behind it
            let body = noise(random, 200);
            Frames::new().frame(random.random(), &[&body]).to_vec()
        }
        3 => {
            let mut bytes = vec![b"QPBDECSHFdcfXp"[random.random_range(0..14)]];
            bytes.extend(random.random::<u32>().to_be_bytes());
            bytes.extend(noise(random, 200));
            bytes
        }
        4 => b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        _ => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
    }
}

/// Whatever is answered, it has an end when its sender has said everything.
fn ends(wire: Wire) {
    drop(wire.hang_up());
}

#[test]
fn garbage_at_every_stage_ends_its_own_connection_and_leaves_nothing_behind() {
    let stage = Stage::with(SCHEMA, &Setup::new().connections(3));
    // a message that is not understood is forwarded, and what the server then says may be the end of the connection
    stage.gateway.expect_log("backend lost");
    let rest = Rest::of(&stage);
    let mut random = StdRng::seed_from_u64(3);
    let login = Login::new(ANA.0, ANA.1, &stage.database);
    for round in 0..18 {
        let bytes = garbage(&mut random, round);
        let address = stage.gateway.address();
        // instead of a start-up packet, after a question for TLS, after the start-up packet
        for before in [&[][..], &SSL_REQUEST, &login.packet()] {
            let mut wire = Wire::connect(address);
            wire.send(before);
            drop(wire.try_send(&bytes));
            ends(wire);
        }
        // after the login of a user and of an administrator
        for login in [&login, &Login::new(ROOT.0, ROOT.1, "tollgate")] {
            let mut wire = Wire::login(address, login);
            drop(wire.try_send(&bytes));
            ends(wire);
        }
    }
    rest.returns(&stage, 1, "garbage before and after the login");
    for moment in Moment::ALL {
        let lock = Moment::lock(&stage);
        for round in [2, 3] {
            let mut wire = stage.ana();
            moment.enter(&mut wire, &stage);
            let bytes = garbage(&mut random, round);
            drop(wire.try_send(&bytes));
            ends(wire);
            stage.await_blocked(0);
        }
        lock.release();
        assert_eq!(
            stage.gateway.session(BEN).value("SELECT a FROM t"),
            "1",
            "after garbage at {moment:?}"
        );
        rest.returns(&stage, 2, &format!("garbage at {moment:?}"));
    }
}

#[test]
fn what_stands_in_a_message_that_nobody_asked_for_is_no_command() {
    let stage = Stage::new();
    let commands = Frames::new().query("SHOW VERSION").repeat(1_000);
    for mut wire in [stage.gateway.console(), stage.ana()] {
        let reply = wire.ask(&Frames::new().copy_data(&commands).query("SHOW HELP"));
        assert_eq!(reply.status(), 'I');
        // one answer, and the next is to the next question
        let reply = wire.query("SELECT broken (");
        assert_eq!(reply.tags(), "EZ", "{reply:?}");
    }
}
