//! The set of commands, held against what is written of it by hand: its page, the steps to add one,
//! the differential test.

use std::collections::BTreeMap;

use assent_common::command::{Access, COMMANDS, RunBy};

use super::root;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    section.split("\n## ").next().unwrap()
}

/// Promise: the page has every command, says rightly which of them only read, and has no other.
#[test]
fn the_page_of_commands_has_the_set_and_who_only_reads() {
    let page = read("docs/reference/commands.md");
    let mut listed = BTreeMap::new();
    for row in section(&page, "The set").lines().filter(|line| line.starts_with("| `")) {
        for entry in row.split('|').nth(1).unwrap().split(',') {
            let name = entry.split('`').nth(1).unwrap().to_owned();
            assert_eq!(listed.insert(name, entry.contains("*r*")), None, "twice: {entry}");
        }
    }
    let is_read = |access| access == Access::Shared;
    let set: BTreeMap<String, bool> =
        COMMANDS.iter().map(|command| (command.name.to_owned(), is_read(command.access))).collect();
    assert_eq!(listed, set);
}

/// Promise: no command is in the set that was not compared with the real one. Those without a
/// handler are called as the server's documentation says.
#[test]
fn the_differential_test_generates_every_command() {
    let generator = read("participant/tests/store/differential/generate.rs")
        + &read("participant/tests/store/documented/mod.rs");
    // What Redis has no command for is tested for itself.
    let is_of_redis = |name: &str| !name.starts_with("ASSENT.");
    let is_missing = |name: &&str| is_of_redis(name) && !generator.contains(&format!("\"{name}\""));
    let handled = COMMANDS.iter().filter(|command| command.run_by == RunBy::Handler);
    let missing: Vec<&str> = handled.map(|command| command.name).filter(is_missing).collect();
    assert!(missing.is_empty(), "never compared with Redis: {missing:?}");
}

/// Promise: who adds a command by the steps finds each file that they name, with the example in it.
#[test]
fn the_steps_to_add_a_command_lead_to_files_that_have_the_example() {
    let page = read("CONTRIBUTING.md");
    let steps = section(&page, "Add a Redis command");
    let steps = steps.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    let paths: Vec<&str> = steps.map(|step| step.split('`').nth(1).unwrap()).collect();
    assert_eq!(paths.len(), 11, "{paths:?}");
    for path in paths {
        assert!(read(path).contains("GETRANGE"), "{path} has no GETRANGE");
    }
}
