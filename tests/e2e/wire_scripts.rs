//! Every script of `sql-fixtures/wire/` at PostgreSQL itself and through the gateway: the same bytes.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::script::{Script, rendered};
use crate::stage::{database, direct, server};
use crate::support::gateway::{ANA, Gateway, Setup};
use crate::support::wire::{Reply, Wire};

fn scripts() -> Vec<(PathBuf, Script)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql-fixtures/wire");
    let mut paths: Vec<PathBuf> = fs::read_dir(&directory)
        .expect("the directory of the scripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pt"))
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a script");
            let script = Script::read(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
            (path, script)
        })
        .collect()
}

/// The replies without what differs from connection to connection: who notified.
fn comparable(replies: Vec<Reply>) -> Vec<Reply> {
    let mut replies = replies;
    for message in replies.iter_mut().flat_map(|reply| &mut reply.0) {
        if message.tag == b'A' {
            message.body[..4].fill(0);
        }
    }
    replies
}

/// What differs, as text.
fn difference(what: &str, expected: &[Reply], found: &[Reply]) -> Option<String> {
    let step = expected.iter().zip(found).position(|(one, other)| one != other)?;
    Some(format!(
        "{what}, step {}:\n{}--- instead of\n{}--- as bytes\n{:?}\n{:?}\n",
        step + 1,
        rendered(&found[step]),
        rendered(&expected[step]),
        found[step].0,
        expected[step].0
    ))
}

#[test]
fn every_script_is_answered_as_by_the_server_itself_cold_warm_and_byte_by_byte() {
    let update = std::env::var_os("UPDATE_FIXTURES").is_some();
    let only = std::env::var("SCRIPT").unwrap_or_default();
    let scripts = scripts();
    assert!(scripts.len() >= 25, "{} scripts", scripts.len());
    let database = database("");
    for (path, script) in &scripts {
        let reply = direct(&database).query(&script.setup);
        assert!(reply.error().is_none(), "{}: {reply:?}", path.display());
    }
    let gateway = Gateway::start(server(), &[&database], &Setup::new());
    let mut failures = Vec::new();
    for (path, script) in &scripts {
        let name = path.file_stem().expect("a name").to_string_lossy();
        if !name.contains(&only) {
            continue;
        }
        let play = |mut wire: Wire, piece: usize| {
            wire.patience(Duration::from_secs(20));
            let mut replies = Vec::new();
            // a script without an answer must not hide what the others come to
            let played = catch_unwind(AssertUnwindSafe(|| script.play(&mut wire, piece, &mut replies)));
            (played.is_ok().then_some(wire), comparable(replies))
        };
        let (_, expected) = play(direct(&database), usize::MAX);
        if update {
            fs::write(path, script.rewritten(&expected)).expect("a script");
        }
        for (index, (step, reply)) in script.steps.iter().zip(&expected).enumerate() {
            let text = rendered(reply);
            if !update && text != step.expected {
                failures.push(format!(
                    "{name}: the server itself, step {}:\n{text}--- instead of\n{}",
                    index + 1,
                    step.expected
                ));
            }
        }
        for (what, piece) in [("cold", usize::MAX), ("warm", usize::MAX), ("byte by byte", 1)] {
            let (wire, found) = play(gateway.session(ANA), piece);
            failures.extend(difference(&format!("{name}: {what}"), &expected, &found));
            let Some(mut wire) = wire else {
                failures.push(format!("{name}: {what}: no answer to step {}", found.len() + 1));
                continue;
            };
            if let (Some(verdict), "warm" | "byte by byte") = (script.setting("warm"), what) {
                let (found, reason) = wire.last();
                if found != verdict {
                    failures.push(format!(
                        "{name}: {what}: the verdict is {found} ({reason}) instead of {verdict}"
                    ));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
