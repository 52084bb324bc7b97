//! A transaction of appends to lists and reads of them, whatever door it goes by.

use assent_checkers::{Action, MicroOp};
use assent_client::Transaction;
use assent_client::transaction::Ops;
use serde_json::{Value, json};

use super::workload::{PARTICIPANTS, PAUSE, integer};

/// A hook vetoes if the first list that it reads has so many elements: this rest, divided by that.
const VETOED: (usize, usize) = (4, 5);

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) list: u64,
    pub(super) is_append: bool,
    /// Whether the client asks the participant's hook for it, instead of doing it itself.
    pub(super) is_hooks: bool,
}

/// The steps, in the order in which they are done.
#[derive(Debug, Clone)]
pub(super) struct ListSteps {
    pub(super) round: usize,
    /// What is appended. To no list twice.
    pub(super) element: i64,
    pub(super) steps: Vec<Step>,
}

impl Step {
    /// The place of its participant.
    pub(super) const fn place(self) -> u64 {
        self.list % PARTICIPANTS.len() as u64
    }

    pub(super) fn participant(self) -> &'static str {
        PARTICIPANTS[usize::try_from(self.place()).expect("few participants")]
    }
}

impl ListSteps {
    /// Routed by its beginning.
    pub(super) fn key(&self, step: Step) -> String {
        format!("{}:l{}-{}", step.participant(), self.round, step.list)
    }

    /// The Redis command.
    pub(super) fn line(&self, step: Step) -> String {
        match step.is_append {
            true => format!("RPUSH {} {}", self.key(step), self.element),
            false => format!("LRANGE {} 0 -1", self.key(step)),
        }
    }

    /// What a history has of it.
    pub(super) fn action(&self) -> Action {
        let asked = self.steps.iter().map(|step| match step.is_append {
            true => MicroOp::append(self.key(*step), self.element),
            false => MicroOp::read(self.key(*step)),
        });
        Action::Txn(asked.collect())
    }

    /// The same with the answers: the replies in the order of the steps, without those of the
    /// appends of a hook.
    pub(super) fn answered(&self, replies: &[Value]) -> Option<Action> {
        let mut replies = replies.iter();
        let answered = self.steps.iter().map(|step| {
            if step.is_append {
                if !step.is_hooks {
                    replies.next()?.as_i64()?;
                }
                return Some(MicroOp::append(self.key(*step), self.element));
            }
            let elements: Option<Vec<i64>> =
                replies.next()?.as_array()?.iter().map(integer).collect();
            Some(MicroOp::saw(self.key(*step), elements?))
        });
        let answered = answered.collect::<Option<_>>()?;
        replies.next().is_none().then_some(Action::Txn(answered))
    }

    /// All of it in one request. The steps are in the order of the participants, at each of them
    /// the hook's last, reads before appends.
    pub(super) fn transaction(&self) -> Transaction {
        let mut transaction = Transaction::default();
        for participant in PARTICIPANTS {
            let here = self.steps.iter().filter(|step| step.participant() == participant);
            let (hooks, own): (Vec<Step>, Vec<Step>) = here.partition(|step| step.is_hooks);
            if hooks.is_empty() && own.is_empty() {
                continue;
            }
            transaction = transaction.branch(participant, |ops| {
                let line = |ops: Ops, step: Step| ops.op(self.line(step).split(' '));
                let ops = own.into_iter().fold(ops, line);
                if hooks.is_empty() { ops } else { ops.input(&self.input(&hooks)) }
            });
        }
        transaction
    }

    fn input(&self, steps: &[Step]) -> Value {
        let keys = |is_append| {
            let these = steps.iter().filter(move |step| step.is_append == is_append);
            these.map(|step| self.key(*step)).collect::<Vec<_>>()
        };
        json!({"reads": keys(false), "appends": keys(true), "element": self.element.to_string()})
    }
}

/// The replies of all branches, in the order of the steps.
pub(super) fn in_order(branches: &[Value]) -> Vec<Value> {
    let replies = branches.iter().flat_map(|branch| branch.as_array().into_iter().flatten());
    let each = |reply: &Value| match reply.get("hook") {
        Some(reads) => reads.as_array().cloned().unwrap_or_default(),
        None => vec![reply.clone()],
    };
    replies.flat_map(each).collect()
}

/// The hook of every participant: reads one list after the other, then appends to others; or
/// vetoes, for what it has read.
pub(super) async fn decide(question: Value) -> Value {
    // Who decides takes some time, in which others go on.
    tokio::time::sleep(PAUSE).await;
    let input = &question["input"];
    let words = |name: &str| input[name].as_array().cloned().unwrap_or_default();
    let seen = question["reads"].as_array().cloned().unwrap_or_default();
    if let Some(key) = words("reads").get(seen.len()) {
        return json!({"read": [{"cmd": ["LRANGE", key, 0, -1]}]});
    }
    let length = seen.first().and_then(|list| Some(list.as_array()?.len()));
    if length.is_some_and(|length| length % VETOED.1 == VETOED.0) {
        return json!({"veto": {"code": "length", "reason": "no list of this length"}});
    }
    let append = |key: &Value| json!({"cmd": ["RPUSH", key, input["element"]]});
    let ops: Vec<Value> = words("appends").iter().map(append).collect();
    json!({"ops": ops, "reply": seen})
}
