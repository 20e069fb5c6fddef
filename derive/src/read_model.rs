//! `#[derive(ReadModel)]`.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{
    Data, DeriveInput, Error, Field, Fields, Path, Type, ext::IdentExt, punctuated::Punctuated,
    spanned::Spanned,
};

use crate::{
    attributes::{Attributes, Errors, Key, Place},
    names, paths,
};

const ITEM: Place = Place {
    namespace: "read_model",
    on: "on the struct",
    keys: &[Key::text("table"), Key::types("from"), Key::flag("history")],
};
const FIELD: Place = Place {
    namespace: "read_model",
    on: "on a field",
    keys: &[Key::flag("key"), Key::flag("json"), Key::text("column")],
};

/// The most columns that a key may have: what `RowKey` is implemented for.
const MAX_KEY_COLUMNS: usize = 4;

/// One field of the struct and the column that it is stored in.
struct Column<'a> {
    field: &'a Ident,
    ty: &'a Type,
    name: String,
    key: bool,
    json: bool,
}

/// The place of a type: what is generated there shows its errors there.
fn call_site(ty: &Type) -> Span {
    ty.span().resolved_at(Span::call_site())
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
    let columns = read_columns(input, &mut errors);
    errors.finish()?;
    generate(input, &table, attributes.span("history").is_some(), sources, &columns)
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

fn missing_key(fields: &Punctuated<Field, syn::Token![,]>) -> String {
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
    Some(Column { field: ident, ty: &field.ty, name, key: key.is_some(), json: json.is_some() })
}

fn is_option(ty: &Type) -> bool {
    match ty {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "Option"),
        Type::Group(group) => is_option(&group.elem),
        Type::Paren(paren) => is_option(&paren.elem),
        _ => false,
    }
}

fn generate(
    input: &DeriveInput,
    table: &str,
    history: bool,
    sources: &[Type],
    columns: &[Column<'_>],
) -> Result<TokenStream, Error> {
    let root = paths::projections()?;
    let ident = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let history = Ident::new(if history { "Kept" } else { "None" }, Span::call_site());
    let defs = columns.iter().map(|column| column_def(&root, column));
    let keys = columns.iter().filter(|column| column.key);
    let key_types: Vec<_> = keys.clone().map(|key| key.ty).collect();
    let key_values: Vec<_> = keys
        .map(|key| {
            let (field, ty) = (key.field, key.ty);
            quote_spanned!(call_site(ty)=> <#ty as ::std::clone::Clone>::clone(&self.#field))
        })
        .collect();
    let (key_type, key_value) = match (&key_types[..], &key_values[..]) {
        ([ty], [value]) => (quote!(#ty), quote!(#value)),
        _ => (quote!((#(#key_types),*)), quote!((#(#key_values),*))),
    };
    let sources = sources.iter().map(|source| {
        let span = call_site(source);
        let root = paths::at(&root, span);
        quote_spanned!(span=> #root::__private::Source::<Self>::of::<#source>())
    });
    let values = columns.iter().map(|column| column_values(&root, column));
    let fields = columns.iter().enumerate().map(|(index, column)| read_field(&root, index, column));
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #root::__private::ReadModel for #ident #type_generics #where_clause {
            const TABLE: &'static ::std::primitive::str = #table;
            const HISTORY: #root::__private::History = #root::__private::History::#history;
            const COLUMNS: &'static [#root::__private::ColumnDef] = &[#(#defs),*];
            type Key = #key_type;

            fn sources() -> ::std::vec::Vec<#root::__private::Source<Self>> {
                ::std::vec![#(#sources),*]
            }

            fn key(&self) -> Self::Key {
                #key_value
            }

            fn columns<'a>(
                rows: &[&'a Self],
            ) -> ::std::vec::Vec<::std::boxed::Box<#root::__private::SqlParam<'a>>> {
                fn values<'a, T: #root::__private::Column>(
                    values: ::std::vec::Vec<&'a T>,
                ) -> ::std::boxed::Box<#root::__private::SqlParam<'a>> {
                    ::std::boxed::Box::new(values)
                }
                ::std::vec![#(#values),*]
            }

            fn from_row(
                row: &#root::__private::Row,
            ) -> ::std::result::Result<Self, #root::__private::PostgresError> {
                ::std::result::Result::Ok(Self { #(#fields),* })
            }
        }
    })
}

fn column_def(root: &Path, column: &Column<'_>) -> TokenStream {
    let Column { ty, name, key, .. } = column;
    let (sql_type, nullable) = if column.json {
        (quote!("jsonb"), quote!(false))
    } else {
        let span = call_site(ty);
        let root = paths::at(root, span);
        (
            quote_spanned!(span=> <#ty as #root::__private::Column>::SQL_TYPE),
            quote_spanned!(span=> <#ty as #root::__private::Column>::NULLABLE),
        )
    };
    quote! {
        #root::__private::ColumnDef {
            name: #name,
            sql_type: #sql_type,
            nullable: #nullable,
            key: #key,
        }
    }
}

/// The values of one column over many rows, as a parameter of a statement.
fn column_values(root: &Path, column: &Column<'_>) -> TokenStream {
    let Column { field, ty, .. } = column;
    let span = call_site(ty);
    let root = paths::at(root, span);
    let collect = |value: TokenStream| {
        quote_spanned! {span=>
            ::std::iter::Iterator::collect::<::std::vec::Vec<_>>(
                ::std::iter::Iterator::map(rows.iter(), |row| #value)
            )
        }
    };
    if column.json {
        let values = collect(quote_spanned!(span=> #root::__private::Json(&row.#field)));
        quote_spanned! {span=>
            ::std::boxed::Box::new(#values) as ::std::boxed::Box<#root::__private::SqlParam<'a>>
        }
    } else {
        let values = collect(quote_spanned!(span=> &row.#field));
        let checked = checked_column(&root, ty);
        quote_spanned! {span=> {
            #checked
            values::<#ty>(#values)
        }}
    }
}

fn read_field(root: &Path, index: usize, column: &Column<'_>) -> TokenStream {
    let Column { field, ty, .. } = column;
    let span = call_site(ty);
    let root = paths::at(root, span);
    let value = if column.json {
        quote_spanned!(span=> row.try_get::<_, #root::__private::Json<#ty>>(#index)?.0)
    } else {
        let checked = checked_column(&root, ty);
        quote_spanned! {span=> {
            #checked
            row.try_get::<_, #ty>(#index)?
        }}
    };
    quote!(#field: #value)
}

/// Asks for `Column` at the field's type. What else a type lacks that is no column follows from
/// this, so the compiler reports this one error and not one for each use of the type.
fn checked_column(root: &TokenStream, ty: &Type) -> TokenStream {
    quote_spanned!(call_site(ty)=> let _ = <#ty as #root::__private::Column>::SQL_TYPE;)
}
