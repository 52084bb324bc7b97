//! What operators ended by hand, against what the logs say: heuristic damage. Both ways to learn of
//! it are here.
//!
//! A coordinator's outcome that meets a branch which was ended the other way is answered with who
//! did that. And where no outcome will come, because the log presumes abort of what it does not
//! know, the agent asks for it.

use std::sync::Arc;
use std::time::Duration;

use assent_client::CoordinatorClient;
use assent_client::participant::ForcedOutcome;
use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::outcome::{Aborted, Call, Heuristic, Refusal, Settled};
use assent_common::participant::resolver::InDoubt;
use assent_common::wire::branch::{BranchState, BranchView, ByHandView};
use assent_common::wire::outcome::BranchOutcome;
use assent_common::{ErrorCode, Txid};
use axum::http::Uri;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::agent::Running;
use crate::resolver;
use crate::service::{Shared, WHO_IS_THERE, ended};
use crate::store::{ByHand, InDoubt as Staged, Store};

/// How long between two questions about what was decided by hand, in milliseconds. Nobody waits for
/// the answers.
const ASK_INTERVAL_MS: u64 = 2_000;

/// Questions of one turn.
const ASKED_PER_TURN_MAX: usize = 16;

/// Names the hand in the answers that contradict an outcome, where there was one; and in those that
/// say that a branch is applied to who asks for its outcome: by the votes, or by a hand.
pub(crate) async fn tell(
    store: &Store,
    told: &[(Txid, BranchMessage<()>)],
    answers: &mut [BranchAnswer],
) {
    let contradicted = |answer: &BranchAnswer| match answer {
        BranchAnswer::Applied(Call::Refused(refusal)) => refusal.code == ErrorCode::Fenced,
        BranchAnswer::Aborted(Call::Applied(Aborted::AlreadyCommitted(_)))
        | BranchAnswer::Settled(Call::Applied(Settled::Applied)) => true,
        _ => false,
    };
    let all = || told.iter().map(|(txid, _)| *txid);
    let txids: Vec<Txid> =
        all().zip(&*answers).filter(|(_, answer)| contradicted(answer)).map(|(it, _)| it).collect();
    if txids.is_empty() {
        return;
    }
    let by_hand = match store.by_hand(&txids).await {
        Ok(by_hand) => by_hand,
        Err(error) => {
            // An outcome comes again, and is asked about then. A question must not be misled.
            for answer in answers {
                if let BranchAnswer::Settled(call @ Call::Applied(Settled::Applied)) = answer {
                    *call = Call::Unknown(format!("whether a hand applied it: {error}"));
                }
            }
            return;
        }
    };
    for (txid, answer) in all().zip(answers.iter_mut()) {
        let Some(found) = by_hand.get(&txid) else { continue };
        match (&*answer, found.outcome) {
            (BranchAnswer::Applied(Call::Refused(_)), Heuristic::Aborted) => {
                let refusal = Refusal::new(ErrorCode::HeuristicAborted, found.told());
                *answer = BranchAnswer::Applied(Call::Refused(refusal));
            }
            (BranchAnswer::Aborted(Call::Applied(_)), Heuristic::Committed) => {
                let refusal = Refusal::new(ErrorCode::HeuristicCommitted, found.told());
                *answer = BranchAnswer::Aborted(Call::Refused(refusal));
            }
            (BranchAnswer::Settled(Call::Applied(_)), Heuristic::Committed) => {
                let refusal = Refusal::new(ErrorCode::HeuristicCommitted, found.told());
                *answer = BranchAnswer::Settled(Call::Refused(refusal));
            }
            _ => {}
        }
    }
}

/// What a branch is that was ended this way.
pub(crate) const fn state(outcome: Heuristic) -> BranchState {
    match outcome {
        Heuristic::Committed => BranchState::Applied,
        Heuristic::Aborted => BranchState::Aborted,
    }
}

/// A branch that was ended by hand, for people.
pub(crate) fn view(txid: Txid, state: BranchState, by_hand: &ByHand) -> BranchView {
    let ByHand { outcome, actor, reason, coordinator, is_damage, id, keys } = by_hand.clone();
    BranchView {
        id,
        keys,
        coordinator: (!coordinator.is_empty()).then_some(coordinator),
        by_hand: Some(ByHandView { outcome, actor, reason, is_damage }),
        ..ended(txid, state)
    }
}

/// Whether a branch may be ended by hand this way: a coordinator that answers ends it itself, and
/// must not be contradicted by mistake. It is gone where nobody listens, or another log answers.
/// One that hangs, or does not let itself be asked, may have decided.
pub(crate) async fn unopposed(
    app: &Shared,
    branch: Staged,
    outcome: ForcedOutcome,
) -> Result<(), Refusal> {
    let Staged { txid, coordinator: coordinator_url, branches, .. } = branch;
    let asked = InDoubt { txid, coordinator_url, branches };
    let url = assent_common::text::cut(&asked.coordinator_url, 200);
    let answer = tokio::time::timeout(WHO_IS_THERE, resolver::question(app, &asked)).await;
    let answer = answer.unwrap_or_else(|_| Call::Unknown("it does not answer".to_owned()));
    let why = match (answer, outcome) {
        (Call::Applied(said @ BranchOutcome::Undecided), _)
        | (Call::Applied(said @ BranchOutcome::Committed), ForcedOutcome::Aborted)
        | (Call::Applied(said @ BranchOutcome::Aborted), ForcedOutcome::Committed) => {
            let said = format!("{said:?}").to_lowercase();
            format!("it answers, and says that {txid} is {said}: it ends the branch itself")
        }
        // It agrees, or is of another log.
        (Call::Applied(_), _) => return Ok(()),
        (Call::Refused(Refusal { code, detail, .. }), _) => format!("{code}: {detail}"),
        (Call::Unknown(_), _) if is_deserted(app, &asked.coordinator_url).await => return Ok(()),
        (Call::Unknown(why), _) => why,
    };
    let detail = format!(
        "its coordinator {url} may end the branch itself, and nothing was done ({why}); if it is \
         gone for good, or to contradict it all the same: `force` (assent branch resolve --force)"
    );
    Err(Refusal::new(ErrorCode::WrongState, detail))
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
            "heuristic damage: a branch was ended by hand here, and its log says otherwise; make good what differs, then \
             drop the mark (assent branch forget; docs/guides/recover.md)"
        );
        app.store.keep_by_hand(txid, &ByHand { is_damage: true, ..by_hand }).await
    };
    if let Err(error) = kept {
        tracing::warn!(%txid, %error, "what the log says of a branch ended by hand is not kept yet");
    }
}

async fn outcome(app: &Shared, txid: Txid, url: &str) -> Option<BranchOutcome> {
    if url.is_empty() || app.coordinators_known.refusal(url).is_some() {
        return None;
    }
    match CoordinatorClient::new(&app.http, url).ok()?.outcome(txid).await {
        Call::Applied(outcome) => Some(outcome),
        Call::Refused(_) | Call::Unknown(_) => None,
    }
}
