//! Wrong readings and wrong records, for the mutants of the tests. Without the feature
//! `crash-points` each passes on what it gets.

use assent_common::ErrorCode;
use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::coordinator::Entry;
use assent_common::coordinator::authority::Authority;
use assent_common::mutant::Mutant;
use assent_common::outcome::{Applied, Call, Refusal};
use assent_common::record::Record;

use crate::variant::Variant;

/// What a branch is told.
pub(crate) fn told<P>(variant: Variant, message: BranchMessage<P>) -> BranchMessage<P> {
    match message {
        BranchMessage::Settle if variant.is(Mutant::AbortsUnsettled) => BranchMessage::Abort,
        message => message,
    }
}

/// What a message was answered.
pub(crate) fn heard(variant: Variant, answer: BranchAnswer) -> BranchAnswer {
    match answer {
        BranchAnswer::Applied(Call::Refused(_)) if variant.is(Mutant::LossAcknowledged) => {
            BranchAnswer::Applied(Call::Applied(Applied { dirty_writes: 0 }))
        }
        answer => answer,
    }
}

/// What comes of a message without an answer.
pub(crate) fn not_heard(variant: Variant, answer: BranchAnswer) -> Option<BranchAnswer> {
    match answer {
        BranchAnswer::Applied(_) if variant.is(Mutant::DeliversOnce) => None,
        BranchAnswer::Prepared(_) if variant.is(Mutant::UnknownIsConflict) => {
            let refusal = Refusal::new(ErrorCode::LockConflict, "no answer");
            Some(BranchAnswer::Prepared(Call::Refused(refusal)))
        }
        answer => Some(answer),
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
