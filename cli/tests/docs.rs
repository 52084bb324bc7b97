//! `docs/reference/cli.md` and `docs/reference/config.md` say what the command line is. `UPDATE=1 cargo test -p assent --test docs` writes
//! them anew.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::path::{Path, PathBuf};

fn is_current(file: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference").join(file);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let first = written.lines().zip(page.lines()).find(|(a, b)| a != b);
    assert!(
        written == page,
        "docs/reference/{file} is not what the command line is (first difference: {first:?}): UPDATE=1 cargo test -p assent \
         --test docs"
    );
}

#[test]
fn the_page_of_the_commands_is_current() {
    is_current("cli.md", &assent::cli_page());
}

#[test]
fn the_page_of_the_settings_is_current() {
    is_current("config.md", &assent::config_page());
}

#[test]
fn the_command_line_is_consistent() {
    assent::command().debug_assert();
}

#[test]
fn every_setting_has_the_name_of_its_key() {
    let page = assent::config_page();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let (key, flag, variable) = (cells[1], cells[2], cells[3]);
        // A list is named in the singular where it is repeated.
        let lists = ["participants", "coordinators", "peers", "allowed_hosts", "routes"];
        let name = if lists.contains(&key) { key.trim_end_matches('s') } else { key };
        let named = format!("--{}", name.replace('_', "-"));
        assert!(flag.starts_with(&named), "{line}");
        assert!(
            variable.ends_with(&key.to_uppercase()) && variable.starts_with("ASSENT_"),
            "{line}"
        );
    }
}

/// What follows the word `assent` in prose and in the names of compose's projects.
const PROSE: [&str; 4] = ["from", "binary", "up", "exec"];

/// Every text that may name a command to somebody: the pages, and the sources with their messages.
fn texts() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut dirs: Vec<PathBuf> = [
        "docs",
        "deploy",
        "cli/src",
        "coordinator/src",
        "participant/src",
        "common/src",
        "check/src",
        "client/src",
        "resp/src",
    ]
    .iter()
    .map(|dir| root.join(dir))
    .collect();
    let mut files = vec![root.join("README.md"), root.join("ARCHITECTURE.md")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => dirs.push(path),
                false => files.push(path),
            }
        }
    }
    let is_text = |path: &PathBuf| {
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        ["md", "rs", "yaml", "service"].contains(&extension.as_str())
    };
    files.retain(is_text);
    files.into_iter().map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap())).collect()
}

/// Where `assent` is followed by a word: the rest of the line from there. Lines that a string goes on over are one.
fn mentions(text: &str) -> Vec<String> {
    let mut joined = String::new();
    let mut goes_on = false;
    for line in text.lines() {
        // The string drops the spaces before it, as the compiler does.
        let line = if goes_on { line.trim_start() } else { line };
        goes_on = line.ends_with('\\');
        match line.strip_suffix('\\') {
            Some(begun) => joined.push_str(begun),
            None => {
                joined.push_str(line);
                joined.push('\n');
            }
        }
    }
    let is_word_before = |at: usize| {
        joined[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || "-_/.:".contains(c))
    };
    let found = joined.match_indices("assent ").filter(|(at, _)| !is_word_before(*at));
    found
        .map(|(at, word)| {
            joined[at + word.len()..].lines().next().unwrap_or("").trim_start().to_owned()
        })
        .filter(|rest| rest.starts_with(|first: char| first.is_ascii_lowercase()))
        .collect()
}

/// What is wrong with the command that a mention begins with.
fn wrong(command: &clap::Command, mention: &str) -> Option<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '-' || c == '|';
    let mut command = command;
    let mut words = mention.split(' ');
    let mut depth = 0;
    while command.has_subcommands()
        && let Some(word) = words.next()
    {
        let token = word;
        let word = token.split(|c| !is_name(c)).next().unwrap_or("");
        let mut names = word.split('|').filter(|name| !name.is_empty() && !name.starts_with('-'));
        let Some(first) = names.next() else { break };
        if depth == 0 && PROSE.contains(&first) {
            return None;
        }
        for name in std::iter::once(first).chain(names) {
            if command.find_subcommand(name).is_none() {
                return Some(format!("{name:?} is no command of {}", command.get_name()));
            }
        }
        command = command.find_subcommand(first).unwrap();
        depth += 1;
        // A list of commands ends it, and so does the end of the quotation.
        if word.contains('|') || word != token {
            break;
        }
    }
    let said = mention.split(['`', '"', '\'', '(', ')', ';', '#']).next().unwrap_or("");
    // What follows `--` alone is another command's.
    let said = said.split(" -- ").next().unwrap_or("");
    let flags = said.split([' ', ',', '|']).filter_map(|word| word.strip_prefix("--"));
    for flag in flags.map(|flag| flag.split(|c| !is_name(c)).next().unwrap_or("")) {
        let is_known = |arg: &clap::Arg| arg.get_long() == Some(flag);
        if !flag.is_empty() && !command.get_arguments().any(is_known) {
            return Some(format!("--{flag} is no flag of {}", command.get_name()));
        }
    }
    None
}

#[test]
fn every_command_that_a_page_or_a_message_names_exists() {
    let mut command = assent::command();
    command.build();
    let mut count = 0;
    let mut all_wrong = Vec::new();
    for (path, text) in texts() {
        for mention in mentions(&text) {
            count += 1;
            if let Some(why) = wrong(&command, &mention) {
                all_wrong.push(format!("{}: assent {mention}: {why}", path.display()));
            }
        }
    }
    assert!(all_wrong.is_empty(), "{}", all_wrong.join("\n"));
    assert!(count > 100, "only {count} were found: the search is broken");
}

#[test]
fn a_command_that_is_none_is_seen() {
    let mut command = assent::command();
    command.build();
    for good in [
        "branch resolve TXID --participant NAME`",
        "log verify|dump`",
        "participants remove NAME --force`",
        "tx list --in-doubt says",
        "config show coordinator -- --listen …",
        "init makes a log",
    ] {
        assert_eq!(wrong(&command, good), None, "{good}");
    }
    for bad in ["branch vanish`", "resolve", "log verify|restore", "tx list --in-debt`"] {
        assert!(wrong(&command, bad).is_some(), "{bad}");
    }
}
