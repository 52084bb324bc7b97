//! The commands against a running `assent dev` and without one: exit codes and forms of the output.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("ASSENT_") {
            command.env_remove(variable);
        }
    }
    command.args(["--config", "none"]).args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs it; the exit code, stdout, stderr.
fn assent(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command(arguments).output().unwrap();
    (status.code(), text(&stdout), text(&stderr))
}

/// `assent dev`, ended with SIGTERM.
struct Dev {
    process: Child,
    addresses: serde_json::Value,
}

impl Dev {
    fn start() -> Self {
        Self::with(&["--participants=a,b"])
    }

    fn with(arguments: &[&str]) -> Self {
        let any =
            ["--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--resp-listen=127.0.0.1:0"];
        let mut process = command(&["-o", "json", "dev"])
            .args(any)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { process, addresses: serde_json::from_str(&line).unwrap() }
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let urls = [
            format!("--url={}", self.url("url")),
            format!("--admin-url={}", self.url("admin_url")),
        ];
        let arguments: Vec<&str> =
            arguments.iter().copied().chain(urls.iter().map(String::as_str)).collect();
        assent(&arguments)
    }

    fn url(&self, name: &str) -> &str {
        self.addresses[name].as_str().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // By its own id; the drop of its children is what is under test, too.
        let _ended = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        let _reaped = self.process.wait();
    }
}

fn file(dir: &Path, lines: &[&str]) -> String {
    let path = dir.join("transactions.jsonl");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(lines.join("\n").as_bytes()).unwrap();
    path.display().to_string()
}

const MOVE: &str = r#"{"branches":[{"participant":"a","ops":[{"cmd":["INCRBY","x",1]}]},{"participant":"b","ops":[{"cmd":["DECRBY","y",1]}]}]}"#;
const FAIL: &str =
    r#"{"branches":[{"participant":"a","ops":[{"cmd":["GET","x"],"expect":{"eq":"never"}}]}]}"#;

#[test]
fn transactions_from_a_file_run_once_however_often_they_are_run() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start();
    let twice = file(dir.path(), &[MOVE, MOVE]);
    let (code, ids, said) = dev.run(&["-o", "id", "tx", "run", "-f", &twice]);
    assert_eq!(code, Some(0), "{said}");
    let mut first: Vec<&str> = ids.lines().collect();
    assert_eq!(first.len(), 2);
    let (_, again, _) = dev.run(&["-o", "id", "tx", "run", "-f", &twice]);
    let mut second: Vec<&str> = again.lines().collect();
    first.sort_unstable();
    second.sort_unstable();
    assert_eq!(first, second, "a rerun is answered with the same transactions");

    let (code, view, _) = dev.run(&["-o", "json", "tx", "wait", first[0]]);
    assert_eq!(code, Some(0));
    let view: serde_json::Value = serde_json::from_str(&view).unwrap();
    assert_eq!((&view["outcome"], &view["applied"]), (&"committed".into(), &true.into()));
    let (code, table, _) = dev.run(&["tx", "describe", first[0]]);
    assert_eq!(code, Some(0));
    assert!(table.contains("outcome    committed") && table.contains("BRANCH"), "{table}");

    let failing = file(dir.path(), &[FAIL]);
    let (code, lines, _) = dev.run(&["tx", "run", "-f", &failing]);
    assert_eq!(code, Some(3));
    assert!(lines.contains("line 1: aborted: expectation_failed"), "{lines}");
    let (code, ..) = dev.run(&["tx", "run", "-f", &file(dir.path(), &["{\"no\": 1}"])]);
    assert_eq!(code, Some(1));

    let (code, ids, _) = dev.run(&["-o", "id", "tx", "list", "--outcome", "committed"]);
    assert_eq!(code, Some(0));
    assert_eq!(ids.lines().count(), 2);
    let (_, page, _) = dev.run(&["-o", "json", "tx", "list", "--outcome", "aborted"]);
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["transactions"].as_array().unwrap().len(), 1);
}

#[test]
fn operators_see_participants_branches_health_and_the_log() {
    let dev = Dev::start();
    let (code, table, _) = dev.run(&["participants", "list"]);
    assert_eq!(code, Some(0));
    assert!(table.starts_with("NAME") && table.lines().count() == 3, "{table}");
    let (code, ..) = dev.run(&["participants", "set", "c", "http://127.0.0.1:9"]);
    assert_eq!(code, Some(0));
    let (_, ids, _) = dev.run(&["-o", "id", "participants", "list"]);
    assert_eq!(ids, "a\nb\nc\n");
    let (code, ..) = dev.run(&["participants", "remove", "c"]);
    assert_eq!(code, Some(0));

    let (code, ids, said) = dev.run(&["-o", "id", "branch", "list", "--participant", "a"]);
    assert_eq!((code, ids.as_str()), (Some(0), ""), "{said}");
    let (code, ..) = dev.run(&["branch", "list", "--participant", "nobody"]);
    assert_eq!(code, Some(1));

    let (code, ready, _) = assent(&["health", dev.url("url")]);
    assert_eq!(code, Some(0), "{ready}");
    let participant = dev.addresses["participants"][0]["url"].as_str().unwrap();
    assert_eq!(assent(&["health", participant, "--question", "live"]).0, Some(0));

    let data_dir = dev.url("data_dir").to_owned();
    let (code, report, _) = assent(&["-o", "json", "log", "verify", "--data-dir", &data_dir]);
    assert_eq!(code, Some(0), "{report}");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["log_id"], dev.addresses["log_id"]);
    let (code, records, _) = assent(&["log", "dump", "--data-dir", &data_dir]);
    assert_eq!(code, Some(0));
    assert!(records.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));

    let redis = dev.addresses["participants"][0]["redis_url"].as_str().unwrap();
    let (code, found, _) = dev.run(&["doctor", "--redis", redis]);
    assert_eq!(code, Some(0), "{found}");
    assert!(found.contains("nothing to change"), "{found}");
}

/// Promise *honest*: who asks or names the wrong address is told what answers there.
#[test]
fn an_address_of_something_else_is_told_as_such() {
    let dev = Dev::start();
    // An address that is none of a participant's is registered, with a word about what is there.
    let a = |what: &str| dev.addresses["participants"][0][what].as_str().unwrap().to_owned();
    for (name, url, word) in [
        ("c", dev.url("url").to_owned(), "a coordinator answers"),
        ("c", a("url"), "calls itself a"),
        ("a", a("admin_url"), "its API for operators"),
        ("a", a("url"), ""),
    ] {
        let (code, _, said) = dev.run(&["participants", "set", name, &url]);
        assert_eq!((code, said.is_empty()), (Some(0), word.is_empty()), "{said}");
        assert!(said.contains(word), "{said}");
    }
    let (code, ..) = dev.run(&["participants", "remove", "c"]);
    assert_eq!(code, Some(0));
    // Who names another coordinator does not mean the one of this machine.
    let elsewhere = format!("--url={}", dev.url("url"));
    let (code, _, said) = assent(&["participants", "remove", "c", &elsewhere]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--admin-url") && said.contains(dev.url("url")), "{said}");
    assert_eq!(assent(&["participants", "list", &elsewhere]).0, Some(0));
    // A participant is no coordinator.
    let (code, found, _) = assent(&["doctor", &format!("--url={}", a("url"))]);
    assert!(code == Some(1) && found.contains("participant a answers there"), "{found}");
    let (code, _, said) = assent(&["tx", "list", &format!("--url={}", a("url"))]);
    assert!(code == Some(1) && said.contains("sent to a coordinator"), "{said}");
}

#[test]
fn nobody_there_is_5_and_a_wrong_command_line_is_2() {
    let nobody = "--url=http://127.0.0.1:9";
    for arguments in [
        &["tx", "list", nobody][..],
        &["participants", "list", nobody],
        &["health", "http://127.0.0.1:9"],
    ] {
        let (code, out, said) = assent(arguments);
        assert_eq!((code, out.as_str()), (Some(5), ""), "{arguments:?}: {said}");
        assert!(said.starts_with("assent: "), "{said}");
    }
    for arguments in [
        &["nonsense"][..],
        &["tx", "describe", "no-uuid"],
        &["participant"],
        &["-o", "xml", "tx", "list"],
    ] {
        assert_eq!(assent(arguments).0, Some(2), "{arguments:?}");
    }
    assert_eq!(assent(&["--help"]).0, Some(0));
    assert_eq!(assent(&["completions", "bash"]).0, Some(0));
}

#[test]
fn a_log_is_made_once_and_never_by_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let data = format!("--data-dir={}", dir.path().join("log").display());
    let (code, _, said) =
        assent(&["coordinator", &data, "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("assent init"), "{said}");
    let (code, id, _) = assent(&["-o", "id", "init", &data]);
    assert_eq!((code, id.trim().len()), (Some(0), 32));
    let (code, _, said) = assent(&["init", &data]);
    assert_eq!(code, Some(1));
    assert!(said.contains("already holds a decision log"), "{said}");
}

/// Stderr is no terminal here, so that the log is JSON lines; why a server ends is one of them.
#[test]
fn why_a_server_ends_is_a_line_of_its_log() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--admin-listen={}", taken.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let data = format!("--data-dir={}", dir.path().join("log").display());
    let misspelt = ["--retention=never"];
    let coordinator = ["coordinator", &data, "--listen=127.0.0.1:0", &listen];
    let agent = ["participant", "--name=a", "--listen=127.0.0.1:0", &listen];
    let no_redis = [
        "participant",
        "--name=a",
        "--redis=redis://127.0.0.1:9",
        "--listen=127.0.0.1:0",
        "--admin-listen=127.0.0.1:0",
    ];
    for (arguments, exit, says) in [
        (&coordinator[..], 1, "--admin-listen"),
        (&agent, 1, "--admin-listen"),
        (&no_redis, 1, "127.0.0.1:9"),
        (
            &["coordinator", &data, "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"],
            1,
            "assent init",
        ),
        (&["participant"], 2, "--name"),
        (&[&no_redis[..], &["--coordinator=c:7700"]].concat(), 2, "--coordinator: \"c:7700\""),
        (&[&no_redis[..], &["--peer=https://b"]].concat(), 2, "--peer: \"https://b\""),
    ] {
        let (code, out, said) = assent(arguments);
        assert_eq!((code, out.as_str()), (Some(exit), ""), "{arguments:?}: {said}");
        let lines: Vec<serde_json::Value> =
            said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let last = lines.last().unwrap();
        assert_eq!((&last["level"], &last["exit"]), (&"ERROR".into(), &exit.into()), "{said}");
        assert!(last["message"].as_str().unwrap().contains(says), "{said}");
    }
    // A wrong command line is told to whoever typed it.
    let (code, _, said) = assent(&[&coordinator[..], &misspelt].concat());
    assert_eq!(code, Some(2));
    assert!(said.starts_with("error: "), "{said}");
}

#[test]
fn a_development_server_without_redis_says_what_to_do() {
    let (code, _, said) =
        assent(&["dev", "--redis-server=/nowhere/redis-server", "--listen=127.0.0.1:0"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("not installed") && said.contains("make redis"), "{said}");
}

/// Runs a statement by `psql`; what it prints.
fn psql(url: &str, sql: &str) -> String {
    let output = Command::new("psql").args([url, "-X", "-A", "-t", "-c", sql]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Promise: a newcomer has a Redis and a PostgreSQL in one transaction with one command; what is
/// kept is there again, and a database that is there already is used.
#[test]
fn a_development_server_has_a_database_beside_a_redis() {
    let dir = tempfile::tempdir().unwrap();
    let retain = format!("--retain={}", dir.path().join("kept").display());
    let start = || Dev::with(&["--participants=cache", "--postgres=ledger", &retain]);
    let move_both = |amount: i32| {
        let line = serde_json::json!({"branches": [
            {"participant": "cache", "ops": [{"cmd": ["INCRBY", "acct:carol", amount]}]},
            {"participant": "ledger", "ops": [
                {"sql": "UPDATE acct SET balance = balance + $1 WHERE id = $2",
                 "params": [amount, "carol"], "expect": {"eq": 1}}]},
        ]});
        file(dir.path(), &[&line.to_string()])
    };
    let first = start();
    let ledger = first.addresses["participants"][1]["postgres_url"].as_str().unwrap();
    psql(ledger, "CREATE TABLE acct (id text PRIMARY KEY, balance bigint NOT NULL)");
    psql(ledger, "INSERT INTO acct VALUES ('carol', 0)");
    let (code, _, said) = first.run(&["tx", "run", "-f", &move_both(30)]);
    assert_eq!(code, Some(0), "{said}");
    let (code, found, _) = first.run(&["doctor", "--postgres", ledger]);
    assert_eq!(code, Some(0), "{found}");
    assert!(found.contains(": max_prepared_transactions") && found.contains("postgres"), "{found}");
    drop(first);

    let second = start();
    let ledger = second.addresses["participants"][1]["postgres_url"].as_str().unwrap();
    assert_eq!(psql(ledger, "SELECT balance FROM acct"), "30\n");
    // Another database of the same server, as one that was there before.
    psql(ledger, "CREATE DATABASE other");
    let other = ledger.replace("/postgres", "/other");
    psql(&other, "CREATE TABLE acct AS SELECT 'carol' AS id, 0 AS balance");
    let third = Dev::with(&["--participants=cache", &format!("--postgres=ledger={other}")]);
    let (code, _, said) = third.run(&["tx", "run", "-f", &move_both(7)]);
    assert_eq!((code, psql(&other, "SELECT balance FROM acct")), (Some(0), "7\n".into()), "{said}");
    let shown = third.addresses["participants"][1]["postgres_url"].as_str().unwrap();
    assert!(!shown.contains("app"), "a user is shown: {shown}");
}

#[test]
fn a_development_server_that_cannot_be_meant_is_refused() {
    for (words, said_of_it) in [
        (["--participants=a", "--postgres=a"], "two participants are called a"),
        (["--postgres=p", "--hook=p=http://127.0.0.1:9/"], "hooks need a Redis"),
        (["--participants=a", "--hook=b=http://127.0.0.1:9/"], "no participant b is started"),
    ] {
        let (code, _, said) = assent(&["dev", words[0], words[1]]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(said_of_it), "{said}");
    }
}
