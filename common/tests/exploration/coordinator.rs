//! The coordinator's shell: active machines, a log with a durable prefix, and recovery.

use std::collections::BTreeMap;

use assent_common::coordinator::authority::{Authority, Decisions};
use assent_common::coordinator::recovery::Replay;
use assent_common::coordinator::{AnswerDurability, Entry, Outcome, Spec, Transaction};
use assent_common::outcome::Vote;
use assent_common::record::{
    AnswerRecord, Answered, Begun, Committed, CommittedBranch, Ended, Identity, Record,
    WrittenRecord,
};
use assent_common::time::Millis;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::{Epoch, LogId, ParticipantName, TransactionId, TxNumber, Txid};

use crate::world::Client;

pub(crate) struct Coordinator {
    pub(crate) log_id: LogId,
    pub(crate) epoch: Epoch,
    next_n: u64,
    pub(crate) log: Vec<Record>,
    pub(crate) durable: usize,
    pub(crate) active: BTreeMap<TxNumber, Active>,
    authority: Authority,
}

/// A transaction under way.
pub(crate) struct Active {
    pub(crate) machine: Transaction,
    pub(crate) client: usize,
    /// Calls whose result has not been fed.
    pub(crate) calls: usize,
}

pub(crate) fn participant_name(place: usize) -> ParticipantName {
    format!("p{place}").parse().expect("a name")
}

/// Ages are the clients' own choice.
pub(crate) fn public_id(age: u64) -> TransactionId {
    format!("0198f1c2-a4b2-7c1d-9c0e-{age:012x}").parse().expect("a version 7")
}

fn identity(client: &Client) -> Identity {
    Identity {
        id: public_id(client.age),
        key: None,
        fingerprint: None,
        name: None,
        created_at: Millis(0),
    }
}

impl Coordinator {
    pub(crate) fn new() -> Self {
        let log_id = "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e".parse().expect("a log id");
        let epoch = Epoch(1);
        let authority = Authority::new(log_id, epoch, Decisions::default());
        let (log, active) = (Vec::new(), BTreeMap::new());
        Self { log_id, epoch, next_n: 0, log, durable: 0, active, authority }
    }

    pub(crate) fn accept(&mut self, place: usize, client: &Client, now: Millis) -> TxNumber {
        let number = TxNumber { epoch: self.epoch, n: self.next_n };
        self.next_n += 1;
        let spec = Spec {
            number,
            branches: u16::try_from(client.branches.len()).expect("few branches"),
            ack: client.ack,
            deadline: now.plus(client.timeout_ms),
            answer: client.answer,
            purpose: client.purpose,
        };
        let machine = Transaction::new(spec);
        self.active.insert(number, Active { machine, client: place, calls: 0 });
        number
    }

    /// Whether the log or memory knows a request, so that its client gets the same transaction again.
    pub(crate) fn knows(&self, place: usize, client: &Client) -> bool {
        let id = public_id(client.age);
        let is_of_client = |record: &Record| match record {
            Record::Begun(Begun { identity, .. })
            | Record::Committed(Committed { identity, .. })
            | Record::Answered(Answered { identity, .. }) => identity.id == id,
            _ => false,
        };
        self.active.values().any(|active| active.client == place)
            || self.log.iter().any(is_of_client)
    }

    /// What the durable log says to a client that asks again: whether its request is committed.
    pub(crate) fn recorded(&self, client: &Client) -> Option<bool> {
        let id = public_id(client.age);
        self.log[..self.durable].iter().find_map(|record| match record {
            Record::Committed(Committed { identity, .. }) if identity.id == id => Some(true),
            Record::Answered(Answered { identity, answer, .. }) if identity.id == id => {
                Some(matches!(answer, AnswerRecord::Committed { .. }))
            }
            _ => None,
        })
    }

    pub(crate) fn append(&mut self, number: TxNumber, client: &Client, entry: Entry) {
        let identity = identity(client);
        let names = || client.branches.iter().map(|branch| participant_name(branch.at));
        let record = match entry {
            Entry::Begun(attempt) => {
                let participant = participant_name(client.branches[0].at);
                Record::Begun(Begun { number, attempt, identity, participant })
            }
            Entry::Committed { attempt, votes, decided_at } => {
                let branch = |(participant, vote): (ParticipantName, Vote)| CommittedBranch {
                    participant,
                    replies: vote.replies,
                    redo: vote.redo,
                    incarnation: vote.incarnation,
                    seq: vote.seq,
                };
                let branches = names().zip(votes).map(branch).collect();
                Record::Committed(Committed { number, attempt, identity, decided_at, branches })
            }
            Entry::Ended => Record::Ended(Ended { number }),
            Entry::Answered { attempt, decided_at, outcome, written } => {
                let answer = answer_record(outcome);
                let participants = names().collect();
                let written = written.map(|written| WrittenRecord {
                    redo: written.redo,
                    incarnation: written.incarnation,
                    seq: written.seq,
                });
                Record::Answered(Answered {
                    number,
                    attempt,
                    identity,
                    decided_at,
                    participants,
                    answer,
                    written,
                })
            }
        };
        self.log.push(record);
    }

    /// The next record is durable; a decision is believed from here on.
    pub(crate) fn persist_next(&mut self) -> Option<Record> {
        let record = self.log.get(self.durable)?.clone();
        self.durable += 1;
        if let Record::Committed(committed) = &record {
            self.authority.committed(committed.number, committed.attempt);
        }
        Some(record)
    }

    /// A new process life: of what was not acknowledged as durable, `survive` records are found after all.
    pub(crate) fn crash(&mut self, survive: usize, clients: &[Client], now: Millis) {
        self.log.truncate(self.durable + survive);
        self.durable = self.log.len();
        self.epoch = Epoch(self.epoch.0 + 1);
        self.next_n = 0;
        let mut decisions = Decisions::default();
        let mut replay = Replay::default();
        for record in &self.log {
            if let Record::Committed(committed) = record {
                decisions.apply(committed);
            }
            replay.apply(record.clone());
        }
        self.authority = Authority::new(self.log_id, self.epoch, decisions);
        let recovered = replay.plan(now).transactions.into_iter();
        let active = recovered.map(|recovered| {
            let of_client = |client: &Client| public_id(client.age) == recovered.identity.id;
            let client = clients.iter().position(of_client).expect("every id is a client's");
            let machine = recovered.transaction;
            (machine.spec().number, Active { machine, client, calls: 0 })
        });
        self.active = active.collect();
    }

    /// Everything below has ended, as far as one participant is concerned.
    pub(crate) fn low_water(&self, at: usize, clients: &[Client]) -> TxNumber {
        let concerns =
            |active: &Active| clients[active.client].branches.iter().any(|branch| branch.at == at);
        let first = self.active.iter().find(|(_, active)| concerns(active));
        first.map_or_else(|| self.next(), |(number, _)| *number)
    }

    /// The number that comes next: above everything that there is.
    pub(crate) const fn next(&self) -> TxNumber {
        TxNumber { epoch: self.epoch, n: self.next_n }
    }

    pub(crate) fn outcome(&self, txid: Txid) -> BranchOutcome {
        match self.active.get(&txid.number) {
            Some(active) => active.machine.outcome_for(txid.attempt),
            None => self.presumed(txid),
        }
    }

    pub(crate) fn presumed(&self, txid: Txid) -> BranchOutcome {
        self.authority.outcome(txid)
    }

    /// A machine that waits for nothing would wait for ever.
    pub(crate) fn stuck(&self) -> Option<TxNumber> {
        let waits_for_log = |number: TxNumber| {
            self.log[self.durable..].iter().any(|record| record.number() == Some(number))
        };
        let stuck = self.active.iter().find(|(number, active)| {
            active.calls == 0 && active.machine.wake_at().is_none() && !waits_for_log(**number)
        });
        stuck.map(|(number, _)| *number)
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

/// Whether the client may ask again by its key.
pub(crate) fn is_keyed(client: &Client) -> bool {
    client.answer == AnswerDurability::BeforeAnswer
}
