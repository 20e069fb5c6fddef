//! The SQL of a read model's tables. Pure: it makes text and runs nothing.

use annals_eventstore::postgres::Database;

use crate::read_model::{ColumnDef, History, ReadModel};

/// The end of the range of positions of a row that still holds.
pub(crate) const FOREVER: i64 = i64::MAX;

/// The statements of one read model.
#[derive(Debug)]
pub(crate) struct Table {
    /// The names, quoted: of the table, its history, and the index that marks that one as ours.
    pub(crate) name: String,
    pub(crate) history: String,
    pub(crate) history_mark: String,
    /// All that a new read model needs: tables, and functions for as-of queries.
    pub(crate) create: String,
    pub(crate) drop: String,
    pub(crate) drop_history: String,
    /// Current rows: by keys given as arrays, by one key, all.
    pub(crate) load: String,
    /// A number for each of the keys, given as arrays, by which its row is locked.
    pub(crate) lock_numbers: String,
    pub(crate) get: String,
    pub(crate) all: String,
    pub(crate) upsert: String,
    pub(crate) delete: String,
    /// The history, where it is kept: close versions, insert versions, one key or all as of `$1`.
    pub(crate) close: String,
    pub(crate) keep: String,
    pub(crate) get_as_of: String,
    pub(crate) all_as_of: String,
}

impl Table {
    pub(crate) fn of<R: ReadModel>(database: &Database) -> Self {
        let sql = Sql {
            store: database.schema().sql("{schema}"),
            schema: database.read_models().sql("{schema}"),
            table: R::TABLE,
            columns: R::COLUMNS,
        };
        Self {
            name: sql.name(""),
            history: sql.name("_history"),
            history_mark: sql.name("_history_current"),
            create: sql.create(R::HISTORY),
            drop: format!("drop table if exists {}", sql.name("")),
            drop_history: sql.drop_history(),
            load: sql.load(),
            lock_numbers: sql.lock_numbers(),
            get: sql.select(&sql.name(""), &sql.key_params(1)),
            all: sql.select(&sql.name(""), "true"),
            upsert: sql.upsert(),
            delete: sql.delete(),
            close: sql.close(),
            keep: sql.keep(),
            get_as_of: sql
                .select(&sql.name("_history"), &format!("{} and {HOLDS}", sql.key_params(2))),
            all_as_of: sql.select(&sql.name("_history"), HOLDS),
        }
    }
}

impl Table {
    /// Whether there is a history table of this read model, kept now or by earlier code. Another
    /// table may bear its name.
    pub(crate) fn has_history(&self) -> String {
        format!("select to_regclass('{}') is not null", self.history_mark)
    }
}

/// The checkpoint, and the lease, of the worker on a read model.
pub(crate) fn checkpoint_name<R: ReadModel>() -> String {
    format!("projection:{}", R::TABLE)
}

const HOLDS: &str = "valid_from <= $1 and valid_to > $1";

struct Sql {
    store: String,
    schema: String,
    table: &'static str,
    columns: &'static [ColumnDef],
}

impl Sql {
    fn name(&self, suffix: &str) -> String {
        format!("{}.\"{}{suffix}\"", self.schema, self.table)
    }

    /// One text for each column that passes, joined by commas.
    fn list(&self, of: impl Fn(&ColumnDef) -> Option<String>) -> String {
        self.columns.iter().filter_map(of).collect::<Vec<_>>().join(", ")
    }

    fn names(&self) -> String {
        self.list(|column| Some(quoted(column)))
    }

    fn keys(&self) -> String {
        self.list(|column| column.key.then(|| quoted(column)))
    }

    /// The columns, or those of the key, as arrays from `$1` on.
    fn arrays(&self, wanted: impl Fn(&ColumnDef) -> bool) -> String {
        let wanted = self.columns.iter().filter(|column| wanted(column)).zip(1..);
        wanted.map(|(c, n)| format!("${n}::{}[]", c.param_type)).collect::<Vec<_>>().join(", ")
    }

    /// The columns of what [`Sql::arrays`] is taken apart into, as what they are stored as.
    fn given(&self) -> String {
        self.list(|column| {
            let cast = match column.param_type == column.sql_type {
                true => String::new(),
                false => format!("::{}", column.sql_type),
            };
            Some(format!("given.{}{cast}", quoted(column)))
        })
    }

    /// That the key is the only element of the arrays from `$first` on.
    fn key_params(&self, first: usize) -> String {
        let keys = self.columns.iter().filter(|column| column.key).zip(first..);
        keys.map(|(c, n)| format!("{} = any (${n}::{}[])", quoted(c), c.sql_type))
            .collect::<Vec<_>>()
            .join(" and ")
    }

    /// `t.k1 = given.k1 and t.k2 = given.k2`
    fn same_key(&self, table: &str) -> String {
        let keys = self.columns.iter().filter(|column| column.key);
        keys.map(|c| format!("{table}.{0} = given.{0}", quoted(c)))
            .collect::<Vec<_>>()
            .join(" and ")
    }

    fn select(&self, from: &str, condition: &str) -> String {
        format!("select {} from {from} where {condition} order by {}", self.names(), self.keys())
    }

    fn load(&self) -> String {
        let columns = self.list(|column| Some(format!("t.{}", quoted(column))));
        format!(
            "select {columns} from unnest({}) given({}) join {} t on {}",
            self.arrays(|column| column.key),
            self.keys(),
            self.name(""),
            self.same_key("t"),
        )
    }

    fn upsert(&self) -> String {
        let values = self
            .list(|column| (!column.key).then(|| format!("{0} = excluded.{0}", quoted(column))));
        let otherwise =
            if values.is_empty() { "nothing".into() } else { format!("update set {values}") };
        format!(
            "insert into {} ({names}) select {} from unnest({}) given({names})
             on conflict ({}) do {otherwise}",
            self.name(""),
            self.given(),
            self.arrays(|_| true),
            self.keys(),
            names = self.names(),
        )
    }

    fn lock_numbers(&self) -> String {
        // By the types' own hashes: equal keys have equal ones, whatever the session's settings.
        format!(
            "select pg_catalog.hash_record(row({0})) from unnest({1}) given({0})",
            self.keys(),
            self.arrays(|column| column.key),
        )
    }

    fn delete(&self) -> String {
        format!(
            "delete from {} t using unnest({}) given({}) where {}",
            self.name(""),
            self.arrays(|column| column.key),
            self.keys(),
            self.same_key("t"),
        )
    }

    fn close(&self) -> String {
        // No column of a read model has a blank in its name.
        let next = self.columns.iter().filter(|column| column.key).count() + 1;
        format!(
            "update {} t set valid_to = given.\"closed at\"
             from unnest({}, ${next}::bigint[]) given({}, \"closed at\")
             where {} and t.valid_to = {FOREVER}",
            self.name("_history"),
            self.arrays(|column| column.key),
            self.keys(),
            self.same_key("t"),
        )
    }

    fn keep(&self) -> String {
        let next = self.columns.len() + 1;
        format!(
            "insert into {} ({names}, valid_from, valid_to)
             select {}, given.valid_from, given.valid_to
             from unnest({}, ${next}::bigint[], ${}::bigint[]) given({names}, valid_from, valid_to)",
            self.name("_history"),
            self.given(),
            self.arrays(|_| true),
            next + 1,
            names = self.names(),
        )
    }

    fn create(&self, history: History) -> String {
        let columns = self.list(|column| {
            let null = if column.nullable { "" } else { " not null" };
            Some(format!("{} {}{null}", quoted(column), column.sql_type))
        });
        let mut sql = format!(
            "create table if not exists {} ({columns}, primary key ({}));\n",
            self.name(""),
            self.keys(),
        );
        if history == History::Kept {
            sql += &include_str!("sql/history.sql")
                .replace("{columns}", &columns)
                .replace("{names}", &self.list(|column| Some(format!("h.{}", quoted(column)))))
                .replace("{keys}", &self.keys())
                .replace("{forever}", &FOREVER.to_string())
                .replace("{checkpoint}", &format!("projection:{}", self.table))
                .replace("{index}", &format!("\"{}_history_current\"", self.table))
                .replace("{label}", self.table)
                .replace("{table}", &self.name(""))
                .replace("{history}", &self.name("_history"))
                .replace("{as_of}", &self.name("_as_of"))
                .replace("{store}", &self.store);
        }
        sql
    }

    fn drop_history(&self) -> String {
        let function = self.name("_as_of");
        format!(
            "drop function if exists {function}(bigint);
             drop function if exists {function}(timestamptz);
             drop function if exists {function}(text);
             drop table if exists {}",
            self.name("_history"),
        )
    }
}

fn quoted(column: &ColumnDef) -> String {
    format!("\"{}\"", column.name)
}
