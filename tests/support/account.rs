//! The account that PostgreSQL runs under: it refuses to run as root.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Gid, Uid, User, chown, geteuid};

/// Who runs the server's programs.
pub(super) struct Account(Option<(Uid, Gid)>);

impl Account {
    /// The current account; when that is root, `postgres` or `nobody`.
    pub(super) fn unprivileged() -> Self {
        if !geteuid().is_root() {
            return Self(None);
        }
        let user = ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .expect("an account \"postgres\" or \"nobody\" to run PostgreSQL under");
        Self(Some((user.uid, user.gid)))
    }

    /// Makes `command` run under this account.
    pub(super) fn apply(&self, command: &mut Command) {
        if let Self(Some((uid, gid))) = self {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
    }

    /// Makes this account the owner of `path`.
    pub(super) fn give(&self, path: &Path) {
        if let Self(Some((uid, gid))) = self {
            chown(path, Some(*uid), Some(*gid)).expect("the directory's owner can be changed");
        }
    }

    /// A name for files that belong to this account.
    pub(super) fn label(&self) -> String {
        self.0
            .map_or_else(|| geteuid().to_string(), |(uid, _)| uid.to_string())
    }
}
