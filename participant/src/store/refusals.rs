//! The noes to a prepare that none of its ops is to blame for.
//!
//! What is kept of a branch answers for it, also when its prepare comes again because its yes was
//! lost. So whatever speaks against a branch only now (somebody older waits, the settings have
//! become worse) is a no to one of which nothing is kept, and to no other. Redis is asked for that
//! apart only by the scripts' way, and only where there is such a no.

use std::sync::Arc;

use assent_common::branch::BranchAnswer;
use assent_common::code::ErrorCode;
use assent_common::ids::{TxNumber, Txid};
use assent_common::outcome::{Failed, Refusal};

use super::call;
use super::connection::Live;
use super::sorted::Sorted;
use super::work::{Answers, Speaker};
use super::{Store, mutants};

/// Why a prepare is refused without a look at what is kept, if it is.
pub(super) fn refusal(
    quarantined: Option<&str>,
    speaker: &Speaker<'_>,
    low_water: TxNumber,
    txid: Txid,
) -> Option<Refusal> {
    if let Some(reason) = quarantined {
        return Some(Refusal::new(ErrorCode::Quarantined, reason));
    }
    if txid.log_id != speaker.log_id {
        let detail = format!("{txid} is not of log {}", speaker.log_id);
        return Some(Refusal::new(ErrorCode::BadRequest, detail));
    }
    (txid.number < low_water).then(|| {
        let detail = "everything of this coordinator up to here has ended";
        Refusal::new(ErrorCode::BelowLowWater, detail)
    })
}

impl Sorted {
    /// New branches are refused that are larger than the server takes; and those of implicit
    /// transactions where votes may be lost, because no log has the decision beside them.
    pub(super) fn weigh(&mut self, live: &Live) {
        if let Some(most) = live.server.request_bytes_max {
            for item in &mut self.prepares {
                let bytes = call::prepare_bytes(&item.prepare.branch);
                if bytes > most {
                    let detail = format!(
                        "the branch is a request of {bytes} bytes, and client-query-buffer-limit of its Redis is {most}"
                    );
                    item.prepare.if_new = Some(Box::new(Refusal::new(ErrorCode::TooLarge, detail)));
                }
            }
        }
        let violations = &live.violations;
        if !mutants::minds_for_decisions(violations) {
            return;
        }
        for item in self.prepares.iter_mut().filter(|item| !item.prepare.branches.is_empty()) {
            let refusal = Refusal::new(ErrorCode::NotDurable, violations.join("; "));
            item.prepare.if_new = Some(Box::new(refusal));
        }
    }
}

impl Store {
    /// Takes out the prepares that are refused as nothing is kept of them.
    pub(super) async fn refuse_new(
        &self,
        live: &Arc<Live>,
        sorted: &mut Sorted,
        answers: &mut Answers,
    ) {
        let doubtful = sorted.prepares.iter().filter(|item| item.prepare.if_new.is_some());
        let doubtful: Vec<Txid> = doubtful.map(|item| item.txid).collect();
        if doubtful.is_empty() {
            return;
        }
        let kept = self.kept(live, &doubtful).await.map_err(|error| self.failed(live, &error));
        for item in std::mem::take(&mut sorted.prepares) {
            let no = item.prepare.if_new.as_ref().and_then(|refusal| match &kept {
                Ok(kept) if kept.contains(&item.txid) => None,
                Ok(_) => Some(Failed::Refused(Refusal::clone(refusal))),
                Err(failed) => Some(failed.clone()),
            });
            match no {
                Some(no) => answers.put(item.slot, BranchAnswer::Prepared(no.into())),
                None => sorted.prepares.push(item),
            }
        }
    }
}
