//! What must be so when nothing has gone wrong for long: all of it is over.

use super::{Oracle, Step, ensure};
use crate::report::Report;
use crate::request::Request;

impl Oracle {
    /// All branches or none, of every transaction; and of what a Redis lost, that it was noticed.
    pub(crate) fn is_settled(&self, requests: &[Request], report: &mut Report) -> Step {
        for (coordinator, facts) in self.facts.iter().enumerate() {
            for (number, fact) in facts {
                let asked = &requests[fact.request];
                for attempt in &fact.attempts {
                    let branches = attempt.branches.iter().zip(&asked.branches).enumerate();
                    for (place, (branch, plan)) in branches {
                        if asked.is_one_phase() || (plan.reads() && !branch.is_applied) {
                            continue;
                        }
                        let text = || format!("c{coordinator}: {number:?} at p{}", plan.at);
                        if branch.is_applied == attempt.is_decided {
                            continue;
                        }
                        ensure(fact.is_tainted, "8 all branches or none", text)?;
                        self.is_noticed(fact.abandoned.contains(&place), plan.at, text, report)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A decided branch is gone: its coordinator must have noticed, or its agent.
    fn is_noticed(
        &self,
        is_abandoned: bool,
        at: usize,
        text: impl FnOnce() -> String,
        report: &mut Report,
    ) -> Step {
        let site = &self.sites[at];
        if is_abandoned || site.was_quarantined {
            report.losses_noticed += 1;
            return Ok(());
        }
        if site.was_blind {
            report.losses_unseen += 1;
            return Ok(());
        }
        ensure(false, "9 a decided branch that is lost is noticed", text)
    }
}
