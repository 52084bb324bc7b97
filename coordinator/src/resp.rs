//! The engine behind the door for Redis clients.

use std::time::Duration;

use assent_common::limits;
use assent_common::wire::problem::Problem;
use assent_common::wire::transaction::TransactionView;
use assent_edge::{Caller, Held};
use assent_resp::{DoorRequest, EngineAccess};
use tokio::time::Instant;

use crate::engine::{Engine, Fingerprint, Submitted};

/// The engine, for [`assent_resp`].
pub(crate) struct EngineDoor(pub(crate) Engine);

impl EngineAccess for EngineDoor {
    async fn run(
        &self,
        asked: DoorRequest,
        held: Held,
        client: &Caller,
    ) -> Result<TransactionView, Problem> {
        let (submission, key, fingerprint) = match asked {
            DoorRequest::Once(submission) => (submission, None, None),
            DoorRequest::Keyed(request, key) => {
                // The same request by HTTP has the same form.
                let bytes = serde_json::to_vec(&request).unwrap_or_default();
                let (submission, fingerprint) = Fingerprint::of(request, &bytes)?;
                (submission, key, Some(fingerprint))
            }
        };
        let wait_ms = submission.timeout_ms + limits::WAIT_BEYOND_TIMEOUT_MS;
        let until = Instant::now() + Duration::from_millis(wait_ms.min(limits::WAIT_MAX_MS));
        let wait = client.waits_until(until);
        let submitted = self.0.submit(submission, held, key, fingerprint, wait).await;
        submitted.map(|Submitted { view, .. }| view)
    }
}
