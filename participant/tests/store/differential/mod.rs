//! The heart of these tests: random ops through prepare and commit, against the same ops as plain commands on a second
//! Redis. Same replies, same data; where a plain command fails, the branch is refused at that op, with the fitting code,
//! and nothing has changed.
//!
//! `PROPTEST_CASES` raises the number of cases.

mod generate;

use std::collections::BTreeSet;

use assent_common::code::ErrorCode;
use assent_common::command::{OpRequest, ValidatedBranch};
use assent_common::outcome::{Call, Prepared, Refusal};
use assent_common::value::Arg;
use assent_common::wire::branch::Mode;
use assent_participant::store::{Store, StoreOptions};
use futures_util::future::join_all;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use redis::Value;

use self::generate::{Case, Op, case};
use crate::harness::{Ask as _, CLEAN, Plain, Redis, fields_expire, now_ms, prepare, prepared, tx};

/// How far times of expiry may lie apart: both servers count from their own now.
const EXPIRY_TOLERANCE_MS: i64 = 5_000;

struct Pair {
    store: Store,
    ours: Plain,
    theirs: Plain,
    next: u64,
    refused: u64,
    committed: u64,
    /// Of those, with an op in escrow.
    escrowed: u64,
}

type Outcome = Result<(), TestCaseError>;

macro_rules! differs {
    ($($message:tt)+) => { return Err(TestCaseError::fail(format!($($message)+))) };
}

fn shown(op: &Op) -> String {
    op.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
}

pub(crate) async fn plain_run(plain: &Plain, ops: &[Op]) -> Vec<Result<Value, String>> {
    let sends = ops.iter().map(|op| {
        let mut connection = plain.0.clone();
        async move {
            let mut command = redis::Cmd::new();
            for word in op {
                command.arg(word.as_slice());
            }
            let result = connection.send_packed_command(&command).await;
            result.and_then(Value::extract_error).map_err(|error| error.to_string())
        }
    });
    join_all(sends).await
}

/// A reply as the JSON that Assent answers with.
pub(crate) fn json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    let bytes = |bytes: &[u8]| serde_json::to_value(Arg(bytes.to_vec())).unwrap();
    match value {
        Value::Nil => Json::Null,
        Value::Int(number) => Json::from(*number),
        Value::BulkString(text) => bytes(text),
        Value::SimpleString(text) => bytes(text.as_bytes()),
        Value::Okay => Json::from("OK"),
        Value::Array(items) => Json::Array(items.iter().map(json).collect()),
        other => panic!("no reply of RESP2: {other:?}"),
    }
}

/// Redis 6.2 keeps the sign of a score that is nothing.
fn unsigned(reply: serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match reply {
        Json::String(text) if text == "-0" => Json::from("0"),
        Json::Array(items) => Json::Array(items.into_iter().map(unsigned).collect()),
        other => other,
    }
}

/// Sorts what Redis gives in no order, in groups.
fn normal(name: &str, reply: serde_json::Value) -> serde_json::Value {
    let reply = if is_old() { unsigned(reply) } else { reply };
    let group = match name {
        "HGETALL" => 2,
        "SMEMBERS" => 1,
        _ => return reply,
    };
    let serde_json::Value::Array(items) = reply else { return reply };
    let mut groups: Vec<String> =
        items.chunks(group).map(|group| serde_json::to_string(group).unwrap()).collect();
    groups.sort();
    groups.into()
}

fn same_reply(op: &Op, ours: &serde_json::Value, theirs: &Value) -> bool {
    let name = String::from_utf8_lossy(&op[0]).to_uppercase();
    let theirs = json(theirs);
    if let Some(least) = ours.get("at_least") {
        // Nobody else holds the counter here: what it may be is what it is.
        return *least == theirs && ours["at_most"] == theirs;
    }
    match name.as_str() {
        "XADD" if op.iter().any(|word| word == b"*") => true,
        "TTL" | "PTTL" => {
            let (Some(ours), Some(theirs)) = (ours.as_i64(), theirs.as_i64()) else { return false };
            let scale = if name == "TTL" { 1_000 } else { 1 };
            (ours < 0 || theirs < 0) && ours == theirs
                || ours >= 0 && theirs >= 0 && (ours - theirs).abs() * scale <= EXPIRY_TOLERANCE_MS
        }
        _ => normal(&name, ours.clone()) == normal(&name, theirs),
    }
}

/// The codes that stand for an error of Redis.
fn fits(error: &str, code: ErrorCode) -> bool {
    use ErrorCode as C;
    let has = |text| error.contains(text);
    let fitting: &[C] = if has("WRONGTYPE") {
        &[C::WrongType]
    } else if has("invalid expire time") {
        &[C::BadArguments, C::Overflow]
    } else if has("overflow") {
        &[C::Overflow]
    } else if has("must be positive") {
        &[C::OutOfRange, C::NotAnInteger]
    } else if has("not an integer") {
        &[C::NotAnInteger]
    } else if has("float") || has("NaN") {
        &[C::NotAFloat]
    } else if has("exceeds maximum allowed size") {
        &[C::TooLarge]
    } else if has("index out of range") || has("offset is out of range") {
        &[C::OutOfRange]
    } else if has("no such key") {
        &[C::NoSuchKey]
    } else if has("smaller than") || has("must be greater than 0-0") || has("exhausted") {
        &[C::StreamIdTooSmall]
    } else {
        &[C::BadArguments]
    };
    fitting.contains(&code)
}

/// What the data of a server is, in a form in which equal data is equal.
pub(crate) async fn data(
    plain: &Plain,
    keys: &BTreeSet<Vec<u8>>,
    starred: bool,
) -> Vec<(String, Vec<serde_json::Value>)> {
    let mut all = Vec::new();
    for key in keys {
        let op = |words: &[&str]| -> Op {
            words
                .iter()
                .map(|w| if *w == "K" { key.clone() } else { w.as_bytes().to_vec() })
                .collect()
        };
        let kind = plain_run(plain, &[op(&["TYPE", "K"])]).await.remove(0).unwrap();
        let (name, reads): (&str, Vec<Op>) = match json(&kind).as_str().unwrap() {
            "string" => ("GET", vec![op(&["GET", "K"])]),
            "hash" => ("HGETALL", vec![op(&["HGETALL", "K"])]),
            "set" => ("SMEMBERS", vec![op(&["SMEMBERS", "K"])]),
            "zset" => ("ZRANGE", vec![op(&["ZRANGE", "K", "0", "-1", "WITHSCORES"])]),
            "list" => ("LRANGE", vec![op(&["LRANGE", "K", "0", "-1"])]),
            "stream" if starred => ("XLEN", vec![op(&["XLEN", "K"])]),
            "stream" => {
                let info = |what| op(&["XINFO", what, "K"]);
                ("XRANGE", vec![op(&["XRANGE", "K", "-", "+"]), info("STREAM"), info("GROUPS")])
            }
            _ => continue,
        };
        let mut found: Vec<serde_json::Value> = plain_run(plain, &reads)
            .await
            .into_iter()
            .map(|value| normal(name, json(&value.unwrap())))
            .collect();
        if let Some(info) = found.get_mut(1) {
            // Of the rest, only the last id matters for what comes later.
            let items = info.as_array().unwrap();
            let place = items.iter().position(|item| item == "last-generated-id").unwrap();
            *info = items[place + 1].clone();
        }
        if name == "HGETALL" && fields_expire() {
            found.push(field_expiries(plain, key).await);
        }
        found.insert(0, json(&kind));
        all.push((key.escape_ascii().to_string(), found));
    }
    all
}

/// Whether the servers are of Redis 6.2, which lacks some options, and has faults that were put right later.
fn is_old() -> bool {
    assent_servers::chosen().is_redis_6_2()
}

/// When a key expires, in ms since 1970, or below 0.
#[derive(Debug)]
pub(crate) struct Expiry(i64);

impl PartialEq for Expiry {
    fn eq(&self, other: &Self) -> bool {
        let are_close = (self.0 - other.0).abs() <= EXPIRY_TOLERANCE_MS;
        self.0 == other.0 || (self.0 > 0 && other.0 > 0 && are_close)
    }
}

pub(crate) async fn expiries(plain: &Plain, keys: &BTreeSet<Vec<u8>>) -> Vec<Expiry> {
    let command = if is_old() { "PTTL" } else { "PEXPIRETIME" };
    let ops = keys.iter().map(|key| vec![command.as_bytes().to_vec(), key.clone()]);
    let replies = plain_run(plain, &ops.collect::<Vec<Op>>()).await;
    let replies = replies.into_iter().map(|reply| json(&reply.unwrap()).as_i64().unwrap());
    replies.map(|at| Expiry(if is_old() && at >= 0 { now_ms() + at } else { at })).collect()
}

/// When the fields of a hash expire.
async fn field_expiries(plain: &Plain, key: &[u8]) -> serde_json::Value {
    let members = generate::MEMBERS;
    let count = members.len().to_string();
    let mut op: Op = [b"HPEXPIRETIME", key, b"FIELDS", count.as_bytes()].map(<[u8]>::to_vec).into();
    op.extend(members.iter().map(|member| member.to_vec()));
    json(&plain_run(plain, &[op]).await.remove(0).unwrap())
}

fn is_star(op: &Op) -> bool {
    op[0].eq_ignore_ascii_case(b"XADD") && op.iter().any(|word| word == b"*")
}

impl Pair {
    async fn start(ours: &Redis, theirs: &Redis) -> Self {
        let mut options = StoreOptions::new(ours.url());
        // What is compared is what the scripts do, not what the disk does.
        options.allow_unsafe_redis = true;
        Self {
            store: Store::connect(options).await.unwrap(),
            ours: ours.plain().await,
            theirs: theirs.plain().await,
            next: 0,
            refused: 0,
            committed: 0,
            escrowed: 0,
        }
    }

    async fn check(&mut self, case: &Case) -> Outcome {
        let keys = generate::keys();
        // A case that failed half-way left its locks; the next one shrinks it.
        let _ = self.store.abort(tx(self.next)).await;
        let mut del: Op = vec![b"DEL".to_vec()];
        del.extend(keys.iter().cloned());
        for plain in [&self.ours, &self.theirs] {
            plain_run(plain, std::slice::from_ref(&del)).await;
            plain_run(plain, &case.setup).await;
        }
        let counting = counting(self.next);
        let transactions = case.transactions.iter().map(|(mode, ops)| (*mode, ops));
        for (mode, ops) in transactions.chain(std::iter::once((Mode::TwoPhase, &counting))) {
            let starred = ops.iter().any(is_star);
            let committed = self.transaction(mode, ops, &keys, starred).await?;
            // Each server has made an id of its own; whoever reads it later is told another.
            if !committed || starred {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns whether the transaction was committed, so that the case goes on.
    async fn transaction(
        &mut self,
        mode: Mode,
        ops: &[Op],
        keys: &BTreeSet<Vec<u8>>,
        starred: bool,
    ) -> Result<bool, TestCaseError> {
        self.next += 1;
        let tx = tx(self.next);
        let before = (data(&self.ours, keys, false).await, expiries(&self.ours, keys).await);
        let theirs = plain_run(&self.theirs, ops).await;
        if theirs.iter().any(is_beyond_the_server) {
            return Ok(false);
        }
        let first_error = theirs.iter().position(Result::is_err);
        let is_counting = ops.iter().all(is_counter);
        let requests = requests(ops, is_counting || self.next.is_multiple_of(2));
        let is_escrow = requests.iter().any(|request| request.escrow);
        let branch = match ValidatedBranch::new(requests) {
            Ok(branch) => branch,
            // The one known difference: the sum of what a branch adds is of 64 bits too.
            Err(refusal) if is_escrow && refusal.code == ErrorCode::Overflow => return Ok(false),
            // `DECRBY` by the least number, which Redis 6.2 lets overflow.
            Err(refusal) if is_old() && refusal.code == ErrorCode::Overflow => return Ok(false),
            Err(refusal) => {
                let place = refusal.op.unwrap() as usize;
                return match &theirs[place] {
                    // Redis may look at the data before it looks at the arguments.
                    Err(error) if error.contains("WRONGTYPE") || error.contains("no such key") => {
                        Ok(false)
                    }
                    Err(error) if fits(error, refusal.code) => Ok(false),
                    other => {
                        differs!("refused: {refusal:?}; Redis: {other:?}: {}", shown(&ops[place]))
                    }
                };
            }
        };
        let call = prepared(self.store.send(vec![prepare(tx, mode, branch)]).await.remove(0));
        let replies = match call {
            Call::Applied(Prepared::Yes(vote)) => vote.replies,
            Call::Applied(Prepared::Committed(done)) => done.replies,
            Call::Refused(refusal) => {
                let after = (data(&self.ours, keys, false).await, expiries(&self.ours, keys).await);
                if after != before {
                    differs!("refused, and changed data: {before:?} {after:?}");
                }
                self.refused += 1;
                if is_escrow {
                    return refused_in_escrow(&refusal, ops, &theirs).map(|()| false);
                }
                return refused_rightly(&refusal, ops, &theirs, first_error).map(|()| false);
            }
            other => differs!("{other:?}"),
        };
        if let Some(place) = first_error {
            differs!("committed, but Redis: {:?}: {}", theirs[place], shown(&ops[place]));
        }
        if mode == Mode::TwoPhase {
            let after = (data(&self.ours, keys, false).await, expiries(&self.ours, keys).await);
            if after != before {
                differs!("prepare changed data: {before:?} {after:?}");
            }
            let applied = self.store.commit(tx).await;
            if applied != CLEAN {
                differs!("{applied:?}");
            }
        }
        self.committed += 1;
        self.escrowed += u64::from(is_escrow);
        same_replies(&replies, ops, &theirs)?;
        self.same_data(keys, starred).await?;
        Ok(true)
    }

    async fn same_data(&self, keys: &BTreeSet<Vec<u8>>, starred: bool) -> Outcome {
        let (ours, theirs) =
            (data(&self.ours, keys, starred).await, data(&self.theirs, keys, starred).await);
        if ours != theirs {
            differs!("data: ours {ours:#?}\n theirs {theirs:#?}");
        }
        let (ours, theirs) = (expiries(&self.ours, keys).await, expiries(&self.theirs, keys).await);
        for ((ours, theirs), key) in ours.into_iter().zip(theirs).zip(keys) {
            if ours != theirs {
                differs!("expiry of {}: ours {ours:?}, theirs {theirs:?}", key.escape_ascii());
            }
        }
        Ok(())
    }
}

/// Options that Redis 6.2 does not have, and the agent has everywhere: `EXPIRE NX`, `SET NX GET`,
/// `XADD 0-*`.
fn is_beyond_the_server(reply: &Result<Value, String>) -> bool {
    let is_unknown = |error: &String| {
        ["wrong number of arguments", "syntax error", "Unsupported option", "Invalid stream ID"]
            .iter()
            .any(|said| error.contains(said))
    };
    is_old() && reply.as_ref().is_err_and(is_unknown)
}

/// Ops that only count, at keys of two families and sometimes of others; they end every case, in escrow.
fn counting(seed: u64) -> Vec<Op> {
    let number = (i64::try_from(seed % 31).unwrap() - 15).to_string();
    let ops = [
        format!("INCRBY s0 {number}"),
        format!("HINCRBY h0 f{} {number}", seed % 3),
        format!("DECR {}", ["s0", "h0", "l0"][usize::try_from(seed % 3).unwrap()]),
        format!("HINCRBY h{} f1 9", seed % 2),
    ];
    let words = |op: &String| op.split(' ').map(|word| word.as_bytes().to_vec()).collect();
    ops.iter().skip(usize::try_from(seed % 4).unwrap()).map(words).collect()
}

fn is_counter(op: &Op) -> bool {
    let name = op[0].to_ascii_uppercase();
    [&b"INCR"[..], b"DECR", b"INCRBY", b"DECRBY", b"HINCRBY"].contains(&name.as_slice())
}

/// The ops as they are sent. In escrow, if that is wanted, are those counters that no other op of the branch touches.
fn requests(ops: &[Op], in_escrow: bool) -> Vec<OpRequest> {
    let kind = |op: &Op| match op[0].to_ascii_uppercase().as_slice() {
        b"INCR" | b"DECR" | b"INCRBY" | b"DECRBY" => 1,
        b"HINCRBY" => 2,
        _ => 0,
    };
    let is_escrow = |op: &Op| {
        let Some(key) = op.get(1) else { return false };
        let mut users = ops.iter().filter(|other| other[1..].contains(key));
        kind(op) > 0 && users.all(|other| kind(other) == kind(op) && other.get(1) == Some(key))
    };
    ops.iter()
        .map(|op| OpRequest {
            cmd: op.iter().cloned().map(Arg).collect(),
            expect: None,
            escrow: in_escrow && is_escrow(op),
        })
        .collect()
}

/// Counters are looked at before the other ops, and refuse keys that expire.
fn refused_in_escrow(refusal: &Refusal, ops: &[Op], theirs: &[Result<Value, String>]) -> Outcome {
    let is_counter = |place: usize| requests(ops, true)[place].escrow;
    match refusal.op.map(|op| op as usize) {
        Some(place) if is_counter(place) => match &theirs[place] {
            _ if refusal.code == ErrorCode::KeyExpires => Ok(()),
            Err(error) if fits(error, refusal.code) => Ok(()),
            // Another op on the same counter: they are judged together.
            _ if theirs.iter().enumerate().any(|(at, it)| it.is_err() && is_counter(at)) => Ok(()),
            other => differs!("{refusal:?} for {other:?}: {}", shown(&ops[place])),
        },
        _ => refused_rightly(refusal, ops, theirs, theirs.iter().position(Result::is_err)),
    }
}

fn refused_rightly(
    refusal: &Refusal,
    ops: &[Op],
    theirs: &[Result<Value, String>],
    first_error: Option<usize>,
) -> Outcome {
    let place = refusal.op.map(|op| op as usize);
    let what = place.map(|place| shown(&ops[place]));
    // The one known difference: what cannot be known until XADD * is applied.
    if refusal.code == ErrorCode::BadArguments && ops.iter().any(is_star) {
        return Ok(());
    }
    match (place, first_error) {
        (Some(place), Some(first)) if place == first => match &theirs[first] {
            Err(error) if fits(error, refusal.code) => Ok(()),
            other => differs!("{refusal:?} for {other:?}: {what:?}"),
        },
        _ => {
            differs!("{refusal:?} at {what:?}, but Redis errs first at {first_error:?}: {theirs:?}")
        }
    }
}

fn same_replies(replies: &str, ops: &[Op], theirs: &[Result<Value, String>]) -> Outcome {
    let ours: Vec<serde_json::Value> = serde_json::from_str(replies).unwrap();
    if ours.len() != ops.len() {
        differs!("{} replies to {} ops", ours.len(), ops.len());
    }
    for ((ours, theirs), op) in ours.iter().zip(theirs).zip(ops) {
        let theirs = theirs.as_ref().unwrap();
        if !same_reply(op, ours, theirs) {
            differs!("reply to {}: ours {ours}, theirs {theirs:?}", shown(op));
        }
    }
    Ok(())
}

#[test]
fn a_branch_does_what_the_same_commands_do() {
    let (ours, theirs) = (Redis::with(&[]), Redis::with(&[]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pair = runtime.block_on(Pair::start(&ours, &theirs));
    let pair = std::cell::RefCell::new(pair);
    let config = Config { failure_persistence: None, max_shrink_iters: 4_000, ..Config::default() };
    let cases = config.cases;
    let result = TestRunner::new(config)
        .run(&case(), |case| runtime.block_on(pair.borrow_mut().check(&case)));
    if let Err(error) = result {
        panic!("{error}");
    }
    let pair = pair.into_inner();
    // A generator that only ever errs, or never does, tests nothing.
    assert!(pair.committed > u64::from(cases) / 4, "{} committed", pair.committed);
    assert!(pair.refused > u64::from(cases) / 20, "{} refused", pair.refused);
    assert!(pair.escrowed > u64::from(cases) / 100, "{} in escrow", pair.escrowed);
}
