//! What a read in a database sees of a transaction that is applied at one side only (promise
//! *isolated*; docs/how/postgres.md, "Isolation").

use assent_tests::link::{Fault, Which};
use assent_tests::{plain, wait_for};
use serde_json::{Value, json};

use super::{LEDGER, Mixed, Shape, Told};

impl Mixed {
    /// Reads the account that the transaction took from, and the one that it gave to.
    async fn read_both(&self, lock: &str) -> Result<(i64, i64), Value> {
        let select = format!("SELECT balance FROM acct WHERE id = 0 {lock}");
        let body = json!({"timeout": "3s", "branches": [
            {"participant": LEDGER, "ops": [{"sql": select}]},
            {"participant": "cache", "ops": [{"cmd": ["GET", "acct:1"]}]},
        ]});
        let url = self.client().url;
        let answer = self.http.post(url).json(&body).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        let replies = ["/branches/0/replies/0/rows/0/balance", "/branches/1/replies/0"];
        let number = |reply: &str| {
            let value = answer.pointer(reply)?;
            value.as_i64().or_else(|| value.as_str()?.parse().ok())
        };
        match replies.map(number) {
            [Some(in_database), Some(in_redis)] => Ok((in_database, in_redis)),
            _ => Err(answer),
        }
    }
}

/// A read that locks waits for the outcome of what it reads. One that does not is read from before
/// it, whatever the transaction has done elsewhere: PostgreSQL cannot know.
#[tokio::test]
async fn a_read_for_share_sees_no_half_of_a_transaction() {
    let mixed = Mixed::start().await;
    let link = mixed.servers.databases[0].link.clone();
    link.set(Fault::CutBefore(Which::With("COMMIT PREPARED")));
    let client = mixed.client();
    let asking = tokio::spawn(async move { client.ask("the one", Shape::Both, 0, 1).await });
    let redis = &mixed.servers.cluster.peers[0].redis;
    wait_for("the transaction to be applied in Redis", || async {
        let value: Option<i64> = plain::run(redis, &["GET", "acct:1"]).await;
        if value == Some(1) { Ok(()) } else { Err(format!("{value:?}")) }
    })
    .await;
    let torn = mixed.read_both("").await;
    assert_eq!(torn, Ok((0, 1)), "what docs/how/postgres.md says of it has changed");
    let refused = mixed.read_both("FOR SHARE").await.expect_err("half of a transaction");
    assert_eq!(refused["code"], "lock_conflict", "{refused}");
    link.set(Fault::None);
    assert_eq!(asking.await.unwrap(), Told::Committed);
    let whole = wait_for("the outcome in the database", || async {
        mixed.read_both("FOR SHARE").await.map_err(|answer| answer.to_string())
    })
    .await;
    assert_eq!(whole, (-1, 1));
}
