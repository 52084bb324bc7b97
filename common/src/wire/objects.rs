//! JSON in which a struct is an object.
//!
//! What serde derives reads a struct from an array too: its fields in the order of the source, and
//! each that has a default may be left out. Then `"expect": []` is no guard at all, and `[]` is a
//! whole body. So what comes from others is read through this reader, which refuses such an array,
//! however deep it lies.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use crate::wire::bounded::ReadOps;

/// What is said of an array in an object's place.
pub(super) const ARRAY_FOR_OBJECT: &str = "an array stands where an object is expected";

/// Reads a body.
pub fn read_json<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = T::deserialize(Objects(&mut reader))?;
    reader.end()?;
    Ok(value)
}

/// Reads the ops of a branch, out of a body that was read before.
pub(super) fn read_ops<'de, Ops: ReadOps<'de>>(json: &'de str) -> Result<Ops, serde_json::Error> {
    Ops::read_ops(Objects(&mut serde_json::Deserializer::from_str(json)))
}

/// A deserializer, or a part of one, that passes itself on to whatever is read by it.
struct Objects<D>(D);

/// Looks at what the deserializer has found, before its visitor does.
struct AttentiveVisitor<V> {
    visitor: V,
    is_struct: bool,
}

impl<V> AttentiveVisitor<V> {
    const fn any(visitor: V) -> Self {
        Self { visitor, is_struct: false }
    }

    const fn of_struct(visitor: V) -> Self {
        Self { visitor, is_struct: true }
    }
}

macro_rules! read {
    ($($read:ident($($argument:ident: $kind:ty),*))*) => {$(
        fn $read<V: Visitor<'de>>(
            self,
            $($argument: $kind,)*
            visitor: V,
        ) -> Result<V::Value, D::Error> {
            self.0.$read($($argument,)* AttentiveVisitor::any(visitor))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Objects<D> {
    type Error = D::Error;

    read! {
        deserialize_any() deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32()
        deserialize_i64() deserialize_i128() deserialize_u8() deserialize_u16() deserialize_u32()
        deserialize_u64() deserialize_u128() deserialize_f32() deserialize_f64() deserialize_char()
        deserialize_str() deserialize_string() deserialize_bytes() deserialize_byte_buf()
        deserialize_option() deserialize_unit() deserialize_seq() deserialize_map()
        deserialize_identifier() deserialize_ignored_any()
        deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, AttentiveVisitor::of_struct(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! see {
    ($($visit:ident: $kind:ty),*) => {$(
        fn $visit<E: serde::de::Error>(self, value: $kind) -> Result<V::Value, E> {
            self.visitor.$visit(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for AttentiveVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    see! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64,
        visit_i128: i128, visit_u8: u8, visit_u16: u16, visit_u32: u32, visit_u64: u64,
        visit_u128: u128, visit_f32: f32, visit_f64: f64, visit_char: char, visit_str: &str,
        visit_borrowed_str: &'de str, visit_string: String, visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Objects(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Objects(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        match self.is_struct {
            true => Err(A::Error::custom(ARRAY_FOR_OBJECT)),
            false => self.visitor.visit_seq(Objects(list)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Objects(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(Objects(data))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Objects<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Objects(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Objects(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(Objects(seed))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Objects(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Objects<A> {
    type Error = A::Error;
    type Variant = Objects<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.0.variant_seed(Objects(seed))?;
        Ok((value, Objects(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Objects(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, AttentiveVisitor::any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, AttentiveVisitor::of_struct(visitor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::branch::Batch;
    use crate::wire::hook::HookAnswer;
    use crate::wire::ops::BranchOps;
    use crate::wire::transaction::TransactionRequest;

    fn transaction(json: &str) -> Result<TransactionRequest, String> {
        read_json(json.as_bytes()).map_err(|error| error.to_string())
    }

    /// Promise: an array is not taken for an object, in whatever it stands; what it holds would be
    /// taken for fields by their order, or for none of them.
    #[test]
    fn an_array_in_the_place_of_an_object_is_refused() {
        for json in ["[]", r#"["name"]"#, r#"{"branches":[["a",[]]]}"#] {
            let error = transaction(json).unwrap_err();
            assert!(error.starts_with(ARRAY_FOR_OBJECT), "{json}: {error}");
        }
        for json in [
            r#"[[["GET","k"]]]"#,
            r#"[{"cmd":["GET","k"],"expect":[]}]"#,
            r#"[{"cmd":["GET","k"],"expect":[7]}]"#,
        ] {
            let error = read_ops::<BranchOps>(json).unwrap_err().to_string();
            assert!(error.starts_with(ARRAY_FOR_OBJECT), "{json}: {error}");
        }
        let veto = read_json::<HookAnswer>(br#"{"veto":["no","because"]}"#).unwrap_err();
        assert!(veto.to_string().starts_with(ARRAY_FOR_OBJECT), "{veto}");
        let batch =
            br#"{"participant":"a","coordinator":{"log_id":"0198f1c2a4b27c1d9c0e3f4a5b6c7d8e",
            "epoch":1,"url":"http://c"},"low_water":{"epoch":1,"n":1},
            "messages":[{"commit":["x"]}]}"#;
        let batch = read_json::<Batch>(batch).unwrap_err().to_string();
        assert!(batch.contains(ARRAY_FOR_OBJECT), "{batch}");
    }

    /// Promise: everything else is read as serde_json reads it, raw texts too, and to the end.
    #[test]
    fn everything_else_is_read_as_it_stands() {
        let json = r#"{"name":"n","branches":[{"participant":"a","input":{"x": 1.50},
            "ops":[{"cmd":["SET","k",{"base64":"/w=="},7],"expect":{"ne":null}}]}]}"#;
        let plain: TransactionRequest = serde_json::from_str(json).unwrap();
        let [ours, plain] =
            [transaction(json).unwrap(), plain].map(|request| format!("{request:?}"));
        assert_eq!(ours, plain);
        assert!(transaction(r#"{"branches":[]} x"#).unwrap_err().contains("trailing"));
        assert!(transaction("[[").unwrap_err().contains("an array"));
        assert!(transaction("7").unwrap_err().contains("invalid type: integer"));
    }
}
