//! Asks coordinators about branches in doubt, and does what they say.
//!
//! The schedule and the reading of answers are `assent_common::participant::resolver`'s; this is its shell: scans,
//! calls, tells the store. It must never end a branch on anything but the word of the branch's own log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use assent_client::{CoordinatorClient, mutant};
use assent_common::Txid;
use assent_common::mutant::Mutant;
use assent_common::participant::resolver::{self as plan, Conclusion, InDoubt, Verdict};
use assent_common::wire::branch::CoordinatorRef;

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
        for branch in due {
            let txid = branch.txid;
            let task = questions.spawn(ask(Arc::clone(&app), branch));
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
            let found = found
                .into_iter()
                .map(|branch| InDoubt { txid: branch.txid, coordinator_url: branch.coordinator });
            app.resolver().seen(now, found);
            app.gauge();
        }
        Err(error) => tracing::warn!(%error, "cannot look for branches in doubt"),
    }
}

async fn ask(app: Arc<Shared>, branch: InDoubt) -> Conclusion {
    let InDoubt { txid, coordinator_url } = branch;
    let verdict = match CoordinatorClient::new(&app.http, &coordinator_url) {
        Ok(client) => plan::judge(client.outcome(txid).await),
        Err(error) => Verdict::Hold(error.to_string()),
    };
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
