//! A batch of messages: outcomes first, so that locks are freed for the prepares; those of each
//! kind at the same time, as far as there are connections, but those of one branch in their order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use assent_common::branch::{BranchAnswer, BranchMessage, Ending};
use assent_common::ids::{TxNumber, Txid};
use assent_common::outcome::{Call, Prepared, Refusal};
use assent_common::wire::branch::CoordinatorRef;
use assent_common::{Epoch, ErrorCode, limits};
use futures_util::stream::{self, StreamExt as _};
use tokio_postgres::types::{ToSql, Type};

use super::branch::{SqlPrepare, VoteNumber, prepare_branch};
use super::data::{column, number};
use super::database::Database;
use super::ending::end_branch;
use crate::store::StoreError;

/// What is heard of a log, and the numbers that a batch takes.
const BEGIN: &str = "WITH heard AS (\
     INSERT INTO assent.logs AS l (log_id, epoch, low_epoch, low_n, told) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (log_id) DO UPDATE SET \
     epoch = greatest(l.epoch, excluded.epoch), \
     low_epoch = CASE WHEN (excluded.low_epoch, excluded.low_n) > (l.low_epoch, l.low_n) \
         THEN excluded.low_epoch ELSE l.low_epoch END, \
     low_n = CASE WHEN (excluded.low_epoch, excluded.low_n) > (l.low_epoch, l.low_n) \
         THEN excluded.low_n ELSE l.low_n END, \
     told = CASE WHEN coalesce(nullif(split_part(excluded.told, ' ', 1), '')::numeric, -1) \
         > coalesce(nullif(split_part(l.told, ' ', 1), '')::numeric, -1) \
         THEN excluded.told ELSE l.told END) \
     UPDATE assent.data SET seq = seq + $6, ended = ended + $7 \
     RETURNING incarnation, seq, ended, fenced";

/// Why a prepare of a batch was not begun: the coordinator asks for it again.
const ANSWERS_ARE_FULL: &str =
    "the replies of the branches before it fill the answer to this batch";

/// A batch that has begun.
struct BegunBatch {
    incarnation: u64,
    /// The number before that of its first vote.
    seq: u64,
    ended: u64,
    fenced: Option<String>,
}

/// Runs a batch of messages. The answers are in the order of the messages.
pub(crate) async fn execute(
    database: &Database,
    coordinator: &CoordinatorRef,
    low_water: TxNumber,
    messages: Vec<(Txid, BranchMessage<SqlPrepare>)>,
) -> Vec<BranchAnswer> {
    let prepares = messages.iter().filter(|(_, message)| message.is_prepare()).count();
    let begun = begin_batch(database, coordinator, low_water, prepares, messages.len()).await;
    let refused = |refusal: Refusal| {
        messages.iter().map(|(_, message)| message.refused(refusal.clone())).collect()
    };
    let BegunBatch { incarnation, seq, ended, fenced } = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let failed = |message: &BranchMessage<_>| match message.is_prepare() {
                true => message.refused(error.refusal()),
                false => message.unknown(error.to_string()),
            };
            return messages.iter().map(|(_, message)| failed(message)).collect();
        }
    };
    if let Some(why) = fenced {
        return refused(Refusal::new(ErrorCode::Quarantined, why));
    }
    let written = database.flushes.now();
    let mut answers: Vec<Option<BranchAnswer>> = messages.iter().map(|_| None).collect();
    let (endings, later) = sort(messages);
    let at_once = database.options.connections_max;
    let ends = stream::iter(endings).map(async |(txid, endings)| {
        let mut ended = Vec::with_capacity(endings.len());
        for (place, ending) in endings {
            ended.push((place, end_branch(database, txid, ending).await));
        }
        ended
    });
    let mut ends = std::pin::pin!(ends.buffer_unordered(at_once));
    while let Some(ended) = ends.next().await {
        for (place, answer) in ended {
            answers[place] = Some(answer);
        }
    }
    let replied = AtomicUsize::new(0);
    let votes = stream::iter(later.into_iter().zip(seq + 1..)).map(
        async |((place, txid, prepare), seq)| {
            if replied.load(Ordering::Relaxed) > limits::BATCH_REPLIES_BYTES_MAX {
                return (place, Call::Unknown(ANSWERS_ARE_FULL.to_owned()));
            }
            let number = VoteNumber { incarnation, seq };
            let call = prepare_branch(database, txid, &coordinator.url, &prepare, number).await;
            replied.fetch_add(bytes(&call), Ordering::Relaxed);
            (place, call)
        },
    );
    let mut votes = std::pin::pin!(votes.buffer_unordered(at_once));
    while let Some((place, call)) = votes.next().await {
        answers[place] = Some(BranchAnswer::Prepared(call));
    }
    // The count was written before whatever has reached the disk since.
    if database.flushes.cover(written) {
        database.identity.saw(incarnation, 0, ended);
    }
    // Each message has been of one of the two kinds.
    answers.into_iter().flatten().collect()
}

/// The outcomes of each branch in their order, each with its place among the messages.
type Endings = BTreeMap<Txid, Vec<(usize, Ending)>>;

/// The outcomes and the prepares.
fn sort(
    messages: Vec<(Txid, BranchMessage<SqlPrepare>)>,
) -> (Endings, Vec<(usize, Txid, SqlPrepare)>) {
    let (mut endings, mut prepares) = (Endings::new(), Vec::new());
    for (place, (txid, message)) in messages.into_iter().enumerate() {
        let ending = match message {
            BranchMessage::Prepare(prepare) => {
                prepares.push((place, txid, prepare));
                continue;
            }
            BranchMessage::Commit => Ending::Commit,
            BranchMessage::Abort => Ending::Abort,
            BranchMessage::Settle => Ending::Settle,
        };
        endings.entry(txid).or_default().push((place, ending));
    }
    (endings, prepares)
}

async fn begin_batch(
    database: &Database,
    coordinator: &CoordinatorRef,
    low_water: TxNumber,
    prepares: usize,
    messages: usize,
) -> Result<BegunBatch, StoreError> {
    let client = database.own().await?;
    let CoordinatorRef { log_id, epoch: Epoch(epoch), .. } = coordinator;
    let TxNumber { epoch: Epoch(low_epoch), n: low_n } = low_water;
    let ends = messages - prepares;
    let told = if ends > 0 { database.lives.told_text(*log_id) } else { String::new() };
    let log_id = log_id.to_string();
    let (epoch, low_epoch, low_n) = (column(*epoch), column(low_epoch), column(low_n));
    let (votes, ends) = (column(prepares as u64), column(ends as u64));
    let params: [(&(dyn ToSql + Sync), Type); 7] = [
        (&log_id, Type::TEXT),
        (&epoch, Type::INT8),
        (&low_epoch, Type::INT8),
        (&low_n, Type::INT8),
        (&told, Type::TEXT),
        (&votes, Type::INT8),
        (&ends, Type::INT8),
    ];
    let row = database.connections.within(client.query_typed_one(BEGIN, &params)).await?;
    let seq = number(&row, 1).saturating_sub(prepares as u64);
    let (incarnation, ended) = (number(&row, 0), number(&row, 2));
    Ok(BegunBatch { incarnation, seq, ended, fenced: row.get(3) })
}

/// Bytes of the replies and statements of an answer.
fn bytes(call: &Call<Prepared>) -> usize {
    match call {
        Call::Applied(Prepared::Yes(vote)) => vote.replies.len() + vote.redo.len(),
        Call::Applied(Prepared::Committed(done)) => {
            done.replies.len() + done.written.as_ref().map_or(0, |written| written.redo.len())
        }
        _ => 0,
    }
}
