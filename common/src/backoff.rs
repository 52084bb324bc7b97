//! When to try again: a pure schedule from the number of tries and a seed. Capped, so that nothing waits for hours
//! after a long outage; jittered, so that many waiters do not come back at once.

/// A schedule: doubles from `base_ms` to `cap_ms`, then takes a point of the upper half by the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The delay after the first try, in milliseconds, before jitter.
    pub base_ms: u64,
    /// The longest delay, in milliseconds.
    pub cap_ms: u64,
}

impl Backoff {
    /// Between attempts of a transaction that lost a lock: conflicts end within milliseconds.
    pub const CONFLICT: Self = Self { base_ms: 2, cap_ms: 100 };

    /// Between sends of a prepare to a participant that did not answer.
    pub const PREPARE: Self = Self { base_ms: 25, cap_ms: 500 };

    /// Between deliveries of an outcome to a participant that did not acknowledge it. Unbounded in number.
    pub const OUTCOME: Self = Self { base_ms: 50, cap_ms: 2_000 };

    /// The delay after try number `tries` (from 0), in milliseconds; the same for the same arguments.
    #[must_use]
    pub fn delay_ms(self, tries: u32, seed: u64) -> u64 {
        let full = self.base_ms.saturating_mul(1 << tries.min(20)).min(self.cap_ms);
        let half = full / 2;
        half + spread(seed ^ u64::from(tries)) % (full - half + 1)
    }
}

/// Spreads nearby seeds over all of 64 bits (SplitMix64, Steele et al., OOPSLA 2014).
#[must_use]
pub const fn spread(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_stay_within_half_of_it() {
        let backoff = Backoff::OUTCOME;
        for seed in 0..50 {
            assert!((25..=50).contains(&backoff.delay_ms(0, seed)));
            assert!((50..=100).contains(&backoff.delay_ms(1, seed)));
            for tries in [10, 63, 64, u32::MAX] {
                assert!((1_000..=2_000).contains(&backoff.delay_ms(tries, seed)));
            }
        }
    }

    #[test]
    fn neighbours_do_not_come_back_together() {
        let delays: std::collections::BTreeSet<_> =
            (0..100).map(|seed| Backoff::OUTCOME.delay_ms(10, seed)).collect();
        assert!(delays.len() > 80, "{}", delays.len());
    }
}
