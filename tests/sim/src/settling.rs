//! Implicit transactions that are finished without the coordinator that began them: for a staged branch all others are
//! asked, by its own agent or by a coordinator that knows nothing of it. Each question and each answer takes its time,
//! and may be lost.

use assent_common::Txid;
use assent_common::branch::{BranchAnswer, BranchMessage, Ending};
use assent_common::coordinator::{Branch, PrepareCall};
use assent_common::outcome::{Aborted, Call, Settled};
use assent_common::participant::Branches;
use assent_common::settle::{Finding, Resolution};
use assent_common::wire::branch::{BranchAddress, BranchState};
use assent_engine::Sent;

use crate::agent::Agent;
use crate::coordinator::{Mark, participant_name};
use crate::mutants::Mutant;
use crate::network::{Ask, From};
use crate::oracle::Step;
use crate::queue::Event;
use crate::redis::Chore;
use crate::request::{Request, place_of};
use crate::trace::note;
use crate::world::World;

impl Agent {
    /// Whether a staged branch is of an implicit transaction.
    pub(crate) fn is_implicit(&self, txid: Txid) -> bool {
        let staged = self.redis.data.control.staged().get(&txid);
        staged.is_some_and(|staged| !staged.branches.is_empty())
    }
}

impl World {
    /// What every staged record of a request holds.
    pub(crate) fn branches_of(&self, asked: &Request) -> Branches {
        if !asked.is_implicit() {
            return Branches::default();
        }
        let left_out = usize::from(self.config.is(Mutant::BranchLeftOut));
        let named = &asked.branches[..asked.branches.len() - left_out];
        let address =
            |at: usize| BranchAddress { participant: participant_name(at), url: String::new() };
        named.iter().map(|branch| address(branch.at)).collect()
    }

    /// Only as a mutant.
    pub(crate) fn is_aborted_unsettled(&self, ask: &Ask) -> bool {
        self.config.is(Mutant::AbortsUnsettled) && ask.from.is_coordinator()
    }

    /// Asks those that have not answered yet, for a branch of a participant.
    pub(crate) fn settle_for(&mut self, by: usize, life: u64, txid: Txid) {
        let agent = &mut self.agents[by];
        let Some(staged) = agent.redis.data.control.staged().get(&txid) else { return };
        let request = place_of(staged.id);
        let resolution = agent.resolutions.entry(txid).or_insert_with(|| {
            let mut resolution = Resolution::new(&staged.branches);
            resolution.answered(&participant_name(by), Call::Applied(Settled::Prepared));
            resolution
        });
        let missing: Vec<_> = resolution.missing().cloned().collect();
        note!(self, "p{by}: asks {missing:?} about {txid}");
        let branches: Vec<_> = self.requests[request].branches.iter().map(|it| it.at).collect();
        for (place, at) in branches.into_iter().enumerate() {
            if !missing.contains(&participant_name(at)) {
                continue;
            }
            self.report.settles += 1;
            if self.random.strikes(self.profile.faults.loss) {
                continue;
            }
            let ask = Ask {
                coordinator: self.coordinator_of(txid),
                at,
                request,
                branch: Branch(u16::try_from(place).expect("few branches")),
                txid,
                message: BranchMessage::Settle,
                mark: Mark::NONE,
                known: None,
                sent: Sent { at: self.now(), is_probe: false },
                from: From::Settler { by, life },
            };
            let at_us = self.now_us + self.latency_us();
            self.queue.push(at_us, Event::Arrived { ask, waits: None });
        }
    }

    /// Sends a branch's answer back to whoever settles.
    pub(crate) fn settle_answered(&mut self, by: usize, life: u64, ask: Ask, answer: BranchAnswer) {
        if self.random.strikes(self.profile.faults.loss) {
            return;
        }
        let (txid, at, answer) = (ask.txid, ask.at, Box::new(answer));
        let at_us = self.now_us + self.latency_us();
        self.queue.push(at_us, Event::Settled { by, life, txid, at, answer });
    }

    /// Forgets the markers that were left behind here and that nobody will ask for. The questions take no time: what has
    /// ended stays so.
    pub(crate) fn forget_left_behind(&mut self, at: usize) {
        let left = self.agents[at].redis.data.control.left_behind();
        let left: Vec<_> = left.map(|(txid, branches)| (txid, Branches::clone(branches))).collect();
        for (txid, branches) in left {
            if branches.iter().all(|branch| self.is_not_in_doubt(at, txid, branch)) {
                note!(self, "p{at}: forgets {txid}");
                self.report.forgotten += 1;
                let agent = &mut self.agents[at];
                let incarnation = agent.believed_incarnation(self.config.mutant);
                agent.redis.run_chore(incarnation, Chore::Forget(txid));
            }
        }
    }

    /// Whether a branch says so to another one. Of one that is down nothing is known.
    fn is_not_in_doubt(&self, asked_by: usize, txid: Txid, branch: &BranchAddress) -> bool {
        if self.config.is(Mutant::ForgetsUnasked) {
            return true;
        }
        let mut agents = self.agents.iter().enumerate();
        let found = agents.find(|(at, _)| participant_name(*at) == branch.participant);
        found.is_some_and(|(at, agent)| {
            let state = agent.redis.data.control.state(txid);
            at == asked_by || agent.is_up && matches!(state, None | Some(BranchState::Applied))
        })
    }

    /// It has come.
    pub(crate) fn settled(
        &mut self,
        by: usize,
        life: u64,
        txid: Txid,
        at: usize,
        answer: BranchAnswer,
    ) -> Step {
        let agent = &mut self.agents[by];
        let BranchAnswer::Settled(call) = answer else { return Ok(()) };
        if agent.life != life {
            return Ok(());
        }
        let Some(resolution) = agent.resolutions.get_mut(&txid) else { return Ok(()) };
        resolution.answered(&participant_name(at), call);
        match resolution.finding() {
            Finding::Committed => {
                self.report.settled_as_committed += 1;
                self.conclude(by, txid, Ending::Commit)
            }
            Finding::Aborted => {
                self.report.settled_as_aborted += 1;
                self.oracle.presumes_abort(self.coordinator_of(txid), txid)?;
                self.conclude(by, txid, Ending::Abort)
            }
            Finding::Open(_) => Ok(()),
            Finding::Contradiction(why) => {
                crate::oracle::violation("8 all branches or none", format!("{txid}: {why}"))
            }
        }
    }
}

/// The answer to a settle, also where a mutant aborts in its place.
pub(crate) fn as_settled(
    message: BranchMessage<PrepareCall>,
    answer: BranchAnswer,
) -> BranchAnswer {
    match (message, answer) {
        (BranchMessage::Settle, BranchAnswer::Aborted(call)) => {
            BranchAnswer::Settled(call.map(|aborted| match aborted {
                Aborted::Fenced => Settled::Fenced,
                Aborted::AlreadyCommitted(_) => Settled::Applied,
            }))
        }
        (_, answer) => answer,
    }
}
