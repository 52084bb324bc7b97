//! What clients ask for: money that moves between the accounts of several Redis servers, and readers of it.

use assent_common::TransactionId;
use assent_common::code::ErrorCode;
use assent_common::command::Access;
use assent_common::coordinator::{AnswerDurability, Purpose};
use assent_common::outcome::Refusal;
use assent_common::participant::{Evaluation, Key};
use assent_common::wire::transaction::{Ack, Protocol};

use crate::config::Profile;
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
}

impl Request {
    pub(crate) fn is_one_phase(&self) -> bool {
        self.branches.len() == 1
    }

    /// Whether its client asks again until it knows.
    pub(crate) fn is_keyed(&self) -> bool {
        self.answer == AnswerDurability::BeforeAnswer
    }

    pub(crate) fn concerns(&self, at: usize) -> bool {
        self.branches.iter().any(|branch| branch.at == at)
    }

    /// A request that often meets the others.
    pub(crate) fn new(
        place: usize,
        client: usize,
        now_ms: u64,
        profile: &Profile,
        random: &mut Random,
    ) -> Self {
        let branches = branches(profile, random);
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

    pub(crate) fn locks(&self, keys: &[Key]) -> Vec<(Key, Access)> {
        self.ops.iter().map(|op| (keys[op.account].clone(), op.access())).collect()
    }

    /// What the ops come to on these balances.
    pub(crate) fn evaluate(&self, balances: &[i64]) -> Result<Evaluation, Refusal> {
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
            if replies.len() > 1 {
                replies.push(',');
            }
            replies.push_str(&balance.to_string());
        }
        if self.fails {
            return Err(met(0));
        }
        replies.push(']');
        Ok(Evaluation { replies: replies.into(), redo: redo.into() })
    }
}

impl Op {
    pub(crate) const fn access(self) -> Access {
        match self.kind {
            OpKind::Read => Access::Shared,
            OpKind::Add(_) => Access::Exclusive,
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
        let balance = write[1..].try_into().expect("eight bytes");
        balances[usize::from(write[0])] = i64::from_le_bytes(balance);
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
        plans.push(BranchPlan { at, ops, fails: random.percent(3) });
    }
    plans
}
