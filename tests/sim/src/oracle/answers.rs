//! What clients are told: one outcome, and a true one.

use assent_common::Txid;
use assent_common::coordinator::Outcome;

use super::{Oracle, Step, ensure};
use crate::request::Request;

impl Oracle {
    /// A coordinator says, or shows, an outcome.
    pub(crate) fn told(
        &mut self,
        coordinator: usize,
        txid: Txid,
        request: usize,
        outcome: &Outcome,
        asked: &Request,
    ) -> Step {
        let committed = matches!(outcome, Outcome::Committed { .. });
        let known = &mut self.requests[request];
        let before = known.told.replace(committed);
        let (is_untraced, is_excused) = (known.is_untraced, known.is_excused);
        let takes_effect = known.committed.is_some();
        let is_same = before.is_none_or(|before| before == committed);
        let text = || format!("request {request} as {txid}: {outcome:?}");
        ensure(is_same || is_excused, "answers: a client hears one outcome", text)?;
        let Outcome::Committed { applied, replies } = outcome else {
            let is_true = !takes_effect || is_excused;
            return ensure(is_true, "answers: what is told is true", text);
        };
        let fact = self.fact(coordinator, txid.number);
        let attempt = fact.attempt(txid.attempt, asked.branches.len());
        let mut branches = attempt.branches.iter().zip(replies);
        // Of an implicit transaction that others have finished, votes may be missing.
        let is_unheard = |told: &str| asked.is_implicit() && told == "[]";
        let are_theirs = branches
            .all(|(branch, told)| branch.replies.as_ref() == Some(told) || is_unheard(told));
        let check = "answers: the replies are those of the votes";
        // What is read in one phase may be read again by a copy of the message, and then
        // differently.
        ensure(are_theirs || is_excused || is_untraced, check, text)?;
        if asked.is_one_phase() {
            let is_true = attempt.branches[0].was_applied || is_untraced;
            return ensure(is_true, "answers: what is told is true", text);
        }
        let check = "4 no committed before it is durable";
        ensure(attempt.is_decided, check, text)?;
        let is_said_too_early = *applied && !fact.is_over(asked);
        ensure(!is_said_too_early, "answers: applied is said of what is applied", text)
    }

    /// A client hears an outcome; whether it is the one that it heard before.
    pub(crate) fn heard(&mut self, request: usize, committed: bool) -> bool {
        let known = &mut self.requests[request];
        let before = known.heard.replace(committed);
        before.is_none_or(|before| before == committed) || known.is_excused
    }
}
