//! The decision log: records, and how many of them are on disk.

use assent_common::ParticipantName;
use assent_common::coordinator::authority::{Authority, Decisions};
use assent_common::coordinator::{Entry, Note, Outcome, Subject};
use assent_common::record::{AnswerRecord, Answered, Begun, Committed, Identity, Record};
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
        // Repair is not modelled, so that nobody reads what one phase wrote. Words are for people.
        let entry = match entry {
            Entry::Answered { attempt, decided_at, mut outcome, written: _ } => {
                if let Outcome::Aborted(failure) = &mut outcome {
                    failure.refusal.detail.clear();
                }
                Entry::Answered { attempt, decided_at, outcome, written: None }
            }
            entry => entry,
        };
        self.records.push(about(number, client, |subject| subject.record(entry)));
    }

    pub(crate) fn note(&mut self, number: TxNumber, client: &Client, note: &Note) {
        self.records.push(about(number, client, |subject| subject.note(note)));
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

fn about(number: TxNumber, client: &Client, record: impl FnOnce(Subject<'_>) -> Record) -> Record {
    let identity =
        Identity { id: client.id, key: None, fingerprint: None, name: None, created_at: Millis(0) };
    let names: Vec<_> = client.branches.iter().map(|branch| participant_name(branch.at)).collect();
    record(Subject { number, identity: &identity, participants: &names })
}
