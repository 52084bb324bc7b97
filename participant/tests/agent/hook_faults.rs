//! Hooks that fail: what is a matter of time, and what is told at once.

use assent_common::wire::branch::Mode;
use assent_common::{ErrorCode, limits};
use serde_json::json;

use crate::harness::{Redis, Sidecar};
use crate::hook::{Service, ask, ask_waiting, by_http, nothing_is_kept, refused};

/// Promise *honest*: nobody is told to try again what fails in the same way each time.
#[tokio::test]
async fn a_hook_that_fails_each_time_is_told_as_a_fault_of_the_hook() {
    let faults = [
        (500, "text/plain", "its own log says why"),
        (404, "text/html", "nothing is served at that path"),
        (405, "text/plain", "takes no POST"),
        (413, "text/plain", "no question of that size"),
        (401, "text/plain", "token"),
        (307, "text/plain", "no redirect is followed"),
        (202, "application/json", "status 202"),
        (200, "text/html", "not application/json"),
        (200, "application/json", "no JSON"),
    ];
    let service = Service::start(move |question, _| {
        let place = usize::try_from(question["input"].as_u64().unwrap()).unwrap();
        let (status, media_type, _) = faults[place];
        (status, media_type, "<secret>".to_owned())
    })
    .await;
    let redis = Redis::start().await;
    let side = Sidecar::with(&redis, by_http(&service.url, 5_000)).await;
    for (place, (status, _, why)) in faults.iter().enumerate() {
        let n = place as u64 + 1;
        let no = refused(ask(&side, n, Mode::TwoPhase, &[&["SET", "k", "v"]], json!(place)).await);
        assert_eq!(no.code, ErrorCode::HookInvalid, "{status}: {}", no.detail);
        assert!(no.detail.contains(why) && !no.detail.contains("secret"), "{status}: {no:?}");
        let times = (place + 1) * limits::HOOK_FAILURES_MAX;
        assert_eq!(service.times_asked(), times, "{status}");
        nothing_is_kept(&redis, &side, n).await;
    }
}

/// What the hook answers last counts, also where its time is cut by the end of the transaction's.
#[tokio::test]
async fn an_answer_in_the_last_moment_replaces_what_came_before_it() {
    let redis = Redis::start().await;
    let service = Service::start(|_, times| match times {
        1 => (500, "text/plain", String::new()),
        _ => (503, "text/plain", String::new()),
    })
    .await;
    let side = Sidecar::with(&redis, by_http(&service.url, 3_600_000)).await;
    let no = refused(ask_waiting(&side, 1, Mode::TwoPhase, &[], json!(1), 600).await);
    assert_eq!(no.code, ErrorCode::HookUnavailable, "{}", no.detail);
    assert!(service.times_asked() > 1);
    assert!(no.detail.contains("503") && !no.detail.contains("500"), "{}", no.detail);
}
