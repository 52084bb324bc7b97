//! Runs `assent-lab bench` and reads its document.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::Value;

use crate::suite::results::{Missing, Part, Recovery, Results, Sample, Subject, Who};

/// The form of the document that is understood here.
const VERSION: u32 = 1;

/// The exit code of a command line that is not understood.
const USAGE: i32 = 2;

#[derive(Debug, Deserialize)]
struct Document {
    settings: Value,
    verdict: Verdict,
    not_measured: Vec<Refused>,
    cells: Vec<Cell>,
}

#[derive(Debug, Deserialize)]
struct Verdict {
    as_reported: bool,
    findings: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Way {
    way: String,
    #[serde(default)]
    ack: String,
    #[serde(default)]
    protocol: String,
}

#[derive(Debug, Deserialize)]
struct Refused {
    #[serde(flatten)]
    way: Way,
    why: String,
}

#[derive(Debug, Deserialize)]
struct Cell {
    workload: String,
    clients: usize,
    asked_rate: Option<f64>,
    #[serde(flatten)]
    way: Way,
    branches: Option<u64>,
    keys: Option<u64>,
    zipf: Option<f64>,
    bytes: Option<u64>,
    repetitions: Vec<Measured>,
}

#[derive(Debug, Deserialize)]
struct Measured {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    failed_percent: f64,
    retried_percent: f64,
    machine_busy_percent: f64,
    lateness: Option<Lateness>,
    cpu_us_per_tx: Value,
    disk_bytes_per_tx: Value,
    log_syncs_per_tx: Option<f64>,
    redis_syncs_per_tx: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Lateness {
    unserved: u64,
}

/// Runs one bench of one repetition, and adds what it measured as this repetition of the part.
pub(crate) fn bench(
    binary: &Path,
    words: &[String],
    part: Part,
    repetition: u32,
    results: &mut Results,
) -> Result<(), String> {
    let document = run(binary, words)?;
    if document["version"] != VERSION {
        return Err(format!(
            "assent-lab bench {}: the form of the document is not known",
            words.join(" ")
        ));
    }
    let document: Document = serde_json::from_value(document)
        .map_err(|error| format!("assent-lab bench {}: {error}", words.join(" ")))?;
    enter(document, part, repetition, results)
}

/// The document that it writes, whatever its exit code: it also says what could not be measured.
fn run(binary: &Path, words: &[String]) -> Result<Value, String> {
    let lab =
        std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut command = Command::new(&lab);
    command.arg("--assent").arg(binary).arg("bench").args(words).args(["-o", "json"]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.map_err(|error| format!("cannot start {}: {error}", lab.display()))?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        if output.status.code() == Some(USAGE) {
            return format!("it is not understood: `assent-lab bench {}`", words.join(" "));
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = said.lines().rev().take(3).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        format!(
            "assent-lab bench {} ended with {}: {}",
            words.join(" "),
            output.status,
            last.join(" | ")
        )
    })
}

fn enter(
    document: Document,
    part: Part,
    repetition: u32,
    results: &mut Results,
) -> Result<(), String> {
    let Document { settings, verdict, not_measured, cells, .. } = document;
    if !verdict.as_reported {
        results.findings.extend(verdict.findings);
    }
    if results.settings.is_null() {
        results.settings = settings;
    }
    for Refused { way, why } in not_measured {
        let missing = Missing { part, who: Some(who(&way)?), why };
        if !results.missing.contains(&missing) {
            results.missing.push(missing);
        }
    }
    for cell in cells {
        let workload = workload(&cell);
        let subject = Subject {
            part,
            workload,
            clients: cell.clients,
            asked_rate: cell.asked_rate,
            who: who(&cell.way)?,
        };
        for one in cell.repetitions {
            results.samples.push((subject.clone(), sample(one, repetition)));
        }
    }
    Ok(())
}

fn who(way: &Way) -> Result<Who, String> {
    match (way.way.as_str(), way.protocol.as_str(), way.ack.as_str()) {
        ("floor", _, _) => Ok(Who::Floor),
        ("floor_pipelined", _, _) => Ok(Who::FloorPipelined),
        ("uncontended", _, _) => Ok(Who::Uncontended),
        ("assent", "logged", "applied") => Ok(Who::Applied),
        ("assent", "logged", "decided") => Ok(Who::Decided),
        ("assent", "implicit", "applied") => Ok(Who::ImplicitApplied),
        ("assent", "implicit", "decided") => Ok(Who::Implicit),
        _ => Err(format!("assent-lab bench has a way that is not known here: {way:?}")),
    }
}

fn workload(cell: &Cell) -> String {
    let kib = |bytes: u64| match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        _ => format!("{} MiB", bytes / 1_048_576),
    };
    match cell {
        Cell { branches: Some(1), workload, .. } => format!("{workload}, 1 branch"),
        Cell { branches: Some(count), workload, .. } => format!("{workload}, {count} branches"),
        Cell { keys: Some(1), workload, .. } => format!("{workload}, 1 item"),
        Cell { keys: Some(keys), zipf: Some(zipf), workload, .. } => {
            format!("{workload}, {keys} items, Zipf {zipf}")
        }
        Cell { bytes: Some(bytes), workload, .. } => format!("{workload}, {}", kib(*bytes)),
        Cell { workload, .. } => workload.clone(),
    }
}

fn sample(one: Measured, repetition: u32) -> Sample {
    Sample {
        repetition,
        rate: one.rate,
        p50_ms: one.p50_ms,
        p99_ms: one.p99_ms,
        p999_ms: one.p999_ms,
        failed_percent: one.failed_percent,
        retried_percent: one.retried_percent,
        machine_busy_percent: one.machine_busy_percent,
        unserved: one.lateness.map_or(0, |lateness| lateness.unserved),
        costs: serde_json::json!({
            "cpu_us_per_tx": one.cpu_us_per_tx,
            "disk_bytes_per_tx": one.disk_bytes_per_tx,
            "log_syncs_per_tx": one.log_syncs_per_tx,
            "redis_syncs_per_tx": one.redis_syncs_per_tx,
        }),
    }
}

/// Runs `assent-lab bench recovery`; why not, where this `assent` has none, or it fails.
pub(crate) fn recovery(binary: &Path, repetitions: u32) -> Result<Recovery, String> {
    let document = run(binary, &["recovery".to_owned(), format!("--repetitions={repetitions}")])?;
    let recovery: Recovery = serde_json::from_value(document)
        .map_err(|error| format!("assent-lab bench recovery: {error}"))?;
    if recovery.ready_ms.is_none() && recovery.drain_ms.is_none() {
        return Err("assent-lab bench recovery says neither ready_ms nor drain_ms".to_owned());
    }
    Ok(recovery)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(as_reported: bool) -> Document {
        let one = json!({
            "rate": 500.0, "p50_ms": 1.0, "p99_ms": 2.0, "p999_ms": 3.0, "failed_percent": 0.0, "retried_percent": 0.5,
            "machine_busy_percent": 90.0, "cpu_us_per_tx": {"redis": 40.0}, "disk_bytes_per_tx": {"redis": 400.0}
        });
        serde_json::from_value(json!({
            "version": 1,
            "settings": {"redis": "7"},
            "verdict": {"as_reported": as_reported, "findings": if as_reported { vec![] } else { vec!["one is missing"] }},
            "not_measured": [{"way": "assent", "ack": "decided", "protocol": "implicit", "why": "unknown field"}],
            "cells": [
                {"workload": "transfer", "writes": 1, "clients": 64, "way": "floor", "repetitions": [one]},
                {"workload": "wide", "branches": 4, "clients": 8, "way": "assent", "ack": "applied",
                 "protocol": "logged", "repetitions": [one]},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn cells_become_samples_and_refusals_are_remembered_once() {
        let mut results = Results::default();
        for repetition in [1, 2] {
            enter(document(true), Part::Clients, repetition, &mut results).unwrap();
        }
        assert_eq!(results.samples.len(), 4);
        let subjects = results.subjects(Part::Clients);
        assert_eq!((subjects[0].who, subjects[1].who), (Who::Floor, Who::Applied));
        assert_eq!(subjects[1].workload, "wide, 4 branches");
        assert_eq!(results.missing.len(), 1);
        assert_eq!(results.why_missing(Part::Clients, Who::Implicit), Some("unknown field"));
        assert_eq!(results.why_missing(Part::Clients, Who::Applied), None);
        assert!(results.findings.is_empty());
    }

    #[test]
    fn data_that_is_not_as_reported_is_a_finding() {
        let mut results = Results::default();
        enter(document(false), Part::Clients, 1, &mut results).unwrap();
        assert_eq!(results.findings, ["one is missing"]);
    }
}
