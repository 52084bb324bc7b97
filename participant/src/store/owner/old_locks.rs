//! The fields `l:<key>` of an earlier version. Only what they say of escrow is needed, for the
//! records of that version; all others go with what is written next.

use std::collections::{BTreeSet, HashMap};

use assent_common::ids::Txid;
use assent_common::participant::{Key, Restored};

use super::super::control::{Field, read_escrow};
use super::super::markers::COLLECTED_PER_CALL_MAX;
use super::exec::Exec;

/// What is left of them.
#[derive(Debug, Default)]
pub(super) struct OldLocks {
    /// The branches whose records do not say what they have reserved of a key.
    needed: HashMap<Key, BTreeSet<Txid>>,
    /// The keys whose fields nobody needs.
    stale: Vec<Key>,
}

impl OldLocks {
    /// Restores from the field of a key what those have reserved whose records do not say it.
    /// Nothing if the field cannot be read.
    pub(super) fn restore(
        &mut self,
        restored: &mut Restored,
        (key, value): (Key, &[u8]),
        is_silent: impl Fn(Txid) -> bool,
    ) -> Option<()> {
        let mut needed = BTreeSet::new();
        for (txid, counter, reserved) in read_escrow(value)? {
            if is_silent(txid) {
                restored.reserved(txid, &key, counter, reserved);
                needed.insert(txid);
            }
        }
        if needed.is_empty() {
            self.stale.push(key);
        } else {
            self.needed.insert(key, needed);
        }
        Some(())
    }

    /// A branch ends that has locked the key: with the last one that needs the field, it goes.
    pub(super) fn ended(&mut self, exec: &mut Exec, txid: Txid, key: &Key) {
        let Some(needed) = self.needed.get_mut(key) else { return };
        needed.remove(&txid);
        if needed.is_empty() {
            self.needed.remove(key);
            exec.delete(Field::Lock(&key.0));
        }
    }

    /// Has a round that writes take away some of those that nobody needs.
    pub(super) fn drop_stale(&mut self, exec: &mut Exec) {
        let left = self.stale.len().saturating_sub(COLLECTED_PER_CALL_MAX);
        for key in self.stale.drain(left..) {
            exec.delete(Field::Lock(&key.0));
        }
    }
}
