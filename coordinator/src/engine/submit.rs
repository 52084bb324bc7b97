//! Taking a transaction: idempotency, admission, and the wait for the answer.

use std::sync::Arc;

use assent_common::coordinator::{Branch, Purpose};
use assent_common::record::Record;
use assent_common::wire::problem::Problem;
use assent_common::wire::submission::{Submission, SubmittedBranch};
use assent_common::wire::transaction::TransactionView;
use assent_common::{ErrorCode, IdempotencyKey, TransactionId};
use assent_edge::Held;
use assent_engine::{Decided, Fingerprint, NewTransaction, RequestOps, Taken, mismatch};
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::meet::meet;
use super::shared::{Engine, not_found};
use super::view::{view, view_of_decided};
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

/// The client's ops, passed through unread, and the memory that they were granted: until the
/// outcome is known, for as long as prepares are sent.
#[derive(Debug)]
struct HeldOps {
    /// By the place of the branch: its ops, and the input of its hook.
    branches: Vec<(Box<RawValue>, Option<Box<RawValue>>)>,
    _held: Held,
}

impl RequestOps for HeldOps {
    fn of(&self, branch: Branch) -> Option<&RawValue> {
        self.branches.get(branch.index()).map(|(ops, _)| &**ops)
    }

    fn input(&self, branch: Branch) -> Option<&RawValue> {
        self.branches.get(branch.index())?.1.as_deref()
    }
}

/// A submission that was taken.
enum TakenUp {
    Waits(TransactionId, oneshot::Receiver<Decided>, Origin),
    Decided(Box<TransactionView>),
    Ended(LogPosition),
}

impl Engine {
    /// Runs a transaction, or finds the one that the same key or id has begun before. `fingerprint`
    /// tells a retry from another request under the same key. `held` is the memory of its ops. When
    /// `wait` ends before the outcome is known, the answer is what is known then.
    pub async fn submit(
        &self,
        submission: Submission,
        held: Held,
        key: Option<IdempotencyKey>,
        fingerprint: Option<Fingerprint>,
        wait: impl Future<Output = ()> + Send,
    ) -> Result<Submitted, Problem> {
        meet(self, &submission, key.as_ref()).await?;
        match self.take(new_transaction(submission, held, key, fingerprint)?)? {
            TakenUp::Waits(id, decided, origin) => self.wait_for(id, decided, wait, origin).await,
            TakenUp::Decided(view) => Ok(Submitted { view: *view, origin: Origin::Replayed }),
            TakenUp::Ended(position) => self.replay(position, fingerprint),
        }
    }

    fn take(&self, new: NewTransaction) -> Result<TakenUp, Problem> {
        let is_full = self.shared.log.queued_bytes() > LOG_QUEUE_BYTES_MAX;
        let id = new.id;
        let mut core = self.core();
        let ticket = core.desk_mut().ticket();
        let taken = core.submit(new, ticket, is_full, clock::micros())?;
        let (id, origin) = match taken {
            Taken::Begun => (id, Origin::Fresh),
            Taken::Active(id) => (id, Origin::Replayed),
            Taken::Decided(id) => {
                let view = view(&core, id).ok_or_else(|| not_found(id))?;
                return Ok(TakenUp::Decided(Box::new(view)));
            }
            Taken::Ended(position) => return Ok(TakenUp::Ended(position)),
        };
        Ok(TakenUp::Waits(id, core.desk_mut().await_answer(ticket), origin))
    }

    async fn wait_for(
        &self,
        id: TransactionId,
        decided: oneshot::Receiver<Decided>,
        wait: impl Future<Output = ()> + Send,
        origin: Origin,
    ) -> Result<Submitted, Problem> {
        let waited = tokio::select! {
            biased;
            decided = decided => decided.ok(),
            () = wait => None,
        };
        let view = match waited {
            Some(decided) => view_of_decided(&decided),
            // The wait ended first, or the process is stopping: what is known now.
            None => self.transaction(id)?,
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

/// What the core takes; without an id of the client's it gets one.
fn new_transaction(
    submission: Submission,
    held: Held,
    key: Option<IdempotencyKey>,
    fingerprint: Option<Fingerprint>,
) -> Result<NewTransaction, Problem> {
    let Submission { id: chosen, name, timeout_ms, ack, protocol, contention, branches } =
        submission;
    let id = match chosen {
        Some(id) => id,
        None => TransactionId::new(Uuid::now_v7())
            .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?,
    };
    let is_any = |purpose| branches.iter().any(|branch| branch.purpose == purpose);
    let purpose = [Purpose::Write, Purpose::HookDecides].into_iter().find(|it| is_any(*it));
    let purpose = purpose.unwrap_or(Purpose::Read);
    let (participants, ops): (Vec<_>, Vec<_>) = branches
        .into_iter()
        .map(|SubmittedBranch { participant, ops, input, .. }| (participant, (ops, input)))
        .unzip();
    let ops = Arc::new(HeldOps { branches: ops, _held: held });
    let is_chosen = chosen.is_some();
    Ok(NewTransaction {
        id,
        is_chosen,
        key,
        fingerprint,
        name,
        timeout_ms,
        ack,
        protocol,
        contention,
        purpose,
        participants,
        ops,
    })
}
