//! A request in one form, whatever bytes said it: spaces, the order of fields, a default that is
//! spelt out, a number or its text. What has the same form is the same request, and under one
//! idempotency key it is a retry.
//!
//! The form is only ever hashed, and the hash is in the log for as long as the key is remembered.
//! So a change of the form makes the retries of older keys look like other requests: give it a new
//! [`VERSION`], and compare with both.

use serde_json::value::RawValue;

use crate::command::{Comparison, Expect, OpRequest};
use crate::ids::{ParticipantName, TransactionId};
use crate::sql::SqlOp;
use crate::wire::ops::BranchOps;
use crate::wire::transaction::{Ack, Protocol};

/// What every form begins with. No JSON does, so that no hash of a body is the hash of a form.
const VERSION: &[u8] = b"\0assent request 1\0";

/// What is told of a request beside its branches.
pub(super) struct Head<'a> {
    pub(super) id: Option<TransactionId>,
    pub(super) name: Option<&'a str>,
    pub(super) timeout_ms: u64,
    pub(super) ack: Ack,
    pub(super) protocol: Protocol,
    pub(super) branches: usize,
}

/// Takes a form, piece by piece.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&[u8]);

/// A form on its way. Each piece of any length has its length before it, so that no two requests
/// have one form.
pub(super) struct Form<'a> {
    sink: Sink<'a>,
}

impl<'a> Form<'a> {
    pub(super) fn begin(sink: Sink<'a>, head: &Head<'_>) -> Self {
        sink(VERSION);
        let mut form = Self { sink };
        form.number(head.timeout_ms);
        let ack = match head.ack {
            Ack::Applied => 0,
            Ack::Decided => 1,
        };
        let protocol = match head.protocol {
            Protocol::Logged => 0,
            Protocol::Implicit => 1,
        };
        form.number(ack);
        form.number(protocol);
        let id = head.id.map(|id| id.uuid().into_bytes());
        form.optional(id.as_ref().map(<[u8; 16]>::as_slice));
        form.optional(head.name.map(str::as_bytes));
        form.number(head.branches as u64);
        form
    }

    /// An input stands as it came: what it says is for its hook to know, so that another spelling
    /// is another request.
    pub(super) fn branch(
        &mut self,
        participant: &ParticipantName,
        ops: &BranchOps,
        input: Option<&RawValue>,
    ) {
        self.bytes(participant.as_str().as_bytes());
        match ops {
            BranchOps::Redis(ops) => {
                self.number(ops.len() as u64);
                ops.iter().for_each(|op| self.op(op));
            }
            // No branch has so many commands.
            BranchOps::Sql(ops) => {
                self.number(u64::MAX);
                self.number(ops.len() as u64);
                ops.iter().for_each(|op| self.statement(op));
            }
        }
        // A branch without one says nothing here, as it did before there were inputs. No name of a
        // participant is that long, so that what follows cannot be taken for the next branch.
        if let Some(input) = input {
            self.number(u64::MAX);
            self.bytes(input.get().as_bytes());
        }
    }

    fn op(&mut self, OpRequest { cmd, expect, escrow }: &OpRequest) {
        self.number(cmd.len() as u64);
        for (place, word) in cmd.iter().enumerate() {
            // Commands are the same in small letters.
            match place {
                0 => self.bytes(&word.0.to_ascii_uppercase()),
                _ => self.bytes(&word.0),
            }
        }
        self.number(u64::from(*escrow));
        self.expect(expect.as_ref());
    }

    /// Statement and parameters stand as they came: what another spelling says is for the database
    /// to know.
    fn statement(&mut self, SqlOp { sql, params, expect }: &SqlOp) {
        self.bytes(sql.as_bytes());
        self.number(params.len() as u64);
        params.iter().for_each(|param| self.bytes(param.get().as_bytes()));
        self.expect(expect.as_ref());
    }

    fn expect(&mut self, expect: Option<&Expect>) {
        let comparisons = || expect.into_iter().flat_map(Expect::comparisons);
        self.number(comparisons().count() as u64);
        for comparison in comparisons() {
            self.comparison(comparison);
        }
    }

    fn comparison(&mut self, comparison: Comparison<'_>) {
        let (word, operand): (u64, &[u8]) = match comparison {
            Comparison::Eq(operand) => (0, operand),
            Comparison::Ne(operand) => (1, operand),
            Comparison::EqNil => (2, b""),
            Comparison::NeNil => (3, b""),
            Comparison::Gt(operand) => (4, operand),
            Comparison::Ge(operand) => (5, operand),
            Comparison::Lt(operand) => (6, operand),
            Comparison::Le(operand) => (7, operand),
            Comparison::Exists(true) => (8, b""),
            Comparison::Exists(false) => (9, b""),
        };
        self.number(word);
        self.bytes(operand);
    }

    fn optional(&mut self, bytes: Option<&[u8]>) {
        self.number(u64::from(bytes.is_some()));
        self.bytes(bytes.unwrap_or_default());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        (self.sink)(bytes);
    }

    fn number(&mut self, number: u64) {
        (self.sink)(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::wire::transaction::TransactionRequest;

    fn form(body: &str) -> Vec<u8> {
        let request: TransactionRequest = serde_json::from_str(body).unwrap();
        let mut form = Vec::new();
        request.validate_into(&mut |piece| form.extend_from_slice(piece)).unwrap();
        form
    }

    const PLAIN: &str = r#"{"branches":[{"participant":"a","ops":[
        {"cmd":["SET","k",30]},{"cmd":["GET","n"],"expect":{"ge":5,"exists":true}}]}]}"#;

    #[test]
    fn what_says_the_same_has_one_form() {
        let ops = r#"[{"cmd":["SET","k",30]},{"cmd":["GET","n"],"expect":{"ge":5,"exists":true}}]"#;
        let same = [
            format!(" {{\n\"branches\" : [ {{ \"ops\":{ops},\"participant\":\"a\"}}]}}\n"),
            format!(r#"{{"timeout":"5s","branches":[{{"participant":"a","ops":{ops}}}]}}"#),
            format!(r#"{{"timeout":"5000ms","branches":[{{"participant":"a","ops":{ops}}}]}}"#),
            format!(
                r#"{{"ack":"applied","protocol":"logged","branches":[{{"participant":"a","ops":{ops}}}]}}"#
            ),
            PLAIN.replace("30", "\"30\""),
            PLAIN.replace("30", "30.0"),
            PLAIN.replace("30", "3e1"),
            PLAIN.replace("30", r#"{"base64":"MzA="}"#),
            PLAIN.replace("\"k\"", r#""\u006b""#),
            PLAIN.replace("SET", "set"),
            PLAIN.replace(r#""ge":5,"exists":true"#, r#""exists":true,"ge":"5""#),
            PLAIN.replace("30]", r#"30],"escrow":false"#),
        ];
        for body in same {
            assert_eq!(form(&body), form(PLAIN), "{body}");
        }
    }

    #[test]
    fn what_says_anything_else_has_another_form() {
        let plain: Value = serde_json::from_str(PLAIN).unwrap();
        let with = |pointer: &str, value: Value| {
            let mut body = plain.clone();
            let (inside, name) = pointer.rsplit_once('/').unwrap();
            match body.pointer_mut(inside).unwrap() {
                Value::Object(fields) => drop(fields.insert(name.to_owned(), value)),
                list => list[name.parse::<usize>().unwrap()] = value,
            }
            body
        };
        let and = |name: &str, value: Value| {
            let mut body = plain.clone();
            body[name] = value;
            body
        };
        let read = json!([{"cmd": ["GET", "n"]}]);
        let branch = |name: &str| json!({"participant": name, "ops": read});
        let others = [
            plain.clone(),
            with("/branches/0/participant", json!("b")),
            with("/branches/0/ops/0/cmd/0", json!("GETSET")),
            with("/branches/0/ops/0/cmd", json!(["SET", "k3", "0"])),
            with("/branches/0/ops/0/cmd", json!(["SET", "k", "30", "KEEPTTL"])),
            with("/branches/0/ops/0/cmd/1", json!("K")),
            with("/branches/0/ops/0/cmd/2", json!("30.0")),
            with("/branches/0/ops/1/expect", json!({"gt": 5, "exists": true})),
            with("/branches/0/ops/1/expect", json!({"ge": 5, "exists": false})),
            with("/branches/0/ops/1/expect", json!({"ge": 5})),
            with("/branches/0/ops/1/expect", json!({"eq": null})),
            with("/branches/0/ops/1/expect", json!({"eq": "null"})),
            with("/branches/0/ops/1/expect", json!({"ne": null})),
            with("/branches", json!([branch("a"), branch("b")])),
            with("/branches", json!([branch("b"), branch("a")])),
            and("timeout", json!("6s")),
            and("name", json!("x")),
            and("ack", json!("decided")),
            and("protocol", json!("implicit")),
            and("id", json!("01976f3e-8f00-7000-8000-000000000001")),
            with("/branches/0/input", json!(null)),
            with("/branches/0/input", json!({"a": 1})),
            with("/branches/0/input", json!("1")),
            with("/branches/0/ops/0", json!({"cmd": ["INCRBY", "k", 30]})),
            with("/branches/0/ops/0", json!({"cmd": ["INCRBY", "k", 30], "escrow": true})),
            with("/branches/0/ops", json!([{"sql": "SELECT $1"}])),
            with("/branches/0/ops", json!([{"sql": "SELECT $1", "params": [1]}])),
            with("/branches/0/ops", json!([{"sql": "SELECT $1", "params": ["1"]}])),
            with("/branches/0/ops", json!([{"sql": "SELECT $1", "params": [1, 2]}])),
            with("/branches/0/ops", json!([{"sql": "SELECT $1", "expect": {"eq": 1}}])),
            with("/branches/0/ops", json!([{"sql": "SELECT $1"}, {"sql": "SELECT $1"}])),
        ];
        let forms: Vec<_> = others.iter().map(|body| form(&body.to_string())).collect();
        for (place, one) in forms.iter().enumerate() {
            let twin = forms[..place].iter().position(|other| other == one);
            assert_eq!(twin, None, "{}", others[place]);
        }
    }
}
