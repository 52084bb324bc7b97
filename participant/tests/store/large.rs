//! Branches above what the server takes at once.

use crate::harness::{Ask as _, CLEAN, DURABLE, Redis, committed, tx, vote};
use crate::repair::{point, redo, until_quarantined, word};

/// B8: what is larger as a whole, and of words that the server takes, is carried out: the owner's
/// `MULTI` would be too large where the server counts what is queued, a script's call is not. And
/// what was carried out can be redone, though it is one word by then.
#[tokio::test]
async fn a_branch_of_words_below_the_query_buffer_limit_commits_and_is_redone() {
    let value = "x".repeat(10_000);
    let lines: Vec<String> = (0..300).map(|n| format!("SET k{n} {value}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    for server in assent_servers::all() {
        let limit = ["--client-query-buffer-limit", "1048576"];
        let redis = Redis::on(&server, &[&DURABLE[..], &limit].concat());
        for (n, store) in [(1, redis.store().await), (3, redis.store_by_script().await)] {
            let two_phases = vote(store.prepare(tx(n), &lines).await);
            assert_eq!(store.commit(tx(n)).await, CLEAN, "{}", server.name);
            committed(store.one_phase(tx(n + 1), &lines).await);
            let mut plain = redis.plain().await;
            assert_eq!(plain.get("k299").await.unwrap().len(), value.len(), "{}", server.name);
            if n == 1 {
                continue;
            }
            let () = plain.run(&["FLUSHALL"]).await;
            let found = until_quarantined(&store).await;
            let lost = vec![redo(tx(n), &two_phases)];
            let said = store.resync(word(&found, point(&two_phases), lost)).await.unwrap();
            assert!(said.open.is_some(), "{} {said:?}", server.name);
            assert_eq!(plain.get("k299").await.unwrap().len(), value.len(), "{}", server.name);
        }
    }
}
