//! The oracle: sees everything, and says at once when a promise is broken. Every event costs it a
//! few look-ups, so that nothing needs to be checked by looking at the whole world.
//!
//! Each check is named after the invariant of the design that it states. [`Fact`] is what is
//! remembered of a transaction; `facts` of what coordinators do, `branches` of what participants
//! do, `answers` of what clients are told, `losses` of what a Redis forgot, `escrow` of counters,
//! `ending` of what must be left when nothing goes wrong any more.

mod answers;
mod branches;
mod ending;
mod escrow;
mod facts;
mod locks;
mod losses;

use std::collections::{BTreeMap, BTreeSet};

use assent_common::outcome::Replies;
use assent_common::wire::branch::BranchState;
use assent_common::{LogId, TxNumber, Txid};

pub(crate) use branches::Before;

/// Every check, by the number of the invariant that it states.
pub const CHECKS: &[&str] = &[
    "1 ids are never reused",
    "2 a yes is staged durably before it is said",
    "2 what was durable is still in the log",
    "3 a yes stands until the outcome is told",
    "3 what was read under a vote stays as it was",
    "3 a hook's rule holds under the vote of its branch",
    "4 no commit message before the decision is durable",
    "4 no committed before it is durable",
    "5 commit only with all votes yes",
    "5 the decision is written once",
    "5 a prepare of an earlier life is refused",
    "6 an acknowledged abort has left its fence",
    "6 a fenced branch is never staged",
    "7 a branch is told aborted only of what never commits",
    "8 a branch is applied once at most",
    "8 applied only what is decided",
    "8 all branches or none",
    "8 sums balance",
    "8 a bound in escrow holds by every outcome",
    "9 unknown is never ok",
    "9 the log has what one phase wrote",
    "9 the data opens when all is redone",
    "9 a hole in the history is noticed",
    "10 the mark covers only what has ended",
    "10 a prepare below the mark is refused",
    "10 markers above the mark are kept",
    "11 the end only after every branch has applied",
    "12 nothing runs on other data",
    "12 nothing runs on fenced data",
    "12 repaired data has an incarnation of its own",
    "12 votes that were lost are noticed",
    "12 no number of a vote is given again",
    "13 locks are held by the votes, and by nobody else",
    "14 the commit of a staged branch is never refused",
    "15 nothing is run again before it is definitely aborted",
    "15 one request commits once at most",
    "16 a branch is given up by an operator only",
    "16 a branch is given up after a loss only",
    "answers: a client hears one outcome",
    "answers: what is told is true",
    "answers: applied is said of what is applied",
    "answers: the replies are those of the votes",
    "progress: what is healed ends",
    "progress: nothing is left",
    "the shell feeds no impossible input",
];

/// A promise is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {detail}")]
pub struct Violation {
    /// Which check says so; it begins with the number of its invariant.
    pub check: &'static str,
    /// Of what.
    pub detail: String,
}

pub(crate) type Step = Result<(), Violation>;

pub(crate) fn violation(check: &'static str, detail: impl Into<String>) -> Step {
    debug_assert!(CHECKS.contains(&check), "{check:?} is not in the list of checks");
    Err(Violation { check, detail: detail.into() })
}

pub(crate) fn ensure(holds: bool, check: &'static str, detail: impl FnOnce() -> String) -> Step {
    if holds { Ok(()) } else { violation(check, detail()) }
}

/// All that ever happened.
#[derive(Debug)]
pub(crate) struct Oracle {
    logs: Vec<LogId>,
    /// By coordinator.
    facts: Vec<BTreeMap<TxNumber, Fact>>,
    requests: Vec<RequestFact>,
    /// By participant.
    sites: Vec<Site>,
    excused: Vec<losses::Excuse>,
    /// What an operator put up with.
    is_unsound: bool,
}

/// What is known of a participant.
#[derive(Debug, Default)]
struct Site {
    /// Done-markers and fences that it must have.
    markers: BTreeMap<Txid, BranchState>,
    /// The highest number of a vote that the living agent has given.
    seq_given: u64,
    /// The highest that was given, whoever heard it, and whatever became of the data.
    seq_highest: u64,
    /// The incarnation under which the data was opened last.
    open: Option<u64>,
    /// Its Redis went back behind that.
    is_behind: bool,
    /// Its Redis has lost data, ever.
    has_lost: bool,
    /// Branches that were lost and are not yet made good.
    lacks: BTreeSet<Txid>,
    /// What was applied in one phase, with its number, as far as the living agent has seen, and no
    /// mark has passed: whatever becomes of the data, it is not told aborted.
    unlogged: BTreeMap<Txid, u64>,
    /// Its agent has said that nothing runs before a repair.
    is_fenced: bool,
    /// An operator puts up with what the next repair cannot make good.
    is_accepted: bool,
    /// The logs whose word the last repair took.
    spoke: BTreeSet<LogId>,
    /// Under which the data was opened.
    incarnations: BTreeSet<u64>,
}

/// What is known of a transaction.
#[derive(Debug)]
struct Fact {
    request: usize,
    /// Its decision or answer is written, or on its way.
    is_written: bool,
    /// The same, on disk.
    is_durable: bool,
    /// Its record names the writes, or its decision does.
    has_writes: bool,
    /// Votes of it are gone, and others have taken their numbers.
    is_overtaken: bool,
    /// A fence of it is gone.
    is_unfenced: bool,
    /// A Redis has forgotten something of it that cannot be made good: see [`losses::Excuse`].
    is_excused: bool,
    /// Branches that an operator has given up.
    abandoned: Vec<usize>,
    attempts: Vec<AttemptFact>,
}

#[derive(Debug)]
struct AttemptFact {
    is_decided: bool,
    /// A branch that asked has been told that it is aborted.
    is_presumed_aborted: bool,
    /// Somebody who may say so has told a branch to drop what it staged.
    may_drop: bool,
    branches: Vec<BranchFact>,
}

#[derive(Debug, Default, Clone)]
struct BranchFact {
    has_voted: bool,
    /// What its ops replied when it voted, or was applied in one phase.
    replies: Option<Replies>,
    /// Its writes are in the keyspace.
    is_applied: bool,
    /// They once were.
    was_applied: bool,
    /// It was dropped, or fenced.
    is_aborted: bool,
}

/// What is known of a client's request.
#[derive(Debug, Default, Clone, Copy)]
struct RequestFact {
    committed: Option<(usize, TxNumber)>,
    /// It read in one phase, of which a branch keeps nothing.
    is_untraced: bool,
    is_excused: bool,
    told: Option<bool>,
    heard: Option<bool>,
}

impl Oracle {
    pub(crate) fn new(logs: Vec<LogId>, participants: usize) -> Self {
        let facts = logs.iter().map(|_| BTreeMap::new()).collect();
        let sites = (0..participants).map(|_| Site::default()).collect();
        Self { logs, facts, requests: Vec::new(), sites, excused: Vec::new(), is_unsound: false }
    }

    /// A client has thought of its next request.
    pub(crate) fn asked(&mut self) {
        self.requests.push(RequestFact::default());
    }

    fn coordinator_of(&self, txid: Txid) -> usize {
        self.logs.iter().position(|log| *log == txid.log_id).expect("a log of this world")
    }

    /// The request that a transaction was begun for.
    pub(crate) fn request_of(&self, coordinator: usize, number: TxNumber) -> usize {
        self.facts[coordinator].get(&number).expect("it has begun").request
    }

    fn fact(&mut self, coordinator: usize, number: TxNumber) -> &mut Fact {
        self.facts[coordinator].get_mut(&number).expect("it has begun")
    }
}

impl Fact {
    fn new(request: usize) -> Self {
        Self {
            request,
            is_written: false,
            is_durable: false,
            has_writes: false,
            is_overtaken: false,
            is_unfenced: false,
            is_excused: false,
            abandoned: Vec::new(),
            attempts: Vec::new(),
        }
    }

    fn attempt(&mut self, attempt: assent_common::Attempt, branches: usize) -> &mut AttemptFact {
        let place = usize::try_from(attempt.0).expect("few attempts");
        while self.attempts.len() <= place {
            self.attempts.push(AttemptFact {
                is_decided: false,
                is_presumed_aborted: false,
                may_drop: false,
                branches: vec![BranchFact::default(); branches],
            });
        }
        &mut self.attempts[place]
    }
}
