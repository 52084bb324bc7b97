//! The replies of a branch, from their JSON to what a Redis client expects of each command.

use std::borrow::Cow;
use std::fmt;

use assent_common::command::{ReplyKind, ValidatedOp};
use assent_common::value::{Arg, HOOK_FIELD};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::reply::Value;

/// How a client expects the reply of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyShape {
    /// As it is: an integer, bytes, an array, or none of them.
    Plain,
    /// A word such as `OK`.
    Status,
    /// A float.
    Double,
    /// An array, or no array.
    Array,
    /// An array of names and values in turn.
    Map,
    /// An array in no order.
    Set,
    /// An array of members and scores in turn.
    Scored,
    /// A member and its score, or a rank and a score.
    ScoredOne,
    /// An array of scores.
    Doubles,
    /// A key, and an array of pairs of a member and its score.
    Popped,
    /// An array of names and values in turn, which are pairs in the newer version.
    Pairs,
    /// An array of places, each a longitude and a latitude, or none.
    Positions,
    /// An array of places, each behind what else is told of a member.
    Found,
    /// An array of maps.
    Maps,
    /// What is known of a stream: a map, in which groups and their consumers are maps too.
    OfStream,
    /// An array of pairs of a stream and its entries.
    Streams,
}

impl ReplyShape {
    /// That of an op.
    #[must_use]
    pub(crate) fn of(op: &ValidatedOp) -> Self {
        // The place that the option has in the checked form.
        let says = |place: usize| op.args.get(place).is_some_and(|option| !option.0.is_empty());
        // Of a command without a handler the words are as they came: keys, then options.
        let option = |name| {
            let behind = op.key_places().last().map_or(0, |place| place + 1);
            has_option(&op.args[behind..], name)
        };
        match op.command.name {
            "MSET" | "LSET" | "LTRIM" | "TYPE" | "SETEX" | "PSETEX" | "HMSET" | "RENAME"
            | "PFMERGE" | "XSETID" => Self::Status,
            "XGROUP" if op.reply == ReplyKind::Bytes => Self::Status,
            "SET" if !says(3) => Self::Status,
            "ZSCORE" | "ZINCRBY" => Self::Double,
            "ZADD" if op.reply == ReplyKind::Bytes => Self::Double,
            "HGETALL" => Self::Map,
            "LCS" if op.reply == ReplyKind::Array => Self::Map,
            "XINFO" if has_option(&op.args[..1], "STREAM") => Self::OfStream,
            "XINFO" => Self::Maps,
            "XREAD" | "XREADGROUP" => Self::Streams,
            "SMEMBERS" | "SINTER" | "SUNION" | "SDIFF" => Self::Set,
            "SPOP" if op.reply == ReplyKind::Array => Self::Set,
            "ZRANGE" | "ZREVRANGE" | "ZRANGEBYSCORE" | "ZREVRANGEBYSCORE" if says(3) => {
                Self::Scored
            }
            "ZDIFF" | "ZINTER" | "ZUNION" | "ZRANDMEMBER" if option("WITHSCORES") => Self::Scored,
            "ZPOPMIN" | "ZPOPMAX" if op.args.len() > 1 => Self::Scored,
            "ZPOPMIN" | "ZPOPMAX" => Self::ScoredOne,
            "ZRANK" | "ZREVRANK" if op.reply == ReplyKind::Array => Self::ScoredOne,
            "ZMSCORE" => Self::Doubles,
            "GEOPOS" => Self::Positions,
            "GEOSEARCH"
            | "GEORADIUS"
            | "GEORADIUS_RO"
            | "GEORADIUSBYMEMBER"
            | "GEORADIUSBYMEMBER_RO"
                if op.reply == ReplyKind::Array && option("WITHCOORD") =>
            {
                Self::Found
            }
            "ZMPOP" => Self::Popped,
            "HRANDFIELD" if option("WITHVALUES") => Self::Pairs,
            _ if op.reply == ReplyKind::Array => Self::Array,
            _ => Self::Plain,
        }
    }

    /// The reply in this shape.
    #[must_use]
    pub(crate) fn form(self, reply: Value, is_new: bool) -> Value {
        match (self, reply) {
            (Self::Status, Value::Bulk(word)) => {
                Value::Status(Cow::Owned(String::from_utf8_lossy(&word).into_owned()))
            }
            (Self::Double, Value::Bulk(text)) => Value::Double(text),
            (Self::Plain, Value::Nil) => Value::Nil,
            (Self::Status | Self::Double, reply) => reply,
            (_, Value::Nil) => Value::NilArray,
            (Self::Map, Value::Array(items)) => Value::Map(pairs(items)),
            (Self::OfStream, Value::Array(items)) => of_stream(items),
            (Self::Set, Value::Array(items)) => Value::Set(items),
            (_, Value::Array(items)) if is_new => self.form_new(items),
            (_, reply) => reply,
        }
    }

    /// An array in the shape that the newer version has for it.
    fn form_new(self, items: Vec<Value>) -> Value {
        let each = |form: fn(Value) -> Value, items: Vec<Value>| {
            Value::Array(items.into_iter().map(form).collect())
        };
        let in_pairs = |form: fn(Value) -> Value| {
            let pair = move |(name, value)| Value::Array(vec![name, form(value)]);
            move |items| Value::Array(pairs(items).into_iter().map(pair).collect())
        };
        match self {
            Self::Scored => in_pairs(Self::double)(items),
            Self::Pairs => in_pairs(|value| value)(items),
            Self::ScoredOne => {
                let mut items = items.into_iter();
                let first = items.next();
                Value::Array(first.into_iter().chain(items.map(Self::double)).collect())
            }
            Self::Doubles => each(Self::double, items),
            Self::Popped => each(
                |popped| match popped {
                    Value::Array(pairs) => Value::Array(
                        pairs.into_iter().map(|pair| Self::ScoredOne.form(pair, true)).collect(),
                    ),
                    key => key,
                },
                items,
            ),
            Self::Positions => each(|item| Self::Doubles.form(item, true), items),
            Self::Found => each(
                |found| match found {
                    Value::Array(told) => Self::Positions.form(Value::Array(told), true),
                    member => member,
                },
                items,
            ),
            Self::Maps => each(|item| Self::Map.form(item, true), items),
            Self::Streams => {
                let pair = |stream| match stream {
                    Value::Array(pair) => pairs(pair).into_iter().next(),
                    _ => None,
                };
                Value::Map(items.into_iter().filter_map(pair).collect())
            }
            _ => Value::Array(items),
        }
    }

    fn double(score: Value) -> Value {
        Self::Double.form(score, true)
    }
}

/// What is known of a stream, or of a group or a consumer of it.
fn of_stream(items: Vec<Value>) -> Value {
    let inner = |(name, value): (Value, Value)| {
        let is_list = [&b"groups"[..], b"consumers"].iter().any(|list| name == Value::bulk(list));
        let value = match value {
            Value::Array(list) if is_list => Value::Array(
                list.into_iter().map(|item| ReplyShape::OfStream.form(item, true)).collect(),
            ),
            value => value,
        };
        (name, value)
    };
    Value::Map(pairs(items).into_iter().map(inner).collect())
}

fn has_option(options: &[Arg], name: &str) -> bool {
    options.iter().any(|word| word.0.eq_ignore_ascii_case(name.as_bytes()))
}

fn pairs(items: Vec<Value>) -> Vec<(Value, Value)> {
    let mut items = items.into_iter();
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let (Some(first), Some(second)) = (items.next(), items.next()) {
        pairs.push((first, second));
    }
    pairs
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReplyVisitor)
    }
}

/// A reply as `assent_common::value::Reply` writes it.
struct ReplyVisitor;

impl<'de> Visitor<'de> for ReplyVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reply of a Redis command")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        i64::try_from(number).map(Value::Int).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::bulk(text))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::Bulk(text.into_bytes()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let Some(field) = map.next_key::<String>()? else {
            return Err(de::Error::custom("an object without a field"));
        };
        match field.as_str() {
            "base64" => {
                let text: String = map.next_value()?;
                BASE64.decode(text).map(Value::Bulk).map_err(de::Error::custom)
            }
            // Any JSON: a client of Redis has it as its text.
            HOOK_FIELD => {
                let json: Box<RawValue> = map.next_value()?;
                Ok(Value::bulk(json.get()))
            }
            _ => Err(de::Error::unknown_field(&field, &["base64", HOOK_FIELD])),
        }
    }
}

#[cfg(test)]
mod tests {
    use assent_common::command::{OpRequest, ValidatedBranch};
    use assent_common::value::Reply;

    use super::*;

    fn shape<const N: usize>(words: [&str; N]) -> ReplyShape {
        ReplyShape::of(&ValidatedBranch::new(vec![OpRequest::new(words)]).unwrap().ops[0])
    }

    #[test]
    fn a_reply_comes_through_json_as_it_was() {
        let reply = Reply::Array(vec![
            Reply::Nil,
            Reply::Int(i64::MAX),
            Reply::Bytes(b"OK".to_vec()),
            Reply::Bytes(vec![0xff, 0]),
            Reply::Array(Vec::new()),
            Reply::Hook(r#"{"a":[1.5,true]}"#.into()),
        ]);
        let json = serde_json::to_string(&reply).unwrap();
        let expected = Value::Array(vec![
            Value::Nil,
            Value::Int(i64::MAX),
            Value::bulk("OK"),
            Value::bulk([0xff, 0]),
            Value::Array(Vec::new()),
            Value::bulk(r#"{"a":[1.5,true]}"#),
        ]);
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), expected);
        assert!(serde_json::from_str::<Value>(r#"{"at_least":1}"#).is_err());
    }

    #[test]
    fn each_command_has_the_shape_that_redis_gives_it() {
        assert_eq!(shape(["SET", "GET", "get"]), ReplyShape::Status);
        assert_eq!(shape(["set", "k", "v", "get"]), ReplyShape::Plain);
        assert_eq!(shape(["zadd", "k", "1", "incr"]), ReplyShape::Plain);
        assert_eq!(shape(["zadd", "k", "incr", "1", "m"]), ReplyShape::Double);
        assert_eq!(shape(["LPOP", "k"]), ReplyShape::Plain);
        assert_eq!(shape(["LPOP", "k", "2"]), ReplyShape::Array);
        assert_eq!(shape(["ZRANGE", "k", "0", "-1", "WithScores"]), ReplyShape::Scored);
        assert_eq!(shape(["ZRANGE", "k", "0", "-1"]), ReplyShape::Array);
        assert_eq!(shape(["ZRANGE", "withscores", "0", "-1"]), ReplyShape::Array);
        assert_eq!(shape(["ZPOPMIN", "k"]), ReplyShape::ScoredOne);
        assert_eq!(shape(["ZPOPMIN", "k", "1"]), ReplyShape::Scored);
        assert_eq!(shape(["XGROUP", "create", "k", "g", "$"]), ReplyShape::Status);
        assert_eq!(shape(["XGROUP", "DESTROY", "k", "g"]), ReplyShape::Plain);
        assert_eq!(shape(["ZUNION", "1", "withscores"]), ReplyShape::Array);
        assert_eq!(shape(["ZUNION", "1", "k", "withscores"]), ReplyShape::Scored);
        assert_eq!(shape(["SPOP", "k"]), ReplyShape::Plain);
        assert_eq!(shape(["SPOP", "k", "1"]), ReplyShape::Set);
    }

    #[test]
    fn what_stands_inside_of_replies_has_the_newer_form_too() {
        let array = |items: &[Value]| Value::Array(items.to_vec());
        let [name, one] = [Value::bulk("name"), Value::bulk("one")];
        let found =
            array(&[one.clone(), Value::bulk("3.5"), array(&[Value::bulk("1"), Value::bulk("2")])]);
        let [east, north] = ["1", "2"].map(|text| Value::Double(text.into()));
        let newer = array(&[one.clone(), Value::bulk("3.5"), array(&[east, north])]);
        let search = ["GEORADIUS", "k", "1", "2", "3", "km", "withdist", "WITHCOORD"];
        let all = || Value::Array(vec![found.clone()]);
        assert_eq!(shape(search).form(all(), true), array(&[newer]));
        assert_eq!(shape(search).form(all(), false), all());
        let consumers = Value::bulk("consumers");
        let consumer = [name.clone(), one.clone()];
        let group = [name.clone(), one.clone(), consumers.clone(), array(&[array(&consumer)])];
        let stream =
            [Value::bulk("length"), Value::Int(1), Value::bulk("groups"), array(&[array(&group)])];
        let map = |pairs: &[(Value, Value)]| Value::Map(pairs.to_vec());
        let group = map(&[(name.clone(), one.clone()), (consumers, array(&[map(&[(name, one)])]))]);
        let full = map(&[
            (Value::bulk("length"), Value::Int(1)),
            (Value::bulk("groups"), array(&[group])),
        ]);
        assert_eq!(shape(["XINFO", "stream", "k", "FULL"]).form(array(&stream), true), full);
    }

    #[test]
    fn the_shapes_of_the_newer_version_are_arrays_in_the_older_one() {
        let reply = || Value::Array(vec![Value::bulk("m"), Value::bulk("1.5")]);
        let scored = Value::Array(vec![Value::bulk("m"), Value::Double(b"1.5".to_vec())]);
        assert_eq!(ReplyShape::Scored.form(reply(), true), Value::Array(vec![scored]));
        assert_eq!(ReplyShape::Scored.form(reply(), false), reply());
        let pairs = Value::Array(vec![Value::Array(vec![Value::bulk("m"), Value::bulk("1.5")])]);
        assert_eq!(ReplyShape::Pairs.form(reply(), true), pairs);
        let one = Value::Array(vec![Value::bulk("m"), Value::Double(b"1.5".to_vec())]);
        assert_eq!(ReplyShape::ScoredOne.form(reply(), true), one);
        let popped = Value::Array(vec![Value::bulk("k"), Value::Array(vec![reply()])]);
        let doubled = Value::Array(vec![Value::bulk("k"), Value::Array(vec![one])]);
        assert_eq!(ReplyShape::Popped.form(popped, true), doubled);
        let stream = Value::Array(vec![Value::Array(vec![Value::bulk("s"), reply()])]);
        let streams = Value::Map(vec![(Value::bulk("s"), reply())]);
        assert_eq!(ReplyShape::Streams.form(stream, true), streams);
        let map = Value::Map(vec![(Value::bulk("m"), Value::bulk("1.5"))]);
        assert_eq!(ReplyShape::Map.form(reply(), false), map);
        assert_eq!(ReplyShape::Array.form(Value::Nil, false), Value::NilArray);
        assert_eq!(ReplyShape::Status.form(Value::Nil, false), Value::Nil);
    }
}
