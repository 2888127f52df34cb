//! The gateway at rest: what it holds when nobody asks for anything, as `/metrics` and the system tell it.

use crate::stage::Stage;
use crate::support::gateway::{BI, CONTROL, GROWTH, Gateway};
use crate::support::http;
use crate::support::wait::{becomes, eventually};
use crate::support::wire::Wire;

/// What must be nothing at rest.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    /// Client connections, in whatever state.
    clients: u64,
    /// Tasks of the threads that serve clients.
    tasks: u64,
    /// Backend connections that are being made, lent or kept.
    busy: u64,
    /// Requests that wait for one.
    waiting: u64,
    /// Places of teams.
    running: u64,
    /// Requests that wait for one.
    queued: u64,
    /// Runs whose answer is being collected, and how much they hold.
    flights: u64,
    filling_bytes: u64,
    /// Sessions of the teams' logins at the server that do anything.
    at_the_server: u64,
}

/// What the gateway has open when it is at rest.
#[derive(Debug)]
pub(crate) struct Rest {
    /// File descriptors, without those of idle connections to the backend.
    descriptors: usize,
}

/// The sum of all series of `name` whose labels have `part`; 0 if there is none.
pub(crate) fn sum(metrics: &str, name: &str, part: &str) -> u64 {
    metrics
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let its = labels.is_empty() || labels.starts_with('{');
            (its && labels.contains(part))
                .then(|| value.trim_end_matches(".0").parse::<u64>().expect("a count"))
        })
        .sum()
}

fn held(gateway: &Gateway, superuser: &mut Wire) -> Held {
    let (_, metrics) = http::get(gateway.http(), "/metrics");
    let busy = ["connecting", "leased", "pinned"]
        .iter()
        .map(|state| {
            sum(
                &metrics,
                "tollgate_pool_connections",
                &format!("state=\"{state}\""),
            )
        })
        .sum();
    let active = superuser.value(&format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND usename IN ('{}', '{}') AND state <> 'idle'",
        GROWTH.0, BI.0
    ));
    Held {
        clients: sum(&metrics, "tollgate_clients", ""),
        tasks: sum(&metrics, "tollgate_tasks", ""),
        busy,
        waiting: sum(&metrics, "tollgate_pool_waiting", ""),
        running: sum(&metrics, "tollgate_quota_running", ""),
        queued: sum(&metrics, "tollgate_quota_queued", ""),
        flights: sum(&metrics, "tollgate_cache_flights", ""),
        filling_bytes: sum(&metrics, "tollgate_cache_filling_bytes", ""),
        at_the_server: active.parse().expect("a count"),
    }
}

/// Waits until the gateway holds nothing, nor do its teams' logins in the superuser's database.
pub(crate) fn await_rest(gateway: &Gateway, superuser: &mut Wire) {
    becomes(&Held::default(), || held(gateway, superuser));
}

/// Open descriptors of the gateway, without those of connections that it may keep: idle ones, and its own.
fn descriptors(stage: &Stage, superuser: &mut Wire) -> usize {
    let idle = stage
        .gateway
        .metric("tollgate_pool_connections{backend=\"warehouse\",state=\"idle\"}");
    let control: u64 = superuser
        .value(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = '{}'",
            CONTROL.0
        ))
        .parse()
        .expect("a count");
    let kept = usize::try_from(idle + control).expect("few");
    stage.gateway.descriptors().saturating_sub(kept)
}

impl Rest {
    /// The gateway of `stage`, of which nobody has asked anything yet.
    pub(crate) fn of(stage: &Stage) -> Self {
        let mut superuser = stage.superuser();
        await_rest(&stage.gateway, &mut superuser);
        // the same twice: a scrape's own connection is gone
        let mut last = 0;
        let descriptors = eventually("the descriptors stay the same", || {
            let now = descriptors(stage, &mut superuser);
            let same = now == last;
            last = now;
            same.then_some(now)
        });
        Self { descriptors }
    }

    /// Waits until the gateway is at rest again, with at most `doubts` relations in doubt: the outcome of a commit that
    /// was under way when the backend went is not known for a minute.
    pub(crate) fn returns(&self, stage: &Stage, doubts: u64, after: &str) {
        let start = std::time::Instant::now();
        let mut superuser = stage.superuser();
        await_rest(&stage.gateway, &mut superuser);
        becomes(&self.descriptors, || descriptors(stage, &mut superuser));
        eprintln!("after {after}: {:?}", start.elapsed());
        let in_doubt = stage.gateway.metric("tollgate_cache_relations_in_doubt");
        assert!(
            in_doubt <= doubts,
            "after {after} {in_doubt} relations are in doubt"
        );
    }
}
