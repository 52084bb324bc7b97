//! The operator's commands against a running cluster, and against what it leaves on disk.

use std::process::Output;

use assent_tests::proxy::At;
use assent_tests::{Bank, Cluster, Options, Transfer, plain, wait_settled};
use serde_json::Value;

use super::stderr;
use crate::ASSENT;

pub(super) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a client command; it may take its time, and this test's runtime goes on meanwhile.
pub(super) async fn assent(cluster: &Cluster, words: &[&str]) -> Output {
    tokio::task::block_in_place(|| cluster.run(words))
}

pub(super) fn assert_exit(output: &Output, code: i32) {
    let (said, talk) = (stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(code), "stdout: {said}\nstderr: {talk}");
}

const TRANSFER: &str = r#"{"branches": [{"participant": "bank-a", "ops": [{"cmd": ["DECRBY", "acct:0", 30], "expect": {"ge": 0}}]}, {"participant": "bank-b", "ops": [{"cmd": ["INCRBY", "acct:0", 30]}]}]}"#;

/// Promise *once*, as `tx run` gives it: a rerun of a file repeats nothing; the exit codes say the worst of the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tx_run_runs_each_line_once_and_its_exit_code_says_how_it_went() {
    let cluster = Cluster::start(ASSENT, Options { proxied: true, ..Options::default() }).await;
    Bank::open(&cluster, 1).await;
    let file = cluster.dir().join("good.jsonl");
    std::fs::write(&file, format!("{TRANSFER}\n{TRANSFER}\n")).unwrap();
    let file = file.display().to_string();
    for _ in 0..2 {
        let run = assent(&cluster, &["-o", "json", "tx", "run", "--file", &file]).await;
        assert_exit(&run, 0);
        let lines: Vec<Value> =
            stdout(&run).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().all(|line| line["outcome"] == "committed"), "{lines:?}");
        wait_settled(&cluster).await;
        let paid: i64 = plain::run(&cluster.peers[0].redis, &["GET", "acct:0"]).await;
        assert_eq!(paid, 940, "two equal lines are two transactions, and a rerun is none");
    }
    let words = ["tx", "run", "--protocol", "implicit", "--in-flight", "1", "--file", &file];
    assert_exit(&assent(&cluster, &words).await, 0);
    wait_settled(&cluster).await;
    let paid: i64 = plain::run(&cluster.peers[0].redis, &["GET", "acct:0"]).await;
    assert_eq!(paid, 880, "implicit ones have no keys, and run again");

    let aborts = cluster.dir().join("aborts.jsonl");
    std::fs::write(&aborts, TRANSFER.replace("30", "3000000")).unwrap();
    let run = assent(&cluster, &["tx", "run", "--file", &aborts.display().to_string()]).await;
    assert_exit(&run, 3);
    assert!(stdout(&run).contains("expectation_failed"), "{}", stdout(&run));
    let list = stdout(&assent(&cluster, &["tx", "list", "--outcome", "aborted"]).await);
    let says_why = |line: &str| line.contains("expectation_failed: ") && line.contains("ge 0");
    assert!(list.lines().any(says_why), "the list says what was expected: {list}");

    let wrong = cluster.dir().join("wrong.jsonl");
    std::fs::write(&wrong, "{\"branches\": 1}\n").unwrap();
    let run = assent(&cluster, &["tx", "run", "--file", &wrong.display().to_string()]).await;
    assert!(matches!(run.status.code(), Some(1 | 2)), "{:?}: {}", run.status, stderr(&run));

    // The only branch does not hear of it for now, neither of a prepare nor of an abort: neither outcome is known.
    cluster.peers[1].proxy().close(At::Before, "\"txid\"");
    let open = cluster.dir().join("open.jsonl");
    let only = r#"{"timeout": "50ms", "branches": [{"participant": "bank-b", "ops": [{"cmd": ["INCR", "n"]}]}]}"#;
    std::fs::write(&open, only).unwrap();
    let words = ["tx", "run", "--give-up", "100ms", "--file", &open.display().to_string()];
    let run = assent(&cluster, &words).await;
    assert_exit(&run, 4);
    let pending = assent(&cluster, &["-o", "id", "tx", "list", "--outcome", "pending"]).await;
    assert_exit(&pending, 0);
    let id = stdout(&pending).trim().to_owned();
    let list = stdout(&assent(&cluster, &["tx", "list", "--outcome", "pending"]).await);
    assert!(list.contains("bank-b: "), "the list says who keeps it open: {list}");
    let story = stdout(&assent(&cluster, &["tx", "describe", &id]).await);
    let next = story.lines().find(|line| line.starts_with("next ")).unwrap_or_default();
    assert!(next.contains("bank-b is asked what became of its branch"), "{story}");
    let wait = assent(&cluster, &["tx", "wait", &id, "--for", "300ms"]).await;
    assert_exit(&wait, 4);
    cluster.peers[1].proxy().open();
    let wait = assent(&cluster, &["tx", "wait", &id, "--for", "20s"]).await;
    wait_settled(&cluster).await;
    let n: Option<i64> = plain::run(&cluster.peers[1].redis, &["GET", "n"]).await;
    assert_exit(&wait, if n == Some(1) { 0 } else { 3 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_not_there_is_exit_code_5() {
    let words = ["--config", "none", "tx", "list", "--url", "http://127.0.0.1:9"];
    let run = std::process::Command::new(ASSENT).args(words).output().unwrap();
    assert_exit(&run, 5);
    assert!(run.stdout.is_empty(), "talk on stdout: {}", stdout(&run));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn participants_are_set_listed_and_removed_and_outlive_a_restart() {
    let mut cluster =
        Cluster::start(ASSENT, Options { register: true, ..Options::default() }).await;
    assert_exit(
        &assent(&cluster, &["participants", "set", "stock", "http://127.0.0.1:9"]).await,
        0,
    );
    assent_tests::cluster::restart(&mut cluster.coordinator).await;
    let list = assent(&cluster, &["-o", "id", "participants", "list"]).await;
    assert_exit(&list, 0);
    let names = stdout(&list);
    assert_eq!(names.lines().collect::<Vec<_>>(), ["bank-a", "bank-b", "stock"]);
    assert_exit(&assent(&cluster, &["participants", "remove", "stock"]).await, 0);
    assent_tests::cluster::restart(&mut cluster.coordinator).await;
    let list = assent(&cluster, &["-o", "id", "participants", "list"]).await;
    assert_eq!(stdout(&list).lines().collect::<Vec<_>>(), ["bank-a", "bank-b"]);
    let bad = assent(&cluster, &["participants", "set", "bad", "no url"]).await;
    assert!(matches!(bad.status.code(), Some(1 | 2)), "{}", stderr(&bad));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_is_content_with_a_good_cluster_and_names_the_fix_of_a_bad_redis() {
    let cluster = Cluster::start(ASSENT, Options::default()).await;
    let data_dir = cluster.data_dir().display().to_string();
    let admin_url = cluster.admin_url().to_owned();
    let good = cluster.peers[0].redis.url();
    let words = ["doctor", "--data-dir", &data_dir, "--admin-url", &admin_url, "--redis"];
    let content = assent(&cluster, &[&words[..], &[&good]].concat()).await;
    assert_exit(&content, 0);
    let redis = &cluster.peers[1].redis;
    plain::run::<()>(redis, &["CONFIG", "SET", "appendfsync", "everysec"]).await;
    plain::run::<()>(redis, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let bad = redis.url();
    let worried = assent(&cluster, &[&words[..], &[&bad]].concat()).await;
    assert_exit(&worried, 1);
    let said = stdout(&worried);
    for part in ["everysec", "CONFIG SET appendfsync always", "allkeys-lru", "noeviction"] {
        assert!(said.replace('\n', " ").contains(part), "{part:?} is missing in: {said}");
    }
}

/// Offline, on a real log: sound after a crash, damaged after a flipped bit, every decision in the dump.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_verify_and_dump_read_a_real_log() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = Bank::open(&cluster, 1).await;
    for n in 0..5 {
        assert!(bank.ask(&Transfer::new(format!("t{n}"), "bank-a", "bank-b")).await.is_committed());
    }
    cluster.coordinator.kill9();
    let data_dir = cluster.data_dir();
    let words = data_dir.display().to_string();
    assert_exit(&assent(&cluster, &["log", "verify", "--data-dir", &words]).await, 0);
    let dump = assent(&cluster, &["log", "dump", "--data-dir", &words]).await;
    assert_exit(&dump, 0);
    for n in 0..5 {
        assert!(stdout(&dump).contains(&format!("\"t{n}\"")), "{}", stdout(&dump));
    }

    let newest = std::fs::read_dir(&data_dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| std::fs::read(path).unwrap().windows(2).any(|bytes| bytes == b"t2"))
        .max()
        .unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    let place = bytes.windows(2).position(|bytes| bytes == b"t2").unwrap();
    bytes[place] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    let damaged = assent(&cluster, &["log", "verify", "--data-dir", &words]).await;
    assert_exit(&damaged, 1);
    // Invariant 7: a log with a hole in its middle answers for nothing.
    let refused = cluster.coordinator.restart().await;
    assert!(refused.is_err(), "a coordinator started on a damaged log");
}
