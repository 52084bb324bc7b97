//! What a branch is told, and what it answers: once, again, late, and in the wrong order.

use assent_common::ErrorCode;
use assent_common::branch::BranchMessage::{Abort, Commit};
use assent_common::outcome::Settled;

use crate::duty::{Duty, DutyNeeds, UNKNOWN};
use crate::script::ExampleKind::{Conflict, Refused, Write};
use crate::script::RightAnswer::{
    Aborted, AlreadyCommitted, Applied, Committed, Locked, No, SameCommitted, SameYes, Yes,
};
use crate::script::{DutyScript, DutyStep, one_phase, two_phase};

pub(super) const BRANCH: &[Duty] = &[
    Duty {
        name: "write",
        demand: "a branch is staged, votes yes with `replies`, `redo`, `incarnation` and `seq`, \
                 and is applied by its commit",
        why: "nothing works without it; and a yes without `redo` says that the branch only reads, \
              so that its loss would be taken for harmless",
        needs: DutyNeeds::Nothing,
        script: || DutyScript::new().prepare(1, Write, Yes).commit(1, Applied).grown(1),
    },
    Duty {
        name: "refusal",
        demand: "a branch that cannot be done is voted no with a code, and leaves nothing behind",
        why: "the coordinator sends no abort after a definite no: what is left is left for ever",
        needs: DutyNeeds::Nothing,
        script: || {
            DutyScript::new()
                .prepare(1, Refused, No(&[]))
                .commit(1, No(&[]))
                .grown(0)
                .prepare(2, Conflict, Yes)
                .abort(2, Aborted)
                .grown(0)
        },
    },
    Duty {
        name: "same-vote",
        demand: "a prepare that comes again gets the same vote, word for word, and runs nothing \
                 again; behind the commit it is voted no with `wrong_state`",
        why: "an answer may be lost: the coordinator says the prepare again, and logs the writes \
              of the vote that it hears",
        needs: DutyNeeds::Nothing,
        script: || {
            DutyScript::new()
                .prepare(1, Write, Yes)
                .prepare(1, Write, SameYes)
                .commit(1, Applied)
                .grown(1)
                .prepare(1, Write, No(&[ErrorCode::WrongState]))
                .grown(1)
        },
    },
    Duty {
        name: "once",
        demand: "a commit that comes again is answered `applied`, and applies nothing again",
        why: "a commit without an answer is said again without end: each copy would be a second \
              debit",
        needs: DutyNeeds::Nothing,
        script: || {
            DutyScript::new()
                .prepare(1, Write, Yes)
                .commit(1, Applied)
                .commit(1, Applied)
                .commit(1, Applied)
                .grown(1)
        },
    },
    Duty {
        name: "aborts",
        demand: "an abort drops what is staged, frees it, is answered the same again, and keeps \
                 late copies out",
        why: "a commit or a prepare that was delayed would bring an aborted transaction back",
        needs: DutyNeeds::Nothing,
        script: || {
            DutyScript::new()
                .prepare(1, Write, Yes)
                .abort(1, Aborted)
                .abort(1, Aborted)
                .commit(1, No(&[ErrorCode::Fenced]))
                .prepare(1, Write, No(&[ErrorCode::Fenced]))
                .prepare(2, Conflict, Yes)
                .abort(2, Aborted)
                .grown(0)
        },
    },
    Duty {
        name: "applied-stays",
        demand: "an abort of an applied branch is answered `already_committed`, and undoes nothing",
        why: "of one phase this is how the coordinator finds out what became of it",
        needs: DutyNeeds::Nothing,
        script: || {
            DutyScript::new()
                .prepare(1, Write, Yes)
                .commit(1, Applied)
                .abort(1, AlreadyCommitted)
                .commit(1, Applied)
                .grown(1)
        },
    },
    Duty {
        name: "fence",
        demand: "an abort that overtakes its prepare leaves a fence: the late prepare is voted no, \
                 and locks nothing",
        why: "nobody remembers that transaction any more: its locks would stay for ever, or it \
              would be half applied",
        needs: DutyNeeds::Nothing,
        script: || {
            DutyScript::new()
                .abort(1, Aborted)
                .prepare(1, Write, No(&[ErrorCode::Fenced]))
                .commit(1, No(&[ErrorCode::Fenced]))
                .prepare(2, Conflict, Yes)
                .abort(2, Aborted)
                .grown(0)
        },
    },
    Duty {
        name: "no-vote",
        demand: "a commit of a branch that is not known is refused with `branch_lost`",
        why: "it is a lost vote; who calls it applied loses half of a transaction without a word",
        needs: DutyNeeds::Nothing,
        script: || DutyScript::new().commit(1, No(UNKNOWN)).grown(0),
    },
    Duty {
        name: "isolation",
        demand: "what is staged is not seen, and what conflicts with it is refused with \
                 `lock_conflict`, or offered to `wait`, at once; behind the commit it is free",
        why: "others would read what may be aborted, or a commit would meet what it did not vote \
              on",
        needs: DutyNeeds::Conflict,
        script: || {
            DutyScript::new()
                .prepare(1, Write, Yes)
                .prepare(2, Conflict, Locked)
                .step(DutyStep::Hidden)
                .commit(1, Applied)
                .prepare(3, Conflict, Yes)
                .abort(3, Aborted)
                .grown(1)
        },
    },
    Duty {
        name: "frees",
        demand: "only the outcome of a branch itself frees its locks",
        why: "an abort of another transaction would let others change what was voted on",
        needs: DutyNeeds::Conflict,
        script: || {
            DutyScript::new()
                .prepare(2, Write, Yes)
                .prepare(3, Conflict, Locked)
                .abort(3, Aborted)
                .commit(1, No(UNKNOWN))
                .prepare(4, Conflict, Locked)
                .commit(2, Applied)
                .grown(1)
        },
    },
    Duty {
        name: "order",
        demand: "the messages of a batch are done and answered in their order; a batch of none too",
        why: "a commit travels in front of the prepare that waits for its lock, and each answer is \
              taken for that of the message at its place",
        needs: DutyNeeds::Nothing,
        script: order,
    },
    Duty {
        name: "at-once",
        demand: "copies of a message that come at the same moment have one effect",
        why: "a coordinator does not wait for ever for a slow answer: the copy meets the original",
        needs: DutyNeeds::Nothing,
        script: at_once,
    },
    Duty {
        name: "one-phase",
        demand: "a branch of one phase is applied at its prepare, once, and says the same of it \
                 whenever it is asked",
        why: "every transaction with one branch runs so, and its answer may be lost",
        needs: DutyNeeds::Nothing,
        script: || {
            DutyScript::new()
                .one_phase(1, Committed)
                .one_phase(1, SameCommitted)
                .abort(1, AlreadyCommitted)
                .grown(1)
                .abort(2, Aborted)
                .one_phase(2, No(&[ErrorCode::Fenced]))
                .grown(1)
        },
    },
    Duty {
        name: "path",
        demand: "a prepare by `/v1/branches/{txid}/prepare` is answered like one in a batch",
        why: "whoever may wait for a lock, and each branch with an input, is prepared by that path",
        needs: DutyNeeds::Nothing,
        script: || {
            let script = DutyScript::new();
            let first = script.line(1, two_phase(Write), Yes);
            let again = script.line(1, two_phase(Write), SameYes);
            script
                .said_by(DutyStep::SayAlone, first)
                .said_by(DutyStep::SayAlone, again)
                .commit(1, Applied)
                .grown(1)
        },
    },
    Duty {
        name: "settle",
        demand: "a settle says what is kept of a branch, and fences it if that is nothing",
        why: "it is said of implicit transactions, also to who has refused one",
        needs: DutyNeeds::Nothing,
        script: || {
            DutyScript::new()
                .settle(1, Settled::Fenced)
                .prepare(1, Write, No(&[ErrorCode::Fenced]))
                .prepare(2, Write, Yes)
                .settle(2, Settled::Prepared)
                .commit(2, Applied)
                .settle(2, Settled::Applied)
                .grown(1)
        },
    },
];

fn order() -> DutyScript {
    let script = DutyScript::new().prepare(1, Write, Yes);
    let lines = vec![
        script.line(1, Commit, Applied),
        script.line(7, Abort, Aborted),
        script.line(8, Commit, No(UNKNOWN)),
        script.line(1, Abort, AlreadyCommitted),
    ];
    script
        .batch(lines)
        .prepare(2, Conflict, Yes)
        .abort(2, Aborted)
        .batch(Vec::new())
        .prepare(7, Write, No(&[ErrorCode::Fenced]))
        .grown(1)
}

fn at_once() -> DutyScript {
    let script = DutyScript::new().prepare(1, Write, Yes);
    let commits = script.line(1, Commit, Applied);
    let prepares = script.line(2, one_phase(), Committed);
    script
        .said_by(DutyStep::SayAtOnce, commits)
        .grown(1)
        .said_by(DutyStep::SayAtOnce, prepares)
        .grown(2)
}
