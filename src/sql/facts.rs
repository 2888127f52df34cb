//! Facts while they are gathered, and a cursor over one statement's tokens.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::numbers::number_use;
use super::process::ProcessCall;
use super::session::set_config;
use super::shape::{Literals, fingerprint, write_token};
use super::statement::{
    FunctionName, NumberUse, PinReason, RelationName, SessionUse, SettingChange, Statement, StatementKind,
    TimeCasts, TransactionControl,
};
use super::token::{Token, TokenKind};

/// Facts of one statement while they are gathered.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) kind: StatementKind,
    pub(super) reads: BTreeSet<RelationName>,
    pub(super) writes: BTreeSet<RelationName>,
    pub(super) functions: BTreeSet<FunctionName>,
    pub(super) aggregate: bool,
    pub(super) locking: bool,
    pub(super) transaction: Option<TransactionControl>,
    pub(super) setting: Option<SettingChange>,
    pub(super) session: Option<SessionUse>,
    pub(super) pin: Option<PinReason>,
    pub(super) casts: TimeCasts,
}

impl Draft {
    pub(super) fn new(kind: StatementKind) -> Self {
        Self {
            kind,
            reads: BTreeSet::new(),
            writes: BTreeSet::new(),
            functions: BTreeSet::new(),
            aggregate: false,
            locking: false,
            transaction: None,
            setting: None,
            session: None,
            pin: None,
            casts: TimeCasts::default(),
        }
    }

    /// What was not understood: it may do anything, also to its session.
    pub(super) fn unparsed() -> Self {
        Self {
            pin: Some(PinReason::Unparsed),
            ..Self::new(StatementKind::Unparsed)
        }
    }

    pub(super) fn pinned(kind: StatementKind, pin: PinReason) -> Self {
        Self {
            pin: Some(pin),
            ..Self::new(kind)
        }
    }

    /// What uses what lives in the session; `pin` where it leaves something there.
    pub(super) fn session(session: SessionUse, pin: Option<PinReason>) -> Self {
        Self {
            session: Some(session),
            pin,
            ..Self::new(StatementKind::Session)
        }
    }

    pub(super) fn transaction(control: TransactionControl) -> Self {
        Self {
            transaction: Some(control),
            ..Self::new(StatementKind::Transaction)
        }
    }

    pub(super) fn setting(change: SettingChange) -> Self {
        Self {
            setting: Some(change),
            ..Self::new(StatementKind::Setting)
        }
    }

    /// Adds a function's name without a schema.
    pub(super) fn calls(&mut self, name: &str) {
        self.functions.insert(RelationName {
            schema: None,
            name: Arc::from(name),
        });
    }

    /// Adds what is read off the tokens. A temporary relation or a session-level function pins here, so that no way to a
    /// draft can forget it.
    pub(super) fn finish(mut self, text: &[u8], tokens: &[Token]) -> Statement {
        if spelt_with_escapes(text, tokens) {
            self = Self::unparsed();
        }
        let mut within = None;
        if matches!(self.session, Some(SessionUse::Prepare(_))) {
            within = self.pin_by_names();
        } else if self.pin.is_none() {
            self.pin = self.pin_by_names();
        }
        if self.pin == Some(PinReason::Setting)
            && self.kind == StatementKind::Read
            && let Some(change) = set_config(text, tokens)
        {
            self.setting = Some(change);
            self.pin = None;
        }
        if self
            .setting
            .as_ref()
            .is_some_and(|change| !can_be_repeated(change))
        {
            self.setting = None;
            self.pin = Some(PinReason::Setting);
        }
        if self.pin.is_none()
            && (self.sets_path() || self.kind == StatementKind::Ddl)
            && names_temporary(text, tokens)
        {
            // tables are made there from here on, or something else is, which everybody finds first
            self.pin = Some(PinReason::TemporaryTable);
        }
        if self.session.is_none() && unlocks_all(text, tokens) {
            self.session = Some(SessionUse::UnlockAll);
        }
        let mut shape = Vec::with_capacity(tokens.len() * 6);
        let mut identifiers = BTreeSet::new();
        let mut operators = BTreeSet::new();
        let mut parameters = 0;
        for token in tokens {
            let bytes = token.bytes(text);
            write_token(token, bytes, Literals::Class, &mut shape);
            match token.kind {
                TokenKind::Word | TokenKind::QuotedName | TokenKind::UnicodeName => {
                    // bytes that are not UTF-8 cannot be looked for by a rule; the statement is then not understood
                    if let Some(name) = name_of(token, text) {
                        identifiers.insert(name);
                    }
                }
                TokenKind::Operator => {
                    operators.insert(String::from_utf8_lossy(bytes).into_owned());
                }
                TokenKind::Punctuation if bytes == b"::" => {
                    operators.insert("::".to_owned());
                }
                TokenKind::Parameter => {
                    parameters = parameters.max(parameter_number(bytes).unwrap_or(u16::MAX));
                }
                TokenKind::Text
                | TokenKind::EscapeText
                | TokenKind::NationalText
                | TokenKind::UnicodeText
                | TokenKind::DollarText
                | TokenKind::Bits
                | TokenKind::Number
                | TokenKind::GluedNumber
                | TokenKind::Punctuation
                | TokenKind::Invalid => {}
            }
        }
        let mut statement = Statement {
            kind: self.kind,
            reads: self.reads.into_iter().collect(),
            writes: self.writes.into_iter().collect(),
            functions: self.functions.into_iter().collect(),
            identifiers: identifiers.into_iter().map(Arc::from).collect(),
            operators: operators.into_iter().map(Arc::from).collect(),
            aggregate: self.aggregate,
            locking: self.locking,
            parameters,
            fingerprint: fingerprint(&shape),
            transaction: self.transaction,
            setting: self.setting,
            session: self.session,
            process: ProcessCall::read(text, tokens).map(|call| call.usage),
            pin: self.pin,
            within,
            numbers: NumberUse::default(),
            casts: self.casts,
        };
        statement.numbers = number_use(&statement);
        statement
    }

    fn sets_path(&self) -> bool {
        match &self.setting {
            Some(
                SettingChange::Set { name, .. }
                | SettingChange::SetConfig { name, .. }
                | SettingChange::SetLocal { name },
            ) => **name == *"search_path",
            Some(SettingChange::Reset { .. } | SettingChange::ResetAll | SettingChange::Show { .. })
            | None => false,
        }
    }

    fn pin_by_names(&self) -> Option<PinReason> {
        for function in &self.functions {
            match function.name.as_ref() {
                "set_config" | "setseed" => return Some(PinReason::Setting),
                "pg_backend_pid" => return Some(PinReason::BackendPid),
                "dblink_connect"
                | "dblink_connect_u"
                | "pg_backup_start"
                | "pg_create_logical_replication_slot"
                | "pg_create_physical_replication_slot"
                | "pg_replication_origin_session_setup"
                | "pg_start_backup" => return Some(PinReason::Procedure),
                name if ["pg_advisory_lock", "pg_try_advisory_lock"]
                    .iter()
                    .any(|prefix| name.starts_with(prefix)) =>
                {
                    return Some(PinReason::AdvisoryLock);
                }
                _ => {}
            }
        }
        // the other way to write SET
        if self
            .writes
            .iter()
            .any(|relation| *relation.name == *"pg_settings")
        {
            return Some(PinReason::Setting);
        }
        // a table `#name` or in `pg_temp` is there already when it is only read: the session was pinned then
        self.writes
            .iter()
            .any(RelationName::is_temporary)
            .then_some(PinReason::TemporaryTable)
    }
}

/// Facts of a text that cannot be read.
pub(super) fn unread() -> Statement {
    Draft::unparsed().finish(b"", &[])
}

/// Whether it is `SELECT pg_advisory_unlock_all()` and no more: in a larger query it may not be called.
fn unlocks_all(text: &[u8], tokens: &[Token]) -> bool {
    let mut cursor = Cursor::new(text, tokens);
    let begins = cursor.take(&["select"]);
    if cursor.take(&["pg_catalog"]) && !cursor.take_mark(".") {
        return false;
    }
    begins
        && cursor.take(&["pg_advisory_unlock_all"])
        && cursor.take_mark("(")
        && cursor.take_mark(")")
        && cursor.at_end()
}

/// Whether a name is written in a way that is not followed: with escapes, or in bytes that are no UTF-8.
fn spelt_with_escapes(text: &[u8], tokens: &[Token]) -> bool {
    let named = |token: &Token| {
        matches!(
            token.kind,
            TokenKind::Word | TokenKind::QuotedName | TokenKind::UnicodeName
        )
    };
    let unicode = |token: &Token| token.kind == TokenKind::UnicodeName;
    let mut names = tokens.iter().filter(|token| named(token));
    names.any(|token| !plain_name(token, text))
        || (tokens.iter().any(unicode) && tokens.iter().any(|token| token.is_word(text, "uescape")))
}

/// Whether [`name_of`] can tell the name.
fn plain_name(token: &Token, text: &[u8]) -> bool {
    let bytes = token.bytes(text);
    let escapes = token.kind == TokenKind::UnicodeName && bytes.contains(&b'\\');
    !escapes && std::str::from_utf8(bytes).is_ok()
}

/// Whether the same text sets the same value at any connection, in whatever encoding and by whatever rule for backslashes
/// text is read there.
fn can_be_repeated(change: &SettingChange) -> bool {
    match change {
        SettingChange::Set {
            name,
            value: Some(value),
        }
        | SettingChange::SetConfig { name, value } => {
            match &**name {
                // the server keeps of this one only what is ASCII, and reports it
                "application_name" => true,
                // it would end the connection while nobody uses it
                "idle_session_timeout" => false,
                _ => value.is_ascii() && !value.contains('\\'),
            }
        }
        SettingChange::Set { value: None, .. }
        | SettingChange::SetLocal { .. }
        | SettingChange::Reset { .. }
        | SettingChange::ResetAll
        | SettingChange::Show { .. } => true,
    }
}

/// Whether the schema of temporary tables stands anywhere in it, also within a literal.
fn names_temporary(text: &[u8], tokens: &[Token]) -> bool {
    const SCHEMA: &[u8] = b"pg_temp";
    tokens.iter().any(|token| {
        let mut windows = token.bytes(text).windows(SCHEMA.len());
        windows.any(|window| window.eq_ignore_ascii_case(SCHEMA))
    })
}

fn parameter_number(bytes: &[u8]) -> Option<u16> {
    std::str::from_utf8(bytes.get(1..)?).ok()?.parse().ok()
}

/// A name as PostgreSQL keeps it: folded when unquoted, without its quotes else; `None` when it is not UTF-8 or spelt with
/// escapes.
pub(super) fn name_of(token: &Token, text: &[u8]) -> Option<String> {
    let bytes = token.bytes(text);
    match token.kind {
        TokenKind::Word => {
            let mut name = std::str::from_utf8(bytes).ok()?.to_owned();
            name.make_ascii_lowercase();
            Some(name)
        }
        TokenKind::QuotedName => unquoted(bytes.get(1..)?),
        TokenKind::UnicodeName => {
            let body = bytes.get(3..)?;
            (!body.contains(&b'\\')).then(|| unquoted(body)).flatten()
        }
        TokenKind::Text
        | TokenKind::EscapeText
        | TokenKind::NationalText
        | TokenKind::UnicodeText
        | TokenKind::DollarText
        | TokenKind::Bits
        | TokenKind::Number
        | TokenKind::GluedNumber
        | TokenKind::Parameter
        | TokenKind::Operator
        | TokenKind::Punctuation
        | TokenKind::Invalid => None,
    }
}

fn unquoted(with_closing_quote: &[u8]) -> Option<String> {
    let body = with_closing_quote.strip_suffix(b"\"")?;
    Some(std::str::from_utf8(body).ok()?.replace("\"\"", "\""))
}

/// A relation's name from its parts. A database's name, when written, goes with the schema's, so that
/// a relation of another database is not taken for one of this.
pub(super) fn relation(parts: &[String]) -> Option<RelationName> {
    match parts {
        [name] => Some(RelationName {
            schema: None,
            name: Arc::from(name.as_str()),
        }),
        [schema, name] => Some(RelationName {
            schema: Some(Arc::from(schema.as_str())),
            name: Arc::from(name.as_str()),
        }),
        [database, schema, name] => Some(RelationName {
            schema: Some(Arc::from(format!("{database}.{schema}"))),
            name: Arc::from(name.as_str()),
        }),
        _ => None,
    }
}

/// Reads one statement's tokens from left to right.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    pub(super) text: &'a [u8],
    pub(super) tokens: &'a [Token],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [u8], tokens: &'a [Token]) -> Self {
        Self { text, tokens, at: 0 }
    }

    pub(super) fn rest(&self) -> &'a [Token] {
        self.tokens.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    pub(super) fn at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    pub(super) fn next(&mut self) -> Option<&'a Token> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token)
    }

    /// Whether the next tokens are these words.
    pub(super) fn sees(&self, words: &[&str]) -> bool {
        let rest = self.rest();
        rest.len() >= words.len()
            && rest
                .iter()
                .zip(words)
                .all(|(token, word)| token.is_word(self.text, word))
    }

    pub(super) fn sees_mark(&self, mark: &str) -> bool {
        self.peek().is_some_and(|token| token.is(self.text, mark))
    }

    /// Takes these words if they come next.
    pub(super) fn take(&mut self, words: &[&str]) -> bool {
        let found = self.sees(words);
        if found {
            self.at += words.len();
        }
        found
    }

    /// Takes one of these words if it comes next.
    pub(super) fn take_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.take(&[word]))
    }

    pub(super) fn take_mark(&mut self, mark: &str) -> bool {
        let found = self.sees_mark(mark);
        self.at += usize::from(found);
        found
    }

    pub(super) fn take_operator(&mut self, operator: &str) -> bool {
        let found = self.peek().is_some_and(|token| {
            token.kind == TokenKind::Operator && token.bytes(self.text) == operator.as_bytes()
        });
        self.at += usize::from(found);
        found
    }

    /// Takes a name, quoted or not.
    pub(super) fn name(&mut self) -> Option<String> {
        let name = name_of(self.peek()?, self.text)?;
        self.at += 1;
        Some(name)
    }

    /// Takes a name with points.
    pub(super) fn dotted(&mut self) -> Option<Vec<String>> {
        let mut parts = vec![self.name()?];
        while self.take_mark(".") {
            parts.push(self.name()?);
        }
        Some(parts)
    }

    /// Takes a relation's name.
    pub(super) fn relation(&mut self) -> Option<RelationName> {
        relation(&self.dotted()?)
    }

    /// Takes names of relations with commas between, each perhaps with `ONLY` before and `*` after.
    pub(super) fn relations(&mut self) -> Option<Vec<RelationName>> {
        let mut relations = Vec::new();
        loop {
            self.take(&["only"]);
            relations.push(self.relation()?);
            self.take_operator("*");
            if !self.take_mark(",") {
                return Some(relations);
            }
        }
    }

    /// Skips a parenthesis and all in it, if one comes next.
    pub(super) fn skip_parentheses(&mut self) -> bool {
        if !self.sees_mark("(") {
            return false;
        }
        let mut depth = 0_usize;
        while let Some(token) = self.next() {
            if token.is(self.text, "(") {
                depth += 1;
            } else if token.is(self.text, ")") {
                depth -= 1;
                if depth == 0 {
                    return true;
                }
            }
        }
        false
    }

    /// The client's own bytes of the remaining tokens, when they are UTF-8 and not empty.
    pub(super) fn rest_as_text(&self) -> Option<&'a str> {
        let rest = self.rest();
        let range = rest.first()?.start..rest.last()?.end;
        std::str::from_utf8(self.text.get(range)?).ok()
    }
}
