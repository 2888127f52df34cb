//! The parser's dialects, and our tokens as the parser takes them.

use std::any::TypeId;
use std::cell::Cell;

use sqlparser::ast::{Expr, Statement};
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence, RedshiftSqlDialect};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Span, Token as ParserToken, TokenWithSpan, Word};

use crate::sql::facts::name_of;
use crate::sql::lex::{Token, TokenKind};

/// Which of two readings is tried; a text that is valid in both means the same in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    /// Arrays with subscripts; `START`, `MINUS`, `TOP` are ordinary names.
    PostgreSql,
    /// Paths into semi-structured values, `TOP`, `MINUS`, `CONNECT BY`, `EXCLUDE`.
    Redshift,
}

/// Either dialect, with a cap on the parser's steps.
#[derive(Debug)]
pub(super) struct Warehouse {
    flavour: Flavour,
    steps_left: Cell<usize>,
}

impl Warehouse {
    /// For a text of so many tokens. An honest text takes one to three steps per token; one that makes the parser
    /// go back and try again takes more.
    pub(super) fn new(flavour: Flavour, tokens: usize) -> Self {
        Self {
            flavour,
            steps_left: Cell::new(1_000 + tokens * 8),
        }
    }

    /// Takes one step; an error that the parser does not recover from when none is left.
    fn step(&self) -> Result<(), ParserError> {
        let left = self
            .steps_left
            .get()
            .checked_sub(1)
            .ok_or(ParserError::RecursionLimitExceeded)?;
        self.steps_left.set(left);
        Ok(())
    }

    fn redshift(&self) -> bool {
        self.flavour == Flavour::Redshift
    }
}

const POSTGRESQL: PostgreSqlDialect = PostgreSqlDialect {};
const REDSHIFT: RedshiftSqlDialect = RedshiftSqlDialect {};

impl Dialect for Warehouse {
    /// The parser asks some of its questions by type; PostgreSQL's answers serve both.
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn parse_prefix(&self, _: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        self.step().err().map(Err)
    }

    fn parse_statement(&self, _: &mut Parser<'_>) -> Option<Result<Statement, ParserError>> {
        self.step().err().map(Err)
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        match self.step() {
            Ok(()) => POSTGRESQL.get_next_precedence(parser),
            Err(error) => Some(Err(error)),
        }
    }

    fn prec_value(&self, prec: Precedence) -> u8 {
        POSTGRESQL.prec_value(prec)
    }

    // the parser is given tokens, so what follows on characters is asked by nobody
    fn is_identifier_start(&self, ch: char) -> bool {
        REDSHIFT.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        REDSHIFT.is_identifier_part(ch)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        POSTGRESQL.is_custom_operator_part(ch)
    }

    fn is_reserved_for_identifier(&self, kw: Keyword) -> bool {
        POSTGRESQL.is_reserved_for_identifier(kw)
    }

    fn is_table_alias(&self, kw: &Keyword, parser: &mut Parser<'_>) -> bool {
        if self.redshift() {
            REDSHIFT.is_table_alias(kw, parser)
        } else {
            POSTGRESQL.is_table_alias(kw, parser)
        }
    }

    fn convert_type_before_value(&self) -> bool {
        self.redshift()
    }

    fn supports_connect_by(&self) -> bool {
        self.redshift()
    }

    fn supports_top_before_distinct(&self) -> bool {
        self.redshift()
    }

    fn supports_partiql(&self) -> bool {
        self.redshift()
    }

    fn supports_unpivot_expr(&self) -> bool {
        self.redshift()
    }

    fn supports_select_wildcard_exclude(&self) -> bool {
        self.redshift()
    }

    fn supports_select_exclude(&self) -> bool {
        self.redshift()
    }

    fn supports_window_function_null_treatment_arg(&self) -> bool {
        true
    }

    fn supports_parens_around_table_factor(&self) -> bool {
        true
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_within_after_array_aggregation(&self) -> bool {
        true
    }

    fn supports_group_by_expr(&self) -> bool {
        true
    }

    fn supports_order_by_all(&self) -> bool {
        self.redshift()
    }

    fn allow_extract_custom(&self) -> bool {
        true
    }

    fn allow_extract_single_quotes(&self) -> bool {
        true
    }

    fn supports_factorial_operator(&self) -> bool {
        true
    }

    fn supports_bitwise_shift_operators(&self) -> bool {
        true
    }

    fn supports_named_fn_args_with_colon_operator(&self) -> bool {
        !self.redshift()
    }

    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        !self.redshift()
    }

    fn supports_named_fn_args_with_assignment_operator(&self) -> bool {
        true
    }

    fn supports_empty_projections(&self) -> bool {
        true
    }

    fn supports_array_typedef_with_brackets(&self) -> bool {
        true
    }

    fn supports_geometric_types(&self) -> bool {
        true
    }

    fn supports_order_by_using_operator(&self) -> bool {
        true
    }

    fn supports_left_associative_joins_without_parens(&self) -> bool {
        false
    }

    fn supports_notnull_operator(&self) -> bool {
        true
    }

    fn supports_interval_options(&self) -> bool {
        true
    }

    fn supports_insert_table_alias(&self) -> bool {
        true
    }

    fn supports_select_wildcard_with_alias(&self) -> bool {
        true
    }

    fn supports_comma_separated_trim(&self) -> bool {
        true
    }

    fn supports_xml_expressions(&self) -> bool {
        true
    }

    fn supports_aliased_function_args(&self) -> bool {
        true
    }

    fn supports_data_type_signed_suffix(&self) -> bool {
        false
    }
}

/// The parser's tokens for ours; `None` when a name cannot be given to it.
///
/// Literals go without their text: no fact depends on it, and so the facts hold for every text of this shape. Names go
/// folded. What the parser does not know, and what no fact depends on, is left out or replaced:
/// `APPROXIMATE`, `(+)`, `OVERRIDING … VALUE`, `REMOVE DUPLICATES`.
pub(super) fn tokens(text: &[u8], tokens: &[Token]) -> Option<Vec<TokenWithSpan>> {
    let word = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is_word(text, word));
    let mark = |at: usize, mark: &str| tokens.get(at).is_some_and(|token| token.is(text, mark));
    let merge = word(0, "merge");
    let mut out = Vec::with_capacity(tokens.len() + 4);
    let mut push = |token| {
        out.push(TokenWithSpan {
            token,
            span: Span::empty(),
        })
    };
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let bytes = token.bytes(text);
        let skipped = if word(at, "approximate")
            && (word(at + 1, "count") || word(at + 1, "percentile_disc"))
            && mark(at + 2, "(")
        {
            1
        } else if mark(at, "(")
            && tokens.get(at + 1).is_some_and(|token| token.bytes(text) == b"+")
            && mark(at + 2, ")")
        {
            3
        } else if word(at, "overriding")
            && (word(at + 1, "system") || word(at + 1, "user"))
            && word(at + 2, "value")
        {
            3
        } else if merge && word(at, "remove") && word(at + 1, "duplicates") && at + 2 == tokens.len() {
            for word in ["WHEN", "MATCHED", "THEN", "DELETE"] {
                push(ParserToken::make_word(word, None));
            }
            2
        } else {
            0
        };
        if skipped > 0 {
            at += skipped;
            continue;
        }
        at += 1;
        push(match token.kind {
            TokenKind::Word => ParserToken::make_word(&name_of(token, text)?, None),
            TokenKind::UnicodeName if word(at, "uescape") => return None,
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
            TokenKind::Number => ParserToken::Number(String::from_utf8_lossy(bytes).into_owned(), false),
            TokenKind::Parameter => ParserToken::Placeholder(String::from_utf8_lossy(bytes).into_owned()),
            TokenKind::Operator => operator(bytes),
            TokenKind::Punctuation => punctuation(bytes)?,
            TokenKind::Invalid => return None,
        });
    }
    Some(out)
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
