//! What a participant answers, before anything is made of it: others may have written the participant.
//!
//! Its words end in problems, lists, logs and the decision log. So they are cut here, once, and
//! replies that neither a command nor a statement has are no answer.

use serde_json::value::RawValue;

use crate::limits;
use crate::text;
use crate::wire::branch::Answer;
use crate::wire::depth::{openings, too_deep_at};

impl Answer {
    /// The same with its words cut; an error if its replies are none.
    pub(super) fn bounded(mut self) -> Result<Self, String> {
        if self.replies.as_ref().is_some_and(|replies| !are_replies(replies.get())) {
            return Err("the participant's replies are not a list of replies".to_owned());
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
                && too_deep_at(reply.get().as_bytes(), limits::REPLY_DEPTH_MAX).is_none()
        };
        self.reply = self.reply.take().filter(|reply| is_shown(reply));
    }
}

/// How the objects in replies begin: bytes that are no text, and the estimate of a counter.
const OBJECTS: [&str; 2] = [r#""base64""#, r#""at_least""#];

/// How the objects begin that are the reply of a hook, and the rows of a statement.
const OF_ANY_JSON: [&str; 2] = [r#""hook""#, r#""rows""#];

/// How deep a reply stands: in the list.
const REPLY: usize = 2;

/// Whether valid JSON is a list of replies, as far as that can be told without parsing it.
fn are_replies(json: &str) -> bool {
    let mut in_any = false;
    let is_reply = |(at, depth): (usize, usize)| {
        let is_object = json.as_bytes()[at] == b'{';
        let begins = |with: &str| json[at + 1..].trim_start().starts_with(with);
        // What a hook replies is any JSON, in an object that is a reply itself; so are rows.
        if depth <= REPLY {
            let begins_any = OF_ANY_JSON.iter().any(|object| begins(object));
            in_any = depth == REPLY && is_object && begins_any;
        }
        let is_known = in_any || !is_object || OBJECTS.iter().any(|object| begins(object));
        depth <= limits::REPLY_DEPTH_MAX && is_known
    };
    json.trim_start().starts_with('[') && openings(json.as_bytes()).all(is_reply)
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
        let hook =
            |replies: &str| prepared(&format!(r#"{{"vote":"committed","replies":[{replies}]}}"#));
        for good in
            [r#"7, {"hook":{"a":[{"b":1}]}}, [1]"#, r#"{"rows":[{"a":1},{"a":{"b":[]}}]},2"#]
        {
            assert!(matches!(hook(good), Call::Applied(Prepared::Committed(_))), "{good}");
        }
        for bad in [
            r#"{"rows":[]},[{"a":1}]"#,
            r#"[{"rows":[]}]"#,
            r#"{"hook":1},{"a":1}"#,
            r#"[{"hook":{}}]"#,
            r#"["hook",{}]"#,
        ] {
            assert!(matches!(hook(bad), Call::Unknown(_)), "{bad}");
        }
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
