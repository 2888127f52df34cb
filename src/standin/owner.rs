//! The system user that runs the server: the one who started us, or an unprivileged one when that is root,
//! because PostgreSQL refuses to run as root.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::Path;

use nix::unistd::{User, geteuid};
use tokio::process::Command;

use super::error::{StandInError, io as io_error};

/// Who owns the cluster and runs its programs.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// The user to become; `None`: stay who we are.
    other: Option<User>,
}

impl Owner {
    /// Ourselves, or when we are root `postgres`, else `nobody`.
    ///
    /// # Errors
    ///
    /// We are root and neither exists.
    pub(super) fn choose() -> Result<Self, StandInError> {
        if !geteuid().is_root() {
            return Ok(Self { other: None });
        }
        for name in ["postgres", "nobody"] {
            if let Ok(Some(user)) = User::from_name(name)
                && !user.uid.is_root()
            {
                return Ok(Self { other: Some(user) });
            }
        }
        Err(StandInError::NoUnprivilegedUser)
    }

    /// Whether the server runs as another user than we do.
    pub(super) fn is_other(&self) -> bool {
        self.other.is_some()
    }

    /// The user's name, for messages.
    pub(super) fn name(&self) -> String {
        match &self.other {
            Some(user) => user.name.clone(),
            None => User::from_uid(geteuid())
                .ok()
                .flatten()
                .map_or_else(|| geteuid().to_string(), |user| user.name),
        }
    }

    /// The number of the user, as files show it.
    pub(super) fn uid(&self) -> u32 {
        self.other.as_ref().map_or_else(geteuid, |user| user.uid).as_raw()
    }

    /// A command that runs as this user, in `/`, with a small and known environment.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("TZ", "UTC");
        // a PostgreSQL outside the system's directories needs it
        if let Some(path) = std::env::var_os("LD_LIBRARY_PATH") {
            command.env("LD_LIBRARY_PATH", path);
        }
        command.current_dir("/");
        if let Some(user) = &self.other {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    /// Makes `path` a directory that only this user (and root) can enter. One that exists must be this user's.
    ///
    /// # Errors
    ///
    /// It exists and is not a directory, or is someone else's.
    pub(super) fn private_directory(&self, path: &Path) -> Result<(), StandInError> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {
                if let Some(user) = &self.other {
                    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                        .map_err(io_error("give away", path))?;
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // not following links: in /tmp someone else may have put one there
                let found = fs::symlink_metadata(path).map_err(io_error("look at", path))?;
                if !found.is_dir() || found.uid() != self.uid() || found.mode() & 0o077 != 0 {
                    return Err(StandInError::SocketDirectoryTaken {
                        path: path.to_owned(),
                    });
                }
                Ok(())
            }
            Err(error) => Err(io_error("make the directory", path)(error)),
        }
    }

    /// Whether this user can enter `directory`; asks the operating system, as that user.
    pub(super) async fn can_enter(&self, directory: &Path) -> bool {
        let mut command = self.command("/bin/sh");
        command
            .args(["-c", "cd -- \"$1\" 2>/dev/null", "sh"])
            .arg(directory);
        command.status().await.is_ok_and(|status| status.success())
    }
}
