//! The source of code that a database holds: whether it may do something to the server's session that runs it, write rows,
//! or change definitions.
//!
//! By its words alone, so it errs to one side: a word that only looks like a call counts as one.

use std::collections::BTreeSet;

use super::facts::name_of;
use super::lex::Lexer;
use super::token::{Backslash, Token, TokenKind};

/// Source of more tokens than this is not read: it may do anything.
const MAX_TOKENS: usize = 65_536;

/// Functions that come with PostgreSQL or with what comes with it, and leave something in the session, or tell of it. Sorted.
const TOUCHING: &[&str] = &[
    "currval",
    "lastval",
    "pg_backend_pid",
    "pg_settings",
    "set_config",
    "set_limit",
    "setseed",
];

/// Bytes of a name that PostgreSQL keeps: `NAMEDATALEN` less one.
const MAX_NAME: usize = 63;

/// Functions that come with PostgreSQL and run text that they are given, or read relations that they are told of. Sorted.
const RUNNING: &[&str] = &[
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "database_to_xmlschema",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "schema_to_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "table_to_xmlschema",
    "ts_rewrite",
    "ts_stat",
];

/// Beginnings of the names of functions that touch the session, and of the schemas of temporary tables. Locks that end with
/// their transaction begin otherwise: `pg_advisory_xact_lock`.
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

/// Beginnings of names that stand for anything: it runs text, or is a function that only one session has.
const RUNNING_PREFIXES: &[&str] = &["binary_upgrade_", "dblink", "pg_temp"];

/// Words that are in every statement of a function's body that may change rows, at least by the expressions of an index.
/// `INTO` makes a table in SQL. Sorted.
const WRITING: &[&str] = &[
    "alter", "analyse", "analyze", "cluster", "copy", "create", "delete", "do", "drop", "import", "insert",
    "into", "merge", "refresh", "reindex", "truncate", "update", "vacuum",
];

/// Those that a definition which PostgreSQL printed can have: a rule, a body by the standard. Sorted.
const WRITING_IN_DEFINITIONS: &[&str] = &["delete", "insert", "merge", "truncate", "update"];

/// Statements that change definitions or rights, or run text. Sorted.
const DEFINING_STATEMENTS: &[&str] = &[
    "alter", "comment", "create", "do", "drop", "grant", "import", "reassign", "revoke", "security",
];

/// What code may do beside giving an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Something to the server's session: a setting, a role, a lock, a temporary table.
    Session,
    /// Write rows.
    Rows,
    /// Change definitions or rights.
    Definitions,
}

/// What a piece of source names, and what it may do by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code {
    session: bool,
    rows: bool,
    definitions: bool,
    names: BTreeSet<Box<str>>,
    symbols: BTreeSet<Box<str>>,
}

impl Code {
    /// What cannot be read: it may do anything.
    pub fn unread() -> Self {
        Self {
            session: true,
            rows: true,
            definitions: true,
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
        let mut explained = false;
        for (count, token) in Lexer::new(text, Backslash::Literal).enumerate() {
            match token.kind {
                TokenKind::Word | TokenKind::QuotedName | TokenKind::UnicodeName => {
                    // a name that is spelt with escapes, or that no name can be compared with
                    let Some(name) = name_of(&token, text) else {
                        return Self::unread();
                    };
                    let follows = |words: &[&str]| {
                        before.is_some_and(|before| words.iter().any(|word| before.is_word(text, word)))
                    };
                    // the name before it may be spelt with escapes of any kind
                    if statements && name == "uescape" {
                        return Self::unread();
                    }
                    // what it explains begins after options of whatever length
                    explained |= name == "explain";
                    let known = |words: &[&str]| words.binary_search(&name.as_str()).is_ok();
                    let begins = statements && (explained || begins_statement(before.as_ref(), text));
                    // in what PostgreSQL printed it is a trigger's; in a body a variable may be named `function`
                    let anything = runs_by_name(&name) || (statements && name == "execute");
                    code.session |= anything
                        || touches_by_name(&name)
                        || (statements && name == "hold" && follows(&["with"]))
                        || (statements
                            && matches!(name.as_str(), "temp" | "temporary")
                            && follows(&["into", "local", "global"]))
                        || (begins && known(TOUCHING_STATEMENTS));
                    code.rows |= anything
                        || known(if statements {
                            WRITING
                        } else {
                            WRITING_IN_DEFINITIONS
                        });
                    code.definitions |= anything || (begins && known(DEFINING_STATEMENTS));
                    code.names.insert(kept_name(&name).into());
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
                | TokenKind::Parameter => {}
                TokenKind::Punctuation => explained &= !token.is(text, ";"),
            }
            if (code.session && code.rows && code.definitions) || count >= MAX_TOKENS {
                return Self::unread();
            }
            before = Some(token);
        }
        code
    }

    /// Both pieces, one after the other.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.session |= other.session;
        self.rows |= other.rows;
        self.definitions |= other.definitions;
        self.names.extend(other.names);
        self.symbols.extend(other.symbols);
        self
    }

    /// Whether it may have `effect`, by itself or by something that it names and of which `name` or `symbol`, for an operator,
    /// says so.
    pub fn may(&self, effect: Effect, name: impl Fn(&str) -> bool, symbol: impl Fn(&str) -> bool) -> bool {
        let own = match effect {
            Effect::Session => self.session,
            Effect::Rows => self.rows,
            Effect::Definitions => self.definitions,
        };
        own || self.names.iter().any(|known| name(known)) || self.symbols.iter().any(|known| symbol(known))
    }
}

/// What PostgreSQL keeps of a name: no more than 63 bytes, and no part of a character. Where the server's encoding is not UTF-8 it
/// may keep more, so both of two names are cut before they are compared.
pub fn kept_name(name: &str) -> &str {
    name.get(..name.floor_char_boundary(MAX_NAME)).unwrap_or(name)
}

/// Whether a function or a schema of this name, which comes with PostgreSQL, does something to the session.
pub fn touches_by_name(name: &str) -> bool {
    TOUCHING.binary_search(&name).is_ok()
        || TOUCHING_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || runs_by_name(name)
}

/// Whether a function of this name, which comes with PostgreSQL, runs what is not known.
fn runs_by_name(name: &str) -> bool {
    RUNNING.binary_search(&name).is_ok() || RUNNING_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
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
        for table in [
            TOUCHING,
            TOUCHING_PREFIXES,
            TOUCHING_STATEMENTS,
            RUNNING,
            RUNNING_PREFIXES,
            WRITING,
            WRITING_IN_DEFINITIONS,
            DEFINING_STATEMENTS,
        ] {
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
            (
                "DECLARE function text := 'SET a.b = 1'; BEGIN EXECUTE function; END",
                true,
            ),
            ("BEGIN EXECUTE procedure; END", true),
            ("SELECT 1 AS a INTO TEMP x", true),
            ("SELECT 1 AS a INTO LOCAL TEMP x", true),
            ("SELECT 1 AS a INTO GLOBAL TEMPORARY x", true),
            ("BEGIN EXPLAIN SELECT 1; UPDATE t SET a = 1; END", false),
            ("EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1", true),
            (
                "BEGIN FOR r IN EXPLAIN (ANALYZE, COSTS off) CREATE TEMP TABLE t AS SELECT 1 LOOP NULL; END LOOP; END",
                true,
            ),
            (
                r#"SELECT U&"set!005fconfig" UESCAPE '!' ('a.b', 'c', false)"#,
                true,
            ),
            ("SELECT lastval()", true),
            ("SELECT currval('s')", true),
            ("SELECT query_to_xml('SELECT 1', true, true, '')", true),
            ("BEGIN /* never ends", true),
            ("", false),
        ] {
            let code = Code::of_body(source);
            assert_eq!(
                code.may(Effect::Session, |_| false, |_| false),
                expected,
                "{source}"
            );
        }
    }

    #[test]
    fn a_body_writes_or_defines_by_its_words() {
        for (source, rows, definitions) in [
            ("SELECT $1 * 2", false, false),
            (
                "BEGIN PERFORM set_config('a.b', 'c', false); RETURN 1; END",
                false,
                false,
            ),
            ("BEGIN NEW.updated_at := now(); RETURN NEW; END", false, false),
            (
                "BEGIN PERFORM pg_notify('a', 'INSERT'), nextval('s'); END",
                false,
                false,
            ),
            ("BEGIN SELECT a INTO b FROM c; END", true, false),
            ("INSERT INTO t VALUES (1)", true, false),
            (
                "WITH w AS (DELETE FROM t RETURNING 1) SELECT * FROM w",
                true,
                false,
            ),
            ("BEGIN TRUNCATE t; REFRESH MATERIALIZED VIEW v; END", true, false),
            ("BEGIN IF a THEN DROP VIEW v; END IF; END", true, true),
            ("BEGIN CREATE OR REPLACE VIEW v AS SELECT 1; END", true, true),
            ("BEGIN GRANT SELECT ON t TO r; END", false, true),
            ("BEGIN EXECUTE q; END", true, true),
            ("SELECT dblink_exec('x', 'y')", true, true),
            ("SELECT query_to_xml('SELECT 1', true, true, '')", true, true),
            ("BEGIN /* never ends", true, true),
        ] {
            let code = Code::of_body(source);
            let may = |effect| code.may(effect, |_| false, |_| false);
            assert_eq!(
                (may(Effect::Rows), may(Effect::Definitions)),
                (rows, definitions),
                "{source}"
            );
        }
        let standard = "CREATE OR REPLACE FUNCTION public.f() RETURNS void BEGIN ATOMIC DELETE FROM t; END";
        assert!(Code::of_expression(standard).may(Effect::Rows, |_| false, |_| false));
        assert!(!Code::of_expression("f((1)::integer)").may(Effect::Rows, |_| false, |_| false));
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
            assert_eq!(
                code.may(Effect::Session, |_| false, |_| false),
                expected,
                "{source}"
            );
        }
        assert!(Code::of_expression(trigger).may(Effect::Session, |name| name == "f", |_| false));
        assert!(Code::of_expression("a <=> b").may(Effect::Session, |_| false, |symbol| symbol == "<=>"));
        assert!(!Code::of_expression("a <=> b").may(
            Effect::Session,
            |name| name == "c",
            |symbol| symbol == "="
        ));
    }

    #[test]
    fn names_are_compared_as_far_as_postgresql_keeps_them() {
        let (kept, longer) = ("a".repeat(63), "a".repeat(67));
        assert!(Code::of_body(&format!("SELECT {longer}()")).may(
            Effect::Session,
            |name| name == kept,
            |_| false
        ));
        assert_eq!(kept_name(&kept), kept);
        assert_eq!(kept_name("ä").len(), 2);
        assert_eq!(kept_name(&"ä".repeat(40)), "ä".repeat(31));
    }

    #[test]
    fn a_body_that_is_too_long_is_not_read() {
        let code = Code::of_body(&"SELECT 1; ".repeat(MAX_TOKENS));
        assert_eq!(code, Code::unread());
    }
}
