//! What an op's reply is expected to be. A false expectation is a vote of no that carries the reply.

use serde::{Deserialize, Deserializer, Serialize};

use crate::value::Arg;

/// A condition on a reply: every field that is present must hold.
///
/// `eq` and `ne` compare bytes (an integer reply with its decimal text); `null` is nil. `gt`, `ge`, `lt` and `le`
/// compare numbers, exactly when both are 64-bit integers, as floats otherwise; a reply that is nil or no number
/// fulfils none of them. `exists` asks whether the reply is there: nil, the integer 0 and the empty array are not.
/// A reply that is an array can only be asked whether it exists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The reply is this.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Arg>)]
    pub eq: Option<Option<Arg>>,
    /// The reply is not this.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Arg>)]
    pub ne: Option<Option<Arg>>,
    /// The reply is a number greater than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gt: Option<Arg>,
    /// The reply is a number, this or greater.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ge: Option<Arg>,
    /// The reply is a number less than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lt: Option<Arg>,
    /// The reply is a number, this or less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub le: Option<Arg>,
    /// The reply is there (`true`), or is not (`false`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
}

/// One comparison of an expectation, as the participant's script is told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison<'a> {
    /// Equal to these bytes.
    Eq(&'a [u8]),
    /// Other than these bytes.
    Ne(&'a [u8]),
    /// Nil.
    EqNil,
    /// Not nil.
    NeNil,
    /// A greater number.
    Gt(&'a [u8]),
    /// An equal or greater number.
    Ge(&'a [u8]),
    /// A lesser number.
    Lt(&'a [u8]),
    /// An equal or lesser number.
    Le(&'a [u8]),
    /// There, or not.
    Exists(bool),
}

/// Tells `null`, which is a value here, from a field that is absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Arg>>, D::Error> {
    Option::<Arg>::deserialize(deserializer).map(Some)
}

impl Expect {
    /// The numeric operands, each with the name of its field.
    pub(crate) fn numeric(&self) -> impl Iterator<Item = (&'static str, &Arg)> {
        [("gt", &self.gt), ("ge", &self.ge), ("lt", &self.lt), ("le", &self.le)]
            .into_iter()
            .filter_map(|(name, operand)| operand.as_ref().map(|operand| (name, operand)))
    }

    /// Whether anything but existence is asked of the reply.
    pub(crate) fn compares_values(&self) -> bool {
        self.eq.is_some() || self.ne.is_some() || self.numeric().next().is_some()
    }

    /// The comparisons, in a fixed order.
    pub fn comparisons(&self) -> impl Iterator<Item = Comparison<'_>> {
        let eq = self.eq.as_ref().map(|operand| match operand {
            Some(arg) => Comparison::Eq(&arg.0),
            None => Comparison::EqNil,
        });
        let ne = self.ne.as_ref().map(|operand| match operand {
            Some(arg) => Comparison::Ne(&arg.0),
            None => Comparison::NeNil,
        });
        [
            eq,
            ne,
            self.gt.as_ref().map(|arg| Comparison::Gt(&arg.0)),
            self.ge.as_ref().map(|arg| Comparison::Ge(&arg.0)),
            self.lt.as_ref().map(|arg| Comparison::Lt(&arg.0)),
            self.le.as_ref().map(|arg| Comparison::Le(&arg.0)),
            self.exists.map(Comparison::Exists),
        ]
        .into_iter()
        .flatten()
    }
}
