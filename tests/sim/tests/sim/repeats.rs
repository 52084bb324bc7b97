//! One seed is one run.

use assent_sim::{Config, Losses};

#[test]
fn the_same_seed_tells_the_same_story_byte_for_byte() {
    for (seed, losses) in [(1, Losses::Never), (2, Losses::Always)] {
        let config = Config { transactions: 200, losses, ..Config::new(seed) };
        let (one, two) = (assent_sim::tell(config), assent_sim::tell(config));
        assert!(one.trace.lines().count() > 1_000, "seed {seed}: hardly anything is told");
        assert!(one == two, "seed {seed} does not repeat itself");
        let untold = assent_sim::run(config);
        assert_eq!(untold.report, one.report, "telling changes what happens");
    }
}

#[test]
fn another_seed_tells_another_story() {
    let tell = |seed| assent_sim::tell(Config { transactions: 20, ..Config::new(seed) }).trace;
    assert!(tell(1) != tell(2));
}
