//! Branches above what the server takes at once.

use assent_common::wire::redo::Base64;
use assent_common::wire::resync::{DataPoint, RedoBranch, Resync};
use assent_participant::store::StoreState;

use crate::harness::{Ask as _, CLEAN, DURABLE, NO_MARK, Redis, committed, coordinator, tx, vote};

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
        for (n, store) in [(1, redis.store().await), (3, redis.sharing_store().await)] {
            let two_phases = vote(store.prepare(tx(n), &lines).await);
            assert_eq!(store.commit(tx(n)).await, CLEAN, "{}", server.name);
            committed(store.one_phase(tx(n + 1), &lines).await);
            let mut plain = redis.plain().await;
            assert_eq!(plain.get("k299").await.unwrap().len(), value.len(), "{}", server.name);
            if n == 1 {
                continue;
            }
            let () = plain.run(&["FLUSHALL"]).await;
            while !matches!(store.state(), StoreState::Quarantined(_)) {
                let _ = store.pulse().await;
            }
            let found = store.data().await.unwrap();
            let lost = RedoBranch {
                txid: tx(n).txid,
                seq: two_phases.seq,
                redo: Base64(two_phases.redo.clone()),
            };
            let known = DataPoint { incarnation: two_phases.incarnation, seq: two_phases.seq };
            let said = store
                .resync(Resync {
                    participant: "bank-a".parse().unwrap(),
                    coordinator: coordinator(1),
                    low_water: NO_MARK,
                    found: found.found(),
                    known: Some(known),
                    part: 0,
                    last: true,
                    alone: false,
                    redo: vec![lost],
                })
                .await
                .unwrap();
            assert!(said.open.is_some(), "{} {said:?}", server.name);
            assert_eq!(plain.get("k299").await.unwrap().len(), value.len(), "{}", server.name);
        }
    }
}
