//! What a log knows of its participants' data, and what it has to say when one of them lost some
//! (invariants 9, 12).
//!
//! Owns the comparison and the plan; the shell reads the log, and carries. It must never plan a
//! redo that could be wrong: what the log does not hold any more, or was voted on data that it
//! never saw, is a [`Loss`], which is named and left to people.
//!
//! ```text
//! seen:   ……… retired ……… found.seq ……………………… known.seq        numbers of votes at one participant
//!         the log lets go │ still in the data │ lost: redone from the log, in this order
//! ```
//!
//! The order of the votes is a right order to redo in: a branch votes only after every branch that
//! it conflicts with has been applied.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Attempt, LogId, ParticipantName, TxNumber, Txid};
use crate::outcome::{Aborted, Call, Done, Heuristic, Prepared, Redo};
use crate::record::{Abandoned, Answered, Committed, DataSeen, EndedByHand, Record};
use crate::wire::resync::{DataPoint, DataView, Hole, Mark, StagedView};

/// What a log has seen of one participant's data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The data, and the highest number of a vote on it; `None` before the first vote that was
    /// heard.
    pub known: Option<DataPoint>,
    /// The highest number of a committed vote whose writes the log has let go.
    pub retired: u64,
}

/// What became of a vote's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoteData {
    /// It is the data that is known.
    Known,
    /// It is other data: the vote came from before a loss, and counts for nothing.
    Other,
}

impl Seen {
    /// Takes note of a vote.
    pub fn vote(&mut self, vote: DataPoint) -> VoteData {
        match &mut self.known {
            None => self.known = Some(vote),
            Some(known) if known.incarnation == vote.incarnation => {
                known.seq = known.seq.max(vote.seq);
            }
            Some(_) => return VoteData::Other,
        }
        VoteData::Known
    }

    /// Takes note of data that was opened after a loss.
    pub fn opened(&mut self, open: DataPoint) {
        self.known = Some(open);
    }

    /// Takes note of a decision that the log lets go.
    pub fn retire(&mut self, seq: u64) {
        self.retired = self.retired.max(seq);
    }
}

/// Which data a vote was given on, and its number there; `None` where the answer is no vote, or
/// does not say.
#[must_use]
pub fn voted_on(call: &Call<Prepared>) -> Option<DataPoint> {
    match call {
        Call::Applied(Prepared::Yes(vote)) => {
            Some(DataPoint { incarnation: vote.incarnation, seq: vote.seq })
        }
        Call::Applied(Prepared::Committed(done)) => written_at(done),
        _ => None,
    }
}

/// The same of a branch of one phase that was asked what it did.
#[must_use]
pub fn applied_on(call: &Call<Aborted>) -> Option<DataPoint> {
    match call {
        Call::Applied(Aborted::AlreadyCommitted(done)) => written_at(done),
        _ => None,
    }
}

fn written_at(done: &Done) -> Option<DataPoint> {
    let written = done.written.as_ref()?;
    Some(DataPoint { incarnation: written.incarnation, seq: written.seq })
}

/// What a log has seen of all its participants, from replay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenData(BTreeMap<ParticipantName, Seen>);

impl SeenData {
    /// Takes the next record.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Committed(committed) => {
                for branch in &committed.branches {
                    let vote = DataPoint { incarnation: branch.incarnation, seq: branch.seq };
                    self.vote(&branch.participant, vote);
                }
            }
            Record::Answered(Answered { participants, written: Some(written), .. }) => {
                let vote = DataPoint { incarnation: written.incarnation, seq: written.seq };
                if let Some(participant) = participants.first() {
                    self.vote(participant, vote);
                }
            }
            Record::DataSeen(DataSeen { participant, incarnation, seq, retired }) => {
                let seen = self.0.entry(participant.clone()).or_default();
                // It knew all that was heard before it.
                seen.known = Some(DataPoint { incarnation: *incarnation, seq: *seq });
                seen.retired = seen.retired.max(*retired);
            }
            _ => {}
        }
    }

    /// Numbers rise over incarnations, so that the highest is of the latest data. A vote that was
    /// not heard says nothing of it.
    fn vote(&mut self, participant: &ParticipantName, vote: DataPoint) {
        if vote.incarnation == 0 {
            return;
        }
        // Millions of votes come from some few participants: their names are not copied for each.
        let seen = match self.0.get_mut(participant) {
            Some(seen) => seen,
            None => self.0.entry(participant.clone()).or_default(),
        };
        seen.known = seen.known.filter(|known| known.seq >= vote.seq).or(Some(vote));
    }

    /// What was seen of each.
    pub fn into_each(self) -> impl Iterator<Item = (ParticipantName, Seen)> {
        self.0.into_iter()
    }
}

/// A committed branch to be applied again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redone {
    /// The number of its vote.
    pub seq: u64,
    /// The branch's transaction.
    pub txid: Txid,
    /// Its writes.
    pub redo: Redo,
}

/// Why a loss cannot be made good from the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// Too old.
    #[error(
        "the data is back at vote {found}, and this log keeps no writes up to vote {retired}: committed transactions between them are lost at this participant"
    )]
    Retired {
        /// The last vote in the data.
        found: u64,
        /// The highest number whose writes are gone.
        retired: u64,
    },
    /// Something is missing inside the history, or is there twice.
    #[error(
        "{ended} branches have ended in the data, but it also says that there should be {expected}: its history has a hole, and this log cannot tell for sure which branches are missing, or whether later ones wrote the same keys"
    )]
    Hole {
        /// How many have ended.
        ended: u64,
        /// How many had.
        expected: u64,
    },
    /// Somebody voted on data of which this log knows nothing.
    #[error(
        "the data (incarnation {incarnation:?}, vote {found}) is not what this log knew (vote {known}), and it has votes of its own: redoing over them could be wrong"
    )]
    Foreign {
        /// Which data was found.
        incarnation: Option<u64>,
        /// The last vote in it.
        found: u64,
        /// The last vote that the log has seen.
        known: u64,
    },
}

/// What a log has found that data lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// What is to be redone, in the order of the votes; with a loss, all of it that there is.
    pub redo: Vec<Redone>,
    /// Why that is not all. Only an operator can put up with it.
    pub loss: Option<Loss>,
}

/// What a log finds of the branches that data with a hole lacks.
#[derive(Debug)]
struct Missing {
    /// How many branches have ended in the data, and how many had, as it says.
    ended: u64,
    expected: u64,
    done: BTreeSet<Txid>,
    marks: Vec<Mark>,
    /// Those that the data certainly lacks.
    redo: BTreeMap<(u64, Txid), Redone>,
    /// The highest number of those that it has, or may have: what is redone must come behind them.
    present: u64,
    /// Whether one of those that it may have could be one that it lacks: its marker was due to go.
    may_be_swept: bool,
}

impl Missing {
    fn new(of: Hole) -> Self {
        let Hole { ended, expected, done, marks } = of;
        let (done, redo) = (done.into_iter().collect(), BTreeMap::new());
        Self { ended, expected, done, marks, redo, present: 0, may_be_swept: false }
    }

    /// Whether it has ended as far as the data is concerned, so that its marker may be gone.
    fn is_below_mark(&self, txid: Txid) -> bool {
        let is_below = |mark: &Mark| mark.log_id == txid.log_id && txid.number < mark.low_water;
        self.marks.iter().any(is_below)
    }

    /// Whether it has ended there for sure. A later life knows nothing of what its log was in doubt
    /// about, also where it goes on with something older and has a mark of then.
    fn has_surely_ended(&self, txid: Txid) -> bool {
        let is_of_its_life = |mark: &Mark| mark.epoch == Some(txid.number.epoch);
        let mut marks = self.marks.iter().filter(|mark| mark.log_id == txid.log_id);
        self.is_below_mark(txid) && marks.any(is_of_its_life)
    }

    /// Takes a branch whose vote the data has, or had; `is_counted` if it ended since the data was
    /// opened.
    fn committed(&mut self, branch: Redone, is_counted: bool) {
        let Redone { seq, txid, .. } = branch;
        let is_done = self.done.contains(&txid);
        if is_done || self.is_below_mark(txid) {
            self.present = self.present.max(seq);
            self.may_be_swept |= is_counted && !is_done;
        } else {
            self.redo.insert((seq, txid), branch);
        }
    }
}

/// The plan of one resynchronisation, made of the records of a log.
#[derive(Debug)]
pub struct Plan {
    log_id: LogId,
    participant: ParticipantName,
    /// Without its hole.
    found: DataView,
    incarnations: BTreeSet<u64>,
    redo: BTreeMap<(u64, Txid), Redone>,
    hole: Option<Missing>,
    /// Given up here by an operator, who may have done by hand what they say (invariant 16).
    abandoned: BTreeSet<(TxNumber, Option<Attempt>)>,
}

impl Plan {
    /// Of this log, for a participant whose data was found like this. `is_committed` says what the
    /// log decided of a transaction, its own or not; a branch that is staged needs no writes, its
    /// record has them.
    #[must_use]
    pub fn new(
        log_id: LogId,
        participant: ParticipantName,
        mut found: DataView,
        is_committed: impl Fn(Txid) -> bool,
    ) -> Self {
        let staged = found.staged.iter().filter(|staged| is_committed(staged.txid));
        let redo = staged.map(|&StagedView { txid, seq }| {
            ((seq, txid), Redone { seq, txid, redo: Redo::default() })
        });
        let redo = redo.collect();
        let (incarnations, abandoned) = Default::default();
        let hole = found.hole.take().map(Missing::new);
        Self { log_id, participant, found, incarnations, redo, hole, abandoned }
    }

    /// Takes a record of the log, in any order.
    pub fn apply(&mut self, record: &Record) {
        let log_id = self.log_id;
        match record {
            Record::Committed(committed) => {
                for branch in &committed.branches {
                    let Committed { number, attempt, .. } = *committed;
                    let txid = Txid { log_id, number, attempt };
                    let vote = DataPoint { incarnation: branch.incarnation, seq: branch.seq };
                    self.committed(&branch.participant, txid, vote, &branch.redo);
                }
            }
            Record::Answered(Answered { number, attempt, participants, written, .. }) => {
                if let (Some(participant), Some(written)) = (participants.first(), written) {
                    let txid = Txid { log_id, number: *number, attempt: *attempt };
                    let vote = DataPoint { incarnation: written.incarnation, seq: written.seq };
                    self.committed(participant, txid, vote, &written.redo);
                }
            }
            Record::Abandoned(Abandoned { number, participant, attempt, .. })
                if *participant == self.participant =>
            {
                self.abandoned.insert((*number, *attempt));
            }
            Record::EndedByHand(EndedByHand { number, participant, outcome, .. })
                if *participant == self.participant && *outcome == Heuristic::Aborted =>
            {
                self.abandoned.insert((*number, None));
            }
            // Data that was opened with this log's word is of its past, though no vote of its may
            // be on it.
            Record::DataSeen(DataSeen { participant, incarnation, .. })
                if *participant == self.participant =>
            {
                self.incarnations.insert(*incarnation);
            }
            _ => {}
        }
    }

    fn committed(
        &mut self,
        participant: &ParticipantName,
        txid: Txid,
        vote: DataPoint,
        redo: &Redo,
    ) {
        if *participant != self.participant {
            return;
        }
        let DataPoint { incarnation, seq } = vote;
        if incarnation > 0 {
            self.incarnations.insert(incarnation);
        }
        // A branch that only read has nothing to be redone.
        if seq > self.found.seq && !redo.is_empty() {
            self.redo.insert((seq, txid), Redone { seq, txid, redo: redo.clone() });
        } else if let Some(hole) = &mut self.hole
            && !redo.is_empty()
            && !self.redo.contains_key(&(seq, txid))
        {
            let is_counted = Some(incarnation) == self.found.incarnation;
            hole.committed(Redone { seq, txid, redo: redo.clone() }, is_counted);
        }
    }

    /// What is missing inside the history, if all of it is known for sure, and may be redone in the
    /// order of the votes.
    fn missing(&mut self, seen: Seen) -> Option<BTreeMap<(u64, Txid), Redone>> {
        let Some(hole) = &mut self.hole else { return Some(BTreeMap::new()) };
        let abandoned = &self.abandoned;
        hole.redo.retain(|(_, txid), _| !is_given_up(abandoned, *txid));
        let lacks = hole.expected.checked_sub(hole.ended)?;
        let missing = hole.redo.len() as u64;
        // A branch that is staged may be one whose outcome the data lost.
        let mut first = hole.redo.keys().next().map_or(u64::MAX, |(seq, _)| *seq);
        if lacks > missing {
            first = first.min(self.redo.keys().next().map_or(u64::MAX, |(seq, _)| *seq));
        }
        let staged = self.found.staged.len() as u64;
        // Below the mark of its own life all had ended, so that what is staged there lacks its
        // outcome for sure. What else is staged may be in doubt as before, and what lacks may be of
        // another branch, if there is one without a marker.
        let sure = self.found.staged.iter().filter(|it| hole.has_surely_ended(it.txid)).count();
        let sure = missing + sure as u64;
        let may_be_other = hole.may_be_swept || seen.retired > 0;
        let most = if may_be_other { sure } else { missing + staged };
        let is_counted = (sure..=most).contains(&lacks);
        let is_last = hole.present < first && seen.retired < first;
        let is_alone = self.found.owed.iter().all(|log_id| *log_id == self.log_id);
        (is_counted && is_last && is_alone).then(|| std::mem::take(&mut hole.redo))
    }

    /// What is to be redone, in the order of the votes, and why that would not be all.
    #[must_use]
    pub fn finish(mut self, seen: Seen) -> Lacking {
        let mut loss = self.loss_of_the_end(seen);
        self.redo.retain(|(seq, txid), _| {
            *seq <= self.found.seq || !is_given_up(&self.abandoned, *txid)
        });
        match (self.missing(seen), &self.hole) {
            (Some(missing), _) => self.redo.extend(missing),
            // What an operator puts up with is not guessed at.
            (None, Some(Missing { ended, expected, .. })) => {
                let hole = Loss::Hole { ended: *ended, expected: *expected };
                loss.get_or_insert(hole);
            }
            (None, None) => {}
        }
        Lacking { redo: self.redo.into_values().collect(), loss }
    }

    /// Why the end of the history cannot be made good.
    fn loss_of_the_end(&mut self, seen: Seen) -> Option<Loss> {
        let known = seen.known?;
        self.incarnations.insert(known.incarnation);
        let is_known = |incarnation: &u64| self.incarnations.contains(incarnation);
        // Its own, or what a repair that took this log's word made of one of them.
        let served = self.found.served.iter().filter(|served| served.log_id == self.log_id);
        let of_ours = self.found.incarnation.iter().any(is_known)
            || served.map(|served| served.incarnation).any(|it| is_known(&it));
        let (incarnation, found) = (self.found.incarnation, self.found.seq);
        if !of_ours && found > 0 {
            return Some(Loss::Foreign { incarnation, found, known: known.seq });
        }
        let retired = seen.retired;
        (found < retired).then_some(Loss::Retired { found, retired })
    }
}

/// Whether an operator gave up the branch of this attempt here, or of any.
fn is_given_up(abandoned: &BTreeSet<(TxNumber, Option<Attempt>)>, txid: Txid) -> bool {
    let Txid { number, attempt, .. } = txid;
    [None, Some(attempt)].into_iter().any(|of| abandoned.contains(&(number, of)))
}

#[cfg(test)]
mod tests;
