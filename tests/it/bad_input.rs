//! Requests that are wrong: each gets a coded 4xx, and nothing of it reaches a participant or a lock (the HTTP contract;
//! promise *honest*).

use assent_tests::{Cluster, Options, audit};
use serde_json::{Value, json};

use crate::ASSENT;

struct Case {
    name: &'static str,
    body: Vec<u8>,
    headers: Vec<(&'static str, String)>,
    status: u16,
    code: &'static str,
}

fn case(name: &'static str, body: &Value, status: u16, code: &'static str) -> Case {
    Case { name, body: serde_json::to_vec(body).unwrap(), headers: vec![], status, code }
}

fn branch(ops: Value) -> Value {
    json!({ "branches": [{ "participant": "bank-a", "ops": ops }] })
}

fn one(cmd: Value) -> Value {
    branch(json!([{ "cmd": cmd }]))
}

fn shapes() -> Vec<Case> {
    let ok = json!([{ "cmd": ["SET", "k", "v"] }]);
    let with = |field: &str, value: Value| {
        let mut body = branch(ok.clone());
        body[field] = value;
        body
    };
    let raw = |name, body: &[u8], status, code| Case {
        name,
        body: body.to_vec(),
        headers: vec![],
        status,
        code,
    };
    let header = |name, header, value: &str, code| Case {
        headers: vec![(header, value.to_owned())],
        ..case(name, &branch(ok.clone()), 400, code)
    };
    vec![
        raw("no body", b"", 400, "bad_request"),
        raw("no JSON", b"{\"branches\": [", 400, "bad_request"),
        raw("not UTF-8", b"{\"name\": \"\xff\xfe\", \"branches\": []}", 400, "bad_request"),
        raw("an array", b"[]", 400, "bad_request"),
        raw("deep nesting", "[".repeat(100_000).as_bytes(), 400, "bad_request"),
        raw("17 MiB", &vec![b' '; 17 * 1024 * 1024], 413, "body_too_large"),
        case("an unknown field", &with("isolation", json!("none")), 400, "bad_request"),
        case("a wrong type", &with("timeout", json!(["5s"])), 400, "bad_request"),
        case("a timeout too long", &with("timeout", json!("10h")), 400, "bad_request"),
        case("a timeout too short", &with("timeout", json!("0s")), 400, "bad_request"),
        case("an unknown ack", &with("ack", json!("maybe")), 400, "bad_request"),
        case("an id that is none", &with("id", json!("17")), 400, "bad_request"),
        case("a name too long", &with("name", json!("n".repeat(65))), 400, "bad_request"),
        case("no branches", &json!({ "branches": [] }), 400, "bad_request"),
        case("branches of a wrong type", &json!({ "branches": {} }), 400, "bad_request"),
        case(
            "a participant without a name",
            &json!({ "branches": [{ "ops": ok }] }),
            400,
            "bad_request",
        ),
        case(
            "a participant that nobody knows",
            &json!({ "branches": [{ "participant": "nobody", "ops": ok }] }),
            422,
            "unknown_participant",
        ),
        case(
            "a participant twice",
            &json!({ "branches": [
            { "participant": "bank-a", "ops": ok }, { "participant": "bank-a", "ops": ok },
        ] }),
            422,
            "duplicate_participant",
        ),
        header("an empty key", "idempotency-key", "", "bad_request"),
        header("a key too long", "idempotency-key", &"k".repeat(300), "bad_request"),
    ]
}

/// What stands in an object's place must not be taken for its fields.
fn arrays() -> Vec<Case> {
    let without_guard = branch(json!([{ "cmd": ["GET", "k"], "expect": [] }]));
    [
        ("an array of fields", json!([null, null, []])),
        ("an array for a branch", json!({ "branches": [["a", []]] })),
        ("an array for an op", branch(json!([[["GET", "k"]]]))),
        ("an array for an expectation", without_guard),
    ]
    .map(|(name, body)| case(name, &body, 400, "bad_request"))
    .into()
}

fn ops() -> Vec<Case> {
    let many = |n: usize| {
        branch((0..n).map(|n| json!({ "cmd": ["SET", format!("k{n}"), "v"] })).collect())
    };
    let long_mset: Vec<String> =
        std::iter::once("MSET".to_owned()).chain((0..4_000).map(|n| n.to_string())).collect();
    vec![
        case("ten thousand ops", &many(10_000), 422, "too_many_ops"),
        case("four thousand arguments", &one(json!(long_mset)), 422, "too_many_ops"),
        case("a key of 2 KiB", &one(json!(["SET", "k".repeat(2_048), "v"])), 422, "too_large"),
        case(
            "a value of 5 MiB",
            &one(json!(["SET", "k", "v".repeat(5 * 1024 * 1024)])),
            422,
            "too_large",
        ),
        case("EVAL", &one(json!(["EVAL", "return 1", 0])), 422, "unsupported_command"),
        case("FLUSHALL", &one(json!(["FLUSHALL"])), 422, "unsupported_command"),
        case("KEYS", &one(json!(["KEYS", "*"])), 422, "unsupported_command"),
        case(
            "a command that is none",
            &one(json!(["FROBNICATE", "k"])),
            422,
            "unsupported_command",
        ),
        case("an op without a command", &one(json!([])), 422, "bad_arguments"),
        case("too few arguments", &one(json!(["SET", "k"])), 422, "bad_arguments"),
        case("too many arguments", &one(json!(["GET", "k", "l"])), 422, "bad_arguments"),
        case(
            "options that exclude each other",
            &one(json!(["SET", "k", "v", "NX", "XX"])),
            422,
            "bad_arguments",
        ),
        case(
            "an increment that is no number",
            &one(json!(["INCRBY", "k", "ten"])),
            422,
            "not_an_integer",
        ),
        case(
            "an increment beyond 64 bits",
            &one(json!(["INCRBY", "k", "9223372036854775808"])),
            422,
            "not_an_integer",
        ),
        case(
            "an argument that is an object",
            &one(json!(["SET", "k", { "v": 1 }])),
            400,
            "bad_request",
        ),
        case(
            "base64 that is none",
            &one(json!(["SET", "k", { "base64": "***" }])),
            400,
            "bad_request",
        ),
        case(
            "an unknown expectation",
            &branch(json!([{ "cmd": ["GET", "k"], "expect": { "near": 1 } }])),
            400,
            "bad_request",
        ),
        case(
            "an unknown field of an op",
            &branch(json!([{ "cmd": ["GET", "k"], "unless": 1 }])),
            400,
            "bad_request",
        ),
    ]
}

#[tokio::test]
async fn a_wrong_request_is_a_coded_4xx_and_reaches_nobody() {
    let cluster = Cluster::start(ASSENT, Options { proxied: true, ..Options::default() }).await;
    // A connection is closed behind a body that was not read, so that none is used twice.
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let url = format!("{}/v1/transactions", cluster.coordinator.url());
    let mut wrong = Vec::new();
    let all = shapes().into_iter().chain(arrays()).chain(ops());
    for Case { name, body, headers, status, code } in all {
        let mut request = client.post(&url).header("content-type", "application/json").body(body);
        for (header, value) in headers {
            request = request.header(header, value);
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                wrong.push(format!("{name}: no answer: {error:?}"));
                continue;
            }
        };
        let found_status = answer.status().as_u16();
        let media_type = answer.headers().get("content-type").cloned();
        let problem: Value = answer.json().await.unwrap_or(Value::Null);
        let as_expected = found_status == status
            && problem["code"] == code
            && problem["outcome"] == Value::Null
            && media_type.is_some_and(|found| found == "application/problem+json");
        if !as_expected {
            wrong.push(format!("{name}: expected {status} {code}, found {found_status} {problem}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(audit::leftovers(&cluster).await.unwrap(), Vec::<String>::new());
    for peer in &cluster.peers {
        // The coordinator looks at its participants without being asked; such a batch is about no transaction.
        let told = peer.proxy().passed_with("\"txid\"");
        assert_eq!(told, 0, "{} was told of a wrong request", peer.name);
    }
}

#[tokio::test]
async fn a_wrong_method_path_or_media_type_is_a_coded_4xx() {
    let cluster = Cluster::start(ASSENT, Options::default()).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let base = cluster.coordinator.url().to_owned();
    let admin = cluster.admin_url().to_owned();
    let agent = cluster.peers[0].agent.url().to_owned();
    let json = "application/json";
    let cases = [
        ("GET", format!("{base}/v1/nothing"), json, 404, "not_found"),
        ("PATCH", format!("{base}/v1/transactions"), json, 405, "method_not_allowed"),
        ("POST", format!("{base}/v1/transactions"), "text/plain", 415, "unsupported_media_type"),
        ("GET", format!("{base}/v1/transactions/none"), json, 400, "bad_request"),
        ("GET", format!("{base}/v1/transactions?page_size=0"), json, 400, "bad_request"),
        ("GET", format!("{base}/v1/transactions?colour=red"), json, 400, "bad_request"),
        (
            "GET",
            format!("{base}/v1/transactions/0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e"),
            json,
            404,
            "not_found",
        ),
        ("PUT", format!("{base}/v1/participants/x"), json, 405, "method_not_allowed"),
        ("PUT", format!("{admin}/v1/participants/bad%20name"), json, 400, "bad_request"),
        ("PUT", format!("{admin}/v1/participants/x"), json, 400, "bad_request"),
        ("POST", format!("{agent}/v1/batch"), json, 400, "bad_request"),
        ("POST", format!("{agent}/v1/branches/none/prepare"), json, 400, "bad_request"),
        ("GET", format!("{agent}/v1/branches?state=nothing"), json, 400, "bad_request"),
        ("GET", format!("{agent}/v1/nothing"), json, 404, "not_found"),
    ];
    let mut wrong = Vec::new();
    for (method, url, media_type, status, code) in cases {
        let method = method.parse().unwrap();
        let request = client.request(method, &url).header("content-type", media_type).body("{}");
        let answer = request.send().await.unwrap();
        let found = answer.status().as_u16();
        let problem: Value = answer.json().await.unwrap_or(Value::Null);
        if found != status || problem["code"] != code {
            wrong.push(format!("{url}: expected {status} {code}, found {found} {problem}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Wrong only in view of the data: the branch votes no, the transaction is aborted, nothing stays locked.
#[tokio::test]
async fn what_the_data_does_not_allow_is_an_abort_with_its_code() {
    let cluster = Cluster::start(ASSENT, Options::default()).await;
    for peer in &cluster.peers {
        assent_tests::plain::run::<()>(&peer.redis, &["SET", "text", "no number"]).await;
        assent_tests::plain::run::<()>(&peer.redis, &["SET", "big", "9223372036854775807"]).await;
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1/transactions", cluster.coordinator.url());
    let cases = [
        (json!(["LPUSH", "text", "x"]), json!(null), 422, "wrong_type"),
        (json!(["INCR", "text"]), json!(null), 422, "not_an_integer"),
        (json!(["INCR", "big"]), json!(null), 422, "overflow"),
        (json!(["GET", "text"]), json!({ "eq": "other" }), 409, "expectation_failed"),
    ];
    for (cmd, expect, status, code) in cases {
        for two in [false, true] {
            let mut op = json!({ "cmd": cmd });
            if !expect.is_null() {
                op["expect"] = expect.clone();
            }
            let mut branches =
                vec![json!({ "participant": "bank-a", "ops": [{ "cmd": ["SET", "k", "1"] }, op] })];
            if two {
                branches.push(
                    json!({ "participant": "bank-b", "ops": [{ "cmd": ["SET", "k", "1"] }] }),
                );
            }
            let answer =
                client.post(&url).json(&json!({ "branches": branches })).send().await.unwrap();
            let found = answer.status().as_u16();
            let problem: Value = answer.json().await.unwrap();
            assert_eq!((found, problem["code"].as_str()), (status, Some(code)), "{cmd}: {problem}");
            assert_eq!(problem["outcome"], "aborted", "{problem}");
            assert_eq!(problem["op"], 1, "{problem}");
            assert_eq!(problem["participant"], "bank-a", "{problem}");
        }
    }
    assent_tests::wait_settled(&cluster).await;
    for peer in &cluster.peers {
        let left: Option<String> = assent_tests::plain::run(&peer.redis, &["GET", "k"]).await;
        assert_eq!(left, None, "a write of an aborted transaction");
    }
}

/// Invariants 3, 12 and 13: what an agent keeps in the control hash is not for transactions to write, or to read.
#[tokio::test]
async fn the_control_hash_is_no_key_of_a_transaction() {
    let cluster = Cluster::start(ASSENT, Options::default()).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1/transactions", cluster.coordinator.url());
    let control = audit::CONTROL;
    for cmd in [
        json!(["HSET", control, "m:inc", "0"]),
        json!(["DEL", "k", control]),
        json!(["HGETALL", control]),
        json!(["MSET", "k", "1", control, "v"]),
    ] {
        let set = json!({ "participant": "bank-b", "ops": [{ "cmd": ["SET", "k", "1"] }] });
        let bad = json!({ "participant": "bank-a", "ops": [{ "cmd": cmd }] });
        let body = json!({ "branches": [set, bad] });
        let answer = client.post(&url).json(&body).send().await.unwrap();
        let found = answer.status().as_u16();
        let problem: Value = answer.json().await.unwrap();
        let expected = (422, Some("bad_arguments"));
        assert_eq!((found, problem["code"].as_str()), expected, "{cmd}: {problem}");
    }
    assent_tests::wait_settled(&cluster).await;
    for peer in &cluster.peers {
        let left: Option<String> = assent_tests::plain::run(&peer.redis, &["GET", "k"]).await;
        assert_eq!(left, None, "a write of an aborted transaction");
    }
}
