//! Zipf's distribution: the k-th of n keys is chosen with a weight of 1 / k^s.

use rand::Rng;

/// Chooses among n keys. The table takes eight bytes a key, and a choice a binary search in it.
#[derive(Debug)]
pub(super) struct Zipf {
    /// The share of the keys up to this one, of the whole.
    shares: Vec<f64>,
}

impl Zipf {
    /// `keys` is at least 1. An exponent of 0 is the uniform distribution.
    pub(super) fn new(keys: u64, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut shares: Vec<f64> = (1..=keys.max(1))
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        for share in &mut shares {
            *share /= sum;
        }
        Self { shares }
    }

    /// The number of a key, from 0, the most frequent first.
    pub(super) fn draw(&self, rng: &mut impl Rng) -> u64 {
        let at: f64 = rng.random();
        let found = self.shares.partition_point(|share| *share <= at);
        found.min(self.shares.len() - 1) as u64
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    use super::*;

    const DRAWS: usize = 200_000;

    fn counts(keys: u64, exponent: f64) -> Vec<usize> {
        let zipf = Zipf::new(keys, exponent);
        let mut rng = SmallRng::seed_from_u64(7);
        let mut counts = vec![0; usize::try_from(keys).unwrap()];
        for _ in 0..DRAWS {
            counts[usize::try_from(zipf.draw(&mut rng)).unwrap()] += 1;
        }
        counts
    }

    fn assert_share(count: usize, expected: f64) {
        let share = count as f64 / DRAWS as f64;
        // Five standard deviations of a count of this share.
        let tolerance = 5.0 * (expected * (1.0 - expected) / DRAWS as f64).sqrt();
        assert!((share - expected).abs() < tolerance, "{share}, expected {expected}");
    }

    #[test]
    fn the_share_of_each_rank_is_what_zipf_says() {
        for exponent in [0.5, 1.0, 1.2] {
            let counts = counts(1_000, exponent);
            let sum: f64 = (1..=1_000).map(|rank| f64::from(rank).powf(-exponent)).sum();
            for rank in [1_u32, 2, 10, 100, 1_000] {
                assert_share(counts[rank as usize - 1], f64::from(rank).powf(-exponent) / sum);
            }
        }
    }

    #[test]
    fn an_exponent_of_zero_is_uniform_and_one_key_is_always_it() {
        for count in counts(10, 0.0) {
            assert_share(count, 0.1);
        }
        assert_eq!(counts(1, 1.0), [DRAWS]);
    }
}
