//! The ops of branches, evaluated by the script (`lua/evaluate.lua`): what the owner does not
//! evaluate by itself, and every no.
//!
//! The script reads, and keeps nothing. Its calls stand in the pipeline of the round's look, before
//! the `GET` of the owner key that shows whose the Redis was until then.

use assent_common::code::ErrorCode;
use assent_common::command::{OpRequest, Range};
use assent_common::outcome::{Call, Done, Prepared, Refusal};
use assent_common::participant::Claimed;
use assent_common::value::Reply;
use redis::{Pipeline, RedisResult, Value};

use super::super::call;
use super::super::connection::Connection;
use super::super::decode::{self, Row};
use super::super::packed::{Reader, RedoError, Writer, decode_redo};
use super::super::said::unevaluated;
use super::super::scripts::Script;
use super::super::work::PrepareItem;
use super::evaluate::{Star, Yes, estimate, json, packed, push_claimed};

/// Calls of one look. The replies of each may have twice the bytes of a branch's.
const CALLS_MAX: usize = 4;

/// What the script says of a branch.
#[derive(Debug)]
pub(super) enum Evaluated {
    Yes(Yes),
    No(Call<Prepared>),
    /// The call has done enough; it is for the next one.
    Later,
}

/// The calls of a look: the branches of each.
#[derive(Debug, Default)]
pub(super) struct ScriptCalls(pub(super) Vec<Vec<PrepareItem>>);

impl ScriptCalls {
    /// Cuts these branches into calls of bounded work. Returns what is left for the next look.
    pub(super) fn cut(items: Vec<PrepareItem>) -> (Self, Vec<PrepareItem>) {
        let mut calls = call::chunks(items);
        let later = calls.split_off(calls.len().min(CALLS_MAX));
        (Self(calls), later.into_iter().flatten().collect())
    }

    fn scripts(&self) -> impl Iterator<Item = Script> {
        let families = |items: &Vec<PrepareItem>| {
            items.iter().fold(0, |set, item| set | item.prepare.branch.families)
        };
        self.0.iter().map(move |items| Script::Evaluate(families(items)))
    }

    /// The scripts whose digests are not known.
    pub(super) fn unknown(&self, connection: &Connection) -> Vec<Script> {
        self.scripts().filter(|script| connection.digest(*script).is_none()).collect()
    }

    /// The scripts that the server has lost, as it says to the calls.
    pub(super) fn missing(&self, answers: &[Value]) -> Vec<Script> {
        let is_missing = |answer: &Value| match answer {
            Value::ServerError(error) => error.code() == "NOSCRIPT",
            _ => false,
        };
        let calls = self.scripts().zip(answers);
        calls.filter(|(_, answer)| is_missing(answer)).map(|(script, _)| script).collect()
    }

    /// The commands that call them.
    pub(super) fn look(&self, pipeline: &mut Pipeline, connection: &Connection, asks_memory: bool) {
        for (items, script) in self.0.iter().zip(self.scripts()) {
            let digest = connection.digest(script).unwrap_or_default();
            let options = connection.options();
            pipeline.add_command(call::evaluate(&digest, options, items, asks_memory));
        }
    }

    /// The branches, each with its row of the answers to those commands.
    pub(super) fn answered(
        self,
        answers: Vec<Value>,
    ) -> impl Iterator<Item = (PrepareItem, RedisResult<Value>)> {
        self.0.into_iter().zip(answers).flat_map(|(items, answer)| {
            let mut rows = answer.extract_error().map(|answer| match answer {
                Value::Array(rows) => rows.into_iter(),
                _ => Vec::new().into_iter(),
            });
            let mut row = move || match &mut rows {
                Ok(rows) => Ok(rows.next().unwrap_or(Value::Nil)),
                Err(error) => Err(error.clone()),
            };
            items.into_iter().map(move |item| (item, row()))
        })
    }
}

/// What a row says of its branch, whose claims have room in these ranges.
pub(super) fn evaluated(
    row: RedisResult<Value>,
    item: &PrepareItem,
    claims: Vec<Claimed>,
    ranges: &[Range],
) -> Evaluated {
    let row = match row {
        Ok(row) => row,
        Err(error) => return Evaluated::No(unevaluated(&error)),
    };
    let Some(mut row) = Row::new(row) else { return Evaluated::No(decode::unreadable()) };
    let no = match row.tag() {
        b'z' => return Evaluated::Later,
        b'y' => match yes(&mut row, item, claims, ranges) {
            Ok(yes) if yes.has_room() => return Evaluated::Yes(yes),
            Ok(_) => Some(Refusal::new(ErrorCode::TooLarge, "the writes are too large")),
            Err(error) => return Evaluated::No(Call::Unknown(error.to_string())),
        },
        b'n' => {
            place_among_all(&mut row, 2, item);
            decode::no(&mut row, Some(item))
        }
        b'e' => {
            place_among_all(&mut row, 1, item);
            decode::expectation(&mut row, item)
        }
        _ => None,
    };
    Evaluated::No(no.map_or_else(decode::unreadable, Call::Refused))
}

/// What a row says of a branch of which nothing is kept.
pub(in super::super) fn looked_at(row: RedisResult<Value>, item: &PrepareItem) -> Call<Prepared> {
    match evaluated(row, item, Vec::new(), &[]) {
        Evaluated::Yes(yes) => {
            Call::Applied(Prepared::Committed(Done { replies: yes.json.into(), written: None }))
        }
        Evaluated::No(call) => call,
        Evaluated::Later => Call::Unknown("the script has put off what it was asked".to_owned()),
    }
}

/// Puts the place of an op among all ops of the branch where the script has said its place among
/// those that it was sent.
fn place_among_all(row: &mut Row, at: usize, item: &PrepareItem) {
    let sent = row.int(at).and_then(|place| usize::try_from(place).ok());
    let place = sent.and_then(|sent| item.evaluated_ops().nth(sent)).map(|(place, _)| place);
    if let Some(place) = place.and_then(|place| i64::try_from(place).ok()) {
        row.set_int(at, place);
    }
}

fn yes(
    row: &mut Row,
    item: &PrepareItem,
    claims: Vec<Claimed>,
    ranges: &[Range],
) -> Result<Yes, RedoError> {
    const CUT: RedoError = RedoError("a row that is cut");
    let redo = row.take(1).ok_or(CUT)?;
    let replies = row.take(2).ok_or(CUT)?;
    let deletions = row.int(3).and_then(|count| usize::try_from(count).ok()).ok_or(CUT)?;
    let stars = stars(row, item).ok_or(CUT)?;
    if claims.is_empty() {
        let kinds = item.prepare.branch.ops.iter().map(|op| op.reply);
        let json = Reader(&replies).replies(kinds)?;
        return Ok(Yes { packed: replies, json, redo, claims, stars });
    }
    let replies = with_estimates(&replies, item, ranges)?;
    let redo = with_claims(&redo, deletions, &claims)?;
    Ok(Yes { packed: packed(&replies), json: json(&replies), redo, claims, stars })
}

fn stars(row: &Row, item: &PrepareItem) -> Option<Vec<Star>> {
    let places = row.ints(4)?;
    let star = |pair: &[usize]| {
        let (op, _) = item.evaluated_ops().nth(pair[1])?;
        Some(Star { write: pair[0], op })
    };
    places.chunks_exact(2).map(star).collect()
}

/// The replies of all ops: those of the script, and the ranges of those in escrow.
fn with_estimates(
    packed: &[u8],
    item: &PrepareItem,
    ranges: &[Range],
) -> Result<Vec<Reply>, RedoError> {
    let mut reader = Reader(packed);
    let mut left = reader.array()?;
    let ops = item.prepare.branch.ops.iter();
    ops.map(|op| {
        if op.handler == OpRequest::ESCROW_HANDLER {
            return estimate(op, ranges).ok_or(RedoError("a claim is missing"));
        }
        left = left.checked_sub(1).ok_or(RedoError("a reply is missing"))?;
        reader.reply(op.reply)
    })
    .collect()
}

/// The writes of the script, and those of the claims before its deletions.
fn with_claims(redo: &[u8], deletions: usize, claims: &[Claimed]) -> Result<Vec<u8>, RedoError> {
    let writes = decode_redo(redo)?;
    let (before, behind) = writes.split_at(writes.len().saturating_sub(deletions));
    let mut all = Writer::default();
    all.array(writes.len() + claims.len());
    before.iter().for_each(|write| all.words(write));
    claims.iter().for_each(|claimed| push_claimed(&mut all, claimed));
    behind.iter().for_each(|write| all.words(write));
    Ok(all.0)
}
