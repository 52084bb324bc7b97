//! What a coordinator and a participant say to each other.
//!
//! ```text
//! POST /v1/batch                        Batch → Answers, answered in order
//! POST /v1/branches/{txid}/prepare      Batch of that one message → Answer; waits as `wait_ms` says
//! POST /v1/branches/{txid}/commit       …
//! POST /v1/branches/{txid}/abort        …
//! POST /v1/branches/{txid}/settle       …
//! ```

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::branch::{BranchAnswer, BranchMessage};
use crate::code::ErrorCode;
use crate::command::OpRequest;
use crate::ids::{Epoch, ParticipantName, TransactionId, TxNumber, Txid};
use crate::lives::SealedWord;
use crate::outcome::{
    Aborted, Applied, Call, Done, Failed, Heuristic, Holder, Prepared, Refusal, Settled, Vote,
    Written,
};
use crate::value::given;
use crate::wire::bounded::{self, ReadOps};
use crate::wire::by_hand;
use crate::wire::redo::Base64;
use crate::wire::resync::{DataPoint, Progress};

pub use super::held::{
    BranchList, BranchState, BranchView, ByHandView, CoordinatorList, CoordinatorView,
};
pub use super::speaker::CoordinatorRef;

/// Messages for one participant. `Ops` is the parsed ops at the participant; the coordinator passes
/// the client's JSON through unread.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[serde(bound(deserialize = "Ops: ReadOps<'de>"))]
pub struct Batch<Ops = Vec<OpRequest>> {
    /// Whom the messages are for; a participant of another name refuses the whole batch.
    #[schema(value_type = String)]
    pub participant: ParticipantName,
    /// Who speaks.
    pub coordinator: CoordinatorRef,
    /// Every transaction of this log below this number has ended everywhere, as far as this
    /// participant is concerned: its done-markers and fences may go, its late prepares are refused
    /// (invariant 10).
    #[schema(value_type = Object)]
    pub low_water: TxNumber,
    /// What the coordinator has seen of the participant's data; absent before the first vote that
    /// it heard. Other data, or a lower number, is a loss: nothing of the batch is done, and the
    /// data is fenced (invariant 12).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<DataPoint>,
    /// How far the data was when this participant last said so. Less than that is a loss too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The messages.
    #[serde(deserialize_with = "bounded::messages")]
    pub messages: Vec<Message<Ops>>,
}

/// One message about one branch.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[serde(bound(deserialize = "Ops: ReadOps<'de>"))]
pub enum Message<Ops = Vec<OpRequest>> {
    /// Lock, run and stage the branch, and vote.
    Prepare(PrepareMessage<Ops>),
    /// Apply the staged branch.
    Commit(TxidOnly),
    /// Drop the branch, and fence it.
    Abort(TxidOnly),
    /// Say what is kept of a branch of an implicit transaction; fence it if that is nothing.
    Settle(TxidOnly),
}

impl<Ops> Message<Ops> {
    /// What a branch is told; the reverse of [`Self::told`].
    pub fn new(txid: Txid, told: BranchMessage<PrepareMessage<Ops>>) -> Self {
        match told {
            BranchMessage::Prepare(prepare) => Self::Prepare(PrepareMessage { txid, ..prepare }),
            BranchMessage::Commit => Self::Commit(TxidOnly { txid }),
            BranchMessage::Abort => Self::Abort(TxidOnly { txid }),
            BranchMessage::Settle => Self::Settle(TxidOnly { txid }),
        }
    }

    /// The branch that the message is about.
    pub const fn txid(&self) -> Txid {
        match self {
            Self::Prepare(prepare) => prepare.txid,
            Self::Commit(TxidOnly { txid })
            | Self::Abort(TxidOnly { txid })
            | Self::Settle(TxidOnly { txid }) => *txid,
        }
    }

    /// What the branch is told, without the payload.
    pub const fn kind(&self) -> BranchMessage<()> {
        match self {
            Self::Prepare(_) => BranchMessage::Prepare(()),
            Self::Commit(_) => BranchMessage::Commit,
            Self::Abort(_) => BranchMessage::Abort,
            Self::Settle(_) => BranchMessage::Settle,
        }
    }

    /// The branch, and what it is told.
    pub fn told(self) -> (Txid, BranchMessage<PrepareMessage<Ops>>) {
        match self {
            Self::Prepare(prepare) => (prepare.txid, BranchMessage::Prepare(prepare)),
            Self::Commit(TxidOnly { txid }) => (txid, BranchMessage::Commit),
            Self::Abort(TxidOnly { txid }) => (txid, BranchMessage::Abort),
            Self::Settle(TxidOnly { txid }) => (txid, BranchMessage::Settle),
        }
    }
}

/// A message that is all said with the txid.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TxidOnly {
    /// The branch's transaction.
    #[schema(value_type = String)]
    pub txid: Txid,
}

/// The ask to prepare. Idempotent by txid: a branch that is prepared already votes yes again, with
/// the same replies.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[serde(bound(deserialize = "Ops: ReadOps<'de>"))]
pub struct PrepareMessage<Ops = Vec<OpRequest>> {
    /// The branch's transaction.
    #[schema(value_type = String)]
    pub txid: Txid,
    /// The public id: the age for wait-die, and the name in conflicts.
    #[schema(value_type = String)]
    pub id: TransactionId,
    /// Whether a decision follows, or the branch decides alone.
    pub mode: Mode,
    /// How long a prepare that is older than the holder of its lock may wait for it, in
    /// milliseconds. In a batch nothing waits: the answer is `wait`, and the coordinator asks again
    /// by the single endpoint.
    #[serde(default)]
    pub wait_ms: u64,
    /// All branches of an implicit transaction, this one too: it is committed as soon as every one
    /// of them is staged, and anybody may find that out. Empty where a log decides.
    #[serde(
        default,
        deserialize_with = "bounded::branches",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub branches: Vec<BranchAddress>,
    /// The ops, in order.
    #[serde(deserialize_with = "bounded::ops")]
    pub ops: Ops,
    /// What the participant's hook decides about. Such a prepare is not taken in a batch: a hook
    /// may take its time.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = serde_json::Value, required = false)]
    pub input: Option<Box<RawValue>>,
}

/// Where a branch of an implicit transaction is, for whoever finishes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BranchAddress {
    /// The participant.
    #[schema(value_type = String)]
    pub participant: ParticipantName,
    /// The base URL of its API, as the coordinator knew it when it sent the prepare.
    pub url: String,
}

/// How a branch is to be prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Stage and vote; the decision comes later.
    TwoPhase,
    /// The transaction's only branch: prepare and apply in one step.
    OnePhase,
}

/// What a participant makes of the life that spoke; nothing of it is done but where it is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LifeAnswer {
    /// It was compared, and may speak.
    Admitted,
    /// It says the lives before it first, among them that of this epoch, if one is named.
    Unproven {
        /// Which one it remembers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<u64>)]
        epoch: Option<Epoch>,
    },
    /// Its Redis could not be asked what it remembers.
    NotCompared,
}

/// The answers to a batch, one for each message, in order.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Answers {
    /// The answers.
    #[serde(deserialize_with = "bounded::messages")]
    pub answers: Vec<Answer>,
    /// How far the data is, the outcomes that are answered here included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Why nothing of this coordinator is done here: its log is an old or a forked copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_log: Option<String>,
    /// What its log said here, and cannot have said if it is a copy. A coordinator to which that is
    /// shown says nothing more to anybody; without it, the refusal is this participant's only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_log_shown: Option<SealedWord>,
    /// What became of the life that spoke. An older version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<LifeAnswer>,
}

/// The answer to one message. `vote` answers a prepare, `state` any other; the other fields belong
/// to some of these words, as [`Vote`], [`Refusal`] and [`Holder`] say.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// The answer to a prepare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vote: Option<VoteWord>,
    /// The answer to a commit, an abort or a settle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateWord>,
    /// The replies of the ops, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    pub replies: Option<Box<RawValue>>,
    /// The writes: those staged, for the commit record; or, of one phase, those applied, with every
    /// answer about it. Absent for a branch that only reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redo: Option<Base64>,
    /// The incarnation of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// The number of the vote in the incarnation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Writes that met data changed past the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty_writes: Option<u32>,
    /// The kind of a no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    /// A no, or an unknown, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The op to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<u32>,
    /// Who holds the lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<HolderBody>,
    /// The reply that a false expectation met; or the code and the reason of a veto.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub reply: Option<Box<RawValue>>,
    /// How an operator ended the branch by hand, where the message says otherwise or asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<Heuristic>,
}

/// The word that answers a prepare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VoteWord {
    /// Staged, durably.
    Yes,
    /// Not staged; `code` says why.
    No,
    /// An older transaction may wait for a younger holder: ask again by the single endpoint.
    Wait,
    /// One phase: applied.
    Committed,
    /// The participant could not learn what its Redis did.
    Unknown,
}

/// The word that answers a commit, an abort or a settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateWord {
    /// The branch is applied, now or before.
    Applied,
    /// Nothing is left of the branch, and it is fenced.
    Aborted,
    /// To an abort: the branch has been applied.
    AlreadyCommitted,
    /// To a settle: the branch is staged.
    Prepared,
    /// Not done; `code` says why.
    Refused,
    /// The participant could not learn what its Redis did.
    Unknown,
}

/// The holder of a lock, on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HolderBody {
    /// The holder's public id.
    #[schema(value_type = String)]
    pub id: TransactionId,
    /// The holder as participants know it.
    #[schema(value_type = String)]
    pub txid: Txid,
    /// The key.
    pub key: String,
}

impl From<Holder> for HolderBody {
    fn from(Holder { id, txid, key }: Holder) -> Self {
        Self { id, txid, key }
    }
}
impl From<HolderBody> for Holder {
    fn from(HolderBody { id, txid, key }: HolderBody) -> Self {
        Self { id, txid, key }
    }
}

/// JSON text that this process made itself, so that it is valid.
fn raw(json: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json.to_owned()).ok()
}

impl Answer {
    /// The answer to an abort or a settle of a branch that a hand has applied.
    fn applied_by_hand(state: StateWord, refusal: Refusal) -> Self {
        Self {
            state: Some(state),
            detail: Some(refusal.detail),
            by_hand: Some(Heuristic::Committed),
            ..Self::default()
        }
    }

    /// What was meant by it.
    fn refusal_by_hand(&self) -> Option<Refusal> {
        let detail = || self.detail.clone().unwrap_or_default();
        (self.by_hand == Some(Heuristic::Committed))
            .then(|| Refusal::new(ErrorCode::HeuristicCommitted, detail()))
    }

    fn refusal(refusal: Refusal) -> Self {
        let (code, by_hand) = by_hand::sent(refusal.code);
        let mut answer = Self {
            code: Some(code),
            by_hand,
            detail: Some(refusal.detail),
            op: refusal.op,
            holder: refusal.holder.map(HolderBody::from),
            reply: refusal.reply.as_deref().and_then(raw),
            ..Self::default()
        };
        answer.cut();
        answer
    }

    fn into_refusal(self) -> Option<Refusal> {
        Some(Refusal {
            code: by_hand::meant(self.code?, self.by_hand),
            detail: self.detail.unwrap_or_default(),
            op: self.op,
            holder: self.holder.map(Holder::from),
            reply: self.reply.map(|reply| reply.get().into()),
        })
    }

    fn done(Done { replies, written }: Done) -> Self {
        let incarnation = written.as_ref().map(|written| written.incarnation);
        let seq = written.as_ref().map(|written| written.seq);
        let redo = written.map(|written| written.redo).filter(|redo| !redo.is_empty());
        let (replies, redo) = (raw(&replies), redo.map(Base64));
        Self { replies, redo, incarnation, seq, ..Self::default() }
    }

    fn into_done(self) -> Done {
        let redo = self.redo.map_or_else(|| [].into(), |redo| redo.0);
        let written = self.incarnation.zip(self.seq);
        Done {
            replies: self.replies.map_or_else(|| "[]".into(), |replies| replies.get().into()),
            written: written.map(|(incarnation, seq)| Written { redo, incarnation, seq }),
        }
    }

    /// What it says, as the answer to a message of this kind.
    pub fn answering<P>(self, message: &BranchMessage<P>) -> BranchAnswer {
        match message {
            BranchMessage::Prepare(_) => BranchAnswer::Prepared(self.into_prepared()),
            BranchMessage::Commit => BranchAnswer::Applied(self.into_applied()),
            BranchMessage::Abort => BranchAnswer::Aborted(self.into_aborted()),
            BranchMessage::Settle => BranchAnswer::Settled(self.into_settled()),
        }
    }

    /// What the answer says of a prepare; an answer that lacks a field of its word is *not known*.
    #[must_use]
    pub fn into_prepared(self) -> Call<Prepared> {
        let this = match self.bounded() {
            Ok(this) => this,
            Err(why) => return Call::Unknown(why),
        };
        let incomplete = || Call::Unknown("the participant's vote is incomplete".to_owned());
        match this.vote {
            Some(VoteWord::Yes) => match (this.replies, this.incarnation, this.seq) {
                (Some(replies), Some(incarnation), Some(seq)) => {
                    let redo = this.redo.map_or_else(|| [].into(), |redo| redo.0);
                    let replies = replies.get().into();
                    Call::Applied(Prepared::Yes(Vote { replies, redo, incarnation, seq }))
                }
                _ => incomplete(),
            },
            Some(VoteWord::Committed) => match this.replies {
                Some(_) => Call::Applied(Prepared::Committed(this.into_done())),
                None => incomplete(),
            },
            Some(VoteWord::Wait) => match this.holder {
                Some(holder) => Call::Applied(Prepared::Wait(holder.into())),
                None => incomplete(),
            },
            Some(VoteWord::No) => this.into_refusal().map_or_else(incomplete, Call::Refused),
            Some(VoteWord::Unknown) => Call::Unknown(this.detail.unwrap_or_default()),
            None => incomplete(),
        }
    }

    /// What the answer says of a commit.
    #[must_use]
    pub fn into_applied(self) -> Call<Applied> {
        let this = match self.bounded() {
            Ok(this) => this,
            Err(why) => return Call::Unknown(why),
        };
        match this.state {
            Some(StateWord::Applied) => {
                Call::Applied(Applied { dirty_writes: this.dirty_writes.unwrap_or(0) })
            }
            _ => this.into_failed("a commit").into(),
        }
    }

    /// What the answer says of an abort.
    #[must_use]
    pub fn into_aborted(self) -> Call<Aborted> {
        let this = match self.bounded() {
            Ok(this) => this,
            Err(why) => return Call::Unknown(why),
        };
        match this.state {
            Some(StateWord::Aborted) => Call::Applied(Aborted::Fenced),
            Some(StateWord::AlreadyCommitted) => match this.refusal_by_hand() {
                Some(refusal) => Call::Refused(refusal),
                None => Call::Applied(Aborted::AlreadyCommitted(this.into_done())),
            },
            _ => this.into_failed("an abort").into(),
        }
    }

    /// What the answer says of a settle.
    #[must_use]
    pub fn into_settled(self) -> Call<Settled> {
        let this = match self.bounded() {
            Ok(this) => this,
            Err(why) => return Call::Unknown(why),
        };
        match this.state {
            Some(StateWord::Prepared) => Call::Applied(Settled::Prepared),
            Some(StateWord::Applied) => match this.refusal_by_hand() {
                Some(refusal) => Call::Refused(refusal),
                None => Call::Applied(Settled::Applied),
            },
            Some(StateWord::Aborted) => Call::Applied(Settled::Fenced),
            _ => this.into_failed("a settle").into(),
        }
    }

    /// What the answer says that is no word for *done*.
    fn into_failed(self, what: &str) -> Failed {
        match self.state {
            Some(StateWord::Refused) => match self.into_refusal() {
                Some(refusal) => Failed::Refused(refusal),
                None => Failed::Unknown("the participant's refusal has no code".to_owned()),
            },
            Some(StateWord::Unknown) => Failed::Unknown(self.detail.unwrap_or_default()),
            _ => Failed::Unknown(format!("the participant's answer is none to {what}")),
        }
    }
}

impl From<BranchAnswer> for Answer {
    fn from(answer: BranchAnswer) -> Self {
        match answer {
            BranchAnswer::Prepared(call) => call.into(),
            BranchAnswer::Applied(call) => call.into(),
            BranchAnswer::Aborted(call) => call.into(),
            BranchAnswer::Settled(call) => call.into(),
        }
    }
}

impl From<Call<Prepared>> for Answer {
    fn from(call: Call<Prepared>) -> Self {
        match call {
            Call::Applied(Prepared::Yes(vote)) => Self {
                vote: Some(VoteWord::Yes),
                replies: raw(&vote.replies),
                redo: (!vote.redo.is_empty()).then_some(Base64(vote.redo)),
                incarnation: Some(vote.incarnation),
                seq: Some(vote.seq),
                ..Self::default()
            },
            Call::Applied(Prepared::Committed(done)) => {
                Self { vote: Some(VoteWord::Committed), ..Self::done(done) }
            }
            Call::Applied(Prepared::Wait(holder)) => {
                Self { vote: Some(VoteWord::Wait), holder: Some(holder.into()), ..Self::default() }
            }
            Call::Refused(refusal) => Self { vote: Some(VoteWord::No), ..Self::refusal(refusal) },
            Call::Unknown(detail) => {
                Self { vote: Some(VoteWord::Unknown), detail: Some(detail), ..Self::default() }
            }
        }
    }
}

impl From<Call<Applied>> for Answer {
    fn from(call: Call<Applied>) -> Self {
        match call {
            Call::Applied(Applied { dirty_writes }) => Self {
                state: Some(StateWord::Applied),
                dirty_writes: (dirty_writes > 0).then_some(dirty_writes),
                ..Self::default()
            },
            Call::Refused(refusal) => {
                Self { state: Some(StateWord::Refused), ..Self::refusal(refusal) }
            }
            Call::Unknown(detail) => {
                Self { state: Some(StateWord::Unknown), detail: Some(detail), ..Self::default() }
            }
        }
    }
}

impl From<Call<Aborted>> for Answer {
    fn from(call: Call<Aborted>) -> Self {
        match call {
            Call::Applied(Aborted::Fenced) => {
                Self { state: Some(StateWord::Aborted), ..Self::default() }
            }
            Call::Applied(Aborted::AlreadyCommitted(done)) => {
                Self { state: Some(StateWord::AlreadyCommitted), ..Self::done(done) }
            }
            Call::Refused(refusal) if refusal.code == ErrorCode::HeuristicCommitted => {
                Self::applied_by_hand(StateWord::AlreadyCommitted, refusal)
            }
            Call::Refused(refusal) => {
                Self { state: Some(StateWord::Refused), ..Self::refusal(refusal) }
            }
            Call::Unknown(detail) => {
                Self { state: Some(StateWord::Unknown), detail: Some(detail), ..Self::default() }
            }
        }
    }
}

impl From<Call<Settled>> for Answer {
    fn from(call: Call<Settled>) -> Self {
        let state = |state| Self { state: Some(state), ..Self::default() };
        match call {
            Call::Applied(Settled::Prepared) => state(StateWord::Prepared),
            Call::Applied(Settled::Applied) => state(StateWord::Applied),
            Call::Applied(Settled::Fenced) => state(StateWord::Aborted),
            Call::Refused(refusal) if refusal.code == ErrorCode::HeuristicCommitted => {
                Self::applied_by_hand(StateWord::Applied, refusal)
            }
            Call::Refused(refusal) => {
                Self { state: Some(StateWord::Refused), ..Self::refusal(refusal) }
            }
            Call::Unknown(detail) => Self { detail: Some(detail), ..state(StateWord::Unknown) },
        }
    }
}
