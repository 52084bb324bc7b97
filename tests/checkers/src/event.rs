//! One line of a history.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::action::Action;
use crate::document::Document;

/// What happened to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It was begun.
    Invoke,
    /// It took effect.
    Ok,
    /// It did not and will never take effect.
    Fail,
    /// It may have taken effect, or may yet, or never.
    Info,
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Process {
    /// A client, that does one thing at a time.
    Client(i64),
    /// Anybody else: the fault injector, the audit.
    Other(String),
}

/// What a line is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A client's operation.
    Action(Action),
    /// What an audit saw.
    Document(Document),
    /// Something that no checker reads, by its `f`.
    Note(String, Box<str>),
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The order in which things happened; strictly rising.
    pub index: u64,
    /// What happened.
    pub kind: Kind,
    /// To whom.
    pub process: Process,
    /// About what.
    pub body: Body,
    /// Nanoseconds since the history began. For people: only the index orders.
    pub time_ns: u64,
    /// Why it is `fail` or `info`.
    pub error: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(default)]
    index: Option<u64>,
    #[serde(rename = "type")]
    kind: Kind,
    process: Process,
    #[serde(default)]
    f: Option<String>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(default)]
    time: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<serde_json::Value>,
}

impl Event {
    /// Reads one line; `place` is its index if it does not say one.
    pub(crate) fn parse(line: &str, place: u64) -> serde_json::Result<Self> {
        let line: Line<'_> = serde_json::from_str(line)?;
        let f = line.f.as_deref().unwrap_or("txn");
        let value = line.value.unwrap_or(RawValue::NULL);
        let body = if let Some(action) = Action::parse(f, value) {
            Body::Action(action?)
        } else if let Some(document) = Document::parse(f, value) {
            Body::Document(document?)
        } else {
            Body::Note(f.to_owned(), value.get().into())
        };
        let error = line.error.map(|error| match error {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        });
        Ok(Self {
            index: line.index.unwrap_or(place),
            kind: line.kind,
            process: line.process,
            body,
            time_ns: line.time.unwrap_or(0),
            error,
        })
    }

    /// The line, without its end.
    pub fn to_line(&self) -> serde_json::Result<String> {
        let (f, value) = match &self.body {
            Body::Action(action) => (action.f(), action.value()?),
            Body::Document(document) => (document.f(), document.value()?),
            Body::Note(f, value) => (f.as_str(), RawValue::from_string(value.to_string())?),
        };
        serde_json::to_string(&Line {
            index: Some(self.index),
            kind: self.kind,
            process: self.process.clone(),
            f: Some(f.to_owned()),
            value: Some(&value),
            time: Some(self.time_ns),
            error: self.error.clone().map(serde_json::Value::String),
        })
    }
}
