//! An agent that stood by, and takes over.

use assent_common::wire::resync::DataPoint;
use assent_participant::store::{AgentAddress, Store, StoreOptions};

use crate::harness::{Ask as _, Redis, one_phase_done, tx};
use crate::unlogged::{already, lose_all, repaired};

async fn agent(redis: &Redis) -> Store {
    let standby = AgentAddress::Url("http://127.0.0.1:1".to_owned());
    let participant = Some("bank-a".parse().unwrap());
    let options = StoreOptions { participant, standby, ..StoreOptions::new(redis.url()) };
    Store::connect(options).await.unwrap()
}

/// The second agent, when it owns the Redis; the first did this in one phase before it was gone.
async fn successor(redis: &Redis, line: &str) -> (Store, DataPoint) {
    let owner = agent(redis).await;
    let standby = agent(redis).await;
    assert!(owner.link().is_sole_owner() && standby.link().stands_by_for().is_some());
    let written = one_phase_done(owner.one_phase(tx(1), &[line]).await).written.unwrap();
    drop(owner);
    while !standby.link().is_sole_owner() {
        standby.link().pulse().await.unwrap();
    }
    (standby, DataPoint { incarnation: written.incarnation, seq: written.seq })
}

/// Invariant 9: one phase of the owner's, which its log may not have heard of, is put back by the
/// one that took over.
#[tokio::test]
async fn a_successor_puts_back_what_the_owner_did_in_one_phase() {
    let redis = Redis::start();
    let mut plain = redis.plain().await;
    let (store, _) = successor(&redis, "SET a 1").await;
    lose_all(&store, &mut plain).await;
    repaired(&store).await;
    assert_eq!(plain.get("a").await.as_deref(), Some("1"));
    already(store.abort(tx(1)).await);
}

/// A coordinator that has heard the owner's last vote is none that speaks of other data.
#[tokio::test]
async fn a_successor_has_seen_the_votes_of_the_owner() {
    let redis = Redis::start();
    let (store, known) = successor(&redis, "SET a 1").await;
    assert!(!store.is_other_data(Some(known), None));
    assert!(store.is_other_data(Some(DataPoint { seq: known.seq + 1, ..known }), None));
}
