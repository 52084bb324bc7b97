//! Branches that an operator ended by hand, on the wire: a field beside the words that an earlier coordinator knows, because
//! one word that it cannot read would cost it all answers of the batch.

use crate::code::ErrorCode;
use crate::outcome::Heuristic;

/// The code of a refusal as it is sent, and the hand beside it.
pub(super) const fn sent(code: ErrorCode) -> (ErrorCode, Option<Heuristic>) {
    match code {
        ErrorCode::HeuristicAborted => (ErrorCode::Fenced, Some(Heuristic::Aborted)),
        code => (code, None),
    }
}

/// The code that was meant.
pub(super) fn meant(code: ErrorCode, by_hand: Option<Heuristic>) -> ErrorCode {
    match (code, by_hand) {
        (ErrorCode::Fenced, Some(Heuristic::Aborted)) => ErrorCode::HeuristicAborted,
        (code, _) => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Aborted, Applied, Call, Refusal, Settled};
    use crate::wire::branch::Answer;

    /// An earlier coordinator reads what it has always read, and goes on telling the branch.
    #[test]
    fn a_hand_is_read_as_sent_and_by_those_who_do_not_know_it_as_before() {
        let refused = |code| Refusal::new(code, "ana: the log is gone");
        let commit = Call::<Applied>::Refused(refused(ErrorCode::HeuristicAborted));
        let abort = Call::<Aborted>::Refused(refused(ErrorCode::HeuristicCommitted));
        let settle = Call::<Settled>::Refused(refused(ErrorCode::HeuristicCommitted));
        let [of_commit, of_abort] = [Answer::from(commit.clone()), Answer::from(abort.clone())];
        let of_settle = Answer::from(settle.clone());
        let json = serde_json::to_value([&of_commit, &of_abort, &of_settle]).unwrap();
        assert_eq!(json[0]["code"], "fenced");
        assert_eq!(json[1]["state"], "already_committed");
        assert_eq!(json[2]["state"], "applied");
        assert_eq!((of_commit.into_applied(), of_abort.into_aborted()), (commit, abort));
        assert_eq!(of_settle.into_settled(), settle);
        let plain = Call::<Applied>::Refused(refused(ErrorCode::Fenced));
        assert_eq!(Answer::from(plain.clone()).into_applied(), plain);
    }
}
