//! Bytes to tokens, by the lexical rules of PostgreSQL and Redshift.
//!
//! The text need not be UTF-8: bytes from 0x80 on are letters, as PostgreSQL's own scanner has it. A token is its kind
//! and its place, so lexing allocates nothing. Nothing here fails: what PostgreSQL would refuse is a token of
//! the kind [`TokenKind::Invalid`]. This lexer is the only one: the parser is fed with its tokens, so the two cannot
//! disagree on where a literal or a comment ends.
//!
//! Source: "Lexical Structure" in PostgreSQL's manual and its `scan.l`; "Names and identifiers" in Redshift's guide.

use super::token::{Backslash, Token, TokenKind};

const SPACE: u8 = 1;
const NAME_START: u8 = 2;
const NAME_PART: u8 = 4;
const DIGIT: u8 = 8;
const OPERATOR: u8 = 16;
/// Operators that hold one of these may end in `+` or `-`.
const FREE_ENDING: u8 = 32;

/// A longer run of operator characters is not understood: cutting it into operators would take time by its square.
const MAX_OPERATOR_BYTES: usize = 64;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation, reason = "the loop ends at 255")]
        let value = byte as u8;
        let class = match value {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0c => SPACE,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => NAME_START | NAME_PART,
            b'0'..=b'9' => DIGIT | NAME_PART,
            b'$' => NAME_PART,
            b'+' | b'-' | b'*' | b'/' | b'<' | b'>' | b'=' => OPERATOR,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%' => OPERATOR | FREE_ENDING,
            _ => 0,
        };
        #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            table[byte] = class;
        }
        byte += 1;
    }
    table
}

#[inline]
fn class(byte: u8) -> u8 {
    // the table has a row for each value of a byte
    CLASSES.get(usize::from(byte)).copied().unwrap_or_default()
}

/// The tokens of a text, without white space and comments.
#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    backslash: Backslash,
    previous: Previous,
}

/// What stood before, as far as it tells whether `#name` is a table's name.
#[derive(Clone, Copy, Debug)]
enum Previous {
    /// A word, which may be one that a table's name follows.
    Word(usize, usize),
    /// A comma, a point or an opening parenthesis.
    Opening,
    Other,
}

impl<'a> Lexer<'a> {
    /// Begins at the first byte of `text`.
    pub fn new(text: &'a [u8], backslash: Backslash) -> Self {
        Self {
            text,
            at: 0,
            backslash,
            previous: Previous::Other,
        }
    }

    #[inline]
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    /// Moves `at` to the first byte from `from` on that lacks all of `mask`'s classes.
    #[inline]
    fn skip_while(&mut self, from: usize, mask: u8) {
        let rest = self.text.get(from..).unwrap_or_default();
        let len = rest
            .iter()
            .position(|&byte| class(byte) & mask == 0)
            .unwrap_or(rest.len());
        self.at = from + len;
    }

    /// Skips white space and comments; false when a block comment does not end.
    fn skip_blank(&mut self) -> bool {
        loop {
            self.skip_while(self.at, SPACE);
            match (self.peek(0), self.peek(1)) {
                (Some(b'-'), Some(b'-')) => self.skip_line(),
                (Some(b'/'), Some(b'*')) => {
                    if !self.skip_block() {
                        return false;
                    }
                }
                _ => return true,
            }
        }
    }

    fn skip_line(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
    }

    /// Skips a block comment, which may hold others.
    fn skip_block(&mut self) -> bool {
        let mut at = self.at + 2;
        let mut depth = 1_usize;
        while depth > 0 {
            let rest = self.text.get(at..).unwrap_or_default();
            let Some(next) = memchr::memchr2(b'*', b'/', rest) else {
                return false;
            };
            match (rest.get(next), rest.get(next + 1)) {
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    at += next + 2;
                }
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    at += next + 2;
                }
                _ => at += next + 1,
            }
        }
        self.at = at;
        true
    }

    /// From the byte after the opening `'`: to the end of the literal and its continuations.
    fn text_literal(&mut self, from: usize, kind: TokenKind, escapes: bool) -> TokenKind {
        let mut at = from;
        loop {
            let rest = self.text.get(at..).unwrap_or_default();
            let next = if escapes {
                memchr::memchr2(b'\'', b'\\', rest)
            } else {
                memchr::memchr(b'\'', rest)
            };
            let Some(next) = next else {
                self.at = self.text.len();
                return TokenKind::Invalid;
            };
            at += next + 1;
            if rest.get(next) == Some(&b'\\') {
                at += 1; // whatever it is, it does not end the literal
            } else if self.text.get(at) == Some(&b'\'') {
                at += 1;
            } else if let Some(continued) = self.continuation(at) {
                at = continued;
            } else {
                self.at = at.min(self.text.len());
                return kind;
            }
        }
    }

    /// After a closing quote: where the literal goes on, if it does. That takes white space with a line break,
    /// perhaps line comments, and a quote (`quotecontinue` in `scan.l`).
    fn continuation(&self, from: usize) -> Option<usize> {
        // nearly always the next byte settles it
        if !matches!(self.text.get(from)?, b' ' | b'\t' | b'\n' | b'\r' | 0x0c | b'-') {
            return None;
        }
        let mut at = from;
        let mut broken = false;
        loop {
            match (self.text.get(at)?, self.text.get(at + 1)) {
                (b'\n' | b'\r', _) => {
                    broken = true;
                    at += 1;
                }
                (b' ' | b'\t' | 0x0c, _) => at += 1,
                (b'-', Some(b'-')) => {
                    let rest = self.text.get(at..)?;
                    at += memchr::memchr2(b'\n', b'\r', rest)?;
                }
                (b'\'', _) if broken => return Some(at + 1),
                _ => return None,
            }
        }
    }

    fn quoted_name(&mut self, from: usize, kind: TokenKind) -> TokenKind {
        let mut at = from;
        loop {
            let rest = self.text.get(at..).unwrap_or_default();
            let Some(next) = memchr::memchr(b'"', rest) else {
                self.at = self.text.len();
                return TokenKind::Invalid;
            };
            at += next + 1;
            if self.text.get(at) == Some(&b'"') {
                at += 1;
            } else {
                self.at = at;
                // a name of no characters is refused by PostgreSQL
                return if at == from + 1 { TokenKind::Invalid } else { kind };
            }
        }
    }

    fn word(&mut self, first: u8) -> TokenKind {
        match (first, self.peek(1), self.peek(2)) {
            (b'e' | b'E', Some(b'\''), _) => {
                return self.text_literal(self.at + 2, TokenKind::EscapeText, true);
            }
            (b'b' | b'B' | b'x' | b'X', Some(b'\''), _) => {
                return self.text_literal(self.at + 2, TokenKind::Bits, false);
            }
            (b'n' | b'N', Some(b'\''), _) => {
                let escapes = self.backslash == Backslash::Escape;
                return self.text_literal(self.at + 2, TokenKind::NationalText, escapes);
            }
            (b'u' | b'U', Some(b'&'), Some(b'\'')) => {
                return self.text_literal(self.at + 3, TokenKind::UnicodeText, false);
            }
            (b'u' | b'U', Some(b'&'), Some(b'"')) => {
                return self.quoted_name(self.at + 3, TokenKind::UnicodeName);
            }
            _ => {}
        }
        let start = self.at;
        self.skip_while(start + 1, NAME_PART);
        TokenKind::Word
    }

    fn number(&mut self) -> TokenKind {
        self.skip_while(self.at, DIGIT);
        // `1..2` is 1, two dots, 2
        if self.peek(0) == Some(b'.') && self.peek(1) != Some(b'.') {
            self.skip_while(self.at + 1, DIGIT);
        }
        if matches!(self.peek(0), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.peek(1), Some(b'+' | b'-')));
            if self.peek(1 + sign).is_some_and(|byte| byte.is_ascii_digit()) {
                self.skip_while(self.at + 1 + sign, DIGIT);
            }
        }
        if self.name_follows() {
            TokenKind::GluedNumber
        } else {
            TokenKind::Number
        }
    }

    fn name_follows(&self) -> bool {
        self.peek(0).is_some_and(|byte| class(byte) & NAME_START != 0)
    }

    /// `$1`, or a literal in dollar quotes.
    fn dollar(&mut self) -> TokenKind {
        let start = self.at;
        if self.peek(1).is_some_and(|byte| byte.is_ascii_digit()) {
            self.skip_while(start + 1, DIGIT);
            if self.name_follows() {
                self.skip_while(self.at, NAME_PART);
                return TokenKind::Invalid;
            }
            return TokenKind::Parameter;
        }
        let tag = self.text.get(start + 1..).unwrap_or_default();
        let len = tag
            .iter()
            .position(|&byte| class(byte) & NAME_PART == 0 || byte == b'$')
            .unwrap_or(tag.len());
        if tag.get(len) != Some(&b'$') {
            self.at = start + 1;
            return TokenKind::Invalid;
        }
        let body = start + len + 2;
        let delimiter = self.text.get(start..body).unwrap_or_default();
        let rest = self.text.get(body..).unwrap_or_default();
        if let Some(end) = memchr::memmem::find(rest, delimiter) {
            self.at = body + end + delimiter.len();
            TokenKind::DollarText
        } else {
            self.at = self.text.len();
            TokenKind::Invalid
        }
    }

    fn operator(&mut self) -> TokenKind {
        let start = self.at;
        if self.peek(0) == Some(b'#')
            && self.peek(1).is_some_and(|byte| class(byte) & NAME_START != 0)
            && self.expects_table()
        {
            self.skip_while(start + 2, NAME_PART);
            return TokenKind::Word;
        }
        let rest = self.text.get(start..).unwrap_or_default();
        let len = rest
            .iter()
            .zip(rest.iter().skip(1).chain(&[0]))
            .take(MAX_OPERATOR_BYTES + 1)
            // a comment may begin inside the run
            .position(|pair| class(*pair.0) & OPERATOR == 0 || matches!(pair, (b'-', b'-') | (b'/', b'*')))
            .unwrap_or(rest.len());
        if len > MAX_OPERATOR_BYTES {
            self.skip_while(start, OPERATOR);
            return TokenKind::Invalid;
        }
        let mut run = rest.get(..len).unwrap_or_default();
        if !run.iter().any(|&byte| class(byte) & FREE_ENDING != 0) {
            while let [.., _, b'+' | b'-'] = run {
                run = run.get(..run.len() - 1).unwrap_or_default();
            }
        }
        self.at = start + run.len();
        TokenKind::Operator
    }

    fn expects_table(&self) -> bool {
        match self.previous {
            Previous::Word(start, end) => precedes_table(self.text.get(start..end).unwrap_or_default()),
            Previous::Opening => true,
            Previous::Other => false,
        }
    }

    fn punctuation(&mut self, first: u8) -> TokenKind {
        let long = first == b':' && matches!(self.peek(1), Some(b':' | b'='));
        self.at += 1 + usize::from(long);
        TokenKind::Punctuation
    }
}

/// Words that a table's name may follow directly.
fn precedes_table(word: &[u8]) -> bool {
    const WORDS: [&str; 19] = [
        "from", "join", "into", "table", "update", "exists", "only", "using", "copy", "lock", "analyze",
        "vacuum", "truncate", "like", "to", "on", "delete", "merge", "as",
    ];
    WORDS
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let before = self.at;
        if !self.skip_blank() {
            self.at = self.text.len();
            return Some(Token {
                kind: TokenKind::Invalid,
                start: before,
                end: self.at,
            });
        }
        let start = self.at;
        let first = self.peek(0)?;
        let classes = class(first);
        let kind = if classes & NAME_START != 0 {
            self.word(first)
        } else if classes & OPERATOR != 0 {
            self.operator()
        } else if classes & DIGIT != 0 {
            self.number()
        } else {
            match first {
                b'\'' => {
                    let escapes = self.backslash == Backslash::Escape;
                    self.text_literal(start + 1, TokenKind::Text, escapes)
                }
                b'"' => self.quoted_name(start + 1, TokenKind::QuotedName),
                b'$' => self.dollar(),
                b'.' if self.peek(1).is_some_and(|byte| byte.is_ascii_digit()) => self.number(),
                b',' | b'(' | b')' | b'[' | b']' | b';' | b'.' | b':' => self.punctuation(first),
                _ => {
                    self.at = start + 1;
                    TokenKind::Invalid
                }
            }
        };
        self.previous = match (kind, first) {
            (TokenKind::Word, _) => Previous::Word(start, self.at),
            (TokenKind::Punctuation, b',' | b'.' | b'(') => Previous::Opening,
            _ => Previous::Other,
        };
        Some(Token {
            kind,
            start,
            end: self.at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str, backslash: Backslash) -> String {
        let bytes = text.as_bytes();
        Lexer::new(bytes, backslash)
            .map(|token| {
                format!(
                    "{:?}<{}>",
                    token.kind,
                    String::from_utf8_lossy(token.bytes(bytes))
                )
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn tokens_are_those_of_postgresql() {
        let rows = [
            ("a.\"B\"\"c\"", "Word<a> Punctuation<.> QuotedName<\"B\"\"c\">"),
            ("\"\"", "Invalid<\"\">"),
            ("U&\"a\" u&'b'", "UnicodeName<U&\"a\"> UnicodeText<u&'b'>"),
            ("u & v", "Word<u> Operator<&> Word<v>"),
            (
                "'it''s' e'a\\'b' b'01' x'1f' n'x'",
                "Text<'it''s'> EscapeText<e'a\\'b'> Bits<b'01'> Bits<x'1f'> NationalText<n'x'>",
            ),
            ("'a'\n'b'", "Text<'a'\n'b'>"),
            ("'a' -- c\n  'b' x", "Text<'a' -- c\n  'b'> Word<x>"),
            ("'a' 'b'", "Text<'a'> Text<'b'>"),
            ("'a' - - 'b'", "Text<'a'> Operator<-> Operator<-> Text<'b'>"),
            ("'a\\' x", "Text<'a\\'> Word<x>"),
            (
                "$$a'$$ $t$ $$ $t$ $1 $12",
                "DollarText<$$a'$$> DollarText<$t$ $$ $t$> Parameter<$1> Parameter<$12>",
            ),
            ("a$1$b", "Word<a$1$b>"),
            (
                "1 1.5 .5 1. 1e3 1.5E-3 1..2",
                "Number<1> Number<1.5> Number<.5> Number<1.> Number<1e3> Number<1.5E-3> Number<1> Punctuation<.> Number<.2>",
            ),
            (
                "12abc $1x 0x1f",
                "GluedNumber<12> Word<abc> Invalid<$1x> GluedNumber<0> Word<x1f>",
            ),
            (
                "a::b := c[1:2]",
                "Word<a> Punctuation<::> Word<b> Punctuation<:=> Word<c> Punctuation<[> Number<1> Punctuation<:> Number<2> Punctuation<]>",
            ),
            (
                "1*-2 a->>'x' @-1 <> !=",
                "Number<1> Operator<*> Operator<-> Number<2> Word<a> Operator<->>> Text<'x'> Operator<@-> Number<1> Operator<<>> Operator<!=>",
            ),
            (
                "a+--c\nb */*c*/ d",
                "Word<a> Operator<+> Word<b> Operator<*> Word<d>",
            ),
            ("/* a /* b */ c */ d", "Word<d>"),
            ("a /* b", "Word<a> Invalid< /* b>"),
            ("'a", "Invalid<'a>"),
            ("$a$ b $", "Invalid<$a$ b $>"),
            (
                "FROM #t, #u WHERE a#b",
                "Word<FROM> Word<#t> Punctuation<,> Word<#u> Word<WHERE> Word<a> Operator<#> Word<b>",
            ),
            ("a #> b #- c", "Word<a> Operator<#>> Word<b> Operator<#-> Word<c>"),
            ("a \\ {b}", "Word<a> Invalid<\\> Invalid<{> Word<b> Invalid<}>"),
            ("größe", "Word<größe>"),
        ];
        for (text, expected) in rows {
            assert_eq!(kinds(text, Backslash::Literal), expected, "{text}");
        }
    }

    #[test]
    fn a_backslash_hides_a_quote_only_where_the_backend_says_so() {
        let text = r"'a\' -- ' x";
        assert_eq!(kinds(text, Backslash::Literal), r"Text<'a\'>");
        assert_eq!(kinds(text, Backslash::Escape), r"Text<'a\' -- '> Word<x>");
    }
}
