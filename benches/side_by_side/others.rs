//! Others in the middle, for comparison: HAProxy, which understands nothing and is a floor, and Pgpool-II. Each is started
//! for its run and ends with it, so that what it keeps open is in nobody's way.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::Outcome;
use crate::pgbench::{Load, Mode, Sample};
use crate::servers::{DATABASE, PASSWORD, Server, Servers, USER, free_address, installed};

/// Clients that may come beside those of the load: one that looks whether it is ready, and one that is about to go.
const ROOM: u32 = 2;

/// Another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Other {
    HaProxy,
    Pgpool,
}

impl Other {
    /// All.
    pub(crate) const ALL: [Self; 2] = [Self::HaProxy, Self::Pgpool];

    /// Its name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::HaProxy => "HAProxy",
            Self::Pgpool => "Pgpool-II",
        }
    }

    /// Its program, where it is installed.
    pub(crate) fn program(self) -> Option<PathBuf> {
        installed(match self {
            Self::HaProxy => "haproxy",
            Self::Pgpool => "pgpool",
        })
    }

    /// The command that tells its version.
    pub(crate) fn version(self) -> Option<Command> {
        let mut command = Command::new(self.program()?);
        command.arg(match self {
            Self::HaProxy => "-v",
            Self::Pgpool => "--version",
        });
        Some(command)
    }

    /// The relay's load through it; `None` where it is not installed.
    pub(crate) fn measure(
        self,
        servers: &Servers,
        load: Load,
        mode: Mode,
        clients: u32,
    ) -> Outcome<Option<Sample>> {
        let Some(program) = self.program() else {
            return Ok(None);
        };
        let server = match self {
            Self::HaProxy => haproxy(servers, program, clients)?,
            Self::Pgpool => pgpool(servers, program, clients)?,
        };
        server.wait(|client| client.query("SELECT 1").map(|_| true))?;
        // what logins cost is taken off, and the first of them open connections that later ones find open
        load.warm(&server, mode, clients)?;
        load.select_only(&server, mode, clients).map(Some)
    }
}

/// TCP in both directions, on one thread, as PgBouncer.
fn haproxy(servers: &Servers, program: PathBuf, clients: u32) -> Outcome<Server> {
    let address = free_address()?;
    let config = servers.home().join("haproxy.cfg");
    let text = format!(
        "global\n\
         \tmaxconn {}\n\
         \tnbthread 1\n\
         defaults\n\
         \tmode tcp\n\
         \ttimeout connect 10s\n\
         \ttimeout client 1h\n\
         \ttimeout server 1h\n\
         listen postgres\n\
         \tbind {address}\n\
         \tserver postgres {}\n",
        clients + ROOM,
        servers.direct.address,
    );
    fs::write(&config, text)?;
    let process = servers.start_as_owner(
        Command::new(program).args(["-db", "-f"]).arg(&config),
        "haproxy.log",
    )?;
    Ok(Server::started(Other::HaProxy.as_str(), address, process))
}

/// Its raw mode with a pool of connections: one server, nothing balanced, nothing kept, no statement looked into more than
/// that needs; a process for each client.
fn pgpool(servers: &Servers, program: PathBuf, clients: u32) -> Outcome<Server> {
    let (address, control) = (free_address()?, free_address()?);
    let home = servers.home().join("pgpool");
    fs::create_dir_all(&home)?;
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let directory = home.display();
    let text = format!(
        "backend_clustering_mode = 'raw'\n\
         listen_addresses = '{}'\n\
         port = {}\n\
         unix_socket_directories = '{directory}'\n\
         pcp_listen_addresses = '{}'\n\
         pcp_port = {}\n\
         pcp_socket_dir = '{directory}'\n\
         pid_file_name = '{directory}/pgpool.pid'\n\
         logdir = '{directory}'\n\
         backend_hostname0 = '{}'\n\
         backend_port0 = {}\n\
         enable_pool_hba = on\n\
         pool_passwd = 'pool_passwd'\n\
         num_init_children = {}\n\
         max_pool = 1\n\
         connection_cache = on\n\
         child_life_time = 0\n\
         load_balance_mode = off\n\
         memory_cache_enabled = off\n\
         check_temp_table = none\n\
         check_unlogged_table = off\n\
         log_min_messages = warning\n",
        address.ip(),
        address.port(),
        control.ip(),
        control.port(),
        servers.direct.address.ip(),
        servers.direct.address.port(),
        clients + ROOM,
    );
    fs::write(home.join("pgpool.conf"), text)?;
    fs::write(
        home.join("pool_hba.conf"),
        format!("host {DATABASE} {USER} samenet scram-sha-256\n"),
    )?;
    fs::write(home.join("pool_passwd"), format!("{USER}:TEXT{PASSWORD}\n"))?;
    fs::write(home.join("pcp.conf"), "")?;
    let mut command = Command::new(program);
    command.arg("-n");
    for (flag, file) in [("-f", "pgpool.conf"), ("-a", "pool_hba.conf"), ("-F", "pcp.conf")] {
        command.arg(flag).arg(home.join(file));
    }
    let process = servers.start_as_owner(&mut command, "pgpool.log")?;
    Ok(Server::started(Other::Pgpool.as_str(), address, process))
}
