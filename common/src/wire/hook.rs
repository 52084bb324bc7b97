//! What a participant and the service's own hook say to each other.
//!
//! ```text
//! POST <hook_url>   HookQuestion → HookAnswer: `read`, or `ops` and `reply`, or `veto`
//! ```
//!
//! Everything about an answer that can be checked without the data is checked here, once, also for
//! hooks that are part of the participant's process.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::command::OpRequest;
use crate::ids::{ParticipantName, TransactionId, Txid};
use crate::limits;
use crate::text;
use crate::value::{given, readable};
use crate::wire::bounded;
use crate::wire::depth::too_deep_at;

/// What a hook is asked. It is asked again, in the same words, after an answer that was lost or
/// unclear, and when something that it has read was changed meanwhile.
#[derive(Debug, Serialize)]
pub struct HookQuestion<'a> {
    /// The branch: what a hook must answer the same for.
    pub txid: Txid,
    /// The transaction, as its client knows it. It may have several branches one after another, of
    /// different txids, if it met locks.
    pub id: TransactionId,
    /// The participant.
    pub participant: &'a ParticipantName,
    /// What the client sent.
    pub input: &'a RawValue,
    /// The replies of all that the hook has asked to be read so far, in that order.
    pub reads: &'a [Box<RawValue>],
}

/// The same as a hook reads it. A later version may say more, which is passed over.
#[derive(Debug, Deserialize)]
pub struct HookAsked {
    /// The branch.
    pub txid: Txid,
    /// The transaction.
    pub id: TransactionId,
    /// The participant.
    pub participant: ParticipantName,
    /// What the client sent.
    pub input: Box<RawValue>,
    /// The replies of all reads so far.
    #[serde(default)]
    pub reads: Vec<Box<RawValue>>,
}

/// What a hook answers, as it stands on the wire. The default says nothing, which is no answer.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookAnswer {
    /// What to read before it decides; it is asked again with the replies.
    #[serde(default, deserialize_with = "bounded::ops_given")]
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<Vec<OpRequest>>,
    /// What its branch does beside the client's ops.
    #[serde(default, deserialize_with = "bounded::ops_given")]
    #[serde(skip_serializing_if = "Option::is_none")]
    ops: Option<Vec<OpRequest>>,
    /// What the client is told, any JSON.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    reply: Option<Box<RawValue>>,
    /// That the transaction must not be.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    veto: Option<Veto>,
}

impl From<HookSays> for HookAnswer {
    fn from(says: HookSays) -> Self {
        match says {
            HookSays::Read(read) => Self { read: Some(read), ..Self::default() },
            HookSays::Stage(ops, HookReply(reply)) => {
                Self { ops: Some(ops), reply: Some(reply), ..Self::default() }
            }
            HookSays::Veto(veto) => Self { veto: Some(veto), ..Self::default() },
        }
    }
}

/// What a hook wants.
#[derive(Debug, Clone)]
pub enum HookSays {
    /// To know this first.
    Read(Vec<OpRequest>),
    /// A branch of the client's ops and these.
    Stage(Vec<OpRequest>, HookReply),
    /// That the transaction is aborted.
    Veto(Veto),
}

/// What a hook tells the client, within its limits: the text of any JSON.
#[derive(Debug, Clone)]
pub struct HookReply(Box<RawValue>);

impl HookReply {
    /// Nothing.
    #[must_use]
    pub fn null() -> Self {
        Self(RawValue::NULL.to_owned())
    }

    /// The JSON.
    #[must_use]
    pub fn get(&self) -> &str {
        self.0.get()
    }
}

impl TryFrom<Box<RawValue>> for HookReply {
    type Error = String;

    fn try_from(json: Box<RawValue>) -> Result<Self, String> {
        let (bytes, depth) = (limits::HOOK_REPLY_BYTES_MAX, limits::HOOK_REPLY_DEPTH_MAX);
        if json.get().len() > bytes {
            return Err(format!("`reply` has more than {bytes} bytes"));
        }
        if too_deep_at(json.get().as_bytes(), depth).is_some() {
            return Err(format!(
                "`reply` has more than {depth} arrays and objects inside each other"
            ));
        }
        Ok(Self(json))
    }
}

/// A no of the service's own: the vote of its branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Veto {
    /// A word for programs, as `limit_exceeded`.
    pub code: String,
    /// A sentence for people.
    #[serde(default)]
    pub reason: String,
}

impl Veto {
    /// A veto, if its code is one: 1 to [`limits::VETO_CODE_BYTES_MAX`] letters, digits, `_`, `-`
    /// or `.`. The reason is shown as far as it can be.
    pub fn new(code: impl Into<String>, reason: &str) -> Result<Self, String> {
        let code = code.into();
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let most = limits::VETO_CODE_BYTES_MAX;
        if code.is_empty() || code.len() > most || !code.bytes().all(is_word) {
            return Err(format!(
                "the `code` of a veto has 1 to {most} letters, digits, `_`, `-` or `.`"
            ));
        }
        let reason = readable(reason.as_bytes());
        let reason = text::cut_owned(reason, limits::VETO_REASON_BYTES_MAX);
        Ok(Self { code, reason })
    }
}

impl HookAnswer {
    /// What it says; an error, in a clause for people, if that is not one thing.
    pub fn says(self) -> Result<HookSays, String> {
        let Self { read, ops, reply, veto } = self;
        let has_rest = ops.is_some() || reply.is_some();
        match (read, veto) {
            (Some(read), None) if !has_rest => Ok(HookSays::Read(read)),
            (None, Some(Veto { code, reason })) if !has_rest => {
                Veto::new(code, &reason).map(HookSays::Veto)
            }
            (None, None) if has_rest => {
                let reply = reply.map_or_else(|| Ok(HookReply::null()), HookReply::try_from)?;
                Ok(HookSays::Stage(ops.unwrap_or_default(), reply))
            }
            (None, None) => {
                Err("it has neither `read` nor `ops` nor `reply` nor `veto`".to_owned())
            }
            _ => Err("it has more than one of `read`, `veto`, and `ops` with `reply`".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(json: &str) -> Result<HookSays, String> {
        let answer: HookAnswer = serde_json::from_str(json).map_err(|error| error.to_string())?;
        answer.says()
    }

    #[test]
    fn an_answer_says_one_thing() {
        let read = says(r#"{"read":[{"cmd":["GET","k"]}]}"#);
        assert!(matches!(read, Ok(HookSays::Read(ops)) if ops.len() == 1));
        assert!(matches!(says(r#"{"ops":[]}"#), Ok(HookSays::Stage(ops, _)) if ops.is_empty()));
        assert!(matches!(says(r#"{"reply":null}"#), Ok(HookSays::Stage(..))));
        for wrong in [
            "{}",
            "[]",
            "7",
            r#"{"ops":null}"#,
            r#"{"read":[],"ops":[]}"#,
            r#"{"veto":{"code":"x"},"reply":1}"#,
            r#"{"veto":{"code":"x"},"read":[]}"#,
            r#"{"veto":{"reason":"x"}}"#,
            r#"{"veto":{"code":"x","why":"y"}}"#,
            r#"{"veto":"x"}"#,
            r#"{"commit":true}"#,
        ] {
            assert!(says(wrong).is_err(), "{wrong}");
        }
    }

    /// Promise: what a hook says ends in problems, logs and terminals of others.
    #[test]
    fn the_words_of_a_hook_are_bounded_and_printable() {
        let Ok(HookSays::Veto(veto)) =
            says(r#"{"veto":{"code":"limit_exceeded","reason":"a\nb\u001b[31m"}}"#)
        else {
            panic!("it is a veto")
        };
        assert_eq!(veto.reason, r"a\nb\x1b[31m");
        let long = "é".repeat(limits::VETO_REASON_BYTES_MAX);
        let veto = Veto::new("x", &long).unwrap();
        assert!(veto.reason.len() < limits::VETO_REASON_BYTES_MAX + 40);
        for code in ["", "two words", "é", &"x".repeat(65), "a\n"] {
            assert!(Veto::new(code, "").is_err(), "{code:?}");
        }
        let reply = |json: String| says(&format!(r#"{{"reply":{json}}}"#));
        let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(reply(deep(limits::HOOK_REPLY_DEPTH_MAX)).is_ok());
        assert!(reply(deep(limits::HOOK_REPLY_DEPTH_MAX + 1)).is_err());
        assert!(reply(format!("\"{}\"", "x".repeat(limits::HOOK_REPLY_BYTES_MAX))).is_err());
    }
}
