//! The decision log: records, and how many of them are on disk.

use assent_common::ParticipantName;
use assent_common::coordinator::authority::{Authority, Decisions};
use assent_common::coordinator::{Entry, Outcome};
use assent_common::outcome::Vote;
use assent_common::record::{
    AnswerRecord, Answered, Begun, Committed, CommittedBranch, Ended, Identity, Record,
};
use assent_common::time::Millis;
use assent_common::{Epoch, LogId, TxNumber, Txid};

use crate::config::Client;
use crate::state::Told;

/// The records; those from `durable` on are in the page cache at best.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Log {
    pub(crate) records: Vec<Record>,
    pub(crate) durable: usize,
}

impl Log {
    pub(crate) fn append(&mut self, number: TxNumber, client: &Client, entry: Entry) {
        self.records.push(record(number, client, entry));
    }

    /// What a replay would find after a crash now that spares nothing.
    pub(crate) fn on_disk(&self) -> &[Record] {
        &self.records[..self.durable]
    }

    pub(crate) fn pending(&self) -> usize {
        self.records.len() - self.durable
    }

    /// The decisions on disk.
    pub(crate) fn decisions(&self) -> impl Iterator<Item = &Committed> {
        self.on_disk().iter().filter_map(|record| match record {
            Record::Committed(committed) => Some(committed),
            _ => None,
        })
    }

    /// Whether the decision to commit is on disk.
    pub(crate) fn has_decided(&self, txid: Txid) -> bool {
        self.decisions().any(|c| c.number == txid.number && c.attempt == txid.attempt)
    }

    /// Whether a request is known, so that its client gets the same transaction again.
    pub(crate) fn knows(&self, client: &Client) -> bool {
        let id = client.id;
        self.records.iter().any(|record| match record {
            Record::Begun(Begun { identity, .. })
            | Record::Committed(Committed { identity, .. })
            | Record::Answered(Answered { identity, .. }) => identity.id == id,
            _ => false,
        })
    }

    /// What the log on disk says to a client that asks again.
    pub(crate) fn recorded(&self, client: &Client) -> Option<Told> {
        let id = client.id;
        self.on_disk().iter().find_map(|record| match record {
            Record::Committed(Committed { identity, .. }) if identity.id == id => {
                Some(Told::Committed)
            }
            Record::Answered(Answered { identity, answer, .. }) if identity.id == id => {
                match answer {
                    AnswerRecord::Committed { .. } => Some(Told::Committed),
                    AnswerRecord::Aborted { .. } => Some(Told::Aborted),
                }
            }
            _ => None,
        })
    }

    /// The right to answer for transactions that are not active.
    pub(crate) fn authority(&self, log_id: LogId, epoch: Epoch) -> Authority {
        let mut decisions = Decisions::default();
        self.decisions().for_each(|committed| decisions.apply(committed));
        Authority::new(log_id, epoch, decisions)
    }
}

pub(crate) fn participant_name(at: usize) -> ParticipantName {
    format!("p{at}").parse().expect("a name")
}

fn record(number: TxNumber, client: &Client, entry: Entry) -> Record {
    let identity =
        Identity { id: client.id, key: None, fingerprint: None, name: None, created_at: Millis(0) };
    let names = || client.branches.iter().map(|branch| participant_name(branch.at));
    match entry {
        Entry::Begun(attempt) => {
            let participant = participant_name(client.branches[0].at);
            Record::Begun(Begun { number, attempt, identity, participant })
        }
        Entry::Committed { attempt, votes, decided_at } => {
            let branches = names().zip(votes).map(branch).collect();
            Record::Committed(Committed { number, attempt, identity, decided_at, branches })
        }
        Entry::Ended => Record::Ended(Ended { number }),
        // Repair is not modelled, so that nobody reads what was written.
        Entry::Answered { attempt, decided_at, outcome, written: _ } => {
            let (answer, participants) = (answer_record(outcome), names().collect());
            Record::Answered(Answered {
                number,
                attempt,
                identity,
                decided_at,
                participants,
                answer,
                written: None,
            })
        }
    }
}

fn branch((participant, vote): (ParticipantName, Vote)) -> CommittedBranch {
    CommittedBranch {
        participant,
        replies: vote.replies,
        redo: vote.redo,
        incarnation: vote.incarnation,
        seq: vote.seq,
    }
}

fn answer_record(outcome: Outcome) -> AnswerRecord {
    match outcome {
        Outcome::Committed { replies, .. } => {
            AnswerRecord::Committed { replies: replies[0].clone() }
        }
        Outcome::Aborted(failure) => AnswerRecord::Aborted {
            branch: failure.branch.map(|branch| branch.0),
            code: failure.refusal.code,
            detail: failure.refusal.detail,
            op: None,
            reply: None,
        },
    }
}
