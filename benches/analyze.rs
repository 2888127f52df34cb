//! What is done for every query before it goes anywhere: the analysis, and the look into the cache. No server, no socket.

#![allow(clippy::print_stdout, reason = "what the bench finds goes to the terminal")]

use std::error::Error;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tollgate::cache::{CacheLimits, Completion, KeyBuilder, Lookup, ResultCache, Tags};
use tollgate::sql::{Analysis, Analyzer, Backslash};
use tollgate::types::ByteSize;

/// What a BI tool sends for a chart. The blank is for a name that makes the shape a new one.
const CHART: &str = "\
WITH active AS (
    SELECT s.user_id,
           DATE_TRUNC('week', s.started_at) AS week,
           COUNT(*) AS sessions,
           SUM(s.seconds) AS seconds
    FROM analytics.sessions AS s
    JOIN analytics.users AS u ON u.user_id = s.user_id
    WHERE s.started_at >= DATEADD(day, -90, CURRENT_DATE)
      AND u.kind <> 'bot'
      AND u.country IN ('DE', 'BR', 'IN', 'ID', 'US')
    GROUP BY s.user_id, DATE_TRUNC('week', s.started_at)
),
ranked AS (
    SELECT a.week,
           a.user_id,
           a.sessions,
           RANK() OVER (PARTITION BY a.week ORDER BY a.seconds DESC) AS place
    FROM active AS a
)
SELECT r.week,
       c.region AS \"Region\",
       COUNT(DISTINCT r.user_id) AS \"Active users\",
       SUM(CASE WHEN r.place <= 1000 THEN r.sessions ELSE 0 END) AS \"Top sessions\",
       ROUND(100.0 * SUM(r.sessions) / NULLIF(SUM(SUM(r.sessions)) OVER (PARTITION BY r.week), 0), 2) AS share_{}
FROM ranked AS r
JOIN analytics.users AS u ON u.user_id = r.user_id
LEFT JOIN analytics.countries AS c ON c.code = u.country
GROUP BY r.week, c.region
HAVING COUNT(DISTINCT r.user_id) > 10
ORDER BY r.week DESC, \"Active users\" DESC
LIMIT 1000";

/// Medians of as many batches.
const BATCHES: usize = 51;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("analyze: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let chart = |number: usize| CHART.replace("{}", &number.to_string());
    println!(
        "a chart's query: {} lines, {} bytes",
        CHART.lines().count(),
        CHART.len()
    );
    if Analysis::of(chart(0).as_bytes(), Backslash::Literal)
        .single()
        .is_none()
    {
        return Err("the chart's query is not one statement".into());
    }
    let analyzer = Analyzer::new(ByteSize(64 << 20));

    let mut next = 0;
    row("first analysis of the chart's query", "≤ 150 µs", 20, || {
        next += 1;
        black_box(analyzer.analyze(chart(next).as_bytes(), Backslash::Literal));
    });
    let text = chart(1);
    row("the same text again", "≤ 1 µs", 2_000, || {
        black_box(analyzer.analyze(text.as_bytes(), Backslash::Literal));
    });
    let texts: Vec<String> = (10..1_000)
        .map(|number| text.replace("<= 1000", &format!("<= {number}")))
        .collect();
    let mut which = texts.iter().cycle();
    row("the same shape with other numbers, lexed", "", 200, || {
        let text = which.next().map_or("", String::as_str);
        black_box(analyzer.analyze(text.as_bytes(), Backslash::Literal));
    });
    let texts: Vec<String> = (0..1_000)
        .map(|number| {
            format!(
                "SELECT abalance FROM pgbench_accounts WHERE aid = {}",
                number * 997
            )
        })
        .collect();
    let mut which = texts.iter().cycle();
    row(
        "a lookup by primary key, ever other numbers",
        "≤ 1 µs",
        2_000,
        || {
            let text = which.next().map_or("", String::as_str);
            black_box(analyzer.analyze(text.as_bytes(), Backslash::Literal));
        },
    );
    hits(&analyzer, &text)
}

fn hits(analyzer: &Analyzer, text: &str) -> Result<(), Box<dyn Error>> {
    let cache = ResultCache::new(CacheLimits {
        memory: 64 << 20,
        max_entry: 1 << 20,
        ttl: Duration::from_hours(1),
    });
    let tags = Tags::default();
    let mut keys = KeyBuilder::default();
    let mut canonical = Vec::new();
    let scope = [7; 64];
    let mut look_up = |now: Instant| {
        let analysis = analyzer.analyze(text.as_bytes(), Backslash::Literal);
        canonical.clear();
        analysis.canonical_into(text.as_bytes(), &mut canonical);
        let key = keys.build(&scope, &canonical, [], &[]);
        cache.lookup(key, true, now, || tags.snapshot(&[]))
    };
    let now = Instant::now();
    let Lookup::Lead(fill) = look_up(now) else {
        return Err("an empty cache must let the first one lead".into());
    };
    fill.commit(Completion {
        row_description: Some(Bytes::from_static(b"T\0\0\0\x06\0\0")),
        row_count: 0,
        command_complete: Bytes::from_static(b"C\0\0\0\x0dSELECT 0\0"),
        backend_time: Duration::from_millis(10),
        fingerprint: 0,
    })?;
    if !matches!(look_up(now), Lookup::Hit(_)) {
        return Err("the answer was not kept".into());
    }
    row("analysis, key and hit of the chart's query", "", 2_000, || {
        black_box(look_up(now));
    });
    Ok(())
}

/// Measures `work` in batches of `repeats` and prints the median of one.
fn row(what: &str, limit: &str, repeats: u32, mut work: impl FnMut()) {
    let mut batches: Vec<Duration> = (0..BATCHES)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..repeats {
                work();
            }
            began.elapsed() / repeats
        })
        .collect();
    batches.sort();
    let median = batches.get(BATCHES / 2).copied().unwrap_or_default();
    println!("{what:45} {:9.3} µs  {limit}", median.as_secs_f64() * 1e6);
}
