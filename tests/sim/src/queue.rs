//! The queue of what is to come: by simulated time, and by the order of scheduling where that is the same.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use assent_common::Txid;
use assent_common::branch::BranchAnswer;
use assent_common::outcome::{Call, Refusal};
use assent_common::participant::Branches;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::wire::resync::{DataPoint, DataView, Resync, Resynced};
use assent_engine::{Compaction, Sent};

use crate::client::Heard;
use crate::hook::HookWord;
use crate::network::Ask;
use crate::repair::Asked;
use crate::settling::Asker;

/// Something that is to happen.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A client looks what to do next; stale if its turn is another by now.
    ClientTurn { client: usize, turn: u64 },
    /// A client's request reaches a coordinator.
    Submitted { request: usize },
    /// A client hears of its request.
    Heard { request: usize, heard: Heard },
    /// A message reaches an agent; by then it may have waited for a lock.
    Arrived { ask: Ask, waits: Option<Waits> },
    /// A hook has answered.
    HookSaid { ask: Ask, waits: Option<Waits>, life: u64, word: Box<HookWord> },
    /// A prepare has waited for a lock as long as it may.
    WaitedLong { at: usize, life: u64, ticket: u64 },
    /// The result of a call reaches the coordinator.
    Answered { ask: Ask, answer: Box<BranchAnswer> },
    /// The timers of a coordinator's transactions.
    Ticked { coordinator: usize, life: u64 },
    /// What a coordinator has queued for a participant has to leave.
    LaneDue { coordinator: usize, life: u64, at: usize },
    /// The log's writer looks whether something lazy is to be written.
    Flushed { coordinator: usize, life: u64 },
    /// A sync of the log returns.
    Synced { coordinator: usize, life: u64 },
    /// A coordinator looks whether its log can be compacted.
    Compacting { coordinator: usize },
    /// The segments that may go have been read.
    SegmentsRead { coordinator: usize, life: u64, compaction: Box<Compaction> },
    /// A coordinator comes back.
    CoordinatorStarted { coordinator: usize },
    /// An agent comes back.
    AgentStarted { at: usize },
    /// An agent scans for branches in doubt, and sweeps.
    AgentTurn { at: usize, life: u64 },
    /// An agent's question reaches a coordinator.
    Asked { asker: Asker, coordinator: usize, txid: Txid, branches: Branches },
    /// The answer to a question reaches the agent.
    Learned { asker: Asker, txid: Txid, answer: Box<Call<BranchOutcome>> },
    /// What a branch says of itself reaches whoever settles.
    Settled { ticket: u64, at: usize, answer: Box<BranchAnswer> },
    /// Something goes wrong.
    Trouble,
    /// A coordinator asks what a participant's data is.
    DataAsked { asked: Asked },
    /// The answer to that; none if it was lost.
    DataShown { asked: Asked, found: Option<Box<DataView>> },
    /// A log's word reaches an agent.
    WordCame { asked: Asked, word: Box<Resync> },
    /// The answer to that; none if it was lost.
    WordTaken { asked: Asked, said: Option<Box<Result<Resynced, Refusal>>> },
    /// A resynchronisation goes on, or is tried again.
    ResyncDue { asked: Asked },
    /// A coordinator looks after data that it has nothing to say about.
    Looking { coordinator: usize },
    /// Its look reaches an agent.
    Looked { asked: Asked, sent: Sent, known: Option<DataPoint> },
    /// What the data is by then; none if there is no answer.
    LookCame { asked: Asked, sent: Sent, known: Option<DataPoint>, found: Option<Box<DataView>> },
}

/// A prepare that waits at an agent for a younger holder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    /// The agent's life in which it began to.
    pub(crate) life: u64,
    /// Until when.
    pub(crate) until_us: u64,
    /// Its place in the order of waiting.
    pub(crate) ticket: u64,
}

#[derive(Debug)]
struct Scheduled {
    at_us: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.order) == (other.at_us, other.order)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at_us, self.order).cmp(&(other.at_us, other.order))
    }
}

/// What is to come.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at_us: u64, event: Event) {
        self.scheduled += 1;
        self.heap.push(Reverse(Scheduled { at_us, order: self.scheduled, event }));
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|Reverse(next)| (next.at_us, next.event))
    }
}
