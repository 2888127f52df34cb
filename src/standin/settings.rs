//! The server's settings, given on its command line so that they follow this program's version.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// The number in the socket's name. Nothing listens on TCP.
pub(super) const PORT: u16 = 5432;

/// The server's settings: private, UTC, and for analytics on a small machine.
pub(super) fn settings(socket_directory: &Path) -> Vec<OsString> {
    let memory_kib = memory_kib().unwrap_or(1 << 20);
    let shared_kib = (memory_kib / 8).clamp(32 << 10, 512 << 10);
    let work_kib = (memory_kib / 128).clamp(4 << 10, 64 << 10);
    let mut arguments = Vec::new();
    let mut set = |name: &str, value: &str| {
        arguments.push(OsString::from("-c"));
        arguments.push(OsString::from(format!("{name}={value}")));
    };
    set("listen_addresses", "");
    set(
        "unix_socket_directories",
        &quoted(&socket_directory.to_string_lossy()),
    );
    set("unix_socket_permissions", "0700");
    set("port", &PORT.to_string());
    set("password_encryption", "scram-sha-256");
    set("max_connections", "100");
    set("shared_buffers", &format!("{shared_kib}kB"));
    set("work_mem", &format!("{work_kib}kB"));
    set("maintenance_work_mem", "128MB");
    set("max_parallel_workers_per_gather", "1");
    set("random_page_cost", "1.1");
    set("jit", "off");
    // nothing replicates from it, and a table loaded in the transaction that made it then skips the log
    set("wal_level", "minimal");
    set("max_wal_senders", "0");
    set("max_wal_size", "1GB");
    set("checkpoint_timeout", "15min");
    set("standard_conforming_strings", "on");
    set("timezone", "UTC");
    set("log_timezone", "UTC");
    // clients' errors are the clients' affair, and would fill the log
    set("log_min_messages", "log");
    set("log_checkpoints", "off");
    set("logging_collector", "off");
    set("cluster_name", "tollgate");
    arguments
}

/// An entry of a list of directories as the server parses it.
fn quoted(entry: &str) -> String {
    format!("\"{}\"", entry.replace('"', "\"\""))
}

/// The machine's memory, where Linux says it.
fn memory_kib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_are_one_entry_of_the_list() {
        for (path, entry) in [
            ("/srv/run", "\"/srv/run\""),
            ("/srv/a, \"b\"", "\"/srv/a, \"\"b\"\"\""),
        ] {
            assert_eq!(quoted(path), entry);
        }
    }
}
