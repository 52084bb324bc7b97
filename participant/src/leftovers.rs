//! The done-markers that no mark collects: of implicit transactions whose coordinator died before it had said that they ended
//! everywhere. They are there for whoever settles another branch; once no other branch is in doubt, nobody will. The next
//! life may have found such a transaction in its log, and says its commit again: until its mark has passed it, it is not
//! left behind.
//!
//! It must never forget a marker while one of the other branches is prepared, or does not say that it is not: that branch
//! would be taken for one that nobody has committed.

use assent_client::{CallError, ParticipantClient};
use assent_common::wire::branch::BranchAddress;
use assent_common::{ErrorCode, Txid, settle};

use crate::service::Shared;
use crate::store::StoreError;

/// Markers that one turn looks at; each asks all other branches.
const MARKERS_PER_TURN_MAX: usize = 256;

/// Forgets what is over everywhere; returns how many markers that were.
pub(crate) async fn forget(app: &Shared) -> Result<usize, StoreError> {
    let mut over = Vec::new();
    for (txid, branches) in app.store.left_behind(MARKERS_PER_TURN_MAX).await? {
        if is_over(app, txid, &branches).await {
            over.push(txid);
        }
    }
    if over.is_empty() {
        return Ok(0);
    }
    app.store.forget_left_behind(&over).await
}

/// Whether no other branch is in doubt.
async fn is_over(app: &Shared, txid: Txid, branches: &[BranchAddress]) -> bool {
    for BranchAddress { participant, url } in branches {
        if *participant == app.name {
            continue;
        }
        let Ok(client) = ParticipantClient::new(&app.peers, url) else { return false };
        let kept = match client.branch(txid).await {
            Ok(view) => Some(view.state),
            Err(CallError::Rejected(problem)) if problem.code == ErrorCode::NotFound => None,
            Err(_) => return false,
        };
        if !settle::is_over(kept) {
            return false;
        }
    }
    true
}
