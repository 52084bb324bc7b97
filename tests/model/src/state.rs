//! One state of the world: the real machines, the log, the network, and what an all-seeing witness remembers.
//!
//! Parts that seldom change are shared between states. Everything is canonical: two states that nobody could tell apart
//! are equal, or the search would count them twice.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use assent_common::branch::BranchAnswer;
use assent_common::branch::BranchMessage;
use assent_common::coordinator::{Branch, Outcome, PrepareCall, Transaction};
use assent_common::participant::{Key, Participant};
use assent_common::settle::Resolution;
use assent_common::{Epoch, LogId, TransactionId, TxNumber, Txid};

use crate::config::{Budget, Config};
use crate::log::Log;

/// The data that every participant begins with.
pub(crate) const INCARNATION: u64 = 1;

/// A moment that no retry reaches: only a step that lets the time run out does.
pub(crate) const DEADLINE_MS: u64 = 1_000_000_000;

/// The whole world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) epoch: Epoch,
    pub(crate) next_n: u64,
    pub(crate) active: BTreeMap<TxNumber, Active>,
    pub(crate) log: Arc<Log>,
    pub(crate) participants: Vec<Arc<Participant>>,
    /// The counter `k` in the keyspace of each.
    pub(crate) counters: Vec<i64>,
    network: Vec<(u64, Packet)>,
    /// What has been learned for a staged branch of an implicit transaction, by asking the others: by whoever asks, itself
    /// or a coordinator that knows nothing of it.
    pub(crate) resolutions: BTreeMap<(usize, Txid), Resolution>,
    /// What may still go wrong.
    pub(crate) budget: Budget,
    pub(crate) witness: Arc<Witness>,
}

/// A transaction under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Active {
    pub(crate) machine: Arc<Transaction>,
    pub(crate) client: usize,
}

/// Something under way between coordinator and participants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Packet {
    Ask(Ask),
    /// Back to the coordinator.
    Answer(Ask, Arc<BranchAnswer>),
}

/// A message to a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ask {
    pub(crate) from: From,
    pub(crate) at: usize,
    pub(crate) client: usize,
    pub(crate) txid: Txid,
    pub(crate) message: BranchMessage<PrepareCall>,
    pub(crate) mark: Mark,
}

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum From {
    /// The coordinator, in a call.
    Coordinator,
    /// Nobody any more: the call is over, and the message travels on.
    Nobody,
    /// The participant's own resolver, which has been told the outcome.
    Resolver,
}

/// What a coordinator says of itself with every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    pub(crate) epoch: Epoch,
    pub(crate) low_water: TxNumber,
}

/// What somebody knows who sees everything and forgets nothing. No machine ever sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Witness {
    /// Every execution of every request.
    pub(crate) began: Vec<Began>,
    /// Branches that voted yes, durably.
    pub(crate) voted: BTreeSet<(Txid, usize)>,
    /// How often each branch's writes reached the keyspace.
    pub(crate) applied: BTreeMap<(Txid, usize), u8>,
    /// Branches that were dropped or fenced.
    pub(crate) aborted: BTreeSet<(Txid, usize)>,
    /// Transactions that read in one phase, of which a branch keeps no trace.
    pub(crate) untraced: BTreeSet<TxNumber>,
    /// How often each key was written.
    pub(crate) versions: BTreeMap<(usize, Key), u8>,
    /// The versions of a branch's keys when it voted yes.
    pub(crate) seen: BTreeMap<(Txid, usize), Vec<u8>>,
    /// What each client has been told, or could have read.
    pub(crate) told: BTreeMap<usize, Told>,
    /// Steps that no state shows.
    pub(crate) breaches: BTreeSet<Breach>,
}

/// One execution of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Began {
    pub(crate) number: TxNumber,
    pub(crate) client: usize,
}

/// What a client knows of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Told {
    Committed,
    Aborted,
    /// First one, then the other.
    Both,
}

/// A step that no state shows: the violation is in how the world changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Breach {
    /// A prepare of an earlier life was staged or applied, although the participant had heard of a later one.
    StaleEpochStaged,
    /// A prepare below the low-water mark was staged or applied.
    BelowMarkStaged,
    /// A prepare of a branch that was fenced was staged or applied.
    FencedStaged,
    /// A commit was acknowledged although the branch is not applied.
    UnappliedAcknowledged,
    /// A commit of a staged branch was answered with a no.
    StagedCommitRefused,
    /// A counter was not what a branch that added to it had been promised.
    BoundBroken,
    /// A client was told `applied` before every branch was.
    SaidAppliedTooEarly,
    /// The shell fed something that the machine has no transition for.
    NoTransition,
}

impl State {
    pub(crate) fn initial(config: &Config) -> Self {
        let participant = Arc::new(Participant::new(INCARNATION));
        Self {
            epoch: Epoch(1),
            next_n: 0,
            active: BTreeMap::new(),
            log: Arc::default(),
            participants: vec![participant; config.participants],
            counters: vec![config.stock; config.participants],
            network: Vec::new(),
            resolutions: BTreeMap::new(),
            budget: config.budget,
            witness: Arc::default(),
        }
    }

    /// Changes what is remembered.
    pub(crate) fn witness(&mut self) -> &mut Witness {
        Arc::make_mut(&mut self.witness)
    }

    /// Puts a packet where its kind belongs, so that the order of sending makes no difference.
    pub(crate) fn send(&mut self, packet: Packet) {
        let order = packet.order();
        let place = self.network.partition_point(|(other, _)| *other <= order);
        self.network.insert(place, (order, packet));
    }

    /// Takes a packet out, by its place.
    pub(crate) fn take(&mut self, place: usize) -> Packet {
        self.network.remove(place).1
    }

    /// Takes all packets out.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Packet> + use<> {
        std::mem::take(&mut self.network).into_iter().map(|(_, packet)| packet)
    }

    /// A branch that is not staged any more asks nobody.
    pub(crate) fn forget_resolutions(&mut self) {
        let participants = &self.participants;
        self.resolutions.retain(|(by, txid), _| participants[*by].staged().contains_key(txid));
    }

    /// What is under way, in its order.
    pub(crate) fn packets(&self) -> impl Iterator<Item = &Packet> {
        self.network.iter().map(|(_, packet)| packet)
    }

    /// Packets under way, each kind once, with a place of it.
    pub(crate) fn distinct(&self) -> impl Iterator<Item = (usize, &Packet)> {
        let is_first = |place: usize| place == 0 || self.network[place] != self.network[place - 1];
        self.packets().enumerate().filter(move |(place, _)| is_first(*place))
    }

    /// Everything below has ended, as far as one participant is concerned.
    pub(crate) fn low_water(&self, at: usize, config: &Config) -> TxNumber {
        let concerns = |a: &Active| {
            let branches = (0..).map(Branch).zip(&config.clients[a.client].branches);
            let mut here = branches.filter(|(_, planned)| planned.at == at);
            here.any(|(branch, _)| !a.machine.is_over_at(branch))
        };
        let first = self.active.iter().find(|(_, active)| concerns(active));
        first.map_or(TxNumber { epoch: self.epoch, n: self.next_n }, |(number, _)| *number)
    }

    /// Whether every one of a transaction's branches that writes has been applied.
    pub(crate) fn is_applied(&self, txid: Txid, client: usize, config: &Config) -> bool {
        let mut writers = config.clients[client].branches.iter().filter(|branch| !branch.reads());
        writers.all(|branch| self.witness.applied.contains_key(&(txid, branch.at)))
    }

    /// Whether a transaction of several branches is decided, to commit: in the log, or by all its votes.
    pub(crate) fn is_decided(&self, txid: Txid, config: &Config) -> bool {
        let began = self.witness.began.iter().find(|began| began.number == txid.number);
        let implicit =
            began.map(|began| &config.clients[began.client]).filter(|client| client.is_implicit());
        let voted = |at| self.witness.voted.contains(&(txid, at));
        implicit.map_or_else(
            || self.log.has_decided(txid),
            |client| client.branches.iter().all(|branch| voted(branch.at)),
        )
    }

    /// Whether some attempt of it is.
    pub(crate) fn has_decided(&self, number: TxNumber, config: &Config) -> bool {
        let voted = self.witness.voted.iter().map(|(txid, _)| *txid);
        voted.filter(|txid| txid.number == number).any(|txid| self.is_decided(txid, config))
    }

    /// A number below which a participant has been told that everything has ended.
    pub(crate) fn mark(&self, at: usize) -> TxNumber {
        let heard = self.participants[at].heard(log_id());
        heard.map_or(TxNumber { epoch: Epoch(0), n: 0 }, |heard| heard.low_water)
    }

    /// The packets to participants.
    pub(crate) fn asks(&self) -> impl Iterator<Item = &Ask> {
        self.packets().filter_map(|packet| match packet {
            Packet::Ask(ask) => Some(ask),
            Packet::Answer(..) => None,
        })
    }

    /// The answers under way.
    pub(crate) fn answers(&self) -> impl Iterator<Item = (&Ask, &BranchAnswer)> {
        self.packets().filter_map(|packet| match packet {
            Packet::Answer(ask, answer) => Some((ask, &**answer)),
            Packet::Ask(_) => None,
        })
    }
}

impl Told {
    pub(crate) const fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Committed { .. } => Self::Committed,
            Outcome::Aborted(_) => Self::Aborted,
        }
    }
}

impl Witness {
    pub(crate) fn tell(&mut self, client: usize, now: Told) {
        let told = self.told.entry(client).or_insert(now);
        if *told != now {
            *told = Told::Both;
        }
    }

    /// The executions of a client's request.
    pub(crate) fn numbers(&self, client: usize) -> impl Iterator<Item = TxNumber> {
        self.began.iter().filter(move |began| began.client == client).map(|began| began.number)
    }
}

impl Packet {
    /// An arbitrary total order; the same in every build, as the search must find the same states.
    fn order(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// The log of the coordinator.
pub(crate) fn log_id() -> LogId {
    static OURS: LazyLock<LogId> =
        LazyLock::new(|| "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e".parse().expect("a log id"));
    *OURS
}

/// The log of a coordinator that has nothing to do with the transactions here.
pub(crate) fn foreign_log_id() -> LogId {
    static THEIRS: LazyLock<LogId> =
        LazyLock::new(|| "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8f".parse().expect("a log id"));
    *THEIRS
}

/// Ages are the clients' own choice.
pub(crate) fn public_id(age: u64) -> TransactionId {
    format!("0198f1c2-a4b2-7c1d-9c0e-{age:012x}").parse().expect("a version 7")
}
