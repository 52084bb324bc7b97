//! The bodies of the public API: transactions and participants.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::code::ErrorCode;
use crate::ids::{ParticipantName, TransactionId};
use crate::outcome::Heuristic;
use crate::time::DurationMs;
use crate::value::given;
use crate::wire::bounded;
use crate::wire::problem::{OutcomeWord, Problem};
use crate::wire::resync::DataPoint;

/// `POST /v1/transactions`: run a transaction.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransactionRequest {
    /// A UUIDv7 chosen by the client; it then also is the idempotency key. Made by the coordinator if absent.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    pub id: Option<TransactionId>,
    /// A label for people, 1 to 64 bytes, without control characters.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    pub name: Option<String>,
    /// The branches, one for each participant.
    #[serde(deserialize_with = "bounded::branches")]
    pub branches: Vec<BranchRequest>,
    /// How long it may take to decide, for example `"5s"`; then it is aborted.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "5s")]
    pub timeout: Option<DurationMs>,
    /// When `committed` is answered.
    #[serde(default)]
    pub ack: Ack,
    /// What makes it committed.
    #[serde(default, skip_serializing_if = "Protocol::is_logged")]
    pub protocol: Protocol,
}

/// A transaction's part at one participant: ops, or an input for its hook, or both.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "AnyBranch")]
pub struct BranchRequest {
    /// The participant.
    #[schema(value_type = String)]
    pub participant: ParticipantName,
    /// The ops, a JSON array of [`OpRequest`](crate::command::OpRequest) or of
    /// [`SqlOp`](crate::sql::SqlOp): validated by the coordinator, then passed through unread.
    #[schema(value_type = crate::wire::ops::BranchOps, required = false)]
    pub ops: Box<RawValue>,
    /// What the participant's hook decides about, any JSON. `ops` may be left out beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = serde_json::Value, required = false)]
    pub input: Option<Box<RawValue>>,
}

/// A branch as it may be sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnyBranch {
    participant: ParticipantName,
    #[serde(default, deserialize_with = "given")]
    ops: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "given")]
    input: Option<Box<RawValue>>,
}

impl TryFrom<AnyBranch> for BranchRequest {
    type Error = &'static str;

    fn try_from(any: AnyBranch) -> Result<Self, &'static str> {
        let AnyBranch { participant, ops, input } = any;
        let ops = match (ops, &input) {
            (Some(ops), _) => ops,
            (None, Some(_)) => no_ops(),
            (None, None) => return Err("missing field `ops`"),
        };
        Ok(Self { participant, ops, input })
    }
}

/// An empty list of ops.
#[must_use]
pub fn no_ops() -> Box<RawValue> {
    RawValue::from_string("[]".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// When the client is told `committed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// When every branch has applied: whoever then reads any branch sees the transaction.
    #[default]
    Applied,
    /// When the decision is durable; the branches apply a moment later.
    Decided,
}

/// What makes a transaction of several branches committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// A record in the coordinator's log.
    #[default]
    Logged,
    /// The votes: it is committed when the last of them is durable, and no log is written on the way. It cannot be
    /// resolved while one of its participants is away. A transaction of one branch, or with a key or an id, gains nothing
    /// from it and runs as it does without.
    Implicit,
}

impl Protocol {
    /// Whether it is what nobody has to say.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    const fn is_logged(&self) -> bool {
        matches!(self, Self::Logged)
    }
}

/// A transaction as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TransactionView {
    /// The public id.
    #[schema(value_type = String)]
    pub id: TransactionId,
    /// The label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is known of the outcome.
    pub outcome: OutcomeWord,
    /// Where the transaction stands.
    pub state: TransactionState,
    /// Whether every branch has applied; where it is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<bool>,
    /// The branches, in the order of the request.
    pub branches: Vec<BranchReport>,
    /// Why it was aborted; or, while it is pending, why the last attempt was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
    /// The attempt, from 0.
    #[serde(default)]
    pub attempt: u32,
    /// When the coordinator took it, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// Until when it must be decided, RFC 3339; while it is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<String>,
    /// When it was decided, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<String>,
    /// The number of the last call that was done; of an interactive one that is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// When it expires if no call comes before, RFC 3339; of an interactive one that is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// When it expires whatever comes, RFC 3339; of an interactive one that is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<String>,
}

impl TransactionView {
    /// Why it was aborted, as the answer to who asked for it.
    #[must_use]
    pub fn why_aborted(&self) -> Problem {
        let why = || Problem::new(ErrorCode::Cancelled, "aborted; the log does not say why");
        let outcome = Some(OutcomeWord::Aborted);
        Problem { id: Some(self.id), outcome, ..self.error.clone().unwrap_or_else(why) }
    }
}

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TransactionState {
    /// It is interactive, and its client goes on with it: nothing is locked.
    Active,
    /// Votes are being collected.
    Preparing,
    /// A lock was held by another transaction; the next attempt is due soon.
    Retrying,
    /// All votes are yes; the decision is on its way to disk.
    Deciding,
    /// Committed; branches are applying.
    Committing,
    /// Aborted; branches are being told.
    Aborting,
    /// A participant's answer was lost, or an implicit transaction is to be aborted: the participants are asked what they
    /// have, and keep out what they have not.
    Asking,
    /// Nothing is left to do.
    Ended,
}

/// A branch as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BranchReport {
    /// The participant.
    #[schema(value_type = String)]
    pub participant: ParticipantName,
    /// Where the branch stands.
    pub state: BranchProgress,
    /// The replies of its ops, in order; where it is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    pub replies: Option<Box<RawValue>>,
    /// How often its present message was sent without a clear answer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tries: u32,
    /// The last thing that went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When its message is sent next, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_at: Option<String>,
}

impl BranchReport {
    /// What the participant's hook has replied, any JSON: it stands behind the replies of the ops.
    #[must_use]
    pub fn hook_reply(&self) -> Option<Box<RawValue>> {
        let replies: Vec<&RawValue> = serde_json::from_str(self.replies.as_ref()?.get()).ok()?;
        let HookReplied { hook } = serde_json::from_str(replies.last()?.get()).ok()?;
        Some(hook)
    }
}

/// A reply that is a hook's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HookReplied {
    hook: Box<RawValue>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Where a branch stands, as its coordinator knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BranchProgress {
    /// Its vote is not known.
    Preparing,
    /// It voted yes.
    Prepared,
    /// It has been told to commit and has not acknowledged.
    Committing,
    /// It has applied.
    Applied,
    /// It has been told to abort and has not acknowledged.
    Aborting,
    /// Nothing of it is left.
    Aborted,
    /// It voted yes and knows nothing of the transaction now: its Redis lost data.
    Lost,
    /// An operator gave it up.
    Abandoned,
    /// An operator ended it by hand as committed, and its log has aborted the transaction: heuristic damage.
    HeuristicCommitted,
    /// An operator ended it by hand as aborted, and its log has committed the transaction: heuristic damage.
    HeuristicAborted,
}

impl From<Heuristic> for BranchProgress {
    fn from(outcome: Heuristic) -> Self {
        match outcome {
            Heuristic::Committed => Self::HeuristicCommitted,
            Heuristic::Aborted => Self::HeuristicAborted,
        }
    }
}

/// A page of transactions.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TransactionPage {
    /// The transactions, newest first.
    pub transactions: Vec<TransactionView>,
    /// Pass it as `page_token` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// `PUT /v1/participants/{name}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ParticipantRequest {
    /// The base URL of the participant's API.
    pub url: String,
}

/// A participant as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ParticipantView {
    /// Its name.
    #[schema(value_type = String)]
    pub name: ParticipantName,
    /// The base URL of its API.
    pub url: String,
    /// Whether the last message to it was answered; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// Since when `up` and `redis_up` are as they are, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Whether it is away: it has failed for a while, so that transactions that name it are refused at once with
    /// `participant_unreachable`, until a probe is answered.
    #[serde(default, skip_serializing_if = "is_false")]
    pub away: bool,
    /// When it is probed next, RFC 3339; while it is away and no probe is out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_probe_at: Option<String>,
    /// Whether its Redis answers it, as its last answers told; absent before the first, and while
    /// it does not answer itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis_up: Option<bool>,
    /// The highest vote that this coordinator has seen of its data; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<DataPoint>,
    /// Transactions that have a branch there and have not ended.
    #[serde(default)]
    pub unfinished: u64,
    /// The last thing that went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Why it takes the coordinator's log for an old or a forked copy, without showing that it is
    /// one; absent if it does not. Transactions that name it are refused with `stale_log`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_log: Option<String>,
    /// What is known of its data.
    #[serde(default)]
    pub data: ParticipantData,
    /// Branches there that an operator ended by hand, against what the log says; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heuristic: Option<HeuristicBranches>,
}

/// Heuristic damage at a participant, of transactions that are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeuristicBranches {
    /// How many branches.
    pub branches: u64,
    /// Their transactions, the latest first; at most ten.
    #[schema(value_type = Vec<String>)]
    pub latest: Vec<TransactionId>,
}

/// What a coordinator knows of the data behind a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParticipantData {
    /// Nothing is missing, as far as is known.
    #[default]
    Open,
    /// Its Redis lost data; what the log has of it is being redone.
    Resynchronising,
    /// Its Redis lost data that the log does not have any more: nothing runs there before an operator accepts that.
    Lost,
}

/// The registered participants.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ParticipantList {
    /// The participants, by name.
    pub participants: Vec<ParticipantView>,
}

/// `POST …/abandon`: an operator's override, recorded with who and why (invariant 16).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AbandonRequest {
    /// Who decides it.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// What a participant that was removed by force has left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForcedRemoval {
    /// Its name.
    #[schema(value_type = String)]
    pub name: ParticipantName,
    /// Committed branches that were given up: their writes are not in its Redis.
    pub committed: u64,
    /// Aborted branches that were given up: they may still hold locks there.
    pub aborted: u64,
}

/// `GET /v1/version`, of a coordinator and of a participant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VersionView {
    /// The version of the software.
    pub version: String,
    /// What runs here: `coordinator` or `participant`.
    pub role: String,
    /// The log's id; of a coordinator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_id: Option<String>,
    /// The process life; of a coordinator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The name; of a participant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where the API for operators listens; of a participant that serves one itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_listen: Option<String>,
    /// Redis settings under which the durability promise does not hold; of a participant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
