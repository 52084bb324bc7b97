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

use super::owner::looked_at;
use super::scripts::Script;
use super::work::{CheckedPrepare, PrepareItem};
use super::{Store, ValidatedBranch, call};

/// What the ops of a branch would come to.
pub async fn evaluate(store: &Store, branch: ValidatedBranch) -> Call<Prepared> {
    if let Some(why) = store.link.data.is_quarantined() {
        return Call::Refused(Refusal::new(ErrorCode::Quarantined, why));
    }
    let live = match store.link.verified().await {
        Ok(live) => live,
        Err(error) => return Call::Refused(error.refusal()),
    };
    let (connection, options) = (&live.connection, live.connection.options());
    let item = match item(branch) {
        Ok(item) => item,
        Err(why) => return Call::Unknown(why),
    };
    let (script, items) =
        (Script::Evaluate(item.prepare.branch.families), std::slice::from_ref(&item));
    let call = |digest: &str| call::evaluate(digest, options, items, false);
    let row = match connection.run(script, call).await {
        Ok(Value::Array(rows)) => Ok(rows.into_iter().next().unwrap_or(Value::Nil)),
        Ok(_) => Ok(Value::Nil),
        Err(not_run) => Err(not_run.error()),
    };
    looked_at(row, &item)
}

/// A branch of nobody: what the script and its answers are about.
fn item(branch: ValidatedBranch) -> Result<PrepareItem, String> {
    let number = TxNumber { epoch: Epoch(0), n: 0 };
    let txid = Txid { log_id: LogId(Uuid::nil()), number, attempt: Attempt(0) };
    let id = TransactionId::new(Uuid::now_v7()).map_err(|error| error.to_string())?;
    let (mode, branches) = (Mode::OnePhase, Branches::default());
    let prepare = CheckedPrepare { id, mode, branches, branch, if_new: None, hooked: None };
    Ok(PrepareItem { slot: 0, txid, prepare, by_script: true })
}
