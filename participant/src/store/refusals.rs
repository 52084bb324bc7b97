//! The noes to a prepare that none of its ops is to blame for.
//!
//! What is kept of a branch answers for it, also when its prepare comes again because its yes was
//! lost. So whatever speaks against a branch only now (somebody older waits, the settings have
//! become worse) is a no to one of which nothing is kept, and to no other.

use std::collections::BTreeSet;

use assent_common::code::ErrorCode;
use assent_common::command::ValidatedOp;
use assent_common::ids::{TxNumber, Txid};
use assent_common::outcome::Refusal;
use assent_common::value::{Arg, readable};

use redis::{Pipeline, RedisResult, Value};

use super::connection::Connection;
use super::work::{PrepareItem, Sorted, Speaker};
use super::{call, mutants, rights};

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

/// New branches are refused of which a word is larger than the server takes; and those of
/// implicit transactions where votes may be lost, because no log has the decision beside them.
pub(super) fn weigh(sorted: &mut Sorted, connection: &Connection) {
    if let Some(most) = connection.server.request_bytes_max {
        for item in &mut sorted.prepares {
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
    let violations = &connection.violations;
    if !mutants::minds_for_decisions(violations) {
        return;
    }
    for item in sorted.prepares.iter_mut().filter(|item| !item.prepare.branches.is_empty()) {
        let refusal = Refusal::new(ErrorCode::NotDurable, violations.join("; "));
        item.prepare.if_new = Some(Box::new(refusal));
    }
}

/// Keys that a refusal names.
const KEYS_NAMED_MAX: usize = 5;

/// Keys that are asked for at once.
const KEYS_AT_ONCE: usize = 512;

/// Which of these keys the agent's user may not both read and write, as Redis says to a script that
/// does nothing with them.
pub(super) async fn denied(
    connection: &Connection,
    keys: impl Iterator<Item = &Arg>,
) -> RedisResult<BTreeSet<Arg>> {
    let keys: Vec<&Arg> = keys.collect();
    let mut denied = BTreeSet::new();
    for keys in keys.chunks(KEYS_AT_ONCE) {
        let mut pipeline = Pipeline::with_capacity(keys.len());
        for key in keys {
            pipeline.cmd("EVAL").arg("return 1").arg(1).arg(key.0.as_slice());
        }
        let said = connection.send_all(&pipeline).await?;
        let is_denied = |said: &Value| match said {
            Value::ServerError(error) => error.code() == "NOPERM",
            _ => false,
        };
        let of_them = keys.iter().zip(&said).filter(|(_, said)| is_denied(said));
        denied.extend(of_them.map(|(key, _)| Arg::clone(key)));
    }
    Ok(denied)
}

/// A refusal of a branch for these keys. Redis says of a script only that there is one.
pub(super) fn of_keys<'a>(
    connection: &Connection,
    keys: impl Iterator<Item = &'a Arg>,
    ops: Option<&[ValidatedOp]>,
    said: &str,
) -> Refusal {
    let keys: Vec<&Arg> = keys.collect();
    let uses = |key: &Arg| ops.and_then(|ops| ops.iter().find(|op| op.args.contains(key)));
    let named = keys.iter().take(KEYS_NAMED_MAX).map(|key| match uses(key) {
        Some(op) => format!("{} (for {})", readable(&key.0), op.command.name),
        None => readable(&key.0),
    });
    let named = named.collect::<Vec<_>>().join(", ");
    let more = keys.len().saturating_sub(KEYS_NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let user = rights::quoted(connection.server.user());
    let detail = format!(
        "the agent's user {user} may not read and write {named}{more}: {said}; allow it with \
         redis-cli ACL SETUSER {user} '~PATTERN'"
    );
    Refusal::new(ErrorCode::RedisNoPermission, detail)
}

fn keys_of(item: &PrepareItem) -> impl Iterator<Item = &Arg> {
    item.prepare.branch.locks.iter().map(|lock| &lock.key)
}

/// What is said to the branches of a call of which Redis says that there is a key that the
/// agent's user may not touch: those that have one are refused, the others are for the next
/// call. Nothing if there is no such key.
pub(super) async fn without_denied(
    connection: &Connection,
    items: &[PrepareItem],
    said: &str,
) -> Option<Value> {
    let keys: BTreeSet<&Arg> = items.iter().flat_map(keys_of).collect();
    let denied = denied(connection, keys.into_iter()).await.ok().filter(|keys| !keys.is_empty())?;
    let text = |text: String| Value::BulkString(text.into_bytes());
    let rows = items.iter().map(|item| {
        let mut keys = keys_of(item).filter(|key| denied.contains(*key)).peekable();
        if keys.peek().is_none() {
            return Value::Array(vec![text("z".to_owned())]);
        }
        let ops = Some(&*item.prepare.branch.ops);
        let Refusal { code, detail, .. } = of_keys(connection, keys, ops, said);
        let code = code.to_string();
        Value::Array(vec![text("n".to_owned()), text(code), Value::Int(-1), text(detail)])
    });
    Some(Value::Array(rows.collect()))
}
