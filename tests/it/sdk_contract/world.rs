//! What the cases run against: `assent dev`, a hook by the client's own helper, a proxy that loses
//! what it is told to lose, and a port where nobody listens.

use std::collections::BTreeSet;
use std::future::IntoFuture as _;
use std::process::Command;
use std::sync::{Arc, Mutex};

use assent_client::hook::{Hook, HookCall, HookError, HookStage, hook_router};
use assent_client::reply_bytes;
use assent_process::Child;
use assent_tests::wait_for;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::ASSENT;

/// Problems of ours, made up.
const PROBLEM_500: &str = r##"{"type":"/errors#internal","title":"t","status":500,
    "detail":"d","code":"internal","retryable":false}"##;
const OVERLOADED: &str = r##"{"type":"/errors#overloaded","title":"t","status":429,
    "detail":"d","code":"overloaded","retryable":true}"##;
const OTHER_ABORT: &str = r##"{"type":"/errors#lock_conflict","title":"t","status":409,
    "detail":"d","code":"lock_conflict","retryable":true,"outcome":"aborted",
    "id":"01976f00-0000-7000-8000-000000000000"}"##;
const NULL_OUTCOME: &str = r##"{"type":"/errors#lock_conflict","title":"t","status":409,
    "detail":"d","code":"lock_conflict","retryable":true,"outcome":null}"##;

pub(super) struct World {
    dev: Child,
    live: String,
    dead: String,
    pub(super) lossy: LosingProxy,
    pub(super) holds: Holds,
    _dir: TempDir,
}

impl World {
    pub(super) async fn start() -> Self {
        let holds = Holds::default();
        let hook_url = serve_hook(holds.clone()).await;
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(ASSENT);
        command
            .args(["dev", "--config", "none", "-o", "json", "--participants"])
            .arg("bank,shop,credit");
        for name in ["shop", "credit"] {
            command.args(["--hook", &format!("{name}={hook_url}")]);
        }
        for listener in ["--listen", "--admin-listen", "--resp-listen"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        let dev = Child::spawn("dev", command, &dir.path().join("log")).unwrap();
        let live = wait_for("assent dev to be ready", || async {
            let said = std::fs::read_to_string(dev.log()).unwrap_or_default();
            let is_ready = said.lines().any(|line| line.starts_with("ready in"));
            let described = said.lines().filter_map(|line| serde_json::from_str(line).ok());
            let url = |line: Value| Some(line["url"].as_str()?.to_owned());
            match described.filter_map(url).next() {
                Some(url) if is_ready => Ok(url),
                _ => Err(said),
            }
        })
        .await;
        let lossy = LosingProxy::start(&live).await;
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = format!("http://{}", nobody.local_addr().unwrap());
        Self { dev, live, dead, lossy, holds, _dir: dir }
    }

    pub(super) fn address(&self, name: &str) -> &str {
        match name {
            "live" => &self.live,
            "dead" => &self.dead,
            "lossy" => &self.lossy.url,
            _ => panic!("no address is called {name}"),
        }
    }

    pub(super) async fn stop(mut self) {
        let ended = self.dev.terminate(assent_tests::BOUND).await;
        assert!(ended.is_some_and(|status| status.success()), "{ended:?}: {}", self.dev.tail());
    }
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// The names under which the hook may answer.
#[derive(Clone, Default)]
pub(super) struct Holds(Arc<watch::Sender<BTreeSet<String>>>);

impl Holds {
    pub(super) fn release(&self, name: &str) {
        self.0.send_modify(|released| {
            released.insert(name.to_owned());
        });
    }
}

/// The hook of the contract.
struct Deciding(Holds);

impl Hook for Deciding {
    type Input = Value;

    async fn prepare(
        &self,
        _: &HookCall,
        input: Value,
        stage: &mut HookStage<'_>,
    ) -> Result<Value, HookError> {
        if let Some(name) = input["hold"].as_str() {
            let mut released = self.0.0.subscribe();
            let seen = released.wait_for(|names| names.contains(name)).await;
            drop(seen.map_err(|error| HookError::Unclear(error.to_string()))?);
            return Ok(json!({"held": name}));
        }
        let add = &input["add"];
        let (Some(key), Some(amount)) = (add["key"].as_str(), add["amount"].as_i64()) else {
            return Err(HookError::veto("bad_input", "it is neither `add` nor `hold`"));
        };
        let found = reply_bytes(&stage.read(["GET", key]).await?).unwrap_or_default();
        let found = String::from_utf8_lossy(&found).parse().unwrap_or(0);
        let (total, limit) = (found + amount, add["limit"].as_i64().unwrap_or(0));
        if total > limit {
            let reason = format!("{total} is above {limit}");
            return Err(HookError::veto("limit_exceeded", &reason));
        }
        stage.op(["INCRBY", key, &amount.to_string()]);
        Ok(json!({"total": total}))
    }
}

async fn serve_hook(holds: Holds) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let router = hook_router::<()>("/hook", Deciding(holds), None);
    tokio::spawn(axum::serve(listener, router).into_future());
    url
}

/// Passes requests on, a connection each, and loses something of the next one.
pub(super) struct LosingProxy {
    url: String,
    lose: Arc<Mutex<Option<String>>>,
}

impl LosingProxy {
    async fn start(upstream: &str) -> Self {
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let lose = Arc::new(Mutex::new(None));
        let losing = Arc::clone(&lose);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (upstream, losing) = (upstream.clone(), Arc::clone(&losing));
                // A client that is gone is none of the proxy's concern.
                tokio::spawn(async move { pass(client, &upstream, &losing).await.ok() });
            }
        });
        Self { url, lose }
    }

    /// What the next request loses.
    pub(super) fn lose(&self, what: &str) {
        *self.lose.lock().unwrap() = Some(what.to_owned());
    }
}

async fn pass(
    mut client: TcpStream,
    upstream: &str,
    lose: &Mutex<Option<String>>,
) -> std::io::Result<()> {
    let Some(request) = read_request(&mut client).await? else { return Ok(()) };
    let lost = lose.lock().unwrap().take().unwrap_or_default();
    let answer = match lost.as_str() {
        "request" => return Ok(()),
        "refuse" => problem(429, OVERLOADED),
        _ => {
            let mut server = TcpStream::connect(upstream).await?;
            server.write_all(&request).await?;
            let mut answer = Vec::new();
            server.read_to_end(&mut answer).await?;
            answer
        }
    };
    let answer = match lost.as_str() {
        "answer" => return Ok(()),
        "cut" => answer[..answer.len() - 10].to_vec(),
        "404" | "200" => answer_of_stranger(&lost),
        "problem-500" => problem(500, PROBLEM_500),
        "other-abort" => problem(409, OTHER_ABORT),
        "null-outcome" => problem(409, NULL_OUTCOME),
        "no-branches" => without_branches(&answer),
        "" | "refuse" => answer,
        other => panic!("the proxy cannot lose {other}"),
    };
    client.write_all(&answer).await
}

/// One request, which then asks that its connection ends with the answer.
async fn read_request(client: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    loop {
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        if bytes.len() >= end + 4 + length {
            bytes.splice(end..end, *b"\r\nconnection: close");
            return Ok(Some(bytes));
        }
    }
}

fn problem(status: u16, body: &str) -> Vec<u8> {
    answer(status, "application/problem+json", body)
}

fn without_branches(whole: &[u8]) -> Vec<u8> {
    let body = whole.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let mut body: Value = serde_json::from_slice(&whole[body..]).unwrap();
    body.as_object_mut().unwrap().remove("branches").unwrap();
    answer(200, "application/json", &body.to_string())
}

fn answer_of_stranger(status: &str) -> Vec<u8> {
    answer(status.parse().unwrap(), "text/html", "<html>not Assent</html>")
}

fn answer(status: u16, media_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} as told\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}
