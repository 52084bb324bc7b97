//! List-append beside the `adya` crate, an independent implementation of what Elle does.

use std::collections::BTreeSet;

use adya::r#gen::{GenOpts, Kind as Workload};
use adya::sim::{Isolation, SimOpts};
use adya::{Opts, Valid, Workload as Model};
use assent_checkers::generate::{Plan, generate, to_lines};
use assent_checkers::list_append::{Level, check_at};
use assent_checkers::{History, Report, Verdict};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::generated::MUTATIONS;
use crate::support::{BAD, GOOD, transactions};

fn theirs(lines: &str, level: Level) -> adya::Report {
    let model = match level {
        Level::Serializable => "serializable",
        Level::StrictSerializable => "strict-serializable",
    };
    let history = adya::History::from_json(lines).unwrap();
    let options = Opts { models: vec![model.to_owned()], ..Opts::default() };
    adya::check(&history, Model::ListAppend, &options)
}

fn ours(lines: &str, level: Level) -> Report {
    check_at(&History::parse(lines).unwrap(), level)
}

/// Hand-made histories that they accept, and why that is so.
const ONLY_OURS: &[(&str, &str)] =
    &[("an element from nowhere", "they do not ask who appended what was read")];

/// The same verdict; `unknown` of theirs is a history without any dependency.
fn agree(what: &str, lines: &str, level: Level) -> (Report, adya::Report) {
    let (ours, theirs) = (ours(lines, level), theirs(lines, level));
    match theirs.valid {
        Valid::Unknown => {}
        valid => assert_eq!(
            ours.verdict == Verdict::Holds,
            valid == Valid::True,
            "{what}, {level:?}: they say {:?}\n{ours}",
            theirs.anomaly_types
        ),
    }
    (ours, theirs)
}

/// Names that both have. We do not tell adjacent anti-dependencies from others, nor item from predicate reads (there are
/// none); a lost append is to them a stale read only, and a dirty update to us a dirty read only.
fn named<'n>(names: impl IntoIterator<Item = &'n str>) -> BTreeSet<String> {
    let beside = ["lost-append", "dirty-update", "empty-transaction-graph"];
    let names = names.into_iter().filter(|name| !beside.contains(name));
    let same = |name: &str| {
        let name = name.replace("-item", "").replace("duplicate-elements", "duplicate-element");
        name.replace("G-nonadjacent", "G2")
    };
    names.map(same).collect()
}

const LEVELS: [Level; 2] = [Level::Serializable, Level::StrictSerializable];

#[test]
fn hand_made_histories() {
    for (what, _, lines) in BAD {
        let lines = to_lines(&transactions(lines));
        for level in LEVELS {
            if ONLY_OURS.iter().any(|(only, _)| only == what) {
                let (ours, theirs) = (ours(&lines, level), theirs(&lines, level));
                assert_ne!(theirs.valid, Valid::False, "{what}: they have learnt it");
                assert_ne!(ours.verdict, Verdict::Holds, "{what}");
            } else {
                let (ours, theirs) = agree(what, &lines, level);
                assert_eq!(
                    named(ours.names()),
                    named(theirs.anomaly_types.iter().map(String::as_str)),
                    "{what}, {level:?}"
                );
            }
        }
    }
    for (what, lines) in GOOD {
        for level in LEVELS {
            agree(what, &to_lines(&transactions(lines)), level);
        }
    }
}

#[test]
fn generated_and_spoiled_histories() {
    for seed in 0..12 {
        let workload = assent_checkers::generate::Workload::ListAppend;
        let plan = Plan { workload, operations: 200, processes: 8, seed };
        let events = generate(plan);
        for level in LEVELS {
            agree(&format!("seed {seed}"), &to_lines(&events), level);
        }
        for (what, mutate) in MUTATIONS {
            let mut events = events.clone();
            if mutate(&mut events, &mut StdRng::seed_from_u64(seed)) {
                for level in LEVELS {
                    agree(&format!("{what}, seed {seed}"), &to_lines(&events), level);
                }
            }
        }
    }
}

#[test]
fn histories_of_their_simulated_databases() {
    for name in
        ["serializable", "snapshot-isolation", "read-committed", "read-uncommitted", "lost-update"]
    {
        let mut wrong = 0;
        for seed in 0..20 {
            let lines = adya::sim::run(&SimOpts {
                isolation: Isolation::parse(name).unwrap(),
                processes: 6,
                txns: 200,
                abort_rate: 0.05,
                info_rate: 0.05,
                r#gen: GenOpts {
                    kind: Workload::ListAppend,
                    key_count: 4,
                    min_txn_len: 1,
                    max_txn_len: 4,
                    max_writes_per_key: 16,
                },
                seed,
            });
            for level in LEVELS {
                let (ours, _) = agree(&format!("{name}, seed {seed}"), &lines, level);
                wrong += usize::from(ours.verdict != Verdict::Holds);
            }
        }
        assert_eq!(wrong == 0, name == "serializable", "{name}: {wrong} are wrong");
    }
}
