//! What a crash must not take, and what is said of data that has lost something all the same.

use assent_common::ErrorCode;

use crate::duty::{Duty, DutyNeeds, OVER};
use crate::script::ExampleKind::Write;
use crate::script::RightAnswer::{
    Aborted, AlreadyCommitted, Applied, Committed, HigherYes, No, SameCommitted, SameYes, Yes,
};
use crate::script::{DutyScript, DutyStep, LogSays, two_phase};

pub(super) const KEPT: &[Duty] = &[
    Duty {
        name: "kept-yes",
        demand: "a vote of yes, its writes and its locks survive a crash right behind the answer",
        why: "the coordinator decides commit on this vote; if it is lost, half of a transaction is",
        needs: DutyNeeds::Restart,
        script: || {
            DutyScript::new()
                .prepare(1, Write, Yes)
                .restart()
                // Not the prepare again: it would stage what was lost, and hide that.
                .commit(1, Applied)
                .grown(1)
                .prepare(2, Write, Yes)
                .restart()
                .step(DutyStep::Hidden)
                .prepare(2, Write, SameYes)
                .commit(2, Applied)
                .grown(2)
        },
    },
    Duty {
        name: "kept-done",
        demand: "that a branch is applied survives a crash, with what it wrote",
        why: "the commit may come again behind the crash, and would be applied twice or be refused",
        needs: DutyNeeds::Restart,
        script: || {
            DutyScript::new()
                .prepare(1, Write, Yes)
                .commit(1, Applied)
                .one_phase(2, Committed)
                .restart()
                .grown(2)
                .commit(1, Applied)
                .one_phase(2, SameCommitted)
                .abort(2, AlreadyCommitted)
                .grown(2)
        },
    },
    Duty {
        name: "kept-fence",
        demand: "a fence survives a crash right behind the answer",
        why: "the late prepare may come behind the crash",
        needs: DutyNeeds::Restart,
        script: || {
            DutyScript::new()
                .abort(1, Aborted)
                .prepare(2, Write, Yes)
                .abort(2, Aborted)
                .restart()
                .prepare(1, Write, No(OVER))
                .prepare(2, Write, No(OVER))
                .grown(0)
        },
    },
    Duty {
        name: "kept-mark",
        demand: "a low-water mark is kept before anything below it is deleted: behind a crash, \
                 what has ended stays ended",
        why: "the markers below it are gone, and nothing else keeps a late prepare out",
        needs: DutyNeeds::Restart,
        script: || {
            DutyScript::new()
                .prepare(3, Write, Yes)
                .commit(3, Applied)
                .abort(4, Aborted)
                .mark(1, 5)
                .abort(6, Aborted)
                .restart()
                .mark(0, 0)
                .prepare(3, Write, No(&[]))
                .prepare(4, Write, No(OVER))
                .grown(1)
        },
    },
    Duty {
        name: "kept-epoch",
        demand: "that a later life has spoken survives a crash",
        why: "a delayed prepare of the earlier life may come behind the crash",
        needs: DutyNeeds::Restart,
        script: || {
            DutyScript::new()
                .life(2)
                .prepare(1, Write, Yes)
                .abort(1, Aborted)
                .restart()
                .life(1)
                .prepare(1, Write, No(OVER))
                .grown(0)
        },
    },
    Duty {
        name: "kept-doubt",
        demand: "a branch that is in doubt at a crash asks behind it",
        why: "nobody else will: the address of its coordinator must be kept with it",
        needs: DutyNeeds::Restart,
        script: || {
            DutyScript::new()
                .prepare(1, Write, Yes)
                .restart()
                .asked(1, &[LogSays::Committed])
                .step(DutyStep::GrownAtLast(1))
                .grown(1)
        },
    },
    Duty {
        name: "kept-numbers",
        demand: "incarnation and numbers go on behind a crash where they were before it",
        why: "another incarnation, or a lower number, says that data was lost",
        needs: DutyNeeds::Restart,
        script: || {
            DutyScript::new()
                .prepare(1, Write, Yes)
                .commit(1, Applied)
                .restart()
                .step(DutyStep::DataIsOpen)
                .prepare(2, Write, HigherYes)
                .commit(2, Applied)
                .grown(2)
        },
    },
    Duty {
        name: "loss",
        demand: "who is told of a higher number of its own data than it has refuses everything \
                 with `quarantined`, and says so in `/v1/data`",
        why: "a backup that was put back would serve on without what was committed since",
        needs: DutyNeeds::Loss,
        script: || {
            let script = DutyScript::new().prepare(1, Write, Yes).commit(1, Applied);
            let quarantined = No(&[ErrorCode::Quarantined]);
            let told = script.line(2, two_phase(Write), quarantined);
            script
                .said_by(DutyStep::SayOfLoss, told)
                .prepare(3, Write, quarantined)
                .step(DutyStep::DataIsFenced)
        },
    },
];
