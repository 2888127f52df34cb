//! The command line: reads arguments, calls [`tollgate::app`], prints what went wrong and how to mend it.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tollgate::app::{self, AppError, DemoArguments};
use tollgate::config::password::{self, DEFAULT_ITERATIONS, scram_verifier};
use tollgate::standin::{DEFAULT_EVENTS, DemoOptions, MAX_EVENTS};

/// A Redshift-compatible SQL gateway: answers hot aggregates from memory, holds each team to its quota, and forwards the
/// rest to Redshift or to a PostgreSQL stand-in.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a private PostgreSQL with a messenger's demo data, and the gateway in front of it.
    Demo {
        /// Where clients connect.
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5439")]
        listen: SocketAddr,
        /// Where metrics and health are.
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8439")]
        http: SocketAddr,
        /// Where the data live [default: the user's data directory].
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// How many events to generate, the first time.
        #[arg(long, value_name = "N", default_value_t = DEFAULT_EVENTS, value_parser = clap::value_parser!(u64).range(1..=MAX_EVENTS))]
        events: u64,
        /// Where PostgreSQL's programs are [default: `TOLLGATE_PG_BIN`, PATH, /usr/lib/postgresql].
        #[arg(long, value_name = "DIR")]
        pg_bin: Option<PathBuf>,
    },
    /// Run the gateway as a configuration says.
    Serve {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Take over from the gateway that runs, by `listen.take_over_socket`: nobody is refused, and the sessions of the old
        /// process go on for `listen.take_over_patience`. Where none runs, start as usual.
        #[arg(long)]
        take_over: bool,
    },
    /// Tell every mistake of a configuration, with its line; exit 1 if there is one.
    Check {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Tell what the gateway finds out about a statement, and what it would do with it.
    Explain {
        /// SQL text; read from standard input when it is "-".
        sql: String,
        /// Judge it, too, by the definitions of this configuration's first database.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Judge it by the definitions of this database.
        #[arg(long, value_name = "NAME", requires = "config")]
        database: Option<String>,
    },
    /// Make a SCRAM-SHA-256 verifier for a user's "password" from the password on standard input.
    Password {
        /// Make Redshift's digest instead, for Amazon's drivers.
        #[arg(long)]
        digest: bool,
    },
    /// Print the version.
    Version,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo {
            listen,
            http,
            data,
            events,
            pg_bin,
        } => {
            let standin = DemoOptions {
                data,
                events,
                pg_bin,
                ..DemoOptions::default()
            };
            app::demo(DemoArguments {
                listen,
                http,
                standin,
            })
        }
        Command::Serve { config, take_over } => app::serve(&config, take_over),
        Command::Check { config } => {
            app::load(&config).map(|_| say(&format!("{} is fine", config.display())))
        }
        Command::Explain {
            sql,
            config,
            database,
        } => statement(sql).map_err(AppError::System).and_then(|text| {
            let told = app::explain(&text, config.as_deref(), database.as_deref())?;
            say(told.trim_end());
            Ok(())
        }),
        Command::Password { digest } => make_password(digest).map_err(AppError::System),
        Command::Version => {
            say(concat!("tollgate ", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    // nobody may be reading
    drop(writeln!(io::stdout(), "{line}"));
}

/// Prints an error with its causes; of a configuration every mistake on a line of its own.
fn complain(error: &AppError) {
    let mut stderr = io::stderr().lock();
    let mut text = format!("tollgate: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.extend([": ", &cause.to_string()]);
        source = cause.source();
    }
    if let AppError::Mistakes { path, mistakes } = error {
        for mistake in mistakes {
            drop(writeln!(stderr, "{}:{mistake}", path.display()));
        }
    }
    if let AppError::Listen { source, .. } = error
        && source.kind() == io::ErrorKind::AddrInUse
    {
        text.push_str(" (to replace the gateway that listens there, start this one with --take-over)");
    }
    drop(writeln!(stderr, "{text}"));
}

/// The text itself, or what standard input has.
fn statement(sql: String) -> io::Result<Vec<u8>> {
    if sql != "-" {
        return Ok(sql.into_bytes());
    }
    let mut text = Vec::new();
    io::stdin().lock().read_to_end(&mut text)?;
    Ok(text)
}

fn make_password(digest: bool) -> io::Result<()> {
    if io::stdin().is_terminal() {
        write!(io::stderr(), "Password (it is shown as you type): ")?;
    }
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let password_text = line.trim_end_matches(['\r', '\n']);
    if password_text.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the password is empty",
        ));
    }
    say(&if digest {
        password::digest(password_text, rand::random())
    } else {
        scram_verifier(password_text, rand::random(), DEFAULT_ITERATIONS)
    });
    Ok(())
}
