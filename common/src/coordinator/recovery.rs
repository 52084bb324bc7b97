//! Recovery, the deciding half: from the replayed log to what is to be done. It plans and never acts.

use std::collections::{BTreeMap, BTreeSet};

use super::effect::{Branch, BranchSet, Note};
use super::state::{AnswerDurability, Contention, Purpose, Spec, Transaction};
use crate::ids::{ParticipantName, TxNumber};
use crate::outcome::Vote;
use crate::record::{Abandoned, Acknowledged, Begun, Committed, EndedByHand, Identity, Record};
use crate::time::Millis;
use crate::wire::transaction::{Ack, Protocol};

/// What a log says of transactions that go on, read from its first record to its last. A record that comes twice says the same as once:
/// compaction copies records, but never one of a transaction that has ended, so that no copy stands behind an end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unfinished {
    committed: BTreeMap<TxNumber, Committed>,
    begun: BTreeMap<TxNumber, Begun>,
    abandoned: BTreeMap<TxNumber, Vec<Abandoned>>,
    acknowledged: BTreeMap<TxNumber, BTreeSet<ParticipantName>>,
    by_hand: BTreeMap<TxNumber, Vec<EndedByHand>>,
    participants: BTreeMap<ParticipantName, String>,
}

/// What is to be done at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Transactions that go on where the log left them.
    pub transactions: Vec<Recovered>,
    /// The registered participants and their URLs.
    pub participants: BTreeMap<ParticipantName, String>,
}

/// A transaction that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Who asked for what.
    pub identity: Identity,
    /// The branches' participants.
    pub participants: Vec<ParticipantName>,
    /// The machine; its first [`Input::Tick`](super::Input::Tick) sends what is due.
    pub transaction: Transaction,
    /// Branches given up by an operator: of the attempt that the machine is in. The
    /// shell feeds them as [`Input::Abandon`](super::Input::Abandon).
    pub abandoned: Vec<Branch>,
    /// What the log knows of its branches: the shell feeds it as [`Input::Noted`](super::Input::Noted), before the rest.
    pub notes: Vec<Note>,
}

impl Unfinished {
    /// Takes the next record.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Begun(begun) => {
                let known = self.begun.get(&begun.number);
                if known.is_none_or(|known| known.attempt <= begun.attempt) {
                    self.begun.insert(begun.number, begun);
                }
            }
            Record::Committed(committed) => {
                self.committed.insert(committed.number, committed);
            }
            Record::Ended(ended) => self.end(ended.number),
            Record::Answered(answered) => self.end(answered.number),
            Record::Abandoned(abandoned) => {
                self.abandoned.entry(abandoned.number).or_default().push(abandoned);
            }
            Record::Acknowledged(Acknowledged { number, participants }) => {
                self.acknowledged.entry(number).or_default().extend(participants);
            }
            Record::EndedByHand(by_hand) => {
                let known = self.by_hand.entry(by_hand.number).or_default();
                let is_same = |other: &EndedByHand| {
                    other.participant == by_hand.participant && other.outcome == by_hand.outcome
                };
                if !known.iter().any(is_same) {
                    known.push(by_hand);
                }
            }
            // Other parts of `Replay` keep these, or they are for people.
            Record::CommittedSet(_)
            | Record::DataSeen(_)
            | Record::LossAccepted(_)
            | Record::LifeBegan(_)
            | Record::SealKey(_) => {}
            Record::ParticipantSet(set) => {
                self.participants.insert(set.name, set.url);
            }
            Record::ParticipantRemoved(removed) => {
                self.participants.remove(&removed.name);
            }
        }
    }

    fn end(&mut self, number: TxNumber) {
        self.committed.remove(&number);
        self.begun.remove(&number);
        self.abandoned.remove(&number);
        self.acknowledged.remove(&number);
        self.by_hand.remove(&number);
    }

    /// What is to be done.
    #[must_use]
    pub fn plan(self, now: Millis) -> Plan {
        let Self { committed, begun, abandoned, acknowledged, by_hand, participants } = self;
        let committed = committed.into_values().map(|committed| {
            let given_up = abandoned.get(&committed.number).map_or(&[][..], Vec::as_slice);
            let told = acknowledged.get(&committed.number);
            let by_hand = by_hand.get(&committed.number).map_or(&[][..], Vec::as_slice);
            recover_commit(committed, given_up, told, by_hand, now)
        });
        let begun = begun.into_values().map(|begun| recover_one_phase(begun, now));
        Plan { transactions: committed.chain(begun).collect(), participants }
    }
}

fn recover_commit(
    committed: Committed,
    abandoned: &[Abandoned],
    acknowledged: Option<&BTreeSet<ParticipantName>>,
    by_hand: &[EndedByHand],
    now: Millis,
) -> Recovered {
    let Committed { number, attempt, identity, decided_at, branches } = committed;
    let mut participants = Vec::with_capacity(branches.len());
    let mut votes = Vec::with_capacity(branches.len());
    for branch in branches {
        participants.push(branch.participant);
        votes.push(Vote {
            replies: branch.replies,
            redo: branch.redo,
            incarnation: branch.incarnation,
            seq: branch.seq,
        });
    }
    let branches_at = |names: Option<&BTreeSet<ParticipantName>>| -> Vec<Branch> {
        let is_one = |name: &ParticipantName| names.is_some_and(|names| names.contains(name));
        let branches = (0..).map(Branch).zip(&participants);
        branches.filter(|(_, name)| is_one(name)).map(|(branch, _)| branch).collect()
    };
    let given_up = abandoned.iter().filter(|it| it.is_of(attempt)).map(|it| it.participant.clone());
    let abandoned = branches_at(Some(&given_up.collect()));
    let acknowledged = Some(branches_at(acknowledged)).filter(|branches| !branches.is_empty());
    let by_hand = by_hand.iter().filter_map(|it| {
        let place = participants.iter().position(|name| *name == it.participant)?;
        let branch = Branch(u16::try_from(place).ok()?);
        Some(Note::EndedByHand { branch, outcome: it.outcome, detail: it.detail.clone() })
    });
    let notes = acknowledged.map(Note::Acknowledged).into_iter().chain(by_hand).collect();
    let spec = recovered_spec(number, participants.len());
    let transaction = Transaction::recovered_commit(spec, attempt, votes, decided_at, now);
    Recovered { identity, participants, transaction, abandoned, notes }
}

fn recover_one_phase(begun: Begun, now: Millis) -> Recovered {
    let Begun { number, attempt, identity, participant } = begun;
    let transaction = Transaction::recovered_one_phase(recovered_spec(number, 1), attempt, now);
    let (abandoned, notes) = (Vec::new(), Vec::new());
    Recovered { identity, participants: vec![participant], transaction, abandoned, notes }
}

/// Nobody waits any more, and the time to decide is over.
fn recovered_spec(number: TxNumber, branches: usize) -> Spec {
    Spec {
        number,
        branches: u16::try_from(branches).unwrap_or(u16::MAX),
        ack: Ack::Applied,
        deadline: Millis(0),
        answer: AnswerDurability::BeforeAnswer,
        // Readers leave no record to recover from.
        purpose: Purpose::Write,
        // What decided is in the log.
        protocol: Protocol::Logged,
        contention: Contention::Waits,
        hooked: BranchSet::NONE,
    }
}
