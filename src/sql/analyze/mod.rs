//! Text to facts.
//!
//! The text is lexed once, cut into statements at semicolons, and each is classified by its first words; queries and
//! changes of rows are parsed, their tree is walked into facts and dropped at once. Only this module and its
//! files name the parser. Nothing fails: what is not understood is a statement of the kind `Unparsed`.
//!
//! The parser cannot take the process down: bytes, tokens, nesting and the parser's steps are capped, a stack of
//! sufficient size is given for its recursion and for dropping its tree, and its panics are caught.

mod dialect;
mod sure;
mod times;
mod tokens;
mod walk;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sqlparser::ast::Statement as Tree;
use sqlparser::parser::Parser;

use super::classify::{Step, classify};
use super::facts::{Cursor, Draft};
use super::lex::Lexer;
use super::statement::{Located, PinReason, RelationName, Statement, StatementKind};
use super::token::{Backslash, Token, TokenKind};
use dialect::{Flavour, Warehouse};

// The caps are measured: whatever is within them takes at most some 20 ms in a release build.

/// Texts longer than this are not parsed.
pub const MAX_BYTES: usize = 256 * 1024;
/// Texts of more tokens than this are not parsed.
pub const MAX_TOKENS: usize = 16_000;
/// Texts of more statements than this are not parsed.
pub(super) const MAX_STATEMENTS: usize = 500;
/// Deeper parentheses and brackets are not parsed.
pub(super) const MAX_NESTING: usize = 64;
/// An `INSERT` of plain values is understood without a parse up to this size.
pub(super) const MAX_BULK_BYTES: usize = 4 * 1024 * 1024;
/// As many bytes of a text too long for analysis make its fingerprint.
const OVERSIZE_PREFIX: usize = 4 * 1024;

/// How deep the parser may call itself; one parenthesis costs it two to three.
const RECURSION_LIMIT: usize = 300;
/// Stack for the parser, whatever the text.
const BASE_STACK: usize = 768 * 1024;
/// Stack per token: a chain `1+1+…` makes a tree as deep as half its tokens, which is walked and dropped by recursion.
const STACK_PER_TOKEN: usize = if cfg!(debug_assertions) { 4096 } else { 1024 };

/// The facts of each statement in `text`, in order; none for a text without tokens.
///
/// `backslash` must be that of the backend the text is for. Bounded in time and memory for every input.
pub fn analyze(text: &[u8], backslash: Backslash) -> Vec<Located> {
    if text.len() > MAX_BYTES {
        return vec![oversize(text, backslash)];
    }
    let mut tokens = Vec::with_capacity(text.len().min(4096) / 5 + 4);
    for token in Lexer::new(text, backslash) {
        if tokens.len() == MAX_TOKENS {
            return vec![oversize(text, backslash)];
        }
        tokens.push(token);
    }
    let Some(pieces) = split(text, &tokens) else {
        return vec![located(text, &tokens, Draft::unparsed())];
    };
    pieces
        .into_iter()
        .map(|piece| located(text, piece, draft(text, piece, backslash)))
        .collect()
}

fn located(text: &[u8], tokens: &[Token], draft: Draft) -> Located {
    let start = tokens.first().map_or(0, |token| token.start);
    let end = tokens.last().map_or(0, |token| token.end);
    Located {
        span: start..end,
        statement: Arc::new(draft.finish(text, tokens)),
    }
}

/// Cuts the tokens at semicolons outside of parentheses and drops what is empty; `None` when it is not certain where
/// statements end.
fn split<'a>(text: &[u8], tokens: &'a [Token]) -> Option<Vec<&'a [Token]>> {
    let mut pieces = Vec::new();
    let mut depth = 0_usize;
    let mut start = 0;
    for (at, token) in tokens.iter().enumerate() {
        if token.kind == TokenKind::Punctuation {
            match token.bytes(text) {
                b"(" => depth += 1,
                b")" => depth = depth.saturating_sub(1),
                b";" if depth == 0 => {
                    pieces.push(tokens.get(start..at)?);
                    start = at + 1;
                }
                _ => {}
            }
        } else if token.is_word(text, "atomic")
            && at
                .checked_sub(1)
                .and_then(|before| tokens.get(before))
                .is_some_and(|t| t.is_word(text, "begin"))
        {
            // semicolons in such a body of a function end no statement
            return None;
        }
    }
    pieces.push(tokens.get(start..)?);
    for piece in &mut pieces {
        // one that stands in a parenthesis that is never closed ends nothing, and is no part of the statement either
        while let Some((last, before)) = piece.split_last()
            && last.is(text, ";")
        {
            *piece = before;
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    (pieces.len() <= MAX_STATEMENTS).then_some(pieces)
}

/// A text that is too long: an `INSERT` of plain values, else not understood.
fn oversize(text: &[u8], backslash: Backslash) -> Located {
    let (draft, prefix) = match bulk_insert(text, backslash) {
        Some((relation, header)) => {
            let mut draft = Draft::new(StatementKind::Write);
            draft.writes.insert(relation);
            (draft, header)
        }
        None => (Draft::unparsed(), text.len().min(OVERSIZE_PREFIX)),
    };
    let prefix = text.get(..prefix).unwrap_or_default();
    let tokens: Vec<Token> = Lexer::new(prefix, backslash).collect();
    Located {
        span: 0..text.len(),
        statement: Arc::new(draft.finish(prefix, &tokens)),
    }
}

/// `INSERT INTO relation [(columns)] VALUES` and nothing but plain values after it: the relation, and where the values
/// begin.
fn bulk_insert(text: &[u8], backslash: Backslash) -> Option<(RelationName, usize)> {
    const PLAIN: [&str; 9] = [
        "null",
        "default",
        "true",
        "false",
        "date",
        "time",
        "timestamp",
        "timestamptz",
        "numeric",
    ];
    if text.len() > MAX_BULK_BYTES {
        return None;
    }
    let mut lexer = Lexer::new(text, backslash);
    let mut header = Vec::new();
    loop {
        let token = lexer.next()?;
        header.push(token);
        if token.is_word(text, "values") {
            break;
        }
        if header.len() > 4096 {
            return None;
        }
    }
    let mut cursor = Cursor::new(text, &header);
    if !cursor.take(&["insert", "into"]) {
        return None;
    }
    let relation = cursor.relation()?;
    cursor.skip_parentheses();
    if !cursor.take(&["values"]) {
        return None;
    }
    let mut ended = false;
    for token in lexer {
        let plain = match token.kind {
            TokenKind::Text
            | TokenKind::EscapeText
            | TokenKind::NationalText
            | TokenKind::UnicodeText
            | TokenKind::DollarText
            | TokenKind::Bits
            | TokenKind::Number
            | TokenKind::GluedNumber
            | TokenKind::Parameter => true,
            TokenKind::Word => PLAIN.iter().any(|word| token.is_word(text, word)),
            TokenKind::Operator => matches!(token.bytes(text), b"-" | b"+"),
            TokenKind::Punctuation if token.is(text, ";") => {
                ended = true;
                continue;
            }
            TokenKind::Punctuation => matches!(token.bytes(text), b"," | b"(" | b")" | b"::"),
            TokenKind::QuotedName | TokenKind::UnicodeName | TokenKind::Invalid => false,
        };
        if !plain || ended {
            return None;
        }
    }
    Some((relation, header.last()?.end))
}

/// One statement's facts.
fn draft(text: &[u8], tokens: &[Token], backslash: Backslash) -> Draft {
    if tokens
        .iter()
        .any(|token| token.kind == TokenKind::Invalid || is_not_utf8(token, text))
    {
        return Draft::unparsed();
    }
    match classify(text, tokens) {
        Step::Done(draft) => draft,
        Step::Parse => parse(text, tokens).unwrap_or_else(Draft::unparsed),
        Step::Inner(draft, query) => {
            let inner = parse(text, query);
            if inner.is_none() && draft.kind == StatementKind::Copy {
                return Draft::unparsed();
            }
            with_query(draft, inner)
        }
        Step::Unload(literal) => {
            let draft = Draft::new(StatementKind::Copy);
            let Some(query) = literal_text(&literal, text, backslash) else {
                return draft;
            };
            let tokens: Vec<Token> = Lexer::new(&query, backslash).collect();
            if tokens.iter().any(|token| token.kind == TokenKind::Invalid) {
                return draft;
            }
            with_query(draft, parse(&query, &tokens))
        }
        Step::Explain { runs, statement } => explained(runs, draft(text, statement, backslash)),
    }
}

fn is_not_utf8(token: &Token, text: &[u8]) -> bool {
    matches!(
        token.kind,
        TokenKind::Word | TokenKind::QuotedName | TokenKind::UnicodeName
    ) && std::str::from_utf8(token.bytes(text)).is_err()
}

/// Adds what a query inside of another statement reads, calls and writes.
fn with_query(mut draft: Draft, query: Option<Draft>) -> Draft {
    if let Some(query) = query {
        draft.reads.extend(query.reads);
        draft.writes.extend(query.writes);
        draft.functions.extend(query.functions);
        draft.locking |= query.locking;
    }
    draft
}

/// `EXPLAIN` is a read that is never an aggregate: its answer depends on more than rows. With `ANALYZE` it is what
/// the statement is.
fn explained(runs: bool, inner: Draft) -> Draft {
    let mut draft = if runs {
        Draft {
            aggregate: false,
            ..inner
        }
    } else {
        Draft {
            reads: inner.reads,
            functions: inner.functions,
            ..Draft::new(StatementKind::Read)
        }
    };
    // no function of this name exists: so a rule that asks for known functions refuses it
    draft.calls("explain");
    draft
}

/// The characters of a literal without escapes of its own, as `UNLOAD` takes a query.
fn literal_text(token: &Token, text: &[u8], backslash: Backslash) -> Option<Vec<u8>> {
    let bytes = token.bytes(text);
    match token.kind {
        TokenKind::Text => {
            let body = bytes.get(1..bytes.len().checked_sub(1)?)?;
            let escapes = backslash == Backslash::Escape;
            let mut out = Vec::with_capacity(body.len());
            let mut rest = body.iter().copied().peekable();
            while let Some(byte) = rest.next() {
                match byte {
                    b'\'' if rest.next() != Some(b'\'') => return None, // goes on after a line break
                    b'\\' if escapes => out.push(rest.next()?),
                    _ => out.push(byte),
                }
            }
            Some(out)
        }
        TokenKind::DollarText => {
            let delimiter = bytes.iter().skip(1).position(|&byte| byte == b'$')? + 2;
            Some(
                bytes
                    .get(delimiter..bytes.len().checked_sub(delimiter)?)?
                    .to_vec(),
            )
        }
        TokenKind::Word
        | TokenKind::QuotedName
        | TokenKind::UnicodeName
        | TokenKind::EscapeText
        | TokenKind::NationalText
        | TokenKind::UnicodeText
        | TokenKind::Bits
        | TokenKind::Number
        | TokenKind::GluedNumber
        | TokenKind::Parameter
        | TokenKind::Operator
        | TokenKind::Punctuation
        | TokenKind::Invalid => None,
    }
}

/// Parses a query or a change of rows and walks it; `None` when it is not understood.
fn parse(text: &[u8], tokens: &[Token]) -> Option<Draft> {
    if tokens.len() > MAX_TOKENS || nesting(text, tokens) > MAX_NESTING {
        return None;
    }
    let stack = BASE_STACK + tokens.len() * STACK_PER_TOKEN;
    // the tree lives and dies inside, on the large stack
    stacker::maybe_grow(stack, stack, || {
        catch_unwind(AssertUnwindSafe(|| {
            [Flavour::PostgreSql, Flavour::Redshift]
                .into_iter()
                .find_map(|flavour| {
                    let dialect = Warehouse::new(flavour, tokens.len());
                    let tree = tree(&dialect, tokens::parser_tokens(text, tokens)?)?;
                    walk::facts(&tree)
                })
        }))
        .ok()
        .flatten()
    })
}

fn tree(dialect: &Warehouse, tokens: Vec<sqlparser::tokenizer::TokenWithSpan>) -> Option<Tree> {
    let mut parser = Parser::new(dialect)
        .with_recursion_limit(RECURSION_LIMIT)
        .with_tokens_with_locations(tokens);
    let tree = parser.parse_statement().ok()?;
    (parser.peek_token_ref().token == sqlparser::tokenizer::Token::EOF).then_some(tree)
}

/// The depth of parentheses and brackets, and of `CASE`, which nests without them.
fn nesting(text: &[u8], tokens: &[Token]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for token in tokens {
        if token.kind == TokenKind::Punctuation {
            match token.bytes(text) {
                b"(" | b"[" => depth += 1,
                b")" | b"]" => depth = depth.saturating_sub(1),
                _ => {}
            }
        } else if token.is_word(text, "case") {
            depth += 1;
        } else if token.is_word(text, "end") {
            depth = depth.saturating_sub(1);
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Whether facts of a statement hold for every text of the same shape: so unless a literal's value is in them, or
/// decided about them, as the setting's name does in `set_config('name', …)`.
pub(super) fn shared_by_shape(statement: &Statement) -> bool {
    statement.setting.is_none()
        && !matches!(statement.pin, Some(PinReason::Unparsed | PinReason::Setting))
        && !matches!(
            statement.kind,
            StatementKind::Copy | StatementKind::Setting | StatementKind::Session
        )
}
