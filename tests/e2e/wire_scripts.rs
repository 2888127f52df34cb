//! Every script of `sql-fixtures/wire/` at PostgreSQL itself and through the gateway: the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::script::{Script, Venue, rendered};
use crate::stage::{database_of, direct, server};
use crate::support::Postgres;
use crate::support::gateway::{ANA, BEN, GROWTH, Gateway, Setup};
use crate::support::wire::{Login, Message, Reply, Wire};

/// Each script's name begins with the name of its chapter; a chapter is one test, with databases and gateways of its own.
macro_rules! chapters {
    ($($chapter:ident)*) => {
        const CHAPTERS: &[&str] = &[$(stringify!($chapter)),*];
        $(#[test]
        fn $chapter() {
            Chapter::new(stringify!($chapter)).play();
        })*
    };
}

chapters! {
    cached copy cursor ddl extended message pipeline portal session setting simple statement transaction turns
}

/// How long an answer may take: a script without one must not hold up the others for long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sessions past the gateway.
pub(crate) struct Direct<'a> {
    pub(crate) server: &'a Postgres,
    pub(crate) database: &'a str,
    /// How long an answer may take.
    pub(crate) patience: Duration,
}

impl Venue for Direct<'_> {
    fn connect(&mut self, parameters: &[(&str, &str)]) -> Result<Wire, Message> {
        let login = Login::new(GROWTH.0, GROWTH.1, self.database).with(parameters);
        Wire::try_login(self.server.address(), &login).inspect(|wire| wire.patience(self.patience))
    }
}

/// Sessions through the gateway.
pub(crate) struct Through<'a> {
    pub(crate) gateway: &'a Gateway,
    pub(crate) database: &'a str,
    /// How long an answer may take.
    pub(crate) patience: Duration,
}

impl Venue for Through<'_> {
    fn connect(&mut self, parameters: &[(&str, &str)]) -> Result<Wire, Message> {
        let login = Login::new(ANA.0, ANA.1, self.database).with(parameters);
        Wire::try_login(self.gateway.address(), &login).inspect(|wire| wire.patience(self.patience))
    }
}

/// Sessions through a gateway with three connections, of which two strangers take the one that was used last in turn:
/// whoever does not need to stay meets another connection at each step, and what the strangers left there.
struct Moved<'a> {
    through: Through<'a>,
    holding: Wire,
    other: Wire,
}

impl<'a> Moved<'a> {
    fn new(gateway: &'a Gateway, database: &'a str) -> Self {
        let stranger = |parameters: &[(&str, &str)]| {
            let login = Login::new(BEN.0, BEN.1, database).with(parameters);
            let mut wire = Wire::login(gateway.address(), &login);
            wire.run("SET DateStyle = 'German'; SET search_path = pg_catalog; SET extra_float_digits = -7");
            wire
        };
        let mut holding = stranger(&[
            ("client_encoding", "LATIN1"),
            ("options", "-c statement_timeout=55s"),
        ]);
        holding.run("BEGIN; SELECT 1");
        Self {
            through: Through {
                gateway,
                database,
                patience: PATIENCE,
            },
            holding,
            other: stranger(&[("TimeZone", "Asia/Tokyo"), ("application_name", "stranger")]),
        }
    }
}

impl Venue for Moved<'_> {
    fn connect(&mut self, parameters: &[(&str, &str)]) -> Result<Wire, Message> {
        self.through.connect(parameters)
    }

    fn between(&mut self) {
        self.other.run("BEGIN; SELECT 1");
        self.holding.run("COMMIT");
        std::mem::swap(&mut self.holding, &mut self.other);
    }
}

/// The scripts of one chapter, and where they are played.
struct Chapter {
    scripts: Vec<(PathBuf, Script)>,
    /// By encoding.
    databases: BTreeMap<String, String>,
    /// By the number of their connections, and how their sessions are pooled.
    gateways: BTreeMap<(usize, String), Gateway>,
    failures: Vec<String>,
}

impl Chapter {
    fn new(name: &str) -> Self {
        let only = std::env::var("SCRIPT").unwrap_or_default();
        let scripts = paths()
            .into_iter()
            .filter(|path| chapter_of(path) == name && name_of(path).contains(&only))
            .map(|path| {
                let text = fs::read_to_string(&path).expect("a script");
                let script = Script::read(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
                (path, script)
            });
        Self {
            scripts: scripts.collect(),
            databases: BTreeMap::new(),
            gateways: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    fn play(mut self) {
        let scripts = std::mem::take(&mut self.scripts);
        for (path, script) in &scripts {
            let encoding = encoding_of(script);
            let database = self
                .databases
                .entry(encoding.to_owned())
                .or_insert_with(|| database_of(encoding));
            if !script.setup.is_empty() {
                let reply = direct(database).query(&script.setup);
                assert!(reply.error().is_none(), "{}: {reply:?}", path.display());
            }
        }
        for (path, script) in &scripts {
            self.play_one(path, script);
        }
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
    }

    fn play_one(&mut self, path: &Path, script: &Script) {
        const WHOLE: &[usize] = &[usize::MAX];
        let update = std::env::var_os("UPDATE_FIXTURES").is_some();
        let name = name_of(path);
        let database = &self.databases[encoding_of(script)];
        let (expected, _) = played(
            script,
            &mut Direct {
                server: server(),
                database,
                patience: PATIENCE,
            },
            WHOLE,
        );
        if update {
            fs::write(path, script.rewritten(&expected)).expect("a script");
        }
        if expected.len() < script.steps.len() {
            self.failures.push(format!(
                "{name}: the server itself gives no answer to step {}",
                expected.len() + 1
            ));
            return;
        }
        for (index, (step, reply)) in script.steps.iter().zip(&expected).enumerate() {
            let text = rendered(reply);
            if !update && text != step.expected {
                self.failures.push(format!(
                    "{name}: the server itself, step {}:\n{text}--- instead of\n{}",
                    index + 1,
                    step.expected
                ));
            }
        }
        let connections = script
            .setting("connections")
            .map(|count| count.parse().expect("a number"));
        let alone = !script.has_several_clients();
        let connections = connections.unwrap_or(if alone { 20 } else { 2 });
        let databases: Vec<&str> = self.databases.values().map(String::as_str).collect();
        let pooling = script.setting("pooling").unwrap_or("transaction").to_owned();
        let start = |count| {
            let setup = Setup::new()
                .connections(count)
                .team(&format!("pooling = \"{pooling}\""))
                .backend("checkout_timeout = \"10s\"");
            let gateway = Gateway::start(server(), &databases, &setup);
            // what it reads of the definitions may meet one that a script is just dropping
            gateway.expect_log("could not follow the catalog");
            gateway
        };
        let gateway = &*self
            .gateways
            .entry((connections, pooling.clone()))
            .or_insert_with(|| start(connections));
        for (what, pieces) in [("cold", WHOLE), ("warm", WHOLE), ("byte by byte", &[1])] {
            let mut venue = Through {
                gateway,
                database,
                patience: PATIENCE,
            };
            let (found, wire) = played(script, &mut venue, pieces);
            if let Some(found) = undocumented(script, &format!("{name}: {what}"), &expected, &found) {
                // the others would most likely tell the same, and may take their time to
                self.failures.push(found);
                return;
            }
            if let (Some(verdict), Some(mut wire), true) = (script.setting("warm"), wire, what != "cold") {
                let (found, reason) = wire.last();
                if found != verdict {
                    self.failures.push(format!(
                        "{name}: {what}: the verdict is {found} ({reason}) instead of {verdict}"
                    ));
                }
            }
        }
        if alone {
            let gateway = &*self
                .gateways
                .entry((3, pooling.clone()))
                .or_insert_with(|| start(3));
            let (found, _) = played(script, &mut Moved::new(gateway, database), WHOLE);
            self.failures
                .extend(undocumented(script, &format!("{name}: moved"), &expected, &found));
        }
    }
}

fn paths() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql-fixtures/wire");
    let mut paths: Vec<PathBuf> = fs::read_dir(&directory)
        .expect("the directory of the scripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pt"))
        .collect();
    paths.sort();
    paths
}

fn name_of(path: &Path) -> String {
    path.file_stem().expect("a name").to_string_lossy().into_owned()
}

fn chapter_of(path: &Path) -> String {
    let name = name_of(path);
    name.split_once('-')
        .map_or(name.as_str(), |(chapter, _)| chapter)
        .to_owned()
}

fn encoding_of(script: &Script) -> &str {
    script.setting("encoding").unwrap_or("UTF8")
}

/// What was answered until the end, or until there was no answer; and the first client.
fn played(script: &Script, venue: &mut dyn Venue, pieces: &[usize]) -> (Vec<Reply>, Option<Wire>) {
    let mut replies = Vec::new();
    // a script without an answer must not hide what the others come to
    let wire = catch_unwind(AssertUnwindSafe(|| script.play(venue, pieces, &mut replies)));
    (replies.into_iter().map(comparable).collect(), wire.ok().flatten())
}

/// A reply without what differs each time: who notified, and the numbers of tables that the script itself makes.
pub(crate) fn comparable(mut reply: Reply) -> Reply {
    for message in &mut reply.0 {
        match message.tag {
            b'A' => message.body[..4].fill(0),
            b'T' => hide_tables(&mut message.body),
            _ => {}
        }
    }
    reply
}

/// Overwrites the tables' numbers in a RowDescription; that a column has a table stays.
fn hide_tables(body: &mut [u8]) {
    let mut at = 2;
    while let Some(end) = body[at..].iter().position(|byte| *byte == 0) {
        let table = &mut body[at + end + 1..at + end + 5];
        if *table != [0; 4] {
            table.fill(1);
        }
        at += end + 19;
    }
}

/// Whether a client cannot tell one reply from the other. An error that the gateway tells in the server's place does not
/// say where in the server's source it comes from; one that it passes on does.
fn alike(expected: &Reply, found: &Reply) -> bool {
    let without_source = |message: &Message| {
        let mut fields = message.fields();
        fields.retain(|(letter, _)| !matches!(letter, 'F' | 'L' | 'R'));
        fields
    };
    expected.0.len() == found.0.len()
        && expected.0.iter().zip(&found.0).all(|(expected, found)| {
            expected == found
                || expected.tag == b'E'
                    && found.tag == b'E'
                    // who found out that the transaction has failed, a Parse or a Bind, is the server's affair
                    && (found.field('F').is_empty() || found.field('C') == "25P02")
                    && without_source(expected) == without_source(found)
        })
}

/// What differs, as text, but for what the script says: its lines `# differs: <step> <why>`.
fn undocumented(script: &Script, what: &str, expected: &[Reply], found: &[Reply]) -> Option<String> {
    let mut expected = expected.to_vec();
    for known in script.settings("differs") {
        let step: Option<usize> = known.split_once(' ').and_then(|(step, _)| step.parse().ok());
        let index = step
            .and_then(|step| step.checked_sub(1))
            .expect("# differs: <step> <why>");
        if let (Some(expected), Some(found)) = (expected.get_mut(index), found.get(index)) {
            // on another connection it may be as at the server
            if alike(expected, found) && what == "cold" {
                return Some(format!("{what}: step {} does not differ any more", index + 1));
            }
            expected.clone_from(found);
        }
    }
    difference(what, &expected, found)
}

/// What differs, as text.
pub(crate) fn difference(what: &str, expected: &[Reply], found: &[Reply]) -> Option<String> {
    let Some(step) = expected
        .iter()
        .zip(found)
        .position(|(expected, found)| !alike(expected, found))
    else {
        return (found.len() < expected.len())
            .then(|| format!("{what}: no answer to step {}", found.len() + 1));
    };
    Some(format!(
        "{what}, step {}:\n{}--- instead of\n{}",
        step + 1,
        rendered(&found[step]),
        rendered(&expected[step]),
    ))
}

#[test]
fn every_script_has_a_title_of_its_own_and_a_chapter() {
    let mut titles = BTreeMap::new();
    for path in paths() {
        let script = Script::read(&fs::read_to_string(&path).expect("a script")).expect("a script");
        assert!(
            CHAPTERS.contains(&chapter_of(&path).as_str()),
            "{}",
            path.display()
        );
        let title = script.head.lines().next().unwrap_or_default().to_owned();
        assert!(
            title.starts_with("# ") && title.ends_with('.'),
            "{}: {title}",
            path.display()
        );
        let other = titles.insert(title, path.clone());
        assert!(other.is_none(), "{} has the title of {other:?}", path.display());
    }
    assert!(titles.len() >= 120, "{} scripts", titles.len());
}
