//! What one transaction of a mixed load is: at each participant commands or statements, and what
//! their replies say.
//!
//! A statement that reads does so `FOR SHARE`: what it has read then stays as it is until the
//! outcome, as at a Redis.

use std::collections::BTreeMap;

use assent_checkers::{Action, Mark, MicroOp, Transfer};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use serde_json::{Value, json};

use super::servers::{CACHE, DATABASES};

/// The participants; the first one has a Redis.
pub(super) const PLACES: [&str; 3] = [CACHE, DATABASES[0], DATABASES[1]];

/// Accounts at each participant.
const ACCOUNTS: usize = 4;

/// Lists in use at a time at each participant, and elements after which the next ones are taken: a
/// list is read as a whole, so it must not grow for ever.
const LISTS: i64 = 3;
const ELEMENTS_OF_A_ROUND: i64 = 150;

/// The share of appends and transfers with one branch.
const ONE_BRANCH: f64 = 0.25;

/// An account: the place of its participant, and its number there.
pub(super) type MixedAccount = (usize, usize);

/// One transaction.
#[derive(Debug)]
pub(super) enum MixedWork {
    /// At each participant, by its place.
    Lists(Vec<(usize, MicroOp)>),
    Pay {
        from: MixedAccount,
        to: MixedAccount,
        amount: i64,
    },
    Balances,
    /// Its id, left at every participant.
    Mark(String),
}

pub(super) fn account((place, number): MixedAccount) -> String {
    format!("acct:{place}:{number}")
}

pub(super) fn list(place: usize, number: i64) -> String {
    format!("list:{place}:{number}")
}

/// Every account.
pub(super) fn accounts() -> impl Iterator<Item = MixedAccount> {
    (0..PLACES.len()).flat_map(|place| (0..ACCOUNTS).map(move |number| (place, number)))
}

/// The lists in use once so many elements have been appended.
pub(super) fn lists_after(elements: i64) -> impl Iterator<Item = (usize, i64)> + Clone {
    let first = elements / ELEMENTS_OF_A_ROUND * LISTS;
    (0..PLACES.len()).flat_map(move |place| (first..first + LISTS).map(move |n| (place, n)))
}

/// Reads of all lists that there have been, as many at once as are in use at a time.
pub(super) fn reads_of_all(elements: i64) -> impl Iterator<Item = MixedWork> {
    let rounds = 0..=elements / ELEMENTS_OF_A_ROUND;
    rounds.map(|round| {
        let lists = lists_after(round * ELEMENTS_OF_A_ROUND);
        let read = |(place, number)| (place, MicroOp::read(list(place, number)));
        MixedWork::Lists(lists.map(read).collect())
    })
}

fn append(place: usize, key: &str, element: i64) -> Value {
    match place {
        0 => json!({"cmd": ["RPUSH", key, element.to_string()]}),
        _ => json!({"sql": "UPDATE lists SET v = v || $2::bigint WHERE k = $1",
                    "params": [key, element], "expect": {"eq": 1}}),
    }
}

fn read(place: usize, key: &str) -> Value {
    match place {
        0 => json!({"cmd": ["LRANGE", key, "0", "-1"]}),
        _ => json!({"sql": "SELECT v FROM lists WHERE k = $1 FOR SHARE", "params": [key]}),
    }
}

fn add(one: MixedAccount, amount: i64) -> Value {
    match one.0 {
        0 => json!({"cmd": ["INCRBY", account(one), amount.to_string()], "expect": {"ge": 0}}),
        _ => json!({"sql": "UPDATE acct SET balance = balance + $2 WHERE k = $1 RETURNING balance",
                    "params": [account(one), amount], "expect": {"ge": 0}}),
    }
}

fn balance(one: MixedAccount) -> Value {
    match one.0 {
        0 => json!({"cmd": ["GET", account(one)]}),
        _ => json!({"sql": "SELECT balance FROM acct WHERE k = $1 FOR SHARE",
                    "params": [account(one)]}),
    }
}

fn mark(place: usize, id: &str) -> Value {
    match place {
        0 => json!({"cmd": ["RPUSH", "marks", id]}),
        _ => json!({"sql": "INSERT INTO marks VALUES ($1)", "params": [id]}),
    }
}

/// The value of a reply; of a statement the only one of its first row.
fn value(reply: &Value) -> Option<&Value> {
    match reply.get("rows") {
        Some(rows) => rows.get(0)?.as_object()?.values().next(),
        None => Some(reply),
    }
}

fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn elements(reply: &Value) -> Option<Vec<i64>> {
    value(reply)?.as_array()?.iter().map(integer).collect()
}

impl MixedWork {
    /// `element` is the next one, of many.
    pub(super) fn draw(
        random: &mut StdRng,
        id: &str,
        mut element: impl FnMut() -> i64,
        last: i64,
    ) -> Self {
        let at_one = random.random_bool(ONE_BRANCH).then(|| random.random_range(0..PLACES.len()));
        let is_there = |place: usize| at_one.is_none_or(|one| one == place);
        match random.random_range(0..100) {
            0..50 => {
                let mut lists: Vec<_> =
                    lists_after(last).filter(|(place, _)| is_there(*place)).collect();
                lists.shuffle(random);
                lists.truncate(random.random_range(1..=4));
                lists.sort_unstable();
                let steps = lists.into_iter().map(|(place, number)| {
                    let key = list(place, number);
                    let appends = random.random_bool(0.6);
                    let step =
                        if appends { MicroOp::append(key, element()) } else { MicroOp::read(key) };
                    (place, step)
                });
                Self::Lists(steps.collect())
            }
            50..80 => {
                let mine: Vec<_> = accounts().filter(|one| is_there(one.0)).collect();
                let two: Vec<_> = mine.choose_multiple(random, 2).copied().collect();
                Self::Pay { from: two[0], to: two[1], amount: random.random_range(1..=40) }
            }
            80..93 => Self::Mark(id.to_owned()),
            _ => Self::Balances,
        }
    }

    /// The ops at each participant, in the order of the steps.
    pub(super) fn branches(&self) -> BTreeMap<usize, Vec<Value>> {
        let ops: Vec<(usize, Value)> = match self {
            Self::Lists(steps) => {
                let op = |(place, step): &(usize, MicroOp)| match step {
                    MicroOp::Append(key, element) => {
                        (*place, append(*place, &key.to_string(), *element))
                    }
                    MicroOp::Read(key, _) => (*place, read(*place, &key.to_string())),
                };
                steps.iter().map(op).collect()
            }
            Self::Pay { from, to, amount } => {
                vec![(from.0, add(*from, -amount)), (to.0, add(*to, *amount))]
            }
            Self::Balances => accounts().map(|one| (one.0, balance(one))).collect(),
            Self::Mark(id) => (0..PLACES.len()).map(|place| (place, mark(place, id))).collect(),
        };
        let mut branches: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
        for (place, op) in ops {
            branches.entry(place).or_default().push(op);
        }
        branches
    }

    /// What a history has of it.
    pub(super) fn action(&self) -> Action {
        match self {
            Self::Lists(steps) => Action::Txn(steps.iter().map(|(_, step)| step.clone()).collect()),
            Self::Pay { from, to, amount } => Action::Transfer(Transfer {
                from: account(*from),
                to: account(*to),
                amount: *amount,
            }),
            Self::Balances => Action::Balances(None),
            Self::Mark(id) => {
                let branches = PLACES.map(str::to_owned).to_vec();
                Action::Mark(Mark { id: id.clone(), branches })
            }
        }
    }

    /// The same with the answers, if the replies are such: those of all branches, in the order of
    /// the participants.
    pub(super) fn answered(&self, replies: &[Value]) -> Option<Action> {
        match self {
            Self::Pay { .. } => (replies.len() == 2).then(|| self.action()),
            Self::Mark(_) => (replies.len() == PLACES.len()).then(|| self.action()),
            Self::Balances => {
                let balance = |(one, reply)| Some((account(one), integer(value(reply)?)?));
                let balances: Option<BTreeMap<_, _>> =
                    accounts().zip(replies).map(balance).collect();
                Some(Action::Balances(Some(
                    balances.filter(|all| all.len() == accounts().count())?,
                )))
            }
            Self::Lists(steps) if steps.len() == replies.len() => {
                let answered = steps.iter().zip(replies).map(|((_, step), reply)| match step {
                    MicroOp::Append(..) => Some(step.clone()),
                    MicroOp::Read(key, _) => {
                        Some(MicroOp::Read(key.clone(), Some(elements(reply)?)))
                    }
                });
                Some(Action::Txn(answered.collect::<Option<_>>()?))
            }
            Self::Lists(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The replies of both kinds are read as the same.
    #[test]
    fn a_reply_of_a_statement_and_one_of_a_command_say_the_same() {
        let step = |place| (place, MicroOp::read(list(place, 7)));
        let work = MixedWork::Lists(vec![step(0), step(1)]);
        let replies = [json!(["4", "5"]), json!({"rows": [{"v": [4, 5]}]})];
        let saw = |place| MicroOp::saw(list(place, 7), [4, 5]);
        assert_eq!(work.answered(&replies), Some(Action::Txn(vec![saw(0), saw(1)])));
        assert_eq!(work.answered(&replies[..1]), None);
        assert_eq!(work.answered(&[json!(null), json!({"rows": []})]), None);
    }
}
