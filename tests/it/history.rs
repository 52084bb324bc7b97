//! A mixed load on three participants while processes die and links break, written down as a history, and the verdicts
//! of the checkers on it (promises *isolated*, *atomic*, *once*, *finishing*).

mod workload;

use std::collections::BTreeMap;

use assent_checkers::{Checker, Document, FinalCount, FinalState, Recorder, Report, check};
use assent_client::{CoordinatorClient, Http, HttpOptions};
use assent_tests::cluster::restart;
use assent_tests::link::{Fault, Way, Which};
use assent_tests::{Cluster, Options, audit, plain, wait_for, wait_settled};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::workload::{COUNTER, Client, MARKS, PARTICIPANTS};
use crate::ASSENT;

const CLIENTS: i64 = 5;

/// Operations between two faults.
const BETWEEN: u64 = 40;

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
async fn break_things(cluster: &mut Cluster, recorder: &Recorder, ended: &watch::Sender<u64>) {
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
        for (link, fault) in [
            (&cluster.client_link, Fault::CutAfter(Which::Every(4))),
            (&peer.link, Fault::CutAfter(Which::Every(4))),
            (&peer.redis_link, Fault::CutBefore(Which::Every(30))),
            (&peer.link, Fault::Delay(Way::Both, 20)),
        ] {
            note(&format!("{fault:?}"));
            let link = link.as_ref().unwrap();
            let met = link.met();
            link.set(fault);
            link.wait_met(met, 3).await;
            link.set(Fault::None);
        }
        let link = peer.link.as_ref().unwrap();
        let met = link.met();
        note("black-hole");
        link.set(Fault::BlackHole(Way::Both));
        link.wait_met(met, 1).await;
        link.set(Fault::None);
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

/// The load, until whoever breaks things is done; then every verdict.
struct Run {
    cluster: Cluster,
    recorder: Recorder,
    stop: watch::Sender<bool>,
    ended: watch::Sender<u64>,
    clients: Vec<JoinHandle<()>>,
}

impl Run {
    async fn start() -> Self {
        let options = Options {
            participants: PARTICIPANTS.to_vec(),
            linked: true,
            coordinator: vec!["--request-timeout", "600ms"],
            ..Options::default()
        };
        let cluster = Cluster::start(ASSENT, options).await;
        let http = HttpOptions { request_timeout_ms: 400, ..HttpOptions::default() };
        let url = cluster.api.base_url();
        let api = CoordinatorClient::new(&Http::new(&http).unwrap(), url).unwrap();
        let recorder = Recorder::in_memory();
        Client::new(0, api.clone(), recorder.clone()).open().await;
        let (stop, ended) = (watch::Sender::new(false), watch::Sender::new(0));
        let clients = (0..CLIENTS).map(|name| {
            let client = Client::new(name, api.clone(), recorder.clone());
            tokio::spawn(client.run(stop.subscribe(), ended.clone()))
        });
        let clients = clients.collect();
        Self { cluster, recorder, stop, ended, clients }
    }

    async fn finish(self) {
        self.stop.send_replace(true);
        for client in self.clients {
            client.await.unwrap();
        }
        // First what the clients saw, then that everything comes to rest, then what is there.
        let history = self.recorder.history();
        let seen = [Checker::ListAppend, Checker::Register];
        assert_holds(&seen.map(|checker| check(checker, &history)));
        wait_settled(&self.cluster).await;
        observe(&self.cluster, &self.recorder).await;
        let history = self.recorder.finish().unwrap();
        let rest = [Checker::Counter, Checker::Atomicity, Checker::Liveness];
        assert_holds(&rest.map(|checker| check(checker, &history)));
        let count = history.operations.len();
        assert!(count > 200, "{count} operations prove little");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_load_under_faults_is_strictly_serialisable_and_counts_once() {
    let mut run = Run::start().await;
    break_things(&mut run.cluster, &run.recorder, &run.ended).await;
    run.finish().await;
}

/// The same load by scripts, because no agent may `WATCH`. With a mutant it must go red by a checker
/// (`a_history_of_broken_code_does_not_hold`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_load_by_the_scripts_is_strictly_serialisable_and_counts_once() {
    let mut run = Run::start().await;
    for peer in &mut run.cluster.peers {
        plain::forbid_watch(&peer.redis).await.unwrap();
        restart(&mut peer.agent).await;
    }
    wait_ended(&run.ended, 300).await;
    run.finish().await;
}
