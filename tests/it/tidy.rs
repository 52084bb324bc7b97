//! The rules of the repository that no linter knows.

mod circles;
mod commands;
mod shape;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 600;

/// All that the pure crate may use: none of it does I/O or owns a clock.
const COMMON_MAY_USE: [&str; 9] = [
    "base64",
    "crc32c",
    "postcard",
    "roaring",
    "serde",
    "serde_json",
    "thiserror",
    "utoipa",
    "uuid",
];

/// The same for the engine: no runtime, no client, no clock, no random numbers.
const ENGINE_MAY_USE: [&str; 5] = ["assent-common", "serde", "serde_json", "sha2", "uuid"];

/// The packages of ours that each folder may use (ARCHITECTURE.md, "Code map").
const MAY_USE: [(&str, &[&str]); 13] = [
    ("common", &[]),
    ("client", &["assent-common"]),
    ("edge", &["assent-common"]),
    ("engine", &["assent-common"]),
    ("resp", &["assent-common", "assent-client", "assent-edge"]),
    (
        "coordinator",
        &["assent-common", "assent-client", "assent-edge", "assent-engine", "assent-resp"],
    ),
    ("participant", &["assent-common", "assent-client", "assent-edge"]),
    ("process", &["assent-common", "assent-client"]),
    ("check", &["assent-common", "assent-client"]),
    (
        "cli",
        &[
            "assent-common",
            "assent-check",
            "assent-client",
            "assent-edge",
            "assent-coordinator",
            "assent-participant",
            "assent-process",
            "assent-resp",
        ],
    ),
    ("examples/shop/payments", &["assent-participant"]),
    ("lab", &["assent", "assent-common", "assent-client", "assent-coordinator", "assent-process"]),
    (
        "tests",
        &[
            "assent",
            "assent-checkers",
            "assent-common",
            "assent-client",
            "assent-coordinator",
            "assent-participant",
            "assent-process",
            "assent-servers",
        ],
    ),
];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The files of our code with this ending, and their text.
fn sources(ending: &str) -> Vec<(PathBuf, String)> {
    files_under(MAY_USE.iter().map(|(folder, _)| *folder), ending)
}

/// The files below these folders with this ending, by their path from the root, and their text.
pub(crate) fn files_under<'a>(
    folders: impl IntoIterator<Item = &'a str>,
    ending: &str,
) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut dirs: Vec<PathBuf> = folders.into_iter().map(|folder| root().join(folder)).collect();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "no .{ending} file was found: the test looks at the wrong place");
    found
}

fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn no_source_file_is_longer_than_the_limit() {
    let long = |(path, text): &(PathBuf, String)| {
        let lines = text.lines().count();
        (lines > LINES_MAX).then(|| format!("{}: {lines} lines; split it", path.display()))
    };
    let files = sources("rs").into_iter().chain(sources("lua"));
    assert_none(&files.filter_map(|file| long(&file)).collect::<Vec<_>>());
}

#[test]
fn every_source_file_says_what_it_is() {
    let rust = sources("rs").into_iter().filter(|(_, text)| !text.starts_with("//! "));
    // A script's header names its inputs and replies; parts of scripts say what they are.
    let lua = sources("lua").into_iter().filter(|(path, text)| {
        let script = path.parent().is_some_and(|dir| dir.ends_with("lua"))
            && ["prepare", "commit", "abort", "sweep", "control"]
                .iter()
                .any(|name| path.file_stem().is_some_and(|stem| stem == *name));
        !text.starts_with("-- ") || (script && !text.contains("ARGV"))
    });
    let broken = rust.chain(lua).map(|(path, _)| format!("{}: no header", path.display()));
    assert_none(&broken.collect::<Vec<_>>());
}

#[test]
fn nothing_forbidden_is_in_the_sources() {
    // Put together here, so that this file does not contain them.
    let forbidden = [
        ["unsafe", " {"],
        ["unsafe", " fn"],
        ["unsafe", " impl"],
        ["todo", "!("],
        ["unimplemented", "!("],
        ["#[ig", "nore"],
        ["thread::", "sleep("],
        ["FIX", "ME"],
        ["XX", "X:"],
        ["dbg", "!("],
    ]
    .map(|parts| parts.concat());
    let mut broken = Vec::new();
    for (path, text) in sources("rs").into_iter().chain(sources("lua")) {
        for (number, line) in text.lines().enumerate() {
            for word in forbidden.iter().filter(|word| line.contains(word.as_str())) {
                broken.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    assert_none(&broken);
}

fn dependencies(folder: &str) -> BTreeSet<String> {
    let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let table = manifest["dependencies"].as_table().unwrap();
    table.keys().cloned().collect()
}

#[test]
fn the_pure_crates_use_what_they_may_and_nothing_else() {
    let allowed: BTreeSet<String> = COMMON_MAY_USE.map(str::to_owned).into();
    assert_eq!(dependencies("common"), allowed);
    let allowed: BTreeSet<String> = ENGINE_MAY_USE.map(str::to_owned).into();
    assert_eq!(dependencies("engine"), allowed);
}

/// What the standard library has of clocks, threads, files and sockets needs no dependency.
#[test]
fn the_pure_crates_ask_the_standard_library_for_nothing_outside() {
    let outside = ["fs", "env", "io", "net", "process", "thread", "time"].map(|module| {
        // Put together here, so that this file does not contain them.
        ["std::", module, "::"].concat()
    });
    let mut broken = Vec::new();
    for (path, text) in files_under(["engine/src"], "rs") {
        for word in outside.iter().filter(|word| text.contains(word.as_str())) {
            broken.push(format!("{}: {word}", path.display()));
        }
    }
    assert_none(&broken);
}

#[test]
fn the_packages_use_each_other_only_downwards() {
    for (folder, allowed) in MAY_USE {
        let ours: BTreeSet<String> =
            dependencies(folder).into_iter().filter(|name| name.starts_with("assent")).collect();
        let extra: Vec<_> = ours.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(extra.is_empty(), "{folder} uses {extra:?}");
    }
}

/// Promise: who reads how a submission goes finds each step where the page says.
#[test]
fn the_walk_of_a_submission_leads_through_functions_that_exist() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let walk = page.split("## A submission, in ten functions").nth(1).unwrap();
    let walk = walk.split("\n## ").next().unwrap();
    let steps: Vec<Vec<&str>> = walk
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
        .map(|line| line.split('`').skip(1).step_by(2).take(2).collect())
        .collect();
    assert!((1..=10).contains(&steps.len()), "{} steps", steps.len());
    let is_missing = |step: &&Vec<&str>| {
        let text = std::fs::read_to_string(root().join(step[0])).unwrap_or_default();
        !text.contains(&format!("fn {}(", step[1])) && !text.contains(&format!("fn {}<", step[1]))
    };
    let missing: Vec<_> = steps.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "the walk names what is not there: {missing:?}");
}

/// The names of tests that a page has: words in backticks that are too long for anything else.
fn tests_named_in(page: &str) -> BTreeSet<&str> {
    let is_test = |word: &&str| {
        let is_name =
            word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        is_name
            && !word.starts_with("assent_")
            && !word.starts_with("redis_out_")
            && word.matches('_').count() >= 3
    };
    page.split('`').skip(1).step_by(2).filter(is_test).collect()
}

pub(crate) fn assert_tests_exist(page: &str, text: &str) {
    let sources = sources("rs");
    let exists = |name: &&str| {
        // A function, or a row of a table that makes one.
        let (function, row) = (format!("fn {name}("), format!(" {name}: "));
        sources.iter().any(|(_, text)| text.contains(&function) || text.contains(&row))
    };
    let named = tests_named_in(text);
    assert!(!named.is_empty(), "{page} names no test: this looks at the wrong thing");
    let missing: Vec<_> = named.iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "{page} names tests that are not there: {missing:?}");
}

#[test]
fn the_page_of_failure_modes_has_every_crash_point_and_no_test_that_is_not_there() {
    let page = std::fs::read_to_string(root().join("docs/how/failure-modes.md")).unwrap();
    let points = assent_common::crash::CrashPoint::ALL.iter();
    let missing: Vec<_> =
        points.filter(|point| !page.contains(&format!("| `{point}` |"))).collect();
    assert!(missing.is_empty(), "docs/how/failure-modes.md says nothing of {missing:?}");
    assert_tests_exist("docs/how/failure-modes.md", &page);
}

#[test]
fn the_table_of_invariants_names_no_test_that_is_not_there() {
    let page = std::fs::read_to_string(root().join("tests/model/README.md")).unwrap();
    let table = page.split("## Invariants, properties, mutants").nth(1).unwrap();
    assert_tests_exist("tests/model/README.md", table.split("\n## ").next().unwrap());
}

/// Whether a line of Rust spells the name of a field of the control hash.
fn spells_a_field(line: &str) -> bool {
    let prefix = |letter: char| [format!("\"{letter}:"), format!("b'{letter}', b':'")];
    "mlsdahp".chars().flat_map(prefix).any(|spelled| line.contains(&spelled))
}

/// A field that is read in one place and written in another is read otherwise than it is written
/// one
/// day: both are in `store/control/`.
#[test]
fn fields_of_the_control_hash_are_spelt_in_one_folder() {
    assert!(spells_a_field("command.arg(format!(\"d:{txid}\"));"));
    assert!(spells_a_field("[b'm', b':', b'c', b':', log_id @ ..] => {"));
    let files = files_under(["participant/src"], "rs").into_iter();
    let others = files.filter(|(path, _)| !path.starts_with("participant/src/store/control"));
    let lines = others.flat_map(|(path, text)| {
        let spelling = text.lines().enumerate().filter(|(_, line)| spells_a_field(line));
        let name = |(number, line): (usize, &str)| {
            format!("{}:{}: {}", path.display(), number + 1, line.trim())
        };
        spelling.map(name).collect::<Vec<_>>()
    });
    assert_none(&lines.collect::<Vec<_>>());
}

/// What is for tests only must be in no release: no package asks for the feature but that of the
/// tests.
#[test]
fn crash_points_and_mutants_are_asked_for_by_the_tests_only() {
    let of_product = |folder: &str| folder != "tests" && folder != "lab";
    for (folder, _) in MAY_USE.iter().filter(|(folder, _)| of_product(folder)) {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let features = manifest.get("features").and_then(toml::Value::as_table);
        let default = features.and_then(|features| features.get("default"));
        assert_eq!(default, None, "{folder} has features by default");
        for (name, dependency) in manifest["dependencies"].as_table().unwrap() {
            let text = dependency.to_string();
            assert!(!text.contains("crash-points"), "{folder} asks for crash points of {name}");
        }
    }
}
