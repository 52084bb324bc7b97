//! The language of the duties: who says what about which branch, and which answer is right.

use assent_common::ErrorCode;
use assent_common::branch::BranchMessage;
use assent_common::outcome::Settled;
use assent_common::wire::branch::Mode;

/// One of the logs of a duty. They know nothing of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum LogName {
    /// The duty's own.
    Own,
    /// Another one at the same participant.
    Other,
    /// The one that reads and cleans up.
    Reader,
}

/// Who speaks: a life of a log, and how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpeaksAs {
    pub(crate) log: LogName,
    pub(crate) epoch: u64,
    /// The low-water mark: epoch and number.
    pub(crate) mark: (u64, u64),
}

/// A branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BranchName {
    pub(crate) log: LogName,
    pub(crate) epoch: u64,
    pub(crate) n: u64,
}

/// Which of the example branches is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExampleKind {
    Write,
    /// What cannot be while a write is staged; a second write, if there is no such example.
    Conflict,
    Refused,
}

/// A prepare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PrepareOf {
    pub(crate) kind: ExampleKind,
    pub(crate) mode: Mode,
}

/// A message about a branch, and which answer is right.
#[derive(Debug, Clone)]
pub(crate) struct DutyLine {
    pub(crate) branch: BranchName,
    pub(crate) message: BranchMessage<PrepareOf>,
    pub(crate) right: RightAnswer,
}

/// Which answer is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RightAnswer {
    /// A vote of yes of a branch that writes.
    Yes,
    /// A vote of yes with a number above every one before in this duty, of the same data.
    HigherYes,
    /// The vote of yes that this branch has had before.
    SameYes,
    /// One phase: applied.
    Committed,
    /// The answer of one phase that this branch has had before.
    SameCommitted,
    /// A no, for one of these reasons; any, if there are none.
    No(&'static [ErrorCode]),
    /// A no because of a lock, or an offer to wait for it.
    Locked,
    /// The branch is applied.
    Applied,
    /// Nothing is left of the branch, and nothing will be.
    Aborted,
    /// The abort comes too late.
    AlreadyCommitted,
    /// What a settle finds.
    Settled(Settled),
    /// Not done: refused, or the whole request was not taken.
    NotDone,
}

/// What the log of a branch in doubt says to who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogSays {
    Committed,
    Aborted,
    Undecided,
    UnknownAuthority,
    /// Status 404 without a word of Assent's, as of a wrong path.
    ForeignNotFound,
    /// The right words under a media type that is not Assent's.
    ForeignMediaType,
    /// An answer about another transaction.
    OfAnotherBranch,
    /// An answer of another log.
    ByAnotherLog,
    /// An error that says that nothing is known.
    Problem,
}

/// One step of a duty.
#[derive(Debug, Clone)]
pub(crate) enum DutyStep {
    /// One batch. A prepare with an input goes alone, by the path that may wait.
    Say(SpeaksAs, Vec<DutyLine>),
    /// One prepare, by the path that may wait.
    SayAlone(SpeaksAs, DutyLine),
    /// The same message many times at one moment; then once more.
    SayAtOnce(SpeaksAs, DutyLine),
    /// A message to a participant of another name.
    SayToAnother(SpeaksAs, DutyLine),
    /// A message without the token.
    SayWithoutToken(SpeaksAs, DutyLine),
    /// A message that says that more of the data is known than there can be.
    SayOfLoss(SpeaksAs, DutyLine),
    /// Exactly so many writes are to be seen.
    Grown(u64),
    /// The same, within the time that a branch in doubt may take to be told.
    GrownAtLast(u64),
    /// No write is to be seen: the read is refused because of a lock, or shows what was before.
    Hidden,
    /// The participant asks what became of a branch, and is told this, one after the other; from
    /// then on that it is undecided.
    Asked(BranchName, Vec<LogSays>),
    /// The data is open, and says at least the numbers of the votes that were seen.
    DataIsOpen,
    /// The data is fenced.
    DataIsFenced,
    /// The participant is killed and started again.
    Restart,
}

/// The steps of a duty, while they are written down.
#[derive(Debug)]
pub(crate) struct DutyScript {
    speaks: SpeaksAs,
    steps: Vec<DutyStep>,
}

/// A branch by its number, of the life that speaks; or by epoch and number; or by all.
pub(crate) trait NamesBranch {
    fn of(self, speaks: SpeaksAs) -> BranchName;
}

impl NamesBranch for u64 {
    fn of(self, SpeaksAs { log, epoch, .. }: SpeaksAs) -> BranchName {
        BranchName { log, epoch, n: self }
    }
}

impl NamesBranch for (u64, u64) {
    fn of(self, SpeaksAs { log, .. }: SpeaksAs) -> BranchName {
        BranchName { log, epoch: self.0, n: self.1 }
    }
}

impl NamesBranch for BranchName {
    fn of(self, _: SpeaksAs) -> BranchName {
        self
    }
}

impl DutyScript {
    /// The first life of a log begins.
    pub(crate) fn new() -> Self {
        let speaks = SpeaksAs { log: LogName::Own, epoch: 1, mark: (0, 0) };
        Self { speaks, steps: Vec::new() }
    }

    pub(crate) fn into_steps(self) -> Vec<DutyStep> {
        self.steps
    }

    /// From here on another log speaks, in its first life.
    pub(crate) fn log(mut self, log: LogName) -> Self {
        self.speaks = SpeaksAs { log, epoch: 1, mark: (0, 0) };
        self
    }

    /// From here on this life speaks.
    pub(crate) fn life(mut self, epoch: u64) -> Self {
        self.speaks.epoch = epoch;
        self
    }

    /// From here on it says this mark, of epoch and number.
    pub(crate) fn mark(mut self, epoch: u64, n: u64) -> Self {
        self.speaks.mark = (epoch, n);
        self
    }

    pub(crate) fn step(mut self, step: DutyStep) -> Self {
        self.steps.push(step);
        self
    }

    /// A message of its own batch.
    fn say(self, line: DutyLine) -> Self {
        let speaks = self.speaks;
        self.step(DutyStep::Say(speaks, vec![line]))
    }

    /// A line of who speaks now, for the steps that take one.
    pub(crate) fn line(
        &self,
        branch: impl NamesBranch,
        message: BranchMessage<PrepareOf>,
        right: RightAnswer,
    ) -> DutyLine {
        DutyLine { branch: branch.of(self.speaks), message, right }
    }

    pub(crate) fn prepare(
        self,
        branch: impl NamesBranch,
        kind: ExampleKind,
        right: RightAnswer,
    ) -> Self {
        let line = self.line(branch, two_phase(kind), right);
        self.say(line)
    }

    pub(crate) fn one_phase(self, branch: impl NamesBranch, right: RightAnswer) -> Self {
        let line = self.line(branch, one_phase(), right);
        self.say(line)
    }

    pub(crate) fn commit(self, branch: impl NamesBranch, right: RightAnswer) -> Self {
        let line = self.line(branch, BranchMessage::Commit, right);
        self.say(line)
    }

    pub(crate) fn abort(self, branch: impl NamesBranch, right: RightAnswer) -> Self {
        let line = self.line(branch, BranchMessage::Abort, right);
        self.say(line)
    }

    pub(crate) fn settle(self, branch: impl NamesBranch, right: Settled) -> Self {
        let line = self.line(branch, BranchMessage::Settle, RightAnswer::Settled(right));
        self.say(line)
    }

    /// Several messages in one batch.
    pub(crate) fn batch(self, lines: Vec<DutyLine>) -> Self {
        let speaks = self.speaks;
        self.step(DutyStep::Say(speaks, lines))
    }

    /// A step that is said in its own way.
    pub(crate) fn said_by(self, way: fn(SpeaksAs, DutyLine) -> DutyStep, line: DutyLine) -> Self {
        let speaks = self.speaks;
        self.step(way(speaks, line))
    }

    pub(crate) fn asked(self, branch: impl NamesBranch, says: &[LogSays]) -> Self {
        let branch = branch.of(self.speaks);
        self.step(DutyStep::Asked(branch, says.to_vec()))
    }

    pub(crate) fn grown(self, writes: u64) -> Self {
        self.step(DutyStep::Grown(writes))
    }

    pub(crate) fn restart(self) -> Self {
        self.step(DutyStep::Restart)
    }
}

pub(crate) const fn two_phase(kind: ExampleKind) -> BranchMessage<PrepareOf> {
    BranchMessage::Prepare(PrepareOf { kind, mode: Mode::TwoPhase })
}

pub(crate) const fn one_phase() -> BranchMessage<PrepareOf> {
    BranchMessage::Prepare(PrepareOf { kind: ExampleKind::Write, mode: Mode::OnePhase })
}
