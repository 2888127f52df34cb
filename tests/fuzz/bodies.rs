//! What is fuzzed: each function takes any bytes, and panics when the gateway would be wrong about them.
//!
//! The targets of `fuzz/` and the replay of their corpus in `tests/fuzz/main.rs` call the same functions.

use bytes::BytesMut;
use tollgate::auth::{BackendLogin, BackendSecret, Credential, Exchange, Link, Method, Progress};
use tollgate::backend::{Asked, Asker, Replies};
use tollgate::session::{Collected, Collector, Ending, Settings, StartupRequest};
use tollgate::sql::{
    Analysis, Analyzer, Backslash, Lexer, MAX_BYTES, StatementKind, TokenKind, canonical_into, describe,
    names_a_moment,
};
use tollgate::types::{ByteSize, Secret};
use tollgate::wire::{self, ErrorFields, Initial, MAX_FRAME, MAX_STARTUP};

/// A target: its name, which is also its corpus', and its body.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target.
pub(crate) const TARGETS: [Target; 5] = [
    ("startup", startup),
    ("frames", frames),
    ("login", login),
    ("replies", replies),
    ("analyser", analyser),
];

/// What a client sends first: a packet without a tag, and what it asks for.
pub(crate) fn startup(data: &[u8]) {
    let whole = wire::initial(data);
    for cut in 0..data.len().min(64) {
        match (wire::initial(&data[..cut]), &whole) {
            (Ok(None), _) => {}
            (Ok(Some((_, len))), Ok(Some((_, whole)))) => assert!(len == *whole && len <= cut),
            (Err(early), Err(late)) => assert_eq!(early, *late, "cut at {cut}"),
            (part, _) => panic!("cut at {cut}: {}", part.is_ok()),
        }
    }
    let Ok(Some((initial, len))) = whole else { return };
    assert!(len <= data.len() && len <= MAX_STARTUP);
    let Initial::Startup(packet) = initial else {
        return;
    };
    written_anew(&packet.parameters);
    let Ok(request) = StartupRequest::read(&packet) else {
        return;
    };
    assert!(!request.user.is_empty() && !request.database.is_empty());
    assert!(matches!(request.minor, 0 | 2));
    assert!(request.application_name.len() <= 63 && request.application_name.is_ascii());
    let pairs = packet.parameters.len() + packet.parameters.iter().map(|(_, v)| v.len()).sum::<usize>();
    restored(&request.settings, pairs);
}

/// What the gateway writes as a start-up packet is read as it was meant.
fn written_anew(parameters: &[(String, String)]) {
    let mut out = BytesMut::new();
    wire::startup_message(parameters.iter().map(|(n, v)| (n.as_str(), v.as_str())), &mut out);
    if out.len() > MAX_STARTUP {
        return;
    }
    match wire::initial(&out) {
        Ok(Some((Initial::Startup(again), len))) => {
            assert_eq!((again.parameters.as_slice(), len), (parameters, out.len()));
        }
        _ => panic!("{parameters:?} is not read again"),
    }
}

/// Values of a start-up packet stay values in the SQL that restores them, whatever a backslash means there.
fn restored(settings: &Settings, at_most: usize) {
    // RESET ALL; and then SELECT pg_catalog.set_config('name', 'value', false);
    const OF_RESET: usize = 3;
    const OF_SETTING: usize = 12;
    let sql = settings.restore_sql(None);
    assert!(settings.restore_sql(Some(settings)).is_empty());
    for backslash in [Backslash::Literal, Backslash::Escape] {
        let tokens: Vec<_> = Lexer::new(sql.as_bytes(), backslash).collect();
        let settings = tokens.len().saturating_sub(OF_RESET) / OF_SETTING;
        assert_eq!(tokens.len(), OF_RESET + settings * OF_SETTING, "{sql}");
        assert!(settings <= at_most, "{sql}");
        for (at, token) in tokens.iter().skip(OF_RESET).enumerate() {
            let literal = matches!(at % OF_SETTING, 5 | 7);
            assert_eq!(token.kind.holds_text(), literal, "{sql}");
        }
    }
    let mut scope = Vec::new();
    settings.scope_into(&mut scope);
    settings.encode_into(&mut scope);
}

/// What a client sends after login, whole and in pieces of the size that the first byte says.
pub(crate) fn frames(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else {
        return;
    };
    let whole = collected(bytes, usize::MAX);
    assert_eq!(whole, collected(bytes, usize::from(step) + 1), "in pieces");
    // every reader takes what is not meant for it, too
    decode(bytes);
}

/// One message as the collector saw it: its tag and its whole length.
type Seen = (u8, usize);

/// What the collector says when the bytes come `step` at a time.
fn collected(bytes: &[u8], step: usize) -> (Vec<Seen>, String) {
    let mut collector = Collector::default();
    let (mut at, mut end) = (0, 0);
    let mut seen: Vec<Seen> = Vec::new();
    let mut endings = String::new();
    loop {
        // a message that is streamed ends later than what has come
        if at > bytes.len() {
            return (seen, endings);
        }
        let buf = &bytes[at..end.max(at)];
        match collector.collect(buf, false) {
            Ok(Collected::More) => {
                if end >= bytes.len() {
                    return (seen, endings);
                }
                end = end.max(at).saturating_add(step).min(bytes.len());
            }
            Ok(Collected::Request(request)) => {
                assert!(request.len <= buf.len(), "more than there is");
                let mut from = 0;
                for frame in &request.frames {
                    assert!(from == frame.start && frame.start < frame.end && frame.end <= request.len);
                    from = frame.end;
                    decode(&buf[frame.start..frame.end]);
                    seen.push((buf[frame.start], frame.end - frame.start));
                }
                assert_eq!(from, request.len, "nothing is skipped");
                let mut len = request.len;
                endings.push(match request.ending {
                    Ending::Call => 'c',
                    Ending::Sync => 's',
                    Ending::Flush => 'h',
                    Ending::Full => 'f',
                    Ending::Long { left } => {
                        len += left;
                        let last = seen.last_mut().expect("the long message");
                        last.1 += left;
                        'l'
                    }
                });
                at += len;
                collector.recycle(request);
            }
            Ok(Collected::Stray { len, left }) => {
                assert!(len <= buf.len());
                seen.push((buf[0], len + left));
                endings.push('x');
                at += len + left;
            }
            Ok(Collected::Terminate) => {
                endings.push('t');
                return (seen, endings);
            }
            Err(error) => {
                endings.push_str(&error.to_string());
                return (seen, endings);
            }
        }
    }
}

/// Reads `frame` in every way there is.
fn decode(frame: &[u8]) {
    drop(wire::header(frame, MAX_FRAME));
    if let Ok(text) = wire::query_text(frame) {
        assert!(!text.contains(&0));
    }
    if let Ok(parse) = wire::parse(frame) {
        assert_eq!(parse.types.len() % 4, 0);
    }
    if let Ok(bind) = wire::bind(frame) {
        assert_eq!(bind.values().count(), bind.parameter_count);
        assert_eq!(
            (bind.parameter_formats.len() % 2, bind.result_formats.len() % 2),
            (0, 0)
        );
        let bytes: usize = bind.values().map(|value| 4 + value.map_or(0, <[u8]>::len)).sum();
        assert_eq!(bytes, bind.parameters.len());
        for value in bind.values().flatten() {
            names_a_moment(value);
        }
    }
    drop(wire::execute(frame));
    drop(wire::target(frame));
    drop(wire::password_text(frame));
    drop(wire::sasl_initial(frame));
    if let Ok(status) = wire::ready_status(frame) {
        assert_eq!(Some(&status.byte()), frame.get(5));
    }
    drop(wire::parameter_status(frame));
    drop(wire::backend_key(frame));
    wire::command_rows(frame);
    ErrorFields::of(frame);
    let formats = frame.get(..frame.len().min(6)).unwrap_or_default();
    for formats in [&[][..], &[0, 1], formats] {
        if let Ok(described) = wire::with_formats(frame, formats) {
            assert_eq!(described.len(), frame.len());
            let again = wire::with_formats(&described, formats).expect("it was one before");
            assert_eq!(described, again);
        }
    }
}

/// Both sides of a login. The first byte says which, the rest are messages, each after a byte with its length.
pub(crate) fn login(data: &[u8]) {
    let Some((&side, bytes)) = data.split_first() else {
        return;
    };
    let mut messages = Vec::new();
    let mut rest = bytes;
    while let Some((&len, tail)) = rest.split_first() {
        let (body, tail) = tail.split_at(usize::from(len).min(tail.len()));
        let tag = if side & 1 == 0 { b'p' } else { b'R' };
        let mut frame = vec![tag];
        frame.extend(u32::try_from(body.len() + 4).expect("short").to_be_bytes());
        frame.extend(body);
        messages.push(frame);
        rest = tail;
    }
    for frame in &messages {
        // whatever it is taken for, it lies within the frame
        if let Ok((digest, nonce)) = wire::digest_response(frame) {
            assert!(digest.len() + nonce.len() <= frame.len());
        }
    }
    let mut out = BytesMut::new();
    if side & 1 == 1 {
        let secret = BackendSecret::Password(Secret::new("secret".to_owned()));
        let link = Link {
            protected: side & 2 == 2,
            binding: (side & 4 == 4).then(|| vec![7; 32]),
        };
        let mut login = BackendLogin::new("growth", Some(&secret), link);
        for frame in &messages {
            if login.next(frame, &mut out).is_err() {
                return;
            }
        }
        return;
    }
    let (credential, method) = match side >> 1 & 3 {
        // keys that nothing was derived from: no password fits
        0 => (Credential::scram(1, vec![1; 16], [2; 32], [3; 32]), Method::Scram),
        1 => (
            Credential::scram(1, vec![1; 16], [2; 32], [3; 32]),
            Method::Cleartext,
        ),
        _ => (
            Credential::md5(Secret::new(format!("md5{:032x}", 7))),
            Method::Md5,
        ),
    };
    let mut exchange = Exchange::begin("ana", credential, method, None, &mut out);
    for frame in &messages {
        match exchange.next(frame, &mut out) {
            Ok(Progress::Goes(next)) => exchange = *next,
            Ok(Progress::Done(_)) => panic!("somebody without the password is let in"),
            Err(_) => return,
        }
    }
}

/// What a backend sends, against what was sent to it: pairs of bytes, a direction and a tag.
pub(crate) fn replies(data: &[u8]) {
    let mut replies = Replies::default();
    for pair in data.as_chunks::<2>().0 {
        let [direction, tag] = *pair;
        let asker = if direction & 2 == 0 {
            Asker::Client
        } else {
            Asker::Gateway
        };
        if direction & 1 == 0 {
            replies.sent(
                match tag {
                    b'Q' => Asked::Query,
                    b'F' => Asked::FunctionCall,
                    b'P' => Asked::Parse(None),
                    b'B' => Asked::Bind,
                    b'd' => Asked::DescribeStatement(None),
                    b'D' => Asked::DescribePortal,
                    b'E' => Asked::Execute,
                    b'C' => Asked::Close(None),
                    b'c' => Asked::CopyEnd,
                    _ => Asked::Sync,
                },
                asker,
            );
        } else if replies.seen(tag).is_err() {
            // the connection is closed
            return;
        }
        assert!(
            replies.drained() || !replies.settled(),
            "what is owed is not settled"
        );
    }
}

/// SQL. The texts end with zero bytes, which no text holds.
pub(crate) fn analyser(data: &[u8]) {
    let analyzer = Analyzer::new(ByteSize(1 << 20));
    for text in data.split(|byte| *byte == 0).take(4) {
        for backslash in [Backslash::Literal, Backslash::Escape] {
            analysed(&analyzer, text, backslash);
            for (number, string) in OTHERS {
                analysed(
                    &analyzer,
                    &other_literals(text, backslash, number, string),
                    backslash,
                );
            }
            other_case(text, backslash);
        }
        names_a_moment(text);
    }
}

/// What was remembered is what is found anew, and lies within the text.
fn analysed(analyzer: &Analyzer, text: &[u8], backslash: Backslash) {
    let fresh = Analysis::of(text, backslash);
    let mut at = 0;
    for located in fresh.statements() {
        assert!(located.span.start >= at && located.span.end <= text.len());
        assert!(located.span.start <= located.span.end);
        at = located.span.end;
    }
    describe(&fresh, text);
    let canonical = canonical(text, backslash);
    // from the fourth on it is at hand, and so is what differs in its literals alone
    for round in ["cold", "by its shape", "seen again", "at hand"] {
        let found = analyzer.analyze(text, backslash);
        // where only a whole number may stand a fraction is refused, by the server as by the parser: it does no harm there
        // that another text of its shape was understood
        if unparsed(&fresh) && !unparsed(&found) {
            assert_eq!(spans(&found), spans(&fresh), "{round}");
            continue;
        }
        assert_eq!(found.statements(), fresh.statements(), "{round}");
        assert_eq!(found.moment_literal(), fresh.moment_literal(), "{round}");
        let mut out = Vec::new();
        found.canonical_into(text, &mut out);
        assert_eq!(out, canonical, "{round}");
    }
    let padded = [b" /* a */\n;".as_slice(), text].concat();
    assert_eq!(
        self::canonical(&padded, backslash),
        canonical,
        "white space before"
    );
}

fn unparsed(analysis: &Analysis) -> bool {
    analysis
        .single()
        .is_some_and(|statement| statement.kind == StatementKind::Unparsed)
}

fn spans(analysis: &Analysis) -> Vec<&std::ops::Range<usize>> {
    analysis
        .statements()
        .iter()
        .map(|located| &located.span)
        .collect()
}

fn canonical(text: &[u8], backslash: Backslash) -> Vec<u8> {
    let mut out = Vec::new();
    canonical_into(text, backslash, &mut out);
    out
}

/// Numbers and strings to put into a text: what is plainly one, and what only looks so.
const OTHERS: [(&[u8], &[u8]); 5] = [
    (b"42", b"'other'"),
    (b"7.50", b"'now'"),
    (b"1e5", b"'it''s'"),
    (b"3.", b"'a\\'"),
    (b"9a", b"''"),
];

/// The text with other literals: of the same shape, unless they change what stands beside them.
fn other_literals(text: &[u8], backslash: Backslash, number: &[u8], string: &[u8]) -> Vec<u8> {
    let mut other = Vec::with_capacity(text.len());
    let mut at = 0;
    for token in Lexer::new(text, backslash) {
        other.extend(&text[at..token.start]);
        other.extend(if token.kind == TokenKind::Number {
            number
        } else if token.kind == TokenKind::Text {
            string
        } else {
            token.bytes(text)
        });
        at = token.end;
    }
    other.extend(&text[at..]);
    other
}

/// Unquoted words mean the same in capitals.
fn other_case(text: &[u8], backslash: Backslash) {
    if text.len() > MAX_BYTES {
        return;
    }
    let mut other = text.to_vec();
    for token in Lexer::new(text, backslash).filter(|token| token.kind == TokenKind::Word) {
        other[token.range()].make_ascii_uppercase();
    }
    assert_eq!(
        canonical(text, backslash),
        canonical(&other, backslash),
        "in capitals"
    );
    let (a, b) = (Analysis::of(text, backslash), Analysis::of(&other, backslash));
    assert_eq!(a.statements().len(), b.statements().len(), "in capitals");
    for (a, b) in a.statements().iter().zip(b.statements()) {
        assert_eq!((&a.span, a.statement.kind), (&b.span, b.statement.kind));
        assert_eq!(a.statement.fingerprint, b.statement.fingerprint);
        if a.statement.kind == StatementKind::Read {
            assert_eq!(a.statement, b.statement, "in capitals");
        }
    }
}
