//! What operators ended by hand, as it is told: a coordinator's outcome that meets a branch which
//! was ended the other way is answered with who did that.

use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::outcome::{Aborted, Call, Heuristic, Refusal, Settled};
use assent_common::wire::branch::{BranchState, BranchView, ByHandView};
use assent_common::{ErrorCode, Txid};

use crate::resource::Resource;
use crate::store::ByHand;

/// Names the hand in the answers that contradict an outcome, where there was one; and in those that
/// say that a branch is applied to who asks for its outcome: by the votes, or by a hand.
pub(crate) async fn tell(
    store: &Resource,
    told: &[(Txid, BranchMessage<()>)],
    answers: &mut [BranchAnswer],
) {
    let contradicted = |answer: &BranchAnswer| match answer {
        BranchAnswer::Applied(Call::Refused(refusal)) => refusal.code == ErrorCode::Fenced,
        BranchAnswer::Aborted(Call::Applied(Aborted::AlreadyCommitted(_)))
        | BranchAnswer::Settled(Call::Applied(Settled::Applied)) => true,
        _ => false,
    };
    let all = || told.iter().map(|(txid, _)| *txid);
    let txids: Vec<Txid> =
        all().zip(&*answers).filter(|(_, answer)| contradicted(answer)).map(|(it, _)| it).collect();
    if txids.is_empty() {
        return;
    }
    let by_hand = match store.by_hand(&txids).await {
        Ok(by_hand) => by_hand,
        Err(error) => {
            // An outcome comes again, and is asked about then. A question must not be misled.
            for answer in answers {
                if let BranchAnswer::Settled(call @ Call::Applied(Settled::Applied)) = answer {
                    *call = Call::Unknown(format!("whether a hand applied it: {error}"));
                }
            }
            return;
        }
    };
    for (txid, answer) in all().zip(answers.iter_mut()) {
        let Some(found) = by_hand.get(&txid) else { continue };
        match (&*answer, found.outcome) {
            (BranchAnswer::Applied(Call::Refused(_)), Heuristic::Aborted) => {
                let refusal = Refusal::new(ErrorCode::HeuristicAborted, found.told());
                *answer = BranchAnswer::Applied(Call::Refused(refusal));
            }
            (BranchAnswer::Aborted(Call::Applied(_)), Heuristic::Committed) => {
                let refusal = Refusal::new(ErrorCode::HeuristicCommitted, found.told());
                *answer = BranchAnswer::Aborted(Call::Refused(refusal));
            }
            (BranchAnswer::Settled(Call::Applied(_)), Heuristic::Committed) => {
                let refusal = Refusal::new(ErrorCode::HeuristicCommitted, found.told());
                *answer = BranchAnswer::Settled(Call::Refused(refusal));
            }
            _ => {}
        }
    }
}

/// What a branch is that was ended this way.
pub(crate) const fn state(outcome: Heuristic) -> BranchState {
    match outcome {
        Heuristic::Committed => BranchState::Applied,
        Heuristic::Aborted => BranchState::Aborted,
    }
}

/// A branch that was ended by hand, for people.
pub(crate) fn view(txid: Txid, state: BranchState, by_hand: &ByHand) -> BranchView {
    let ByHand { outcome, actor, reason, coordinator, is_damage, id, keys } = by_hand.clone();
    BranchView {
        id,
        keys,
        coordinator: (!coordinator.is_empty()).then_some(coordinator),
        by_hand: Some(ByHandView { outcome, actor, reason, is_damage }),
        ..ended(txid, state)
    }
}

/// A branch of which a mark is left.
pub(crate) fn ended(txid: Txid, state: BranchState) -> BranchView {
    BranchView {
        txid,
        state,
        id: None,
        coordinator: None,
        in_doubt_ms: None,
        keys: Vec::new(),
        last_error: None,
        written: None,
        by_hand: None,
    }
}
