//! The example participant as a process of the harness.

use std::path::{Path, PathBuf};
use std::process::Command;

use assent_client::{Http, HttpOptions, ParticipantClient};
use assent_process::{Child, Port};
use assent_tests::wait_for;

use crate::tidy::root;

/// The example.
pub(super) const LEDGER: &str = "examples/participant-sqlite/participant.py";

/// The examples of its branches.
const OPS: &str = "examples/participant-sqlite/ops.json";

/// The example, or a variant of it, with its database.
pub(super) struct Ledger {
    dir: PathBuf,
    script: PathBuf,
    port: Port,
    child: Child,
}

fn spawn(dir: &Path, script: &Path, port: &Port) -> Child {
    let mut command = Command::new("python3");
    let address = port.address();
    let port = address.rsplit(':').next().unwrap_or_default();
    command.arg(script).args(["--name", "ledger", "--port", port, "--ask-after", "0.2"]);
    command.arg("--db").arg(dir.join("ledger.db"));
    Child::spawn("ledger", command, &dir.join("ledger.log")).unwrap()
}

impl Ledger {
    /// Starts the script at this path, from the root or anywhere.
    pub(super) async fn start(dir: &Path, script: &str) -> Self {
        let port = Port::take().unwrap();
        let (dir, script) = (dir.to_owned(), root().join(script));
        let child = spawn(&dir, &script, &port);
        let ledger = Self { dir, script, port, child };
        ledger.answers().await;
        ledger
    }

    pub(super) fn url(&self) -> String {
        self.port.url()
    }

    /// How it is checked.
    pub(super) fn flags(&self) -> Vec<String> {
        let ops = root().join(OPS).display().to_string();
        ["--ops", &ops, "--name", "ledger"].map(str::to_owned).into()
    }

    /// Kills it as a power cut would, and starts it again.
    pub(super) async fn restart(&mut self) {
        self.child.kill9();
        self.child = spawn(&self.dir, &self.script, &self.port);
        self.answers().await;
    }

    async fn answers(&self) {
        let http = Http::new(&HttpOptions::default()).unwrap();
        let client = ParticipantClient::new(&http, &self.url()).unwrap();
        wait_for("the ledger to answer", || async {
            let data = client.data().await;
            data.map(drop).map_err(|error| format!("{error}; its output: {}", self.child.tail()))
        })
        .await;
    }

    /// One number from its database.
    fn number(&self, sql: &str) -> i64 {
        const SCRIPT: &str = "import sqlite3, sys\n\
            print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchone()[0] or 0)";
        let db = self.dir.join("ledger.db");
        let output =
            Command::new("python3").args(["-c", SCRIPT]).arg(db).arg(sql).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.trim().parse().unwrap_or_else(|_| panic!("{output:?}"))
    }

    pub(super) fn balance(&self, account: &str) -> i64 {
        self.number(&format!("SELECT sum(balance) FROM accounts WHERE name = '{account}'"))
    }

    /// How many branches wait for their outcome.
    pub(super) fn staged(&self) -> i64 {
        self.number("SELECT count(*) FROM branches WHERE state = 'staged'")
    }
}
