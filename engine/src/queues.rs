//! Transactions that died of a lock, in line for the end of the one that has it: in the order of
//! their ages, the oldest first, the others behind that one. Between attempts nothing of them is
//! locked anywhere, so that no line can close a circle.
//!
//! Only this coordinator's own transactions are known; who died of another one's comes back by its
//! schedule, as does everybody who waits longer than [`PATIENCE_MS`]: a line is a hint.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use assent_common::TransactionId;
use assent_common::ids::TxNumber;
use assent_common::time::Millis;

use crate::numbers::NumberMap;

/// How long a transaction stays in line before it looks for itself.
const PATIENCE_MS: u64 = 100;

/// A lock: the lane to its participant, and the key as conflicts name it.
pub(crate) type Lock = (usize, String);

type Line = BTreeSet<(TransactionId, TxNumber)>;

/// The lines.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    by_holder: NumberMap<TxNumber, BTreeMap<Lock, Line>>,
    places: NumberMap<TxNumber, Place>,
}

/// Where a transaction stands.
#[derive(Debug, Clone)]
struct Place {
    holder: TxNumber,
    lock: Lock,
    id: TransactionId,
    until: Millis,
}

impl Queues {
    /// A transaction stands in line for the end of another.
    pub(crate) fn join(
        &mut self,
        number: TxNumber,
        id: TransactionId,
        holder: TxNumber,
        lock: Lock,
        now: Millis,
    ) {
        self.leave(number);
        self.place(number, Place { holder, lock, id, until: now.plus(PATIENCE_MS) });
    }

    fn place(&mut self, number: TxNumber, place: Place) {
        let lines = self.by_holder.entry(place.holder).or_default();
        lines.entry(place.lock.clone()).or_default().insert((place.id, number));
        self.places.insert(number, place);
    }

    /// Until when a transaction stays in line; `None` if it stands in none.
    pub(crate) fn until(&self, number: TxNumber) -> Option<Millis> {
        self.places.get(&number).map(|place| place.until)
    }

    /// A transaction goes on, or ends.
    pub(crate) fn leave(&mut self, number: TxNumber) {
        let Some(Place { holder, lock, id, .. }) = self.places.remove(&number) else { return };
        let Some(lines) = self.by_holder.get_mut(&holder) else { return };
        if let Entry::Occupied(mut line) = lines.entry(lock) {
            line.get_mut().remove(&(id, number));
            if line.get().is_empty() {
                line.remove();
            }
        }
        if lines.is_empty() {
            self.by_holder.remove(&holder);
        }
    }

    /// The locks of a transaction at one participant are free, or are about to be; `None` for all
    /// that it has. Returns those whose turn it is; the others stand behind them.
    pub(crate) fn release(&mut self, holder: TxNumber, lane: Option<usize>) -> Vec<TxNumber> {
        let Some(lines) = self.by_holder.remove(&holder) else { return Vec::new() };
        let (lines, elsewhere): (BTreeMap<_, _>, BTreeMap<_, _>) =
            lines.into_iter().partition(|((of, _), _)| lane.is_none_or(|lane| lane == *of));
        if !elsewhere.is_empty() {
            self.by_holder.insert(holder, elsewhere);
        }
        let mut next = Vec::with_capacity(lines.len());
        for (_, mut line) in lines {
            let Some((_, first)) = line.pop_first() else { continue };
            self.places.remove(&first);
            next.push(first);
            for (_, number) in line {
                if let Some(place) = self.places.remove(&number) {
                    self.place(number, Place { holder: first, ..place });
                }
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use assent_common::Epoch;

    use super::*;

    fn number(n: u64) -> TxNumber {
        TxNumber { epoch: Epoch(1), n }
    }

    fn id(age: u64) -> TransactionId {
        format!("0198f1c2-a4b2-7c1d-9c0e-{age:012x}").parse().unwrap()
    }

    fn joined(places: &[(u64, usize, &str)]) -> Queues {
        let mut queues = Queues::default();
        for (n, lane, key) in places {
            queues.join(number(*n), id(*n), number(9), (*lane, (*key).to_owned()), Millis(0));
        }
        queues
    }

    fn released(queues: &mut Queues, holder: u64, lane: Option<usize>) -> Vec<u64> {
        queues.release(number(holder), lane).into_iter().map(|number| number.n).collect()
    }

    #[test]
    fn the_oldest_goes_first_and_the_others_stand_behind_it() {
        let mut queues = joined(&[(3, 0, "k"), (1, 0, "k"), (2, 0, "k"), (4, 0, "other")]);
        assert_eq!(released(&mut queues, 9, Some(0)), [1, 4]);
        assert_eq!(released(&mut queues, 9, Some(0)), [] as [u64; 0]);
        assert_eq!(released(&mut queues, 1, None), [2]);
        assert_eq!(released(&mut queues, 2, None), [3]);
        assert!(queues.places.is_empty() && queues.by_holder.is_empty());
    }

    #[test]
    fn the_end_at_one_participant_is_none_at_another() {
        let mut queues = joined(&[(1, 0, "k"), (2, 1, "k")]);
        assert_eq!(released(&mut queues, 9, Some(1)), [2]);
        assert_eq!(queues.until(number(1)), Some(Millis(PATIENCE_MS)));
        assert_eq!(released(&mut queues, 9, Some(0)), [1]);
    }

    #[test]
    fn who_goes_by_itself_leaves_nothing_behind() {
        let mut queues = joined(&[(1, 0, "k"), (2, 0, "k")]);
        queues.leave(number(1));
        queues.leave(number(7));
        assert_eq!(queues.until(number(1)), None);
        assert_eq!(released(&mut queues, 9, None), [2]);
        assert!(queues.places.is_empty() && queues.by_holder.is_empty());
    }
}
