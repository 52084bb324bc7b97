//! The compose files keep what the documents promise of them. Docker is not needed.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde_yaml_ng::Value;

fn deploy() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn file(name: &str) -> Value {
    let text = std::fs::read_to_string(deploy().join(name)).unwrap();
    let mut parsed: Value = serde_yaml_ng::from_str(&text).unwrap();
    // Once for each level of anchors that are made from anchors.
    for _ in 0..3 {
        parsed.apply_merge().unwrap();
    }
    parsed
}

/// The services whose name begins and does not end with these.
fn services<'v>(file: &'v Value, begins: &'v str) -> impl Iterator<Item = (&'v str, &'v Value)> {
    let all = file["services"].as_mapping().unwrap().iter();
    all.map(|(name, service)| (name.as_str().unwrap(), service))
        .filter(move |(name, _)| name.starts_with(begins))
}

fn seconds(value: &Value) -> u64 {
    let text = value.as_str().unwrap();
    text.strip_suffix('s').unwrap().parse().unwrap()
}

#[test]
fn every_redis_says_a_vote_only_when_it_is_on_disk() {
    for name in ["compose.yaml", "compose.chaos.yaml"] {
        let file = file(name);
        let mut with_command = 0;
        for (service, redis) in services(&file, "redis-") {
            let Some(command) = redis["command"].as_str() else { continue };
            with_command += 1;
            for flag in [
                "--appendonly yes",
                "--appendfsync always",
                "--no-appendfsync-on-rewrite no",
                "--maxmemory-policy noeviction",
            ] {
                assert!(command.contains(flag), "{name}: {service} lacks {flag}");
            }
        }
        assert_eq!(with_command, if name == "compose.yaml" { 6 } else { 3 }, "{name}");
    }
}

#[test]
fn servers_are_asked_whether_they_are_well_and_given_time_to_end() {
    let file = file("compose.yaml");
    // The default of `drain_timeout`, in docs/reference/config.md.
    let drain_s = 10;
    let mut seen = 0;
    for prefix in ["coordinator", "bank-", "redis-"] {
        for (name, service) in services(&file, prefix) {
            seen += 1;
            assert!(service["healthcheck"]["test"].is_sequence(), "{name} has no health check");
            assert!(seconds(&service["stop_grace_period"]) > drain_s, "{name} is cut off");
            assert_eq!(service["restart"], "unless-stopped", "{name}");
        }
    }
    assert_eq!(seen, 1 + 3 + 6);
}

#[test]
fn nobody_is_root_and_nobody_has_more_than_it_needs() {
    let file = file("compose.yaml");
    for (name, service) in services(&file, "") {
        let user = service["user"].as_str().unwrap_or_default();
        assert!(!user.is_empty() && !user.starts_with("0:"), "{name} runs as {user:?}");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
        assert!(service["privileged"].is_null(), "{name}");
    }
    let dockerfile = std::fs::read_to_string(deploy().join("Dockerfile")).unwrap();
    for line in ["USER 65532:65532", "HEALTHCHECK ", "STOPSIGNAL SIGTERM"] {
        assert!(dockerfile.contains(line), "the Dockerfile lacks {line}");
    }
    let users: BTreeSet<&str> =
        dockerfile.lines().filter(|line| line.starts_with("USER")).collect();
    assert_eq!(users.len(), 1, "{users:?}");
}

#[test]
fn only_the_coordinator_is_published_and_only_on_loopback_and_with_tokens() {
    let file = file("compose.yaml");
    for (name, service) in services(&file, "") {
        let ports = service["ports"].as_sequence();
        assert_eq!(ports.is_some(), name == "coordinator", "{name}");
        for port in ports.into_iter().flatten() {
            assert!(port.as_str().unwrap().contains(":-127.0.0.1:"), "{name}: {port:?}");
        }
        let environment = service["environment"].as_mapping();
        let listens = |variable: &str| {
            environment.is_some_and(|all| all.get(variable).is_some_and(|value| !value.is_null()))
        };
        for (listen, token) in [
            ("ASSENT_COORDINATOR_LISTEN", "ASSENT_COORDINATOR_API_TOKEN_FILE"),
            ("ASSENT_COORDINATOR_ADMIN_LISTEN", "ASSENT_COORDINATOR_ADMIN_TOKEN_FILE"),
            ("ASSENT_PARTICIPANT_LISTEN", "ASSENT_PARTICIPANT_TOKEN_FILE"),
        ] {
            assert!(!listens(listen) || listens(token), "{name}: {listen} without {token}");
        }
    }
    for network in ["agents", "bank-a", "bank-b", "bank-c"] {
        assert_eq!(file["networks"][network]["internal"], true, "{network}");
    }
}

#[test]
fn what_holds_data_is_a_named_volume() {
    let file = file("compose.yaml");
    for (name, service) in services(&file, "redis-") {
        let volume = format!("{name}:/data");
        assert_eq!(service["volumes"][0], volume.as_str(), "{name}");
        assert!(file["volumes"].as_mapping().unwrap().contains_key(name), "{name}");
    }
    assert!(file["services"]["coordinator"]["volumes"][0] == "log:/var/lib/assent");
}

#[test]
fn under_chaos_nothing_starts_again_by_itself_and_all_links_go_through_the_proxy() {
    let (base, chaos) = (file("compose.yaml"), file("compose.chaos.yaml"));
    for prefix in ["coordinator", "bank-", "redis-"] {
        for (name, _) in services(&base, prefix) {
            assert_eq!(chaos["services"][name]["restart"], "no", "{name}");
        }
    }
    let command = chaos["services"]["proxy"]["command"].as_sequence().unwrap();
    let links: Vec<&str> =
        command.iter().filter_map(|word| word.as_str()?.strip_prefix("--link=")).collect();
    let target_of = |port: &str| {
        let link = links.iter().find(|link| link.contains(&format!("={port}=")));
        link.and_then(|link| link.rsplit_once('=')).map(|(_, target)| target.to_owned())
    };
    for (bank, number) in [("a", 1), ("b", 2), ("c", 3)] {
        let redis = &chaos["services"][format!("bank-{bank}").as_str()]["environment"]["ASSENT_PARTICIPANT_REDIS"];
        assert_eq!(redis.as_str().unwrap(), format!("redis://proxy:630{number}"));
        for port in [format!("630{number}"), format!("640{number}"), format!("620{number}")] {
            assert_eq!(target_of(&port), Some(format!("redis-{bank}:6379")), "{port}");
        }
        assert_eq!(target_of(&format!("771{number}")), Some(format!("bank-{bank}:7710")));
    }
}

/// Compose itself has the last word on what a compose file is; where it is not installed there is nobody to ask.
#[test]
fn compose_takes_the_files_alone_and_together() {
    let works = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("version");
        command.output().is_ok_and(|output| output.status.success())
    };
    let programs = [&["docker", "compose"][..], &["docker-compose"]];
    let Some(program) = programs.into_iter().find(|words| works(words)) else { return };
    for files in [&["compose.yaml"][..], &["compose.yaml", "compose.chaos.yaml"]] {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]);
        for file in files {
            command.arg("-f").arg(deploy().join(file));
        }
        let output = command.args(["-p", "assent-test", "config", "--quiet"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{files:?}: {said}");
    }
}
