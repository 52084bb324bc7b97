//! A hook that an agent asks by HTTP, without the HTTP: the question in, the answer out.
//!
//! The agent remembers nothing of a hook. It asks, hears what the hook wants to read, and asks
//! again with the replies of all reads so far. So a read that has no reply yet ends that asking.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use assent_common::command::OpRequest;
use assent_common::limits;
use assent_common::wire::hook::{HookAnswer, HookAsked, HookReply, HookSays};
use assent_common::wire::{read_json, too_deep_at};
use serde_json::value::{RawValue, to_raw_value};

use super::{Hook, HookCall, HookError, HookReads, HookReplies, HookStage};

/// Why a question has no answer. The agent asks again.
#[derive(Debug, thiserror::Error)]
pub enum Unanswerable {
    /// It is no question to a hook: answer 400.
    #[error("this is no question to a hook: {0}")]
    NoQuestion(String),
    /// The hook has failed over it: answer 500. It is asked a few times only.
    #[error("the hook has failed: {0}")]
    Failed(String),
    /// The hook does not know yet: answer 503. It is asked as long as there is time.
    #[error("the hook gives no clear answer: {0}")]
    Unclear(String),
}

/// Asks a hook once: what the agent has posted in, the JSON to answer out. For servers other than
/// axum.
pub async fn answer_hook(hook: &impl Hook, question: &[u8]) -> Result<Vec<u8>, Unanswerable> {
    let HookAsked { txid, id, participant, input, reads } = parse(question)?;
    let call = HookCall { txid, id, participant };
    let mut told = ToldReads { replies: reads.into_iter(), wanted: None };
    let mut stage = HookStage::new(&mut told);
    let said = or_panic(ask_hook(hook, &call, &input, &mut stage)).await;
    let staged = stage.into_staged();
    let answer = match (told.wanted, said) {
        // Whatever the hook has made of a read that was not there.
        (Some(read), _) => HookSays::Read(read).into(),
        (None, Ok(reply)) => HookSays::Stage(staged, reply).into(),
        (None, Err(HookError::Veto(veto))) => HookSays::Veto(veto).into(),
        // Which the agent finds out as well, and does not ask again.
        (None, Err(HookError::Invalid(_))) => HookAnswer::default(),
        (None, Err(HookError::Unclear(why))) => return Err(Unanswerable::Unclear(why)),
        (None, Err(HookError::Failed(why))) => return Err(Unanswerable::Failed(why)),
        // Which it has made up: nothing that it wanted to read is missing.
        (None, Err(error @ HookError::ReadFailed)) => {
            return Err(Unanswerable::Failed(error.to_string()));
        }
    };
    serde_json::to_vec(&answer).map_err(|error| Unanswerable::Failed(error.to_string()))
}

/// What a hook says, or that it panicked: who asks is answered in any case, where a panic unwinds.
async fn or_panic(
    asking: impl Future<Output = Result<HookReply, HookError>>,
) -> Result<HookReply, HookError> {
    let mut asking = pin!(asking);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| asking.as_mut().poll(context)));
        polled.unwrap_or_else(|_| Poll::Ready(Err(HookError::Failed("it panicked".to_owned()))))
    })
    .await
}

/// Asks a hook with an input as it came. One that is none of the hook's is vetoed with `bad_input`,
/// wherever the hook is: no time mends it.
pub async fn ask_hook<H: Hook>(
    hook: &H,
    call: &HookCall,
    input: &RawValue,
    stage: &mut HookStage<'_>,
) -> Result<HookReply, HookError> {
    let input: H::Input = serde_json::from_str(input.get()).map_err(|error| {
        // Its own words may quote the input.
        let (line, column) = (error.line(), error.column());
        let reason = format!("the input is not what the hook takes (line {line}, column {column})");
        HookError::veto("bad_input", &reason)
    })?;
    let reply = hook.prepare(call, input, stage).await?;
    let reply = to_raw_value(&reply).map_err(|error| error.to_string());
    reply.and_then(HookReply::try_from).map_err(HookError::Invalid)
}

fn parse(question: &[u8]) -> Result<HookAsked, Unanswerable> {
    let max = limits::JSON_DEPTH_MAX;
    if too_deep_at(question, max).is_some() {
        let why = format!("more than {max} arrays and objects inside each other");
        return Err(Unanswerable::NoQuestion(why));
    }
    read_json(question).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Unanswerable::NoQuestion(format!("it cannot be read at line {line}, column {column}"))
    })
}

/// The replies that came with the question, and what is to come with the next one.
struct ToldReads {
    replies: std::vec::IntoIter<Box<RawValue>>,
    wanted: Option<Vec<OpRequest>>,
}

impl HookReads for ToldReads {
    fn read<'a>(&'a mut self, _: &'a [OpRequest], read: Vec<OpRequest>) -> HookReplies<'a> {
        let is_told = self.wanted.is_none() && self.replies.len() >= read.len();
        let replies = if is_told {
            Ok(self.replies.by_ref().take(read.len()).collect())
        } else {
            self.wanted.get_or_insert(read);
            Err(HookError::ReadFailed)
        };
        Box::pin(std::future::ready(replies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    struct Limit;

    impl Hook for Limit {
        type Input = i64;

        async fn prepare(
            &self,
            _: &HookCall,
            amount: i64,
            stage: &mut HookStage<'_>,
        ) -> Result<Value, HookError> {
            let limit = stage.read(["GET", "limit"]).await?.as_i64().unwrap_or(100);
            // Swallowed, as a careless hook would.
            let owed = stage.read(["GET", "owes"]).await.unwrap_or_default();
            let owes = owed.as_i64().unwrap_or(0) + amount;
            if owes > limit {
                return Err(HookError::veto("limit_exceeded", &format!("{owes} > {limit}")));
            }
            if amount < 0 {
                return Err(HookError::veto("not a code", ""));
            }
            assert!(amount != 13, "on purpose");
            stage.op(["INCRBY", "owes", &amount.to_string()]);
            Ok(json!({"owes": owes}))
        }
    }

    fn question(input: Value, reads: Value) -> String {
        let question = json!({
            "txid": "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e.3.17.0",
            "id": "0198f1c2-a4b2-7c1d-9c0e-000000000001",
            "participant": "credit", "input": input, "reads": reads, "later": 1,
        });
        question.to_string()
    }

    async fn answer(input: Value, reads: Value) -> Value {
        let question = question(input, reads);
        let answer = answer_hook(&Limit, question.as_bytes()).await.unwrap();
        serde_json::from_slice(&answer).unwrap()
    }

    /// Promise: a hook reads one thing after another, and the agent asks it as often.
    #[tokio::test]
    async fn a_read_without_a_reply_is_asked_for() {
        let get = |key: &str| json!({"read": [{"cmd": ["GET", key]}]});
        assert_eq!(answer(json!(30), json!([])).await, get("limit"));
        assert_eq!(answer(json!(30), json!([100])).await, get("owes"), "though it was swallowed");
        let yes = json!({"ops": [{"cmd": ["INCRBY", "owes", "30"]}], "reply": {"owes": 90}});
        assert_eq!(answer(json!(30), json!([100, 60])).await, yes);
        let no = json!({"veto": {"code": "limit_exceeded", "reason": "110 > 100"}});
        assert_eq!(answer(json!(50), json!([100, 60])).await, no);
    }

    /// Promise: what no time can mend is said at once, so that nobody asks until the time is over.
    #[tokio::test]
    async fn what_is_wrong_for_good_is_no_unclear_answer() {
        let veto = answer(json!("what?"), json!([])).await;
        assert_eq!(veto["veto"]["code"], "bad_input");
        assert!(!veto.to_string().contains("what?"), "values are not quoted");
        assert_eq!(answer(json!(-1), json!([100, 0])).await, json!({}), "which no hook may answer");
        let panics = answer_hook(&Limit, question(json!(13), json!([100, 0])).as_bytes()).await;
        assert!(matches!(panics, Err(Unanswerable::Failed(why)) if why == "it panicked"));
        for wrong in ["", "{}", "[1]", &"[".repeat(1 << 20)] {
            let error = answer_hook(&Limit, wrong.as_bytes()).await.unwrap_err();
            assert!(matches!(error, Unanswerable::NoQuestion(_)), "{error}");
        }
    }
}
