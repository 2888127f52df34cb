//! `docs/reference/console.md`, from the commands themselves.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::admin::command::{COMMANDS, usage};
use crate::wire::ColumnType;

const INTRODUCTION: &str = "# Console\n\n\
    Generated from `src/admin/commands/`; `UPDATE_DOCS=1 cargo test console` writes it anew.\n\n\
    The console is the database `tollgate`, for users with `admin = true`, over the same address and protocol as \
    every other database:\n\n\
    ```sh\npsql 'postgres://root@localhost:5439/tollgate' -c 'SHOW POOLS'\n```\n\n\
    Upper and lower case are the same, a semicolon at the end is optional, and in the simple protocol several commands \
    may stand in one text. Names of backends and sections are written as in the configuration, in quotes where they \
    contain blanks. What drivers send of themselves (`SET`, `BEGIN`, `SELECT version()`, `DISCARD ALL` …) is accepted. \
    What is no command is refused with SQLSTATE 42601.\n";

fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    for command in COMMANDS {
        writeln!(page, "\n## `{}`\n\n{}", usage(*command), command.help()).expect("a string");
        let columns = command.columns();
        if columns.wire.is_empty() {
            continue;
        }
        page.push_str("\n| Column | Type | |\n|---|---|---|\n");
        for (column, meaning) in columns.wire.iter().zip(columns.meanings) {
            let kind = match column.kind {
                ColumnType::Text => "text",
                ColumnType::Bool => "boolean",
                ColumnType::Int4 => "integer",
                ColumnType::Int8 => "bigint",
                ColumnType::Float8 => "double",
            };
            writeln!(page, "| `{}` | {kind} | {meaning} |", column.name).expect("a string");
        }
    }
    page
}

#[test]
fn the_console_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/console.md");
    let page = markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).expect("the page can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/reference/console.md is old: UPDATE_DOCS=1 cargo test console"
    );
}

#[test]
fn every_console_command_says_what_it_does() {
    for command in COMMANDS {
        let name = command.name();
        assert_eq!(name, name.to_ascii_uppercase());
        assert!(command.help().ends_with('.'), "{name}");
        let columns = command.columns();
        assert_eq!(columns.wire.len(), columns.meanings.len(), "{name}");
        for (column, meaning) in columns.wire.iter().zip(columns.meanings) {
            assert!(meaning.ends_with('.'), "{name}: {}", column.name);
        }
    }
    let mut names: Vec<_> = COMMANDS.iter().map(|command| command.name()).collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        let [first, second] = pair else { continue };
        assert!(!second.starts_with(first), "{first} hides {second}");
    }
}
