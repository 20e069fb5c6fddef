//! Whether the tables in the database are those that a read model needs. Pure, without I/O.

/// A table: its name, and its columns with their types, in order; none if it does not exist.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) table: String,
    pub(crate) columns: Vec<String>,
}

impl Shape {
    fn exists(&self) -> bool {
        !self.columns.is_empty()
    }
}

/// What does not fit, if anything: the table, and in what it differs.
///
/// `found` and `wanted` hold the same tables, the read model's own first. Rows that are there must
/// have been folded from this store's log up to the checkpoint, or there may be none at all.
pub(crate) fn mismatch(
    found: &[Shape],
    wanted: &[Shape],
    checkpoint: Option<i64>,
) -> Option<(String, String)> {
    let tables = || std::iter::zip(found, wanted);
    let other = tables().find_map(|(found, wanted)| {
        if found.exists() && !wanted.exists() {
            Some((wanted, "the read model keeps no history any more".to_owned()))
        } else if found.exists() && found.columns != wanted.columns {
            Some((wanted, difference(&found.columns, &wanted.columns)))
        } else {
            None
        }
    });
    let begun = tables().any(|(found, _)| found.exists());
    let alone = tables().find_map(|(found, wanted)| {
        let differs = match (found.exists() == wanted.exists(), checkpoint) {
            (true, None) if begun => {
                "this store has no checkpoint for it, so its rows are not from this store"
                    .to_owned()
            }
            (true, _) => return None,
            (false, Some(position)) if position > 0 => {
                format!("it is missing, but the projection has come to position {position}")
            }
            (false, _) if begun => "it is missing, and the other is there".to_owned(),
            (false, _) => return None,
        };
        Some((wanted, differs))
    });
    other.or(alone).map(|(table, differs)| (table.table.clone(), differs))
}

fn difference(found: &[String], wanted: &[String]) -> String {
    let missing = |from: &[String], of: &[String]| -> String {
        let names: Vec<_> = of.iter().filter(|c| !from.contains(c)).cloned().collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    let (added, removed) = (missing(found, wanted), missing(wanted, found));
    if added == removed {
        return format!("its columns stand in another order: {}", found.join(", "));
    }
    format!("only the struct has {added}; only the table has {removed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(main: &[&str], history: &[&str]) -> [Shape; 2] {
        [("loans", main), ("loans_history", history)].map(|(table, columns)| Shape {
            table: table.to_owned(),
            columns: columns.iter().map(ToString::to_string).collect(),
        })
    }

    fn differs(found: &[Shape], wanted: &[Shape], checkpoint: Option<i64>) -> (String, String) {
        mismatch(found, wanted, checkpoint).expect("it does not fit")
    }

    const KEY: &str = "id text not null key";

    #[test]
    fn tables_as_wanted_or_none_at_all_fit() {
        let wanted = shapes(&[KEY], &[KEY, "valid_from bigint not null key"]);
        assert_eq!(mismatch(&wanted, &wanted, Some(7)), None);
        assert_eq!(mismatch(&shapes(&[], &[]), &wanted, None), None);
        assert_eq!(mismatch(&shapes(&[], &[]), &wanted, Some(0)), None);
        let plain = shapes(&[KEY], &[]);
        assert_eq!(mismatch(&plain, &plain, Some(7)), None);
    }

    #[test]
    fn another_column_is_named() {
        let wanted = shapes(&[KEY, "amount bigint not null"], &[]);
        let found = shapes(&[KEY, "amount integer not null", "note text"], &[]);
        let (table, difference) = differs(&found, &wanted, Some(7));
        assert_eq!(table, "loans");
        assert_eq!(
            difference,
            "only the struct has amount bigint not null; \
             only the table has amount integer not null, note text"
        );
        let turned = shapes(&["amount bigint not null", KEY], &[]);
        assert!(differs(&turned, &wanted, Some(7)).1.contains("another order"));
    }

    #[test]
    fn history_begins_and_ends_with_the_read_model() {
        let (without, with) = (shapes(&[KEY], &[]), shapes(&[KEY], &[KEY]));
        let (table, difference) = differs(&without, &with, Some(7));
        assert_eq!(table, "loans_history");
        assert!(difference.contains("missing"), "{difference}");
        assert_eq!(differs(&without, &with, Some(0)).0, "loans_history");
        let (table, difference) = differs(&with, &without, Some(7));
        assert_eq!(table, "loans_history");
        assert!(difference.contains("no history"), "{difference}");
    }

    #[test]
    fn rows_and_checkpoint_belong_together() {
        let wanted = shapes(&[KEY], &[KEY]);
        assert!(differs(&wanted, &wanted, None).1.contains("no checkpoint"));
        let plain = shapes(&[KEY], &[]);
        assert!(differs(&plain, &plain, None).1.contains("no checkpoint"));
        let (table, difference) = differs(&shapes(&[], &["mine text"]), &wanted, None);
        assert_eq!(table, "loans_history");
        assert!(difference.contains("only the table has mine text"), "{difference}");
        assert!(differs(&shapes(&[], &[]), &wanted, Some(7)).1.contains("position 7"));
    }
}
