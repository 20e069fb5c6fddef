//! The implementation that `#[derive(ReadModel)]` writes.

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{DeriveInput, Error, Path, Type, spanned::Spanned};

use super::{Column, indexes::Index};
use crate::paths;

/// The place of a type: what is generated there shows its errors there.
fn call_site(ty: &Type) -> Span {
    ty.span().resolved_at(Span::call_site())
}

/// What the attributes say.
pub(super) struct Table<'a> {
    pub(super) name: &'a str,
    pub(super) history: bool,
    pub(super) version: Literal,
    pub(super) slices: Literal,
    pub(super) sources: &'a [Type],
    pub(super) columns: &'a [Column<'a>],
    pub(super) indexes: &'a [Index<'a>],
}

pub(super) fn generate(input: &DeriveInput, table: &Table<'_>) -> Result<TokenStream, Error> {
    let root = paths::projections()?;
    let ident = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let Table { name, version, slices, columns, .. } = table;
    let history = Ident::new(if table.history { "Kept" } else { "None" }, Span::call_site());
    let defs = columns.iter().map(|column| column_def(&root, column));
    let defs = quote!(&[#(#defs),*]);
    let indexes = table.indexes.iter().map(|index| index_def(&root, index));
    let indexes = quote!(&[#(#indexes),*]);
    let (key_type, key_value) = key(columns);
    let sources = table.sources.iter().map(|source| {
        let span = call_site(source);
        let root = paths::at(&root, span);
        quote_spanned!(span=> #root::__private::Source::<Self>::of::<#source>())
    });
    let params = columns.iter().map(|column| column_param(&root, column));
    let values = columns.iter().map(|column| field_value(&root, column));
    let fields = columns.iter().enumerate().map(|(index, column)| read_field(&root, index, column));
    // What is checked in constants is looked at wherever the struct is compiled, used or not. With
    // parameters it depends on them.
    let checks = input.generics.params.is_empty().then(|| {
        quote! {
            const _: &[#root::__private::ColumnDef] = #defs;
            const _: &[#root::__private::IndexDef] = #indexes;
        }
    });
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #root::__private::ReadModel for #ident #type_generics #where_clause {
            const TABLE: &'static ::std::primitive::str = #name;
            const HISTORY: #root::__private::History = #root::__private::History::#history;
            const VERSION: ::std::primitive::u32 = #version;
            const SLICES: ::std::primitive::u16 = #slices;
            const COLUMNS: &'static [#root::__private::ColumnDef] = #defs;
            const INDEXES: &'static [#root::__private::IndexDef] = #indexes;
            type Key = #key_type;

            fn sources() -> ::std::vec::Vec<#root::__private::Source<Self>> {
                ::std::vec![#(#sources),*]
            }

            fn key(&self) -> Self::Key {
                #key_value
            }

            fn columns<'rows>(
                rows: &[&'rows Self],
            ) -> ::std::vec::Vec<::std::boxed::Box<#root::__private::SqlParam<'rows>>> {
                ::std::vec![#(#params),*]
            }

            fn values<'row>(
                &'row self,
                into: &mut ::std::vec::Vec<#root::__private::SqlValue<'row>>,
            ) {
                ::std::iter::Extend::extend(into, [#(#values),*]);
            }

            fn from_row(
                row: &#root::__private::Row,
            ) -> ::std::result::Result<Self, #root::__private::PostgresError> {
                ::std::result::Result::Ok(Self { #(#fields),* })
            }
        }
        #checks
    })
}

/// The key's type, and its value in `self`.
fn key(columns: &[Column<'_>]) -> (TokenStream, TokenStream) {
    let keys = columns.iter().filter(|column| column.key);
    let types: Vec<_> = keys.clone().map(|key| key.ty).collect();
    let values: Vec<_> = keys
        .map(|key| {
            let (field, ty) = (key.field, key.ty);
            quote_spanned!(call_site(ty)=> <#ty as ::std::clone::Clone>::clone(&self.#field))
        })
        .collect();
    match (&types[..], &values[..]) {
        ([ty], [value]) => (quote!(#ty), quote!(#value)),
        _ => (quote!((#(#types),*)), quote!((#(#values),*))),
    }
}

fn column_def(root: &Path, column: &Column<'_>) -> TokenStream {
    let Column { ty, name, .. } = column;
    if column.json {
        return quote!(#root::__private::ColumnDef::json(#name));
    }
    let span = call_site(ty);
    let root = paths::at(root, span);
    let in_key = column.key.then(|| quote_spanned!(span=> .in_key()));
    quote_spanned!(span=> #root::__private::ColumnDef::of::<#ty>(#name)#in_key)
}

fn index_def(root: &Path, index: &Index<'_>) -> TokenStream {
    let names = index.iter().map(|column| &column.name);
    let checks = index.iter().map(|column| {
        let (ty, name) = (column.ty, &column.name);
        let span = call_site(ty);
        let root = paths::at(root, span);
        quote_spanned!(span=> #root::__private::ColumnDef::of::<#ty>(#name).in_index();)
    });
    quote!({
        #(#checks)*
        #root::__private::IndexDef::new(&[#(#names),*])
    })
}

/// The values of one column over many rows, as a parameter of a statement.
fn column_param(root: &Path, column: &Column<'_>) -> TokenStream {
    let Column { field, ty, .. } = column;
    let span = call_site(ty);
    let kind = kind(root, column);
    let value = if column.json {
        quote_spanned!(span=> &row.#field)
    } else {
        quote_spanned!(span=> ::std::option::Option::Some(&row.#field))
    };
    quote_spanned! {span=>
        #kind::param(::std::iter::Iterator::collect::<::std::vec::Vec<_>>(
            ::std::iter::Iterator::map(rows.iter(), |row| #value)
        ))
    }
}

/// The value of one column of one row.
fn field_value(root: &Path, column: &Column<'_>) -> TokenStream {
    let field = column.field;
    let kind = kind(root, column);
    quote_spanned!(call_site(column.ty)=> #kind::sql_value(&self.#field))
}

fn read_field(root: &Path, index: usize, column: &Column<'_>) -> TokenStream {
    let Column { field, ty, .. } = column;
    let span = call_site(ty);
    let kind = kind(root, column);
    let value = if column.json {
        quote_spanned!(span=> #kind::read(row, #index)?)
    } else {
        // What a type lacks that is no column follows from its being none: asked for `Column` at
        // the same place, the compiler reports only that.
        quote_spanned! {span=> {
            let _ = #kind::SQL_TYPE;
            row.try_get::<_, #ty>(#index)?
        }}
    };
    quote!(#field: #value)
}

/// The type as what it is stored as.
fn kind(root: &Path, column: &Column<'_>) -> TokenStream {
    let ty = column.ty;
    let span = call_site(ty);
    let root = paths::at(root, span);
    let kind = Ident::new(if column.json { "JsonColumn" } else { "Column" }, span);
    quote_spanned!(span=> <#ty as #root::__private::#kind>)
}
