//! The rules of shape: how long a line is, how often a name means a type, how far a type is spread.
//!
//! Where today's code breaks one, `exceptions.toml` says how often, in groups with a reason each. A
//! figure there may only fall: `make fix` lowers it, and nothing raises it. The length of functions
//! is clippy's (`clippy.toml`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use super::{assert_none, root, sources};

/// Characters of a line, of code and of comments.
const LINE_MAX: usize = 100;

/// Files that have an `impl` of one type.
const IMPL_FILES_MAX: usize = 3;

/// How often each file or name breaks a rule.
type Counts = BTreeMap<String, usize>;

struct Rule {
    /// In the list of exceptions.
    name: &'static str,
    measure: fn() -> Counts,
    /// What is broken, behind a figure, and what to do.
    advice: &'static str,
}

const RULES: [Rule; 3] = [
    Rule {
        name: "long_lines",
        measure: long_lines,
        advice: "lines above 100 characters; wrap them",
    },
    Rule {
        name: "type_names",
        measure: type_names,
        advice: "types have this name; give the new one a name of its own",
    },
    Rule {
        name: "impl_files",
        measure: impl_files,
        advice: "files have an `impl` of it, at most 3; give a part a type of its own",
    },
];

/// Some exceptions of a rule, with one reason.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    reason: String,
    counts: Counts,
}

/// By rule, then by group.
type Exceptions = BTreeMap<String, BTreeMap<String, Group>>;

fn path() -> PathBuf {
    root().join("tests/it/tidy/exceptions.toml")
}

fn exceptions() -> Exceptions {
    toml::from_str(&std::fs::read_to_string(path()).unwrap()).unwrap()
}

fn allowed(exceptions: &Exceptions, rule: &str) -> Counts {
    let groups = exceptions.get(rule).into_iter().flat_map(BTreeMap::values);
    groups.flat_map(|group| group.counts.clone()).collect()
}

fn long_lines() -> Counts {
    let files = sources("rs").into_iter().chain(sources("lua"));
    let counts = files.map(|(path, text)| {
        let long = text.lines().filter(|line| line.chars().count() > LINE_MAX).count();
        (path.display().to_string(), long)
    });
    counts.filter(|(_, long)| *long > 0).collect()
}

/// The sources of the packages, without their integration tests: the folder of the package, and the
/// text.
fn packages() -> impl Iterator<Item = (String, PathBuf, String)> {
    sources("rs").into_iter().filter_map(|(path, text)| {
        let (package, _) = path.to_str()?.split_once("/src/")?;
        Some((package.to_owned(), path.clone(), text))
    })
}

/// The identifier at the beginning of the text.
fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The type that a line at the margin of a file defines.
fn defined(line: &str) -> Option<&str> {
    let item = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.strip_prefix(' ')?,
        None => line,
    };
    let kinds = ["struct ", "enum ", "union ", "trait "];
    kinds.iter().find_map(|kind| item.strip_prefix(kind)).map(identifier)
}

/// How many types a name means, where it is more than one.
fn type_names() -> Counts {
    let mut counts = Counts::new();
    for (_, _, text) in packages() {
        for name in text.lines().filter_map(defined) {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts.retain(|_, count| *count > 1);
    counts
}

/// The type that an `impl` at the margin of a file is of.
fn implemented(line: &str) -> Option<&str> {
    let mut rest = line.strip_prefix("impl")?;
    if rest.starts_with('<') {
        let mut depth = 0;
        let end = rest.find(|c: char| {
            depth += i32::from(c == '<') - i32::from(c == '>');
            depth == 0
        })?;
        rest = &rest[end + 1..];
    }
    let rest = rest.strip_prefix(' ')?;
    let of = rest.split_once(" for ").map_or(rest, |(_, of)| of);
    let path = of.split(['<', ' ', '{']).next()?;
    Some(identifier(path.rsplit("::").next()?)).filter(|name| !name.is_empty())
}

/// How many files have an `impl` of a type of their package, where it is more than the limit.
fn impl_files() -> Counts {
    let mut own: BTreeSet<(String, String)> = BTreeSet::new();
    let mut files: BTreeMap<(String, String), BTreeSet<PathBuf>> = BTreeMap::new();
    for (package, path, text) in packages() {
        let types = text.lines().filter_map(defined);
        own.extend(types.map(|name| (package.clone(), name.to_owned())));
        for name in text.lines().filter_map(implemented) {
            files.entry((package.clone(), name.to_owned())).or_default().insert(path.clone());
        }
    }
    let spread = files.into_iter().filter(|(name, _)| own.contains(name));
    let counts = spread.map(|((package, name), files)| (format!("{package}/{name}"), files.len()));
    counts.filter(|(_, count)| *count > IMPL_FILES_MAX).collect()
}

/// Promise: what is read is no larger than it was, and a name leads to one place.
#[test]
fn no_rule_of_shape_is_broken_more_than_the_list_allows() {
    let exceptions = exceptions();
    let mut broken = Vec::new();
    for Rule { name: rule, measure, advice } in RULES {
        let allowed = allowed(&exceptions, rule);
        for (name, count) in measure() {
            let most = allowed.get(&name).copied().unwrap_or(0);
            if count > most {
                broken.push(format!("{name}: {count} {advice} (the list allows {most})"));
            }
        }
    }
    assert_none(&broken);
}

/// The list shrinks with the code. `UPDATE=1` writes it anew, and never raises a figure.
#[test]
fn the_list_of_exceptions_is_current() {
    let mut exceptions = exceptions();
    let mut stale = Vec::new();
    for Rule { name: rule, measure, .. } in RULES {
        let measured = measure();
        for group in exceptions.get_mut(rule).into_iter().flat_map(BTreeMap::values_mut) {
            assert!(!group.reason.is_empty(), "{rule}: a group of exceptions has no reason");
            group.counts.retain(|name, most| {
                let count = measured.get(name).copied().unwrap_or(0);
                *most = count.min(*most);
                if count == 0 {
                    stale.push(format!("{rule}: {name} breaks it no more; take it off the list"));
                }
                count > 0
            });
        }
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path(), written(&exceptions)).unwrap();
        return;
    }
    assert_none(&stale);
}

fn written(exceptions: &Exceptions) -> String {
    let mut text = String::from(
        "# Where the code breaks the rules of shape (shape.rs), how often, and why that is so.\n\
         # `make fix` lowers the figures; nothing raises them.\n",
    );
    for (rule, groups) in exceptions {
        for (name, group) in groups.iter().filter(|(_, group)| !group.counts.is_empty()) {
            // Writing to a string cannot fail.
            let _written = write!(
                text,
                "\n[{rule}.{name}]\nreason = {:?}\n[{rule}.{name}.counts]\n",
                group.reason
            );
            for (name, count) in &group.counts {
                let _written = writeln!(text, "{name:?} = {count}");
            }
        }
    }
    text
}

#[test]
fn the_rules_of_shape_see_what_they_are_about() {
    assert_eq!(defined("pub(crate) struct Core<'a> {"), Some("Core"));
    assert_eq!(defined("pub enum Vote {"), Some("Vote"));
    assert_eq!(defined("    struct Inner;"), None);
    assert_eq!(implemented("impl<T: Into<Vec<u8>>> From<T> for wire::Body<T> {"), Some("Body"));
    assert_eq!(implemented("impl Core {"), Some("Core"));
    assert_eq!(implemented("impl fmt::Display for Vote {"), Some("Vote"));
    assert_eq!(implemented("implicit"), None);
    let core: BTreeSet<_> = packages().map(|(package, ..)| package).collect();
    assert!(core.contains("coordinator") && core.contains("tests/sim"), "{core:?}");
}
