//! Taking a transaction: idempotency, admission, and the wait for the answer.

use std::time::Duration;

use assent_common::coordinator::{AnswerDurability, Purpose, Spec};
use assent_common::record::{Identity, Record};
use assent_common::wire::branch::BranchAddress;
use assent_common::wire::problem::Problem;
use assent_common::wire::submission::{Submission, SubmittedBranch};
use assent_common::wire::transaction::{Protocol, TransactionView};
use assent_common::{ErrorCode, IdempotencyKey, ParticipantName, TransactionId};
use assent_edge::Held;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::active::{Accepted, Decided, RequestOps};
use super::core::Core;
use super::fingerprint::Fingerprint;
use super::journal::decision_bytes_max;
use super::meet::meet;
use super::view::view_of_decided;
use super::{Engine, problem_of};
use crate::clock;
use crate::log::LogPosition;

/// Bytes queued for the log above which new transactions are refused: the disk does not keep up.
const LOG_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What came of a submission.
#[derive(Debug)]
pub struct Submitted {
    /// The transaction: committed, aborted, or pending.
    pub view: TransactionView,
    /// Whether the request had come before.
    pub origin: Origin,
}

/// Whether a submission was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was begun by this request.
    Fresh,
    /// It was begun by an earlier request with the same key or id.
    Replayed,
}

/// How long to wait for the outcome, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait(pub u64);

/// What the core made of a submission.
enum Taken {
    Begun(TransactionId, oneshot::Receiver<Decided>),
    Active(TransactionId, oneshot::Receiver<Decided>),
    /// Decided, but the branches still apply.
    Decided(Box<TransactionView>),
    Ended(LogPosition),
}

impl Engine {
    /// Runs a transaction, or finds the one that the same key or id has begun before. `fingerprint`
    /// tells a retry from another request under the same key. `held` is the memory of its ops.
    pub async fn submit(
        &self,
        submission: Submission,
        held: Held,
        key: Option<IdempotencyKey>,
        fingerprint: Option<Fingerprint>,
        wait: Wait,
    ) -> Result<Submitted, Problem> {
        meet(self, &submission, key.as_ref()).await?;
        let taken = self.take(submission, held, key, fingerprint)?;
        match taken {
            Taken::Begun(id, decided) => self.wait_for(id, decided, wait, Origin::Fresh).await,
            Taken::Active(id, decided) => self.wait_for(id, decided, wait, Origin::Replayed).await,
            Taken::Decided(view) => Ok(Submitted { view: *view, origin: Origin::Replayed }),
            Taken::Ended(position) => self.replay(position, fingerprint),
        }
    }

    fn take(
        &self,
        submission: Submission,
        held: Held,
        key: Option<IdempotencyKey>,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Taken, Problem> {
        let full = self.shared.log.queued_bytes() > LOG_QUEUE_BYTES_MAX;
        let mut core = self.core();
        if let Some(why) = core.lives.stale() {
            let detail = format!("{why}; nothing was begun");
            return Err(Problem::new(ErrorCode::StaleLog, detail));
        }
        if let Some(earlier) = core.earlier(submission.id, key.as_ref(), fingerprint)? {
            return Ok(earlier);
        }
        core.admit(full)?;
        let Submission { id, name, timeout_ms, ack, protocol, branches } = submission;
        let lanes = core.lanes_of(&branches)?;
        check_one_phase(&branches, decision_bytes_max(&*self.shared.log))?;
        core.admit_at(&lanes)?;
        let answer = match fingerprint {
            Some(_) => AnswerDurability::BeforeAnswer,
            None => AnswerDurability::Lazy,
        };
        // One branch decides alone; and under a key the log is written on the way in any case, so
        // that implicit saves nothing, while a decision in the log says more.
        let protocol = match answer {
            AnswerDurability::Lazy if branches.len() > 1 => protocol,
            AnswerDurability::Lazy | AnswerDurability::BeforeAnswer => Protocol::Logged,
        };
        let created_at = clock::now();
        let id = match id {
            Some(id) => id,
            None => TransactionId::new(Uuid::now_v7())
                .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?,
        };
        let deadline = created_at.plus(timeout_ms);
        let writes = branches.iter().any(|branch| branch.purpose == Purpose::Write);
        let purpose = if writes { Purpose::Write } else { Purpose::Read };
        let (participants, ops): (Vec<_>, Vec<_>) = branches
            .into_iter()
            .map(|SubmittedBranch { participant, ops, .. }| (participant, ops))
            .unzip();
        let ops = RequestOps { branches: ops, _held: held };
        let count = u16::try_from(participants.len()).unwrap_or(u16::MAX);
        let fingerprint = fingerprint.map(Fingerprint::recorded);
        let identity = Identity { id, key, fingerprint, name, created_at };
        let addresses = core.addresses(&participants, &lanes, protocol);
        let accepted = Accepted { identity, ack, deadline, participants, addresses };
        let spec =
            |number| Spec { number, branches: count, ack, deadline, answer, purpose, protocol };
        let decided = core.begin(accepted, ops, spec, lanes, &self.shared);
        Ok(Taken::Begun(id, decided))
    }

    async fn wait_for(
        &self,
        id: TransactionId,
        decided: oneshot::Receiver<Decided>,
        wait: Wait,
        origin: Origin,
    ) -> Result<Submitted, Problem> {
        let waited = tokio::time::timeout(Duration::from_millis(wait.0), decided).await;
        let view = match waited {
            Ok(Ok(decided)) => view_of_decided(&decided),
            // The wait ended first, or the process is stopping: what is known now.
            Ok(Err(_)) | Err(_) => self.transaction(id)?,
        };
        Ok(Submitted { view, origin })
    }

    /// The answer of an ended transaction, from the log.
    fn replay(
        &self,
        position: LogPosition,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Submitted, Problem> {
        let record = self.read_record(position)?;
        let identity = match &record {
            Record::Committed(committed) => &committed.identity,
            Record::Answered(answered) => &answered.identity,
            _ => {
                return Err(Problem::new(
                    ErrorCode::Internal,
                    "the index names a record of another kind",
                ));
            }
        };
        if !Fingerprint::began(fingerprint, identity) {
            return Err(mismatch(identity.id));
        }
        let view = self
            .view_of_record(record)
            .ok_or_else(|| Problem::new(ErrorCode::Internal, "the record answers for nothing"))?;
        Ok(Submitted { view, origin: Origin::Replayed })
    }

    pub(super) fn ended_view(
        &self,
        position: LogPosition,
        id: TransactionId,
    ) -> Option<TransactionView> {
        let record = self.read_record(position).ok()?;
        self.view_of_record(record).filter(|view| view.id == id)
    }

    pub(super) fn read_record(&self, position: LogPosition) -> Result<Record, Problem> {
        let internal = |error: String| Problem::new(ErrorCode::Internal, error);
        let record = self.shared.log.read(position).map_err(|error| internal(error.to_string()))?;
        Record::decode(record.kind, &record.payload).map_err(|error| internal(error.to_string()))
    }
}

impl Core {
    /// The transaction that the same key or id has begun before.
    fn earlier(
        &mut self,
        id: Option<TransactionId>,
        key: Option<&IdempotencyKey>,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Option<Taken>, Problem> {
        let number = key
            .and_then(|key| self.number_of_key(key))
            .or_else(|| id.and_then(|id| self.number_of(id)));
        if let Some(active) = number.and_then(|number| self.active.get_mut(&number)) {
            let identity = &active.accepted.identity;
            let id = identity.id;
            if !Fingerprint::began(fingerprint, identity) {
                return Err(mismatch(id));
            }
            if active.has_answered() {
                return Ok(self.view(id).map(|view| Taken::Decided(Box::new(view))));
            }
            let (waiter, decided) = oneshot::channel();
            active.waiters.push(waiter);
            return Ok(Some(Taken::Active(id, decided)));
        }
        let position = key
            .and_then(|key| self.history.by_key(key))
            .or_else(|| id.and_then(|id| self.history.by_id(id)));
        Ok(position.map(Taken::Ended))
    }

    /// Where the branches are, if they are to know it of each other.
    fn addresses(
        &self,
        participants: &[ParticipantName],
        lanes: &[usize],
        protocol: Protocol,
    ) -> Vec<BranchAddress> {
        let address = |(participant, lane): (&ParticipantName, &usize)| BranchAddress {
            participant: participant.clone(),
            url: self.lanes[*lane].url().unwrap_or_default().to_owned(),
        };
        match protocol {
            Protocol::Logged => Vec::new(),
            Protocol::Implicit => participants.iter().zip(lanes).map(address).collect(),
        }
    }

    fn lanes_of(&self, branches: &[SubmittedBranch]) -> Result<Vec<usize>, Problem> {
        let lane = |branch: &SubmittedBranch| {
            let name = &branch.participant;
            self.registered_lane(name).ok_or_else(|| Problem {
                participant: Some(name.to_string()),
                ..Problem::new(
                    ErrorCode::UnknownParticipant,
                    format!("no participant {name} is registered; nothing was begun"),
                )
            })
        };
        branches.iter().map(lane).collect()
    }
}

/// A transaction with one branch is applied before the log hears of it. What no segment could hold
/// is refused before.
fn check_one_phase(branches: &[SubmittedBranch], bytes_max: usize) -> Result<(), Problem> {
    let [SubmittedBranch { participant, ops, purpose: Purpose::Write }] = branches else {
        return Ok(());
    };
    let bytes = ops.get().len();
    if bytes <= bytes_max {
        return Ok(());
    }
    let detail = format!(
        "the ops are {bytes} bytes; a record of this log holds {bytes_max} (see `segment_bytes`); nothing was begun"
    );
    Err(Problem {
        participant: Some(participant.to_string()),
        ..Problem::new(ErrorCode::TooLarge, detail)
    })
}

fn mismatch(id: TransactionId) -> Problem {
    let detail = format!(
        "this key or id was already used by a different request (transaction {id}); nothing was begun"
    );
    problem_of(id, ErrorCode::IdempotencyMismatch, detail)
}
