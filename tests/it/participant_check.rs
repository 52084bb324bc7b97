//! `assent participant check` on our own participant, on the example in Python, and on known-bad
//! variants of the example: a check that cannot fail holds nobody to anything.

mod ledger;
mod mutants;

use std::path::Path;

use assent_client::{SubmitError, Transaction};
use assent_common::ErrorCode;
use assent_common::crash::CrashPoint;
use assent_common::wire::problem::OutcomeWord;
use assent_process::{Assent, Port, PostgresServer, participant_arguments, run_to_end};
use assent_tests::cluster::{arm, restart, wait_crashed};
use assent_tests::{Cluster, Options, plain, wait_for, wait_settled};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ASSENT;
use crate::tidy::root;
use ledger::{LEDGER, Ledger};
use mutants::MUTANTS;

/// The page that a participant is written from.
fn page() -> String {
    std::fs::read_to_string(root().join("docs/reference/participant-protocol.md")).unwrap()
}

/// What a check has found: its exit code, and its document.
struct Checked {
    code: Option<i32>,
    document: Value,
    said: String,
}

impl Checked {
    /// The duties that came out so.
    fn duties(&self, verdict: &str) -> Vec<&str> {
        let duties = self.document["duties"].as_array().unwrap_or_else(|| panic!("{}", self.said));
        let of_verdict = duties.iter().filter(|duty| duty["verdict"] == verdict);
        of_verdict.map(|duty| duty["duty"].as_str().unwrap()).collect()
    }
}

/// Runs the check. When it wants the participant killed and started again, a file appears in `dir`;
/// the harness, which owns the process, does it, and takes the file away.
async fn check(url: &str, flags: &[&str], dir: &Path, mut again: impl AsyncFnMut()) -> Checked {
    let wanted = dir.join("restart");
    let file = wanted.display();
    let command = format!("touch '{file}'; while [ -e '{file}' ]; do sleep 0.02; done");
    let mut words = vec!["-o", "json", "participant", "check", url, "--restart-command", &command];
    words.extend(flags);
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    let mut running = tokio::task::spawn_blocking(move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        run_to_end(Path::new(ASSENT), &words, &[]).unwrap()
    });
    loop {
        if wanted.exists() {
            again().await;
            std::fs::remove_file(&wanted).unwrap();
        }
        let look = std::time::Duration::from_millis(10);
        if let Ok(output) = tokio::time::timeout(look, &mut running).await {
            let output = output.unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
            return Checked { code: output.status.code(), document, said };
        }
    }
}

/// Promise: the protocol that is published is the one that is spoken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_participant_keeps_every_duty() {
    let options = Options { participants: vec!["bank-a"], ..Options::default() };
    let mut cluster = Cluster::start(ASSENT, options).await;
    let dir = TempDir::with_prefix("assent-it-").unwrap();
    let agent = &mut cluster.peers[0].agent;
    let url = agent.url().to_owned();
    let checked = check(&url, &["--with-loss"], dir.path(), async || restart(agent).await).await;
    assert_eq!(checked.code, Some(0), "{}", checked.said);
    assert_eq!(checked.duties("not_checked"), ["token"], "{}", checked.said);
    assert!(checked.duties("ok").len() > 30, "{}", checked.said);
}

/// Promise: the agent beside a database keeps what the agent beside a Redis keeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_participant_with_a_database_keeps_every_duty() {
    let dir = TempDir::with_prefix("assent-it-").unwrap();
    let server = PostgresServer::start(dir.path().join("postgres"), []).await.unwrap();
    let (client, connection) =
        tokio_postgres::connect(&server.url("postgres"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let table = "CREATE TABLE acct (id text PRIMARY KEY, balance bigint NOT NULL)";
    client.batch_execute(table).await.unwrap();
    let add = |amount: i64| {
        json!({"ops": [{
            "sql": "INSERT INTO acct VALUES ($1, $2) ON CONFLICT (id) DO UPDATE \
                    SET balance = acct.balance + excluded.balance RETURNING balance",
            "params": ["{run}", amount], "expect": {"ge": 0},
        }]})
    };
    // The first number must be there before the row is.
    let sum = "SELECT coalesce(sum(balance), 0)::bigint AS sum FROM acct WHERE id = $1";
    let read = json!({"ops": [{"sql": sum, "params": ["{run}"]}]});
    let ops =
        json!({"write": add(1), "read": read, "refused": add(-1_000_000), "conflict": add(5)});
    let file = dir.path().join("ops.json");
    std::fs::write(&file, ops.to_string()).unwrap();
    let ports = Port::pair().unwrap();
    let mut arguments = participant_arguments("ledger", "", &ports);
    arguments.retain(|word| !word.starts_with("--redis"));
    arguments.push(format!("--postgres={}", server.url("postgres")));
    arguments.extend(["--resolve-interval", "200ms"].map(str::to_owned));
    let (url, log) = (ports[0].url(), dir.path().join("ledger.log"));
    let agent = Assent::start("ledger", ASSENT.as_ref(), arguments, &url, &log).await;
    let mut agent = agent.unwrap();
    let file = file.display().to_string();
    let flags = ["--with-loss", "--ops", &file, "--name", "ledger"];
    let checked = check(&url, &flags, dir.path(), async || restart(&mut agent).await).await;
    assert_eq!(checked.code, Some(0), "{}", checked.said);
    assert_eq!(checked.duties("not_checked"), ["token"], "{}", checked.said);
}

/// Promise: who reads the page and the example can write a participant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_python_keeps_every_duty() {
    let dir = TempDir::with_prefix("assent-it-").unwrap();
    let mut ledger = Ledger::start(dir.path(), LEDGER).await;
    let (url, flags) = (ledger.url(), ledger.flags());
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.push("--with-loss");
    let checked = check(&url, &flags, dir.path(), async || ledger.restart().await).await;
    assert_eq!(checked.code, Some(0), "{}", checked.said);
    assert_eq!(checked.duties("not_checked"), ["token"], "{}", checked.said);
}

/// Promise: each way in which the example could be wrong is noticed, and the duty that it breaks is
/// named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mutant_of_the_example_is_caught_by_its_duty() {
    let source = std::fs::read_to_string(root().join(LEDGER)).unwrap();
    let mut survived = Vec::new();
    for mutant in MUTANTS {
        let dir = TempDir::with_prefix("assent-it-").unwrap();
        let script = dir.path().join("mutant.py");
        std::fs::write(&script, mutant.of(&source)).unwrap();
        let mut ledger = Ledger::start(dir.path(), script.to_str().unwrap()).await;
        let (url, flags) = (ledger.url(), ledger.flags());
        let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        flags.extend(["--with-loss", "--ask-within", "3s", "--duty", mutant.caught_by]);
        let checked = check(&url, &flags, dir.path(), async || ledger.restart().await).await;
        if checked.code != Some(1) || checked.duties("failed") != [mutant.caught_by] {
            survived.push(format!("{}: {}", mutant.name, checked.said));
        }
    }
    assert!(survived.is_empty(), "{}", survived.join("\n"));
}

/// Promise: a token that is asked for is asked of everybody; and who asks for none is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_participant_that_asks_for_no_token_is_noticed() {
    let dir = TempDir::with_prefix("assent-it-").unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "a-long-and-random-token").unwrap();
    // The arguments of a cluster are words that live as long as the test's process.
    let file: &'static str = Box::leak(file.display().to_string().into_boxed_str());
    let participant = vec!["--token-file", file];
    let options = Options { participants: vec!["bank-a"], participant, ..Options::default() };
    let cluster = Cluster::start(ASSENT, options).await;
    let url = cluster.peers[0].agent.url().to_owned();
    let only = ["--token-file", file, "--duty", "token"];
    let checked = check(&url, &only, dir.path(), async || {}).await;
    assert_eq!((checked.code, checked.duties("ok").len()), (Some(0), 2), "{}", checked.said);

    let ledger = Ledger::start(dir.path(), LEDGER).await;
    let flags = ledger.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(only).collect();
    let checked = check(&ledger.url(), &flags, dir.path(), async || {}).await;
    assert_eq!(checked.code, Some(1), "{}", checked.said);
    assert_eq!(checked.duties("failed"), ["token"], "{}", checked.said);
}

/// The page and the list of duties name the same: a duty that nobody can read about is a trap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_names_every_duty() {
    let dir = TempDir::with_prefix("assent-it-").unwrap();
    let mut ledger = Ledger::start(dir.path(), LEDGER).await;
    let (url, flags) = (ledger.url(), ledger.flags());
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    // Nothing of it works without a number to read, so that all duties are listed, and none played.
    let nothing = dir.path().join("nothing.json");
    let examples = json!({"write": {"input": 1}, "read": {"input": 1}, "refused": {"input": 1}});
    std::fs::write(&nothing, examples.to_string()).unwrap();
    flags.extend(["--ops", nothing.to_str().unwrap()]);
    let flags: Vec<&str> = flags.into_iter().skip(2).collect();
    let checked = check(&url, &flags, dir.path(), async || ledger.restart().await).await;
    assert_eq!(checked.duties("failed"), ["write"], "{}", checked.said);
    let page = page();
    let duties = checked.duties("not_checked");
    assert!(duties.len() > 30, "{duties:?}");
    let unnamed: Vec<&str> =
        duties.into_iter().filter(|duty| !page.contains(&format!("`{duty}`"))).collect();
    assert!(unnamed.is_empty(), "the page of the protocol does not name {unnamed:?}");
}

/// Who cannot be asked is no participant that fails.
#[test]
fn a_check_of_nobody_says_so() {
    for (words, code) in [
        (&["participant", "check", "http://127.0.0.1:9"][..], 5),
        (&["participant", "check", "nowhere"], 2),
        (&["participant", "check", "http://127.0.0.1:9", "--duty", "politeness"], 2),
        (&["participant", "check", "http://127.0.0.1:9", "--ops", "/nowhere/ops.json"], 2),
    ] {
        let output = run_to_end(Path::new(ASSENT), words, &[]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert!(output.stdout.is_empty() && !said.is_empty(), "{words:?}: {said}");
    }
}

/// A transfer from a Redis to the ledger.
fn transfer(amount: i64) -> Transaction {
    let amount_text = amount.to_string();
    Transaction::new()
        .branch("bank-a", |ops| ops.op(["DECRBY", "alice", &amount_text]))
        .branch("ledger", |ops| ops.input(&json!({"account": "bob", "add": amount})))
}

async fn alice(cluster: &Cluster) -> i64 {
    let value: Option<i64> = plain::run(&cluster.peers[0].redis, &["GET", "alice"]).await;
    value.unwrap_or(0)
}

/// A cluster of one Redis, and the ledger.
async fn with_ledger() -> (Cluster, Ledger, TempDir) {
    let options = Options { participants: vec!["bank-a"], ..Options::default() };
    let cluster = Cluster::start(ASSENT, options).await;
    let dir = TempDir::with_prefix("assent-it-").unwrap();
    let ledger = Ledger::start(dir.path(), LEDGER).await;
    let name = "ledger".parse().unwrap();
    cluster.admin().set_participant(&name, &ledger.url()).await.unwrap();
    (cluster, ledger, dir)
}

/// Promise *atomic*, over two kinds of stores.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_and_the_ledger_commit_together_or_not_at_all() {
    let (cluster, ledger, _dir) = with_ledger().await;
    let view = cluster.api.submit(&transfer(30).build().unwrap(), None, None).await.unwrap();
    assert_eq!((view.outcome, view.applied), (OutcomeWord::Committed, Some(true)));
    let reply = view.branches[1].hook_reply().unwrap();
    assert_eq!(serde_json::from_str::<Value>(reply.get()).unwrap(), json!({"balance": 30}));
    assert_eq!((alice(&cluster).await, ledger.balance("bob")), (-30, 30));

    let refused = cluster.api.submit(&transfer(-31).build().unwrap(), None, None).await;
    let Err(SubmitError::Aborted(problem)) = refused else { panic!("{refused:?}") };
    assert_eq!(problem.code, ErrorCode::Vetoed);
    assert_eq!(problem.veto().unwrap().code, "insufficient");
    assert_eq!((alice(&cluster).await, ledger.balance("bob")), (-30, 30));

    // One branch alone: one phase.
    let alone =
        Transaction::new().branch("ledger", |ops| ops.input(&json!({"account": "bob", "add": 5})));
    let view = cluster.api.submit(&alone.build().unwrap(), None, None).await.unwrap();
    assert_eq!(view.outcome, OutcomeWord::Committed);
    assert_eq!(ledger.balance("bob"), 35);
    wait_settled(&cluster).await;
    assert_eq!(ledger.staged(), 0);

    // What doctor cannot look at is no fault of it, and no wrong token.
    let doctor = tokio::task::block_in_place(|| cluster.run(&["doctor"]));
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert_eq!(doctor.status.code(), Some(0), "{said}");
    assert!(said.contains("does not say what it is") && !said.contains("same token"), "{said}");
}

/// Promise *finishing*: a coordinator that dies on either side of its decision leaves one outcome
/// at both, and no lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_coordinator_leaves_one_outcome_at_both() {
    for (point, committed) in [(CrashPoint::BeforeDecision, 0), (CrashPoint::AfterDecisionSync, 30)]
    {
        let (mut cluster, mut ledger, _dir) = with_ledger().await;
        arm(&mut cluster.coordinator, point.as_str()).await;
        let request = transfer(30).build().unwrap();
        let submitted = cluster.api.submit(&request, None, None).await;
        assert!(submitted.is_err(), "{submitted:?}");
        wait_crashed(&mut cluster.coordinator).await;
        ledger.restart().await;
        restart(&mut cluster.coordinator).await;
        wait_settled(&cluster).await;
        wait_for("the ledger to learn the outcome", || async {
            let staged = ledger.staged();
            if staged == 0 { Ok(()) } else { Err(format!("{staged} branches are staged")) }
        })
        .await;
        let (alice, bob) = (alice(&cluster).await, ledger.balance("bob"));
        assert_eq!((alice, bob), (-committed, committed), "{point}");
    }
}
