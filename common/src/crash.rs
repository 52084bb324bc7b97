//! The named crash points: every place between two effects where a process may die and its restart must finish what
//! was begun. The table is the test plan: `tests/it/crash_matrix.rs` kills a real process at each of them.

use std::fmt;
use std::str::FromStr;

macro_rules! crash_points {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal;)+) => {
        /// A place to die, by name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CrashPoint {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl CrashPoint {
            /// Every point.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name, as `ASSENT_CRASH_AT` has it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

crash_points! {
    /// Participant: a prepare with an input has arrived, its hook has not been asked.
    BeforeHook = "participant.before_hook";
    /// Participant: the hook has what it wanted to read, and has not decided.
    InHook = "participant.in_hook";
    /// Participant: the hook has decided, nothing of its branch is in Redis.
    AfterHook = "participant.after_hook";
    /// Participant: the prepare has arrived, nothing of it is in Redis.
    BeforeVoteDurable = "participant.before_vote_durable";
    /// Participant: the vote is durable, the coordinator has not heard of it.
    AfterVoteDurable = "participant.after_vote_durable";
    /// Participant: the commit has arrived, nothing of it is in Redis.
    BeforeApply = "participant.before_apply";
    /// Participant: the branch is applied, the coordinator has not heard of it.
    AfterApply = "participant.after_apply";
    /// Participant with a database: the marker of a branch is inserted, none of its statements has
    /// run.
    AfterSqlMarker = "participant.after_sql_marker";
    /// Participant with a database: the statements of a branch have run, nothing is kept of its
    /// vote.
    AfterSqlStatements = "participant.after_sql_statements";
    /// Participant with a database: the vote's row is written, the transaction is not prepared.
    BeforeSqlPrepared = "participant.before_sql_prepared";
    /// Participant with a database: the transaction is prepared, or done in one phase; its batch
    /// is not answered.
    AfterSqlPrepared = "participant.after_sql_prepared";
    /// Participant with a database: the vote is written in the transaction of the only phase,
    /// which is not committed.
    BeforeSqlCommit = "participant.before_sql_commit";
    /// Participant with a database: a commit is counted, and the transaction is still prepared.
    BeforeSqlFinished = "participant.before_sql_finished";
    /// Participant with a database: the transaction is committed, and its marker is there; its
    /// batch is not answered.
    AfterSqlFinished = "participant.after_sql_finished";
    /// Participant with a database: nothing of an aborted branch is prepared any more, and its
    /// fence is not there.
    BeforeSqlFence = "participant.before_sql_fence";
    /// Participant with a database: the fence is there; its batch is not answered.
    AfterSqlFence = "participant.after_sql_fence";
    /// Coordinator: the prepares are about to go out.
    BeforePrepareSent = "coordinator.before_prepare_sent";
    /// Coordinator: the votes have arrived, the decision has not reached the log.
    BeforeDecision = "coordinator.before_decision";
    /// Coordinator: the decision is written but not synced.
    BeforeDecisionSync = "coordinator.before_decision_sync";
    /// Coordinator: the decision is durable, nobody has heard of it.
    AfterDecisionSync = "coordinator.after_decision_sync";
    /// Coordinator: the first commit message has been answered, the others not yet sent.
    BetweenCommits = "coordinator.between_commits";
    /// Coordinator: every branch has applied, the end has not reached the log.
    BeforeEnd = "coordinator.before_end";
    /// Coordinator: the end is durable.
    AfterEnd = "coordinator.after_end";
    /// Coordinator: the next log segment is created, not yet in use.
    LogRotation = "coordinator.log_rotation";
    /// Coordinator: live records are copied, the old segment is not yet deleted.
    LogCompaction = "coordinator.log_compaction";
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no crash point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no crash point")]
pub struct UnknownCrashPoint(String);

impl FromStr for CrashPoint {
    type Err = UnknownCrashPoint;
    fn from_str(text: &str) -> Result<Self, UnknownCrashPoint> {
        Self::ALL
            .iter()
            .copied()
            .find(|point| point.as_str() == text)
            .ok_or_else(|| UnknownCrashPoint(text.to_owned()))
    }
}
