//! Parameters from JSON, rows to JSON.
//!
//! A parameter travels as text, so that PostgreSQL reads it by the type that it has found for it. A
//! row comes in the binary form of its types; those of which nobody would agree on a JSON form are
//! refused, with the advice to cast them.

use std::error::Error;
use std::fmt::Write as _;

use assent_common::ErrorCode;
use assent_common::limits;
use assent_common::outcome::Refusal;
use assent_common::wire::too_deep_at;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type};

/// Arrays and objects inside each other in a row: three are around it.
const ROW_DEPTH_MAX: usize = limits::REPLY_DEPTH_MAX - 3;

/// A parameter, as text.
#[derive(Debug)]
pub(super) struct TextParam(Option<String>);

impl TextParam {
    /// The text that PostgreSQL is to read: of a JSON string its content, of anything else its
    /// JSON.
    pub(super) fn new(json: &RawValue) -> Self {
        let text = json.get();
        Self(match text.as_bytes().first() {
            Some(b'n') => None,
            // What parsed before parses again.
            Some(b'"') => Some(serde_json::from_str(text).unwrap_or_default()),
            _ => Some(text.to_owned()),
        })
    }

    /// Whether it holds what no text of PostgreSQL can.
    pub(super) fn has_zero_byte(&self) -> bool {
        self.0.as_ref().is_some_and(|text| text.contains('\0'))
    }
}

impl ToSql for TextParam {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match &self.0 {
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

/// A value of a row: its JSON.
pub(super) struct JsonValue(pub(super) String);

impl JsonValue {
    /// What is compared with an expectation: of a JSON string its content, nothing of `null`.
    pub(super) fn operand(&self) -> Option<Vec<u8>> {
        match self.0.as_bytes().first() {
            Some(b'n') => None,
            Some(b'"') => {
                let text: Result<String, _> = serde_json::from_str(&self.0);
                Some(text.unwrap_or_default().into_bytes())
            }
            _ => Some(self.0.clone().into_bytes()),
        }
    }
}

impl<'a> FromSql<'a> for JsonValue {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let mut json = String::new();
        write(&mut json, ty, raw)?;
        Ok(Self(json))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self("null".to_owned()))
    }

    fn accepts(ty: &Type) -> bool {
        has_form(ty)
    }
}

/// A row as an object, in the order of its columns.
pub(super) fn object(row: &Row) -> Result<String, Refusal> {
    let mut json = String::from("{");
    for (place, column) in row.columns().iter().enumerate() {
        if place > 0 {
            json.push(',');
        }
        // A name always becomes a JSON string.
        json.push_str(&serde_json::to_string(column.name()).unwrap_or_default());
        json.push(':');
        json.push_str(&value(row, place)?.0);
    }
    json.push('}');
    if json.len() > limits::REPLY_BYTES_MAX {
        let detail = format!("a row has more than {} bytes", limits::REPLY_BYTES_MAX);
        return Err(Refusal::new(ErrorCode::ReplyTooLarge, detail));
    }
    match too_deep_at(json.as_bytes(), ROW_DEPTH_MAX) {
        None => Ok(json),
        Some(_) => Err(Refusal::new(
            ErrorCode::ReplyTooLarge,
            "a value of JSON has too many arrays and objects inside each other; cast it to text",
        )),
    }
}

/// One value of a row.
pub(super) fn value(row: &Row, place: usize) -> Result<JsonValue, Refusal> {
    row.try_get(place).map_err(|_| {
        let column = &row.columns()[place];
        let (name, ty) = (column.name(), column.type_());
        let detail = format!(
            "column {name:?} is a {ty} that has no JSON form here: cast it, for example \
             {name}::text"
        );
        Refusal::new(ErrorCode::BadArguments, detail)
    })
}

fn has_form(ty: &Type) -> bool {
    match ty.kind() {
        Kind::Array(member) => has_form(member),
        Kind::Domain(base) => has_form(base),
        Kind::Enum(_) => true,
        Kind::Simple => matches!(
            *ty,
            Type::BOOL
                | Type::INT2
                | Type::INT4
                | Type::INT8
                | Type::OID
                | Type::FLOAT4
                | Type::FLOAT8
                | Type::NUMERIC
                | Type::TEXT
                | Type::VARCHAR
                | Type::BPCHAR
                | Type::NAME
                | Type::CHAR
                | Type::UNKNOWN
                | Type::BYTEA
                | Type::JSON
                | Type::JSONB
                | Type::UUID
                | Type::DATE
                | Type::TIMESTAMP
                | Type::TIMESTAMPTZ
        ),
        _ => ty == &Type::VOID,
    }
}

type Decoded = Result<(), Box<dyn Error + Sync + Send>>;

fn write(json: &mut String, ty: &Type, raw: &[u8]) -> Decoded {
    match ty.kind() {
        Kind::Array(_) => {
            let members = Vec::<JsonValue>::from_sql(ty, raw)?;
            let members: Vec<String> = members.into_iter().map(|it| it.0).collect();
            json.push('[');
            json.push_str(&members.join(","));
            json.push(']');
            return Ok(());
        }
        Kind::Domain(base) => return write(json, base, raw),
        _ => {}
    }
    match *ty {
        Type::BOOL => write!(json, "{}", bool::from_sql(ty, raw)?)?,
        Type::INT2 => write!(json, "{}", i16::from_sql(ty, raw)?)?,
        Type::INT4 => write!(json, "{}", i32::from_sql(ty, raw)?)?,
        Type::INT8 => write!(json, "{}", i64::from_sql(ty, raw)?)?,
        Type::OID => write!(json, "{}", u32::from_sql(ty, raw)?)?,
        Type::FLOAT4 => float(json, f32::from_sql(ty, raw)?.into(), f32::from_sql(ty, raw)?)?,
        Type::FLOAT8 => float(json, f64::from_sql(ty, raw)?, f64::from_sql(ty, raw)?)?,
        Type::NUMERIC => numeric(json, raw)?,
        Type::BYTEA => write!(json, r#"{{"base64":"{}"}}"#, STANDARD.encode(raw))?,
        Type::JSON => plain_json(json, raw)?,
        // Its first byte is a version.
        Type::JSONB => plain_json(json, raw.get(1..).unwrap_or_default())?,
        Type::UUID => write!(json, "\"{}\"", uuid::Uuid::from_slice(raw)?)?,
        Type::DATE => write!(json, "\"{}\"", date(raw)?)?,
        Type::TIMESTAMP => write!(json, "\"{}\"", timestamp(raw)?.map_or_else(endless, naive))?,
        Type::TIMESTAMPTZ => {
            write!(json, "\"{}\"", timestamp(raw)?.map_or_else(endless, |at| at.to_string()))?;
        }
        Type::VOID => json.push_str("null"),
        _ => json.push_str(&serde_json::to_string(std::str::from_utf8(raw)?)?),
    }
    Ok(())
}

/// What is no JSON number is a string.
fn float(json: &mut String, wide: f64, as_it_is: impl std::fmt::Display) -> Decoded {
    if wide.is_finite() {
        Ok(write!(json, "{as_it_is}")?)
    } else {
        Ok(write!(json, "\"{as_it_is}\"")?)
    }
}

fn plain_json(json: &mut String, raw: &[u8]) -> Decoded {
    let value: &RawValue = serde_json::from_slice(raw)?;
    json.push_str(value.get());
    Ok(())
}

fn endless(forward: bool) -> String {
    if forward { "infinity" } else { "-infinity" }.to_owned()
}

fn naive(at: Timestamp) -> String {
    at.to_zoned(jiff::tz::TimeZone::UTC).datetime().to_string()
}

/// Microseconds since 2000; of an endless time, whether it is the last one.
fn timestamp(raw: &[u8]) -> Result<Result<Timestamp, bool>, Box<dyn Error + Sync + Send>> {
    let micros = i64::from_sql(&Type::INT8, raw)?;
    if micros == i64::MAX || micros == i64::MIN {
        return Ok(Err(micros == i64::MAX));
    }
    let epoch: Timestamp = "2000-01-01T00:00:00Z".parse()?;
    Ok(Ok(epoch.checked_add(SignedDuration::from_micros(micros))?))
}

/// Days since 2000.
fn date(raw: &[u8]) -> Result<String, Box<dyn Error + Sync + Send>> {
    let days = i32::from_sql(&Type::INT4, raw)?;
    if days == i32::MAX || days == i32::MIN {
        return Ok(endless(days == i32::MAX));
    }
    let epoch: DateTime = "2000-01-01T00:00:00".parse()?;
    let at = epoch.checked_add(SignedDuration::from_hours(24 * i64::from(days)))?;
    Ok(at.date().to_string())
}

/// A `numeric`: groups of four decimal digits, the weight of the first, and how many digits are
/// shown behind the point.
fn numeric(json: &mut String, raw: &[u8]) -> Decoded {
    const NEGATIVE: i32 = 0x4000;
    let words: Vec<i32> = (raw.chunks_exact(2))
        .map(|pair| i32::from(i16::from_be_bytes([pair[0], pair[1]])))
        .collect();
    let [_, weight, sign, scale, groups @ ..] = &words[..] else {
        return Err("a numeric is cut off".into());
    };
    let special = match *sign & 0xffff {
        0 => None,
        NEGATIVE => {
            json.push('-');
            None
        }
        0xd000 => Some("\"Infinity\""),
        0xf000 => Some("\"-Infinity\""),
        _ => Some("\"NaN\""),
    };
    if let Some(special) = special {
        json.push_str(special);
        return Ok(());
    }
    let group = |place: i32| {
        let place = usize::try_from(place).ok();
        place.and_then(|place| groups.get(place)).copied().unwrap_or(0)
    };
    write!(json, "{}", group(if *weight < 0 { -1 } else { 0 }))?;
    for place in 1..=(*weight).max(0) {
        write!(json, "{:04}", group(place))?;
    }
    if *scale > 0 {
        let mut digits = String::new();
        for place in 0..=(*scale - 1) / 4 {
            write!(digits, "{:04}", group(place + weight + 1))?;
        }
        digits.truncate(usize::try_from(*scale)?);
        write!(json, ".{digits}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_the_text_that_postgresql_reads() {
        for (json, text) in [
            ("null", None),
            ("true", Some("true")),
            ("1.50", Some("1.50")),
            ("123456789012345678901234567890", Some("123456789012345678901234567890")),
            (r#""a\"b\u00e4""#, Some("a\"b\u{e4}")),
            (r#"{"a": [1]}"#, Some(r#"{"a": [1]}"#)),
        ] {
            let json = RawValue::from_string(json.to_owned()).unwrap();
            assert_eq!(TextParam::new(&json).0.as_deref(), text);
        }
    }
}
