//! The cluster that others are copied from: `initdb` takes seconds, a copy a fraction of one.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::account::Account;
use super::{SUPERUSER, SUPERUSER_PASSWORD};

/// Who may log in how. The superuser needs no password on the Unix socket; `md5` means SCRAM for those whose password
/// is kept so.
const ACCESS: &str = "\
local all postgres trust
local all all md5
host all all 127.0.0.1/32 md5
";

/// Makes `target` a fresh cluster, owned by `account`.
pub(super) fn copy(programs: &Path, account: &Account, target: &Path) {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(parent).expect("the target directory");
    let mut reach = Command::new("/bin/sh");
    reach
        .args(["-c", "cd \"$1\" 2>/dev/null", "reach"])
        .arg(parent)
        .current_dir("/");
    account.apply(&mut reach);
    if !reach.status().expect("a shell runs").success() {
        // e.g. below the home directory of root
        return create(programs, account, target);
    }
    let template = template(programs, account, parent);
    let mut command = Command::new("cp");
    command.arg("-R").arg(&template).arg(target).current_dir("/");
    account.apply(&mut command);
    assert!(
        command.status().expect("cp runs").success(),
        "the template could not be copied"
    );
}

/// The template's directory, made by the first who asks; others, in other processes too, wait for it.
fn template(programs: &Path, account: &Account, parent: &Path) -> PathBuf {
    let version = Command::new(programs.join("postgres"))
        .arg("--version")
        .output()
        .expect("postgres runs");
    let version: String = String::from_utf8_lossy(&version.stdout)
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let home = parent.join(format!(
        "cluster-{}-{}",
        version.trim_matches('-'),
        account.label()
    ));
    let lock = File::create(parent.join(format!("{}.lock", home.display()))).expect("a lock file");
    lock.lock().expect("the lock");
    let template = home.join("data");
    if !home.join("complete").exists() {
        if home.exists() {
            fs::remove_dir_all(&home).expect("an unfinished template can be removed");
        }
        fs::create_dir(&home).expect("a directory");
        // others may look in, but only its owner may read the cluster
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).expect("permissions");
        account.give(&home);
        create(programs, account, &template);
        File::create(home.join("complete")).expect("a mark");
    }
    template
}

fn create(programs: &Path, account: &Account, data: &Path) {
    let secret = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(secret.path(), SUPERUSER_PASSWORD).expect("a temporary file");
    account.give(secret.path());
    let mut command = Command::new(programs.join("initdb"));
    command.args([
        "--no-sync",
        "--wal-segsize=1",
        "--no-locale",
        "-E",
        "UTF8",
        "-A",
        "trust",
        "-U",
        SUPERUSER,
        "--pwfile",
    ]);
    command.arg(secret.path()).arg("-D").arg(data).current_dir("/");
    account.apply(&mut command);
    let output = command.output().expect("initdb runs");
    assert!(
        output.status.success(),
        "initdb failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::write(data.join("pg_hba.conf"), ACCESS).expect("access rules");
}
