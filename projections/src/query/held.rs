//! Statements in which what was looked at before them still holds: that history is kept from there on, and that the
//! read model has come so far.

use annals_eventstore::Position;
use tokio_postgres::{Row, types::ToSql};

use super::{Consistency, Query};
use crate::{
    error::Error,
    read_model::ReadModel,
    table::{Sql, checkpoint_name},
};

/// A statement for rows, and its parameters behind all others.
pub(super) struct Statement {
    pub(super) sql: String,
    more: Vec<Option<i64>>,
    /// Whether it says by a column of its own, behind all others, whether a row is one; and by none that something
    /// does not hold any more.
    is_guarded: bool,
}

/// What a statement has found.
pub(super) enum Found {
    Rows(Vec<Row>),
    /// Something does not hold any more that did before.
    Changed,
}

impl Statement {
    pub(super) fn params<'p>(&'p self, before: &mut Vec<&'p (dyn ToSql + Sync)>) {
        before.extend(self.more.iter().map(|more| more as &(dyn ToSql + Sync)));
    }

    /// Whether there is something to be read at all, by the first row.
    pub(super) fn is_held(&self, first: Option<&Row>) -> bool {
        !self.is_guarded || first.is_some()
    }

    pub(super) fn is_row(&self, row: &Row) -> bool {
        let there = || row.try_get::<_, Option<bool>>(row.len().saturating_sub(1));
        !self.is_guarded || matches!(there(), Ok(Some(_)))
    }

    pub(super) fn found(&self, mut rows: Vec<Row>) -> Found {
        if !self.is_held(rows.first()) {
            return Found::Changed;
        }
        rows.retain(|row| self.is_row(row));
        Found::Rows(rows)
    }
}

impl<R: ReadModel> Query<'_, R> {
    /// A statement for rows once the read model is fresh enough. `make` is given the number of the parameter that is
    /// the position that it is about; `keys` are before that.
    pub(super) async fn statement(
        &self,
        keys: usize,
        make: impl FnOnce(&Sql, Option<usize>) -> String,
    ) -> Result<Statement, Error> {
        let at = self.position().await?;
        let number = self.params().len() + keys + 1;
        let rows = make(&Sql::of::<R>(self.schema()?), at.map(|_| number));
        if self.elsewhere.is_some() {
            // They do not change.
            let more = at.into_iter().map(|at| Some(at.get())).collect();
            return Ok(Statement { sql: rows, more, is_guarded: false });
        }
        self.guarded(rows, number, at, at)
    }

    /// The same for rows that are made already. They may be from `first` on, and have parameters before `number`.
    pub(super) fn guarded(
        &self,
        rows: String,
        number: usize,
        first: Option<Position>,
        last: Option<Position>,
    ) -> Result<Statement, Error> {
        let needed = match self.consistency {
            Consistency::AtLeast(position, _) => Some(last.map_or(position, |at| at.max(position))),
            Consistency::Strong => None,
            Consistency::Eventual => last,
        };
        if first.is_none() && needed.is_none() {
            return Ok(Statement { sql: rows, more: Vec::new(), is_guarded: false });
        }
        let sql = self.store.database()?.schema().sql(include_str!("../sql/held.sql"));
        let sql = sql
            .replace("{rows}", &rows)
            .replace("{name}", &checkpoint_name::<R>())
            .replace("{at}", &format!("${number}"))
            .replace("{needed}", &format!("${}", number + 1));
        let more = [first, needed].map(|position| position.map(Position::get)).to_vec();
        Ok(Statement { sql, more, is_guarded: true })
    }
}
