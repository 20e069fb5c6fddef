//! Which Rust types a read model's fields may have, and as what they are stored.

mod array;
pub(crate) mod derived;
mod value;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use tokio_postgres::types::{FromSqlOwned, ToSql};
use uuid::Uuid;

pub use self::{
    array::{ArrayElement, ArrayText},
    value::SqlValue,
};

/// A parameter of a statement: the values of one column.
pub type SqlParam<'a> = dyn ToSql + Sync + Send + 'a;

/// A type that a field of a read model may have.
///
/// | Rust | PostgreSQL |
/// |---|---|
/// | `bool` | `boolean` |
/// | `i16`, `i32`, `i64` | `smallint`, `integer`, `bigint` |
/// | `f32`, `f64` | `real`, `double precision` |
/// | `rust_decimal::Decimal`, with the feature `decimal` | `numeric` |
/// | `String` | `text` |
/// | `Vec<u8>` | `bytea` |
/// | `uuid::Uuid` | `uuid` |
/// | `chrono`'s `NaiveDate`, `NaiveTime`, `NaiveDateTime`, `DateTime<Utc>` | `date`, `time`, `timestamp`, `timestamptz` |
/// | `serde_json::Value` | `jsonb` |
/// | an enum that derives `Column` | `text` |
/// | a newtype that derives `Column` | what is in it |
/// | `Option<T>` | the same, nullable |
/// | `Vec<T>`, where `T` is an [`ArrayElement`] | an array |
///
/// Times and dates are stored to the microsecond. PostgreSQL has no unsigned integers.
///
/// Derive it for enums and newtypes of your own. Implement it for a type that has `ToSql` and
/// `FromSql`; the name of its SQL type is all that is needed then.
///
/// ```
/// use annals_projections::Column;
///
/// #[derive(Column, Clone, Debug, PartialEq)]
/// enum Status {
///     Submitted,
///     #[column(name = "on hold")]
///     Waiting,
/// }
///
/// #[derive(Column, Clone, Debug, PartialEq, Eq, Hash)]
/// struct LoanId(i64);
///
/// assert_eq!(<Option<Status>>::SQL_TYPE, "text");
/// assert_eq!(<Vec<LoanId>>::SQL_TYPE, "bigint[]");
/// ```
#[diagnostic::on_unimplemented(
    message = "a field of type `{Self}` cannot be a column of a read model",
    note = "use one of the built-in column types (integers are signed: `i16`, `i32`, `i64`), mark the field `#[read_model(json)]`, or derive `Column` for an enum or newtype of your own"
)]
pub trait Column: ToSql + FromSqlOwned + Send + Sync + 'static {
    /// Its SQL type.
    const SQL_TYPE: &'static str;
    /// Whether the column may be null.
    const NULLABLE: bool = false;
    /// The SQL type that values are sent as where those of many rows are sent at once; it is cast to
    /// [`SQL_TYPE`](Self::SQL_TYPE) then.
    const PARAM_TYPE: &'static str = Self::SQL_TYPE;

    /// The values of many rows as one parameter, an array of [`PARAM_TYPE`](Self::PARAM_TYPE).
    fn param<'a>(values: Vec<Option<&'a Self>>) -> Box<SqlParam<'a>> {
        Box::new(values)
    }

    /// The value of one row.
    fn sql_value(&self) -> SqlValue<'_> {
        SqlValue::of(self)
    }
}

macro_rules! columns {
    ($($rust:ty => $sql:literal),* $(,)?) => {
        $(impl Column for $rust { const SQL_TYPE: &'static str = $sql; })*
    };
}

columns! {
    bool => "boolean",
    i16 => "smallint",
    i32 => "integer",
    i64 => "bigint",
    f32 => "real",
    f64 => "double precision",
    String => "text",
    Vec<u8> => "bytea",
    Uuid => "uuid",
    NaiveDate => "date",
    NaiveTime => "time",
    NaiveDateTime => "timestamp",
    DateTime<Utc> => "timestamptz",
    serde_json::Value => "jsonb",
}

#[cfg(feature = "decimal")]
columns! { rust_decimal::Decimal => "numeric" }

impl<T: Column> Column for Option<T> {
    const SQL_TYPE: &'static str = T::SQL_TYPE;
    const NULLABLE: bool = true;
    const PARAM_TYPE: &'static str = T::PARAM_TYPE;

    fn param<'a>(values: Vec<Option<&'a Self>>) -> Box<SqlParam<'a>> {
        T::param(values.into_iter().map(|value| value.and_then(Option::as_ref)).collect())
    }
}
