//! Commit, abort and settle: what ends a prepared transaction, and the fence where there is none.

use assent_client::crash;
use assent_common::branch::{BranchAnswer, Ending};
use assent_common::crash::CrashPoint;
use assent_common::ids::Txid;
use assent_common::outcome::{Aborted, Applied, Call, Failed, Refusal, Settled};
use assent_common::{Epoch, ErrorCode, TxNumber, limits};
use tokio_postgres::error::SqlState;

use super::database::Database;
use super::kept::{KeptInDatabase, gid, kept};
use super::mutants;
use super::said::{failed, is_answer};

/// How often an abort follows a prepare that comes in between.
const FENCE_TRIES_MAX: usize = 4;

/// What came of ending a prepared transaction.
enum Finished {
    Yes,
    /// There is none.
    NotThere,
}

/// Ends one branch.
pub(super) async fn end_branch(database: &Database, txid: Txid, ending: Ending) -> BranchAnswer {
    match ending {
        Ending::Commit => BranchAnswer::Applied(commit(database, txid).await),
        Ending::Abort => BranchAnswer::Aborted(abort(database, txid).await),
        Ending::Settle => BranchAnswer::Settled(settle(database, txid).await),
        Ending::Prepare(never) => match never {},
    }
}

async fn commit(database: &Database, txid: Txid) -> Call<Applied> {
    crash::point(CrashPoint::BeforeSqlFinished);
    match finish(database, "COMMIT PREPARED", txid).await {
        Ok(Finished::Yes) => {
            crash::point(CrashPoint::AfterSqlFinished);
            return Call::Applied(Applied { dirty_writes: 0 });
        }
        Ok(Finished::NotThere) => {}
        Err(failed) => return failed.into(),
    }
    match kept(database, txid).await {
        Ok(KeptInDatabase::Applied(_)) => Call::Applied(Applied { dirty_writes: 0 }),
        Ok(KeptInDatabase::Fenced) => {
            let detail = "the branch was aborted here before";
            Call::Refused(Refusal::new(ErrorCode::Fenced, detail))
        }
        // It was not a moment ago.
        Ok(KeptInDatabase::Prepared(_)) => {
            Call::Unknown("the branch was prepared just now".to_owned())
        }
        Ok(KeptInDatabase::Nothing) => forgotten(database, txid).await,
        Err(error) => Call::Unknown(error.to_string()),
    }
}

/// What a commit is told of a branch that nothing is kept of: a late duplicate, or a loss;
/// never that it is applied.
async fn forgotten(database: &Database, txid: Txid) -> Call<Applied> {
    match database.heard(txid.log_id).await {
        Ok(heard) if heard.is_some_and(|heard| heard.has_passed(txid)) => {
            let detail = "the transaction is below its coordinator's low-water mark";
            Call::Refused(Refusal::new(ErrorCode::BelowLowWater, detail))
        }
        Ok(_) if mutants::believes_commits() => Call::Applied(Applied { dirty_writes: 0 }),
        Ok(_) => {
            let detail = "nothing is known of this branch here";
            Call::Refused(Refusal::new(ErrorCode::BranchLost, detail))
        }
        Err(error) => Call::Unknown(error.to_string()),
    }
}

async fn abort(database: &Database, txid: Txid) -> Call<Aborted> {
    for _ in 0..FENCE_TRIES_MAX {
        match finish(database, "ROLLBACK PREPARED", txid).await {
            Ok(Finished::Yes | Finished::NotThere) => {}
            Err(failed) => return failed.into(),
        }
        crash::point(CrashPoint::BeforeSqlFence);
        match insert_fence(database, txid).await {
            Ok(Some(true)) => {
                crash::point(CrashPoint::AfterSqlFence);
                return Call::Applied(Aborted::Fenced);
            }
            Ok(Some(false)) => return aborted_before(database, txid).await,
            // A prepare of it is under way, or has come through: it is ended next.
            Ok(None) => {}
            Err(failed) => return failed.into(),
        }
    }
    Call::Unknown("a prepare of this branch is under way".to_owned())
}

/// The answer to an abort where there is a row.
async fn aborted_before(database: &Database, txid: Txid) -> Call<Aborted> {
    match kept(database, txid).await {
        Ok(KeptInDatabase::Fenced) => Call::Applied(Aborted::Fenced),
        Ok(KeptInDatabase::Applied(kept)) => {
            let incarnation = database.identity.incarnation();
            let kept = kept.filter(|kept| kept.one_phase);
            let done = kept.map_or_else(|| "[]".into(), |kept| kept.done(incarnation));
            Call::Applied(Aborted::AlreadyCommitted(done))
        }
        Ok(KeptInDatabase::Prepared(_)) => {
            Call::Unknown("the branch was prepared just now".to_owned())
        }
        Ok(KeptInDatabase::Nothing) => Call::Unknown("its mark was swept just now".to_owned()),
        Err(error) => Call::Unknown(error.to_string()),
    }
}

async fn settle(database: &Database, txid: Txid) -> Call<Settled> {
    for _ in 0..FENCE_TRIES_MAX {
        match kept(database, txid).await {
            Ok(KeptInDatabase::Prepared(_)) => return Call::Applied(Settled::Prepared),
            Ok(KeptInDatabase::Applied(_)) => return Call::Applied(Settled::Applied),
            Ok(KeptInDatabase::Fenced) => return Call::Applied(Settled::Fenced),
            Ok(KeptInDatabase::Nothing) => {}
            Err(error) => return Call::Unknown(error.to_string()),
        }
        match insert_fence(database, txid).await {
            Ok(Some(true)) => return Call::Applied(Settled::Fenced),
            Ok(Some(false) | None) => {}
            Err(failed) => return failed.into(),
        }
    }
    Call::Unknown("a prepare of this branch is under way".to_owned())
}

/// Ends a prepared transaction, durably.
async fn finish(database: &Database, how: &str, txid: Txid) -> Result<Finished, Failed> {
    let session = database.connections.session().await.map_err(|error| error.unknown())?;
    let finish = format!("{how} '{}'", gid(database, txid));
    let time = database.options.call_timeout;
    let began = database.flushes.now();
    let finished = tokio::time::timeout(time, session.client().batch_execute(&finish)).await;
    match finished {
        Ok(Ok(())) => {
            session.give_back();
            database.flushes.done(began);
            Ok(Finished::Yes)
        }
        Ok(Err(error)) => match is_answer(&error).map(|said| said.code().clone()) {
            Some(SqlState::UNDEFINED_OBJECT) => {
                session.give_back();
                Ok(Finished::NotThere)
            }
            // Somebody else is at it.
            Some(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => {
                session.give_back();
                Err(Failed::Unknown("another agent ends this branch just now".to_owned()))
            }
            _ => Err(failed(&error)),
        },
        Err(_) => Err(Failed::Unknown(format!("no answer within {time:?}"))),
    }
}

/// Inserts a fence, durably: whether it did, and nothing if something with the same name is
/// under way.
async fn insert_fence(database: &Database, txid: Txid) -> Result<Option<bool>, Failed> {
    if !mutants::leaves_fences() {
        return Ok(Some(true));
    }
    let Txid { log_id, number: TxNumber { epoch: Epoch(epoch), n }, .. } = txid;
    let session = database.connections.session().await.map_err(|error| error.unknown())?;
    // Below the mark, the mark keeps a late prepare out.
    let fence = format!(
        "SET lock_timeout = {}; INSERT INTO assent.markers (txid, log_id, epoch, n, fence) \
         VALUES ('{txid}', '{log_id}', {epoch}, {n}, true) \
         ON CONFLICT DO NOTHING RETURNING txid",
        limits::SQL_LOCK_WAIT_MS,
    );
    let time = database.options.call_timeout;
    let began = database.flushes.now();
    let inserted = tokio::time::timeout(time, session.client().simple_query(&fence)).await;
    match inserted {
        Ok(Ok(said)) => {
            session.give_back();
            let is_row = |it: &_| matches!(it, tokio_postgres::SimpleQueryMessage::Row(_));
            let is_new = said.iter().any(is_row);
            if is_new {
                database.flushes.done(began);
            }
            Ok(Some(is_new))
        }
        Ok(Err(error)) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            session.give_back();
            Ok(None)
        }
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(Failed::Unknown(format!("no answer within {time:?}"))),
    }
}
