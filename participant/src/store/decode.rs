//! What the scripts answer, row by row, in words of the protocol. A row that cannot be read is *unknown*: it says that
//! something happened, and not what.

use assent_common::code::ErrorCode;
use assent_common::command::{OpRequest, ReplyKind};
use assent_common::ids::Txid;
use assent_common::outcome::{Applied, Call, Refusal};
use assent_common::value::readable;
use redis::Value;

use super::packed::Reader;
use super::said::said_outside;
use super::work::PrepareItem;

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
        ReplyKind::Int | ReplyKind::Bytes | ReplyKind::Estimate | ReplyKind::Hook => reply.as_str(),
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

/// The decision stands, whatever somebody did to the data meanwhile.
pub(super) fn report_dirty(txid: Txid, applied: &Applied, first_error: Option<&str>) {
    tracing::error!(
        %txid,
        dirty_writes = applied.dirty_writes,
        first_error,
        "writes met data that was changed past the agent; the others are applied"
    );
}
