//! What the pulse sees of a server while nobody asks anything of the agent.

use assent_common::outcome::Call;
use assent_participant::store::{StoreError, StoreState};

use crate::harness::{Ask as _, CLEAN, DURABLE, Expected as _, Redis, tx, vote};
use crate::requirements::{until, with_agent};

/// W7: an agent does not stay with a server that is a replica by now.
#[tokio::test]
async fn a_demoted_server_is_given_up() {
    for server in assent_servers::all() {
        let redis = Redis::on(&server, &DURABLE);
        let (store, mut plain) = (redis.store().await, redis.plain().await);
        vote(store.prepare(tx(1), &["SET a 1"]).await);
        // A port where nobody listens: the data stays as it is.
        let () = plain.run(&["REPLICAOF", "127.0.0.1", "1"]).await;
        let call = store.prepare(tx(2), &["SET b 1"]).await;
        assert!(matches!(&call, Call::Refused(_)), "{call:?}");
        let StoreState::Disconnected(why) = store.link().state() else {
            panic!("{:?}", store.link().state())
        };
        assert!(why.contains("READONLY") || why.contains("role is"), "{why}");
        let refusal = store.prepare(tx(3), &["SET b 1"]).await.refused();
        assert!(refusal.detail.contains("role is \"slave\""), "{refusal:?}");
        let () = plain.run(&["REPLICAOF", "NO", "ONE"]).await;
        // A failure is shared for a moment by those who come in it.
        while store.link().ping().await.is_err() {
            tokio::task::yield_now().await;
        }
        vote(store.prepare(tx(4), &["SET b 1"]).await);
        assert_eq!(store.commit(tx(1)).await, CLEAN);
    }
}

/// The pulse sees a setting that is changed under the connection, and the role of an agent that
/// nobody asks anything.
#[tokio::test]
async fn the_pulse_gives_up_a_server_that_is_no_longer_fit() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    store.link().pulse().await.unwrap();
    let () = plain.run(&["CONFIG", "SET", "appendfsync", "everysec"]).await;
    assert!(matches!(store.link().pulse().await, Err(StoreError::Unsafe { .. })));
    assert!(matches!(store.link().state(), StoreState::Disconnected(_)));
    assert!(matches!(store.link().pulse().await, Err(StoreError::Unsafe { .. })));
    let () = plain.run(&["CONFIG", "SET", "appendfsync", "always"]).await;
    until(&store, Result::is_ok).await.unwrap();
    vote(store.prepare(tx(1), &["SET a 1"]).await);
}

/// Promise *kept*: what the pulse may not look at is not fit. Every check of each second is off
/// without INFO or CONFIG GET, so that nothing is voted until they are back.
#[tokio::test]
async fn an_agent_that_may_not_look_at_its_server_votes_for_nothing() {
    for server in assent_servers::all() {
        let (_redis, mut plain, store) = with_agent(&server).await;
        for (n, (right, rule)) in (1..).step_by(2).zip([
            ("info", "ACL SETUSER agent +info"),
            ("config|get", "ACL SETUSER USER '+config|get'"),
        ]) {
            // Of a subcommand alone 6.2 takes nothing.
            let taken = format!("-{}", right.split('|').next().unwrap());
            let () = plain.run(&["ACL", "SETUSER", "agent", &taken]).await;
            let named = |found: &Result<(), StoreError>| {
                found.as_ref().is_err_and(|error| error.to_string().contains(rule))
            };
            let error = until(&store, named).await.unwrap_err().to_string();
            assert!(
                matches!(store.link().state(), StoreState::Disconnected(_)),
                "{right}: {error}"
            );
            assert!(store.link().ping().await.is_err(), "{} {right}", server.name);
            let () = plain.run(&["CONFIG", "SET", "appendfsync", "everysec"]).await;
            let no = store.prepare(tx(n), &["SET a 1"]).await.refused();
            assert!(no.detail.contains(rule), "{} {right}: {no:?}", server.name);
            let () = plain.run(&["CONFIG", "SET", "appendfsync", "always"]).await;
            let () = plain.run(&["ACL", "SETUSER", "agent", &format!("+{right}")]).await;
            until(&store, Result::is_ok).await.unwrap();
            vote(store.prepare(tx(n + 1), &[&format!("SET a{n} 1")]).await);
        }
    }
}
