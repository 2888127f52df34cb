//! Finds PostgreSQL's programs: the place that was named, `TOLLGATE_PG_BIN`, `PATH`, Debian's places.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::{StandInError, io};
use super::owner::Owner;

/// The oldest major version that works.
const OLDEST: u32 = 13;

/// Where Debian and Ubuntu put the programs: `/usr/lib/postgresql/MAJOR/bin`.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The programs of one PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Programs {
    directory: PathBuf,
    major: u32,
}

impl Programs {
    /// Where they are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Their major version, e.g. 15.
    pub(super) fn major(&self) -> u32 {
        self.major
    }

    /// The path of one of them.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Where to look.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// A directory that was named by flag or config, else by `TOLLGATE_PG_BIN`: the only place then.
    named: Option<PathBuf>,
    path: OsString,
    debian: PathBuf,
}

impl Search {
    /// `explicit` first, then what the environment says.
    pub(super) fn new(explicit: Option<&Path>) -> Self {
        let environment = std::env::var_os("TOLLGATE_PG_BIN").filter(|value| !value.is_empty());
        Self {
            named: explicit
                .map(Path::to_owned)
                .or_else(|| environment.map(PathBuf::from)),
            path: std::env::var_os("PATH").unwrap_or_default(),
            debian: PathBuf::from(DEBIAN),
        }
    }

    /// The first programs found; those of major version `made_by` if it is given.
    ///
    /// # Errors
    ///
    /// None, too old ones, or none of `made_by` (with `cluster` as the directory that needs it).
    pub(super) async fn run(
        &self,
        owner: &Owner,
        made_by: Option<(u32, &Path)>,
    ) -> Result<Programs, StandInError> {
        let mut other = None;
        let mut old = None;
        for directory in self.candidates() {
            let major = major_of(owner, &directory).await?;
            if major < OLDEST {
                old.get_or_insert(StandInError::TooOld {
                    directory,
                    found: major,
                    needed: OLDEST,
                });
            } else if made_by.is_none_or(|(wanted, _)| wanted == major) {
                return Ok(Programs { directory, major });
            } else {
                other.get_or_insert(major);
            }
        }
        Err(match (made_by, other, old) {
            (Some((made_by, cluster)), Some(found), _) => StandInError::OtherVersion {
                directory: cluster.to_owned(),
                made_by,
                found,
            },
            (_, _, Some(old)) => old,
            (_, _, None) => StandInError::NoPrograms {
                searched: self.places(),
            },
        })
    }

    /// The directories that have the programs, best first.
    fn candidates(&self) -> Vec<PathBuf> {
        if let Some(named) = &self.named {
            return Some(named.clone())
                .filter(|directory| has_programs(directory))
                .into_iter()
                .collect();
        }
        let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(&self.debian)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                Some((
                    entry.file_name().to_str()?.parse().ok()?,
                    entry.path().join("bin"),
                ))
            })
            .collect();
        versions.sort();
        std::env::split_paths(&self.path)
            .filter(|directory| directory.is_absolute())
            .chain(versions.into_iter().rev().map(|(_, directory)| directory))
            .filter(|directory| has_programs(directory))
            .collect()
    }

    /// The places in words, for the error.
    fn places(&self) -> String {
        match &self.named {
            Some(named) => named.display().to_string(),
            None => format!("PATH and {}/*/bin", self.debian.display()),
        }
    }
}

fn has_programs(directory: &Path) -> bool {
    ["initdb", "postgres"]
        .iter()
        .all(|name| directory.join(name).is_file())
}

/// Asks `postgres --version`.
async fn major_of(owner: &Owner, directory: &Path) -> Result<u32, StandInError> {
    let program = directory.join("postgres");
    let output = owner
        .command(&program)
        .arg("--version")
        .output()
        .await
        .map_err(io("run", &program))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).ok_or_else(|| StandInError::Program {
        program,
        output: format!("\"--version\" answered \"{}\"", text.trim().escape_debug()),
    })
}

/// The major version in `postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)`, also of `17beta1`.
fn parse_version(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("(PostgreSQL) ")?;
    let digits = version.bytes().take_while(u8::is_ascii_digit).count();
    version.get(..digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_postgres_prints_them() {
        for (text, major) in [
            ("postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 17beta1\n", Some(17)),
            ("postgres (PostgreSQL) 9.6.24\n", Some(9)),
            ("postgres (PostgreSQL) \n", None),
            ("postgres 15", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), major, "{text:?}");
        }
    }

    /// Makes `names` under a new directory look like installed programs.
    fn installed(names: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir_all(root.path().join(name)).unwrap();
            for program in ["initdb", "postgres"] {
                fs::write(root.path().join(name).join(program), "").unwrap();
            }
        }
        root
    }

    #[test]
    fn a_named_place_is_the_only_one_then_path_then_the_newest_of_debian() {
        let root = installed(&["named", "path", "debian/9/bin", "debian/15/bin", "debian/16/bin"]);
        fs::create_dir_all(root.path().join("debian/17/bin")).unwrap();
        fs::create_dir_all(root.path().join("debian/common/bin")).unwrap();
        let path = |name: &str| root.path().join(name);
        let search = |named: Option<&str>| Search {
            named: named.map(path),
            path: std::env::join_paths([path("absent"), PathBuf::from("relative"), path("path")]).unwrap(),
            debian: path("debian"),
        };
        for (named, expected) in [
            (Some("named"), vec!["named"]),
            (Some("debian/17/bin"), vec![]),
            (
                None,
                vec!["path", "debian/16/bin", "debian/15/bin", "debian/9/bin"],
            ),
        ] {
            let expected: Vec<_> = expected.into_iter().map(path).collect();
            assert_eq!(search(named).candidates(), expected, "{named:?}");
        }
    }

    #[tokio::test]
    async fn nothing_found_says_how_to_install() {
        let root = installed(&[]);
        let search = Search {
            named: None,
            path: OsString::new(),
            debian: root.path().to_owned(),
        };
        let error = search
            .run(&Owner::choose().unwrap(), None)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("apt-get install postgresql") && error.contains("TOLLGATE_PG_BIN"),
            "{error}"
        );
    }
}
