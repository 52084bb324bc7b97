//! How a transaction goes on: answers, durable records, timers and operators come in, a machine
//! takes a step, and its effects are carried out.

use std::cmp::Reverse;

use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::coordinator::{
    Branch, Closing, ClosingRecord, Committing, DecisionRecord, Effect, FromBranch, Input, Outcome,
    PrepareCall, State,
};
use assent_common::crash::CrashPoint;
use assent_common::log::{Durability, LogPosition, Token};
use assent_common::outcome::Call;
use assent_common::record::{Abandoned, Record};
use assent_common::time::{Micros, Millis};
use assent_common::wire::problem::Problem;
use assent_common::{ErrorCode, ParticipantName, TransactionId, TxNumber};

use crate::active::{Active, Decided, Ticket};
use crate::admission::settle_accounts;
use crate::core::Core;
use crate::driver;
use crate::errand::{Errand, Notice};
use crate::holders::name_holder;
use crate::lane::Outgoing;
use crate::mutants;
use crate::outbound::Haste;
use crate::outbox::{Appended, crash_point_before, durability_of, fitting};
use crate::submit::problem_of;

/// What comes in.
impl Core {
    /// What branches say to machines.
    pub fn answered(&mut self, answers: Vec<(TxNumber, FromBranch)>, now: Micros) {
        for (number, mut from) in answers {
            name_holder(&self.active, self.log_id(), now.millis(), &mut from.answer);
            self.step(number, Input::Answered(from), now);
        }
        driver::go_on(self, now);
        self.errands.push(Errand::Progress);
    }

    /// Records became durable.
    pub fn durable(&mut self, batch: Vec<(Token, LogPosition)>, now: Micros) {
        self.errands.push(Errand::Progress);
        self.lives.is_on_disk(batch.last().map(|(_, position)| *position));
        for (token, position) in batch {
            match self.outbox.durable(token) {
                Some(Appended::Step(number)) => {
                    self.record_durable(number, position);
                    self.step(number, Input::Persisted, now);
                }
                Some(Appended::Abandon { number, branch, attempt, done }) => {
                    if let Some(active) = self.active.get(&number)
                        && let Some(given_up) = active.accepted.participants.get(branch.index())
                    {
                        let id = active.accepted.identity.id;
                        self.history.abandoned(id, given_up, attempt);
                    }
                    self.step(number, Input::Abandon { branch, attempt }, now);
                    self.errands.push(Errand::Done(done));
                }
                Some(Appended::Noted(number, note)) => {
                    self.step(number, Input::Noted(note), now);
                }
                Some(Appended::Moved(number)) => {
                    if let Some(active) = self.active.get_mut(&number) {
                        active.position = Some(position);
                    }
                }
                Some(Appended::Life) => self.errands.push(Errand::LifeIsDurable),
                Some(Appended::Told(done)) => self.errands.push(Errand::Done(done)),
                Some(Appended::BeforeReading(place)) => driver::is_synced(self, place),
                Some(Appended::Nothing) | None => {}
            }
        }
        driver::go_on(self, now);
    }

    fn record_durable(&mut self, number: TxNumber, position: LogPosition) {
        let Some(active) = self.active.get_mut(&number) else { return };
        match active.machine.state() {
            State::Deciding { attempt, .. } => {
                self.errands.crash_point(CrashPoint::AfterDecisionSync);
                self.authority.committed(number, *attempt);
                active.position = Some(position);
            }
            State::Committing(Committing { attempt, record: DecisionRecord::UnderWay, .. })
            | State::Closing(Closing { attempt, record: ClosingRecord::BehindDecision, .. }) => {
                self.authority.committed(number, *attempt);
                active.position = Some(position);
            }
            // A committed transaction's answer is its decision record, not its end.
            State::Closing(_) if active.position.is_none() => active.position = Some(position),
            State::Closing(_) => self.errands.crash_point(CrashPoint::AfterEnd),
            _ => {}
        }
    }

    /// Moments have come; returns the next one.
    pub fn tick(&mut self, now: Micros) -> Option<Millis> {
        let next = self.run_timers(now);
        driver::go_on(self, now);
        next
    }

    fn run_timers(&mut self, now: Micros) -> Option<Millis> {
        let now_ms = now.millis();
        while let Some(&Reverse((at, number))) = self.timers.peek() {
            if at > now_ms {
                return Some(at);
            }
            self.timers.pop();
            let Some(active) = self.active.get_mut(&number) else { continue };
            if active.armed == Some(at) {
                active.armed = None;
            }
            if active.machine.wake_at().is_some_and(|wake_at| wake_at <= now_ms) {
                if let Some(until) = self.queues.until(number).filter(|until| *until > now_ms) {
                    active.armed = Some(until);
                    self.timers.push(Reverse((until, number)));
                    continue;
                }
                self.step(number, Input::Tick, now);
            } else {
                self.arm(number);
            }
        }
        None
    }

    /// Sends everything of a transaction that waits now.
    pub fn retry(&mut self, number: TxNumber, now: Micros) {
        self.step(number, Input::RetryNow, now);
    }

    /// An operator gives up a branch: recorded with who and why before it takes effect (invariant
    /// 16). `done` is told when that is durable.
    pub fn abandon(
        &mut self,
        id: TransactionId,
        participant: &ParticipantName,
        (actor, reason): (String, String),
        done: Ticket,
        now: Micros,
    ) -> Result<(), Problem> {
        let wrong = |detail: &str| Err(problem_of(id, ErrorCode::WrongState, detail.to_owned()));
        let Some(number) = self.number_of(id) else {
            return wrong("the transaction is not active here, so there is no branch to abandon");
        };
        let active = &self.active[&number];
        if !matches!(
            active.machine.state(),
            State::Settling(_) | State::Committing(_) | State::Closing(_)
        ) {
            return wrong("the transaction is still undecided, so no branch can be abandoned");
        }
        let place = active.accepted.participants.iter().position(|named| named == participant);
        let Some(branch) = place.and_then(|place| u16::try_from(place).ok()).map(Branch) else {
            return wrong("the transaction has no branch at this participant");
        };
        let attempt = active.machine.attempt();
        let record = Record::Abandoned(Abandoned {
            number,
            id,
            participant: participant.clone(),
            actor,
            reason,
            at: now.millis(),
            attempt: Some(attempt),
        });
        let record = mutants::of_override(self.settings.variant, record, &self.authority);
        let then = Appended::Abandon { number, branch, attempt, done };
        self.outbox.append(&record, Durability::Forced, then);
        Ok(())
    }
}

/// Steps, and their effects.
impl Core {
    /// One input, and all that follows from it. What has a door comes in by that.
    pub fn step(&mut self, number: TxNumber, input: Input, now: Micros) {
        let mut effects = std::mem::take(&mut self.effects);
        let Some(active) = self.active.get_mut(&number) else {
            self.effects = effects;
            return;
        };
        let ended_at = match &input {
            Input::Answered(from) if has_ended(&from.answer) => {
                active.lanes.get(from.branch.index()).copied()
            }
            _ => None,
        };
        if let Err(illegal) = active.machine.step(now.millis(), input, &mut effects) {
            self.errands.say(Notice::StepRefused(illegal.to_string()));
        }
        if active.is_watched {
            self.errands.push(Errand::Changed(number));
        }
        for effect in effects.drain(..) {
            self.carry_out(number, effect, now);
        }
        self.effects = effects;
        if ended_at.is_some() {
            self.turns.extend(self.queues.release(number, ended_at));
        }
        self.stand_in_line(number, now.millis());
        if let Some(active) = self.active.get_mut(&number) {
            settle_accounts(&mut self.admission, &mut self.lanes, number, active);
            if active.machine.is_ended() {
                self.finish(number);
            } else {
                self.arm(number);
            }
        }
        for next in std::mem::take(&mut self.turns) {
            self.step(next, Input::RetryNow, now);
        }
    }

    fn carry_out(&mut self, number: TxNumber, effect: Effect, now: Micros) {
        match effect {
            Effect::Send(to) => self.send(Outgoing { number, to }, now),
            Effect::Persist(entry) => {
                let active = &self.active[&number];
                let durability = durability_of(&entry, active);
                if let Some(point) = crash_point_before(&entry) {
                    self.errands.crash_point(point);
                }
                let is_early = mutants::is_sent_before_persisted(self.settings.variant, &entry);
                let record = active.subject(number).record(entry);
                let bytes_max = self.settings.decision_bytes_max;
                let record = fitting(record, bytes_max, &mut self.errands);
                self.outbox.append(&record, durability, Appended::Step(number));
                if is_early {
                    self.step(number, Input::Persisted, now);
                }
            }
            Effect::Note(note) => {
                let record = self.active[&number].subject(number).note(&note);
                if let Record::EndedByHand(ended) = &record {
                    self.history.ended_by_hand(&record);
                    self.errands.say(Notice::EndedByHand(Box::new(ended.clone())));
                }
                self.outbox.append(&record, Durability::Lazy, Appended::Noted(number, note));
            }
            Effect::Answer(outcome) => self.answer(number, outcome, now.millis()),
        }
    }

    fn send(&mut self, outgoing: Outgoing, now: Micros) {
        let Some(active) = self.active.get(&outgoing.number) else { return };
        let Some(&lane) = active.lanes.get(outgoing.to.branch.index()) else { return };
        let has_hook = active.input(outgoing.to.branch).is_some();
        let haste = match outgoing.to.message {
            // A hook may take its time too.
            BranchMessage::Prepare(call) if call == PrepareCall::Waiting || has_hook => {
                return self.errands.push(Errand::SendWaiting(lane, outgoing));
            }
            // Who has the answer already does not wait for what is left.
            BranchMessage::Commit if active.has_answered() => Haste::Rides,
            _ => Haste::Now,
        };
        self.lanes.enqueue(lane, outgoing, haste, now, &mut self.errands);
        // A participant does outcomes first: the prepare of who is next goes in the same batch.
        if matches!(outgoing.to.message, BranchMessage::Commit | BranchMessage::Abort) {
            self.turns.extend(self.queues.release(outgoing.number, Some(lane)));
        }
    }

    fn answer(&mut self, number: TxNumber, outcome: Outcome, now: Millis) {
        let Some(active) = self.active.get_mut(&number) else { return };
        let Active { machine, accepted, waiters, .. } = active;
        self.errands.push(Errand::Answer(Decided {
            number,
            accepted: accepted.clone(),
            attempt: machine.attempt(),
            outcome,
            decided_at: machine.outcome().map_or(now, |(_, decided_at)| decided_at),
            took_ms: now.since(accepted.identity.created_at),
            waiters: std::mem::take(waiters),
        }));
    }

    /// A transaction that pauses because of a lock of another one that is active here waits for
    /// that one's end. Whoever stood behind it need not: it has nothing.
    fn stand_in_line(&mut self, number: TxNumber, now: Millis) {
        let Some(active) = self.active.get(&number) else { return };
        let State::Pausing { failure, .. } = active.machine.state() else {
            self.queues.leave(number);
            return;
        };
        if self.queues.until(number).is_some() {
            return;
        }
        self.turns.extend(self.queues.release(number, None));
        let lane = failure.branch.and_then(|branch| active.lanes.get(branch.index()));
        if let (Some(holder), Some(lane)) = (&failure.refusal.holder, lane)
            && holder.txid.log_id == self.log_id()
            && holder.txid.number != number
            && self.active.contains_key(&holder.txid.number)
        {
            let id = active.accepted.identity.id;
            let lock = (*lane, holder.key.clone());
            self.queues.join(number, id, holder.txid.number, lock, now);
        }
    }

    fn finish(&mut self, number: TxNumber) {
        let Some(active) = self.active.remove(&number) else { return };
        self.queues.leave(number);
        self.turns.extend(self.queues.release(number, None));
        let identity = &active.accepted.identity;
        self.by_id.remove(&identity.id);
        if let Some(key) = &identity.key {
            self.by_key.remove(key);
        }
        for lane in &active.lanes {
            self.lanes[*lane].unfinished.remove(&number);
        }
        if active.is_watched {
            self.errands.push(Errand::Ended(number));
        }
        if !active.waiters.is_empty() {
            self.errands.push(Errand::Unanswered(active.waiters));
        }
        // The record of one that was closing for long may have gone with its segment.
        if let Some(position) = active.position.filter(|position| self.history.keeps(*position)) {
            self.remember(identity, position);
        }
    }

    fn arm(&mut self, number: TxNumber) {
        let Some(active) = self.active.get_mut(&number) else { return };
        let Some(at) = active.machine.wake_at() else { return };
        if active.armed.is_some_and(|armed| armed <= at) {
            return;
        }
        active.armed = Some(at);
        let earliest = self.timers.peek().is_none_or(|Reverse((first, _))| at < *first);
        self.timers.push(Reverse((at, number)));
        if earliest {
            self.errands.push(Errand::Tick);
        }
    }
}

/// Whether a branch says that it holds nothing any more.
const fn has_ended(answer: &BranchAnswer) -> bool {
    matches!(
        answer,
        BranchAnswer::Applied(Call::Applied(_)) | BranchAnswer::Aborted(Call::Applied(_))
    )
}
