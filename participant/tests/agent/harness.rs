//! A real Redis, a served participant, a coordinator that answers what a test wants, and messages to say.

use std::collections::HashSet;
use std::future::{Future, IntoFuture as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use assent_client::participant::ParticipantAdmin;
use assent_client::{Http, HttpOptions, ParticipantClient};
use assent_common::command::OpRequest;
use assent_common::outcome::{Call, Prepared};
use assent_common::wire::MEDIA_TYPE;
use assent_common::wire::branch::{
    Answer, Batch, BranchAddress, BranchState, CoordinatorRef, Message, Mode, PrepareMessage,
    TxidOnly,
};
use assent_common::{Epoch, LogId, ParticipantName, TransactionId, TxNumber, Txid};
use assent_participant::{Addresses, Exposure, MetricsText, Options, ServeOptions, Serving, serve};

pub(crate) const LOG: &str = "0198f1c2a4b27c1d9c0e3f4a5b6c7d8e";
pub(crate) const OTHER_LOG: &str = "0198ffffa4b27c1d9c0e3f4a5b6c7d8e";
pub(crate) const NAME: &str = "bank-a";

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
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A Redis with the settings that durable votes need, on a socket in a directory of its own.
pub(crate) struct Redis {
    dir: TempDir,
    child: Child,
}

impl Redis {
    pub(crate) async fn start() -> Self {
        Self::with_file("yes").await
    }

    /// With an append-only file, or without one.
    pub(crate) async fn with_file(appendonly: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = spawn(dir.path(), appendonly);
        let redis = Self { dir, child };
        redis.answers().await;
        redis
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}/redis.sock", self.dir.path().display())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it: its connections stay open, and nothing answers.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub(crate) async fn start_again(&mut self) {
        self.child = spawn(self.dir.path(), "yes");
        self.answers().await;
    }

    /// `kill -9`, and in the place of the server one that breaks every connection.
    pub(crate) fn outage(&mut self) -> Outage {
        self.kill();
        let socket = self.dir.path().join("redis.sock");
        std::fs::remove_file(&socket).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let broken = watch::Sender::new(0);
        let count = broken.clone();
        let server = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.send_modify(|count| *count += 1);
            }
        });
        Outage { broken, server }
    }

    /// All fields of the control hash that begin so.
    pub(crate) async fn control(&self, prefix: &str) -> Vec<String> {
        let mut fields: Vec<String> = self.ask(&["HKEYS", "assent:ctl"]).await.unwrap();
        fields.retain(|field| field.starts_with(prefix));
        fields
    }

    async fn answers(&self) {
        until("Redis answers", async || self.ask::<String>(&["PING"]).await.ok()).await;
    }

    pub(crate) async fn ask<T: redis::FromRedisValue>(
        &self,
        words: &[&str],
    ) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await
    }

    pub(crate) async fn set_config(&self, setting: &str, value: &str) {
        let () = self.ask(&["CONFIG", "SET", setting, value]).await.unwrap();
    }

    /// Closes every connection but the one that asks.
    pub(crate) async fn break_connections(&self) {
        let _closed: u64 = self.ask(&["CLIENT", "KILL", "SKIPME", "yes"]).await.unwrap();
    }

    pub(crate) async fn flush(&self) {
        let () = self.ask(&["FLUSHALL"]).await.unwrap();
    }

    pub(crate) async fn get(&self, key: &str) -> Option<String> {
        self.ask(&["GET", key]).await.unwrap()
    }
}

fn spawn(dir: &Path, appendonly: &str) -> Child {
    Command::new(assent_servers::chosen().program)
        .args(["--port", "0", "--unixsocket", "redis.sock", "--save", ""])
        .args(["--appendonly", appendonly, "--appendfsync", "always"])
        .args(["--dir", &dir.display().to_string()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A time in which Redis is down. It ends with its drop.
pub(crate) struct Outage {
    broken: watch::Sender<usize>,
    server: JoinHandle<()>,
}

impl Outage {
    /// Waits until so many connections were tried in vain, from now on.
    pub(crate) async fn breaks(&self, more: usize) {
        let mut broken = self.broken.subscribe();
        let enough = *broken.borrow() + more;
        let tried = tokio::time::timeout(PATIENCE, broken.wait_for(|broken| *broken >= enough));
        assert!(tried.await.is_ok(), "waited in vain until {more} more connections were tried");
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A participant that is served, and its clients.
pub(crate) struct Sidecar {
    name: String,
    pub(crate) addresses: Addresses,
    pub(crate) client: ParticipantClient,
    pub(crate) admin: ParticipantAdmin,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<Serving>,
}

impl Sidecar {
    pub(crate) async fn start(redis: &Redis) -> Self {
        // No questions unless a test wants them.
        Self::with(redis, |options| options.resolve_interval_ms = 3_600_000).await
    }

    pub(crate) async fn with(redis: &Redis, change: impl FnOnce(&mut Options)) -> Self {
        let mut participant = Options::new(NAME, redis.url());
        change(&mut participant);
        let name = participant.name.clone();
        let any = "127.0.0.1:0".parse().unwrap();
        let (stop, stopped) = oneshot::channel();
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
        let serving = serve(options, shutdown).await.unwrap();
        let addresses = serving.addresses();
        let http = Http::new(&HttpOptions { request_timeout_ms: 20_000, ..HttpOptions::default() })
            .unwrap();
        let client =
            ParticipantClient::new(&http, &format!("http://{}", addresses.public)).unwrap();
        let admin = ParticipantAdmin::new(&http, &format!("http://{}", addresses.admin)).unwrap();
        Self { name, addresses, client, admin, stop: Some(stop), serving: Some(serving) }
    }

    /// The way to stop it, and to wait for its end.
    pub(crate) fn take_apart(&mut self) -> (oneshot::Sender<()>, Serving) {
        (self.stop.take().unwrap(), self.serving.take().unwrap())
    }

    pub(crate) fn name(&self) -> ParticipantName {
        self.name.parse().unwrap()
    }

    /// Says the messages in one batch.
    pub(crate) async fn say(&self, messages: Vec<Message>) -> Vec<Answer> {
        self.say_for("http://127.0.0.1:1", messages).await
    }

    /// The same, as the coordinator at this URL.
    pub(crate) async fn say_for(&self, url: &str, messages: Vec<Message>) -> Vec<Answer> {
        let batch = Batch { participant: self.name.parse().unwrap(), ..batch(url, messages) };
        self.client.batch(&batch).await.unwrap().answers
    }

    /// Asks for transaction `n` by the call that waits.
    pub(crate) async fn prepare(&self, n: u64, wait_ms: u64, words: &[&str]) -> Call<Prepared> {
        let mut message = prepare(n, [words]);
        if let Message::Prepare(prepare) = &mut message {
            prepare.wait_ms = wait_ms;
        }
        let batch = batch("http://127.0.0.1:1", vec![message]);
        let batch = Batch { participant: self.name.parse().unwrap(), ..batch };
        self.client.prepare_waiting(txid(n), wait_ms, &batch).await
    }

    /// Returns when a prepare waits; the participant must have been started with [`counting`].
    pub(crate) async fn somebody_waits(&self) {
        let line = format!("assent_prepares_waiting{{participant=\"{}\"}} 1", self.name);
        until("a prepare waits", async || {
            let text = self.admin.metrics().await.unwrap();
            text.lines().any(|found| found == line).then_some(())
        })
        .await;
    }

    pub(crate) async fn state(&self, n: u64) -> Option<BranchState> {
        self.client.branch(txid(n)).await.ok().map(|view| view.state)
    }
}

/// Options with metrics to look at, under a name that no other test's metrics have.
pub(crate) fn counting(name: &str) -> impl FnOnce(&mut Options) {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    let recorder = RECORDER.get_or_init(|| {
        let builder = assent_participant::metrics::configure(PrometheusBuilder::new()).unwrap();
        builder.install_recorder().unwrap()
    });
    let text = MetricsText::new(|| recorder.render());
    move |options| {
        options.name = name.to_owned();
        options.resolve_interval_ms = 3_600_000;
        options.metrics_text = Some(text);
    }
}

/// A coordinator that answers every question with what it was given last.
pub(crate) struct Oracle {
    pub(crate) url: String,
    answer: Arc<Mutex<(u16, &'static str, String)>>,
    asked: Arc<AtomicUsize>,
}

impl Oracle {
    pub(crate) async fn saying(status: u16, media_type: &'static str, body: String) -> Self {
        let answer = Arc::new(Mutex::new((status, media_type, body)));
        let asked = Arc::new(AtomicUsize::new(0));
        let (said, counted) = (Arc::clone(&answer), Arc::clone(&asked));
        let router = Router::new().fallback(move || {
            let (status, media_type, body) = said.lock().unwrap().clone();
            counted.fetch_add(1, Ordering::SeqCst);
            async move {
                let status = StatusCode::from_u16(status).unwrap();
                let response: Response =
                    (status, [(CONTENT_TYPE, media_type)], body).into_response();
                response
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, router).into_future());
        Self { url, answer, asked }
    }

    /// From now on tells the truth.
    pub(crate) fn says(&self, n: u64, outcome: &str) {
        *self.answer.lock().unwrap() = (200, MEDIA_TYPE, outcome_body(n, LOG, outcome));
    }

    pub(crate) fn times_asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) async fn asked(&self, times: usize) {
        until("the coordinator was asked", async || {
            (self.asked.load(Ordering::SeqCst) >= times).then_some(())
        })
        .await;
    }
}

/// A coordinator that says nothing until it is back. Then even transactions are committed, odd ones are not.
pub(crate) struct Judge {
    pub(crate) url: String,
    back: Arc<AtomicBool>,
    asked: Arc<Mutex<HashSet<String>>>,
}

impl Judge {
    pub(crate) async fn start() -> Self {
        let back = Arc::new(AtomicBool::new(false));
        let asked: Arc<Mutex<HashSet<String>>> = Arc::default();
        let (is_back, counted) = (Arc::clone(&back), Arc::clone(&asked));
        let router = Router::new().fallback(move |uri: Uri| {
            let txid: Txid = uri.path().split('/').nth(3).unwrap().parse().unwrap();
            counted.lock().unwrap().insert(txid.to_string());
            let n = txid.number.n;
            let outcome = if n.is_multiple_of(2) { "committed" } else { "aborted" };
            let answers = is_back.load(Ordering::SeqCst);
            async move {
                let response: Response = if answers {
                    ([(CONTENT_TYPE, MEDIA_TYPE)], outcome_body(n, LOG, outcome)).into_response()
                } else {
                    StatusCode::BAD_GATEWAY.into_response()
                };
                response
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, router).into_future());
        Self { url, back, asked }
    }

    pub(crate) fn is_back(&self) {
        self.back.store(true, Ordering::SeqCst);
    }

    /// Returns when it was asked about this many transactions.
    pub(crate) async fn asked(&self, count: usize) {
        until("the coordinator was asked about all", async || {
            (self.asked.lock().unwrap().len() >= count).then_some(())
        })
        .await;
    }
}

pub(crate) fn outcome_body(n: u64, log: &str, outcome: &str) -> String {
    format!(r#"{{"txid":"{}","log_id":"{log}","outcome":"{outcome}"}}"#, txid(n))
}

pub(crate) fn txid(n: u64) -> Txid {
    format!("{LOG}.3.{n}.0").parse().unwrap()
}

/// The public id of transaction `n`: the smaller, the older.
pub(crate) fn id(n: u64) -> TransactionId {
    format!("0198f1c2-a4b2-7c1d-9c0e-{n:012}").parse().unwrap()
}

pub(crate) fn batch(url: &str, messages: Vec<Message>) -> Batch {
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

pub(crate) fn prepare<const N: usize>(n: u64, ops: [&[&str]; N]) -> Message {
    let ops = ops.iter().map(|words| OpRequest::new(words.iter().copied())).collect();
    Message::Prepare(PrepareMessage {
        txid: txid(n),
        id: id(n),
        mode: Mode::TwoPhase,
        wait_ms: 0,
        branches: Vec::new(),
        ops,
        input: None,
    })
}

/// A branch of an implicit transaction that writes a key of its own, and whose other branch is elsewhere.
pub(crate) fn implicit(n: u64) -> Message {
    let address = |name: &str| BranchAddress {
        participant: name.parse().unwrap(),
        url: format!("http://{name}:7710"),
    };
    let mut message = prepare(n, [&["SET", &format!("k{n}"), "v"]]);
    if let Message::Prepare(prepare) = &mut message {
        prepare.branches = [NAME, "elsewhere"].map(address).to_vec();
    }
    message
}

pub(crate) fn commit(n: u64) -> Message {
    Message::Commit(TxidOnly { txid: txid(n) })
}

pub(crate) fn abort(n: u64) -> Message {
    Message::Abort(TxidOnly { txid: txid(n) })
}
