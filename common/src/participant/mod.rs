//! The participant's half of the protocol: the control data of one Redis, and what each script does
//! to it.
//!
//! An agent that owns its Redis runs this machine, and restores it from the hash ([`Restored`]). It
//! is the reference for the Lua scripts of agents that share one, and the double that the model
//! checker and the simulator run. One value is one control hash; one [`Participant::step`] is one
//! script, or a part of an owner's round: atomic and durable when it answers.
//! [`Participant::hear`], [`Participant::sweep`] and [`Participant::forget`] are scripts too, about
//! no branch's outcome: whoever calls them has compared the incarnation.
//!
//! ```text
//!              prepare (all locks had, all ops evaluated)             commit
//!   Absent ────────────────────────────────────────────► Staged ────────────────► Done ──┐
//!     │  │                                                  │                            │ sweep, below the mark
//!     │  └─ prepare, one phase ─────────────────────────────┼───────────────────► Done ──┤
//!     │                                                     │ abort                      ▼
//!     └─ abort ─────────────────────────────────────────────┴──────────────────► Fenced ─┴► Absent, for ever
//!
//!   what is kept │ prepare                        │ commit               │ abort                   │ settle
//!   Absent       │ see `stage_or_apply`           │ refused: branch_lost │ Fenced                  │ Fenced
//!   Staged       │ the same yes                   │ applied              │ Fenced, own locks freed │ Prepared
//!   Done         │ one phase: committed, as       │ applied, as before   │ already committed       │ Applied
//!                │ before; else refused: wrong_state                     │                         │
//!   Fenced       │ refused: fenced                │ refused: fenced      │ Fenced                  │ Fenced
//! ```
//!
//! A branch of an implicit transaction knows all others, because the votes of all are the decision.
//! Its done-marker says so to whoever asks in its log's place, so that it goes only by the mark of
//! the life that began the transaction, which passes nothing that is not applied everywhere: a
//! later life does not know of it (`sweep`). What is left behind so goes on the word of who has
//! asked all other branches ([`Participant::forget`]).
//!
//! A refused or waiting request changes nothing. Nothing here knows time: no lock, staged record or
//! fence expires (invariant 3); markers go by the low-water mark (invariant 10).

mod escrow;
mod found;
mod locks;
mod repair;
mod reports;
mod request;
pub mod resolver;
mod restore;
mod unlogged;

#[cfg(test)]
mod escrow_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use escrow::{Claimed, Counter, Escrow};
pub use found::{DataLook, FENCED, Found, Known, Meeting, Mismatch, NO_DATA, OwnData};
use locks::Conflict;
pub use locks::{Lock, Locks};
pub use repair::{Repair, opening_seq};
pub use reports::{RedoBy, RepairPlan, RepairStep, ReportTaken, Reports};
pub use request::{Branches, Evaluation, Key, Prepare, Stepped};
pub use restore::Restored;
pub use unlogged::{Unlogged, UnloggedBranch};

use crate::branch::{BranchAnswer, BranchMessage};
use crate::code::ErrorCode;
use crate::command::Access;
use crate::ids::{Attempt, Epoch, LogId, TransactionId, TxNumber, Txid};
use crate::outcome::{
    Aborted, Applied, Call, Done, Prepared, Redo, Refusal, Replies, Settled, Vote, Written,
};
use crate::wire::branch::{BranchState, Mode};
use crate::wire::resync::Mark;

/// The control data of one Redis.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Participant {
    incarnation: u64,
    seq: u64,
    locks: Locks,
    staged: BTreeMap<Txid, Staged>,
    done: BTreeMap<Txid, DoneMarker>,
    fences: BTreeSet<Txid>,
    logs: BTreeMap<LogId, Heard>,
}

/// A branch that voted yes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Staged {
    /// The public id.
    pub id: TransactionId,
    /// The keys that it locks.
    pub keys: BTreeSet<Key>,
    /// The vote, as it was given and is given again.
    pub vote: Vote,
    /// All branches, where their votes are the decision.
    pub branches: Branches,
}

/// What a done-marker says beside that the branch is applied.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DoneMarker {
    /// Nothing: the commit record of its log has all.
    Logged,
    /// What one phase came to.
    OnePhase(OnePhaseMarker),
    /// The branches of an implicit transaction.
    Implicit(Branches),
}

/// What one phase came to, as its branch keeps it until the low-water mark: its log has it then.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OnePhaseMarker {
    /// The replies.
    pub replies: Replies,
    /// The number that it took among the votes, and its writes. An older version did not keep them.
    pub wrote: Option<(u64, Redo)>,
}

/// What a log has said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Heard {
    /// The highest process life.
    pub epoch: Epoch,
    /// The low-water mark.
    pub low_water: TxNumber,
}

/// What is kept of a branch.
enum Kept {
    Absent,
    Staged(Vote),
    Done(DoneMarker),
    Fenced,
}

impl Participant {
    /// An empty Redis, under a fresh incarnation.
    #[must_use]
    pub const fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            seq: 0,
            locks: Locks::new(),
            staged: BTreeMap::new(),
            done: BTreeMap::new(),
            fences: BTreeSet::new(),
            logs: BTreeMap::new(),
        }
    }

    /// The one transition function of a branch. `incarnation` is that of the data which the caller
    /// resynchronised with last: no message is for a branch of other data (invariant 12).
    pub fn step(
        &mut self,
        incarnation: u64,
        txid: Txid,
        message: BranchMessage<Prepare>,
    ) -> Stepped {
        if incarnation != self.incarnation {
            let detail = "the data is not that of the agent's last resynchronisation";
            return message.refused(Refusal::new(ErrorCode::Quarantined, detail)).into();
        }
        match (self.kept(txid), message) {
            (Kept::Absent, BranchMessage::Prepare(prepare)) => self.stage_or_apply(txid, prepare),
            (Kept::Staged(vote), BranchMessage::Prepare(_)) => {
                BranchAnswer::Prepared(Call::Applied(Prepared::Yes(vote))).into()
            }
            (
                Kept::Done(DoneMarker::OnePhase(marker)),
                BranchMessage::Prepare(Prepare { mode: Mode::OnePhase, .. }),
            ) => {
                let done = marker.done(self.incarnation);
                BranchAnswer::Prepared(Call::Applied(Prepared::Committed(done))).into()
            }
            (Kept::Done(_), message @ BranchMessage::Prepare(_)) => {
                message.refused(wrong_state()).into()
            }
            (Kept::Absent, message @ BranchMessage::Commit) => {
                message.refused(self.forgotten(txid)).into()
            }
            (Kept::Fenced, message @ (BranchMessage::Prepare(_) | BranchMessage::Commit)) => {
                message.refused(fenced()).into()
            }
            (Kept::Staged(vote), BranchMessage::Commit) => {
                let marker = self.free(txid).map_or(DoneMarker::Logged, DoneMarker::of);
                self.done.insert(txid, marker);
                Stepped::applying(applied(), vote.redo)
            }
            (Kept::Done(_), BranchMessage::Commit) => applied().into(),
            (Kept::Done(marker), BranchMessage::Abort) => {
                let done = marker.done(self.incarnation);
                BranchAnswer::Aborted(Call::Applied(Aborted::AlreadyCommitted(done))).into()
            }
            (Kept::Absent | Kept::Staged(_) | Kept::Fenced, BranchMessage::Abort) => {
                let was_staged = self.free(txid).is_some();
                self.fence(txid, was_staged);
                BranchAnswer::Aborted(Call::Applied(Aborted::Fenced)).into()
            }
            (Kept::Staged(_), BranchMessage::Settle) => settled(Settled::Prepared),
            (Kept::Done(_), BranchMessage::Settle) => settled(Settled::Applied),
            (Kept::Absent | Kept::Fenced, BranchMessage::Settle) => {
                self.fence(txid, false);
                settled(Settled::Fenced)
            }
        }
    }

    /// A prepare of a branch of which nothing is kept. The order of the checks is part of the
    /// reference: the epoch, the mark, the locks, and the ops last, because only under its locks
    /// may a branch read; then whether there is room for what they add in escrow. The epoch comes
    /// first: the mark of a later life is above all of an earlier one, and would hide that two
    /// coordinators run.
    fn stage_or_apply(&mut self, txid: Txid, prepare: Prepare) -> Stepped {
        let Prepare { id, mode, branches, locks, evaluation } = prepare;
        if let Some(obstacle) = self.obstacle(txid, id, &locks) {
            return BranchAnswer::Prepared(obstacle).into();
        }
        let Evaluation { replies, redo, claims } = match evaluation {
            Ok(evaluation) => evaluation,
            Err(refusal) => return BranchAnswer::Prepared(Call::Refused(refusal)).into(),
        };
        if let Err(conflict) = self.locks.judge(id, &claims) {
            return BranchAnswer::Prepared(no(conflict)).into();
        }
        self.hear_epoch(txid.log_id, txid.number.epoch);
        match mode {
            Mode::OnePhase => {
                // A reader has nothing to apply twice, and leaves no trace.
                let mut marker = OnePhaseMarker { replies, wrote: None };
                if locks.iter().any(|(_, access)| *access != Access::Shared) {
                    self.seq += 1;
                    marker.wrote = Some((self.seq, redo.clone()));
                    self.done.insert(txid, DoneMarker::OnePhase(marker.clone()));
                }
                let done = marker.done(self.incarnation);
                let answer = BranchAnswer::Prepared(Call::Applied(Prepared::Committed(done)));
                Stepped::applying(answer, redo)
            }
            Mode::TwoPhase => {
                self.seq += 1;
                for (key, access) in &locks {
                    self.locks.take(txid, id, key, *access);
                }
                for Claimed { claim, .. } in claims {
                    let reserved = claim.reserved();
                    self.locks.reserve(txid, &claim.key, claim.field, reserved);
                }
                let keys = locks.into_iter().map(|(key, _)| key).collect();
                let vote = Vote { replies, redo, incarnation: self.incarnation, seq: self.seq };
                self.staged.insert(txid, Staged { id, keys, vote: vote.clone(), branches });
                BranchAnswer::Prepared(Call::Applied(Prepared::Yes(vote))).into()
            }
        }
    }

    fn kept(&self, txid: Txid) -> Kept {
        if let Some(staged) = self.staged.get(&txid) {
            Kept::Staged(staged.vote.clone())
        } else if let Some(marker) = self.done.get(&txid) {
            Kept::Done(marker.clone())
        } else if self.fences.contains(&txid) {
            Kept::Fenced
        } else {
            Kept::Absent
        }
    }

    /// What stands in the way of a prepare of which nothing is kept, before its ops are looked at.
    #[must_use]
    pub fn obstacle(
        &self,
        txid: Txid,
        id: TransactionId,
        locks: &[(Key, Access)],
    ) -> Option<Call<Prepared>> {
        if let Some(refusal) = self.too_old(txid) {
            return Some(Call::Refused(refusal));
        }
        self.locks.conflict(txid, id, locks).err().map(no)
    }

    /// What stands in the way of claims whose branch nothing else stands in the way of, for who
    /// evaluates its ops only if there is room.
    #[must_use]
    pub fn room(&self, id: TransactionId, claims: &[Claimed]) -> Option<Call<Prepared>> {
        self.locks.judge(id, claims).err().map(no)
    }

    /// Why a prepare may not be new: what was kept of its branch may have been swept, or its
    /// coordinator is no more.
    fn too_old(&self, txid: Txid) -> Option<Refusal> {
        let heard = self.logs.get(&txid.log_id)?;
        if txid.number.epoch < heard.epoch {
            let detail = format!("epoch {} of this coordinator has spoken already", heard.epoch);
            Some(Refusal::new(ErrorCode::StaleEpoch, detail))
        } else if self.is_below_mark(txid) {
            Some(below_low_water())
        } else {
            None
        }
    }

    fn is_below_mark(&self, txid: Txid) -> bool {
        self.logs.get(&txid.log_id).is_some_and(|heard| heard.has_passed(txid))
    }

    /// What a commit is told of a branch that nothing is kept of: a late duplicate, or a loss;
    /// never that it is applied.
    fn forgotten(&self, txid: Txid) -> Refusal {
        if self.is_below_mark(txid) { below_low_water() } else { branch_lost() }
    }

    /// Takes the staged record away, if there is one, and the locks that are its own (invariant
    /// 13).
    fn free(&mut self, txid: Txid) -> Option<Staged> {
        let staged = self.staged.remove(&txid)?;
        for key in &staged.keys {
            self.locks.free(txid, key);
        }
        Some(staged)
    }

    /// Keeps a late prepare out. Below the mark, the mark does.
    fn fence(&mut self, txid: Txid, was_staged: bool) {
        if was_staged || !self.is_below_mark(txid) {
            self.fences.insert(txid);
        }
    }

    fn hear_epoch(&mut self, log_id: LogId, epoch: Epoch) {
        let nothing = Heard { epoch, low_water: TxNumber { epoch: Epoch(0), n: 0 } };
        let heard = self.logs.entry(log_id).or_insert(nothing);
        heard.epoch = heard.epoch.max(epoch);
    }

    /// Takes what a log says of itself with every batch. Epochs and marks only rise: a batch that
    /// comes late says nothing new.
    pub fn hear(&mut self, log_id: LogId, said: Heard) {
        let heard = self.logs.entry(log_id).or_insert(said);
        *heard = heard.and(said);
    }

    /// Collects the done-markers and fences below the marks. Below the mark a prepare is refused by
    /// the mark, so that no marker is needed (invariant 10).
    ///
    /// But for the done-marker of an implicit transaction. A mark that a later life gave knows
    /// nothing of it, so that another branch may still be staged, and whoever settles that one must
    /// find this one applied. It stays.
    pub fn sweep(&mut self) {
        for (log_id, heard) in &self.logs {
            let at = |number| Txid { log_id: *log_id, number, attempt: Attempt::FIRST };
            let below = at(TxNumber { epoch: Epoch(0), n: 0 })..at(heard.low_water);
            // Numbers rise, so that what goes is at the front: its count is what a sweep costs, and
            // what stays is little.
            let gone: Vec<_> = (self.done.range(below.clone()))
                .filter(|(txid, marker)| heard.lets_go(**txid, marker.is_implicit()))
                .map(|(txid, _)| *txid)
                .collect();
            for txid in gone {
                self.done.remove(&txid);
            }
            while let Some(txid) = self.fences.range(below.clone()).next().copied() {
                self.fences.remove(&txid);
            }
        }
    }

    /// What a branch of one phase replies, as far as applying its writes has made that known. It is
    /// said before anybody hears of the branch.
    pub fn now_replies(&mut self, txid: Txid, known: Replies) {
        if let Some(DoneMarker::OnePhase(marker)) = self.done.get_mut(&txid) {
            marker.replies = known;
        }
    }

    /// Drops the done-marker of an implicit transaction that was left behind: no other branch of it
    /// is in doubt.
    pub fn forget(&mut self, txid: Txid) {
        if self.is_left_behind(txid) {
            self.done.remove(&txid);
        }
    }

    /// The incarnation of the data.
    #[must_use]
    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The number of the last vote of this incarnation.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// The lock table.
    #[must_use]
    pub const fn locks(&self) -> &Locks {
        &self.locks
    }

    /// The branches in doubt.
    #[must_use]
    pub const fn staged(&self) -> &BTreeMap<Txid, Staged> {
        &self.staged
    }

    /// What a log has said of itself.
    #[must_use]
    pub fn heard(&self, log_id: LogId) -> Option<Heard> {
        self.logs.get(&log_id).copied()
    }

    /// What is kept of a branch.
    #[must_use]
    pub fn state(&self, txid: Txid) -> Option<BranchState> {
        match self.kept(txid) {
            Kept::Absent => None,
            Kept::Staged(_) => Some(BranchState::Prepared),
            Kept::Done(_) => Some(BranchState::Applied),
            Kept::Fenced => Some(BranchState::Aborted),
        }
    }

    /// What the done-marker of a branch says, if there is one.
    #[must_use]
    pub fn done_marker(&self, txid: Txid) -> Option<&DoneMarker> {
        self.done.get(&txid)
    }

    /// The done-markers that wait for nobody's mark ([`Heard::leaves_behind`]), with all branches.
    pub fn left_behind(&self) -> impl Iterator<Item = (Txid, &Branches)> {
        self.done.iter().filter_map(|(txid, marker)| match marker {
            DoneMarker::Implicit(branches) if self.is_left_behind(*txid) => Some((*txid, branches)),
            _ => None,
        })
    }

    fn is_left_behind(&self, txid: Txid) -> bool {
        self.done.get(&txid).is_some_and(DoneMarker::is_implicit)
            && self.logs.get(&txid.log_id).is_some_and(|heard| heard.leaves_behind(txid))
    }

    /// The branches whose done-marker is still there.
    pub fn done(&self) -> impl Iterator<Item = Txid> {
        self.done.keys().copied()
    }

    /// How many done-markers and fences wait for the low-water mark.
    #[must_use]
    pub fn markers(&self) -> usize {
        self.done.len() + self.fences.len()
    }
}

/// What is said of a prepare that something stands in the way of.
fn no(conflict: Conflict) -> Call<Prepared> {
    match conflict {
        Conflict::Wait(holder) => Call::Applied(Prepared::Wait(holder)),
        Conflict::Die(holder) => Call::Refused(Refusal::lock_conflict(holder)),
        Conflict::Never(refusal) => Call::Refused(refusal),
    }
}

impl DoneMarker {
    /// Of a staged branch that is applied.
    fn of(staged: Staged) -> Self {
        if staged.branches.is_empty() { Self::Logged } else { Self::Implicit(staged.branches) }
    }

    /// Whether it says the outcome to whoever settles another branch.
    #[must_use]
    pub const fn is_implicit(&self) -> bool {
        matches!(self, Self::Implicit(_))
    }

    /// What it says of the branch, in data of this incarnation; of two phases, others have the
    /// replies.
    #[must_use]
    pub fn done(self, incarnation: u64) -> Done {
        match self {
            Self::OnePhase(marker) => marker.done(incarnation),
            Self::Logged | Self::Implicit(_) => "[]".into(),
        }
    }
}

impl OnePhaseMarker {
    /// What it says of the branch, in data of this incarnation.
    #[must_use]
    pub fn done(self, incarnation: u64) -> Done {
        let Self { replies, wrote } = self;
        let written = wrote.map(|(seq, redo)| Written { redo, incarnation, seq });
        Done { replies, written }
    }
}

impl Heard {
    /// What is known after this is heard too: epochs and marks only rise.
    #[must_use]
    pub fn and(self, said: Self) -> Self {
        Self { epoch: self.epoch.max(said.epoch), low_water: self.low_water.max(said.low_water) }
    }

    /// The mark that a participant shows of this log.
    #[must_use]
    pub fn mark(self, log_id: LogId) -> Mark {
        Mark { log_id, low_water: self.low_water, epoch: Some(self.epoch) }
    }

    /// Whether the mark answers for a transaction of this log.
    #[must_use]
    pub fn has_passed(self, txid: Txid) -> bool {
        txid.number < self.low_water
    }

    /// Whether a done-marker of this log says nothing any more that anybody needs.
    #[must_use]
    pub fn lets_go(self, txid: Txid, is_implicit: bool) -> bool {
        let is_of_this_life = txid.number.epoch == self.epoch;
        self.has_passed(txid) && (is_of_this_life || !is_implicit)
    }

    /// Whether the done-marker of an implicit transaction of this log waits for nobody's mark: a
    /// later life speaks, and is not at work on it. One that found the transaction in its log says
    /// its commit again, and must find it applied.
    #[must_use]
    pub fn leaves_behind(self, txid: Txid) -> bool {
        txid.number.epoch < self.epoch && self.has_passed(txid)
    }
}

fn settled(settled: Settled) -> Stepped {
    BranchAnswer::Settled(Call::Applied(settled)).into()
}

/// Dirty writes are seen by comparing data, which is outside; here there are none.
const fn applied() -> BranchAnswer {
    BranchAnswer::Applied(Call::Applied(Applied { dirty_writes: 0 }))
}

fn fenced() -> Refusal {
    Refusal::new(ErrorCode::Fenced, "the branch was aborted here before")
}

fn wrong_state() -> Refusal {
    Refusal::new(ErrorCode::WrongState, "the branch is applied")
}

fn below_low_water() -> Refusal {
    let detail = "the transaction is below its coordinator's low-water mark";
    Refusal::new(ErrorCode::BelowLowWater, detail)
}

fn branch_lost() -> Refusal {
    Refusal::new(ErrorCode::BranchLost, "nothing is known of this branch here")
}
