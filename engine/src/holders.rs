//! Who holds the lock that a transaction died of. A participant knows its ids and the key; this
//! coordinator, of a transaction of its own, also the name and the age.

use std::fmt::Write as _;

use assent_common::branch::BranchAnswer;
use assent_common::outcome::{Call, Holder};
use assent_common::time::Millis;
use assent_common::{LogId, TxNumber, limits, text};

use crate::active::Active;
use crate::numbers::NumberMap;

/// Says in a conflict what is known here of the holder. The name is a client's: it is quoted, cut.
pub(crate) fn name_holder(
    active: &NumberMap<TxNumber, Active>,
    log_id: LogId,
    now: Millis,
    answer: &mut BranchAnswer,
) {
    let BranchAnswer::Prepared(Call::Refused(refusal)) = answer else { return };
    let Some(holder) = &refusal.holder else { return };
    let known = about(active, log_id, now, holder);
    let _ = write!(refusal.detail, "; that transaction {known}");
}

fn about(
    active: &NumberMap<TxNumber, Active>,
    log_id: LogId,
    now: Millis,
    holder: &Holder,
) -> String {
    let Holder { txid, .. } = holder;
    if txid.log_id != log_id {
        let theirs = txid.log_id;
        return format!(
            "is of another coordinator, with log id {theirs}: its name is not known here"
        );
    }
    let Some(active) = active.get(&txid.number) else {
        // It has ended, or a restart has cut it short before anything of it was logged.
        return "is not known to this coordinator any more: the participant holds the key until it \
                has learned the outcome; see `assent branch list --participant URL`"
            .to_owned();
    };
    let identity = &active.accepted.identity;
    let age_ms = now.since(identity.created_at);
    let age = format!("began {}.{} s ago", age_ms / 1_000, age_ms % 1_000 / 100);
    match &identity.name {
        Some(name) => format!("is named {:?} and {age}", text::cut(name, limits::NAME_BYTES_MAX)),
        None => format!("has no name and {age}"),
    }
}
