//! The order of the versions of each key: its longest read, of which every other read must be the beginning.

use super::transactions::{Key, Step, Transactions, Txn};

/// What is known of one key.
#[derive(Debug, Default)]
pub(super) struct Versions<'h> {
    pub(super) of: Vec<KeyVersions<'h>>,
}

#[derive(Debug, Default)]
pub(super) struct KeyVersions<'h> {
    /// The longest read, and whose it is.
    pub(super) longest: Option<(Txn, &'h [i64])>,
    /// All reads.
    pub(super) reads: Vec<(Txn, &'h [i64])>,
    /// A read that the longest does not begin with.
    pub(super) contradiction: Option<(Txn, &'h [i64])>,
    /// Whether the longest has an element twice.
    pub(super) repeats: bool,
    /// Committed appends that the longest read does not have.
    pub(super) unread: Vec<(Txn, i64)>,
}

impl<'h> KeyVersions<'h> {
    /// The elements in their order.
    pub(super) fn order(&self) -> &'h [i64] {
        self.longest.map_or(&[], |(_, elements)| elements)
    }

    /// Whether reads agree, so that the length of a read is its version.
    pub(super) const fn is_sound(&self) -> bool {
        self.contradiction.is_none() && !self.repeats
    }
}

impl<'h> Versions<'h> {
    pub(super) fn of(transactions: &Transactions<'h>) -> Self {
        let mut of: Vec<KeyVersions<'h>> = Vec::new();
        of.resize_with(transactions.keys.len(), KeyVersions::default);
        for (txn, key, elements) in transactions.reads() {
            let key = &mut of[key];
            key.reads.push((txn, elements));
            if key.longest.is_none_or(|(_, longest)| longest.len() < elements.len()) {
                key.longest = Some((txn, elements));
            }
        }
        for key in &mut of {
            let order = key.order();
            key.contradiction =
                key.reads.iter().find(|(_, elements)| !order.starts_with(elements)).copied();
            key.repeats = repeated(order).is_some();
        }
        let mut versions = Self { of };
        versions.note_unread(transactions);
        versions
    }

    fn note_unread(&mut self, transactions: &Transactions<'h>) {
        let mut appends: Vec<Vec<(Txn, i64)>> = vec![Vec::new(); self.of.len()];
        for (txn, transaction) in transactions.list.iter().enumerate() {
            for step in transaction.steps.iter().filter(|_| transaction.is_committed()) {
                if let Step::Append(key, element) = step {
                    appends[*key].push((txn, *element));
                }
            }
        }
        for (key, mut appends) in self.of.iter_mut().zip(appends) {
            let mut read = key.order().to_vec();
            read.sort_unstable();
            appends.retain(|(_, element)| read.binary_search(element).is_err());
            key.unread = appends;
        }
    }

    /// With the number of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &KeyVersions<'h>)> {
        self.of.iter().enumerate()
    }
}

/// An element that is there more than once.
pub(super) fn repeated(elements: &[i64]) -> Option<i64> {
    let mut sorted = elements.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}
