//! A mixed load on three participants, by all doors at once, while processes die and links break;
//! written down as a history, and the verdicts of the checkers on it, and of the `adya` crate
//! (promises *isolated*, *atomic*, *once*, *finishing*).

mod doors;
mod lists;
mod workload;

use std::collections::BTreeMap;

use assent_checkers::{Checker, Document, FinalCount, FinalState, Recorder, Report, check};
use assent_client::{CoordinatorClient, Http, HttpOptions};
use assent_process::Port;
use assent_tests::cluster::restart;
use assent_tests::hook::serve_hook;
use assent_tests::link::{Fault, Way, Which};
use assent_tests::{Cluster, Link, Options, audit, plain, second_opinion, wait_for, wait_settled};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::doors::{Door, Doors};
use self::workload::{COUNTER, Client, MARKS, PARTICIPANTS, Tally};
use crate::ASSENT;

const CLIENTS: i64 = 5;

/// Operations between two faults.
const BETWEEN: u64 = 40;

/// Transactions that each door must have committed, so that a run proves something of it.
const COMMITTED_MIN: u64 = 10;

/// Waits until the clients have ended so many more operations.
async fn wait_ended(ended: &watch::Sender<u64>, more: u64) {
    let before = *ended.borrow();
    wait_for("operations to end", || async {
        let ended = *ended.borrow() - before;
        if ended >= more { Ok(()) } else { Err(format!("{ended} of {more}")) }
    })
    .await;
}

/// Everything that goes wrong, one after the other, each noted in the history.
async fn break_things(run: &mut Run) {
    let Run { cluster, resp_link, hook_link, recorder, ended, .. } = run;
    let note = |what: &str| recorder.note("nemesis", what, &serde_json::Value::Null);
    for round in 0..3 {
        wait_ended(ended, BETWEEN).await;
        note("kill-coordinator");
        restart(&mut cluster.coordinator).await;
        wait_ended(ended, BETWEEN).await;
        note("kill-participant");
        restart(&mut cluster.peers[round].agent).await;
        wait_ended(ended, BETWEEN).await;
        note("kill-redis");
        cluster.peers[(round + 1) % 3].redis.restart().await.unwrap();
        let peer = &cluster.peers[(round + 2) % 3];
        let [client_link, peer_link, redis_link] =
            [&cluster.client_link, &peer.link, &peer.redis_link].map(|it| it.as_ref().unwrap());
        for (link, fault) in [
            (client_link, Fault::CutAfter(Which::Every(4))),
            (&*resp_link, Fault::CutAfter(Which::Every(4))),
            (peer_link, Fault::CutAfter(Which::Every(4))),
            (&*hook_link, Fault::CutAfter(Which::Every(2))),
            (redis_link, Fault::CutBefore(Which::Every(30))),
            (peer_link, Fault::Delay(Way::Both, 20)),
        ] {
            note(&format!("{fault:?}"));
            let met = link.met();
            link.set(fault);
            link.wait_met(met, 3).await;
            link.set(Fault::None);
        }
        let met = peer_link.met();
        note("black-hole");
        peer_link.set(Fault::BlackHole(Way::Both));
        peer_link.wait_met(met, 1).await;
        peer_link.set(Fault::None);
        hold_so_far(recorder);
    }
    note("healed");
    wait_ended(ended, BETWEEN).await;
}

/// What the data says past the clients, once everything is at rest.
async fn observe(cluster: &Cluster, recorder: &Recorder) {
    let list = |peer: usize, key: &'static str| async move {
        let words = ["LRANGE", key, "0", "-1"];
        plain::run::<Vec<String>>(&cluster.peers[peer].redis, &words).await
    };
    let value = plain::run(&cluster.peers[0].redis, &["GET", COUNTER]).await;
    let ids = Some(list(1, COUNTER).await);
    let count = FinalCount { value, ids, at_least: Some(0) };
    recorder.observe(Document::FinalCounts(BTreeMap::from([(COUNTER.to_owned(), count)])));
    let mut marks = BTreeMap::new();
    for (peer, name) in PARTICIPANTS.into_iter().enumerate() {
        marks.insert(name.to_owned(), list(peer, MARKS).await);
    }
    recorder.observe(Document::FinalMarks(marks));
    let mut state = FinalState::default();
    for left in audit::leftovers(cluster).await.unwrap() {
        let (peer, field) = left.split_once(' ').unwrap();
        let fields = if field.starts_with("l:") { &mut state.locked } else { &mut state.staged };
        fields.entry(peer.to_owned()).or_default().push(field.to_owned());
    }
    recorder.observe(Document::FinalState(state));
}

fn assert_holds(reports: &[Report]) {
    let wrong: Vec<_> = reports.iter().filter(|report| !report.holds()).collect();
    let text = wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "the history does not hold:\n{text}");
}

/// What the clients have seen so far holds; a history that does not is as short as it can be.
fn hold_so_far(recorder: &Recorder) {
    let history = recorder.history();
    let seen = [Checker::ListAppend, Checker::Register];
    assert_holds(&seen.map(|checker| check(checker, &history)));
}

/// The same in somebody else's words.
fn holds_for_others(recorder: &Recorder) {
    let lines = recorder.events().into_iter().map(|event| event.to_line().unwrap());
    let text = lines.collect::<Vec<_>>().join("\n");
    second_opinion::adya(&text).unwrap();
}

/// The load, until whoever breaks things is done; then every verdict.
struct Run {
    cluster: Cluster,
    /// The way of the clients to the port for Redis clients.
    resp_link: Link,
    /// The way of the participants to their hook.
    hook_link: Link,
    recorder: Recorder,
    tally: Tally,
    stop: watch::Sender<bool>,
    ended: watch::Sender<u64>,
    clients: Vec<JoinHandle<()>>,
    _port: Port,
}

impl Run {
    async fn start() -> Self {
        fn word(text: String) -> &'static str {
            Box::leak(text.into_boxed_str())
        }
        let port = Port::take().unwrap();
        let resp_link = Link::start(&port.address()).await;
        let hook_link = Link::start(&serve_hook(lists::decide).await).await;
        let mut coordinator = vec!["--request-timeout", "600ms"];
        coordinator.extend(["--resp-listen", word(port.address())]);
        for name in PARTICIPANTS {
            coordinator.extend(["--route", word(format!("{name}:*={name}"))]);
        }
        let options = Options {
            participants: PARTICIPANTS.to_vec(),
            linked: true,
            coordinator,
            participant: vec!["--hook-url", word(hook_link.url())],
            ..Options::default()
        };
        let cluster = Cluster::start(ASSENT, options).await;
        let http = HttpOptions { request_timeout_ms: 400, ..HttpOptions::default() };
        let url = cluster.api.base_url();
        let api = CoordinatorClient::new(&Http::new(&http).unwrap(), url).unwrap();
        let (recorder, tally) = (Recorder::in_memory(), Tally::default());
        let client = |name| {
            let doors = Doors::new(name, api.clone(), resp_link.address().to_string());
            Client::new(name, doors, recorder.clone(), Tally::clone(&tally))
        };
        client(0).open().await;
        let (stop, ended) = (watch::Sender::new(false), watch::Sender::new(0));
        let clients = (0..CLIENTS)
            .map(|name| tokio::spawn(client(name).run(stop.subscribe(), ended.clone())))
            .collect();
        Self { cluster, resp_link, hook_link, recorder, tally, stop, ended, clients, _port: port }
    }

    #[expect(clippy::print_stderr, reason = "how much the run proves")]
    async fn finish(self) {
        self.stop.send_replace(true);
        for client in self.clients {
            client.await.unwrap();
        }
        // First what the clients saw, then that everything comes to rest, then what is there.
        hold_so_far(&self.recorder);
        holds_for_others(&self.recorder);
        wait_settled(&self.cluster).await;
        observe(&self.cluster, &self.recorder).await;
        let history = self.recorder.finish().unwrap();
        let rest = [Checker::Counter, Checker::Atomicity, Checker::Liveness];
        assert_holds(&rest.map(|checker| check(checker, &history)));
        let count = history.operations.len();
        assert!(count > 200, "{count} operations prove little");
        let tally = self.tally.lock().unwrap();
        for door in Door::ALL {
            let counts = tally.get(&door).copied().unwrap_or_default();
            eprintln!("{door:?}: {counts:?}");
            assert!(counts.committed > COMMITTED_MIN, "by {door:?} little is proved: {counts:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_load_under_faults_is_strictly_serialisable_and_counts_once() {
    let mut run = Run::start().await;
    break_things(&mut run).await;
    run.finish().await;
}

/// The same load by scripts, because no agent may `WATCH`. With a mutant it must go red by a
/// checker (`breaks_the_history` in `mutants.rs`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_load_by_the_scripts_is_strictly_serialisable_and_counts_once() {
    let mut run = Run::start().await;
    for peer in &mut run.cluster.peers {
        plain::forbid_watch(&peer.redis).await.unwrap();
        restart(&mut peer.agent).await;
    }
    // Each mutant of `breaks_the_history` is found in the first few hundred of them.
    for _ in 0..18 {
        wait_ended(&run.ended, 50).await;
        hold_so_far(&run.recorder);
    }
    run.finish().await;
}
