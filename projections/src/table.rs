//! The SQL of a read model's tables. Pure: it makes text and runs nothing.
//!
//! The table holds the rows as they are. With history it also says since which position each is so, and a
//! second table holds what rows were before, each with its range of positions. Nothing there ever changes:
//! a version is written once it is over.

mod functions;
mod statements;

use annals_eventstore::postgres::Schema;

use self::functions::functions;
pub(crate) use self::statements::Sql;
use crate::read_model::{History, ReadModel};

/// The statements of one read model in one schema.
#[derive(Debug)]
pub(crate) struct Table {
    /// The names, quoted: of the table, its history, and the index that marks that one as ours.
    pub(crate) name: String,
    pub(crate) history: String,
    pub(crate) history_mark: String,
    /// All that a new read model needs: its tables, what finds rows in them, and functions for queries.
    pub(crate) tables: String,
    pub(crate) indexes: Vec<Index>,
    pub(crate) history_indexes: Vec<Index>,
    pub(crate) functions: String,
    pub(crate) drop: String,
    pub(crate) drop_history: String,
    pub(crate) drop_functions: String,
    /// Drops those of them that only fit the one table.
    pub(crate) drop_changes: String,
    /// Current rows, each with its beginning: by keys given as arrays.
    pub(crate) load: String,
    /// A number for each of the keys, given as arrays, by which its row is locked.
    pub(crate) lock_numbers: String,
    pub(crate) insert: String,
    pub(crate) update: String,
    pub(crate) delete: String,
    /// Versions that are over.
    pub(crate) keep: String,
    /// What COPY takes: rows, and versions that are over.
    pub(crate) copy: String,
    pub(crate) copy_history: String,
    differences: String,
}

/// An index beside that of the key. Apart from the tables, because a rebuild fills them first.
#[derive(Debug)]
pub(crate) struct Index {
    /// Quoted.
    pub(crate) name: String,
    pub(crate) create: String,
}

impl Table {
    /// The tables of a read model in `schema`, for the store in the schema `store`.
    pub(crate) fn of<R: ReadModel>(store: &Schema, schema: &Schema) -> Self {
        let sql = Sql::of::<R>(schema);
        Self {
            name: sql.name(""),
            history: sql.name("_history"),
            history_mark: sql.name("_history_key"),
            tables: sql.tables(),
            indexes: sql.indexes(),
            history_indexes: sql.history_indexes(),
            functions: match R::HISTORY {
                History::Kept => functions(&sql, &store.sql("{schema}")),
                History::None => String::new(),
            },
            drop: format!("drop table if exists {}", sql.name("")),
            drop_history: format!("drop table if exists {}", sql.name("_history")),
            drop_functions: functions::drop(&sql),
            drop_changes: functions::drop_changes(&sql),
            load: sql.load(),
            lock_numbers: sql.lock_numbers(),
            insert: sql.insert(),
            update: sql.update(),
            delete: sql.delete(),
            keep: sql.keep(),
            copy: sql.copy(),
            copy_history: sql.copy_history(),
            differences: sql.differences(&sql.name(""), "{other}"),
        }
    }

    pub(crate) fn all_indexes(&self) -> impl Iterator<Item = &Index> {
        self.indexes.iter().chain(&self.history_indexes)
    }

    /// Whether there is a table.
    pub(crate) fn exists(&self) -> String {
        format!("select to_regclass('{}') is not null", self.name)
    }

    /// Rows that differ from those of another table of the same columns: their keys, and both, as JSON, at
    /// most `$1`, each with the number of all.
    pub(crate) fn differences(&self, other: &str) -> String {
        self.differences.replace("{other}", other)
    }

    /// Whether there is a history table of this read model, kept now or by earlier code. Another
    /// table may bear its name.
    pub(crate) fn has_history(&self) -> String {
        format!("select to_regclass('{}') is not null", self.history_mark)
    }
}

/// The checkpoint of the projection into a read model, and the lease of its worker.
pub(crate) fn checkpoint_name<R: ReadModel>() -> String {
    format!("projection:{}", R::TABLE)
}
