//! `dtmrs` (crates.io), a coordinator of sagas with its log in Redis: two steps, each a service
//! with a Redis of its own.
//!
//! ```text
//! client ── POST submit ──► dtmrs ──┬── POST /0 ──► service ── EVALSHA ──► Redis A
//!                             │     └── POST /1 ──► service ── EVALSHA ──► Redis B    one step after the other
//!                             ▼
//!                          Redis (log)                all three Redis: appendfsync always
//! ```
//!
//! A saga neither locks nor isolates, and what it has done can be seen before the rest is. It
//! answers `submit` at once; here a transfer counts as done when its second step is in its Redis,
//! before dtmrs has noted that it is: both favour dtmrs. The services guard against a second
//! delivery, as dtmrs demands, by a marker that is written with the change.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use redis::aio::MultiplexedConnection;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::drive::{Client, End, Tally, Transfer, drive};
use super::server::{Server, Usage, Watch, prepare_dir, take_port};
use super::{ACCOUNTS, OPENING_BALANCE, check_sums, find};

/// How long a transfer may take. It gives up on a step that is not answered after ten seconds, and
/// tries again ten later.
const DONE_MAX: Duration = Duration::from_secs(60);

/// Keys of one command.
const CHUNK: u32 = 5_000;

/// The step, once.
const STEP: &str = "if redis.call('SET', KEYS[1], '1', 'NX', 'EX', 86400) then \
                    redis.call('INCRBY', KEYS[2], ARGV[1]) end return 1";

/// dtmrs, its log, and two services.
pub(crate) struct Dtmrs {
    url: String,
    port: u16,
    redis: [MultiplexedConnection; 2],
    done: Arc<Waiting>,
    servers: Vec<Server>,
    moved: i64,
}

/// Who waits for which saga, and how many of its steps are missing.
#[derive(Default)]
struct Waiting {
    sagas: Mutex<HashMap<String, (u8, oneshot::Sender<()>)>>,
    /// No step of these transfers is ever refused, so that none may be undone.
    undone: AtomicBool,
}

impl Dtmrs {
    pub(super) async fn start(dir: &Path, installed: &Path) -> Result<Self, String> {
        let own = installed.parent().map(Path::to_owned).into_iter().collect::<Vec<_>>();
        let program = find(&["dtmrs"], &own).ok_or("dtmrs is not installed")?;
        prepare_dir(dir).map_err(|error| error.to_string())?;
        let (log, log_port) = start_redis(dir, "log").await?;
        let (first, first_port) = start_redis(dir, "a").await?;
        let (second, second_port) = start_redis(dir, "b").await?;
        let redis = [connect_redis(first_port).await?, connect_redis(second_port).await?];
        for connection in &redis {
            fill(&mut connection.clone()).await?;
        }
        let held = vec![take_port()?, take_port()?];
        let (port, grpc_port) = (held[0].number(), held[1].number());
        let mut command = Command::new(program);
        command
            .current_dir(dir)
            .env("DTMRS_DB", format!("redis://127.0.0.1:{log_port}/0"))
            .env("DTMRS_ADDR", format!("127.0.0.1:{port}"))
            .env("DTMRS_GRPC_ADDR", format!("127.0.0.1:{grpc_port}"))
            // Its default writes four lines a transaction.
            .env("RUST_LOG", "warn");
        let mut server = Server::start(command, &dir.join("dtmrs.log"), Signal::TERM, held)?;
        server.wait(async || TcpStream::connect(("127.0.0.1", port)).await).await?;
        let done = Arc::new(Waiting::default());
        let url = serve_steps(redis.clone(), Arc::clone(&done)).await?;
        let servers = vec![server, log, first, second];
        Ok(Self { url, port, redis, done, servers, moved: 0 })
    }

    pub(super) fn settings(&self) -> Value {
        json!({
            "version": "0.13.0, feature redis",
            "settings": {"DTMRS_DB": "redis", "RUST_LOG": "warn", "inline submit": "on (its default)"},
            "redis": "appendonly yes, appendfsync always, for its log and for both services",
            "keys": ACCOUNTS,
            "done": "when the second step is in its Redis",
            "transport": "HTTP/1.1 keep-alive on loopback; the services are part of the load generator",
        })
    }

    pub(super) async fn measure(
        &mut self,
        clients: usize,
        duration: Duration,
        seed: u64,
    ) -> Result<(Tally, Usage), String> {
        let mut connected = Vec::with_capacity(clients);
        for _ in 0..clients {
            let (sender, done) = (connect(self.port).await?, Arc::clone(&self.done));
            connected.push(DtmrsClient { sender, url: self.url.clone(), done });
        }
        let watch = Watch::new(self.servers.iter().map(Server::pid));
        let measured = drive(connected, duration, seed, &watch).await?;
        self.moved += measured.0.moved;
        if self.done.undone.load(Ordering::Relaxed) {
            return Err("dtmrs: a step was undone, although none was refused".to_owned());
        }
        let mut sums = [0; 2];
        for (connection, sum) in self.redis.iter_mut().zip(&mut sums) {
            for keys in chunks() {
                let found: Result<Vec<i64>, _> =
                    redis::cmd("MGET").arg(keys).query_async(connection).await;
                *sum += found.map_err(|error| error.to_string())?.iter().sum::<i64>();
            }
        }
        check_sums("dtmrs", sums, self.moved)?;
        Ok(measured)
    }
}

async fn start_redis(dir: &Path, name: &str) -> Result<(Server, u16), String> {
    let program = find(&["redis-server"], &[]).ok_or("redis-server is not installed")?;
    let dir = dir.join(name);
    std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    let held = take_port()?;
    let port = held.number();
    let mut command = Command::new(program);
    command.current_dir(&dir).args(["--port", &port.to_string()]);
    // The settings of the servers that Assent is measured with.
    for (setting, value) in [
        ("bind", "127.0.0.1"),
        ("save", ""),
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("no-appendfsync-on-rewrite", "no"),
        ("auto-aof-rewrite-percentage", "0"),
        ("maxmemory-policy", "noeviction"),
    ] {
        command.arg(format!("--{setting}")).arg(value);
    }
    let mut server = Server::start(command, &dir.join("redis.log"), Signal::TERM, vec![held])?;
    server.wait(async || connect_redis(port).await).await?;
    Ok((server, port))
}

async fn connect_redis(port: u16) -> Result<MultiplexedConnection, String> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"));
    let config =
        redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
    let client = client.map_err(|error| error.to_string())?;
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    connection.map_err(|error| error.to_string())
}

fn chunks() -> impl Iterator<Item = Vec<String>> {
    let key = |number: u32| format!("acct:{number}");
    (0..ACCOUNTS)
        .step_by(CHUNK as usize)
        .map(move |start| (start..ACCOUNTS.min(start + CHUNK)).map(key).collect())
}

async fn fill(connection: &mut MultiplexedConnection) -> Result<(), String> {
    for keys in chunks() {
        let mut command = redis::cmd("MSET");
        for key in keys {
            command.arg(key).arg(OPENING_BALANCE);
        }
        let set: Result<(), _> = command.query_async(connection).await;
        set.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Serves the steps of both services on one listener; returns its URL.
async fn serve_steps(
    redis: [MultiplexedConnection; 2],
    done: Arc<Waiting>,
) -> Result<String, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let script = Arc::new(redis::Script::new(STEP));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _slower = stream.set_nodelay(true);
            let (redis, script, done) = (redis.clone(), Arc::clone(&script), Arc::clone(&done));
            let service = service_fn(move |request| {
                let (redis, script, done) = (redis.clone(), Arc::clone(&script), Arc::clone(&done));
                async move { Ok::<_, hyper::Error>(step(request, redis, &script, &done).await) }
            });
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // It ends with dtmrs.
            tokio::spawn(serving);
        }
    });
    Ok(format!("http://{address}"))
}

/// What a step is sent.
#[derive(serde::Deserialize)]
struct Step {
    account: u32,
    by: i64,
}

async fn step(
    request: Request<Incoming>,
    redis: [MultiplexedConnection; 2],
    script: &redis::Script,
    done: &Waiting,
) -> Response<Full<Bytes>> {
    let answer = |status, text: &'static str| {
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        response
    };
    let place = match request.uri().path() {
        "/0" => 0,
        "/1" => 1,
        _ => {
            done.undone.store(true, Ordering::Relaxed);
            return answer(StatusCode::INTERNAL_SERVER_ERROR, "nothing is undone here");
        }
    };
    let query = request.uri().query().unwrap_or_default().to_owned();
    let gid = query.split('&').find_map(|pair| pair.strip_prefix("gid=")).unwrap_or_default();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let parsed = body.ok().and_then(|body| serde_json::from_slice::<Step>(&body).ok());
    let Some(Step { account, by }) = parsed else {
        return answer(StatusCode::BAD_REQUEST, "no step");
    };
    let [first, second] = redis;
    let mut connection = if place == 0 { first } else { second };
    let ran: Result<i64, _> = script
        .key(format!("barrier:{gid}"))
        .key(format!("acct:{account}"))
        .arg(by)
        .invoke_async(&mut connection)
        .await;
    if ran.is_err() {
        return answer(StatusCode::INTERNAL_SERVER_ERROR, "Redis did not answer");
    }
    done.step_done(gid, place);
    answer(StatusCode::OK, r#"{"dtm_result":"SUCCESS"}"#)
}

impl Waiting {
    fn expect(&self, gid: &str) -> oneshot::Receiver<()> {
        let (done, known) = oneshot::channel();
        let mut sagas = self.sagas.lock().unwrap_or_else(PoisonError::into_inner);
        sagas.insert(gid.to_owned(), (0b11, done));
        known
    }

    /// A step may be delivered twice; it counts once.
    fn step_done(&self, gid: &str, place: u8) {
        let mut sagas = self.sagas.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((missing, _)) = sagas.get_mut(gid) else { return };
        *missing &= !(1 << place);
        if *missing == 0
            && let Some((_, done)) = sagas.remove(gid)
        {
            let _client_gone = done.send(());
        }
    }
}

async fn connect(port: u16) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream =
        TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let connected = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = connected.map_err(|error| error.to_string())?;
    // It ends with the sender.
    tokio::spawn(connection);
    Ok(sender)
}

struct DtmrsClient {
    sender: SendRequest<Full<Bytes>>,
    url: String,
    done: Arc<Waiting>,
}

impl Client for DtmrsClient {
    async fn transfer(&mut self, transfer: &Transfer) -> Result<End, String> {
        let Transfer { id, from, to, amount } = transfer;
        let url = &self.url;
        let step = |place: u8, account: &u32, by: i64| {
            format!(
                r#"{{"action":"{url}/{place}","compensate":"{url}/undo","payload":"{{\"account\":{account},\"by\":{by}}}"}}"#
            )
        };
        let (first, second) = (step(0, from, -amount), step(1, to, *amount));
        let body = format!(r#"{{"gid":"{id}","trans_type":"saga","steps":[{first},{second}]}}"#);
        let known = self.done.expect(id);
        let request = Request::builder()
            .method(Method::POST)
            .uri("/api/dtmsvr/submit")
            .header("host", "dtmrs")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        self.sender.ready().await.map_err(|error| error.to_string())?;
        let response =
            self.sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let said = response.into_body().collect().await.map_err(|error| error.to_string())?;
        if status != StatusCode::OK || !said.to_bytes().windows(7).any(|word| word == b"SUCCESS") {
            return Err(format!("dtmrs answered {status} to a submission"));
        }
        match tokio::time::timeout(DONE_MAX, known).await {
            Ok(Ok(())) => Ok(End::Committed),
            Ok(Err(_)) | Err(_) => Err(format!("dtmrs: saga {id} was not done after {DONE_MAX:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_saga_is_done_when_both_steps_are_however_often_each_comes() {
        let waiting = Waiting::default();
        let mut known = waiting.expect("g");
        waiting.step_done("g", 0);
        waiting.step_done("g", 0);
        waiting.step_done("other", 1);
        assert!(known.try_recv().is_err());
        waiting.step_done("g", 1);
        assert!(known.try_recv().is_ok());
        waiting.step_done("g", 1);
    }
}
