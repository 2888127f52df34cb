//! Our tokens as the parser takes them.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token as ParserToken, TokenWithSpan, Word};

use crate::sql::facts::name_of;
use crate::sql::token::{Token, TokenKind};

/// The parser's tokens for ours; `None` when a name cannot be given to it.
///
/// Literals go without their text: no fact depends on it, and so the facts hold for every text of this shape. Names go
/// folded. What the parser does not know, and what no fact depends on, is left out or replaced.
pub(super) fn parser_tokens(text: &[u8], tokens: &[Token]) -> Option<Vec<TokenWithSpan>> {
    let around = Around { text, tokens };
    let mut out = Vec::with_capacity(tokens.len() + 4);
    let mut push = |token| {
        out.push(TokenWithSpan {
            token,
            span: Span::empty(),
        });
    };
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if let Some((taken, words)) = around.replacement(at) {
            for word in words {
                push(ParserToken::make_word(word, None));
            }
            at += taken;
            continue;
        }
        at += 1;
        let bytes = token.bytes(text);
        push(match token.kind {
            TokenKind::Word => ParserToken::make_word(&name_of(token, text)?, None),
            TokenKind::UnicodeName if around.word(at, "uescape") => return None,
            TokenKind::QuotedName | TokenKind::UnicodeName => ParserToken::Word(Word {
                value: name_of(token, text)?,
                quote_style: Some('"'),
                keyword: Keyword::NoKeyword,
            }),
            TokenKind::Text
            | TokenKind::EscapeText
            | TokenKind::NationalText
            | TokenKind::UnicodeText
            | TokenKind::DollarText
            | TokenKind::Bits => ParserToken::SingleQuotedString(String::new()),
            TokenKind::Number | TokenKind::GluedNumber => {
                ParserToken::Number(String::from_utf8_lossy(bytes).into_owned(), false)
            }
            TokenKind::Parameter => ParserToken::Placeholder(String::from_utf8_lossy(bytes).into_owned()),
            TokenKind::Operator => operator(bytes),
            TokenKind::Punctuation => punctuation(bytes)?,
            TokenKind::Invalid => return None,
        });
    }
    Some(out)
}

/// A statement's tokens, to look around from one of them.
struct Around<'a> {
    text: &'a [u8],
    tokens: &'a [Token],
}

impl Around<'_> {
    fn word(&self, at: usize, word: &str) -> bool {
        self.tokens
            .get(at)
            .is_some_and(|token| token.is_word(self.text, word))
    }

    fn one_of(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.word(at, word))
    }

    /// Whether one of the words stands before `at`.
    fn after(&self, at: usize, words: &[&str]) -> bool {
        at.checked_sub(1).is_some_and(|before| self.one_of(before, words))
    }

    fn mark(&self, at: usize, mark: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is(self.text, mark))
    }

    /// Whether a query or a change of rows may begin at `at`, by what stands before it.
    fn begins_query(&self, at: usize) -> bool {
        let Some(before) = at.checked_sub(1) else {
            return true;
        };
        self.mark(before, "(")
            || self.mark(before, ")")
            || self.one_of(
                before,
                &["union", "intersect", "except", "minus", "all", "distinct"],
            )
    }

    /// How many tokens at `at` are replaced, and by which words.
    fn replacement(&self, at: usize) -> Option<(usize, &'static [&'static str])> {
        let token = self.tokens.get(at)?;
        // Redshift's outer join `a.x = b.x (+)`
        if token.is(self.text, "(") {
            let plus = self
                .tokens
                .get(at + 1)
                .is_some_and(|token| token.bytes(self.text) == b"+");
            return (plus && self.mark(at + 2, ")")).then_some((3, &[]));
        }
        if token.kind != TokenKind::Word {
            return None;
        }
        let mut word = [0; 12];
        let bytes = token.bytes(self.text);
        let word = word.get_mut(..bytes.len())?;
        word.copy_from_slice(bytes);
        word.make_ascii_lowercase();
        match &*word {
            b"approximate"
                if self.one_of(at + 1, &["count", "percentile_disc"]) && self.mark(at + 2, "(") =>
            {
                Some((1, &[]))
            }
            b"overriding" if self.one_of(at + 1, &["system", "user"]) && self.word(at + 2, "value") => {
                Some((3, &[]))
            }
            b"remove"
                if self.word(0, "merge")
                    && self.word(at + 1, "duplicates")
                    && at + 2 == self.tokens.len() =>
            {
                Some((2, &["WHEN", "MATCHED", "THEN", "DELETE"]))
            }
            // `FROM ONLY t`, not `FETCH FIRST ROW ONLY`
            b"only" if !self.after(at, &["row", "rows"]) => Some((1, &[])),
            b"symmetric" | b"asymmetric" if self.after(at, &["between"]) => Some((1, &[])),
            // `trim(LEADING FROM x)`
            b"from" if self.after(at, &["leading", "trailing", "both"]) => Some((1, &[])),
            b"isnull"
                if !self.mark(at + 1, "(")
                    && at.checked_sub(1).is_some_and(|before| !self.mark(before, ".")) =>
            {
                Some((1, &["IS", "NULL"]))
            }
            b"table" if self.begins_query(at) && !self.mark(at + 1, "(") => {
                Some((1, &["SELECT", "NULL", "FROM"]))
            }
            // Redshift's `DELETE t`
            b"delete" if self.begins_query(at) && !self.word(at + 1, "from") => {
                Some((1, &["DELETE", "FROM"]))
            }
            _ => None,
        }
    }
}

fn punctuation(bytes: &[u8]) -> Option<ParserToken> {
    Some(match bytes {
        b"," => ParserToken::Comma,
        b"(" => ParserToken::LParen,
        b")" => ParserToken::RParen,
        b"[" => ParserToken::LBracket,
        b"]" => ParserToken::RBracket,
        b";" => ParserToken::SemiColon,
        b"." => ParserToken::Period,
        b":" => ParserToken::Colon,
        b"::" => ParserToken::DoubleColon,
        b":=" => ParserToken::Assignment,
        _ => return None,
    })
}

fn operator(bytes: &[u8]) -> ParserToken {
    match bytes {
        b"=" => ParserToken::Eq,
        b"<>" | b"!=" => ParserToken::Neq,
        b"<" => ParserToken::Lt,
        b">" => ParserToken::Gt,
        b"<=" => ParserToken::LtEq,
        b">=" => ParserToken::GtEq,
        b"+" => ParserToken::Plus,
        b"-" => ParserToken::Minus,
        b"*" => ParserToken::Mul,
        b"/" => ParserToken::Div,
        b"%" => ParserToken::Mod,
        b"^" => ParserToken::Caret,
        b"&" => ParserToken::Ampersand,
        b"|" => ParserToken::Pipe,
        b"#" => ParserToken::Sharp,
        b"~" => ParserToken::Tilde,
        b"!" => ParserToken::ExclamationMark,
        b"@" => ParserToken::AtSign,
        b"?" => ParserToken::Question,
        b"||" => ParserToken::StringConcat,
        b"=>" => ParserToken::RArrow,
        b"~*" => ParserToken::TildeAsterisk,
        b"!~" => ParserToken::ExclamationMarkTilde,
        b"!~*" => ParserToken::ExclamationMarkTildeAsterisk,
        b"~~" => ParserToken::DoubleTilde,
        b"~~*" => ParserToken::DoubleTildeAsterisk,
        b"!~~" => ParserToken::ExclamationMarkDoubleTilde,
        b"!~~*" => ParserToken::ExclamationMarkDoubleTildeAsterisk,
        b"!!" => ParserToken::DoubleExclamationMark,
        b"<<" => ParserToken::ShiftLeft,
        b">>" => ParserToken::ShiftRight,
        b"&&" => ParserToken::Overlap,
        b"|/" => ParserToken::PGSquareRoot,
        b"||/" => ParserToken::PGCubeRoot,
        b"->" => ParserToken::Arrow,
        b"->>" => ParserToken::LongArrow,
        b"#>" => ParserToken::HashArrow,
        b"#>>" => ParserToken::HashLongArrow,
        b"#-" => ParserToken::HashMinus,
        b"@>" => ParserToken::AtArrow,
        b"<@" => ParserToken::ArrowAt,
        b"@?" => ParserToken::AtQuestion,
        b"@@" => ParserToken::AtAt,
        b"?&" => ParserToken::QuestionAnd,
        b"?|" => ParserToken::QuestionPipe,
        b"^@" => ParserToken::CaretAt,
        b"##" => ParserToken::DoubleSharp,
        b"@-@" => ParserToken::AtDashAt,
        b"<->" => ParserToken::TwoWayArrow,
        b"~=" => ParserToken::TildeEqual,
        _ => ParserToken::CustomBinaryOperator(String::from_utf8_lossy(bytes).into_owned()),
    }
}
