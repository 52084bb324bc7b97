//! What a Redis has lost after it had said that it was kept, and what has been made good of it. A
//! lost branch that is committed must be applied again before its data opens; what is excused from
//! that is named here, and counted.

use std::collections::BTreeSet;
use std::ops::AddAssign;

use assent_common::branch::BranchAnswer;
use assent_common::outcome::{Call, Prepared};
use assent_common::participant::{DoneMarker, OnePhaseMarker, Participant};
use assent_common::wire::branch::BranchState;
use assent_common::{Attempt, LogId, TxNumber, Txid};

use super::{Fact, Oracle, Site, Step, ensure, escrow};
use crate::agent::Agent;
use crate::redis::Data;
use crate::report::Report;
use crate::request::Request;

/// Why a lost branch need not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excuse {
    /// Others voted on the data, before anybody lived who knew of the loss: a number of a vote says
    /// no more which history it is of.
    Overtaken,
    /// An operator put up with it.
    Accepted,
    /// One phase, and no log has its writes: the record died with its coordinator.
    Unwritten,
    /// One phase: the fence that kept a late copy of its message out was lost, and no vote with it.
    FenceLost,
}

impl Oracle {
    /// A Redis has come back without its last writes, or empty, or without the ends of these
    /// branches.
    pub(crate) fn lost(
        &mut self,
        at: usize,
        data: &Data,
        undone: &BTreeSet<Txid>,
        requests: &[Request],
    ) {
        let control = &data.control;
        let site = &mut self.sites[at];
        (site.has_lost, site.is_fenced) = (true, data.is_fenced);
        site.is_behind |= site.open.is_some_and(|open| open != control.incarnation());
        site.markers.retain(|txid, state| control.state(*txid) == Some(*state));
        // A hole is made good by what logs say, or by nobody.
        site.unlogged.retain(|txid, seq| !undone.contains(txid) || *seq > control.seq());
        for coordinator in 0..self.facts.len() {
            let numbers: Vec<_> = self.facts[coordinator].keys().copied().collect();
            for number in numbers {
                let fact = &self.facts[coordinator][&number];
                let asked = &requests[fact.request];
                if let Some(place) = asked.branches.iter().position(|branch| branch.at == at) {
                    self.loses(coordinator, number, place, (control, undone), asked);
                }
            }
        }
    }

    fn loses(
        &mut self,
        coordinator: usize,
        number: TxNumber,
        place: usize,
        (control, undone): (&Participant, &BTreeSet<Txid>),
        asked: &Request,
    ) {
        let (log_id, plan) = (self.logs[coordinator], &asked.branches[place]);
        let is_below = control.heard(log_id).is_some_and(|heard| number < heard.low_water);
        let fact = self.facts[coordinator].get_mut(&number).expect("it has begun");
        let (mut is_undone, mut is_unfenced) = (false, false);
        for (attempt, known) in (0..).map(Attempt).zip(&mut fact.attempts) {
            let txid = Txid { log_id, number, attempt };
            let (state, branch) = (control.state(txid), &mut known.branches[place]);
            if is_below && state.is_none() && !undone.contains(&txid) {
                // Swept, when it had ended.
                continue;
            }
            let was_applied = branch.is_applied && state != Some(BranchState::Applied);
            let was_aborted = branch.is_aborted && state != Some(BranchState::Aborted);
            branch.is_applied &= !was_applied;
            branch.is_aborted &= !was_aborted;
            is_undone |= was_applied;
            is_unfenced |= was_aborted;
            let counts = was_applied || (branch.has_voted && !branch.is_applied);
            if counts && state.is_none() && !plan.reads() {
                self.sites[plan.at].lacks.insert(txid);
            }
        }
        if !asked.is_one_phase() {
            return;
        }
        fact.is_unfenced |= is_unfenced;
        if is_undone && !fact_of(&self.facts, coordinator, number).has_writes {
            self.is_undone(coordinator, number);
        }
    }

    /// A living agent has heard what a script said.
    pub(crate) fn hears_script(
        &mut self,
        at: usize,
        agent: &Agent,
        txid: Txid,
        answer: &BranchAnswer,
    ) {
        if let BranchAnswer::Prepared(Call::Applied(Prepared::Yes(vote))) = answer {
            let given = &mut self.sites[at].seq_given;
            *given = vote.seq.max(*given);
        }
        self.heard_of(at, agent, txid);
    }

    /// A living agent has heard what one phase came to. Data that is behind an opening is
    /// somebody's past: what is done there may be void.
    fn heard_of(&mut self, at: usize, agent: &Agent, txid: Txid) {
        let site = &mut self.sites[at];
        let marker = agent.redis.data.control.done_marker(txid);
        if let Some(DoneMarker::OnePhase(OnePhaseMarker { wrote: Some((seq, _)), .. })) = marker
            && !site.is_behind
        {
            site.unlogged.insert(txid, *seq);
        }
    }

    /// An agent has looked for one phase on a new connection to its data.
    pub(crate) fn looked_for_one_phase(&mut self, at: usize, agent: &Agent) {
        if agent.own.is_quarantined {
            return;
        }
        let control = &agent.redis.data.control;
        for txid in control.done() {
            if !control.heard(txid.log_id).is_some_and(|heard| heard.has_passed(txid)) {
                self.heard_of(at, agent, txid);
            }
        }
    }

    /// A log has what is below its mark.
    pub(crate) fn lets_go(&mut self, at: usize, log_id: LogId, low_water: TxNumber) {
        let is_below = |txid: &Txid| txid.log_id == log_id && txid.number < low_water;
        self.forgets_unlogged(at, is_below);
    }

    /// Nobody speaks for these any more but their log and the data.
    fn forgets_unlogged(&mut self, at: usize, is_forgotten: impl Fn(&Txid) -> bool) {
        let mut gone = Vec::new();
        self.sites[at].unlogged.retain(|txid, _| {
            let is_forgotten = is_forgotten(txid);
            gone.extend(is_forgotten.then_some(*txid));
            !is_forgotten
        });
        for txid in gone {
            let coordinator = self.coordinator_of(txid);
            let fact = fact_of(&self.facts, coordinator, txid.number);
            let branches = fact.attempts.iter().flat_map(|attempt| &attempt.branches);
            let is_lost = branches.clone().any(|branch| branch.was_applied && !branch.is_applied);
            if is_lost && !fact.has_writes {
                self.is_undone(coordinator, txid.number);
            }
        }
    }

    fn is_unlogged(&self, coordinator: usize, number: TxNumber) -> bool {
        let log_id = self.logs[coordinator];
        let is_it = |txid: &Txid| txid.log_id == log_id && txid.number == number;
        self.sites.iter().any(|site| site.unlogged.keys().any(is_it))
    }

    /// A branch of one phase is gone, and nobody can redo it.
    fn is_undone(&mut self, coordinator: usize, number: TxNumber) {
        if self.is_unlogged(coordinator, number) {
            return;
        }
        let known = &mut self.requests[fact_of(&self.facts, coordinator, number).request];
        if known.committed == Some((coordinator, number)) {
            known.committed = None;
        }
        if known.told == Some(true) {
            self.excuse(coordinator, number, Excuse::Unwritten);
        }
    }

    /// A coordinator has died: records of one phase that were on their way to disk may be gone. A
    /// Redis may have lost what they name, or lose it later, while that coordinator is away.
    pub(super) fn forgets_writes(&mut self, coordinator: usize) {
        let facts = &mut self.facts[coordinator];
        let mut undone = Vec::new();
        for (number, fact) in facts {
            let mut branches = fact.attempts.iter().flat_map(|attempt| &attempt.branches);
            let is_gone = branches.any(|branch| branch.was_applied && !branch.is_applied);
            let is_one_phase = fact.attempts.iter().all(|attempt| attempt.branches.len() == 1);
            if is_one_phase && !fact.is_durable {
                fact.has_writes = false;
                undone.extend(is_gone.then_some(*number));
            }
        }
        for number in undone {
            self.is_undone(coordinator, number);
        }
    }

    pub(super) fn excuse(&mut self, coordinator: usize, number: TxNumber, excuse: Excuse) {
        let fact = self.facts[coordinator].get_mut(&number).expect("it has begun");
        self.requests[fact.request].is_excused = true;
        if !std::mem::replace(&mut fact.is_excused, true) {
            self.excused.push(excuse);
        }
    }

    /// A vote is given, or a branch applied in one phase: what the data lacks can no more be told
    /// by numbers.
    pub(super) fn takes_number(&mut self, at: usize, seq: u64) {
        let highest = &mut self.sites[at].seq_highest;
        *highest = seq.max(*highest);
        for txid in std::mem::take(&mut self.sites[at].lacks) {
            let coordinator = self.coordinator_of(txid);
            let fact = self.fact(coordinator, txid.number);
            let attempt = usize::try_from(txid.attempt.0).expect("few attempts");
            let attempt = &fact.attempts[attempt];
            // What is undecided is aborted as a rule; if not, it is excused then.
            fact.is_overtaken = true;
            if attempt.is_decided || attempt.branches.len() == 1 {
                self.excuse(coordinator, txid.number, Excuse::Overtaken);
            }
        }
    }

    /// An operator puts up with what is lost there.
    pub(crate) fn accepts(&mut self, at: usize) {
        self.sites[at].is_accepted = true;
    }

    /// An agent begins, and knows nothing of what was before.
    pub(crate) fn agent_forgets(&mut self, at: usize) {
        self.sites[at].seq_given = 0;
        self.forgets_unlogged(at, |_| true);
    }

    /// An agent has fenced its data.
    pub(crate) fn fenced(&mut self, at: usize) {
        self.sites[at].is_fenced = true;
    }

    /// A repair begins, with the word of these logs: of all that the data or its agent remembers.
    pub(crate) fn repairs(&mut self, at: usize, spoke: BTreeSet<LogId>) {
        self.sites[at].spoke = spoke;
    }

    /// A branch was applied again from its log's record, or by what was staged of it.
    pub(crate) fn redone(
        &mut self,
        at: usize,
        txid: Txid,
        before: Option<BranchState>,
        is_applied: bool,
        data: &Data,
        requests: &[Request],
    ) -> Step {
        if before == Some(BranchState::Applied) && !is_applied {
            return Ok(());
        }
        let coordinator = self.coordinator_of(txid);
        let is_unlogged = self.sites[at].unlogged.contains_key(&txid);
        let fact = self.fact(coordinator, txid.number);
        let is_kept = is_unlogged || (fact.has_writes && fact.is_durable);
        let request = fact.request;
        let asked = &requests[request];
        let place = asked.branches.iter().position(|b| b.at == at).expect("a branch");
        let is_excused = fact.is_excused;
        let attempt = fact.attempt(txid.attempt, asked.branches.len());
        let branch = &mut attempt.branches[place];
        let is_again = branch.is_applied && is_applied && !is_excused;
        let is_dropped = branch.is_aborted && !is_excused;
        (branch.is_applied, branch.was_applied) = (true, true);
        let is_decided = attempt.is_decided || (asked.is_one_phase() && is_kept);
        let text = || format!("p{at}: {txid} is redone");
        ensure(!is_again, "8 a branch is applied once at most", text)?;
        ensure(!is_dropped, "8 all branches or none", text)?;
        ensure(is_decided, "8 applied only what is decided", text)?;
        let site = &mut self.sites[at];
        site.markers.insert(txid, BranchState::Applied);
        site.lacks.remove(&txid);
        if is_applied && !self.is_excused() {
            let lacks = |account| self.lacks_unsaid(at, account, requests);
            escrow::bounds_hold(&asked.branches[place], data, lacks, text)?;
        }
        if asked.is_one_phase() { self.commits(request, coordinator, txid) } else { Ok(()) }
    }

    /// Whether the repair under way leaves out a committed change of this account: its log has not
    /// spoken, since whoever remembered that log died with the data. What others added on top of
    /// that change may go beyond their bounds until that log speaks too, which fences the data
    /// again; and whoever votes before is excused, as [`Excuse::Overtaken`]. An operator who
    /// accepts a loss excuses the same.
    fn lacks_unsaid(&self, at: usize, account: usize, requests: &[Request]) -> bool {
        let site = &self.sites[at];
        let is_committed = |txid: &Txid| {
            let fact = fact_of(&self.facts, self.coordinator_of(*txid), txid.number);
            let request = &requests[fact.request];
            let attempt = usize::try_from(txid.attempt.0).expect("few attempts");
            let is_due = fact.attempts[attempt].is_decided || request.is_one_phase();
            is_due && request.branches.iter().any(|plan| plan.at == at && plan.writes(account))
        };
        let mut unsaid = site.lacks.iter().filter(|txid| !site.spoke.contains(&txid.log_id));
        site.is_accepted || unsaid.any(is_committed)
    }

    /// The data is open again: all that the logs know of is in it, and what was undecided is void.
    pub(crate) fn opened(
        &mut self,
        at: usize,
        undecided: &[Txid],
        data: &Data,
        requests: &[Request],
    ) -> Step {
        for txid in undecided {
            let coordinator = self.coordinator_of(*txid);
            let fact = self.fact(coordinator, txid.number);
            let asked = &requests[fact.request];
            let place = asked.branches.iter().position(|b| b.at == at).expect("a branch");
            let is_excused = fact.is_excused;
            let attempt = fact.attempt(txid.attempt, asked.branches.len());
            attempt.branches[place].is_aborted = true;
            ensure(!attempt.is_decided || is_excused, "8 all branches or none", || {
                format!("p{at}: {txid} is decided, and dropped by a repair")
            })?;
            self.sites[at].markers.insert(*txid, BranchState::Aborted);
        }
        let Site { is_fenced, seq_given, incarnations, .. } = &mut self.sites[at];
        (*is_fenced, *seq_given) = (false, 0);
        let open = data.control.incarnation();
        let check = "12 repaired data has an incarnation of its own";
        ensure(incarnations.insert(open), check, || format!("p{at} is {open} again"))?;
        self.opens_above_all(at, data)?;
        for coordinator in 0..self.facts.len() {
            if self.sites[at].spoke.contains(&self.logs[coordinator]) {
                self.is_whole(at, coordinator, requests)?;
            }
        }
        let site = &mut self.sites[at];
        if std::mem::take(&mut site.is_accepted) {
            self.is_unsound = true;
            for txid in std::mem::take(&mut site.lacks) {
                self.sites[at].unlogged.remove(&txid);
                self.excuse(self.coordinator_of(txid), txid.number, Excuse::Accepted);
            }
        }
        super::locks::are_the_votes(at, &data.control, requests)
    }

    /// 12: unless the Redis went back behind an opening that a log may not know of, or one of
    /// several logs knows more.
    fn opens_above_all(&mut self, at: usize, data: &Data) -> Step {
        let is_told = self.logs.len() == 1;
        let site = &mut self.sites[at];
        let (seq, highest) = (data.control.seq(), site.seq_highest);
        site.open = Some(data.control.incarnation());
        if std::mem::take(&mut site.is_behind) || !is_told {
            site.seq_highest = seq;
            return Ok(());
        }
        ensure(seq >= highest, "12 no number of a vote is given again", || {
            format!("p{at} opens at {seq}, {highest} was given")
        })
    }

    /// 9: what a log has committed is there; and 12: what it has not decided can no more be.
    fn is_whole(&mut self, at: usize, coordinator: usize, requests: &[Request]) -> Step {
        let mut lost = Vec::new();
        let log_id = self.logs[coordinator];
        for (number, fact) in &mut self.facts[coordinator] {
            let asked = &requests[fact.request];
            let Some(place) = asked.branches.iter().position(|b| b.at == at) else { continue };
            let is_kept = fact.has_writes && fact.is_durable;
            let mut is_due = asked.is_one_phase() && is_kept;
            let mut is_applied = false;
            for (tried, attempt) in (0..).map(Attempt).zip(&mut fact.attempts) {
                let txid = Txid { log_id, number: *number, attempt: tried };
                is_due |= self.sites[at].unlogged.contains_key(&txid);
                let branch = &mut attempt.branches[place];
                is_due |= attempt.is_decided;
                is_applied |= branch.is_applied;
                branch.has_voted &= attempt.is_decided;
            }
            let is_waived = fact.is_excused || fact.abandoned.contains(&place);
            if is_due && !is_applied && !is_waived && !asked.branches[place].reads() {
                lost.push(*number);
            }
        }
        let is_accepted = self.sites[at].is_accepted;
        for number in lost {
            let check = "9 the data opens when all is redone";
            ensure(is_accepted, check, || format!("c{coordinator}: {number:?} at p{at}"))?;
            self.excuse(coordinator, number, Excuse::Accepted);
        }
        Ok(())
    }

    /// Whether any data of a participant has been lost.
    pub(crate) fn has_lost(&self, at: usize) -> bool {
        self.sites[at].has_lost
    }

    /// Whether balances need not add up.
    pub(crate) fn is_excused(&self) -> bool {
        self.is_unsound || !self.excused.is_empty()
    }

    pub(super) fn count_excuses(&self, report: &mut Report) {
        for excuse in &self.excused {
            let count = match excuse {
                Excuse::Overtaken => &mut report.overtaken,
                Excuse::Accepted => &mut report.lost_for_good,
                Excuse::Unwritten => &mut report.unwritten,
                Excuse::FenceLost => &mut report.fences_lost,
            };
            count.add_assign(1);
        }
        report.unsound_worlds += u64::from(self.is_excused());
    }
}

fn fact_of(
    facts: &[std::collections::BTreeMap<TxNumber, Fact>],
    coordinator: usize,
    number: TxNumber,
) -> &Fact {
    &facts[coordinator][&number]
}
