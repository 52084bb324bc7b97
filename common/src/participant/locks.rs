//! The lock table: who holds which key, and how. Nothing here expires (invariant 3).

use std::collections::BTreeMap;

use super::request::Key;
use crate::command::Access;
use crate::ids::{TransactionId, Txid};
use crate::outcome::Holder;
use crate::value::readable;

/// Who holds one key. Public ids stand beside the owners, so that a conflict can be judged by age and named to people
/// without another look-up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Lock {
    /// One writer.
    Exclusive(Txid, TransactionId),
    /// Readers, at least one.
    Shared(BTreeMap<Txid, TransactionId>),
}

/// The locks of one Redis.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Locks(BTreeMap<Key, Lock>);

/// What stands in the way of a prepare.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Conflict {
    /// No holder is older: the asker may wait (wait-die).
    Wait(Holder),
    /// This holder is: the asker dies.
    Die(Holder),
}

impl Lock {
    /// The owners, in the order of their txids.
    pub fn owners(&self) -> impl Iterator<Item = (Txid, TransactionId)> {
        let (one, many) = match self {
            Self::Exclusive(txid, id) => (Some((*txid, *id)), None),
            Self::Shared(owners) => (None, Some(owners.iter().map(|(txid, id)| (*txid, *id)))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    const fn excludes(&self, access: Access) -> bool {
        match (self, access) {
            (Self::Shared(_), Access::Shared) => false,
            (Self::Exclusive(..), _) | (Self::Shared(_), Access::Exclusive) => true,
        }
    }
}

impl Locks {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The keys that are locked.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Lock)> {
        self.0.iter()
    }

    /// Who holds a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Lock> {
        self.0.get(key)
    }

    /// Whether nothing is locked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What stands in the way of these locks: the first holder that is older than the asker, else the first holder. A transaction's own locks never do.
    pub(super) fn conflict(
        &self,
        txid: Txid,
        id: TransactionId,
        wanted: &[(Key, Access)],
    ) -> Option<Conflict> {
        let holders = || {
            wanted.iter().flat_map(|(key, access)| {
                let lock = self.0.get(key).filter(|lock| lock.excludes(*access));
                let owners = lock.into_iter().flat_map(Lock::owners);
                owners.filter(|(owner, _)| *owner != txid).map(move |owner| (key, owner))
            })
        };
        let holder = |(key, (txid, id)): (&Key, (Txid, TransactionId))| Holder {
            id,
            txid,
            key: readable(&key.0),
        };
        // An equal age is an earlier attempt of the same transaction: its abort is on its way, and it waits for nobody.
        let older = holders().find(|(_, (_, holder_id))| *holder_id < id);
        match older {
            Some(found) => Some(Conflict::Die(holder(found))),
            None => holders().next().map(holder).map(Conflict::Wait),
        }
    }

    /// Takes a lock that nothing stands in the way of; the stronger one stays where a key comes twice.
    pub(super) fn take(&mut self, txid: Txid, id: TransactionId, key: &Key, access: Access) {
        match (self.0.get_mut(key), access) {
            (Some(Lock::Shared(owners)), Access::Shared) => {
                owners.insert(txid, id);
            }
            (Some(Lock::Exclusive(owner, _)), _) => debug_assert_eq!(*owner, txid),
            (Some(lock @ Lock::Shared(_)), Access::Exclusive) => {
                *lock = Lock::Exclusive(txid, id);
            }
            (None, Access::Shared) => {
                self.0.insert(key.clone(), Lock::Shared(BTreeMap::from([(txid, id)])));
            }
            (None, Access::Exclusive) => {
                self.0.insert(key.clone(), Lock::Exclusive(txid, id));
            }
        }
    }

    /// Frees a key, if it is this transaction's to free (invariant 13).
    pub(super) fn free(&mut self, txid: Txid, key: &Key) {
        let is_free = match self.0.get_mut(key) {
            Some(Lock::Exclusive(owner, _)) => *owner == txid,
            Some(Lock::Shared(owners)) => {
                owners.remove(&txid);
                owners.is_empty()
            }
            None => false,
        };
        if is_free {
            self.0.remove(key);
        }
    }
}
