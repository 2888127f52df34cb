//! Tokens to identity: a statement's shape, its exact form, and whether a literal speaks of the moment.
//!
//! Both forms are written token by token. A code below 0x20 (or the punctuation mark itself) says what
//! follows, names, literals and operators carry their length: so no two token streams have the same form.

use std::hash::Hasher;
use std::ops::Range;

use siphasher::sip128::{Hasher128, SipHasher24};

use super::lex::Lexer;
use super::statement::Fingerprint;
use super::token::{Backslash, Token, TokenKind};

/// What a form keeps of literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Literals {
    /// Their class.
    Class,
    /// Their bytes.
    Exact,
}

const WORD: u8 = 1;
const QUOTED_NAME: u8 = 2;
const TEXT: u8 = 3;
const NUMBER: u8 = 4;
const BITS: u8 = 5;
const PARAMETER: u8 = 6;
const OPERATOR: u8 = 7;
const LITERAL: u8 = 8;
const CAST: u8 = 9;
const ASSIGNMENT: u8 = 10;
const INVALID: u8 = 11;
const UNICODE_NAME: u8 = 12;
const GLUED_NUMBER: u8 = 13;

/// The key of the fingerprint's hash: fixed, so that a fingerprint is the same in each process and each release.
const FINGERPRINT_KEY: (u64, u64) = (0x746f_6c6c_6761_7465, 0x7368_6170_6520_7631);

/// Hashes a shape, which [`write_token`] with [`Literals::Class`] wrote, by SipHash-2-4-128.
pub(super) fn fingerprint(shape: &[u8]) -> Fingerprint {
    let mut hasher = SipHasher24::new_with_keys(FINGERPRINT_KEY.0, FINGERPRINT_KEY.1);
    hasher.write(shape);
    Fingerprint(hasher.finish128().as_u128())
}

/// Appends one token's form.
#[inline]
pub(super) fn write_token(token: &Token, bytes: &[u8], literals: Literals, out: &mut Vec<u8>) {
    match token.kind {
        TokenKind::Word => {
            write_length(WORD, bytes.len(), out);
            let from = out.len();
            out.extend_from_slice(bytes);
            if let Some(word) = out.get_mut(from..) {
                word.make_ascii_lowercase();
            }
        }
        TokenKind::GluedNumber => {
            out.push(GLUED_NUMBER);
            write_literal(NUMBER, bytes, literals, out);
        }
        TokenKind::QuotedName => write_bytes(QUOTED_NAME, bytes, out),
        TokenKind::UnicodeName => write_bytes(UNICODE_NAME, bytes, out),
        TokenKind::Text
        | TokenKind::EscapeText
        | TokenKind::NationalText
        | TokenKind::UnicodeText
        | TokenKind::DollarText => write_literal(TEXT, bytes, literals, out),
        TokenKind::Bits => write_literal(BITS, bytes, literals, out),
        TokenKind::Number => write_literal(NUMBER, bytes, literals, out),
        TokenKind::Parameter => write_bytes(PARAMETER, bytes, out),
        TokenKind::Operator => write_bytes(OPERATOR, bytes, out),
        TokenKind::Punctuation => match bytes {
            b"::" => out.push(CAST),
            b":=" => out.push(ASSIGNMENT),
            _ => out.extend_from_slice(bytes),
        },
        TokenKind::Invalid => write_bytes(INVALID, bytes, out),
    }
}

fn write_literal(class: u8, bytes: &[u8], literals: Literals, out: &mut Vec<u8>) {
    match literals {
        Literals::Class => out.push(class),
        Literals::Exact => write_bytes(LITERAL, bytes, out),
    }
}

fn write_bytes(code: u8, bytes: &[u8], out: &mut Vec<u8>) {
    write_length(code, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// The code, then the length in groups of seven bits.
#[inline]
fn write_length(code: u8, len: usize, out: &mut Vec<u8>) {
    out.push(code);
    let mut rest = len;
    while rest >= 0x80 {
        #[allow(clippy::cast_possible_truncation, reason = "masked to seven bits")]
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    #[allow(clippy::cast_possible_truncation, reason = "below 0x80")]
    out.push(rest as u8);
}

/// Appends the exact form of `text`: equal for two texts only if they are the same statements to the backend.
///
/// White space, comments, the case of unquoted names and needless semicolons are gone; literals are verbatim.
pub fn canonical_into(text: &[u8], backslash: Backslash, out: &mut Vec<u8>) {
    let mut forms = Forms::new(text, Literals::Exact, out);
    for token in Lexer::new(text, backslash) {
        forms.push(&token);
    }
}

/// Writes forms, leaving out semicolons before, after and beside others.
struct Forms<'a> {
    text: &'a [u8],
    literals: Literals,
    out: &'a mut Vec<u8>,
    start: usize,
    pending: bool,
    semicolons: usize,
}

impl<'a> Forms<'a> {
    fn new(text: &'a [u8], literals: Literals, out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        Self {
            text,
            literals,
            out,
            start,
            pending: false,
            semicolons: 0,
        }
    }

    #[inline]
    fn push(&mut self, token: &Token) {
        let bytes = token.bytes(self.text);
        if token.kind == TokenKind::Punctuation && bytes == b";" {
            self.pending = self.out.len() > self.start;
            return;
        }
        if self.pending {
            self.out.push(b';');
            self.semicolons += 1;
            self.pending = false;
        }
        write_token(token, bytes, self.literals, self.out);
    }
}

/// What one pass over a text's tokens tells without a parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Survey {
    /// From the first token to the last, without semicolons around.
    pub(super) span: Range<usize>,
    /// No semicolon stands between two tokens.
    pub(super) single: bool,
    /// A literal speaks of the moment.
    pub(super) moment_literal: bool,
}

/// Appends the shape of `text` and tells what was seen on the way.
pub(super) fn survey(text: &[u8], backslash: Backslash, shape: &mut Vec<u8>) -> Survey {
    let mut forms = Forms::new(text, Literals::Class, shape);
    let mut span = None;
    let mut moment_literal = false;
    for token in Lexer::new(text, backslash) {
        forms.push(&token);
        if !forms.pending && !token.is(text, ";") {
            let start = span.map_or(token.start, |(start, _)| start);
            span = Some((start, token.end));
        }
        if token.kind.holds_text() && !moment_literal {
            moment_literal = literal_names_a_moment(&token, token.bytes(text), backslash);
        }
    }
    let (start, end) = span.unwrap_or((0, 0));
    Survey {
        span: start..end,
        single: forms.semicolons == 0,
        moment_literal,
    }
}

/// The words that PostgreSQL reads as a date or time relative to the moment
/// ("Special Date/Time Inputs" in its manual).
const MOMENTS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];

/// Whether `bytes`, a literal's or a parameter's value, holds a word that PostgreSQL reads as a date or time of the
/// moment: then a result cannot be kept.
pub fn names_a_moment(bytes: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if !byte.is_ascii_alphabetic() {
            at += 1;
            continue;
        }
        let rest = bytes.get(at..).unwrap_or_default();
        let len = rest
            .iter()
            .position(|byte| !byte.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        if matches!(byte, b'n' | b'N' | b't' | b'T' | b'y' | b'Y') && (3..=9).contains(&len) {
            let word = rest.get(..len).unwrap_or_default();
            if MOMENTS.iter().any(|moment| word.eq_ignore_ascii_case(moment)) {
                return true;
            }
        }
        at += len;
    }
    false
}

/// The same of a token; true in doubt, when the literal is spelt with escapes or in pieces.
pub(super) fn literal_names_a_moment(token: &Token, bytes: &[u8], backslash: Backslash) -> bool {
    if names_a_moment(bytes) {
        return true;
    }
    if token.kind == TokenKind::DollarText {
        return false;
    }
    if token.kind == TokenKind::UnicodeText {
        return memchr::memchr(b'\\', bytes).is_some();
    }
    let escapes = token.kind == TokenKind::EscapeText || backslash == Backslash::Escape;
    (escapes && spells_letters(bytes)) || continues(token.kind, bytes, escapes)
}

/// A backslash that may stand for a letter: before digits, `x`, `u`, `U`, or a letter that is not an escape.
fn spells_letters(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        match rest.get(at + 1) {
            Some(b'b' | b'f' | b'n' | b'r' | b't') => {}
            Some(byte) if byte.is_ascii_alphanumeric() => return true,
            _ => {}
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    false
}

/// Whether the literal goes on after a line break, so that a word may be cut in two.
fn continues(kind: TokenKind, bytes: &[u8], escapes: bool) -> bool {
    let prefix = if kind == TokenKind::Text { 1 } else { 2 };
    let body = bytes
        .get(prefix..bytes.len().saturating_sub(1))
        .unwrap_or_default();
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        match (byte, body.get(at + 1)) {
            (b'\\', _) if escapes => at += 2,
            (b'\'', Some(b'\'')) => at += 2,
            (b'\'', _) => return true,
            _ => at += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Vec<u8> {
        let mut shape = Vec::new();
        survey(text.as_bytes(), Backslash::Literal, &mut shape);
        shape
    }

    #[test]
    fn a_fingerprint_is_stable_between_releases() {
        assert_eq!(
            fingerprint(&shape("SELECT 1")).to_string(),
            "c0d7389f38284c753a22d2975bfac849"
        );
    }

    #[test]
    fn moments_are_found_as_words() {
        let rows = [
            ("'now'", true),
            ("'NOW '", true),
            ("'2020-01-01 now'", true),
            ("'today10:00'", true),
            ("'yesterday'", true),
            ("'knowledge'", false),
            ("'nowhere'", false),
            ("'todays'", false),
            ("$$tomorrow$$", true),
            ("now", false),
            ("E'n\\157w'", true),
            ("E'n\\ow'", true),
            ("E'a\\nb\\\\d'", false),
            ("'no'\n'w'", true),
            ("'it''s'", false),
            ("U&'\\006eow'", true),
        ];
        for (text, expected) in rows {
            let mut shape = Vec::new();
            let survey = survey(text.as_bytes(), Backslash::Literal, &mut shape);
            assert_eq!(survey.moment_literal, expected, "{text}");
        }
    }
}
