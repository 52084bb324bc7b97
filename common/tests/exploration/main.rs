//! Seeded random exploration of the protocol: the real coordinator machines, the real participant machines, a log, and
//! a network that loses, delays, repeats and reorders; the coordinator crashes and recovers from what was durable.
//!
//! After every event every property of [`checks`] is checked. Then the world is healed, and every transaction must end
//! and every lock be free. A failure names its seed and prints what happened: `ASSENT_EXPLORE_SEED=<seed>` runs that one
//! alone, `ASSENT_EXPLORE_RUNS=<n>` runs more of them.
//!
//! What is assumed of the network, because HTTP promises it: a request whose answer was heard has no other copy under
//! way. A copy outlives its call only if the result of the call was *unknown*.

mod checks;
mod coordinator;
mod world;

use world::{Mutant, World};

/// Some thousand runs take some seconds without optimisation.
const RUNS: u64 = 12_000;

/// Within so many runs every mutant must have been caught.
const MUTANT_RUNS: u64 = 3_000;

#[expect(
    clippy::disallowed_methods,
    reason = "a test is no core: this is how a failing seed is run again"
)]
fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// One run; what went wrong, if anything did.
fn run(seed: u64, mutant: Option<Mutant>, trace: &mut Option<Vec<String>>) -> Result<(), String> {
    let mut world = World::new(seed, mutant, trace.take());
    let result = world.explore().and_then(|()| world.heal());
    *trace = world.into_trace();
    result
}

/// The same run again, told step by step.
fn story(seed: u64, why: &str) -> String {
    let mut trace = Some(Vec::new());
    let again = run(seed, None, &mut trace);
    assert_eq!(again, Err(why.to_owned()), "seed {seed} does not repeat itself");
    let told = trace.unwrap_or_default().join("\n");
    format!("{told}\n\nseed {seed}: {why}\nASSENT_EXPLORE_SEED={seed} runs it alone")
}

#[test]
fn no_run_of_faults_and_crashes_breaks_a_promise_and_every_one_can_be_healed() {
    let runs = from_environment("ASSENT_EXPLORE_RUNS").unwrap_or(RUNS);
    let seeds = match from_environment("ASSENT_EXPLORE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..runs,
    };
    for seed in seeds {
        if let Err(why) = run(seed, None, &mut None) {
            panic!("{}", story(seed, &why));
        }
    }
}

/// An exploration that cannot fail proves nothing: each known-bad variant of the world must be caught.
#[test]
fn every_mutant_is_caught() {
    for mutant in Mutant::ALL {
        // Safety alone, before anything is healed: a mutant that only leaves something behind would prove little.
        let caught =
            (0..MUTANT_RUNS).find_map(|seed| World::new(seed, Some(*mutant), None).explore().err());
        assert!(caught.is_some(), "{mutant:?} was not caught in {MUTANT_RUNS} runs");
    }
}

/// Exploration means little if the runs all look the same: the paths that matter must be met.
#[test]
fn the_runs_meet_commits_aborts_retries_recoveries_and_one_phase_questions() {
    let mut met = checks::Met::default();
    for seed in 0..500 {
        let mut world = World::new(seed, None, None);
        assert_eq!(world.explore().and_then(|()| world.heal()), Ok(()), "seed {seed}");
        met.add(world.met());
    }
    let least = [
        ("two-phase commits", met.decided),
        ("one-phase commits", met.one_phase),
        ("branches dropped", met.dropped),
        ("retried attempts that committed", met.retried),
        ("commits finished after a crash", met.recovered),
        ("waits for a younger holder", met.waits),
        ("told aborted", met.told_aborted),
        ("outcomes learned by asking", met.asked),
    ];
    for (what, times) in least {
        assert!(times >= 20, "{what}: met {times} times only");
    }
}
