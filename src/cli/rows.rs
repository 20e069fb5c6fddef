//! Rows of a read model as JSON, of whatever type they are: the past that the database's own functions
//! answer for.

use std::{collections::HashMap, fmt::Write};

use serde_json::{Value, value::RawValue};

use super::{Failure, json::compact, projection::Projection};
use crate::{
    History, Position, ProjectionError,
    postgres::{Database, Schema},
};

/// A key as the arguments of a command: a text for each column.
pub(super) fn key_of(known: &Projection, given: Vec<String>) -> Result<Vec<String>, Failure> {
    let columns: Vec<_> = known.key().map(|column| column.name).collect();
    if given.len() == columns.len() {
        return Ok(given);
    }
    Err(Failure(format!(
        "a key of {} is {}, not {} values",
        known.table,
        columns.join(" and "),
        given.len()
    )))
}

/// The SQL of questions about a read model's past.
#[derive(Debug)]
pub(super) struct Past<'a> {
    pub(super) known: &'a Projection,
    store: &'a Schema,
    read_models: &'a Schema,
}

impl<'a> Past<'a> {
    pub(super) fn of(known: &'a Projection, database: &'a Database) -> Result<Self, Failure> {
        match known.history {
            History::Kept => {}
            History::None => {
                return Err(ProjectionError::NoHistory { projection: known.table }.into());
            }
        }
        Ok(Self { known, store: database.schema(), read_models: database.read_models() })
    }

    /// Puts names into a question. `{key}` is that the key is that of the texts in `$1`, `{row:v}` the row
    /// of `v` as JSON, `{name:v}` its key.
    pub(super) fn sql(&self, template: &str) -> String {
        let function =
            |suffix| self.read_models.sql(&format!("{{schema}}.\"{}{suffix}\"", self.known.table));
        let keys: Vec<_> = self.known.key().map(|column| format!("\"{}\"", column.name)).collect();
        let is_key = self.known.key().zip(1..).map(|(column, number)| {
            format!("v.\"{}\" = cast(($1::text[])[{number}] as {})", column.name, column.sql_type)
        });
        let mut sql = self
            .store
            .sql(template)
            .replace("{projection}", &format!("projection:{}", self.known.table))
            .replace("{label}", self.known.table)
            .replace("{versions}", &function("_versions"))
            .replace("{as_of}", &function("_as_of"))
            .replace("{key}", &is_key.collect::<Vec<_>>().join(" and "))
            .replace("{keys}", &keys.join(", "));
        for of in ["v", "a", "b"] {
            let columns = self.known.columns.iter();
            let columns: Vec<_> =
                columns.map(|column| format!("{of}.\"{}\"", column.name)).collect();
            let row =
                format!("(select row_to_json(r)::text from (select {}) r)", columns.join(", "));
            sql = sql.replace(&format!("{{row:{of}}}"), &row);
        }
        let key = format!("(select row_to_json(r)::text from (select {}) r)", keys.join(", "));
        sql.replace("{name}", &key)
    }

    /// Where the projection is; an error if it has not begun.
    pub(super) async fn reached(&self, database: &Database) -> Result<Position, Failure> {
        let sql = self.sql("select {schema}.reached('{projection}')");
        let row = database.client().await?.query_one(&sql, &[]).await?;
        let reached = row.get::<_, Option<i64>>(0).map(Position::new);
        reached.ok_or_else(|| ProjectionError::NotBuilt { projection: self.known.table }.into())
    }
}

/// Why the database did not answer: what it says, without what it is not.
pub(super) fn refused(error: tokio_postgres::Error) -> Failure {
    let Some(said) = error.as_db_error() else { return error.into() };
    let mut line = said.message().to_owned();
    for more in [said.detail(), said.hint()].into_iter().flatten() {
        line.push_str(". ");
        line.push_str(more);
    }
    Failure(line.replace('\n', " "))
}

/// The values of a row as JSON texts, by column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cells(HashMap<String, String>);

impl Cells {
    pub(super) fn of(row: &str) -> Result<Self, Failure> {
        let cells: HashMap<String, Box<RawValue>> = serde_json::from_str(row)?;
        Ok(Self(cells.into_iter().map(|(name, value)| (name, compact(value.get()))).collect()))
    }

    pub(super) fn of_value(row: &Value) -> Self {
        let cells = row.as_object().into_iter().flatten();
        Self(cells.map(|(name, value)| (name.clone(), compact(&value.to_string()))).collect())
    }

    fn get(&self, column: &str) -> &str {
        self.0.get(column).map_or("null", |value| value)
    }

    /// The key in words: its values, strings without quotes.
    pub(super) fn key(&self, known: &Projection) -> String {
        let bare = |column: &str| {
            let value = self.get(column);
            value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
        };
        known.key().map(|column| bare(column.name)).collect::<Vec<_>>().join(" ")
    }
}

/// What differs between two rows of one key: a line for each column that does.
pub(super) fn differing(
    known: &Projection,
    before: Option<&Cells>,
    after: Option<&Cells>,
) -> Result<String, Failure> {
    let columns = || known.columns.iter().filter(|column| !column.key).map(|column| column.name);
    let width = columns().map(str::len).max().unwrap_or(0);
    let mut lines = String::new();
    for column in columns() {
        let (before, after) = (before.map(|row| row.get(column)), after.map(|row| row.get(column)));
        match (before, after) {
            (Some(before), Some(after)) if before != after => {
                writeln!(lines, "    {column:width$}  {before} → {after}")?;
            }
            (Some(_), Some(_)) | (None, None) => {}
            (Some(value), None) | (None, Some(value)) => {
                writeln!(lines, "    {column:width$}  {value}")?;
            }
        }
    }
    Ok(lines)
}
