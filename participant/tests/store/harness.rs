//! A real server of its own for each test, and words to say what a test does.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::command::{OpRequest, ValidatedBranch};
use assent_common::ids::{Attempt, Epoch, LogId, TransactionId, TxNumber, Txid};
use assent_common::outcome::{Aborted, Applied, Call, Done, Prepared, Refusal, Settled, Vote};
use assent_common::participant::Branches;
use assent_common::wire::branch::{BranchAddress, CoordinatorRef, Mode};
use assent_participant::store::{CheckedPrepare, Store, StoreOptions};
use assent_servers::Server;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, Value};
use tempfile::TempDir;

/// The settings that Assent asks for.
pub(crate) const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// Whether the fields of hashes expire on the server of these tests.
pub(crate) fn fields_expire() -> bool {
    let server = assent_servers::chosen();
    server.is_redis_from(7, 4) || server.is_valkey_from(9, 0)
}

/// A server, killed when it is dropped.
pub(crate) struct Redis {
    child: Child,
    dir: TempDir,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Redis {
    /// A server with the settings that Assent asks for.
    pub(crate) fn start() -> Self {
        Self::with(&DURABLE)
    }

    pub(crate) fn with(arguments: &[&str]) -> Self {
        Self::on(&assent_servers::chosen(), arguments)
    }

    /// A server of this kind, for a test that is about servers.
    pub(crate) fn on(server: &Server, arguments: &[&str]) -> Self {
        let (dir, program) = (TempDir::new().unwrap(), server.program.clone());
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.into()).collect();
        let child = Self::spawn(&dir, &program, &arguments);
        Self { child, dir, program, arguments }
    }

    fn spawn(dir: &TempDir, program: &Path, arguments: &[String]) -> Child {
        let socket = dir.path().join("redis.sock");
        let unguarded = ["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-watch"];
        let mut child = Command::new(program)
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(dir.path())
            .args(if crate::BY_SCRIPT { &unguarded[..] } else { &[] })
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines = stdout.lines().map_while(Result::ok);
        assert!(
            lines.any(|line| line.contains("eady to accept connections")),
            "the server ended before it was ready"
        );
        // Keeps reading, so that the server never writes to a closed pipe.
        std::thread::spawn(move || lines.for_each(drop));
        child
    }

    /// `kill -9`, then a start on the same directory.
    pub(crate) fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// A copy of what is on the disk now; every answer that was given is in it.
    pub(crate) fn backup(&self) -> TempDir {
        let backup = TempDir::new().unwrap();
        copy_aof(self.dir.path(), backup.path());
        backup
    }

    /// `kill -9`, then a start on an old copy.
    pub(crate) fn restore(&mut self, backup: &TempDir) {
        self.kill();
        copy_aof(backup.path(), self.dir.path());
        self.child = Self::spawn(&self.dir, &self.program, &self.arguments);
    }

    /// `kill -9`, and a start on a file that ends in the middle of where it says this last.
    pub(crate) fn tear(&mut self, inside: &str) {
        self.kill();
        assent_servers::file::tear(&assent_servers::file::appended(self.dir.path()), inside);
        self.child = Self::spawn(&self.dir, &self.program, &self.arguments);
    }

    /// `kill -9`, and a start with more arguments, for this time.
    pub(crate) fn restart_with(&mut self, more: &[&str]) {
        self.kill();
        let more = more.iter().map(|&argument| argument.to_owned());
        let arguments: Vec<String> = self.arguments.iter().cloned().chain(more).collect();
        self.child = Self::spawn(&self.dir, &self.program, &arguments);
    }

    /// `kill -9`, and a start on a file of which these `MULTI` are gone.
    pub(crate) fn drop_transactions(&mut self, is_dropped: impl FnMut() -> bool) {
        self.kill();
        let path = assent_servers::file::appended(self.dir.path());
        assent_servers::file::drop_transactions(&path, is_dropped);
        self.child = Self::spawn(&self.dir, &self.program, &self.arguments);
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    pub(crate) async fn store(&self) -> Store {
        Store::connect(StoreOptions::new(self.url())).await.unwrap()
    }

    /// A store that writes by scripts, whatever the others do.
    pub(crate) async fn store_by_script(&self) -> Store {
        let mut plain = self.plain().await;
        let rules = ["ACL", "SETUSER", "agent", "on", ">pw", "~*", "&*", "+@all", "-watch"];
        let () = plain.run(&rules).await;
        let url = format!("{}?user=agent&pass=pw", self.url());
        Store::connect(StoreOptions::new(url)).await.unwrap()
    }

    /// A plain connection, past the agent. It waits for as long as it takes.
    pub(crate) async fn plain(&self) -> Plain {
        let client = redis::Client::open(self.url()).unwrap();
        let patient = AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = client.get_multiplexed_async_connection_with_config(&patient);
        Plain(connection.await.unwrap())
    }
}

/// Puts a copy of the append-only file of one directory in the place of the other's: a file, or from Redis 7.0 on a
/// directory of them.
fn copy_aof(from: &Path, to: &Path) {
    let file = "appendonly.aof";
    if from.join(file).exists() {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
        return;
    }
    let (from, to) = (from.join("appendonlydir"), to.join("appendonlydir"));
    let _new = std::fs::remove_dir_all(&to);
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A client that is not Assent.
#[derive(Clone)]
pub(crate) struct Plain(pub(crate) MultiplexedConnection);

/// How often each command was called.
#[derive(Debug)]
pub(crate) struct Calls(HashMap<String, u64>);

impl Calls {
    pub(crate) fn of(&self, command: &str) -> u64 {
        self.0.get(command).copied().unwrap_or(0)
    }
}

impl Plain {
    pub(crate) async fn run<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut self.0).await.unwrap()
    }

    pub(crate) async fn get(&mut self, key: &str) -> Option<String> {
        self.run(&["GET", key]).await
    }

    /// When a key expires, in ms since 1970; -1 if never, -2 if there is none.
    pub(crate) async fn expires_at_ms(&mut self, key: &str) -> i64 {
        if !assent_servers::chosen().is_redis_6_2() {
            return self.run(&["PEXPIRETIME", key]).await;
        }
        // It says what is left by a clock that runs on: both are read within one millisecond.
        let script = "local function now() local t = redis.call('TIME') \
                      return t[1] * 1000 + math.floor(t[2] / 1000) end \
                      while true do local at, left = now(), redis.call('PTTL', KEYS[1]) \
                      if left < 0 then return left end \
                      if now() == at then return at + left end end";
        self.run(&["EVAL", script, "1", key]).await
    }

    /// The fields of the control hash that begin so.
    pub(crate) async fn control(&mut self, prefix: &str) -> Vec<String> {
        let mut fields: Vec<String> = self.run(&["HKEYS", "assent:ctl"]).await;
        fields.retain(|field| field.starts_with(prefix));
        fields.sort();
        fields
    }

    /// How often each command was called since the last time that this was asked.
    pub(crate) async fn calls(&mut self) -> Calls {
        let info: String = self.run(&["INFO", "commandstats"]).await;
        let () = self.run(&["CONFIG", "RESETSTAT"]).await;
        let lines = info.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(':'));
        let count = |stats: &str| stats.split_once("calls=")?.1.split_once(',')?.0.parse().ok();
        Calls(lines.filter_map(|(name, stats)| Some((name.to_owned(), count(stats)?))).collect())
    }

    /// Everything but the control hash, as a digest.
    pub(crate) async fn data(&mut self) -> Vec<(String, Value)> {
        let mut keys: Vec<String> = self.run(&["KEYS", "*"]).await;
        keys.retain(|key| !key.starts_with("assent:ctl"));
        keys.sort();
        let mut data = Vec::new();
        for key in keys {
            let dump: Value = self.run(&["DUMP", &key]).await;
            data.push((key, dump));
        }
        data
    }
}

pub(crate) fn now_ms() -> i64 {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// A transaction of the one coordinator of these tests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tx {
    pub(crate) txid: Txid,
    pub(crate) id: TransactionId,
}

pub(crate) const LOG: LogId = LogId(uuid_of(0x0198_f1c2_a4b2_7c1d_9c0e_3f4a_5b6c_7d8e));

const fn uuid_of(bits: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(bits)
}

/// The transaction number `n`; the smaller, the older.
pub(crate) fn tx(n: u64) -> Tx {
    tx_of(1, n)
}

pub(crate) fn tx_of(epoch: u64, n: u64) -> Tx {
    let number = TxNumber { epoch: Epoch(epoch), n };
    let txid = Txid { log_id: LOG, number, attempt: Attempt::FIRST };
    let uuid = uuid_of(0x0198_f1c2_a4b2_7000_8000_0000_0000_0000 + u128::from(n));
    Tx { txid, id: TransactionId::new(uuid).unwrap() }
}

pub(crate) fn coordinator(epoch: u64) -> CoordinatorRef {
    CoordinatorRef {
        log_id: LOG,
        epoch: Epoch(epoch),
        url: "http://coordinator:7700".into(),
        life: None,
    }
}

pub(crate) const NO_MARK: TxNumber = TxNumber { epoch: Epoch(0), n: 0 };

/// Ops, one to a line of words; `?` begins an expectation as JSON, `~` an op in escrow.
pub(crate) fn ops(lines: &[&str]) -> ValidatedBranch {
    let requests = lines.iter().map(|line| {
        let (words, expect) = line.split_once('?').unwrap_or((line, ""));
        let escrow = words.strip_prefix('~');
        let mut request = OpRequest::new(escrow.unwrap_or(words).split_whitespace());
        request.escrow = escrow.is_some();
        if !expect.is_empty() {
            request.expect = Some(serde_json::from_str(expect).unwrap());
        }
        request
    });
    ValidatedBranch::new(requests.collect()).unwrap()
}

/// A message, and the branch that it is about.
pub(crate) type Told = (Txid, BranchMessage<CheckedPrepare>);

pub(crate) fn commit(tx: Tx) -> Told {
    (tx.txid, BranchMessage::Commit)
}

pub(crate) fn abort(tx: Tx) -> Told {
    (tx.txid, BranchMessage::Abort)
}

pub(crate) fn settle(tx: Tx) -> Told {
    (tx.txid, BranchMessage::Settle)
}

pub(crate) fn prepare(tx: Tx, mode: Mode, branch: ValidatedBranch) -> Told {
    let branches = Branches::default();
    let prepare = CheckedPrepare { id: tx.id, mode, branches, branch, if_new: None, hooked: None };
    (tx.txid, BranchMessage::Prepare(prepare))
}

/// A prepare of an implicit transaction that has another branch elsewhere.
pub(crate) fn implicit(tx: Tx, branch: ValidatedBranch) -> Told {
    let (branches, mode) = (both(), Mode::TwoPhase);
    let prepare = CheckedPrepare { id: tx.id, mode, branches, branch, if_new: None, hooked: None };
    (tx.txid, BranchMessage::Prepare(prepare))
}

/// The branches of every implicit transaction here.
pub(crate) fn both() -> Branches {
    let address = |name: &str| BranchAddress {
        participant: name.parse().unwrap(),
        url: format!("http://{name}:7710"),
    };
    ["here", "elsewhere"].map(address)[..].into()
}

/// What tests ask of a store.
pub(crate) trait Ask {
    async fn send(&self, messages: Vec<Told>) -> Vec<BranchAnswer>;
    async fn prepare(&self, tx: Tx, lines: &[&str]) -> Call<Prepared>;
    async fn one_phase(&self, tx: Tx, lines: &[&str]) -> Call<Prepared>;
    async fn commit(&self, tx: Tx) -> Call<Applied>;
    async fn abort(&self, tx: Tx) -> Call<Aborted>;
    async fn settle(&self, tx: Tx) -> Call<Settled>;
}

impl Ask for Store {
    async fn send(&self, messages: Vec<Told>) -> Vec<BranchAnswer> {
        self.execute(&coordinator(1), NO_MARK, messages).await
    }
    async fn prepare(&self, tx: Tx, lines: &[&str]) -> Call<Prepared> {
        prepared(self.send(vec![prepare(tx, Mode::TwoPhase, ops(lines))]).await.remove(0))
    }
    async fn one_phase(&self, tx: Tx, lines: &[&str]) -> Call<Prepared> {
        prepared(self.send(vec![prepare(tx, Mode::OnePhase, ops(lines))]).await.remove(0))
    }
    async fn commit(&self, tx: Tx) -> Call<Applied> {
        match self.send(vec![commit(tx)]).await.remove(0) {
            BranchAnswer::Applied(call) => call,
            other => panic!("no answer to a commit: {other:?}"),
        }
    }
    async fn abort(&self, tx: Tx) -> Call<Aborted> {
        match self.send(vec![abort(tx)]).await.remove(0) {
            BranchAnswer::Aborted(call) => call,
            other => panic!("no answer to an abort: {other:?}"),
        }
    }
    async fn settle(&self, tx: Tx) -> Call<Settled> {
        match self.send(vec![settle(tx)]).await.remove(0) {
            BranchAnswer::Settled(call) => call,
            other => panic!("no answer to a settle: {other:?}"),
        }
    }
}

/// Nothing is locked: no record and no field of the hash says so, and who is younger than all gets
/// each of these keys for itself.
pub(crate) async fn assert_unlocked(store: &Store, plain: &mut Plain, keys: &[&str]) {
    for prefix in ["s:", "l:"] {
        assert_eq!(plain.control(prefix).await, Vec::<String>::new());
    }
    assert_free(store, keys).await;
}

/// Who is younger than all gets each of these keys for itself.
pub(crate) async fn assert_free(store: &Store, keys: &[&str]) {
    static COUNT: AtomicU64 = AtomicU64::new(1_000_000);
    let tx = tx(COUNT.fetch_add(1, Ordering::Relaxed));
    let lines: Vec<String> = keys.iter().map(|key| format!("PERSIST {key}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    vote(store.prepare(tx, &lines).await);
    store.abort(tx).await.done();
}

pub(crate) fn prepared(answer: BranchAnswer) -> Call<Prepared> {
    match answer {
        BranchAnswer::Prepared(call) => call,
        other => panic!("no answer to a prepare: {other:?}"),
    }
}

pub(crate) trait Expected<T> {
    fn refused(self) -> Refusal;
    fn done(self) -> T;
}

impl<T: std::fmt::Debug> Expected<T> for Call<T> {
    fn refused(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            other => panic!("no refusal: {other:?}"),
        }
    }
    fn done(self) -> T {
        match self {
            Self::Applied(value) => value,
            other => panic!("not done: {other:?}"),
        }
    }
}

pub(crate) fn vote(call: Call<Prepared>) -> Vote {
    match call.done() {
        Prepared::Yes(vote) => vote,
        other => panic!("no yes: {other:?}"),
    }
}

pub(crate) fn committed(call: Call<Prepared>) -> Arc<str> {
    one_phase_done(call).replies
}

pub(crate) fn one_phase_done(call: Call<Prepared>) -> Done {
    match call.done() {
        Prepared::Committed(done) => done,
        other => panic!("not committed: {other:?}"),
    }
}

pub(crate) const CLEAN: Call<Applied> = Call::Applied(Applied { dirty_writes: 0 });

/// Numbers that look random, the same in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
