//! A histogram of durations whose observation is two atomic additions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper bounds in microseconds: an answer from memory takes tens of them, a heavy query minutes.
const BOUNDS_US: [u64; 18] = [
    50,
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    120_000_000,
    600_000_000,
];

/// How often durations fell into each range. Clones share their counts.
#[derive(Clone, Debug, Default)]
pub(super) struct DurationHistogram(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    ranges: [AtomicU64; BOUNDS_US.len()],
    beyond: AtomicU64,
    sum_us: AtomicU64,
}

impl DurationHistogram {
    pub(super) fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let range = BOUNDS_US.partition_point(|bound| *bound < us);
        self.0
            .ranges
            .get(range)
            .unwrap_or(&self.0.beyond)
            .fetch_add(1, Ordering::Relaxed);
        self.0.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

impl TypedMetric for DurationHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for DurationHistogram {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        let count = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let mut buckets: Vec<(f64, u64)> = BOUNDS_US
            .iter()
            .zip(&self.0.ranges)
            .map(|(bound, cell)| (Duration::from_micros(*bound).as_secs_f64(), count(cell)))
            .collect();
        buckets.push((f64::INFINITY, count(&self.0.beyond)));
        let total = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_micros(count(&self.0.sum_us)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, total, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn a_duration_counts_in_the_range_that_ends_at_or_above_it() {
        let histogram = DurationHistogram::default();
        for us in [0, 50, 51, 100, 700_000_000] {
            histogram.observe(Duration::from_micros(us));
        }
        let mut registry = Registry::default();
        registry.register("d", "help", histogram);
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        for line in [
            "d_bucket{le=\"0.00005\"} 2",
            "d_bucket{le=\"0.0001\"} 4",
            "d_bucket{le=\"600.0\"} 4",
            "d_bucket{le=\"+Inf\"} 5",
            "d_count 5",
            "d_sum 700.000201",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
