//! The configuration as its users meet it: the generated files, the examples, and what each mistake is answered.
//!
//! `UPDATE_DOCS=1 cargo test --test config` writes the generated files anew; `UPDATE_FIXTURES=1` does so with the
//! expected errors of `config/bad/`, which is then to be read before it is committed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tollgate::config::{self, Config, Environment, Mistake, reference};

/// Variables and files that exist for every configuration here. Neither is a secret of anybody.
struct Fixed;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";
const ENCRYPTED_KEY: &str =
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n";

impl Environment for Fixed {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "EMPTY" => Some(String::new()),
            "VERIFIER" => Some("md568e256fda3a5bc363bebdce506974683".to_owned()),
            _ if name.ends_with("_PASSWORD") => Some("tiger".to_owned()),
            _ => None,
        }
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        let text = match path.to_str() {
            Some("control.secret" | "/etc/tollgate/control.secret") => "tiger\n",
            Some("two-lines.secret") => "tiger\nlion\n",
            Some("server.crt" | "ca.crt" | "/etc/ssl/certs/ca-certificates.crt") => CERTIFICATE,
            Some("server.key") => KEY,
            Some("encrypted.key") => ENCRYPTED_KEY,
            Some("forbidden.secret") => return Err(io::ErrorKind::PermissionDenied.into()),
            Some(_) | None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(text.to_owned())
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn updating(what: &str) -> bool {
    std::env::var_os(what).is_some()
}

fn files(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(directory)).expect("the directory is in the package");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the directory can be read").path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

fn printed(result: Result<Config, Vec<Mistake>>) -> Vec<String> {
    result
        .err()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// A configuration that cannot be wrong: a mistake fails the test and is shown.
fn sound(text: &str) -> Config {
    config::parse(text, &Fixed).unwrap_or_else(|mistakes| panic!("{:#?}", printed(Err(mistakes))))
}

#[test]
fn the_generated_files_are_up_to_date() {
    for (file, text) in [
        ("docs/reference/config.md", reference::markdown()),
        ("config/tollgate.toml", reference::example()),
    ] {
        let path = root().join(file);
        if updating("UPDATE_DOCS") {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let there = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == text,
            "{file} is not what the declarations say; run `make docs`"
        );
    }
}

#[test]
fn the_generated_example_states_the_defaults() {
    let text = reference::example();
    let written = |keep_examples: bool| -> String {
        let setting = |line: &str| {
            line.strip_prefix('#')
                .is_some_and(|rest| !rest.starts_with(' ') && !rest.is_empty())
        };
        let wanted = |line: &str| setting(line) && (keep_examples || !line.contains("  # without this line"));
        text.lines()
            .map(|line| if wanted(line) { &line[1..] } else { line }.to_owned() + "\n")
            .collect()
    };
    assert_eq!(
        sound(&text),
        sound(&written(false)),
        "a line of the example is not the default"
    );
    // `ca` alone would be a contradiction, and so would a user's `certificate`
    let every = sound(
        &written(true)
            .replace("\ntls = \"off\"", "\ntls = \"verify-full\"")
            .replace("required = false }", "required = false, client_ca = \"ca.crt\" }"),
    );
    assert!(every.listen.tls.is_some() && every.backends.values().all(|backend| backend.ca.is_some()));
}

#[test]
fn the_examples_have_no_mistake() {
    let examples = files("config/examples");
    assert!(examples.len() >= 3);
    for file in examples {
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(
            printed(config::parse(&text, &Fixed)),
            Vec::<String>::new(),
            "{}",
            file.display()
        );
    }
}

#[test]
fn every_mistake_is_told_with_its_line_and_its_fix() {
    let bad = files("config/bad");
    assert!(bad.len() >= 35, "{} bad configurations", bad.len());
    for file in bad {
        let text = fs::read_to_string(&file).unwrap();
        let expected: Vec<String> = text
            .lines()
            .map_while(|line| line.strip_prefix("# error: "))
            .map(str::to_owned)
            .collect();
        if updating("UPDATE_FIXTURES") {
            let body: Vec<&str> = text
                .lines()
                .skip_while(|line| line.starts_with("# error:"))
                .collect();
            let body = body.join("\n");
            let count = printed(config::parse(&body, &Fixed)).len();
            let told = printed(config::parse(&("#\n".repeat(count) + &body), &Fixed));
            let header: Vec<String> = told.iter().map(|line| format!("# error: {line}\n")).collect();
            fs::write(&file, header.concat() + &body + "\n").unwrap();
            continue;
        }
        let told = printed(config::parse(&text, &Fixed));
        assert_eq!(told, expected, "{}", file.display());
        assert!(!told.is_empty(), "{} has no mistake", file.display());
        for line in told {
            assert!(
                !line.contains("tiger") && !line.contains("hunter2"),
                "{}: a secret in {line}",
                file.display()
            );
        }
    }
}
