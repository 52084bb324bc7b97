//! What is held, and by whose fault: the commands of an operator whose coordinator, or whose participant, is gone for good.

use assent_client::ParticipantClient;
use assent_common::command::OpRequest;
use assent_common::outcome::{Call, Prepared};
use assent_common::wire::branch::{Batch, CoordinatorRef, Message, Mode, PrepareMessage};
use assent_common::{Attempt, Epoch, LogId, TransactionId, TxNumber, Txid};
use assent_tests::proxy::At;
use assent_tests::{Bank, Cluster, Options, plain, wait_settled};
use serde_json::Value;

use super::ops::{assent, assert_exit, stdout};
use super::stderr;
use crate::ASSENT;

const BY: [&str; 4] = ["--actor", "ada", "--reason", "its disk is gone"];

/// Has a coordinator that nobody will see again stage a branch that sets `acct:held`; the branch's two names.
pub(super) async fn stage(cluster: &Cluster, n: u64) -> (TransactionId, Txid) {
    let log_id: LogId = "0000000000000000000000000000f00d".parse().unwrap();
    let number = TxNumber { epoch: Epoch(1), n };
    let txid = Txid { log_id, number, attempt: Attempt(1) };
    let id = TransactionId::new(uuid::Uuid::now_v7()).unwrap();
    let prepare = PrepareMessage {
        txid,
        id,
        mode: Mode::TwoPhase,
        wait_ms: 0,
        branches: Vec::new(),
        ops: vec![OpRequest::new(["SET", &format!("held:{n}"), "new"])],
        input: None,
    };
    let batch = Batch {
        known: None,
        progress: None,
        participant: "bank-a".parse().unwrap(),
        coordinator: CoordinatorRef {
            log_id,
            epoch: Epoch(1),
            url: "http://127.0.0.1:9".to_owned(),
            life: None,
        },
        low_water: TxNumber { epoch: Epoch(0), n: 0 },
        messages: vec![Message::Prepare(prepare)],
    };
    let client: ParticipantClient = cluster.peers[0].client(&cluster.http);
    let answers = client.batch(&batch).await.unwrap().answers;
    let said = answers[0].clone().into_prepared();
    assert!(matches!(said, Call::Applied(Prepared::Yes(_))), "{said:?}");
    (id, txid)
}

/// D3: found by either name, decided, forgotten; each by a command, the coordinator being gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_whose_coordinator_is_gone_is_found_and_decided_by_commands() {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let (id, txid) = stage(&cluster, 1).await;
    let (_, other) = stage(&cluster, 2).await;
    for name in [id.to_string(), txid.to_string()] {
        let found = assent(&cluster, &["-o", "json", "tx", "describe", &name]).await;
        assert_exit(&found, 4);
        let found: Value = serde_json::from_str(&stdout(&found)).unwrap();
        let branch = &found[0]["branches"][0];
        assert_eq!(
            (&found[0]["participant"], &branch["txid"]),
            (&"bank-a".into(), &txid.to_string().into())
        );
        assert_eq!(branch["keys"], serde_json::json!(["held:1"]));
    }
    let ids = assent(&cluster, &["-o", "id", "branch", "list"]).await;
    assert_exit(&ids, 0);
    assert_eq!(stdout(&ids).lines().count(), 2, "{}", stdout(&ids));

    cluster.coordinator.kill9();
    // By either address of the participant.
    let txid = txid.to_string();
    let url = cluster.peers[0].agent.url().to_owned();
    let describe = async |name: &str, state: &str| {
        let words = ["-o", "json", "tx", "describe", name, "--participant", &url];
        let found = assent(&cluster, &words).await;
        assert_exit(&found, 4);
        let found: Value = serde_json::from_str(&stdout(&found)).unwrap();
        assert_eq!(found[0]["branches"][0]["state"], state, "{found}");
    };
    describe(&id.to_string(), "prepared").await;
    let words = ["branch", "resolve", &txid, "--outcome", "committed"];
    let nobody = assent(&cluster, &[&words[..], &["--participant", "bank-a"], &BY].concat()).await;
    assert_exit(&nobody, 5);
    assert!(stderr(&nobody).contains("by its URL"), "{}", stderr(&nobody));
    let at = ["--participant", &url];
    assert_exit(&assent(&cluster, &[&words[..], &at].concat()).await, 2);
    let resolved = assent(&cluster, &[&["-o", "json"], &words[..], &at, &BY].concat()).await;
    assert_exit(&resolved, 0);
    let view: Value = serde_json::from_str(&stdout(&resolved)).unwrap();
    assert_eq!(view["state"], "applied");
    let value: String = plain::run(&cluster.peers[0].redis, &["GET", "held:1"]).await;
    assert_eq!(value, "new");
    // By its txid it is found as long as a mark is left.
    describe(&txid, "applied").await;

    let forget = |txid: &str| {
        let words = [&["branch", "forget", txid], &at[..], &BY].concat();
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = async |words: Vec<String>| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assent(&cluster, &words).await
    };
    let list = ["-o", "id", "branch", "list", "--state", "applied", "--participant", &url];
    assert_eq!(stdout(&assent(&cluster, &list).await).trim(), txid);
    let open = run(forget(&other.to_string())).await;
    assert_exit(&open, 1);
    assert!(stderr(&open).contains("assent branch resolve"), "{}", stderr(&open));
    assert_exit(&run(forget(&txid)).await, 0);
    assert_eq!(stdout(&assent(&cluster, &list).await), "");
    assert_exit(&run(forget(&txid)).await, 1);
}

/// Commits a transaction whose branch at bank-b does not hear of it.
pub(super) async fn leave_open(cluster: &Cluster, key: &str) -> String {
    cluster.peers[1].proxy().close(At::Before, "{\"commit\":");
    let line = r#"{"ack": "decided", "branches": [{"participant": "bank-a", "ops": [{"cmd": ["INCR", "key"]}]}, {"participant": "bank-b", "ops": [{"cmd": ["INCR", "key"]}]}]}"#;
    let file = cluster.dir().join("open.jsonl");
    std::fs::write(&file, line.replace("key", key)).unwrap();
    let file = file.display().to_string();
    let run = assent(cluster, &["-o", "id", "tx", "run", "--file", &file]).await;
    assert_exit(&run, 0);
    stdout(&run).trim().to_owned()
}

/// A participant that is gone for good: counted first, then given up at once, and the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_participant_owes_is_counted_and_then_given_up_by_one_command() {
    let options = Options { proxied: true, register: true, ..Options::default() };
    let cluster = Cluster::start(ASSENT, options).await;
    Bank::open(&cluster, 1).await;
    let admin = cluster.admin_url().to_owned();
    let all = ["--admin-url", &admin, "--actor", "ada", "--reason", "burnt"];
    leave_open(&cluster, "one").await;
    let abandon = [&["branch", "abandon", "--all-of", "bank-b"], &all[..]].concat();
    let counted = assent(&cluster, &abandon).await;
    assert_exit(&counted, 2);
    assert!(stderr(&counted).contains("1 committed and 0 aborted"), "{}", stderr(&counted));
    let done = assent(&cluster, &[&["-o", "id"], &abandon[..], &["--yes"]].concat()).await;
    assert_exit(&done, 0);
    assert_eq!(stdout(&done).lines().count(), 1);
    wait_settled(&cluster).await;

    cluster.peers[1].proxy().open();
    leave_open(&cluster, "two").await;
    let words = ["participants", "remove", "bank-b", "--admin-url", &admin];
    let refused = assent(&cluster, &words).await;
    assert_exit(&refused, 1);
    let force = [&["participants", "remove", "bank-b", "--force"], &all[..]].concat();
    let counted = assent(&cluster, &force).await;
    assert_exit(&counted, 2);
    assert!(stderr(&counted).contains("1 committed and 0 aborted"), "{}", stderr(&counted));
    let removed = assent(&cluster, &[&["-o", "json"], &force[..], &["--yes"]].concat()).await;
    assert_exit(&removed, 0);
    let removed: Value = serde_json::from_str(&stdout(&removed)).unwrap();
    assert_eq!((&removed["committed"], &removed["aborted"]), (&1.into(), &0.into()));
    let names = assent(&cluster, &["-o", "id", "participants", "list"]).await;
    assert_eq!(stdout(&names), "bank-a\n");
}
