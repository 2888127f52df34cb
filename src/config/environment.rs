//! What a configuration refers to outside its own text: environment variables and files.
//!
//! [`Environment`] keeps the reading of a configuration a function of its inputs, so that every mistake, a missing
//! file too, can be tested without touching the machine. [`RealEnvironment`] stands beside it, although it does
//! I/O, because every program that reads a configuration needs exactly this one, with the same limits.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Where variables and files come from.
pub trait Environment {
    /// The value of the environment variable `name`, if it is set and is UTF-8.
    fn variable(&self, name: &str) -> Option<String>;

    /// The whole text of the file at `path`, which [`Environment::resolve`] gave.
    ///
    /// # Errors
    ///
    /// The file is missing, not readable, not text, or too long.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// `path` as the configuration file means it: relative to the directory of the configuration file.
    fn resolve(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }
}

/// The process's own variables and the machine's files.
#[derive(Clone, Debug)]
pub struct RealEnvironment {
    directory: PathBuf,
}

/// The longest file that a configuration may refer to, in bytes: a bundle of every public CA has some 250 KB.
const MAX_FILE_BYTES: u64 = 2 << 20;

impl RealEnvironment {
    /// For a configuration file in `directory`; relative paths in it start there.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// For the configuration file at `file`.
    pub fn of_file(file: &Path) -> Self {
        Self::new(file.parent().unwrap_or_else(|| Path::new("")))
    }
}

impl Environment for RealEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        // a pipe would keep a reload waiting for ever
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut text = String::new();
        File::open(path)?
            .take(MAX_FILE_BYTES + 1)
            .read_to_string(&mut text)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(io::Error::other(format!(
                "it is longer than {MAX_FILE_BYTES} bytes"
            )));
        }
        Ok(text)
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_beside_the_configuration_and_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("small"), "text\n").unwrap();
        std::fs::write(directory.path().join("large"), vec![b'x'; (2 << 20) + 1]).unwrap();
        let environment = RealEnvironment::of_file(&directory.path().join("tollgate.toml"));
        let read = |name: &str| environment.read(&environment.resolve(Path::new(name)));

        assert_eq!(read("small").unwrap(), "text\n");
        assert_eq!(
            read("large").unwrap_err().to_string(),
            "it is longer than 2097152 bytes"
        );
        assert_eq!(read(".").unwrap_err().to_string(), "it is not a regular file");
        assert_eq!(read("missing").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(
            environment.resolve(Path::new("/etc/passwd")),
            Path::new("/etc/passwd")
        );
    }
}
