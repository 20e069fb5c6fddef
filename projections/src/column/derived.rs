//! What the derive macros' output stands on. Not public API.

use std::{error::Error, fmt::Debug};

use bytes::BytesMut;
use serde::{Serialize, de::DeserializeOwned};
use tokio_postgres::{
    Row,
    types::{Format, FromSql, IsNull, Json, ToSql, Type, WrongType},
};

use super::{Column, SqlParam, SqlValue};

/// Why a value cannot be sent or read.
pub type SqlError = Box<dyn Error + Sync + Send>;

/// A newtype: it is stored as what is in it.
pub trait Transparent: Sized + 'static {
    /// What is in it.
    type Inner: Column;
    /// Takes it out.
    fn inner(&self) -> &Self::Inner;
    /// Puts it in.
    fn of(inner: Self::Inner) -> Self;
}

/// Sends what is in it.
pub fn send<T: Transparent>(value: &T, ty: &Type, out: &mut BytesMut) -> Result<IsNull, SqlError> {
    value.inner().to_sql(ty, out)
}

/// Whether what is in it can be sent as this type.
pub fn sends<T: Transparent>(ty: &Type) -> bool {
    <T::Inner as ToSql>::accepts(ty)
}

/// How what is in it is sent.
pub fn format<T: Transparent>(value: &T, ty: &Type) -> Format {
    value.inner().encode_format(ty)
}

/// Reads what is in it.
pub fn receive<T: Transparent>(ty: &Type, raw: &[u8]) -> Result<T, SqlError> {
    T::Inner::from_sql(ty, raw).map(T::of)
}

/// Reads a null, which may be in it.
pub fn receive_null<T: Transparent>(ty: &Type) -> Result<T, SqlError> {
    T::Inner::from_sql_null(ty).map(T::of)
}

/// Whether what is in it can be read from this type.
pub fn receives<T: Transparent>(ty: &Type) -> bool {
    <T::Inner as FromSql<'_>>::accepts(ty)
}

/// `Column::SQL_TYPE` of what is in it.
pub const fn sql_type<T: Transparent>() -> &'static str {
    T::Inner::SQL_TYPE
}

/// `Column::PARAM_TYPE` of what is in it.
pub const fn param_type<T: Transparent>() -> &'static str {
    T::Inner::PARAM_TYPE
}

/// `Column::NULLABLE` of what is in it.
pub const fn nullable<T: Transparent>() -> bool {
    T::Inner::NULLABLE
}

/// `Column::param` of what is in them.
pub fn param<T: Transparent>(values: Vec<Option<&T>>) -> Box<SqlParam<'_>> {
    T::Inner::param(values.into_iter().map(|value| value.map(T::inner)).collect())
}

/// An enum: it is stored by the name of the variant.
pub trait Named: Sized + 'static {
    /// What it is called, for messages.
    const ENUM: &'static str;
    /// All names.
    const NAMES: &'static [&'static str];
    /// The name of this variant.
    fn name(&self) -> &'static str;
    /// The variant with this name.
    fn named(name: &str) -> Option<Self>;
}

#[derive(Debug, thiserror::Error)]
#[error("{found:?} is no `{wanted}`, which is one of: {names}")]
struct UnknownName {
    found: String,
    wanted: &'static str,
    names: String,
}

/// Reads the name of a variant.
pub fn read_name<T: Named>(ty: &Type, raw: &[u8]) -> Result<T, SqlError> {
    let name = <&str>::from_sql(ty, raw)?;
    T::named(name).ok_or_else(|| {
        let (found, wanted, names) = (name.to_owned(), T::ENUM, T::NAMES.join(", "));
        UnknownName { found, wanted, names }.into()
    })
}

/// Sends a value if the type that the database wants is one of its own.
pub fn checked<T: ToSql>(value: &T, ty: &Type, out: &mut BytesMut) -> Result<IsNull, SqlError> {
    if !T::accepts(ty) {
        return Err(Box::new(WrongType::new::<T>(ty.clone())));
    }
    value.to_sql(ty, out)
}

/// What can be stored as JSON.
#[diagnostic::on_unimplemented(
    message = "a field of type `{Self}` cannot be stored as JSON",
    note = "it needs `#[derive(Serialize, Deserialize, Debug)]`"
)]
pub trait JsonColumn: Sized {
    /// The values of many rows as one parameter.
    fn param(values: Vec<&Self>) -> Box<SqlParam<'_>>;
    /// The value of one row.
    fn sql_value(&self) -> SqlValue<'_>;
    /// Reads the value of one row.
    fn read(row: &Row, index: usize) -> Result<Self, tokio_postgres::Error>;
}

impl<T: Serialize + DeserializeOwned + Debug + Send + Sync + 'static> JsonColumn for T {
    fn param(values: Vec<&Self>) -> Box<SqlParam<'_>> {
        Box::new(values.into_iter().map(Json).collect::<Vec<_>>())
    }

    fn sql_value(&self) -> SqlValue<'_> {
        SqlValue::json(self)
    }

    fn read(row: &Row, index: usize) -> Result<Self, tokio_postgres::Error> {
        row.try_get::<_, Json<Self>>(index).map(|value| value.0)
    }
}

#[cfg(test)]
mod tests {
    use annals_derive::Column;

    use super::*;

    #[derive(Column, Debug)]
    enum Status {
        Open,
        Closed,
    }

    #[test]
    fn an_unknown_name_is_told_with_the_known_ones() {
        let status = Status::from_sql(&Type::TEXT, b"closed").unwrap();
        assert!(matches!(status, Status::Closed));
        let error = Status::from_sql(&Type::TEXT, b"Open").unwrap_err();
        assert_eq!(error.to_string(), "\"Open\" is no `Status`, which is one of: open, closed");
        assert_eq!(Status::Open.name(), "open");
    }
}
