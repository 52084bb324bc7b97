//! What clients ask for, as it stands in a history: the `f` and `value` of an operation.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeTuple};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A key: an integer or a text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// An integer.
    Int(i64),
    /// A text.
    Text(String),
}

impl From<i64> for Scalar {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Scalar {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// One step of a list-append transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MicroOp {
    /// `["append", key, element]`; an element is appended to a key once in a history.
    Append(Scalar, i64),
    /// `["r", key, [elements]]`; `null` while the answer is not known.
    Read(Scalar, Option<Vec<i64>>),
}

impl MicroOp {
    /// An append.
    pub fn append(key: impl Into<Scalar>, element: i64) -> Self {
        Self::Append(key.into(), element)
    }

    /// A read that is not answered yet.
    pub fn read(key: impl Into<Scalar>) -> Self {
        Self::Read(key.into(), None)
    }

    /// A read and its answer.
    pub fn saw(key: impl Into<Scalar>, elements: impl Into<Vec<i64>>) -> Self {
        Self::Read(key.into(), Some(elements.into()))
    }

    /// The same step, of whatever answer.
    pub(crate) fn asks_the_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Append(..), Self::Append(..)) => self == other,
            (Self::Read(key, _), Self::Read(other, _)) => key == other,
            (Self::Append(..), Self::Read(..)) | (Self::Read(..), Self::Append(..)) => false,
        }
    }
}

impl Serialize for MicroOp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(3)?;
        match self {
            Self::Append(key, element) => {
                tuple.serialize_element("append")?;
                tuple.serialize_element(key)?;
                tuple.serialize_element(element)?;
            }
            Self::Read(key, elements) => {
                tuple.serialize_element("r")?;
                tuple.serialize_element(key)?;
                tuple.serialize_element(elements)?;
            }
        }
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for MicroOp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = MicroOp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[\"append\", key, element] or [\"r\", key, elements]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<MicroOp, A::Error> {
                let short = |at| move || de::Error::invalid_length(at, &Parts);
                let what: String = seq.next_element()?.ok_or_else(short(0))?;
                let key = seq.next_element()?.ok_or_else(short(1))?;
                match what.as_str() {
                    "append" => Ok(MicroOp::Append(key, seq.next_element()?.ok_or_else(short(2))?)),
                    "r" => Ok(MicroOp::Read(key, seq.next_element()?.ok_or_else(short(2))?)),
                    other => Err(de::Error::unknown_variant(other, &["append", "r"])),
                }
            }
        }
        deserializer.deserialize_seq(Parts)
    }
}

/// What is asked of one register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterOp {
    /// `f` is `read`, the value `[key, value]`: `null` is absent when answered, and unknown before.
    Read(Option<i64>),
    /// `f` is `write`, the value `[key, value]`.
    Write(i64),
    /// `f` is `cas`, the value `[key, [old, new]]`. A comparison that is false is a `fail`.
    Cas(i64, i64),
}

/// Money from one account to another; refused rather than overdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Who pays.
    pub from: String,
    /// Who receives.
    pub to: String,
    /// How much.
    pub amount: i64,
}

/// An increment, known by an id of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Add {
    /// Which counter.
    pub counter: String,
    /// Used by no other increment of the history.
    pub id: String,
    /// By how much.
    pub by: i64,
}

/// A reading of a counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// Which counter.
    pub counter: String,
    /// What it showed; `null` while the answer is not known.
    pub value: Option<i64>,
}

/// A transaction that leaves its id in every one of its branches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Used by no other mark of the history.
    pub id: String,
    /// The branches that are to have it.
    pub branches: Vec<String>,
}

/// What a client asks for. The completion of an operation repeats it, with the answers filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `txn`: a list-append transaction.
    Txn(Vec<MicroOp>),
    /// `read`, `write`, `cas`: one register.
    Register(Scalar, RegisterOp),
    /// `transfer`: of the bank.
    Transfer(Transfer),
    /// `balances`: all accounts of the bank in one read-only transaction; `null` while not known.
    Balances(Option<BTreeMap<String, i64>>),
    /// `add`: to a counter.
    Add(Add),
    /// `count`: reads a counter.
    Count(Count),
    /// `mark`: of the atomicity audit.
    Mark(Mark),
}

impl Action {
    /// The `f` of the operation.
    #[must_use]
    pub const fn f(&self) -> &'static str {
        match self {
            Self::Txn(_) => "txn",
            Self::Register(_, RegisterOp::Read(_)) => "read",
            Self::Register(_, RegisterOp::Write(_)) => "write",
            Self::Register(_, RegisterOp::Cas(..)) => "cas",
            Self::Transfer(_) => "transfer",
            Self::Balances(_) => "balances",
            Self::Add(_) => "add",
            Self::Count(_) => "count",
            Self::Mark(_) => "mark",
        }
    }

    /// The action of this `f`; nothing if there is none.
    pub(crate) fn parse(f: &str, value: &RawValue) -> Option<serde_json::Result<Self>> {
        let text = value.get();
        let register = |op: serde_json::Result<(Scalar, RegisterOp)>| {
            op.map(|(key, op)| Self::Register(key, op))
        };
        Some(match f {
            "txn" => serde_json::from_str(text).map(Self::Txn),
            "read" => register(
                serde_json::from_str(text).map(|(key, value)| (key, RegisterOp::Read(value))),
            ),
            "write" => register(
                serde_json::from_str(text).map(|(key, value)| (key, RegisterOp::Write(value))),
            ),
            "cas" => register(
                serde_json::from_str(text)
                    .map(|(key, (old, new))| (key, RegisterOp::Cas(old, new))),
            ),
            "transfer" => serde_json::from_str(text).map(Self::Transfer),
            "balances" => serde_json::from_str(text).map(Self::Balances),
            "add" => serde_json::from_str(text).map(Self::Add),
            "count" => serde_json::from_str(text).map(Self::Count),
            "mark" => serde_json::from_str(text).map(Self::Mark),
            _ => return None,
        })
    }

    /// The value of the operation.
    pub(crate) fn value(&self) -> serde_json::Result<Box<RawValue>> {
        use serde_json::value::to_raw_value as raw;
        match self {
            Self::Txn(steps) => raw(steps),
            Self::Register(key, RegisterOp::Read(value)) => raw(&(key, value)),
            Self::Register(key, RegisterOp::Write(value)) => raw(&(key, value)),
            Self::Register(key, RegisterOp::Cas(old, new)) => raw(&(key, (old, new))),
            Self::Transfer(transfer) => raw(transfer),
            Self::Balances(balances) => raw(balances),
            Self::Add(add) => raw(add),
            Self::Count(count) => raw(count),
            Self::Mark(mark) => raw(mark),
        }
    }

    /// Whether a completion with `other` can be the completion of this.
    pub(crate) fn asks_the_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Txn(steps), Self::Txn(others)) => {
                steps.len() == others.len()
                    && steps.iter().zip(others).all(|(step, other)| step.asks_the_same_as(other))
            }
            (Self::Register(key, RegisterOp::Read(_)), Self::Register(other, op)) => {
                key == other && matches!(op, RegisterOp::Read(_))
            }
            (Self::Balances(_), Self::Balances(_)) => true,
            (Self::Count(count), Self::Count(other)) => count.counter == other.counter,
            _ => self == other,
        }
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("f", self.f())?;
        map.serialize_entry("value", &self.value().map_err(serde::ser::Error::custom)?)?;
        map.end()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value().map_err(|_| fmt::Error)?;
        write!(f, "{} {}", self.f(), value.get())
    }
}
