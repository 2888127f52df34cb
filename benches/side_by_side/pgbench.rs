//! Runs of pgbench, and the CPU time that the server in the middle spends on them.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::Outcome;
use crate::client::Client;
use crate::servers::{DATABASE, PASSWORD, Server, Servers, USER};

/// An aggregate over a tenth of the accounts at the default scale: tens of milliseconds at the backend.
pub(crate) const AGGREGATE: &str = "SELECT count(*), sum(abalance) FROM pgbench_accounts WHERE bid = 1";

/// How pgbench sends its queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `Query`.
    Simple,
    /// `Parse`, `Bind`, `Describe`, `Execute`, `Sync` each time.
    Extended,
    /// A named statement once, then `Bind`, `Describe`, `Execute`, `Sync`.
    Prepared,
}

impl Mode {
    /// All.
    pub(crate) const ALL: [Self; 3] = [Self::Simple, Self::Extended, Self::Prepared];

    /// pgbench's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

/// What a run gave.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Queries per second.
    pub(crate) throughput: f64,
    /// CPU time per query of the server that pgbench talks to, in µs. 0 for PostgreSQL, which has many processes.
    pub(crate) cpu: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}/s {:.1} µs", self.throughput, self.cpu)
    }
}

/// What all runs have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Threads of pgbench.
    pub(crate) threads: u32,
    /// How long a run is.
    pub(crate) length: Duration,
}

/// How long pgbench runs.
#[derive(Clone, Copy)]
enum Until {
    Over(Duration),
    /// Each client has asked once.
    Once,
}

impl Load {
    /// pgbench's own `-S`: one account by its number.
    pub(crate) fn select_only(self, server: &Server, mode: Mode, clients: u32) -> Outcome<Sample> {
        self.measure(server, mode, clients, &["-S".into()])
    }

    /// Each client asks once.
    pub(crate) fn warm(self, server: &Server, mode: Mode, clients: u32) -> Outcome<()> {
        self.run(server, mode, clients, &["-S".into()], Until::Once)
            .map(drop)
    }

    /// The same aggregate again and again, answered from Tollgate's memory.
    pub(crate) fn cached(self, servers: &Servers, mode: Mode, clients: u32) -> Outcome<Sample> {
        let script: PathBuf = servers.file("aggregate.sql");
        std::fs::write(&script, format!("{AGGREGATE};\n"))?;
        let sample = self.measure(
            &servers.tollgate,
            mode,
            clients,
            &["-f".into(), script.into_os_string()],
        )?;
        let mut client = Client::connect(&servers.tollgate)?;
        client.query(AGGREGATE)?;
        let last = client.query("SHOW tollgate.last")?.first;
        if last.first().map(String::as_str) != Some("hit") {
            return Err(format!("the aggregate is not answered from memory: {last:?}").into());
        }
        Ok(sample)
    }

    fn measure(
        self,
        server: &Server,
        mode: Mode,
        clients: u32,
        script: &[std::ffi::OsString],
    ) -> Outcome<Sample> {
        // logins cost more than queries: what as many of them cost is taken off
        let before = server.cpu()?;
        let warm = self.run(server, mode, clients, script, Until::Once)?;
        let between = server.cpu()?;
        let run = self.run(server, mode, clients, script, Until::Over(self.length))?;
        let after = server.cpu()?;
        let queries = run.transactions.saturating_sub(warm.transactions).max(1);
        let spent = (after.saturating_sub(between)).saturating_sub(between.saturating_sub(before));
        #[allow(
            clippy::cast_precision_loss,
            reason = "far fewer queries than a float counts exactly"
        )]
        let cpu = spent.as_secs_f64() * 1e6 / queries as f64;
        Ok(Sample {
            throughput: run.throughput,
            cpu,
        })
    }

    fn run(
        self,
        server: &Server,
        mode: Mode,
        clients: u32,
        script: &[std::ffi::OsString],
        until: Until,
    ) -> Outcome<Run> {
        let mut command = Command::new("pgbench");
        command
            .args(["-n", "-M", mode.as_str(), "-h"])
            .arg(server.address.ip().to_string())
            .args(["-p", &server.address.port().to_string()])
            .args(["-c", &clients.to_string()])
            .args(["-j", &self.threads.min(clients).to_string()])
            .args(["-U", USER])
            .args(script)
            .env("PGPASSWORD", PASSWORD);
        match until {
            Until::Over(length) => command.args(["-T", &length.as_secs().to_string()]),
            Until::Once => command.args(["-t", "1"]),
        };
        let output = command.arg(DATABASE).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let run = Run::parse(&text);
        match run {
            Some(run) if output.status.success() => Ok(run),
            _ => Err(format!(
                "pgbench {} at {} failed:\n{}{text}",
                mode.as_str(),
                server.name,
                String::from_utf8_lossy(&output.stderr)
            )
            .into()),
        }
    }
}

struct Run {
    transactions: u64,
    throughput: f64,
}

impl Run {
    /// From `number of transactions actually processed: 81234` (with `/16` behind it after `-t`), and
    /// `tps = 20304.123456 (without initial connection time)`.
    fn parse(text: &str) -> Option<Self> {
        let after = |prefix: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(prefix))?;
            line.split(['/', ' ']).next()
        };
        Some(Self {
            transactions: after("number of transactions actually processed: ")?
                .parse()
                .ok()?,
            throughput: after("tps = ")?.parse().ok()?,
        })
    }
}
