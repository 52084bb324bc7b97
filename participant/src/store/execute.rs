//! A batch of messages to Redis and back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use assent_common::branch::{BranchAnswer, BranchMessage, Ending};
use assent_common::code::ErrorCode;
use assent_common::ids::{TxNumber, Txid};
use assent_common::outcome::{Applied, Call, Failed, Refusal};
use assent_common::participant::Heard;
use assent_common::wire::branch::CoordinatorRef;
use redis::{Cmd, RedisResult, Value};

use super::call::PrepareItem;
use super::connection::Live;
use super::markers::Marker;
use super::owner::{Lost, Stake, Turn, WriteWay};
use super::refusals::refusal;
use super::sorted::Sorted;
use super::unlogged::OnePhaseUnderWay;
use super::work::{Answers, EndingItem, Speaker};
use super::{CheckedPrepare, Store, lock};

/// How often a batch follows an ownership that changes hands.
const TURNS_MAX: usize = 4;

/// Whose turn it was to do a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// This agent's.
    Own,
    /// Another agent owns the Redis: what has no answer was not done.
    Others,
}

impl Store {
    /// Runs a batch of messages: outcomes first, so that locks are freed for the prepares. The
    /// answers are in the order of the messages.
    ///
    /// A prepare is refused with `redis_unavailable` where it surely was not sent; a commit or an
    /// abort is then unknown. What another agent is to do, which owns the Redis, is refused with
    /// `not_owner`.
    pub async fn execute(
        &self,
        coordinator: &CoordinatorRef,
        low_water: TxNumber,
        messages: Vec<(Txid, BranchMessage<CheckedPrepare>)>,
    ) -> Vec<BranchAnswer> {
        let heard = Heard { epoch: coordinator.epoch, low_water };
        let raised = self.raise(coordinator.log_id, heard);
        let speaker =
            Speaker { log_id: coordinator.log_id, epoch: coordinator.epoch, url: &coordinator.url };
        self.run(&speaker, raised, messages).await
    }

    async fn run(
        &self,
        speaker: &Speaker<'_>,
        low_water: TxNumber,
        messages: Vec<(Txid, BranchMessage<CheckedPrepare>)>,
    ) -> Vec<BranchAnswer> {
        let mut answers = Answers::to(messages.iter().map(|(_, message)| message.kind()));
        let mut sorted = self.sort(speaker, low_water, messages, &mut answers);
        for _ in 0..TURNS_MAX {
            if sorted.is_empty() {
                break;
            }
            match self.verified().await {
                Ok(live) => {
                    let open = answers.open();
                    sorted.weigh(&live);
                    self.weigh_replicas(&live, &mut sorted).await;
                    let one_phase = OnePhaseUnderWay::begins(self, &live, &sorted);
                    let whose = self.run_on(&live, speaker, &mut sorted, &mut answers).await;
                    if whose == Whose::Others {
                        sorted.answer_elsewhere(&mut answers);
                    }
                    one_phase.ends(&answers);
                    self.certify(&live, &open, &mut answers).await;
                    if let Some(said) = answers.demoted() {
                        // The master is elsewhere by now: its name is looked up anew.
                        self.disconnect(&live, said);
                    }
                }
                Err(error) => sorted.answer_unsent(&error.refusal(), &mut answers),
            }
        }
        let changes = "which agent owns this Redis changes all the time";
        let refusal = Refusal::new(ErrorCode::RedisUnavailable, changes);
        sorted.answer_unsent(&refusal, &mut answers);
        answers.finish()
    }

    /// Does what is sorted, if this agent has the turn. What is left there was not done.
    async fn run_on(
        &self,
        live: &Arc<Live>,
        speaker: &Speaker<'_>,
        sorted: &mut Sorted,
        answers: &mut Answers,
    ) -> Whose {
        // A standby does not wait for anything.
        if matches!(&*live.turn.read().await, Turn::Standby(_)) {
            return Whose::Others;
        }
        let mut turn = live.turn.write().await;
        if matches!(&*turn, Turn::Aside)
            && let Err(error) = self.arbitrate_again(live, &mut turn, Stake::Work).await
        {
            sorted.answer_unsent(&error.refusal(), answers);
            return Whose::Own;
        }
        let owner = match &mut *turn {
            Turn::Sole(owner) => owner,
            Turn::Standby(_) => return Whose::Others,
            Turn::Aside => {
                let reason = self.is_quarantined();
                let reason = reason.as_deref().unwrap_or("the data is not what this agent knew");
                let refusal = Refusal::new(ErrorCode::Quarantined, reason);
                std::mem::take(sorted).fail(&Failed::Refused(refusal), answers);
                return Whose::Own;
            }
        };
        if !owner.begin_batch() {
            self.disconnect(live, "a batch was cut off half-way");
            return Whose::Own;
        }
        match self.run_rounds(live, owner, speaker, sorted, answers).await {
            Ok(()) => owner.end_batch(),
            Err(Lost::Ownership(why)) => self.disconnect(live, &why),
            Err(Lost::Refused(why)) if owner.way() == WriteWay::Exec => {
                tracing::warn!(why, "Redis refuses the owner's commands; it goes on by scripts");
                if let Err(error) = self.go_by_script(live, owner).await {
                    self.disconnect(live, &error.to_string());
                }
            }
            // What was asked a moment ago has changed.
            Err(Lost::Refused(why)) => self.disconnect(live, &why),
        }
        Whose::Own
    }

    /// Sorts the messages by kind, and answers those prepares that need no Redis to be refused.
    fn sort(
        &self,
        speaker: &Speaker<'_>,
        low_water: TxNumber,
        messages: Vec<(Txid, BranchMessage<CheckedPrepare>)>,
        answers: &mut Answers,
    ) -> Sorted {
        let quarantined = self.is_quarantined();
        let mut sorted = Sorted::default();
        for (slot, (txid, message)) in messages.into_iter().enumerate() {
            let ending = match message {
                BranchMessage::Commit => Ending::Commit,
                BranchMessage::Abort => Ending::Abort,
                BranchMessage::Settle => Ending::Settle,
                BranchMessage::Prepare(prepare) => {
                    match refusal(quarantined.as_deref(), speaker, low_water, txid) {
                        Some(refusal) => {
                            answers.put(slot, BranchAnswer::Prepared(Call::Refused(refusal)));
                        }
                        None => sorted.prepares.push(PrepareItem {
                            slot,
                            txid,
                            prepare,
                            by_script: false,
                        }),
                    }
                    continue;
                }
            };
            sorted.endings.push(EndingItem { slot, txid, ending });
        }
        sorted
    }

    /// Data of another incarnation was met (invariant 12).
    pub(super) fn quarantine_foreign(&self, found: &str) {
        let reason = format!(
            "the data has incarnation {found:?}, this agent started with {}: Redis was flushed, restored or replaced",
            self.incarnation()
        );
        self.quarantine(reason);
    }

    /// Takes note of markers that were left.
    pub(super) fn left(&self, left: &[Marker]) {
        for marker in left {
            if let Marker::Fence(txid) = marker {
                lock(&self.unlogged).forget(*txid);
            }
        }
        let mut markers = lock(&self.markers);
        for marker in left {
            markers.left(*marker);
        }
    }

    /// Takes note of a vote that was given.
    pub(super) fn saw(&self, incarnation: u64, seq: u64) {
        // A number of data that is no more says nothing of the data that is.
        if incarnation == self.incarnation() {
            self.seq_seen.fetch_max(seq, Ordering::AcqRel);
        }
    }
}

/// The decision stands, whatever somebody did to the data meanwhile.
pub(super) fn report_dirty(txid: Txid, applied: &Applied, first_error: Option<&str>) {
    tracing::error!(
        %txid,
        dirty_writes = applied.dirty_writes,
        first_error,
        "writes met data that was changed past the agent; the others are applied"
    );
}

/// Sends one command. An error that came as a reply is an error here.
pub(super) async fn send(live: &Live, command: &Cmd) -> RedisResult<Value> {
    live.connection.clone().send_packed_command(command).await.and_then(Value::extract_error)
}
