//! Who waits for which branch to end, in the order of their ages. Hints only: a wake-up that is missed costs one poll.
//!
//! When a branch ends, the oldest of those who wait for a key of it goes on, and the others stand behind it: they do not all
//! come at once for one lock. If it gets the lock, they are younger than its holder, and die (wait-die: nobody waits for
//! an older one); if it does not, the next one goes on.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use assent_common::command::{Access, Lock};
use assent_common::outcome::Holder;
use assent_common::value::{Arg, readable};
use assent_common::{TransactionId, Txid};
use tokio::sync::Notify;

/// Branches that have ended of late: who was told to wait for one of them meanwhile need not.
const ENDED_MAX: usize = 10_000;

/// The branches that somebody waits for.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<Queues>);

/// Somebody who wants locks.
#[derive(Debug, Clone)]
pub(crate) struct Waiter {
    /// Its age.
    pub(crate) id: TransactionId,
    pub(crate) txid: Txid,
    /// What it wants.
    pub(crate) locks: Vec<Lock>,
}

/// By age; the number tells apart two calls for one branch.
type Place = (TransactionId, u64);

type Queue = BTreeMap<Place, Arc<Waiting>>;

#[derive(Debug, Default)]
struct Queues {
    /// By the holder and its key, as conflicts name it.
    waiting: HashMap<Txid, HashMap<String, Queue>>,
    /// By the key, the holders that somebody waits for because of it.
    holders: HashMap<String, HashSet<Txid>>,
    /// Where each call waits.
    places: HashMap<u64, (Txid, String)>,
    next: u64,
    ended: HashSet<Txid>,
    ended_in_order: VecDeque<Txid>,
}

#[derive(Debug)]
struct Waiting {
    waiter: Waiter,
    notify: Notify,
    /// The older holder that it died of.
    died_of: OnceLock<Holder>,
}

/// What has become of one who waited.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It may try again.
    Go,
    /// Somebody older has the lock.
    Die(Holder),
}

impl Waiter {
    fn wants(&self, key: &str) -> Option<(&Arg, Access)> {
        let lock = self.locks.iter().find(|lock| readable(&lock.key.0) == key)?;
        Some((&lock.key, lock.access))
    }

    /// Whether it keeps everybody else from a key, once it has it.
    fn excludes_all(&self, key: &str) -> bool {
        self.wants(key).is_none_or(|(_, access)| access == Access::Exclusive)
    }
}

impl Queues {
    fn join(&mut self, holder: Txid, key: String, place: Place, waiting: Arc<Waiting>) {
        self.places.insert(place.1, (holder, key.clone()));
        self.holders.entry(key.clone()).or_default().insert(holder);
        let queues = self.waiting.entry(holder).or_default();
        queues.entry(key).or_default().insert(place, waiting);
    }

    /// Takes a call out of its queue; whether it was in one.
    fn leave(&mut self, place: Place) -> bool {
        let Some((holder, key)) = self.places.remove(&place.1) else { return false };
        let Some(queues) = self.waiting.get_mut(&holder) else { return true };
        if let Some(queue) = queues.get_mut(&key) {
            queue.remove(&place);
            if queue.is_empty() {
                queues.remove(&key);
                if queues.is_empty() {
                    self.waiting.remove(&holder);
                }
                self.unlist(holder, &key);
            }
        }
        true
    }

    /// Takes all queues of a holder out.
    fn take(&mut self, holder: Txid) -> HashMap<String, Queue> {
        let queues = self.waiting.remove(&holder).unwrap_or_default();
        queues.keys().for_each(|key| self.unlist(holder, key));
        queues
    }

    /// Nobody waits for this holder because of this key any more.
    fn unlist(&mut self, holder: Txid, key: &str) {
        let Some(holders) = self.holders.get_mut(key) else { return };
        holders.remove(&holder);
        if holders.is_empty() {
            self.holders.remove(key);
        }
    }

    /// The oldest of a queue goes on. Those behind it wait for it; if they may share what it wants, they go on as well.
    fn hand_over(&mut self, key: &str, mut queue: Queue) {
        while let Some((place, first)) = queue.pop_first() {
            self.places.remove(&place.1);
            first.notify.notify_one();
            if first.waiter.excludes_all(key) {
                let holder = first.waiter.txid;
                for (place, waiting) in queue {
                    self.join(holder, key.to_owned(), place, waiting);
                }
                return;
            }
        }
    }

    fn die(&mut self, place: Place, waiting: &Waiting, holder: &Holder) {
        self.places.remove(&place.1);
        // Once: it is in no queue any more.
        let _ = waiting.died_of.set(holder.clone());
        waiting.notify.notify_one();
    }

    fn wake(&mut self, holder: Txid) {
        for (key, queue) in self.take(holder) {
            self.hand_over(&key, queue);
        }
    }

    fn note_ended(&mut self, holder: Txid) {
        if self.ended.insert(holder) {
            self.ended_in_order.push_back(holder);
        }
        if self.ended_in_order.len() > ENDED_MAX
            && let Some(oldest) = self.ended_in_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }
}

impl Waiters {
    /// Returns when the holder has ended, as far as this agent hears of it, and it is this one's turn; or when it has died.
    pub(crate) async fn freed(&self, holder: Holder, waiter: Waiter) -> Turn {
        let Some(mut registered) = Registered::new(self, &holder, waiter) else { return Turn::Go };
        registered.waiting.notify.notified().await;
        registered.has_turn = true;
        registered.waiting.died_of.get().map_or(Turn::Go, |holder| Turn::Die(holder.clone()))
    }

    /// A branch has ended.
    pub(crate) fn ended(&self, holder: Txid) {
        let mut queues = self.lock();
        queues.note_ended(holder);
        queues.wake(holder);
    }

    /// One whose turn it was did not get what others wait for: the next one goes on.
    pub(crate) fn pass_on(&self, waiter: Txid) {
        self.lock().wake(waiter);
    }

    /// One whose turn it was has the locks now: who is younger, stood behind it and wants them too dies of it. An older
    /// one may have met it already and wait for its end.
    pub(crate) fn taken(&self, waiter: &Waiter) {
        let mut queues = self.lock();
        for (key, mut queue) in queues.take(waiter.txid) {
            if waiter.excludes_all(&key) {
                let younger = queue.split_off(&(waiter.id, u64::MAX));
                for (place, waiting) in queue {
                    queues.join(waiter.txid, key.clone(), place, waiting);
                }
                let holder = Holder { id: waiter.id, txid: waiter.txid, key };
                younger.iter().for_each(|(place, waiting)| queues.die(*place, waiting, &holder));
            } else {
                queues.hand_over(&key, queue);
            }
        }
    }

    /// One whose turn it was has to wait for another one. Who is behind it has to as well, or dies of it.
    pub(crate) fn follow(&self, waiter: Txid, holder: &Holder) {
        let mut queues = self.lock();
        let mut behind = queues.take(waiter);
        for (place, waiting) in behind.remove(&holder.key).unwrap_or_default() {
            if holder.id < place.0 {
                queues.die(place, &waiting, holder);
            } else {
                queues.join(holder.txid, holder.key.clone(), place, waiting);
            }
        }
        for (key, queue) in behind {
            queues.hand_over(&key, queue);
        }
    }

    /// An older transaction that waits for a key of these and could not have it beside this one. Who comes later does
    /// not go before it, or it would wait for ever.
    pub(crate) fn older(&self, id: TransactionId, txid: Txid, locks: &[Lock]) -> Option<Holder> {
        let queues = self.lock();
        if queues.waiting.is_empty() {
            return None;
        }
        locks.iter().find_map(|lock| {
            let key = readable(&lock.key.0);
            // Who waits for this one itself is not in its way.
            let others = queues.holders.get(&key)?.iter().filter(|holder| **holder != txid);
            let older = others.filter_map(|holder| {
                let (place, first) = queues.waiting.get(holder)?.get(&key)?.first_key_value()?;
                (place.0 < id && first.waiter.txid != txid).then_some(&first.waiter)
            });
            let mut in_the_way = older.filter(|waiter| {
                // The text of a key may be that of another one as well.
                let theirs = waiter.wants(&key).filter(|(wanted, _)| **wanted == lock.key);
                theirs.is_some_and(|(_, theirs)| {
                    lock.access != theirs || lock.access == Access::Exclusive
                })
            });
            let Waiter { id, txid, .. } = in_the_way.next()?;
            Some(Holder { id: *id, txid: *txid, key: key.clone() })
        })
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        // Queues of wake-ups are right whatever a panic interrupted.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call that waits; its place goes with it.
struct Registered<'a> {
    waiters: &'a Waiters,
    place: Place,
    waiting: Arc<Waiting>,
    has_turn: bool,
}

impl<'a> Registered<'a> {
    /// `None` if the holder has ended meanwhile.
    fn new(waiters: &'a Waiters, holder: &Holder, waiter: Waiter) -> Option<Self> {
        let mut queues = waiters.lock();
        if queues.ended.contains(&holder.txid) {
            return None;
        }
        queues.next += 1;
        let place = (waiter.id, queues.next);
        let waiting = Waiting { waiter, notify: Notify::new(), died_of: OnceLock::new() };
        let waiting = Arc::new(waiting);
        queues.join(holder.txid, holder.key.clone(), place, Arc::clone(&waiting));
        Some(Self { waiters, place, waiting, has_turn: false })
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let was_waiting = self.waiters.lock().leave(self.place);
        // It was its turn, and it went away before it knew.
        if !was_waiting && !self.has_turn {
            self.waiters.pass_on(self.waiting.waiter.txid);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;
    use std::time::Duration;

    use super::*;

    fn txid(n: u64) -> Txid {
        format!("0198f1c2a4b27c1d9c0e3f4a5b6c7d8e.3.{n}.0").parse().unwrap()
    }

    fn id(age: u64) -> TransactionId {
        format!("0198f1c2-a4b2-7c1d-9c0e-{age:012x}").parse().unwrap()
    }

    fn locks(access: Access) -> Vec<Lock> {
        vec![Lock { key: Arg::from("k"), access }]
    }

    /// Transaction `n` of this age; the smaller is the older.
    fn waiter(n: u64, access: Access) -> Waiter {
        Waiter { id: id(n), txid: txid(n), locks: locks(access) }
    }

    fn holder(n: u64) -> Holder {
        Holder { id: id(n), txid: txid(n), key: "k".to_owned() }
    }

    fn is_empty(waiters: &Waiters) -> bool {
        let queues = waiters.lock();
        queues.waiting.is_empty() && queues.places.is_empty() && queues.holders.is_empty()
    }

    /// Who waits, as tasks that are polled by hand.
    macro_rules! wait {
        ($waiters:ident, $($n:literal),+) => {
            [$({
                let mut waits = Box::pin($waiters.freed(holder(9), waiter($n, Access::Exclusive)));
                assert!(futures_util::poll!(&mut waits).is_pending());
                waits
            }),+]
        };
    }

    #[tokio::test]
    async fn the_oldest_goes_first_and_the_others_wait_for_it() {
        let waiters = Waiters::default();
        let [mut third, mut first, mut second] = wait!(waiters, 3, 1, 2);
        waiters.ended(txid(9));
        assert!(futures_util::poll!(&mut first).is_ready());
        assert!(futures_util::poll!(&mut second).is_pending());
        // It got nothing: the next one.
        waiters.pass_on(txid(1));
        assert!(futures_util::poll!(&mut second).is_ready());
        assert!(futures_util::poll!(&mut third).is_pending());
        // It has to wait for another one, and who is behind it has to as well.
        waiters.follow(txid(2), &holder(8));
        waiters.pass_on(txid(2));
        assert!(futures_util::poll!(&mut third).is_pending());
        waiters.ended(txid(8));
        assert_eq!(futures_util::poll!(&mut third), Poll::Ready(Turn::Go));
        drop((first, second, third));
        assert!(is_empty(&waiters));
    }

    /// Wait-die: the queue must not make anybody wait for an older one.
    #[tokio::test]
    async fn who_is_behind_one_that_has_the_lock_dies_of_it() {
        let waiters = Waiters::default();
        let [mut first, mut second, mut third] = wait!(waiters, 1, 2, 5);
        waiters.ended(txid(9));
        assert!(futures_util::poll!(&mut first).is_ready());
        // The holder that the first one must wait for is older than the third, and younger than the second.
        waiters.follow(txid(1), &holder(4));
        assert_eq!(futures_util::poll!(&mut third), Poll::Ready(Turn::Die(holder(4))));
        let mut first = Box::pin(waiters.freed(holder(4), waiter(1, Access::Exclusive)));
        assert!(futures_util::poll!(&mut first).is_pending());
        waiters.ended(txid(4));
        assert_eq!(futures_util::poll!(&mut first), Poll::Ready(Turn::Go));
        waiters.taken(&waiter(1, Access::Exclusive));
        assert_eq!(futures_util::poll!(&mut second), Poll::Ready(Turn::Die(holder(1))));
        assert!(is_empty(&waiters));
    }

    #[tokio::test]
    async fn an_older_one_that_met_the_new_holder_already_waits_for_it() {
        let waiters = Waiters::default();
        let [mut first, mut younger] = wait!(waiters, 3, 5);
        waiters.ended(txid(9));
        assert!(futures_util::poll!(&mut first).is_ready());
        // Between the staging of the first one and its word of it.
        let mut older = Box::pin(waiters.freed(holder(3), waiter(2, Access::Exclusive)));
        assert!(futures_util::poll!(&mut older).is_pending());
        waiters.taken(&waiter(3, Access::Exclusive));
        assert_eq!(futures_util::poll!(&mut younger), Poll::Ready(Turn::Die(holder(3))));
        assert!(futures_util::poll!(&mut older).is_pending());
        waiters.ended(txid(3));
        assert_eq!(futures_util::poll!(&mut older), Poll::Ready(Turn::Go));
        assert!(is_empty(&waiters));
    }

    #[tokio::test]
    async fn those_who_share_go_together() {
        let waiters = Waiters::default();
        let mut reads: Vec<_> = (1..=3)
            .map(|n| Box::pin(waiters.freed(holder(9), waiter(n, Access::Shared))))
            .collect();
        for read in &mut reads {
            assert!(futures_util::poll!(read).is_pending());
        }
        waiters.ended(txid(9));
        for read in &mut reads {
            assert!(futures_util::poll!(read).is_ready());
        }
        assert!(is_empty(&waiters));
    }

    #[tokio::test]
    async fn a_turn_that_nobody_takes_goes_on_and_one_who_gives_up_leaves_nothing_behind() {
        let waiters = Waiters::default();
        let [first, mut second, third] = wait!(waiters, 1, 2, 3);
        drop(third);
        waiters.ended(txid(9));
        drop(first);
        assert!(futures_util::poll!(&mut second).is_ready());
        drop(second);
        assert!(is_empty(&waiters));
    }

    #[tokio::test]
    async fn nobody_waits_for_what_has_ended_meanwhile() {
        let waiters = Waiters::default();
        waiters.ended(txid(9));
        let freed = waiters.freed(holder(9), waiter(1, Access::Exclusive));
        tokio::time::timeout(Duration::from_secs(10), freed).await.unwrap();
    }

    #[tokio::test]
    async fn who_comes_later_does_not_go_before_an_older_one_that_waits() {
        let waiters = Waiters::default();
        let _waits = wait!(waiters, 5);
        let met = |n, access| waiters.older(id(n), txid(n), &locks(access)).map(|it| it.txid);
        assert_eq!(met(7, Access::Shared), Some(txid(5)));
        assert_eq!(met(4, Access::Exclusive), None, "an older one may");
        assert_eq!(met(5, Access::Exclusive), None, "it is the same one");
        assert_eq!(met(9, Access::Exclusive), None, "it is the one that is waited for");
        let other = [Lock { key: Arg::from("other"), access: Access::Exclusive }];
        assert_eq!(waiters.older(id(7), txid(7), &other), None);
    }

    #[tokio::test]
    async fn an_older_one_is_met_whichever_holder_of_the_key_it_waits_for() {
        let waiters = Waiters::default();
        let mut waits = Vec::new();
        for (held_by, n) in [(9, 8), (7, 2), (6, 5)] {
            let waiter = waiter(n, Access::Exclusive);
            let mut wait = Box::pin(waiters.freed(holder(held_by), waiter));
            assert!(futures_util::poll!(&mut wait).is_pending());
            waits.push(wait);
        }
        let met = |n| waiters.older(id(n), txid(n), &locks(Access::Shared)).map(|it| it.txid);
        assert_eq!(met(4), Some(txid(2)));
        assert_eq!(met(2), None);
        assert_eq!(met(7), Some(txid(5)), "the oldest waits for this one itself");
        // That of the holder that has ended waits for nobody.
        waiters.ended(txid(7));
        assert_eq!(met(4), None);
        waits.clear();
        assert_eq!(met(9), None);
        assert!(is_empty(&waiters));
    }
}
