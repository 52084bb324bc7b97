//! Implicit transactions that are finished by what their branches say: asked by a participant whose
//! coordinator does not answer, or by a coordinator that knows nothing of one. Each question and
//! each answer takes its time, and may be lost. What follows from them is `common`'s to say.

use assent_common::Txid;
use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::coordinator::{Branch, PrepareCall};
use assent_common::outcome::{Aborted, Call, Settled};
use assent_common::participant::Branches;
use assent_common::participant::resolver::{Asked, Verdict, judge_branches};
use assent_common::settle::{self, Finding, Resolution};
use assent_common::wire::branch::BranchAddress;
use assent_engine::Sent;

use crate::coordinator::{Mark, participant_name};
use crate::mutants::Mutant;
use crate::network::{Ask, From};
use crate::oracle::{Step, violation};
use crate::queue::Event;
use crate::redis::Chore;
use crate::request::Request;
use crate::trace::note;
use crate::world::World;

/// The branches of a transaction are being asked, all at once.
#[derive(Debug)]
pub(crate) struct AskedBranches {
    by: Settler,
    asker: Asker,
    txid: Txid,
    resolution: Resolution,
    /// Questions of which nothing is known yet.
    open: usize,
}

/// Who asks them, in a life of its process.
#[derive(Debug, Clone, Copy)]
enum Settler {
    Agent,
    Coordinator { coordinator: usize, life: u64 },
}

/// The agent whose branch is in doubt, in a life.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    pub(crate) at: usize,
    pub(crate) life: u64,
    /// Whom it asks.
    pub(crate) to: Asked,
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

    /// An agent asks the other branches about its own, which is staged.
    pub(crate) fn ask_branches(&mut self, asker: Asker, txid: Txid) -> Step {
        let staged = self.agents[asker.at].redis.data.control.staged();
        let Some(staged) = staged.get(&txid) else {
            let gone = Verdict::Later("it is not in doubt any more".to_owned());
            return self.concludes(asker, txid, gone);
        };
        let resolution = Resolution::by_branch(&staged.branches, &participant_name(asker.at));
        self.settle(Settler::Agent, asker, txid, resolution)
    }

    /// A coordinator asks all branches, for one of them.
    pub(crate) fn ask_branches_for(
        &mut self,
        coordinator: usize,
        asker: Asker,
        txid: Txid,
        branches: &Branches,
    ) -> Step {
        let life = self.coordinators[coordinator].life;
        let by = Settler::Coordinator { coordinator, life };
        self.settle(by, asker, txid, Resolution::new(branches))
    }

    fn settle(&mut self, by: Settler, asker: Asker, txid: Txid, resolution: Resolution) -> Step {
        let missing: Vec<_> = resolution.missing().cloned().collect();
        note!(self, "{by:?} asks {missing:?} about {txid}, for p{}", asker.at);
        let request = self.oracle.request_of(self.coordinator_of(txid), txid.number);
        let branches: Vec<_> = self.requests[request].branches.iter().map(|it| it.at).collect();
        let ticket = self.settlings.last_key_value().map_or(0, |(last, _)| last + 1);
        let open = missing.len();
        self.settlings.insert(ticket, AskedBranches { by, asker, txid, resolution, open });
        self.report.settles += open as u64;
        for (place, at) in branches.into_iter().enumerate() {
            if !missing.contains(&participant_name(at)) {
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
                from: From::Settler { ticket },
            };
            if self.random.strikes(self.profile.faults.loss) {
                self.result_unknown(ask, "the call timed out");
                continue;
            }
            let at_us = self.now_us + self.latency_us();
            self.queue.push(at_us, Event::Arrived { ask, waits: None });
        }
        if open == 0 { self.has_asked(ticket) } else { Ok(()) }
    }

    /// Sends a branch's answer back to whoever settles.
    pub(crate) fn settle_answered(&mut self, ticket: u64, ask: Ask, answer: BranchAnswer) {
        if self.random.strikes(self.profile.faults.loss) {
            return self.result_unknown(ask, "the connection broke");
        }
        let (at, answer) = (ask.at, Box::new(answer));
        let at_us = self.now_us + self.latency_us();
        self.queue.push(at_us, Event::Settled { ticket, at, answer });
    }

    /// It has come, or it is known that it does not.
    pub(crate) fn settled(&mut self, ticket: u64, at: usize, answer: BranchAnswer) -> Step {
        let Some(settling) = self.settlings.get_mut(&ticket) else { return Ok(()) };
        if let BranchAnswer::Settled(call) = answer {
            settling.resolution.answered(&participant_name(at), call);
        }
        settling.open -= 1;
        if settling.open == 0 { self.has_asked(ticket) } else { Ok(()) }
    }

    /// All have answered that do.
    fn has_asked(&mut self, ticket: u64) -> Step {
        let Some(settling) = self.settlings.remove(&ticket) else { return Ok(()) };
        let AskedBranches { by, asker, txid, resolution, .. } = settling;
        let finding = resolution.finding();
        match &finding {
            Finding::Committed => self.report.settled_as_committed += 1,
            Finding::Aborted => self.report.settled_as_aborted += 1,
            Finding::Open(_) => {}
            Finding::Contradiction(why) => {
                return violation("8 all branches or none", format!("{txid}: {why}"));
            }
        }
        match by {
            Settler::Agent => self.concludes(asker, txid, judge_branches(finding)),
            Settler::Coordinator { coordinator, life } => {
                let said = match self.coordinators[coordinator].life == life {
                    true => Call::Applied(finding.outcome()),
                    false => Call::Unknown("the connection broke".to_owned()),
                };
                self.learn(asker, txid, said);
                Ok(())
            }
        }
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
            let kept = agent.redis.data.control.state(txid);
            at == asked_by || agent.is_up && settle::is_over(kept)
        })
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
