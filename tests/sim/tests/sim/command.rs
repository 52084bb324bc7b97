//! `assent-sim` as people run it.

use std::path::Path;
use std::process::{Command, Output};

fn assent_sim(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assent-sim"));
    command
        .current_dir(folder)
        .args(["--transactions", "40"])
        .args(args)
        .output()
        .expect("assent-sim runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
fn a_run_that_holds_ends_with_its_counts() {
    let folder = tempfile::tempdir().unwrap();
    let output = assent_sim(folder.path(), &["--iterations", "2", "--seed", "5"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("80 transactions\n"), "{}", stdout(&output));
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_seed_that_fails_leaves_its_story_and_a_file_that_reproduces_it() {
    let folder = tempfile::tempdir().unwrap();
    let output = assent_sim(folder.path(), &["--mutant", "no-fence"]);
    assert_eq!(output.status.code(), Some(1));
    let (mut files, mut story) = (Vec::new(), String::new());
    for entry in folder.path().read_dir().unwrap() {
        let path = entry.unwrap().path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => files.push(path),
            _ => story = std::fs::read_to_string(path).unwrap(),
        }
    }
    let [file] = &files[..] else { panic!("one regression file: {files:?}") };
    let again = assent_sim(folder.path(), &["--reproduce", file.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1));
    let told = stdout(&again);
    assert!(told.contains("violated: 6 an acknowledged abort has left its fence"), "{told}");
    let events = story.lines().take_while(|line| !line.is_empty()).count();
    assert!(
        told.lines().take(events).eq(story.lines().take(events)),
        "another process, another story"
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = assent_sim(folder.path(), &["--reproduce", "nowhere.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere.toml"));
}
