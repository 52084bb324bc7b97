//! The surface: error documents, the token, health, mounting, and the committed OpenAPI document.

use std::future::IntoFuture as _;

use axum::routing::get;
use axum::{Router, extract::State};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use tokio::net::TcpListener;

use assent_client::{Http, HttpOptions, ParticipantClient, Token};
use assent_common::ErrorCode;
use assent_common::limits::BATCH_BYTES_MAX;
use assent_common::wire::branch::{Batch, BranchState};
use assent_common::wire::problem::Problem;
use assent_common::wire::resync::DataPoint;
use assent_participant::{Error, Exposure, Options, Participant, ServeOptions, serve};

use crate::harness::{NAME, Redis, Sidecar, abort, batch, prepare, txid};

async fn problem(request: RequestBuilder) -> Problem {
    let response = request.send().await.unwrap();
    let status = response.status();
    let media_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let body = response.bytes().await.unwrap();
    assert_eq!(media_type, "application/problem+json", "{status} {body:?}");
    let problem: Problem = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem.status, status.as_u16());
    assert_eq!(problem.code.status(), status.as_u16());
    problem
}

#[tokio::test]
async fn every_error_is_a_problem_document_with_its_code() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::start(&redis).await;
    let http = Client::new();
    let base = format!("http://{}", sidecar.addresses.public);
    let post = |path: &str, body: String| {
        http.post(format!("{base}{path}")).header("content-type", "application/json").body(body)
    };
    let good =
        serde_json::to_string(&batch("http://c", vec![prepare(1, [&["GET", "k"]])])).unwrap();
    let misspelt = good.replacen("\"messages\"", "\"mesages\"", 1);
    let branch = format!("/v1/branches/{}", txid(1));
    let other = format!("/v1/branches/{}", txid(2));
    let cases = [
        (post("/v1/batch", "{".to_owned()), ErrorCode::BadRequest),
        (post("/v1/batch", misspelt), ErrorCode::BadRequest),
        (http.post(format!("{base}/v1/batch")).body(good.clone()), ErrorCode::UnsupportedMediaType),
        (post("/v1/batch", "x".repeat(BATCH_BYTES_MAX + 1)), ErrorCode::BodyTooLarge),
        (post("/v1/nothing", good.clone()), ErrorCode::NotFound),
        (http.get(format!("{base}/v1/batch")), ErrorCode::MethodNotAllowed),
        (post(&format!("{other}/prepare"), good.clone()), ErrorCode::BadRequest),
        (post(&format!("{branch}/commit"), good.clone()), ErrorCode::BadRequest),
        (post("/v1/branches/x/prepare", good.clone()), ErrorCode::BadRequest),
        (http.get(format!("{base}{branch}")), ErrorCode::NotFound),
        (http.get(format!("{base}/v1/branches?state=ended")), ErrorCode::BadRequest),
        (http.get(format!("{base}/v1/branches?stat=prepared")), ErrorCode::BadRequest),
        (http.get(format!("{base}/metrics")), ErrorCode::NotFound),
        // The operator's override is not on the public listener.
        (post(&format!("{branch}/resolve"), "{}".to_owned()), ErrorCode::NotFound),
    ];
    for (request, code) in cases {
        let description = format!("{request:?}");
        assert_eq!(problem(request).await.code, code, "{description}");
    }
    assert_eq!(sidecar.state(1).await, None);
}

/// M1: to abort nothing is enough to have spoken here. It is not enough to be believed when one
/// says that data was lost.
#[tokio::test]
async fn a_log_whose_coordinator_may_not_be_asked_shuts_nobody_out() {
    const LISTED: &str = "http://127.0.0.1:1";
    let redis = Redis::start().await;
    let change = |options: &mut Options| options.coordinators = vec![LISTED.to_owned()];
    let sidecar = Sidecar::with(&redis, change).await;
    let stranger = "http://127.0.0.1:9";
    sidecar.say_for(stranger, vec![abort(7)]).await;
    let known = Some(DataPoint { incarnation: 1, seq: 1_000_000_000_000_000 });
    for messages in [vec![], vec![abort(8)]] {
        let said = sidecar.client.batch(&Batch { known, ..batch(stranger, messages) }).await;
        let why = format!("{:?}", said.unwrap_err());
        assert!(why.contains("nothing was done") && why.contains("--coordinator"), "{why}");
    }
    let said = sidecar.say_for(LISTED, vec![prepare(1, [&["SET", "k", "v"]])]).await;
    assert_eq!(said.len(), 1);
    assert_eq!(sidecar.state(1).await, Some(BranchState::Prepared));
}

#[tokio::test]
async fn a_token_guards_all_but_the_health_probes() {
    let redis = Redis::start().await;
    let sidecar = Sidecar::with(&redis, |options| options.token = Some(Token::new("s3cret"))).await;
    let base = format!("http://{}", sidecar.addresses.public);
    let http = Client::new();
    for path in ["/v1/branches", "/v1/version", "/metrics", "/openapi.json"] {
        for token in [None, Some("wrong")] {
            let mut request = http.request(Method::GET, format!("{base}{path}"));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            assert_eq!(problem(request).await.code, ErrorCode::Unauthorized, "{path}");
        }
        let admin = http.get(format!("http://{}/v1/version", sidecar.addresses.admin));
        assert_eq!(problem(admin).await.code, ErrorCode::Unauthorized);
    }
    for path in ["/livez", "/readyz"] {
        let response = http.get(format!("{base}{path}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }
    let options = HttpOptions { token: Some(Token::new("s3cret")), ..HttpOptions::default() };
    let client = ParticipantClient::new(&Http::new(&options).unwrap(), &base).unwrap();
    assert_eq!(client.version().await.unwrap().name.as_deref(), Some(NAME));
}

#[tokio::test]
async fn an_address_that_others_reach_needs_a_token() {
    let redis = Redis::start().await;
    let options = ServeOptions {
        participant: Options::new(NAME, redis.url()),
        listen: "0.0.0.0:0".parse().unwrap(),
        admin_listen: "127.0.0.1:0".parse().unwrap(),
        exposure: Exposure::TokenOrLoopback,
        edge: assent_edge::EdgeOptions::default(),
        drain_timeout_ms: 1_000,
    };
    let refused = serve(options, async {}).await;
    assert!(matches!(refused, Err(Error::Exposed(_))), "{refused:?}");
}

#[tokio::test]
async fn it_mounts_into_an_application_of_any_state_and_serves_below_its_path() {
    #[derive(Clone)]
    struct Shop(&'static str);
    let redis = Redis::start().await;
    let participant = Participant::builder(NAME).redis(redis.url()).build().await.unwrap();
    let app = Router::new()
        .route("/hello", get(async |State(shop): State<Shop>| shop.0))
        .nest("/assent", participant.router())
        .with_state(Shop("hello"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, app).into_future());

    let http = Http::new(&HttpOptions::default()).unwrap();
    let client = ParticipantClient::new(&http, &format!("{base}/assent")).unwrap();
    let messages = vec![prepare(1, [&["SET", "k", "v"]])];
    let answers = client.batch(&batch("http://127.0.0.1:1", messages)).await.unwrap();
    assert!(answers.answers[0].redo.is_some());
    let hello = Client::new().get(format!("{base}/hello")).send().await.unwrap();
    assert_eq!(hello.text().await.unwrap(), "hello");
    let foreign = client.branch(txid(2)).await;
    assert!(foreign.is_err());
    participant.shutdown().await;
}

/// Promise *honest*: who asks the wrong address is told what answers there, and where the rest is.
#[tokio::test]
async fn who_asks_the_wrong_address_is_told_what_answers_there() {
    let redis = Redis::start().await;
    let builder = Participant::builder(NAME).redis(redis.url()).hook_timeout_ms(100);
    let participant = builder.address("http://127.0.0.1:1/assent").build().await.unwrap();
    let app: Router = Router::new()
        .nest("/assent", participant.router())
        .nest("/operators", participant.admin_router());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, app).into_future());
    let http = Client::new();
    let resolve = format!("/assent/v1/branches/{}/resolve", txid(1));
    for (method, path, is, other) in [
        (Method::POST, resolve.as_str(), "API for coordinators", "mounts admin_router()"),
        (Method::POST, "/assent/v1/transactions", "API for coordinators", "to a coordinator"),
        (Method::GET, "/assent/v1/batch", "API for coordinators", "mounts admin_router()"),
        (Method::POST, "/operators/v1/batch", "API for operators", "mounts router()"),
    ] {
        let detail = problem(http.request(method, format!("{base}{path}"))).await.detail;
        assert!(detail.contains(is) && detail.contains(other), "{path}: {detail}");
    }
    // Mounted below another path than the one that is registered.
    let http = Http::new(&HttpOptions::default()).unwrap();
    for (path, why) in [("", "below another path"), ("/assent/v1", "no path /v1/v1/batch")] {
        let client = ParticipantClient::new(&http, &format!("{base}{path}")).unwrap();
        let said = client.batch(&batch("http://127.0.0.1:1", vec![])).await.unwrap_err();
        assert!(said.0.contains(why), "{said}");
    }
    participant.shutdown().await;
}

#[tokio::test]
async fn unsafe_settings_are_refused_or_repeated_wherever_health_is_told() {
    let redis = Redis::start().await;
    redis.set_config("appendfsync", "everysec").await;
    let refused = Participant::builder(NAME).redis(redis.url()).build().await;
    assert!(matches!(refused, Err(Error::Store(_))), "{refused:?}");
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("appendfsync"), "who prints the error reads why: {why}");
    let sidecar = Sidecar::with(&redis, |options| options.store.allow_unsafe_redis = true).await;
    let version = sidecar.client.version().await.unwrap();
    assert!(version.warnings.iter().any(|warning| warning.contains("appendfsync")));
    let ready = sidecar.client.readyz().await.unwrap();
    assert!(ready.text.contains("[!] durability") && ready.text.contains("appendfsync"));
    assert!(ready.text.ends_with("ready\n"), "{}", ready.text);
}

#[test]
fn the_committed_openapi_document_is_what_the_code_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/openapi-participant.json");
    let now = format!("{}\n", assent_participant::http::openapi().to_pretty_json().unwrap());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == now,
        "docs/reference/openapi-participant.json has drifted; run this test with UPDATE=1"
    );
}
