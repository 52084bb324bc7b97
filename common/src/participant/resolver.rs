//! Which branch in doubt to ask about, whom, and when: the pure part of a participant's resolver.
//!
//! Owns what is kept in memory of branches in doubt: since when they are seen, how often they were asked about, what
//! was learned. All of it may be lost at any time: it decides how soon an outcome is learned, never which one. It must
//! never conclude anything from time or from silence.
//!
//! ```text
//! scan ──> seen ──> due ──> ask the coordinator ──> judge ──┬─ Commit, Abort ──> at the store ──> concluded
//!            ▲                                              ├─ Later, Unheard ──> asked again, with backoff
//!            └──────────────────────────────────────────────┴─ Hold   ──────────> the same, and a human is told
//! ```
//!
//! A coordinator that is heard of again after a silence is asked at once about all that it was silent about. Nothing here
//! goes through all doubts for one of them: there may be tens of thousands.

use std::collections::{BTreeSet, HashMap, HashSet};
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

impl Asked {
    /// Whether the other branches are asked after the coordinator has said this. Not while it is at
    /// work on the transaction: they may be about to vote.
    #[must_use]
    pub const fn goes_on_to_branches(self, said: &Call<BranchOutcome>) -> bool {
        let knows_nothing = matches!(
            said,
            Call::Unknown(_) | Call::Refused(_) | Call::Applied(BranchOutcome::UnknownAuthority)
        );
        knows_nothing && matches!(self, Self::CoordinatorThenBranches)
    }
}

/// What an answer means for a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its log decided commit.
    Commit,
    /// Its log decided abort, or presumes it.
    Abort,
    /// It answered, and nothing is known yet; the text says why.
    Later(String),
    /// No answer of its own came; the text says why.
    Unheard(String),
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
        Call::Refused(refusal) => Verdict::Later(refusal.to_string()),
        Call::Unknown(why) => Verdict::Unheard(why),
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
    /// The same, because nobody answered.
    Unheard(String),
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

impl Doubt {
    /// Its place among the questions that are to be asked, if it has one.
    fn place(&self, txid: Txid) -> Option<Place> {
        match self.next {
            Next::At(at) => Some((at, self.first_seen, txid)),
            Next::Asking | Next::AskingGone => None,
        }
    }
}

/// When a question is due; since when there is doubt; about what.
type Place = (Millis, Millis, Txid);

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
    /// The doubts that are not asked about at present, in the order of the questions.
    questions: BTreeSet<Place>,
    /// The doubts that coordinators were silent about, by their URLs.
    unheard: HashMap<String, BTreeSet<Txid>>,
}

impl Resolver {
    /// Asks about a branch that has been in doubt for this long.
    #[must_use]
    pub fn new(resolve_interval_ms: u64) -> Self {
        Self {
            resolve_interval_ms,
            doubts: HashMap::new(),
            questions: BTreeSet::new(),
            unheard: HashMap::new(),
        }
    }

    /// Takes the result of a whole scan.
    pub fn seen(&mut self, now: Millis, found: impl IntoIterator<Item = InDoubt>) {
        let mut present = HashSet::new();
        for InDoubt { txid, coordinator_url, branches } in found {
            present.insert(txid);
            let next = Next::At(now.plus(self.resolve_interval_ms));
            let doubt = self.doubts.entry(txid).or_insert_with(|| Doubt {
                coordinator_url,
                branches,
                first_seen: now,
                tries: 0,
                next,
                last_error: None,
            });
            if doubt.next == Next::AskingGone {
                doubt.next = Next::Asking;
            }
            self.questions.extend(doubt.place(txid));
        }
        let gone: Vec<Txid> =
            self.doubts.keys().filter(|txid| !present.contains(txid)).copied().collect();
        for txid in gone {
            match self.doubts.get_mut(&txid) {
                Some(doubt) if doubt.place(txid).is_none() => doubt.next = Next::AskingGone,
                _ => self.forget(txid),
            }
        }
    }

    /// Takes up to `count_max` questions that are due, those that are due for the longest first; each is then owed a
    /// [`concluded`](Self::concluded).
    pub fn take_due(&mut self, now: Millis, count_max: usize) -> Vec<Question> {
        let mut due = Vec::new();
        while due.len() < count_max
            && let Some(&(at, _, txid)) = self.questions.first()
            && at <= now
        {
            self.questions.pop_first();
            if let Some(doubt) = self.doubts.get_mut(&txid) {
                doubt.next = Next::Asking;
                let coordinator_url = doubt.coordinator_url.clone();
                let branches = Arc::clone(&doubt.branches);
                let to = if doubt.tries >= TRIES_BEFORE_BRANCHES && !branches.is_empty() {
                    Asked::CoordinatorThenBranches
                } else {
                    Asked::Coordinator
                };
                due.push(Question { branch: InDoubt { txid, coordinator_url, branches }, to });
            }
        }
        due
    }

    /// Takes the end of a question.
    pub fn concluded(&mut self, now: Millis, txid: Txid, conclusion: Conclusion) {
        let Some(doubt) = self.doubts.get_mut(&txid) else { return };
        let url = doubt.coordinator_url.clone();
        let why = match conclusion {
            Conclusion::Resolved => {
                self.forget(txid);
                return self.heard(now, &url);
            }
            Conclusion::Open(why) => {
                self.heard(now, &url);
                why
            }
            Conclusion::Unheard(why) => {
                self.unheard.entry(url).or_default().insert(txid);
                why
            }
        };
        self.ask_later(now, txid, why);
    }

    /// The coordinator at this address answers again: what it was silent about is due.
    fn heard(&mut self, now: Millis, url: &str) {
        for txid in self.unheard.remove(url).unwrap_or_default() {
            let Some(doubt) = self.doubts.get_mut(&txid) else { continue };
            if let Some(place) = doubt.place(txid).filter(|(at, ..)| *at > now) {
                self.questions.remove(&place);
                doubt.next = Next::At(now);
                self.questions.extend(doubt.place(txid));
            }
        }
    }

    fn ask_later(&mut self, now: Millis, txid: Txid, why: String) {
        let Some(doubt) = self.doubts.get_mut(&txid) else { return };
        if doubt.next == Next::AskingGone {
            return self.forget(txid);
        }
        let delay_ms = QUESTION.delay_ms(doubt.tries, seed(txid));
        doubt.tries = doubt.tries.saturating_add(1);
        doubt.next = Next::At(now.plus(delay_ms));
        doubt.last_error = Some(why);
        self.questions.extend(doubt.place(txid));
    }

    fn forget(&mut self, txid: Txid) {
        let Some(doubt) = self.doubts.remove(&txid) else { return };
        if let Some(place) = doubt.place(txid) {
            self.questions.remove(&place);
        }
        if let Some(unheard) = self.unheard.get_mut(&doubt.coordinator_url) {
            unheard.remove(&txid);
        }
    }

    /// When the next question is due, if one is.
    #[must_use]
    pub fn wake_at(&self) -> Option<Millis> {
        self.questions.first().map(|(at, ..)| *at)
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

    /// Two branches of one coordinator and one of another, each asked about once, without an answer.
    fn silent() -> Resolver {
        let mut resolver = Resolver::new(0);
        let mut found: Vec<InDoubt> = (1..=3).map(branch).collect();
        found[1].coordinator_url = found[0].coordinator_url.clone();
        resolver.seen(Millis(0), found.clone());
        assert_eq!(resolver.take_due(Millis(0), 10).len(), 3);
        for branch in found {
            resolver.concluded(Millis(0), branch.txid, Conclusion::Unheard("refused".to_owned()));
        }
        assert!(resolver.take_due(Millis(1), 10).is_empty());
        resolver
    }

    #[test]
    fn a_coordinator_that_answers_again_is_asked_at_once_about_all_that_it_was_silent_about() {
        let mut resolver = silent();
        let first = resolver.wake_at().unwrap();
        let asked = loop {
            let asked = branches(resolver.take_due(resolver.wake_at().unwrap(), 1)).remove(0);
            if asked.coordinator_url == "http://c1" {
                break asked;
            }
        };
        resolver.concluded(first, asked.txid, Conclusion::Resolved);
        let other = if asked.txid == branch(1).txid { branch(2).txid } else { branch(1).txid };
        let due = branches(resolver.take_due(first, 10));
        assert_eq!(due.iter().map(|branch| branch.txid).collect::<Vec<_>>(), [other]);
    }

    #[test]
    fn an_answer_that_says_nothing_yet_is_heard_too_and_hurries_each_question_once() {
        let mut resolver = silent();
        let now = Millis(QUESTION.cap_ms);
        let asked = branches(resolver.take_due(now, 3));
        for branch in &asked {
            resolver.concluded(now, branch.txid, Conclusion::Open("not decided yet".to_owned()));
        }
        assert!(resolver.take_due(now, 10).is_empty(), "they were answered: they wait their time");
        assert_eq!(resolver.count(), 3);
        assert!(resolver.wake_at().unwrap() > now);
    }

    #[test]
    fn what_is_forgotten_is_never_asked_about() {
        let mut resolver = silent();
        resolver.seen(Millis(1), []);
        assert_eq!((resolver.count(), resolver.wake_at()), (0, None));
        resolver.seen(Millis(2), [branch(1)]);
        assert_eq!(branches(resolver.take_due(Millis(2), 10)), [branch(1)]);
        resolver.concluded(Millis(2), branch(1).txid, Conclusion::Resolved);
        assert_eq!((resolver.count(), resolver.wake_at()), (0, None));
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
            Call::Refused(Refusal::new(ErrorCode::NotFound, "not found")),
        ] {
            assert!(matches!(judge(call), Verdict::Later(_)));
        }
        assert!(matches!(judge(Call::Unknown("404".to_owned())), Verdict::Unheard(_)));
        let foreign = judge(Call::Applied(BranchOutcome::UnknownAuthority));
        assert!(matches!(foreign, Verdict::Hold(_)));
    }
}
