//! What is queued for one participant, and when it has to leave.
//!
//! A message that somebody waits for leaves at once. The commit of a transaction whose client has
//! its answer is in no hurry: it **rides** with the next message that is, and goes alone when none
//! comes. At low load that is one request and one sync less for each transaction; the price is that
//! its locks are held a moment longer, unless somebody wants them.

use std::collections::VecDeque;

use assent_common::time::Micros;

use crate::lane::Outgoing;

/// How long a message rides at most: what two prepares in a row of one client are apart, several
/// times; in microseconds.
const RIDE_ALONE_AFTER_US: u64 = 3_000;

/// Whether somebody waits for what a message brings about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    /// A client does, or another transaction.
    Now,
    /// Nobody: it may leave with another.
    Rides,
}

/// The queue of a lane.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    messages: VecDeque<Outgoing>,
    /// When the first of them has to leave; all that is queued then leaves with it.
    due: Option<Micros>,
}

impl Outbound {
    pub(crate) fn push(&mut self, message: Outgoing, haste: Haste, now: Micros) {
        self.messages.push_back(message);
        let due = match haste {
            Haste::Now => now,
            Haste::Rides => now.plus(RIDE_ALONE_AFTER_US),
        };
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Somebody waits for what is queued, after all.
    pub(crate) fn hurry(&mut self, now: Micros) {
        self.due = self.due.map(|due| due.min(now));
    }

    /// When something has to leave; `None` if nothing is queued.
    pub(crate) fn due(&self) -> Option<Micros> {
        self.due
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn pop(&mut self) -> Option<Outgoing> {
        let message = self.messages.pop_front();
        if self.messages.is_empty() {
            self.due = None;
        }
        message
    }

    /// Puts back what had no room in a batch: it is due as the rest is that stays.
    pub(crate) fn put_back(&mut self, message: Outgoing, now: Micros) {
        self.messages.push_front(message);
        self.due = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use assent_common::branch::BranchMessage;
    use assent_common::coordinator::{Branch, ToBranch};
    use assent_common::ids::TxNumber;
    use assent_common::{Attempt, Epoch};

    use super::*;

    const NOW: Micros = Micros(1_000_000);

    fn message(n: u64) -> Outgoing {
        let number = TxNumber { epoch: Epoch(1), n };
        let (attempt, message) = (Attempt::FIRST, BranchMessage::Commit);
        Outgoing { number, to: ToBranch { branch: Branch(0), attempt, message } }
    }

    #[test]
    fn what_nobody_waits_for_leaves_alone_after_a_while() {
        let (mut queue, now) = (Outbound::default(), NOW);
        assert_eq!(queue.due(), None);
        queue.push(message(1), Haste::Rides, now);
        queue.push(message(2), Haste::Rides, now.plus(RIDE_ALONE_AFTER_US / 2));
        assert_eq!(queue.due(), Some(now.plus(RIDE_ALONE_AFTER_US)), "the first one says when");
    }

    #[test]
    fn what_rides_leaves_with_what_does_not() {
        let (mut queue, now) = (Outbound::default(), NOW);
        queue.push(message(1), Haste::Rides, now);
        queue.push(message(2), Haste::Now, now);
        assert_eq!(queue.due(), Some(now));
        assert_eq!(queue.pop().map(|out| out.number.n), Some(1));
        assert_eq!(queue.pop().map(|out| out.number.n), Some(2));
        assert_eq!(queue.due(), None, "an empty queue wants nothing");
    }

    #[test]
    fn a_conflict_ends_the_ride() {
        let (mut queue, now) = (Outbound::default(), NOW);
        queue.hurry(now);
        assert_eq!(queue.due(), None, "there is nothing to hurry");
        queue.push(message(1), Haste::Rides, now);
        queue.hurry(now);
        assert_eq!(queue.due(), Some(now));
    }

    #[test]
    fn what_had_no_room_goes_with_the_next_batch() {
        let (mut queue, now) = (Outbound::default(), NOW);
        queue.push(message(1), Haste::Rides, now);
        let popped = queue.pop().unwrap();
        queue.put_back(popped, now);
        assert_eq!((queue.len(), queue.due()), (1, Some(now)));
    }
}
