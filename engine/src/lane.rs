//! What goes to a participant in one batch, and what an answer to it says to the machines.

use std::sync::Arc;

use assent_common::coordinator::{Branch, Input, Message};
use assent_common::ids::TxNumber;
use assent_common::mutant::Mutant;
use assent_common::outcome::{Call, Prepared, Refusal};
use assent_common::time::{Micros, Millis};
use assent_common::wire::branch::{
    Answer, Answers, Batch, Message as WireMessage, Mode, PrepareMessage, TxidOnly,
};
use assent_common::wire::resync::DataPoint;
use assent_common::{Attempt, ErrorCode, LogId, Txid};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::active::{Active, RequestOps};
use crate::lives::LifeHeard;
use crate::mutants;
use crate::variant::Variant;

/// How long a lane waits for a batch before it sends the next one beside it, in milliseconds:
/// longer than a participant that answers takes, and so much less than the time limit of a request
/// that the transactions behind a hung one still commit.
pub const LANE_PATIENCE_MS: u64 = 1_000;

/// A message on its way.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing {
    /// The transaction.
    pub number: TxNumber,
    /// Which of its branches.
    pub branch: Branch,
    /// In which attempt.
    pub attempt: Attempt,
    /// What is said.
    pub message: Message,
}

/// What came of a call.
#[derive(Debug, Clone, Copy)]
pub enum Came<'a> {
    /// An answer; of no use, if the participant could not ask its Redis.
    Answer(Option<&'a str>),
    /// None, or none of Assent's.
    Nothing(&'a str),
}

/// The client's ops of a branch, written into a batch as they came.
#[derive(Debug)]
pub struct PassedOps {
    ops: Option<Arc<dyn RequestOps>>,
    branch: Branch,
}

impl PassedOps {
    fn text(&self) -> Option<&RawValue> {
        self.ops.as_ref()?.of(self.branch)
    }
}

impl Serialize for PassedOps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text().serialize(serializer)
    }
}

/// A call to a participant.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// When it was sent.
    pub at: Millis,
    /// Whether it finds out if the participant is back.
    pub is_probe: bool,
}

/// Messages taken from the queue, ready to be sent without the core.
#[derive(Debug)]
pub struct Assembled {
    /// What is sent.
    pub batch: Batch<PassedOps>,
    /// The messages in it, in order.
    pub outgoing: Vec<Outgoing>,
    /// When it was made.
    pub sent: Sent,
}

impl Assembled {
    /// The transactions whose prepares it carries.
    #[must_use]
    pub fn prepared(&self) -> Vec<TxNumber> {
        let prepares = self.outgoing.iter().filter(|out| out.message == Message::Prepare);
        prepares.map(|out| out.number).collect()
    }
}

/// Why no batch leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// Nothing is queued.
    Empty,
    /// What is queued may ride until then, or may not leave before.
    Until(Micros),
    /// Nothing is queued for a participant that is away, and it is time to look whether it is back.
    Probe,
}

/// What came of a batch.
#[derive(Debug)]
pub struct BatchCame {
    /// The messages that were in it, in order.
    pub outgoing: Vec<Outgoing>,
    /// When it was sent.
    pub sent: Sent,
    /// What was known of the data then.
    pub known: Option<DataPoint>,
    /// The answers; or why there are none.
    pub said: Result<Answers, String>,
    /// What was said of the life that spoke.
    pub life: LifeHeard,
}

/// What the answers to messages say to the machines.
pub(crate) fn inputs_of(
    variant: Variant,
    outgoing: &[Outgoing],
    said: Result<Vec<Answer>, String>,
) -> Vec<(TxNumber, Input)> {
    match said {
        Ok(answers) => {
            let answered = outgoing.iter().zip(answers);
            answered.map(|(outgoing, answer)| input_of(variant, *outgoing, answer)).collect()
        }
        Err(why) => {
            let unknown = outgoing.iter().map(|outgoing| input_unknown(*outgoing, &why));
            unknown.filter_map(|input| mutants::not_heard(variant, input)).collect()
        }
    }
}

fn input_of(variant: Variant, outgoing: Outgoing, answer: Answer) -> (TxNumber, Input) {
    let Outgoing { number, branch, attempt, message } = outgoing;
    let input = match message {
        Message::Prepare | Message::PrepareWaiting => {
            Input::Prepared { branch, attempt, call: answer.into_prepared() }
        }
        Message::Commit => {
            Input::Applied { branch, call: mutants::heard(variant, answer.into_applied()) }
        }
        Message::Abort => Input::Aborted { branch, attempt, call: answer.into_aborted() },
        Message::Settle => Input::Settled { branch, attempt, call: answer.into_settled() },
    };
    (number, input)
}

fn input_unknown(outgoing: Outgoing, why: &str) -> (TxNumber, Input) {
    let Outgoing { number, branch, attempt, message } = outgoing;
    let why = why.to_owned();
    let input = match message {
        Message::Prepare | Message::PrepareWaiting => {
            Input::Prepared { branch, attempt, call: Call::Unknown(why) }
        }
        Message::Commit => Input::Applied { branch, call: Call::Unknown(why) },
        Message::Abort => Input::Aborted { branch, attempt, call: Call::Unknown(why) },
        Message::Settle => Input::Settled { branch, attempt, call: Call::Unknown(why) },
    };
    (number, input)
}

/// Why a participant is as good as away, though it answers: to every message it says that it could
/// not ask its Redis.
pub(crate) fn why_nothing_is_said(inputs: &[(TxNumber, Input)]) -> Option<String> {
    let why = |(_, input): &(TxNumber, Input)| match input {
        Input::Prepared { call, .. } => why_nothing(call),
        Input::Applied { call, .. } => why_nothing(call),
        Input::Aborted { call, .. } => why_nothing(call),
        Input::Settled { call, .. } => why_nothing(call),
        _ => None,
    };
    let mut whys = inputs.iter().map(why);
    let first = whys.next()??;
    whys.all(|why| why.is_some()).then_some(first)
}

fn why_nothing<T>(call: &Call<T>) -> Option<String> {
    match call {
        Call::Unknown(why) => Some(why.clone()),
        Call::Refused(Refusal { code: ErrorCode::RedisUnavailable, detail, .. }) => {
            Some(detail.clone())
        }
        Call::Applied(_) | Call::Refused(_) => None,
    }
}

/// Whether a prepare found a lock taken.
pub(crate) fn met_a_lock(input: &Input) -> bool {
    match input {
        Input::Prepared { call: Call::Applied(vote), .. } => matches!(vote, Prepared::Wait(_)),
        Input::Prepared { call: Call::Refused(refusal), .. } => refusal.holder.is_some(),
        _ => false,
    }
}

/// What a message adds to a batch, as far as that can be much.
pub(crate) fn ops_bytes(active: &Active, outgoing: Outgoing) -> usize {
    match outgoing.message {
        Message::Prepare | Message::PrepareWaiting => {
            let ops = active.ops.as_ref().and_then(|ops| ops.of(outgoing.branch));
            ops.map_or(0, |ops| ops.get().len())
        }
        Message::Commit | Message::Abort | Message::Settle => 0,
    }
}

pub(crate) fn wire_message(
    active: &Active,
    outgoing: Outgoing,
    log_id: LogId,
    wait_ms: u64,
    variant: Variant,
) -> WireMessage<PassedOps> {
    let Outgoing { number, branch, attempt, message } = outgoing;
    let txid = Txid { log_id, number, attempt };
    match message {
        Message::Prepare | Message::PrepareWaiting => WireMessage::Prepare(PrepareMessage {
            txid,
            id: active.accepted.identity.id,
            mode: if active.lanes.len() == 1 { Mode::OnePhase } else { Mode::TwoPhase },
            wait_ms,
            branches: active.accepted.addresses.clone(),
            ops: PassedOps { ops: active.ops.clone(), branch },
        }),
        Message::Commit => WireMessage::Commit(TxidOnly { txid }),
        Message::Abort => WireMessage::Abort(TxidOnly { txid }),
        Message::Settle if variant.is(Mutant::AbortsUnsettled) => {
            WireMessage::Abort(TxidOnly { txid })
        }
        Message::Settle => WireMessage::Settle(TxidOnly { txid }),
    }
}
