//! SmallBank over several Redis servers: customers with a checking and a savings account, spread
//! over the participants, and six transactions. Each leaves a marker of its own (`tx:<key>`) at
//! every branch that writes, so that the audit sees which branches applied.

use std::fmt;

use assent_client::Transaction;
use assent_client::transaction::{InvalidTransaction, Ops};
use assent_common::ParticipantName;
use assent_common::time::DurationMs;
use assent_common::value::Arg;
use assent_common::wire::transaction::TransactionRequest;
use rand::Rng;
use rand::seq::IndexedRandom as _;

/// What is in each account at the beginning.
pub(super) const OPENING_BALANCE: i64 = 1_000;

/// The most that one transaction moves, puts in or takes out.
const AMOUNT_MAX: i64 = 50;

/// One in so many transfers stays within one participant.
const LOCAL_ONE_IN: u32 = 10;

/// The marker of a transaction.
pub(super) fn marker(key: &str) -> String {
    format!("tx:{key}")
}

/// The bank.
#[derive(Debug, Clone)]
pub(super) struct Bank {
    pub(super) participants: Vec<ParticipantName>,
    pub(super) customers: usize,
}

/// One of SmallBank's six.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Balance,
    DepositChecking,
    TransactSavings,
    Amalgamate,
    WriteCheck,
    SendPayment,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Balance => "balance",
            Self::DepositChecking => "deposit-checking",
            Self::TransactSavings => "transact-savings",
            Self::Amalgamate => "amalgamate",
            Self::WriteCheck => "write-check",
            Self::SendPayment => "send-payment",
        })
    }
}

/// What a client is about to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) kind: Kind,
    from: usize,
    to: usize,
    amount: i64,
}

/// A transaction, and what the audit must know of it.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) request: TransactionRequest,
    /// The places of the participants where it leaves its marker.
    pub(super) writes_at: Vec<usize>,
    /// What it adds to the bank's money.
    pub(super) delta: i64,
}

/// Writes the first branch's ops.
type Write<'a> = Box<dyn FnOnce(Ops) -> Ops + 'a>;

impl Bank {
    /// The place of the customer's participant.
    pub(super) const fn home(&self, customer: usize) -> usize {
        customer % self.participants.len()
    }

    /// The customers of one participant.
    pub(super) fn customers_of(&self, place: usize) -> impl Iterator<Item = usize> {
        (place..self.customers).step_by(self.participants.len())
    }

    /// Draws what to do next.
    pub(super) fn plan(&self, rng: &mut impl Rng) -> Plan {
        const MIX: [Kind; 10] = [
            Kind::Balance,
            Kind::DepositChecking,
            Kind::TransactSavings,
            Kind::Amalgamate,
            Kind::Amalgamate,
            Kind::WriteCheck,
            Kind::SendPayment,
            Kind::SendPayment,
            Kind::SendPayment,
            Kind::SendPayment,
        ];
        let kind = MIX.choose(rng).copied().unwrap_or(Kind::SendPayment);
        let from = rng.random_range(0..self.customers);
        let local = rng.random_range(0..LOCAL_ONE_IN) == 0;
        let to = loop {
            let to = rng.random_range(0..self.customers);
            if to != from && (local || self.home(to) != self.home(from)) {
                break to;
            }
        };
        Plan { kind, from, to, amount: rng.random_range(1..=AMOUNT_MAX) }
    }

    /// The read that an amalgamation begins with, or the whole of a balance.
    pub(super) fn read(&self, plan: Plan) -> Result<TransactionRequest, InvalidTransaction> {
        let home = &self.participants[self.home(plan.from)];
        begin(Kind::Balance)
            .branch(home.as_str(), |ops| {
                ops.op(words(["GET", &checking(plan.from)])).op(words(["GET", &savings(plan.from)]))
            })
            .build()
    }

    /// The transaction under this key. `balances` are the customer's, where the plan had to read
    /// them first.
    pub(super) fn prepare(
        &self,
        plan: Plan,
        key: &str,
        balances: (i64, i64),
    ) -> Result<Prepared, InvalidTransaction> {
        let Plan { kind, from, to, amount } = plan;
        let by = |command: &str, account: String, amount: i64| {
            words([command, &account, &amount.to_string()])
        };
        let take = |ops: Ops| ops.op(by("DECRBY", checking(from), amount)).expect_ge(0);
        let empty = |ops: Ops| {
            // What was read must still be so: otherwise money would be made or lost.
            ops.op(by("GETSET", checking(from), 0))
                .expect_eq(balances.0.to_string().as_str())
                .op(by("GETSET", savings(from), 0))
                .expect_eq(balances.1.to_string().as_str())
        };
        let (first, moved, delta): (Write<'_>, Option<i64>, i64) = match kind {
            Kind::Balance => (Box::new(|ops| ops), None, 0),
            Kind::DepositChecking => {
                (Box::new(move |ops| ops.op(by("INCRBY", checking(from), amount))), None, amount)
            }
            Kind::TransactSavings => {
                (Box::new(move |ops| ops.op(by("INCRBY", savings(from), amount))), None, amount)
            }
            Kind::WriteCheck => (Box::new(take), None, -amount),
            Kind::SendPayment => (Box::new(take), Some(amount), 0),
            Kind::Amalgamate => (Box::new(empty), Some(balances.0 + balances.1), 0),
        };
        let receive = |ops: Ops| match moved {
            Some(moved) => ops.op(by("INCRBY", checking(to), moved)),
            None => ops,
        };
        let mark = |ops: Ops| ops.op(words(["SET", &marker(key), &kind.to_string()]));
        let (here, there) = (self.home(from), self.home(to));
        let transaction = begin(kind);
        let (transaction, writes_at) = if moved.is_some() && here != there {
            let transaction = transaction
                .branch(self.participants[here].as_str(), |ops| mark(first(ops)))
                .branch(self.participants[there].as_str(), |ops| mark(receive(ops)));
            (transaction, vec![here, there])
        } else {
            let at = self.participants[here].as_str();
            (transaction.branch(at, |ops| mark(receive(first(ops)))), vec![here])
        };
        Ok(Prepared { request: transaction.build()?, writes_at, delta })
    }
}

fn words<const N: usize>(words: [&str; N]) -> [Arg; N] {
    words.map(Arg::from)
}

fn begin(kind: Kind) -> Transaction {
    // The key of the header names it; the coordinator gives it its id.
    Transaction::default().name(kind.to_string()).timeout(DurationMs(5_000))
}

/// The key of a customer's checking account.
pub(super) fn checking(customer: usize) -> String {
    format!("checking:{customer}")
}

/// The key of a customer's savings account.
pub(super) fn savings(customer: usize) -> String {
    format!("savings:{customer}")
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    fn bank() -> Bank {
        let participants = ["a", "b", "c"].map(|name| name.parse().unwrap()).to_vec();
        Bank { participants, customers: 30 }
    }

    #[test]
    fn customers_are_spread_over_the_participants() {
        let bank = bank();
        for place in 0..3 {
            let customers: Vec<_> = bank.customers_of(place).collect();
            assert_eq!(customers.len(), 10);
            assert!(customers.iter().all(|customer| bank.home(*customer) == place));
        }
    }

    #[test]
    fn every_plan_makes_a_transaction_that_the_coordinator_takes() {
        let bank = bank();
        let mut rng = StdRng::seed_from_u64(1);
        for n in 0..500 {
            let plan = bank.plan(&mut rng);
            let key = format!("demo-1-{n}");
            let prepared = bank.prepare(plan, &key, (700, 300)).unwrap();
            let branches = prepared.request.branches.len();
            assert_eq!(branches, prepared.writes_at.len(), "{plan:?}");
            let text = serde_json::to_string(&prepared.request).unwrap();
            assert_eq!(text.matches(&marker(&key)).count(), branches, "{text}");
            prepared.request.validate().map_err(|problem| problem.detail).unwrap();
            bank.read(plan).unwrap().validate().map_err(|problem| problem.detail).unwrap();
        }
    }
}
