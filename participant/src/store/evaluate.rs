//! What ops would come to, for a client who has not decided yet: one call of the script that an
//! owner asks as well (`lua/evaluate.lua`), which locks nothing and keeps nothing. Any agent of the
//! Redis may ask it. What it says may be over a moment later; whoever commits on it has the keys
//! compared under their locks.

use assent_common::code::ErrorCode;
use assent_common::ids::{Attempt, Epoch, LogId, TransactionId, TxNumber, Txid};
use assent_common::outcome::{Call, Prepared, Refusal};
use assent_common::participant::Branches;
use assent_common::wire::branch::Mode;
use redis::Value;
use uuid::Uuid;

use super::call::{self, PrepareItem};
use super::decode;
use super::execute::send;
use super::owner::looked_at;
use super::scripts::Script;
use super::{CheckedPrepare, Store, ValidatedBranch};

/// What the ops of a branch would come to.
pub async fn evaluate(store: &Store, branch: ValidatedBranch) -> Call<Prepared> {
    if let Some(why) = store.is_quarantined() {
        return Call::Refused(Refusal::new(ErrorCode::Quarantined, why));
    }
    let live = match store.verified().await {
        Ok(live) => live,
        Err(error) => return Call::Refused(error.refusal()),
    };
    let item = match item(branch) {
        Ok(item) => item,
        Err(why) => return Call::Unknown(why),
    };
    let script = Script::Evaluate(item.prepare.branch.families);
    let control_key = &store.options.control_key;
    let mut is_known = store.scripts.digest(script).is_some();
    loop {
        if !is_known && let Err(error) = store.load(&live, script).await {
            return decode::unevaluated(&error);
        }
        let digest = store.scripts.digest(script).unwrap_or_default();
        let (items, most) = (std::slice::from_ref(&item), store.options.shadow_bytes_max);
        let command = call::evaluate(&digest, control_key, items, false, most);
        let answer = send(&live, &command).await;
        if is_known && answer.as_ref().is_err_and(|error| error.code() == Some("NOSCRIPT")) {
            is_known = false;
            continue;
        }
        let row = answer.map(|answer| match answer {
            Value::Array(rows) => rows.into_iter().next().unwrap_or(Value::Nil),
            _ => Value::Nil,
        });
        return looked_at(row, &item);
    }
}

/// A branch of nobody: what the script and its answers are about.
fn item(branch: ValidatedBranch) -> Result<PrepareItem, String> {
    let number = TxNumber { epoch: Epoch(0), n: 0 };
    let txid = Txid { log_id: LogId(Uuid::nil()), number, attempt: Attempt(0) };
    let id = TransactionId::new(Uuid::now_v7()).map_err(|error| error.to_string())?;
    let (mode, branches) = (Mode::OnePhase, Branches::default());
    let prepare = CheckedPrepare { id, mode, branches, branch, if_new: None };
    Ok(PrepareItem { slot: 0, txid, prepare, by_script: true })
}
