//! Two agents of one Redis, as processes: the owner is killed, paused, cut off, replaced, under
//! load. The other takes over, and no transaction is half-applied, applied twice, or fails
//! (invariants 8, 12; promises *atomic*, *once*, *finishing*).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use assent_client::Http;
use assent_common::ErrorCode;
use assent_common::crash::CrashPoint;
use assent_common::outcome::{Applied, Call, Prepared, Refusal};
use assent_common::wire::MEDIA_TYPE;
use assent_common::wire::branch::{Answers, Batch, Message};
use assent_process::{Assent, Port, RedisServer};
use assent_tests::cluster::{arm, participant_args, restart, wait_crashed};
use assent_tests::link::{Fault, Way, Which};
use assent_tests::load::Load;
use assent_tests::messenger::Messenger;
use assent_tests::wait::wait_for;
use assent_tests::{Bank, Cluster, Link, Options, Transfer, plain, wait_settled};
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::ASSENT;

const CLIENTS: usize = 3;
const ACCOUNTS: usize = 4;

/// The participant that has two agents.
const NAME: &str = "bank-a";

const OWNER: &str = "assent:ctl:owner";

/// A cluster whose first participant has a second agent.
struct Pair {
    cluster: Cluster,
    second: Assent,
    _ports: [Port; 2],
}

impl Pair {
    async fn start(options: Options) -> Self {
        Self::beside(Cluster::start(ASSENT, Options { register: true, ..options }).await).await
    }

    async fn beside(cluster: Cluster) -> Self {
        let ports = Port::pair().unwrap();
        let arguments = participant_args(NAME, &cluster.peers[0].redis.url(), &ports);
        let log = cluster.dir().join("second.log");
        let url = ports[0].url();
        let second = Assent::start("second", ASSENT.as_ref(), arguments, &url, &log);
        let second = second.await.unwrap_or_else(|error| panic!("{error}"));
        Self { cluster, second, _ports: ports }
    }

    /// Has the coordinator speak to the agent at this address from now on.
    async fn move_to(&self, url: &str) {
        let name = NAME.parse().unwrap();
        self.cluster.admin().set_participant(&name, url).await.unwrap();
    }

    /// Which of the two owns the Redis, by its base URL.
    async fn owner(&self) -> Option<String> {
        let key = plain::run::<Option<String>>(&self.cluster.peers[0].redis, &["GET", OWNER]).await;
        key?.split(' ').nth(2).map(str::to_owned)
    }

    async fn wait_owned_by(&self, url: &str) {
        wait_for(&format!("{url} to own the Redis"), || async {
            let owner = self.owner().await;
            if owner.as_deref() == Some(url) { Ok(()) } else { Err(format!("{owner:?}")) }
        })
        .await;
    }

    /// Ends the load, and looks whether everything is as its clients were told. All committed.
    async fn check(&self, bank: &Bank, load: Load) {
        let ledger = load.finish().await;
        wait_settled(&self.cluster).await;
        bank.check(&self.cluster, &ledger).await;
        let failed: Vec<_> = ledger.iter().filter(|(_, told)| !told.is_committed()).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}

/// Somebody who is listed as an agent that owns the Redis, and says of everything that it does not.
struct NoOwner {
    asked: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl NoOwner {
    async fn start(redis: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut connection = plain::connect(redis).await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let says = move |Json(batch): Json<Batch>| {
            count.fetch_add(1, Ordering::Relaxed);
            let refusal = Refusal::new(ErrorCode::NotOwner, "it is another's");
            let refused = |message: &Message| message.kind().refused(refusal.clone()).into();
            let answers = batch.messages.iter().map(refused).collect();
            let answers = Answers {
                answers,
                progress: None,
                stale_log: None,
                stale_log_shown: None,
                life: None,
            };
            async move { ([(CONTENT_TYPE, MEDIA_TYPE)], serde_json::to_vec(&answers).unwrap()) }
        };
        let mut tasks = JoinSet::new();
        let app = Router::new().route("/v1/batch", post(says));
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let (name, key) = ("assent-agent:bank-a:nobody.1.a", format!("nobody.1.a s3cret {url}"));
        let mut pipeline = redis::pipe();
        pipeline.cmd("CLIENT").arg("SETNAME").arg(name).cmd("SET").arg(OWNER).arg(key);
        let () = pipeline.query_async(&mut connection).await.unwrap();
        // Who says nothing for seconds is taken for gone.
        tasks.spawn(async move {
            while redis::cmd("PING").query_async::<()>(&mut connection).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Self { asked, _task: tasks }
    }
}

async fn stands_by(http: &Http, url: &str) -> bool {
    let client = assent_client::ParticipantClient::new(http, url).unwrap();
    client.readyz().await.is_ok_and(|probe| probe.text.contains("stands by for"))
}

/// Invariant 8: what an agent does not do because it does not own the Redis is not done, and
/// another does it.
#[tokio::test]
async fn who_says_that_it_is_no_owner_has_done_nothing() {
    let options = Options { participants: vec![NAME], ..Options::default() };
    let cluster = Cluster::start(ASSENT, options).await;
    let (redis, log) = (&cluster.peers[0].redis, Messenger::new(&cluster.peers[0], &cluster.http));
    let voted = log.prepare(1, &["INCR", "n"]).await;
    assert!(matches!(voted, Call::Applied(Prepared::Yes(_))), "{voted:?}");
    let nobody = NoOwner::start(redis).await;
    let told = log.commit(1).await;
    assert_eq!(told, Call::Applied(Applied { dirty_writes: 0 }));
    assert!(nobody.asked.load(Ordering::Relaxed) > 0, "it was passed on");
    let found: Option<i64> = plain::run(redis, &["GET", "n"]).await;
    assert_eq!(found, Some(1), "called applied, and is not");
}

/// `kill -9` of whoever owns the Redis, again and again: what was voted for is committed by the
/// other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_killed_under_load_is_succeeded() {
    let mut pair = Pair::start(Options::default()).await;
    let bank = Bank::open(&pair.cluster, ACCOUNTS).await;
    let (first, second) =
        (pair.cluster.peers[0].agent.url().to_owned(), pair.second.url().to_owned());
    pair.wait_owned_by(&first).await;
    pair.move_to(&second).await;
    let load = Load::start(&bank, CLIENTS, ACCOUNTS);
    for _ in 0..2 {
        load.wait_committed(30).await;
        pair.cluster.peers[0].agent.kill9();
        load.wait_committed(30).await;
        pair.wait_owned_by(&second).await;
        restart(&mut pair.cluster.peers[0].agent).await;
        pair.move_to(&first).await;
        load.wait_committed(30).await;
        assert_eq!(pair.owner().await.as_ref(), Some(&second), "who comes stands by");
        pair.second.kill9();
        load.wait_committed(30).await;
        pair.wait_owned_by(&first).await;
        restart(&mut pair.second).await;
        pair.move_to(&second).await;
    }
    pair.check(&bank, load).await;
}

/// A paused owner keeps its connections, and may have sent an `EXEC`: another takes over within
/// seconds, and what the old one does when it goes on is worth nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_paused_under_load_is_succeeded_and_does_nothing_more() {
    let mut pair = Pair::start(Options::default()).await;
    let bank = Bank::open(&pair.cluster, ACCOUNTS).await;
    let (first, second) =
        (pair.cluster.peers[0].agent.url().to_owned(), pair.second.url().to_owned());
    pair.move_to(&second).await;
    let load = Load::start(&bank, CLIENTS, ACCOUNTS);
    load.wait_committed(30).await;
    pair.cluster.peers[0].agent.pause();
    pair.wait_owned_by(&second).await;
    load.wait_committed(30).await;
    pair.cluster.peers[0].agent.resume();
    wait_for("the old owner to stand by", || async {
        let does = stands_by(&pair.cluster.http, &first).await;
        if does { Ok(()) } else { Err("it does not") }
    })
    .await;
    // Also through it.
    pair.move_to(&first).await;
    load.wait_committed(30).await;
    assert_eq!(pair.owner().await.as_ref(), Some(&second));
    let ledger = load.finish().await;
    wait_settled(&pair.cluster).await;
    bank.check(&pair.cluster, &ledger).await;
}

/// The crash matrix of the take-over: the owner dies at each of its points, with what was passed on
/// to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_dies_at_any_of_its_points_is_succeeded() {
    for point in [
        CrashPoint::BeforeVoteDurable,
        CrashPoint::AfterVoteDurable,
        CrashPoint::BeforeApply,
        CrashPoint::AfterApply,
    ] {
        let options = Options { register: true, ..Options::default() };
        let mut cluster = Cluster::start(ASSENT, options).await;
        let bank = Bank::open(&cluster, ACCOUNTS).await;
        arm(&mut cluster.peers[0].agent, point.as_str()).await;
        let mut pair = Pair::beside(cluster).await;
        assert!(stands_by(&pair.cluster.http, pair.second.url()).await, "{point:?}");
        pair.move_to(pair.second.url()).await;
        let transfer = Transfer::new("the one", NAME, "bank-b");
        let asked = bank.asking(&transfer);
        wait_crashed(&mut pair.cluster.peers[0].agent).await;
        let told = asked.await.unwrap();
        assert!(told.is_committed(), "{point:?}: {told:?}");
        assert_eq!(pair.owner().await.as_deref(), Some(pair.second.url()), "{point:?}");
        wait_settled(&pair.cluster).await;
        bank.check(&pair.cluster, &[(transfer, told)]).await;
    }
}

/// Agents of which one tells the address of a link that leads to it.
async fn behind_link() -> (Pair, Link, &'static str) {
    let link = Link::start("http://127.0.0.1:1").await;
    let url: &'static str = Box::leak(link.url().into_boxed_str());
    let options = Options { participant: vec!["--advertised-url", url], ..Options::default() };
    let pair = Pair::start(options).await;
    link.point_at(pair.cluster.peers[0].agent.url().rsplit('/').next().unwrap().parse().unwrap());
    (pair, link, url)
}

/// The agents cannot reach each other, and both reach Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_cannot_be_reached_is_succeeded() {
    let (pair, link, url) = behind_link().await;
    let bank = Bank::open(&pair.cluster, ACCOUNTS).await;
    pair.wait_owned_by(url).await;
    pair.move_to(pair.second.url()).await;
    let load = Load::start(&bank, CLIENTS, ACCOUNTS);
    load.wait_committed(30).await;
    assert_eq!(pair.owner().await.as_deref(), Some(url), "it passes on through the link");
    link.set(Fault::CutBefore(Which::Every(1)));
    pair.wait_owned_by(pair.second.url()).await;
    load.wait_committed(30).await;
    pair.check(&bank, load).await;
}

/// The same, and nothing comes back at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_behind_a_black_hole_is_succeeded() {
    let (pair, link, _) = behind_link().await;
    let bank = Bank::open(&pair.cluster, ACCOUNTS).await;
    pair.move_to(pair.second.url()).await;
    let load = Load::start(&bank, CLIENTS, ACCOUNTS);
    load.wait_committed(30).await;
    link.set(Fault::BlackHole(Way::Both));
    pair.wait_owned_by(pair.second.url()).await;
    load.wait_committed(30).await;
    let ledger = load.finish().await;
    wait_settled(&pair.cluster).await;
    bank.check(&pair.cluster, &ledger).await;
}

/// Old and new agent at once, in both directions, and each stopped in turn: no transaction fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_replaced_under_load_without_an_error() {
    let mut pair = Pair::start(Options::default()).await;
    let bank = Bank::open(&pair.cluster, ACCOUNTS).await;
    let (first, second) =
        (pair.cluster.peers[0].agent.url().to_owned(), pair.second.url().to_owned());
    let load = Load::start(&bank, CLIENTS, ACCOUNTS);
    for _ in 0..5 {
        load.wait_committed(10).await;
        pair.move_to(&second).await;
        load.wait_committed(10).await;
        pair.move_to(&first).await;
    }
    let owner = pair.owner().await;
    assert_eq!(owner.as_ref(), Some(&first), "to move the traffic moves nothing else");
    for _ in 0..2 {
        pair.move_to(&second).await;
        load.wait_committed(10).await;
        let old = pair.cluster.peers[0].agent.child();
        assert!(old.terminate(assent_tests::wait::BOUND).await.is_some(), "it drains");
        load.wait_committed(30).await;
        restart(&mut pair.cluster.peers[0].agent).await;
        pair.move_to(&first).await;
        load.wait_committed(10).await;
        let old = pair.second.child();
        assert!(old.terminate(assent_tests::wait::BOUND).await.is_some(), "it drains");
        load.wait_committed(30).await;
        restart(&mut pair.second).await;
    }
    pair.check(&bank, load).await;
}
