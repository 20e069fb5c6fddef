//! The indexes that a read model declares.

use proc_macro2::{Ident, Span};
use syn::ext::IdentExt;

use super::Column;
use crate::{attributes::Attributes, errors::Errors};

/// The most columns that an index may have: PostgreSQL's own limit.
const MAX_INDEX_COLUMNS: usize = 32;

/// Columns of an index, in order.
pub(super) type Index<'a> = Vec<&'a Column<'a>>;

/// The indexes on the struct, then those on its fields.
pub(super) fn read_indexes<'a>(
    attributes: &Attributes,
    columns: &'a [Column<'a>],
    errors: &mut Errors,
) -> Vec<Index<'a>> {
    let mut indexes = Vec::new();
    for (span, names) in attributes.idents("index") {
        let index = names.iter().filter_map(|name| find(name, columns, errors)).collect::<Vec<_>>();
        if index.len() == names.len() {
            add(span, index, columns, &mut indexes, errors);
        }
    }
    for column in columns {
        if let Some(span) = column.index {
            add(span, vec![column], columns, &mut indexes, errors);
        }
    }
    indexes
}

fn find<'a>(
    name: &Ident,
    columns: &'a [Column<'a>],
    errors: &mut Errors,
) -> Option<&'a Column<'a>> {
    let wanted = name.unraw().to_string();
    let column = columns.iter().find(|column| column.name == wanted);
    if column.is_none() {
        let field = columns.iter().find(|column| column.field.unraw() == wanted);
        let message = match field {
            Some(Column { name, .. }) => {
                format!(
                    "the column of the field `{wanted}` is called `{name}`: write `{name}` here"
                )
            }
            None => {
                let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
                format!("there is no column `{wanted}`; the columns are {}", names.join(", "))
            }
        };
        errors.push(name.span(), message);
    }
    column
}

fn add<'a>(
    span: Span,
    index: Index<'a>,
    columns: &'a [Column<'a>],
    indexes: &mut Vec<Index<'a>>,
    errors: &mut Errors,
) {
    match mistake(&index, columns, indexes) {
        Some(mistake) => errors.push(span, mistake),
        None => indexes.push(index),
    }
}

fn mistake(index: &Index<'_>, columns: &[Column<'_>], before: &[Index<'_>]) -> Option<String> {
    if let Some(json) = index.iter().find(|column| column.json) {
        return Some(format!(
            "an index finds whole JSON values only, not what is in them; keep what you look for in \
             a column of its own instead of `{}`",
            json.name
        ));
    }
    let twice =
        index.iter().enumerate().find(|(n, column)| index[..*n].iter().any(|c| same(c, column)));
    if let Some((_, column)) = twice {
        return Some(format!("the column `{}` stands twice in this index", column.name));
    }
    if index.len() > MAX_INDEX_COLUMNS {
        return Some(format!("an index has at most {MAX_INDEX_COLUMNS} columns"));
    }
    if equal(index, &columns.iter().filter(|column| column.key).collect()) {
        return Some("this index is needless: the key has one of its own".to_owned());
    }
    if before.iter().any(|other| equal(index, other)) {
        return Some("this index is declared twice; keep one of the two".to_owned());
    }
    let name = joined(index);
    before.iter().any(|other| joined(other) == name).then(|| {
        format!(
            "another index would be called like this one, after the columns \"{name}\"; \
             choose another name for a column with `#[read_model(column = \"...\")]`"
        )
    })
}

fn same(a: &Column<'_>, b: &Column<'_>) -> bool {
    a.name == b.name
}

fn equal(a: &Index<'_>, b: &Index<'_>) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
}

/// What an index is called after, beside the table.
fn joined(index: &Index<'_>) -> String {
    index.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join("_")
}
