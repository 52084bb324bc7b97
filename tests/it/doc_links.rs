//! The links of the pages lead somewhere, and every page is in the book.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::tidy::{files_under, root};

/// Folders with pages, beside the pages at the root.
const FOLDERS: [&str; 5] = ["deploy", "docs", "examples", "sdk", "tests"];

/// All pages, by their path from the root.
fn pages() -> Vec<(PathBuf, String)> {
    let mut pages = files_under(FOLDERS, "md");
    for entry in std::fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let text = std::fs::read_to_string(&path).unwrap();
            pages.push((path.strip_prefix(root()).unwrap().to_owned(), text));
        }
    }
    pages
}

/// The lines outside of fenced blocks, with their numbers.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((index + 1, line));
        }
    }
    lines
}

/// The anchor of a heading, as GitHub and mdbook make it.
fn slug(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    let text: String = heading.trim().chars().filter(kept).collect();
    text.to_lowercase().replace(' ', "-")
}

fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, line) in prose(text) {
        if line.starts_with('#') {
            found.insert(slug(line.trim_start_matches('#')));
        }
        for id in line.split("<a id=\"").skip(1) {
            found.insert(id.split('"').next().unwrap_or("").to_owned());
        }
    }
    found
}

/// The targets of a line's links and pictures, but for those of the web.
fn targets(line: &str) -> Vec<&str> {
    let inline = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let sources = line.split(" src=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let is_ours = |target: &&str| !target.contains("://") && !target.starts_with("mailto:");
    inline.chain(sources).filter(is_ours).collect()
}

/// A path without `.` and `..`, or nothing if it leaves the repository.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir if !parts.pop() => return None,
            Component::Normal(name) => parts.push(name),
            _ => {}
        }
    }
    Some(parts)
}

/// What is wrong with a link on a page.
fn wrong(page: &Path, target: &str) -> Option<&'static str> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let joined = page.parent().unwrap().join(path);
    let file = if path.is_empty() { Some(page.to_owned()) } else { plain(&joined) };
    let Some(file) = file.filter(|file| root().join(file).exists()) else {
        return Some("leads nowhere");
    };
    if page.starts_with("docs") && !file.starts_with("docs") {
        return Some("leads out of the book; name the file in backticks");
    }
    let is_page = file.extension().is_some_and(|extension| extension == "md");
    let is_known = || anchors(&std::fs::read_to_string(root().join(&file)).unwrap());
    (is_page && !anchor.is_empty() && !is_known().contains(anchor))
        .then_some("names a heading that is not there")
}

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let mut count = 0;
    let mut broken = Vec::new();
    for (page, text) in pages() {
        for (number, line) in prose(&text) {
            for target in targets(line) {
                count += 1;
                if let Some(why) = wrong(&page, target) {
                    broken.push(format!("{}:{number}: ({target}) {why}", page.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    assert!(count > 30, "only {count} links were found: the search is broken");
}

#[test]
fn every_page_of_the_docs_is_in_the_book() {
    let summary = std::fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let listed: BTreeSet<&str> = summary.lines().flat_map(targets).collect();
    let docs = pages().into_iter().filter_map(|(path, _)| {
        let page = path.strip_prefix("docs").ok()?.to_str().unwrap().to_owned();
        (page != "SUMMARY.md").then_some(page)
    });
    let missing: Vec<_> = docs.filter(|page| !listed.contains(page.as_str())).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md does not list {missing:?}");
}

#[test]
fn a_broken_link_is_seen() {
    let page = Path::new("docs/how/invariants.md");
    assert_eq!(wrong(page, "protocol.md#rules"), None);
    for broken in ["protocol", "protocol.md#no-such-heading", "../../README.md", "../../../x"] {
        assert!(wrong(page, broken).is_some(), "{broken}");
    }
    assert_eq!(targets("a [b](c.md#d) ![e](f.svg \"g\") [h](https://i)"), ["c.md#d", "f.svg"]);
    assert_eq!(slug(" `ack`, and what it's for"), "ack-and-what-its-for");
}

/// The words of a text that begin like a metric's name and stand between these marks.
fn metrics_in<'a>(text: &'a str, mark: &str) -> BTreeSet<&'a str> {
    let is_name = |word: &&str| {
        word.starts_with("assent_") && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    text.split(mark).filter(is_name).collect()
}

#[test]
fn the_page_of_the_metrics_has_those_of_the_code_and_no_others() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let page = read("docs/reference/metrics.md");
    let code = [
        "coordinator/src/metrics.rs",
        "coordinator/src/log/metric.rs",
        "participant/src/metrics.rs",
        "edge/src/metric.rs",
        "resp/src/metric.rs",
    ]
    .map(read)
    .concat();
    let named: BTreeSet<&str> = metrics_in(&page, "`");
    // The code also has names for its tests; those that it exports are constants.
    let constants = code.lines().filter(|line| line.contains("const ")).collect::<String>();
    assert_eq!(named, metrics_in(&constants, "\""));
    assert!(named.len() > 20, "the names have moved");
}
