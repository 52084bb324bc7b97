//! A branch in doubt: it stands, asks, and believes only its own log.

use crate::duty::{Duty, DutyNeeds, OVER};
use crate::script::ExampleKind::{Conflict, Write};
use crate::script::RightAnswer::{Aborted, Applied, No, SameYes, Yes};
use crate::script::{DutyScript, DutyStep, LogSays};

pub(super) const DOUBT: &[Duty] = &[
    Duty {
        name: "stands",
        demand: "a branch in doubt asks its coordinator, and stays as it is while that says \
                 `undecided`",
        why: "a yes is a promise: the coordinator may decide commit at any later time",
        needs: DutyNeeds::Nothing,
        script: || {
            DutyScript::new()
                .prepare(1, Write, Yes)
                .asked(1, &[LogSays::Undecided, LogSays::Undecided])
                .prepare(1, Write, SameYes)
                .step(DutyStep::Hidden)
                .commit(1, Applied)
                .grown(1)
        },
    },
    Duty {
        name: "asks",
        demand: "a branch in doubt that is told `committed` applies itself",
        why: "its coordinator may be gone, or have moved, and no commit message will come",
        needs: DutyNeeds::Nothing,
        script: || {
            DutyScript::new()
                .prepare(1, Write, Yes)
                .asked(1, &[LogSays::Committed])
                .step(DutyStep::GrownAtLast(1))
                .commit(1, Applied)
                .grown(1)
        },
    },
    Duty {
        name: "presumed",
        demand: "a branch in doubt that is told `aborted` is dropped, and fenced",
        why: "a coordinator that has crashed before its decision never sends an abort: without \
              this the locks stay for ever",
        needs: DutyNeeds::Nothing,
        script: || {
            DutyScript::new()
                .prepare(1, Write, Yes)
                .asked(1, &[LogSays::Aborted])
                .step(DutyStep::GrownAtLast(0))
                .prepare(1, Write, No(OVER))
                .prepare(2, Conflict, Yes)
                .abort(2, Aborted)
                .grown(0)
        },
    },
    Duty {
        name: "lies",
        demand: "an answer of a wrong type, about another branch, by another log, or a 404, \
                 decides nothing",
        why: "a proxy or a wrong server answers with something: taken for an outcome, it tears a \
              transaction in two",
        needs: DutyNeeds::Nothing,
        script: || {
            let lies = [
                LogSays::ForeignNotFound,
                LogSays::ForeignMediaType,
                LogSays::OfAnotherBranch,
                LogSays::ByAnotherLog,
                LogSays::UnknownAuthority,
                LogSays::Problem,
            ];
            DutyScript::new()
                .prepare(1, Write, Yes)
                .asked(1, &lies)
                .asked(1, &[LogSays::Undecided])
                .prepare(1, Write, SameYes)
                .commit(1, Applied)
                .grown(1)
        },
    },
];
