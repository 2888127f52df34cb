//! The private PostgreSQL: initialise it, start it, make its roles.
//!
//! The server runs below a small shell script that reads a pipe whose other end this process holds: when this
//! process ends, however it ends, the pipe closes and the script stops the server. (`PR_SET_PDEATHSIG` would
//! follow the thread that started the server rather than the process, and is lost when the user changes.)

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use tracing::{debug, warn};

use super::directory::{Directory, one_line};
use super::error::{StandInError, database, io as io_error};
use super::locate::Programs;
use super::owner::Owner;
use super::settings::{PORT, settings};
use super::stand_in::BackendLogin;
use super::supervision::Server;
use super::{DATABASE, TEAMS};

/// The role of the control plane.
const CONTROL_ROLE: &str = "tollgate";

/// The superuser that `initdb` makes. It has no password, so nobody can log in as it.
const BOOTSTRAP_ROLE: &str = "bootstrap";

/// How long a server may take to answer; after a crash it first reads its write-ahead log.
const START_PATIENCE: Duration = Duration::from_mins(2);

const WATCHDOG: &str = include_str!("watchdog.sh");

/// The password of a role at the server, made if it is missing; and whether it was.
fn login(directory: &Directory, role: &str) -> Result<(BackendLogin, bool), StandInError> {
    let name = format!("backend-{role}");
    let (password, new) = directory.secret(&name, || format!("{:032x}", rand::random::<u128>()))?;
    let password_file = directory.secret_file(&name);
    Ok((
        BackendLogin {
            user: role.to_owned(),
            password,
            password_file,
        },
        new,
    ))
}

/// The statement that sets a role's password, as a SCRAM verifier: the server never sees the password itself.
fn alter_password(role: &str, login: &BackendLogin) -> String {
    let verifier = postgres_protocol::password::scram_sha_256(login.password.expose().as_bytes());
    format!("ALTER ROLE {role} PASSWORD '{verifier}'")
}

/// What is needed to run the server.
#[derive(Debug)]
pub(super) struct Cluster {
    programs: Programs,
    owner: Owner,
    directory: Directory,
    control: BackendLogin,
    control_is_new: bool,
}

impl Cluster {
    /// The cluster of `directory`, with the control role's password read or made.
    ///
    /// # Errors
    ///
    /// The password's file cannot be read or written.
    pub(super) fn new(programs: Programs, owner: Owner, directory: Directory) -> Result<Self, StandInError> {
        let (control, control_is_new) = login(&directory, CONTROL_ROLE)?;
        Ok(Self {
            programs,
            owner,
            directory,
            control,
            control_is_new,
        })
    }

    /// What is ours on disk.
    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The role of the control plane.
    pub(super) fn control(&self) -> &BackendLogin {
        &self.control
    }

    /// The directory of the server's socket, made if it is missing.
    pub(super) fn socket_directory(&self) -> Result<PathBuf, StandInError> {
        self.directory.socket_directory(&self.owner)
    }

    /// Makes ready what a server needs to start.
    pub(super) async fn prepare(&self, progress: &mut impl FnMut(&str)) -> Result<(), StandInError> {
        self.clear_leftover().await;
        if self.directory.made_by()?.is_none() {
            progress(&format!(
                "initialising a private cluster in {}",
                self.directory.path().display()
            ));
            self.initialise().await
        } else if self.control_is_new {
            // its password was lost
            let statement = alter_password(CONTROL_ROLE, &self.control);
            self.single_user(&self.directory.data(), &[statement]).await
        } else {
            Ok(())
        }
    }

    /// Makes the cluster beside its place and renames it when it is whole, so that an interrupted attempt leaves
    /// nothing that looks finished.
    async fn initialise(&self) -> Result<(), StandInError> {
        let new = self.directory.unfinished_data();
        let data = self.directory.data();
        self.owner.private_directory(&new)?;
        // the second is for systems that have no such locale
        let utf8 = self.initdb(&new, "C.UTF-8").await;
        if utf8.is_err() {
            self.initdb(&new, "C").await?;
        }
        let access = new.join("pg_hba.conf");
        fs::write(
            &access,
            "# every login by password, over the socket only\nlocal all all scram-sha-256\n",
        )
        .map_err(io_error("write", &access))?;
        let statements = [
            format!("CREATE ROLE {CONTROL_ROLE} SUPERUSER LOGIN"),
            alter_password(CONTROL_ROLE, &self.control),
            format!("CREATE DATABASE {DATABASE} OWNER {CONTROL_ROLE}"),
        ];
        self.single_user(&new, &statements).await?;
        fs::rename(&new, &data).map_err(io_error("rename", &new))
    }

    async fn initdb(&self, data: &Path, character_type: &str) -> Result<(), StandInError> {
        let program = self.programs.program("initdb");
        let mut command = self.owner.command(&program);
        command
            .args([
                "--encoding=UTF8",
                "--locale=C",
                "--auth=reject",
                "--no-instructions",
            ])
            .arg(format!("--lc-ctype={character_type}"))
            .arg(format!("--username={BOOTSTRAP_ROLE}"))
            .arg("-D")
            .arg(data)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = command.output().await.map_err(io_error("run", &program))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(StandInError::Program {
                program,
                output: one_line(&output.stderr),
            })
        }
    }

    /// Runs statements without a server and without a login; each must fit on one line.
    async fn single_user(&self, data: &Path, statements: &[String]) -> Result<(), StandInError> {
        let program = self.programs.program("postgres");
        let mut command = self.owner.command(&program);
        command
            .args(["--single", "-D"])
            .arg(data)
            .args(["-c", "log_min_error_statement=panic", "postgres"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(io_error("run", &program))?;
        if let Some(mut stdin) = child.stdin.take() {
            let text = statements
                .iter()
                .fold(String::new(), |text, statement| text + statement + "\n");
            stdin
                .write_all(text.as_bytes())
                .await
                .map_err(io_error("write to", &program))?;
        }
        let output = child
            .wait_with_output()
            .await
            .map_err(io_error("run", &program))?;
        let said = one_line(&output.stderr);
        // its exit status does not tell of statements that failed
        if output.status.success() && !said.contains("ERROR:") {
            Ok(())
        } else {
            Err(StandInError::Program {
                program,
                output: said,
            })
        }
    }

    /// Stops a server that nothing watches, because its watchdog was killed or is just stopping it, and waits
    /// until it is gone. Removes a stale `postmaster.pid` whose process id now belongs to something else, because
    /// the next server would respect it. What fails here shows when that server starts.
    pub(super) async fn clear_leftover(&self) {
        let file = self.directory.data().join("postmaster.pid");
        let Some(process) = fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.lines().next()?.trim().parse().ok())
            .filter(|process| *process > 1)
            .map(Pid::from_raw)
        else {
            return;
        };
        if !self.is_ours(process) {
            if Path::new("/proc/self").exists() && is_alive(process) {
                warn!(
                    process = process.as_raw(),
                    "removing the stale postmaster.pid of the stand-in"
                );
                drop(fs::remove_file(&file));
            }
            return;
        }
        warn!(
            process = process.as_raw(),
            "stopping a server that nothing watches"
        );
        for (signal, patience_s) in [(Signal::SIGINT, 15), (Signal::SIGQUIT, 5), (Signal::SIGKILL, 5)] {
            let until = Instant::now() + Duration::from_secs(patience_s);
            // repeated, because a server that has only just begun ignores the first ones
            while Instant::now() < until {
                if !self.is_ours(process) || kill(process, signal).is_err() {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Whether `process` is a server of this cluster: PostgreSQL's working directory is its data directory.
    fn is_ours(&self, process: Pid) -> bool {
        fs::read_link(format!("/proc/{process}/cwd"))
            .is_ok_and(|directory| directory == self.directory.data())
    }

    /// [`Self::launch`], patient with the last queries of a server that was killed: they keep its memory for as
    /// long as they run, and meanwhile no server starts.
    ///
    /// # Cancel safety
    ///
    /// As [`Self::launch`].
    pub(super) async fn first_launch(&self, socket_directory: &Path) -> Result<Server, StandInError> {
        for _ in 0..20 {
            match self.launch(socket_directory).await {
                Err(StandInError::DidNotStart { tail, .. }) if tail.contains("is still in use") => {
                    sleep(Duration::from_millis(500)).await;
                }
                result => return result,
            }
        }
        self.launch(socket_directory).await
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the server.
    pub(super) async fn launch(&self, socket_directory: &Path) -> Result<Server, StandInError> {
        let mut server = self.spawn(socket_directory)?;
        let until = Instant::now() + START_PATIENCE;
        loop {
            if let Some(status) = server
                .ended()
                .map_err(io_error("wait for", &self.programs.program("postgres")))?
            {
                return Err(StandInError::DidNotStart {
                    status: status.to_string(),
                    log: self.directory.log(),
                    tail: self.directory.log_tail(),
                });
            }
            match self.connect(socket_directory, DATABASE).await {
                Ok(_) => return Ok(server),
                Err(StandInError::Database { source, .. }) if is_final(&source) => {
                    return Err(database("log in to the stand-in")(source));
                }
                Err(error) => {
                    debug!(
                        error = &error as &dyn std::error::Error,
                        "the stand-in does not answer yet"
                    );
                }
            }
            if Instant::now() >= until {
                return Err(StandInError::NoAnswer {
                    seconds: START_PATIENCE.as_secs(),
                    log: self.directory.log(),
                });
            }
            sleep(Duration::from_millis(25)).await;
        }
    }

    fn spawn(&self, socket_directory: &Path) -> Result<Server, StandInError> {
        let log = self.directory.open_log()?;
        let errors = log.try_clone().map_err(io_error("open", &self.directory.log()))?;
        let mut command = self.owner.command("/bin/sh");
        command
            .args(["-c", WATCHDOG, "sh"])
            .arg(self.programs.program("postgres"))
            .arg("-D")
            .arg(self.directory.data())
            .args(settings(socket_directory))
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors)
            // a Ctrl-C in the terminal is for us: we drain first, then stop the server
            .process_group(0);
        command
            .spawn()
            .map(Server::new)
            .map_err(io_error("run", Path::new("/bin/sh")))
    }

    pub(super) async fn connect(&self, socket_directory: &Path, name: &str) -> Result<Client, StandInError> {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(socket_directory)
            .port(PORT)
            .user(&self.control.user)
            .password(self.control.password.expose())
            .dbname(name)
            .application_name("tollgate stand-in")
            .connect_timeout(Duration::from_secs(10))
            .connect(NoTls)
            .await
            .map_err(database("connect to the stand-in"))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(
                    error = &error as &dyn std::error::Error,
                    "a connection to the stand-in ended"
                );
            }
        });
        Ok(client)
    }

    /// Makes the teams' roles, and gives them what they may: to read and write the public tables, and to make
    /// their own, which the other teams may read.
    pub(super) async fn ensure_roles(
        &self,
        socket_directory: &Path,
    ) -> Result<Vec<BackendLogin>, StandInError> {
        let client = self.connect(socket_directory, DATABASE).await?;
        let everyone = TEAMS.join(", ");
        let mut logins = Vec::new();
        let mut statements = Vec::new();
        for team in TEAMS {
            let (login, new) = login(&self.directory, team)?;
            let known = client
                .query_one(
                    "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)",
                    &[&team],
                )
                .await
                .and_then(|row| row.try_get::<_, bool>(0))
                .map_err(database("read the roles of the stand-in"))?;
            if !known {
                // first of all, because the privileges name every team
                statements.insert(0, format!("CREATE ROLE {team} LOGIN"));
                statements.push(format!("GRANT CREATE, USAGE ON SCHEMA public TO {team}"));
                statements.push(format!(
                    "ALTER DEFAULT PRIVILEGES FOR ROLE {team} IN SCHEMA public GRANT SELECT ON TABLES TO {everyone}"
                ));
            }
            if !known || new {
                statements.push(alter_password(team, &login));
            }
            logins.push(login);
        }
        // one message, hence one transaction
        client
            .batch_execute(&statements.join(";\n"))
            .await
            .map_err(database("make the roles of the stand-in"))?;
        Ok(logins)
    }
}

/// Whether the login will never succeed, as against a server that is starting.
fn is_final(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        [
            &SqlState::INVALID_PASSWORD,
            &SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            &SqlState::INVALID_CATALOG_NAME,
        ]
        .contains(&code)
    })
}

fn is_alive(process: Pid) -> bool {
    !matches!(kill(process, None), Err(Errno::ESRCH))
}
