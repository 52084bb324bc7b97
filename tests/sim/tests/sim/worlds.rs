//! Many worlds: no promise is broken in any, all of them heal, and together they meet what matters.

use assent_sim::{Config, Losses, Report, regression};

/// Some twenty seconds of one core. `make sim` runs many more.
const WORLDS: u64 = 240;

fn hold(seeds: std::ops::Range<u64>, losses: Losses) -> Report {
    let mut total = Report::default();
    for seed in seeds {
        let config = Config { losses, ..Config::new(seed) };
        let run = assent_sim::run(config);
        if let Err(violation) = run.result {
            let kept = regression::text(&config, &violation.to_string());
            panic!("keep this under tests/sim/regressions, and see it by --reproduce:\n{kept}");
        }
        total += &run.report;
    }
    total
}

fn met(least: &[(&str, u64)]) {
    for (what, times) in least {
        assert!(*times >= 20, "{what}: met {times} times only");
    }
}

#[test]
fn of_faults_and_crashes_hold_and_heal() {
    let total = hold(0..WORLDS, Losses::Never);
    assert_eq!(total.losses, 0);
    met(&[
        ("committed", total.committed),
        ("aborted", total.aborted),
        ("unknown at first", total.unknown_at_first),
        ("coordinator crashes", total.coordinator_crashes),
        ("agent crashes", total.agent_crashes),
        ("partitions", total.partitions),
        ("failed syncs", total.failed_syncs),
        ("torn tails", total.torn_tails),
        ("compactions", total.compactions),
        ("resumed", total.resumed),
        ("learned by asking", total.learned_by_asking),
        ("settled as committed", total.settled_as_committed),
        ("settled as aborted", total.settled_as_aborted),
        ("forgotten", total.forgotten),
        ("retried", total.retried),
        ("one-phase questions", total.one_phase_questions),
        ("hooks asked", total.hooks_asked),
        ("waits", total.waits),
        ("duplicated", total.duplicated),
    ]);
}

#[test]
fn in_which_redis_servers_lose_data_are_repaired() {
    let total = hold(0..WORLDS / 2, Losses::Always);
    met(&[
        ("losses", total.losses),
        ("holes", total.holes),
        ("revived votes", total.revived),
        ("fenced", total.fenced),
        ("opened", total.opened),
        ("redone", total.redone),
        ("Redis answers lost", total.redis_answers_lost),
        ("accepted", total.accepted),
        ("committed", total.committed),
    ]);
    // It takes a loss between an answer that went astray and the next question.
    assert!(total.unlogged_redone >= 10, "{} unlogged redone", total.unlogged_redone);
    let sound = total.worlds - total.unsound_worlds;
    assert!(sound > total.worlds / 3, "balances add up in {sound} worlds only");
}
