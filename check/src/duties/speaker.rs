//! Whose word counts, how far it is, and which data it is about.

use assent_common::ErrorCode;
use assent_common::branch::BranchMessage::Abort;

use crate::duty::{Duty, DutyNeeds, OVER, UNKNOWN};
use crate::script::ExampleKind::Write;
use crate::script::RightAnswer::{Aborted, Applied, HigherYes, No, NotDone, SameYes, Yes};
use crate::script::{BranchName, DutyScript, DutyStep, LogName, two_phase};

pub(super) const SPEAKER: &[Duty] = &[
    Duty {
        name: "authority",
        demand: "a log, and a life of it, says nothing about the branches of others; nothing that \
                 is for another participant is done",
        why: "a wrong coordinator, or a wrong address, would end branches that it knows nothing of",
        needs: DutyNeeds::Nothing,
        script: authority,
    },
    Duty {
        name: "epoch",
        demand: "when a later life of a log has spoken, a prepare of an earlier one is voted no, \
                 and the later life ends what the earlier one began",
        why: "a prepare that was delayed would be staged for a coordinator that is no more",
        needs: DutyNeeds::Nothing,
        script: || {
            DutyScript::new()
                .prepare(1, Write, Yes)
                .life(2)
                .abort(5, Aborted)
                .life(1)
                .prepare(2, Write, No(OVER))
                .life(2)
                .commit((1, 1), Applied)
                .life(1)
                .commit(1, Applied)
                .grown(1)
        },
    },
    Duty {
        name: "mark",
        demand: "markers at and above the low-water mark stay, a prepare below it is voted no, and \
                 a mark never goes down",
        why: "what was forgotten too early would be applied twice, or be begun again",
        needs: DutyNeeds::Nothing,
        script: mark,
    },
    Duty {
        name: "numbers",
        demand: "the number of a vote only rises, and `/v1/data` knows at least that number",
        why: "by its number a lost vote is noticed, and lost writes are redone in their order",
        needs: DutyNeeds::Nothing,
        script: || {
            DutyScript::new()
                .prepare(1, Write, Yes)
                .abort(1, Aborted)
                .prepare(2, Write, HigherYes)
                .step(DutyStep::DataIsOpen)
                .commit(2, Applied)
                .grown(1)
        },
    },
    Duty {
        name: "token",
        demand: "a message without the token is not done",
        why: "whoever reaches the address could commit and abort",
        needs: DutyNeeds::Token,
        script: || {
            let script = DutyScript::new();
            let prepare = script.line(1, two_phase(Write), NotDone);
            script
                .said_by(DutyStep::SayWithoutToken, prepare)
                .commit(1, No(UNKNOWN))
                .prepare(1, Write, Yes)
                .abort(1, Aborted)
                .grown(0)
        },
    },
];

fn authority() -> DutyScript {
    let own = BranchName { log: LogName::Own, epoch: 1, n: 1 };
    let script = DutyScript::new().prepare(1, Write, Yes);
    let to_another = script.line(1, Abort, NotDone);
    script
        .said_by(DutyStep::SayToAnother, to_another)
        .log(LogName::Other)
        .commit(own, NotDone)
        .abort(own, NotDone)
        .abort((2, 1), NotDone)
        .mark(1, 100)
        .abort(200, Aborted)
        .log(LogName::Own)
        .prepare(1, Write, SameYes)
        .commit(1, Applied)
        .log(LogName::Other)
        .mark(1, 300)
        .abort(400, Aborted)
        .log(LogName::Own)
        .commit(1, Applied)
        .grown(1)
}

fn mark() -> DutyScript {
    DutyScript::new()
        .prepare(5, Write, Yes)
        .commit(5, Applied)
        .abort(6, Aborted)
        .mark(1, 5)
        .abort(9, Aborted)
        .commit(5, Applied)
        .prepare(6, Write, No(&[ErrorCode::Fenced]))
        .prepare(3, Write, No(&[ErrorCode::BelowLowWater]))
        .mark(0, 0)
        .prepare(4, Write, No(&[ErrorCode::BelowLowWater]))
        .commit(2, No(UNKNOWN))
        .commit(5, Applied)
        .grown(1)
}
