//! What runs together, and what becomes of it where it cannot.

use std::sync::Mutex;

use assent_common::coordinator::Contention;
use assent_common::value::Arg;
use assent_common::{ErrorCode, TransactionId};
use assent_edge::Budget;

use super::*;
use crate::request::ClientCommand;
use crate::route::Routes;

/// An engine that commits every op but those on the key `bad`, and remembers what it was asked for.
#[derive(Default)]
struct Echo {
    asked: Mutex<Vec<(Contention, Vec<String>)>>,
}

impl EngineAccess for Echo {
    async fn run(
        &self,
        asked: DoorRequest,
        _held: Held,
        _client: &Caller,
    ) -> Result<TransactionView, Problem> {
        let DoorRequest::Once(submission) = asked else { panic!("nothing has a key") };
        let ops = submission.branches.iter().map(|branch| branch.ops.get().to_owned());
        let ops: Vec<String> = ops.collect();
        let is_bad = ops.iter().any(|ops| ops.contains("bad"));
        let is_full = ops.iter().any(|ops| ops.contains("full"));
        self.asked.lock().unwrap().push((submission.contention, ops));
        let id: TransactionId = "0198f1c2-a4b2-7c1d-9c0e-000000000001".parse().unwrap();
        if is_full {
            return Err(Problem::new(ErrorCode::RedisOutOfMemory, "OOM"));
        }
        if is_bad {
            let code = match submission.contention {
                Contention::GivesUp => ErrorCode::LockConflict,
                Contention::Waits => ErrorCode::Timeout,
            };
            let outcome = Some(OutcomeWord::Aborted);
            return Err(Problem { id: Some(id), outcome, ..Problem::new(code, "held") });
        }
        let branch = |branch: &assent_common::wire::submission::SubmittedBranch| {
            let ops: Vec<serde_json::Value> = serde_json::from_str(branch.ops.get()).unwrap();
            let words: Vec<_> = ops.iter().map(|op| &op["cmd"][1]).collect();
            let participant = &branch.participant;
            serde_json::json!({"participant": participant, "state": "applied", "replies": words})
        };
        let branches: Vec<_> = submission.branches.iter().map(branch).collect();
        let view = serde_json::json!({
            "id": id, "outcome": "committed", "state": "ended", "branches": branches,
        });
        Ok(serde_json::from_value(view).unwrap())
    }
}

fn service() -> Arc<Service<Echo>> {
    let rules = ["a:*=bank-a", "b:*=bank-b"].map(|rule| rule.parse().unwrap());
    let routes = Routes::new(rules.into()).unwrap();
    let rules = Rules { routes, token: None, budget: Budget::new(1 << 20) };
    let service = Service::new(Echo::default(), rules, &EdgeOptions::default());
    service.connected.store(9, Ordering::Relaxed);
    Arc::new(service)
}

fn planned(service: &Service<Echo>, line: &str) -> Planned {
    let mut session = Session::new(Arc::clone(&service.rules), 1);
    let words = line.split_ascii_whitespace().map(Arg::from).collect();
    match session.take(ClientCommand::Words(words)) {
        SessionStep::Run(planned) => planned,
        step => panic!("{step:?}"),
    }
}

/// Runs each line as one client's, all of them at once.
async fn at_once(service: &Arc<Service<Echo>>, lines: &[&str]) -> Vec<String> {
    let running = lines.iter().map(|line| {
        let (service, group) = (Arc::clone(service), Group::from(planned(service, line)));
        tokio::spawn(async move {
            let mut apart = 0;
            let run = service.run_shared(group, &Caller::default(), &mut apart).await;
            let GroupRun::Answered(answers) = run else { panic!("{run:?}") };
            match &answers[..] {
                [Value::Error(text)] => format!("{} apart {apart}", &text[..7]),
                [Value::Bulk(bytes)] => format!("{} apart {apart}", String::from_utf8_lossy(bytes)),
                answers => panic!("{answers:?}"),
            }
        })
    });
    let running: Vec<_> = running.collect();
    let mut answers = Vec::new();
    for running in running {
        answers.push(running.await.unwrap());
    }
    answers
}

/// "Pipelined commands of many connections become one engine call."
#[tokio::test]
async fn what_many_clients_ask_for_at_once_is_one_transaction() {
    let service = service();
    let lines = ["GETSET a:1 x", "GETSET b:2 x", "GET a:3", "GETSET a:4 x", "GET a:5"];
    let answers = at_once(&service, &lines).await;
    assert_eq!(
        answers,
        ["a:1 apart 0", "b:2 apart 0", "a:3 apart 0", "a:4 apart 0", "a:5 apart 0"]
    );
    let asked = service.door.asked.lock().unwrap().clone();
    let asked: Vec<_> =
        asked.iter().map(|(contention, ops)| (*contention, ops.join(" "))).collect();
    let expected = [
        (Contention::GivesUp, r#"[{"cmd":["GETSET","a:1","x"]},{"cmd":["GETSET","a:4","x"]}]"#),
        (Contention::GivesUp, r#"[{"cmd":["GET","a:3"]},{"cmd":["GET","a:5"]}]"#),
        // Alone at its participant: it waits for locks, as ever.
        (Contention::Waits, r#"[{"cmd":["GETSET","b:2","x"]}]"#),
    ];
    for expected in expected.map(|(contention, ops)| (contention, ops.to_owned())) {
        assert!(asked.contains(&expected), "{expected:?} in {asked:?}");
    }
    assert_eq!(asked.len(), 3);
}

/// One sick client or key costs only its own transactions.
#[tokio::test]
async fn a_transaction_that_cannot_go_on_takes_no_other_one_with_it() {
    let service = service();
    let lines = ["GETSET a:1 x", "GETSET a:bad x", "GETSET a:2 x"];
    let answers = at_once(&service, &lines).await;
    assert_eq!(answers, ["a:1 apart 0", "TIMEOUT apart 64", "a:2 apart 0"]);
    let asked = service.door.asked.lock().unwrap().clone();
    let contention: Vec<_> = asked.iter().map(|(contention, _)| *contention).collect();
    use Contention::{GivesUp, Waits};
    assert_eq!(contention, [GivesUp, Waits, Waits, Waits], "tried together once, without a wait");
}

/// A pipeline is done as one if it can be, and each for itself where Redis refuses the writes.
#[tokio::test]
async fn a_read_of_a_pipeline_is_answered_where_no_write_is_taken() {
    let service = service();
    let mut group = Group::from(planned(&service, "GET a:1"));
    group.join(planned(&service, "GETSET a:full x")).unwrap();
    let run = service.run(group, &Caller::default()).await;
    assert!(matches!(&run, GroupRun::FallsApart(planned) if planned.len() == 2), "{run:?}");
    assert_eq!(service.door.asked.lock().unwrap()[0].0, Contention::GivesUp, "and without a wait");
}

/// Where clients want the same keys again and again, merging costs more than it gives.
#[tokio::test]
async fn less_is_merged_after_each_failure_and_more_again_when_it_goes_well() {
    let service = service();
    let lines = ["GETSET a:1 x", "GETSET a:bad x"];
    let tried_together = |service: &Service<Echo>| {
        let asked = service.door.asked.lock().unwrap();
        asked.iter().filter(|(contention, _)| *contention == Contention::GivesUp).count()
    };
    for _ in 0..40 {
        at_once(&service, &lines).await;
    }
    let before = tried_together(&service);
    assert!(before < 12, "{before} of 40 were tried together");
    for _ in 0..40 {
        at_once(&service, &["GETSET a:1 x", "GETSET a:2 x"]).await;
    }
    assert!(tried_together(&service) > before, "it is tried again");
}

/// Whoever is alone does not wait for company.
#[tokio::test]
async fn the_only_client_runs_for_itself() {
    let service = service();
    service.connected.store(1, Ordering::Relaxed);
    at_once(&service, &["GETSET a:1 x"]).await;
    let asked = service.door.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].0, Contention::Waits);
    assert!(service.merging.close(1).is_none(), "nothing is open");
}
