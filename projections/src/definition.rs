//! What a read model's table is made of: columns and indexes.

use crate::column::Column;

/// The longest name in PostgreSQL: it cuts off what is longer.
const MAX_NAME_BYTES: usize = 63;

/// A column of a read model's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ColumnDef {
    /// Its name.
    pub name: &'static str,
    /// Its SQL type.
    pub sql_type: &'static str,
    /// The SQL type of the elements of [`ReadModel::columns`](crate::ReadModel::columns): where it is
    /// not [`sql_type`](Self::sql_type), they are cast to that.
    pub param_type: &'static str,
    /// Whether it may be null.
    pub nullable: bool,
    /// Whether it is part of the key.
    pub key: bool,
}

impl ColumnDef {
    /// A column for a field of this type.
    pub const fn of<T: Column>(name: &'static str) -> Self {
        let (sql_type, param_type) = (T::SQL_TYPE, T::PARAM_TYPE);
        Self { name, sql_type, param_type, nullable: T::NULLABLE, key: false }
    }

    /// A column for a field that is stored as JSON.
    pub const fn json(name: &'static str) -> Self {
        Self::of::<serde_json::Value>(name)
    }

    /// The same as a part of the key.
    ///
    /// # Panics
    /// If the column is an array. In a constant the compiler says so.
    pub const fn in_key(self) -> Self {
        if is_array(self.sql_type) {
            panic!("an array cannot be part of the key; use a column with one value");
        }
        Self { key: true, ..self }
    }

    /// The same as a part of an index.
    ///
    /// # Panics
    /// If an index is of no use to columns of its type. In a constant the compiler says so.
    pub const fn in_index(self) -> Self {
        if is_array(self.sql_type) {
            panic!(
                "an index finds whole arrays only, not what is in them; make a read model that has \
                 a row for each element, or join what you look for into a column of its own"
            );
        }
        if let b"jsonb" = self.sql_type.as_bytes() {
            panic!(
                "an index finds whole JSON values only, not what is in them; keep what you look \
                 for in a column of its own"
            );
        }
        self
    }
}

const fn is_array(sql_type: &str) -> bool {
    matches!(sql_type.as_bytes(), [.., b'[', b']'])
}

/// An index on columns of a read model's table, in this order.
///
/// Its rows are found faster by these columns, or by the first of them; each write takes a little
/// longer. Texts of more than about 2700 bytes do not fit into an index, and the write fails.
///
/// There are no unique indexes: a batch of events is folded first and its rows are written then, in
/// any order. Rows that are never equal at the end of an event may be so on the way there. What has to
/// be unique is decided by commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexDef {
    /// The names of the columns.
    pub columns: &'static [&'static str],
}

impl IndexDef {
    /// An index on these columns.
    pub const fn new(columns: &'static [&'static str]) -> Self {
        Self { columns }
    }

    /// What it is called on a table of this name: `{table}_{column}_{column}_idx`. A name that is too
    /// long for PostgreSQL is cut, with a hash of the whole in the place of the rest. The same columns
    /// and table always have the same name.
    ///
    /// ```
    /// use annals_projections::IndexDef;
    ///
    /// let index = IndexDef::new(&["status", "amount"]);
    /// assert_eq!(index.name("loans"), "loans_status_amount_idx");
    /// ```
    pub fn name(&self, table: &str) -> String {
        let name = format!("{table}_{}_idx", self.columns.join("_"));
        if name.len() <= MAX_NAME_BYTES {
            return name;
        }
        let hash = fnv_1a(&format!("{table},{}", self.columns.join(",")));
        let end = format!("_{hash:016x}_idx");
        let start = &name[..name.floor_char_boundary(MAX_NAME_BYTES - end.len())];
        format!("{start}{end}")
    }
}

/// The hash FNV-1a, whose values never change.
fn fnv_1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        // From the tables of its authors.
        assert_eq!(fnv_1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv_1a("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn an_index_is_called_after_table_and_columns() {
        const FITS: &str = "a_column_whose_name_is_such_that_it_just_fits_in_there";
        let fits = IndexDef::new(&[FITS]).name("loan");
        assert_eq!((fits.len(), fits), (63, format!("loan_{FITS}_idx")));
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        const A: &str = "a_column_with_quite_a_long_name";
        const B: &str = "another_column_with_a_long_name";
        let name = |columns: &'static [&'static str]| IndexDef::new(columns).name("loans");
        // Written into databases: it must not change.
        assert_eq!(
            name(&[A, B]),
            "loans_a_column_with_quite_a_long_name_anot_0f74775bf5874271_idx"
        );
        for other in [name(&[A, "another_column_with_another_name"]), name(&[B, A])] {
            assert!(other.len() <= 63 && other != name(&[A, B]), "{other}");
        }
        assert_ne!(IndexDef::new(&[A, B]).name("loans_2"), name(&[A, B]));
    }

    #[test]
    fn a_cut_name_is_still_text() {
        let name = IndexDef::new(&["x"]).name(&"ä".repeat(40));
        assert!(name.len() <= 63, "{name}");
    }
}
