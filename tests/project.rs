//! The project as a whole: links lead somewhere, commands exist, and every package's licence is allowed.

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use tollgate::quota::RefusalReason;
use tollgate::telemetry::Verdict;
use tollgate::{cache, policy};

/// Files above this are data, and are not read.
const MAX_BYTES: u64 = 4 << 20;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the project but what is built or fetched.
fn files() -> Vec<PathBuf> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        // cargo marks its target directories, whatever they are called
        if directory.join("CACHEDIR.TAG").exists() {
            return;
        }
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if matches!(name.as_str(), ".git" | ".cache" | "target" | "node_modules") {
                continue;
            }
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(root(), &mut found);
    found.sort();
    found
}

/// Texts with their paths below the root.
fn texts() -> Vec<(String, String)> {
    files()
        .into_iter()
        .filter(|path| fs::metadata(path).is_ok_and(|metadata| metadata.len() <= MAX_BYTES))
        .filter_map(|path| {
            let text = fs::read_to_string(&path).ok()?;
            Some((below_root(&path), text))
        })
        .collect()
}

fn below_root(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

fn pages() -> Vec<(String, String)> {
    let pages: Vec<_> = texts()
        .into_iter()
        .filter(|(path, _)| {
            Path::new(path)
                .extension()
                .is_some_and(|extension| extension == "md")
        })
        .collect();
    assert!(pages.len() > 10, "the pages were not found");
    pages
}

fn report(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}:\n{}", violations.join("\n"));
}

/// Whether `text` has `word` with nothing of a name around it.
fn has_word(text: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|text| text.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

/// The page without its blocks of code; what stands between single backticks is kept.
fn prose(text: &str) -> String {
    let mut inside = false;
    text.lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            !inside && !fence
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// The lines of a page's blocks of code, and what stands between backticks.
fn code(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside {
            found.push(line.trim().to_owned());
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// The targets of a page's links, `[text](target)`.
fn links(text: &str) -> Vec<String> {
    prose(text)
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.trim().to_owned())
        .collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    prose(text)
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|heading| {
            heading
                .trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter_map(|c| match c {
                    ' ' => Some('-'),
                    c if c.is_alphanumeric() || matches!(c, '-' | '_') => Some(c),
                    _ => None,
                })
                .collect()
        })
        .collect()
}

/// `base/target` with `.` and `..` taken out; `None` where it leaves the project.
fn resolve(base: &str, target: &str) -> Option<PathBuf> {
    let mut resolved = Path::new(base).parent()?.to_path_buf();
    for component in Path::new(target).components() {
        match component {
            Component::ParentDir => {
                if !resolved.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            Component::Normal(name) => resolved.push(name),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(resolved)
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let pages = pages();
    let mut violations = Vec::new();
    for (page, text) in &pages {
        for link in links(text) {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                Some(PathBuf::from(page))
            } else {
                resolve(page, file)
            };
            let Some(target) = target.filter(|target| root().join(target).exists()) else {
                violations.push(format!("{page}: {link} does not exist"));
                continue;
            };
            if anchor.is_empty() {
                continue;
            }
            let known =
                fs::read_to_string(root().join(&target)).is_ok_and(|text| anchors(&text).contains(anchor));
            if !known {
                violations.push(format!("{page}: {link} names a heading that does not exist"));
            }
        }
    }
    report("links in the documentation", &violations);
}

#[test]
fn every_page_of_the_documentation_is_linked_from_its_index() {
    let index = "docs/README.md";
    let text = fs::read_to_string(root().join(index)).unwrap();
    let linked: BTreeSet<PathBuf> = links(&text)
        .iter()
        .filter_map(|link| resolve(index, link))
        .collect();
    let violations: Vec<String> = pages()
        .into_iter()
        .map(|(page, _)| page)
        .filter(|page| page.starts_with("docs/") && page != index && !linked.contains(Path::new(page)))
        .collect();
    report("pages that docs/README.md does not link", &violations);
}

#[test]
fn commands_of_the_documentation_are_targets_of_the_makefile() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', '#', ' ', '.']))
        .filter_map(|line| line.split_once(':'))
        .map(|(target, _)| target)
        .collect();
    let mut violations = Vec::new();
    let mut named = BTreeSet::new();
    for (page, text) in pages() {
        for line in code(&text) {
            let mut words = line.split_whitespace();
            if words.next() != Some("make") {
                continue;
            }
            let Some(target) = words.next() else { continue };
            if !targets.contains(target) {
                violations.push(format!("{page}: make {target}"));
            }
            named.insert(target.to_owned());
        }
    }
    report("commands that the Makefile does not have", &violations);
    assert!(
        named.contains("demo") && named.contains("test"),
        "the commands were not found: {named:?}"
    );
}

#[test]
fn commands_of_the_documentation_are_commands_of_the_program() {
    let help = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let mut violations = Vec::new();
    for (page, text) in pages() {
        for line in code(&text) {
            let Some(rest) = line.strip_prefix("tollgate ") else {
                continue;
            };
            let command = rest.split_whitespace().next().unwrap_or_default();
            if !has_word(&help, command) {
                violations.push(format!("{page}: tollgate {command}"));
            }
        }
    }
    report("commands that `tollgate --help` does not have", &violations);
}

#[test]
fn the_project_speaks_of_nothing_outside_itself() {
    // in parts, so that this file does not break its own rule
    let unfinished = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let places = [
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("/ro", "ot/"),
    ];
    let hosts = [
        concat!("crates", ".io"),
        concat!("pypi", ".org"),
        concat!("python", "hosted.org"),
        concat!("npm", "js.com"),
        concat!("npm", "js.org"),
        concat!("yarn", "pkg.com"),
        concat!("proxy.go", "lang.org"),
        concat!("ruby", "gems.org"),
        concat!("maven.", "org"),
        concat!("maven.", "apache.org"),
    ];
    let mut violations = Vec::new();
    for (path, text) in texts() {
        // cargo writes it
        if path.ends_with("Cargo.lock") {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            let unfinished = unfinished.iter().filter(|word| has_word(line, word));
            let places = places.iter().filter(|place| {
                line.match_indices(**place).any(|(at, _)| {
                    let before = line.get(..at).and_then(|text| text.chars().next_back());
                    !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '~' | '}'))
                })
            });
            let hosts = hosts.iter().filter(|host| line.contains(**host));
            violations.extend(
                unfinished
                    .chain(places)
                    .chain(hosts)
                    .map(|found| format!("{path}:{}: {found}", index + 1)),
            );
        }
    }
    report(
        "unfinished work, places of one machine, hosts of registries",
        &violations,
    );
}

#[test]
fn the_changelog_knows_the_version() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        changelog.contains("## [Unreleased]") || changelog.contains(&format!("## [{version}]")),
        "CHANGELOG.md has neither a section for what is to come nor one for {version}"
    );
}

#[test]
fn the_guide_has_every_reason() {
    let pages = [
        (
            "docs/guide/what-is-cached-and-when-it-is-fresh.md",
            policy::BypassReason::ALL
                .map(policy::BypassReason::as_str)
                .to_vec(),
        ),
        (
            "docs/guide/what-is-cached-and-when-it-is-fresh.md",
            [
                cache::BypassReason::TooBig,
                cache::BypassReason::WriteInFlight,
                cache::BypassReason::Crowded,
            ]
            .map(cache::BypassReason::as_str)
            .to_vec(),
        ),
        (
            "docs/guide/what-is-cached-and-when-it-is-fresh.md",
            Verdict::WORDS.to_vec(),
        ),
        (
            "docs/guide/quotas.md",
            RefusalReason::ALL.map(RefusalReason::as_str).to_vec(),
        ),
    ];
    let mut violations = Vec::new();
    for (page, words) in pages {
        let text = fs::read_to_string(root().join(page)).unwrap();
        violations.extend(
            words
                .iter()
                .filter(|word| !text.contains(&format!("`{word}`")))
                .map(|word| format!("{page}: {word}")),
        );
    }
    report("words that the guide does not explain", &violations);
}

/// Whether a licence expression of SPDX allows a choice that `allowed` has. The old form with `/` means OR.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> Result<bool, String> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let verdict = either(&mut rest, allowed)?;
    match rest.first() {
        None => Ok(verdict),
        Some(word) => Err(format!("{word} is not expected in {expression}")),
    }
}

fn either(words: &mut &[&str], allowed: &BTreeSet<String>) -> Result<bool, String> {
    let mut verdict = both(words, allowed)?;
    while let [first, rest @ ..] = *words
        && first.eq_ignore_ascii_case("or")
    {
        *words = rest;
        verdict |= both(words, allowed)?;
    }
    Ok(verdict)
}

fn both(words: &mut &[&str], allowed: &BTreeSet<String>) -> Result<bool, String> {
    let mut verdict = one(words, allowed)?;
    while let [first, rest @ ..] = *words
        && first.eq_ignore_ascii_case("and")
    {
        *words = rest;
        verdict &= one(words, allowed)?;
    }
    Ok(verdict)
}

fn one(words: &mut &[&str], allowed: &BTreeSet<String>) -> Result<bool, String> {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let verdict = either(words, allowed)?;
            match *words {
                [")", rest @ ..] => {
                    *words = rest;
                    Ok(verdict)
                }
                _ => Err("a parenthesis is not closed".to_owned()),
            }
        }
        [name, with, exception, rest @ ..] if with.eq_ignore_ascii_case("with") => {
            *words = rest;
            Ok(allowed.contains(&format!("{name} WITH {exception}")))
        }
        [name, rest @ ..] => {
            *words = rest;
            Ok(allowed.contains(*name))
        }
        [] => Err("the expression ends too early".to_owned()),
    }
}

fn strings(value: Option<&toml::Value>) -> BTreeSet<String> {
    let list = value.and_then(toml::Value::as_array).into_iter().flatten();
    list.filter_map(toml::Value::as_str).map(str::to_owned).collect()
}

#[test]
fn licence_expressions_are_read() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]
        .map(str::to_owned)
        .into();
    for (expression, expected) in [
        ("MIT", Ok(true)),
        ("GPL-3.0-only", Ok(false)),
        ("MIT OR GPL-3.0-only", Ok(true)),
        ("MIT/GPL-3.0-only", Ok(true)),
        ("MIT AND GPL-3.0-only", Ok(false)),
        ("GPL-3.0-only OR MIT AND ISC", Ok(true)),
        ("(GPL-3.0-only OR MIT) AND ISC", Ok(true)),
        ("(GPL-3.0-only OR X) AND ISC", Ok(false)),
        ("Apache-2.0 WITH LLVM-exception", Ok(true)),
        ("Apache-2.0", Ok(false)),
    ] {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
    for wrong in ["", "MIT OR", "(MIT", "MIT ISC"] {
        assert!(is_allowed(wrong, &allowed).is_err(), "{wrong}");
    }
}

#[test]
fn every_package_has_a_licence_that_deny_toml_allows() {
    let deny: toml::Table = fs::read_to_string(root().join("deny.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let licenses = deny.get("licenses").unwrap();
    let allowed = strings(licenses.get("allow"));
    assert!(allowed.contains("MIT"), "deny.toml was not understood");
    let exceptions = licenses.get("exceptions").and_then(toml::Value::as_array);
    let banned: BTreeSet<String> = deny
        .get("bans")
        .and_then(|bans| bans.get("deny"))
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|ban| ban.get("crate").and_then(toml::Value::as_str))
        .map(str::to_owned)
        .collect();
    // of the host only: packages for other systems may never have been fetched
    let host = Command::new("rustc").arg("-vV").output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .args(["--filter-platform", host])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        metadata.status.success(),
        "{}",
        String::from_utf8_lossy(&metadata.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata
        .get("packages")
        .and_then(serde_json::Value::as_array)
        .unwrap();
    assert!(packages.len() > 100, "the packages were not found");
    let mut violations = Vec::new();
    for package in packages {
        let text = |field: &str| package.get(field).and_then(serde_json::Value::as_str);
        let (name, licence) = (text("name").unwrap(), text("license").unwrap_or("none"));
        let mut allowed = allowed.clone();
        for exception in exceptions.into_iter().flatten() {
            if exception.get("crate").and_then(toml::Value::as_str) == Some(name) {
                allowed.extend(strings(exception.get("allow")));
            }
        }
        match is_allowed(licence, &allowed) {
            Ok(true) => {}
            Ok(false) => violations.push(format!("{name}: {licence}")),
            Err(error) => violations.push(format!("{name}: {licence}: {error}")),
        }
        if banned.contains(name) {
            violations.push(format!("{name}: banned"));
        }
    }
    report("packages that deny.toml does not allow", &violations);
}
