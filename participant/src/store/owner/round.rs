//! One round: what the machine says to some messages, and the writes that keep it.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use assent_common::branch::{BranchAnswer, BranchMessage, Ending};
use assent_common::command::{Access, Claim};
use assent_common::ids::{LogId, Txid};
use assent_common::outcome::{Applied, Call, Done, Prepared, Refusal, Written};
use assent_common::participant::{Claimed, Evaluation, Heard, Key, Prepare, Stepped};
use assent_common::value::{Arg, Reply};
use assent_common::wire::branch::BranchState;

use super::super::call::PrepareItem;
use super::super::control::{
    Field, StagedRecord, ToldPosition, lock_value, pack_branches, pack_one_phase, write_mark,
};
use super::super::markers::Marker;
use super::super::mutants;
use super::super::packed::RedoError;
use super::super::sorted::Sorted;
use super::super::work::{EndingItem, Speaker};
use super::Owner;
use super::counters::{Added, is_escrow};
use super::evaluate::Yes;
use super::exec::Exec;

/// The messages of a round, their answers for when its writes are kept, and the writes.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) exec: Exec,
    pub(super) taken: Sorted,
    /// By the slot of the message.
    pub(super) answers: Vec<(usize, BranchAnswer)>,
    /// The markers that it leaves.
    pub(super) left: Vec<Marker>,
    /// What it applies in one phase: the number and the done-marker of each branch.
    pub(super) one_phase: Vec<(Txid, u64, Arc<[u8]>)>,
    /// Which results are the writes of which answer: those may be dirty.
    pub(super) applied: Vec<(usize, std::ops::Range<usize>)>,
    /// The keys whose data the round changes: what is read before it is not what will be.
    pub(super) changed: HashSet<Key>,
    /// What it adds to counters in escrow.
    pub(super) added: Added,
    /// Whether it votes or ends branches, so that it says how many have ended.
    is_counted: bool,
    /// The number of its last vote: those before it need not be written.
    seq: Option<u64>,
    /// The keys whose locks it takes or frees.
    locked: HashSet<Key>,
    /// Whether an answer is only good if the ownership is: then there is an `EXEC` although nothing
    /// is written.
    pub(super) asserts: bool,
}

impl Round {
    /// Whether a prepare must wait for the next round.
    pub(super) fn concerns(&self, item: &PrepareItem) -> bool {
        let is_changed = |lock: &assent_common::command::Lock| {
            self.changed.contains(&lock.key)
                || !is_escrow(lock.access) && self.added.concerns(&lock.key)
        };
        !(self.changed.is_empty() && self.added.is_empty())
            && item.prepare.branch.locks.iter().any(is_changed)
    }
}

impl Owner {
    /// Forgets the markers below the marks: the marks answer for them.
    pub(in super::super) fn sweep(&mut self) {
        self.machine.sweep();
    }

    /// Takes note of what a script has kept of a log: what a round writes of it is never less.
    pub(in super::super) fn is_kept(&mut self, log_id: LogId, heard: Heard) {
        self.machine.hear(log_id, heard);
        let stored = self.stored.entry(log_id).or_insert(heard);
        *stored = stored.and(heard);
    }

    /// Forgets markers that are gone from the hash.
    pub(in super::super) fn forget(&mut self, txids: &[Txid]) {
        for txid in txids {
            self.machine.forget(*txid);
        }
    }

    fn step(&mut self, txid: Txid, message: BranchMessage<Prepare>) -> Stepped {
        self.machine.step(self.machine.incarnation(), txid, message)
    }

    /// Takes note of what a coordinator says of itself, and keeps it where it is new.
    pub(super) fn hear(&mut self, round: &mut Round, log_id: LogId, heard: Heard) {
        self.machine.hear(log_id, heard);
        let Some(now) = self.machine.heard(log_id) else { return };
        if self.stored.insert(log_id, now) != Some(now) {
            round.exec.set(Field::Mark(log_id), write_mark(now));
        }
    }

    /// Keeps how far the log was on disk, as it said, beside the ends of branches that are on its
    /// word.
    pub(super) fn keep_told(
        &mut self,
        round: &mut Round,
        speaker: &Speaker<'_>,
        said: Option<ToldPosition>,
    ) {
        let (Some(said), log_id) = (said, speaker.log_id) else { return };
        let told = self.told.entry(log_id).or_default();
        let ends = round.taken.endings.iter().any(|item| item.ending != Ending::Settle);
        if said.position > *told && (ends || !round.left.is_empty()) && mutants::keeps_told() {
            *told = said.position;
            round.exec.set(Field::Told(log_id), said.to_string());
        }
    }

    /// A commit, an abort or a settle.
    pub(super) fn end(&mut self, round: &mut Round, item: EndingItem) -> Result<(), RedoError> {
        let EndingItem { slot, txid, ending } = item;
        let staged = self.machine.staged().get(&txid);
        let branches = staged.map(|staged| Arc::clone(&staged.branches)).unwrap_or_default();
        let is_settle = ending == Ending::Settle;
        let ended = staged.filter(|_| !is_settle);
        let keys: Vec<Key> = ended.iter().flat_map(|staged| staged.keys.iter().cloned()).collect();
        let was = self.machine.state(txid);
        let adds: Vec<_> = keys.iter().map(|key| self.adds(txid, key)).collect();
        let Stepped { answer, apply } = self.step(txid, ending.map(|never| match never {}));
        if was != self.machine.state(txid) {
            round.exec.delete(Field::Staged(txid));
            let is_applied = ending == Ending::Commit;
            let marker = match (is_applied, branches.is_empty()) {
                (true, true) => Marker::Done(txid),
                (true, false) => Marker::DoneImplicit(txid),
                (false, _) => Marker::Fence(txid),
            };
            let has_ended = was == Some(BranchState::Prepared);
            self.ended += u64::from(has_ended);
            round.exec.ended += u32::from(has_ended);
            round.is_counted |= has_ended;
            let value = if is_applied { pack_branches(&branches) } else { Vec::new() };
            round.exec.set(marker.field(), value);
            round.left.push(marker);
        }
        if let Some(redo) = &apply {
            round.applied.push((slot, round.exec.apply(redo)?));
        }
        round.locked.extend(keys.iter().cloned());
        for (key, adds) in keys.into_iter().zip(adds) {
            match adds {
                Some(adds) if apply.is_some() => {
                    adds.iter().for_each(|(of, delta)| round.added.add(&key, of, *delta));
                }
                Some(_) => {}
                None => drop(round.changed.insert(key)),
            }
        }
        round.asserts |= is_settle || matches!(answer, BranchAnswer::Applied(Call::Refused(_)));
        round.answers.push((slot, answer));
        Ok(())
    }

    /// What stands in the way of a prepare that is new here.
    pub(super) fn obstacle(&self, item: &PrepareItem) -> Option<Call<Prepared>> {
        self.machine.obstacle(item.txid, item.prepare.id, &locks(item))
    }

    /// The no that a prepare brings along, if nothing is kept of it.
    pub(super) fn refusal_if_new(&self, item: &PrepareItem) -> Option<Call<Prepared>> {
        let refusal = item.prepare.if_new.as_ref().filter(|_| !self.knows(item.txid));
        refusal.map(|refusal| Call::Refused(Refusal::clone(refusal)))
    }

    /// Whether something is kept of the branch already.
    pub(super) fn knows(&self, txid: Txid) -> bool {
        self.machine.state(txid).is_some()
    }

    /// A prepare whose ops came to a yes.
    pub(super) fn prepare(
        &mut self,
        round: &mut Round,
        item: &PrepareItem,
        yes: Yes,
        url: &str,
    ) -> Result<(), RedoError> {
        let packed = yes.packed_replies();
        let Yes { replies, redo, claims, .. } = yes;
        let writes = !redo.is_empty();
        let evaluation = Evaluation { replies: json(&replies).into(), redo: redo.into(), claims };
        let Stepped { answer, apply } = self.step(item.txid, prepare(item, evaluation));
        match &answer {
            BranchAnswer::Prepared(Call::Applied(Prepared::Yes(vote))) => {
                let packed = if writes { packed } else { Vec::new() };
                let record = StagedRecord::pack(item, url, vote.seq, &vote.redo, &packed);
                round.exec.set(Field::Staged(item.txid), record);
                round.seq = Some(vote.seq);
                round.is_counted = true;
                round.locked.extend(item.prepare.branch.locks.iter().map(|lock| lock.key.clone()));
            }
            BranchAnswer::Prepared(Call::Applied(Prepared::Committed(Done {
                written: Some(Written { redo, seq, .. }),
                ..
            }))) => {
                let value = pack_one_phase(item, &packed, *seq, redo);
                let marker = Marker::OnePhase(item.txid, value.len());
                round.one_phase.push((item.txid, *seq, value.as_slice().into()));
                round.exec.set(marker.field(), value);
                round.seq = Some(*seq);
                round.left.push(marker);
                self.ended += 1;
                round.exec.ended += 1;
                round.is_counted = true;
            }
            _ => {}
        }
        if let Some(redo) = apply.filter(|redo| !redo.is_empty()) {
            // An op that wrote past the agent does not show in the answer of one phase.
            round.exec.apply(&redo)?;
            let others = item.prepare.branch.locks.iter().filter(|lock| !is_escrow(lock.access));
            round.changed.extend(others.map(|lock| lock.key.clone()));
            for claim in &item.prepare.branch.claims {
                round.added.add(&claim.key, &claim.field, claim.delta());
            }
        }
        round.answers.push((item.slot, answer));
        Ok(())
    }

    /// Takes note of what a script said to a prepare.
    pub(super) fn learn(&mut self, item: &PrepareItem, call: &Call<Prepared>) -> Learnt {
        let (replies, redo) = match call {
            Call::Applied(Prepared::Yes(vote)) => (vote.replies.clone(), vote.redo.clone()),
            Call::Applied(Prepared::Committed(done)) => {
                let written = done.written.as_ref();
                let redo = written.map_or_else(|| [].into(), |written| written.redo.clone());
                (done.replies.clone(), redo)
            }
            Call::Applied(Prepared::Wait(_)) | Call::Refused(_) => return Learnt::Agrees,
            Call::Unknown(_) => return Learnt::Differs,
        };
        if self.knows(item.txid) {
            return Learnt::Agrees;
        }
        let claims = item.prepare.branch.claims.iter().map(granted).collect();
        let evaluation = Evaluation { replies, redo, claims };
        let stepped = self.step(item.txid, prepare(item, evaluation));
        let agrees = match (&stepped.answer, call) {
            (
                BranchAnswer::Prepared(Call::Applied(Prepared::Yes(own))),
                Call::Applied(Prepared::Yes(vote)),
            ) => own.seq == vote.seq,
            (
                BranchAnswer::Prepared(Call::Applied(Prepared::Committed(own))),
                Call::Applied(Prepared::Committed(done)),
            ) => {
                self.ended += u64::from(own.written.is_some());
                seq_of(own) == seq_of(done)
            }
            _ => false,
        };
        if agrees { Learnt::Agrees } else { Learnt::Differs }
    }

    /// Writes the number of the last vote, and how many branches have ended when the round is over,
    /// beside what the `EXEC` adds to that count: once each.
    pub(super) fn keep_count(&self, round: &mut Round) {
        if let Some(seq) = round.seq {
            round.exec.set(Field::Seq, seq.to_string());
        }
        if round.is_counted {
            round.exec.set(Field::Expected, self.ended.to_string());
        }
    }

    /// How many branches have ended in this incarnation.
    pub(super) const fn ended(&self) -> u64 {
        self.ended
    }

    /// Writes the locks that a round took or freed as they are at its end: once each, because an
    /// `EXEC` sets after it deletes.
    pub(super) fn keep_locks(&self, round: &mut Round) {
        for key in round.locked.drain() {
            let field = Field::Lock(&key.0);
            match self.machine.locks().get(&key) {
                Some(lock) => round.exec.set(field, lock_value(lock)),
                None => round.exec.delete(field),
            }
        }
    }
}

fn seq_of(done: &Done) -> Option<u64> {
    done.written.as_ref().map(|written| written.seq)
}

/// Whether the machine came to what the script said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learnt {
    Agrees,
    /// What is in memory is worth nothing any more.
    Differs,
}

/// A claim that the scripts have judged.
fn granted(claim: &Claim) -> Claimed {
    Claimed { claim: claim.clone(), value: None }
}

/// A prepare whose ops came to a yes, as the machine takes it.
fn prepare(item: &PrepareItem, evaluation: Evaluation) -> BranchMessage<Prepare> {
    BranchMessage::Prepare(Prepare {
        id: item.prepare.id,
        mode: item.prepare.mode,
        branches: Arc::clone(&item.prepare.branches),
        locks: locks(item),
        evaluation: Ok(evaluation),
    })
}

fn locks(item: &PrepareItem) -> Vec<(Key, Access)> {
    item.prepare.branch.locks.iter().map(|lock| (lock.key.clone(), lock.access)).collect()
}

/// How many of a branch's writes Redis did not take, and what it said of the first.
pub(super) fn dirty(writes: &[Vec<Arg>], results: &[redis::Value]) -> (Applied, Option<String>) {
    let errors = || {
        writes.iter().zip(results).filter_map(|(write, result)| match result {
            redis::Value::ServerError(error) if !has_expired(write, writes, error) => Some(error),
            _ => None,
        })
    };
    let dirty_writes = u32::try_from(errors().count()).unwrap_or(u32::MAX);
    (Applied { dirty_writes }, errors().next().map(ToString::to_string))
}

/// Whether a write failed because its key has expired since the vote, as `lua/control.lua` says.
fn has_expired(write: &[Arg], writes: &[Vec<Arg>], error: &redis::ServerError) -> bool {
    let is = |write: &[Arg], name: &[u8]| write.first().is_some_and(|word| word.0 == name);
    is(write, b"LSET")
        && error.to_string().contains("no such key")
        && writes.iter().any(|other| is(other, b"PEXPIREAT") && other.get(1) == write.get(1))
}

/// The replies, as the text of a JSON array.
fn json(replies: &[Reply]) -> String {
    let mut json = String::with_capacity(16 * replies.len() + 2);
    json.push('[');
    for (place, reply) in replies.iter().enumerate() {
        if place > 0 {
            json.push(',');
        }
        match reply {
            Reply::Int(number) => {
                let _ = write!(json, "{number}");
            }
            // Serialising bytes and arrays of them cannot fail.
            reply => json.push_str(&serde_json::to_string(reply).unwrap_or_default()),
        }
    }
    json.push(']');
    json
}
