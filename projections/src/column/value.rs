//! The values of one row.

use bytes::BytesMut;
use serde::Serialize;
use tokio_postgres::types::{Format, IsNull, Json, ToSql, Type};

use super::{Column, SqlParam, derived::SqlError};

/// The value of one column of one row, borrowed from the row: a parameter of a statement, or a field
/// of a row that is copied.
#[derive(Debug)]
pub struct SqlValue<'a>(Form<'a>);

#[derive(Debug)]
enum Form<'a> {
    Plain(&'a SqlParam<'a>),
    // The wrapper that says what it is has no place in the row.
    Json(Box<SqlParam<'a>>),
}

impl<'a> SqlValue<'a> {
    /// The value of a column.
    pub fn of<T: Column>(value: &'a T) -> Self {
        Self(Form::Plain(value))
    }

    /// The value of a column that is stored as JSON.
    pub fn json<T: Serialize + std::fmt::Debug + Sync + Send>(value: &'a T) -> Self {
        Self(Form::Json(Box::new(Json(value))))
    }

    fn inner(&self) -> &SqlParam<'a> {
        match &self.0 {
            Form::Plain(value) => *value,
            Form::Json(value) => &**value,
        }
    }
}

impl ToSql for SqlValue<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, SqlError> {
        self.to_sql_checked(ty, out)
    }

    fn accepts(_: &Type) -> bool {
        // Which types it accepts is known of a value, not of this type: the value is asked.
        true
    }

    fn to_sql_checked(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, SqlError> {
        self.inner().to_sql_checked(ty, out)
    }

    fn encode_format(&self, ty: &Type) -> Format {
        self.inner().encode_format(ty)
    }
}
