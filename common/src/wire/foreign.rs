//! What a participant answers, before anything is made of it: others may have written the participant.
//!
//! Its words end in problems, lists, logs and the decision log. So they are cut here, once, and replies that no Redis
//! command has are no answer.

use serde_json::value::RawValue;

use crate::limits;
use crate::text;
use crate::wire::branch::Answer;

impl Answer {
    /// The same with its words cut; an error if its replies are none.
    pub(super) fn bounded(mut self) -> Result<Self, String> {
        if let Some(replies) = &self.replies {
            let shape = shape_of(replies.get());
            if !shape.is_array || shape.has_other || shape.depth > limits::REPLY_DEPTH_MAX {
                return Err(
                    "the participant's replies are not a list of Redis's replies".to_owned()
                );
            }
        }
        self.cut();
        Ok(self)
    }

    /// Cuts what is for people.
    pub(super) fn cut(&mut self) {
        if let Some(detail) = self.detail.take() {
            self.detail = Some(text::cut_owned(detail, limits::DETAIL_BYTES_MAX));
        }
        if let Some(holder) = &mut self.holder {
            let key = std::mem::take(&mut holder.key);
            holder.key = text::cut_owned(key, limits::DETAIL_BYTES_MAX);
        }
        let is_shown = |reply: &RawValue| {
            reply.get().len() <= limits::REPLY_SHOWN_BYTES_MAX
                && shape_of(reply.get()).depth <= limits::REPLY_DEPTH_MAX
        };
        self.reply = self.reply.take().filter(|reply| is_shown(reply));
    }
}

/// What can be told of valid JSON without parsing it.
struct Shape {
    is_array: bool,
    /// Whether it has an object that stands for no reply.
    has_other: bool,
    depth: usize,
}

/// How the objects in replies begin: bytes that are no text, and the estimate of a counter.
const OBJECTS: [&str; 2] = [r#""base64""#, r#""at_least""#];

fn shape_of(json: &str) -> Shape {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let (mut in_string, mut escaped, mut has_other) = (false, false, false);
    for (at, byte) in json.bytes().enumerate() {
        if byte == b'{' && !in_string {
            let inside = json[at + 1..].trim_start();
            has_other |= !OBJECTS.iter().any(|begin| inside.starts_with(begin));
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Shape { is_array: json.trim_start().starts_with('['), has_other, depth: deepest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Call, Prepared};

    fn prepared(answer: &str) -> Call<Prepared> {
        serde_json::from_str::<Answer>(answer).unwrap().into_prepared()
    }

    #[test]
    fn replies_of_no_redis_command_are_no_vote() {
        let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        let objects = [r#"[{"a":1}]"#, "[[{}]]", r#"["{", {"base6":"eA=="}]"#];
        for replies in [r#"{"a":1}"#, r#""text""#, "7", "null", &deep].into_iter().chain(objects) {
            for word in [r#""yes","incarnation":1,"seq":1"#, r#""committed""#] {
                let call = prepared(&format!(r#"{{"vote":{word},"replies":{replies}}}"#));
                assert!(matches!(call, Call::Unknown(_)), "{word} {}", &replies[..4]);
            }
        }
        let good = concat!(
            r#"{"vote":"committed","replies":[[["1-0",["[[[[[[[[[[","{"]]],{"base64":"/w=="},"#,
            r#"{ "at_least":1,"at_most":2}]}"#
        );
        assert!(matches!(prepared(good), Call::Applied(Prepared::Committed(_))));
    }

    #[test]
    fn words_of_a_refusal_are_cut() {
        let long = "x".repeat(1_000_000);
        let call = prepared(&format!(
            r#"{{"vote":"no","code":"expectation_failed","detail":"{long}","reply":"{long}"}}"#
        ));
        let Call::Refused(refusal) = call else { panic!("{call:?}") };
        assert!(refusal.detail.len() < limits::DETAIL_BYTES_MAX + 40, "{}", refusal.detail.len());
        assert!(refusal.detail.ends_with("… (1000000 bytes)"));
        assert_eq!(refusal.reply, None);
        let call =
            prepared(r#"{"vote":"no","code":"expectation_failed","detail":"d","reply":[7]}"#);
        let Call::Refused(refusal) = call else { panic!("{call:?}") };
        assert_eq!((refusal.detail.as_str(), refusal.reply.as_deref()), ("d", Some("[7]")));
        let call = prepared(&format!(r#"{{"vote":"unknown","detail":"{long}"}}"#));
        let Call::Unknown(why) = call else { panic!("{call:?}") };
        assert!(why.len() < limits::DETAIL_BYTES_MAX + 40);
    }
}
