//! The workloads: what clients do, drawn at random.

use std::sync::Arc;

use rand::Rng;
use rand::rngs::SmallRng;
use serde::Serialize;

use super::unit::{Job, Key, Op, Part, Unit};
use super::zipf::Zipf;

/// In each account at the beginning.
pub(super) const OPENING_BALANCE: i64 = 1_000;

/// In stock at the beginning: more than any run sells.
const OPENING_STOCK: i64 = 1_000_000_000_000;

/// The most that one transaction of the bank moves.
const AMOUNT_MAX: i64 = 50;

/// Bytes that the values of `large` take up at each participant, at most.
const LARGE_BYTES: usize = 256 * 1024 * 1024;

/// Keys of `large` that one client writes at most.
const LARGE_KEYS_MAX: u64 = 64;

/// Transactions of the bank out of a hundred: the weights that `SmallBank` has in its published
/// implementations.
const BALANCE: u32 = 15;
const DEPOSIT_CHECKING: u32 = 15;
const TRANSACT_SAVINGS: u32 = 15;
const AMALGAMATE: u32 = 15;
const WRITE_CHECK: u32 = 15;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "workload", rename_all = "snake_case")]
pub(super) enum Shape {
    /// From an account at one participant to one at another, so many accounts in each branch.
    Transfer { writes: usize },
    /// `SmallBank`, customers spread over two participants.
    Smallbank,
    /// One account changes at each of so many participants.
    Wide { branches: usize },
    /// Two accounts are read, each at another participant.
    Read,
    /// One account is read.
    Get,
    /// A sale: one out of the stock of an item, whose popularity follows Zipf's law; one more order
    /// of a customer.
    Hot { keys: u64, zipf: f64 },
    /// A value of so many bytes is written at two participants.
    Large { bytes: usize },
}

/// Who draws.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawer {
    pub(super) client: u64,
    pub(super) clients: u64,
    /// Never the same twice in a bench.
    pub(super) stamp: u64,
}

/// A family of keys that is filled before the start, and counted after the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) place: usize,
    pub(super) name: &'static str,
    pub(super) keys: u64,
    pub(super) opening: i64,
}

/// Draws jobs.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    shape: Shape,
    accounts: u64,
    popularity: Option<Arc<Zipf>>,
}

impl Shape {
    /// How many participants it needs.
    pub(super) const fn places(self) -> usize {
        match self {
            Self::Wide { branches } => branches,
            Self::Transfer { .. }
            | Self::Smallbank
            | Self::Read
            | Self::Get
            | Self::Hot { .. }
            | Self::Large { .. } => 2,
        }
    }

    /// The number keys that it uses. All shapes of a bench are filled by the largest of each.
    pub(super) fn families(self, accounts: u64) -> Vec<Family> {
        let of = |name, opening, keys| move |place| Family { place, name, keys, opening };
        let both = 0..2;
        match self {
            Self::Transfer { .. } | Self::Read | Self::Get => {
                both.map(of("acct", OPENING_BALANCE, accounts)).collect()
            }
            Self::Wide { branches } => {
                (0..branches).map(of("acct", OPENING_BALANCE, accounts)).collect()
            }
            // Every account is there at both, so that the customers' homes need not be known here.
            Self::Smallbank => ["checking", "savings"]
                .into_iter()
                .flat_map(|name| both.clone().map(of(name, OPENING_BALANCE, accounts)))
                .collect(),
            // The uncontended reference has as many items as there are accounts.
            Self::Hot { keys, .. } => vec![
                of("stock", OPENING_STOCK, keys.max(accounts))(0),
                of("acct", OPENING_BALANCE, accounts)(1),
            ],
            Self::Large { .. } => Vec::new(),
        }
    }
}

impl Workload {
    pub(super) fn new(shape: Shape, accounts: u64) -> Self {
        let popularity = match shape {
            Shape::Hot { keys, zipf } => Some(Arc::new(Zipf::new(keys, zipf))),
            Shape::Transfer { .. }
            | Shape::Smallbank
            | Shape::Wide { .. }
            | Shape::Read
            | Shape::Get
            | Shape::Large { .. } => None,
        };
        Self { shape, accounts, popularity }
    }

    /// The same without contention, for a workload that is about contention.
    pub(super) fn uncontended(&self) -> Option<Self> {
        matches!(self.shape, Shape::Hot { .. }).then(|| Self { popularity: None, ..self.clone() })
    }

    pub(super) const fn shape(&self) -> Shape {
        self.shape
    }

    /// What a client does next.
    pub(super) fn draw(&self, rng: &mut SmallRng, drawer: Drawer) -> Job {
        match self.shape {
            Shape::Transfer { writes } => Job::Unit(self.transfer(rng, writes)),
            Shape::Smallbank => self.smallbank(rng),
            Shape::Wide { branches } => Job::Unit(self.wide(rng, branches)),
            Shape::Read => {
                let mut read =
                    |place| Part { place, ops: vec![Op::Get { key: self.account(rng) }] };
                Job::Unit(Unit { parts: vec![read(0), read(1)] })
            }
            Shape::Get => {
                let ops = vec![Op::Get { key: self.account(rng) }];
                Job::Unit(Unit { parts: vec![Part { place: 0, ops }] })
            }
            Shape::Hot { .. } => Job::Unit(self.sale(rng)),
            Shape::Large { bytes } => Job::Unit(large(rng, drawer, bytes)),
        }
    }

    fn account(&self, rng: &mut SmallRng) -> Key {
        Key { family: "acct", number: rng.random_range(0..self.accounts) }
    }

    fn transfer(&self, rng: &mut SmallRng, writes: usize) -> Unit {
        // From the first participant to the second, or back.
        let amount = if rng.random() { 1 } else { -1 };
        let mut part = |place, by| {
            let add = |_| Op::Add { key: self.account(rng), by, at_least: None };
            Part { place, ops: (0..writes).map(add).collect() }
        };
        Unit { parts: vec![part(0, -amount), part(1, amount)] }
    }

    fn wide(&self, rng: &mut SmallRng, branches: usize) -> Unit {
        let by = if rng.random() { 1 } else { -1 };
        let mut part = |place| {
            let add = Op::Add { key: self.account(rng), by, at_least: None };
            Part { place, ops: vec![add] }
        };
        Unit { parts: (0..branches).map(&mut part).collect() }
    }

    fn sale(&self, rng: &mut SmallRng) -> Unit {
        let item = match &self.popularity {
            Some(zipf) => zipf.draw(rng),
            None => rng.random_range(0..self.accounts),
        };
        let item = Key { family: "stock", number: item };
        let order = Op::Add { key: self.account(rng), by: 1, at_least: None };
        Unit {
            parts: vec![
                Part { place: 0, ops: vec![Op::Add { key: item, by: -1, at_least: Some(0) }] },
                Part { place: 1, ops: vec![order] },
            ],
        }
    }

    fn smallbank(&self, rng: &mut SmallRng) -> Job {
        let from = rng.random_range(0..self.accounts);
        let to = (from + rng.random_range(1..self.accounts.max(2))) % self.accounts;
        let amount = rng.random_range(1..=AMOUNT_MAX);
        let [checking, savings] =
            ["checking", "savings"].map(|family| Key { family, number: from });
        let to_checking = Key { family: "checking", number: to };
        let (place, to_place) = (home(from), home(to));
        let here = |ops: Vec<Op>| Job::Unit(Unit { parts: vec![Part { place, ops }] });
        let take = Op::Add { key: checking, by: -amount, at_least: Some(0) };
        let mut dice = rng.random_range(0..100_u32);
        let mut is = |weight| {
            let hit = dice < weight;
            dice = dice.saturating_sub(weight);
            hit
        };
        if is(BALANCE) {
            here(vec![Op::Get { key: checking }, Op::Get { key: savings }])
        } else if is(DEPOSIT_CHECKING) {
            here(vec![Op::Add { key: checking, by: amount, at_least: None }])
        } else if is(TRANSACT_SAVINGS) {
            // In or out, as far as there is something.
            let by = if rng.random() { amount } else { -amount };
            here(vec![Op::Add { key: savings, by, at_least: Some(0) }])
        } else if is(AMALGAMATE) {
            Job::Sweep { from: [checking, savings], place, to: to_checking, to_place }
        } else if is(WRITE_CHECK) {
            here(vec![take])
        } else {
            let give = Op::Add { key: to_checking, by: amount, at_least: None };
            if place == to_place {
                return here(vec![take, give]);
            }
            let parts =
                vec![Part { place, ops: vec![take] }, Part { place: to_place, ops: vec![give] }];
            Job::Unit(Unit { parts })
        }
    }
}

/// Where a customer's accounts are: by a hash, as an application would spread them.
const fn home(customer: u64) -> usize {
    // Fibonacci hashing: the golden ratio in 64 bits.
    (customer.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63) as usize
}

/// No two clients write the same key: what is measured is bytes, not conflicts.
fn large(rng: &mut SmallRng, drawer: Drawer, bytes: usize) -> Unit {
    let fit = LARGE_BYTES as u64 / (bytes as u64 * drawer.clients).max(1);
    let keys = fit.clamp(1, LARGE_KEYS_MAX);
    let number = drawer.client * LARGE_KEYS_MAX + rng.random_range(0..keys);
    let put = Op::Put { key: Key { family: "blob", number }, stamp: drawer.stamp, bytes };
    Unit { parts: [0, 1].map(|place| Part { place, ops: vec![put] }).to_vec() }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    const DRAWER: Drawer = Drawer { client: 3, clients: 64, stamp: 5 };

    fn jobs(shape: Shape, count: usize) -> Vec<Job> {
        let workload = Workload::new(shape, 1_000);
        let mut rng = SmallRng::seed_from_u64(1);
        (0..count).map(|_| workload.draw(&mut rng, DRAWER)).collect()
    }

    fn units(shape: Shape) -> Vec<Unit> {
        let units = jobs(shape, 200).into_iter().map(|job| match job {
            Job::Unit(unit) => unit,
            Job::Sweep { .. } => panic!("a sweep"),
        });
        units.collect()
    }

    #[test]
    fn a_transfer_neither_makes_nor_loses_money() {
        for unit in units(Shape::Transfer { writes: 3 }) {
            let mut sums = [0; 2];
            unit.changes().apply(&mut sums);
            assert_eq!(sums[0] + sums[1], 0);
            assert_eq!(sums[0].abs(), 3);
        }
    }

    #[test]
    fn wide_has_a_branch_at_each_of_its_places() {
        for unit in units(Shape::Wide { branches: 16 }) {
            let places: Vec<_> = unit.parts.iter().map(|part| part.place).collect();
            assert_eq!(places, (0..16).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_bank_has_all_six_in_their_shares_and_both_participants_have_customers() {
        let jobs = jobs(Shape::Smallbank, 20_000);
        let sweeps = jobs.iter().filter(|job| matches!(job, Job::Sweep { .. })).count();
        assert!((2_700..3_300).contains(&sweeps), "{sweeps} of 20000 are amalgamations");
        let two = jobs.iter().filter(|job| matches!(job, Job::Unit(unit) if unit.parts.len() == 2));
        let two = two.count();
        // Half of the payments, which are a quarter.
        assert!((2_200..2_800).contains(&two), "{two} of 20000 are payments between participants");
        let reads = jobs.iter().filter(|job| match job {
            Job::Unit(unit) => unit.parts[0].ops.iter().all(|op| matches!(op, Op::Get { .. })),
            Job::Sweep { .. } => false,
        });
        let reads = reads.count();
        assert!((2_700..3_300).contains(&reads), "{reads} of 20000 are balances");
        let at_home = (0..1_000).filter(|customer| home(*customer) == 0).count();
        assert!((450..550).contains(&at_home), "{at_home} of 1000 customers are at the first");
    }

    #[test]
    fn a_sale_of_one_item_is_always_of_it_and_the_reference_is_not() {
        let hot = Workload::new(Shape::Hot { keys: 1, zipf: 1.0 }, 1_000);
        let mut rng = SmallRng::seed_from_u64(1);
        let mut item = |workload: &Workload| match workload.draw(&mut rng, DRAWER) {
            Job::Unit(unit) => unit.parts[0].ops[0],
            Job::Sweep { .. } => panic!("a sweep"),
        };
        let zero = Key { family: "stock", number: 0 };
        for _ in 0..50 {
            assert_eq!(item(&hot), Op::Add { key: zero, by: -1, at_least: Some(0) });
        }
        let reference = hot.uncontended().unwrap();
        let items: Vec<_> = (0..50).map(|_| item(&reference)).collect();
        assert!(items.iter().any(|item| *item != items[0]));
        assert!(Workload::new(Shape::Read, 10).uncontended().is_none());
    }

    #[test]
    fn large_values_of_two_clients_never_meet() {
        let keys = |client| {
            let mut rng = SmallRng::seed_from_u64(1);
            let drawer = Drawer { client, ..DRAWER };
            let key = move |_| match large(&mut rng, drawer, 1_024).parts[0].ops[0] {
                Op::Put { key, .. } => key.number,
                op => panic!("{op:?}"),
            };
            (0..500).map(key).collect::<std::collections::BTreeSet<_>>()
        };
        assert!(keys(0).is_disjoint(&keys(1)));
        assert_eq!(keys(0).len(), usize::try_from(LARGE_KEYS_MAX).unwrap());
    }
}
