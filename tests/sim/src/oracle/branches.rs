//! Invariants 2, 3, 5, 6, 8, 9, 10, 12, 14: what scripts do, and what of it leaves an agent.

use assent_common::branch::BranchAnswer;
use assent_common::command::Access;
use assent_common::outcome::{Aborted, Call, Prepared};
use assent_common::participant::{Heard, Participant};
use assent_common::wire::branch::BranchState;
use assent_common::{Attempt, TxNumber, Txid};

use super::losses::Excuse;
use super::{Oracle, Step, ensure, escrow};
use crate::agent::Agent;
use crate::hook;
use crate::network::Ask;
use crate::request::{Op, Request, place_of};

/// What was kept before a script.
#[derive(Debug)]
pub(crate) struct Before {
    pub(crate) state: Option<BranchState>,
    pub(crate) heard: Option<Heard>,
}

/// A script that ran.
struct Ran<'a> {
    ask: &'a Ask,
    before: &'a Before,
    after: Option<BranchState>,
    agent: &'a Agent,
    is_applied: bool,
    answer: &'a BranchAnswer,
    requests: &'a [Request],
}

impl Ran<'_> {
    fn request(&self) -> &Request {
        &self.requests[self.ask.request]
    }

    fn is_prepare(&self) -> bool {
        self.ask.message.is_prepare()
    }

    fn is_staged(&self) -> bool {
        self.before.state != Some(BranchState::Prepared)
            && self.after == Some(BranchState::Prepared)
    }

    fn text(&self) -> String {
        format!("p{}: {:?} of {}", self.ask.at, self.ask.message, self.ask.txid)
    }
}

impl Oracle {
    /// One script has run.
    pub(crate) fn ran(
        &mut self,
        ask: &Ask,
        before: &Before,
        agent: &Agent,
        is_applied: bool,
        answer: &BranchAnswer,
        requests: &[Request],
    ) -> Step {
        let after = agent.redis.data.control.state(ask.txid);
        let ran = Ran { ask, before, after, agent, is_applied, answer, requests };
        acknowledged(&ran)?;
        self.replied(&ran);
        let is_changed = before.state != after || is_applied;
        if !is_changed {
            return Ok(());
        }
        let is_own = agent.incarnation() == agent.redis.data.control.incarnation();
        ensure(is_own, "12 nothing runs on other data", || ran.text())?;
        let is_open = !self.sites[ask.at].is_fenced;
        ensure(is_open, "12 nothing runs on fenced data", || ran.text())?;
        let is_whole = !agent.redis.data.found().has_hole();
        ensure(is_whole, "9 a hole in the history is noticed", || ran.text())?;
        may_stage(&ran)?;
        rule_holds(&ran)?;
        if ran.is_staged() {
            self.voted(&ran)?;
        }
        if is_applied {
            self.applied(&ran)?;
        }
        if after == Some(BranchState::Aborted) && before.state != after {
            self.aborted(&ran)?;
        }
        super::locks::are_the_votes(ask.at, &agent.redis.data.control, requests)?;
        if self.is_excused() {
            return Ok(());
        }
        let data = &agent.redis.data;
        if is_applied {
            let plan = &ran.request().branches[ask.branch.index()];
            escrow::bounds_hold(plan, data, |_| false, || ran.text())?;
        }
        escrow::bounds_will_hold(ask.at, data, requests)
    }

    /// What the ops of a branch replied, for whoever is told so later.
    fn replied(&mut self, ran: &Ran<'_>) {
        let replies = match ran.answer {
            BranchAnswer::Prepared(Call::Applied(Prepared::Yes(vote))) => &vote.replies,
            BranchAnswer::Prepared(Call::Applied(Prepared::Committed(done))) => &done.replies,
            _ => return,
        };
        let branches = ran.request().branches.len();
        let fact = self.fact(ran.ask.coordinator, ran.ask.txid.number);
        let attempt = fact.attempt(ran.ask.txid.attempt, branches);
        attempt.branches[ran.ask.branch.index()].replies = Some(replies.clone());
    }

    /// 12: a branch votes yes; no number of a vote is given twice.
    fn voted(&mut self, ran: &Ran<'_>) -> Step {
        self.takes_number(ran.ask.at, ran.agent.redis.data.control.seq());
        let site = &mut self.sites[ran.ask.at];
        let seq = ran.agent.redis.data.control.seq();
        let is_higher = seq > site.seq_given;
        let check = "12 votes that were lost are noticed";
        ensure(is_higher, check, || format!("{}: vote {seq} again", ran.text()))?;
        let branches = ran.request().branches.len();
        let fact = self.fact(ran.ask.coordinator, ran.ask.txid.number);
        let attempt = fact.attempt(ran.ask.txid.attempt, branches);
        attempt.branches[ran.ask.branch.index()].has_voted = true;
        let have_all = attempt.branches.iter().all(|branch| branch.has_voted);
        if have_all && ran.request().is_implicit() {
            return self.decided_by_votes(ran.ask.coordinator, ran.ask.txid, ran.ask.request);
        }
        Ok(())
    }

    /// 3 and 8: a branch's writes are in the keyspace: once, decided, on the data that others voted
    /// on.
    fn applied(&mut self, ran: &Ran<'_>) -> Step {
        let Ask { coordinator, txid, request, branch, .. } = *ran.ask;
        let asked = ran.request();
        let plan = &asked.branches[branch.index()];
        let is_one_phase = asked.is_one_phase();
        if is_one_phase && plan.reads() {
            self.requests[request].is_untraced = true;
            return Ok(());
        }
        if is_one_phase && self.fact(coordinator, txid.number).is_unfenced {
            self.excuse(coordinator, txid.number, Excuse::FenceLost);
        }
        let fact = self.fact(coordinator, txid.number);
        let is_excused = fact.is_excused;
        let attempt = fact.attempt(txid.attempt, asked.branches.len());
        let known = &mut attempt.branches[branch.index()];
        let is_again = known.is_applied;
        (known.is_applied, known.was_applied) = (true, true);
        let is_decided = attempt.is_decided || is_one_phase;
        let is_dropped = attempt.branches.iter().any(|branch| branch.is_aborted);
        let is_again = is_again && !is_excused;
        ensure(!is_again, "8 a branch is applied once at most", || ran.text())?;
        ensure(is_decided, "8 applied only what is decided", || ran.text())?;
        ensure(!is_dropped || is_excused, "8 all branches or none", || ran.text())?;
        self.sites[ran.ask.at].markers.insert(txid, BranchState::Applied);
        if is_one_phase {
            self.takes_number(ran.ask.at, ran.agent.redis.data.control.seq());
            self.commits(request, coordinator, txid)?;
        }
        data_waits_for_the_votes(ran)
    }

    /// 3 and 8: a branch is dropped, or kept out before it came.
    fn aborted(&mut self, ran: &Ran<'_>) -> Step {
        let Ask { coordinator, txid, branch, .. } = *ran.ask;
        let branches = ran.request().branches.len();
        let fact = self.fact(coordinator, txid.number);
        let is_excused = fact.is_excused;
        let attempt = fact.attempt(txid.attempt, branches);
        let may_drop = attempt.may_drop;
        attempt.branches[branch.index()].is_aborted = true;
        let takes_effect = attempt.is_decided || attempt.branches.iter().any(|b| b.is_applied);
        let was_staged = ran.before.state == Some(BranchState::Prepared);
        let check = "3 a yes stands until the outcome is told";
        ensure(may_drop || !was_staged, check, || ran.text())?;
        ensure(!takes_effect || is_excused, "8 all branches or none", || ran.text())?;
        self.sites[ran.ask.at].markers.insert(txid, BranchState::Aborted);
        Ok(())
    }

    /// 2: what leaves the agent as a yes is kept.
    pub(crate) fn leaves(
        &mut self,
        ask: &Ask,
        answer: &BranchAnswer,
        control: &Participant,
    ) -> Step {
        let BranchAnswer::Prepared(Call::Applied(Prepared::Yes(vote))) = answer else {
            return Ok(());
        };
        let staged = control.staged().get(&ask.txid);
        let is_kept = staged.is_some_and(|staged| staged.vote == *vote);
        ensure(is_kept, "2 a yes is staged durably before it is said", || ask.txid.to_string())
    }

    /// 10: of what is not below the mark, nothing is forgotten.
    pub(crate) fn swept(&mut self, at: usize, control: &Participant) -> Step {
        let markers = &mut self.sites[at].markers;
        for log_id in &self.logs {
            let Some(heard) = control.heard(*log_id) else { continue };
            let at = |number| Txid { log_id: *log_id, number, attempt: Attempt::FIRST };
            let first = at(TxNumber { epoch: assent_common::Epoch(0), n: 0 });
            let below = first..at(heard.low_water);
            while let Some(txid) = markers.range(below.clone()).next().map(|(txid, _)| *txid) {
                markers.remove(&txid);
            }
        }
        let (kept, must) = (control.markers(), markers.len());
        ensure(kept >= must, "10 markers above the mark are kept", || {
            format!("p{at} has {kept} markers, and {must} are above its marks")
        })
    }
}

/// 5, 6, 10: what must be refused.
fn may_stage(ran: &Ran<'_>) -> Step {
    if !ran.is_prepare() || !(ran.is_staged() || ran.is_applied) {
        return Ok(());
    }
    if let Some(heard) = ran.before.heard {
        let number = ran.ask.txid.number;
        let is_stale = number.epoch < heard.epoch;
        ensure(!is_stale, "5 a prepare of an earlier life is refused", || ran.text())?;
        let is_below = number < heard.low_water;
        ensure(!is_below, "10 a prepare below the mark is refused", || ran.text())?;
    }
    let is_fenced = ran.before.state == Some(BranchState::Aborted);
    ensure(!is_fenced, "6 a fenced branch is never staged", || ran.text())
}

/// 6, 9, 14: what is said of an outcome is so.
fn acknowledged(ran: &Ran<'_>) -> Step {
    let is_own = ran.agent.redis.data.incarnation() == Some(ran.agent.incarnation());
    match ran.answer {
        BranchAnswer::Applied(Call::Applied(_)) => {
            let is_so = ran.after == Some(BranchState::Applied);
            ensure(is_so, "9 unknown is never ok", || ran.text())
        }
        BranchAnswer::Applied(Call::Refused(refusal)) => {
            let was_staged = ran.before.state == Some(BranchState::Prepared) && is_own;
            let check = "14 the commit of a staged branch is never refused";
            ensure(!was_staged, check, || format!("{}: {}", ran.text(), refusal.detail))
        }
        BranchAnswer::Aborted(Call::Applied(Aborted::Fenced)) => {
            let number = ran.ask.txid.number;
            let is_below = ran.before.heard.is_some_and(|heard| number < heard.low_water);
            let is_fenced = ran.after == Some(BranchState::Aborted) || is_below;
            ensure(is_fenced, "6 an acknowledged abort has left its fence", || ran.text())
        }
        _ => Ok(()),
    }
}

/// 3, and isolation: no key changes that a branch in doubt has read or is to write. As every
/// transaction sees all its keys so until its outcome, all are serialisable in the order of their
/// decisions.
fn data_waits_for_the_votes(ran: &Ran<'_>) -> Step {
    let Ask { at, txid, branch, .. } = *ran.ask;
    let plan = &ran.request().branches[branch.index()];
    let written = plan.ops.iter().filter(|op| op.access() != Access::Shared);
    for op in written {
        let in_doubt = ran.agent.redis.data.control.staged().iter();
        let mut others = in_doubt.filter(|(other, _)| **other != txid);
        let reader = others.find(|(_, staged)| {
            let branches = &ran.requests[place_of(staged.id)].branches;
            let mut ops = branches.iter().filter(|b| b.at == at).flat_map(|b| &b.ops);
            // In escrow nobody has read the value.
            let may_share = op.access() != Access::Exclusive;
            let is_met = |other: &Op| !(may_share && other.access() == op.access());
            ops.any(|other| other.account == op.account && is_met(other))
        });
        let check = "3 what was read under a vote stays as it was";
        ensure(reader.is_none(), check, || {
            let reader = reader.map(|(txid, _)| *txid);
            format!("{} changes account {} under {reader:?}", ran.text(), op.account)
        })?;
    }
    Ok(())
}

/// 3: what a hook has read is so when its branch is staged, or applied in one phase.
fn rule_holds(ran: &Ran<'_>) -> Step {
    if !ran.ask.message.is_prepare() || !(ran.is_staged() || ran.is_applied) {
        return Ok(());
    }
    let plan = &ran.request().branches[ran.ask.branch.index()];
    let holds = hook::rule_holds(plan, &ran.agent.redis.data, ran.is_applied);
    ensure(holds, "3 a hook's rule holds under the vote of its branch", || ran.text())
}
