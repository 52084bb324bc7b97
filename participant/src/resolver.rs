//! Asks coordinators about branches in doubt, and does what they say.
//!
//! The schedule and the reading of answers are `assent_common::participant::resolver`'s; this is its shell: scans,
//! calls, tells the store. It must never end a branch on anything but the word of the branch's own log; or, of an
//! implicit transaction, on what its branches say together.
//!
//! ```text
//! due ──► questions, some at once ──► verdicts: commit, abort ──► ends, one batch at a time ──► concluded
//! ```
//!
//! While a batch is at Redis, verdicts queue and go together in the next one: each batch is a sync there.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use assent_client::{CoordinatorClient, mutant, settle};
use assent_common::branch::Ending;
use assent_common::mutant::Mutant;
use assent_common::outcome::{Call, Refusal};
use assent_common::participant::resolver::{self as plan, Conclusion, InDoubt, Question, Verdict};
use assent_common::settle::Resolution;
use assent_common::wire::branch::CoordinatorRef;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::{Txid, limits};

use crate::agent::Running;
use crate::service::{Shared, coordinator_of};

/// Questions in flight at once: enough to clear a thousand branches within a second, too few to flood a coordinator
/// that has just come back.
const QUESTIONS_IN_FLIGHT_MAX: usize = 16;

/// The longest pause between two looks at the schedule, in milliseconds.
const LOOK_MS: u64 = 250;

/// What the loop keeps.
struct Loop {
    app: Arc<Shared>,
    questions: JoinSet<Verdict>,
    asked: HashMap<Id, InDoubt>,
    /// What is to be done, in the order of the answers.
    known: VecDeque<(InDoubt, Ending)>,
    /// At most one batch of ends.
    ends: JoinSet<Vec<Conclusion>>,
    /// The branches of that batch.
    ending: Vec<Txid>,
}

/// Runs until told to stop; questions and ends in flight are dropped then, which loses nothing.
pub(crate) async fn run(
    app: Arc<Shared>,
    scan_interval_ms: u64,
    mut running: watch::Receiver<Running>,
) {
    let mut next_scan = Instant::now();
    let mut next_gauge = Instant::now();
    let mut resolver = Loop {
        app,
        questions: JoinSet::new(),
        asked: HashMap::new(),
        known: VecDeque::new(),
        ends: JoinSet::new(),
        ending: Vec::new(),
    };
    loop {
        if Instant::now() >= next_scan {
            scan(&resolver.app).await;
            next_scan = Instant::now() + Duration::from_millis(scan_interval_ms);
        }
        if Instant::now() >= next_gauge {
            resolver.app.gauge();
            next_gauge = Instant::now() + Duration::from_millis(LOOK_MS);
        }
        resolver.ask_what_is_due();
        resolver.end_what_is_known();
        let look = next_scan.min(Instant::now() + Duration::from_millis(LOOK_MS));
        tokio::select! {
            _ = running.wait_for(|running| *running == Running::Stopping) => return,
            () = tokio::time::sleep_until(look) => {}
            Some(done) = resolver.questions.join_next_with_id() => resolver.answered(done),
            Some(done) = resolver.ends.join_next() => resolver.ended(done.unwrap_or_default()),
        }
    }
}

impl Loop {
    fn ask_what_is_due(&mut self) {
        let free = QUESTIONS_IN_FLIGHT_MAX.saturating_sub(self.questions.len());
        let due = self.app.resolver().take_due(self.app.now(), free);
        for question in due {
            let branch = question.branch.clone();
            let task = self.questions.spawn(ask(Arc::clone(&self.app), question));
            self.asked.insert(task.id(), branch);
        }
    }

    /// The answer to a question.
    fn answered(&mut self, done: Result<(Id, Verdict), JoinError>) {
        let (id, verdict) = match done {
            Ok((id, verdict)) => (id, verdict),
            Err(error) => (error.id(), Verdict::Later("the question failed".to_owned())),
        };
        let Some(branch) = self.asked.remove(&id) else { return };
        let txid = branch.txid;
        let app = &self.app;
        match verdict {
            Verdict::Commit => {
                app.metrics.resolver("commit");
                self.known.push_back((branch, Ending::Commit));
            }
            Verdict::Abort => {
                app.metrics.resolver("abort");
                self.known.push_back((branch, Ending::Abort));
            }
            Verdict::Later(why) => {
                app.metrics.resolver("later");
                self.conclude(txid, Conclusion::Open(why));
            }
            Verdict::Unheard(why) => {
                self.conclude(txid, Conclusion::Unheard(why));
            }
            Verdict::Hold(why) => {
                app.metrics.resolver("hold");
                // Loud once for each reason; the metric and the branch's view go on telling.
                if app.resolver().doubt(app.now(), txid).is_none_or(|(_, last)| last != Some(&*why))
                {
                    tracing::error!(%txid, coordinator = branch.coordinator_url, why,
                        "a branch stays in doubt: its coordinator cannot be asked; see `assent branch resolve`");
                }
                self.conclude(txid, Conclusion::Open(why));
            }
        }
    }

    /// Begins the next batch of ends, all of one life of a coordinator, unless one is under way.
    fn end_what_is_known(&mut self) {
        let Some((first, _)) = self.known.front().filter(|_| self.ends.is_empty()) else { return };
        let coordinator = coordinator_of(first.txid, first.coordinator_url.clone());
        let mut batch = Vec::new();
        for (branch, ending) in std::mem::take(&mut self.known) {
            let is_same = branch.txid.log_id == coordinator.log_id
                && branch.txid.number.epoch == coordinator.epoch
                && branch.coordinator_url == coordinator.url;
            if is_same && batch.len() < limits::BATCH_MESSAGES_MAX {
                self.ending.push(branch.txid);
                batch.push((branch.txid, ending));
            } else {
                self.known.push_back((branch, ending));
            }
        }
        self.ends.spawn(end_all(Arc::clone(&self.app), coordinator, batch));
    }

    /// A batch of ends came to this; less is known if it failed.
    fn ended(&mut self, conclusions: Vec<Conclusion>) {
        let failed = || Conclusion::Open("the end failed".to_owned());
        let conclusions = conclusions.into_iter().chain(std::iter::repeat_with(failed));
        for (txid, conclusion) in std::mem::take(&mut self.ending).into_iter().zip(conclusions) {
            self.conclude(txid, conclusion);
        }
    }

    fn conclude(&self, txid: Txid, conclusion: Conclusion) {
        self.app.resolver().concluded(self.app.now(), txid, conclusion);
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
            app.scanned.store(true, Ordering::Release);
            app.gauge();
        }
        Err(error) => {
            app.scanned.store(false, Ordering::Release);
            tracing::warn!(%error, "cannot look for branches in doubt");
        }
    }
}

async fn ask(app: Arc<Shared>, question: Question) -> Verdict {
    let Question { branch, to } = question;
    let said = ask_coordinator(&app, &branch).await;
    let verdict = match to.goes_on_to_branches(&said) {
        true => ask_branches(&app, &branch).await,
        false => plan::judge(said),
    };
    match verdict {
        Verdict::Later(_) | Verdict::Unheard(_) if mutant::is(Mutant::InDoubtTimesOut) => {
            Verdict::Abort
        }
        Verdict::Hold(_) if mutant::is(Mutant::UnknownAuthorityIgnored) => Verdict::Abort,
        verdict => verdict,
    }
}

/// The coordinator's word. Of an implicit transaction that it knows nothing of, it asks the branches.
async fn ask_coordinator(app: &Shared, branch: &InDoubt) -> Call<BranchOutcome> {
    let call = question(app, branch).await;
    app.reach.asked(branch.txid, &branch.coordinator_url, &call);
    match &call {
        Call::Refused(_) => app.metrics.resolver("unauthorized"),
        Call::Unknown(_) => app.metrics.resolver("unheard"),
        Call::Applied(_) => {}
    }
    call
}

/// Where the log of a branch may be asked: where it was last heard from, since its coordinator may
/// have moved, and at the address that the branch names.
pub(crate) fn addresses(app: &Shared, branch: &InDoubt) -> Vec<String> {
    let heard_at = app.reach.heard_at(branch.txid.log_id);
    let named =
        Some(branch.coordinator_url.clone()).filter(|named| Some(named) != heard_at.as_ref());
    heard_at.into_iter().chain(named).collect()
}

/// The word of a branch's log, from the first address that has one; if none has, why.
pub(crate) async fn question(app: &Shared, branch: &InDoubt) -> Call<BranchOutcome> {
    let mut failed: Option<(String, Call<BranchOutcome>)> = None;
    for url in addresses(app, branch) {
        let call = question_at(app, branch, &url).await;
        if matches!(call, Call::Applied(said) if said != BranchOutcome::UnknownAuthority) {
            return call;
        }
        failed = Some(match failed {
            None => (url, call),
            Some((heard_at, first)) => {
                let call = in_vain(&heard_at, first, &url, &call);
                (heard_at, call)
            }
        });
    }
    failed.map_or_else(|| Call::Unknown("no address is known".to_owned()), |(_, call)| call)
}

/// Both addresses were asked in vain: what counts is where the log was heard from.
fn in_vain(
    heard_at: &str,
    first: Call<BranchOutcome>,
    named: &str,
    then: &Call<BranchOutcome>,
) -> Call<BranchOutcome> {
    let then = match then {
        Call::Applied(_) => "another log answers".to_owned(),
        Call::Refused(refusal) => refusal.to_string(),
        Call::Unknown(why) => why.clone(),
    };
    let both = |why: &str| format!("at {heard_at}: {why}; at {named}: {then}");
    match first {
        Call::Unknown(why) => Call::Unknown(both(&why)),
        Call::Refused(refusal) => Call::Refused(Refusal::new(refusal.code, both(&refusal.detail))),
        applied @ Call::Applied(_) => applied,
    }
}

/// The same, from one address.
pub(crate) async fn question_at(app: &Shared, branch: &InDoubt, url: &str) -> Call<BranchOutcome> {
    let InDoubt { txid, branches, .. } = branch;
    if let Some(why) = app.coordinators_known.refusal(url) {
        return Call::Unknown(why);
    }
    let client = match CoordinatorClient::new(&app.http, url) {
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
    if let Some(why) = app.peers_refusal(branches) {
        return Verdict::Later(why);
    }
    let asker = coordinator_of(*txid, coordinator_url.clone());
    let resolution = Resolution::by_branch(branches, &app.name);
    let resolution = settle::ask(&app.peers, &asker, *txid, branches, resolution).await;
    let finding = resolution.finding();
    let (word, why) = finding.told();
    tracing::warn!(%txid, finding = word, why,
        "the coordinator does not answer; the other branches were asked");
    app.metrics.resolver("branches");
    plan::judge_branches(finding)
}

async fn end_all(
    app: Arc<Shared>,
    coordinator: CoordinatorRef,
    endings: Vec<(Txid, Ending)>,
) -> Vec<Conclusion> {
    let ended = app.finish(coordinator, &endings).await;
    let concluded = endings.into_iter().zip(ended).map(|((txid, ending), ended)| {
        let end = ending.kind().as_str();
        match ended {
            Ok(()) => {
                tracing::info!(%txid, end, "a branch in doubt is resolved");
                Conclusion::Resolved
            }
            Err(refusal) => {
                tracing::warn!(%txid, end, code = %refusal.code, detail = refusal.detail,
                    "a branch in doubt cannot be resolved yet");
                Conclusion::Open(refusal.to_string())
            }
        }
    });
    concluded.collect()
}
