//! A real PostgreSQL, a served participant beside it, and messages to say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use assent_client::{Http, HttpOptions, ParticipantClient};
use assent_common::sql::SqlOp;
use assent_common::wire::branch::{
    Answer, Batch, BranchAddress, BranchState, CoordinatorRef, Message, Mode, PrepareMessage,
    StateWord, TxidOnly, VoteWord,
};
use assent_common::wire::ops::BranchOps;
use assent_common::{Epoch, ErrorCode, LogId, TransactionId, TxNumber, Txid};
use assent_participant::{Exposure, Options, PostgresOptions, ServeOptions, Serving, serve};
use assent_process::PostgresServer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

pub(crate) const LOG: &str = "0198f1c2a4b27c1d9c0e3f4a5b6c7d8e";
pub(crate) const NAME: &str = "ledger";

/// How long a condition may take to become true before the test says what it met last.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `ask` returns something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A server with a table of accounts, 1 to 9, of 100 each.
pub(crate) struct Server {
    pub(crate) postgres: PostgresServer,
    _dir: TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with([]).await
    }

    pub(crate) async fn with(settings: impl IntoIterator<Item = &str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let postgres = PostgresServer::start(dir.path().join("pg"), settings).await.unwrap();
        let server = Self { postgres, _dir: dir };
        server
            .run(
                "CREATE TABLE acct \
                 (id int PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0)); \
                 INSERT INTO acct SELECT n, 100 FROM generate_series(1, 9) n",
            )
            .await;
        server
    }

    pub(crate) fn url(&self) -> String {
        self.postgres.url("postgres")
    }

    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        let (client, connection) =
            tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap();
    }

    /// The one number that a query returns.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        self.client().await.query_one(sql, &[]).await.unwrap().get(0)
    }

    pub(crate) async fn balance(&self, id: i32) -> i64 {
        self.number(&format!("SELECT balance FROM acct WHERE id = {id}")).await
    }

    pub(crate) async fn prepared(&self) -> i64 {
        self.number("SELECT count(*) FROM pg_prepared_xacts").await
    }
}

/// A participant that is served, and its clients.
pub(crate) struct Agent {
    pub(crate) client: ParticipantClient,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<Serving>,
}

impl Agent {
    pub(crate) async fn start(server: &Server) -> Self {
        // No questions unless a test wants them.
        Self::with(server, |options| options.resolve_interval_ms = 3_600_000).await
    }

    pub(crate) async fn with(server: &Server, change: impl FnOnce(&mut Options)) -> Self {
        let mut participant = Options::new(NAME, "");
        participant.postgres = Some(PostgresOptions::new(server.url()));
        change(&mut participant);
        let any = "127.0.0.1:0".parse().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let options = ServeOptions {
            participant,
            listen: any,
            admin_listen: any,
            exposure: Exposure::TokenOrLoopback,
            edge: assent_edge::EdgeOptions::default(),
            drain_timeout_ms: 20_000,
        };
        let shutdown = async {
            let _ = stopped.await;
        };
        let serving = serve(options, shutdown).await;
        let serving = serving.unwrap_or_else(|error| panic!("{error:?}"));
        let addresses = serving.addresses();
        let http = Http::new(&HttpOptions { request_timeout_ms: 20_000, ..HttpOptions::default() })
            .unwrap();
        let client =
            ParticipantClient::new(&http, &format!("http://{}", addresses.public)).unwrap();
        Self { client, stop: Some(stop), serving: Some(serving) }
    }

    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.serving.take().unwrap().finished().await;
    }

    /// Says the messages in one batch.
    pub(crate) async fn say(&self, messages: Vec<Message<BranchOps>>) -> Vec<Answer> {
        self.say_all(batch(messages)).await
    }

    pub(crate) async fn say_all(&self, batch: Batch<BranchOps>) -> Vec<Answer> {
        self.client.batch(&batch).await.unwrap().answers
    }

    /// Says one message.
    pub(crate) async fn tell(&self, message: Message<BranchOps>) -> Answer {
        self.say(vec![message]).await.remove(0)
    }

    pub(crate) async fn state(&self, n: u64) -> Option<BranchState> {
        self.client.branch(txid(n)).await.ok().map(|view| view.state)
    }
}

pub(crate) fn txid(n: u64) -> Txid {
    format!("{LOG}.3.{n}.0").parse().unwrap()
}

pub(crate) fn id(n: u64) -> TransactionId {
    format!("0198f1c2-a4b2-7c1d-9c0e-{n:012}").parse().unwrap()
}

pub(crate) fn batch(messages: Vec<Message<BranchOps>>) -> Batch<BranchOps> {
    batch_of("http://127.0.0.1:1", messages)
}

pub(crate) fn batch_of(url: &str, messages: Vec<Message<BranchOps>>) -> Batch<BranchOps> {
    let log_id: LogId = LOG.parse().unwrap();
    Batch {
        known: None,
        progress: None,
        participant: NAME.parse().unwrap(),
        coordinator: CoordinatorRef { log_id, epoch: Epoch(3), url: url.to_owned(), life: None },
        low_water: TxNumber { epoch: Epoch(0), n: 0 },
        messages,
    }
}

/// A branch of these ops, as JSON.
pub(crate) fn prepare(n: u64, ops: Value) -> Message<BranchOps> {
    let ops: Vec<SqlOp> = serde_json::from_value(ops).unwrap();
    Message::Prepare(PrepareMessage {
        txid: txid(n),
        id: id(n),
        mode: Mode::TwoPhase,
        wait_ms: 0,
        branches: Vec::new(),
        ops: BranchOps::Sql(ops),
        input: None,
    })
}

pub(crate) fn one_phase(n: u64, ops: Value) -> Message<BranchOps> {
    let mut message = prepare(n, ops);
    if let Message::Prepare(prepare) = &mut message {
        prepare.mode = Mode::OnePhase;
    }
    message
}

/// A branch of an implicit transaction.
pub(crate) fn implicit(n: u64, ops: Value) -> Message<BranchOps> {
    let address = |name: &str| BranchAddress {
        participant: name.parse().unwrap(),
        url: format!("http://{name}:7710"),
    };
    let mut message = prepare(n, ops);
    if let Message::Prepare(prepare) = &mut message {
        prepare.branches = [NAME, "elsewhere"].map(address).to_vec();
    }
    message
}

/// Adds to an account; its new balance.
pub(crate) fn add(id: i32, amount: i64) -> Value {
    json!([{
        "sql": "UPDATE acct SET balance = balance + $1 WHERE id = $2 RETURNING balance",
        "params": [amount, id],
    }])
}

pub(crate) fn commit(n: u64) -> Message<BranchOps> {
    Message::Commit(TxidOnly { txid: txid(n) })
}

pub(crate) fn abort(n: u64) -> Message<BranchOps> {
    Message::Abort(TxidOnly { txid: txid(n) })
}

pub(crate) fn settle(n: u64) -> Message<BranchOps> {
    Message::Settle(TxidOnly { txid: txid(n) })
}

/// The replies of a vote of yes, or of one phase.
#[track_caller]
pub(crate) fn replies(answer: &Answer) -> Value {
    let is_yes = matches!(answer.vote, Some(VoteWord::Yes | VoteWord::Committed));
    assert!(is_yes, "{answer:?}");
    serde_json::from_str(answer.replies.as_ref().unwrap().get()).unwrap()
}

/// The code of a no.
#[track_caller]
pub(crate) fn no(answer: &Answer) -> ErrorCode {
    assert_eq!(answer.vote, Some(VoteWord::No), "{answer:?}");
    answer.code.unwrap()
}

#[track_caller]
pub(crate) fn is(answer: &Answer, state: StateWord) {
    assert_eq!(answer.state, Some(state), "{answer:?}");
}

/// Kept for as long as several tasks say something.
pub(crate) type Shared = Arc<Agent>;
