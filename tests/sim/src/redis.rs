//! A Redis: the control data of the participant's machine, and the balances. Can lose what it had
//! written last, as one does that comes back from an old append-only file; and can be fenced, which
//! whoever uses it has to respect.

mod loading;

use std::collections::BTreeMap;

use assent_common::branch::BranchMessage;
use assent_common::coordinator::resync::Redone;
use assent_common::outcome::Redo;
use assent_common::participant::{
    FENCED, Found, Heard, OnePhaseMarker, Participant, Prepare, Repair, Stepped,
};
use assent_common::wire::branch::BranchState;
use assent_common::wire::resync::DataPoint;
use assent_common::{LogId, Txid};
use assent_doubles::scripts::{self, Bend};

use crate::request;

/// Scripts that the journal keeps at least, once it had so many: what a Redis may lose at most.
const JOURNAL_SCRIPTS: usize = 200;

/// One Redis server.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) data: Data,
    journal: Option<Journal>,
}

/// All that is in it.
#[derive(Debug, Clone)]
pub(crate) struct Data {
    pub(crate) control: Participant,
    pub(crate) balances: Vec<i64>,
    /// Nothing runs before it has been repaired.
    pub(crate) is_fenced: bool,
    /// It is empty, and nobody has given it an incarnation yet.
    pub(crate) is_blank: bool,
    /// How many branches have ended, as every end adds to it.
    pub(crate) ended: u64,
    /// The same, as every vote and every end writes it.
    pub(crate) expected: u64,
    /// The logs whose word the last repair took, and the incarnations that they knew.
    pub(crate) served: BTreeMap<LogId, u64>,
    /// The incarnations that it came of, by that repair.
    pub(crate) came_of: Vec<u64>,
}

/// What changes the data, each atomic.
#[derive(Debug, Clone)]
enum Write {
    Message(Txid, BranchMessage<Prepare>),
    Chore(Chore),
    Claim,
    Fence,
    Redo(Redone),
    RedoUnlogged(Txid, OnePhaseMarker),
    Open(Repair, BTreeMap<LogId, u64>, Vec<u64>),
}

/// A script that is about no branch's outcome.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Chore {
    Hear(LogId, Heard),
    Sweep,
    Forget(Txid),
}

/// The append-only file: where a Redis was, and what it did since.
#[derive(Debug)]
struct Journal {
    begin: Data,
    writes: Vec<Write>,
}

impl Redis {
    pub(crate) fn new(incarnation: u64, keys: usize, keeps_journal: bool) -> Self {
        let data = Data {
            control: Participant::new(incarnation),
            balances: vec![request::BALANCE; keys],
            is_fenced: false,
            is_blank: false,
            ended: 0,
            expected: 0,
            served: BTreeMap::new(),
            came_of: Vec::new(),
        };
        let journal = keeps_journal.then(|| Journal { begin: data.clone(), writes: Vec::new() });
        Self { data, journal }
    }

    /// An empty one, in the place of another.
    pub(crate) fn blank(incarnation: u64, keys: usize) -> Self {
        let mut redis = Self::new(incarnation, keys, true);
        redis.data.is_blank = true;
        redis.journal.iter_mut().for_each(|journal| journal.begin.is_blank = true);
        redis
    }

    /// One script about a branch.
    pub(crate) fn run(
        &mut self,
        bend: Option<Bend>,
        incarnation: u64,
        txid: Txid,
        message: BranchMessage<Prepare>,
    ) -> Stepped {
        if self.data.incarnation() != Some(incarnation) {
            // What is refused for its incarnation is no write.
            return self.data.control.step(FENCED, txid, message);
        }
        self.keep(|| Write::Message(txid, message.clone()));
        let before = self.data.control.state(txid);
        let stepped = scripts::step(bend, &mut self.data.control, incarnation, txid, message);
        if let Some(redo) = &stepped.apply {
            request::apply(redo, &mut self.data.balances);
        }
        self.data.count(before, self.data.control.state(txid));
        stepped
    }

    /// Another script. On other data it does nothing.
    pub(crate) fn run_chore(&mut self, incarnation: u64, chore: Chore) {
        if self.data.incarnation() == Some(incarnation) {
            self.write(Write::Chore(chore));
        }
    }

    /// An agent begins: data without an incarnation gets its own.
    pub(crate) fn claim(&mut self) {
        if self.data.is_blank {
            self.write(Write::Claim);
        }
    }

    pub(crate) fn fence(&mut self) {
        if !self.data.is_fenced {
            self.write(Write::Fence);
        }
    }

    /// One step of a repair; whether it applied anything.
    pub(crate) fn redo(&mut self, redone: Redone) -> bool {
        self.write(Write::Redo(redone))
    }

    /// The same, of one phase that no log has.
    pub(crate) fn redo_unlogged(&mut self, txid: Txid, marker: OnePhaseMarker) -> bool {
        self.write(Write::RedoUnlogged(txid, marker))
    }

    /// The last step of a repair; whether it applied anything.
    pub(crate) fn open(
        &mut self,
        repair: Repair,
        served: BTreeMap<LogId, u64>,
        came_of: Vec<u64>,
    ) -> bool {
        self.write(Write::Open(repair, served, came_of))
    }

    fn write(&mut self, write: Write) -> bool {
        self.keep(|| write.clone());
        self.data.write(write)
    }

    fn keep(&mut self, write: impl FnOnce() -> Write) {
        if let Some(journal) = &mut self.journal {
            journal.append(write());
        }
    }

    /// How many of the last writes can be lost.
    pub(crate) fn journal_writes(&self) -> usize {
        self.journal.as_ref().map_or(0, |journal| journal.writes.len())
    }

    /// Comes back without the last writes.
    pub(crate) fn go_back(&mut self, count: usize) {
        let Some(journal) = &mut self.journal else { return };
        let kept = journal.writes.len().saturating_sub(count);
        journal.writes.truncate(kept);
        self.data = journal.replayed(kept);
    }
}

impl Data {
    /// What the control hash says: none of blank data, and that of no data if it is fenced.
    pub(crate) fn incarnation(&self) -> Option<u64> {
        if self.is_fenced {
            return Some(FENCED);
        }
        (!self.is_blank).then(|| self.control.incarnation())
    }

    fn write(&mut self, write: Write) -> bool {
        match write {
            Write::Message(txid, message) => self.told(txid, message).is_some(),
            Write::Chore(chore) => {
                self.chore(chore);
                false
            }
            Write::Claim => {
                self.is_blank = false;
                false
            }
            Write::Fence => {
                self.is_fenced = true;
                false
            }
            Write::Redo(redone) => {
                let redo = self.control.redo(redone);
                self.apply(redo.iter())
            }
            Write::RedoUnlogged(txid, marker) => {
                let redo = self.control.redo_unlogged(txid, marker);
                self.apply(redo.iter())
            }
            Write::Open(repair, served, came_of) => {
                (self.is_fenced, self.is_blank) = (false, false);
                (self.ended, self.expected) = (0, 0);
                self.served.extend(served);
                self.came_of = came_of;
                let redo = self.control.repair(repair);
                self.apply(redo.iter())
            }
        }
    }

    /// One message to a branch; what it applied.
    fn told(&mut self, txid: Txid, message: BranchMessage<Prepare>) -> Option<Redo> {
        let before = self.control.state(txid);
        let stepped = self.control.step(self.control.incarnation(), txid, message);
        self.apply(stepped.apply.iter());
        self.count(before, self.control.state(txid));
        stepped.apply
    }

    fn chore(&mut self, chore: Chore) {
        match chore {
            Chore::Hear(log_id, heard) => self.control.hear(log_id, heard),
            Chore::Sweep => self.control.sweep(),
            Chore::Forget(txid) => self.control.forget(txid),
        }
    }

    fn count(&mut self, before: Option<BranchState>, after: Option<BranchState>) {
        let ended = u64::from(is_end(before, after));
        (self.ended, self.expected) = (self.ended + ended, self.expected + ended);
    }

    fn apply<'a>(&mut self, writes: impl Iterator<Item = &'a Redo>) -> bool {
        let mut is_applied = false;
        for redo in writes {
            request::apply(redo, &mut self.balances);
            is_applied = true;
        }
        is_applied
    }

    /// What the control hash says of the data.
    pub(crate) fn found(&self) -> Found {
        let (incarnation, seq) = (self.incarnation(), self.control.seq());
        Found { incarnation, seq, ended: self.ended, expected: self.expected }
    }

    pub(crate) fn point(&self) -> DataPoint {
        DataPoint { incarnation: self.control.incarnation(), seq: self.control.seq() }
    }
}

/// Whether a script has ended a branch: applied it, or dropped what it had staged.
fn is_end(before: Option<BranchState>, after: Option<BranchState>) -> bool {
    match after {
        Some(BranchState::Applied) => before != after,
        Some(BranchState::Aborted) => before == Some(BranchState::Prepared),
        _ => false,
    }
}

impl Journal {
    fn append(&mut self, write: Write) {
        if self.writes.len() >= 2 * JOURNAL_SCRIPTS {
            self.begin = self.replayed(JOURNAL_SCRIPTS);
            self.writes.drain(..JOURNAL_SCRIPTS);
        }
        self.writes.push(write);
    }

    fn replayed(&self, count: usize) -> Data {
        let mut data = self.begin.clone();
        for write in &self.writes[..count] {
            data.write(write.clone());
        }
        data
    }
}
