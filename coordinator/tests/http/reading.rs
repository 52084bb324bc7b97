//! Looking at transactions: long polls, events, lists, outcomes.

use std::collections::BTreeSet;
use std::time::Duration;

use assent_common::outcome::Call;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::{Epoch, ErrorCode, Txid, limits};
use assent_coordinator::CoordinatorOptions;
use futures_util::future::join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::fake::{Fake, Kind, Say, within};
use super::rig::{Rig, said, transfer};

const ASYNC: &[(&str, &str)] = &[("Prefer", "respond-async")];

#[tokio::test]
async fn a_long_poll_ends_with_its_wait_or_with_the_outcome() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_a.next(Kind::Prepare, [Say::Hold]);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let id = rig.submit_with(&transfer(&["bank-a", "bank-b"]), ASYNC).await.id().to_owned();
    let early = rig.get(&format!("/v1/transactions/{id}?wait=20ms")).await;
    assert_eq!((early.status, &early.body["outcome"]), (200, &json!("pending")));
    let path = format!("/v1/transactions/{id}?wait=60s");
    let release = async {
        bank_a.hears(Kind::Prepare, 1).await;
        bank_a.release();
    };
    let (settled, ()) = tokio::join!(rig.get(&path), release);
    assert_eq!(
        (&settled.body["outcome"], &settled.body["applied"]),
        (&json!("committed"), &json!(true))
    );
    let again = rig.get(&path).await;
    assert_eq!(again.body["outcome"], "committed");
}

#[tokio::test]
async fn a_long_poll_of_an_abort_ends_though_a_branch_is_not_told_yet() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_a.always(Kind::Abort, Say::BadGateway);
    bank_b.next(Kind::Prepare, [Say::No(ErrorCode::WrongType)]);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let id = rig.submit(&transfer(&["bank-a", "bank-b"])).await.id().to_owned();
    let view = rig.get(&format!("/v1/transactions/{id}?wait=60s")).await;
    assert_eq!(view.body["outcome"], "aborted", "{view:?}");
    assert_eq!(view.body["branches"][0]["state"], "aborting");
    bank_a.always(Kind::Abort, Say::Good);
    rig.ended(&id).await;
}

#[tokio::test]
async fn a_transaction_that_nobody_knows_is_not_found_and_not_aborted() {
    let rig = Rig::start(&[]).await;
    for path in ["", "/events"] {
        let answer = rig.get(&format!("/v1/transactions/{}{path}", Uuid::now_v7())).await;
        answer.is_problem("not_found");
        assert_eq!(answer.body["outcome"], Value::Null);
    }
    rig.get(&format!("/v1/transactions/{}?wait=60s", Uuid::now_v7())).await.is_problem("not_found");
}

/// Rows are a few hundred bytes, or some kilobytes with what a participant says: a page of those
/// ends early, and leads on.
#[tokio::test]
async fn a_page_is_limited_by_bytes_and_leads_on() {
    let bank = Fake::start().await;
    bank.always(Kind::Prepare, Say::LongNo(4_000));
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let body = transfer(&["bank-a"]);
    let mut submitted = BTreeSet::new();
    while submitted.len() < 300 {
        let said = join_all((0..50).map(|_| rig.submit(&body))).await;
        submitted.extend(said.iter().map(|said| said.id().to_owned()));
    }
    let (mut listed, mut pages, mut next) = (BTreeSet::new(), 0, String::new());
    loop {
        let page = rig.get(&format!("/v1/transactions?page_size=500{next}")).await;
        let bytes = page.body.to_string().len();
        assert!(bytes <= limits::PAGE_BYTES_MAX + 1_024, "{bytes}");
        let rows = page.body["transactions"].as_array().unwrap();
        listed.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        pages += 1;
        match page.body["next_page_token"].as_str() {
            Some(token) => next = format!("&page_token={token}"),
            None => break,
        }
    }
    assert_eq!(listed, submitted, "nothing is left out between two pages");
    assert!((2..10).contains(&pages), "{pages}");
}

/// Small requests must not make a large log: what nobody can ask for again is answered once.
#[tokio::test]
async fn large_replies_are_kept_for_a_key_or_an_id_only() {
    let bank = Fake::start().await;
    bank.always(Kind::Prepare, Say::Large(100_000));
    let mut rig = Rig::start(&[("bank-a", &bank), ("bank-b", &bank)]).await;
    for participants in [&["bank-a"][..], &["bank-a", "bank-b"]] {
        let body = transfer(participants);
        let key = format!("key-{}", participants.len());
        let keyed = rig.submit_with(&body, &[("Idempotency-Key", &key)]).await;
        let plain = rig.submit(&body).await;
        for said in [&keyed, &plain] {
            let length = said.body["branches"][0]["replies"].to_string().len();
            assert!(length >= 100_000, "{length}");
            rig.ended(said.id()).await;
        }
        rig.restart().await;
        let kept = rig.get(&format!("/v1/transactions/{}", keyed.id())).await;
        assert_eq!(kept.body["branches"], keyed.body["branches"]);
        let dropped = rig.get(&format!("/v1/transactions/{}", plain.id())).await;
        assert_eq!(dropped.body["outcome"], "committed");
        assert_eq!(dropped.body["branches"][0]["replies"], Value::Null);
    }
}

/// A stream of events, read as it comes.
struct Events {
    response: Response,
    text: String,
}

impl Events {
    async fn open(rig: &Rig, id: &str, last_event_id: Option<&str>) -> Self {
        let mut request = rig.request(Method::GET, &format!("/v1/transactions/{id}/events"));
        if let Some(last_event_id) = last_event_id {
            request = request.header("Last-Event-ID", last_event_id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event's id and data; `None` when the stream has ended.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let prefix = format!("{name}: ");
                    event.lines().filter_map(|line| line.strip_prefix(&prefix)).collect::<String>()
                };
                let parsed = (field("id"), field("data"));
                self.text = rest.to_owned();
                if parsed.1.is_empty() {
                    continue;
                }
                return Some((parsed.0, serde_json::from_str(&parsed.1).unwrap()));
            }
            let chunk = within(self.response.chunk(), || format!("an event; have {:?}", self.text));
            self.text += std::str::from_utf8(&chunk.await.unwrap()?).unwrap();
        }
    }
}

/// C1: who waits for changes holds a connection for as long as he likes, and leaves half of them.
#[tokio::test]
async fn those_who_wait_for_changes_leave_half_of_the_connections() {
    let bank = Fake::start().await;
    bank.next(Kind::Prepare, [Say::Hold]);
    let few = |options: &mut CoordinatorOptions| options.edge.connections_max = 8;
    let rig = Rig::start_with(&[("bank-a", &bank)], few).await;
    let open = rig.submit_with(&transfer(&["bank-a"]), &[("Prefer", "wait=0")]).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(Events::open(&rig, open.id(), None).await);
    }
    for path in ["?wait=60s", "/events"] {
        let path = format!("/v1/transactions/{}{path}", open.id());
        rig.get(&path).await.is_problem("overloaded");
    }
    assert_eq!(rig.get("/readyz").await.status, 200);
    assert_eq!(rig.get(&format!("/v1/transactions/{}", open.id())).await.status, 200);
    bank.release();
}

/// A client that has closed its side is told what is known, long before its wait ends: nobody can
/// see whether it has gone, and who has gone would keep a descriptor.
#[tokio::test]
async fn who_has_closed_its_side_waits_no_longer() {
    let bank = Fake::start().await;
    bank.next(Kind::Prepare, [Say::Hold, Say::Hold]);
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let slow = json!({"timeout": "60s", "branches": transfer(&["bank-a"])["branches"]});
    let open = rig.submit_with(&slow, &[("Prefer", "wait=0")]).await;
    let body = slow.to_string();
    for (request, body, told) in [
        (format!("GET /v1/transactions/{}?wait=60s", open.id()), "", "200 OK"),
        (format!("GET /v1/transactions/{}/events", open.id()), "", "200 OK"),
        ("POST /v1/transactions".to_owned(), &*body, "202 Accepted"),
    ] {
        let url = rig.url("");
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "{request} HTTP/1.1\r\nhost: {address}\r\nprefer: wait=60\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        within(read, || format!("{request}: the answer's end")).await.unwrap();
        assert!(answer.contains(told) && answer.contains("pending"), "{request}: {answer}");
    }
    bank.release();
}

#[tokio::test]
async fn events_tell_each_change_and_end_with_the_transaction() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_a.next(Kind::Prepare, [Say::Hold]);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let id = rig.submit_with(&transfer(&["bank-a", "bank-b"]), ASYNC).await.id().to_owned();
    rig.until(&id, |view| view["branches"][1]["state"] == "prepared").await;
    let mut events = Events::open(&rig, &id, None).await;
    let (first_id, first) = events.next().await.unwrap();
    assert_eq!((&first["state"], &first["outcome"]), (&json!("preparing"), &json!("pending")));
    // Nothing has changed since: the same client, coming again, is told the next change only.
    let mut resumed = Events::open(&rig, &id, Some(&first_id)).await;
    bank_a.release();
    let mut ids = BTreeSet::from([first_id]);
    let mut last = first.clone();
    while let Some((event_id, view)) = events.next().await {
        assert!(ids.insert(event_id), "an id came twice: {ids:?}");
        let standing = |view: &Value| {
            let branches = view["branches"].as_array().unwrap();
            let branches: Vec<Value> = branches.iter().map(|b| b["state"].clone()).collect();
            (view["state"].clone(), view["applied"].clone(), branches)
        };
        assert_ne!(standing(&last), standing(&view), "an event without a change");
        last = view;
    }
    assert_eq!((&last["state"], &last["applied"]), (&json!("ended"), &json!(true)));
    let (_, next) = resumed.next().await.unwrap();
    assert_ne!(next["state"], "preparing");
    while let Some((_, view)) = resumed.next().await {
        last = view;
    }
    assert_eq!(last["state"], "ended");
}

#[tokio::test]
async fn events_of_an_ended_transaction_are_one_and_then_none() {
    let bank = Fake::start().await;
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let id = rig.submit(&transfer(&["bank-a"])).await.id().to_owned();
    rig.ended(&id).await;
    let mut events = Events::open(&rig, &id, None).await;
    let (event_id, view) = events.next().await.unwrap();
    assert_eq!(view["state"], "ended");
    assert!(events.next().await.is_none());
    let request = rig.request(Method::GET, &format!("/v1/transactions/{id}/events"));
    assert_eq!(said(request.header("Last-Event-ID", event_id)).await.status, 204);
}

#[tokio::test]
async fn events_and_long_polls_end_when_the_coordinator_stops() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_a.next(Kind::Prepare, [Say::Hold]);
    let mut rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let mut body = transfer(&["bank-a", "bank-b"]);
    body["timeout"] = json!("60s");
    let id = rig.submit_with(&body, ASYNC).await.id().to_owned();
    let mut events = Events::open(&rig, &id, None).await;
    events.next().await.unwrap();
    let poll =
        tokio::spawn(said(rig.request(Method::GET, &format!("/v1/transactions/{id}?wait=60s"))));
    // Sent before this one, which takes its 50 ms: the poll waits by the time that this one is answered.
    rig.get(&format!("/v1/transactions/{id}?wait=50ms")).await;
    rig.take().drain(0).await;
    while events.next().await.is_some() {}
    let polled = poll.await.unwrap();
    assert_eq!((polled.status, &polled.body["outcome"]), (200, &json!("pending")));
}

async fn listed(rig: &Rig, query: &str) -> Vec<String> {
    let page = rig.get(&format!("/v1/transactions?{query}")).await;
    assert_eq!(page.status, 200, "{page:?}");
    let rows = page.body["transactions"].as_array().unwrap();
    rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn lists_are_filtered_by_what_the_query_says() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    let rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let committed = rig.submit(&transfer(&["bank-a"])).await.id().to_owned();
    bank_a.next(Kind::Prepare, [Say::No(ErrorCode::WrongType)]);
    let aborted = rig.submit(&transfer(&["bank-a"])).await.id().to_owned();
    rig.ended(&committed).await;
    rig.ended(&aborted).await;
    bank_b.next(Kind::Commit, [Say::Hold]);
    let mut body = transfer(&["bank-a", "bank-b"]);
    body["ack"] = json!("decided");
    let in_doubt = rig.submit(&body).await.id().to_owned();
    bank_a.next(Kind::Prepare, [Say::Hold]);
    let pending = rig.submit_with(&transfer(&["bank-a"]), ASYNC).await.id().to_owned();
    bank_b.hears(Kind::Commit, 1).await;

    assert_eq!(
        listed(&rig, "").await,
        [&pending, &in_doubt, &aborted, &committed].map(String::as_str)
    );
    assert_eq!(listed(&rig, "outcome=aborted").await, [aborted.as_str()]);
    assert_eq!(listed(&rig, "outcome=pending").await, [pending.as_str()]);
    assert_eq!(
        listed(&rig, "outcome=committed").await,
        [&in_doubt, &committed].map(String::as_str)
    );
    assert_eq!(listed(&rig, "participant=bank-b").await, [in_doubt.as_str()]);
    assert_eq!(listed(&rig, "in_doubt=true").await, [in_doubt.as_str()]);
    assert_eq!(listed(&rig, "in_doubt=true&participant=bank-c").await, [""; 0]);
    assert_eq!(listed(&rig, "older_than=1h").await, [""; 0]);
    assert_eq!(listed(&rig, "older_than=0s&outcome=aborted").await, [aborted.as_str()]);
    bank_a.release();
    bank_b.release();
}

#[tokio::test]
async fn pages_follow_each_other_without_gaps_or_repeats() {
    let bank = Fake::start().await;
    let mut rig = Rig::start(&[("bank-a", &bank)]).await;
    let mut all = Vec::new();
    for _ in 0..7 {
        all.push(rig.submit(&transfer(&["bank-a"])).await.id().to_owned());
    }
    all.reverse();
    rig.ended(&all[0]).await;
    rig.restart().await;
    let mut paged = Vec::new();
    let mut query = "/v1/transactions?page_size=3".to_owned();
    loop {
        let page = rig.get(&query).await.body;
        let rows = page["transactions"].as_array().unwrap();
        assert!(rows.len() <= 3);
        paged.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        let Some(token) = page["next_page_token"].as_str() else { break };
        query = format!("/v1/transactions?page_size=3&page_token={token}");
    }
    assert_eq!(paged, all);
}

#[tokio::test]
async fn the_question_for_an_outcome_is_answered_by_the_log_that_decides() {
    let (bank_a, bank_b) = (Fake::start().await, Fake::start().await);
    bank_a.next(Kind::Prepare, [Say::Hold]);
    let mut rig = Rig::start(&[("bank-a", &bank_a), ("bank-b", &bank_b)]).await;
    let id = rig.submit_with(&transfer(&["bank-a", "bank-b"]), ASYNC).await.id().to_owned();
    let txid = bank_a.hears(Kind::Prepare, 1).await.txid;
    let asked = |rig: &Rig, txid: Txid| {
        let client = rig.client();
        async move { client.outcome(txid).await }
    };
    assert_eq!(asked(&rig, txid).await, Call::Applied(BranchOutcome::Undecided));
    bank_a.release();
    rig.ended(&id).await;
    assert_eq!(asked(&rig, txid).await, Call::Applied(BranchOutcome::Committed));

    let mut unheard_of = txid;
    unheard_of.number.n += 1_000;
    assert_eq!(asked(&rig, unheard_of).await, Call::Applied(BranchOutcome::Aborted));
    let mut other_attempt = txid;
    other_attempt.attempt = other_attempt.attempt.next();
    assert_eq!(asked(&rig, other_attempt).await, Call::Applied(BranchOutcome::Aborted));
    let mut later = txid;
    later.number.epoch = Epoch(later.number.epoch.0 + 1);
    assert_eq!(asked(&rig, later).await, Call::Applied(BranchOutcome::UnknownAuthority));
    let mut foreign = txid;
    foreign.log_id.0 = Uuid::now_v7();
    assert_eq!(asked(&rig, foreign).await, Call::Applied(BranchOutcome::UnknownAuthority));

    let raw = rig.get(&format!("/v1/transactions/{foreign}/outcome")).await;
    assert_eq!(raw.header("content-type"), Some("application/vnd.assent+json"));
    assert_eq!(raw.body["txid"], foreign.to_string());
    assert_eq!(raw.body["log_id"], txid.log_id.to_string());
    rig.get(&format!("/v1/transactions/{id}/outcome")).await.is_problem("bad_request");

    rig.restart().await;
    assert_eq!(asked(&rig, txid).await, Call::Applied(BranchOutcome::Committed));
    // Nothing is presumed before the participants have been asked whether the log is an old copy.
    while asked(&rig, later).await == Call::Applied(BranchOutcome::Undecided) {
        tokio::task::yield_now().await;
    }
    assert_eq!(asked(&rig, later).await, Call::Applied(BranchOutcome::Aborted));
}

#[tokio::test]
async fn the_longest_wait_is_taken_for_a_longer_one() {
    let bank = Fake::start().await;
    let rig = Rig::start(&[("bank-a", &bank)]).await;
    let id = rig.submit(&transfer(&["bank-a"])).await.id().to_owned();
    let path = format!("/v1/transactions/{id}?wait=24h");
    let settled = tokio::time::timeout(Duration::from_secs(5), rig.get(&path)).await.unwrap();
    assert_eq!(settled.body["outcome"], "committed");
}
