//! Seeds that once failed, and those that are kept because they meet something rare: each must hold.

use std::path::Path;

use assent_sim::{Config, Losses, Mutant, regression};

#[test]
fn hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no regression file was found: the test looks at the wrong place");
    for file in files {
        let config = regression::read(&file).unwrap_or_else(|error| panic!("{error}"));
        let run = assent_sim::run(config);
        assert_eq!(run.result, Ok(()), "{}", file.display());
    }
}

#[test]
fn are_read_back_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seed.toml");
    for mutant in [None, Some(Mutant::NoFence)] {
        let config = Config { seed: 7, transactions: 9, losses: Losses::Always, mutant };
        std::fs::write(&path, regression::text(&config, "why\nand more")).unwrap();
        assert_eq!(regression::read(&path).unwrap(), config);
    }
    std::fs::write(&path, "seed = 7\nlosess = \"never\"").unwrap();
    assert!(regression::read(&path).unwrap_err().to_string().contains("losess"));
}
