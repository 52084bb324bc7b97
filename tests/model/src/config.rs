//! What is checked: the requests of the clients, and how much may go wrong. A configuration is a finite world; every
//! run that it allows is explored.

use assent_common::TransactionId;
use assent_common::command::{Access, Claim, EscrowKind, Step};
use assent_common::coordinator::{AnswerDurability, Branch, BranchSet, Purpose};
use assent_common::participant::{Claimed, Key};
use assent_common::wire::transaction::{Ack, Protocol};

use crate::mutants::Mutant;
use crate::state::public_id;

/// A finite world.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) clients: Vec<Client>,
    pub(crate) participants: usize,
    pub(crate) budget: Budget,
    /// How often a conflict is tried again before time runs out.
    pub(crate) attempts: u32,
    /// What the counter `k` of every participant begins with.
    pub(crate) stock: i64,
    pub(crate) mutant: Option<Mutant>,
}

/// How much may go wrong. What is no fault (delay, reordering, timers, deadlines, branches that ask) has no budget:
/// it may happen at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget {
    /// Calls whose result is unknown: the message or its answer is lost, or late. An agent that dies is that, too.
    pub(crate) losses: u8,
    /// Messages of which another copy travels although their answer is heard. HTTP promises that there are none.
    pub(crate) repeats: u8,
    /// Deaths of the coordinator.
    pub(crate) crashes: u8,
    /// Redis servers that lose data: they go back to where they were empty.
    pub(crate) rollbacks: u8,
    /// Redis servers that are replaced by others, under a new incarnation.
    pub(crate) replacements: u8,
    /// Whether a transaction's time may run out. Where it may not, waiting must end by itself.
    pub(crate) deadlines: bool,
    /// Branches that an operator gives up.
    pub(crate) overrides: u8,
    /// Whether batches without a message for the transactions here carry the low-water mark, as other transactions' do.
    pub(crate) marks: bool,
    /// Whether branches in doubt ask for their outcome.
    pub(crate) questions: Questions,
}

/// Whether branches in doubt ask for their outcome, and how slow they are to do what they learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Questions {
    /// They do not.
    #[default]
    Never,
    /// They do at once.
    AtOnce,
    /// They do some time later.
    Later,
}

/// A request of a client; the same one however often it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// Which also is its age.
    pub(crate) id: TransactionId,
    pub(crate) branches: Vec<ClientBranch>,
    pub(crate) ack: Ack,
    pub(crate) answer: AnswerDurability,
    pub(crate) purpose: Purpose,
    pub(crate) protocol: Protocol,
    /// Branches that are asked before the others.
    pub(crate) hooked: BranchSet,
}

/// One participant's part of a request.
#[derive(Debug, Clone)]
pub(crate) struct ClientBranch {
    pub(crate) at: usize,
    pub(crate) locks: Vec<(Key, Access)>,
    /// Whether its ops end in a false expectation.
    pub(crate) fails: bool,
    /// What it adds to the counter, if its lock is one of escrow.
    pub(crate) adds: Option<Adds>,
}

/// What a branch adds to its counter in escrow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Adds {
    pub(crate) delta: i64,
    pub(crate) at_least: i64,
    pub(crate) at_most: i64,
}

impl ClientBranch {
    /// What it claims of the counter, which has this value.
    pub(crate) fn claims(&self, value: i64) -> Vec<Claimed> {
        let claim = |adds: Adds| {
            let Adds { delta, at_least, at_most } = adds;
            let step = Step { op: 0, command: "INCRBY", sum: delta, at_least, at_most };
            let claim = Claim { key: self.locks[0].0.clone(), field: None, steps: vec![step] };
            Claimed { claim, value }
        };
        self.adds.map(claim).into_iter().collect()
    }

    pub(crate) fn reads(&self) -> bool {
        self.locks.iter().all(|(_, access)| *access == Access::Shared)
    }
}

impl Client {
    /// A request with these accesses to the key `k`, one at each participant in order.
    pub(crate) fn of(accesses: &[Access]) -> Self {
        let branches = accesses.iter().enumerate().map(|(at, access)| ClientBranch {
            at,
            locks: vec![(Key::from("k"), *access)],
            fails: false,
            adds: None,
        });
        let reads = accesses.iter().all(|access| *access == Access::Shared);
        Self {
            id: public_id(1),
            branches: branches.collect(),
            ack: Ack::Applied,
            answer: AnswerDurability::BeforeAnswer,
            purpose: if reads { Purpose::Read } else { Purpose::Write },
            protocol: Protocol::Logged,
            hooked: BranchSet::NONE,
        }
    }

    /// A request that writes `k` at so many participants.
    pub(crate) fn writer(branches: usize) -> Self {
        Self::of(&vec![Access::Exclusive; branches])
    }

    /// A request that adds to the counter `k` at so many participants, in escrow.
    pub(crate) fn adder(branches: usize, adds: Adds) -> Self {
        let mut client = Self::of(&vec![Access::Escrow(EscrowKind::String); branches]);
        client.branches.iter_mut().for_each(|branch| branch.adds = Some(adds));
        client
    }

    /// A request that takes one from the counter `k` at so many participants, in escrow, and leaves no less than nothing.
    pub(crate) fn seller(branches: usize) -> Self {
        Self::adder(branches, Adds { delta: -1, at_least: 0, at_most: i64::MAX })
    }

    pub(crate) fn aged(mut self, age: u64) -> Self {
        self.id = public_id(age);
        self
    }

    pub(crate) fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// The client sends neither key nor id, so that it never asks again.
    pub(crate) fn keyless(mut self) -> Self {
        self.answer = AnswerDurability::Lazy;
        self
    }

    /// Its votes are its decision; such a request has no key.
    pub(crate) fn implicit(mut self) -> Self {
        self.protocol = Protocol::Implicit;
        self.keyless()
    }

    /// A hook decides about this branch.
    pub(crate) fn hooked(mut self, branch: u16) -> Self {
        self.hooked = self.hooked.with(Branch(branch));
        self
    }

    pub(crate) fn is_implicit(&self) -> bool {
        self.protocol == Protocol::Implicit
    }

    /// The ops of this branch end in a false expectation.
    pub(crate) fn failing(mut self, branch: usize) -> Self {
        self.branches[branch].fails = true;
        self
    }

    pub(crate) fn is_keyed(&self) -> bool {
        self.answer == AnswerDurability::BeforeAnswer
    }

    pub(crate) fn is_one_phase(&self) -> bool {
        self.branches.len() == 1
    }
}

impl Config {
    pub(crate) fn new(clients: Vec<Client>, budget: Budget) -> Self {
        let places = clients.iter().flat_map(|client| &client.branches).map(|branch| branch.at);
        let participants = places.max().map_or(0, |last| last + 1);
        Self { clients, participants, budget, attempts: 2, stock: 0, mutant: None }
    }

    pub(crate) fn stocked(mut self, stock: i64) -> Self {
        self.stock = stock;
        self
    }

    /// Whether all that is asked for is in escrow, and there is room for all of it at once.
    pub(crate) fn has_room(&self) -> bool {
        let branches = || self.clients.iter().flat_map(|client| &client.branches);
        branches().all(|branch| {
            let there = branches().filter(|other| other.at == branch.at);
            let low: i64 = there.filter_map(|b| b.adds).map(|adds| adds.delta.min(0)).sum();
            branch.adds.is_some_and(|it| it.at_most == i64::MAX && self.stock + low >= it.at_least)
        })
    }

    pub(crate) fn with(mut self, mutant: Mutant) -> Self {
        self.mutant = Some(mutant);
        self
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Whether data may be lost, so that a branch may stay unresolved until a human has looked.
    pub(crate) const fn loses_data(&self) -> bool {
        self.budget.rollbacks + self.budget.replacements > 0
    }

    /// Often enough that a client is answered in the last life at the latest.
    pub(crate) fn begins_max(&self) -> usize {
        usize::from(self.budget.crashes) + 1
    }
}
