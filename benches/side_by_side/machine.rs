//! What the numbers were measured on.

use std::fs;
use std::process::Command;
use std::time::SystemTime;

use tollgate::standin::Day;

use crate::others::Other;
use crate::servers::installed;
use crate::{Arguments, Outcome, support};

/// Machine, versions, arguments; a list in Markdown.
pub(crate) fn description(arguments: &Arguments) -> Outcome<String> {
    let cores = std::thread::available_parallelism()?;
    let clients: Vec<String> = arguments.clients.iter().map(u32::to_string).collect();
    Ok(format!(
        "- measured on {}, Tollgate {}\n\
         - {} × {}, {} of memory, Linux {}\n\
         - {}\n\
         - {} rounds of {} s, {} clients, {} threads of pgbench, scale {}\n",
        Day::of(SystemTime::now()),
        env!("CARGO_PKG_VERSION"),
        cores,
        field("/proc/cpuinfo", "model name")?,
        memory()?,
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        versions()?,
        arguments.rounds,
        arguments.seconds,
        clients.join(" and "),
        arguments.threads,
        arguments.scale,
    ))
}

/// Of every program that is measured or measures.
fn versions() -> Outcome<String> {
    let mut commands = vec![
        Command::new(support::programs().join("postgres")),
        Command::new(installed("pgbouncer").ok_or("PgBouncer is not installed")?),
        Command::new("pgbench"),
    ];
    for command in &mut commands {
        command.arg("--version");
    }
    commands.extend(Other::ALL.into_iter().filter_map(Other::version));
    let versions: Outcome<Vec<String>> = commands.iter_mut().map(version).collect();
    Ok(versions?.join("; "))
}

/// The value of a line `name : value`; ARM processors do not tell a name.
fn field(path: &str, name: &str) -> Outcome<String> {
    let text = fs::read_to_string(path)?;
    let value = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map_or("an unnamed processor", |(_, value)| value.trim());
    Ok(value.to_owned())
}

fn memory() -> Outcome<String> {
    let total = field("/proc/meminfo", "MemTotal")?;
    let kib: u64 = total.trim_end_matches(" kB").parse()?;
    Ok(format!("{} GiB", (kib + (1 << 19)) >> 20))
}

fn version(command: &mut Command) -> Outcome<String> {
    let output = command.output()?;
    // Pgpool-II tells it as an error
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let line = text.lines().next().unwrap_or_default();
    // HAProxy tells its address too
    Ok(line.split(" - ").next().unwrap_or_default().to_owned())
}
