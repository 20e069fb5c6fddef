//! The implementation that `#[derive(ReadModel)]` writes.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{DeriveInput, Error, Path, Type, spanned::Spanned};

use super::Column;
use crate::paths;

/// The place of a type: what is generated there shows its errors there.
fn call_site(ty: &Type) -> Span {
    ty.span().resolved_at(Span::call_site())
}

pub(super) fn generate(
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

            fn columns<'rows>(
                rows: &[&'rows Self],
            ) -> ::std::vec::Vec<::std::boxed::Box<#root::__private::SqlParam<'rows>>> {
                fn values<'rows, T: #root::__private::Column>(
                    values: ::std::vec::Vec<&'rows T>,
                ) -> ::std::boxed::Box<#root::__private::SqlParam<'rows>> {
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
            ::std::boxed::Box::new(#values) as ::std::boxed::Box<#root::__private::SqlParam<'rows>>
        }
    } else {
        let values = collect(quote_spanned!(span=> &row.#field));
        quote_spanned!(span=> values::<#ty>(#values))
    }
}

fn read_field(root: &Path, index: usize, column: &Column<'_>) -> TokenStream {
    let Column { field, ty, .. } = column;
    let span = call_site(ty);
    let root = paths::at(root, span);
    let value = if column.json {
        quote_spanned!(span=> row.try_get::<_, #root::__private::Json<#ty>>(#index)?.0)
    } else {
        // What a type lacks that is no column follows from its being none: asked for `Column` at
        // the same place, the compiler reports only that.
        quote_spanned! {span=> {
            let _ = <#ty as #root::__private::Column>::SQL_TYPE;
            row.try_get::<_, #ty>(#index)?
        }}
    };
    quote!(#field: #value)
}
