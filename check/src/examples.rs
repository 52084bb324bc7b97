//! What the branches of a participant look like: the examples that a check is run with.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use assent_common::wire::transaction::no_ops;

/// What stands in the examples for a word that is new for each duty.
const RUN: &str = "{run}";

/// The examples: of a write, and of what is needed around it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExampleBranches {
    /// Changes something by the same amount each time that it is applied.
    pub(crate) write: ExampleBranch,
    /// Changes nothing; the first number in its replies shows how often the write was applied.
    pub(crate) read: ExampleBranch,
    /// Is voted no, for a reason of the data.
    pub(crate) refused: ExampleBranch,
    /// Cannot be while the write is staged.
    #[serde(default)]
    pub(crate) conflict: Option<ExampleBranch>,
    /// Is run at the end of each duty.
    #[serde(default)]
    pub(crate) cleanup: Option<ExampleBranch>,
}

/// A branch, as a client would send it, without the participant's name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExampleBranch {
    #[serde(default)]
    ops: Option<Value>,
    #[serde(default)]
    input: Option<Value>,
}

/// The text is no example.
#[derive(Debug, thiserror::Error)]
pub enum InvalidExamples {
    /// It is no JSON of that form.
    #[error("the examples cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A branch says nothing.
    #[error("the example {0:?} has neither `ops` (a list) nor `input`")]
    Empty(&'static str),
}

/// The ops and the input of a branch.
#[derive(Debug)]
pub(crate) struct BranchParts {
    pub(crate) ops: Box<RawValue>,
    pub(crate) input: Option<Box<RawValue>>,
}

impl ExampleBranches {
    /// Reads them from JSON.
    pub fn parse(json: &str) -> Result<Self, InvalidExamples> {
        let examples: Self = serde_json::from_str(json)?;
        let Self { write, read, refused, conflict, cleanup } = &examples;
        let all = [
            ("write", Some(write)),
            ("read", Some(read)),
            ("refused", Some(refused)),
            ("conflict", conflict.as_ref()),
            ("cleanup", cleanup.as_ref()),
        ];
        for (name, branch) in all {
            if branch.is_some_and(|branch| !branch.says_something()) {
                return Err(InvalidExamples::Empty(name));
            }
        }
        Ok(examples)
    }

    /// Those of Assent's own participant: Redis commands.
    ///
    /// # Panics
    /// Never: a test parses them.
    #[must_use]
    pub fn redis() -> Self {
        let key = "assent:check:{run}";
        let branch = |ops: Value| ExampleBranch { ops: Some(ops), input: None };
        let op = |words: Value| branch(serde_json::json!([{ "cmd": words }]));
        Self {
            write: op(serde_json::json!(["INCRBY", key, 1])),
            read: op(serde_json::json!(["GET", key])),
            refused: branch(serde_json::json!([{"cmd": ["GET", key], "expect": {"eq": "never"}}])),
            conflict: Some(op(serde_json::json!(["APPEND", key, "0"]))),
            cleanup: Some(op(serde_json::json!(["DEL", key]))),
        }
    }
}

impl ExampleBranch {
    const fn says_something(&self) -> bool {
        matches!(&self.ops, Some(Value::Array(_))) || (self.ops.is_none() && self.input.is_some())
    }

    /// The branch, with the word of this duty in it.
    pub(crate) fn parts(&self, run: &str) -> Result<BranchParts, serde_json::Error> {
        let raw = |value: &Value| serde_json::value::to_raw_value(&filled(value, run));
        let ops = self.ops.as_ref().map(raw).transpose()?;
        let input = self.input.as_ref().map(raw).transpose()?;
        Ok(BranchParts { ops: ops.unwrap_or_else(no_ops), input })
    }
}

/// The same JSON with the word of this duty in its strings.
fn filled(value: &Value, run: &str) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace(RUN, run)),
        Value::Array(items) => items.iter().map(|item| filled(item, run)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| (name.clone(), filled(field, run))).collect()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_duty_is_put_into_each_string() {
        let examples = ExampleBranches::redis();
        let parts = examples.write.parts("w7").unwrap();
        assert_eq!(parts.ops.get(), r#"[{"cmd":["INCRBY","assent:check:w7",1]}]"#);
        assert!(parts.input.is_none());
        let json = r#"{"write": {"input": {"a": ["{run}-x", 1]}}, "read": {"input": 1},
            "refused": {"ops": []}}"#;
        let examples = ExampleBranches::parse(json).unwrap();
        let parts = examples.write.parts("w8").unwrap();
        assert_eq!(parts.input.unwrap().get(), r#"{"a":["w8-x",1]}"#);
        assert_eq!(parts.ops.get(), "[]");
    }

    #[test]
    fn examples_that_say_nothing_are_refused() {
        for json in [
            "7",
            r#"{"write": {"ops": []}}"#,
            r#"{"write": {}, "read": {"ops": []}, "refused": {"ops": []}}"#,
            r#"{"write": {"ops": 7}, "read": {"ops": []}, "refused": {"ops": []}}"#,
            r#"{"write": {"ops": []}, "read": {"ops": []}, "refused": {"ops": []}, "extra": 1}"#,
        ] {
            assert!(ExampleBranches::parse(json).is_err(), "{json}");
        }
    }
}
