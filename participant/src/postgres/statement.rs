//! One statement: its parameters, its rows, and whether its reply is what was expected.

use std::pin::pin;

use assent_common::command::{Comparison, Expect};
use assent_common::outcome::Refusal;
use assent_common::sql::SqlOp;
use assent_common::text::cut_owned;
use assent_common::value::readable;
use assent_common::{ErrorCode, limits};
use futures_util::TryStreamExt as _;
use tokio_postgres::Client;

use super::mutants;
use super::said::refusal;
use super::values::{TextParam, object, value};

/// The rows of a statement.
#[derive(Default)]
struct JsonRows {
    /// As JSON.
    objects: Vec<String>,
    bytes: usize,
    /// The first column of the first row; nothing of `NULL`.
    first: Option<Vec<u8>>,
}

/// Runs a statement; its reply, as JSON.
pub(super) async fn run(client: &Client, op: &SqlOp) -> Result<String, Refusal> {
    let params: Vec<TextParam> = op.params.iter().map(|param| TextParam::new(param)).collect();
    if params.iter().any(TextParam::has_zero_byte) {
        let detail = "a parameter has a zero byte, which no text of PostgreSQL can hold";
        return Err(Refusal::new(ErrorCode::BadArguments, detail));
    }
    let sql = mutants::statement(&op.sql);
    let statement = client.prepare(&sql).await.map_err(|error| refusal(&error))?;
    let (takes, given) = (statement.params().len(), params.len());
    if takes != given {
        let detail = format!("the statement has {takes} parameters, and {given} are given");
        return Err(Refusal::new(ErrorCode::BadArguments, detail));
    }
    let stream = client.query_raw(&statement, &params).await.map_err(|error| refusal(&error))?;
    let mut stream = pin!(stream);
    let mut rows = JsonRows::default();
    while let Some(row) = stream.try_next().await.map_err(|error| refusal(&error))? {
        if rows.objects.is_empty() && !row.is_empty() {
            rows.first = value(&row, 0)?.operand();
        }
        rows.take(object(&row)?)?;
    }
    let (json, exists, operand) = if statement.columns().is_empty() {
        let count = stream.rows_affected().unwrap_or(0);
        (count.to_string(), count > 0, Some(count.to_string().into_bytes()))
    } else {
        (
            format!(r#"{{"rows":[{}]}}"#, rows.objects.join(",")),
            !rows.objects.is_empty(),
            rows.first,
        )
    };
    let unmet = op.expect.as_ref().and_then(|it| first_unmet(it, operand.as_deref(), exists));
    match unmet {
        Some(wanted) => {
            let what = match statement.columns() {
                [] => "the number of rows",
                _ => "the first value",
            };
            Err(not_expected(&json, what, operand.as_deref(), &wanted))
        }
        None => Ok(json),
    }
}

impl JsonRows {
    fn take(&mut self, object: String) -> Result<(), Refusal> {
        self.bytes += object.len() + 1;
        let too_large = |detail: String| Err(Refusal::new(ErrorCode::ReplyTooLarge, detail));
        if self.objects.len() == limits::SQL_ROWS_MAX {
            return too_large(format!(
                "the statement returns more than {} rows",
                limits::SQL_ROWS_MAX
            ));
        }
        if self.bytes > limits::REPLY_BYTES_MAX {
            return too_large(format!(
                "the statement replies more than {} bytes",
                limits::REPLY_BYTES_MAX
            ));
        }
        self.objects.push(object);
        Ok(())
    }
}

/// As a Redis branch says it: what was found, and what was expected of it.
fn not_expected(
    reply: &str,
    what: &str,
    operand: Option<&[u8]>,
    wanted: &Comparison<'_>,
) -> Refusal {
    let shown = (reply.len() <= limits::REPLY_SHOWN_BYTES_MAX).then(|| reply.into());
    let found = match wanted {
        Comparison::Exists(_) if operand.is_none() => {
            "there is no row, or nothing in it".to_owned()
        }
        _ => format!("{what} is {}", operand.map_or_else(|| "nil".to_owned(), readable)),
    };
    let found = cut_owned(found, limits::REPLY_SHOWN_BYTES_MAX);
    let detail = format!("{found}, expected {}", in_words(wanted));
    Refusal { reply: shown, ..Refusal::new(ErrorCode::ExpectationFailed, detail) }
}

/// A comparison, in the words of the request.
fn in_words(comparison: &Comparison<'_>) -> String {
    let (word, operand) = match comparison {
        Comparison::Eq(wanted) => ("eq", *wanted),
        Comparison::Ne(wanted) => ("ne", *wanted),
        Comparison::Gt(bound) => ("gt", *bound),
        Comparison::Ge(bound) => ("ge", *bound),
        Comparison::Lt(bound) => ("lt", *bound),
        Comparison::Le(bound) => ("le", *bound),
        Comparison::EqNil => return "eq nil".to_owned(),
        Comparison::NeNil => return "ne nil".to_owned(),
        Comparison::Exists(true) => return "that it exists".to_owned(),
        Comparison::Exists(false) => return "that it does not exist".to_owned(),
    };
    format!("{word} {}", readable(operand))
}

/// The first comparison that the reply does not meet: by its first value, where it has one.
fn first_unmet<'a>(
    expect: &'a Expect,
    operand: Option<&[u8]>,
    exists: bool,
) -> Option<Comparison<'a>> {
    expect.comparisons().find(|comparison| match comparison {
        Comparison::Eq(wanted) => operand != Some(*wanted),
        Comparison::Ne(wanted) => operand == Some(*wanted),
        Comparison::EqNil => operand.is_some(),
        Comparison::NeNil => operand.is_none(),
        Comparison::Gt(bound) => !compares(operand, bound, |a, b| a > b, |a, b| a > b),
        Comparison::Ge(bound) => !compares(operand, bound, |a, b| a >= b, |a, b| a >= b),
        Comparison::Lt(bound) => !compares(operand, bound, |a, b| a < b, |a, b| a < b),
        Comparison::Le(bound) => !compares(operand, bound, |a, b| a <= b, |a, b| a <= b),
        Comparison::Exists(wanted) => exists != *wanted,
    })
}

/// Exactly, if both are 64-bit integers; else as floats. What is no number fulfils nothing.
fn compares(
    operand: Option<&[u8]>,
    bound: &[u8],
    integers: impl Fn(i64, i64) -> bool,
    floats: impl Fn(f64, f64) -> bool,
) -> bool {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let (Some(operand), Some(bound)) = (operand.and_then(text), text(bound)) else { return false };
    match (operand.parse(), bound.parse()) {
        (Ok(operand), Ok(bound)) => integers(operand, bound),
        _ => match (operand.parse(), bound.parse()) {
            (Ok(operand), Ok(bound)) => floats(operand, bound),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: a condition holds as it does at a Redis.
    #[test]
    fn a_condition_is_held_against_the_first_value() {
        let met = |json: &str, operand: Option<&str>, exists| {
            let expect: Expect = serde_json::from_str(json).unwrap();
            first_unmet(&expect, operand.map(str::as_bytes), exists).is_none()
        };
        for (expect, operand, exists, is) in [
            (r#"{"ge":0}"#, Some("70"), true, true),
            (r#"{"ge":0}"#, Some("-1"), true, false),
            (r#"{"ge":9007199254740993}"#, Some("9007199254740992"), true, false),
            (r#"{"gt":0.5,"lt":1}"#, Some("0.75"), true, true),
            (r#"{"ge":0}"#, None, true, false),
            (r#"{"le":0}"#, Some("none"), true, false),
            (r#"{"eq":"a"}"#, Some("a"), true, true),
            (r#"{"ne":"a"}"#, Some("a"), true, false),
            (r#"{"eq":1}"#, Some("1"), true, true),
            (r#"{"eq":null}"#, None, false, true),
            (r#"{"ne":null}"#, None, false, false),
            (r#"{"exists":true}"#, None, false, false),
            (r#"{"exists":false}"#, None, false, true),
        ] {
            assert_eq!(met(expect, operand, exists), is, "{expect} {operand:?}");
        }
    }

    /// Promise *honest*: who was refused reads what was found, as of a branch at a Redis.
    #[test]
    fn a_condition_that_does_not_hold_is_said_with_what_was_found() {
        let said = |json: &str, operand: Option<&str>| {
            let expect: Expect = serde_json::from_str(json).unwrap();
            let operand = operand.map(str::as_bytes);
            let unmet = first_unmet(&expect, operand, false).unwrap();
            not_expected("{}", "the first value", operand, &unmet).detail
        };
        let low = said(r#"{"ge":0}"#, Some("-430"));
        assert_eq!(low, "the first value is -430, expected ge 0");
        let none = said(r#"{"eq":"open"}"#, None);
        assert_eq!(none, "the first value is nil, expected eq open");
        let missing = said(r#"{"exists":true}"#, None);
        assert_eq!(missing, "there is no row, or nothing in it, expected that it exists");
    }
}
