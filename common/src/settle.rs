//! What the branches of an implicit transaction say of its outcome, when its log cannot: the pure part of a resolution,
//! for coordinators and participants alike.
//!
//! Committed is what every branch has voted yes to, durably. Whoever does not know asks every branch: one that was never
//! staged is fenced by the question, so that it never will be, and the answer stays true whatever comes later. One branch
//! that is fenced decides abort, and one that is applied decides commit, because somebody has seen the votes of all. While
//! a branch does not answer, and none of the others decides, nothing is decided.

use std::collections::BTreeMap;

use crate::code::ErrorCode;
use crate::ids::ParticipantName;
use crate::outcome::{Call, Settled};
use crate::participant::Branches;
use crate::wire::branch::BranchState;
use crate::wire::outcome::BranchOutcome;

/// What the branches have said so far. What one has said stays true, so that it is not asked again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Resolution {
    open: BTreeMap<ParticipantName, Option<String>>,
    found: BTreeMap<ParticipantName, Settled>,
}

/// What a resolution comes to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Finding {
    /// Every branch has voted yes.
    Committed,
    /// A branch never did, and never will.
    Aborted,
    /// Not known yet; the text says what is missing.
    Open(String),
    /// One branch is applied and another one fenced: a Redis has lost its vote, or a human has decided. Nothing may
    /// follow from that.
    Contradiction(String),
}

impl Finding {
    /// What a coordinator answers to a branch in doubt that asked for it.
    #[must_use]
    pub const fn outcome(&self) -> BranchOutcome {
        match self {
            Self::Committed => BranchOutcome::Committed,
            Self::Aborted => BranchOutcome::Aborted,
            Self::Open(_) => BranchOutcome::Undecided,
            Self::Contradiction(_) => BranchOutcome::UnknownAuthority,
        }
    }

    /// It in a word, and what is missing or wrong: for logs.
    #[must_use]
    pub fn told(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Committed => ("committed", None),
            Self::Aborted => ("aborted", None),
            Self::Open(why) => ("open", Some(why)),
            Self::Contradiction(why) => ("contradiction", Some(why)),
        }
    }
}

impl Resolution {
    /// Of a transaction with these branches.
    #[must_use]
    pub fn new(branches: &Branches) -> Self {
        let open = branches.iter().map(|branch| (branch.participant.clone(), None)).collect();
        Self { open, found: BTreeMap::new() }
    }

    /// The same, for a participant whose own branch of it is staged.
    #[must_use]
    pub fn by_branch(branches: &Branches, own: &ParticipantName) -> Self {
        let mut resolution = Self::new(branches);
        resolution.answered(own, Call::Applied(Settled::Prepared));
        resolution
    }

    /// The participants whose answers are missing.
    pub fn missing(&self) -> impl Iterator<Item = &ParticipantName> {
        self.open.keys()
    }

    /// Takes what came of a question to a branch.
    pub fn answered(&mut self, participant: &ParticipantName, call: Call<Settled>) {
        if !self.open.contains_key(participant) {
            return;
        }
        let settled = match call {
            Call::Applied(settled) => Ok(settled),
            // It had voted, and nobody but its operator says that the others have.
            Call::Refused(refusal) if refusal.code == ErrorCode::HeuristicCommitted => {
                Ok(Settled::Prepared)
            }
            Call::Refused(refusal) => Err(refusal.to_string()),
            Call::Unknown(why) => Err(why),
        };
        match settled {
            Ok(settled) => {
                self.open.remove(participant);
                self.found.insert(participant.clone(), settled);
            }
            Err(why) => drop(self.open.insert(participant.clone(), Some(why))),
        }
    }

    /// What is known by now.
    #[must_use]
    pub fn finding(&self) -> Finding {
        let of = |settled| self.found.iter().find(|(_, found)| **found == settled);
        match (of(Settled::Applied), of(Settled::Fenced)) {
            (Some((applied, _)), Some((fenced, _))) => Finding::Contradiction(format!(
                "the branch at {applied} is applied and the one at {fenced} is fenced"
            )),
            (None, Some(_)) => Finding::Aborted,
            (Some(_), None) => Finding::Committed,
            (None, None) if self.open.is_empty() && !self.found.is_empty() => Finding::Committed,
            (None, None) => Finding::Open(self.missing_text()),
        }
    }

    fn missing_text(&self) -> String {
        let each = self.open.iter().map(|(participant, why)| {
            let why = why.as_deref().unwrap_or("not asked");
            format!("{participant} has not said whether it voted ({why})")
        });
        each.collect::<Vec<_>>().join("; ")
    }
}

/// Whether a branch has ended of which this is kept, where another branch of its transaction was
/// applied: all had voted then, so that one of which nothing is kept has ended, and been forgotten.
#[must_use]
pub const fn is_over(kept: Option<BranchState>) -> bool {
    matches!(kept, None | Some(BranchState::Applied))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Refusal;
    use crate::wire::branch::BranchAddress;

    fn name(text: &str) -> ParticipantName {
        text.parse().unwrap()
    }

    fn resolution(answers: &[(&str, Call<Settled>)]) -> Resolution {
        let branch =
            |text| BranchAddress { participant: name(text), url: format!("http://{text}") };
        let mut resolution = Resolution::new(&["a", "b", "c"].map(branch)[..].into());
        for (participant, call) in answers {
            resolution.answered(&name(participant), call.clone());
        }
        resolution
    }

    fn finding(answers: &[(&str, Settled)]) -> Finding {
        let calls: Vec<_> =
            answers.iter().map(|(name, settled)| (*name, Call::Applied(*settled))).collect();
        resolution(&calls).finding()
    }

    use Settled::{Applied, Fenced, Prepared};

    #[test]
    fn all_votes_are_the_decision() {
        assert_eq!(
            finding(&[("a", Prepared), ("b", Prepared), ("c", Prepared)]),
            Finding::Committed
        );
        for missing in [&[("a", Prepared), ("c", Prepared)][..], &[("b", Prepared)], &[]] {
            assert!(matches!(finding(missing), Finding::Open(_)), "{missing:?}");
        }
    }

    #[test]
    fn one_fence_decides_abort_and_one_applied_branch_decides_commit() {
        assert_eq!(finding(&[("a", Prepared), ("b", Fenced)]), Finding::Aborted);
        assert_eq!(finding(&[("c", Fenced)]), Finding::Aborted);
        assert_eq!(finding(&[("c", Applied)]), Finding::Committed);
    }

    /// Invariant 16: a hand touches its own branch only.
    #[test]
    fn a_branch_that_was_applied_by_hand_is_a_vote_and_no_decision() {
        let by_hand = || Call::Refused(Refusal::new(ErrorCode::HeuristicCommitted, "ana"));
        let with = |others: &[(&str, Settled)]| {
            let others = others.iter().map(|(name, settled)| (*name, Call::Applied(*settled)));
            let calls: Vec<_> = others.chain([("a", by_hand())]).collect();
            resolution(&calls).finding()
        };
        assert!(matches!(with(&[("b", Prepared)]), Finding::Open(_)));
        assert_eq!(with(&[("b", Prepared), ("c", Fenced)]), Finding::Aborted);
        assert_eq!(with(&[("b", Prepared), ("c", Prepared)]), Finding::Committed);
    }

    #[test]
    fn from_a_contradiction_nothing_follows() {
        let contradiction = finding(&[("a", Applied), ("b", Fenced), ("c", Prepared)]);
        assert!(matches!(contradiction, Finding::Contradiction(_)), "{contradiction:?}");
    }

    #[test]
    fn who_does_not_answer_is_missing_and_named() {
        let refusal = Refusal::new(ErrorCode::Quarantined, "fenced data");
        let resolution = resolution(&[
            ("a", Call::Applied(Prepared)),
            ("b", Call::Unknown("reset".to_owned())),
            ("c", Call::Refused(refusal)),
        ]);
        assert_eq!(resolution.missing().collect::<Vec<_>>(), [&name("b"), &name("c")]);
        let Finding::Open(why) = resolution.finding() else { panic!("{resolution:?}") };
        assert!(why.contains("b has not said whether it voted (reset)"), "{why}");
        assert!(why.contains("quarantined"), "{why}");
    }

    #[test]
    fn what_a_branch_has_said_stays() {
        let mut resolution = resolution(&[("a", Call::Applied(Fenced))]);
        resolution.answered(&name("a"), Call::Applied(Prepared));
        resolution.answered(&name("nobody"), Call::Applied(Applied));
        assert_eq!(resolution.finding(), Finding::Aborted);
    }
}
