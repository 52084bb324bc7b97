//! The door for Redis clients, as a client of the most used Rust library goes through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use assent_client::{SubmitError, Transaction};
use assent_common::ErrorCode;
use assent_common::wire::problem::OutcomeWord;
use assent_process::{Port, RedisOptions};
use assent_servers::Server;
use assent_tests::cluster::restart;
use assent_tests::resp::{ExecTold, connect, send, told};
use assent_tests::{Cluster, Options, plain, wait_settled};
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisResult, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::ASSENT;

/// A cluster, and the address of its door.
struct Rig {
    cluster: Cluster,
    port: Port,
}

impl Rig {
    async fn start(more: &[&'static str]) -> Self {
        Self::on(&assent_servers::chosen(), more).await
    }

    async fn on(server: &Server, more: &[&'static str]) -> Self {
        let port = Port::take().unwrap();
        let address: &'static str = Box::leak(port.address().into_boxed_str());
        let mut coordinator = vec!["--resp-listen", address];
        coordinator.extend(["--route", "a:*=bank-a", "--route", "b:*=bank-b"]);
        coordinator.extend(more);
        let redis =
            RedisOptions { program: server.program().to_owned(), ..RedisOptions::default() };
        let options = Options { coordinator, redis, ..Options::default() };
        Self { cluster: Cluster::start(ASSENT, options).await, port }
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        connect(&self.port.address()).await
    }

    async fn found<T: redis::FromRedisValue>(&self, peer: usize, words: &[&str]) -> T {
        plain::run(&self.cluster.peers[peer].redis, words).await
    }
}

/// The first word of an error.
fn code(value: &Value) -> String {
    match value.clone().extract_error() {
        Err(error) => error.code().unwrap_or_default().to_owned(),
        Ok(value) => panic!("no error: {value:?}"),
    }
}

/// The README's promise, through the other door: both writes, or none.
#[tokio::test]
async fn money_moves_by_multi_and_exec_or_it_does_not() {
    let rig = Rig::start(&[]).await;
    let mut client = rig.connect().await.unwrap();
    redis::cmd("SET").arg("a:alice").arg(100).exec_async(&mut client).await.unwrap();
    let transfer = |sum: &str| {
        let lines = ["MULTI", "DECRBY a:alice ", "ASSENT.EXPECT GE 0", "INCRBY b:bob ", "EXEC"];
        lines.map(|line| if line.ends_with(' ') { format!("{line}{sum}") } else { line.to_owned() })
    };
    let lines = transfer("30");
    let said = send(&mut client, &lines.each_ref().map(String::as_str)).await.unwrap();
    assert_eq!(said[4], Value::Array(vec![Value::Int(70), Value::Okay, Value::Int(30)]));
    let lines = transfer("300");
    let said = send(&mut client, &lines.each_ref().map(String::as_str)).await.unwrap();
    assert_eq!(code(&said[4]), "EXPECTATIONFAILED");
    let refused = format!("{:?}", said[4]);
    assert!(refused.contains("-230"), "it says what was met: {refused}");
    // The library's own way to say it.
    let mut pipeline = redis::pipe();
    pipeline.atomic().cmd("DECRBY").arg("a:alice").arg(0).cmd("INCRBY").arg("b:bob").arg(0);
    let same: (i64, i64) = pipeline.query_async(&mut client).await.unwrap();
    assert_eq!(same, (70, 30));
    wait_settled(&rig.cluster).await;
    assert_eq!(rig.found::<i64>(0, &["GET", "a:alice"]).await, 70);
    assert_eq!(rig.found::<i64>(1, &["GET", "b:bob"]).await, 30);
}

/// Commands that have no handler, at two participants at once, in the words of Redis; and a fault
/// of one of them undoes all.
#[tokio::test]
async fn commands_that_redis_runs_are_part_of_a_transaction() {
    let rig = Rig::start(&[]).await;
    let mut client = rig.connect().await.unwrap();
    let lines = ["RPUSH a:queue 1 2 3", "ZADD b:rank 1 x 2 y", "XADD b:log 1-1 f v"];
    send(&mut client, &lines).await.unwrap();
    let lines = ["MULTI", "LMOVE a:queue a:taken LEFT LEFT", "ZPOPMIN b:rank", "EXEC"];
    let said = send(&mut client, &lines).await.unwrap();
    let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
    let popped = Value::Array(vec![text("x"), text("1")]);
    assert_eq!(said[3], Value::Array(vec![text("1"), popped]));
    assert_eq!(rig.found::<Vec<String>>(0, &["LRANGE", "a:taken", "0", "-1"]).await, ["1"]);
    assert_eq!(rig.found::<Vec<String>>(1, &["ZRANGE", "b:rank", "0", "-1"]).await, ["y"]);
    let group = "XGROUP CREATE b:log g 0";
    let lines = ["MULTI", "LMOVE a:queue a:taken LEFT LEFT", group, "EXEC"];
    send(&mut client, &lines).await.unwrap();
    let said = send(&mut client, &lines).await.unwrap();
    assert_eq!(code(&said[3]), "BUSYGROUP");
    assert_eq!(rig.found::<Vec<String>>(0, &["LRANGE", "a:queue", "0", "-1"]).await, ["3"]);
}

/// A command that only Valkey has: there it is part of a transaction, by either door. Elsewhere it
/// is refused by its name, and the transaction with it.
#[tokio::test]
async fn a_command_of_some_servers_is_done_there_and_refused_by_name_elsewhere() {
    for name in ["redis-8.2", "valkey-9.1"] {
        let Some(server) = assent_servers::named(name) else { continue };
        let has_it = server.is_valkey_from(9, 0);
        let rig = Rig::on(&server, &[]).await;
        let mut client = rig.connect().await.unwrap();
        send(&mut client, &["SET a:lease me", "SET b:lease me"]).await.unwrap();
        let said = send(&mut client, &["MSETEX 2 a:count 1 b:count 1"]).await.unwrap();
        assert_eq!(code(&said[0]), "CROSSPARTICIPANT", "its keys are found");
        let lines = ["MULTI", "DELIFEQ a:lease me", "INCR b:count", "EXEC"];
        let said = send(&mut client, &lines).await.unwrap().remove(3);
        let request = Transaction::default()
            .branch("bank-b", |ops| ops.op(["DELIFEQ", "b:lease", "me"]).expect_eq("1"))
            .branch("bank-a", |ops| ops.op(["INCR", "a:count"]));
        let told = rig.cluster.api.submit(&request.build().unwrap(), None, None).await;
        if has_it {
            assert_eq!(said, Value::Array(vec![Value::Int(1), Value::Int(1)]));
            assert_eq!(told.unwrap().outcome, OutcomeWord::Committed);
        } else {
            let why = "unknown command 'DELIFEQ' on the participant's Redis";
            let said = said.extract_error().unwrap_err();
            assert_eq!((said.code(), said.detail()), (Some("ERR"), Some(why)));
            let Err(SubmitError::Aborted(problem)) = told else { panic!("{told:?}") };
            assert_eq!(problem.code, ErrorCode::CommandRefused);
            assert!(problem.detail.contains(why), "{problem:?}");
        }
        for (peer, service) in ["a", "b"].into_iter().enumerate() {
            let (lease, count) = (format!("{service}:lease"), format!("{service}:count"));
            let found: Vec<Option<String>> = rig.found(peer, &["MGET", &lease, &count]).await;
            let (done, not_done) = ([None, Some("1")], [Some("me"), None]);
            let found: Vec<Option<&str>> = found.iter().map(Option::as_deref).collect();
            assert_eq!(found, if has_it { done } else { not_done }, "{name}: {service}");
        }
    }
}

/// A client that does not wait for answers gets them all, in its order, and one that fails is
/// alone.
#[tokio::test]
async fn pipelined_commands_are_done_and_answered_in_their_order() {
    let rig = Rig::start(&[]).await;
    let mut client = rig.connect().await.unwrap();
    let lines = [
        "SET a:n 1",
        "INCR a:n",
        "LPUSH a:n x",
        "PING",
        "INCR a:n",
        "SET b:n 7",
        "GET a:n",
        "NOSUCH",
        "MULTI",
        "INCR a:n",
        "INCR b:n",
        "EXEC",
        "MULTI",
        "LPUSH b:n x",
        "INCR a:n",
        "EXEC",
        "MULTI",
        "INCR a:n",
        "INCR b:n",
        "EXEC",
        "MGET a:n a:none",
    ];
    let said = send(&mut client, &lines).await.unwrap();
    let (ok, queued) = (Value::Okay, Value::SimpleString("QUEUED".to_owned()));
    assert_eq!(said[..2], [ok.clone(), Value::Int(2)]);
    assert_eq!(code(&said[2]), "WRONGTYPE");
    assert_eq!(said[3], Value::SimpleString("PONG".to_owned()));
    assert_eq!(said[4..7], [Value::Int(3), ok.clone(), Value::BulkString(b"3".to_vec())]);
    assert_eq!(code(&said[7]), "ERR");
    assert_eq!(said[8..11], [ok, queued.clone(), queued]);
    assert_eq!(said[11], Value::Array(vec![Value::Int(4), Value::Int(8)]));
    assert_eq!(code(&said[15]), "WRONGTYPE", "all of it is refused: {:?}", said[15]);
    assert_eq!(said[19], Value::Array(vec![Value::Int(5), Value::Int(9)]));
    assert_eq!(said[20], Value::Array(vec![Value::BulkString(b"5".to_vec()), Value::Nil]));
}

/// The time for a command is for one command: who always has half of the next one under way is no
/// slow client.
#[tokio::test]
async fn a_client_that_always_sends_is_served() {
    let rig = Rig::start(&["--body-timeout", "2s"]).await;
    let mut stream = TcpStream::connect(rig.port.address()).await.unwrap();
    stream.write_all(b"PI").await.unwrap();
    let began = Instant::now();
    let mut answer = [0; 7];
    while began.elapsed() < Duration::from_secs(5) {
        stream.write_all(b"NG\r\nPI").await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"+PONG\r\n");
    }
    // Half a command that stays one ends the connection.
    assert_eq!(stream.read(&mut answer).await.unwrap(), 0);
}

/// Clients that write a whole pipeline before they read are common.
#[tokio::test]
async fn a_pipeline_that_is_written_before_it_is_read_is_answered() {
    const SIZE: usize = 256 * 1024;
    const COUNT: usize = 48;
    let rig = Rig::start(&[]).await;
    let mut stream = TcpStream::connect(rig.port.address()).await.unwrap();
    let mut said = Vec::new();
    for _ in 0..COUNT {
        said.extend_from_slice(format!("*3\r\n$3\r\nSET\r\n$3\r\na:k\r\n${SIZE}\r\n").as_bytes());
        said.resize(said.len() + SIZE, b'v');
        said.extend_from_slice(b"\r\nGET a:k\r\n");
    }
    stream.write_all(&said).await.unwrap();
    let one = 5 + format!("${SIZE}\r\n").len() + SIZE + 2;
    let mut answers = vec![0; COUNT * one];
    stream.read_exact(&mut answers).await.unwrap();
    for answer in answers.chunks(one) {
        assert!(answer.starts_with(b"+OK\r\n$262144\r\nvvv"), "{}", answer[..40].escape_ascii());
    }
}

#[tokio::test]
async fn the_token_of_the_api_is_the_password() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let file: &'static str = Box::leak(file.display().to_string().into_boxed_str());
    let rig = Rig::start(&["--api-token-file", file]).await;
    let address = rig.port.address();
    let mut stranger = rig.connect().await.unwrap();
    let said = send(&mut stranger, &["GET a:x", "AUTH wrong", "PING"]).await.unwrap();
    assert_eq!(said.iter().map(code).collect::<Vec<_>>(), ["NOAUTH", "WRONGPASS", "NOAUTH"]);
    let mut known = connect(&format!(":s3cret@{address}")).await.unwrap();
    redis::cmd("SET").arg("a:x").arg(1).exec_async(&mut known).await.unwrap();
    // Nobody keeps much of what a stranger sends.
    let mut stranger = TcpStream::connect(&address).await.unwrap();
    let mut said = b"*2\r\n$3\r\nGET\r\n$1000000\r\n".to_vec();
    said.resize(200_000, b'k');
    stranger.write_all(&said).await.unwrap();
    let mut answer = [0; 7];
    stranger.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"-NOAUTH");
    let wrong = connect(&format!(":wrong@{address}")).await;
    assert_eq!(wrong.err().unwrap().kind(), ErrorKind::AuthenticationFailed);
}

/// Client libraries send again after a time-out. With a key that is harmless.
#[tokio::test]
async fn a_transaction_with_a_key_is_done_once_however_often_it_is_sent() {
    let rig = Rig::start(&[]).await;
    let mut client = rig.connect().await.unwrap();
    let lines = ["MULTI", "ASSENT.KEY order-17", "INCR a:n", "INCR b:n", "EXEC"];
    let once = Value::Array(vec![Value::Okay, Value::Int(1), Value::Int(1)]);
    for _ in 0..3 {
        assert_eq!(send(&mut client, &lines).await.unwrap()[4], once);
    }
    let other = ["MULTI", "ASSENT.KEY order-17", "INCR a:n", "EXEC"];
    assert_eq!(code(&send(&mut client, &other).await.unwrap()[3]), "IDEMPOTENCYMISMATCH");
    assert_eq!(rig.found::<i64>(0, &["GET", "a:n"]).await, 1);
}

/// Promise: an abort is told from a refusal of one copy by the id behind it, also where Redis has
/// words of its own; without an id or a key those words stay whole, which clients compare.
#[tokio::test]
async fn an_abort_in_the_words_of_redis_names_the_transaction_that_has_an_id() {
    let rig = Rig::start(&[]).await;
    let mut client = rig.connect().await.unwrap();
    let id = Transaction::new().id().unwrap();
    let tie = format!("ASSENT.ID {id}");
    let create = "XGROUP CREATE a:log g $ MKSTREAM";
    send(&mut client, &[create]).await.unwrap();
    let text = |value: &Value| value.clone().extract_error().unwrap_err().to_string();
    let plain = text(&send(&mut client, &[create]).await.unwrap()[0]);
    let whole = "Consumer Group name already exists";
    assert!(plain.contains("BUSYGROUP") && plain.ends_with(whole), "{plain}");
    for _copy in 0..2 {
        let said = send(&mut client, &["MULTI", &tie, create, "INCR b:n", "EXEC"]).await.unwrap();
        assert_eq!(code(&said[4]), "BUSYGROUP");
        let tied = text(&said[4]);
        assert!(tied.ends_with(&format!("{whole} (transaction {id})")), "{tied}");
    }
    assert_eq!(rig.found::<i64>(1, &["EXISTS", "b:n"]).await, 0);
}

/// Never a made-up success, and never a made-up failure.
#[tokio::test]
async fn an_outcome_that_is_not_known_is_said_to_be_unknown() {
    let mut rig = Rig::start(&[]).await;
    let mut client = rig.connect().await.unwrap();
    redis::cmd("SET").arg("a:x").arg(1).exec_async(&mut client).await.unwrap();
    rig.cluster.peers[0].agent.pause();
    let lines = ["MULTI", "INCR a:n", "ASSENT.TIMEOUT 100ms", "EXEC"];
    let said = send(&mut client, &lines).await.unwrap();
    assert_eq!(code(&said[3]), "UNKNOWN", "{:?}", said[3]);
    let text = said[3].clone().extract_error().unwrap_err().to_string();
    let id = text.rsplit(' ').next().unwrap().trim_end_matches(['"', ')']);
    rig.cluster.peers[0].agent.resume();
    let id = id.parse().unwrap();
    let outcome = assent_tests::wait_for("the outcome to be known", || async {
        match rig.cluster.api.transaction(id, None).await {
            Ok(view) if view.outcome != OutcomeWord::Pending => Ok(view.outcome),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    wait_settled(&rig.cluster).await;
    let found: Option<i64> = rig.found(0, &["GET", "a:n"]).await;
    assert_eq!(found.is_some(), outcome == OutcomeWord::Committed, "{outcome:?}, and {found:?}");
}

/// Optimistic locking as each client library knows it.
#[tokio::test]
async fn exec_is_nil_if_a_watched_key_has_changed() {
    let rig = Rig::start(&[]).await;
    let (mut client, mut other) = (rig.connect().await.unwrap(), rig.connect().await.unwrap());
    let exec = ["MULTI", "INCR a:n", "INCR b:n", "GET a:n", "EXEC"];
    let done = |n: i64| {
        let text = Value::BulkString(n.to_string().into_bytes());
        Value::Array(vec![Value::Int(n), Value::Int(n), text])
    };
    let all = |lines: &[&'static str]| [lines, &exec[..]].concat();
    // Keys of both participants, one that is not written, and one that is not there.
    let watch = ["SET a:n 0", "SET b:n 0", "RPUSH b:list 1", "WATCH a:n b:n b:list a:none"];
    let said = send(&mut client, &all(&watch)).await.unwrap();
    assert_eq!((&said[3], &said[8]), (&Value::Okay, &done(1)), "its own writes are no change");
    for changes in ["INCR a:n", "RPUSH b:list 2", "SET a:none 1", "PEXPIRE b:list 100000"] {
        send(&mut client, &["DEL a:none", "SET a:n 1", "SET b:n 1", "PERSIST b:list"])
            .await
            .unwrap();
        let said = send(&mut client, &["WATCH a:n b:n", "WATCH b:list a:none"]).await.unwrap();
        assert_eq!(said, [Value::Okay, Value::Okay]);
        send(&mut other, &[changes]).await.unwrap()[0].clone().extract_error().unwrap();
        let said = send(&mut client, &exec).await.unwrap();
        assert_eq!(said[4], Value::Nil, "{changes}");
        assert_eq!(rig.found::<i64>(1, &["GET", "b:n"]).await, 1, "{changes}");
        // It is watched no more.
        send(&mut client, &["SET a:n 1"]).await.unwrap();
        assert_eq!(send(&mut client, &exec).await.unwrap()[4], done(2), "{changes}");
    }
    // Another false expectation keeps its error.
    let lines = ["WATCH a:n", "MULTI", "INCR a:n", "ASSENT.EXPECT EQ 9", "EXEC"];
    assert_eq!(code(&send(&mut client, &lines).await.unwrap()[4]), "EXPECTATIONFAILED");
}

/// Promise: a watched key that expires has changed.
#[tokio::test]
async fn a_watched_key_that_expires_has_changed() {
    let rig = Rig::start(&[]).await;
    let mut client = rig.connect().await.unwrap();
    send(&mut client, &["SET a:k v PX 300", "WATCH a:k"]).await.unwrap();
    assent_tests::wait_for("the key to expire", || async {
        let there: i64 = rig.found(0, &["EXISTS", "a:k"]).await;
        if there == 0 { Ok(()) } else { Err("it is there") }
    })
    .await;
    let said = send(&mut client, &["MULTI", "SET b:k v", "EXEC"]).await.unwrap();
    assert_eq!(said[2], Value::Nil);
    assert_eq!(rig.found::<i64>(1, &["EXISTS", "b:k"]).await, 0);
}

/// Promise: who uses the port, what came of it, and what was refused why can be watched.
#[tokio::test]
async fn what_goes_through_the_port_is_counted() {
    let rig = Rig::start(&[]).await;
    let mut client = rig.connect().await.unwrap();
    let counted = async |series: &str| {
        let text = rig.cluster.admin().metrics().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is missing in {text}")).parse::<f64>().unwrap()
    };
    let [committed, aborted, lost_race, unknown] = ["committed", "aborted", "lost_race", "unknown"]
        .map(|outcome| format!("assent_resp_transactions_total{{outcome=\"{outcome}\"}}"));
    let before = counted(&committed).await;
    let open = counted("assent_connections{listener=\"resp\"}").await;
    assert!(open >= 1.0 && counted("assent_connections_max{listener=\"resp\"}").await >= open);
    send(&mut client, &["SET a:n 0", "GET c:n", "LPUSH a:n 1"]).await.unwrap();
    assert_eq!(counted(&committed).await - before, 1.0);
    assert_eq!(counted(&aborted).await, 1.0);
    for refused in ["unrouted", "wrongtype"] {
        let series = format!("assent_resp_commands_total{{result=\"{refused}\"}}");
        assert_eq!(counted(&series).await, 1.0, "{refused}");
    }
    send(&mut client, &["WATCH a:n"]).await.unwrap();
    assert_eq!(counted("assent_resp_watching").await, 1.0);
    send(&mut client, &["SET a:n 5", "MULTI", "INCR a:n", "EXEC"]).await.unwrap();
    assert_eq!((counted("assent_resp_watching").await, counted(&lost_race).await), (0.0, 1.0));
    assert_eq!(counted(&unknown).await, 0.0);
    for direction in ["in", "out"] {
        let series = format!("assent_resp_bytes_total{{direction=\"{direction}\"}}");
        assert!(counted(&series).await > 0.0, "{direction}");
    }
}

/// Many clients add by reading and writing: no addition is lost.
#[tokio::test]
async fn what_is_written_by_watch_is_never_written_over() {
    const CLIENTS: usize = 6;
    const ROUNDS: i64 = 15;
    let rig = Rig::start(&[]).await;
    let add = async |address: String| {
        let mut client = connect(&address).await.unwrap();
        let (mut left, mut lost) = (ROUNDS, 0);
        while left > 0 {
            let said = send(&mut client, &["WATCH a:n b:n", "GET a:n", "GET b:n"]).await.unwrap();
            let next = |said: &Value| match said {
                Value::BulkString(text) => {
                    std::str::from_utf8(text).unwrap().parse::<i64>().unwrap() + 1
                }
                Value::Nil => 1,
                other => panic!("{other:?}"),
            };
            let (a, b) =
                (format!("SET a:n {}", next(&said[1])), format!("SET b:n {}", next(&said[2])));
            let said = send(&mut client, &["MULTI", &a, &b, "EXEC"]).await.unwrap();
            match &said[3] {
                Value::Array(_) => left -= 1,
                Value::Nil => lost += 1,
                // Whoever waits too long for a lock is told so.
                other => assert_eq!(code(other), "LOCKCONFLICT"),
            }
        }
        lost
    };
    let clients = (0..CLIENTS).map(|_| add(rig.port.address()));
    let lost: i64 = futures_util::future::join_all(clients).await.into_iter().sum();
    assert!(lost > 0, "nobody has lost a race");
    let sum = ROUNDS * i64::try_from(CLIENTS).unwrap();
    wait_settled(&rig.cluster).await;
    assert_eq!(rig.found::<i64>(0, &["GET", "a:n"]).await, sum);
    assert_eq!(rig.found::<i64>(1, &["GET", "b:n"]).await, sum);
}

/// A client that writes the same mark at both participants again and again, three transfers in
/// one piece, and what it was told of each.
async fn write_marks(
    address: String,
    client: usize,
    stop: Arc<AtomicBool>,
) -> Vec<(String, ExecTold)> {
    let mut marks = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let Ok(mut connection) = connect(&address).await else {
            tokio::task::yield_now().await;
            continue;
        };
        loop {
            let names: Vec<String> =
                (0..3).map(|n| format!("{client}-{}", marks.len() + n)).collect();
            let lines: Vec<String> = names
                .iter()
                .flat_map(|name| {
                    ["MULTI".to_owned(), format!("RPUSH a:marks {name}")]
                        .into_iter()
                        .chain([format!("RPUSH b:marks {name}"), "EXEC".to_owned()])
                })
                .collect();
            let answers = send(&mut connection, &lines).await;
            let is_lost = answers.is_err();
            for (place, name) in names.into_iter().enumerate() {
                let answer = match &answers {
                    Ok(answers) => Ok(answers[4 * place + 3].clone()),
                    Err(error) => Err(error.clone()),
                };
                marks.push((name, told(answer)));
            }
            if is_lost || stop.load(Ordering::Acquire) {
                break;
            }
        }
    }
    marks
}

/// A coordinator that is killed again and again under pipelined transactions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_were_told_holds_when_the_coordinator_is_killed() {
    let mut rig = Rig::start(&[]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|client| tokio::spawn(write_marks(rig.port.address(), client, Arc::clone(&stop))))
        .collect();
    for round in 1..=4 {
        let wanted = 40 * round;
        assent_tests::wait_for("marks to be written", || async {
            let count: i64 = rig.found(0, &["LLEN", "a:marks"]).await;
            if count >= wanted { Ok(()) } else { Err(format!("{count} of {wanted}")) }
        })
        .await;
        rig.cluster.coordinator.kill9();
        restart(&mut rig.cluster.coordinator).await;
    }
    stop.store(true, Ordering::Release);
    let mut marks = Vec::new();
    for client in clients {
        marks.extend(client.await.unwrap());
    }
    wait_settled(&rig.cluster).await;
    let at_a: Vec<String> = rig.found(0, &["LRANGE", "a:marks", "0", "-1"]).await;
    let at_b: Vec<String> = rig.found(1, &["LRANGE", "b:marks", "0", "-1"]).await;
    assert_eq!(at_a, at_b, "the same transactions in the same order");
    for (name, told) in &marks {
        let count = at_a.iter().filter(|mark| *mark == name).count();
        match told {
            ExecTold::Committed(_) => assert_eq!(count, 1, "{name} was said to be committed"),
            ExecTold::Aborted(_) => assert_eq!(count, 0, "{name} was said to be aborted"),
            ExecTold::Unclear(_) => assert!(count <= 1, "{name} was done twice"),
        }
    }
    let count = |is: fn(&ExecTold) -> bool| marks.iter().filter(|(_, told)| is(told)).count();
    let committed = count(|told| matches!(told, ExecTold::Committed(_)));
    let unclear = count(|told| matches!(told, ExecTold::Unclear(_)));
    assert!(committed > 0 && unclear > 0, "{committed} committed, {unclear} unclear");
}
