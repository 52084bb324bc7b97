//! Escrow on real processes: one item that many want at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use assent_client::{CoordinatorClient, SubmitError, Transaction};
use assent_common::ErrorCode;
use assent_common::wire::problem::OutcomeWord;
use assent_tests::cluster::restart;
use assent_tests::{Cluster, Options, plain, wait_settled};

use crate::ASSENT;

/// What is there to be sold.
const STOCK: i64 = 200;

const BUYERS: usize = 24;

const TRIES: usize = 12;

/// One is taken from the stock at one service, and handed to the buyer at another.
fn sale(buyer: usize) -> Transaction {
    Transaction::default()
        .branch("bank-a", |ops| ops.op(["DECRBY", "stock", "1"]).expect_ge(0).escrow())
        .branch("bank-b", |ops| ops.op(["INCR", &format!("bought:{buyer}")]))
}

/// Buys until it is told that nothing is left. Returns how many it has got.
async fn buy(api: CoordinatorClient, buyer: usize, left: Arc<AtomicI64>) -> i64 {
    let request = sale(buyer).build().unwrap();
    let mut bought = 0;
    for _ in 0..TRIES {
        match api.submit(&request, None, None).await {
            Ok(view) if view.outcome == OutcomeWord::Committed => {
                bought += 1;
                left.fetch_sub(1, Ordering::AcqRel);
            }
            Err(SubmitError::Aborted(problem)) => {
                // Each of the others may have one that it was not told of yet.
                let at_least = left.load(Ordering::Acquire);
                let others = i64::try_from(BUYERS).unwrap();
                assert!(at_least <= others, "refused with {at_least} left: {problem:?}");
                assert_eq!(problem.code, ErrorCode::ExpectationFailed, "{problem:?}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    bought
}

async fn audit(cluster: &Cluster, sold: i64) {
    wait_settled(cluster).await;
    let left: i64 = plain::run(&cluster.peers[0].redis, &["GET", "stock"]).await;
    assert_eq!((sold, left), (STOCK, 0), "{sold} sold, and {left} of {STOCK} left");
    let mut bought = 0;
    for buyer in 0..BUYERS {
        let words = ["GET", &format!("bought:{buyer}")];
        bought += plain::run::<Option<i64>>(&cluster.peers[1].redis, &words).await.unwrap_or(0);
    }
    assert_eq!(bought, sold);
}

async fn sell(cluster: &Cluster) -> i64 {
    plain::run::<()>(&cluster.peers[0].redis, &["SET", "stock", &STOCK.to_string()]).await;
    let left = Arc::new(AtomicI64::new(STOCK));
    let buyers = (0..BUYERS).map(|n| tokio::spawn(buy(cluster.api.clone(), n, Arc::clone(&left))));
    let mut sold = 0;
    for buyer in buyers.collect::<Vec<_>>() {
        sold += buyer.await.unwrap();
    }
    sold
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_by_many_sells_what_there_is_and_nobody_waits() {
    let cluster = Cluster::start(ASSENT, Options::default()).await;
    let sold = sell(&cluster).await;
    audit(&cluster, sold).await;
}

/// The same by scripts, because the agents may not `WATCH`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_by_the_scripts_sells_what_there_is() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    for peer in &mut cluster.peers {
        plain::forbid_watch(&peer.redis).await.unwrap();
        restart(&mut peer.agent).await;
    }
    let sold = sell(&cluster).await;
    audit(&cluster, sold).await;
}
