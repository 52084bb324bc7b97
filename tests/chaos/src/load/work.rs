//! What a client may do, as a transaction and as a line of the history.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use assent_checkers::{Action, Add, Count, MicroOp, Transfer};
use assent_client::Transaction;
use assent_client::transaction::{InvalidTransaction, Ops};
use assent_common::wire::transaction::{TransactionRequest, TransactionView};
use rand::Rng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use crate::schedule::BANKS;

/// What is in each account at the beginning.
pub(crate) const OPENING_BALANCE: i64 = 500;

/// Accounts of each bank.
const ACCOUNTS: usize = 8;

/// The counters, and the bank of each.
pub(crate) const COUNTERS: [(&str, usize); 4] =
    [("red", 0), ("green", 1), ("blue", 2), ("stock", 0)];

/// The one that is added to in escrow, and sold from: the hot one. Its value is never below nothing.
pub(crate) const STOCK: usize = 3;

/// Lists in use at a time, spread over the banks, and elements after which the next lists are taken: a list is read as a
/// whole, so it must not grow for ever.
const LISTS: i64 = 6;
const ELEMENTS_PER_GENERATION: i64 = 400;

/// What the clients share.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// The next element; each is appended once.
    elements: AtomicI64,
}

/// What one transaction does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    Transfer { from: usize, to: usize, amount: i64 },
    Balances,
    Lists(Vec<MicroOp>),
    Add { counter: usize, also_at: usize, by: i64 },
    Count { counter: usize },
}

/// The names of all accounts.
pub(crate) fn account_names() -> impl Iterator<Item = String> {
    (0..ACCOUNTS * BANKS.len()).map(account_name)
}

fn account_name(account: usize) -> String {
    format!("acct:{account}")
}

/// The key of an account in its bank's Redis.
pub(crate) fn balance_key(account: usize) -> String {
    account_name(account)
}

/// The key that counts how often an addition was applied.
pub(crate) fn add_key(counter: &str, id: &str) -> String {
    format!("add:{counter}:{id}")
}

fn participant(bank: usize) -> String {
    format!("bank-{}", BANKS[bank % BANKS.len()])
}

/// The bank of a list, which is named by its generation and its place.
fn list_bank(key: i64) -> usize {
    usize::try_from(key % LISTS).unwrap_or(0) % BANKS.len()
}

/// The ops of each bank, in the order of the banks.
type Branches = BTreeMap<usize, Vec<Vec<String>>>;

impl World {
    /// Draws what to do next.
    pub(crate) fn draw(&self, rng: &mut impl Rng) -> Work {
        match rng.random_range(0..100) {
            0..45 => {
                let accounts: Vec<usize> = (0..ACCOUNTS * BANKS.len()).collect();
                let two: Vec<usize> = accounts.choose_multiple(rng, 2).copied().collect();
                Work::Transfer { from: two[0], to: two[1], amount: rng.random_range(1..=60) }
            }
            45..48 => Work::Balances,
            48..80 => self.lists(rng),
            80..95 => {
                let is_hot = rng.random_bool(0.5);
                let counter = if is_hot { STOCK } else { rng.random_range(0..STOCK) };
                let also_at =
                    (COUNTERS[counter].1 + rng.random_range(1..BANKS.len())) % BANKS.len();
                let by = if is_hot { rng.random_range(-4..=5) } else { rng.random_range(1..=9) };
                Work::Add { counter, also_at, by }
            }
            _ => Work::Count { counter: rng.random_range(0..COUNTERS.len()) },
        }
    }

    fn lists(&self, rng: &mut impl Rng) -> Work {
        let generation = self.elements.load(Ordering::Relaxed) / ELEMENTS_PER_GENERATION;
        let mut keys: Vec<i64> = (0..LISTS).map(|list| generation * LISTS + list).collect();
        keys.shuffle(rng);
        keys.truncate(rng.random_range(1..=4));
        let steps = keys.into_iter().map(|key| {
            if rng.random_bool(0.6) {
                MicroOp::append(key, self.elements.fetch_add(1, Ordering::Relaxed))
            } else {
                MicroOp::read(key)
            }
        });
        Work::Lists(steps.collect())
    }

    /// Reads of every list that there ever was, a transaction for each generation.
    pub(crate) fn last_reads(&self) -> Vec<Work> {
        let last = self.elements.load(Ordering::Relaxed) / ELEMENTS_PER_GENERATION;
        let read = |generation: i64| {
            (0..LISTS).map(|list| MicroOp::read(generation * LISTS + list)).collect()
        };
        (0..=last).map(|generation| Work::Lists(read(generation))).collect()
    }
}

impl Work {
    /// The commands of each branch, without marks.
    fn branches(&self, id: &str) -> Branches {
        let mut branches = Branches::new();
        let mut push = |bank: usize, words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            branches.entry(bank % BANKS.len()).or_default().push(words);
        };
        match self {
            Self::Transfer { from, to, amount } => {
                let amount = amount.to_string();
                push(*from, &["DECRBY", &balance_key(*from), &amount]);
                push(*to, &["INCRBY", &balance_key(*to), &amount]);
            }
            Self::Balances => {
                for account in 0..ACCOUNTS * BANKS.len() {
                    push(account, &["GET", &balance_key(account)]);
                }
            }
            Self::Lists(steps) => {
                for step in steps {
                    match step {
                        MicroOp::Append(key, element) => {
                            let bank = list_bank(number(key));
                            push(bank, &["RPUSH", &format!("list:{key}"), &element.to_string()]);
                        }
                        MicroOp::Read(key, _) => {
                            let bank = list_bank(number(key));
                            push(bank, &["LRANGE", &format!("list:{key}"), "0", "-1"]);
                        }
                    }
                }
            }
            Self::Add { counter, also_at, by } => {
                let (name, bank) = COUNTERS[*counter];
                push(bank, &["INCRBY", &format!("counter:{name}"), &by.to_string()]);
                push(bank, &["INCR", &add_key(name, id)]);
                push(*also_at, &["INCR", &format!("elsewhere:{name}")]);
            }
            Self::Count { counter } => {
                let (name, bank) = COUNTERS[*counter];
                push(bank, &["GET", &format!("counter:{name}")]);
            }
        }
        branches
    }

    fn writes(&self) -> bool {
        match self {
            Self::Transfer { .. } | Self::Add { .. } => true,
            Self::Balances | Self::Count { .. } => false,
            Self::Lists(steps) => steps.iter().any(|step| matches!(step, MicroOp::Append(..))),
        }
    }

    /// The participants at which it leaves its mark, if it writes at all.
    pub(crate) fn marks_at(&self) -> Option<Vec<String>> {
        self.writes().then(|| self.branches("").into_keys().map(participant).collect())
    }

    /// The transaction. The mark comes first in each branch, so that the replies behind it are in their order.
    pub(crate) fn write(
        &self,
        mut transaction: Transaction,
        id: &str,
    ) -> Result<TransactionRequest, InvalidTransaction> {
        for (bank, commands) in self.branches(id) {
            let mark = |ops: Ops| {
                if self.writes() { ops.op(["INCR", &format!("tx:{id}")]) } else { ops }
            };
            transaction = transaction.branch(&participant(bank), |ops| {
                commands.into_iter().fold(mark(ops), |ops, words| {
                    let takes = words[0] == "DECRBY";
                    let shares = words[1] == format!("counter:{}", COUNTERS[STOCK].0)
                        && words[0] == "INCRBY";
                    let ops = ops.op(words.iter().map(String::as_str));
                    let ops = if takes || shares { ops.expect_ge(0) } else { ops };
                    if shares { ops.escrow() } else { ops }
                })
            });
        }
        transaction.build()
    }

    /// What it asks for, as it stands in the history.
    pub(crate) fn action(&self, id: &str) -> Action {
        match self {
            Self::Transfer { from, to, amount } => Action::Transfer(Transfer {
                from: account_name(*from),
                to: account_name(*to),
                amount: *amount,
            }),
            Self::Balances => Action::Balances(None),
            Self::Lists(steps) => Action::Txn(steps.clone()),
            Self::Add { counter, by, .. } => Action::Add(Add {
                counter: COUNTERS[*counter].0.to_owned(),
                id: id.to_owned(),
                by: *by,
            }),
            Self::Count { counter } => {
                Action::Count(Count { counter: COUNTERS[*counter].0.to_owned(), value: None })
            }
        }
    }

    /// The same with the answers, if the replies are such.
    pub(crate) fn answered(&self, id: &str, view: &TransactionView) -> Option<Action> {
        let mut replies = replies(view, usize::from(self.writes()))?;
        let mut next = |bank: usize| {
            let of_bank = replies.get_mut(&participant(bank))?;
            of_bank.next()
        };
        match self {
            Self::Transfer { .. } | Self::Add { .. } => Some(self.action(id)),
            Self::Balances => {
                let mut balances = BTreeMap::new();
                for account in 0..ACCOUNTS * BANKS.len() {
                    balances.insert(account_name(account), integer(&next(account)?)?);
                }
                Some(Action::Balances(Some(balances)))
            }
            Self::Count { counter } => {
                let (name, bank) = COUNTERS[*counter];
                let value = Some(integer(&next(bank)?)?);
                Some(Action::Count(Count { counter: name.to_owned(), value }))
            }
            Self::Lists(steps) => {
                let mut answered = Vec::with_capacity(steps.len());
                for step in steps {
                    let (MicroOp::Append(key, _) | MicroOp::Read(key, _)) = step;
                    let reply = next(list_bank(number(key)))?;
                    answered.push(match step {
                        MicroOp::Append(..) => step.clone(),
                        MicroOp::Read(key, _) => {
                            let elements = reply.as_array()?.iter().map(integer);
                            MicroOp::Read(key.clone(), Some(elements.collect::<Option<_>>()?))
                        }
                    });
                }
                Some(Action::Txn(answered))
            }
        }
    }
}

fn number(key: &assent_checkers::Scalar) -> i64 {
    match key {
        assent_checkers::Scalar::Int(number) => *number,
        assent_checkers::Scalar::Text(_) => 0,
    }
}

/// A number as Redis replies it, or as a text; a key that is not there counts as nothing.
fn integer(reply: &serde_json::Value) -> Option<i64> {
    match reply {
        serde_json::Value::Null => Some(0),
        serde_json::Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    }
}

/// The replies of each participant, without the first so many.
fn replies(
    view: &TransactionView,
    skip: usize,
) -> Option<BTreeMap<String, std::iter::Skip<std::vec::IntoIter<serde_json::Value>>>> {
    let one = |branch: &assent_common::wire::transaction::BranchReport| {
        let replies: Vec<serde_json::Value> =
            serde_json::from_str(branch.replies.as_ref()?.get()).ok()?;
        Some((branch.participant.to_string(), replies.into_iter().skip(skip)))
    };
    view.branches.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn everything_that_is_drawn_is_a_transaction_that_the_coordinator_takes() {
        let world = World::default();
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..2_000 {
            let work = world.draw(&mut rng);
            let transaction = Transaction::new();
            let id = transaction.id().unwrap().to_string();
            let request = work.write(transaction, &id).unwrap();
            let text = serde_json::to_string(&request).unwrap();
            let marks = work.marks_at().map_or(0, |branches| branches.len());
            assert_eq!(text.matches(&format!("tx:{id}")).count(), marks, "{text}");
            request.validate().map_err(|problem| problem.detail).unwrap();
        }
        assert!(world.last_reads().len() > 2);
    }

    #[test]
    fn replies_are_read_in_the_order_of_the_steps() {
        // Lists 0 and 3 are at the first bank, 1 at the second.
        let work = Work::Lists(vec![MicroOp::read(3), MicroOp::append(1, 7), MicroOp::read(0)]);
        let view = serde_json::json!({
            "id": "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e", "outcome": "committed", "state": "ended",
            "branches": [
                {"participant": "bank-a", "state": "applied", "replies": [1, ["4", "5"], []]},
                {"participant": "bank-b", "state": "applied", "replies": [1, 1]},
            ],
        });
        let view: TransactionView = serde_json::from_value(view).unwrap();
        let answered =
            Action::Txn(vec![MicroOp::saw(3, [4, 5]), MicroOp::append(1, 7), MicroOp::saw(0, [])]);
        assert_eq!(work.answered("t", &view), Some(answered));
        // Replies that are not there are no answer.
        let bare = TransactionView { branches: Vec::new(), ..view };
        assert_eq!(work.answered("t", &bare), None);
    }
}
