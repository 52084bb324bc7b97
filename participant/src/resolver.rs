//! Asks coordinators about branches in doubt, and does what they say.
//!
//! The schedule and the reading of answers are `assent_common::participant::resolver`'s; this is its shell: scans,
//! calls, tells the store. It must never end a branch on anything but the word of the branch's own log; or, of an
//! implicit transaction, on what all its branches say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use assent_client::{CoordinatorClient, mutant, settle};
use assent_common::Txid;
use assent_common::mutant::Mutant;
use assent_common::outcome::{Call, Settled};
use assent_common::participant::resolver::{
    self as plan, Asked, Conclusion, InDoubt, Question, Verdict,
};
use assent_common::settle::Resolution;
use assent_common::wire::branch::CoordinatorRef;
use assent_common::wire::outcome::BranchOutcome;

use crate::agent::{End, Running};
use crate::service::{Shared, coordinator_of, definite};

/// Questions in flight at once: enough to clear a thousand branches within a second, too few to flood a coordinator
/// that has just come back.
const QUESTIONS_IN_FLIGHT_MAX: usize = 16;

/// The longest pause between two looks at the schedule, in milliseconds.
const LOOK_MS: u64 = 250;

/// Runs until told to stop; questions in flight are dropped then, which loses nothing.
pub(crate) async fn run(
    app: Arc<Shared>,
    scan_interval_ms: u64,
    mut running: watch::Receiver<Running>,
) {
    let mut questions = JoinSet::new();
    let mut asked = HashMap::new();
    let mut next_scan = Instant::now();
    loop {
        if Instant::now() >= next_scan {
            scan(&app).await;
            next_scan = Instant::now() + Duration::from_millis(scan_interval_ms);
        }
        let free = QUESTIONS_IN_FLIGHT_MAX.saturating_sub(questions.len());
        let due = app.resolver().take_due(app.now(), free);
        for question in due {
            let txid = question.branch.txid;
            let task = questions.spawn(ask(Arc::clone(&app), question));
            asked.insert(task.id(), txid);
        }
        let look = next_scan.min(Instant::now() + Duration::from_millis(LOOK_MS));
        tokio::select! {
            _ = running.wait_for(|running| *running == Running::Stopping) => return,
            () = tokio::time::sleep_until(look) => {}
            Some(done) = questions.join_next_with_id() => {
                let (id, conclusion) = match done {
                    Ok((id, conclusion)) => (id, conclusion),
                    Err(error) => (error.id(), Conclusion::Open("the question failed".to_owned())),
                };
                if let Some(txid) = asked.remove(&id) {
                    conclude(&app, txid, conclusion);
                }
            }
        }
    }
}

async fn scan(app: &Shared) {
    match app.store.in_doubt().await {
        Ok(found) => {
            let now = app.now();
            let found = found.into_iter().map(|branch| InDoubt {
                txid: branch.txid,
                coordinator_url: branch.coordinator,
                branches: branch.branches,
            });
            app.resolver().seen(now, found);
            app.gauge();
        }
        Err(error) => tracing::warn!(%error, "cannot look for branches in doubt"),
    }
}

async fn ask(app: Arc<Shared>, question: Question) -> Conclusion {
    let Question { branch, to } = question;
    let verdict = match (ask_coordinator(&app, &branch).await, to) {
        // Not while it is at work on it: the others may be about to vote.
        (
            Call::Unknown(_) | Call::Applied(BranchOutcome::UnknownAuthority),
            Asked::CoordinatorThenBranches,
        ) => ask_branches(&app, &branch).await,
        (call, _) => plan::judge(call),
    };
    let InDoubt { txid, coordinator_url, .. } = branch;
    let coordinator = coordinator_of(txid, coordinator_url);
    match verdict {
        Verdict::Commit => end(&app, coordinator, End::Commit(txid), "commit").await,
        Verdict::Abort => end(&app, coordinator, End::Abort(txid), "abort").await,
        Verdict::Later(_) if mutant::is(Mutant::InDoubtTimesOut) => {
            end(&app, coordinator, End::Abort(txid), "abort").await
        }
        Verdict::Hold(_) if mutant::is(Mutant::UnknownAuthorityIgnored) => {
            end(&app, coordinator, End::Abort(txid), "abort").await
        }
        Verdict::Later(why) => {
            app.metrics.resolver("later");
            Conclusion::Open(why)
        }
        Verdict::Hold(why) => {
            app.metrics.resolver("hold");
            // Loud once for each reason; the metric and the branch's view go on telling.
            if app.resolver().doubt(app.now(), txid).is_none_or(|(_, last)| last != Some(&*why)) {
                tracing::error!(%txid, coordinator = coordinator.url, why,
                    "a branch is held: its coordinator cannot be asked; see `assent branch resolve`");
            }
            Conclusion::Open(why)
        }
    }
}

/// The coordinator's word. Of an implicit transaction that it knows nothing of, it asks the branches.
async fn ask_coordinator(app: &Shared, branch: &InDoubt) -> Call<BranchOutcome> {
    let InDoubt { txid, coordinator_url, branches } = branch;
    let client = match CoordinatorClient::new(&app.http, coordinator_url) {
        Ok(client) => client,
        Err(error) => return Call::Unknown(error.to_string()),
    };
    match branches.is_empty() {
        true => client.outcome(*txid).await,
        false => client.resolve(*txid, branches).await,
    }
}

/// What the other branches say: this one is staged.
async fn ask_branches(app: &Shared, branch: &InDoubt) -> Verdict {
    let InDoubt { txid, coordinator_url, branches } = branch;
    let asker = coordinator_of(*txid, coordinator_url.clone());
    let mut resolution = Resolution::new(branches);
    resolution.answered(&app.name, Call::Applied(Settled::Prepared));
    let resolution = settle::ask(&app.peers, &asker, *txid, branches, resolution).await;
    let finding = resolution.finding();
    tracing::warn!(%txid, ?finding, "the coordinator does not answer; the other branches were asked");
    app.metrics.resolver("branches");
    plan::judge_branches(finding)
}

async fn end(
    app: &Shared,
    coordinator: CoordinatorRef,
    end: End,
    word: &'static str,
) -> Conclusion {
    app.metrics.resolver(word);
    match definite(app.agent.finish(coordinator, end).await) {
        Ok(()) => {
            tracing::info!(?end, "a branch in doubt is resolved");
            Conclusion::Resolved
        }
        Err(refusal) => {
            tracing::warn!(?end, code = %refusal.code, detail = refusal.detail,
                "a branch in doubt cannot be resolved yet");
            Conclusion::Open(format!("{}: {}", refusal.code, refusal.detail))
        }
    }
}

fn conclude(app: &Shared, txid: Txid, conclusion: Conclusion) {
    app.resolver().concluded(app.now(), txid, conclusion);
    app.gauge();
}
