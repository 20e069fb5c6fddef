//! Which Rust types a read model's fields may have, and as what they are stored.

use chrono::{DateTime, NaiveDate, Utc};
use tokio_postgres::types::{FromSqlOwned, ToSql};
use uuid::Uuid;

/// A parameter of a statement: the values of one column.
pub type SqlParam<'a> = dyn ToSql + Sync + Send + 'a;

/// A type that a field of a read model may have.
///
/// Implement it for a type of your own that implements `ToSql` and `FromSql`, for example with
/// `#[derive(ToSql, FromSql)] #[postgres(transparent)]` on a newtype.
#[diagnostic::on_unimplemented(
    message = "a field of type `{Self}` cannot be a column of a read model",
    note = "use one of the built-in column types, mark the field `#[read_model(json)]`, or implement `Column`"
)]
pub trait Column: ToSql + FromSqlOwned + Send + Sync + 'static {
    /// Its SQL type.
    const SQL_TYPE: &'static str;
    /// Whether the column may be null.
    const NULLABLE: bool = false;
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
    Uuid => "uuid",
    NaiveDate => "date",
    DateTime<Utc> => "timestamptz",
    serde_json::Value => "jsonb",
}

impl<T: Column> Column for Option<T> {
    const SQL_TYPE: &'static str = T::SQL_TYPE;
    const NULLABLE: bool = true;
}
