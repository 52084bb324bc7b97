//! What must be so when nothing has gone wrong for long: all of it is over, and nothing is lost.

use super::losses::Excuse;
use super::{Oracle, Step, ensure};
use crate::report::Report;
use crate::request::Request;

impl Oracle {
    /// All branches or none, of every transaction, also after losses.
    pub(crate) fn is_settled(&mut self, requests: &[Request], report: &mut Report) -> Step {
        let mut unwritten = Vec::new();
        for (coordinator, facts) in self.facts.iter().enumerate() {
            for (number, fact) in facts {
                let asked = &requests[fact.request];
                let text = || format!("c{coordinator}: {number:?}");
                let check = "9 the data opens when all is redone";
                if fact.is_excused {
                    continue;
                }
                if asked.is_one_phase() {
                    let is_applied = fact.attempts.iter().any(|a| a.branches[0].is_applied);
                    let was_applied = fact.attempts.iter().any(|a| a.branches[0].was_applied);
                    let is_told = was_applied && self.requests[fact.request].told == Some(true);
                    if !is_applied && !asked.branches[0].reads() {
                        ensure(!(fact.has_writes && is_told), check, text)?;
                        unwritten.extend(is_told.then_some((coordinator, *number)));
                    }
                    continue;
                }
                for attempt in &fact.attempts {
                    let branches = attempt.branches.iter().zip(&asked.branches).enumerate();
                    for (place, (branch, plan)) in branches {
                        let is_waived =
                            fact.abandoned.contains(&place) || (plan.reads() && !branch.is_applied);
                        if is_waived || branch.is_applied == attempt.is_decided {
                            continue;
                        }
                        ensure(attempt.is_decided, "8 all branches or none", text)?;
                        ensure(!self.sites[plan.at].has_lost, check, text)?;
                        ensure(false, "8 all branches or none", text)?;
                    }
                }
            }
        }
        for (coordinator, number) in unwritten {
            self.excuse(coordinator, number, Excuse::Unwritten);
        }
        self.is_unsound |= report.given_up > 0;
        self.count_excuses(report);
        Ok(())
    }
}
