//! What drivers and tools send of themselves, before and between the commands that somebody typed.
//!
//! Statements that set up a session are accepted and change nothing, since a session here has nothing to set up. The
//! questions that drivers ask are answered. Everything else is an error: the console is no database.

use super::words::Words;
use crate::pipeline::Answer;
use crate::types::UserName;
use crate::wire::{Column, ColumnType, Value};

/// What `SELECT version()` answers here. Drivers read `PostgreSQL` and a version out of it.
pub fn version() -> String {
    format!(
        "PostgreSQL 8.0.2, console of Tollgate {}",
        env!("CARGO_PKG_VERSION")
    )
}

/// What is answered to a text that is no command.
pub(super) enum Courtesy {
    /// This tag, and nothing is done.
    Accepted(&'static str),
    /// Rows.
    Answered(&'static Question),
}

/// A question with a fixed answer.
pub(super) struct Question {
    /// How it is asked.
    texts: &'static [&'static str],
    columns: &'static [Column],
    /// The only row, from the user's name; `None` for no row.
    row: fn(&UserName) -> Option<Vec<Value>>,
}

/// Statements that are accepted, by their first words, with their command tags.
static ACCEPTED: &[(&str, &str)] = &[
    ("SET", "SET"),
    ("RESET", "RESET"),
    ("BEGIN", "BEGIN"),
    ("START TRANSACTION", "START TRANSACTION"),
    ("COMMIT", "COMMIT"),
    ("END", "COMMIT"),
    ("ROLLBACK", "ROLLBACK"),
    ("ABORT", "ROLLBACK"),
    ("SAVEPOINT", "SAVEPOINT"),
    ("RELEASE", "RELEASE"),
    ("DISCARD ALL", "DISCARD ALL"),
    ("DEALLOCATE ALL", "DEALLOCATE ALL"),
    ("DEALLOCATE", "DEALLOCATE"),
    ("CLOSE ALL", "CLOSE CURSOR ALL"),
    ("UNLISTEN", "UNLISTEN"),
];

macro_rules! question {
    ($($text:literal),+ => $name:literal: $kind:ident = $value:expr) => {
        Question {
            texts: &[$($text),+],
            columns: &[Column::new($name, ColumnType::$kind)],
            row: $value,
        }
    };
}

static QUESTIONS: &[Question] = &[
    question!("select 1" => "?column?": Int8 = |_| Some(vec![Value::Int8(1)])),
    question!("select version()", "select pg_catalog.version()" => "version": Text = |_| Some(vec![version().into()])),
    question!("select current_schema()", "select current_schema" => "current_schema": Text = |_| text("public")),
    question!("select current_database()" => "current_database": Text = |_| text("tollgate")),
    question!("select current_user" => "current_user": Text = |user| text(user.as_str())),
    question!("select session_user" => "session_user": Text = |user| text(user.as_str())),
    question!("select user" => "current_user": Text = |user| text(user.as_str())),
    question!("show transaction isolation level", "show transaction_isolation" => "transaction_isolation": Text =
        |_| text("read committed")),
    question!("show standard_conforming_strings" => "standard_conforming_strings": Text = |_| text("on")),
    question!("show server_version" => "server_version": Text = |_| text("8.0.2")),
    question!("show server_encoding" => "server_encoding": Text = |_| text("UTF8")),
    question!("show client_encoding" => "client_encoding": Text = |_| text("UTF8")),
    question!("show datestyle" => "DateStyle": Text = |_| text("ISO, MDY")),
    question!("show timezone", "show time zone" => "TimeZone": Text = |_| text("UTC")),
    question!("show search_path" => "search_path": Text = |_| text("public")),
    question!("show is_superuser" => "is_superuser": Text = |_| text("on")),
    Question {
        texts: &["select current_schema(), session_user"],
        columns: &[
            Column::new("current_schema", ColumnType::Text),
            Column::new("session_user", ColumnType::Text),
        ],
        row: |user| Some(vec!["public".into(), user.as_str().into()]),
    },
    // psycopg2 asks it for SQLAlchemy at every connect
    Question {
        texts: &[
            "SELECT t.oid, typarray FROM pg_type t JOIN pg_namespace ns ON typnamespace = ns.oid WHERE typname = 'hstore'",
            "SELECT t.oid, NULL FROM pg_type t JOIN pg_namespace ns ON typnamespace = ns.oid WHERE typname = 'hstore'",
        ],
        columns: &[
            Column::new("oid", ColumnType::Int8),
            Column::new("typarray", ColumnType::Int8),
        ],
        row: |_| None,
    },
    // and psycopg
    Question {
        texts: &[
            "SELECT typname AS name, oid, typarray AS array_oid, oid::regtype::text AS regtype, typdelim AS delimiter \
             FROM pg_type t WHERE t.oid = $1::regtype ORDER BY t.oid",
        ],
        columns: &[
            Column::new("name", ColumnType::Text),
            Column::new("oid", ColumnType::Int8),
            Column::new("array_oid", ColumnType::Int8),
            Column::new("regtype", ColumnType::Text),
            Column::new("delimiter", ColumnType::Text),
        ],
        row: |_| None,
    },
];

#[allow(clippy::unnecessary_wraps, reason = "an answer of one row")]
fn text(value: &str) -> Option<Vec<Value>> {
    Some(vec![value.into()])
}

/// What to say to `words`, if they are something that drivers send.
pub(super) fn to(words: &Words<'_>) -> Option<Courtesy> {
    let accepted = ACCEPTED.iter().find(|(name, _)| words.begin_with(name));
    if let Some((_, tag)) = accepted {
        return Some(Courtesy::Accepted(tag));
    }
    let asked = words.canonical(LONGEST_QUESTION);
    QUESTIONS
        .iter()
        .find(|question| question.texts.iter().any(|text| canonical(text) == asked))
        .map(Courtesy::Answered)
}

/// Longer texts are no question that is known here.
const LONGEST_QUESTION: usize = 300;

fn canonical(text: &str) -> String {
    Words::of(text).map_or_else(|_| String::new(), |words| words.canonical(LONGEST_QUESTION))
}

impl Courtesy {
    /// The columns of the answer; none for one without rows.
    pub(super) fn columns(&self) -> &'static [Column] {
        match self {
            Self::Accepted(_) => &[],
            Self::Answered(question) => question.columns,
        }
    }

    /// The answer to `user`.
    pub(super) fn answer(&self, user: &UserName) -> Answer {
        match self {
            Self::Accepted(tag) => Answer::done(*tag),
            Self::Answered(question) => {
                let rows: Vec<_> = (question.row)(user).into_iter().collect();
                let asked = question.texts.first().copied().unwrap_or_default();
                let tag = if asked.starts_with("show") {
                    "SHOW".to_owned()
                } else {
                    format!("SELECT {}", rows.len())
                };
                Answer {
                    columns: question.columns,
                    rows,
                    tag,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_short_enough_to_be_recognized() {
        for question in QUESTIONS {
            for text in question.texts {
                let words = Words::of(text).expect("one question");
                assert_eq!(words.canonical(usize::MAX), canonical(text), "{text}");
                assert!(matches!(to(&words), Some(Courtesy::Answered(_))), "{text}");
            }
            if let Some(row) = (question.row)(&UserName::new("root")) {
                assert_eq!(row.len(), question.columns.len(), "{:?}", question.texts);
            }
        }
    }

    #[test]
    fn what_sets_up_a_session_is_accepted_and_the_rest_is_not() {
        for (text, tag) in [
            ("SET extra_float_digits = 3", Some("SET")),
            ("set application_name = 'PostgreSQL JDBC Driver';", Some("SET")),
            (
                "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
                Some("SET"),
            ),
            ("RESET ALL", Some("RESET")),
            ("begin transaction", Some("BEGIN")),
            ("START TRANSACTION READ ONLY", Some("START TRANSACTION")),
            ("END", Some("COMMIT")),
            ("rollback", Some("ROLLBACK")),
            ("DISCARD ALL", Some("DISCARD ALL")),
            ("DEALLOCATE ALL", Some("DEALLOCATE ALL")),
            ("DEALLOCATE \"_pg3_0\"", Some("DEALLOCATE")),
            ("Select Version ( )", Some("SELECT 1")),
            ("SHOW TRANSACTION ISOLATION LEVEL", Some("SHOW")),
            ("SELECT 2", None),
            ("SELECT * FROM events", None),
            ("DROP TABLE events", None),
        ] {
            let words = Words::of(text).expect("one statement");
            let given = to(&words).map(|courtesy| courtesy.answer(&UserName::new("root")).tag);
            assert_eq!(given.as_deref(), tag, "{text}");
        }
    }
}
