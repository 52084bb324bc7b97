//! Opaque bytes on the wire: base64 text.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

use crate::outcome::Written;

/// A branch's resolved writes as base64. Opaque to everybody but the participant that made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base64(pub Arc<[u8]>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}
impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let bytes =
            BASE64.decode(text.as_bytes()).map_err(|_| de::Error::custom("invalid base64"))?;
        Ok(Self(bytes.into()))
    }
}
impl utoipa::PartialSchema for Base64 {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::schema::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("Opaque bytes, base64"))
            .into()
    }
}
impl ToSchema for Base64 {}

/// What a branch of one phase wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WrittenView {
    /// The incarnation of the data.
    pub incarnation: u64,
    /// The number that it took among the votes.
    pub seq: u64,
    /// The writes; empty if it came to none.
    pub redo: Base64,
}

impl From<Written> for WrittenView {
    fn from(Written { redo, incarnation, seq }: Written) -> Self {
        Self { incarnation, seq, redo: Base64(redo) }
    }
}
