//! What the scripts answer, row by row, in words of the protocol. A row that cannot be read is *unknown*: it says that
//! something happened, and not what.

use assent_common::code::ErrorCode;
use assent_common::command::{OpRequest, ReplyKind};
use assent_common::outcome::{Applied, Call, Prepared, Refusal};
use assent_common::value::readable;
use redis::{RedisError, Value};

use super::call::PrepareItem;
use super::packed::Reader;

/// One answer of a script: an array of words.
pub(super) struct Row(Vec<Value>);

impl Row {
    pub(super) fn new(value: Value) -> Option<Self> {
        match value {
            Value::Array(items) if !items.is_empty() => Some(Self(items)),
            _ => None,
        }
    }

    pub(super) fn take(&mut self, place: usize) -> Option<Vec<u8>> {
        match std::mem::replace(self.0.get_mut(place)?, Value::Nil) {
            Value::BulkString(bytes) => Some(bytes),
            Value::SimpleString(text) => Some(text.into_bytes()),
            _ => None,
        }
    }

    fn text(&mut self, place: usize) -> Option<String> {
        self.take(place).map(|bytes| readable(&bytes))
    }

    /// The same of words of Redis, as they were said.
    fn said(&mut self, place: usize) -> Option<String> {
        let bytes = self.take(place)?;
        Some(match std::str::from_utf8(&bytes) {
            Ok(said) => readable(said_outside(said).as_bytes()),
            Err(_) => readable(&bytes),
        })
    }

    pub(super) fn int(&self, place: usize) -> Option<i64> {
        match self.0.get(place)? {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn set_int(&mut self, place: usize, number: i64) {
        if let Some(item) = self.0.get_mut(place) {
            *item = Value::Int(number);
        }
    }

    pub(super) fn take_array(&mut self, place: usize) -> Option<Vec<Value>> {
        match std::mem::replace(self.0.get_mut(place)?, Value::Nil) {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// An array of places.
    pub(super) fn ints(&self, place: usize) -> Option<Vec<usize>> {
        let Value::Array(items) = self.0.get(place)? else { return None };
        let place = |item: &Value| match item {
            Value::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        };
        items.iter().map(place).collect()
    }

    pub(super) fn tag(&self) -> u8 {
        match self.0.first() {
            Some(Value::BulkString(bytes)) => bytes.first().copied().unwrap_or(0),
            _ => 0,
        }
    }
}

/// The rows of a script's answer; or the incarnation or the owner that it found instead of ours, and did nothing.
pub(super) enum Rows {
    Each(Vec<Value>),
    OtherIncarnation(String),
    OtherOwner,
    Unreadable,
}

pub(super) fn rows(value: Value) -> Rows {
    match value {
        Value::Array(items) => match items.as_slice() {
            [Value::BulkString(tag), Value::BulkString(found)] if tag == b"q" => {
                Rows::OtherIncarnation(readable(found))
            }
            [Value::BulkString(tag), Value::BulkString(_)] if tag == b"o" => Rows::OtherOwner,
            _ => Rows::Each(items),
        },
        _ => Rows::Unreadable,
    }
}

pub(super) fn unreadable<T>() -> Call<T> {
    Call::Unknown("the script's answer cannot be read".to_owned())
}

pub(super) fn no(row: &mut Row, item: Option<&PrepareItem>) -> Option<Refusal> {
    let code: ErrorCode = row.text(1)?.parse().ok()?;
    let detail = row.said(3).unwrap_or_default();
    let op = row.int(2).and_then(|op| usize::try_from(op).ok());
    let blamed = op.and_then(|op| Some((op, item?.prepare.branch.ops.get(op)?)));
    Some(match blamed {
        Some((place, op)) => {
            let detail = format!("{}: {detail}", op.title());
            Refusal::new(code, detail).at_op(u32::try_from(place).ok()?)
        }
        None if detail.is_empty() => Refusal::new(code, code.meaning()),
        None => Refusal::new(code, detail),
    })
}

pub(super) fn expectation(row: &mut Row, item: &PrepareItem) -> Option<Refusal> {
    let place = usize::try_from(row.int(1)?).ok()?;
    let sign = row.take(2)?;
    let packed = row.take(3)?;
    let op = item.prepare.branch.ops.get(place)?;
    let reply = Reader(&packed).reply(op.reply).ok()?;
    let reply = serde_json::to_string(&reply).ok()?;
    let shown = match op.reply {
        ReplyKind::Array => "an array",
        ReplyKind::Int | ReplyKind::Bytes | ReplyKind::Estimate => reply.as_str(),
    };
    let is_digest = op.handler == OpRequest::DIGEST_HANDLER;
    let (code, met) = match is_digest {
        true => (ErrorCode::ReadChanged, "the key is not what it was, or not what it must be: "),
        false => (ErrorCode::ExpectationFailed, ""),
    };
    let wanted = wanted(&sign, op);
    let detail = format!("{}: {met}the reply is {shown}, expected {wanted}", op.title());
    let mut refusal = Refusal::new(code, detail);
    refusal.op = u32::try_from(place).ok();
    refusal.reply = Some(reply.into());
    Some(refusal)
}

/// The comparison that was false, in words.
fn wanted(sign: &[u8], op: &assent_common::command::ValidatedOp) -> String {
    let Some(expect) = &op.expect else { return String::new() };
    let operand = |field: &Option<Option<assent_common::value::Arg>>| match field {
        Some(Some(arg)) => readable(&arg.0),
        _ => "nil".to_owned(),
    };
    match sign {
        b"=" | b"N" => format!("eq {}", operand(&expect.eq)),
        b"!" | b"M" => format!("ne {}", operand(&expect.ne)),
        b">" => format!("gt {}", operand(&expect.gt)),
        b"G" => format!("ge {}", operand(&expect.ge)),
        b"<" => format!("lt {}", operand(&expect.lt)),
        b"L" => format!("le {}", operand(&expect.le)),
        b"E" => "that it exists".to_owned(),
        _ => "that it does not exist".to_owned(),
    }
}

/// What became of a committed branch, and what Redis said of the first write that did not fit.
pub(super) fn applied(value: Value) -> (Call<Applied>, Option<String>) {
    let Some(mut row) = Row::new(value) else { return (unreadable(), None) };
    match row.tag() {
        b'a' => match row.int(1).and_then(|dirty| u32::try_from(dirty).ok()) {
            Some(dirty_writes) => (Call::Applied(Applied { dirty_writes }), row.said(2)),
            None => (unreadable(), None),
        },
        b'n' => (no(&mut row, None).map_or_else(unreadable, Call::Refused), None),
        _ => (unreadable(), None),
    }
}

/// What an error of a whole call means.
pub(super) enum CallError {
    /// The script is not there, and did not run.
    NoScript,
    /// Redis refused before the first write.
    Refused(Refusal),
    /// Not known; the connection is worth keeping.
    Unknown(String),
    /// Not known, and the connection is of no more use.
    Broken(String),
}

/// The error codes of Redis with which a script is refused before it wrote anything.
const REFUSES: [&str; 11] = [
    "CROSSSLOT",
    "MISCONF",
    "READONLY",
    "NOREPLICAS",
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOAUTH",
    "MOVED",
];

/// Whether Redis says that this server is no master any more, or that its data is being replaced. In a script it says so to
/// the command that writes, so that only the text is left of it.
pub(super) fn is_demoted(said: &str) -> bool {
    ["READONLY", "MASTERDOWN", "LOADING"].iter().any(|code| said.contains(code))
}

/// The code of what a script met, where the script's own error has only its text: Redis 6.2 says
/// `Error running script (call to f_…): @user_script:1: @user_script: 1: -NOREPLICAS Not enough…`.
fn code_in_script(said: &str) -> Option<&str> {
    let (_, met) = said.split_once("Error running script")?;
    let (_, met) = met.split_once(": -")?;
    met.split(' ').next()
}

/// What Redis said to a command of a script, without the place in the script that Redis 6.2 puts
/// before it, as in `Redis refuses SET: @user_script: 1103: -OOM command not allowed….\r\n`.
fn said_outside(said: &str) -> String {
    let met = said.rsplit_once("@user_script: ").and_then(|(before, met)| {
        let (line, met) = met.split_once(": ")?;
        line.parse::<u32>().ok()?;
        // Of an error of the whole script that is more about the script.
        let before = before.split("Error running script").next().filter(|it| *it == before);
        Some(format!("{}{}", before.unwrap_or_default(), met.trim_start_matches('-')))
    });
    met.as_deref().unwrap_or(said).trim_end().to_owned()
}

/// The code of an error of the server, whose text this is.
fn code_of<'a>(error: &'a RedisError, text: &'a str) -> Option<&'a str> {
    error.code().map(|code| code_in_script(text).unwrap_or(code))
}

/// Whether a server that is there refuses a command for good reasons of its own: the code of that.
pub(super) fn refuses(error: &RedisError) -> Option<ErrorCode> {
    match code_of(error, &error.to_string())? {
        "OOM" => Some(ErrorCode::RedisOutOfMemory),
        "NOREPLICAS" | "MISCONF" => Some(ErrorCode::RedisRefuses),
        "NOPERM" => Some(ErrorCode::RedisNoPermission),
        _ => None,
    }
}

/// The command that Redis says the user may not run, as a rule of an ACL names it. It is said as
/// `… no permissions to run the 'info' command`.
pub(super) fn command_denied(said: &str) -> Option<String> {
    let (_, denied) = said.split_once("to run the '")?;
    let (name, _) = denied.split_once('\'')?;
    Some(name.to_lowercase())
}

pub(super) fn classify(error: &RedisError) -> CallError {
    let whole = error.to_string();
    let text = said_outside(&whole);
    match code_of(error, &whole) {
        Some("NOSCRIPT") => CallError::NoScript,
        Some("NOPERM") => CallError::Refused(Refusal::new(ErrorCode::RedisNoPermission, text)),
        Some("OOM") => CallError::Refused(Refusal::new(ErrorCode::RedisOutOfMemory, text)),
        Some(code) if REFUSES.contains(&code) => {
            CallError::Refused(Refusal::new(ErrorCode::RedisRefuses, text))
        }
        Some(_) => CallError::Unknown(text),
        // Timeouts too: the reply may still come, and would be taken for the next call's.
        None => CallError::Broken(text),
    }
}

/// What an error of something that only reads means to the branch that it was asked for.
pub(super) fn unevaluated(error: &RedisError) -> Call<Prepared> {
    match classify(error) {
        CallError::Refused(refusal) => Call::Refused(refusal),
        CallError::NoScript => Call::Unknown("the script could not be loaded".to_owned()),
        CallError::Unknown(why) | CallError::Broken(why) => Call::Unknown(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise *honest*: a person reads what Redis said, and not where in the script.
    #[test]
    fn the_words_of_redis_are_shown_without_the_place_in_the_script() {
        let oom = "OOM command not allowed when used memory > 'maxmemory'.";
        let refused = format!("Redis refuses SET: {oom}");
        for (said, shown) in [
            (format!("Redis refuses SET: @user_script: 1103: -{oom}\r\n"), refused),
            (format!("@user_script: 7: {oom}"), oom.to_owned()),
            (
                "Error running script (call to f_1a): @user_script:1: @user_script: 1: -NOREPLICAS \
                 Not enough good replicas to write."
                    .to_owned(),
                "NOREPLICAS Not enough good replicas to write.".to_owned(),
            ),
            (oom.to_owned(), oom.to_owned()),
            ("of @user_script: nothing".to_owned(), "of @user_script: nothing".to_owned()),
        ] {
            assert_eq!(said_outside(&said), shown);
        }
    }
}
