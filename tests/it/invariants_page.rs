//! The page of the invariants, held against the code: every place, property, mutant and test that it names is there, and
//! every mutant is named under the invariant that it breaks.

use std::collections::BTreeSet;
use std::path::Path;

use assent_common::mutant::Mutant;

use crate::tidy::{assert_tests_exist, root};

const PAGE: &str = "docs/how/invariants.md";

/// One invariant, as the page has it.
struct Section {
    number: u8,
    text: String,
}

impl Section {
    /// What stands behind `- Name:`, on as many lines as it takes.
    fn entry(&self, name: &str) -> &str {
        let start = format!("\n- {name}: ");
        let (_, entry) = self
            .text
            .split_once(&start)
            .unwrap_or_else(|| panic!("invariant {} has no entry {name:?}", self.number));
        entry.split("\n- ").next().unwrap()
    }
}

fn sections() -> Vec<Section> {
    let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
    let section = |text: &str| {
        let (number, _) = text.split_once(". ").expect("a heading begins with its number");
        Section { number: number.parse().unwrap(), text: text.to_owned() }
    };
    page.split("\n## ").skip(1).map(section).collect()
}

/// The words in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_page_has_every_invariant_once_and_in_order() {
    let numbers: Vec<u8> = sections().iter().map(|section| section.number).collect();
    assert_eq!(numbers, (1..=16).collect::<Vec<_>>());
}

#[test]
fn the_code_that_keeps_each_invariant_is_where_the_page_says() {
    for section in sections() {
        let mut file: Option<(&str, String)> = None;
        let mut places = 0;
        for word in quoted(section.entry("Code")) {
            if Path::new(word).extension().is_some() {
                file = Some((word, std::fs::read_to_string(root().join(word)).unwrap()));
                continue;
            }
            let (path, text) = file.as_ref().expect("a file stands before what it holds");
            assert!(text.contains(word), "invariant {}: {path} has no {word:?}", section.number);
            places += 1;
        }
        assert!(places > 0, "invariant {}: the page names no place in the code", section.number);
    }
}

#[test]
fn each_invariant_names_properties_of_the_model_that_exist() {
    let folder = root().join("tests/model/src/properties");
    let model = std::fs::read_to_string(folder.join("mod.rs")).unwrap();
    for section in sections() {
        let named: Vec<&str> = section.entry("Model").split('"').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "invariant {}: no property is named", section.number);
        for property in named {
            let listed = [format!("\"{} {property}\"", section.number), format!("\"{property}\"")];
            assert!(
                listed.iter().any(|listed| model.contains(listed)),
                "invariant {}: the model has no property {property:?}",
                section.number
            );
        }
    }
}

#[test]
fn each_invariant_names_the_mutants_that_break_it_and_no_others() {
    for section in sections() {
        let named: BTreeSet<&str> = quoted(section.entry("Mutants")).into_iter().collect();
        let breaks = |mutant: &&Mutant| mutant.invariant() == section.number;
        let there: BTreeSet<&str> =
            Mutant::ALL.iter().filter(breaks).map(|mutant| mutant.as_str()).collect();
        assert_eq!(named, there, "invariant {}", section.number);
    }
}

#[test]
fn each_invariant_names_tests_that_exist() {
    for section in sections() {
        assert_tests_exist(
            &format!("{PAGE}, invariant {}", section.number),
            section.entry("Tests"),
        );
    }
}
