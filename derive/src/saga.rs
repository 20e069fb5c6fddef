//! `#[derive(Saga)]`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Data, DeriveInput, Error, LitStr, Type, ext::IdentExt, parse_quote, spanned::Spanned};

use crate::{
    attributes::{Attributes, Key, Place},
    errors::Errors,
    names, paths,
};

const ITEM: Place = Place {
    namespace: "saga",
    on: "on the saga",
    keys: &[
        Key::text("category"),
        Key::ty("event"),
        Key::ty("call"),
        Key::ty("reply"),
        Key::types("from"),
    ],
};

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream, Error> {
    let mut errors = Errors::default();
    let ident = &input.ident;
    errors.refuse_lifetimes(
        &input.generics,
        "a saga owns its state, because it outlives the call that loads it: \
         use String instead of &str",
    );
    if let Data::Union(_) = &input.data {
        errors.push(ident.span(), "a saga is a struct or an enum, not a union");
    }
    let attributes = Attributes::read(&ITEM, &input.attrs, &mut errors);
    let name = ident.unraw().to_string();
    let example = format!(
        "`#[saga(category = \"{}\", event = {name}Event, call = Call, from(...))]`",
        names::snake_case(&name)
    );
    if let Some(category) = attributes.text("category")
        && let Some(reason) = names::invalid_category(&category.value())
    {
        errors.push(category.span(), reason);
    }
    for (key, advice) in [
        ("category", "say in which category its streams are"),
        ("event", "say which enum the events are that it records itself"),
        ("call", "say which type its calls are: what it asks of others"),
    ] {
        if attributes.lacks(key) {
            errors.push(ident.span(), format!("{advice}: {example}"));
        }
    }
    let sources = attributes.types("from");
    if sources.is_empty() && (attributes.lacks("from") || attributes.span("from").is_some()) {
        errors.push(
            attributes.span("from").unwrap_or_else(|| ident.span()),
            "say which aggregates' events it hears: `#[saga(from(...))]`, for example `from(Trip)`",
        );
    }
    errors.finish()?;
    match (attributes.text("category"), attributes.ty("event"), attributes.ty("call")) {
        (Some(category), Some(event), Some(call)) => {
            let default = parse_quote!(());
            let reply = attributes.ty("reply").unwrap_or(&default);
            generate(input, category, [event, call, reply], sources)
        }
        // Reported above.
        _ => Ok(TokenStream::new()),
    }
}

fn generate(
    input: &DeriveInput,
    category: &LitStr,
    [event, call, reply]: [&Type; 3],
    sources: &[Type],
) -> Result<TokenStream, Error> {
    let root = paths::projections()?;
    let ident = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let sources = sources.iter().map(|source| {
        let span = source.span().resolved_at(Span::call_site());
        let root = paths::at(&root, span);
        quote_spanned!(span=> #root::__private::SagaSource::<Self>::of::<#source>())
    });
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #root::__private::Saga for #ident #type_generics #where_clause {
            const CATEGORY: &'static ::std::primitive::str = #category;
            type Event = #event;
            type Call = #call;
            type Reply = #reply;

            fn sources() -> ::std::vec::Vec<#root::__private::SagaSource<Self>> {
                ::std::vec![#(#sources),*]
            }
        }
    })
}
