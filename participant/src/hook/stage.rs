//! How a hook reads: the agent evaluates it in the store, and notes on what the hook decides.

use std::sync::Arc;
use std::time::Instant;

use assent_client::crash;
use assent_client::hook::{HookError, HookReads, HookReplies};
use assent_common::command::OpRequest;
use assent_common::crash::CrashPoint;
use assent_common::hook::{Consultation, HookStop, invalid};
use serde_json::value::RawValue;

use crate::metrics::Metrics;
use crate::ops::check_ops;
use crate::store::{Store, evaluate};

/// The reads of one asking of a hook.
#[derive(Debug)]
pub(super) struct StoreReads {
    pub(super) consultation: Consultation,
    /// Why it cannot come to a branch any more, whatever the hook makes of that.
    pub(super) stop: Option<HookStop>,
    store: Arc<Store>,
    metrics: Metrics,
}

impl StoreReads {
    pub(super) fn new(consultation: Consultation, store: &Arc<Store>, metrics: &Metrics) -> Self {
        let (store, metrics) = (Arc::clone(store), metrics.clone());
        Self { consultation, stop: None, store, metrics }
    }

    async fn look(
        &mut self,
        staged: &[OpRequest],
        read: Vec<OpRequest>,
    ) -> Result<Vec<Box<RawValue>>, HookStop> {
        let look = self.consultation.look(staged, read)?;
        let branch = check_ops(&self.store, look.ops.clone())
            .map_err(|refusal| HookStop::No(invalid(refusal)))?;
        let started = Instant::now();
        let call = evaluate(&self.store, branch).await;
        self.metrics.store_call(started.elapsed());
        self.consultation.looked(&look, call)
    }
}

impl HookReads for StoreReads {
    fn read<'a>(&'a mut self, staged: &'a [OpRequest], read: Vec<OpRequest>) -> HookReplies<'a> {
        Box::pin(async move {
            if self.stop.is_none() {
                match self.look(staged, read).await {
                    Ok(replies) => {
                        crash::point(CrashPoint::InHook);
                        return Ok(replies);
                    }
                    Err(stop) => self.stop = Some(stop),
                }
            }
            Err(HookError::ReadFailed)
        })
    }
}
