//! What a run has met.

use std::fmt;
use std::ops::AddAssign;

macro_rules! report {
    ($($(#[doc = $doc:literal])+ $field:ident,)+) => {
        /// Counts of what a run, or many, have met.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Report {
            $($(#[doc = $doc])+ pub $field: u64,)+
        }

        impl AddAssign<&Self> for Report {
            fn add_assign(&mut self, other: &Self) {
                $(self.$field += other.$field;)+
            }
        }

        impl fmt::Display for Report {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "{:>12} {}", self.$field, stringify!($field).replace('_', " "))?;)+
                Ok(())
            }
        }
    };
}

report! {
    /// Worlds simulated.
    worlds,
    /// Requests of clients.
    transactions,
    /// Requests whose clients heard that they are committed.
    committed,
    /// Requests whose clients heard that they are aborted.
    aborted,
    /// Requests whose clients did not hear the first time.
    unknown_at_first,
    /// Transactions that coordinators have ended.
    ended,
    /// Events.
    events,
    /// Messages to participants.
    messages,
    /// Messages and answers lost.
    dropped,
    /// Copies of messages that nobody waits for.
    duplicated,
    /// Messages and answers that took much longer than usual.
    delayed,
    /// Prepares that waited at an agent for a younger holder.
    waits,
    /// Questions to hooks.
    hooks_asked,
    /// Scripts run.
    scripts,
    /// Scripts whose answer was lost between Redis and the agent.
    redis_answers_lost,
    /// Deaths of coordinators.
    coordinator_crashes,
    /// Deaths of agents.
    agent_crashes,
    /// Networks cut for a while.
    partitions,
    /// Syncs of a log that failed.
    failed_syncs,
    /// Logs found with a torn tail.
    torn_tails,
    /// Logs compacted.
    compactions,
    /// Transactions that went on after a crash.
    resumed,
    /// Questions of branches in doubt.
    questions,
    /// Questions to the branches of implicit transactions that coordinators know nothing of.
    settles,
    /// Branches that learned so that theirs is committed.
    settled_as_committed,
    /// Branches that learned so that theirs is aborted.
    settled_as_aborted,
    /// Done-markers of implicit transactions that a life left behind, and that nobody will ask for.
    forgotten,
    /// Decisions of another attempt than the first.
    retried,
    /// Questions to the only branch of a transaction, whether it was applied.
    one_phase_questions,
    /// Outcomes learned by asking.
    learned_by_asking,
    /// Redis servers that lost data.
    losses,
    /// Redis servers that came back with a hole in their history.
    holes,
    /// Votes that came back after their outcome.
    revived,
    /// Data fenced.
    fenced,
    /// Repairs that opened the data again.
    opened,
    /// Branches applied again from the logs.
    redone,
    /// Branches of one phase that no log had, and that their agent put back.
    unlogged_redone,
    /// Losses that no log could make good, accepted by an operator.
    accepted,
    /// Branches given up by an operator after a loss.
    given_up,
    /// Excused: lost branches of data on which others voted before anybody lived who knew better.
    overtaken,
    /// Excused: lost branches that an operator put up with.
    lost_for_good,
    /// Excused: lost branches of one phase whose writes no log has.
    unwritten,
    /// Excused: lost fences of one phase.
    fences_lost,
    /// Worlds in which anything was excused, so that balances need not add up.
    unsound_worlds,
}
