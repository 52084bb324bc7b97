//! A batch of messages to Redis and back.

use assent_common::branch::{BranchAnswer, BranchMessage, Ending};
use assent_common::code::ErrorCode;
use assent_common::ids::{TxNumber, Txid};
use assent_common::outcome::{Call, Failed, Refusal};
use assent_common::participant::Heard;
use assent_common::wire::branch::CoordinatorRef;

use super::Store;
use super::link::{Link, Live};
use super::owner::{Lost, Rounds, Stake, Turn, WriteWay, go_by_script};
use super::refusals::{refusal, weigh};
use super::work::{Answers, CheckedPrepare, EndingItem, PrepareItem, Sorted, Speaker};

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
        let CoordinatorRef { log_id, epoch, url, .. } = coordinator;
        let raised = self.link.data.raise(*log_id, heard);
        let told = self.link.lives.told(*log_id);
        let speaker = Speaker { log_id: *log_id, epoch: *epoch, url, told };
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
            match self.link.verified().await {
                Ok(live) => {
                    let connection = &live.connection;
                    let open = answers.open();
                    weigh(&mut sorted, connection);
                    live.replicas.weigh(connection, &mut sorted).await;
                    let one_phase = OnePhaseUnderWay::begins(&self.link, &live, &sorted);
                    let whose = self.run_on(&live, speaker, &mut sorted, &mut answers).await;
                    if whose == Whose::Others {
                        sorted.answer_elsewhere(&mut answers);
                    }
                    one_phase.ends(&answers);
                    live.replicas.certify(connection, &open, &mut answers).await;
                    if let Some(said) = answers.demoted() {
                        // The master is elsewhere by now: its name is looked up anew.
                        self.link.give_up(&live, said);
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
        live: &Live,
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
            && let Err(error) = self.link.arbitrate_again(live, &mut turn, Stake::Work).await
        {
            sorted.answer_unsent(&error.refusal(), answers);
            return Whose::Own;
        }
        let owner = match &mut *turn {
            Turn::Sole(owner) => owner,
            Turn::Standby(_) => return Whose::Others,
            Turn::Aside => {
                let reason = self.link.data.is_quarantined();
                let reason = reason.as_deref().unwrap_or("the data is not what this agent knew");
                let refusal = Refusal::new(ErrorCode::Quarantined, reason);
                std::mem::take(sorted).fail(&Failed::Refused(refusal), answers);
                return Whose::Own;
            }
        };
        if !owner.begin_batch() {
            self.link.give_up(live, "a batch was cut off half-way");
            return Whose::Own;
        }
        let (connection, data) = (&live.connection, &self.link.data);
        let mut rounds = Rounds { connection, data, owner };
        match rounds.run(speaker, sorted, answers).await {
            Ok(()) => owner.end_batch(),
            Err(Lost::Ownership(why)) => self.link.give_up(live, &why),
            Err(Lost::Refused(why)) if owner.way() == WriteWay::Exec => {
                tracing::warn!(why, "Redis refuses the owner's commands; it goes on by scripts");
                if let Err(error) = go_by_script(connection, data, owner).await {
                    self.link.give_up(live, &error.to_string());
                }
            }
            // What was asked a moment ago has changed.
            Err(Lost::Refused(why)) => self.link.give_up(live, &why),
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
        let quarantined = self.link.data.is_quarantined();
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
}

/// One phase that was sent to Redis. If what became of it is not known in the end, or nobody waits
/// for it any more, its connection is given up: the next one begins with a look.
struct OnePhaseUnderWay<'a> {
    link: &'a Link,
    live: &'a Live,
    slots: Vec<usize>,
}

impl<'a> OnePhaseUnderWay<'a> {
    fn begins(link: &'a Link, live: &'a Live, sorted: &Sorted) -> Self {
        let items = sorted.prepares.iter().filter(|item| item.leaves_marker());
        Self { link, live, slots: items.map(|item| item.slot).collect() }
    }

    fn ends(mut self, answers: &Answers) {
        self.slots.retain(|slot| answers.is_unclear(*slot));
    }
}

impl Drop for OnePhaseUnderWay<'_> {
    fn drop(&mut self) {
        if !self.slots.is_empty() {
            self.link.give_up(self.live, "what became of one phase is not known");
        }
    }
}
