//! Runs the golden files of `sql-fixtures`; the format is described in `sql-fixtures/README.md`.
//!
//! `UPDATE_FIXTURES=1 cargo test --test fixtures` rewrites what is expected.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail by panic"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tollgate::sql::{Analysis, Backslash, canonical_into, describe};

/// One block of a file.
struct Case {
    comments: Vec<String>,
    directive: String,
    input: String,
    expected: String,
}

/// Between two texts of one case, when a text has more than one line.
const BETWEEN_TEXTS: &str = "~~~~";

#[test]
fn analyze() {
    run("analyze", 150, |case| {
        let backslash = backslash(&case.directive, "analyze")?;
        let text = case.input.as_bytes();
        let said = describe(&Analysis::of(text, backslash), text);
        // the fingerprint has fixtures of its own
        let lines: Vec<&str> = said
            .lines()
            .filter(|line| !line.starts_with("fingerprint"))
            .collect();
        // a blank line would end the block
        Ok(lines.join("\n").replace("\n\n", "\n"))
    });
}

#[test]
fn fingerprint() {
    run("fingerprint", 40, |case| {
        let (directive, _) = case.directive.split_once(' ').unwrap_or((&case.directive, ""));
        let backslash = backslash(&case.directive, directive)?;
        let (a, b) = pair(&case.input)?;
        let same = match directive {
            "fingerprint" => fingerprints(a, backslash) == fingerprints(b, backslash),
            "canonical" => canonical(a, backslash) == canonical(b, backslash),
            _ => return Err(format!("unknown directive \"{directive}\"")),
        };
        Ok(if same { "same" } else { "different" }.to_owned())
    });
}

fn fingerprints(text: &str, backslash: Backslash) -> Vec<String> {
    let analysis = Analysis::of(text.as_bytes(), backslash);
    analysis
        .statements()
        .iter()
        .map(|located| located.statement.fingerprint.to_string())
        .collect()
}

fn canonical(text: &str, backslash: Backslash) -> Vec<u8> {
    let mut out = Vec::new();
    canonical_into(text.as_bytes(), backslash, &mut out);
    out
}

/// The word after the directive: `escape` when backslashes escape, as in Redshift.
fn backslash(directive: &str, name: &str) -> Result<Backslash, String> {
    match directive.strip_prefix(name).map(str::trim) {
        Some("") => Ok(Backslash::Literal),
        Some("escape") => Ok(Backslash::Escape),
        _ => Err(format!("unknown directive \"{directive}\"")),
    }
}

fn pair(input: &str) -> Result<(&str, &str), String> {
    let between = format!("\n{BETWEEN_TEXTS}\n");
    let between = if input.contains(&between) {
        between.as_str()
    } else {
        "\n"
    };
    match input.split(between).collect::<Vec<_>>().as_slice() {
        [a, b] => Ok((a, b)),
        _ => Err("two texts are needed".to_owned()),
    }
}

/// Checks every file of a folder, or rewrites it; `at_least` so many cases must be there.
fn run(folder: &str, at_least: usize, evaluate: impl Fn(&Case) -> Result<String, String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("sql-fixtures")
        .join(folder);
    let update = std::env::var_os("UPDATE_FIXTURES").is_some();
    let mut count = 0;
    let mut differences = String::new();
    for path in files(&root) {
        let text = fs::read_to_string(&path).unwrap();
        let mut cases = parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for case in &mut cases {
            count += 1;
            let got =
                evaluate(case).unwrap_or_else(|error| panic!("{}: {error}\n{}", path.display(), case.input));
            if got != case.expected {
                writeln!(differences, "{}\n{}", path.display(), case.input).unwrap();
                difference(&case.expected, &got, &mut differences);
                case.expected = got;
            }
        }
        if update {
            fs::write(&path, print(&cases)).unwrap();
        }
    }
    assert!(
        count >= at_least,
        "{folder}: {count} cases, expected at least {at_least}"
    );
    assert!(
        update || differences.is_empty(),
        "expected (-) and found (+):\n{differences}"
    );
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

fn parse(text: &str) -> Result<Vec<Case>, String> {
    text.split("\n\n")
        .map(|block| block.trim_matches('\n'))
        .filter(|text| !text.is_empty())
        .map(block)
        .collect()
}

fn block(text: &str) -> Result<Case, String> {
    let mut lines = text.lines().peekable();
    let mut comments = Vec::new();
    while let Some(line) = lines.next_if(|line| line.starts_with('#')) {
        comments.push(line.to_owned());
    }
    let directive = lines
        .next()
        .ok_or_else(|| format!("a block without a directive: {text}"))?
        .to_owned();
    let rest: Vec<&str> = lines.collect();
    let middle = rest
        .iter()
        .position(|line| *line == "----")
        .ok_or_else(|| format!("no ---- in: {text}"))?;
    Ok(Case {
        comments,
        directive,
        input: rest[..middle].join("\n"),
        expected: rest[middle + 1..].join("\n"),
    })
}

fn print(cases: &[Case]) -> String {
    let mut out = String::new();
    for case in cases {
        for comment in &case.comments {
            writeln!(out, "{comment}").unwrap();
        }
        writeln!(
            out,
            "{}\n{}\n----\n{}\n",
            case.directive, case.input, case.expected
        )
        .unwrap();
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn difference(expected: &str, got: &str, out: &mut String) {
    for line in expected
        .lines()
        .filter(|line| !got.lines().any(|other| other == *line))
    {
        writeln!(out, "  - {line}").unwrap();
    }
    for line in got
        .lines()
        .filter(|line| !expected.lines().any(|other| other == *line))
    {
        writeln!(out, "  + {line}").unwrap();
    }
}
