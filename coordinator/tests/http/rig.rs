//! A coordinator with its log in a temporary directory, and a client that sees statuses and headers.

use std::time::Duration;

use assent_client::{CoordinatorAdmin, CoordinatorClient, Http, HttpOptions};
use assent_coordinator::log::{self, LogOptions};
use assent_coordinator::{Coordinator, CoordinatorOptions, Running};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fake::{Fake, within};

/// Small, so that a test does not wait for the disk to make room.
const SEGMENT_BYTES: u32 = 1024 * 1024;

/// A coordinator that can be stopped and started again on the same log.
pub(crate) struct Rig {
    pub(crate) options: CoordinatorOptions,
    running: Option<Running>,
    http: reqwest::Client,
    _dir: TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The body: JSON where it is, else a string.
    pub(crate) body: Value,
}

impl Said {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn id(&self) -> &str {
        self.body["id"].as_str().unwrap()
    }

    /// Checks that it is a problem document of this code, and that its status is the code's.
    #[track_caller]
    pub(crate) fn is_problem(&self, code: &str) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.body["code"], code, "{self:?}");
        assert_eq!(self.body["status"], self.status, "{self:?}");
        assert_eq!(self.body["type"], format!("/errors#{code}"), "{self:?}");
        let code: assent_common::ErrorCode = code.parse().unwrap();
        assert_eq!(self.status, code.status(), "{self:?}");
        assert_eq!(self.body["retryable"], code.retryable(), "{self:?}");
    }
}

impl Rig {
    /// A coordinator with these participants in its configuration.
    pub(crate) async fn start(participants: &[(&str, &Fake)]) -> Self {
        Self::start_with(participants, |_| ()).await
    }

    pub(crate) async fn start_with(
        participants: &[(&str, &Fake)],
        adjust: impl FnOnce(&mut CoordinatorOptions),
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let data_dir = dir.path().join("log");
        let mut log = LogOptions::new(&data_dir);
        log.segment_bytes = SEGMENT_BYTES;
        log::init(&log).unwrap();
        let mut options = CoordinatorOptions::new(data_dir);
        options.segment_bytes = SEGMENT_BYTES;
        options.listen = ([127, 0, 0, 1], 0).into();
        options.admin_listen = ([127, 0, 0, 1], 0).into();
        options.participants = participants
            .iter()
            .map(|(name, fake)| (name.parse().unwrap(), fake.url.clone()))
            .collect();
        adjust(&mut options);
        let running = Some(Coordinator::start(options.clone()).await.unwrap());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { options, running, http, _dir: dir }
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Stops, without waiting for what is active, and starts again on the same log.
    pub(crate) async fn restart(&mut self) {
        self.running.take().unwrap().drain(0).await;
        self.start_again().await;
    }

    /// Starts again on the same log.
    pub(crate) async fn start_again(&mut self) {
        self.running = Some(Coordinator::start(self.options.clone()).await.unwrap());
    }

    /// Gives up the coordinator, to drain it by hand.
    pub(crate) fn take(&mut self) -> Running {
        self.running.take().unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running().addr)
    }

    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running().admin_addr)
    }

    pub(crate) fn client(&self) -> CoordinatorClient {
        let http = Http::new(&HttpOptions::default()).unwrap();
        CoordinatorClient::new(&http, &self.url("")).unwrap()
    }

    pub(crate) fn admin(&self) -> CoordinatorAdmin {
        let http = Http::new(&HttpOptions::default()).unwrap();
        CoordinatorAdmin::new(&http, &self.admin_url("")).unwrap()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path))
    }

    pub(crate) fn request_to(&self, method: Method, url: &str) -> RequestBuilder {
        self.http.request(method, url)
    }

    pub(crate) fn admin_request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.admin_url(path))
    }

    pub(crate) async fn get(&self, path: &str) -> Said {
        said(self.request(Method::GET, path)).await
    }

    pub(crate) async fn submit(&self, body: &Value) -> Said {
        said(self.request(Method::POST, "/v1/transactions").json(body)).await
    }

    pub(crate) async fn submit_with(&self, body: &Value, headers: &[(&str, &str)]) -> Said {
        let request = self.request(Method::POST, "/v1/transactions").json(body);
        said(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)))
            .await
    }

    /// Waits until this many transactions are active.
    pub(crate) async fn active(&self, count: usize) {
        let engine = self.running().engine();
        let all = || engine.counts().active.values().sum::<u64>() as usize;
        let poll = async {
            while all() < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        within(poll, || format!("{count} active transactions, there are {}", all())).await;
    }

    /// Asks for a transaction until it has ended.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        self.until(id, |view| view["state"] == "ended").await
    }

    /// Asks for a transaction until it is as wanted.
    pub(crate) async fn until(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/v1/transactions/{id}");
        let mut last = Value::Null;
        let poll = async {
            loop {
                let said = self.get(&path).await;
                assert_eq!(said.status, 200, "{said:?}");
                if wanted(&said.body) {
                    return said.body;
                }
                last = said.body;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let polled = tokio::time::timeout(Duration::from_secs(10), poll).await;
        polled.unwrap_or_else(|_| panic!("the transaction stays at {last:#}"))
    }
}

/// Sends it, and reads the whole answer.
pub(crate) async fn said(request: RequestBuilder) -> Said {
    let exchange = async {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Said { status, headers, body }
    };
    within(exchange, || "an answer".to_owned()).await
}

/// A transaction with one op at each of these participants.
pub(crate) fn transfer(participants: &[&str]) -> Value {
    let branches: Vec<Value> = participants
        .iter()
        .map(|name| json!({"participant": name, "ops": [{"cmd": ["DECRBY", "acct:alice", 30]}]}))
        .collect();
    json!({ "name": "transfer", "branches": branches })
}
