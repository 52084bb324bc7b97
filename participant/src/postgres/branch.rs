//! A prepare: the statements of a branch, from `BEGIN` to `PREPARE TRANSACTION`.
//!
//! ```text
//! BEGIN; insert the marker ─┬─ the ops, one by one ────────────┬─ still the same transaction?
//!                           └─ is it below the mark? (own way) ┘       └─ vote ── PREPARE
//! ```
//!
//! Up to the last statement nothing is kept: every failure is a definite no, and the transaction is
//! rolled back, at the latest when its connection is closed. Only the last one can be *unknown*.

use std::time::{Duration, Instant};

use assent_client::crash;
use assent_common::crash::CrashPoint;
use assent_common::ids::Txid;
use assent_common::outcome::{Call, Done, Failed, Prepared, Refusal, Vote, Written};
use assent_common::participant::Heard;
use assent_common::sql::{SqlBranch, SqlOp};
use assent_common::wire::branch::Mode;
use assent_common::{Epoch, ErrorCode, TxNumber, limits};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::blocked::RunningBranch;
use super::connection::PoolSession;
use super::data::{column, number};
use super::database::Database;
use super::door::DatabaseDoor;
use super::kept::{KeptInDatabase, gid, kept};
use super::mutants;
use super::said::{failed, is_answer, refusal};
use super::statement::run;
use crate::store::CheckedPrepare;

/// How much longer a branch may take than its statements.
const GRACE: Duration = Duration::from_millis(500);

/// A prepare of statements.
pub(crate) type SqlPrepare = CheckedPrepare<SqlBranch>;

/// What came of a branch before its last statement.
enum Stopped {
    /// A definite no.
    No(Refusal),
    /// Another copy of the same message came first: what is kept says what became of it.
    ComesAgain,
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        Self::No(refusal)
    }
}

/// A number for a vote, on this data.
#[derive(Debug, Clone, Copy)]
pub(super) struct VoteNumber {
    pub(super) incarnation: u64,
    pub(super) seq: u64,
}

/// Prepares one branch, or does it in one phase.
pub(super) async fn prepare_branch(
    database: &Database,
    txid: Txid,
    coordinator: &str,
    prepare: &SqlPrepare,
    slot: VoteNumber,
) -> Call<Prepared> {
    let session = match database.connections.session().await {
        Ok(session) => session,
        Err(error) => return Call::Refused(error.refusal()),
    };
    if let Some(no) = &prepare.if_new {
        return refuse_if_new(database, txid, prepare.mode, no).await;
    }
    // Longer than one statement may take, so that the server's own no names the op.
    let time = Duration::from_millis(database.options.branch_timeout_ms) + GRACE;
    let staged = tokio::time::timeout(time, stage(database, &session, txid, prepare)).await;
    let replies = match staged {
        Ok(Ok(replies)) => replies,
        Ok(Err(Stopped::No(refusal))) => {
            roll_back(database, session).await;
            return Call::Refused(refusal);
        }
        Ok(Err(Stopped::ComesAgain)) => {
            roll_back(database, session).await;
            return comes_again(database, txid, prepare.mode).await;
        }
        Err(_) => {
            cancel(&session);
            let detail = format!("the branch took longer than {} ms", time.as_millis());
            return Call::Refused(Refusal::new(ErrorCode::TooMuchWork, detail));
        }
    };
    crash::point(CrashPoint::AfterSqlStatements);
    let vote = Vote {
        replies: replies.into(),
        redo: redo(&prepare.branch).into(),
        incarnation: slot.incarnation,
        seq: slot.seq,
    };
    let began = database.flushes.now();
    let called = match prepare.mode {
        Mode::TwoPhase => send_prepare(database, &session, txid, coordinator, prepare, &vote).await,
        Mode::OnePhase => send_commit(&session, txid, coordinator, prepare, &vote).await,
    };
    match mutants::called(called) {
        Ok(()) => {
            crash::point(CrashPoint::AfterSqlPrepared);
            session.give_back();
            database.flushes.done(began);
            database.identity.saw(slot.incarnation, slot.seq, 0);
            Call::Applied(match prepare.mode {
                Mode::TwoPhase => Prepared::Yes(vote),
                Mode::OnePhase => Prepared::Committed(done(vote)),
            })
        }
        Err(failed) => {
            // An error of the last statement has rolled back, and closing does.
            drop(session);
            failed.into()
        }
    }
}

/// From `BEGIN` to the last op: the replies.
async fn stage(
    database: &Database,
    session: &PoolSession,
    txid: Txid,
    prepare: &SqlPrepare,
) -> Result<String, Stopped> {
    let client = session.client();
    let began = begin(database, client, txid, !prepare.branches.is_empty()).await?;
    crash::point(CrashPoint::AfterSqlMarker);
    let running = RunningBranch::new(database, began.pid, txid, prepare.id);
    let most = Duration::from_millis(database.options.branch_timeout_ms);
    let ops = run_all(client, &running, most, prepare.branch.ops());
    // One of them fails first, and the other is of no use then.
    let (replies, ()) =
        tokio::try_join!(async { ops.await.map_err(Stopped::No) }, may_begin(database, txid))?;
    let now = "SELECT pg_current_xact_id_if_assigned()::text";
    let row = client.query_typed_one(now, &[]).await.map_err(|error| refusal(&error))?;
    if row.get::<_, Option<String>>(0).as_deref() != Some(&*began.xid) {
        let detail = "a statement of the branch has ended the transaction";
        return Err(Refusal::new(ErrorCode::UnsupportedCommand, detail).into());
    }
    Ok(replies)
}

/// A transaction of PostgreSQL, and the process of its session.
struct BegunTransaction {
    xid: String,
    pid: i32,
}

/// Opens the transaction, and inserts the marker of its branch.
async fn begin(
    database: &Database,
    client: &Client,
    txid: Txid,
    implicit: bool,
) -> Result<BegunTransaction, Stopped> {
    let Txid { log_id, number: TxNumber { epoch: Epoch(epoch), n }, .. } = txid;
    let (marker, in_the_way) = (mutants::marker(txid), mutants::in_the_way());
    // All of it is ours, and in letters that need no quoting.
    let begin = format!(
        "BEGIN ISOLATION LEVEL {}; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}; \
         INSERT INTO assent.markers (txid, log_id, epoch, n, fence, implicit) \
         VALUES ('{marker}', '{log_id}', {epoch}, {n}, false, {implicit}) {in_the_way} \
         RETURNING pg_current_xact_id()::text, pg_backend_pid()",
        database.options.isolation.sql(),
        limits::SQL_LOCK_WAIT_MS,
        database.options.branch_timeout_ms,
    );
    let said = client.simple_query(&begin).await.map_err(|error| match error.code() {
        Some(&SqlState::UNIQUE_VIOLATION | &SqlState::LOCK_NOT_AVAILABLE) => Stopped::ComesAgain,
        _ => Stopped::No(refusal(&error)),
    })?;
    let begun = said.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some(BegunTransaction { xid: row.get(0)?.to_owned(), pid: row.get(1)?.parse().ok()? })
        }
        _ => None,
    });
    let detail = "PostgreSQL gave the transaction no id";
    begun.ok_or_else(|| Refusal::new(ErrorCode::PostgresUnavailable, detail).into())
}

/// Whether a prepare may be new. Asked by another connection, once the marker is inserted: if a
/// fence or a marker of it was swept before that, the mark that let it go was raised before.
async fn may_begin(database: &Database, txid: Txid) -> Result<(), Stopped> {
    const HEARD: &str = "SELECT l.epoch, l.low_epoch, l.low_n, d.fenced \
         FROM assent.data d LEFT JOIN assent.logs l ON l.log_id = $1";
    let client = database.own().await.map_err(|error| error.refusal())?;
    let log_id = txid.log_id.to_string();
    let param: [(&(dyn ToSql + Sync), Type); 1] = [(&log_id, Type::TEXT)];
    let row = database.connections.within(client.query_typed_one(HEARD, &param)).await;
    let row = row.map_err(|error| error.refusal())?;
    if let Some(why) = row.get::<_, Option<String>>(3) {
        return Err(Refusal::new(ErrorCode::Quarantined, why).into());
    }
    if row.get::<_, Option<i64>>(0).is_none() {
        return Ok(());
    }
    let low_water = TxNumber { epoch: Epoch(number(&row, 1)), n: number(&row, 2) };
    let heard = Heard { epoch: Epoch(number(&row, 0)), low_water };
    let no = if txid.number.epoch < heard.epoch {
        let detail = format!("epoch {} of this coordinator has spoken already", heard.epoch);
        Refusal::new(ErrorCode::StaleEpoch, detail)
    } else if heard.has_passed(txid) {
        let detail = "the transaction is below its coordinator's low-water mark";
        Refusal::new(ErrorCode::BelowLowWater, detail)
    } else {
        return Ok(());
    };
    if mutants::minds(&no) { Err(no.into()) } else { Ok(()) }
}

/// Keeps the vote, and prepares. The vote's row is on disk before the prepare is.
async fn send_prepare(
    database: &Database,
    session: &PoolSession,
    txid: Txid,
    coordinator: &str,
    prepare: &SqlPrepare,
    vote: &Vote,
) -> Result<(), Failed> {
    if mutants::keeps_votes() {
        let own = database.own().await.map_err(|error| Failed::Refused(error.refusal()))?;
        let kept = database.connections.within(keep_vote(&own, txid, coordinator, prepare, vote));
        kept.await.map_err(|error| Failed::Refused(error.refusal()))?;
    }
    crash::point(CrashPoint::BeforeSqlPrepared);
    let prepare = format!("PREPARE TRANSACTION '{}'", gid(database, txid));
    session.client().batch_execute(&prepare).await.map_err(|error| at_limit(database, &error))
}

/// Keeps what it came to in the branch's own transaction, and commits.
async fn send_commit(
    session: &PoolSession,
    txid: Txid,
    coordinator: &str,
    prepare: &SqlPrepare,
    vote: &Vote,
) -> Result<(), Failed> {
    let client = session.client();
    let kept = keep_vote(client, txid, coordinator, prepare, vote).await;
    kept.map_err(|error| Failed::Refused(refusal(&error)))?;
    crash::point(CrashPoint::BeforeSqlCommit);
    client.batch_execute("COMMIT").await.map_err(|error| failed(&error))
}

/// What came of a prepare that was sent; where there is no room for more, with what to do.
fn at_limit(database: &Database, error: &tokio_postgres::Error) -> Failed {
    let is_full = is_answer(error).is_some_and(|said| *said.code() == SqlState::OUT_OF_MEMORY);
    if !is_full {
        return failed(error);
    }
    let detail = format!(
        "PostgreSQL has as many prepared transactions as it may ({}): raise \
         max_prepared_transactions, or look for some that nobody ends (pg_prepared_xacts)",
        database.prepared_max()
    );
    Failed::Refused(Refusal::new(ErrorCode::Overloaded, detail))
}

/// The answer to a prepare whose marker is there, or under way.
async fn comes_again(database: &Database, txid: Txid, mode: Mode) -> Call<Prepared> {
    let incarnation = database.identity.incarnation();
    match kept(database, txid).await {
        Ok(KeptInDatabase::Prepared(Some(kept))) => {
            Call::Applied(Prepared::Yes(kept.vote(incarnation)))
        }
        Ok(KeptInDatabase::Applied(Some(kept))) if mode == Mode::OnePhase && kept.one_phase => {
            Call::Applied(Prepared::Committed(kept.done(incarnation)))
        }
        Ok(KeptInDatabase::Applied(_)) => {
            Call::Refused(Refusal::new(ErrorCode::WrongState, "the branch is applied"))
        }
        Ok(KeptInDatabase::Fenced) => {
            let detail = "the branch was aborted here before";
            Call::Refused(Refusal::new(ErrorCode::Fenced, detail))
        }
        Ok(KeptInDatabase::Prepared(None)) => {
            Call::Unknown("the branch is prepared, and its vote was deleted".to_owned())
        }
        // Its marker was in the way: it is under way, or was a moment ago.
        Ok(KeptInDatabase::Nothing) => {
            Call::Unknown("another copy of this prepare is under way".to_owned())
        }
        Err(error) => Call::Unknown(error.to_string()),
    }
}

/// The no of a prepare that is not to begin; what is kept of the branch answers for it.
async fn refuse_if_new(
    database: &Database,
    txid: Txid,
    mode: Mode,
    no: &Refusal,
) -> Call<Prepared> {
    match kept(database, txid).await {
        Ok(KeptInDatabase::Nothing) => Call::Refused(no.clone()),
        Ok(_) => comes_again(database, txid, mode).await,
        Err(error) => Call::Refused(error.refusal()),
    }
}

/// Ends a transaction of which nothing is to stay.
async fn roll_back(database: &Database, session: PoolSession) {
    let rolled_back = session.client().batch_execute("ROLLBACK");
    if database.connections.within(rolled_back).await.is_ok() {
        session.give_back();
    }
}

/// Has the server stop what runs; that it is rolled back does not depend on it.
fn cancel(session: &PoolSession) {
    let token = session.client().cancel_token();
    tokio::spawn(DatabaseDoor::cancel(token));
}

fn done(Vote { replies, redo, incarnation, seq }: Vote) -> Done {
    Done { replies, written: Some(Written { redo, incarnation, seq }) }
}

/// The statements, as the log keeps them for who has to make a loss good. Never empty: a branch
/// that only reads is told its outcome like any other.
fn redo(branch: &SqlBranch) -> Vec<u8> {
    // Statements that were parsed are written again.
    serde_json::to_vec(branch.ops()).unwrap_or_else(|_| b"[]".to_vec())
}

/// Runs the ops one after the other: their replies, as a JSON array.
async fn run_all(
    client: &Client,
    running: &RunningBranch<'_>,
    most: Duration,
    ops: &[SqlOp],
) -> Result<String, Refusal> {
    let mut replies = String::from("[");
    for (op, place) in ops.iter().zip(0..) {
        if place > 0 {
            replies.push(',');
        }
        let began = Instant::now();
        let came = running.watch(run(client, op)).await;
        let reply = came.map_err(|refusal| match refusal.code {
            ErrorCode::TooMuchWork if began.elapsed() < most => cancelled(refusal).at_op(place),
            _ => refusal.at_op(place),
        })?;
        replies.push_str(&reply);
        if replies.len() > limits::REPLY_BYTES_MAX {
            let detail = format!("the branch replies more than {} bytes", limits::REPLY_BYTES_MAX);
            return Err(Refusal::new(ErrorCode::ReplyTooLarge, detail).at_op(place));
        }
    }
    replies.push(']');
    Ok(replies)
}

/// The no of a statement that was ended before its time.
fn cancelled(refusal: Refusal) -> Refusal {
    let detail = format!("somebody has cancelled the statement. {}", refusal.detail);
    Refusal { code: ErrorCode::PostgresUnavailable, detail, ..refusal }
}

/// Writes the row of a vote. One of an earlier try, which was not prepared, says nothing.
async fn keep_vote(
    client: &Client,
    txid: Txid,
    coordinator: &str,
    prepare: &SqlPrepare,
    vote: &Vote,
) -> Result<(), tokio_postgres::Error> {
    const KEEP: &str = "INSERT INTO assent.votes \
         (txid, log_id, epoch, n, id, coordinator, one_phase, seq, replies, redo, branches) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT (txid) DO UPDATE SET id = excluded.id, coordinator = excluded.coordinator, \
         one_phase = excluded.one_phase, seq = excluded.seq, replies = excluded.replies, \
         redo = excluded.redo, branches = excluded.branches";
    let Txid { log_id, number: TxNumber { epoch: Epoch(epoch), n }, .. } = txid;
    let (txid, log_id, id) = (txid.to_string(), log_id.to_string(), prepare.id.to_string());
    let (epoch, n, seq) = (column(epoch), column(n), column(vote.seq));
    let one_phase = prepare.mode == Mode::OnePhase;
    let branches = (!prepare.branches.is_empty())
        .then(|| serde_json::to_string(&*prepare.branches).unwrap_or_default());
    let (replies, redo) = (&*vote.replies, &*vote.redo);
    let params: [(&(dyn ToSql + Sync), Type); 11] = [
        (&txid, Type::TEXT),
        (&log_id, Type::TEXT),
        (&epoch, Type::INT8),
        (&n, Type::INT8),
        (&id, Type::TEXT),
        (&coordinator, Type::TEXT),
        (&one_phase, Type::BOOL),
        (&seq, Type::INT8),
        (&replies, Type::TEXT),
        (&redo, Type::BYTEA),
        (&branches, Type::TEXT),
    ];
    client.query_typed(KEEP, &params).await.map(drop)
}
