//! PostgreSQL, PgBouncer in front of it in transaction and in session mode, and Tollgate in front of it, with equally
//! many connections; on demand those two again, and others.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postgres_protocol::password;
use tempfile::TempDir;

use crate::Outcome;
use crate::client::Client;
use crate::pgbench::{AGGREGATE, Mode};
use crate::support::{PasswordForm, Postgres, SUPERUSER, SUPERUSER_PASSWORD};

/// The user of the bench, at every server.
pub(crate) const USER: &str = "bench";
/// Its password.
pub(crate) const PASSWORD: &str = "bench";
/// A user whose login costs next to nothing, for many clients; it has the same password.
pub(crate) const IDLE_USER: &str = "idle";
/// Its database.
pub(crate) const DATABASE: &str = "bench";

/// Connections to PostgreSQL that each server in the middle may open.
pub(crate) const POOL: u32 = 20;

/// Clients that each server in the middle lets in.
const MAX_CLIENTS: u32 = 20_000;

/// How long a server may take to answer the first query.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ticks per second of the times in `/proc/PID/stat`: `USER_HZ`, the same on every architecture that we run on.
const TICKS_PER_SECOND: u64 = 100;

/// A server to measure.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    process: Option<Process>,
}

impl Server {
    /// A server that was started just now.
    pub(crate) fn started(name: &'static str, address: SocketAddr, process: Process) -> Self {
        Self {
            name,
            address,
            process: Some(process),
        }
    }

    /// Its process, if it is a single one.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.pid)
    }

    /// CPU time that it has used, of user and system together, with all processes that it has started; zero for
    /// PostgreSQL.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        let Some(pid) = self.pid() else {
            return Ok(Duration::ZERO);
        };
        let all = Spent::of_all()?;
        if !all.contains_key(&pid) {
            return Err(format!("{} has ended", self.name).into());
        }
        let is_its = |mut process: u32| loop {
            if process == pid {
                return true;
            }
            let Some(spent) = all.get(&process) else {
                return false;
            };
            process = spent.parent;
        };
        let ticks: u64 = all
            .iter()
            .filter(|(process, _)| is_its(**process))
            .map(|(_, spent)| spent.ticks)
            .sum();
        Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
    }

    /// Waits until `ready` says so.
    pub(crate) fn wait(&self, mut ready: impl FnMut(&mut Client) -> Outcome<bool>) -> Outcome<()> {
        let began = Instant::now();
        loop {
            let answer = Client::connect(self).and_then(|mut client| ready(&mut client));
            match answer {
                Ok(true) => return Ok(()),
                Ok(false) | Err(_) if began.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(false) => return Err(format!("{} did not get ready", self.name).into()),
                Err(error) => {
                    let log = self.process.as_ref().map(Process::log).unwrap_or_default();
                    return Err(format!("{} did not answer: {error}\n{log}", self.name).into());
                }
            }
        }
    }
}

/// What a process has used.
struct Spent {
    parent: u32,
    /// Of user and system, with those of its children that have ended.
    ticks: u64,
}

impl Spent {
    /// Every process, by its number.
    fn of_all() -> Outcome<HashMap<u32, Self>> {
        let mut all = HashMap::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // it may have ended meanwhile
            if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) {
                let spent = Self::parse(&text).ok_or("an unknown form of /proc/PID/stat")?;
                all.insert(pid, spent);
            }
        }
        Ok(all)
    }

    /// From `/proc/PID/stat`: the parent is field 4, times are fields 14 to 17.
    fn parse(text: &str) -> Option<Self> {
        // the second field, the program's name in parentheses, may have spaces
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let times = fields.get(11..15)?;
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            ticks: times.iter().filter_map(|time| time.parse::<u64>().ok()).sum(),
        })
    }
}

/// A process that ends when this value is dropped, and also when the bench is killed: a shell waits for the end of a
/// pipe that only the bench holds open.
pub(crate) struct Process {
    guard: Child,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its messages in the file `log`, as `owner` says.
    pub(crate) fn start(program: &mut Command, log: PathBuf, owner: Option<(u32, u32)>) -> Outcome<Self> {
        const GUARD: &str = r#"
            "$@" >&2 &
            echo $!
            read -r _
            kill $!
            wait $!
        "#;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", GUARD, "guard"])
            .arg(program.get_program())
            .args(program.get_args());
        if let Some((uid, gid)) = owner {
            command.uid(uid).gid(gid);
        }
        let mut guard = command
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let mut line = String::new();
        let output = guard.stdout.take().ok_or("no pipe")?;
        BufReader::new(output).read_line(&mut line)?;
        Ok(Self {
            guard,
            pid: line.trim().parse()?,
            log,
        })
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // there is nobody to tell of an error; the guard ends by itself
        drop(self.guard.wait());
    }
}

/// All of them.
pub(crate) struct Servers {
    pub(crate) direct: Server,
    by_transaction: Server,
    by_session: Server,
    pub(crate) tollgate: Server,
    directory: TempDir,
    owner: Option<(u32, u32)>,
    // dropped last
    postgres: Postgres,
}

impl Servers {
    /// Starts everything, with tables of `scale` times 100,000 accounts, and as many workers of Tollgate.
    pub(crate) fn start(scale: u32, workers: usize) -> Outcome<Self> {
        let postgres = Postgres::start_with(&[
            ("max_connections", "300"),
            ("shared_buffers", "512MB"),
            ("max_wal_size", "2GB"),
            ("checkpoint_timeout", "1h"),
            ("autovacuum", "off"),
        ]);
        postgres.add_user(USER, PASSWORD, PasswordForm::Scram);
        postgres.add_database(DATABASE, USER);
        fill(&postgres, scale)?;

        let directory = tempfile::Builder::new().prefix("tollgate-bench-").tempdir()?;
        // PgBouncer refuses to run as root, as PostgreSQL does, so it runs as PostgreSQL's owner and out of its directory
        let home = postgres.socket_directory();
        let metadata = fs::metadata(home)?;
        let owner = nix::unistd::geteuid()
            .is_root()
            .then(|| (metadata.uid(), metadata.gid()));
        let direct = Server {
            name: "PostgreSQL",
            address: postgres.address(),
            process: None,
        };
        let bouncer = |mode, auth| pgbouncer(home, postgres.address(), owner, mode, auth);
        let by_transaction = bouncer("transaction", "scram-sha-256")?;
        let by_session = bouncer("session", "scram-sha-256")?;
        let tollgate = tollgate(directory.path(), postgres.address(), workers)?;
        tollgate.wait(|client| {
            client.query(AGGREGATE)?;
            client.query(AGGREGATE)?;
            let last = client.query("SHOW tollgate.last")?.first;
            Ok(last.first().map(String::as_str) == Some("hit"))
        })?;
        Ok(Self {
            direct,
            by_transaction,
            by_session,
            tollgate,
            directory,
            owner,
            postgres,
        })
    }

    /// Another PgBouncer in transaction mode, whose clients log in cheaply.
    pub(crate) fn another_pgbouncer(&self) -> Outcome<Server> {
        let home = self.postgres.socket_directory();
        pgbouncer(home, self.postgres.address(), self.owner, "transaction", "md5")
    }

    /// Another Tollgate.
    pub(crate) fn another_tollgate(&self, workers: usize) -> Outcome<Server> {
        let server = tollgate(self.directory.path(), self.postgres.address(), workers)?;
        server.wait(|client| client.query("SELECT 1").map(|_| true))?;
        Ok(server)
    }

    /// Starts `program` as PostgreSQL's owner, with its messages in a file in [`Self::home`].
    pub(crate) fn start_as_owner(&self, program: &mut Command, log: &str) -> Outcome<Process> {
        Process::start(program, self.home().join(log), self.owner)
    }

    /// A directory that PostgreSQL's owner can read and write.
    pub(crate) fn home(&self) -> &Path {
        self.postgres.socket_directory()
    }

    /// PgBouncer for queries of this mode. Its transaction mode does not carry prepared statements in the versions that
    /// distributions have, so those go through its session mode.
    pub(crate) fn pgbouncer(&self, mode: Mode) -> &Server {
        match mode {
            Mode::Simple | Mode::Extended => &self.by_transaction,
            Mode::Prepared => &self.by_session,
        }
    }

    /// A path for a file of the bench.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn fill(postgres: &Postgres, scale: u32) -> Outcome<()> {
    let address = postgres.address();
    let output = Command::new("pgbench")
        .args(["-i", "-q", "-s", &scale.to_string(), "-h"])
        .arg(address.ip().to_string())
        .args(["-p", &address.port().to_string(), "-U", USER, DATABASE])
        .env("PGPASSWORD", PASSWORD)
        .output()?;
    if !output.status.success() {
        return Err(format!(
            "pgbench could not fill its tables:\n{}",
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    // so that no later run meets the writing of dirty pages
    postgres.run("CHECKPOINT");
    Ok(())
}

fn pgbouncer(
    home: &Path,
    postgres: SocketAddr,
    owner: Option<(u32, u32)>,
    mode: &'static str,
    auth: &'static str,
) -> Outcome<Server> {
    let address = free_address()?;
    let users = home.join("pgbouncer-users.txt");
    fs::write(
        &users,
        format!("\"{USER}\" \"{PASSWORD}\"\n\"{IDLE_USER}\" \"{PASSWORD}\"\n"),
    )?;
    let config = home.join(format!("pgbouncer-{mode}-{auth}.ini"));
    let text = format!(
        "[databases]\n\
         {DATABASE} = host={} port={} dbname={DATABASE} user={USER}\n\
         [pgbouncer]\n\
         listen_addr = {}\n\
         listen_port = {}\n\
         unix_socket_dir =\n\
         auth_type = {auth}\n\
         auth_file = {}\n\
         pool_mode = {mode}\n\
         default_pool_size = {POOL}\n\
         max_client_conn = {MAX_CLIENTS}\n\
         log_connections = 0\n\
         log_disconnections = 0\n\
         ignore_startup_parameters = extra_float_digits\n",
        postgres.ip(),
        postgres.port(),
        address.ip(),
        address.port(),
        users.display(),
    );
    fs::write(&config, text)?;
    let program = installed("pgbouncer").ok_or("PgBouncer is not installed")?;
    // the log is opened before the account changes
    let process = Process::start(
        Command::new(program).arg(&config),
        home.join(format!("pgbouncer-{mode}-{auth}.log")),
        owner,
    )?;
    let server = Server::started("PgBouncer", address, process);
    server.wait(|client| client.query("SELECT 1").map(|_| true))?;
    Ok(server)
}

/// Where the program `name` is, if it is anywhere; those of an administrator need not be in `PATH`.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["/usr/sbin", "/usr/local/sbin"]
        .into_iter()
        .map(PathBuf::from)
        .chain(std::env::split_paths(&path))
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

fn tollgate(directory: &Path, postgres: SocketAddr, workers: usize) -> Outcome<Server> {
    let address = free_address()?;
    fs::write(directory.join("control.secret"), SUPERUSER_PASSWORD)?;
    fs::write(directory.join("bench.secret"), PASSWORD)?;
    // what is kept as MD5 is asked for as such
    fs::write(
        directory.join("idle.secret"),
        password::md5(PASSWORD.as_bytes(), IDLE_USER),
    )?;
    // every limit is on; up to as many clients as connections none is reached
    let text = format!(
        r#"
[listen]
address = "{address}"
max_connections = {MAX_CLIENTS}
max_connections_per_address = 0
workers = {workers}

[http]
address = "127.0.0.1:0"

[backend.postgres]
address = "{postgres}"
databases = ["{DATABASE}"]
max_connections = {POOL}
control = {{ user = "{SUPERUSER}", password = {{ file = "control.secret" }} }}

[team.bench]
backend = "postgres"
login = {{ user = "{USER}", password = {{ file = "bench.secret" }} }}

[team.bench.quota]
concurrent_queries = {POOL}
queue_length = 1000
queue_wait = "30s"
queries_per_minute = 1000000
burst = 1000000
query_time = "5min"

[user.{USER}]
team = "bench"
password = {{ file = "bench.secret" }}

[user.{IDLE_USER}]
team = "bench"
password = {{ file = "idle.secret" }}
"#
    );
    let config = directory.join("tollgate.toml");
    fs::write(&config, text)?;
    let process = Process::start(
        Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["serve", "--config"])
            .arg(&config),
        directory.join("tollgate.log"),
        None,
    )?;
    Ok(Server::started("Tollgate", address, process))
}

pub(crate) fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
