//! The statements on a read model's tables.

use annals_eventstore::postgres::Schema;

use super::Index;
use crate::{
    interval::{nodes_before, nodes_behind},
    read_model::{ColumnDef, History, IndexDef, ReadModel},
};

/// What the statements on a read model's tables are made of.
pub(crate) struct Sql {
    schema: String,
    pub(super) table: &'static str,
    columns: &'static [ColumnDef],
    indexes: &'static [IndexDef],
    history: History,
}

fn quoted(column: &ColumnDef) -> String {
    format!("\"{}\"", column.name)
}

fn given(column: &ColumnDef) -> String {
    let cast = match column.param_type == column.sql_type {
        true => String::new(),
        false => format!("::{}", column.sql_type),
    };
    format!("given.{}{cast}", quoted(column))
}

impl Sql {
    /// Of the tables in a schema.
    pub(crate) fn of<R: ReadModel>(schema: &Schema) -> Self {
        Self {
            schema: schema.sql("{schema}"),
            table: R::TABLE,
            columns: R::COLUMNS,
            indexes: R::INDEXES,
            history: R::HISTORY,
        }
    }

    /// The name of the table, or of what belongs to it, quoted.
    pub(crate) fn name(&self, suffix: &str) -> String {
        format!("{}.\"{}{suffix}\"", self.schema, self.table)
    }

    /// One text for each column that passes, joined by commas.
    fn list(&self, of: impl Fn(&ColumnDef) -> Option<String>) -> String {
        self.columns.iter().filter_map(of).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn names(&self, prefix: &str) -> String {
        self.list(|column| Some(format!("{prefix}{}", quoted(column))))
    }

    pub(crate) fn keys(&self) -> String {
        self.list(|column| column.key.then(|| quoted(column)))
    }

    /// The columns of the table, with that of the beginning where history is kept.
    pub(super) fn all_names(&self, prefix: &str) -> String {
        self.names(prefix) + self.kept(&format!(", {prefix}valid_from"))
    }

    fn definitions(&self) -> String {
        self.list(|column| {
            let null = if column.nullable { "" } else { " not null" };
            Some(format!("{} {}{null}", quoted(column), column.sql_type))
        })
    }

    /// The columns with their types, and no more.
    pub(super) fn types(&self) -> String {
        self.list(|column| Some(format!("{} {}", quoted(column), column.sql_type)))
    }

    /// The text where history is kept, and nothing elsewhere.
    fn kept<'a>(&self, text: &'a str) -> &'a str {
        if self.history == History::Kept { text } else { "" }
    }

    /// The columns, or those of the key, as arrays from `$1` on.
    fn arrays(&self, wanted: impl Fn(&ColumnDef) -> bool) -> String {
        let wanted = self.columns.iter().filter(|column| wanted(column)).zip(1..);
        wanted.map(|(c, n)| format!("${n}::{}[]", c.param_type)).collect::<Vec<_>>().join(", ")
    }

    /// The columns of what [`Sql::arrays`] is taken apart into, as what they are stored as.
    fn given(&self) -> String {
        self.list(|column| Some(given(column)))
    }

    /// The rows of the table as arrays from `$1` on.
    fn row_arrays(&self) -> String {
        let next = self.columns.len() + 1;
        self.arrays(|_| true) + self.kept(&format!(", ${next}::bigint[]"))
    }

    /// That the key is the only element of the arrays from `$first` on. Said in this way, it is one row for
    /// the planner too, whatever the parameters are, and so one plan serves all.
    fn key_params(&self, first: usize) -> String {
        let keys = self.columns.iter().filter(|column| column.key).zip(first..);
        keys.map(|(c, n)| format!("{} = (${n}::{}[])[1]", quoted(c), c.sql_type))
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

    pub(super) fn tables(&self) -> String {
        let mut sql = format!(
            "create table if not exists {} ({}{}, primary key ({}));\n",
            self.name(""),
            self.definitions(),
            self.kept(", valid_from bigint not null"),
            self.keys(),
        );
        if self.history == History::Kept {
            sql += &format!(
                "create table if not exists {} ({}, \
                 valid_from bigint not null, valid_to bigint not null, node bigint not null);\n",
                self.name("_history"),
                self.definitions(),
            );
        }
        sql
    }

    /// The indexes that are declared.
    pub(super) fn indexes(&self) -> Vec<Index> {
        let declared = self.indexes.iter().map(|of| {
            let columns: Vec<_> = of.columns.iter().map(|name| format!("\"{name}\"")).collect();
            self.index("index", &of.name(self.table), "", &columns.join(", "))
        });
        declared.collect()
    }

    pub(super) fn history_indexes(&self) -> Vec<Index> {
        if self.history == History::None {
            return Vec::new();
        }
        let index = |kind, of: &str, columns: &str| {
            self.index(kind, &format!("{}_history_{of}", self.table), "_history", columns)
        };
        vec![
            index("unique index", "key", &format!("{}, valid_from", self.keys())),
            index("index", "node", "node, valid_to"),
        ]
    }

    fn index(&self, kind: &str, name: &str, suffix: &str, columns: &str) -> Index {
        let table = self.name(suffix);
        Index {
            name: format!("{}.\"{name}\"", self.schema),
            create: format!("create {kind} if not exists \"{name}\" on {table} ({columns});\n"),
        }
    }

    pub(super) fn load(&self) -> String {
        format!(
            "select {} from unnest({}) given({}) join {} t on {}",
            self.all_names("t."),
            self.arrays(|column| column.key),
            self.keys(),
            self.name(""),
            self.same_key("t"),
        )
    }

    pub(super) fn lock_numbers(&self) -> String {
        // By the types' own hashes: equal keys have equal ones, whatever the session's settings.
        format!(
            "select pg_catalog.hash_record(row({0})) from unnest({1}) given({0})",
            self.keys(),
            self.arrays(|column| column.key),
        )
    }

    pub(super) fn insert(&self) -> String {
        format!(
            "insert into {} ({names}) select {}{} from unnest({}) given({names})",
            self.name(""),
            self.given(),
            self.kept(", given.valid_from"),
            self.row_arrays(),
            names = self.all_names(""),
        )
    }

    pub(super) fn update(&self) -> String {
        let set = |column: &ColumnDef| format!("{} = {}", quoted(column), given(column));
        let mut values: Vec<_> =
            self.columns.iter().filter(|column| !column.key).map(set).collect();
        if self.history == History::Kept {
            values.push("valid_from = given.valid_from".to_owned());
        }
        if values.is_empty() {
            // The key is all there is to a row; it is found and counted as elsewhere.
            values.extend(self.columns.iter().map(set));
        }
        format!(
            "update {} t set {} from unnest({}) given({}) where {}",
            self.name(""),
            values.join(", "),
            self.row_arrays(),
            self.all_names(""),
            self.same_key("t"),
        )
    }

    pub(super) fn delete(&self) -> String {
        format!(
            "delete from {} t using unnest({}) given({}) where {}",
            self.name(""),
            self.arrays(|column| column.key),
            self.keys(),
            self.same_key("t"),
        )
    }

    fn history_names(&self) -> String {
        format!("{}, valid_from, valid_to, node", self.names(""))
    }

    pub(super) fn keep(&self) -> String {
        let next = self.columns.len() + 1;
        format!(
            "insert into {} ({names}) select {}, given.valid_from, given.valid_to, given.node \
             from unnest({}, ${next}::bigint[], ${}::bigint[], ${}::bigint[]) given({names})",
            self.name("_history"),
            self.given(),
            self.arrays(|_| true),
            next + 1,
            next + 2,
            names = self.history_names(),
        )
    }

    pub(super) fn copy(&self) -> String {
        format!("copy {} ({}) from stdin binary", self.name(""), self.all_names(""))
    }

    pub(super) fn copy_history(&self) -> String {
        format!("copy {} ({}) from stdin binary", self.name("_history"), self.history_names())
    }

    /// The rows as they are, or as of the position in a parameter.
    fn rows(&self, at: Option<usize>, names: &str) -> String {
        match at {
            None => self.name(""),
            Some(at) => format!("({}) as_of", self.rows_as_of(&format!("${at}::bigint"), names)),
        }
    }

    /// Rows for which a condition holds.
    pub(crate) fn select(&self, at: Option<usize>, condition: &str) -> String {
        let names = self.names("");
        format!("select {names} from {} where {condition}", self.rows(at, &names))
    }

    /// How many rows there are for which a condition holds.
    pub(crate) fn count(&self, at: Option<usize>, condition: &str) -> String {
        let rows = self.rows(at, &self.names(""));
        format!("select count(*) from (select from {rows} where {condition}) counted")
    }

    /// The row whose key is in the parameters from `$first` on, for which a condition holds.
    pub(crate) fn get(&self, first: usize, at: Option<usize>, condition: &str) -> String {
        let (names, table, key) = (self.names(""), self.name(""), self.key_params(first));
        let Some(at) = at else {
            return format!("select {names} from {table} where {key} and ({condition})");
        };
        // Versions of a row do not overlap: only the last that began by then can have held, and where the
        // present one had begun, nothing is looked for in the history.
        let history = self.name("_history");
        format!(
            "select {names} from {table} where {key} and valid_from <= ${at} and ({condition}) \
             union all select {names} from ( \
                 select * from {history} where {key} and valid_from <= ${at} \
                 order by valid_from desc limit 1) last \
             where valid_to > ${at} and ({condition}) limit 1"
        )
    }

    /// All versions of one key's row, from the first on, with their ranges.
    pub(crate) fn versions(&self) -> String {
        let (names, key) = (self.names(""), self.key_params(1));
        // As everywhere, the table is locked before its history.
        format!(
            "select {names}, valid_from, null::bigint as valid_to from {} where {key} union all \
             select {names}, valid_from, valid_to from {} where {key} order by valid_from",
            self.name(""),
            self.name("_history"),
        )
    }

    /// Rows that differ between the positions `$1` and `$2`: first as of the one, then of the other.
    pub(crate) fn changes(&self) -> String {
        let all = self.all_names("");
        let same =
            |other: &str| format!("{} and {other}.valid_from = t.valid_from", self.keyed(other));
        format!(
            "with a as ({}), b as ({}) \
             select {names}, false as later from a t where not exists (select from b where {}) \
             union all \
             select {names}, true from b t where not exists (select from a where {}) \
             order by {}, later",
            self.rows_as_of("$1", &all),
            self.rows_as_of("$2", &all),
            same("b"),
            same("a"),
            self.keys(),
            names = self.names(""),
        )
    }

    fn keyed(&self, other: &str) -> String {
        let keys = self.columns.iter().filter(|column| column.key);
        let same = |column: &ColumnDef| format!("{other}.{0} = t.{0}", quoted(column));
        keys.map(same).collect::<Vec<_>>().join(" and ")
    }

    /// Forgets versions that were over before the position `$1`, so many at a time.
    pub(crate) fn forget(&self) -> String {
        let history = self.name("_history");
        format!(
            "delete from {history} where ctid = any (array(
                 select ctid from {history} where valid_to <= $1 limit $2))"
        )
    }

    /// Rows of this table and of another that differ, with how many they are in all.
    pub(super) fn differences(&self, keyed: &str, other: &str) -> String {
        let keys = self.columns.iter().filter(|column| column.key);
        let key = keys.map(|c| format!("'{}', {}", c.name, quoted(c))).collect::<Vec<_>>();
        format!(
            "select jsonb_build_object({}), to_jsonb(a) {hide}, to_jsonb(b) {hide}, count(*) over ()
             from {keyed} a full join {other} b using ({}) \
             where row({}) is distinct from row({}) order by {} limit $1",
            key.join(", "),
            self.keys(),
            self.names("a."),
            self.names("b."),
            self.keys(),
            hide = self.kept("- 'valid_from'"),
        )
    }

    /// The rows as of a position. Whoever asks must know that the read model has come to it.
    pub(super) fn rows_as_of(&self, position: &str, names: &str) -> String {
        let (table, history) = (self.name(""), self.name("_history"));
        format!(
            "select {names} from {table} where valid_from <= {position} union all \
             select {names} from {history} where node = any ({}) and valid_to > {position} union all \
             select {names} from {history} where node = any ({}) and valid_from <= {position}",
            nodes_before(position),
            nodes_behind(position),
        )
    }
}
