//! What a client hears: values, as each version of the protocol writes them.

use std::borrow::Cow;

use bytes::{BufMut as _, BytesMut};

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RespVersion {
    /// What every client speaks.
    #[default]
    Resp2,
    /// What a client asks for by `HELLO 3`.
    Resp3,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// A word such as `OK`.
    Status(Cow<'static, str>),
    /// An error: a word in capitals and a sentence.
    Error(String),
    /// An integer.
    Int(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// No bytes.
    Nil,
    /// No array.
    NilArray,
    /// Several values.
    Array(Vec<Value>),
    /// Names and values; without names in the older version.
    Map(Vec<(Value, Value)>),
    /// Several values in no order; an array in the older version.
    Set(Vec<Value>),
    /// A float as Redis prints it; bytes in the older version.
    Double(Vec<u8>),
}

impl Value {
    /// `OK`.
    #[must_use]
    pub(crate) const fn ok() -> Self {
        Self::Status(Cow::Borrowed("OK"))
    }

    /// Bytes.
    pub(crate) fn bulk(text: impl AsRef<[u8]>) -> Self {
        Self::Bulk(text.as_ref().to_vec())
    }

    /// Writes it.
    pub(crate) fn write(&self, version: RespVersion, out: &mut BytesMut) {
        let is_new = version == RespVersion::Resp3;
        match self {
            Self::Status(word) => line(out, b'+', word),
            Self::Error(words) => line(out, b'-', words),
            Self::Int(number) => head(out, b':', *number),
            Self::Bulk(bytes) => bulk(out, bytes),
            Self::Nil | Self::NilArray if is_new => out.put_slice(b"_\r\n"),
            Self::Nil => out.put_slice(b"$-1\r\n"),
            Self::NilArray => out.put_slice(b"*-1\r\n"),
            Self::Array(items) => list(out, b'*', items, version),
            Self::Set(items) => list(out, if is_new { b'~' } else { b'*' }, items, version),
            Self::Map(entries) => {
                let (mark, count) =
                    if is_new { (b'%', entries.len()) } else { (b'*', 2 * entries.len()) };
                head(out, mark, count);
                for (name, value) in entries {
                    name.write(version, out);
                    value.write(version, out);
                }
            }
            Self::Double(text) if is_new => {
                out.put_u8(b',');
                out.put_slice(text);
                out.put_slice(b"\r\n");
            }
            Self::Double(text) => bulk(out, text),
        }
    }
}

fn head(out: &mut BytesMut, mark: u8, number: impl itoa::Integer) {
    out.put_u8(mark);
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
    out.put_slice(b"\r\n");
}

/// One line, whatever is in the words.
fn line(out: &mut BytesMut, mark: u8, words: &str) {
    out.put_u8(mark);
    let one_line = words.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte });
    out.extend(one_line);
    out.put_slice(b"\r\n");
}

fn bulk(out: &mut BytesMut, bytes: &[u8]) {
    head(out, b'$', bytes.len());
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

fn list(out: &mut BytesMut, mark: u8, items: &[Value], version: RespVersion) {
    head(out, mark, items.len());
    items.iter().for_each(|item| item.write(version, out));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_own_way_to_say_it() {
        let value = Value::Array(vec![
            Value::ok(),
            Value::Error("ERR two\r\nlines".to_owned()),
            Value::Int(i64::MIN),
            Value::bulk([0xff, b'\r']),
            Value::Nil,
            Value::NilArray,
            Value::Map(vec![(Value::bulk("f"), Value::Int(1))]),
            Value::Set(vec![Value::bulk("m")]),
            Value::Double(b"1.5".to_vec()),
        ]);
        let common = b"*9\r\n+OK\r\n-ERR two  lines\r\n:-9223372036854775808\r\n$2\r\n\xff\r\r\n";
        for (version, rest) in [
            (
                RespVersion::Resp2,
                "$-1\r\n*-1\r\n*2\r\n$1\r\nf\r\n:1\r\n*1\r\n$1\r\nm\r\n$3\r\n1.5\r\n",
            ),
            (RespVersion::Resp3, "_\r\n_\r\n%1\r\n$1\r\nf\r\n:1\r\n~1\r\n$1\r\nm\r\n,1.5\r\n"),
        ] {
            let mut out = BytesMut::new();
            value.write(version, &mut out);
            let expected = [&common[..], rest.as_bytes()].concat();
            assert_eq!(out.escape_ascii().to_string(), expected.escape_ascii().to_string());
        }
    }
}
