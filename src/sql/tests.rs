//! What holds for every input: nothing panics, nothing takes long, blanks between tokens mean nothing.

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::{
    Analysis, Analyzer, Backslash, Lexer, StatementKind, analyze, canonical_into, describe, names_a_moment,
};
use crate::types::ByteSize;

fn kind(text: &str) -> Option<StatementKind> {
    analyze(text.as_bytes(), Backslash::Literal)
        .first()
        .map(|located| located.statement.kind)
}

#[test]
fn hostile_texts_are_survived() {
    let many = |n: usize, before: &str, unit: &str, after: &str| format!("{before}{}{after}", unit.repeat(n));
    let rows = [
        // within the caps: trees as deep as can be are walked and dropped on a stack of sufficient size
        (
            "a chain of operators",
            many(7_900, "SELECT ", "1+", "1"),
            StatementKind::Read,
        ),
        (
            "a chain of set operations",
            many(3_900, "SELECT 1", " UNION ALL SELECT 1", ""),
            StatementKind::Read,
        ),
        (
            "a chain of casts",
            many(7_900, "SELECT a", "::int", ""),
            StatementKind::Read,
        ),
        (
            "a chain of joins",
            many(3_900, "SELECT 1 FROM t", " CROSS JOIN t", ""),
            StatementKind::Read,
        ),
        (
            "a chain of conditions",
            many(3_900, "SELECT 1 WHERE a=1", " AND a=1", ""),
            StatementKind::Read,
        ),
        (
            "parentheses",
            many(60, "SELECT ", "(", &")".repeat(60).replacen(')', "1)", 1)),
            StatementKind::Read,
        ),
        // beyond them
        (
            "a longer chain",
            many(100_000, "SELECT ", "1+", "1"),
            StatementKind::Unparsed,
        ),
        (
            "more set operations",
            many(32_000, "SELECT 1", " UNION ALL SELECT 1", ""),
            StatementKind::Unparsed,
        ),
        (
            "prefix operators",
            many(15_000, "SELECT ", "NOT ", "a"),
            StatementKind::Unparsed,
        ),
        (
            "deep parentheses",
            many(100_000, "SELECT ", "(", "1"),
            StatementKind::Unparsed,
        ),
        (
            "deep tables",
            many(1_000, "SELECT * FROM ", "(", "t"),
            StatementKind::Unparsed,
        ),
        (
            "operator characters",
            many(200_000, "SELECT ", "+", "1"),
            StatementKind::Unparsed,
        ),
        (
            "comments that do not end",
            many(100_000, "SELECT 1", "/*", ""),
            StatementKind::Unparsed,
        ),
        (
            "dollar quotes that do not end",
            many(50_000, "SELECT ", "$a ", ""),
            StatementKind::Unparsed,
        ),
        (
            "one long word",
            many(10_000_000, "", "a", ""),
            StatementKind::Unparsed,
        ),
        (
            "an unterminated literal",
            many(10_000_000, "SELECT '", "a", ""),
            StatementKind::Unparsed,
        ),
        (
            "many statements",
            many(100_000, "", "SELECT 1;", ""),
            StatementKind::Unparsed,
        ),
        // a load of plain values is understood though it is long
        (
            "a bulk insert",
            many(
                50_000,
                "INSERT INTO s.t (a, b) VALUES (0, '')",
                ", (-1, 'x')",
                ";",
            ),
            StatementKind::Write,
        ),
        (
            "a bulk insert of more",
            many(50_000, "INSERT INTO t VALUES (0)", ", (f())", ""),
            StatementKind::Unparsed,
        ),
    ];
    for (name, text, expected) in rows {
        assert_eq!(kind(&text), Some(expected), "{name}");
    }
}

#[test]
fn bytes_that_are_no_text_are_survived() {
    let rows: [(&[u8], StatementKind); 5] = [
        (b"SELECT \0 FROM t", StatementKind::Unparsed),
        (b"SELECT a\xff FROM t", StatementKind::Unparsed),
        (b"SELECT \"\xff\" FROM t", StatementKind::Unparsed),
        (b"SELECT '\xff' FROM t", StatementKind::Read),
        (b"SET a = '\xff'", StatementKind::Session),
    ];
    for (text, expected) in rows {
        let found = analyze(text, Backslash::Literal);
        assert_eq!(
            found.first().map(|located| located.statement.kind),
            Some(expected),
            "{text:?}"
        );
    }
}

/// Pieces of SQL, and of what is not.
fn fragment() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "SELECT",
        "FROM",
        "WHERE",
        "WITH",
        "RECURSIVE",
        "AS",
        "(",
        ")",
        "[",
        "]",
        ",",
        ";",
        ".",
        "::",
        ":=",
        "*",
        "+",
        "-",
        "t",
        "\"T\"",
        "#x",
        "count",
        "1",
        "1.5e3",
        "17when",
        "'a'",
        "E'\\''",
        "'",
        "\"",
        "$1",
        "$$",
        "$x$",
        "--",
        "/*",
        "*/",
        "\n",
        " ",
        "INSERT INTO",
        "VALUES",
        "UPDATE",
        "SET",
        "DELETE",
        "MERGE",
        "USING",
        "ON",
        "JOIN",
        "GROUP BY",
        "ORDER BY",
        "UNION",
        "CASE",
        "WHEN",
        "THEN",
        "END",
        "BEGIN",
        "COMMIT",
        "ATOMIC",
        "COPY",
        "UNLOAD",
        "EXPLAIN",
        "ANALYZE",
        "CREATE",
        "TABLE",
        "TEMP",
        "VIEW",
        "SHOW",
        "RESET",
        "PREPARE",
        "DECLARE",
        "FOR",
        "ONLY",
        "INTO",
        "NOT",
        "NULL",
        "OVER",
        "PARTITION",
        "EXTRACT",
        "INTERVAL",
        "ARRAY",
        "\\",
        "é",
        "U&\"",
        "@>",
        "|/",
        "{",
        "~~*",
    ])
}

/// Tokens that may stand in any order with blanks between.
fn token() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "SELECT", "a", "\"B\"", "c.d", "FROM", "t", "WHERE", "=", "<>", "->>", "@-", "1", "2.5", "$1", "(",
        ")", ",", "::", "[", "]", ";", "AND", "null", "'a',", "E'\\n',", "$$b$$,",
    ])
}

fn blank() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        " ",
        "\n",
        "  \t",
        " /* c */ ",
        " -- c\n",
        " /* a /* b */ c */",
        "\r\n",
    ])
}

fn identity(text: &str) -> (Vec<String>, Vec<u8>) {
    let analysis = Analysis::of(text.as_bytes(), Backslash::Literal);
    let fingerprints = analysis
        .statements()
        .iter()
        .map(|located| located.statement.fingerprint.to_string())
        .collect();
    let mut canonical = Vec::new();
    canonical_into(text.as_bytes(), Backslash::Literal, &mut canonical);
    (fingerprints, canonical)
}

fn survive(text: &[u8]) {
    for backslash in [Backslash::Literal, Backslash::Escape] {
        let mut end = 0;
        for token in Lexer::new(text, backslash) {
            assert!(token.start >= end && token.end > token.start && token.end <= text.len());
            end = token.end;
        }
        let analyzer = Analyzer::new(ByteSize(1 << 16));
        let first = analyzer.analyze(text, backslash);
        let second = analyzer.analyze(text, backslash);
        assert_eq!(first.statements(), second.statements());
        describe(&first, text);
        first.canonical_into(text, &mut Vec::new());
    }
    names_a_moment(text);
}

proptest! {
    #![proptest_config(Config { cases: 64, failure_persistence: None, ..Config::default() })]

    #[test]
    fn no_bytes_make_it_panic(text in prop::collection::vec(any::<u8>(), 0..300)) {
        survive(&text);
    }

    #[test]
    fn no_pieces_make_it_panic(pieces in prop::collection::vec(fragment(), 0..60)) {
        survive(pieces.join(" ").as_bytes());
        survive(pieces.concat().as_bytes());
    }

    #[test]
    fn blanks_between_tokens_mean_nothing(
        tokens in prop::collection::vec((token(), blank(), blank()), 0..40),
    ) {
        let one: String = tokens.iter().flat_map(|(token, blank, _)| [*blank, *token]).collect();
        let other: String = tokens.iter().flat_map(|(token, _, blank)| [*blank, *token]).collect();
        prop_assert_eq!(identity(&one), identity(&other));
    }

    #[test]
    fn each_prefix_of_a_text_is_survived(end in 0..400_usize) {
        let text = "WITH x AS (SELECT E'\\'' AS a, $t$ b $t$ FROM \"S\".t /* c */) SELECT count(*) FROM x -- d\nJOIN u ON x.a = u.a;";
        survive(text.as_bytes().get(..end).unwrap_or(text.as_bytes()));
    }
}
