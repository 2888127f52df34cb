//! The rules of `docs/architecture.md` that a text search can check.
//!
//! They are read off the source as text, comments apart: simple enough to be trusted, and no tool has to be installed.

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of code that a file may have, without comments, blank lines and tests.
const MAX_LINES: usize = 450;

/// A source file below `src`.
struct Source {
    /// Its path below `src`, with `/`.
    path: String,
    /// Its lines without comments; each keeps its number.
    lines: Vec<(usize, String)>,
    /// The line at which its tests begin, if it has any at its end.
    tests_at: usize,
}

impl Source {
    fn read(root: &Path, file: &Path) -> Self {
        let path = file
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/");
        let text = fs::read_to_string(file).unwrap();
        let lines: Vec<(usize, String)> = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, without_comment(line)))
            .filter(|(_, line)| !line.trim().is_empty())
            .collect();
        // a `#[cfg(test)]` on a module with a body, which stands at the end
        let tests_at = lines
            .windows(2)
            .find(|pair| match pair {
                [(_, attribute), (_, item)] => {
                    attribute.trim() == "#[cfg(test)]" && item.contains("mod ") && item.ends_with('{')
                }
                _ => false,
            })
            .and_then(|pair| pair.first())
            .map_or(usize::MAX, |(number, _)| *number);
        Self {
            path,
            lines,
            tests_at,
        }
    }

    /// The module of `lib.rs` that it belongs to; `None` for the roots.
    fn module(&self) -> Option<&str> {
        let first = self.path.split('/').next()?;
        let name = first.strip_suffix(".rs").unwrap_or(first);
        (!matches!(name, "lib" | "main")).then_some(name)
    }

    /// Its code without its tests.
    fn code(&self) -> impl Iterator<Item = &(usize, String)> {
        self.lines.iter().filter(|(number, _)| *number < self.tests_at)
    }

    fn text(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(|(_, line)| line.as_str()).collect();
        lines.join("\n")
    }
}

/// The line up to `//`. A `//` in a literal cuts too much, which can only hide what stands behind it on that line.
fn without_comment(line: &str) -> String {
    line.split_once("//").map_or(line, |(code, _)| code).to_owned()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    files.sort();
    assert!(files.len() > 50, "the sources were not found");
    files.iter().map(|file| Source::read(&root(), file)).collect()
}

/// The modules in the order of their lines in `lib.rs`.
fn order() -> Vec<String> {
    let text = fs::read_to_string(root().join("lib.rs")).unwrap();
    let names: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect();
    assert!(names.len() > 10, "lib.rs was not understood: {names:?}");
    names
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Where `word` stands in `line` as a whole word.
fn words<'l>(line: &'l str, word: &'l str) -> impl Iterator<Item = usize> + 'l {
    line.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = line.get(..*at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

fn names(line: &str, word: &str) -> bool {
    words(line, word).next().is_some()
}

/// The modules that `text` names by `crate::…`, lists in braces included.
fn crate_uses(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for at in words(text, "crate") {
        let Some(rest) = text.get(at..).and_then(|rest| rest.strip_prefix("crate::")) else {
            continue;
        };
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0_usize;
            let mut item = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        used.insert(first_name(&std::mem::take(&mut item)));
                        continue;
                    }
                    _ => {}
                }
                item.push(c);
            }
            used.insert(first_name(&item));
        } else {
            used.insert(first_name(rest));
        }
    }
    used.remove("");
    used
}

fn first_name(text: &str) -> String {
    text.trim_start().chars().take_while(|c| is_name(*c)).collect()
}

fn report(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}:\n{}", violations.join("\n"));
}

#[test]
fn a_module_uses_only_those_above_it() {
    let order = order();
    let place = |name: &str| order.iter().position(|module| module == name);
    let mut violations = Vec::new();
    for source in sources() {
        let Some(module) = source.module() else { continue };
        let Some(own) = place(module) else {
            violations.push(format!("{}: its module is not in lib.rs", source.path));
            continue;
        };
        for used in crate_uses(&source.text()) {
            match place(&used) {
                Some(other) if other <= own => {}
                Some(_) => violations.push(format!(
                    "{}: `{module}` stands above `{used}` in lib.rs",
                    source.path
                )),
                None => violations.push(format!("{}: crate::{used} is no module", source.path)),
            }
        }
    }
    report("a module uses only those above it", &violations);
}

#[test]
fn lists_of_uses_are_read() {
    let used = |text: &str| crate_uses(text).into_iter().collect::<Vec<_>>().join(" ");
    for (text, expected) in [
        ("use crate::wire::{self, Frame};", "wire"),
        ("use crate::{wire::{Frame, Tag}, sql, auth::x};", "auth sql wire"),
        ("fn f() -> crate::sql::Text { crate::auth::g() }", "auth sql"),
        ("pub(crate) fn my_crate::x()", ""),
    ] {
        assert_eq!(used(text), expected, "{text}");
    }
}

#[test]
fn the_map_in_the_documentation_has_every_module_in_order() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let text = fs::read_to_string(path).unwrap();
    let mapped: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(mapped, order(), "the table of modules in docs/architecture.md");
}

#[test]
fn nothing_reaches_two_levels_up() {
    let mut violations = Vec::new();
    for source in sources() {
        for (number, line) in &source.lines {
            if line.contains("super::super::") {
                violations.push(format!("{}:{number}", source.path));
            }
        }
    }
    report(
        "name the module from the crate's root instead of super::super",
        &violations,
    );
}

#[test]
fn fast_moving_packages_are_named_in_one_place() {
    let places: [(&str, &[&str]); 3] = [
        ("sqlparser", &["sql/analyze/"]),
        ("pgwire", &["wire/synthesis.rs", "auth/"]),
        ("deadpool_postgres", &["backend/catalog/"]),
    ];
    let mut violations = Vec::new();
    for source in sources() {
        for (package, places) in places {
            if places.iter().any(|place| source.path.starts_with(place)) {
                continue;
            }
            for (number, line) in &source.lines {
                if names(line, package) {
                    violations.push(format!("{}:{number}: {package}", source.path));
                }
            }
        }
    }
    report("one module wraps each of these packages", &violations);
}

/// The half that decides.
const PURE: [&str; 9] = [
    "types",
    "error",
    "config",
    "telemetry",
    "wire",
    "auth",
    "sql",
    "policy",
    "session",
];

#[test]
fn what_decides_knows_no_socket_no_runtime_and_no_clock() {
    // a file is read in one place only: secrets and certificates of the configuration
    let exempt = [("config/environment.rs", "std::fs")];
    let forbidden = [
        "tokio::",
        "TcpStream",
        "TcpListener",
        "UnixStream",
        "UnixListener",
        "Instant::now",
        "SystemTime::now",
        "thread::sleep",
        "thread::spawn",
        "std::fs",
    ];
    let mut violations = Vec::new();
    for source in sources() {
        if !source.module().is_some_and(|module| PURE.contains(&module)) {
            continue;
        }
        for (number, line) in source.code() {
            for word in forbidden {
                if line.contains(word) && !exempt.contains(&(source.path.as_str(), word)) {
                    violations.push(format!("{}:{number}: {word}", source.path));
                }
            }
        }
    }
    report(
        "the upper modules decide; time comes as an argument, bytes too",
        &violations,
    );
}

#[test]
fn pure_modules_stand_first() {
    let order = order();
    let (first, _) = order.split_at(PURE.len());
    assert_eq!(first, PURE, "the modules of lib.rs that decide");
}

/// The names of the files that hold nothing but tests: declared by `#[cfg(test)] mod name;`, with or without a path.
fn test_files(sources: &[Source]) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for source in sources {
        let (directory, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
        let stem = file.strip_suffix(".rs").unwrap_or(file);
        let mut attributes: Vec<&str> = Vec::new();
        for (_, line) in &source.lines {
            let line = line.trim();
            if line.starts_with("#[") {
                attributes.push(line);
                continue;
            }
            let declared = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod "));
            if let Some((_, name)) = declared
                && attributes.contains(&"#[cfg(test)]")
            {
                let path = attributes
                    .iter()
                    .find_map(|attribute| attribute.strip_prefix("#[path = \"")?.strip_suffix("\"]"));
                match path {
                    Some(path) => files.insert(format!("{directory}/{path}")),
                    None if stem == "mod" => files.insert(format!("{directory}/{name}.rs")),
                    None => files.insert(format!("{directory}/{stem}/{name}.rs")),
                };
            }
            attributes.clear();
        }
    }
    files
}

#[test]
fn a_file_can_be_read_in_one_sitting() {
    let sources = sources();
    let tests = test_files(&sources);
    let mut violations = Vec::new();
    for source in sources.iter().filter(|source| !tests.contains(&source.path)) {
        let lines = source.code().count();
        if lines > MAX_LINES {
            violations.push(format!("{}: {lines} lines of code", source.path));
        }
    }
    report(
        &format!("a file has at most {MAX_LINES} lines of code"),
        &violations,
    );
}

#[test]
fn names_say_what_a_thing_is() {
    // in two parts, so that this file does not break its own rule
    let vague = [
        concat!("man", "ager"),
        concat!("hand", "ler"),
        concat!("hel", "per"),
        concat!("proc", "essor"),
        concat!("ut", "il"),
    ];
    let kinds = ["struct ", "enum ", "trait ", "type ", "mod ", "fn "];
    let mut violations = Vec::new();
    for source in sources() {
        let lower = source.path.to_ascii_lowercase();
        violations.extend(
            vague
                .iter()
                .filter(|word| lower.contains(**word))
                .map(|word| format!("{}: {word}", source.path)),
        );
        for (number, line) in &source.lines {
            for kind in kinds {
                let Some((_, rest)) = line.split_once(kind) else {
                    continue;
                };
                let name = first_name(rest).to_ascii_lowercase();
                if let Some(word) = vague.iter().find(|word| name.contains(**word)) {
                    violations.push(format!("{}:{number}: {name} ({word})", source.path));
                }
            }
        }
    }
    report("a name says what a thing is or does", &violations);
}
