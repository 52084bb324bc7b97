//! Chance. Everything that may come one way or another asks here, and one seed decides it all.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Out of so many is a chance given.
const WHOLE: u64 = 1_000_000;

/// A stream of chance; the same one from the same seed, on every machine and with every version of the library.
#[derive(Debug, Clone)]
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number below the bound; 0 if there is none.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.0.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the high half of 128 bits")
    }

    /// A place in something so long.
    pub(crate) fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a usize")
    }

    /// A number of a range, its end included.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// Whether something happens that does so many times in a million. What never happens costs no chance, so that a
    /// healed world is the same however it fell ill.
    pub(crate) fn strikes(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(WHOLE) < u64::from(per_million)
    }

    pub(crate) fn percent(&mut self, percent: u32) -> bool {
        self.strikes(percent * 10_000)
    }
}
