//! The implementations that `#[derive(Column)]` writes.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Error, Field, Generics, Member, Path, ext::IdentExt, parse_quote};

use super::Named;
use crate::paths;

/// An enum that is stored as text.
pub(super) fn named(input: &DeriveInput, variants: &[Named<'_>]) -> Result<TokenStream, Error> {
    let root = paths::projections()?;
    let ident = &input.ident;
    let mut generics = input.generics.clone();
    if !generics.params.is_empty() {
        require_self(&mut generics);
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let called = ident.unraw().to_string();
    let names: Vec<_> = variants.iter().map(|variant| &variant.name).collect();
    let idents: Vec<_> = variants.iter().map(|variant| variant.variant).collect();
    let text = quote!(&'static ::std::primitive::str);
    let name = quote!(#root::__private::Named::name(self));
    let sql = Sql {
        send: quote!(<#text as #root::__private::ToSql>::to_sql(&#name, ty, out)),
        sends: quote!(<#text as #root::__private::ToSql>::accepts(ty)),
        format: quote!(<#text as #root::__private::ToSql>::encode_format(&#name, ty)),
        receive: quote!(#root::__private::read_name(ty, raw)),
        receive_null: None,
        receives: quote!(<#text as #root::__private::FromSql<'_>>::accepts(ty)),
    };
    let sql = sql.generate(&root, input, &generics);
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #root::__private::Named for #ident #type_generics #where_clause {
            const ENUM: #text = #called;
            const NAMES: &'static [#text] = &[#(#names),*];

            fn name(&self) -> #text {
                match self {
                    #(Self::#idents { .. } => #names,)*
                }
            }

            fn named(name: &::std::primitive::str) -> ::std::option::Option<Self> {
                ::std::option::Option::Some(match name {
                    #(#names => Self::#idents {},)*
                    _ => return ::std::option::Option::None,
                })
            }
        }

        #sql

        #[automatically_derived]
        impl #impl_generics #root::__private::Column for #ident #type_generics #where_clause {
            const SQL_TYPE: #text = "text";
        }

        #[automatically_derived]
        impl #impl_generics #root::__private::ArrayElement for #ident #type_generics #where_clause {
            const ARRAY_TYPE: #text = "text[]";

            fn write_element(&self, array: &mut #root::__private::ArrayText) {
                array.push(#name);
            }
        }
    })
}

/// A newtype that is stored as what is in it.
pub(super) fn newtype(input: &DeriveInput, field: &Field) -> Result<TokenStream, Error> {
    let root = paths::projections()?;
    let (ident, ty) = (&input.ident, &field.ty);
    let member = field.ident.clone().map_or(Member::from(0), Member::Named);
    let mut generics = input.generics.clone();
    if !generics.params.is_empty() {
        require_self(&mut generics);
        let predicates = &mut generics.make_where_clause().predicates;
        predicates.push(parse_quote!(#ty: #root::__private::Column));
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let text = quote!(&'static ::std::primitive::str);
    // The type of the field is named once, so that it is complained of once.
    let sql = Sql {
        send: quote!(#root::__private::send(self, ty, out)),
        sends: quote!(#root::__private::sends::<Self>(ty)),
        format: quote!(#root::__private::format(self, ty)),
        receive: quote!(#root::__private::receive(ty, raw)),
        receive_null: Some(quote!(#root::__private::receive_null(ty))),
        receives: quote!(#root::__private::receives::<Self>(ty)),
    };
    let sql = sql.generate(&root, input, &generics);
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #root::__private::Transparent for #ident #type_generics #where_clause {
            type Inner = #ty;

            fn inner(&self) -> &Self::Inner {
                &self.#member
            }

            fn of(inner: Self::Inner) -> Self {
                Self { #member: inner }
            }
        }

        #sql

        #[automatically_derived]
        impl #impl_generics #root::__private::Column for #ident #type_generics #where_clause {
            const SQL_TYPE: #text = #root::__private::sql_type::<Self>();
            const NULLABLE: ::std::primitive::bool = #root::__private::nullable::<Self>();
            const PARAM_TYPE: #text = #root::__private::param_type::<Self>();

            fn param<'rows>(
                values: ::std::vec::Vec<::std::option::Option<&'rows Self>>,
            ) -> ::std::boxed::Box<#root::__private::SqlParam<'rows>> {
                #root::__private::param(values)
            }
        }
    })
}

/// The bodies of the methods of `ToSql` and `FromSql`.
struct Sql {
    send: TokenStream,
    sends: TokenStream,
    format: TokenStream,
    receive: TokenStream,
    receive_null: Option<TokenStream>,
    receives: TokenStream,
}

impl Sql {
    fn generate(&self, root: &Path, input: &DeriveInput, generics: &Generics) -> TokenStream {
        let Self { send, sends, format, receive, receive_null, receives } = self;
        let ident = &input.ident;
        let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
        let mut reading = generics.clone();
        reading.params.insert(0, parse_quote!('sql));
        let (reading_generics, ..) = reading.split_for_impl();
        let sent = quote! {
            ::std::result::Result<#root::__private::IsNull, #root::__private::SqlError>
        };
        let received = quote!(::std::result::Result<Self, #root::__private::SqlError>);
        let receive_null = receive_null.as_ref().map(|receive_null| {
            quote! {
                fn from_sql_null(ty: &#root::__private::Type) -> #received {
                    #receive_null
                }
            }
        });
        quote! {
            #[automatically_derived]
            impl #impl_generics #root::__private::ToSql for #ident #type_generics #where_clause {
                fn to_sql(
                    &self,
                    ty: &#root::__private::Type,
                    out: &mut #root::__private::BytesMut,
                ) -> #sent {
                    #send
                }

                fn accepts(ty: &#root::__private::Type) -> ::std::primitive::bool {
                    #sends
                }

                fn to_sql_checked(
                    &self,
                    ty: &#root::__private::Type,
                    out: &mut #root::__private::BytesMut,
                ) -> #sent {
                    #root::__private::checked(self, ty, out)
                }

                fn encode_format(
                    &self,
                    ty: &#root::__private::Type,
                ) -> #root::__private::Format {
                    #format
                }
            }

            #[automatically_derived]
            impl #reading_generics #root::__private::FromSql<'sql> for #ident #type_generics
            #where_clause {
                fn from_sql(
                    ty: &#root::__private::Type,
                    raw: &'sql [::std::primitive::u8],
                ) -> #received {
                    #receive
                }

                #receive_null

                fn accepts(ty: &#root::__private::Type) -> ::std::primitive::bool {
                    #receives
                }
            }
        }
    }
}

/// With parameters it is a column for those for which this holds.
fn require_self(generics: &mut Generics) {
    generics.make_where_clause().predicates.push(parse_quote! {
        Self: ::std::fmt::Debug + ::std::marker::Send + ::std::marker::Sync + 'static
    });
}
