//! Who waits for which branch to end, in the order of their ages. Hints only: a wake-up that is missed costs one poll.
//!
//! When a branch ends, the oldest of those who wait for a key of it goes on, and the others stand behind it: they do not all
//! come at once for one lock. If it gets the lock, they are younger than its holder, and die (wait-die: nobody waits for
//! an older one); if it does not, the next one goes on. Who tries again keeps its place until it has
//! its answer: nobody younger comes for the lock meanwhile.

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

/// Whom a call waits for; `None` when it is its turn.
type Ahead = Option<Txid>;

#[derive(Debug, Default)]
struct Queues {
    /// By whom they wait for and its key, as conflicts name it.
    waiting: HashMap<Ahead, HashMap<String, Queue>>,
    /// By the key, whom somebody waits for because of it.
    ahead: HashMap<String, HashSet<Ahead>>,
    /// Where each call waits.
    places: HashMap<u64, (Ahead, String)>,
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
    fn join(&mut self, ahead: Ahead, key: String, place: Place, waiting: Arc<Waiting>) {
        self.places.insert(place.1, (ahead, key.clone()));
        self.ahead.entry(key.clone()).or_default().insert(ahead);
        self.waiting.entry(ahead).or_default().entry(key).or_default().insert(place, waiting);
    }

    /// Takes a call out of its queue; whether it was its turn.
    fn leave(&mut self, place: Place) -> bool {
        let Some((ahead, key)) = self.places.remove(&place.1) else { return false };
        let had_turn = ahead.is_none();
        let Some(queues) = self.waiting.get_mut(&ahead) else { return had_turn };
        if let Some(queue) = queues.get_mut(&key) {
            queue.remove(&place);
            if queue.is_empty() {
                queues.remove(&key);
                if queues.is_empty() {
                    self.waiting.remove(&ahead);
                }
                self.unlist(ahead, &key);
            }
        }
        had_turn
    }

    /// Takes all queues behind a branch out.
    fn take(&mut self, holder: Txid) -> HashMap<String, Queue> {
        let queues = self.waiting.remove(&Some(holder)).unwrap_or_default();
        queues.keys().for_each(|key| self.unlist(Some(holder), key));
        queues
    }

    /// Nobody waits for this one because of this key any more.
    fn unlist(&mut self, ahead: Ahead, key: &str) {
        let Some(all) = self.ahead.get_mut(key) else { return };
        all.remove(&ahead);
        if all.is_empty() {
            self.ahead.remove(key);
        }
    }

    fn give_turn(&mut self, key: &str, place: Place, waiting: Arc<Waiting>) {
        waiting.notify.notify_one();
        self.join(None, key.to_owned(), place, waiting);
    }

    /// The oldest of a queue goes on. Those behind it wait for it; if they may share what it wants, they go on as well.
    fn hand_over(&mut self, key: &str, mut queue: Queue) {
        while let Some((place, first)) = queue.pop_first() {
            let ahead = first.waiter.excludes_all(key).then_some(first.waiter.txid);
            self.give_turn(key, place, first);
            if ahead.is_some() {
                for (place, waiting) in queue {
                    self.join(ahead, key.to_owned(), place, waiting);
                }
                return;
            }
        }
    }

    /// Who is behind one whose turn it was has to wait for another one as well, or dies of it.
    fn follow(&mut self, waiter: Txid, holder: &Holder) {
        let mut behind = self.take(waiter);
        for (place, waiting) in behind.remove(&holder.key).unwrap_or_default() {
            if holder.id < place.0 {
                self.die(place, &waiting, holder);
            } else {
                self.join(Some(holder.txid), holder.key.clone(), place, waiting);
            }
        }
        for (key, queue) in behind {
            self.hand_over(&key, queue);
        }
    }

    /// One whose turn it was has the locks now: who is younger, stood behind it and wants them too
    /// dies of it. An older one may have met it already and wait for its end.
    fn taken(&mut self, waiter: &Waiter) {
        for (key, mut queue) in self.take(waiter.txid) {
            if waiter.excludes_all(&key) {
                let younger = queue.split_off(&(waiter.id, u64::MAX));
                for (place, waiting) in queue {
                    self.join(Some(waiter.txid), key.clone(), place, waiting);
                }
                let holder = Holder { id: waiter.id, txid: waiter.txid, key };
                younger.iter().for_each(|(place, waiting)| self.die(*place, waiting, &holder));
            } else {
                self.hand_over(&key, queue);
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
    /// One who wants locks; it waits when it follows somebody.
    pub(crate) fn call(&self, waiter: Waiter) -> Calling<'_> {
        let mut queues = self.lock();
        queues.next += 1;
        let place = (waiter.id, queues.next);
        let waiting = Waiting { waiter, notify: Notify::new(), died_of: OnceLock::new() };
        Calling { waiters: self, place, waiting: Arc::new(waiting) }
    }

    /// A branch has ended.
    pub(crate) fn ended(&self, holder: Txid) {
        let mut queues = self.lock();
        queues.note_ended(holder);
        queues.wake(holder);
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
            let others = queues.ahead.get(&key)?.iter().filter(|ahead| **ahead != Some(txid));
            let lines = others.filter_map(|ahead| queues.waiting.get(ahead)?.get(&key));
            let older = lines.flat_map(|line| line.range(..(id, 0)));
            let older = older.map(|(_, call)| &call.waiter).filter(|waiter| waiter.txid != txid);
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

/// One call for locks. Its place in a line stays until it is over.
pub(crate) struct Calling<'a> {
    waiters: &'a Waiters,
    place: Place,
    waiting: Arc<Waiting>,
}

impl Calling<'_> {
    /// It has to wait for this holder. Who is behind it has to as well, or dies of it. If the holder
    /// has ended meanwhile, it is its turn at once.
    pub(crate) fn follow(&self, holder: &Holder) {
        let mut queues = self.waiters.lock();
        let had_turn = queues.leave(self.place);
        let waiting = Arc::clone(&self.waiting);
        if queues.ended.contains(&holder.txid) {
            queues.give_turn(&holder.key, self.place, waiting);
            return;
        }
        if had_turn {
            queues.follow(self.waiting.waiter.txid, holder);
        }
        queues.join(Some(holder.txid), holder.key.clone(), self.place, waiting);
    }

    /// Returns when the holder has ended, as far as this agent hears of it, and it is this one's
    /// turn; or when it has died.
    pub(crate) async fn turn(&self) -> Turn {
        self.waiting.notify.notified().await;
        self.waiting.died_of.get().map_or(Turn::Go, |holder| Turn::Die(holder.clone()))
    }

    /// It has the locks.
    pub(crate) fn taken(self) {
        let mut queues = self.waiters.lock();
        if queues.leave(self.place) {
            queues.taken(&self.waiting.waiter);
        }
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        let mut queues = self.waiters.lock();
        // It did not get what others wait for: the next one goes on.
        if queues.leave(self.place) {
            queues.wake(self.waiting.waiter.txid);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

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
        queues.waiting.is_empty() && queues.places.is_empty() && queues.ahead.is_empty()
    }

    /// Transaction `n` wants the lock of this holder.
    fn wait(waiters: &Waiters, n: u64, held_by: u64) -> Calling<'_> {
        let calling = waiters.call(waiter(n, Access::Exclusive));
        calling.follow(&holder(held_by));
        calling
    }

    /// What has become of one who waits, if anything has.
    fn turn(calling: &Calling<'_>) -> Option<Turn> {
        calling.turn().now_or_never()
    }

    #[test]
    fn the_oldest_goes_first_and_the_others_wait_for_it() {
        let waiters = Waiters::default();
        let [third, first, second] = [3, 1, 2].map(|n| wait(&waiters, n, 9));
        assert_eq!([&first, &second, &third].map(turn), [None, None, None]);
        waiters.ended(txid(9));
        assert_eq!([&first, &second].map(turn), [Some(Turn::Go), None]);
        // It gets nothing: the next one.
        drop(first);
        assert_eq!([&second, &third].map(turn), [Some(Turn::Go), None]);
        // It has to wait for another one, and who is behind it has to as well.
        second.follow(&holder(8));
        drop(second);
        assert_eq!(turn(&third), None);
        waiters.ended(txid(8));
        assert_eq!(turn(&third), Some(Turn::Go));
        drop(third);
        assert!(is_empty(&waiters));
    }

    /// Wait-die: the queue must not make anybody wait for an older one.
    #[test]
    fn who_is_behind_one_that_has_the_lock_dies_of_it() {
        let waiters = Waiters::default();
        let [first, second, third] = [1, 2, 5].map(|n| wait(&waiters, n, 9));
        waiters.ended(txid(9));
        assert_eq!(turn(&first), Some(Turn::Go));
        // The holder that the first one must wait for is older than the third, and younger than the second.
        first.follow(&holder(4));
        assert_eq!([&first, &third].map(turn), [None, Some(Turn::Die(holder(4)))]);
        waiters.ended(txid(4));
        assert_eq!(turn(&first), Some(Turn::Go));
        first.taken();
        assert_eq!(turn(&second), Some(Turn::Die(holder(1))));
        assert!(is_empty(&waiters));
    }

    #[test]
    fn an_older_one_that_met_the_new_holder_already_waits_for_it() {
        let waiters = Waiters::default();
        let [first, younger] = [3, 5].map(|n| wait(&waiters, n, 9));
        waiters.ended(txid(9));
        assert_eq!(turn(&first), Some(Turn::Go));
        // Between the staging of the first one and its word of it.
        let older = wait(&waiters, 2, 3);
        first.taken();
        assert_eq!([&younger, &older].map(turn), [Some(Turn::Die(holder(3))), None]);
        waiters.ended(txid(3));
        assert_eq!(turn(&older), Some(Turn::Go));
        drop(older);
        assert!(is_empty(&waiters));
    }

    #[test]
    fn those_who_share_go_together() {
        let waiters = Waiters::default();
        let reads = [1, 2, 3].map(|n| {
            let read = waiters.call(waiter(n, Access::Shared));
            read.follow(&holder(9));
            read
        });
        assert_eq!(reads.each_ref().map(turn), [None, None, None]);
        waiters.ended(txid(9));
        assert!(reads.iter().all(|read| turn(read) == Some(Turn::Go)));
        drop(reads);
        assert!(is_empty(&waiters));
    }

    #[test]
    fn a_turn_that_nobody_takes_goes_on_and_one_who_gives_up_leaves_nothing_behind() {
        let waiters = Waiters::default();
        let [first, second, third] = [1, 2, 3].map(|n| wait(&waiters, n, 9));
        drop(third);
        waiters.ended(txid(9));
        drop(first);
        assert_eq!(turn(&second), Some(Turn::Go));
        drop(second);
        assert!(is_empty(&waiters));
    }

    #[test]
    fn nobody_waits_for_what_has_ended_meanwhile() {
        let waiters = Waiters::default();
        waiters.ended(txid(9));
        assert_eq!(turn(&wait(&waiters, 1, 9)), Some(Turn::Go));
        assert!(is_empty(&waiters));
    }

    #[test]
    fn who_comes_later_does_not_go_before_an_older_one_that_waits() {
        let waiters = Waiters::default();
        let _waits = wait(&waiters, 5, 9);
        let met = |n, access| waiters.older(id(n), txid(n), &locks(access)).map(|it| it.txid);
        assert_eq!(met(7, Access::Shared), Some(txid(5)));
        assert_eq!(met(4, Access::Exclusive), None, "an older one may");
        assert_eq!(met(5, Access::Exclusive), None, "it is the same one");
        assert_eq!(met(9, Access::Exclusive), None, "it is the one that is waited for");
        let other = [Lock { key: Arg::from("other"), access: Access::Exclusive }];
        assert_eq!(waiters.older(id(7), txid(7), &other), None);
    }

    /// Or a younger reader comes in between two tries, and one after another keeps a writer out.
    #[test]
    fn who_tries_again_keeps_its_place_until_it_has_its_answer() {
        let waiters = Waiters::default();
        let met = || waiters.older(id(7), txid(7), &locks(Access::Shared)).map(|it| it.txid);
        let waits = wait(&waiters, 5, 9);
        waiters.ended(txid(9));
        assert_eq!(turn(&waits), Some(Turn::Go));
        assert_eq!(met(), Some(txid(5)), "it is its turn");
        waits.follow(&holder(8));
        assert_eq!(turn(&waits), None);
        assert_eq!(met(), Some(txid(5)), "it polls");
        waits.follow(&holder(9));
        assert_eq!(turn(&waits), Some(Turn::Go));
        assert_eq!(met(), Some(txid(5)), "its holder has ended while it tried");
        waits.taken();
        assert_eq!(met(), None);
        assert!(is_empty(&waiters));
    }

    #[test]
    fn an_older_one_is_met_whichever_holder_of_the_key_it_waits_for() {
        let waiters = Waiters::default();
        let waits = [(9, 8), (7, 2), (6, 5)].map(|(held_by, n)| wait(&waiters, n, held_by));
        let met = |n| waiters.older(id(n), txid(n), &locks(Access::Shared)).map(|it| it.txid);
        assert_eq!(met(4), Some(txid(2)));
        assert_eq!(met(2), None);
        assert_eq!(met(7), Some(txid(5)), "the oldest waits for this one itself");
        drop(waits);
        assert_eq!(met(9), None);
        assert!(is_empty(&waiters));
    }

    #[test]
    fn an_older_writer_whose_turn_it_is_beside_a_reader_is_met() {
        let waiters = Waiters::default();
        let reads = waiters.call(waiter(1, Access::Shared));
        reads.follow(&holder(9));
        let writes = wait(&waiters, 2, 9);
        waiters.ended(txid(9));
        assert_eq!([&reads, &writes].map(turn), [Some(Turn::Go), Some(Turn::Go)]);
        let met = waiters.older(id(5), txid(5), &locks(Access::Shared));
        assert_eq!(met.map(|it| it.txid), Some(txid(2)));
    }
}
