//! Taking a transaction: what a client asks for, what became of it, and what is refused.

use std::sync::Arc;

use assent_common::coordinator::{Contention, Purpose};
use assent_common::log::LogPosition;
use assent_common::wire::branch::BranchAddress;
use assent_common::wire::problem::Problem;
use assent_common::wire::transaction::{Ack, Protocol};
use assent_common::{ErrorCode, IdempotencyKey, ParticipantName, TransactionId};

use crate::active::RequestOps;
use crate::fingerprint::Fingerprint;
use crate::lanes::Lanes;

/// A transaction that a client asks for; checked as far as that can be done without the core.
#[derive(Debug)]
pub struct NewTransaction {
    /// Its id.
    pub id: TransactionId,
    /// Whether the client chose the id, so that it may have come before.
    pub is_chosen: bool,
    /// The key by which the client asks again.
    pub key: Option<IdempotencyKey>,
    /// What tells a retry from another request under the same key or id.
    pub fingerprint: Option<Fingerprint>,
    /// The label.
    pub name: Option<String>,
    /// How long it may take to decide, in milliseconds.
    pub timeout_ms: u64,
    /// When `committed` is answered.
    pub ack: Ack,
    /// What makes it committed, if it has several branches and no key.
    pub protocol: Protocol,
    /// What it does where a key is locked.
    pub contention: Contention,
    /// Whether any branch writes.
    pub purpose: Purpose,
    /// The participants of its branches; all different.
    pub participants: Vec<ParticipantName>,
    /// The ops of its branches.
    pub ops: Arc<dyn RequestOps>,
}

/// What the core made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It has begun; its waiter is told.
    Begun,
    /// It had begun before, and goes on under this id; the waiter is told.
    Active(TransactionId),
    /// It had begun before, and is decided, but the branches still apply.
    Decided(TransactionId),
    /// It has ended, and its answer lies there.
    Ended(LogPosition),
}

impl NewTransaction {
    pub(crate) fn chosen_id(&self) -> Option<TransactionId> {
        self.is_chosen.then_some(self.id)
    }

    /// What it is run by. One branch decides alone; and under a key the log is written on the way
    /// in any case, so that implicit saves nothing, while a decision in the log says more.
    pub(crate) const fn protocol_run(&self) -> Protocol {
        if self.fingerprint.is_none() && self.participants.len() > 1 {
            self.protocol
        } else {
            Protocol::Logged
        }
    }

    pub(crate) fn lanes(&self, lanes: &Lanes) -> Result<Vec<usize>, Problem> {
        let lane = |name: &ParticipantName| {
            lanes.registered(name).ok_or_else(|| Problem {
                participant: Some(name.to_string()),
                ..Problem::new(
                    ErrorCode::UnknownParticipant,
                    format!("no participant {name} is registered; nothing was begun"),
                )
            })
        };
        self.participants.iter().map(lane).collect()
    }

    /// Where the branches are, if they are to know it of each other.
    pub(crate) fn addresses(&self, lanes: &Lanes, places: &[usize]) -> Vec<BranchAddress> {
        let address = |(participant, lane): (&ParticipantName, &usize)| BranchAddress {
            participant: participant.clone(),
            url: lanes[*lane].url().unwrap_or_default().to_owned(),
        };
        match self.protocol_run() {
            Protocol::Logged => Vec::new(),
            Protocol::Implicit => self.participants.iter().zip(places).map(address).collect(),
        }
    }

    /// A transaction with one branch is applied before the log hears of it. What no segment could
    /// hold is refused before.
    pub(crate) fn check_one_phase(&self, bytes_max: usize) -> Result<(), Problem> {
        let ([participant], Purpose::Write | Purpose::HookDecides) =
            (&self.participants[..], self.purpose)
        else {
            return Ok(());
        };
        let ops = self.ops.of(assent_common::coordinator::Branch(0));
        let bytes = ops.map_or(0, |ops| ops.get().len());
        if bytes <= bytes_max {
            return Ok(());
        }
        let detail = format!(
            "the ops are {bytes} bytes; a record of this log holds {bytes_max} (see \
             `segment_bytes`); nothing was begun"
        );
        Err(Problem {
            participant: Some(participant.to_string()),
            ..Problem::new(ErrorCode::TooLarge, detail)
        })
    }
}

/// The key or id was used by another request.
#[must_use]
pub fn mismatch(id: TransactionId) -> Problem {
    let detail = format!(
        "this key or id was already used by a different request (transaction {id}); nothing was \
         begun"
    );
    problem_of(id, ErrorCode::IdempotencyMismatch, detail)
}

/// A problem of one transaction.
#[must_use]
pub fn problem_of(id: TransactionId, code: ErrorCode, detail: String) -> Problem {
    Problem { id: Some(id), ..Problem::new(code, detail) }
}

/// A problem of a participant.
#[must_use]
pub fn of_participant(name: &ParticipantName, code: ErrorCode, detail: String) -> Problem {
    Problem { participant: Some(name.to_string()), ..Problem::new(code, detail) }
}
