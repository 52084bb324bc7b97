//! Wrong readings and wrong records, for the mutants of the tests. Without the feature `crash-points` each passes on what it
//! gets.

use assent_client::mutant;
use assent_common::ErrorCode;
use assent_common::coordinator::Input;
use assent_common::coordinator::authority::Authority;
use assent_common::ids::TxNumber;
use assent_common::mutant::Mutant;
use assent_common::outcome::{Applied, Call, Refusal};
use assent_common::record::Record;

/// What a commit was answered.
pub(super) fn heard(call: Call<Applied>) -> Call<Applied> {
    match call {
        Call::Refused(_) if mutant::is(Mutant::LossAcknowledged) => {
            Call::Applied(Applied { dirty_writes: 0 })
        }
        call => call,
    }
}

/// What comes of a message without an answer.
pub(super) fn not_heard((number, input): (TxNumber, Input)) -> Option<(TxNumber, Input)> {
    match input {
        Input::Applied { .. } if mutant::is(Mutant::DeliversOnce) => None,
        Input::Prepared { branch, attempt, .. } if mutant::is(Mutant::UnknownIsConflict) => {
            let call = Call::Refused(Refusal::new(ErrorCode::LockConflict, "no answer"));
            Some((number, Input::Prepared { branch, attempt, call }))
        }
        input => Some((number, input)),
    }
}

/// Whether a branch that is to be settled is aborted instead; its answer reads like that of a settle.
pub(super) fn aborts_unsettled() -> bool {
    mutant::is(Mutant::AbortsUnsettled)
}

/// What an override is recorded as; a mutant writes down something else that is true.
pub(super) fn of_override(record: Record, authority: &Authority) -> Record {
    if !mutant::is(Mutant::OverrideUnrecorded) {
        return record;
    }
    authority.sets().into_iter().last().map_or(record, Record::CommittedSet)
}
