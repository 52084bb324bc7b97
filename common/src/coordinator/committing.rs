//! Telling branches to commit, until every one has acknowledged.

use super::delivery::{Delivery, Problem};
use super::effect::{Branch, Effect, Entry, Note, Outcome};
use super::state::{Closing, ClosingRecord, Committing, DecisionRecord, State, Transaction};
use crate::branch::BranchMessage;
use crate::code::ErrorCode;
use crate::ids::Attempt;
use crate::outcome::{Applied, Call, Heuristic, Refusal, Vote};
use crate::time::Millis;
use crate::wire::transaction::{Ack, Protocol};

impl Transaction {
    /// The decision stands: from here on there is only commit.
    pub(super) fn decided(
        &self,
        attempt: Attempt,
        votes: Vec<Vote>,
        decided_at: Millis,
        record: DecisionRecord,
        effects: &mut Vec<Effect>,
    ) -> State {
        if self.spec.ack == Ack::Decided {
            effects.push(Effect::Answer(committed(&votes, false)));
        }
        effects.extend(
            (0..self.spec.branches)
                .map(|branch| Effect::send(Branch(branch), attempt, BranchMessage::Commit)),
        );
        let deliveries = vec![Delivery::FIRST; votes.len()];
        State::Committing(Committing { attempt, votes, decided_at, deliveries, record })
    }

    pub(super) fn commit_answered(
        &mut self,
        mut committing: Committing,
        now: Millis,
        branch: Branch,
        call: Call<Applied>,
        effects: &mut Vec<Effect>,
    ) -> State {
        let seed = self.seed(branch);
        // Of a vote that was not heard nobody knows what it wrote.
        let reads_only = committing
            .votes
            .get(branch.index())
            .is_some_and(|vote| vote.redo.is_empty() && vote.is_heard());
        let Some(delivery) = committing.deliveries.get_mut(branch.index()) else {
            return State::Committing(committing);
        };
        let before = delivery.clone();
        match call {
            _ if delivery.is_over() => {}
            Call::Applied(_) => *delivery = Delivery::Done,
            // A reader that lost its locks with its Redis's data has nothing to lose any more; and one that was dropped
            // by hand has nothing that it did not apply.
            Call::Refused(Refusal {
                code: ErrorCode::BranchLost | ErrorCode::HeuristicAborted,
                ..
            }) if reads_only => *delivery = Delivery::Done,
            Call::Refused(Refusal { code: ErrorCode::HeuristicAborted, detail, .. }) => {
                *delivery = Delivery::Heuristic;
                self.ended_by_hand(branch, Heuristic::Aborted, detail, effects);
            }
            Call::Refused(Refusal { code, detail, .. }) => {
                delivery.failed(now, seed, Problem::Refused { code, detail });
            }
            Call::Unknown(why) => delivery.failed(now, seed, Problem::Unknown(why)),
        }
        let is_news = *delivery != before;
        let state = self.close_committed_if_over(committing, effects);
        if let State::Committing(committing) = &state
            && is_news
        {
            self.note_acknowledged(committing, branch, effects);
        }
        state
    }

    /// While one branch does not answer, the others are not to keep their done-markers for it: that they have acknowledged
    /// is written down, so that a restart does not tell them again. Of an implicit transaction the markers stay, because
    /// they are what its other branches find the outcome by.
    fn note_acknowledged(&self, committing: &Committing, heard: Branch, effects: &mut Vec<Effect>) {
        let Committing { deliveries, .. } = committing;
        if self.spec.protocol == Protocol::Implicit
            || deliveries.iter().all(|delivery| delivery.tries() == 0)
        {
            return;
        }
        // What a second failure would say, the first one has.
        let is_news = deliveries.get(heard.index()).is_some_and(|delivery| match delivery {
            Delivery::Done => true,
            Delivery::Due { tries, .. } => *tries == 1,
            Delivery::Sent { .. }
            | Delivery::Recorded
            | Delivery::Abandoned
            | Delivery::Heuristic => false,
        });
        let done = |(branch, delivery): (Branch, &Delivery)| {
            (*delivery == Delivery::Done).then_some(branch)
        };
        let acknowledged: Vec<Branch> =
            (0..).map(Branch).zip(deliveries).filter_map(done).collect();
        if is_news && !acknowledged.is_empty() {
            effects.push(Effect::Note(Note::Acknowledged(acknowledged)));
        }
    }

    /// The log knows it.
    pub(super) fn noted(
        &self,
        mut committing: Committing,
        note: Note,
        effects: &mut Vec<Effect>,
    ) -> State {
        match note {
            Note::Acknowledged(branches) => {
                for branch in branches {
                    if let Some(delivery) = committing.deliveries.get_mut(branch.index())
                        && !matches!(delivery, Delivery::Abandoned | Delivery::Heuristic)
                    {
                        *delivery = Delivery::Recorded;
                    }
                }
            }
            Note::EndedByHand { branch, outcome: Heuristic::Aborted, .. } => {
                if let Some(delivery) = committing.deliveries.get_mut(branch.index())
                    && !delivery.is_over()
                {
                    *delivery = Delivery::Heuristic;
                }
            }
            // Of an attempt before: this one's branch is another.
            Note::EndedByHand { outcome: Heuristic::Committed, .. } => {}
        }
        self.close_committed_if_over(committing, effects)
    }

    pub(super) fn send_due(
        &self,
        mut committing: Committing,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) -> State {
        let attempt = committing.attempt;
        for (branch, delivery) in (0..).map(Branch).zip(&mut committing.deliveries) {
            if delivery.take_due(now) {
                effects.push(Effect::send(branch, attempt, BranchMessage::Commit));
            }
        }
        State::Committing(committing)
    }

    pub(super) fn abandoned(
        &self,
        mut committing: Committing,
        branch: Branch,
        effects: &mut Vec<Effect>,
    ) -> State {
        if let Some(delivery) = committing.deliveries.get_mut(branch.index())
            && !delivery.is_over()
        {
            *delivery = Delivery::Abandoned;
        }
        self.close_committed_if_over(committing, effects)
    }

    pub(super) fn close_committed_if_over(
        &self,
        committing: Committing,
        effects: &mut Vec<Effect>,
    ) -> State {
        if !committing.deliveries.iter().all(Delivery::is_over) {
            return State::Committing(committing);
        }
        // A branch that was abandoned, or ended by hand, is over, and yet nobody may say that it was applied.
        let applied = committing.deliveries.iter().all(Delivery::is_acknowledged);
        let outcome = committed(&committing.votes, applied);
        if self.spec.ack == Ack::Applied {
            effects.push(Effect::Answer(outcome.clone()));
        }
        // The log keeps the order: the end never stands there without the decision.
        effects.push(Effect::Persist(Entry::Ended));
        let record = match committing.record {
            DecisionRecord::UnderWay => ClosingRecord::BehindDecision,
            DecisionRecord::Durable => ClosingRecord::Told,
        };
        let that_are = |wanted: Delivery| {
            let deliveries = (0..).map(Branch).zip(&committing.deliveries);
            let found = deliveries.filter(|(_, delivery)| **delivery == wanted);
            found.map(|(branch, _)| branch).collect()
        };
        State::Closing(Closing {
            attempt: committing.attempt,
            outcome,
            decided_at: committing.decided_at,
            record,
            abandoned: that_are(Delivery::Abandoned),
            recorded: that_are(Delivery::Recorded),
        })
    }
}

fn committed(votes: &[Vote], applied: bool) -> Outcome {
    Outcome::Committed { applied, replies: votes.iter().map(|vote| vote.replies.clone()).collect() }
}
