//! A participant's agent: takes messages, runs scripts, asks about branches in doubt. It dies at
//! any place and keeps nothing, save what it knows of its Redis's data while it lives.

use std::collections::{BTreeMap, BTreeSet};

use assent_common::branch::{BranchAnswer, BranchMessage, Ending};
use assent_common::code::ErrorCode;
use assent_common::command::Access;
use assent_common::coordinator::PrepareCall;
use assent_common::outcome::{Call, Prepared, Refusal};
use assent_common::participant::resolver::{
    Conclusion, InDoubt, Question, Resolver, Verdict, judge,
};
use assent_common::participant::{
    Branches, DataLook, Found, Heard, OnePhaseMarker, OwnData, Participant, Prepare, Reports,
    Unlogged,
};
use assent_common::wire::branch::Mode;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::wire::resync::DataPoint;
use assent_common::{LogId, TransactionId, Txid};
use assent_engine::Sent;

use crate::coordinator::Mark;
use crate::hook::{self, HookWord};
use crate::mutants::Mutant;
use crate::network::{Ask, From};
use crate::oracle::{Before, Step};
use crate::queue::{Event, Waits};
use crate::redis::{Chore, Redis};
use crate::request::place_of;
use crate::settling::{Asker, as_settled};
use crate::trace::note;
use crate::unlogged;
use crate::world::World;

/// How often an agent scans for branches in doubt and sweeps, in microseconds.
const TURN_US: u64 = 60_000;

/// How long a branch is in doubt before its agent asks, in milliseconds.
const RESOLVE_INTERVAL_MS: u64 = 100;

/// How long a prepare waits for a younger holder, in microseconds.
const WAIT_US: u64 = 30_000;

/// Questions of one turn.
const QUESTIONS_MAX: usize = 16;

/// An agent and its Redis.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) redis: Redis,
    pub(crate) is_up: bool,
    pub(crate) life: u64,
    /// What it knows of its Redis's data. While it has found other data, it takes no prepares.
    pub(crate) own: OwnData,
    /// Which look at the data this is.
    pub(crate) view: u64,
    /// Whether its connection still is to the Redis that it knows.
    pub(crate) is_connected: bool,
    /// Prepares that wait for a younger holder, in their order.
    waiting: BTreeMap<u64, (Ask, Waits)>,
    /// The logs that have spoken in its life.
    pub(crate) heard: BTreeSet<LogId>,
    /// What they said of data that was lost.
    pub(crate) reports: Reports,
    /// What one phase came to, until its log has it.
    pub(crate) unlogged: Unlogged<OnePhaseMarker>,
    resolver: Resolver,
    /// For a mutant.
    balances_at_start: Vec<i64>,
    /// Public ids of the branches that it asks about.
    asked: BTreeMap<Txid, TransactionId>,
}

impl Agent {
    pub(crate) fn new(redis: Redis) -> Self {
        Self {
            reports: Reports::default(),
            view: 0,
            heard: BTreeSet::new(),
            unlogged: Unlogged::new(redis.data.point()),
            own: OwnData::begins(redis.data.found()),
            balances_at_start: redis.data.balances.clone(),
            redis,
            is_up: true,
            life: 1,
            is_connected: true,
            waiting: BTreeMap::new(),
            resolver: Resolver::new(RESOLVE_INTERVAL_MS),
            asked: BTreeMap::new(),
        }
    }

    /// A process begins, and knows what it finds.
    pub(crate) fn resynchronise(&mut self) {
        self.life += 1;
        self.is_up = true;
        self.redis.claim();
        self.own = OwnData::begins(self.redis.data.found());
        (self.heard, self.reports) = (BTreeSet::new(), Reports::default());
        self.unlogged = Unlogged::new(self.own.known.data);
        unlogged::look(self);
        self.balances_at_start.clone_from(&self.redis.data.balances);
        self.is_connected = true;
        self.resolver = Resolver::new(RESOLVE_INTERVAL_MS);
        self.asked.clear();
    }

    /// What the data is to it, as it looks by itself.
    fn looks(&self, mutant: Option<Mutant>) -> DataLook {
        let mut found = self.found(mutant);
        match mutant {
            Some(Mutant::IncarnationIgnored) => found.incarnation = Some(self.incarnation()),
            Some(Mutant::LostVotesIgnored) => found.seq = u64::MAX,
            _ => {}
        }
        self.own.looks(found, &self.redis.data.came_of)
    }

    /// Takes note of a vote of its data.
    pub(crate) fn saw_vote(&mut self, seq: u64) {
        let DataPoint { seq: seen, .. } = &mut self.own.known.data;
        *seen = seq.max(*seen);
    }

    /// The incarnation of the data that it goes on with.
    pub(crate) const fn incarnation(&self) -> u64 {
        self.own.known.data.incarnation
    }

    /// What it finds of its data.
    pub(crate) fn found(&self, mutant: Option<Mutant>) -> Found {
        let mut found = self.redis.data.found();
        // The count of ends would also tell old data that is adopted.
        if matches!(mutant, Some(Mutant::HoleIgnored | Mutant::AdoptsOldData)) {
            (found.ended, found.expected) = (u64::MAX, u64::MAX);
        }
        found
    }

    /// What the agent believes to be the incarnation of its data: that of its start.
    pub(crate) fn believed_incarnation(&self, mutant: Option<Mutant>) -> u64 {
        match mutant {
            Some(Mutant::IncarnationIgnored) => self.redis.data.incarnation().unwrap_or(0),
            _ => self.incarnation(),
        }
    }
}

impl World {
    /// A message has come. The process may die before its scripts, between them, and before it
    /// answers.
    pub(crate) fn arrived(
        &mut self,
        ask: Ask,
        waits: Option<Waits>,
        word: Option<Box<HookWord>>,
    ) -> Step {
        let at = ask.at;
        let is_gone = waits.is_some_and(|waits| waits.life != self.agents[at].life);
        if !self.agents[at].is_up || is_gone || self.agent_strikes(at, "as a message came") {
            self.result_unknown(ask, "the connection was refused");
            return Ok(());
        }
        self.reconnect(at);
        let log_id = ask.txid.log_id;
        let refusal = match ask.from {
            From::Resolver | From::Settler { .. } => None,
            _ => self.admit(at, log_id, ask.known),
        };
        if let Some(refusal) = refusal {
            let answer = ask.message.refused(refusal);
            note!(self, "p{at}: {:?} {} -> {answer:?}", ask.message, ask.txid);
            self.reply(ask, answer);
            return Ok(());
        }
        if ask.from.is_coordinator() {
            self.agents[at].heard.insert(log_id);
            self.hear_mark(&ask)?;
            if self.agent_strikes(at, "between two scripts") {
                self.result_unknown(ask, "the connection broke");
                return Ok(());
            }
        }
        if hook::is_asked(self, ask, waits, word.as_deref(), None) {
            return Ok(());
        }
        let answer = self.execute(&ask, word.as_deref())?;
        note!(self, "p{at}: {:?} {} -> {answer:?}", ask.message, ask.txid);
        if hook::is_asked(self, ask, waits, word.as_deref(), answer.as_ref()) {
            return Ok(());
        }
        let Some(answer) = answer else {
            self.result_unknown(ask, "Redis did not answer");
            return Ok(());
        };
        if self.agent_strikes(at, "before it answered") {
            self.result_unknown(ask, "the connection broke");
            return Ok(());
        }
        match (ask.message, answer) {
            (
                BranchMessage::Prepare(call),
                BranchAnswer::Prepared(Call::Applied(Prepared::Wait(holder))),
            ) if call == PrepareCall::Waiting || word.is_some() => {
                if self.waits(ask, waits) {
                    return Ok(());
                }
                let refusal = Refusal::new(ErrorCode::LockConflict, holder.to_string());
                let refusal = Refusal { holder: Some(holder), ..refusal };
                self.reply(ask, BranchAnswer::Prepared(Call::Refused(refusal)));
            }
            (message, answer) => {
                if matches!(message, BranchMessage::Commit | BranchMessage::Abort) {
                    self.wake_waiting(at);
                }
                self.oracle.leaves(&ask, &answer, &self.agents[at].redis.data.control)?;
                self.reply(ask, answer);
            }
        }
        Ok(())
    }

    pub(crate) fn reconnect(&mut self, at: usize) {
        let view = self.next_incarnation();
        let is_old_taken = self.config.is(Mutant::OldWordsCount);
        let agent = &mut self.agents[at];
        if !agent.is_connected {
            if !is_old_taken {
                agent.view = view;
            }
            agent.is_connected = true;
            let fences = self.compare(at);
            if !self.config.is(Mutant::UnansweredForgotten) {
                unlogged::look(&mut self.agents[at]);
            }
            self.oracle.looked_for_one_phase(at, &self.agents[at]);
            if fences {
                self.fence(at);
            }
        }
    }

    /// Compares the data with what its agent knew, as the agent does by itself: on every new
    /// connection, and when it begins. Whether the data is to be fenced.
    fn compare(&mut self, at: usize) -> bool {
        match self.agents[at].looks(self.config.mutant) {
            DataLook::Same => false,
            DataLook::Repaired(open) => {
                self.agents[at].adopt(open);
                self.oracle.agent_forgets(at);
                false
            }
            DataLook::Other { fences, .. } => {
                self.agents[at].own.is_quarantined = true;
                fences
            }
        }
    }

    /// A prepare waits for a lock, if it may any longer.
    fn waits(&mut self, ask: Ask, waits: Option<Waits>) -> bool {
        let (at, life) = (ask.at, self.agents[ask.at].life);
        let waits = waits.unwrap_or_else(|| {
            let (ticket, until_us) = (self.report.waits, self.now_us + WAIT_US);
            self.report.waits += 1;
            self.queue.push(until_us, Event::WaitedLong { at, life, ticket });
            Waits { life, until_us, ticket }
        });
        let may_wait = self.now_us < waits.until_us;
        if may_wait {
            self.agents[at].waiting.insert(waits.ticket, (ask, waits));
        }
        may_wait
    }

    /// A lock may be free: all that wait look again, the first that came first.
    fn wake_waiting(&mut self, at: usize) {
        for (ask, waits) in std::mem::take(&mut self.agents[at].waiting).into_values() {
            self.queue.push(self.now_us, Event::Arrived { ask, waits: Some(waits) });
        }
    }

    pub(crate) fn waited_long(&mut self, at: usize, life: u64, ticket: u64) -> Step {
        if self.agents[at].life != life {
            return Ok(());
        }
        match self.agents[at].waiting.remove(&ticket) {
            Some((ask, waits)) => self.arrived(ask, Some(waits), None),
            None => Ok(()),
        }
    }

    fn hear_mark(&mut self, ask: &Ask) -> Step {
        let Mark { epoch, low_water } = ask.mark;
        let core = &self.coordinators[ask.coordinator].core;
        self.oracle.hears_mark(ask, core, &self.requests)?;
        let chore = Chore::Hear(ask.txid.log_id, Heard { epoch, low_water });
        let agent = &mut self.agents[ask.at];
        let incarnation = agent.believed_incarnation(self.config.mutant);
        agent.redis.run_chore(incarnation, chore);
        agent.unlogged.let_go(ask.txid.log_id, low_water);
        self.oracle.lets_go(ask.at, ask.txid.log_id, low_water);
        Ok(())
    }

    /// One script, and the witness sees what it did. No answer, if that of Redis is lost and the
    /// connection with it.
    fn execute(
        &mut self,
        ask: &Ask,
        word: Option<&HookWord>,
    ) -> Result<Option<BranchAnswer>, crate::Violation> {
        let Ask { at, txid, message, request, branch, .. } = *ask;
        let agent = &self.agents[at];
        if message.is_prepare() && agent.own.is_quarantined {
            let detail = "the data is not what this agent knew";
            let refusal = Refusal::new(ErrorCode::Quarantined, detail);
            return Ok(Some(message.refused(refusal)));
        }
        if let Some(no) = hook::no(word).filter(|_| agent.redis.data.control.state(txid).is_none())
        {
            return Ok(Some(message.refused(no.clone())));
        }
        let before = Before {
            state: agent.redis.data.control.state(txid),
            heard: agent.redis.data.control.heard(txid.log_id),
        };
        let told = match message {
            BranchMessage::Settle if self.is_aborted_unsettled(ask) => BranchMessage::Abort,
            message => message.map(|_| {
                let asked = &self.requests[request];
                let plan = &asked.branches[branch.index()];
                let mut locks = plan.locks(&self.keys);
                if self.config.is(Mutant::ReaderReleasedAtVote) {
                    locks.retain(|(_, access)| *access == Access::Exclusive);
                }
                let balances = match self.config.mutant {
                    Some(Mutant::StaleReads) => &agent.balances_at_start,
                    _ => &agent.redis.data.balances,
                };
                let evaluation = plan.evaluate(
                    balances,
                    agent.redis.data.control.locks(),
                    self.config.is(Mutant::EscrowResolved),
                );
                let evaluation = match word.filter(|_| !self.config.is(Mutant::HookUnguarded)) {
                    Some(word) => word.guarded(balances, evaluation),
                    None => evaluation,
                };
                Prepare {
                    id: asked.id,
                    mode: if asked.is_one_phase() { Mode::OnePhase } else { Mode::TwoPhase },
                    branches: self.branches_of(asked),
                    locks,
                    evaluation,
                }
            }),
        };
        let incarnation = agent.believed_incarnation(self.config.mutant);
        let bend = self.config.mutant.and_then(Mutant::bend);
        let is_lost = self.random.strikes(self.profile.faults.redis_answer_lost);
        let agent = &mut self.agents[at];
        let mut stepped = agent.redis.run(bend, incarnation, txid, told);
        stepped.answer = as_settled(message, stepped.answer);
        if is_lost {
            agent.is_connected = false;
        } else {
            unlogged::hears(agent, txid, &stepped.answer);
            let is_foreign = agent.redis.data.incarnation() != Some(incarnation);
            agent.own.is_quarantined |= is_foreign;
        }
        self.report.scripts += 1;
        self.report.redis_answers_lost += u64::from(is_lost);
        let is_applied = stepped.apply.is_some();
        let agent = &self.agents[at];
        self.oracle.ran(ask, &before, agent, is_applied, &stepped.answer, &self.requests)?;
        if is_lost {
            return Ok(None);
        }
        self.oracle.hears_script(at, agent, txid, &stepped.answer);
        Ok(Some(stepped.answer))
    }

    pub(crate) fn agent_strikes(&mut self, at: usize, when: &str) -> bool {
        let dies = self.random.strikes(self.profile.faults.agent_dies);
        if dies {
            self.agent_dies(at, when);
        }
        dies
    }

    pub(crate) fn agent_dies(&mut self, at: usize, when: &str) {
        if !self.agents[at].is_up {
            return;
        }
        note!(self, "p{at}: its agent dies {when}");
        self.report.agent_crashes += 1;
        self.agents[at].is_up = false;
        self.agents[at].life += 1;
        for (ask, _) in std::mem::take(&mut self.agents[at].waiting).into_values() {
            self.result_unknown(ask, "the connection broke");
        }
        let down_us = self.random.between(500, 100_000);
        self.queue.push(self.now_us + down_us, Event::AgentStarted { at });
    }

    pub(crate) fn agent_starts(&mut self, at: usize) {
        note!(self, "p{at}: its agent starts");
        self.agents[at].resynchronise();
        if !self.agents[at].own.is_quarantined && self.compare(at) {
            self.fence(at);
        }
        if !self.config.is(Mutant::OldWordsCount) {
            self.agents[at].view = self.next_incarnation();
        }
        self.oracle.agent_forgets(at);
        self.oracle.looked_for_one_phase(at, &self.agents[at]);
        self.schedule_turn(at);
    }

    pub(crate) fn schedule_turn(&mut self, at: usize) {
        let life = self.agents[at].life;
        let at_us = self.now_us + self.random.between(TURN_US / 2, TURN_US);
        self.queue.push(at_us, Event::AgentTurn { at, life });
    }

    /// Scans for branches in doubt, asks about those that are for long, and sweeps.
    pub(crate) fn agent_turn(&mut self, at: usize, life: u64) -> Step {
        let now = self.now();
        if self.agents[at].life != life {
            return Ok(());
        }
        self.reconnect(at);
        let agent = &mut self.agents[at];
        let staged = agent.redis.data.control.staged();
        agent.asked = staged.iter().map(|(txid, staged)| (*txid, staged.id)).collect();
        let in_doubt = |(txid, staged): (&Txid, &assent_common::participant::Staged)| InDoubt {
            txid: *txid,
            coordinator_url: txid.log_id.to_string(),
            branches: std::sync::Arc::clone(&staged.branches),
        };
        let found: Vec<_> = staged.iter().map(in_doubt).collect();
        agent.resolver.seen(now, found);
        let due = agent.resolver.take_due(now, QUESTIONS_MAX);
        if self.config.is(Mutant::VoteTimesOut)
            && let Some(doubt) = due.first()
        {
            return self.conclude(at, doubt.branch.txid, Ending::Abort);
        }
        if self.config.is(Mutant::DoubtCommits)
            && let Some(doubt) = due.first()
        {
            return self.conclude(at, doubt.branch.txid, Ending::Commit);
        }
        for Question { branch, to } in due {
            self.ask_about(Asker { at, life, to }, branch);
        }
        self.sweep(at)?;
        self.forget_left_behind(at);
        self.schedule_turn(at);
        Ok(())
    }

    pub(crate) fn sweep(&mut self, at: usize) -> Step {
        let agent = &mut self.agents[at];
        let incarnation = agent.believed_incarnation(self.config.mutant);
        if !self.config.is(Mutant::NeverSweeps) {
            agent.redis.run_chore(incarnation, Chore::Sweep);
        }
        let is_empty = agent.redis.data.control.staged().is_empty();
        let is_open = !agent.redis.data.is_fenced;
        if self.config.is(Mutant::SweepIgnoresMark) && is_empty && is_open {
            agent.redis.data.control = Participant::new(incarnation);
        }
        self.oracle.swept(at, &self.agents[at].redis.data.control)
    }

    fn ask_about(&mut self, asker: Asker, about: InDoubt) {
        self.report.questions += 1;
        let InDoubt { txid, branches, .. } = about;
        let own = self.coordinator_of(txid);
        let mut coordinator = own;
        let is_cut = self.is_cut(coordinator, asker.at);
        if is_cut || self.random.strikes(self.profile.faults.loss) {
            return self.learn(asker, txid, Call::Unknown("no answer".to_owned()));
        }
        if self.random.strikes(self.profile.faults.astray) {
            coordinator = self.random.place(self.coordinators.len());
            if coordinator == own {
                return self.learn(asker, txid, Call::Unknown("404".to_owned()));
            }
        }
        let at_us = self.now_us + self.latency_us();
        self.queue.push(at_us, Event::Asked { asker, coordinator, txid, branches });
    }

    pub(crate) fn coordinator_of(&self, txid: Txid) -> usize {
        let own = self.coordinators.iter().position(|c| c.log.log_id() == txid.log_id);
        own.expect("a log of this world")
    }

    pub(crate) fn learn(&mut self, asker: Asker, txid: Txid, answer: Call<BranchOutcome>) {
        let at_us = self.now_us + self.latency_us();
        let answer = Box::new(answer);
        self.queue.push(at_us, Event::Learned { asker, txid, answer });
    }

    /// A question has reached a coordinator. Of an implicit transaction it names the branches.
    pub(crate) fn asked(
        &mut self,
        asker: Asker,
        coordinator: usize,
        txid: Txid,
        branches: &Branches,
    ) -> Step {
        let mutant = self.config.mutant;
        let speaker = &self.coordinators[coordinator];
        let answer = if !speaker.is_up {
            match mutant {
                Some(Mutant::AnswersBeforeReplay) => Call::Applied(BranchOutcome::Aborted),
                _ => Call::Unknown("the connection was refused".to_owned()),
            }
        } else if !branches.is_empty() && speaker.knows_nothing_of(txid, mutant) {
            return self.ask_branches_for(coordinator, asker, txid, branches);
        } else {
            Call::Applied(speaker.outcome(txid, mutant))
        };
        note!(self, "p{}: asks c{coordinator} about {txid}: {answer:?}", asker.at);
        self.learn(asker, txid, answer);
        Ok(())
    }

    /// The answer to a question has come.
    pub(crate) fn learned(
        &mut self,
        asker: Asker,
        txid: Txid,
        answer: Call<BranchOutcome>,
    ) -> Step {
        if self.agents[asker.at].life != asker.life {
            return Ok(());
        }
        if asker.to.goes_on_to_branches(&answer) {
            return self.ask_branches(asker, txid);
        }
        let is_404 = matches!(&answer, Call::Unknown(why) if why == "404");
        let verdict = match judge(answer) {
            Verdict::Hold(_) if self.config.is(Mutant::ForeignLogBelieved) => Verdict::Abort,
            Verdict::Unheard(_) if is_404 && self.config.is(Mutant::NotFoundIsAborted) => {
                Verdict::Abort
            }
            verdict => verdict,
        };
        self.report.learned_by_asking +=
            u64::from(matches!(verdict, Verdict::Commit | Verdict::Abort));
        self.concludes(asker, txid, verdict)
    }

    /// A question has come to its end.
    pub(crate) fn concludes(&mut self, asker: Asker, txid: Txid, verdict: Verdict) -> Step {
        let at = asker.at;
        if self.agents[at].life != asker.life {
            return Ok(());
        }
        let conclusion = match verdict {
            Verdict::Commit => {
                self.conclude(at, txid, Ending::Commit)?;
                Conclusion::Resolved
            }
            Verdict::Abort => {
                let coordinator = self.coordinator_of(txid);
                self.oracle.presumes_abort(coordinator, txid)?;
                self.conclude(at, txid, Ending::Abort)?;
                Conclusion::Resolved
            }
            Verdict::Later(why) | Verdict::Hold(why) => Conclusion::Open(why),
            Verdict::Unheard(why) => Conclusion::Unheard(why),
        };
        let now = self.now();
        self.agents[at].resolver.concluded(now, txid, conclusion);
        Ok(())
    }

    /// What the resolver tells its own store.
    pub(crate) fn conclude(&mut self, at: usize, txid: Txid, ending: Ending) -> Step {
        let Some(id) = self.agents[at].asked.get(&txid).copied() else { return Ok(()) };
        let request = place_of(id);
        let branches = &self.requests[request].branches;
        let place = branches.iter().position(|branch| branch.at == at).expect("a branch");
        let branch = assent_common::coordinator::Branch(u16::try_from(place).expect("few"));
        let coordinator = self.coordinator_of(txid);
        let message = ending.map(|never| match never {});
        let (from, mark, known) = (From::Resolver, Mark::NONE, None);
        let sent = Sent { at: self.now(), is_probe: false };
        let ask = Ask { coordinator, at, request, branch, txid, message, mark, known, sent, from };
        self.arrived(ask, None, None)
    }
}
