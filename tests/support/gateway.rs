//! The gateway as its users run it: the built program, a config file, two ports.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::http;
use super::log::Log;
pub(crate) use super::setup::{ANA, BEN, BI, CONTROL, DASH, GROWTH, ROOT, Setup, add_roles};
use super::wait::{becomes, eventually};
use super::wire::{Login, Wire};
use super::{Postgres, psql_at};

/// How long a program may take to end after SIGTERM.
const FAREWELL: Duration = Duration::from_secs(45);
/// Between the choice of a free port for HTTP and its use another process may take it.
const PORT_ATTEMPTS: usize = 10;
/// The config file's name.
const CONFIG: &str = "tollgate.toml";

/// A running gateway. When it is dropped it gets SIGTERM, must end in time with status 0, and must not have logged a
/// warning or an error that the test did not announce.
pub(crate) struct Gateway {
    setup: Setup,
    databases: Vec<String>,
    directory: TempDir,
    child: Option<Child>,
    /// Ends the program when the test's process is killed.
    guard: Child,
    log: Arc<Log>,
    address: SocketAddr,
    http: SocketAddr,
    expected: Mutex<Vec<String>>,
}

impl Gateway {
    /// Starts a gateway before `server`, and waits until it takes clients and knows the databases' definitions.
    pub(crate) fn start(server: &Postgres, databases: &[&str], setup: &Setup) -> Self {
        let gateway = Self::start_unready(server, databases, setup);
        // asked by HTTP, so that no quota is charged
        eventually("the gateway is ready", || {
            (http::get(gateway.http, "/readyz").0 == 200).then_some(())
        });
        gateway
    }

    /// Starts a gateway before `server`, and waits until it takes clients.
    pub(crate) fn start_unready(server: &Postgres, databases: &[&str], setup: &Setup) -> Self {
        for _ in 0..PORT_ATTEMPTS {
            let http = free_address();
            let directory = tempfile::tempdir().expect("a temporary directory");
            let config = directory.path().join(CONFIG);
            std::fs::write(&config, setup.text(server, databases, http)).expect("a file");
            let (mut gateway, address) = Self::spawn(setup, databases, http, directory, &[]);
            if let Some(address) = address {
                gateway.address = address;
                return gateway;
            }
            // it says so and ends; whatever else keeps it from starting fails the test when the value is dropped
            let lines = gateway.log().join("\n");
            assert!(lines.contains("in use"), "the gateway does not start:\n{lines}");
            gateway.kill();
            gateway.expect_log("in use");
        }
        panic!("no free port after {PORT_ATTEMPTS} attempts");
    }

    /// Starts the program with the config file in `directory`, and gives the address that it listens at, if it does.
    fn spawn(
        setup: &Setup,
        databases: &[&str],
        http: SocketAddr,
        directory: TempDir,
        arguments: &[&str],
    ) -> (Self, Option<SocketAddr>) {
        let mut child = program()
            .args(["serve", "--config"])
            .arg(directory.path().join(CONFIG))
            .args(arguments)
            .envs(setup.environment())
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("the gateway runs");
        let guard = guard(child.id());
        let log = Arc::new(Log::default());
        let messages = child.stderr.take().expect("a pipe");
        let sink = Arc::clone(&log);
        std::thread::spawn(move || sink.follow(messages));
        let address = log.find(|line| address_in(line, "listening"));
        let gateway = Self {
            setup: setup.clone(),
            databases: databases.iter().map(|name| (*name).to_owned()).collect(),
            directory,
            child: Some(child),
            guard,
            log,
            address: http,
            http,
            expected: Mutex::default(),
        };
        (gateway, address)
    }

    /// Starts another gateway with the same configuration, which takes over from this one.
    pub(crate) fn take_over(&self) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::copy(self.config(), directory.path().join(CONFIG)).expect("a file");
        let databases: Vec<&str> = self.databases.iter().map(String::as_str).collect();
        let (mut gateway, address) =
            Self::spawn(&self.setup, &databases, self.http, directory, &["--take-over"]);
        gateway.address = address.expect("it listens");
        gateway
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where HTTP is served.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// The first database.
    pub(crate) fn database(&self) -> &str {
        &self.databases[0]
    }

    /// A session of `user` in the first database.
    pub(crate) fn session(&self, user: (&str, &str)) -> Wire {
        Wire::login(self.address, &Login::new(user.0, user.1, self.database()))
    }

    /// A session of the console.
    pub(crate) fn console(&self) -> Wire {
        Wire::login(self.address, &Login::new(ROOT.0, ROOT.1, "tollgate"))
    }

    /// A connection string.
    pub(crate) fn url(&self, user: (&str, &str)) -> String {
        format!(
            "postgresql://{}:{}@{}/{}",
            user.0,
            user.1,
            self.address,
            self.database()
        )
    }

    /// Runs psql on `script` in the first database; rows unaligned, columns separated by `|`.
    pub(crate) fn psql(&self, user: (&str, &str), script: &str) -> Output {
        self.psql_in(user, self.database(), script)
    }

    /// As [`Self::psql`], in `database`.
    pub(crate) fn psql_in(&self, user: (&str, &str), database: &str, script: &str) -> Output {
        psql_at(self.address, user, database, script)
    }

    /// The count of a metric's series, e.g. `tollgate_clients{state="idle"}`; 0 if there is no such series yet.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let (status, text) = http::get(self.http, "/metrics");
        assert_eq!(status, 200, "{text}");
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
            // gauges are written as floating-point numbers
            .map_or(0, |count| count.trim_end_matches(".0").parse().expect("a count"))
    }

    /// The program's resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    /// The most resident memory that the program has had, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, name: &str) -> u64 {
        let id = self.child.as_ref().expect("it runs").id();
        let text = std::fs::read_to_string(format!("/proc/{id}/status")).expect("its status");
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok())
            .expect("its resident memory")
    }

    /// How many file descriptors the program has open.
    pub(crate) fn descriptors(&self) -> usize {
        let id = self.child.as_ref().expect("it runs").id();
        std::fs::read_dir(format!("/proc/{id}/fd"))
            .expect("its descriptors")
            .count()
    }

    /// Waits until a request waits for a connection to the backend.
    pub(crate) fn await_waiting(&self) {
        becomes(&1, || self.metric("tollgate_pool_waiting{backend=\"warehouse\"}"));
    }

    /// The log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.all()
    }

    /// Waits for a line of the log whose message is `message`.
    pub(crate) fn await_log(&self, message: &str) -> Value {
        self.log
            .wait(message, |line| (line["message"] == message).then(|| line.clone()))
    }

    /// Announces a warning or an error: a line that contains `text`.
    pub(crate) fn expect_log(&self, text: &str) {
        self.expected.lock().expect("the list").push(text.to_owned());
    }

    /// Replaces the config file; nobody reads it yet.
    pub(crate) fn write_config(&self, server: &Postgres, setup: &Setup) {
        let databases: Vec<&str> = self.databases.iter().map(String::as_str).collect();
        self.write_file(&setup.text(server, &databases, self.http));
    }

    /// Replaces the config file and has it read.
    pub(crate) fn reload(&self, server: &Postgres, setup: &Setup) {
        let applied = || self.metric("tollgate_config_reloads_total{outcome=\"applied\"}");
        let before = applied();
        self.write_config(server, setup);
        self.signal(Signal::SIGHUP);
        becomes(&(before + 1), applied);
    }

    /// Replaces the config file by `text`.
    pub(crate) fn write_file(&self, text: &str) {
        std::fs::write(self.config(), text).expect("a file");
    }

    /// The config file.
    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join(CONFIG)
    }

    /// The directory of the config file.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The variables that its config file names.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        self.setup.environment()
    }

    /// A connection string for the console.
    pub(crate) fn console_url(&self) -> String {
        format!("postgresql://{}:{}@{}/tollgate", ROOT.0, ROOT.1, self.address)
    }

    /// Ends the program at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("the gateway is there");
        child.wait().expect("its status");
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        let id = i32::try_from(child.id()).expect("a process id");
        kill(Pid::from_raw(id), signal).expect("the gateway is there");
    }

    /// Whether the program has ended by now, and how.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()
            .expect("it runs")
            .try_wait()
            .expect("its status")
    }

    /// Waits for the end of the program.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the gateway ends", || self.ended())
    }

    /// The lines of level WARN or ERROR that nobody announced.
    fn alarms(&self) -> Vec<String> {
        let expected = self.expected.lock().expect("the list");
        self.log
            .all()
            .into_iter()
            .filter(|line| {
                // what is no JSON is a panic, or an error before the log was set up
                let level = serde_json::from_str::<Value>(line).map(|line| line["level"].clone());
                !matches!(&level, Ok(Value::String(level)) if matches!(level.as_str(), "INFO" | "DEBUG" | "TRACE"))
            })
            .filter(|line| !expected.iter().any(|text| line.contains(text)))
            .collect()
    }

    fn stop(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let id = i32::try_from(child.id()).expect("a process id");
        let mut status = child.try_wait().expect("its status");
        if status.is_none() {
            kill(Pid::from_raw(id), Signal::SIGTERM).expect("the gateway is there");
            let deadline = Instant::now() + FAREWELL;
            while status.is_none() && Instant::now() < deadline {
                std::thread::park_timeout(Duration::from_millis(5));
                status = child.try_wait().expect("its status");
            }
        }
        let Some(status) = status else {
            child.kill().expect("the gateway is there");
            child.wait().expect("its status");
            return Err(format!("the gateway did not end {FAREWELL:?} after SIGTERM"));
        };
        if status.success() {
            Ok(())
        } else {
            Err(format!("the gateway ended with {status}"))
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // first, so that it cannot end a process that gets the same number
        drop(self.guard.kill());
        drop(self.guard.wait());
        let stopped = self.stop();
        let alarms = self.alarms();
        // to be looked at, also when the test passes
        if std::thread::panicking() || std::env::var_os("TOLLGATE_TEST_LOG").is_some() {
            eprintln!("--- the gateway's log ---\n{}\n---", self.log.all().join("\n"));
        }
        if std::thread::panicking() {
            if let Err(why) = stopped {
                eprintln!("{why}");
            }
            return;
        }
        if let Err(why) = stopped {
            panic!("{why}:\n{}", self.log.all().join("\n"));
        }
        assert!(
            alarms.is_empty(),
            "the log has warnings or errors:\n{}\nThe whole log:\n{}",
            alarms.join("\n"),
            self.log.all().join("\n")
        );
    }
}

/// The gateway's program, with nothing in its environment that could change what it does.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env_clear().envs(
        ["PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE"]
            .iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?))),
    );
    command
}

/// Kills the process `id` when this process ends, however it ends.
fn guard(id: u32) -> Child {
    Command::new("/bin/sh")
        .args(["-c", "read -r _; kill -KILL \"$1\"", "guard", &id.to_string()])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell runs")
}

fn address_in(line: &Value, message: &str) -> Option<SocketAddr> {
    (line["message"] == message)
        .then(|| line["address"].as_str()?.parse().ok())
        .flatten()
}

/// An address of the loopback network that nobody listens on now.
pub(crate) fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address")
}
