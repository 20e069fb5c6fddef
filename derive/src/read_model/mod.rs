//! `#[derive(ReadModel)]`.

mod generate;
mod indexes;

use proc_macro2::{Ident, Literal, Span, TokenStream};
use syn::{
    Data, DeriveInput, Error, Field, Fields, Token, Type, ext::IdentExt, punctuated::Punctuated,
};

use self::{
    generate::{Table, generate},
    indexes::read_indexes,
};
use crate::{
    attributes::{Attributes, Key, Place},
    errors::Errors,
    names,
};

const ITEM: Place = Place {
    namespace: "read_model",
    on: "on the struct",
    keys: &[
        Key::text("table"),
        Key::types("from"),
        Key::flag("history"),
        Key::number("version"),
        Key::number("slices"),
        Key::idents("index").repeatable(),
    ],
};
const FIELD: Place = Place {
    namespace: "read_model",
    on: "on a field",
    keys: &[Key::flag("key"), Key::flag("json"), Key::text("column"), Key::flag("index")],
};

/// The most columns that a key may have: what `RowKey` is implemented for.
const MAX_KEY_COLUMNS: usize = 4;

/// Into how many parts a projection may be split.
const MAX_SLICES: u32 = 256;

/// One field of the struct and the column that it is stored in.
struct Column<'a> {
    field: &'a Ident,
    ty: &'a Type,
    name: String,
    key: bool,
    json: bool,
    /// Where an index on it alone is asked for.
    index: Option<Span>,
}

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream, Error> {
    let mut errors = Errors::default();
    let ident = &input.ident;
    errors.refuse_lifetimes(
        &input.generics,
        "a read model owns its fields, because its rows are read from a table: \
         use String instead of &str",
    );
    let attributes = Attributes::read(&ITEM, &input.attrs, &mut errors);
    let table = match attributes.text("table") {
        Some(table) => {
            if let Some(reason) = names::invalid_table(&table.value()) {
                errors.push(table.span(), reason);
            }
            table.value()
        }
        None => String::new(),
    };
    if attributes.lacks("table") {
        let example = names::snake_case(&ident.unraw().to_string());
        errors.push(
            ident.span(),
            format!("say in which table its rows are: `#[read_model(table = \"{example}\")]`"),
        );
    }
    let sources = attributes.types("from");
    if sources.is_empty() && (attributes.lacks("from") || attributes.span("from").is_some()) {
        errors.push(
            attributes.span("from").unwrap_or_else(|| ident.span()),
            "say which aggregates' events it is built from: `#[read_model(from(...))]`, \
             for example `from(Account)`",
        );
    }
    let version = number(&attributes, "version", u32::MAX, &mut errors);
    let slices = number(&attributes, "slices", MAX_SLICES, &mut errors);
    let columns = read_columns(input, &mut errors);
    let indexes = read_indexes(&attributes, &columns, &mut errors);
    errors.finish()?;
    let table = Table {
        name: &table,
        history: attributes.span("history").is_some(),
        version,
        slices,
        sources,
        columns: &columns,
        indexes: &indexes,
    };
    generate(input, &table)
}

/// A number from 1 to `max`; 1 where there is none.
fn number(attributes: &Attributes, key: &str, max: u32, errors: &mut Errors) -> Literal {
    let mut value = 1;
    if let Some(number) = attributes.number(key) {
        match number.base10_parse::<u32>() {
            Ok(given) if (1..=max).contains(&given) => value = given,
            _ => {
                let to = if max == u32::MAX { "on".to_owned() } else { format!("to {max}") };
                errors.push(number.span(), format!("`{key}` is a whole number from 1 {to}"));
            }
        }
    }
    Literal::u32_unsuffixed(value)
}

fn read_columns<'a>(input: &'a DeriveInput, errors: &mut Errors) -> Vec<Column<'a>> {
    let fields = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => &fields.named,
            Fields::Unnamed(_) | Fields::Unit => {
                errors.push(
                    input.ident.span(),
                    "a read model's fields are its columns, so they need names: \
                     `struct ... { #[read_model(key)] id: String, ... }`",
                );
                return Vec::new();
            }
        },
        Data::Enum(_) | Data::Union(_) => {
            errors.push(
                input.ident.span(),
                "a read model is a struct whose fields are the columns of a table; \
                 for rows of several kinds, derive one struct each, or keep the kind in a column",
            );
            return Vec::new();
        }
    };
    let mut columns: Vec<Column<'a>> = Vec::new();
    let mut misread = false;
    for field in fields {
        let mut mistakes = Errors::default();
        if let Some(column) = read_column(field, &columns, &mut mistakes) {
            columns.push(column);
        }
        if let Err(error) = mistakes.finish() {
            misread = true;
            errors.add(error);
        }
    }
    let keys = columns.iter().filter(|column| column.key);
    match keys.clone().nth(MAX_KEY_COLUMNS) {
        Some(fifth) => errors.push(
            fifth.field.span(),
            format!(
                "a key has at most {MAX_KEY_COLUMNS} columns; leave the others out of the key, \
                 or join several into one field"
            ),
        ),
        // A mistyped `#[read_model(key)]` has been reported as such.
        None if keys.count() == 0 && !misread => {
            errors.push(input.ident.span(), missing_key(fields));
        }
        None => {}
    }
    columns
}

fn missing_key(fields: &Punctuated<Field, Token![,]>) -> String {
    let field = fields.first().and_then(|field| field.ident.as_ref());
    let field = field.map_or("id".to_owned(), ToString::to_string);
    format!(
        "mark the field or fields that identify a row, for example `#[read_model(key)] {field}: ...`"
    )
}

fn read_column<'a>(
    field: &'a Field,
    before: &[Column<'a>],
    errors: &mut Errors,
) -> Option<Column<'a>> {
    // Only fields with names come here.
    let ident = field.ident.as_ref()?;
    let attributes = Attributes::read(&FIELD, &field.attrs, errors);
    let renamed = attributes.text("column");
    let (name, span) = match renamed {
        Some(name) => (name.value(), name.span()),
        None => (ident.unraw().to_string(), ident.span()),
    };
    if let Some(reason) = names::invalid_column(&name) {
        let advice = "choose one with `#[read_model(column = \"...\")]`";
        let message = match renamed {
            Some(_) => format!("{reason}; choose another"),
            None => format!("{reason}; {advice}"),
        };
        errors.push(span, message);
    }
    if let Some(first) = before.iter().find(|column| column.name == name) {
        let first = first.field;
        errors.push(
            span,
            format!(
                "the column `{name}` is already that of the field `{first}`; \
                 choose another with `#[read_model(column = \"...\")]`"
            ),
        );
    }
    let (key, json) = (attributes.span("key"), attributes.span("json"));
    if let (Some(_), Some(json)) = (key, json) {
        errors.push(
            json,
            "a json column cannot be part of the key, because JSON has no order; \
             use a field of a column type for the key",
        );
    } else if key.is_some() && is_option(&field.ty) {
        errors.add(Error::new_spanned(
            &field.ty,
            "a key always has a value: use the type without Option<...>",
        ));
    }
    let index = attributes.span("index");
    Some(Column {
        field: ident,
        ty: &field.ty,
        name,
        key: key.is_some(),
        json: json.is_some(),
        index,
    })
}

fn is_option(ty: &Type) -> bool {
    match ty {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "Option"),
        Type::Group(group) => is_option(&group.elem),
        Type::Paren(paren) => is_option(&paren.elem),
        _ => false,
    }
}
