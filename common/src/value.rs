//! Bytes on a JSON wire. Arguments and replies of Redis commands are byte strings; in JSON they stand as readable as
//! they can: UTF-8 as a string, a number as it is, any other bytes as `{"base64": "…"}`, nil as `null`.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, MapAccess, Visitor};
use serde::ser::{self, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// One argument of a command: any bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arg(pub Vec<u8>);

impl fmt::Debug for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}
impl From<&str> for Arg {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}
impl From<String> for Arg {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}
impl From<Vec<u8>> for Arg {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}
impl From<i64> for Arg {
    fn from(number: i64) -> Self {
        Self(number.to_string().into_bytes())
    }
}

/// An optional field of a request that is present: `null` is no way to leave it out. A client whose variable turned out to
/// be empty would lose by it what it asked for: its guard, its idempotency, its deadline.
pub(crate) fn given<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// The one field of the JSON form of bytes that are not UTF-8.
const BASE64_FIELD: &str = "base64";

/// Writes bytes as a JSON string if they are UTF-8, else as `{"base64": "…"}`.
pub fn serialize_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serializer.serialize_str(text),
        Err(_) => {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(BASE64_FIELD, &BASE64.encode(bytes))?;
            map.end()
        }
    }
}

impl Serialize for Arg {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_bytes(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Arg {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ArgVisitor;
        impl<'de> Visitor<'de> for ArgVisitor {
            type Value = Arg;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number, or {\"base64\": \"…\"}")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Arg, E> {
                Ok(Arg(text.as_bytes().to_vec()))
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Arg, E> {
                Ok(Arg(text.into_bytes()))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Arg, E> {
                Ok(Arg(number.to_string().into_bytes()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Arg, E> {
                Ok(Arg(number.to_string().into_bytes()))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Arg, E> {
                // A JSON number beyond 64 bits arrives here already rounded.
                const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
                if number.abs() >= EXACT_MAX {
                    return Err(E::custom("a number this large must be sent as a string"));
                }
                Ok(Arg(number.to_string().into_bytes()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Arg, A::Error> {
                let bytes = match map.next_entry::<String, String>()? {
                    Some((field, text)) if field == BASE64_FIELD => {
                        BASE64.decode(text).map_err(|_| de::Error::custom("invalid base64"))?
                    }
                    _ => return Err(de::Error::custom("expected {\"base64\": \"…\"}")),
                };
                match map.next_key::<String>()? {
                    None => Ok(Arg(bytes)),
                    Some(field) => Err(de::Error::custom(format!("unknown field {field:?}"))),
                }
            }
        }
        deserializer.deserialize_any(ArgVisitor)
    }
}

impl utoipa::PartialSchema for Arg {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
        OneOfBuilder::new()
            .item(ObjectBuilder::new().schema_type(Type::String).description(Some("UTF-8 text")))
            .item(ObjectBuilder::new().schema_type(Type::Number))
            .item(
                ObjectBuilder::new()
                    .property(BASE64_FIELD, ObjectBuilder::new().schema_type(Type::String))
                    .required(BASE64_FIELD),
            )
            .description(Some(
                "One argument of a Redis command: text, a number, or other bytes as base64",
            ))
            .into()
    }
}
impl utoipa::ToSchema for Arg {}

/// The reply of a Redis command, as RESP2 has it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Reply {
    /// No value.
    Nil,
    /// An integer reply.
    Int(i64),
    /// A bulk string, or the text of a simple string such as `OK`.
    Bytes(Vec<u8>),
    /// Several replies.
    Array(Vec<Self>),
    /// Of an op in escrow: what the value may be.
    Estimate {
        /// The least.
        at_least: i64,
        /// The most.
        at_most: i64,
    },
    /// What a hook replies: the text of any JSON.
    Hook(Arc<str>),
}

/// The one field of the JSON form of what a hook replies.
pub const HOOK_FIELD: &str = "hook";

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Bytes(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::Array(items) => f.debug_list().entries(items).finish(),
            Self::Estimate { at_least, at_most } => write!(f, "{at_least}..={at_most}"),
            Self::Hook(json) => write!(f, "hook {json}"),
        }
    }
}

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nil => serializer.serialize_unit(),
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::Bytes(bytes) => serialize_bytes(bytes, serializer),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Estimate { at_least, at_most } => {
                serializer.collect_map([("at_least", at_least), ("at_most", at_most)])
            }
            Self::Hook(json) => {
                let json: &RawValue = serde_json::from_str(json).map_err(ser::Error::custom)?;
                serializer.collect_map([(HOOK_FIELD, json)])
            }
        }
    }
}

/// Bytes that a human may read: UTF-8 as it is, other bytes escaped. For messages; never for values.
#[must_use]
pub fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_keeps_its_bytes_through_json() {
        for bytes in [&b"plain"[..], b"", b"\xff\x00\xfe", "ünïcode".as_bytes(), b"\"quoted\"\n"]
        {
            let json = serde_json::to_string(&Arg(bytes.to_vec())).unwrap();
            assert_eq!(serde_json::from_str::<Arg>(&json).unwrap().0, bytes, "{json}");
        }
    }

    #[test]
    fn numbers_stand_as_they_were_written() {
        for (json, text) in [
            ("30", "30"),
            ("-7", "-7"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("0.5", "0.5"),
        ] {
            assert_eq!(serde_json::from_str::<Arg>(json).unwrap(), Arg::from(text));
        }
    }

    #[test]
    fn what_would_be_rounded_or_is_no_argument_is_refused() {
        for json in [
            "1e30",
            "18446744073709551616",
            "true",
            "null",
            "[]",
            "{}",
            r#"{"base64":"?"}"#,
            r#"{"base64":"","x":"1"}"#,
        ] {
            assert!(serde_json::from_str::<Arg>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_reply_is_json_as_the_contract_says() {
        let reply = Reply::Array(vec![
            Reply::Nil,
            Reply::Int(i64::MIN),
            Reply::Bytes(b"OK".to_vec()),
            Reply::Bytes(vec![0xff]),
        ]);
        assert_eq!(
            serde_json::to_string(&reply).unwrap(),
            r#"[null,-9223372036854775808,"OK",{"base64":"/w=="}]"#
        );
    }
}
