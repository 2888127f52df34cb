//! What is ours on disk: the directory of the stand-in, its lock, its secrets, its socket's place.
//!
//! ```text
//! DIR/tollgate-standin   says that DIR is ours
//! DIR/lock               locked while a stand-in of DIR runs
//! DIR/data/              the cluster, owned by the user who runs the server
//! DIR/data.new-*/        a cluster that is being initialised; renamed when done
//! DIR/run/               the socket, unless the path is too long for one
//! DIR/secrets/NAME       one password each, readable only by us
//! DIR/postgres.log       what the server says
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::sleep;
use tracing::debug;

use super::error::{StandInError, io as io_error};
use super::owner::Owner;
use crate::types::Secret;

/// The file that says that a directory is ours.
const MARKER: &str = "tollgate-standin";
const MARKER_TEXT: &str = "This directory belongs to the stand-in of tollgate. To start anew, stop tollgate and \
                           remove the directory.\n";

/// How the names of unfinished clusters begin.
const UNFINISHED: &str = "data.new-";

/// The longest path of a directory that can hold the socket: `sun_path` has 108 bytes on Linux (104 elsewhere),
/// of which `/.s.PGSQL.5432` and the final NUL take 15.
const LONGEST_SOCKET_DIRECTORY: usize = 104 - 15;

/// A log larger than this many bytes is begun anew at the next start.
const LONGEST_LOG: u64 = 1 << 20;

/// How often a lock that another holds is tried again, and the pause before each.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(30);

/// A stand-in's directory, locked for us until this is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    // held for its lock, which ends with it
    _lock: File,
}

impl Directory {
    /// Makes `path` ours, or finds that it is, and locks it.
    ///
    /// # Errors
    ///
    /// It holds something else (then nothing is changed), or another process has it locked.
    pub(super) async fn claim(path: &Path, owner: &Owner) -> Result<Self, StandInError> {
        if path.to_str().is_none() {
            return Err(StandInError::PathNotText {
                path: path.to_owned(),
            });
        }
        let path = std::path::absolute(path).map_err(io_error("find", path))?;
        // the user who runs the server must be able to pass through, if not to list
        let mode = if owner.is_other() { 0o711 } else { 0o700 };
        if !path.exists() {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(io_error("make the directory", parent))?;
            }
            match fs::DirBuilder::new().mode(mode).create(&path) {
                Ok(()) => {}
                // a second tollgate was as quick
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("make the directory", &path)(error)),
            }
        }
        let path = path.canonicalize().map_err(io_error("find", &path))?;
        let marker = path.join(MARKER);
        if !marker.is_file() {
            let mut entries = fs::read_dir(&path).map_err(io_error("list", &path))?;
            // a second tollgate may just have put its marker there
            if entries.next().is_some() && !marker.is_file() {
                return Err(StandInError::NotOurs { directory: path });
            }
            fs::write(&marker, MARKER_TEXT).map_err(io_error("write", &marker))?;
        }
        let lock = lock(&path).await?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory itself, absolute.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The cluster.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// A new place where a cluster is initialised before it becomes [`Self::data`]. What earlier attempts left
    /// is removed as far as possible: a program of theirs may still be about to end, and write.
    pub(super) fn unfinished_data(&self) -> PathBuf {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_name().as_bytes().starts_with(UNFINISHED.as_bytes())
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                debug!(
                    error = &error as &dyn std::error::Error,
                    "an unfinished cluster stays for now"
                );
            }
        }
        self.path
            .join(format!("{UNFINISHED}{:08x}", rand::random::<u32>()))
    }

    /// The server's log.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("postgres.log")
    }

    /// The major version that made the cluster; `None` when there is no cluster yet.
    ///
    /// # Errors
    ///
    /// `PG_VERSION` cannot be read.
    pub(super) fn made_by(&self) -> Result<Option<u32>, StandInError> {
        let data = self.data();
        if !data.exists() {
            return Ok(None);
        }
        let file = data.join("PG_VERSION");
        let text = fs::read_to_string(&file).map_err(io_error("read", &file))?;
        Ok(text.trim().split('.').next().and_then(|major| major.parse().ok()))
    }

    /// Opens the log for appending, emptied first when it is long.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub(super) fn open_log(&self) -> Result<File, StandInError> {
        let path = self.log();
        let long = fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LONGEST_LOG);
        if long {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("open", &path))
    }

    /// The last lines of the log, at most 2 KiB, on one line.
    pub(super) fn log_tail(&self) -> String {
        let tail = || -> io::Result<String> {
            let mut file = File::open(self.log())?;
            let from = file.metadata()?.len().saturating_sub(2048);
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.take(2048).read_to_end(&mut bytes)?;
            Ok(one_line(&bytes))
        };
        tail().unwrap_or_default()
    }

    /// The directory of the socket: `DIR/run`, or when that path is too long one of our own under
    /// `$XDG_RUNTIME_DIR` or `/tmp`.
    ///
    /// # Errors
    ///
    /// It cannot be made, or is someone else's.
    pub(super) fn socket_directory(&self, owner: &Owner) -> Result<PathBuf, StandInError> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|_| !owner.is_other());
        let path = socket_directory(&self.path, runtime.as_deref());
        owner.private_directory(&path)?;
        Ok(path)
    }

    /// Where the secret `name` is.
    pub(super) fn secret_file(&self, name: &str) -> PathBuf {
        self.path.join("secrets").join(name)
    }

    /// The secret `name`, and whether `make` was called because there was none.
    ///
    /// # Errors
    ///
    /// The file cannot be read or written.
    pub(super) fn secret(
        &self,
        name: &str,
        make: impl FnOnce() -> String,
    ) -> Result<(Secret<String>, bool), StandInError> {
        let file = self.secret_file(name);
        match fs::read_to_string(&file) {
            Ok(text) if !text.is_empty() => return Ok((Secret::new(text), false)),
            // empty: the machine stopped while it was written
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("read", &file)(error)),
        }
        if let Some(parent) = file.parent() {
            match fs::DirBuilder::new().mode(0o700).create(parent) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("make the directory", parent)(error)),
            }
        }
        let secret = Secret::new(make());
        OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&file)
            .and_then(|mut open| open.write_all(secret.expose().as_bytes()))
            .map_err(io_error("write", &file))?;
        Ok((secret, true))
    }
}

/// The directory to use when none was named.
///
/// # Errors
///
/// There is no home directory.
pub(super) fn default_path(owner: &Owner) -> Result<PathBuf, StandInError> {
    // root's home is closed to the user who runs the server
    if owner.is_other() {
        return Ok(PathBuf::from("/var/lib/tollgate/demo"));
    }
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("tollgate/demo"))
        .ok_or(StandInError::NoHome)
}

/// `DIR/run` if it is short enough, else a place with a name made from that of `directory`.
fn socket_directory(directory: &Path, runtime: Option<&Path>) -> PathBuf {
    let beside = directory.join("run");
    if beside.as_os_str().len() <= LONGEST_SOCKET_DIRECTORY {
        return beside;
    }
    let digest = Sha256::digest(directory.as_os_str().as_bytes());
    let name: String = digest
        .iter()
        .take(8)
        .fold("tollgate-".to_owned(), |name, byte| format!("{name}{byte:02x}"));
    runtime
        .map(|runtime| runtime.join(&name))
        .filter(|path| path.is_absolute() && path.as_os_str().len() <= LONGEST_SOCKET_DIRECTORY)
        .unwrap_or_else(|| Path::new("/tmp").join(&name))
}

async fn lock(directory: &Path) -> Result<File, StandInError> {
    let path = directory.join("lock");
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("open", &path))?;
    let mut tries = 0;
    while let Err(error) = file.try_lock() {
        match error {
            // a process that is being forked holds a copy of our files for a moment, also of one just closed
            TryLockError::WouldBlock if tries < LOCK_TRIES => {
                tries += 1;
                sleep(LOCK_PAUSE).await;
            }
            TryLockError::WouldBlock => {
                let mut text = String::new();
                // not there yet when the other has only just begun
                let process = match (&mut file).take(32).read_to_string(&mut text) {
                    Ok(1..) => text.trim().to_owned(),
                    Ok(0) | Err(_) => "unknown".to_owned(),
                };
                return Err(StandInError::InUse {
                    directory: directory.to_owned(),
                    process,
                });
            }
            TryLockError::Error(error) => return Err(io_error("lock", &path)(error)),
        }
    }
    file.set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{}", std::process::id()))
        .map_err(io_error("write", &path))?;
    Ok(file)
}

/// The text of a program's output, its lines joined by ` | `.
pub(super) fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join(" | ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn owner() -> Owner {
        Owner::choose().unwrap()
    }

    #[tokio::test]
    async fn a_new_directory_and_an_empty_one_become_ours_and_stay_ours() {
        let root = tempfile::tempdir().unwrap();
        let new = root.path().join("a/b/new");
        for path in [new.as_path(), root.path().join("empty").as_path()] {
            if path != new {
                fs::create_dir(path).unwrap();
            }
            for time in ["first", "second"] {
                let claimed = Directory::claim(path, &owner()).await;
                assert!(claimed.is_ok(), "{time} time {}: {claimed:?}", path.display());
            }
        }
    }

    #[tokio::test]
    async fn a_directory_of_something_else_is_refused_and_untouched() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.txt"), "precious").unwrap();
        let error = Directory::claim(root.path(), &owner()).await.unwrap_err();
        assert!(matches!(error, StandInError::NotOurs { .. }), "{error}");
        let names: Vec<_> = fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["thesis.txt"]);
    }

    #[tokio::test]
    async fn two_at_once_get_a_clear_error() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("demo");
        let first = Directory::claim(&path, &owner()).await.unwrap();
        let error = Directory::claim(&path, &owner()).await.unwrap_err().to_string();
        assert!(
            error.contains(&format!("another tollgate (process {})", std::process::id())),
            "{error}"
        );
        drop(first);
        assert!(Directory::claim(&path, &owner()).await.is_ok());
    }

    #[tokio::test]
    async fn secrets_are_made_once_and_for_us_alone() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::claim(&root.path().join("demo"), &owner())
            .await
            .unwrap();
        for (made, expected) in [("one", ("one", true)), ("two", ("one", false))] {
            let (secret, new) = directory.secret("growth", || made.to_owned()).unwrap();
            assert_eq!((secret.expose().as_str(), new), expected, "{made}");
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let file = directory.secret_file("growth");
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    }

    #[test]
    fn a_socket_that_would_not_fit_goes_elsewhere() {
        let long = "x".repeat(120);
        for (directory, runtime, expected) in [
            ("/srv/demo", Some("/run/user/7"), "/srv/demo/run"),
            (long.as_str(), Some("/run/user/7"), "/run/user/7/tollgate-"),
            (long.as_str(), Some("relative"), "/tmp/tollgate-"),
            (long.as_str(), Some(long.as_str()), "/tmp/tollgate-"),
            (long.as_str(), None, "/tmp/tollgate-"),
        ] {
            let found = socket_directory(Path::new(directory), runtime.map(Path::new));
            let found = found.to_str().unwrap();
            assert!(
                found.starts_with(expected) && found.len() <= LONGEST_SOCKET_DIRECTORY,
                "{found}"
            );
        }
    }

    #[tokio::test]
    async fn a_log_is_begun_anew_when_it_is_long() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::claim(&root.path().join("demo"), &owner())
            .await
            .unwrap();
        for (length, kept) in [(10, 10), (LONGEST_LOG + 1, 0)] {
            fs::write(directory.log(), vec![b'x'; usize::try_from(length).unwrap()]).unwrap();
            assert_eq!(
                directory.open_log().unwrap().metadata().unwrap().len(),
                kept,
                "{length}"
            );
        }
        fs::write(directory.log(), "one\n\n two \n").unwrap();
        assert_eq!(directory.log_tail(), "one | two");
    }
}
