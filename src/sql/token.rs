//! Tokens: what the lexer makes.

use std::ops::Range;

/// What a backslash means in an ordinary string literal.
///
/// It must be that of the backend: with the wrong one, text that is inside a literal is read as SQL, or the reverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Backslash {
    /// An ordinary character, as in PostgreSQL with `standard_conforming_strings = on`.
    #[default]
    Literal,
    /// It escapes the next character, as in Redshift.
    Escape,
}

/// The class of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// An identifier or keyword without quotes; also a temporary table's `#name`.
    Word,
    /// `"name"`.
    QuotedName,
    /// `U&"name"`.
    UnicodeName,
    /// `'text'`, with its continuations on later lines.
    Text,
    /// `E'text'`.
    EscapeText,
    /// `N'text'`.
    NationalText,
    /// `U&'text'`.
    UnicodeText,
    /// `$tag$text$tag$`.
    DollarText,
    /// `B'01'` and `X'1F'`.
    Bits,
    /// `1`, `1.5`, `.5`, `1e3`.
    Number,
    /// A number with a name directly after it, `17when`: two tokens to Redshift and to PostgreSQL before 15, an error
    /// since; so not the same as a number and a space.
    GluedNumber,
    /// `$1`.
    Parameter,
    /// One operator, e.g. `+`, `<=`, `->>`.
    Operator,
    /// `,` `(` `)` `[` `]` `;` `.` `:` `::` `:=`.
    Punctuation,
    /// What PostgreSQL would not accept: an unterminated literal or comment, a stray byte, `$1abc`.
    Invalid,
}

impl TokenKind {
    /// Whether it is a literal that holds characters.
    pub fn holds_text(self) -> bool {
        matches!(
            self,
            Self::Text | Self::EscapeText | Self::NationalText | Self::UnicodeText | Self::DollarText
        )
    }
}

/// A token: its kind and the bytes it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The class.
    pub kind: TokenKind,
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Token {
    /// The token's bytes in the text it was made from; empty for another text.
    pub fn bytes<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }

    /// The token's place.
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Whether it is the punctuation `mark`.
    pub fn is(&self, text: &[u8], mark: &str) -> bool {
        self.kind == TokenKind::Punctuation && self.bytes(text) == mark.as_bytes()
    }

    /// Whether it is the unquoted word `word`, which is given in lower case.
    pub fn is_word(&self, text: &[u8], word: &str) -> bool {
        self.kind == TokenKind::Word && self.bytes(text).eq_ignore_ascii_case(word.as_bytes())
    }
}
