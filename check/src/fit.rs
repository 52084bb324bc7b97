//! Whether an answer is right. Pure: what was answered before is in [`DutyMemory`].

use std::collections::BTreeMap;

use assent_common::ErrorCode;
use assent_common::branch::BranchAnswer;
use assent_common::outcome::{Aborted, Call, Done, Prepared, Settled, Vote};
use assent_common::wire::resync::{DataPoint, DataView};

use crate::script::{BranchName, RightAnswer};

/// What was answered in a duty.
#[derive(Debug, Default)]
pub(crate) struct DutyMemory {
    votes: BTreeMap<BranchName, Vote>,
    done: BTreeMap<BranchName, Done>,
    /// The highest number of a vote.
    highest: Option<DataPoint>,
}

impl RightAnswer {
    /// The answer in words, for people.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Yes => "a vote of yes with replies, redo, incarnation and seq".to_owned(),
            Self::HigherYes => "the same, with a higher seq, in the same incarnation".to_owned(),
            Self::SameYes => "the vote of yes of before, word for word".to_owned(),
            Self::Committed => "\"vote\": \"committed\", with replies".to_owned(),
            Self::SameCommitted => "the answer of before: committed, the same replies".to_owned(),
            Self::No([]) => "a no (a vote of no, or refused) with a code".to_owned(),
            Self::No(codes) => {
                let codes: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
                format!("a no (a vote of no, or refused) with code {}", codes.join(" or "))
            }
            Self::Locked => "a no with code lock_conflict, or \"vote\": \"wait\"".to_owned(),
            Self::Applied => "\"state\": \"applied\"".to_owned(),
            Self::Aborted => "\"state\": \"aborted\"".to_owned(),
            Self::AlreadyCommitted => "\"state\": \"already_committed\"".to_owned(),
            Self::Settled(Settled::Prepared) => "\"state\": \"prepared\"".to_owned(),
            Self::Settled(Settled::Applied) => Self::Applied.words(),
            Self::Settled(Settled::Fenced) => Self::Aborted.words(),
            Self::NotDone => "a no, or an error: nothing of it is done".to_owned(),
        }
    }
}

impl DutyMemory {
    /// Whether an answer is right; if not, what is wrong with it. A right one is remembered.
    pub(crate) fn judge(
        &mut self,
        branch: BranchName,
        right: RightAnswer,
        answer: &BranchAnswer,
    ) -> Result<(), String> {
        match (right, answer) {
            (RightAnswer::NotDone, answer) => {
                let is_done = answer.refused().is_none() && answer.unknown().is_none();
                if is_done { Err("it was done".to_owned()) } else { Ok(()) }
            }
            (_, answer) if answer.unknown().is_some() => {
                let why = answer.unknown().unwrap_or_default();
                Err(format!("that is not known to a coordinator: {why}"))
            }
            (
                RightAnswer::Yes | RightAnswer::HigherYes | RightAnswer::SameYes,
                BranchAnswer::Prepared(Call::Applied(Prepared::Yes(vote))),
            ) => self.judge_vote(branch, right, vote),
            (
                RightAnswer::Committed | RightAnswer::SameCommitted,
                BranchAnswer::Prepared(Call::Applied(Prepared::Committed(done))),
            ) => self.judge_done(branch, right, done),
            (RightAnswer::Locked, BranchAnswer::Prepared(Call::Applied(Prepared::Wait(_))))
            | (RightAnswer::Applied, BranchAnswer::Applied(Call::Applied(_)))
            | (RightAnswer::Aborted, BranchAnswer::Aborted(Call::Applied(Aborted::Fenced)))
            | (
                RightAnswer::AlreadyCommitted,
                BranchAnswer::Aborted(Call::Applied(Aborted::AlreadyCommitted(_))),
            ) => Ok(()),
            (RightAnswer::Settled(right), BranchAnswer::Settled(Call::Applied(found)))
                if right == *found =>
            {
                Ok(())
            }
            (RightAnswer::Locked, answer) => refused_with(answer, &[ErrorCode::LockConflict]),
            (RightAnswer::No(codes), answer) => refused_with(answer, codes),
            _ => Err("that is another answer".to_owned()),
        }
    }

    fn judge_vote(
        &mut self,
        branch: BranchName,
        right: RightAnswer,
        vote: &Vote,
    ) -> Result<(), String> {
        let Vote { redo, incarnation, seq, .. } = vote;
        if redo.is_empty() {
            return Err("a yes without `redo` says that the branch only reads".to_owned());
        }
        if *incarnation == 0 || *seq == 0 {
            return Err("`incarnation` and `seq` are numbers from 1".to_owned());
        }
        if right == RightAnswer::SameYes {
            return match self.votes.get(&branch) {
                Some(before) if before == vote => Ok(()),
                _ => Err("the vote of before was another".to_owned()),
            };
        }
        let here = DataPoint { incarnation: *incarnation, seq: *seq };
        if let Some(highest) = self.highest.filter(|_| right == RightAnswer::HigherYes) {
            if highest.incarnation != here.incarnation {
                return Err("the incarnation is another, and no data was lost".to_owned());
            }
            if highest.seq >= here.seq {
                let seq = highest.seq;
                return Err(format!("a vote of before had seq {seq}: numbers must rise"));
            }
        }
        self.highest = self.highest.max(Some(here));
        self.votes.insert(branch, vote.clone());
        Ok(())
    }

    fn judge_done(
        &mut self,
        branch: BranchName,
        right: RightAnswer,
        done: &Done,
    ) -> Result<(), String> {
        if right == RightAnswer::SameCommitted {
            return match self.done.get(&branch) {
                Some(before) if before.replies == done.replies => Ok(()),
                _ => Err("the replies of before were others".to_owned()),
            };
        }
        self.done.insert(branch, done.clone());
        Ok(())
    }

    /// Whether the data that is shown is open, and has all votes that were heard.
    pub(crate) fn judge_open(&self, view: &DataView) -> Result<(), String> {
        if view.fenced {
            return Err("it says that it is fenced".to_owned());
        }
        match self.highest {
            Some(highest) if !view.has_all_of(highest) => {
                let DataPoint { incarnation, seq } = highest;
                Err(format!("a vote had incarnation {incarnation} and seq {seq}"))
            }
            _ => Ok(()),
        }
    }

    /// The highest vote that was heard.
    pub(crate) const fn highest(&self) -> Option<DataPoint> {
        self.highest
    }
}

fn refused_with(answer: &BranchAnswer, codes: &[ErrorCode]) -> Result<(), String> {
    match answer.refused() {
        None => Err("that is no refusal".to_owned()),
        Some(refusal) if codes.is_empty() || codes.contains(&refusal.code) => Ok(()),
        Some(refusal) => Err(format!("it is refused for another reason: {}", refusal.code)),
    }
}

/// The first number in replies: also one that is written in a string, and 0 for `null`.
pub(crate) fn first_number(replies: &str) -> Option<i64> {
    let replies: serde_json::Value = serde_json::from_str(replies).ok()?;
    number_in(&replies)
}

fn number_in(value: &serde_json::Value) -> Option<i64> {
    match value {
        serde_json::Value::Null => Some(0),
        serde_json::Value::Number(number) => number.as_i64(),
        serde_json::Value::String(text) => text.parse().ok(),
        serde_json::Value::Array(items) => items.iter().find_map(number_in),
        serde_json::Value::Object(fields) => fields.values().find_map(number_in),
        serde_json::Value::Bool(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::LogName;
    use assent_common::branch::BranchMessage;
    use assent_common::outcome::Refusal;

    const BRANCH: BranchName = BranchName { log: LogName::Own, epoch: 1, n: 1 };

    fn yes(replies: &str, redo: &[u8], seq: u64) -> BranchAnswer {
        let vote = Vote { replies: replies.into(), redo: redo.into(), incarnation: 7, seq };
        BranchAnswer::Prepared(Call::Applied(Prepared::Yes(vote)))
    }

    /// Promise: a check that accepts anything is none.
    #[test]
    fn an_answer_is_right_only_if_it_is_the_one() {
        let mut memory = DutyMemory::default();
        let mut judge = |right, answer: &BranchAnswer| memory.judge(BRANCH, right, answer);
        assert!(judge(RightAnswer::Yes, &yes("[1]", b"", 1)).is_err(), "no redo");
        assert!(judge(RightAnswer::Yes, &yes("[1]", b"w", 0)).is_err(), "no number");
        assert_eq!(judge(RightAnswer::Yes, &yes("[1]", b"w", 4)), Ok(()));
        assert_eq!(judge(RightAnswer::SameYes, &yes("[1]", b"w", 4)), Ok(()));
        assert!(judge(RightAnswer::SameYes, &yes("[2]", b"w", 4)).is_err());
        assert!(judge(RightAnswer::SameYes, &yes("[1]", b"w", 5)).is_err());
        assert!(judge(RightAnswer::HigherYes, &yes("[1]", b"w", 4)).is_err());
        assert_eq!(judge(RightAnswer::HigherYes, &yes("[1]", b"w", 5)), Ok(()));
        let unknown = BranchMessage::<()>::Commit.unknown("a 502");
        let refused = |code| BranchMessage::<()>::Commit.refused(Refusal::new(code, ""));
        assert!(judge(RightAnswer::Applied, &unknown).is_err());
        assert_eq!(judge(RightAnswer::NotDone, &unknown), Ok(()));
        assert!(judge(RightAnswer::NotDone, &yes("[]", b"w", 9)).is_err());
        let fenced = refused(ErrorCode::Fenced);
        assert_eq!(judge(RightAnswer::No(&[ErrorCode::Fenced]), &fenced), Ok(()));
        assert_eq!(judge(RightAnswer::No(&[]), &fenced), Ok(()));
        assert!(judge(RightAnswer::No(&[ErrorCode::BranchLost]), &fenced).is_err());
        assert!(judge(RightAnswer::Locked, &fenced).is_err());
        assert!(judge(RightAnswer::Applied, &fenced).is_err());
    }

    #[test]
    fn the_first_number_of_replies_is_found() {
        for (replies, number) in [
            ("[7]", Some(7)),
            (r#"["12"]"#, Some(12)),
            ("[null]", Some(0)),
            (r#"[["a", "3"], 9]"#, Some(3)),
            (r#"[{"hook": {"account": "bob", "balance": 40}}]"#, Some(40)),
            (r#"["bob", true]"#, None),
            ("[]", None),
        ] {
            assert_eq!(first_number(replies), number, "{replies}");
        }
    }
}
