//! The core: every active transaction, what is queued for whom, and what may be asked of them.
//! Here: what it is made of, how a transaction gets in, and the questions that change nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use assent_common::coordinator::authority::Authority;
use assent_common::coordinator::recovery::Recovered;
use assent_common::coordinator::{
    AnswerDurability, Branch, Effect, Input, Spec, State, Transaction,
};
use assent_common::lives::{LifeBegan, Lives, SealKey};
use assent_common::log::{Durability, LogPosition, NewRecord};
use assent_common::mutant::Mutant;
use assent_common::participant::Branches;
use assent_common::record::{Identity, Record};
use assent_common::time::{Micros, Millis};
use assent_common::wire::branch::{BranchAddress, CoordinatorRef};
use assent_common::wire::outcome::BranchOutcome;
use assent_common::wire::problem::Problem;
use assent_common::wire::transaction::Ack;
use assent_common::{Epoch, ErrorCode, IdempotencyKey, LogId, TransactionId, TxNumber, Txid};

use crate::active::{Accepted, Active, Counted, RequestOps, Ticket};
use crate::admission::{Admission, AdmissionLimits};
use crate::errand::{Errand, Errands};
use crate::fingerprint::Fingerprint;
use crate::history::History;
use crate::lanes::Lanes;
use crate::lives::LogLives;
use crate::numbers::NumberMap;
use crate::outbox::{Appended, Outbox};
use crate::queues::Queues;
use crate::submit::{NewTransaction, Taken, mismatch, of_participant};
use crate::variant::Variant;

/// Ended transactions that a list can show; older ones are found by id only.
const RECENT_MAX: usize = 10_000;

/// What the core is given for good.
#[derive(Debug)]
pub struct CoreSettings {
    /// Who speaks, in every batch: the log, its life, and where its outcomes are asked for.
    pub identity: CoordinatorRef,
    /// Bytes of writes and replies that one record of the log holds.
    pub decision_bytes_max: usize,
    /// How much may be under way.
    pub admission: AdmissionLimits,
    /// Which known-bad variant it is, in tests of the tests.
    pub variant: Variant,
}

/// All that is in memory of a coordinator. Whatever happens comes in through one of its doors, is a
/// step of one machine, and its effects are carried out before the next; what is left to do for the
/// shell are the errands of the turn and the records in the outbox.
pub struct Core {
    pub(crate) settings: CoreSettings,
    pub(crate) authority: Authority,
    next_n: u64,
    pub(crate) active: NumberMap<TxNumber, Active>,
    pub(crate) by_id: HashMap<TransactionId, TxNumber>,
    pub(crate) by_key: HashMap<IdempotencyKey, TxNumber>,
    pub(crate) lanes: Lanes,
    pub(crate) timers: BinaryHeap<Reverse<(Millis, TxNumber)>>,
    /// Who died of a lock, and is in line for it.
    pub(crate) queues: Queues,
    /// The participants whose resynchronisation waits until nothing is undecided there.
    pub(crate) deciding: Vec<usize>,
    /// Whose turn it is, found while effects are carried out.
    pub(crate) turns: Vec<TxNumber>,
    pub(crate) outbox: Outbox,
    pub(crate) history: History,
    /// The ended transactions that a list can show.
    recent: BTreeMap<TransactionId, LogPosition>,
    is_draining: bool,
    /// The lives of the log, and whether it may be spoken for.
    pub(crate) lives: LogLives,
    pub(crate) admission: Admission,
    pub(crate) effects: Vec<Effect>,
    pub(crate) errands: Errands,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("active", &self.active.len()).finish_non_exhaustive()
    }
}

impl Core {
    /// The core of a log of which this was replayed.
    #[must_use]
    pub fn new(
        settings: CoreSettings,
        authority: Authority,
        history: History,
        lives: Lives,
    ) -> Self {
        let recent = history.latest(RECENT_MAX);
        let admission = Admission::from(settings.admission);
        Self {
            settings,
            authority,
            next_n: 1,
            active: NumberMap::default(),
            by_id: HashMap::new(),
            by_key: HashMap::new(),
            lanes: Lanes::default(),
            timers: BinaryHeap::new(),
            queues: Queues::default(),
            deciding: Vec::new(),
            turns: Vec::new(),
            outbox: Outbox::default(),
            history,
            recent,
            is_draining: false,
            lives: LogLives::new(lives),
            admission,
            effects: Vec::new(),
            errands: Errands::default(),
        }
    }

    /// Has the log keep which life this is, and its key where that was drawn now.
    pub(crate) fn begin_life(&mut self, began: LifeBegan, key: Option<SealKey>) {
        if let Some(key) = key {
            self.outbox.append(&Record::SealKey(key), Durability::Forced, Appended::Nothing);
        }
        self.outbox.append(&Record::LifeBegan(began), Durability::Forced, Appended::Life);
    }

    // ---- how a transaction gets in

    /// A client asks for a transaction, or comes again: the same key or id leads to what it began.
    pub fn submit(
        &mut self,
        new: NewTransaction,
        waiter: Ticket,
        log_is_full: bool,
        now: Micros,
    ) -> Result<Taken, Problem> {
        if let Some(why) = self.lives.stale() {
            let detail = format!(
                "{why}; this request began nothing, but an earlier one with its key may have \
                 committed: ask the coordinator on the newest log, with the same key"
            );
            return Err(Problem::new(ErrorCode::StaleLog, detail));
        }
        let (chosen, key) = (new.chosen_id(), new.key.as_ref());
        if let Some(earlier) = self.earlier(chosen, key, new.fingerprint, waiter)? {
            return Ok(earlier);
        }
        self.admission.admit(self.is_draining, log_is_full)?;
        let lanes = new.lanes(&self.lanes)?;
        self.check_not_stale_at(&lanes)?;
        new.check_one_phase(self.settings.decision_bytes_max)?;
        let places = lanes.iter().map(|place| &self.lanes[*place]);
        self.admission.admit_at(places, now.millis())?;
        self.begin(new, lanes, waiter, now);
        Ok(Taken::Begun)
    }

    /// A participant that takes the log for an old copy does nothing for it.
    fn check_not_stale_at(&self, lanes: &[usize]) -> Result<(), Problem> {
        let mut lanes = lanes.iter().map(|place| &self.lanes[*place]);
        let stale = lanes.find_map(|lane| Some((&lane.name, lane.stale_log.as_deref()?)));
        let Some((name, why)) = stale else { return Ok(()) };
        let detail = format!(
            "participant {name} takes the log of this coordinator for an old or a forked copy, \
             without showing that it is one ({why}); nothing was begun: see \
             docs/guides/recover.md, section `One participant says stale_log`"
        );
        Err(of_participant(name, ErrorCode::StaleLog, detail))
    }

    /// The transaction that the same key or id has begun before.
    fn earlier(
        &mut self,
        id: Option<TransactionId>,
        key: Option<&IdempotencyKey>,
        fingerprint: Option<Fingerprint>,
        waiter: Ticket,
    ) -> Result<Option<Taken>, Problem> {
        let number = key
            .and_then(|key| self.by_key.get(key).copied())
            .or_else(|| id.and_then(|id| self.number_of(id)));
        if let Some(active) = number.and_then(|number| self.active.get_mut(&number)) {
            let identity = &active.accepted.identity;
            let id = identity.id;
            if !Fingerprint::began(fingerprint, identity) {
                return Err(mismatch(id));
            }
            if active.has_answered() {
                return Ok(Some(Taken::Decided(id)));
            }
            active.waiters.push(waiter);
            return Ok(Some(Taken::Active(id)));
        }
        let position = key
            .and_then(|key| self.history.by_key(key))
            .or_else(|| id.and_then(|id| self.history.by_id(id)));
        Ok(position.map(Taken::Ended))
    }

    fn begin(&mut self, new: NewTransaction, lanes: Vec<usize>, waiter: Ticket, now: Micros) {
        let addresses = new.addresses(&self.lanes, &lanes);
        let protocol = new.protocol_run();
        let NewTransaction { id, key, fingerprint, name, timeout_ms, ack, .. } = new;
        let NewTransaction { purpose, contention, participants, ops, .. } = new;
        let answer = match fingerprint {
            Some(_) => AnswerDurability::BeforeAnswer,
            None => AnswerDurability::Lazy,
        };
        let number = TxNumber { epoch: self.epoch(), n: self.next_n };
        self.next_n += 1;
        let created_at = now.millis();
        let deadline = created_at.plus(timeout_ms);
        let branches = u16::try_from(participants.len()).expect("a request has few branches");
        let hooked = (0..branches).map(Branch).filter(|branch| ops.input(*branch).is_some());
        let hooked = hooked.collect();
        let spec =
            Spec { number, branches, ack, deadline, answer, purpose, protocol, contention, hooked };
        let machine =
            Transaction::new(spec).with_decision_bytes_max(self.settings.decision_bytes_max);
        let fingerprint = fingerprint.map(Fingerprint::recorded);
        let identity = Identity { id, key, fingerprint, name, created_at };
        let accepted = Accepted { identity, ack, deadline, participants, addresses };
        self.insert(machine, accepted, lanes, vec![waiter], Some(ops));
        self.step(number, Input::Begin, now);
    }

    /// A transaction that the log left unfinished.
    pub(crate) fn resume(&mut self, recovered: Recovered, now: Micros) {
        let Recovered { identity, participants, transaction, abandoned, notes } = recovered;
        let position = self.history.by_id(identity.id);
        let (number, attempt) = (transaction.spec().number, transaction.attempt());
        let lanes: Vec<usize> = participants.iter().map(|name| self.lanes.of(name)).collect();
        for lane in &lanes {
            self.lanes.start(*lane, &mut self.errands);
        }
        let deadline = transaction.spec().deadline;
        let (ack, addresses) = (Ack::Applied, Vec::new());
        let accepted = Accepted { identity, ack, deadline, participants, addresses };
        self.insert(transaction, accepted, lanes, Vec::new(), None);
        if let Some(active) = self.active.get_mut(&number) {
            active.position = position;
        }
        for note in notes {
            self.step(number, Input::Noted(note), now);
        }
        for branch in abandoned {
            self.step(number, Input::Abandon { branch, attempt }, now);
        }
        self.step(number, Input::Tick, now);
    }

    fn insert(
        &mut self,
        machine: Transaction,
        accepted: Accepted,
        lanes: Vec<usize>,
        waiters: Vec<Ticket>,
        ops: Option<Arc<dyn RequestOps>>,
    ) {
        let number = machine.spec().number;
        self.by_id.insert(accepted.identity.id, number);
        if let Some(key) = &accepted.identity.key {
            self.by_key.insert(key.clone(), number);
        }
        for lane in &lanes {
            self.lanes[*lane].unfinished.insert(number);
        }
        self.admission.undecided += 1;
        let active = Active {
            machine,
            accepted: Arc::new(accepted),
            is_undecided: true,
            counted: Counted::default(),
            lanes,
            ops,
            waiters,
            is_watched: false,
            armed: None,
            position: None,
        };
        self.active.insert(number, active);
    }

    // ---- what is to be done when a turn ends

    /// Exchanges the errands of the turn for an empty list, whose room is used again.
    pub fn swap_errands(&mut self, empty: &mut Vec<Errand>) {
        self.errands.swap(empty);
    }

    /// The records for the log; what its queue has no room for stays.
    pub const fn outbox(&mut self) -> &mut VecDeque<NewRecord> {
        self.outbox.records()
    }

    // ---- what it remembers

    /// An ended transaction can be looked up from now on.
    pub(crate) fn remember(&mut self, identity: &Identity, position: LogPosition) {
        self.history.insert(identity, position);
        self.recent.insert(identity.id, position);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_first();
        }
    }

    /// Forgets the answers in segments that are about to be deleted.
    pub(crate) fn forget_through(&mut self, segment: u32) {
        self.history.forget_through(segment, |id| self.by_id.contains_key(&id));
        self.recent.retain(|_, position| position.segment() > segment);
    }

    /// Takes no new transactions from here on.
    pub const fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Whether a transaction is watched from now on: each change of it is an errand.
    pub fn watch(&mut self, number: TxNumber) -> bool {
        let active = self.active.get_mut(&number);
        active.map(|active| active.is_watched = true).is_some()
    }

    // ---- questions

    /// Which log decides here, in which life, and where its outcomes are asked for.
    #[must_use]
    pub const fn identity(&self) -> &CoordinatorRef {
        &self.settings.identity
    }

    /// The log that decides here.
    #[must_use]
    pub const fn log_id(&self) -> LogId {
        self.settings.identity.log_id
    }

    /// The process life of the log.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.settings.identity.epoch
    }

    /// The answer to a branch in doubt.
    #[must_use]
    pub fn outcome(&self, txid: Txid) -> BranchOutcome {
        if txid.log_id != self.log_id() {
            return match self.settings.variant.is(Mutant::AnswersForOthers) {
                true => BranchOutcome::Aborted,
                false => BranchOutcome::UnknownAuthority,
            };
        }
        // A transaction of the log may have the number of one of its copy: nothing is known here.
        if self.lives.stale().is_some() {
            return BranchOutcome::Undecided;
        }
        match self.active.get(&txid.number) {
            Some(_) if self.settings.variant.is(Mutant::PresumesActive) => BranchOutcome::Aborted,
            Some(active) => active.machine.outcome_for(txid.attempt),
            // What an old copy of a log has no record of may be committed in the log.
            None => match self.authority.outcome(txid) {
                BranchOutcome::Aborted if !self.may_presume() => BranchOutcome::Undecided,
                outcome => outcome,
            },
        }
    }

    /// The same, of an implicit transaction. Of an earlier life's the log may know nothing, so that
    /// no record is no abort: `None` says that its branches are to be asked.
    #[must_use]
    pub fn implicit_outcome(&self, txid: Txid) -> Option<BranchOutcome> {
        let outcome = self.outcome(txid);
        let is_presumed =
            outcome == BranchOutcome::Aborted && !self.active.contains_key(&txid.number);
        let is_earlier = txid.log_id == self.log_id() && txid.number.epoch < self.epoch();
        let may_presume = !is_earlier || self.settings.variant.is(Mutant::PresumesImplicit);
        (!is_presumed || may_presume).then_some(outcome)
    }

    /// Whether no record may be taken for an abort: not of a copy, nor before it can be known that
    /// it is none. Who is away is not waited for.
    fn may_presume(&self) -> bool {
        self.lives.stale().is_none() && !self.is_greeting()
    }

    /// The addresses by which participants are known here now. Where the branches are, by what
    /// operators have registered: what the question says may be anybody's.
    pub fn addresses_now(&self, branches: &[BranchAddress]) -> Result<Branches, Problem> {
        let now = |branch: &BranchAddress| {
            let name = &branch.participant;
            let lane = self.lanes.registered(name);
            let url = lane.and_then(|lane| self.lanes[lane].url()).ok_or_else(|| Problem {
                participant: Some(name.to_string()),
                ..Problem::new(
                    ErrorCode::UnknownParticipant,
                    format!("no participant {name} is registered; nobody was asked"),
                )
            })?;
            Ok(BranchAddress { participant: name.clone(), url: url.to_owned() })
        };
        branches.iter().map(now).collect()
    }

    /// Why the log is an old or a forked copy, if a participant has shown that it is one.
    #[must_use]
    pub fn stale(&self) -> Option<&Arc<str>> {
        self.lives.stale()
    }

    /// Whether a participant is registered to which nothing was said yet.
    #[must_use]
    pub fn is_greeting(&self) -> bool {
        self.lanes.is_greeting()
    }

    /// Whether new transactions are refused because the process is about to stop.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Whether nothing is active that could come to an end soon.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.active.values().all(|active| {
            let is_away = |branch: Branch| {
                let lane = active.lanes.get(branch.index());
                lane.is_some_and(|lane| self.lanes[*lane].breaker.away_since().is_some())
            };
            active.machine.waits_in_vain(is_away)
        })
    }

    /// Whether one of these transactions is not decided, durably.
    #[must_use]
    pub fn is_any_undecided(&self, numbers: &[TxNumber]) -> bool {
        numbers.iter().any(|number| {
            let state = self.active.get(number).map(|active| active.machine.state());
            matches!(state, Some(State::Preparing(_) | State::Deciding { .. }))
        })
    }

    /// Everything of this log below it has ended, as far as a participant is concerned (invariant
    /// 10).
    #[must_use]
    pub fn low_water(&self, lane: usize) -> TxNumber {
        let next = TxNumber { epoch: self.epoch(), n: self.next_n };
        if self.settings.variant.is(Mutant::MarkTooHigh) {
            return TxNumber { n: self.next_n - 1, ..next };
        }
        self.lanes[lane].unfinished.first().copied().unwrap_or(next)
    }

    /// The active transaction of an id.
    #[must_use]
    pub fn number_of(&self, id: TransactionId) -> Option<TxNumber> {
        self.by_id.get(&id).copied()
    }

    /// Whether a key or an id has begun a transaction that is still known.
    #[must_use]
    pub fn is_known(&self, id: Option<TransactionId>, key: Option<&IdempotencyKey>) -> bool {
        key.is_some_and(|key| self.by_key.contains_key(key) || self.history.by_key(key).is_some())
            || id.is_some_and(|id| self.by_id.contains_key(&id) || self.history.by_id(id).is_some())
    }

    /// An active transaction.
    #[must_use]
    pub fn active(&self, number: TxNumber) -> Option<&Active> {
        self.active.get(&number)
    }

    /// Whether nothing is left to do of a transaction but to write its last record.
    #[must_use]
    pub fn is_over(&self, number: TxNumber) -> bool {
        self.active(number).is_none_or(|active| active.machine.is_over())
    }

    /// All active transactions, in no order.
    pub fn all_active(&self) -> impl Iterator<Item = &Active> {
        self.active.values()
    }

    /// The ways to the participants.
    #[must_use]
    pub const fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// What has ended.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// The ended transactions that a list can show.
    #[must_use]
    pub const fn recent(&self) -> &BTreeMap<TransactionId, LogPosition> {
        &self.recent
    }
}
