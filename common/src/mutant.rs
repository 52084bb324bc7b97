//! The named mutants: known-bad variants of the real code, each the breach of one invariant. A test
//! that stays green with one of them is no test of that invariant; `tests/it/mutants.rs` runs one
//! for each, and demands that it goes red.
//!
//! What breaks the pure machines of this crate is in `tests/model/src/mutants.rs`: here is what
//! only real processes, real files and a real Redis can show.

use std::fmt;
use std::str::FromStr;

macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, breaks $invariant:literal;)+) => {
        /// A known-bad variant, by name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Mutant {
            /// Every mutant.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name, as `ASSENT_MUTANT` has it: where it is, and what it does wrong.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The number of the invariant that it breaks.
            #[must_use]
            pub const fn invariant(self) -> u8 {
                match self { $(Self::$variant => $invariant,)+ }
            }
        }
    };
}

mutants! {
    /// A start goes on in the epoch of the last life.
    EpochNotRaised = "log.epoch_not_raised", breaks 1;
    /// A participant does not compare the life that it has heard of a log with those that the log
    /// has.
    LivesIgnored = "agent.lives_ignored", breaks 1;
    /// A participant does not remember how far its log was on disk when it was told to commit.
    ToldForgotten = "agent.told_forgotten", breaks 1;
    /// A second process may open the log.
    NotLocked = "log.not_locked", breaks 1;
    /// A vote whose `EXEC` was not answered is given as a yes.
    UnclearVoteIsYes = "owner.unclear_vote_is_yes", breaks 2;
    /// An agent starts on a Redis that would lose votes.
    SettingsUnchecked = "agent.settings_unchecked", breaks 2;
    /// A branch in doubt is dropped when its coordinator does not answer.
    InDoubtTimesOut = "resolver.in_doubt_times_out", breaks 3;
    /// What is added in escrow is applied as the value that it would have made at the vote.
    EscrowResolved = "agent.escrow_resolved", breaks 8;
    /// A claim in escrow is judged as if nobody else held the counter.
    EscrowIgnoresPending = "agent.escrow_ignores_pending", breaks 13;
    /// A branch that reads takes no lock beyond its vote.
    ReaderFreedAtVote = "owner.reader_freed_at_vote", breaks 3;
    /// A branch does not hold what its hook has read.
    HookUnguarded = "agent.hook_unguarded", breaks 3;
    /// A prepare does not look at the locks of others.
    LocksIgnored = "owner.locks_ignored", breaks 3;
    /// A digest of a key says nothing of its expiry.
    DigestIgnoresExpiry = "script.digest_ignores_expiry", breaks 3;
    /// A watched key that was not there may come to be.
    AbsenceUnwatched = "resp.absence_unwatched", breaks 3;
    /// An interactive transaction commits whatever became of what it has read.
    ReadsUnguarded = "coordinator.reads_unguarded", breaks 3;
    /// A `WATCH` forgets the keys of the one before it.
    WatchForgets = "resp.watch_forgets", breaks 3;
    /// The log tells of records before they are synced.
    ReportsBeforeSync = "log.reports_before_sync", breaks 4;
    /// The coordinator takes a decision that it has handed over for one that is durable.
    SendsBeforePersisted = "coordinator.sends_before_persisted", breaks 4;
    /// The log takes a failed sync for a good one.
    FailedSyncIgnored = "log.failed_sync_ignored", breaks 4;
    /// A prepare of an earlier life of its coordinator is taken.
    EpochIgnored = "owner.epoch_ignored", breaks 5;
    /// The abort of an unknown branch leaves nothing in Redis.
    NoFence = "agent.no_fence", breaks 6;
    /// A prepare does not look for a fence.
    FenceIgnored = "owner.fence_ignored", breaks 6;
    /// A branch that an implicit transaction's coordinator lost sight of is aborted, and not
    /// settled.
    AbortsUnsettled = "coordinator.aborts_unsettled", breaks 5;
    /// A coordinator presumes abort of an implicit transaction of an earlier life.
    PresumesImplicit = "coordinator.presumes_implicit", breaks 7;
    /// A Redis that may lose votes takes branches whose votes are the decision.
    UnsafeVotesDecide = "agent.unsafe_votes_decide", breaks 2;
    /// An HTTP 404 or 502 says that the branch was aborted.
    NotFoundIsAborted = "client.not_found_is_aborted", breaks 7;
    /// A coordinator that is not the branch's own is believed.
    UnknownAuthorityIgnored = "resolver.unknown_authority_ignored", breaks 7;
    /// A coordinator presumes abort of what another log began.
    AnswersForOthers = "coordinator.answers_for_others", breaks 7;
    /// A coordinator presumes abort of what it has not decided yet.
    PresumesActive = "coordinator.presumes_active", breaks 7;
    /// A branch is applied, and nothing in Redis says so.
    NoDoneMarker = "agent.no_done_marker", breaks 8;
    /// A commit that the participant knows nothing of is taken for applied.
    LossAcknowledged = "coordinator.loss_acknowledged", breaks 9;
    /// The repair of data that lost votes says that it has redone them, and has not.
    RedoForgets = "script.redo_forgets", breaks 9;
    /// A coordinator reports what it committed before all that clients have been told is on disk.
    PlansTooEarly = "coordinator.plans_too_early", breaks 9;
    /// A repair does not put back what was applied in one phase and is in no log yet.
    UnloggedForgotten = "agent.unlogged_forgotten", breaks 9;
    /// An agent that connects again does not look what became of its one-phase calls.
    UnansweredForgotten = "agent.unanswered_forgotten", breaks 9;
    /// The low-water mark passes transactions that are active.
    MarkTooHigh = "coordinator.mark_too_high", breaks 10;
    /// A prepare below the low-water mark is taken.
    MarkIgnored = "owner.mark_ignored", breaks 10;
    /// A commit that was not acknowledged is not sent again.
    DeliversOnce = "coordinator.delivers_once", breaks 11;
    /// Scripts run on whatever data they find.
    IncarnationIgnored = "owner.incarnation_ignored", breaks 12;
    /// What is undecided at a participant that lost data is not given up before its log reports.
    UndecidedKept = "coordinator.undecided_kept", breaks 12;
    /// A participant fences its data on the word of a log that nobody has heard of.
    StrangersBelieved = "agent.strangers_believed", breaks 12;
    /// An agent goes on by itself with whatever open data it finds.
    AnyDataFollowed = "agent.any_data_followed", breaks 12;
    /// A reconnect does not look whether votes are missing.
    SeqNotCompared = "agent.seq_not_compared", breaks 12;
    /// A hole in the history that Redis has loaded is not looked for.
    HoleNotCompared = "agent.hole_not_compared", breaks 9;
    /// A new life of the server is served as if it had loaded all that was acknowledged.
    RunNotAsked = "agent.m_run_not_asked", breaks 2;
    /// An agent that comes to own a Redis does not read what is kept there.
    SuccessorUnread = "owner.successor_unread", breaks 3;
    /// A standby takes the word of an agent that it owns the Redis no more for a commit that is
    /// done.
    NotOwnerIsDone = "agent.not_owner_is_done", breaks 8;
    /// The owner's `EXEC` is not guarded by a `WATCH`.
    OwnerUnwatched = "owner.unwatched", breaks 12;
    /// The end of a branch frees the locks of its keys, whoever holds them.
    FreesForeignLocks = "owner.frees_foreign_locks", breaks 13;
    /// A commit begins with a write that a full Redis refuses.
    CommitNeedsMemory = "script.commit_needs_memory", breaks 14;
    /// A call without an answer is taken for a conflict, and run as a new attempt.
    UnknownIsConflict = "coordinator.unknown_is_conflict", breaks 15;
    /// Transactions of Redis clients that were committed as one run again, each for itself.
    MergedRunsAgain = "resp.merged_runs_again", breaks 15;
    /// The HTTP client says again what was not answered.
    RetriesUnclear = "client.retries_unclear", breaks 15;
    /// The abort of a branch that is not there leaves no row in the database.
    SqlNoFence = "postgres.no_fence", breaks 6;
    /// A prepare takes the row of a fence for its own.
    SqlFenceIgnored = "postgres.fence_ignored", breaks 6;
    /// The marker of a branch has no name by which it is found.
    SqlNoDoneMarker = "postgres.no_done_marker", breaks 8;
    /// A commit that the database knows nothing of is said to be applied.
    SqlLossApplied = "postgres.loss_applied", breaks 9;
    /// A `PREPARE TRANSACTION` that was not answered is given as a yes.
    SqlUnclearIsYes = "postgres.unclear_is_yes", breaks 2;
    /// What is prepared in the database is not found by the next agent.
    SqlOrphansForgotten = "postgres.orphans_forgotten", breaks 11;
    /// A vote is prepared, and what it said is not kept.
    SqlVoteForgotten = "postgres.vote_forgotten", breaks 2;
    /// A prepare below the low-water mark is taken by a database.
    SqlMarkIgnored = "postgres.mark_ignored", breaks 10;
    /// A prepare of an earlier life of its coordinator is taken by a database.
    SqlEpochIgnored = "postgres.epoch_ignored", breaks 5;
    /// Markers and fences are swept above the mark too.
    SqlSweepsAll = "postgres.sweeps_all", breaks 10;
    /// What a statement reads `FOR SHARE` is read without a lock.
    SqlReadsUnlocked = "postgres.reads_unlocked", breaks 3;
    /// A database that has gone back in time is served.
    SqlSeqNotCompared = "postgres.seq_not_compared", breaks 12;
    /// The name of a prepared transaction does not say of which database it is.
    SqlGidUnscoped = "postgres.gid_unscoped", breaks 1;
    /// An operator's override is not recorded.
    OverrideUnrecorded = "coordinator.override_unrecorded", breaks 16;
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no mutant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no mutant")]
pub struct UnknownMutant(String);

impl FromStr for Mutant {
    type Err = UnknownMutant;
    fn from_str(text: &str) -> Result<Self, UnknownMutant> {
        let found = Self::ALL.iter().copied().find(|mutant| mutant.as_str() == text);
        found.ok_or_else(|| UnknownMutant(text.to_owned()))
    }
}
