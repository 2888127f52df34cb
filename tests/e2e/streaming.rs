//! What is long passes through, and is not held: the gateway's memory stays flat whatever goes by.

use crate::stage::Stage;
use crate::support::frames::Frames;
use crate::support::gateway::Setup;
use crate::support::wire::Wire;

/// How much more memory one session may take, in KiB.
const ALLOWED: u64 = 16 * 1024;
const MEBIBYTE: usize = 1024 * 1024;

/// A gateway that has served a query of each kind.
fn stage() -> (Stage, Wire) {
    let stage = Stage::with("", &Setup::new().connections(2).log_level("info"));
    let mut ana = stage.ana();
    ana.run("SELECT repeat('x', 100000) FROM generate_series(1, 20)");
    ana.extended("SELECT length($1::text)", &[Some(&vec![b'x'; 200_000])], &[]);
    (stage, ana)
}

/// Reads messages up to ReadyForQuery and keeps none of them; gives the bytes of all rows and the longest one's.
fn skim(wire: &mut Wire, mut look: impl FnMut(usize)) -> (usize, usize) {
    let (mut total, mut longest) = (0, 0);
    loop {
        let (tag, length) = wire.skip().expect("a message");
        assert_ne!(tag, b'E', "an error among the rows");
        if tag == b'D' {
            total += length;
            longest = longest.max(length);
            look(total);
        }
        if tag == b'Z' {
            return (total, longest);
        }
    }
}

#[test]
fn half_a_gigabyte_of_rows_goes_by_in_flat_memory() {
    let (stage, mut ana) = stage();
    let before = stage.gateway.peak_kib();
    ana.send(&Frames::new().query("SELECT repeat('x', 100000) FROM generate_series(1, 5000)"));
    let (total, _) = skim(&mut ana, |_| ());
    assert!(total >= 500_000_000, "{total} bytes");
    let grown = stage.gateway.peak_kib() - before;
    assert!(grown < ALLOWED, "{grown} KiB more");
    assert_eq!(ana.value("SELECT 1"), "1");
}

#[test]
fn a_field_of_two_hundred_mebibytes_goes_by_in_flat_memory() {
    let (stage, mut ana) = stage();
    let before = stage.gateway.peak_kib();
    let sql = format!("SELECT repeat('x', {})", 200 * MEBIBYTE);
    ana.send(&Frames::new().query(&sql));
    let (_, longest) = skim(&mut ana, |_| ());
    assert!(longest > 200 * MEBIBYTE, "{longest} bytes");
    let grown = stage.gateway.peak_kib() - before;
    assert!(grown < ALLOWED, "{grown} KiB more");
    assert_eq!(ana.value("SELECT 1"), "1");
}

#[test]
fn a_slow_reader_does_not_make_the_gateway_swell() {
    let (stage, mut ana) = stage();
    let before = stage.gateway.peak_kib();
    ana.send(&Frames::new().query("SELECT repeat('x', 1000000) FROM generate_series(1, 100)"));
    let mut looks = 0;
    let mut next = 0;
    let (total, _) = skim(&mut ana, |seen| {
        // now and then nothing is read until the server is held up
        if seen >= next && looks < 4 {
            stage.await_activity("wait_event = 'ClientWrite'", 1);
            looks += 1;
            next = seen + 20 * MEBIBYTE;
        }
    });
    assert!(total >= 100_000_000, "{total} bytes");
    let grown = stage.gateway.peak_kib() - before;
    assert!(grown < ALLOWED, "{grown} KiB more");
}

/// Sends a message whose body is `head`, `count` letters, `tail`, piece by piece.
fn send_long(wire: &mut Wire, tag: u8, head: &[u8], count: usize, tail: &[u8]) {
    let length = u32::try_from(4 + head.len() + count + tail.len()).expect("below the limit");
    let mut start = vec![tag];
    start.extend(length.to_be_bytes());
    start.extend(head);
    wire.send(&start);
    let piece = vec![b'x'; MEBIBYTE];
    for _ in 0..count / MEBIBYTE {
        wire.send(&piece);
    }
    wire.send(tail);
}

#[test]
fn a_parameter_and_a_query_of_two_hundred_mebibytes_go_by_in_flat_memory() {
    let (stage, mut ana) = stage();
    let before = stage.gateway.peak_kib();
    let count = 200 * MEBIBYTE;
    // Bind: no names, no formats, one value, no formats of results
    ana.send(&Frames::new().parse("", "SELECT length($1::text)", &[]));
    let mut head = b"\0\0\0\0\0\x01".to_vec();
    head.extend(u32::try_from(count).expect("below the limit").to_be_bytes());
    send_long(&mut ana, b'B', &head, count, b"\0\0");
    assert_eq!(
        ana.ask(&Frames::new().execute("", 0).sync()).value(),
        count.to_string()
    );
    send_long(&mut ana, b'Q', b"SELECT length('", count, b"')\0");
    assert_eq!(ana.ready().value(), count.to_string());
    let grown = stage.gateway.peak_kib() - before;
    assert!(grown < ALLOWED, "{grown} KiB more");
    assert_eq!(ana.value("SELECT 1"), "1");
}

#[test]
fn copies_in_both_directions_go_by_in_flat_memory() {
    let (stage, mut ana) = stage();
    stage.direct().run("CREATE UNLOGGED TABLE t (a text)");
    let before = stage.gateway.peak_kib();
    ana.send(&Frames::new().query("COPY t FROM STDIN"));
    assert_eq!(ana.until(b'G').tags(), "G");
    let mut lines = Vec::new();
    for _ in 0..64 {
        lines.extend([b'y'; 1023]);
        lines.push(b'\n');
    }
    let block = Frames::new().copy_data(&lines);
    for _ in 0..1600 {
        ana.send(&block);
    }
    assert_eq!(ana.ask(&Frames::new().copy_done()).completions(), ["COPY 102400"]);
    ana.send(&Frames::new().query("COPY t TO STDOUT"));
    skim(&mut ana, |_| ());
    let grown = stage.gateway.peak_kib() - before;
    assert!(grown < ALLOWED, "{grown} KiB more");
    assert_eq!(ana.value("SELECT count(*) FROM t"), "102400");
}
