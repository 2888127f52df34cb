//! What many idle clients cost those who ask: the same load, with so many connected beside it.

use std::fmt;
use std::net::TcpStream;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Outcome;
use crate::client::Client;
use crate::pgbench::{Load, Mode, Sample};
use crate::servers::{IDLE_USER, Server, Servers};

/// Descriptors that a process with idle clients needs beside theirs.
const FOR_OTHERS: u64 = 2_000;

/// Runs that stood next to each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside {
    pub(crate) pgbouncer: Sample,
    pub(crate) tollgate: Sample,
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PgBouncer {}, Tollgate {}", self.pgbouncer, self.tollgate)
    }
}

/// How many of `wanted` idle clients there can be, after this process, and with it those that it starts, may have as many
/// descriptors as the system allows.
pub(crate) fn room_for(wanted: u32) -> Outcome<u32> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    let room = u32::try_from(hard.saturating_sub(FOR_OTHERS)).unwrap_or(u32::MAX);
    if room < wanted {
        eprintln!("{room} instead of {wanted} idle clients: a process may have {hard} descriptors here");
    }
    Ok(wanted.min(room))
}

/// The relay's load through each, beside `idle` clients; `reversed` says that Tollgate comes first.
pub(crate) fn side_by_side(
    servers: &Servers,
    load: Load,
    clients: u32,
    idle: u32,
    workers: usize,
    reversed: bool,
) -> Outcome<Beside> {
    let pgbouncer = || measure(&servers.another_pgbouncer()?, load, clients, idle);
    let tollgate = || measure(&servers.another_tollgate(workers)?, load, clients, idle);
    if reversed {
        let tollgate = tollgate()?;
        return Ok(Beside {
            pgbouncer: pgbouncer()?,
            tollgate,
        });
    }
    Ok(Beside {
        pgbouncer: pgbouncer()?,
        tollgate: tollgate()?,
    })
}

fn measure(server: &Server, load: Load, clients: u32, idle: u32) -> Outcome<Sample> {
    // each has asked once
    let idle: Vec<TcpStream> = (0..idle)
        .map(|_| {
            let mut client = Client::connect_as(server, IDLE_USER)?;
            client.query("SELECT 1")?;
            Ok(client.into_stream())
        })
        .collect::<Outcome<_>>()?;
    let sample = load.select_only(server, Mode::Simple, clients)?;
    drop(idle);
    Ok(sample)
}
