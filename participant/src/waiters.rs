//! Who waits for which branch to end. Only shortens waits: a wake-up that is missed costs one poll.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use assent_common::Txid;

/// The branches that somebody waits for.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    holders: Mutex<HashMap<Txid, Arc<Notify>>>,
}

impl Waiters {
    /// Returns when this agent has ended the branch.
    pub(crate) async fn freed(&self, holder: Txid) {
        let registered = Registered::new(self, holder);
        registered.notify.notified().await;
    }

    /// Wakes all who wait for the branch.
    pub(crate) fn wake(&self, holder: Txid) {
        let found = self.lock().remove(&holder);
        if let Some(notify) = found {
            notify.notify_waiters();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Txid, Arc<Notify>>> {
        // A map of wake-ups is right whatever a panic interrupted.
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits; the entry goes with the last of them.
struct Registered<'a> {
    waiters: &'a Waiters,
    holder: Txid,
    notify: Arc<Notify>,
}

impl<'a> Registered<'a> {
    fn new(waiters: &'a Waiters, holder: Txid) -> Self {
        let notify = Arc::clone(waiters.lock().entry(holder).or_default());
        Self { waiters, holder, notify }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut holders = self.waiters.lock();
        if let Entry::Occupied(entry) = holders.entry(self.holder) {
            // The map's and this one's own.
            if Arc::ptr_eq(entry.get(), &self.notify) && Arc::strong_count(&self.notify) == 2 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txid() -> Txid {
        "0198f1c2a4b27c1d9c0e3f4a5b6c7d8e.3.7.0".parse().unwrap()
    }

    #[tokio::test]
    async fn all_who_wait_for_a_branch_are_woken_and_nothing_is_left_of_them() {
        let waiters = Waiters::default();
        let woken = async {
            tokio::join!(waiters.freed(txid()), waiters.freed(txid()), async {
                tokio::task::yield_now().await;
                waiters.wake(txid());
            });
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), woken).await.unwrap();
        assert!(waiters.lock().is_empty());
    }

    #[tokio::test]
    async fn one_who_gives_up_leaves_nothing_behind() {
        let waiters = Waiters::default();
        let given_up = tokio::time::timeout(std::time::Duration::ZERO, waiters.freed(txid())).await;
        assert!(given_up.is_err());
        assert!(waiters.lock().is_empty());
    }
}
