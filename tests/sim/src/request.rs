//! What clients ask for: money that moves between the accounts of several Redis servers, and readers of it.

use assent_common::TransactionId;
use assent_common::code::ErrorCode;
use assent_common::command::{Access, Claim, EscrowKind, Step};
use assent_common::coordinator::{AnswerDurability, Purpose};
use assent_common::outcome::Refusal;
use assent_common::participant::{Claimed, Evaluation, Key, Locks};
use assent_common::wire::transaction::{Ack, Protocol};

use crate::config::Profile;
use crate::hook::HookRule;
use crate::random::Random;

/// What every account begins with.
pub(crate) const BALANCE: i64 = 100;

/// Milliseconds of the Unix epoch at which every world begins; ids carry it.
pub(crate) const BEGINNING_MS: u64 = 1_700_000_000_000;

/// How far clients' clocks are apart, in milliseconds: ages are mixed.
const SKEW_MS: u64 = 60;

/// A request of a client; the same one however often it is sent.
#[derive(Debug)]
pub(crate) struct Request {
    /// Which also is its age.
    pub(crate) id: TransactionId,
    pub(crate) client: usize,
    pub(crate) coordinator: usize,
    pub(crate) branches: Vec<BranchPlan>,
    pub(crate) ack: Ack,
    pub(crate) answer: AnswerDurability,
    pub(crate) timeout_ms: u64,
    pub(crate) protocol: Protocol,
    pub(crate) purpose: Purpose,
    /// When its client heard the outcome, or stopped asking.
    pub(crate) finished_us: Option<u64>,
}

/// One participant's part of a request.
#[derive(Debug)]
pub(crate) struct BranchPlan {
    pub(crate) at: usize,
    pub(crate) ops: Vec<Op>,
    /// Whether its last op expects what is not so.
    pub(crate) fails: bool,
    /// What its hook demands, if one decides about it.
    pub(crate) hook: Option<HookRule>,
}

/// An op on an account; each account comes once in a branch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    pub(crate) account: usize,
    pub(crate) kind: OpKind,
}

/// What an op does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OpKind {
    /// Reads the balance.
    Read,
    /// Adds to the balance, which must not fall below zero.
    Add(i64),
    /// The same in escrow.
    Escrow(Adds),
}

/// What an op adds in escrow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Adds {
    pub(crate) amount: i64,
    /// What the balance must be behind it, at least and at most.
    pub(crate) at_least: i64,
    pub(crate) at_most: i64,
}

/// Beside the account of a write: it is what is added, not what the balance is to be.
const DELTA: u8 = 0x80;

impl Request {
    pub(crate) fn is_one_phase(&self) -> bool {
        self.branches.len() == 1
    }

    /// Whether its client asks again until it knows.
    pub(crate) fn is_keyed(&self) -> bool {
        self.answer == AnswerDurability::BeforeAnswer
    }

    /// A request that often meets the others.
    pub(crate) fn new(
        place: usize,
        client: usize,
        now_ms: u64,
        profile: &Profile,
        random: &mut Random,
    ) -> Self {
        let mut branches = branches(profile, random);
        if profile.escrow {
            branches.iter_mut().for_each(|branch| branch.go_to_escrow(place));
        }
        if profile.hooks {
            branches.iter_mut().for_each(|branch| branch.hook = HookRule::of(&branch.ops));
        }
        let reads = branches.iter().all(BranchPlan::reads);
        let age_ms = BEGINNING_MS + now_ms + random.below(SKEW_MS);
        let mut request = Self {
            id: public_id(age_ms, place),
            client,
            coordinator: random.place(profile.coordinators),
            branches,
            ack: if random.percent(70) { Ack::Applied } else { Ack::Decided },
            answer: match random.below(3) {
                0 => AnswerDurability::Lazy,
                _ => AnswerDurability::BeforeAnswer,
            },
            timeout_ms: [40, 300, 3_000][random.place(3)],
            purpose: if reads { Purpose::Read } else { Purpose::Write },
            protocol: Protocol::Logged,
            finished_us: None,
        };
        // As a coordinator has it: of several branches, and without a key. What a loss does to those is no promise.
        let may_be = !request.is_one_phase() && !request.is_keyed();
        if may_be && !profile.faults.lose_data() && random.percent(60) {
            request.protocol = Protocol::Implicit;
        }
        request
    }

    pub(crate) fn is_implicit(&self) -> bool {
        self.protocol == Protocol::Implicit
    }
}

impl BranchPlan {
    pub(crate) fn reads(&self) -> bool {
        self.ops.iter().all(|op| op.access() == Access::Shared)
    }

    /// Whether it changes this account.
    pub(crate) fn writes(&self, account: usize) -> bool {
        self.ops.iter().any(|op| op.account == account && op.access() != Access::Shared)
    }

    pub(crate) fn locks(&self, keys: &[Key]) -> Vec<(Key, Access)> {
        self.ops.iter().map(|op| (keys[op.account].clone(), op.access())).collect()
    }

    /// Does in escrow what it adds, mostly; and rather to the first account than to others.
    fn go_to_escrow(&mut self, place: usize) {
        let is_alone = self.ops.len() == 1;
        for op in &mut self.ops {
            let OpKind::Add(amount) = op.kind else { continue };
            if (place + op.account).is_multiple_of(3) {
                continue;
            }
            let at_least = if amount < 0 { 0 } else { i64::MIN };
            let has_ceiling = amount > 0 && place.is_multiple_of(4);
            let at_most = if has_ceiling { 2 * BALANCE } else { i64::MAX };
            op.kind = OpKind::Escrow(Adds { amount, at_least, at_most });
            if is_alone && place.is_multiple_of(2) {
                op.account = 0;
            }
        }
    }

    /// What it claims of accounts with these balances.
    fn claims(&self, balances: &[i64]) -> Vec<Claimed> {
        let claim = |op: &Op| {
            let OpKind::Escrow(Adds { amount, at_least, at_most }) = op.kind else { return None };
            let step = Step { op: 0, command: "INCRBY", sum: amount, at_least, at_most };
            let claim = Claim { key: key(op.account), field: None, steps: vec![step] };
            Some(Claimed { claim, value: balances[op.account] })
        };
        self.ops.iter().filter_map(claim).collect()
    }

    /// What the ops come to on these balances, of which some are held in escrow.
    pub(crate) fn evaluate(
        &self,
        balances: &[i64],
        locks: &Locks,
        is_resolved: bool,
    ) -> Result<Evaluation, Refusal> {
        let (mut replies, mut redo) = (String::from("["), Vec::with_capacity(9 * self.ops.len()));
        for op in &self.ops {
            let mut balance = balances[op.account];
            if let OpKind::Add(amount) = op.kind {
                balance += amount;
                if amount < 0 && balance < 0 {
                    return Err(met(balance));
                }
                redo.push(u8::try_from(op.account).expect("few accounts"));
                redo.extend(balance.to_le_bytes());
            }
            let mut reply = balance.to_string();
            if let OpKind::Escrow(Adds { amount, .. }) = op.kind {
                let range = locks.range(&key(op.account), &None, balance);
                reply = serde_json::to_string(&range.reply(amount)).expect("a reply is JSON");
                let account = u8::try_from(op.account).expect("few accounts");
                let (account, written) = if is_resolved {
                    (account, balance + amount)
                } else {
                    (account | DELTA, amount)
                };
                redo.push(account);
                redo.extend(written.to_le_bytes());
            }
            if replies.len() > 1 {
                replies.push(',');
            }
            replies.push_str(&reply);
        }
        if self.fails {
            return Err(met(0));
        }
        replies.push(']');
        let claims = self.claims(balances);
        Ok(Evaluation { replies: replies.into(), redo: redo.into(), claims })
    }
}

impl Op {
    pub(crate) const fn access(self) -> Access {
        match self.kind {
            OpKind::Read => Access::Shared,
            OpKind::Add(_) => Access::Exclusive,
            OpKind::Escrow(_) => Access::Escrow(EscrowKind::String),
        }
    }
}

fn met(balance: i64) -> Refusal {
    Refusal::new(ErrorCode::ExpectationFailed, format!("met {balance}"))
}

/// The key of an account.
pub(crate) fn key(account: usize) -> Key {
    Key::from(format!("k{account}").as_str())
}

/// Writes what was resolved.
pub(crate) fn apply(redo: &[u8], balances: &mut [i64]) {
    for write in redo.chunks_exact(9) {
        let number = i64::from_le_bytes(write[1..].try_into().expect("eight bytes"));
        let balance = &mut balances[usize::from(write[0] & !DELTA)];
        *balance = if write[0] & DELTA == 0 { number } else { *balance + number };
    }
}

/// An id of this age, from which the request is found again.
fn public_id(age_ms: u64, place: usize) -> TransactionId {
    let mut rest = [0; 10];
    rest[6..].copy_from_slice(&u32::try_from(place).expect("few requests").to_be_bytes());
    let uuid = uuid::Builder::from_unix_timestamp_millis(age_ms, &rest).into_uuid();
    TransactionId::new(uuid).expect("a version 7")
}

/// The request of an id.
pub(crate) fn place_of(id: TransactionId) -> usize {
    let place = id.uuid().as_bytes()[12..].try_into().expect("four bytes");
    usize::try_from(u32::from_be_bytes(place)).expect("a place")
}

/// The sum of all that is added is zero.
fn branches(profile: &Profile, random: &mut Random) -> Vec<BranchPlan> {
    let count = match random.below(20) {
        0..=4 => 1,
        5..=14 => 2,
        _ => random.between(2, profile.participants as u64),
    };
    let count = usize::try_from(count).expect("few").min(profile.participants);
    let first = random.place(profile.participants);
    let only_reads = random.percent(10);
    let mut plans: Vec<BranchPlan> = Vec::with_capacity(count);
    let mut owed = 0;
    for n in 0..count {
        let is_last = n + 1 == count;
        let account = random.place(profile.keys);
        let mut ops = Vec::with_capacity(2);
        if only_reads || (!is_last && random.percent(15)) {
            ops.push(Op { account, kind: OpKind::Read });
        } else if is_last && owed != 0 {
            ops.push(Op { account, kind: OpKind::Add(-owed) });
        } else {
            let amount = i64::try_from(random.between(1, 60)).expect("small") - 40;
            ops.push(Op { account, kind: OpKind::Add(amount) });
            owed += amount;
            if is_last {
                let other = (account + 1) % profile.keys;
                ops.push(Op { account: other, kind: OpKind::Add(-owed) });
                owed = 0;
            }
        }
        if random.percent(25) {
            let other = (account + 2) % profile.keys;
            if ops.iter().all(|op| op.account != other) {
                ops.push(Op { account: other, kind: OpKind::Read });
            }
        }
        let at = (first + n) % profile.participants;
        plans.push(BranchPlan { at, ops, fails: random.percent(3), hook: None });
    }
    plans
}
