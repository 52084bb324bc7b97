//! The lock table: who holds which key, and how. Nothing here expires (invariant 3).

use std::collections::BTreeMap;

use super::escrow::{self, Claimed, Counter, Escrow, Verdict};
use super::request::Key;
use crate::command::{Access, EscrowKind, Range, Reserved};
use crate::ids::{TransactionId, Txid};
use crate::outcome::{Holder, Refusal};
use crate::value::readable;

/// Who holds one key. Public ids stand beside the owners, so that a conflict can be judged by age and named to people
/// without another look-up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Lock {
    /// One writer.
    Exclusive(Txid, TransactionId),
    /// Readers, at least one.
    Shared(BTreeMap<Txid, TransactionId>),
    /// Those who add to counters of the key, at least one.
    Escrow(EscrowKind, BTreeMap<Txid, Escrow>),
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
    /// A counter has no room for it, whatever becomes of the holders.
    Never(Refusal),
}

/// Wait-die, told one holder after the other.
struct WaitDie {
    id: TransactionId,
    waits: Option<Holder>,
}

impl WaitDie {
    /// Takes a holder into account; an error if the asker dies of it.
    fn meet(&mut self, key: &Key, (txid, id): (Txid, TransactionId)) -> Result<(), Conflict> {
        let holder = || Holder { id, txid, key: readable(&key.0) };
        // An equal age is an earlier attempt of the same transaction: its abort is on its way, and it waits for nobody.
        if id < self.id {
            return Err(Conflict::Die(holder()));
        }
        self.waits.get_or_insert_with(holder);
        Ok(())
    }

    fn finish(self) -> Result<(), Conflict> {
        self.waits.map_or(Ok(()), |holder| Err(Conflict::Wait(holder)))
    }
}

impl Lock {
    /// The owners, in the order of their txids.
    pub fn owners(&self) -> impl Iterator<Item = (Txid, TransactionId)> {
        let (one, readers, adders) = match self {
            Self::Exclusive(txid, id) => (Some((*txid, *id)), None, None),
            Self::Shared(owners) => (None, Some(owners), None),
            Self::Escrow(_, owners) => (None, None, Some(owners)),
        };
        let readers = readers.into_iter().flatten().map(|(txid, id)| (*txid, *id));
        let adders = adders.into_iter().flatten().map(|(txid, escrow)| (*txid, escrow.id));
        one.into_iter().chain(readers).chain(adders)
    }

    /// How it is held.
    #[must_use]
    pub const fn access(&self) -> Access {
        match self {
            Self::Exclusive(..) => Access::Exclusive,
            Self::Shared(_) => Access::Shared,
            Self::Escrow(kind, _) => Access::Escrow(*kind),
        }
    }

    /// Whether nobody else may have the key like this, however the others hold it.
    fn excludes(&self, access: Access) -> bool {
        access == Access::Exclusive || self.access() != access
    }

    /// Who holds a counter of the key in escrow.
    fn reserved<'a>(
        &'a self,
        counter: &'a Counter,
    ) -> impl Iterator<Item = (Txid, TransactionId, Reserved)> + 'a {
        let adders = match self {
            Self::Escrow(_, owners) => Some(owners),
            Self::Exclusive(..) | Self::Shared(_) => None,
        };
        adders.into_iter().flatten().filter_map(move |(txid, escrow)| {
            let mut reserved = escrow.reserved.iter();
            let (_, reserved) = reserved.find(|(of, _)| of == counter)?;
            Some((*txid, escrow.id, *reserved))
        })
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

    /// What stands in the way of these locks: the first holder that is older than the asker, else the first holder. A
    /// transaction's own locks never do.
    pub(super) fn conflict(
        &self,
        txid: Txid,
        id: TransactionId,
        wanted: &[(Key, Access)],
    ) -> Result<(), Conflict> {
        let mut met = WaitDie { id, waits: None };
        for (key, access) in wanted {
            let lock = self.0.get(key).filter(|lock| lock.excludes(*access));
            let owners = lock.into_iter().flat_map(Lock::owners);
            for owner in owners.filter(|(owner, _)| *owner != txid) {
                met.meet(key, owner)?;
            }
        }
        met.finish()
    }

    /// What stands in the way of these claims, among those who hold the counters in escrow too.
    pub(super) fn judge(&self, id: TransactionId, claims: &[Claimed]) -> Result<(), Conflict> {
        let mut met = WaitDie { id, waits: None };
        for Claimed { claim, value } in claims {
            let key = &claim.key;
            let others: Vec<_> = self.reserved(key, &claim.field).collect();
            match escrow::judge(claim, *value, &others) {
                Verdict::Granted => {}
                Verdict::Never(refusal) => return Err(Conflict::Never(refusal)),
                Verdict::Blocked(holders) => {
                    for holder in holders {
                        met.meet(key, holder)?;
                    }
                }
            }
        }
        met.finish()
    }

    /// What a counter of this value may become by those who hold it in escrow.
    #[must_use]
    pub fn range(&self, key: &Key, counter: &Counter, value: i64) -> Range {
        let others: Vec<_> = self.reserved(key, counter).collect();
        escrow::range(value, others.iter().map(|(_, _, reserved)| reserved))
    }

    fn reserved<'a>(
        &'a self,
        key: &Key,
        counter: &'a Counter,
    ) -> impl Iterator<Item = (Txid, TransactionId, Reserved)> + 'a {
        self.0.get(key).into_iter().flat_map(|lock| lock.reserved(counter))
    }

    /// Takes a lock that nothing stands in the way of; the stronger one stays where a key comes twice.
    pub(super) fn take(&mut self, txid: Txid, id: TransactionId, key: &Key, access: Access) {
        match (self.0.get_mut(key), access) {
            (Some(Lock::Shared(owners)), Access::Shared) => {
                owners.insert(txid, id);
            }
            (Some(Lock::Exclusive(owner, _)), _) => debug_assert_eq!(*owner, txid),
            (Some(Lock::Escrow(held, owners)), Access::Escrow(kind)) if *held == kind => {
                owners.entry(txid).or_insert_with(|| Escrow { id, reserved: Vec::new() });
            }
            (Some(lock), _) => {
                // Only its own one stands there: a reader that is to write.
                debug_assert!(lock.owners().all(|(owner, _)| owner == txid));
                *lock = Lock::Exclusive(txid, id);
            }
            (None, Access::Shared) => {
                self.0.insert(key.clone(), Lock::Shared(BTreeMap::from([(txid, id)])));
            }
            (None, Access::Escrow(kind)) => {
                let escrow = Escrow { id, reserved: Vec::new() };
                self.0.insert(key.clone(), Lock::Escrow(kind, BTreeMap::from([(txid, escrow)])));
            }
            (None, Access::Exclusive) => {
                self.0.insert(key.clone(), Lock::Exclusive(txid, id));
            }
        }
    }

    /// Notes what a transaction has reserved of a counter whose key it has taken in escrow.
    pub(super) fn reserve(&mut self, txid: Txid, key: &Key, counter: Counter, reserved: Reserved) {
        if let Some(Lock::Escrow(_, owners)) = self.0.get_mut(key)
            && let Some(escrow) = owners.get_mut(&txid)
        {
            escrow.reserved.push((counter, reserved));
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
            Some(Lock::Escrow(_, owners)) => {
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
