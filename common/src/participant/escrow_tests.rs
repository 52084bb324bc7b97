//! The rule of escrow against brute force: what it grants is right by every outcome, in every order; what it refuses for
//! good is right by none.

use super::*;
use crate::command::{Claim, EscrowKind, Step};
use crate::ids::Attempt;
use crate::value::Arg;

const INCARNATION: u64 = 7;

fn txid(n: u64) -> Txid {
    let log_id = "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e".parse().unwrap();
    Txid { log_id, number: TxNumber { epoch: Epoch(5), n }, attempt: Attempt::FIRST }
}

fn id(age: u64) -> TransactionId {
    format!("0198f1c2-a4b2-7c1d-9c0e-{age:012x}").parse().unwrap()
}

/// Numbers that look random, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn signed(&mut self, reach: i64) -> i64 {
        i64::try_from(self.below(2 * reach.cast_unsigned() + 1)).unwrap() - reach
    }
}

/// Ops that each add, and what the value must be behind each.
type Steps = Vec<(i64, i64, i64)>;

fn claim(steps: &Steps) -> Claim {
    let mut sum = 0;
    let steps = steps.iter().map(|(delta, at_least, at_most)| {
        sum += delta;
        Step { op: 0, command: "INCRBY", sum, at_least: *at_least, at_most: *at_most }
    });
    Claim { key: Arg::from("k"), field: None, steps: steps.collect() }
}

/// A message to a branch of transaction `n`.
type Told = (Txid, BranchMessage<Prepare>);

fn prepare(n: u64, age: u64, mode: Mode, value: i64, steps: &Steps) -> Told {
    let delta = claim(steps).delta();
    let prepare = Prepare {
        branches: Branches::default(),
        id: id(age),
        mode,
        locks: vec![(Key::from("k"), Access::Escrow(EscrowKind::String))],
        evaluation: Ok(Evaluation {
            replies: "[]".into(),
            redo: delta.to_le_bytes()[..].into(),
            claims: vec![Claimed { claim: claim(steps), value }],
        }),
    };
    (txid(n), BranchMessage::Prepare(prepare))
}

fn step(participant: &mut Participant, (txid, message): Told) -> Stepped {
    participant.step(INCARNATION, txid, message)
}

/// Whether the ops of one transaction are right on this value.
fn fits(mut value: i128, steps: &Steps) -> bool {
    steps.iter().all(|(delta, at_least, at_most)| {
        value += i128::from(*delta);
        value >= i128::from(*at_least) && value <= i128::from(*at_most)
    })
}

fn delta(steps: &Steps) -> i128 {
    steps.iter().map(|(delta, ..)| i128::from(*delta)).sum()
}

/// Whether all of them are right, whichever of them commit, in whatever order: each meets the value and the deltas of any
/// of the others.
fn fit_in_every_order(value: i64, all: &[&Steps]) -> bool {
    all.iter().enumerate().all(|(place, steps)| {
        let others: Vec<_> = all.iter().enumerate().filter(|(at, _)| *at != place).collect();
        (0..1_u32 << others.len()).all(|chosen| {
            let chosen = others.iter().enumerate().filter(|(bit, _)| chosen & 1 << bit != 0);
            let sum: i128 = chosen.map(|(_, (_, other))| delta(other)).sum();
            fits(i128::from(value) + sum, steps)
        })
    })
}

/// What a script would find and do.
struct World {
    participant: Participant,
    value: i64,
    pending: BTreeMap<u64, Steps>,
}

impl World {
    fn apply(&mut self, redo: Option<Redo>) {
        let delta = redo.map_or(0, |redo| i64::from_le_bytes(redo[..].try_into().unwrap()));
        self.value = self.value.checked_add(delta).expect("no sum leaves 64 bits");
    }

    fn end(&mut self, n: u64, outcome: BranchMessage<Prepare>) {
        let steps = self.pending.remove(&n).unwrap();
        let is_commit = outcome == BranchMessage::Commit;
        let redo = step(&mut self.participant, (txid(n), outcome)).apply;
        assert_eq!(redo.is_some(), is_commit);
        assert!(!is_commit || fits(self.value.into(), &steps), "{n}: {steps:?} on {}", self.value);
        self.apply(redo);
    }

    fn prepare(&mut self, n: u64, age: u64, mode: Mode, steps: Steps) -> &'static str {
        let before = self.participant.clone();
        let others: Vec<&Steps> = self.pending.values().collect();
        let mut all = others.clone();
        all.push(&steps);
        let is_right = fit_in_every_order(self.value, &all);
        let outcomes = (0..1_u32 << others.len()).map(|chosen| {
            let chosen = others.iter().enumerate().filter(|(bit, _)| chosen & 1 << bit != 0);
            i128::from(self.value) + chosen.map(|(_, other)| delta(other)).sum::<i128>()
        });
        let is_possible = outcomes.clone().any(|value| fits(value, &steps));
        let told = format!("{} with {others:?}, and {steps:?}", self.value);
        let request = prepare(n, age, mode, self.value, &steps);
        let Stepped { answer, apply } = step(&mut self.participant, request);
        let BranchAnswer::Prepared(call) = answer else { panic!("{answer:?}") };
        let said = match call {
            Call::Applied(Prepared::Yes(_) | Prepared::Committed(_)) => {
                assert!(is_right, "granted: {told}");
                self.apply(apply);
                if mode == Mode::TwoPhase {
                    self.pending.insert(n, steps);
                }
                return "granted";
            }
            Call::Applied(Prepared::Wait(holder)) => {
                assert!(holder.id >= id(age), "{told}");
                "wait"
            }
            Call::Refused(refusal) if refusal.code == ErrorCode::LockConflict => {
                assert!(refusal.holder.unwrap().id < id(age), "{told}");
                "die"
            }
            Call::Refused(refusal) => {
                assert!(!is_possible, "{refusal:?}: {told}");
                "never"
            }
            Call::Unknown(why) => panic!("{why}"),
        };
        assert!(!is_right, "{said}: {told}");
        assert!(others.is_empty() <= (said == "never"), "{said} of nobody: {told}");
        assert_eq!(self.participant, before, "what is not granted changes nothing");
        said
    }
}

/// Small numbers about zero, or about either end of 64 bits, where every sum is at its limit.
fn steps(numbers: &mut Numbers, about: i64) -> Steps {
    let count = 1 + numbers.below(2) * numbers.below(2);
    let steps = (0..count).map(|_| {
        let at_least = match numbers.below(3) {
            0 => i64::MIN,
            _ => about.saturating_add(numbers.signed(4)),
        };
        let at_most = match numbers.below(4) {
            0 => at_least.saturating_add(i64::try_from(numbers.below(9)).unwrap()),
            _ => i64::MAX,
        };
        (numbers.signed(5), at_least, at_most)
    });
    steps.collect()
}

#[test]
fn what_is_granted_is_right_by_every_outcome_in_every_order_and_nothing_else_is() {
    let mut seen = BTreeMap::new();
    for seed in 0..600 {
        let mut numbers = Numbers(seed);
        let about = [0, 0, i64::MIN + 6, i64::MAX - 6][numbers.below(4) as usize];
        let value = about.saturating_add(numbers.signed(6));
        let participant = Participant::new(INCARNATION);
        let mut world = World { participant, value, pending: BTreeMap::new() };
        for n in 1..40 {
            let pending: Vec<u64> = world.pending.keys().copied().collect();
            let some = (!pending.is_empty())
                .then(|| pending[numbers.below(pending.len() as u64) as usize]);
            match (numbers.below(5), some) {
                (0, Some(n)) => world.end(n, BranchMessage::Commit),
                (1, Some(n)) => world.end(n, BranchMessage::Abort),
                _ if pending.len() < 5 => {
                    let mode = if numbers.below(4) == 0 { Mode::OnePhase } else { Mode::TwoPhase };
                    let (age, steps) = (1 + numbers.below(60), steps(&mut numbers, about));
                    *seen.entry(world.prepare(n, age, mode, steps)).or_insert(0) += 1;
                }
                _ => {}
            }
            // In memory and after a restart the reservations are what the pending ones say.
            let low = world.pending.values().map(|steps| delta(steps).min(0)).sum::<i128>();
            let range = world.participant.locks().range(&Key::from("k"), &None, world.value);
            assert_eq!(range.low, i128::from(world.value) + low);
            assert_eq!(world.participant.locks().is_empty(), world.pending.is_empty());
        }
    }
    for (answer, least) in [("granted", 2_000), ("wait", 300), ("die", 300), ("never", 500)] {
        assert!(seen[answer] > least, "{seen:?}");
    }
}

/// The point of it all: a sale of one item by many neither waits nor dies, down to the last one.
#[test]
fn many_sell_one_item_at_once_and_the_last_one_too() {
    let mut participant = Participant::new(INCARNATION);
    let sale = vec![(-1, 0, i64::MAX)];
    for n in 1..=100 {
        let answer = step(&mut participant, prepare(n, 200 - n, Mode::TwoPhase, 100, &sale)).answer;
        assert!(
            matches!(answer, BranchAnswer::Prepared(Call::Applied(Prepared::Yes(_)))),
            "{answer:?}"
        );
    }
    // All may be sold, or come back: not known yet, and it waits or dies.
    let sold_out = |participant: &mut Participant, age| match step(
        participant,
        prepare(500, age, Mode::TwoPhase, 100, &sale),
    )
    .answer
    {
        BranchAnswer::Prepared(Call::Applied(Prepared::Wait(_))) => "wait",
        BranchAnswer::Prepared(Call::Refused(refusal)) => refusal.code.as_str(),
        other => panic!("{other:?}"),
    };
    assert_eq!(sold_out(&mut participant, 1), "wait");
    assert_eq!(sold_out(&mut participant, 300), "lock_conflict");
    for n in 1..=100 {
        step(&mut participant, (txid(n), BranchMessage::Commit));
    }
    assert!(participant.locks().is_empty());
    let request = prepare(500, 300, Mode::TwoPhase, 0, &sale);
    let BranchAnswer::Prepared(Call::Refused(refusal)) = step(&mut participant, request).answer
    else {
        panic!("sold what is not there");
    };
    assert_eq!(refusal.code, ErrorCode::ExpectationFailed);
    assert_eq!(refusal.reply.as_deref(), Some(r#"{"at_least":-1,"at_most":-1}"#));
}

#[test]
fn escrow_excludes_readers_writers_and_counters_of_the_other_kind() {
    let lock = |n, access| {
        let prepare = Prepare {
            branches: Branches::default(),
            id: id(n),
            mode: Mode::TwoPhase,
            locks: vec![(Key::from("k"), access)],
            evaluation: Ok(Evaluation {
                replies: "[]".into(),
                redo: [1][..].into(),
                claims: Vec::new(),
            }),
        };
        (txid(n), BranchMessage::Prepare(prepare))
    };
    let (string, hash) = (Access::Escrow(EscrowKind::String), Access::Escrow(EscrowKind::Hash));
    let all = [Access::Shared, Access::Exclusive, string, hash];
    for held in all {
        for wanted in all {
            let mut participant = Participant::new(INCARNATION);
            step(&mut participant, lock(5, held));
            let answer = step(&mut participant, lock(6, wanted)).answer;
            let is_yes = matches!(answer, BranchAnswer::Prepared(Call::Applied(Prepared::Yes(_))));
            let shares = held == wanted && held != Access::Exclusive;
            assert_eq!(is_yes, shares, "{held:?}, {wanted:?}");
        }
    }
}

/// Two fields are two counters; the lock is that of the key.
#[test]
fn counters_of_one_hash_have_room_of_their_own() {
    let field = |n: u64, field: &str| {
        let steps = vec![(-1, 0, i64::MAX)];
        let claim = Claim { field: Some(Arg::from(field)), ..claim(&steps) };
        let prepare = Prepare {
            branches: Branches::default(),
            id: id(n),
            mode: Mode::TwoPhase,
            locks: vec![(Key::from("k"), Access::Escrow(EscrowKind::Hash))],
            evaluation: Ok(Evaluation {
                replies: "[]".into(),
                redo: [1][..].into(),
                claims: vec![Claimed { claim, value: 1 }],
            }),
        };
        (txid(n), BranchMessage::Prepare(prepare))
    };
    let mut participant = Participant::new(INCARNATION);
    let mut is_yes = |request| {
        let answer = step(&mut participant, request).answer;
        matches!(answer, BranchAnswer::Prepared(Call::Applied(Prepared::Yes(_))))
    };
    assert!(is_yes(field(1, "a")));
    assert!(is_yes(field(2, "b")));
    assert!(!is_yes(field(3, "a")));
}
