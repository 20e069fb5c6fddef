//! Conditions whose values are text, as query strings and forms have them.

use tokio_postgres::types::ToSql;

use super::Query;
use crate::{
    error::Error,
    read_model::{ColumnDef, ReadModel},
};

/// A condition on a column with a text.
pub(super) struct Text {
    column: &'static ColumnDef,
    operator: &'static str,
}

impl<R: ReadModel> Query<'_, R> {
    /// Asks for the rows that have a value in a column, in addition to what else is asked for. The value is
    /// text, as query strings and forms have it; the database reads it as one of the column's type.
    ///
    /// # Errors
    /// [`Error::NoColumn`] if the read model has no such column. A text that is no value of the column's
    /// type makes the query fail with [`Error::BadText`].
    pub fn matching(mut self, column: &str, value: impl Into<String>) -> Result<Self, Error> {
        let found = R::COLUMNS.iter().find(|found| found.name == column);
        let column = found.ok_or_else(|| Error::NoColumn {
            projection: R::TABLE,
            column: column.to_owned(),
            columns: R::COLUMNS.iter().map(|column| column.name).collect(),
        })?;
        self.texts.push((Text { column, operator: "=" }, value.into()));
        Ok(self)
    }

    /// Asks for the rows after the one with this key, in the order of keys: to read a table page by page, with
    /// [`limit`](Self::limit). The key is text, as for [`matching`](Self::matching).
    ///
    /// # Errors
    /// [`Error::NoColumn`] if the key has several columns.
    pub fn after(mut self, key: impl Into<String>) -> Result<Self, Error> {
        let mut keys = R::COLUMNS.iter().filter(|column| column.key);
        match (keys.next(), keys.next()) {
            (Some(column), None) => {
                self.texts.push((Text { column, operator: ">" }, key.into()));
                Ok(self)
            }
            _ => Err(Error::NoColumn {
                projection: R::TABLE,
                column: "key of one column".to_owned(),
                columns: R::COLUMNS.iter().map(|column| column.name).collect(),
            }),
        }
    }

    /// All conditions on rows, in SQL.
    pub(super) fn condition(&self) -> String {
        let mut condition = self.filter.to_owned();
        for (number, (text, _)) in (self.params.len() + 1..).zip(&self.texts) {
            let ColumnDef { name, sql_type, .. } = text.column;
            let operator = text.operator;
            condition =
                format!("({condition}) and \"{name}\" {operator} ${number}::text::{sql_type}");
        }
        condition
    }

    /// The parameters of the condition.
    pub(super) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        let texts = self.texts.iter().map(|(_, text)| text as &(dyn ToSql + Sync));
        self.params.iter().copied().chain(texts).collect()
    }
}
