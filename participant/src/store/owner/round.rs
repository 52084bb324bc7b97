//! One round: what the machine says to some messages, and the writes that keep it.

use std::collections::HashSet;
use std::sync::Arc;

use assent_common::branch::{BranchAnswer, BranchMessage, Ending};
use assent_common::code::ErrorCode;
use assent_common::command::{Access, Claim};
use assent_common::ids::{LogId, Txid};
use assent_common::outcome::{
    Applied, Call, Done, Prepared, Redo, Refusal, Replies, Vote, Written,
};
use assent_common::participant::{Claimed, Evaluation, Heard, Key, Prepare, Stepped};
use assent_common::value::{Arg, Reply};
use assent_common::wire::branch::BranchState;

use super::super::control::{
    Field, ReservedOf, StagedRecord, pack_branches, pack_one_phase, pack_one_phase_around,
    write_mark, write_number,
};
use super::super::markers::Marker;
use super::super::mutants;
use super::super::packed::{Reader, RedoError, decode_redo};
use super::super::work::{EndingItem, PrepareItem, Sorted, Speaker};
use super::counters::{Added, is_escrow};
use super::evaluate::{Star, Yes, json, packed};
use super::exec::{Exec, Patch};
use super::{KeptBranch, Owner};

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
    /// The same of those whose replies are known when it is applied.
    starred: Vec<Starred>,
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
    /// Whether an answer is only good if the ownership is: then there is an `EXEC` although nothing
    /// is written.
    pub(super) asserts: bool,
}

/// A branch of one phase with entries whose ids are known when they are added.
#[derive(Debug)]
struct Starred {
    /// Its prepare, among those that the round has taken.
    item: usize,
    seq: u64,
    redo: Redo,
    replies: Vec<Reply>,
    stars: Vec<Star>,
    /// The place of its first write among the results.
    first: usize,
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

    /// A branch of one phase leaves this done-marker.
    fn left_one_phase(&mut self, txid: Txid, seq: u64, value: Vec<u8>) {
        self.left.push(Marker::OnePhase(txid, value.len()));
        self.one_phase.push((txid, seq, value.into()));
    }

    /// Applies the writes of a branch of one phase, and has its done-marker say what becomes known.
    /// Its prepare becomes the next one that the round has taken.
    fn starred(&mut self, item: &PrepareItem, mut starred: Starred) -> Result<(), RedoError> {
        starred.item = self.taken.prepares.len();
        starred.first = self.exec.apply_in_order(&starred.redo)?;
        let Starred { seq, redo, replies, stars, first, .. } = &starred;
        let ops = stars.iter().map(|star| star.op);
        self.exec.patch(Patch {
            field: Field::Done(item.txid).name(),
            pieces: pack_one_phase_around(item, replies, ops, *seq, redo),
            writes: stars.iter().map(|star| first + star.write).collect(),
        });
        self.starred.push(starred);
        Ok(())
    }
}

impl Starred {
    fn new(seq: u64, redo: &Redo, replies: Vec<Reply>, mut stars: Vec<Star>) -> Self {
        stars.sort_by_key(|star| star.op);
        Self { item: 0, seq, redo: Redo::clone(redo), replies, stars, first: 0 }
    }
}

impl Owner {
    /// Forgets the markers below the marks: the marks answer for them.
    pub(in super::super) fn sweep(&mut self) {
        self.machine.sweep();
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
    pub(super) fn keep_told(&mut self, round: &mut Round, speaker: &Speaker<'_>) {
        let (Some(said), log_id) = (speaker.told, speaker.log_id) else { return };
        let told = self.told.entry(log_id).or_default();
        let ends = round.taken.endings.iter().any(|item| item.ending != Ending::Settle);
        if said.position > *told && (ends || !round.left.is_empty()) && mutants::keeps_told() {
            *told = said.position;
            round.exec.set(Field::Told(log_id), said.to_string());
        }
    }

    /// The writes that an ending applies.
    pub(super) fn writes(&self, item: EndingItem) -> Result<Vec<Vec<Arg>>, RedoError> {
        let staged = self.machine.staged().get(&item.txid);
        let applied = staged.filter(|_| item.ending == Ending::Commit);
        applied.map_or(Ok(Vec::new()), |staged| decode_redo(&staged.vote.redo))
    }

    /// A commit, an abort or a settle.
    pub(super) fn end(&mut self, round: &mut Round, item: EndingItem) -> Result<(), RedoError> {
        let EndingItem { slot, txid, ending } = item;
        // First: of a branch whose writes cannot be read nothing is changed.
        let writes = self.writes(item)?;
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
            keys.iter().for_each(|key| self.old_locks.ended(&mut round.exec, txid, key));
        }
        if apply.is_some() {
            round.applied.push((slot, round.exec.apply(writes)));
        }
        mutants::frees_locks(&mut self.machine, &keys);
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
    pub(super) fn obstacle(&mut self, item: &PrepareItem) -> Option<Call<Prepared>> {
        let met = self.machine.obstacle(item.txid, item.prepare.id, &locks(item))?;
        (!mutants::ignores(&mut self.machine, &met)).then_some(met)
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

    /// What is kept of the branch of a prepare.
    pub(super) fn kept(&mut self, item: &PrepareItem) -> KeptBranch {
        match self.machine.state(item.txid) {
            None => KeptBranch::Nothing,
            Some(BranchState::Prepared) => match self.machine.staged().get(&item.txid) {
                Some(staged) if staged.vote.redo.is_empty() && item.prepare.hooked.is_none() => {
                    KeptBranch::Reads
                }
                _ => KeptBranch::Writes,
            },
            Some(BranchState::Applied | BranchState::Aborted) => {
                // Nobody asks for what its ops come to.
                let unasked = Err(Refusal::new(ErrorCode::Internal, "it was not evaluated"));
                match self.step(item.txid, prepare(item, unasked)).answer {
                    BranchAnswer::Prepared(call) => {
                        match mutants::ignores(&mut self.machine, &call) {
                            true => KeptBranch::Nothing,
                            false => KeptBranch::Answer(call),
                        }
                    }
                    _ => KeptBranch::Answer(Call::Unknown(
                        "the machine answers otherwise".to_owned(),
                    )),
                }
            }
        }
    }

    /// The vote of a branch that is staged, once more; with these replies, as the text of a JSON
    /// array.
    pub(super) fn vote_again(&self, txid: Txid, replies: String) -> Call<Prepared> {
        match self.machine.staged().get(&txid) {
            Some(staged) => {
                let vote = Vote { replies: replies.into(), ..staged.vote.clone() };
                Call::Applied(Prepared::Yes(vote))
            }
            None => Call::Unknown("the branch is not staged any more".to_owned()),
        }
    }

    /// What stands in the way of the claims of a branch.
    pub(super) fn room(&self, item: &PrepareItem, claims: &[Claimed]) -> Option<Call<Prepared>> {
        self.machine.room(item.prepare.id, claims)
    }

    /// A prepare whose ops came to a yes. It becomes the next one that the round has taken.
    pub(super) fn prepare(
        &mut self,
        round: &mut Round,
        item: &PrepareItem,
        yes: Yes,
        url: &str,
    ) -> Result<(), RedoError> {
        let Yes { packed, json, redo, claims, stars } = yes;
        let writes = !redo.is_empty();
        let reserved: Vec<_> = claims.iter().map(|Claimed { claim, .. }| reserved(claim)).collect();
        let evaluation = Evaluation { replies: json.into(), redo: redo.into(), claims };
        let Stepped { answer, apply } = self.step(item.txid, prepare(item, Ok(evaluation)));
        let mut is_starred = false;
        match &answer {
            BranchAnswer::Prepared(Call::Applied(Prepared::Yes(vote))) => {
                let keeps_replies = writes || item.prepare.hooked.is_some();
                let packed = if keeps_replies { packed } else { Vec::new() };
                let record =
                    StagedRecord::pack(item, url, vote.seq, &vote.redo, &packed, &reserved);
                round.exec.set(Field::Staged(item.txid), record);
                round.seq = Some(vote.seq);
                round.is_counted = true;
                round.exec.takes_memory = true;
                mutants::keeps_locks(&mut self.machine, item.txid, &locks(item));
            }
            BranchAnswer::Prepared(Call::Applied(Prepared::Committed(Done {
                written: Some(Written { redo, seq, .. }),
                ..
            }))) => {
                let value = pack_one_phase(item, &packed, *seq, redo);
                round.exec.set(Field::Done(item.txid), value.as_slice());
                round.seq = Some(*seq);
                self.ended += 1;
                round.exec.ended += 1;
                round.is_counted = true;
                round.exec.takes_memory = true;
                is_starred = !stars.is_empty();
                if is_starred {
                    let replies = replies(item, &packed)?;
                    round.starred(item, Starred::new(*seq, redo, replies, stars))?;
                } else {
                    round.left_one_phase(item.txid, *seq, value);
                }
            }
            _ => {}
        }
        if let Some(redo) = apply.filter(|redo| !redo.is_empty()) {
            // An op that wrote past the agent does not show in the answer of one phase.
            if !is_starred {
                round.exec.apply(decode_redo(&redo)?);
            }
            let others = item.prepare.branch.locks.iter().filter(|lock| !is_escrow(lock.access));
            round.changed.extend(others.map(|lock| lock.key.clone()));
            for claim in &item.prepare.branch.claims {
                round.added.add(&claim.key, &claim.field, claim.delta());
            }
        }
        round.answers.push((item.slot, answer));
        Ok(())
    }

    /// Says in the answers of one phase what applying it has made known.
    pub(super) fn now_known(&mut self, round: &mut Round, results: &[redis::Value]) {
        for starred in std::mem::take(&mut round.starred) {
            let Starred { item, seq, redo, mut replies, stars, first } = starred;
            let Some(item) = round.taken.prepares.get(item) else { continue };
            for Star { write, op } in stars {
                let said = results.get(first + write).zip(replies.get_mut(op));
                if let Some((redis::Value::BulkString(id), reply)) = said {
                    *reply = Reply::Bytes(id.clone());
                }
            }
            let value = pack_one_phase(item, &packed(&replies), seq, &redo);
            let (txid, slot, known) = (item.txid, item.slot, Replies::from(json(&replies)));
            self.machine.now_replies(txid, Replies::clone(&known));
            for (_, answer) in round.answers.iter_mut().filter(|(of, _)| *of == slot) {
                if let BranchAnswer::Prepared(Call::Applied(Prepared::Committed(done))) = answer {
                    done.replies = Replies::clone(&known);
                }
            }
            round.left_one_phase(txid, seq, value);
        }
    }

    /// Writes the number of the last vote, and how many branches have ended when the round is over,
    /// beside what the `EXEC` adds to that count: once each.
    pub(super) fn keep_count(&self, round: &mut Round) {
        if let Some(seq) = round.seq {
            round.exec.set(Field::Seq, write_number(seq));
        }
        if round.is_counted {
            round.exec.set(Field::Expected, write_number(self.ended));
        }
    }

    /// How many branches have ended in this incarnation.
    pub(super) const fn ended(&self) -> u64 {
        self.ended
    }
}

/// The replies of a branch, unpacked.
fn replies(item: &PrepareItem, packed: &[u8]) -> Result<Vec<Reply>, RedoError> {
    let mut reader = Reader(packed);
    let count = reader.array()?;
    item.shown_kinds().take(count).map(|kind| reader.reply(kind)).collect()
}

/// A prepare and what its ops came to, as the machine takes it.
fn prepare(item: &PrepareItem, evaluation: Result<Evaluation, Refusal>) -> BranchMessage<Prepare> {
    BranchMessage::Prepare(Prepare {
        id: item.prepare.id,
        mode: item.prepare.mode,
        branches: Arc::clone(&item.prepare.branches),
        locks: locks(item),
        evaluation,
    })
}

fn locks(item: &PrepareItem) -> Vec<(Key, Access)> {
    item.prepare.branch.locks.iter().map(|lock| (lock.key.clone(), lock.access)).collect()
}

/// What a branch reserves by a claim.
fn reserved(claim: &Claim) -> ReservedOf {
    (claim.key.clone(), claim.field.clone(), claim.reserved())
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

/// Whether a write failed because its key has expired since the vote, as the branch says that it
/// may. Of all writes only LSET needs its key to be there.
fn has_expired(write: &[Arg], writes: &[Vec<Arg>], error: &redis::ServerError) -> bool {
    let is = |write: &[Arg], name: &[u8]| write.first().is_some_and(|word| word.0 == name);
    is(write, b"LSET")
        && error.to_string().contains("no such key")
        && writes.iter().any(|other| is(other, b"PEXPIREAT") && other.get(1) == write.get(1))
}
