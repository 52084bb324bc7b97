//! Wrong readings and wrong records, for the mutants of the tests. Without the feature
//! `crash-points` each passes on what it gets.

use assent_common::ErrorCode;
use assent_common::coordinator::authority::Authority;
use assent_common::coordinator::{Entry, Input};
use assent_common::ids::TxNumber;
use assent_common::mutant::Mutant;
use assent_common::outcome::{Applied, Call, Refusal};
use assent_common::record::Record;

use crate::variant::Variant;

/// What a commit was answered.
pub(crate) fn heard(variant: Variant, call: Call<Applied>) -> Call<Applied> {
    match call {
        Call::Refused(_) if variant.is(Mutant::LossAcknowledged) => {
            Call::Applied(Applied { dirty_writes: 0 })
        }
        call => call,
    }
}

/// What comes of a message without an answer.
pub(crate) fn not_heard(
    variant: Variant,
    (number, input): (TxNumber, Input),
) -> Option<(TxNumber, Input)> {
    match input {
        Input::Applied { .. } if variant.is(Mutant::DeliversOnce) => None,
        Input::Prepared { branch, attempt, .. } if variant.is(Mutant::UnknownIsConflict) => {
            let call = Call::Refused(Refusal::new(ErrorCode::LockConflict, "no answer"));
            Some((number, Input::Prepared { branch, attempt, call }))
        }
        input => Some((number, input)),
    }
}

/// What an override is recorded as; a mutant writes down something else that is true.
pub(crate) fn of_override(variant: Variant, record: Record, authority: &Authority) -> Record {
    if !variant.is(Mutant::OverrideUnrecorded) {
        return record;
    }
    authority.sets().into_iter().last().map_or(record, Record::CommittedSet)
}

/// Whether a machine hears that its decision is durable before it is.
pub(crate) fn is_sent_before_persisted(variant: Variant, entry: &Entry) -> bool {
    variant.is(Mutant::SendsBeforePersisted) && matches!(entry, Entry::Committed { .. })
}
