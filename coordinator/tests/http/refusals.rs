//! What is refused: each with a code, and before a participant hears anything.

use assent_client::Token;
use assent_common::limits;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::fake::Fake;
use super::rig::{Rig, said, transfer};

const OP: &str = r#"{"cmd":["GET","k"]}"#;

/// Bodies, the code that each is refused with, and what the detail must name.
#[expect(clippy::too_many_lines, reason = "a row for each refusal")]
fn bad_bodies() -> Vec<(String, &'static str, &'static str)> {
    let with = |field: &str| {
        format!(r#"{{"branches":[{{"participant":"bank-a","ops":[{OP}]}}],{field}}}"#)
    };
    let ops = |ops: &str| format!(r#"{{"branches":[{{"participant":"bank-a","ops":{ops}}}]}}"#);
    let many = |count: usize| {
        let branch = |n: usize| format!(r#"{{"participant":"p{n}","ops":[{OP}]}}"#);
        let branches: Vec<String> = (0..count).map(branch).collect();
        format!(r#"{{"branches":[{}]}}"#, branches.join(","))
    };
    let twice = format!(r#"{{"participant":"bank-a","ops":[{OP}]}}"#);
    let key_too_large =
        format!(r#"[{{"cmd":["GET","{}"]}}]"#, "k".repeat(limits::KEY_BYTES_MAX + 1));
    vec![
        (String::new(), "bad_request", "send a JSON object"),
        ("{".to_owned(), "bad_request", "EOF"),
        ("null".to_owned(), "bad_request", "null"),
        ("[]".to_owned(), "bad_request", "the body"),
        (r#"{"branches":null}"#.to_owned(), "bad_request", "branches"),
        (r#"{"branches":[]}"#.to_owned(), "bad_request", "branches"),
        (with(r#""protocl":"implicit""#), "bad_request", "protocl"),
        (with(r#""timeout":5"#), "bad_request", "timeout"),
        (with(r#""timeout":"5""#), "bad_request", "timeout"),
        (with(r#""timeout":"1ms""#), "bad_request", "timeout"),
        (with(r#""timeout":"2h""#), "bad_request", "timeout"),
        (with(r#""ack":"soon""#), "bad_request", "ack"),
        (with(r#""id":"7""#), "bad_request", "id"),
        (with(&format!(r#""id":"{}""#, Uuid::nil())), "bad_request", "version 7"),
        (with(r#""name":"""#), "bad_request", "name"),
        (with(&format!(r#""name":"{}""#, "n".repeat(65))), "bad_request", "name"),
        (with(r#""name":"a\u001b[2Jb""#), "bad_request", "control character"),
        (with(r#""name":"two\nlines""#), "bad_request", "control character"),
        // `null` is no way to leave a field out: what it asked for would be lost without a word.
        (with(r#""id":null"#), "bad_request", "id"),
        (with(r#""name":null"#), "bad_request", "name"),
        (with(r#""timeout":null"#), "bad_request", "timeout"),
        (with(r#""ack":null"#), "bad_request", "ack"),
        (with(r#""protocol":null"#), "bad_request", "protocol"),
        (with(r#""name":"a","name":"b""#), "bad_request", "name"),
        (format!(r#"{{"branches":[{{"ops":[{OP}]}}]}}"#), "bad_request", "participant"),
        (
            format!(r#"{{"branches":[{{"participant":"a b","ops":[{OP}]}}]}}"#),
            "bad_request",
            "branches[0].participant",
        ),
        (
            format!(r#"{{"branches":[{{"participant":"bank-a","ops":[{OP}],"inputs":{{}}}}]}}"#),
            "bad_request",
            "branches[0].inputs",
        ),
        (ops("{}"), "bad_request", "bank-a"),
        (ops("[3]"), "bad_request", "bank-a"),
        (ops(r#"[{"cmd":"GET k"}]"#), "bad_request", "bank-a"),
        (ops(r#"[{"cmd":["GET","k"],"expects":{}}]"#), "bad_request", "expects"),
        (ops(r#"[{"cmd":["GET","k"],"expect":null}]"#), "bad_request", "null"),
        (ops(r#"[{"cmd":["INCR","k"],"escrow":null}]"#), "bad_request", "null"),
        (ops(r#"[{"cmd":["DECR","k"],"expect":{"ge":null}}]"#), "bad_arguments", "`ge` is null"),
        (ops(r#"[{"cmd":["DECR","k"],"expect":{}}]"#), "bad_arguments", "expect"),
        (ops(r#"[{"cmd":["KEYS","*"]}]"#), "unsupported_command", "KEYS"),
        (ops(r#"[{"cmd":["GET"]}]"#), "bad_arguments", "GET"),
        (ops(r#"[{"cmd":["GET","k","l"]}]"#), "bad_arguments", "GET"),
        (ops(&key_too_large), "too_large", ""),
        (
            ops(&format!("[{}]", vec![OP; limits::OPS_PER_BRANCH_MAX + 1].join(","))),
            "too_many_ops",
            "",
        ),
        (many(limits::BRANCHES_MAX + 1), "too_many_ops", "branches"),
        (format!(r#"{{"branches":[{twice},{twice}]}}"#), "duplicate_participant", "bank-a"),
        (
            format!(r#"{{"branches":[{{"participant":"nobody","ops":[{OP}]}}]}}"#),
            "unknown_participant",
            "nobody",
        ),
    ]
}

/// Promise: what is said in a body that nobody reads is refused, and not passed over.
#[tokio::test]
async fn a_commit_and_an_abort_take_no_fields() {
    let bank = Fake::start().await;
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let begun = rig.submit(&json!({})).await;
    let post = |what: &str| {
        let path = format!("/v1/transactions/{}/{what}", begun.id());
        rig.request(Method::POST, &path)
    };
    for what in ["commit", "abort"] {
        for body in [r#"{"ops":[]}"#, r#"{"wait":"5s"}"#, "[]", "null", "{"] {
            let request = post(what).header("content-type", "application/json").body(body);
            said(request).await.is_problem("bad_request");
        }
        said(post(what).body("{}")).await.is_problem("unsupported_media_type");
    }
    let active = rig.get(&format!("/v1/transactions/{}", begun.id())).await;
    assert_eq!(active.body["state"], "active", "{active:?}");
    for field in ["seq", "expires_at", "ends_at"] {
        assert_eq!(active.body[field], begun.body[field], "{field}: {active:?}");
    }
    let json = post("commit").header("content-type", "application/json").body("{}");
    said(json).await.is_problem("wrong_state");
    let aborted = said(post("abort")).await;
    assert_eq!(aborted.body["outcome"], "aborted", "{aborted:?}");
    assert_eq!(aborted.body["seq"], Value::Null, "{aborted:?}");
}

/// Promise: who sends nothing, with or without its type, is told what to send.
#[tokio::test]
async fn an_empty_body_is_named() {
    let rig = Rig::start(&[]).await;
    for headers in [&[][..], &[("content-type", "application/json")]] {
        let request = rig.request(Method::POST, "/v1/transactions");
        let request = headers.iter().fold(request, |it, (name, value)| it.header(*name, *value));
        let answer = said(request).await;
        answer.is_problem("bad_request");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains("`{}`") && detail.contains("application/json"), "{detail}");
    }
}

#[tokio::test]
async fn a_bad_body_is_refused_before_anybody_hears_of_it() {
    let bank = Fake::start().await;
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    for (body, code, named) in bad_bodies() {
        let request = rig.request(Method::POST, "/v1/transactions");
        let request = request.header("content-type", "application/json").body(body.clone());
        let answer = said(request).await;
        let shown = &body[..body.len().min(200)];
        assert_eq!(answer.body["code"], code, "{shown}: {answer:?}");
        answer.is_problem(code);
        assert_eq!(answer.body["outcome"], Value::Null, "{shown}");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(named), "{shown}: {detail}");
    }
    assert!(bank.heard().is_empty());
    assert_eq!(rig.get("/v1/transactions").await.body, json!({"transactions": []}));
}

#[tokio::test]
async fn a_refused_op_is_named_with_its_participant() {
    let bank = Fake::start().await;
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let ops = json!([{"cmd": ["GET", "k"]}, {"cmd": ["FLUSHALL"]}]);
    let body = json!({"branches": [{"participant": "bank-a", "ops": ops}]});
    let answer = rig.submit(&body).await;
    answer.is_problem("unsupported_command");
    assert_eq!((&answer.body["participant"], &answer.body["op"]), (&json!("bank-a"), &json!(1)));
}

#[tokio::test]
async fn bad_headers_are_refused() {
    let bank = Fake::start().await;
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let body = transfer(&["bank-a"]);
    for key in ["", "\"open", "ünïcode", &"k".repeat(256)] {
        rig.submit_with(&body, &[("Idempotency-Key", key)]).await.is_problem("bad_request");
    }
    rig.submit_with(&body, &[("Idempotency-Key", "a"), ("Idempotency-Key", "a")])
        .await
        .is_problem("bad_request");
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
        let request = rig.request(Method::POST, "/v1/transactions").body(body.to_string());
        let answer = said(request.header("content-type", media_type)).await;
        answer.is_problem("unsupported_media_type");
    }
    said(rig.request(Method::POST, "/v1/transactions").body(body.to_string()))
        .await
        .is_problem("unsupported_media_type");
    assert!(bank.heard().is_empty());
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_and_the_answer_arrives() {
    let bank = Fake::start().await;
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let body = format!(r#"{{"name":"{}"}}"#, "n".repeat(limits::BODY_BYTES_MAX));
    let request = rig.request(Method::POST, "/v1/transactions");
    let answer = said(request.header("content-type", "application/json").body(body)).await;
    answer.is_problem("body_too_large");
    assert!(bank.heard().is_empty());
}

/// Each opened array had its place in the path of the error, which took 484 MiB for this one.
#[tokio::test]
async fn a_body_that_opens_arrays_without_end_is_refused_at_the_first_that_is_too_much() {
    let bank = Fake::start().await;
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let opened = "[".repeat(limits::BODY_BYTES_MAX - 1_024);
    for at in [r#""cmd":"#, r#""cmd":["GET","k"],"expect":{"eq":"#, ""] {
        let ops = if at.is_empty() { String::new() } else { format!("[{{{at}") };
        let head = format!(r#"{{"branches":[{{"participant":"bank-a","ops":{ops}"#);
        let deep = head.matches(['[', '{']).count();
        let first = head.matches(']').count() + limits::JSON_DEPTH_MAX - deep + head.len();
        let request = rig.request(Method::POST, "/v1/transactions");
        let body = format!("{head}{opened}");
        let answer = said(request.header("content-type", "application/json").body(body)).await;
        answer.is_problem("bad_request");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.ends_with(&format!("at byte {first}")), "{first}: {detail}");
    }
    assert!(bank.heard().is_empty());
}

#[tokio::test]
async fn bad_paths_and_queries_are_refused() {
    let rig = Rig::start(&[]).await;
    let id = Uuid::now_v7();
    let bad = [
        "/v1/transactions/7".to_owned(),
        format!("/v1/transactions/{}", Uuid::nil()),
        "/v1/transactions/%FF".to_owned(),
        "/v1/transactions/x/events".to_owned(),
        "/v1/transactions/1.2.3/outcome".to_owned(),
        format!("/v1/transactions/{id}?wait=10"),
        format!("/v1/transactions/{id}?wait=soon"),
        format!("/v1/transactions/{id}?weight=10s"),
        "/v1/transactions?outcome=maybe".to_owned(),
        "/v1/transactions?participant=-x".to_owned(),
        "/v1/transactions?in_doubt=perhaps".to_owned(),
        "/v1/transactions?older_than=5".to_owned(),
        "/v1/transactions?page_size=0".to_owned(),
        "/v1/transactions?page_size=501".to_owned(),
        "/v1/transactions?page_size=-1".to_owned(),
        "/v1/transactions?page_token=x".to_owned(),
        "/v1/transactions?limit=5".to_owned(),
        "/v1/participants/-x".to_owned(),
    ];
    for path in bad {
        let answer = rig.get(&path).await;
        assert_eq!(answer.body["code"], "bad_request", "{path}: {answer:?}");
        answer.is_problem("bad_request");
    }
    let named = rig.get("/v1/transactions?limit=5").await;
    assert!(named.body["detail"].as_str().unwrap().contains("limit"), "{named:?}");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let rig = Rig::start(&[]).await;
    for path in ["/", "/v1", "/v2/transactions", "/v1/transactions/", "/metrics/x"] {
        let answer = rig.get(path).await;
        answer.is_problem("not_found");
        assert!(answer.body["detail"].as_str().unwrap().contains(path), "{answer:?}");
    }
    let id = Uuid::now_v7();
    for later in ["opts", "commit", "abort"] {
        let path = format!("/v1/transactions/{id}/{later}");
        said(rig.request(Method::POST, &path)).await.is_problem("not_found");
    }
    for (method, path, allowed) in [
        (Method::DELETE, "/v1/transactions", "POST"),
        (Method::PUT, "/v1/participants/a", "GET"),
        (Method::POST, "/livez", "GET"),
        (Method::PUT, "/v1/version", "GET"),
        (Method::TRACE, "/v1/transactions", "POST"),
        (Method::TRACE, "/v1/transactions/0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e", "GET"),
        (Method::TRACE, "/livez", "GET"),
    ] {
        let answer = said(rig.request(method, path)).await;
        answer.is_problem("method_not_allowed");
        assert!(answer.header("allow").unwrap().contains(allowed), "{path}: {answer:?}");
    }
}

/// RFC 9110, 15.5.6: whoever asks with a method that a path does not have is told which it has.
#[tokio::test]
async fn every_405_says_which_methods_there_are() {
    let rig = Rig::start(&[]).await;
    let document = rig.get("/openapi.json").await.body;
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert!(paths.len() > 15, "{paths:?}");
    let mut seen = 0;
    for path in paths {
        let path = path.replace("{txid}", "x").replace("{id}", "x").replace("{name}", "x");
        let path = path.replace("{participant}", "x");
        for url in [rig.url(&path), rig.admin_url(&path)] {
            for method in [Method::OPTIONS, Method::TRACE, Method::PATCH] {
                let answer = said(rig.request_to(method, &url)).await;
                // Not every path is on both listeners.
                if answer.status == 404 {
                    continue;
                }
                seen += 1;
                answer.is_problem("method_not_allowed");
                let allowed = answer.header("allow").unwrap();
                assert!(["GET", "POST", "PUT"].iter().any(|it| allowed.contains(it)), "{url}");
            }
        }
    }
    assert!(seen > 60, "{seen}");
}

#[tokio::test]
async fn each_listener_wants_its_own_token() {
    let bank = Fake::start().await;
    let rig = Rig::start_with(&[("bank-a", &bank)], |options| {
        options.tokens.api = Some(Token::new("for-clients\n"));
        options.tokens.admin = Some(Token::new("for-operators"));
    })
    .await;
    let list = |base: String, token: Option<&str>| {
        let request = rig.request_to(Method::GET, &format!("{base}/v1/transactions"));
        said(match token {
            Some(token) => request.header("authorization", token.to_owned()),
            None => request,
        })
    };
    let (public, admin) = (rig.url(""), rig.admin_url(""));
    assert_eq!(list(public.clone(), Some("Bearer for-clients")).await.status, 200);
    assert_eq!(list(admin.clone(), Some("Bearer for-operators")).await.status, 200);
    for (base, token) in [
        (&public, None),
        (&public, Some("Bearer for-operators")),
        (&public, Some("for-clients")),
        (&public, Some("Bearer for-client")),
        (&admin, None),
        (&admin, Some("Bearer for-clients")),
    ] {
        let answer = list(base.clone(), token).await;
        answer.is_problem("unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    rig.submit(&transfer(&["bank-a"])).await.is_problem("unauthorized");
    assert!(bank.heard().is_empty());
    for probe in ["/livez", "/readyz", "/readyz?verbose"] {
        assert_eq!(rig.get(probe).await.status, 200);
        assert_eq!(said(rig.admin_request(Method::GET, probe)).await.status, 200);
    }
    said(rig.request(Method::GET, "/metrics")).await.is_problem("unauthorized");
}
