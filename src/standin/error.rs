//! Why the stand-in could not start. Each message says the fix.

use std::io;
use std::path::{Path, PathBuf};

use super::MAX_EVENTS;

/// Why the stand-in could not start.
#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    /// No PostgreSQL on this machine, or none where it was said to be.
    #[error(
        "PostgreSQL's programs \"initdb\" and \"postgres\" are not in {searched}; install PostgreSQL (on Debian \
         and Ubuntu: docker/standin/install.sh, or apt-get install postgresql), or name their directory with \
         TOLLGATE_PG_BIN"
    )]
    NoPrograms {
        /// The places that were searched, in order.
        searched: String,
    },
    /// A PostgreSQL that is too old.
    #[error("{} has PostgreSQL {found}; the stand-in needs {needed} or newer", directory.display())]
    TooOld {
        /// Where the programs are.
        directory: PathBuf,
        /// Their major version.
        found: u32,
        /// The oldest that works.
        needed: u32,
    },
    /// The directory was made by another major version.
    #[error(
        "{} was made by PostgreSQL {made_by}, but PostgreSQL {found} is what is installed; install version \
         {made_by}, or choose another directory with --data",
        directory.display()
    )]
    OtherVersion {
        /// The stand-in's directory.
        directory: PathBuf,
        /// The major version that made it.
        made_by: u32,
        /// The newest major version found.
        found: u32,
    },
    /// The directory holds something else.
    #[error(
        "{} is not empty and was not made by tollgate; nothing was changed; choose an empty or a new directory \
         with --data",
        directory.display()
    )]
    NotOurs {
        /// The directory asked for.
        directory: PathBuf,
    },
    /// Another process runs the stand-in of this directory.
    #[error(
        "another tollgate (process {process}) runs the stand-in in {}; stop it, or choose another directory with \
         --data",
        directory.display()
    )]
    InUse {
        /// The directory asked for.
        directory: PathBuf,
        /// What the other process wrote into the lock file: its id.
        process: String,
    },
    /// Neither `--data` nor a home directory.
    #[error("there is no home directory to keep the demo in; choose a directory with --data")]
    NoHome,
    /// A path that cannot be written into a config file or a socket address.
    #[error("{} is not valid UTF-8; choose another directory with --data", path.display())]
    PathNotText {
        /// The path.
        path: PathBuf,
    },
    /// No directory for the socket.
    #[error("{} exists and belongs to someone else; remove it, or choose a shorter path with --data", path.display())]
    SocketDirectoryTaken {
        /// The directory that was to hold the socket.
        path: PathBuf,
    },
    /// Started as root on a machine without an unprivileged user.
    #[error(
        "PostgreSQL does not run as root, and there is neither a user \"postgres\" nor \"nobody\" to run it"
    )]
    NoUnprivilegedUser,
    /// Started as root in a place that the unprivileged user cannot enter.
    #[error(
        "PostgreSQL runs as user \"{user}\", which cannot enter {}; choose a directory with --data that every \
         user may enter, e.g. /var/lib/tollgate/demo",
        directory.display()
    )]
    Unreachable {
        /// The directory of the cluster.
        directory: PathBuf,
        /// The user that would run the server.
        user: String,
    },
    /// More events than can be made.
    #[error("{0} events are more than the {MAX_EVENTS} that the demo can have")]
    TooManyEvents(u64),
    /// One of PostgreSQL's programs failed.
    #[error("{} failed: {output}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// The end of what it said.
        output: String,
    },
    /// The server ended before it answered.
    #[error("the stand-in's PostgreSQL did not start ({status}); the end of {}: {tail}", log.display())]
    DidNotStart {
        /// Its exit status.
        status: String,
        /// The server's log.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// The server runs but did not answer in time.
    #[error("the stand-in's PostgreSQL did not answer within {seconds} s; see {}", log.display())]
    NoAnswer {
        /// How long was waited.
        seconds: u64,
        /// The server's log.
        log: PathBuf,
    },
    /// The server refused something.
    #[error("could not {doing}")]
    Database {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// The server's answer.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The operating system refused something.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// The thread that makes the demo data ended early.
    #[error("the generator of the demo data ended early")]
    Generator,
}

/// Makes an [`StandInError::Io`] of an [`io::Error`], for `map_err`.
pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StandInError {
    move |source| StandInError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// Makes a [`StandInError::Database`] of the server's answer, for `map_err`.
pub(super) fn database(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> StandInError {
    move |source| StandInError::Database { doing, source }
}
