//! Deaths of a Redis server, `kill -9`, at the four moments of a branch's life. A gate in the proxy before the agent
//! makes the moment: the message is held before the agent has it, or the answer after Redis has done it.

use assent_common::time::DurationMs;
use assent_tests::proxy::At;
use assent_tests::{Bank, Cluster, Options, wait_settled};

use super::scenario::{Shape, one_outcome};
use crate::ASSENT;

async fn kill_redis_at(at: At, word: &'static str, shape: Shape) {
    let options = Options { proxied: true, ..Options::default() };
    let mut cluster = Cluster::start(ASSENT, options).await;
    let mut bank = Bank::open(&cluster, 2).await;
    bank.timeout = DurationMs(10_000);
    let transfer = shape.transfer("the one");
    cluster.peers[1].proxy().close(at, word);
    let asking = bank.asking(&transfer);
    cluster.peers[1].proxy().wait_held().await;
    cluster.peers[1].redis.kill9();
    cluster.peers[1].proxy().open();
    cluster.peers[1].redis.restart().await.unwrap();
    let first = asking.await.unwrap();
    let told = one_outcome(&bank, &transfer, first).await;
    wait_settled(&cluster).await;
    bank.check(&cluster, &[(transfer, told)]).await;
}

macro_rules! redis_matrix {
    ($($name:ident: $at:ident, $word:literal, $shape:ident;)+) => {
        $(#[tokio::test]
        async fn $name() {
            kill_redis_at(At::$at, $word, Shape::$shape).await;
        })+
    };
}

// Invariants 2, 8 and 12: a vote that was given is there after the restart, one that was not is not counted, and a
// branch is applied once.
redis_matrix! {
    a_redis_that_dies_before_a_vote_leaves_one_outcome: Before, "{\"prepare\":", TwoBranches;
    a_redis_that_dies_after_a_vote_leaves_one_outcome: After, "{\"prepare\":", TwoBranches;
    a_redis_that_dies_before_a_commit_leaves_one_outcome: Before, "{\"commit\":", TwoBranches;
    a_redis_that_dies_after_a_commit_leaves_one_outcome: After, "{\"commit\":", TwoBranches;
    a_redis_that_dies_before_its_only_phase_leaves_one_outcome: Before, "{\"prepare\":", OneBranch;
    a_redis_that_dies_after_its_only_phase_leaves_one_outcome: After, "{\"prepare\":", OneBranch;
}
