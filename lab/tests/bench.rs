//! Each workload of `assent-lab bench`, and the demo, for a moment: real processes, floors and all,
//! and the data must be as reported. The figures of so short a run say nothing, and nothing is
//! asked of them.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::process::Command;

use serde_json::Value;

/// Runs it; the exit code, the document, and what was said on stderr.
fn lab<'a>(words: impl IntoIterator<Item = &'a str>) -> (Option<i32>, Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assent-lab"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("ASSENT_") {
            command.env_remove(variable);
        }
    }
    command.args(["--assent", env!("CARGO_BIN_EXE_assent-of-lab"), "-o=json"]).args(words);
    let output = command.output().unwrap();
    let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), document, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn bench(words: &str) -> (Option<i32>, Value, String) {
    let short = ["--seconds=0.2", "--repetitions=1", "--accounts=200"];
    lab(["bench"].into_iter().chain(words.split(' ')).chain(short))
}

/// The ways of its cells, after the data was found to be as reported.
fn ways(words: &str) -> Vec<String> {
    let (code, document, said) = bench(words);
    assert_eq!(code, Some(0), "{words}: {said}");
    let verdict = &document["verdict"];
    assert_eq!(verdict["as_reported"], true, "{words}: {verdict}");
    assert!(verdict["answered"].as_u64().unwrap() > 0, "{words}: {verdict}");
    assert_eq!(document["settings"]["appendfsync"], "always");
    let cells = document["cells"].as_array().unwrap();
    for cell in cells {
        assert_eq!(cell["repetitions"].as_array().unwrap().len(), 1, "{cell}");
        assert!(cell["median"]["rate"].as_f64().is_some(), "{cell}");
    }
    cells.iter().map(|cell| cell["way"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_bench_of_transfers_has_both_floors_and_each_way_to_answer() {
    let ways = ways("transfer --clients 1,3 --ack applied,decided --writes 2");
    assert_eq!(ways.len(), 8);
    for way in ["floor", "floor_pipelined"] {
        assert_eq!(ways.iter().filter(|other| *other == way).count(), 2, "{ways:?}");
    }
}

#[test]
fn a_bench_of_the_bank_keeps_its_money() {
    assert_eq!(ways("smallbank --clients 4 --idempotency-keys").len(), 3);
}

#[test]
fn a_bench_is_as_wide_as_it_is_asked_to_be() {
    let (code, document, said) = bench("wide --branches 1,4 --clients 2");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(document["settings"]["participants"], 4);
    assert_eq!(document["verdict"]["as_reported"], true);
    let branches: Vec<_> =
        document["cells"].as_array().unwrap().iter().map(|cell| &cell["branches"]).collect();
    assert_eq!(branches, [1, 1, 1, 4, 4, 4]);
}

#[test]
fn a_bench_of_reads_finds_what_nobody_changes() {
    assert_eq!(ways("read --clients 2").len(), 3);
}

/// With bounds that a bank demands, and without; and a read that stands alone.
#[test]
fn a_bench_of_the_port_for_redis_clients_keeps_its_books_too() {
    for words in ["transfer --clients 5", "smallbank --clients 4", "get --clients 2"] {
        let ways = ways(&format!("{words} --redis-port"));
        for way in ["port", "port_pipelined"] {
            assert!(ways.iter().any(|other| other == way), "{words}: {ways:?}");
        }
    }
}

#[test]
fn a_bench_of_hot_keys_has_its_reference_without_contention() {
    let ways = ways("hot --keys 1 --clients 3");
    assert!(ways.contains(&"uncontended".to_owned()), "{ways:?}");
}

#[test]
fn a_bench_of_large_values_compares_them_between_the_participants() {
    let (code, document, said) = bench("large --value-bytes 2000 --clients 2");
    assert_eq!(code, Some(0), "{said}");
    assert!(document["verdict"]["compared_values"].as_u64().unwrap() > 0);
}

#[test]
fn an_open_loop_says_how_late_it_was_itself() {
    let (code, document, said) = bench("transfer --rate 50 --clients 8");
    assert_eq!(code, Some(0), "{said}");
    for cell in document["cells"].as_array().unwrap() {
        assert_eq!(cell["asked_rate"], 50.0);
        assert!(cell["median"]["lateness"]["p99_ms"].as_f64().is_some(), "{cell}");
    }
}

#[test]
fn a_bench_of_recovery_finishes_what_a_crash_left_open_and_asks_for_what_ended() {
    let sizes = ["--ended=1000", "--unfinished=50", "--repeats=100", "--repetitions=2"];
    let (code, report, said) = lab(["bench", "recovery"].into_iter().chain(sizes));
    assert_eq!(code, Some(0), "{said}");
    let number = |name: &str| report[name].as_f64().unwrap();
    assert!(number("ready_ms") > 0.0 && number("drain_ms") >= number("ready_ms"), "{report}");
    assert!(number("resolve_ms") > 0.0 && number("log_bytes") > 100_000.0, "{report}");
    // The life of the writer, a decision and an end each, decisions of the crash, and their ends;
    // more were appended by the second repetition.
    let repetitions = report["repetitions"].as_array().unwrap();
    let records: Vec<u64> =
        repetitions.iter().map(|one| one["records"].as_u64().unwrap()).collect();
    assert_eq!(records[0], 2_051);
    assert!(records[1] >= 2_150, "{records:?}");
    assert_eq!(report["repeats"]["asked"], 100);
    assert_eq!(report["memory"].as_array().unwrap().len(), 4);
    assert!(number("rss_bytes") > 0.0 && number("bytes_per_idempotency_entry").is_finite());
}

/// What the demo promises: nothing is lost or half done, however often everything is killed.
#[test]
fn a_demo_kills_everything_and_finds_the_books_in_order() {
    let (code, report, said) = lab(["demo", "--seconds=3", "--clients=4"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(report["audit"], "clean", "{report}");
    assert!(report["committed"].as_u64().unwrap() > 0, "{report}");
    for victim in ["coordinator", "participant", "redis"] {
        assert!(report["kills"][victim].as_u64().unwrap() > 0, "{report}");
    }
}
