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

use crate::backoff::Backoff;
use crate::ids::Txid;
use crate::outcome::Call;
use crate::time::Millis;
use crate::wire::outcome::BranchOutcome;

/// Between questions about one branch: a coordinator that restarts is asked within seconds, one that stays away is not
/// flooded.
pub const QUESTION: Backoff = Backoff { base_ms: 250, cap_ms: 5_000 };

/// A branch that has voted yes and knows no outcome, as a scan finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InDoubt {
    /// The branch's transaction.
    pub txid: Txid,
    /// The base URL of the coordinator that staged it.
    pub coordinator_url: String,
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
        for InDoubt { txid, coordinator_url } in found {
            present.insert(txid);
            let next = Next::At(now.plus(self.resolve_interval_ms));
            let doubt = self.doubts.entry(txid).or_insert_with(|| Doubt {
                coordinator_url: String::new(),
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
    pub fn take_due(&mut self, now: Millis, count_max: usize) -> Vec<InDoubt> {
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
                questions.push(InDoubt { txid, coordinator_url });
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
        InDoubt { txid, coordinator_url: format!("http://c{n}") }
    }

    #[test]
    fn a_branch_is_asked_about_only_after_the_interval_and_only_once_at_a_time() {
        let mut resolver = Resolver::new(2_000);
        resolver.seen(Millis(100), [branch(1)]);
        assert!(resolver.take_due(Millis(2_099), 10).is_empty());
        assert_eq!(resolver.wake_at(), Some(Millis(2_100)));
        assert_eq!(resolver.take_due(Millis(2_100), 10), [branch(1)]);
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
        let asked = resolver.take_due(Millis(0), 1).remove(0);
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
        assert_eq!(due[0], branch(3));
        assert_eq!(resolver.oldest_ms(Millis(50)), 50);
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
