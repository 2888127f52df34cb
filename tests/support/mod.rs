//! A private PostgreSQL for one test.
//!
//! The cluster is a copy of a template that is made once per target directory. It lives in a directory of its own,
//! listens on a Unix socket there and on a free port of the loopback address, and ends with the test: when the value
//! is dropped, when the test panics, and also when the test's process is killed, because a shell waits for the end of
//! a pipe that only the test holds open.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]
#![allow(
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "this is a part of tests"
)]

mod account;
mod template;
pub(crate) mod wait;
pub(crate) mod frames;
mod message;
pub(crate) mod wire;
pub(crate) mod http;
pub(crate) mod tls;
mod log;
mod setup;
pub(crate) mod gateway;
pub(crate) mod fault_proxy;
pub(crate) mod interposer;

use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tempfile::TempDir;

use self::account::Account;

/// The superuser; it needs no password on the Unix socket.
pub(crate) const SUPERUSER: &str = "postgres";
/// The superuser's password, for TCP.
pub(crate) const SUPERUSER_PASSWORD: &str = "postgres";

/// How long a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between the choice of a free port and its use another process may take it.
const PORT_ATTEMPTS: usize = 10;

/// How the server keeps a user's password.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PasswordForm {
    Scram,
    Md5,
}

/// A running server.
pub(crate) struct Postgres {
    programs: PathBuf,
    directory: TempDir,
    port: u16,
    guard: Child,
    log: Arc<Mutex<String>>,
}

impl Postgres {
    /// Starts a server.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with settings, e.g. `("max_prepared_transactions", "4")`.
    pub(crate) fn start_with(settings: &[(&str, &str)]) -> Self {
        let programs = programs();
        let account = Account::unprivileged();
        let directory = tempfile::Builder::new()
            .prefix("tollgate-pg-")
            .tempdir()
            .expect("a temporary directory");
        account.give(directory.path());
        template::copy(&programs, &account, &directory.path().join("data"));
        Self::up(programs, &account, directory, settings)
    }

    /// Starts the cluster in `directory` at a free port.
    fn up(programs: PathBuf, account: &Account, directory: TempDir, settings: &[(&str, &str)]) -> Self {
        for _ in 0..PORT_ATTEMPTS {
            let port = free_port();
            let (guard, log, ready) = launch(&programs, account, directory.path(), port, settings);
            if ready {
                return Self {
                    programs,
                    directory,
                    port,
                    guard,
                    log,
                };
            }
            let text = log.lock().expect("the log").clone();
            end(guard);
            assert!(
                text.contains("Address already in use"),
                "PostgreSQL did not start:\n{text}"
            );
        }
        panic!("no free port after {PORT_ATTEMPTS} attempts");
    }

    /// Starts a hot standby of `primary`.
    pub(crate) fn start_standby(primary: &Self) -> Self {
        let programs = programs();
        let account = Account::unprivileged();
        let directory = tempfile::Builder::new()
            .prefix("tollgate-pg-")
            .tempdir()
            .expect("a temporary directory");
        account.give(directory.path());
        let access = primary.directory.path().join("data/pg_hba.conf");
        let mut rules = std::fs::read_to_string(&access).expect("access rules");
        rules.push_str("local replication postgres trust\n");
        std::fs::write(&access, rules).expect("access rules");
        primary.run("SELECT pg_reload_conf()");
        // read by the postmaster at its next moment
        wait::eventually("replication is allowed", || {
            let known = primary.run(
                "SELECT count(*) FROM pg_hba_file_rules WHERE database = '{replication}' AND pg_conf_load_time() < now()",
            );
            let mut command = Command::new(programs.join("pg_basebackup"));
            command
                .args(["-R", "-X", "stream", "-c", "fast", "-U", SUPERUSER, "-h"])
                .arg(primary.directory.path())
                .args(["-p", &primary.port.to_string(), "-D"])
                .arg(directory.path().join("data"))
                .current_dir("/");
            account.apply(&mut command);
            (known != "0" && command.output().expect("pg_basebackup runs").status.success()).then_some(())
        });
        Self::up(programs, &account, directory, &[])
    }

    /// The TCP address.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The port: of TCP, and in the name of the Unix socket.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the Unix socket.
    pub(crate) fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    /// A connection string for TCP.
    pub(crate) fn url(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgresql://{user}:{password}@{}/{database}", self.address())
    }

    /// Runs psql on `sql` as the superuser in `database`; rows unaligned, columns separated by `|`.
    pub(crate) fn psql_in(&self, database: &str, sql: &str) -> Output {
        let mut command = Command::new(self.programs.join("psql"));
        command
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                SUPERUSER,
                "-d",
                database,
                "-f",
                "-",
                "-h",
            ])
            .arg(self.directory.path())
            .args(["-p", &self.port.to_string()]);
        fed(command, sql)
    }

    /// Runs psql on `script` as `user`, over TCP; otherwise as [`Self::psql_in`].
    pub(crate) fn psql_as(&self, user: (&str, &str), database: &str, script: &str) -> Output {
        psql_at(self.address(), user, database, script)
    }

    /// Runs psql on `sql` as the superuser in database `postgres`.
    pub(crate) fn psql(&self, sql: &str) -> Output {
        self.psql_in("postgres", sql)
    }

    /// Runs `sql` and gives what it printed; panics when it fails.
    pub(crate) fn run(&self, sql: &str) -> String {
        let output = self.psql(sql);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .expect("UTF-8")
            .trim_end()
            .to_owned()
    }

    /// Makes a user that may log in with `password`.
    pub(crate) fn add_user(&self, name: &str, password: &str, form: PasswordForm) {
        let form = match form {
            PasswordForm::Scram => "scram-sha-256",
            PasswordForm::Md5 => "md5",
        };
        self.run(&format!(
            "SET password_encryption = '{form}'; CREATE USER \"{name}\" PASSWORD '{password}'"
        ));
    }

    /// Makes a database.
    pub(crate) fn add_database(&self, name: &str, owner: &str) {
        self.run(&format!("CREATE DATABASE \"{name}\" OWNER \"{owner}\""));
    }

    /// What the server has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }
}

/// Makes a file one of the server's own that nobody else can read, as it wants of keys.
pub(crate) fn give_to_server(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("permissions");
    Account::unprivileged().give(path);
}

/// Runs psql on `script` at `address`; rows unaligned, columns separated by `|`.
pub(crate) fn psql_at(address: SocketAddr, user: (&str, &str), database: &str, script: &str) -> Output {
    let mut command = Command::new(programs().join("psql"));
    command
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"])
        .args(["-h", "127.0.0.1", "-p", &address.port().to_string()])
        .args(["-U", user.0, "-d", database])
        .env("PGPASSWORD", user.1);
    fed(command, script)
}

/// Runs psql with `script` as its input.
fn fed(mut psql: Command, script: &str) -> Output {
    let mut child = psql
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql runs");
    let mut input = child.stdin.take().expect("a pipe");
    let text = script.to_owned();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("psql ends");
    // psql stops reading at the first error
    drop(writer.join().expect("the writer ends"));
    output
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // there is nobody to tell of an error; the guard ends by itself
        drop(self.guard.wait());
    }
}

fn end(mut guard: Child) {
    drop(guard.stdin.take());
    guard.wait().expect("the guard ends");
}

/// Starts the server under a shell that stops it, and removes its directory, when standard input ends. Its messages go to the returned text; the
/// flag says whether it accepts connections.
fn launch(
    programs: &Path,
    account: &Account,
    directory: &Path,
    port: u16,
    settings: &[(&str, &str)],
) -> (Child, Arc<Mutex<String>>, bool) {
    // the background process does not read standard input; descriptor 3 is closed in the shell, so that the messages
    // end with the server
    const GUARD: &str = r#"
        exec 3>&2 2>/dev/null
        "$@" 2>&3 3>&- &
        exec 3>&-
        read -r _
        kill -QUIT $!
        wait $!
        cd / && rm -rf -- "$OLDPWD"
    "#;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", GUARD, "guard"])
        .arg(programs.join("postgres"))
        .arg("-D")
        .arg(directory.join("data"));
    command
        .arg("-k")
        .arg(directory)
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-F"]);
    for (name, value) in settings {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    account.apply(&mut command);
    // a signal from the terminal is for the test; the end of the pipe tells the guard
    command.current_dir(directory).process_group(0);
    let mut guard = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell runs");
    let log = Arc::new(Mutex::new(String::new()));
    let (sender, receiver) = mpsc::channel();
    let messages = guard.stderr.take().expect("a pipe");
    let sink = Arc::clone(&log);
    std::thread::spawn(move || follow(messages, &sink, &sender));
    let ready = receiver.recv_timeout(PATIENCE).unwrap_or(false);
    (guard, log, ready)
}

/// Copies messages to `log`; tells `ready` whether the server came up.
fn follow(messages: ChildStderr, log: &Mutex<String>, ready: &mpsc::Sender<bool>) {
    for line in BufReader::new(messages).lines() {
        let Ok(line) = line else { break };
        let is_ready = line.contains("database system is ready to accept");
        let mut log = log.lock().expect("the log");
        log.push_str(&line);
        log.push('\n');
        drop(log);
        if is_ready {
            // nobody listens any more when the start took too long
            ready.send(true).unwrap_or_default();
        }
    }
    ready.send(false).unwrap_or_default();
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// The directory of PostgreSQL's programs: `TOLLGATE_PG_BIN`, a directory of `PATH` that has `postgres`, or the newest
/// of `/usr/lib/postgresql/*/bin`.
pub(crate) fn programs() -> PathBuf {
    let named = std::env::var_os("TOLLGATE_PG_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut packaged: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .collect();
    packaged.sort();
    named
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(packaged.into_iter().rev().map(|(_, directory)| directory))
        .find(|directory| {
            ["postgres", "initdb", "psql"]
                .iter()
                .all(|program| directory.join(program).is_file())
        })
        .expect("PostgreSQL's programs: install PostgreSQL or set TOLLGATE_PG_BIN")
}
