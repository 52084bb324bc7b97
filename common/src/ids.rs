//! Identifiers, parsed once and valid from then on.
//!
//! A transaction has two names. Its **public id** ([`TransactionId`]) is a UUIDv7 that a client may choose; it also is
//! the transaction's *age* for wait-die, because UUIDv7 sorts by time. Its **txid** ([`Txid`]) is what branches are
//! known by: `(log id, epoch, n, attempt)`. The epoch is raised and made durable before the first prepare of a process
//! life and `n` counts up within it, so a txid is never used twice (invariant 1), whatever clients choose.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::limits;

/// Why a text is not the identifier that it should be. Shown to people; names the rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {rule}")]
pub struct InvalidId {
    what: &'static str,
    rule: String,
}

impl InvalidId {
    fn new(what: &'static str, rule: impl Into<String>) -> Self {
        Self { what, rule: rule.into() }
    }
}

/// Implements serde through `Display` and `FromStr`, so that a value read from the wire is always valid.
macro_rules! text_serde {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

/// The same, and the 16 bytes of the UUID where nobody reads along (the decision log).
macro_rules! uuid_serde {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.as_bytes().serialize(serializer)
                }
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                    text.parse().map_err(de::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(deserializer).map(Uuid::from_bytes).map(Self)
                }
            }
        }
    };
}

/// The identity of one decision log, made once by `assent init`. A participant remembers which log a branch belongs to,
/// so that no other log can answer for it (invariant 7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub Uuid);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}
impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}
impl FromStr for LogId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Uuid::try_parse(text).map(Self).map_err(|_| InvalidId::new("log id", "must be a UUID"))
    }
}
uuid_serde!(LogId);

/// One process life of a coordinator. Raised and made durable before the first prepare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of a transaction in its coordinator's order: epoch first, then a counter within it. Low-water marks are
/// compared in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TxNumber {
    /// The process life that began the transaction.
    pub epoch: Epoch,
    /// The counter within the epoch.
    pub n: u64,
}

/// The try within a transaction; a retry after a definite abort is a new attempt with the first one's age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The attempt of a transaction that has not been retried.
    pub const FIRST: Self = Self(0);

    /// The attempt after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What participants know a branch's transaction by; never used twice.
///
/// Text form: `<log id>.<epoch>.<n>.<attempt>`, for example `0198f1c2a4b27c1d9c0e3f4a5b6c7d8e.3.1042.0`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Txid {
    /// The log that decides it.
    pub log_id: LogId,
    /// Its place in that log's order.
    pub number: TxNumber,
    /// The try within the transaction.
    pub attempt: Attempt,
}

impl fmt::Display for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.log_id, self.number.epoch, self.number.n, self.attempt.0)
    }
}
impl fmt::Debug for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Txid({self})")
    }
}
impl FromStr for Txid {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId::new("txid", "must be <log id>.<epoch>.<n>.<attempt>");
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or_else(invalid);
        let txid = Self {
            log_id: part()?.parse().map_err(|_| invalid())?,
            number: TxNumber {
                epoch: Epoch(part()?.parse().map_err(|_| invalid())?),
                n: part()?.parse().map_err(|_| invalid())?,
            },
            attempt: Attempt(part()?.parse().map_err(|_| invalid())?),
        };
        if parts.next().is_some() { Err(invalid()) } else { Ok(txid) }
    }
}
text_serde!(Txid);

/// The public id of a transaction: a UUIDv7, chosen by the client or by the coordinator. Its order is its age: the
/// smaller is the older, in wait-die.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(Uuid);

impl TransactionId {
    /// Takes a UUID of version 7; any other version would have no age.
    pub fn new(uuid: Uuid) -> Result<Self, InvalidId> {
        if uuid.get_version_num() == 7 {
            Ok(Self(uuid))
        } else {
            Err(InvalidId::new("transaction id", "must be a UUID of version 7"))
        }
    }

    /// The UUID itself.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}
impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransactionId({self})")
    }
}
impl FromStr for TransactionId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let uuid = Uuid::try_parse(text)
            .map_err(|_| InvalidId::new("transaction id", "must be a UUID of version 7"))?;
        Self::new(uuid)
    }
}
uuid_serde!(TransactionId);

/// The name of a participant, as it stands in transactions, in paths and in metric labels: 1 to 64 characters of
/// `a-z A-Z 0-9 - _ .`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParticipantName(String);

impl ParticipantName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ParticipantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Debug for ParticipantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
impl FromStr for ParticipantName {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins_well || text.len() > limits::NAME_BYTES_MAX || !text.chars().all(allowed) {
            return Err(InvalidId::new(
                "participant name",
                format!(
                    "must be 1 to {} characters of a-z A-Z 0-9 - _ . and begin with a letter or digit",
                    limits::NAME_BYTES_MAX
                ),
            ));
        }
        Ok(Self(text.to_owned()))
    }
}
text_serde!(ParticipantName);

/// A client's idempotency key: 1 to 255 printable ASCII characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
impl FromStr for IdempotencyKey {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let printable = text.bytes().all(|b| (0x20..0x7f).contains(&b));
        if text.is_empty() || text.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX || !printable {
            return Err(InvalidId::new(
                "idempotency key",
                format!(
                    "must be 1 to {} printable ASCII characters",
                    limits::IDEMPOTENCY_KEY_BYTES_MAX
                ),
            ));
        }
        Ok(Self(text.to_owned()))
    }
}
text_serde!(IdempotencyKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn txid_reads_back_as_written() {
        let text = "0198f1c2a4b27c1d9c0e3f4a5b6c7d8e.3.1042.7";
        let txid: Txid = text.parse().unwrap();
        assert_eq!(txid.to_string(), text);
        assert_eq!(txid.number, TxNumber { epoch: Epoch(3), n: 1042 });
        assert_eq!(txid.attempt, Attempt(7));
    }

    #[test]
    fn a_txid_with_a_part_too_few_or_too_many_is_refused() {
        for text in [
            "",
            "x",
            "0198f1c2a4b27c1d9c0e3f4a5b6c7d8e.3.1042",
            "0198f1c2a4b27c1d9c0e3f4a5b6c7d8e.3.1.2.3",
        ] {
            assert!(text.parse::<Txid>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_a_version_7_uuid_is_a_transaction_id() {
        assert!("0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e".parse::<TransactionId>().is_ok());
        assert!("0198f1c2-a4b2-4c1d-9c0e-3f4a5b6c7d8e".parse::<TransactionId>().is_err());
    }

    #[test]
    fn numbers_order_by_epoch_before_n() {
        let number = |epoch, n| TxNumber { epoch: Epoch(epoch), n };
        assert!(number(1, 900) < number(2, 1));
    }

    #[test]
    fn names_and_keys_keep_their_rules() {
        assert!("bank-a".parse::<ParticipantName>().is_ok());
        for bad in ["", "-a", "a b", "a/b", &"a".repeat(65)] {
            assert!(bad.parse::<ParticipantName>().is_err(), "{bad:?}");
        }
        assert!("order 17 retry".parse::<IdempotencyKey>().is_ok());
        for bad in ["", "line\nbreak", "ünïcode", &"k".repeat(256)] {
            assert!(bad.parse::<IdempotencyKey>().is_err(), "{bad:?}");
        }
    }
}
