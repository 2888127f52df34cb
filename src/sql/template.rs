//! Texts seen lately, with holes where their plain literals stand: a text that differs in these alone is the same
//! statement, and is known to be without being lexed.
//!
//! What lies between the holes is compared byte for byte. A hole takes what is surely the same token as what it was made
//! from: digits with a fraction, which nothing follows that could belong to a number, or a text in quotes that holds no
//! quote. So a lexer that came to the hole in the same state leaves it in the same state, and text by text the tokens are
//! the same but for the literals' values.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::lex::Lexer;
use super::shape::literal_names_a_moment;
use super::statement::{Located, Statement};
use super::token::{Backslash, Token, TokenKind};

/// Longer texts are not kept.
pub(super) const MAX_TEXT: usize = 4 * 1024;
/// Texts with more literals are kept as they are.
const MAX_HOLES: usize = 64;

/// What a hole takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Literal {
    Number,
    Text,
}

impl Literal {
    /// The end of the literal that begins at `at`, if it is one for sure.
    fn end(self, text: &[u8], at: usize) -> Option<usize> {
        match self {
            Self::Number => {
                let whole = digits(text, at);
                if whole == at {
                    return None;
                }
                let end = match text.get(whole) {
                    Some(b'.') => Some(digits(text, whole + 1)).filter(|end| *end > whole + 1)?,
                    _ => whole,
                };
                let goes_on = text.get(end).is_some_and(|&byte| {
                    matches!(byte, b'.' | b'_' | b'$' | 0x80..) || byte.is_ascii_alphanumeric()
                });
                (!goes_on).then_some(end)
            }
            Self::Text => {
                let (b'\'', body) = text.get(at..)?.split_first()? else {
                    return None;
                };
                let end = at + memchr::memchr(b'\'', body)? + 2;
                (text.get(end) != Some(&b'\'')).then_some(end)
            }
        }
    }
}

/// The first byte from `at` on that is no digit.
fn digits(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    let len = rest.iter().position(|byte| !byte.is_ascii_digit());
    at + len.unwrap_or(rest.len())
}

#[derive(Clone, Copy, Debug)]
struct Hole {
    literal: Literal,
    start: usize,
    end: usize,
}

/// A text of one statement with its holes.
#[derive(Debug)]
pub(super) struct Template {
    text: Box<[u8]>,
    holes: SmallVec<[Hole; 4]>,
    span: Range<usize>,
    statement: Arc<Statement>,
    backslash: Backslash,
}

impl Template {
    /// Of a text whose statement's facts hold for every text of its shape, and that speaks of no moment.
    pub(super) fn new(text: &[u8], located: &Located, backslash: Backslash) -> Self {
        let plain = |token: Token| {
            let literal = if token.kind == TokenKind::Number {
                Literal::Number
            } else if token.kind == TokenKind::Text && !escapes(backslash, token.bytes(text)) {
                Literal::Text
            } else {
                return None;
            };
            (literal.end(text, token.start) == Some(token.end)).then_some(Hole {
                literal,
                start: token.start,
                end: token.end,
            })
        };
        let mut holes: SmallVec<[Hole; 4]> = Lexer::new(text, backslash)
            .filter_map(plain)
            .take(MAX_HOLES + 1)
            .collect();
        if holes.len() > MAX_HOLES {
            holes.clear();
        }
        Self {
            text: text.into(),
            holes,
            span: located.span.clone(),
            statement: Arc::clone(&located.statement),
            backslash,
        }
    }

    /// The statement of `text` and where it stands, if `text` differs in its plain literals alone and speaks of no moment.
    pub(super) fn fits(&self, text: &[u8], backslash: Backslash) -> Option<Located> {
        if backslash != self.backslash {
            return None;
        }
        let (mut here, mut there) = (0, 0);
        for hole in &self.holes {
            let between = self.text.get(here..hole.start)?;
            if !text.get(there..)?.starts_with(between) {
                return None;
            }
            there += between.len();
            let end = hole.literal.end(text, there)?;
            if hole.literal == Literal::Text {
                let token = Token {
                    kind: TokenKind::Text,
                    start: there,
                    end,
                };
                let bytes = token.bytes(text);
                if escapes(backslash, bytes) || literal_names_a_moment(&token, bytes, backslash) {
                    return None;
                }
            }
            (here, there) = (hole.end, end);
        }
        if text.get(there..)? != self.text.get(here..)? {
            return None;
        }
        // no literal stands behind the statement's end
        let behind = self.text.len() - self.span.end;
        Some(Located {
            span: self.span.start..text.len().checked_sub(behind)?,
            statement: Arc::clone(&self.statement),
        })
    }
}

/// Whether a backslash in the literal's bytes may change where it ends.
fn escapes(backslash: Backslash, bytes: &[u8]) -> bool {
    backslash == Backslash::Escape && memchr::memchr(b'\\', bytes).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Analysis;

    fn template(text: &str, backslash: Backslash) -> Template {
        let analysis = Analysis::of(text.as_bytes(), backslash);
        let [located] = analysis.statements() else {
            panic!("one statement: {text}")
        };
        Template::new(text.as_bytes(), located, backslash)
    }

    #[test]
    fn a_text_fits_if_nothing_but_plain_literals_differ() {
        for (one, other, expected) in [
            ("SELECT 1", "SELECT 23456", true),
            ("SELECT 1;", "SELECT 2.5;", true),
            (
                "SELECT a FROM t WHERE b = 'x' AND c = 3",
                "SELECT a FROM t WHERE b = '' AND c = 12345",
                true,
            ),
            ("SELECT 'a'", "SELECT 'a\\'", true),
            ("SELECT 1 -- 2", "SELECT 7 -- 2", true),
            ("SELECT 1 -- 2", "SELECT 1 -- 3", false),
            ("SELECT 1", "SELECT -1", false),
            ("SELECT 1", "SELECT 1a", false),
            ("SELECT 1", "SELECT 1e5", false),
            ("SELECT 1", "SELECT 1.", false),
            ("SELECT 1", "SELECT .5", false),
            ("SELECT 1", "SELECT 1 ", false),
            ("SELECT 1", "SELECT ", false),
            ("SELECT 1", "SELECT 'a'", false),
            ("SELECT $1", "SELECT $2", false),
            ("SELECT a1", "SELECT a2", false),
            ("SELECT 'a'", "SELECT 'a''b'", false),
            ("SELECT 'a'", "SELECT 'a", false),
            ("SELECT 'a'", "SELECT 'now'", false),
            ("SELECT 'a', 'b'", "SELECT 'a, 'b'", false),
            ("SELECT 'a'\n, 'b'", "SELECT 'a'\n 'b'", false),
            ("SELECT E'a'", "SELECT E'b'", false),
            ("SELECT $$a$$", "SELECT $$b$$", false),
            ("SELECT \"1\"", "SELECT \"2\"", false),
            ("SELECT 1..2", "SELECT 3..2", false),
        ] {
            let fits = template(one, Backslash::Literal).fits(other.as_bytes(), Backslash::Literal);
            assert_eq!(fits.is_some(), expected, "{one} | {other}");
            if let Some(located) = fits {
                let analysis = Analysis::of(other.as_bytes(), Backslash::Literal);
                assert_eq!(analysis.statements(), [located], "{one} | {other}");
            }
        }
    }

    #[test]
    fn a_backslash_is_left_to_the_lexer_where_it_escapes() {
        let template = template("SELECT 'a', 'b'", Backslash::Escape);
        assert!(template.fits(b"SELECT 'c', 'd'", Backslash::Escape).is_some());
        assert!(template.fits(b"SELECT 'c\\', 'd'", Backslash::Escape).is_none());
        assert!(template.fits(b"SELECT 'c', 'd'", Backslash::Literal).is_none());
    }
}
