//! The bodies of interactive transactions: begun without branches, added to call by call, committed
//! at the end.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::openapi::schema::OneOfBuilder;
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema as _, ToSchema};

use crate::command::{Expect, OpRequest};
use crate::ids::{ParticipantName, TransactionId};
use crate::time::DurationMs;
use crate::value::{Arg, given};
use crate::wire::bounded;
use crate::wire::transaction::{Ack, BranchRequest, Protocol, TransactionRequest};

/// `POST /v1/transactions`: with `branches`, a transaction to run; without, one to begin.
#[derive(Debug)]
pub enum RunOrBegin {
    /// It has branches.
    Run(TransactionRequest),
    /// It has none.
    Begin(BeginRequest),
}

impl utoipa::PartialSchema for RunOrBegin {
    fn schema() -> RefOr<Schema> {
        let named = Ref::from_schema_name;
        let either = OneOfBuilder::new().item(named("TransactionRequest"));
        either.item(named("BeginRequest")).into()
    }
}

impl ToSchema for RunOrBegin {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        TransactionRequest::schemas(schemas);
        BeginRequest::schemas(schemas);
        let request = ("TransactionRequest".to_owned(), TransactionRequest::schema());
        schemas.extend([request, ("BeginRequest".to_owned(), BeginRequest::schema())]);
    }
}

/// What may stand in either.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnyRequest {
    #[serde(default, deserialize_with = "given")]
    id: Option<TransactionId>,
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "bounded::branches_given")]
    branches: Option<Vec<BranchRequest>>,
    #[serde(default, deserialize_with = "given")]
    timeout: Option<DurationMs>,
    #[serde(default)]
    ack: Ack,
    #[serde(default)]
    protocol: Protocol,
}

/// An object: an empty array would be one without branches as well.
impl<'de> Deserialize<'de> for RunOrBegin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = RunOrBegin;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RunOrBegin, A::Error> {
                let any = AnyRequest::deserialize(MapAccessDeserializer::new(map))?;
                RunOrBegin::try_from(any).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

impl TryFrom<AnyRequest> for RunOrBegin {
    type Error = &'static str;

    fn try_from(any: AnyRequest) -> Result<Self, &'static str> {
        let AnyRequest { id, name, branches, timeout, ack, protocol } = any;
        match (branches, protocol) {
            (Some(branches), protocol) => {
                Ok(Self::Run(TransactionRequest { id, name, branches, timeout, ack, protocol }))
            }
            (None, Protocol::Logged) => Ok(Self::Begin(BeginRequest { id, name, timeout, ack })),
            (None, Protocol::Implicit) => {
                Err("without `branches` a transaction is interactive, and cannot be implicit")
            }
        }
    }
}

/// `POST /v1/transactions` without branches: begins a transaction whose ops come later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginRequest {
    /// A UUIDv7 chosen by the client, who may then begin it again if the answer is lost.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    pub id: Option<TransactionId>,
    /// A label for people, 1 to 64 bytes, without control characters.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    pub name: Option<String>,
    /// How long the commit may take to be decided.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "5s")]
    pub timeout: Option<DurationMs>,
    /// When `committed` is answered.
    #[serde(default)]
    pub ack: Ack,
}

/// `POST /v1/transactions/{id}/ops`: reads, and writes to stage. Without ops it keeps the
/// transaction alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpsRequest {
    /// The number of this call: 1, 2, 3 and so on. The same number again is answered again.
    pub seq: u64,
    /// The ops, in order.
    #[serde(deserialize_with = "bounded::interactive_ops")]
    pub ops: Vec<InteractiveOp>,
}

/// One Redis command of an interactive transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InteractiveOp {
    /// Where it runs.
    #[schema(value_type = String)]
    pub participant: ParticipantName,
    /// The command's name and its arguments.
    #[serde(deserialize_with = "bounded::words")]
    pub cmd: Vec<Arg>,
    /// What the reply must be, else the transaction is aborted.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Expect, required = false)]
    pub expect: Option<Expect>,
}

/// An interactive transaction that is active.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct InteractiveView {
    /// The public id.
    #[schema(value_type = String)]
    pub id: TransactionId,
    /// The label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// That it is active: nothing is committed, and nothing is locked.
    pub outcome: ActiveWord,
    /// The number of the last call that was done; 0 before the first.
    pub seq: u64,
    /// The replies of the ops of that call, in their order; in the answer to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    pub replies: Option<Box<RawValue>>,
    /// When it expires if no call comes before, RFC 3339.
    pub expires_at: String,
    /// When it expires whatever comes, RFC 3339.
    pub ends_at: String,
}

/// The one outcome of what has none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActiveWord {
    /// Its client goes on with it.
    Active,
}

/// `POST /v1/evaluate` of a participant: what a branch would come to. Nothing is locked or kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluateRequest {
    /// Who is meant.
    #[schema(value_type = String)]
    pub participant: ParticipantName,
    /// The ops.
    #[serde(deserialize_with = "bounded::ops")]
    pub ops: Vec<OpRequest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<RunOrBegin, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// Promise: only who leaves `branches` out begins a transaction; a list that came out empty is
    /// an error, as it always was.
    #[test]
    fn a_transaction_without_branches_is_begun() {
        assert!(matches!(read("{}"), Ok(RunOrBegin::Begin(_))));
        assert!(matches!(read(r#"{"name":"n","timeout":"2s"}"#), Ok(RunOrBegin::Begin(_))));
        let Ok(RunOrBegin::Run(empty)) = read(r#"{"branches":[]}"#) else { panic!("it is there") };
        assert!(empty.validate().is_err());
        for wrong in
            [r#"{"branches":null}"#, r#"{"protocol":"implicit"}"#, r#"{"brunches":[]}"#, "[]"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
