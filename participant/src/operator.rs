//! What operators decide and drop by hand, and how the agent learns that a log says otherwise:
//! heuristic damage. Where no outcome will come, because the log presumes abort of what it does not
//! know, the agent asks for it.

use std::sync::Arc;
use std::time::Duration;

use assent_client::participant::{ForcedOutcome, ForgetRequest, ResolveRequest};
use assent_common::branch::Ending;
use assent_common::outcome::{Call, Heuristic, Refusal};
use assent_common::participant::Branches;
use assent_common::participant::resolver::InDoubt;
use assent_common::wire::branch::{BranchState, BranchView};
use assent_common::wire::outcome::BranchOutcome;
use assent_common::{ErrorCode, Txid};
use axum::http::Uri;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::agent::Running;
use crate::resolver;
use crate::service::{Shared, WHO_IS_THERE, coordinator_of, unavailable};
use crate::store::{ByHand, InDoubt as Staged, kept_keys};

/// How long between two questions about what was decided by hand, in milliseconds. Nobody waits for
/// the answers.
const ASK_INTERVAL_MS: u64 = 2_000;

/// Questions of one turn.
const ASKED_PER_TURN_MAX: usize = 16;

impl Shared {
    /// An operator decides a branch (invariant 16).
    pub(crate) async fn resolve_by_hand(
        &self,
        txid: Txid,
        request: &ResolveRequest,
    ) -> Result<BranchView, Refusal> {
        let kept = self.store.branch(txid).await.map_err(unavailable)?;
        let in_doubt = kept.and_then(|kept| kept.in_doubt);
        let is_implicit = in_doubt.as_ref().is_some_and(|branch| !branch.branches.is_empty());
        let id = in_doubt.as_ref().map(|branch| branch.id);
        let keys = in_doubt.as_ref().map(|branch| kept_keys(&branch.written)).unwrap_or_default();
        let view = self.branch(txid).await?;
        if view.state != BranchState::Prepared {
            let state = view.state.as_str();
            let detail = format!("{txid} is {state}, not prepared: there is nothing to decide");
            return Err(Refusal::new(ErrorCode::WrongState, detail));
        }
        let ResolveRequest { outcome, actor, reason, force, .. } = request;
        if !force && let Some(branch) = in_doubt {
            unopposed(self, branch, request).await?;
        }
        let word = outcome.as_str();
        tracing::error!(
            %txid, outcome = word, actor, reason, "an operator decides a branch in doubt"
        );
        self.metrics.operator("resolve");
        let ending = match outcome {
            ForcedOutcome::Committed => Ending::Commit,
            ForcedOutcome::Aborted => Ending::Abort,
        };
        let url = view.coordinator.unwrap_or_default();
        let by_hand = ByHand {
            outcome: match outcome {
                ForcedOutcome::Committed => Heuristic::Committed,
                ForcedOutcome::Aborted => Heuristic::Aborted,
            },
            actor: actor.clone(),
            reason: reason.clone(),
            // Of an implicit transaction a log that knows nothing must not be asked by the txid
            // alone.
            coordinator: if is_implicit { String::new() } else { url.clone() },
            is_damage: false,
            id,
            keys,
        };
        self.store.keep_by_hand(txid, &by_hand).await.map_err(unavailable)?;
        let ended = self.finish(coordinator_of(txid, url), &[(txid, ending)]).await;
        ended.into_iter().collect::<Result<(), Refusal>>()?;
        self.branch(txid).await
    }

    /// An operator has what is kept of an ended branch dropped (invariant 16).
    pub(crate) async fn forget_by_hand(
        &self,
        txid: Txid,
        request: &ForgetRequest,
    ) -> Result<(), Refusal> {
        let view = self.branch(txid).await?;
        if view.state == BranchState::Prepared {
            let detail = format!(
                "{txid} is prepared: its outcome is not known here; decide it first (assent branch \
                 resolve)"
            );
            return Err(Refusal::new(ErrorCode::WrongState, detail));
        }
        let ForgetRequest { actor, reason } = request;
        let state = view.state.as_str();
        tracing::error!(%txid, state, actor, reason, "an operator removes the marker of a branch");
        self.metrics.operator("forget");
        self.store.forget(txid).await.map_err(unavailable)
    }
}

/// What there is at an address at which a branch's log may be.
enum LogAt {
    /// The log, and what it says.
    Says(BranchOutcome),
    /// Nobody, or another log.
    Gone,
    /// Somebody who may be the log: for this reason it says nothing.
    Silent(String),
}

/// Whether a branch may be ended by hand this way: a coordinator that answers ends it itself, and
/// must not be contradicted by mistake. It is gone where nobody listens, or another log answers, at
/// every address that is known of it. One that hangs, or does not let itself be asked, may have
/// decided; so may one that runs where the operator has found it, whatever is seen of it from here.
pub(crate) async fn unopposed(
    app: &Shared,
    branch: Staged,
    request: &ResolveRequest,
) -> Result<(), Refusal> {
    let Staged { txid, coordinator: coordinator_url, branches, .. } = branch;
    let asked = InDoubt { txid, coordinator_url, branches };
    let (mut urls, seen_at) = (resolver::addresses(app, &asked), request.coordinator.as_ref());
    urls.extend(seen_at.filter(|seen_at| !urls.contains(seen_at)).cloned());
    let finds = urls.iter().map(async |url| match look(app, &asked, url).await {
        LogAt::Gone if seen_at == Some(url) => {
            LogAt::Silent("it runs there, and cannot be asked from here".to_owned())
        }
        found => found,
    });
    let found = futures_util::future::join_all(finds).await;
    let has_word = found.iter().any(|found| matches!(found, LogAt::Says(_)));
    for (url, found) in urls.iter().zip(found) {
        let why = match (found, request.outcome) {
            (LogAt::Says(said @ BranchOutcome::Undecided), _)
            | (LogAt::Says(said @ BranchOutcome::Committed), ForcedOutcome::Aborted)
            | (LogAt::Says(said @ BranchOutcome::Aborted), ForcedOutcome::Committed) => {
                let said = format!("{said:?}").to_lowercase();
                format!("it answers, and says that {txid} is {said}: it ends the branch itself")
            }
            (LogAt::Silent(why), _) if !has_word => why,
            // It agrees, or is gone; or another address has the log's word.
            (LogAt::Says(_) | LogAt::Gone | LogAt::Silent(_), _) => continue,
        };
        let url = assent_common::text::cut(url, 200);
        let detail = format!(
            "its coordinator {url} may end the branch itself, and nothing was done ({why}); if it \
             is gone for good, or to contradict it all the same: `force` (assent branch resolve \
             --force)"
        );
        return Err(Refusal::new(ErrorCode::WrongState, detail));
    }
    Ok(())
}

async fn look(app: &Shared, branch: &InDoubt, url: &str) -> LogAt {
    let answer = tokio::time::timeout(WHO_IS_THERE, resolver::question_at(app, branch, url)).await;
    match answer.unwrap_or_else(|_| Call::Unknown("it does not answer".to_owned())) {
        Call::Applied(BranchOutcome::UnknownAuthority) => LogAt::Gone,
        Call::Applied(said) => LogAt::Says(said),
        Call::Refused(refusal) => LogAt::Silent(refusal.to_string()),
        Call::Unknown(_) if is_deserted(app, url).await => LogAt::Gone,
        Call::Unknown(why) => LogAt::Silent(why),
    }
}

/// Whether nobody listens at an address that may be asked.
async fn is_deserted(app: &Shared, url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let Some(host) = uri.host().filter(|_| app.coordinators_known.refusal(url).is_none()) else {
        return false;
    };
    let host = host.trim_matches(['[', ']']);
    let connects = TcpStream::connect((host, uri.port_u16().unwrap_or(80)));
    match tokio::time::timeout(WHO_IS_THERE, connects).await {
        Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        Ok(Ok(_)) | Err(_) => false,
    }
}

/// Compares what was decided by hand with what the logs say, until told to stop.
pub(crate) async fn compare(app: Arc<Shared>, mut running: watch::Receiver<Running>) {
    loop {
        tokio::select! {
            _ = running.wait_for(|running| *running == Running::Stopping) => return,
            () = tokio::time::sleep(Duration::from_millis(ASK_INTERVAL_MS)) => {}
        }
        let open = app.store.all_by_hand().into_iter().filter(|(_, it)| !it.is_damage);
        for (txid, by_hand) in open.take(ASKED_PER_TURN_MAX) {
            compare_one(&app, txid, by_hand).await;
        }
    }
}

async fn compare_one(app: &Shared, txid: Txid, by_hand: ByHand) {
    // A crash between the word and the deed: the branch still waits for its outcome.
    let kept = app.store.branch(txid).await;
    if !kept.is_ok_and(|kept| kept.is_none_or(|kept| kept.state != BranchState::Prepared)) {
        return;
    }
    let decided = match outcome(app, txid, &by_hand.coordinator).await {
        Some(BranchOutcome::Committed) => Heuristic::Committed,
        Some(BranchOutcome::Aborted) => Heuristic::Aborted,
        Some(BranchOutcome::Undecided | BranchOutcome::UnknownAuthority) | None => return,
    };
    let kept = if decided == by_hand.outcome {
        app.store.forget_by_hand(txid).await
    } else {
        let ByHand { outcome, actor, reason, .. } = &by_hand;
        tracing::error!(
            %txid, ended = outcome.as_str(), decided = decided.as_str(), actor, reason,
            "heuristic damage: a branch was ended by hand here, and its log says otherwise; make \
             good what differs, then drop the mark (assent branch forget; docs/guides/recover.md)"
        );
        app.store.keep_by_hand(txid, &ByHand { is_damage: true, ..by_hand }).await
    };
    if let Err(error) = kept {
        tracing::warn!(
            %txid, %error, "what the log says of a branch ended by hand is not kept yet"
        );
    }
}

async fn outcome(app: &Shared, txid: Txid, url: &str) -> Option<BranchOutcome> {
    if url.is_empty() {
        return None;
    }
    let branches = Branches::default();
    let branch = InDoubt { txid, coordinator_url: url.to_owned(), branches };
    match resolver::question(app, &branch).await {
        Call::Applied(outcome) => Some(outcome),
        Call::Refused(_) | Call::Unknown(_) => None,
    }
}
