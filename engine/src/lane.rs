//! What goes to a participant in one batch, and what an answer to it says to the machines.

use std::sync::Arc;

use assent_common::branch::BranchAnswer;
use assent_common::coordinator::{Branch, FromBranch, ToBranch};
use assent_common::ids::TxNumber;
use assent_common::lives::SealedWord;
use assent_common::outcome::{Call, Prepared};
use assent_common::time::{Micros, Millis};
use assent_common::wire::branch::{
    Answer, Answers, Batch, LifeAnswer, Message, Mode, PrepareMessage,
};
use assent_common::wire::resync::DataPoint;
use assent_common::{LogId, Txid, limits, text};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::active::{Active, RequestOps};
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
    /// Which of its branches is told what.
    pub to: ToBranch,
}

/// An answer on its way to its transaction.
pub(crate) type Incoming = (TxNumber, FromBranch);

impl Outgoing {
    /// This came of it.
    pub(crate) fn came(self, answer: BranchAnswer) -> Incoming {
        (self.number, self.to.answered(answer))
    }
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
        let prepares = self.outgoing.iter().filter(|out| out.to.message.is_prepare());
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

/// What an answer, or that there was none, says of the life that spoke.
#[derive(Debug, Clone)]
pub enum LifeHeard {
    /// Nothing: there was none.
    Nothing,
    /// What the participant makes of it.
    Said {
        /// Absent from a participant of an older version.
        life: Option<LifeAnswer>,
        /// Whether there was something to do.
        is_work: bool,
    },
    /// The log is an old or a forked copy.
    Stale {
        /// Why, in the participant's words.
        why: String,
        /// What the log said there, as the participant shows it.
        shown: Option<SealedWord>,
    },
}

impl LifeHeard {
    /// What the answer to a batch says of it.
    pub fn of<E>(said: &Result<Answers, E>) -> Self {
        match said {
            Err(_) => Self::Nothing,
            Ok(Answers { stale_log: Some(why), stale_log_shown: shown, .. }) => Self::Stale {
                why: text::cut(why, limits::DETAIL_BYTES_MAX).into_owned(),
                shown: *shown,
            },
            Ok(Answers { life, answers, .. }) => {
                Self::Said { life: *life, is_work: !answers.is_empty() }
            }
        }
    }

    /// Whether nothing was done because the lives before this one were not said, or not the one
    /// that is known there.
    #[must_use]
    pub const fn is_unproven(&self) -> bool {
        matches!(self, Self::Said { life: Some(LifeAnswer::Unproven { .. }), .. })
    }
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

/// What the answers to messages say.
pub(crate) fn answers_of(
    variant: Variant,
    outgoing: &[Outgoing],
    said: Result<Vec<Answer>, String>,
) -> Vec<Incoming> {
    match said {
        Ok(answers) => {
            let answered = outgoing.iter().zip(answers).map(|(outgoing, answer)| {
                let answer = answer.answering(&outgoing.to.message);
                outgoing.came(mutants::heard(variant, answer))
            });
            answered.collect()
        }
        Err(why) => {
            let unknown = outgoing.iter().filter_map(|outgoing| {
                let answer = outgoing.to.message.unknown(&*why);
                Some(outgoing.came(mutants::not_heard(variant, answer)?))
            });
            unknown.collect()
        }
    }
}

/// Why a participant is as good as away, though it answers: to every message it says that it could
/// not ask its Redis.
pub(crate) fn why_nothing_is_said(came: &[Incoming]) -> Option<String> {
    let mut whys = came.iter().map(|(_, from)| why_nothing(&from.answer));
    let first = whys.next()??;
    whys.all(|why| why.is_some()).then(|| first.to_owned())
}

fn why_nothing(answer: &BranchAnswer) -> Option<&str> {
    let refusal = answer.refused().filter(|no| no.code.is_of_silent_store());
    answer.unknown().or_else(|| refusal.map(|no| no.detail.as_str()))
}

/// Whether a prepare found a lock taken.
pub(crate) fn met_a_lock(answer: &BranchAnswer) -> bool {
    match answer {
        BranchAnswer::Prepared(Call::Applied(vote)) => matches!(vote, Prepared::Wait(_)),
        BranchAnswer::Prepared(Call::Refused(refusal)) => refusal.holder.is_some(),
        _ => false,
    }
}

/// What a message adds to a batch, as far as that can be much.
pub(crate) fn ops_bytes(active: &Active, to: ToBranch) -> usize {
    let ops = active.ops.as_ref().filter(|_| to.message.is_prepare());
    ops.and_then(|ops| ops.of(to.branch)).map_or(0, |ops| ops.get().len())
}

pub(crate) fn wire_message(
    active: &Active,
    Outgoing { number, to }: Outgoing,
    log_id: LogId,
    wait_ms: u64,
    variant: Variant,
) -> Message<PassedOps> {
    let ToBranch { branch, attempt, message } = to;
    let txid = Txid { log_id, number, attempt };
    let told = mutants::told(variant, message).map(|_| PrepareMessage {
        txid,
        id: active.accepted.identity.id,
        mode: if active.lanes.len() == 1 { Mode::OnePhase } else { Mode::TwoPhase },
        wait_ms,
        branches: active.accepted.addresses.clone(),
        ops: PassedOps { ops: active.ops.clone(), branch },
        input: active.input(branch).map(ToOwned::to_owned),
    });
    Message::new(txid, told)
}
