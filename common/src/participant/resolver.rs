//! Which branch in doubt to ask about, whom, and when: the pure part of a participant's resolver.
//!
//! Owns what is kept in memory of branches in doubt: since when they are seen, how often they were asked about, what
//! was learned. All of it may be lost at any time: it decides how soon an outcome is learned, never which one. It must
//! never conclude anything from time or from silence.
//!
//! ```text
//! scan ──> seen ──> due ──> ask the coordinator ──> judge ──┬─ Commit, Abort ──> at the store ──> concluded
//!            ▲                                              ├─ Later  ──────────> asked again, with backoff
//!            └──────────────────────────────────────────────┴─ Hold   ──────────> the same, and a human is told
//! ```

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::backoff::Backoff;
use crate::ids::Txid;
use crate::outcome::Call;
use crate::participant::Branches;
use crate::settle::Finding;
use crate::time::Millis;
use crate::wire::outcome::BranchOutcome;

/// Between questions about one branch: a coordinator that restarts is asked within seconds, one that stays away is not
/// flooded.
pub const QUESTION: Backoff = Backoff { base_ms: 250, cap_ms: 5_000 };

/// How often a coordinator is asked in vain before the other branches are: some seconds in all, in which it may restart. The
/// question to the branches fences those that have not voted, and a coordinator that is only slow would have to abort.
const TRIES_BEFORE_BRANCHES: u32 = 4;

/// A branch that has voted yes and knows no outcome, as a scan finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InDoubt {
    /// The branch's transaction.
    pub txid: Txid,
    /// The base URL of the coordinator that staged it.
    pub coordinator_url: String,
    /// All branches, where their votes are the decision.
    pub branches: Branches,
}

/// A question that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// About this branch.
    pub branch: InDoubt,
    /// Whom it goes to.
    pub to: Asked,
}

/// Whom a question goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The coordinator that staged the branch.
    Coordinator,
    /// The coordinator, and the other branches of the implicit transaction if it does not answer: it has not for long.
    CoordinatorThenBranches,
}

/// What an answer means for a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its log decided commit.
    Commit,
    /// Its log decided abort, or presumes it.
    Abort,
    /// Nothing is known yet; the text says why.
    Later(String),
    /// Who was asked cannot know: the branch is held until a human has looked.
    Hold(String),
}

/// Reads an answer. Only the branch's own log moves a branch; *unknown* never does.
#[must_use]
pub fn judge(call: Call<BranchOutcome>) -> Verdict {
    match call {
        Call::Applied(BranchOutcome::Committed) => Verdict::Commit,
        Call::Applied(BranchOutcome::Aborted) => Verdict::Abort,
        Call::Applied(BranchOutcome::Undecided) => Verdict::Later("not decided yet".to_owned()),
        Call::Applied(BranchOutcome::UnknownAuthority) => {
            Verdict::Hold("the coordinator at this address is not the branch's own".to_owned())
        }
        Call::Refused(refusal) => Verdict::Later(format!("{}: {}", refusal.code, refusal.detail)),
        Call::Unknown(why) => Verdict::Later(why),
    }
}

/// Reads what the branches of an implicit transaction have said.
#[must_use]
pub fn judge_branches(finding: Finding) -> Verdict {
    match finding {
        Finding::Committed => Verdict::Commit,
        Finding::Aborted => Verdict::Abort,
        Finding::Open(why) => Verdict::Later(why),
        Finding::Contradiction(why) => Verdict::Hold(why),
    }
}

/// How a question about a branch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conclusion {
    /// The branch is applied or dropped.
    Resolved,
    /// It is still in doubt, for this reason.
    Open(String),
}

#[derive(Debug)]
struct Doubt {
    coordinator_url: String,
    branches: Branches,
    first_seen: Millis,
    tries: u32,
    next: Next,
    last_error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    At(Millis),
    /// Being asked about; no second question goes out meanwhile.
    Asking,
    /// The same, and the last scan did not find the branch any more.
    AskingGone,
}

/// The branches in doubt of one agent.
#[derive(Debug)]
pub struct Resolver {
    resolve_interval_ms: u64,
    doubts: HashMap<Txid, Doubt>,
}

impl Resolver {
    /// Asks about a branch that has been in doubt for this long.
    #[must_use]
    pub fn new(resolve_interval_ms: u64) -> Self {
        Self { resolve_interval_ms, doubts: HashMap::new() }
    }

    /// Takes the result of a whole scan.
    pub fn seen(&mut self, now: Millis, found: impl IntoIterator<Item = InDoubt>) {
        let mut present = HashSet::new();
        for InDoubt { txid, coordinator_url, branches } in found {
            present.insert(txid);
            let next = Next::At(now.plus(self.resolve_interval_ms));
            let doubt = self.doubts.entry(txid).or_insert_with(|| Doubt {
                coordinator_url: String::new(),
                branches,
                first_seen: now,
                tries: 0,
                next,
                last_error: None,
            });
            doubt.coordinator_url = coordinator_url;
            if doubt.next == Next::AskingGone {
                doubt.next = Next::Asking;
            }
        }
        self.doubts.retain(|txid, doubt| {
            if present.contains(txid) {
                return true;
            }
            let asking = !matches!(doubt.next, Next::At(_));
            if asking {
                doubt.next = Next::AskingGone;
            }
            asking
        });
    }

    /// Takes up to `count_max` questions that are due, those of the longest doubt first; each is then owed a
    /// [`concluded`](Self::concluded).
    pub fn take_due(&mut self, now: Millis, count_max: usize) -> Vec<Question> {
        let mut due: Vec<_> = self
            .doubts
            .iter()
            .filter(|(_, doubt)| matches!(doubt.next, Next::At(at) if at <= now))
            .map(|(txid, doubt)| (doubt.first_seen, *txid))
            .collect();
        due.sort_unstable();
        due.truncate(count_max);
        let mut questions = Vec::with_capacity(due.len());
        for (_, txid) in due {
            if let Some(doubt) = self.doubts.get_mut(&txid) {
                doubt.next = Next::Asking;
                let coordinator_url = doubt.coordinator_url.clone();
                let branches = Arc::clone(&doubt.branches);
                let to = if doubt.tries >= TRIES_BEFORE_BRANCHES && !branches.is_empty() {
                    Asked::CoordinatorThenBranches
                } else {
                    Asked::Coordinator
                };
                questions
                    .push(Question { branch: InDoubt { txid, coordinator_url, branches }, to });
            }
        }
        questions
    }

    /// Takes the end of a question.
    pub fn concluded(&mut self, now: Millis, txid: Txid, conclusion: Conclusion) {
        let Some(doubt) = self.doubts.get_mut(&txid) else { return };
        match (conclusion, doubt.next) {
            (Conclusion::Resolved, _) | (Conclusion::Open(_), Next::AskingGone) => {
                self.doubts.remove(&txid);
            }
            (Conclusion::Open(why), Next::Asking | Next::At(_)) => {
                let delay_ms = QUESTION.delay_ms(doubt.tries, seed(txid));
                doubt.tries = doubt.tries.saturating_add(1);
                doubt.next = Next::At(now.plus(delay_ms));
                doubt.last_error = Some(why);
            }
        }
    }

    /// When the next question is due, if one is.
    #[must_use]
    pub fn wake_at(&self) -> Option<Millis> {
        self.doubts
            .values()
            .filter_map(|doubt| match doubt.next {
                Next::At(at) => Some(at),
                Next::Asking | Next::AskingGone => None,
            })
            .min()
    }

    /// How many branches are in doubt, as far as the last scan knows. Includes those about to be decided as usual.
    #[must_use]
    pub fn count(&self) -> usize {
        self.doubts.len()
    }

    /// For how long the oldest of them has been seen, in milliseconds.
    #[must_use]
    pub fn oldest_ms(&self, now: Millis) -> u64 {
        self.doubts.values().map(|doubt| now.since(doubt.first_seen)).max().unwrap_or(0)
    }

    /// For how long this branch has been seen, in milliseconds, and what was learned last.
    #[must_use]
    pub fn doubt(&self, now: Millis, txid: Txid) -> Option<(u64, Option<&str>)> {
        let doubt = self.doubts.get(&txid)?;
        Some((now.since(doubt.first_seen), doubt.last_error.as_deref()))
    }
}

/// Branches of one coordinator must not ask in step.
fn seed(txid: Txid) -> u64 {
    let mut hasher = DefaultHasher::new();
    txid.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::ErrorCode;
    use crate::outcome::Refusal;

    fn branch(n: u64) -> InDoubt {
        let txid = format!("0198f1c2a4b27c1d9c0e3f4a5b6c7d8e.3.{n}.0").parse().unwrap();
        let coordinator_url = format!("http://c{n}");
        InDoubt { txid, coordinator_url, branches: Branches::default() }
    }

    fn branches(due: Vec<Question>) -> Vec<InDoubt> {
        due.into_iter().map(|question| question.branch).collect()
    }

    #[test]
    fn a_branch_is_asked_about_only_after_the_interval_and_only_once_at_a_time() {
        let mut resolver = Resolver::new(2_000);
        resolver.seen(Millis(100), [branch(1)]);
        assert!(resolver.take_due(Millis(2_099), 10).is_empty());
        assert_eq!(resolver.wake_at(), Some(Millis(2_100)));
        assert_eq!(branches(resolver.take_due(Millis(2_100), 10)), [branch(1)]);
        resolver.seen(Millis(9_000), [branch(1)]);
        assert!(resolver.take_due(Millis(9_000), 10).is_empty());
    }

    #[test]
    fn an_open_question_comes_again_with_backoff_up_to_the_cap() {
        let mut resolver = Resolver::new(0);
        resolver.seen(Millis(0), [branch(1)]);
        let mut now = Millis(0);
        for _ in 0..40 {
            assert_eq!(resolver.take_due(now, 10).len(), 1);
            resolver.concluded(now, branch(1).txid, Conclusion::Open("down".to_owned()));
            let next = resolver.wake_at().unwrap();
            assert!((1..=QUESTION.cap_ms).contains(&next.since(now)));
            now = next;
        }
        assert_eq!(resolver.doubt(now, branch(1).txid).unwrap().1, Some("down"));
    }

    #[test]
    fn what_a_scan_finds_no_more_is_forgotten_once_its_question_is_over() {
        let mut resolver = Resolver::new(0);
        resolver.seen(Millis(0), [branch(1), branch(2)]);
        let asked = branches(resolver.take_due(Millis(0), 1)).remove(0);
        resolver.seen(Millis(1), []);
        assert_eq!(resolver.count(), 1);
        resolver.concluded(Millis(2), asked.txid, Conclusion::Open("down".to_owned()));
        assert_eq!(resolver.count(), 0);
        assert_eq!(resolver.wake_at(), None);
    }

    #[test]
    fn the_longest_doubt_is_asked_about_first_and_the_count_is_bounded() {
        let mut resolver = Resolver::new(10);
        resolver.seen(Millis(0), [branch(3)]);
        resolver.seen(Millis(5), (1..=100).map(branch));
        let due = resolver.take_due(Millis(50), 4);
        assert_eq!(due.len(), 4);
        assert_eq!(due[0].branch, branch(3));
        assert_eq!(resolver.oldest_ms(Millis(50)), 50);
    }

    #[test]
    fn the_other_branches_are_asked_only_when_the_coordinator_was_in_vain() {
        let address = |name: &str| crate::wire::branch::BranchAddress {
            participant: name.parse().unwrap(),
            url: String::new(),
        };
        for (of, at_last) in [
            (Branches::default(), Asked::Coordinator),
            ([address("a"), address("b")][..].into(), Asked::CoordinatorThenBranches),
        ] {
            let mut resolver = Resolver::new(0);
            resolver.seen(Millis(0), [InDoubt { branches: of, ..branch(1) }]);
            let mut now = Millis(0);
            for _ in 0..TRIES_BEFORE_BRANCHES {
                assert_eq!(resolver.take_due(now, 1)[0].to, Asked::Coordinator);
                resolver.concluded(now, branch(1).txid, Conclusion::Open("down".to_owned()));
                now = resolver.wake_at().unwrap();
            }
            assert_eq!(resolver.take_due(now, 1)[0].to, at_last);
        }
    }

    #[test]
    fn only_a_word_of_the_own_log_moves_a_branch() {
        assert_eq!(judge(Call::Applied(BranchOutcome::Committed)), Verdict::Commit);
        assert_eq!(judge(Call::Applied(BranchOutcome::Aborted)), Verdict::Abort);
        for call in [
            Call::Applied(BranchOutcome::Undecided),
            Call::Unknown("404".to_owned()),
            Call::Refused(Refusal::new(ErrorCode::NotFound, "not found")),
        ] {
            assert!(matches!(judge(call), Verdict::Later(_)));
        }
        let foreign = judge(Call::Applied(BranchOutcome::UnknownAuthority));
        assert!(matches!(foreign, Verdict::Hold(_)));
    }
}
