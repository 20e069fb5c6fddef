//! Between a Rust enum and the stored form of an event: the variant's content without its tag.
//!
//! Serde's derive writes an enum as `{"Submitted":{"amount":1}}`. The stored form keeps the name
//! in a column of its own and only `{"amount":1}` as payload. The adapters here stand between
//! serde's derive and JSON, so every serde attribute on the fields keeps its meaning and nothing
//! is parsed twice. A variant is chosen by its index, so serde renames do not reach the store.

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{
        DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, IgnoredAny, IntoDeserializer,
        VariantAccess, Visitor, value::U64Deserializer,
    },
    forward_to_deserialize_any,
    ser::{self, Impossible, SerializeStruct, SerializeTuple},
};
use serde_json::{Error, de::SliceRead};

use super::Payload;

pub(super) fn encode<E: Serialize + ?Sized>(event: &E) -> Result<Payload, Error> {
    let mut json = Vec::with_capacity(128);
    event.serialize(ContentSerializer(&mut serde_json::Serializer::new(&mut json)))?;
    Ok(Payload::from_valid_json(json))
}

pub(super) fn decode<E: DeserializeOwned>(index: usize, payload: &Payload) -> Result<E, Error> {
    E::deserialize(ContentDeserializer { index: index as u64, json: payload.as_bytes() })
}

type Json<'a> = serde_json::Serializer<&'a mut Vec<u8>>;

/// Writes the content of an enum's variant; refuses everything that is not an enum.
struct ContentSerializer<'s, 'w>(&'s mut Json<'w>);

fn not_a_variant<T>() -> Result<T, Error> {
    Err(ser::Error::custom(
        "an event serializes as an enum in serde's default representation; \
         remove #[serde(tag, content, untagged, into)] or the hand-written Serialize",
    ))
}

macro_rules! refuse {
    ($($method:ident($kind:ty);)*) => {
        $(fn $method(self, _: $kind) -> Result<(), Error> { not_a_variant() })*
    };
}

impl<'s, 'w> Serializer for ContentSerializer<'s, 'w> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Impossible<(), Error>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Content<<&'s mut Json<'w> as Serializer>::SerializeTuple>;
    type SerializeMap = Impossible<(), Error>;
    type SerializeStruct = Impossible<(), Error>;
    type SerializeStructVariant = Content<<&'s mut Json<'w> as Serializer>::SerializeStruct>;

    /// A variant without fields is an empty object, so that fields can be added to it later.
    fn serialize_unit_variant(self, name: &'static str, _: u32, _: &str) -> Result<(), Error> {
        SerializeStruct::end(self.0.serialize_struct(name, 0)?)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self.0)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        self.0.serialize_tuple(len).map(Content)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        self.0.serialize_struct(variant, len).map(Content)
    }

    refuse! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_unit_struct(&'static str);
    }

    fn serialize_unit(self) -> Result<(), Error> {
        not_a_variant()
    }
    fn serialize_none(self) -> Result<(), Error> {
        not_a_variant()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), Error> {
        not_a_variant()
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        not_a_variant()
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Error> {
        not_a_variant()
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Error> {
        not_a_variant()
    }
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Error> {
        not_a_variant()
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Error> {
        not_a_variant()
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, Error> {
        not_a_variant()
    }
}

/// The fields of a variant, written as the fields of a struct or the elements of a tuple.
struct Content<C>(C);

impl<C: SerializeStruct<Ok = (), Error = Error>> ser::SerializeStructVariant for Content<C> {
    type Ok = ();
    type Error = Error;
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.0.serialize_field(key, value)
    }
    fn end(self) -> Result<(), Error> {
        self.0.end()
    }
}

impl<C: SerializeTuple<Ok = (), Error = Error>> ser::SerializeTupleVariant for Content<C> {
    type Ok = ();
    type Error = Error;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.0.serialize_element(value)
    }
    fn end(self) -> Result<(), Error> {
        self.0.end()
    }
}

/// Reads the variant with the given index from its content.
#[derive(Clone, Copy)]
struct ContentDeserializer<'de> {
    index: u64,
    json: &'de [u8],
}

impl<'de> ContentDeserializer<'de> {
    /// Runs `read` over the content and makes sure that nothing but white space follows it.
    fn content<T>(
        self,
        read: impl FnOnce(&mut serde_json::Deserializer<SliceRead<'de>>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut json = serde_json::Deserializer::from_slice(self.json);
        let value = read(&mut json)?;
        json.end()?;
        Ok(value)
    }
}

impl<'de> Deserializer<'de> for ContentDeserializer<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom(
            "an event deserializes as an enum in serde's default representation; \
             remove #[serde(tag, content, untagged, from)] or the hand-written Deserialize",
        ))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for ContentDeserializer<'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let index: U64Deserializer<Error> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for ContentDeserializer<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.content(|json| IgnoredAny::deserialize(json).map(|_| ()))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        self.content(|json| seed.deserialize(json))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.content(|json| json.deserialize_tuple(len, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.content(|json| json.deserialize_struct("", fields, visitor))
    }
}
