//! What an op's reply is expected to be. A false expectation is a vote of no that carries the reply.

use serde::{Deserialize, Deserializer, Serialize};

use crate::value::Arg;

/// A condition on a reply: every field that is present must hold.
///
/// `eq` and `ne` compare bytes (an integer reply with its decimal text); `null` is nil. `gt`, `ge`, `lt` and `le`
/// compare numbers, exactly when both are 64-bit integers, as floats otherwise; a reply that is nil or no number
/// fulfils none of them. `exists` asks whether the reply is there: nil, the integer 0 and the empty array are not.
/// A reply that is an array can only be asked whether it exists.
///
/// A field may be present and `null`. For `eq` and `ne` that is nil. For the others it is refused (`bad_arguments`): a
/// program that computed no number, such as JavaScript's `JSON.stringify({ge: NaN})`, must not lose its guard by that.
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
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Arg, required = false)]
    pub gt: Option<Option<Arg>>,
    /// The reply is a number, this or greater.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Arg, required = false)]
    pub ge: Option<Option<Arg>>,
    /// The reply is a number less than this.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Arg, required = false)]
    pub lt: Option<Option<Arg>>,
    /// The reply is a number, this or less.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Arg, required = false)]
    pub le: Option<Option<Arg>>,
    /// The reply is there (`true`), or is not (`false`).
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = bool, required = false)]
    pub exists: Option<Option<bool>>,
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

/// Tells `null` from a field that is absent.
fn present<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

impl Expect {
    /// The fields for numbers.
    fn bounds(&self) -> [(&'static str, &Option<Option<Arg>>); 4] {
        [("gt", &self.gt), ("ge", &self.ge), ("lt", &self.lt), ("le", &self.le)]
    }

    /// The numeric operands, each with the name of its field.
    pub(crate) fn numeric(&self) -> impl Iterator<Item = (&'static str, &Arg)> {
        self.bounds()
            .into_iter()
            .filter_map(|(name, operand)| Some((name, operand.as_ref()?.as_ref()?)))
    }

    /// A field that is present as `null` where that means nothing.
    pub(crate) fn null(&self) -> Option<&'static str> {
        let of_numbers = self.bounds().into_iter().find(|(_, operand)| **operand == Some(None));
        let name = of_numbers.map(|(name, _)| name);
        name.or_else(|| (self.exists == Some(None)).then_some("exists"))
    }

    /// Whether anything but existence is asked of the reply.
    pub(crate) fn compares_values(&self) -> bool {
        self.eq.is_some() || self.ne.is_some() || self.numeric().next().is_some()
    }

    /// The comparisons, in a fixed order.
    pub fn comparisons<'a>(&'a self) -> impl Iterator<Item = Comparison<'a>> {
        let eq = self.eq.as_ref().map(|operand| match operand {
            Some(arg) => Comparison::Eq(&arg.0),
            None => Comparison::EqNil,
        });
        let ne = self.ne.as_ref().map(|operand| match operand {
            Some(arg) => Comparison::Ne(&arg.0),
            None => Comparison::NeNil,
        });
        let number =
            |operand: &'a Option<Option<Arg>>| Some(operand.as_ref()?.as_ref()?.0.as_slice());
        [
            eq,
            ne,
            number(&self.gt).map(Comparison::Gt),
            number(&self.ge).map(Comparison::Ge),
            number(&self.lt).map(Comparison::Lt),
            number(&self.le).map(Comparison::Le),
            self.exists.flatten().map(Comparison::Exists),
        ]
        .into_iter()
        .flatten()
    }
}
