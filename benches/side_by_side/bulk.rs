//! One large result, read to its end.

use std::fmt;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::client::Client;
use crate::pgbench::Mode;
use crate::servers::{Server, Servers};

/// Every account: about 120 bytes a row. Not an aggregate, so no answer from memory.
const EVERYTHING: &str = "SELECT * FROM pgbench_accounts";

/// How long each took, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bulk {
    pub(crate) direct: Duration,
    pub(crate) pgbouncer: Duration,
    pub(crate) tollgate: Duration,
}

impl fmt::Display for Bulk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "direct {:.3} s, PgBouncer {:.3} s, Tollgate {:.3} s",
            self.direct.as_secs_f64(),
            self.pgbouncer.as_secs_f64(),
            self.tollgate.as_secs_f64()
        )
    }
}

/// Reads it from each; `reversed` says that Tollgate comes first.
pub(crate) fn side_by_side(servers: &Servers, reversed: bool) -> Outcome<Bulk> {
    let bouncer = servers.pgbouncer(Mode::Simple);
    if reversed {
        let tollgate = read_all(&servers.tollgate)?;
        let pgbouncer = read_all(bouncer)?;
        let direct = read_all(&servers.direct)?;
        return Ok(Bulk {
            direct,
            pgbouncer,
            tollgate,
        });
    }
    Ok(Bulk {
        direct: read_all(&servers.direct)?,
        pgbouncer: read_all(bouncer)?,
        tollgate: read_all(&servers.tollgate)?,
    })
}

/// From the query's sending to the last byte, login not included.
pub(crate) fn read_all(server: &Server) -> Outcome<Duration> {
    let mut client = Client::connect(server)?;
    client.query("SELECT 1")?;
    let began = Instant::now();
    let answer = client.query(EVERYTHING)?;
    let took = began.elapsed();
    if answer.rows == 0 || answer.bytes < 80 * answer.rows {
        return Err("the bulk result is not what it should be".into());
    }
    Ok(took)
}
