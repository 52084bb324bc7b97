//! The network between coordinators and participants: loses, delays, doubles, reorders, and is cut for a while.
//!
//! Every call of a coordinator has exactly one result. What HTTP promises is kept: a message whose answer was heard has
//! no other copy under way. Two phases do not need that promise, so that to them messages come twice all the same.

use assent_common::Txid;
use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::coordinator::{Branch, PrepareCall};
use assent_common::wire::resync::DataPoint;
use assent_engine::Sent;

use crate::coordinator::Mark;
use crate::mutants::Mutant;
use crate::queue::Event;
use crate::trace::note;
use crate::world::World;

/// How long a call waits for its answer at most, in microseconds, before its result is unknown.
const CALL_US: u64 = 60_000;

/// How late a copy may come at most, in microseconds, that nobody waits for any more.
const LATE_US: u64 = 2_000_000;

/// A message to a participant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) coordinator: usize,
    pub(crate) at: usize,
    pub(crate) request: usize,
    pub(crate) branch: Branch,
    pub(crate) txid: Txid,
    pub(crate) message: BranchMessage<PrepareCall>,
    pub(crate) mark: Mark,
    /// What the coordinator has seen of the data.
    pub(crate) known: Option<DataPoint>,
    /// When the coordinator sent it.
    pub(crate) sent: Sent,
    pub(crate) from: From,
}

/// Who waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// A life of the coordinator, in a call.
    Coordinator(u64),
    /// Nobody: a copy.
    Nobody,
    /// The participant's own resolver.
    Resolver,
    /// Whoever settles.
    Settler { ticket: u64 },
}

impl From {
    /// Whether a coordinator speaks, of itself and of what it knows.
    pub(crate) const fn is_coordinator(self) -> bool {
        matches!(self, Self::Coordinator(_) | Self::Nobody)
    }
}

/// A coordinator and a participant that do not hear each other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) coordinator: usize,
    pub(crate) at: usize,
    pub(crate) until_us: u64,
}

impl World {
    /// How long something takes.
    pub(crate) fn latency_us(&mut self) -> u64 {
        let usual = self.random.between(20, self.profile.latency_us);
        if self.random.strikes(self.profile.faults.delay) {
            self.report.delayed += 1;
            return usual * self.random.between(2, 100);
        }
        usual
    }

    pub(crate) fn is_cut(&self, coordinator: usize, at: usize) -> bool {
        let mut cuts = self.cuts.iter();
        cuts.any(|c| c.coordinator == coordinator && c.at == at && c.until_us > self.now_us)
    }

    /// Sends a call's message.
    pub(crate) fn transmit(&mut self, ask: Ask) {
        self.report.messages += 1;
        let is_cut = self.is_cut(ask.coordinator, ask.at);
        if is_cut || self.random.strikes(self.profile.faults.loss) {
            self.report.dropped += 1;
            let copies = if is_cut { 0 } else { self.random.below(3) };
            for _ in 0..copies {
                self.send_late_copy(ask);
            }
            note!(
                self,
                "lost: {:?} {} to p{}, {copies} copies late",
                ask.message,
                ask.txid,
                ask.at
            );
            return self.result_unknown(ask, "the call timed out");
        }
        let is_two_phase = !self.requests[ask.request].is_one_phase();
        if is_two_phase && self.random.strikes(self.profile.faults.duplicate) {
            self.send_late_copy(ask);
        }
        let at_us = self.now_us + self.latency_us();
        self.queue.push(at_us, Event::Arrived { ask, waits: None });
    }

    fn send_late_copy(&mut self, ask: Ask) {
        self.report.duplicated += 1;
        let ask = Ask { from: From::Nobody, ..ask };
        let most_us = [LATE_US, CALL_US, self.profile.latency_us][self.random.place(3)];
        let at_us = self.now_us + self.random.between(20, most_us);
        self.queue.push(at_us, Event::Arrived { ask, waits: None });
    }

    /// Sends an answer back, if anybody waits for it.
    pub(crate) fn reply(&mut self, ask: Ask, answer: BranchAnswer) {
        if let From::Settler { ticket } = ask.from {
            return self.settle_answered(ticket, ask, answer);
        }
        if !matches!(ask.from, From::Coordinator(_)) {
            return;
        }
        if self.is_cut(ask.coordinator, ask.at) || self.random.strikes(self.profile.faults.loss) {
            self.report.dropped += 1;
            note!(self, "lost: the answer of p{} to {:?} {}", ask.at, ask.message, ask.txid);
            return self.result_unknown(ask, "the connection broke");
        }
        let at_us = self.now_us + self.latency_us();
        self.queue.push(at_us, Event::Answered { ask, answer: Box::new(answer) });
    }

    /// The call ends without an answer.
    pub(crate) fn result_unknown(&mut self, ask: Ask, why: &str) {
        if let From::Settler { ticket } = ask.from {
            let at_us = self.now_us + self.random.between(50, CALL_US);
            let answer = Box::new(ask.message.unknown(why));
            return self.queue.push(at_us, Event::Settled { ticket, at: ask.at, answer });
        }
        if !matches!(ask.from, From::Coordinator(_)) {
            return;
        }
        if ask.message == BranchMessage::Commit && self.config.is(Mutant::DeliversOnce) {
            return;
        }
        let answer = ask.message.unknown(why);
        let at_us = self.now_us + self.random.between(50, CALL_US);
        self.queue.push(at_us, Event::Answered { ask, answer: Box::new(answer) });
    }
}
