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
use assent_common::value::{Arg, readable};

use super::call;
use super::connection::Live;
use super::sorted::Sorted;
use super::work::{Answers, Speaker, Work};
use super::{Store, lock, mutants, rights};

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
    /// New branches are refused of which a word is larger than the server takes; and those of
    /// implicit transactions where votes may be lost, because no log has the decision beside them.
    pub(super) fn weigh(&mut self, live: &Live) {
        if let Some(most) = live.server.request_bytes_max {
            for item in &mut self.prepares {
                let bytes = call::largest_read(&item.prepare.branch);
                if bytes > most {
                    let detail = format!(
                        "an argument of the branch takes {bytes} bytes on its way, and \
                         client-query-buffer-limit of its Redis is {most}"
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

/// Keys that a refusal looks at, and names.
const KEYS_TRIED_MAX: usize = 256;
const KEYS_NAMED_MAX: usize = 5;

impl Store {
    /// A refusal of one branch for its keys, with those that the agent's user may not touch: Redis
    /// says of a script only that there is one.
    pub(super) async fn with_keys(&self, live: &Live, work: &Work, failed: Failed) -> Failed {
        let Failed::Refused(Refusal { code, detail, .. }) = &failed else { return failed };
        let ops = match work {
            Work::Prepares(items) => items.first().map(|item| &item.prepare.branch.ops),
            Work::Endings(..) => None,
        };
        let keys: Vec<Arg> = match work {
            Work::Prepares(items) => {
                let locks = items.iter().flat_map(|item| &item.prepare.branch.locks);
                locks.map(|lock| lock.key.clone()).take(KEYS_TRIED_MAX).collect()
            }
            Work::Endings(_, items) => {
                let remembered = lock(&self.keys);
                let keys = items.iter().filter_map(|item| remembered.get(&item.txid)).flatten();
                keys.take(KEYS_TRIED_MAX).cloned().collect()
            }
        };
        // An owner's watch would end with it; but an owner may touch every key.
        let connection = &mut live.connection.clone();
        let Ok(denied) = rights::denied(connection, &keys).await else { return failed };
        if denied.is_empty() {
            return failed;
        }
        let uses = |key: &Arg| ops.and_then(|ops| ops.iter().find(|op| op.args.contains(key)));
        let named = denied.iter().take(KEYS_NAMED_MAX).map(|key| match uses(key) {
            Some(op) => format!("{} (for {})", readable(&key.0), op.command.name),
            None => readable(&key.0),
        });
        let named = named.collect::<Vec<_>>().join(", ");
        let more = denied.len().saturating_sub(KEYS_NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let user = rights::quoted(live.server.user());
        let detail = format!(
            "the agent's user {user} may not read and write {named}{more}: {detail}; allow it with \
             redis-cli ACL SETUSER {user} '~PATTERN'"
        );
        Failed::Refused(Refusal::new(*code, detail))
    }

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
