//! `docs/cli.md` and `docs/config.md` say what the command line is. `UPDATE=1 cargo test -p assent --test docs` writes
//! them anew.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::path::Path;

fn is_current(file: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let first = written.lines().zip(page.lines()).find(|(a, b)| a != b);
    assert!(
        written == page,
        "docs/{file} is not what the command line is (first difference: {first:?}): UPDATE=1 cargo test -p assent \
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
        // The one list is named in the singular where it is repeated.
        let named = format!("--{}", key.replace('_', "-").replace("participants", "participant"));
        assert!(flag.starts_with(&named), "{line}");
        assert!(
            variable.ends_with(&key.to_uppercase()) && variable.starts_with("ASSENT_"),
            "{line}"
        );
    }
}
