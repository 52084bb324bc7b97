//! Invariants 1, 4, 5, 7, 10, 11, 15: what coordinators write and send.

use assent_common::branch::BranchMessage;
use assent_common::coordinator::Branch;
use assent_common::record::{AnswerRecord, Answered, Committed, Record};
use assent_common::{TxNumber, Txid};
use assent_engine::Core;

use super::losses::Excuse;
use super::{Fact, Oracle, Step, ensure};
use crate::coordinator::asked_of;
use crate::network::Ask;
use crate::request::{Request, place_of};

impl Oracle {
    /// 1: no two executions, of whatever request and process life, have the same number.
    pub(crate) fn began(
        &mut self,
        coordinator: usize,
        number: TxNumber,
        request: usize,
        asked: &Request,
    ) -> Step {
        let mut fact = Fact::new(request);
        fact.attempt(assent_common::Attempt::FIRST, asked.branches.len());
        let before = self.facts[coordinator].insert(number, fact);
        ensure(before.is_none(), "1 ids are never reused", || format!("c{coordinator}: {number:?}"))
    }

    /// 4 and 15: before a message goes out.
    pub(crate) fn sends(&mut self, ask: &Ask, branches: usize) -> Step {
        let txid = ask.txid;
        let fact = self.fact(ask.coordinator, txid.number);
        let attempt = fact.attempt(txid.attempt, branches);
        match ask.message {
            BranchMessage::Commit => {
                let check = "4 no commit message before the decision is durable";
                return ensure(attempt.is_decided, check, || txid.to_string());
            }
            BranchMessage::Abort => attempt.may_drop = true,
            BranchMessage::Settle => {}
            BranchMessage::Prepare(_) => {
                let place = usize::try_from(txid.attempt.0).expect("few attempts");
                let is_settled = |earlier: &super::AttemptFact| {
                    earlier.is_decided || earlier.branches.iter().any(|b| b.is_applied)
                };
                let reruns = fact.attempts[..place].iter().any(is_settled) && !fact.is_excused;
                let check = "15 nothing is run again before it is definitely aborted";
                return ensure(!reruns, check, || txid.to_string());
            }
        }
        Ok(())
    }

    /// 5 and 11: before a record is written.
    pub(crate) fn appends(
        &mut self,
        coordinator: usize,
        record: &Record,
        requests: &[Request],
    ) -> Step {
        let Some(number) = record.number() else { return Ok(()) };
        let asked = &requests[self.request_of(coordinator, number)];
        let fact = self.fact(coordinator, number);
        match record {
            Record::Committed(Committed { attempt, branches, .. }) => {
                write_once(fact, number)?;
                let votes = &fact.attempt(*attempt, asked.branches.len()).branches;
                let all = votes.len() == branches.len() && votes.iter().all(|b| b.has_voted);
                ensure(all, "5 commit only with all votes yes", || format!("{number:?}"))
            }
            Record::Answered(Answered { attempt, answer, written, .. }) => {
                write_once(fact, number)?;
                fact.has_writes = written.is_some();
                let only = &fact.attempt(*attempt, asked.branches.len()).branches[0];
                let was_applied = only.was_applied;
                let request = &self.requests[place_of(asked.id)];
                let is_true = match answer {
                    AnswerRecord::Committed { .. } => was_applied || request.is_untraced,
                    AnswerRecord::Aborted { .. } => true,
                };
                let is_said = match answer {
                    AnswerRecord::Committed { .. } => written.is_some() || request.is_untraced,
                    AnswerRecord::Aborted { .. } => true,
                };
                let text = || format!("{number:?}");
                ensure(is_said, "9 the log has what one phase wrote", text)?;
                ensure(is_true, "5 commit only with all votes yes", text)
            }
            Record::Ended(_) => {
                let over = fact.is_over(asked);
                let check = "11 the end only after every branch has applied";
                ensure(over, check, || format!("c{coordinator}: {number:?}"))
            }
            _ => Ok(()),
        }
    }

    /// A record is on disk. 5, 7, 8, 15: a decision is made.
    pub(crate) fn durable(
        &mut self,
        coordinator: usize,
        record: &Record,
        requests: &[Request],
    ) -> Step {
        let Some(number) = record.number() else { return Ok(()) };
        let fact = self.fact(coordinator, number);
        match record {
            Record::Committed(committed) => {
                let txid =
                    Txid { log_id: self.logs[coordinator], number, attempt: committed.attempt };
                self.decided(coordinator, txid, requests)
            }
            Record::Answered(Answered { attempt, written, .. }) => {
                (fact.is_written, fact.is_durable) = (true, true);
                fact.has_writes = written.is_some();
                if fact.has_writes {
                    let (request, log_id) = (fact.request, self.logs[coordinator]);
                    let txid = Txid { log_id, number, attempt: *attempt };
                    return self.commits(request, coordinator, txid);
                }
                Ok(())
            }
            Record::Abandoned(abandoned) => {
                let named = |at: usize| format!("p{at}") == abandoned.participant.as_str();
                let branches = &requests[fact.request].branches;
                let place = branches.iter().position(|branch| named(branch.at));
                fact.abandoned.extend(place);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn decided(&mut self, coordinator: usize, txid: Txid, requests: &[Request]) -> Step {
        if self.fact(coordinator, txid.number).is_overtaken {
            self.excuse(coordinator, txid.number, Excuse::Overtaken);
        }
        let fact = self.fact(coordinator, txid.number);
        let branches = requests[fact.request].branches.len();
        let (request, is_excused) = (fact.request, fact.is_excused);
        let attempt = fact.attempt(txid.attempt, branches);
        if attempt.is_decided {
            // Of an implicit transaction the votes have decided.
            (fact.is_written, fact.is_durable) = (true, true);
            return Ok(());
        }
        attempt.is_decided = true;
        let check = "7 a branch is told aborted only of what never commits";
        ensure(!attempt.is_presumed_aborted, check, || txid.to_string())?;
        let is_dropped = attempt.branches.iter().any(|branch| branch.is_aborted);
        let check = "8 all branches or none";
        ensure(!is_dropped || is_excused, check, || {
            format!("{txid} is decided, a branch dropped")
        })?;
        let is_again = fact.is_durable;
        (fact.is_written, fact.is_durable) = (true, true);
        ensure(!is_again, "5 the decision is written once", || txid.to_string())?;
        self.commits(request, coordinator, txid)
    }

    /// All votes are there, and nothing else is wanted: that is the decision.
    pub(super) fn decided_by_votes(
        &mut self,
        coordinator: usize,
        txid: Txid,
        request: usize,
    ) -> Step {
        let attempt = self.fact(coordinator, txid.number).attempt(txid.attempt, 0);
        attempt.is_decided = true;
        let check = "7 a branch is told aborted only of what never commits";
        ensure(!attempt.is_presumed_aborted, check, || txid.to_string())?;
        let is_dropped = attempt.branches.iter().any(|branch| branch.is_aborted);
        ensure(!is_dropped, "8 all branches or none", || {
            format!("{txid} is decided, a branch dropped")
        })?;
        self.commits(request, coordinator, txid)
    }

    /// 15: however often a request was sent or run, it takes effect once.
    pub(super) fn commits(&mut self, request: usize, coordinator: usize, txid: Txid) -> Step {
        let fact = &mut self.requests[request];
        let this = (coordinator, txid.number);
        let other = fact.committed.replace(this).filter(|other| *other != this);
        let check = "15 one request commits once at most";
        ensure(other.is_none() || fact.is_excused, check, || {
            format!("request {request} as {txid} and {other:?}")
        })?;
        ensure(fact.told != Some(false) || fact.is_excused, "answers: what is told is true", || {
            format!("request {request} was told aborted, and {txid} commits")
        })
    }

    /// Records that were not synced may be gone; what is found after all comes again by
    /// [`durable`](Self::durable).
    pub(crate) fn forgets_pending(&mut self, coordinator: usize, lost: &[Record]) {
        for number in lost.iter().filter_map(Record::number) {
            let fact = self.fact(coordinator, number);
            fact.is_written = fact.is_durable;
        }
        self.forgets_writes(coordinator);
    }

    /// 7: a branch in doubt has been told that its transaction is aborted.
    pub(crate) fn presumes_abort(&mut self, coordinator: usize, txid: Txid) -> Step {
        let place = usize::try_from(txid.attempt.0).expect("few attempts");
        let fact = self.fact(coordinator, txid.number);
        let Some(attempt) = fact.attempts.get_mut(place) else { return Ok(()) };
        (attempt.is_presumed_aborted, attempt.may_drop) = (true, true);
        let check = "7 a branch is told aborted only of what never commits";
        ensure(!attempt.is_decided, check, || txid.to_string())
    }

    /// 16: what is given up was given up by a record of an operator's.
    pub(crate) fn gives_up(&self, coordinator: usize, number: TxNumber, branch: Branch) -> Step {
        let fact = self.facts[coordinator].get(&number);
        let is_recorded = fact.is_some_and(|fact| fact.abandoned.contains(&branch.index()));
        ensure(is_recorded, "16 a branch is given up by an operator only", || {
            format!("c{coordinator}: {number:?}, {branch:?}")
        })
    }

    /// 10: a participant hears that everything below has ended there, and will not be told again.
    pub(crate) fn hears_mark(&self, ask: &Ask, core: &Core, requests: &[Request]) -> Step {
        let mut below =
            core.all_active().filter(|it| it.machine.spec().number < ask.mark.low_water);
        let under_way = below.find(|active| {
            let branches = (0..).map(Branch).zip(&asked_of(requests, active).branches);
            let mut here = branches.filter(|(_, planned)| planned.at == ask.at);
            here.any(|(branch, _)| !active.machine.is_over_at(branch))
        });
        ensure(under_way.is_none(), "10 the mark covers only what has ended", || {
            format!("c{} says {:?} to p{}", ask.coordinator, ask.mark.low_water, ask.at)
        })
    }
}

impl Fact {
    /// Whether every branch that writes has applied, or was given up.
    pub(super) fn is_over(&self, asked: &Request) -> bool {
        let decided = self.attempts.iter().find(|attempt| attempt.is_decided);
        decided.is_some_and(|attempt| {
            let mut branches = attempt.branches.iter().zip(&asked.branches).enumerate();
            branches.all(|(place, (branch, plan))| {
                branch.was_applied || plan.reads() || self.abandoned.contains(&place)
            })
        })
    }
}

fn write_once(fact: &mut Fact, number: TxNumber) -> Step {
    let is_again = std::mem::replace(&mut fact.is_written, true);
    ensure(!is_again, "5 the decision is written once", || format!("{number:?}"))
}
