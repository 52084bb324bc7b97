//! Settings: which layer counts, what is refused, and what is said about it.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::path::Path;
use std::process::{Command, Output};

fn assent(dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("ASSENT_") {
            command.env_remove(variable);
        }
    }
    command.args(arguments).envs(environment.iter().copied()).current_dir(dir).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The value and the origin of a setting, as `config show` has them.
fn setting(
    dir: &Path,
    key: &str,
    flags: &[&str],
    environment: &[(&str, &str)],
) -> (String, String) {
    let section = key.split('.').next().unwrap();
    let mut arguments = vec!["config", "show", section, "-o", "json", "--"];
    arguments.extend_from_slice(flags);
    let output = assent(dir, &arguments, environment);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let one = shown.iter().find(|one| one["key"] == key).unwrap();
    (one["value"].as_str().unwrap().to_owned(), one["origin"].as_str().unwrap().to_owned())
}

fn is(value: &str, origin: &str) -> (String, String) {
    (value.to_owned(), origin.to_owned())
}

#[test]
fn a_flag_counts_before_the_environment_the_file_and_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let key = "coordinator.listen";
    assert_eq!(setting(dir.path(), key, &[], &[]), is("127.0.0.1:7700", "default"));
    std::fs::write(dir.path().join("assent.toml"), "[coordinator]\nlisten = \"127.0.0.1:1\"\n")
        .unwrap();
    assert_eq!(setting(dir.path(), key, &[], &[]), is("127.0.0.1:1", "assent.toml"));
    let variable = [("ASSENT_COORDINATOR_LISTEN", "127.0.0.1:2")];
    assert_eq!(
        setting(dir.path(), key, &[], &variable),
        is("127.0.0.1:2", "ASSENT_COORDINATOR_LISTEN")
    );
    let flag = ["--listen", "127.0.0.1:3"];
    assert_eq!(setting(dir.path(), key, &flag, &variable), is("127.0.0.1:3", "--listen"));
}

#[test]
fn another_file_is_named_by_flag_or_environment_and_none_means_none() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("assent.toml"), "[client]\nurl = \"http://a\"\n").unwrap();
    std::fs::write(dir.path().join("other.toml"), "[client]\nurl = \"http://b\"\n").unwrap();
    let other = [("ASSENT_CONFIG", "other.toml")];
    assert_eq!(setting(dir.path(), "client.url", &[], &other), is("http://b", "other.toml"));
    let none = [("ASSENT_CONFIG", "none")];
    assert_eq!(setting(dir.path(), "client.url", &[], &none).1, "default");
    let missing = assent(dir.path(), &["--config", "gone.toml", "config", "show"], &[]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("gone.toml"));
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (file, key) in [
        ("[coordinator]\nlissten = \"127.0.0.1:1\"\n", "lissten"),
        ("[coordinater]\n", "coordinater"),
        ("[participant]\ntoken = \"secret\"\n", "token"),
    ] {
        std::fs::write(dir.path().join("assent.toml"), file).unwrap();
        let output = assent(dir.path(), &["config", "show"], &[]);
        assert_eq!(output.status.code(), Some(2), "{file}");
        let said = text(&output.stderr);
        assert!(
            said.contains("unknown field") && said.contains(key) && said.contains("assent.toml"),
            "{said}"
        );
    }
}

#[test]
fn participants_are_a_table_in_the_file_and_repeated_flags() {
    let dir = tempfile::tempdir().unwrap();
    let file = "[coordinator.participants]\nbank-a = \"http://a:1\"\nbank-b = \"http://b:2\"\n";
    std::fs::write(dir.path().join("assent.toml"), file).unwrap();
    let key = "coordinator.participants";
    assert_eq!(setting(dir.path(), key, &[], &[]).0, "bank-a=http://a:1, bank-b=http://b:2");
    let flags = ["--participant", "x=http://x", "--participant", "y=http://y"];
    assert_eq!(setting(dir.path(), key, &flags, &[]).0, "x=http://x, y=http://y");
    let twice = ["config", "show", "coordinator", "--", "--participant=x=http://x,x=http://y"];
    assert_eq!(assent(dir.path(), &twice, &[]).status.code(), Some(2));
}

#[test]
fn a_secret_comes_from_a_file_and_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "s3cret\n").unwrap();
    let flags = ["--token-file=token", "--redis=redis://:hunter2@host:6379/1"];
    assert_eq!(
        setting(dir.path(), "participant.token_file", &flags, &[]),
        is("token", "--token-file")
    );
    assert_eq!(setting(dir.path(), "participant.redis", &flags, &[]).0, "redis://host:6379/1");
    std::fs::write(dir.path().join("empty"), "\n").unwrap();
    for missing in ["--token-file=gone", "--token-file=empty"] {
        let output = assent(dir.path(), &["config", "show", "participant", "--", missing], &[]);
        assert_eq!(output.status.code(), Some(2), "{missing}");
    }
}

#[test]
fn an_unknown_name_of_the_environment_is_refused_like_an_unknown_key() {
    let dir = tempfile::tempdir().unwrap();
    let variable = [("ASSENT_COORDINATOR_RETENTON", "1h")];
    let output = assent(dir.path(), &["config", "show"], &variable);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("did you mean ASSENT_COORDINATOR_RETENTION?"), "{said}");
    let kubernetes = [("ASSENT_COORDINATOR_PORT_7700_TCP", "tcp://10.0.0.1:7700")];
    assert!(assent(dir.path(), &["config", "show"], &kubernetes).status.success());
}
