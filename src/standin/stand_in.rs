//! A running stand-in, as the rest of the program sees it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::warn;

use super::cluster::Cluster;
use super::directory::{Directory, default_path};
use super::error::StandInError;
use super::locate::Search;
use super::owner::Owner;
use super::settings::PORT;
use super::supervision::supervise;
use super::{DATABASE, Day, DemoOptions, MAX_EVENTS, demo};
use crate::types::Secret;

/// The users of the gateway; in a demo each one's password is its name.
const USERS: [&str; 3] = ["ana", "dash", "root"];

/// A role of the server and its password.
#[derive(Clone, Debug)]
pub struct BackendLogin {
    /// The role.
    pub user: String,
    /// Its password.
    pub password: Secret<String>,
    /// The file that holds the password, readable only by us.
    pub password_file: PathBuf,
}

/// A running stand-in. Dropping it stops the server too, without waiting for it.
#[derive(Debug)]
pub struct StandIn {
    directory: PathBuf,
    socket_directory: PathBuf,
    control: BackendLogin,
    teams: Vec<BackendLogin>,
    stop: oneshot::Sender<()>,
    supervision: JoinHandle<()>,
}

impl StandIn {
    /// Starts the stand-in, and makes it first where there is none. `progress` is told in short sentences what
    /// is being done. The server is watched, and started again when it dies, by a task of the current runtime,
    /// which must therefore outlive the stand-in.
    ///
    /// # Errors
    ///
    /// See [`StandInError`]. Nothing is left running then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops what it started; the next start redoes what was not finished.
    pub async fn start(options: DemoOptions, mut progress: impl FnMut(&str)) -> Result<Self, StandInError> {
        if options.events > MAX_EVENTS {
            return Err(StandInError::TooManyEvents(options.events));
        }
        let owner = Owner::choose()?;
        let path = options.data.map_or_else(|| default_path(&owner), Ok)?;
        let directory = Directory::claim(&path, &owner).await?;
        let made_by = directory.made_by()?;
        let programs = Search::new(options.pg_bin.as_deref())
            .run(&owner, made_by.map(|version| (version, directory.path())))
            .await?;
        if !owner.can_enter(directory.path()).await {
            return Err(StandInError::Unreachable {
                directory: path,
                user: owner.name(),
            });
        }
        progress(&format!(
            "PostgreSQL {} from {}",
            programs.major(),
            programs.directory().display()
        ));

        let cluster = Cluster::new(programs, owner, directory)?;
        cluster.prepare(&mut progress).await?;
        let socket_directory = cluster.socket_directory()?;
        progress("starting it");
        let server = cluster.first_launch(&socket_directory).await?;

        let teams = cluster.ensure_roles(&socket_directory).await?;
        for user in USERS {
            cluster.directory().secret(user, || user.to_owned())?;
        }
        if options.events > 0 {
            let last_day = options.last_day.unwrap_or_else(|| Day::of(SystemTime::now()));
            let connect = || cluster.connect(&socket_directory, DATABASE);
            demo::load(connect, options.events, last_day, &mut progress).await?;
        }

        let (stop, stopped) = oneshot::channel();
        let directory = cluster.directory().path().to_owned();
        let control = cluster.control().clone();
        let supervision = tokio::spawn(supervise(cluster, socket_directory.clone(), server, stopped));
        Ok(Self {
            directory,
            socket_directory,
            control,
            teams,
            stop,
            supervision,
        })
    }

    /// The directory of the cluster and its secrets, absolute.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of the server's Unix socket, absolute.
    pub fn socket_directory(&self) -> &Path {
        &self.socket_directory
    }

    /// The number in the name of the socket, `.s.PGSQL.5432`.
    pub fn port(&self) -> u16 {
        PORT
    }

    /// The role of the control plane, a superuser.
    pub fn control_login(&self) -> &BackendLogin {
        &self.control
    }

    /// The role of a team of [`TEAMS`](super::TEAMS).
    pub fn team_login(&self, team: &str) -> Option<&BackendLogin> {
        self.teams.iter().find(|login| login.user == team)
    }

    /// Where the password of the gateway's user `name` is.
    pub(super) fn user_password_file(&self, name: &str) -> PathBuf {
        self.directory.join("secrets").join(name)
    }

    /// Stops the server and waits until it is gone: at first gently (SIGINT, which ends open transactions), after
    /// 10 s harder.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future lets the stop go on in the background.
    pub async fn stop(self) {
        // the task is gone only when its runtime is, and the server with it
        if self.stop.send(()).is_ok()
            && let Err(error) = self.supervision.await
        {
            warn!(
                error = &error as &dyn std::error::Error,
                "the supervision of the stand-in ended early"
            );
        }
    }
}
