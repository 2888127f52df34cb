//! The verdicts of `sql-fixtures/cacheability/`: what may be kept, and what a statement makes stale.
//!
//! A case is a comment, a directive, a text, `----`, and one verdict per statement of the text. Directives:
//! `cacheability` (only aggregates are kept) or `cacheability reads`, and `invalidation`, each with a search path after
//! `in` when it is not `public`. `UPDATE_FIXTURES=1` rewrites the verdicts.

#![allow(clippy::indexing_slicing, reason = "a malformed fixture fails the test")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tollgate::config::CacheWhat;
use tollgate::policy::{
    Cacheability, Catalog, CodeDefinition, ColumnsDefinition, Definitions, FunctionDefinition, Invalidation,
    Occasion, RelationDefinition, RelationKind, ViewDefinition, Volatility, cacheability, invalidation,
    search_path,
};
use tollgate::sql::{Analysis, Backslash, Code, Statement};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sql-fixtures/cacheability")
}

/// The described database, and its relations' names.
struct Described {
    catalog: Catalog,
    names: HashMap<u32, String>,
}

impl Described {
    fn read() -> Self {
        let text = fs::read_to_string(folder().join("catalog.txt")).expect("the catalog");
        let mut definitions = Definitions::default();
        let mut oids = HashMap::new();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            describe(line, &mut definitions, &mut oids);
        }
        let names = oids
            .iter()
            .map(|(name, oid)| (*oid, name.trim_start_matches("public.").to_owned()))
            .collect();
        Self {
            catalog: Catalog::new(definitions, 1),
            names,
        }
    }

    fn name(&self, oids: &[u32]) -> String {
        let mut names: Vec<&str> = oids.iter().map(|oid| self.names[oid].as_str()).collect();
        names.sort_unstable();
        names.join(" ")
    }

    fn verdict(&self, directive: &str, statement: &Statement) -> String {
        let (what, path) = directive.split_once(" in ").unwrap_or((directive, "public"));
        let path = search_path(path, "ana");
        let kept = |what| match cacheability(statement, &self.catalog, &path, what) {
            Cacheability::Cacheable(oids) => format!("cacheable: {}", self.name(&oids)),
            Cacheability::Bypass(reason) => format!("bypass: {}", reason.as_str()),
        };
        match what {
            "cacheability" => kept(CacheWhat::Aggregates),
            "cacheability reads" => kept(CacheWhat::Reads),
            "invalidation" => match invalidation(statement, Some(&self.catalog), &path) {
                Invalidation::Nothing => "nothing".to_owned(),
                Invalidation::Relations(oids) => format!("relations: {}", self.name(&oids)),
                Invalidation::Everything => "everything".to_owned(),
                Invalidation::Definitions => "definitions".to_owned(),
            },
            other => panic!("no such directive: {other}"),
        }
    }
}

/// One line of `catalog.txt`.
fn describe(line: &str, definitions: &mut Definitions, oids: &mut HashMap<String, u32>) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let pair = |oids: &HashMap<String, u32>| (oids[words[1]], oids[words[2]]);
    match words[0] {
        "child" => definitions.children.push(pair(oids)),
        "cascade" => {
            definitions.cascades.push(pair(oids));
            definitions.references.push(pair(oids));
        }
        "reference" => definitions.references.push(pair(oids)),
        "columns" => {
            let (times, texts) = line.split_once('|').expect("COLUMN … | COLUMN …");
            let names = |text: &str| text.split_whitespace().map(Into::into).collect();
            definitions.columns.push(ColumnsDefinition {
                relation: oids[words[1]],
                times: names(times.split_once(words[1]).expect("the relation").1),
                texts: names(texts),
            });
        }
        "operator" => definitions.operators.push(words[1].into()),
        "type" => definitions.types.push(words[1].into()),
        "attribute" => {
            for function in &mut definitions.functions {
                function.attribute |= !function.builtin && words[1..].contains(&&*function.name);
            }
        }
        origin @ ("builtin" | "user") => {
            let volatility = match words[1] {
                "immutable" => Volatility::Immutable,
                "stable" => Volatility::Stable,
                "volatile" => Volatility::Volatile,
                other => panic!("no such volatility: {other}"),
            };
            if origin == "user" && volatility != Volatility::Immutable {
                // they write
                definitions
                    .code
                    .extend(words[2..].iter().map(|name| CodeDefinition {
                        occasion: Occasion::Called((*name).into()),
                        code: Code::of_body("INSERT INTO noted VALUES (1)"),
                    }));
            }
            definitions
                .functions
                .extend(words[2..].iter().map(|name| FunctionDefinition {
                    name: (*name).into(),
                    builtin: origin == "builtin",
                    volatility,
                    attribute: false,
                }));
        }
        kind => relation(kind, &words, line, definitions, oids),
    }
}

fn relation(
    kind: &str,
    words: &[&str],
    line: &str,
    definitions: &mut Definitions,
    oids: &mut HashMap<String, u32>,
) {
    let oid: u32 = words[1].parse().expect("an oid");
    let (schema, name) = words[2].split_once('.').expect("SCHEMA.NAME");
    oids.insert(words[2].to_owned(), oid);
    let kind = match kind {
        "table" => RelationKind::Table,
        "partitioned" => RelationKind::Partitioned,
        "matview" => RelationKind::MaterializedView,
        "foreign" => RelationKind::Foreign,
        "sequence" => RelationKind::Sequence,
        "system" => RelationKind::System,
        "view" => RelationKind::View,
        other => panic!("no such kind: {other}"),
    };
    let mut read_code = false;
    if let Some((_, text)) = line.split_once(" = ").filter(|_| kind == RelationKind::View) {
        let analysis = Analysis::of(text.as_bytes(), Backslash::Literal);
        let query = analysis.single().expect("one statement");
        for read in &query.reads {
            if let Some(read) = oids.get(&read.to_string()) {
                definitions.view_reads.push((oid, *read));
            }
        }
        // a database records this with the view; here it is told by the name
        read_code = text.contains("log_it");
        definitions.views.push(ViewDefinition {
            oid,
            user_code: None,
            query: Some(Arc::clone(query)),
            moment_literal: analysis.moment_literal(),
        });
    }
    definitions.relations.push(RelationDefinition {
        oid,
        schema: schema.into(),
        name: name.into(),
        kind,
        row_security: words.contains(&"row_security"),
        write_code: words.contains(&"write_code"),
        read_code,
        unfixed_columns: words.contains(&"unfixed_columns"),
        time_columns: words.contains(&"time_columns"),
        unlogged: words.contains(&"unlogged"),
    });
}

/// One block of a file, as written.
struct Case {
    comments: String,
    directive: String,
    text: String,
    expected: String,
}

fn cases(text: &str) -> Vec<Case> {
    let blocks = text
        .split("\n\n")
        .map(|block| block.trim_matches('\n'))
        .filter(|block| !block.is_empty());
    blocks
        .map(|block| {
            let start = block
                .lines()
                .take_while(|line| line.starts_with('#'))
                .map(|line| line.len() + 1)
                .sum::<usize>();
            let (comments, rest) = block.split_at(start.min(block.len()));
            let (head, expected) = rest.split_once("\n----").unwrap_or((rest, ""));
            let (directive, text) = head
                .split_once('\n')
                .unwrap_or_else(|| panic!("a case without a text:\n{block}"));
            Case {
                comments: comments.to_owned(),
                directive: directive.to_owned(),
                text: text.to_owned(),
                expected: expected.trim_matches('\n').to_owned(),
            }
        })
        .collect()
}

#[test]
fn verdicts_are_as_written() {
    let described = Described::read();
    let update = std::env::var_os("UPDATE_FIXTURES").is_some();
    let mut files: Vec<PathBuf> = fs::read_dir(folder())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "txt") && !path.ends_with("catalog.txt"))
        .collect();
    files.sort();
    let (mut count, mut wrong, mut seen) = (0, String::new(), HashMap::new());
    for file in files {
        let text = fs::read_to_string(&file).expect("a fixture");
        let mut blocks = Vec::new();
        for Case {
            comments,
            directive,
            text,
            expected,
        } in cases(&text)
        {
            count += 1;
            let analysis = Analysis::of(text.as_bytes(), Backslash::Literal);
            let found: Vec<String> = analysis
                .statements()
                .iter()
                .map(|located| described.verdict(&directive, &located.statement))
                .collect();
            let found = found.join("\n");
            if found != expected {
                writeln!(
                    wrong,
                    "{}\n{directive}\n{text}\n-{expected}\n+{found}\n",
                    file.display()
                )
                .expect("text");
            }
            if let Some(before) = seen.insert(format!("{directive}\n{text}"), file.clone()) {
                panic!("twice, in {} and {}:\n{text}", before.display(), file.display());
            }
            blocks.push(format!("{comments}{directive}\n{text}\n----\n{found}\n"));
        }
        if update {
            fs::write(&file, blocks.join("\n")).expect("the fixture is written");
        }
    }
    assert!(update || wrong.is_empty(), "\n{wrong}");
    assert!(count >= 60, "only {count} cases");
}
