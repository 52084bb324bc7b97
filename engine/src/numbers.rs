//! Maps by numbers that this process gives out itself: of transactions, and of records on their
//! way to the log.
//!
//! The hasher of the standard library guards against keys that strangers choose so that they
//! collide. That takes a thirtieth of a coordinator's processor time. Nobody chooses these numbers:
//! they are counted. Ids and keys of clients stay with that hasher.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by numbers of our own.
pub type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Multiplies: numbers that follow each other fall into different places.
#[derive(Debug, Clone, Copy, Default)]
pub struct NumberHasher(u64);

/// 2^64 by the golden ratio, odd.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        // The table takes its place from the low bits, and tells neighbours apart by the high ones.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(32) ^ number).wrapping_mul(FACTOR);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::BuildHasher as _;

    use assent_common::ids::{Epoch, TxNumber};

    use super::*;

    #[test]
    fn numbers_that_follow_each_other_have_places_of_their_own() {
        let hasher = BuildHasherDefault::<NumberHasher>::default();
        for epoch in [Epoch(1), Epoch(2), Epoch(u64::MAX)] {
            let numbers = (0..1_000).map(|n| TxNumber { epoch, n });
            let hashes: Vec<u64> = numbers.map(|number| hasher.hash_one(number)).collect();
            let places: BTreeSet<u64> = hashes.iter().map(|hash| hash & 0xfff).collect();
            let marks: BTreeSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
            assert!(places.len() > 700, "{} of 4,096 places", places.len());
            assert_eq!(marks.len(), 128, "all marks are in use");
        }
    }
}
