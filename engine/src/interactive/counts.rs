//! How many interactive transactions there are, and how those before them have ended.

use std::collections::BTreeMap;

/// Numbers for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InteractiveCounts {
    /// Those that are active.
    pub active: usize,
    /// Those that have ended since the start, by how.
    pub ended: BTreeMap<&'static str, u64>,
}

impl InteractiveCounts {
    pub(super) fn ended(&mut self, how: &'static str) {
        *self.ended.entry(how).or_default() += 1;
    }
}
