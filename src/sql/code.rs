//! The source of code that a database holds: whether it may do something to the server's session that runs it.
//!
//! By its words alone, so it errs to one side: a word that only looks like a call counts as one.

use std::collections::BTreeSet;

use super::facts::name_of;
use super::lex::Lexer;
use super::token::{Backslash, Token, TokenKind};

/// Source of more tokens than this is not read: it may do anything.
const MAX_TOKENS: usize = 65_536;

/// Functions that come with PostgreSQL or with what comes with it, and leave something in the session, tell of it, or run
/// text that they are given. Sorted.
const TOUCHING: &[&str] = &[
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "database_to_xmlschema",
    "pg_backend_pid",
    "pg_settings",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "schema_to_xmlschema",
    "set_config",
    "set_limit",
    "setseed",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "table_to_xmlschema",
    "ts_rewrite",
    "ts_stat",
];

/// Beginnings of the names of such functions, and of the schemas of temporary tables. Locks that end with their
/// transaction begin otherwise: `pg_advisory_xact_lock`.
const TOUCHING_PREFIXES: &[&str] = &[
    "#",
    "binary_upgrade_",
    "dblink",
    "pg_advisory_lock",
    "pg_advisory_unlock",
    "pg_copy_logical_replication",
    "pg_copy_physical_replication",
    "pg_create_logical_replication",
    "pg_create_physical_replication",
    "pg_replication_origin_",
    "pg_temp",
    "pg_try_advisory_lock",
];

/// Statements that do something to the session, or bring code that is not read. Sorted. `SET` in `UPDATE … SET` begins
/// none.
const TOUCHING_STATEMENTS: &[&str] = &[
    "alter",
    "create",
    "deallocate",
    "discard",
    "do",
    "import",
    "listen",
    "load",
    "prepare",
    "reset",
    "set",
    "unlisten",
];

/// What a piece of source names, and whether it may touch the session by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code {
    touches: bool,
    names: BTreeSet<Box<str>>,
    symbols: BTreeSet<Box<str>>,
}

impl Code {
    /// What cannot be read: it may do anything.
    pub fn unread() -> Self {
        Self {
            touches: true,
            ..Self::default()
        }
    }

    /// The body of a function in the language `sql` or `plpgsql`.
    pub fn of_body(source: &str) -> Self {
        Self::read(source, true)
    }

    /// An expression, a query, or a definition around them that PostgreSQL printed: no other statement is in it.
    pub fn of_expression(source: &str) -> Self {
        Self::read(source, false)
    }

    fn read(source: &str, statements: bool) -> Self {
        let text = source.as_bytes();
        let mut code = Self::default();
        let mut before: Option<Token> = None;
        let mut tokens = Lexer::new(text, Backslash::Literal).peekable();
        let mut count = 0;
        while let Some(token) = tokens.next() {
            count += 1;
            match token.kind {
                TokenKind::Word | TokenKind::QuotedName | TokenKind::UnicodeName => {
                    // a name that is spelt with escapes, or that no name can be compared with
                    let Some(name) = name_of(&token, text) else {
                        return Self::unread();
                    };
                    let follows = |words: &[&str]| {
                        before.is_some_and(|before| words.iter().any(|word| before.is_word(text, word)))
                    };
                    let runs_text = name == "execute"
                        && !tokens.peek().is_some_and(|next| {
                            next.is_word(text, "function") || next.is_word(text, "procedure")
                        });
                    code.touches |= touches_by_name(&name)
                        || (statements
                            && (runs_text
                                || (name == "hold" && follows(&["with"]))
                                || (matches!(name.as_str(), "temp" | "temporary") && follows(&["into"]))
                                || (TOUCHING_STATEMENTS.binary_search(&name.as_str()).is_ok()
                                    && begins_statement(before.as_ref(), text))));
                    code.names.insert(name.into());
                }
                TokenKind::Operator => {
                    code.symbols
                        .insert(String::from_utf8_lossy(token.bytes(text)).into());
                }
                TokenKind::Invalid => return Self::unread(),
                TokenKind::Text
                | TokenKind::EscapeText
                | TokenKind::NationalText
                | TokenKind::UnicodeText
                | TokenKind::DollarText
                | TokenKind::Bits
                | TokenKind::Number
                | TokenKind::GluedNumber
                | TokenKind::Parameter
                | TokenKind::Punctuation => {}
            }
            if code.touches || count > MAX_TOKENS {
                return Self::unread();
            }
            before = Some(token);
        }
        code
    }

    /// Both pieces, one after the other.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.touches |= other.touches;
        self.names.extend(other.names);
        self.symbols.extend(other.symbols);
        self
    }

    /// Whether it may touch the session, by itself or by something that it names and of which `name` or `symbol`, for an
    /// operator, says so.
    pub fn touches(&self, name: impl Fn(&str) -> bool, symbol: impl Fn(&str) -> bool) -> bool {
        self.touches
            || self.names.iter().any(|known| name(known))
            || self.symbols.iter().any(|known| symbol(known))
    }
}

/// Whether a function or a schema of this name, which comes with PostgreSQL, does something to the session.
pub fn touches_by_name(name: &str) -> bool {
    TOUCHING.binary_search(&name).is_ok() || TOUCHING_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a statement may begin after `before`, in SQL or in PL/pgSQL.
fn begins_statement(before: Option<&Token>, text: &[u8]) -> bool {
    before.is_none_or(|before| {
        before.is(text, ";")
            || (before.kind == TokenKind::Operator && before.bytes(text).ends_with(b">>"))
            || ["atomic", "begin", "else", "loop", "then"]
                .iter()
                .any(|word| before.is_word(text, word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_words_are_sorted() {
        for table in [TOUCHING, TOUCHING_PREFIXES, TOUCHING_STATEMENTS] {
            assert!(table.is_sorted(), "{table:?}");
        }
    }

    #[test]
    fn a_body_is_judged_by_its_words() {
        for (source, expected) in [
            ("SELECT $1 * 2", false),
            ("BEGIN NEW.updated_at := now(); RETURN NEW; END", false),
            ("BEGIN NEW.updated_at = now(); RETURN NEW; END", false),
            (
                "BEGIN UPDATE t SET a = 1; INSERT INTO u VALUES (1) ON CONFLICT DO UPDATE SET a = 2; END",
                false,
            ),
            (
                "BEGIN INSERT INTO u VALUES (1) ON CONFLICT DO NOTHING; END",
                false,
            ),
            (
                "BEGIN PERFORM pg_advisory_xact_lock(1); PERFORM pg_notify('a', 'b'); NOTIFY c; END",
                false,
            ),
            ("DECLARE c CURSOR FOR SELECT 1; BEGIN OPEN c; END", false),
            ("BEGIN PERFORM nextval('s'); END", false),
            ("BEGIN -- set_config\n /* EXECUTE */ RETURN NEW; END", false),
            (
                "BEGIN RAISE EXCEPTION 'set_config is not allowed: %', x; END",
                false,
            ),
            ("SELECT a FROM t WHERE b = 'SET x = 1'", false),
            ("SELECT set_config('a.b', 'c', false)", true),
            ("SELECT pg_catalog.\"set_config\"('a.b', 'c', false)", true),
            ("SELECT U&\"\\0073et_config\"('a.b', 'c', false)", true),
            ("BEGIN PERFORM SET_CONFIG('a.b', 'c', true); END", true),
            ("BEGIN SET work_mem = '1MB'; END", true),
            ("BEGIN IF a THEN SET LOCAL x.y = 1; END IF; END", true),
            ("<<here>> BEGIN <<there>> LOOP RESET ALL; END LOOP; END", true),
            ("SELECT 1; SET ROLE evil", true),
            ("BEGIN EXECUTE 'SELECT 1'; END", true),
            ("BEGIN FOR r IN EXECUTE q LOOP NULL; END LOOP; END", true),
            ("BEGIN LISTEN a; END", true),
            ("BEGIN CREATE TEMP TABLE t (a int); END", true),
            ("BEGIN CREATE TABLE t (a int); END", true),
            ("BEGIN INSERT INTO pg_temp.t VALUES (1); END", true),
            (
                "BEGIN UPDATE pg_settings SET setting = 'x' WHERE name = 'y'; END",
                true,
            ),
            ("SELECT pg_try_advisory_lock(1)", true),
            ("SELECT dblink_connect('x')", true),
            ("BEGIN DO $$ BEGIN END $$; END", true),
            ("SELECT query_to_xml('SELECT 1', true, true, '')", true),
            ("BEGIN /* never ends", true),
            ("", false),
        ] {
            let code = Code::of_body(source);
            assert_eq!(code.touches(|_| false, |_| false), expected, "{source}");
        }
    }

    #[test]
    fn an_expression_holds_no_statements_but_names() {
        let rule = "CREATE RULE r AS ON INSERT TO public.t DO ALSO INSERT INTO public.u VALUES (new.a)";
        let trigger = "CREATE TRIGGER t BEFORE INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.f()";
        for (source, expected) in [
            (rule, false),
            (trigger, false),
            ("nextval('s'::regclass)", false),
            ("CURRENT_USER = owner", false),
            ("set_config('a.b'::text, 'c'::text, false)", true),
        ] {
            let code = Code::of_expression(source);
            assert_eq!(code.touches(|_| false, |_| false), expected, "{source}");
        }
        assert!(Code::of_expression(trigger).touches(|name| name == "f", |_| false));
        assert!(Code::of_expression("a <=> b").touches(|_| false, |symbol| symbol == "<=>"));
        assert!(!Code::of_expression("a <=> b").touches(|name| name == "c", |symbol| symbol == "="));
    }

    #[test]
    fn a_body_that_is_too_long_is_not_read() {
        let code = Code::of_body(&"SELECT 1; ".repeat(MAX_TOKENS));
        assert_eq!(code, Code::unread());
    }
}
