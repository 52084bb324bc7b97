//! Generated histories hold; spoiled ones do not.

use assent_checkers::generate::{Plan, Workload, generate, to_lines};
use assent_checkers::{
    Action, Body, Checker, Document, Event, History, Kind, MicroOp, RegisterOp, Report, check,
    check_all,
};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

const SEEDS: u64 = 40;

fn events(workload: Workload, seed: u64) -> Vec<Event> {
    let processes = 1 + (seed as usize % 10);
    generate(Plan { workload, operations: 400, processes, seed })
}

fn judge(checker: Checker, events: Vec<Event>) -> Report {
    check(checker, &History::of(events).unwrap())
}

#[test]
fn what_is_right_by_construction_is_accepted() {
    for workload in Workload::ALL {
        for seed in 0..SEEDS {
            let events = events(workload, seed);
            let history = History::parse(&to_lines(&events)).unwrap();
            assert_eq!(history, History::of(events).unwrap());
            let reports = check_all(&history);
            assert!(reports.iter().any(Report::holds), "{workload:?} {seed}");
            for report in reports {
                assert!(report.anomalies().is_empty(), "{workload:?} {seed}: {report}");
            }
        }
    }
}

#[test]
fn the_same_seed_is_the_same_history() {
    for workload in Workload::ALL {
        assert_eq!(events(workload, 7), events(workload, 7));
        assert_ne!(events(workload, 7), events(workload, 8));
    }
}

/// A read that a committed transaction was told: which event, which step, of what.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    event: usize,
    step: usize,
}

fn elements(events: &mut [Event], place: Place) -> &mut Vec<i64> {
    match &mut events[place.event].body {
        Body::Action(Action::Txn(steps)) => match &mut steps[place.step] {
            MicroOp::Read(_, Some(elements)) => elements,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn txn(event: &Event) -> &[MicroOp] {
    match &event.body {
        Body::Action(Action::Txn(steps)) => steps,
        _ => &[],
    }
}

/// Committed reads whose last element was appended by another transaction.
fn reads(events: &[Event]) -> Vec<Place> {
    let mut places = Vec::new();
    for (number, event) in events.iter().enumerate().filter(|(_, event)| event.kind == Kind::Ok) {
        let steps = txn(event);
        for (step, what) in steps.iter().enumerate() {
            let MicroOp::Read(key, Some(elements)) = what else { continue };
            let own = |element: &i64| steps.contains(&MicroOp::Append(key.clone(), *element));
            if elements.last().is_some_and(|last| !own(last)) {
                places.push(Place { event: number, step });
            }
        }
    }
    places
}

/// The event that began what this one ended.
fn begin(events: &[Event], end: usize) -> usize {
    (0..end).rev().find(|number| events[*number].process == events[end].process).unwrap()
}

/// The confirmed completion of whoever appended the last element of this read.
fn writer(events: &[Event], place: Place) -> Option<usize> {
    let MicroOp::Read(key, Some(read)) = &txn(&events[place.event])[place.step] else {
        return None;
    };
    let append = MicroOp::Append(key.clone(), *read.last()?);
    let wrote = |event: &Event| event.kind == Kind::Ok && txn(event).contains(&append);
    events.iter().position(wrote)
}

/// Whether the second read is the beginning of the first, and long enough to have an order.
fn begins(long: &MicroOp, short: &MicroOp) -> bool {
    match (long, short) {
        (MicroOp::Read(key, Some(long)), MicroOp::Read(other, Some(short))) => {
            key == other && short.len() > 1 && long.starts_with(short)
        }
        _ => false,
    }
}

/// Whether the writer of what was read last had ended before the reader began.
fn is_late(events: &[Event], place: Place) -> bool {
    writer(events, place).is_some_and(|writer| writer < begin(events, place.event))
}

/// A way to spoil a list-append history, such that it has no explanation any more.
type Mutation = fn(&mut Vec<Event>, &mut StdRng) -> bool;

pub(crate) const MUTATIONS: &[(&str, Mutation)] = &[
    ("a read forgets its last element", |events, rng| {
        let mut places = reads(events);
        places.shuffle(rng);
        let Some(place) = places.iter().find(|place| is_late(events, **place)) else {
            return false;
        };
        elements(events, *place).pop();
        true
    }),
    ("a read has two elements in another order", |events, rng| {
        let mut places = reads(events);
        let known: Vec<(usize, &MicroOp)> = places
            .iter()
            .map(|place| (place.event, &txn(&events[place.event])[place.step]))
            .collect();
        let longer = |event: usize, step: &MicroOp| {
            known.iter().any(|(other, read)| *other != event && begins(read, step))
        };
        places.retain(|place| longer(place.event, &txn(&events[place.event])[place.step]));
        let Some(place) = places.choose(rng) else { return false };
        let read = elements(events, *place);
        let last = read.len() - 1;
        read.swap(last - 1, last);
        true
    }),
    ("an element is read twice", |events, rng| {
        let places = reads(events);
        let Some(place) = places.choose(rng) else { return false };
        let read = elements(events, *place);
        read.extend(read.last().copied());
        true
    }),
    ("what was read had failed", |events, rng| {
        let places = reads(events);
        let Some(writer) = places.choose(rng).and_then(|place| writer(events, *place)) else {
            return false;
        };
        events[writer].kind = Kind::Fail;
        true
    }),
    ("a confirmed append is in no read", |events, rng| {
        let mut places = reads(events);
        places.shuffle(rng);
        let Some(place) = places.into_iter().find(|place| is_late(events, *place)) else {
            return false;
        };
        let lost = *elements(events, place).last().unwrap();
        let MicroOp::Read(key, _) = txn(&events[place.event])[place.step].clone() else {
            return false;
        };
        for event in events.iter_mut() {
            let Body::Action(Action::Txn(steps)) = &mut event.body else { continue };
            for step in steps {
                if let MicroOp::Read(other, Some(read)) = step {
                    read.retain(|element| *other != key || *element != lost);
                }
            }
        }
        true
    }),
    ("the answer came before the question of who wrote it", |events, rng| {
        let mut places = reads(events);
        places.shuffle(rng);
        let Some(place) = places.into_iter().find(|place| writer(events, *place).is_some()) else {
            return false;
        };
        // Both events of the reader go to the front: it has read what is yet to be asked for.
        let end = events.remove(place.event);
        let process = end.process.clone();
        let start = (0..place.event).rev().find(|number| events[*number].process == process);
        let start = events.remove(start.unwrap());
        events.splice(0..0, [start, end]);
        for (index, event) in (0..).zip(events.iter_mut()) {
            event.index = index;
        }
        true
    }),
];

#[test]
fn every_mutation_of_a_list_append_history_is_rejected() {
    for (what, mutate) in MUTATIONS {
        let mut spoiled = 0;
        for seed in 0..SEEDS {
            let mut events = events(Workload::ListAppend, seed);
            let mut rng = StdRng::seed_from_u64(seed);
            if !mutate(&mut events, &mut rng) {
                continue;
            }
            spoiled += 1;
            let report = judge(Checker::ListAppend, events);
            assert!(!report.anomalies().is_empty(), "{what}, seed {seed}: {report}");
        }
        assert!(spoiled > SEEDS / 2, "{what}: only {spoiled} of {SEEDS} could be spoiled");
    }
}

#[test]
fn a_wrong_answer_of_a_register_is_rejected() {
    for seed in 0..SEEDS {
        let mut events = events(Workload::Register, seed);
        let mut rng = StdRng::seed_from_u64(seed);
        let read = |event: &mut Event| match &mut event.body {
            Body::Action(Action::Register(_, RegisterOp::Read(value)))
                if event.kind == Kind::Ok =>
            {
                Some(value.replace(99))
            }
            _ => None,
        };
        let number = (0..events.len())
            .cycle()
            .skip(rng.random_range(0..events.len()))
            .find(|number| read(&mut events[*number]).is_some());
        assert!(number.is_some());
        let report = judge(Checker::Register, events);
        assert_eq!(report.names(), ["not-linearizable"], "{seed}");
    }
}

/// Spoils the document that the world closed with.
fn spoil(workload: Workload, seed: u64, spoil: impl Fn(&mut Document) -> bool) -> History {
    let mut events = events(workload, seed);
    let spoiled = events.iter_mut().rev().any(|event| match &mut event.body {
        Body::Document(document) => spoil(document),
        _ => false,
    });
    assert!(spoiled, "{workload:?} {seed}");
    History::of(events).unwrap()
}

#[test]
fn a_wrong_end_is_rejected() {
    for seed in 0..SEEDS {
        let bank = spoil(Workload::Bank, seed, |document| match document {
            Document::FinalBalances(balances) => {
                *balances.get_mut("a:0").unwrap() += 1;
                true
            }
            _ => false,
        });
        assert!(check(Checker::Bank, &bank).names().contains(&"wrong-total"));
        let counter = spoil(Workload::Counter, seed, |document| match document {
            Document::FinalCounts(counts) => {
                let count = counts.get_mut("c").unwrap();
                let ids = count.ids.as_mut().unwrap();
                ids.extend(ids.first().cloned());
                true
            }
            _ => false,
        });
        assert!(check(Checker::Counter, &counter).names().contains(&"double-increment"));
        let marks = spoil(Workload::Marks, seed, |document| match document {
            Document::FinalMarks(marks) => {
                let there = |branch: &str, id: &String| marks[branch].contains(id);
                let both = marks["a"].iter().find(|id| there("b", id)).cloned();
                marks.get_mut("b").unwrap().retain(|id| Some(id) != both.as_ref());
                both.is_some()
            }
            _ => false,
        });
        assert_eq!(check(Checker::Atomicity, &marks).names(), ["torn"]);
        let state = spoil(Workload::Marks, seed, |document| match document {
            Document::FinalState(state) => {
                state.locked.insert("a".to_owned(), vec!["k".to_owned()]);
                true
            }
            _ => false,
        });
        assert_eq!(check(Checker::Liveness, &state).names(), ["left-locked"]);
    }
}

#[test]
fn a_violation_in_a_large_history_is_found_and_short() {
    let plan = Plan { workload: Workload::ListAppend, operations: 5_000, processes: 12, seed: 3 };
    for (what, mutate) in MUTATIONS {
        let mut events = generate(plan);
        assert!(mutate(&mut events, &mut StdRng::seed_from_u64(1)), "{what}");
        let report = judge(Checker::ListAppend, events);
        assert!(!report.anomalies().is_empty(), "{what}: {report}");
        let shortest = report.anomalies().iter().map(|anomaly| anomaly.cycle.len()).min();
        assert!(shortest < Some(8), "{what}: {report}");
    }
}
