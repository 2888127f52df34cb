//! Numbers for the demo data. Our own generator and whole numbers only, so that the data are the same with every
//! compiler, library and machine.

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). Not for secrets.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// A sequence of its own for each `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to but not including `end`; 0 when `end` is 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        // the upper half of the product is the number scaled to 0..end
        self.next().carrying_mul(end, 0).1
    }

    /// True in `chances` of `of` cases.
    pub(super) fn happens(&mut self, chances: u64, of: u64) -> bool {
        self.below(of) < chances
    }

    /// One of the values of `among`, by weight.
    pub(super) fn pick<T: Copy>(&mut self, among: &Weighted<T>) -> T {
        let mut left = self.below(among.total);
        for (weight, value) in among.some {
            if left < *weight {
                return *value;
            }
            left -= weight;
        }
        among.other
    }
}

/// Values with weights, of which one always exists: `other` has what `some` leaves of `total`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weighted<T: 'static> {
    pub(super) total: u64,
    pub(super) some: &'static [(u64, T)],
    pub(super) other: T,
}

/// Divides `total` in proportion to `weights`, to whole numbers that add up to it exactly. The weights together
/// must fit into 64 bits.
pub(super) fn apportion(total: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights
        .iter()
        .map(|weight| u128::from(*weight))
        .sum::<u128>()
        .max(1);
    let mut reached_weight = 0_u128;
    let mut reached = 0_u64;
    weights
        .iter()
        .map(|weight| {
            reached_weight += u128::from(*weight);
            let until = u64::try_from(u128::from(total) * reached_weight / sum).unwrap_or(total);
            let share = until - reached;
            reached = until;
            share
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_splitmix64() {
        // the first numbers of the reference implementation for seed 1234567
        let mut random = Random::new(1_234_567);
        let numbers = [random.next(), random.next(), random.next()];
        assert_eq!(
            numbers,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn numbers_stay_below_their_end_and_reach_it() {
        let mut random = Random::new(1);
        for end in [1, 2, 7, 1000] {
            let numbers: Vec<u64> = (0..20_000).map(|_| random.below(end)).collect();
            assert_eq!(
                (numbers.iter().min(), numbers.iter().max()),
                (Some(&0), Some(&(end - 1))),
                "{end}"
            );
        }
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn values_come_by_weight() {
        let among = Weighted {
            total: 10,
            some: &[(7, 'a'), (2, 'b')],
            other: 'c',
        };
        let mut random = Random::new(2);
        let picked: String = (0..10_000).map(|_| random.pick(&among)).collect();
        for (value, percent) in [('a', 70), ('b', 20), ('c', 10)] {
            let share = picked.matches(value).count() / 100;
            assert!(share.abs_diff(percent) <= 2, "{value}: {share}%");
        }
    }

    #[test]
    fn shares_add_up_to_the_total() {
        for (total, weights, shares) in [
            (10, vec![1, 1], vec![5, 5]),
            (10, vec![1, 1, 1], vec![3, 3, 4]),
            (3, vec![1, 0, 1], vec![1, 0, 2]),
            (0, vec![1, 2], vec![0, 0]),
            (5, vec![], vec![]),
            (
                u64::MAX,
                vec![1 << 62, 1 << 62],
                vec![u64::MAX / 2, u64::MAX / 2 + 1],
            ),
        ] {
            assert_eq!(apportion(total, &weights), shares, "{total} by {weights:?}");
        }
    }
}
