//! The doors of the core about participants: what leaves for them and what they answer, their
//! registry, and their data.

use std::collections::BTreeMap;

use assent_common::branch::BranchAnswer;
use assent_common::breaker::Pass;
use assent_common::coordinator::resync::{Seen, SeenData};
use assent_common::coordinator::{Branch, Outcome};
use assent_common::lives::{PastLife, Proof};
use assent_common::log::Durability;
use assent_common::outcome::{Call, Prepared};
use assent_common::record::{LossAccepted, ParticipantRemoved, ParticipantSet, Record};
use assent_common::time::Micros;
use assent_common::wire::branch::{Batch, CoordinatorRef, Message};
use assent_common::wire::problem::Problem;
use assent_common::wire::resync::{DataPoint, DataView};
use assent_common::wire::transaction::BranchProgress;
use assent_common::{Epoch, ErrorCode, ParticipantName, TransactionId, Txid, limits};

use crate::active::Ticket;
use crate::behind;
use crate::core::Core;
use crate::data::data_seen;
use crate::driver;
use crate::errand::Errand;
use crate::lane::LifeHeard;
use crate::lane::{
    Assembled, BatchCame, Came, Idle, Incoming, LANE_PATIENCE_MS, Outgoing, PassedOps, Sent,
    answers_of, met_a_lock, ops_bytes, why_nothing_is_said, wire_message,
};
use crate::lanes::Greeting;
use crate::lives::unproven;
use crate::outbox::Appended;
use crate::resync::{KnownData, ResyncHeard};
use crate::submit::of_participant;

/// What leaves, and what is answered.
impl Core {
    /// Takes what is queued for a lane, up to a batch, if any of it has to leave now.
    pub fn assemble(&mut self, place: usize, now: Micros) -> Result<Assembled, Idle> {
        let at = now.millis();
        let lane = &mut self.lanes[place];
        let pass = lane.breaker.pass(at);
        let is_probe = pass == Pass::Probe;
        let nothing = || if is_probe { Idle::Probe } else { Idle::Empty };
        match pass {
            Pass::Free | Pass::Probe => {}
            Pass::NotBefore(then) => return Err(Idle::Until(now.plus(then.since(at) * 1_000))),
            Pass::ProbeIsOut => return Err(Idle::Until(now.plus(LANE_PATIENCE_MS * 1_000))),
        }
        match lane.queue.due() {
            None => return Err(nothing()),
            Some(due) if due > now => return Err(Idle::Until(due)),
            Some(_) => {}
        }
        let count = lane.queue.len().min(limits::BATCH_MESSAGES_MAX);
        let mut outgoing = Vec::with_capacity(count);
        let mut messages = Vec::with_capacity(count);
        let mut bytes = 0;
        while outgoing.len() < count
            && let Some(message) = lane.queue.pop()
        {
            // A transaction that ended meanwhile needs no message any more, and no answer; one that
            // is decided needs no prepare.
            let Some(active) = self.active.get(&message.number) else { continue };
            if message.to.message.is_prepare() && active.ops.is_none() {
                continue;
            }
            bytes += ops_bytes(active, message.to);
            if bytes > limits::BATCH_OPS_BYTES_MAX && !outgoing.is_empty() {
                lane.queue.put_back(message, now);
                break;
            }
            let (log_id, variant) = (self.settings.identity.log_id, self.settings.variant);
            messages.push(wire_message(active, message, log_id, 0, variant));
            outgoing.push(message);
        }
        if outgoing.is_empty() {
            return Err(nothing());
        }
        lane.breaker.probe_sent();
        let batch = self.batch(place, self.speaker(place), messages);
        Ok(Assembled { batch, outgoing, sent: Sent { at, is_probe } })
    }

    fn batch<Ops>(
        &self,
        place: usize,
        coordinator: CoordinatorRef,
        messages: Vec<Message<Ops>>,
    ) -> Batch<Ops> {
        let lane = &self.lanes[place];
        Batch {
            participant: lane.name.clone(),
            coordinator,
            low_water: self.low_water(place),
            known: lane.data.seen.known,
            progress: lane.data.progress,
            messages,
        }
    }

    /// A batch that says nothing but what is known of the data, so that the participant compares.
    /// `None` if there is nobody to say it to.
    #[must_use]
    pub fn look(&self, place: usize) -> Option<Batch<()>> {
        self.lanes[place].url().filter(|_| self.lives.stale().is_none())?;
        Some(self.batch(place, self.speaker_in_full(place), Vec::new()))
    }

    /// A participant has answered a look, or not. Whether it is to be asked now what its data is.
    pub fn look_came(&mut self, place: usize, sent: Sent, life: LifeHeard, now: Micros) -> bool {
        self.life_heard(place, life);
        // Who takes the log for an old copy has compared nothing.
        let has_compared = self.lanes[place].stale_log.is_none();
        let is_stale = self.lives.stale().is_some();
        if !is_stale && !has_compared {
            self.lane_answered(place, sent, Came::Answer(None), now);
        }
        !is_stale && has_compared
    }

    /// What the data is after a look that said this of it.
    pub fn look_found(
        &mut self,
        place: usize,
        sent: Sent,
        known: Option<DataPoint>,
        found: Call<DataView>,
        now: Micros,
    ) {
        let came = match &found {
            Call::Applied(_) => Came::Answer(None),
            Call::Refused(refusal) if refusal.code.is_of_silent_store() => {
                Came::Answer(Some(&refusal.detail))
            }
            Call::Refused(_) => Came::Answer(None),
            Call::Unknown(why) => Came::Nothing(why),
        };
        self.lane_answered(place, sent, came, now);
        match found {
            Call::Applied(found) => {
                self.redis_heard(place, Ok(()), now);
                if found.fenced || known.is_some_and(|known| !found.has_all_of(known)) {
                    self.data_is_fenced(place);
                }
            }
            Call::Refused(refusal) if refusal.code.is_of_silent_store() => {
                self.redis_heard(place, Err(refusal.detail), now);
            }
            Call::Refused(_) | Call::Unknown(_) => {}
        }
    }

    /// A prepare that may wait until the transaction's deadline for the holder of its lock, and how
    /// long.
    #[must_use]
    pub fn assemble_waiting(
        &self,
        place: usize,
        outgoing: Outgoing,
        now: Micros,
    ) -> Option<(Batch<PassedOps>, Txid, u64)> {
        let active = self.active.get(&outgoing.number)?;
        self.lanes[place].url()?;
        // A little less than there is, so that the holder's name comes back before the deadline
        // passes.
        let wait_ms = active.accepted.deadline.since(now.millis()) * 9 / 10;
        let variant = self.settings.variant;
        let message = wire_message(active, outgoing, self.log_id(), wait_ms, variant);
        let txid = message.txid();
        Some((self.batch(place, self.speaker(place), vec![message]), txid, wait_ms))
    }

    /// What came of a batch.
    pub fn batch_came(&mut self, place: usize, came: BatchCame, now: Micros) {
        let BatchCame { outgoing, sent, known, said, life } = came;
        let (progress, redis, said) = match said {
            Ok(answers) => {
                let redis = behind::told_of_redis(&answers.answers);
                (answers.progress, redis, Ok(answers.answers))
            }
            Err(why) => (None, None, Err(why)),
        };
        let error = said.as_ref().err().cloned();
        let mut answers = answers_of(self.settings.variant, &outgoing, said);
        let useless = why_nothing_is_said(&answers);
        let came = error.as_deref().map_or_else(|| Came::Answer(useless.as_deref()), Came::Nothing);
        self.lane_answered(place, sent, came, now);
        if let Some(redis) = redis {
            self.redis_heard(place, redis, now);
        }
        self.life_heard(place, life);
        if answers.iter().any(|(_, from)| met_a_lock(&from.answer)) {
            // What rides holds locks that somebody wants.
            self.lanes[place].queue.hurry(now);
            self.errands.wake(place);
        }
        self.data_heard(place, known, &mut answers);
        self.lanes[place].data.progressed(progress);
        self.answered(answers, now);
    }

    /// What came of a prepare that may have waited.
    pub fn waiting_came(
        &mut self,
        place: usize,
        outgoing: Outgoing,
        known: Option<DataPoint>,
        call: Call<Prepared>,
        now: Micros,
    ) {
        let call = unproven(&mut self.lanes[place], call);
        let mut answers = vec![outgoing.came(BranchAnswer::Prepared(call))];
        self.data_heard(place, known, &mut answers);
        self.answered(answers, now);
    }

    /// What came of a call.
    pub fn lane_answered(&mut self, place: usize, sent: Sent, came: Came<'_>, now: Micros) {
        if self.lanes[place].answered(sent, came, now.millis(), &mut self.errands) {
            // What was held back may leave.
            self.errands.wake(place);
        }
    }

    /// A call is without an answer for suspiciously long; what comes of it is heard later.
    pub fn lane_is_silent(&mut self, place: usize, sent: Sent, now: Micros) {
        self.lanes[place].is_silent(sent, now.millis(), &mut self.errands);
    }

    /// A participant has told whether its Redis answers, or why not.
    fn redis_heard(&mut self, place: usize, heard: Result<(), String>, now: Micros) {
        self.lanes[place].redis_heard(heard, now.millis(), &mut self.errands);
    }

    /// The look that is under way finds out whether the participant is back.
    pub fn probe_sent(&mut self, place: usize) {
        self.lanes[place].breaker.probe_sent();
    }
}

/// Which life speaks.
impl Core {
    /// Who speaks to a participant: with the lives before this one until it has answered.
    fn speaker(&self, place: usize) -> CoordinatorRef {
        if self.lanes[place].greeting == Greeting::Heard {
            return self.speaker_after(None);
        }
        self.speaker_in_full(place)
    }

    /// The same, always with the lives before this one.
    #[must_use]
    pub fn speaker_in_full(&self, place: usize) -> CoordinatorRef {
        self.speaker_with_lives(self.lanes[place].asked_for)
    }

    /// Who asks a branch beside the lanes: its participant may not have heard of this life yet.
    #[must_use]
    pub fn speaker_to_anybody(&self) -> CoordinatorRef {
        let asked_for = self.lanes.iter().filter_map(|lane| lane.asked_for).min();
        self.speaker_with_lives(asked_for)
    }

    fn speaker_with_lives(&self, asked_for: Option<Epoch>) -> CoordinatorRef {
        self.speaker_after(Some(self.lives.before(self.epoch(), asked_for)))
    }

    fn speaker_after(&self, before: Option<Vec<PastLife>>) -> CoordinatorRef {
        let identity = self.settings.identity.clone();
        let CoordinatorRef { log_id, epoch, .. } = identity;
        let life = identity.life.map(|proof| {
            let said = self.lives.proof(log_id, epoch, proof.nonce);
            Proof { before, ..said }
        });
        CoordinatorRef { life, ..identity }
    }

    /// Takes note of what an answer says of the life that spoke.
    pub fn life_heard(&mut self, place: usize, heard: LifeHeard) {
        let log_id = self.log_id();
        self.lives.heard(log_id, &mut self.lanes, place, heard, &mut self.errands);
    }

    /// Somebody waits for a participant to hear which life speaks.
    pub fn await_greeting(&mut self, place: usize) {
        if self.lanes[place].await_greeting() {
            self.errands.wake(place);
        }
    }

    /// Whether somebody waits for that; asked once for each time.
    pub fn take_awaited(&mut self, place: usize) -> bool {
        self.lanes[place].take_awaited()
    }
}

/// The registry.
impl Core {
    /// Registers a participant, or moves it. `base` is the form of the URL that is called. `done`
    /// is told when that is durable. Returns its lane.
    pub fn set_participant(
        &mut self,
        name: &ParticipantName,
        url: &str,
        base: &str,
        done: Ticket,
    ) -> usize {
        let place = self.restore_participant(name, base);
        let (name, url) = (name.clone(), url.to_owned());
        let record = Record::ParticipantSet(ParticipantSet { name, url });
        self.outbox.append(&record, Durability::Forced, Appended::Told(done));
        place
    }

    /// The same from the configuration or the log, which need no record. Returns its lane.
    pub fn restore_participant(&mut self, name: &ParticipantName, base: &str) -> usize {
        let place = self.lanes.of(name);
        self.lanes[place].set_url(base);
        self.errands.push(Errand::Unmet(true));
        self.errands.wake(place);
        self.lanes.start(place, &mut self.errands);
        place
    }

    /// Takes a participant without unfinished transactions out of the registry.
    pub fn remove_participant(
        &mut self,
        name: &ParticipantName,
        done: Ticket,
    ) -> Result<(), Problem> {
        let lane = self.lanes.registered(name).ok_or_else(|| not_registered(name))?;
        // The last record of one that is over stands in the log before that of the removal.
        let unfinished = self.lanes[lane].unfinished.iter();
        let unfinished = unfinished.filter(|number| !self.is_over(**number)).count();
        if unfinished > 0 {
            let detail = format!(
                "participant {name} has {unfinished} unfinished transactions; wait, move it, or \
                 give them up (assent participants remove {name} --force)"
            );
            return Err(of_participant(name, ErrorCode::WrongState, detail));
        }
        self.close_lane(lane, done);
        Ok(())
    }

    fn close_lane(&mut self, place: usize, done: Ticket) {
        let lane = &mut self.lanes[place];
        lane.clear_url();
        let record = Record::ParticipantRemoved(ParticipantRemoved { name: lane.name.clone() });
        self.outbox.append(&record, Durability::Forced, Appended::Told(done));
    }

    /// Takes a participant out of the registry, whatever it was not told yet. Whether `done` is
    /// told: not if that was done before and some of it is left.
    pub fn unregister(&mut self, name: &ParticipantName, done: Ticket) -> Result<bool, Problem> {
        if let Some(lane) = self.lanes.registered(name) {
            self.close_lane(lane, done);
            return Ok(true);
        }
        if self.waiting_at(name).is_empty() { Err(not_registered(name)) } else { Ok(false) }
    }

    /// The branches at a participant that have not ended there, and whether their transactions were
    /// committed.
    #[must_use]
    pub fn waiting_at(&self, name: &ParticipantName) -> Vec<(TransactionId, BranchProgress, bool)> {
        let Some(lane) = self.lanes.find(name) else { return Vec::new() };
        let mut waiting = Vec::new();
        for number in &self.lanes[lane].unfinished {
            let Some(active) = self.active.get(number) else { continue };
            let outcome = active.machine.outcome();
            let is_committed = matches!(outcome, Some((Outcome::Committed { .. }, _)));
            let branches = (0..).map(Branch).zip(&active.lanes).filter(|(_, at)| **at == lane);
            let id = active.accepted.identity.id;
            let progress =
                branches.map(|(branch, _)| active.machine.branch_status(branch).progress);
            waiting.extend(
                progress.filter(|progress| !has_ended(*progress)).map(|p| (id, p, is_committed)),
            );
        }
        waiting
    }
}

const fn has_ended(progress: BranchProgress) -> bool {
    matches!(
        progress,
        BranchProgress::Applied
            | BranchProgress::Aborted
            | BranchProgress::Abandoned
            | BranchProgress::HeuristicCommitted
            | BranchProgress::HeuristicAborted
    )
}

fn not_registered(name: &ParticipantName) -> Problem {
    let detail = format!("no participant {name} is registered");
    of_participant(name, ErrorCode::NotFound, detail)
}

/// Participants whose Redis lost data.
impl Core {
    /// What the log has seen of the participants' data.
    pub(crate) fn restore_data(&mut self, seen: SeenData) {
        for (participant, seen) in seen.into_each() {
            let lane = self.lanes.of(&participant);
            self.lanes[lane].data.seen = seen;
        }
    }

    /// Takes note of what answers say of the data behind a lane, before the machines hear them.
    fn data_heard(&mut self, place: usize, known: Option<DataPoint>, came: &mut [Incoming]) {
        if self.lanes[place].data.heard(known, came) {
            self.data_is_fenced(place);
        }
    }

    /// The data is fenced, or other than what was known: it waits for this log's report. One
    /// resynchronisation at a time for each participant.
    pub fn data_is_fenced(&mut self, place: usize) {
        driver::begin(self, place);
    }

    /// What came of a call of a resynchronisation. What nobody waits for any more is dropped.
    pub fn resync(&mut self, place: usize, heard: ResyncHeard, now: Micros) {
        driver::heard(self, place, heard, now);
    }

    /// What is known of data whose log has just been read.
    #[must_use]
    pub fn known_data(&self, place: usize) -> KnownData {
        self.lanes[place].data.known()
    }

    /// Takes note that the log lets go of decisions up to these votes, and of what must be known in
    /// their stead.
    pub(crate) fn retire_votes(&mut self, retired: &BTreeMap<ParticipantName, u64>) {
        for (participant, seq) in retired {
            let lane = self.lanes.of(participant);
            self.lanes[lane].data.seen.retire(*seq);
        }
        for lane in self.lanes.iter() {
            let Seen { known: Some(known), retired } = lane.data.seen else { continue };
            let record = data_seen(&lane.name, known, retired);
            self.outbox.append(&record, Durability::Lazy, Appended::Nothing);
        }
    }

    /// An operator puts up with what is lost; returns what that is. `done` is told when that is
    /// durable.
    pub fn accept_loss(
        &mut self,
        name: &ParticipantName,
        actor: String,
        reason: String,
        done: Ticket,
        now: Micros,
    ) -> Result<String, Problem> {
        let lane = self.lanes.registered(name);
        let Some(loss) = lane.and_then(|lane| self.lanes[lane].data.accept()) else {
            let detail = format!("participant {name} has no loss that could be accepted");
            return Err(of_participant(name, ErrorCode::WrongState, detail));
        };
        let record = Record::LossAccepted(LossAccepted {
            participant: name.clone(),
            loss: loss.clone(),
            actor,
            reason,
            at: now.millis(),
        });
        self.outbox.append(&record, Durability::Forced, Appended::Told(done));
        Ok(loss)
    }
}
