//! What the scripts pack with `cmsgpack`: replies, writes, staged records. A reader of that part of MessagePack which
//! Lua's packer writes for strings, whole numbers, booleans and arrays; and a writer, of what the scripts can unpack.

use std::fmt::Write as _;

use assent_common::command::ReplyKind;
use assent_common::value::{Arg, Reply};

/// The bytes are not what a script packs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the packed form of this version: {0}")]
pub struct RedoError(pub(super) &'static str);

impl RedoError {
    pub(super) const fn foreign() -> Self {
        Self("a record of another version")
    }
}

const SHORT: RedoError = RedoError("it ends too early");

/// One item; the items of an array follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// `nil` or `false`: Lua's no value.
    Nil,
    /// `true`.
    True,
    /// A whole number.
    Int(i64),
    /// A string of Lua: bytes.
    Bytes(&'a [u8]),
    /// An array of so many items.
    Array(usize),
}

/// Reads items off the front.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], RedoError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<u64, RedoError> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A two's complement number of so many bytes.
    fn signed(&mut self, bytes: usize) -> Result<Item<'a>, RedoError> {
        let shift = 64 - 8 * bytes as u32;
        Ok(Item::Int((self.number(bytes)? << shift).cast_signed() >> shift))
    }

    fn unsigned(&mut self, bytes: usize) -> Result<Item<'a>, RedoError> {
        let number = self.number(bytes)?;
        i64::try_from(number).map(Item::Int).map_err(|_| RedoError("a number above 63 bits"))
    }

    fn sized(&mut self, bytes: usize) -> Result<usize, RedoError> {
        usize::try_from(self.number(bytes)?).map_err(|_| SHORT)
    }

    fn bytes_of(&mut self, length: usize) -> Result<Item<'a>, RedoError> {
        self.take(length).map(Item::Bytes)
    }

    /// An array cannot have more items than there are bytes left, so a length from outside reserves no memory.
    fn array_of(&mut self, length: usize) -> Result<Item<'a>, RedoError> {
        if length > self.0.len() { Err(SHORT) } else { Ok(Item::Array(length)) }
    }

    pub(super) fn item(&mut self) -> Result<Item<'a>, RedoError> {
        let tag = self.take(1)?[0];
        match tag {
            0x00..=0x7f => Ok(Item::Int(i64::from(tag))),
            0xe0..=0xff => Ok(Item::Int(i64::from(tag.cast_signed()))),
            0xa0..=0xbf => self.bytes_of(usize::from(tag & 0x1f)),
            0x90..=0x9f => self.array_of(usize::from(tag & 0x0f)),
            0xc0 | 0xc2 => Ok(Item::Nil),
            0xc3 => Ok(Item::True),
            0xc4 | 0xd9 => self.sized(1).and_then(|length| self.bytes_of(length)),
            0xc5 | 0xda => self.sized(2).and_then(|length| self.bytes_of(length)),
            0xc6 | 0xdb => self.sized(4).and_then(|length| self.bytes_of(length)),
            0xdc => self.sized(2).and_then(|length| self.array_of(length)),
            0xdd => self.sized(4).and_then(|length| self.array_of(length)),
            0xcc..=0xcf => self.unsigned(1 << (tag - 0xcc)),
            0xd0..=0xd3 => self.signed(1 << (tag - 0xd0)),
            _ => Err(RedoError("an item that Lua does not pack for Assent")),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], RedoError> {
        match self.item()? {
            Item::Bytes(bytes) => Ok(bytes),
            _ => Err(RedoError("a string was expected")),
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str, RedoError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| RedoError("a text was expected"))
    }

    pub(super) fn array(&mut self) -> Result<usize, RedoError> {
        match self.item()? {
            Item::Array(length) => Ok(length),
            _ => Err(RedoError("an array was expected")),
        }
    }

    /// A reply of an op. Integers may stand as text, because Lua's numbers are not exact.
    pub(super) fn reply(&mut self, kind: ReplyKind) -> Result<Reply, RedoError> {
        Ok(match (self.item()?, kind) {
            (Item::Nil, _) => Reply::Nil,
            (Item::True, _) => Reply::Int(1),
            (Item::Int(number), _) => Reply::Int(number),
            (Item::Bytes(bytes), ReplyKind::Int) => {
                let text = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
                Reply::Int(text.ok_or(RedoError("an integer was expected"))?)
            }
            (Item::Bytes(bytes), ReplyKind::Hook) => {
                let json = std::str::from_utf8(bytes);
                Reply::Hook(json.map_err(|_| RedoError("a text was expected"))?.into())
            }
            (Item::Bytes(bytes), _) => Reply::Bytes(bytes.to_vec()),
            (Item::Array(2), ReplyKind::Estimate) => {
                let mut end = || match self.reply(ReplyKind::Int)? {
                    Reply::Int(number) => Ok(number),
                    _ => Err(RedoError("an integer was expected")),
                };
                Reply::Estimate { at_least: end()?, at_most: end()? }
            }
            (Item::Array(length), _) => {
                let items = (0..length).map(|_| self.reply(ReplyKind::Bytes));
                Reply::Array(items.collect::<Result<_, _>>()?)
            }
        })
    }

    /// The replies of ops, as the text of a JSON array.
    pub(super) fn replies(
        &mut self,
        kinds: impl Iterator<Item = ReplyKind>,
    ) -> Result<String, RedoError> {
        let length = self.array()?;
        let mut json = String::with_capacity(16 * length + 2);
        json.push('[');
        for (place, kind) in kinds.take(length).enumerate() {
            if place > 0 {
                json.push(',');
            }
            self.push_reply(kind, &mut json)?;
        }
        json.push(']');
        Ok(json)
    }

    fn push_reply(&mut self, kind: ReplyKind, json: &mut String) -> Result<(), RedoError> {
        let ahead = *self;
        match (self.item()?, kind) {
            (Item::Int(number), _) => {
                let _ = write!(json, "{number}");
            }
            (Item::Bytes(digits), ReplyKind::Int) if digits.is_ascii() => {
                json.extend(digits.iter().map(|byte| char::from(*byte)));
            }
            _ => {
                *self = ahead;
                let reply = self.reply(kind)?;
                let text = serde_json::to_string(&reply);
                json.push_str(&text.map_err(|_| RedoError("a reply that is no JSON"))?);
            }
        }
        Ok(())
    }
}

/// Writes items one after the other, as `cmsgpack` would.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    /// A length in as few bytes as it fits in: within the tag, or behind the tag of that width.
    #[expect(clippy::cast_possible_truncation, reason = "each arm has compared")]
    fn sized(&mut self, length: usize, fixed: (u8, usize), tags: [Option<u8>; 3]) {
        let [narrow, middle, wide] = tags;
        match (length, narrow) {
            (_, _) if length < fixed.1 => self.0.push(fixed.0 | length as u8),
            (0..=0xff, Some(tag)) => self.0.extend([tag, length as u8]),
            (0..=0xffff, _) => {
                self.0.extend(middle);
                self.0.extend((length as u16).to_be_bytes());
            }
            _ => {
                self.0.extend(wide);
                self.0.extend((length as u32).to_be_bytes());
            }
        }
    }

    /// An array of so many items, which follow.
    pub(super) fn array(&mut self, length: usize) {
        self.sized(length, (0x90, 16), [None, Some(0xdc), Some(0xdd)]);
    }

    /// A string of Lua.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.sized(bytes.len(), (0xa0, 32), [Some(0xd9), Some(0xda), Some(0xdb)]);
        self.0.extend(bytes);
    }

    /// An array of strings.
    pub(super) fn words(&mut self, words: &[Arg]) {
        self.array(words.len());
        words.iter().for_each(|word| self.bytes(&word.0));
    }

    /// A number that fits into the tag.
    pub(super) fn small(&mut self, number: u8) {
        debug_assert!(number < 0x80);
        self.0.push(number);
    }

    /// A reply, integers as text, as the scripts have them.
    pub(super) fn reply(&mut self, reply: &Reply) {
        match reply {
            Reply::Nil => self.0.push(0xc2),
            Reply::Int(number) => self.bytes(number.to_string().as_bytes()),
            Reply::Bytes(bytes) => self.bytes(bytes),
            Reply::Array(items) => {
                self.array(items.len());
                for item in items {
                    self.reply(item);
                }
            }
            Reply::Estimate { at_least, at_most } => {
                self.array(2);
                self.bytes(at_least.to_string().as_bytes());
                self.bytes(at_most.to_string().as_bytes());
            }
            Reply::Hook(json) => self.bytes(json.as_bytes()),
        }
    }
}

/// The kinds of replies as the scripts carry them, one letter each.
pub(super) const fn kind_letter(kind: ReplyKind) -> u8 {
    match kind {
        ReplyKind::Int => b'I',
        ReplyKind::Bytes => b'B',
        ReplyKind::Array => b'A',
        ReplyKind::Estimate => b'E',
        ReplyKind::Hook => b'H',
    }
}

/// The writes of a vote's `redo`, as the Redis commands that they are, in order.
pub fn decode_redo(redo: &[u8]) -> Result<Vec<Vec<Arg>>, RedoError> {
    if redo.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = Reader(redo);
    let writes = (0..reader.array()?)
        .map(|_| {
            let words = reader.array()?;
            (0..words).map(|_| Ok(Arg(reader.bytes()?.to_vec()))).collect()
        })
        .collect::<Result<_, _>>()?;
    if reader.0.is_empty() { Ok(writes) } else { Err(RedoError("it goes on behind its end")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_become_json_with_exact_integers() {
        // ["9223372036854775807", false, ["a", false], -1, "\xff"]
        let mut packed = vec![0x95, 0xb3];
        packed.extend(b"9223372036854775807");
        packed.extend([0xc2, 0x92, 0xa1, b'a', 0xc2, 0xff, 0xa1, 0xff]);
        let kinds =
            [ReplyKind::Int, ReplyKind::Bytes, ReplyKind::Array, ReplyKind::Int, ReplyKind::Bytes];
        assert_eq!(
            Reader(&packed).replies(kinds.into_iter()).unwrap(),
            r#"[9223372036854775807,null,["a",null],-1,{"base64":"/w=="}]"#
        );
    }

    #[test]
    fn numbers_of_every_width_are_read() {
        for (bytes, number) in [
            (&[0x7f][..], 127),
            (&[0xcc, 0xff], 255),
            (&[0xcd, 0xff, 0xff], 65_535),
            (&[0xce, 0xff, 0xff, 0xff, 0xff], 4_294_967_295),
            (&[0xd0, 0x80], -128),
            (&[0xd1, 0x80, 0x00], -32_768),
            (&[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0], i64::MIN),
        ] {
            assert_eq!(Reader(bytes).item().unwrap(), Item::Int(number));
        }
    }

    #[test]
    fn what_is_written_is_read_at_every_width() {
        for length in [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536] {
            let mut writer = Writer::default();
            writer.array(length);
            writer.bytes(&vec![b'x'; length]);
            // An array must have as many bytes behind it as items, or it is taken for cut.
            writer.0.resize(writer.0.len() + length, 0);
            let mut reader = Reader(&writer.0);
            assert_eq!(reader.array().unwrap(), length);
            assert_eq!(reader.bytes().unwrap().len(), length);
        }
        let reply = Reply::Array(vec![Reply::Nil, Reply::Bytes(b"\xff".to_vec())]);
        let mut writer = Writer::default();
        writer.reply(&reply);
        assert_eq!(Reader(&writer.0).reply(ReplyKind::Array).unwrap(), reply);
        let estimate = Reply::Estimate { at_least: i64::MIN, at_most: -1 };
        let mut writer = Writer::default();
        writer.reply(&estimate);
        assert_eq!(Reader(&writer.0).reply(ReplyKind::Estimate).unwrap(), estimate);
        let mut writer = Writer::default();
        writer.reply(&Reply::Int(i64::MIN));
        assert_eq!(Reader(&writer.0).reply(ReplyKind::Int).unwrap(), Reply::Int(i64::MIN));
    }

    #[test]
    fn what_is_cut_or_foreign_is_an_error() {
        let whole = [0x91, 0x92, 0xa3, b'D', b'E', b'L', 0xa1, b'k'];
        assert_eq!(decode_redo(&whole).unwrap(), [[Arg::from("DEL"), Arg::from("k")]]);
        for end in 1..whole.len() {
            assert!(decode_redo(&whole[..end]).is_err(), "{end}");
        }
        assert!(decode_redo(&[0x91, 0x81]).is_err());
        assert!(decode_redo(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(decode_redo(&[0x90, 0x90]).is_err());
    }
}
