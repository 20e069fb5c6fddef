//! `#[derive(Aggregate)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, LitStr, Type, ext::IdentExt, parse_quote};

use crate::{
    attributes::{Attributes, Key, Place},
    errors::Errors,
    names, paths,
    shape::Describer,
};

const ITEM: Place = Place {
    namespace: "aggregate",
    on: "on the aggregate",
    keys: &[Key::text("category"), Key::ty("event"), Key::ty("error")],
};

const SNAPSHOT: Place = Place {
    namespace: "snapshot",
    on: "on the aggregate",
    keys: &[
        Key::number("every"),
        Key::number("after_ms"),
        Key::number("keep"),
        Key::number("version"),
        Key::flag("by_hand"),
    ],
};

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream, Error> {
    let mut errors = Errors::default();
    let ident = &input.ident;
    errors.refuse_lifetimes(
        &input.generics,
        "an aggregate owns its state, because it outlives the call that loads it: \
         use String instead of &str",
    );
    refuse_misplaced(input, &mut errors);
    let attributes = Attributes::read(&ITEM, &input.attrs, &mut errors);
    let name = ident.unraw();
    let example = format!(
        "`#[aggregate(category = \"{}\", event = {name}Event)]`",
        names::snake_case(&name.to_string())
    );
    if let Some(category) = attributes.text("category")
        && let Some(reason) = names::invalid_category(&category.value())
    {
        errors.push(category.span(), reason);
    }
    if attributes.lacks("category") {
        errors.push(ident.span(), format!("say in which category its streams are: {example}"));
    }
    if attributes.lacks("event") {
        errors.push(ident.span(), format!("say which enum its events are: {example}"));
    }
    let snapshots = snapshots(input, &mut errors);
    errors.finish()?;
    match (attributes.text("category"), attributes.ty("event")) {
        (Some(category), Some(event)) => {
            let default = parse_quote!(::std::convert::Infallible);
            let error = attributes.ty("error").unwrap_or(&default);
            generate(input, category, event, error, snapshots)
        }
        // Reported above.
        _ => Ok(TokenStream::new()),
    }
}

/// What `#[snapshot(..)]` sets, as calls of the builder's methods; `None` where it is missing.
fn snapshots(input: &DeriveInput, errors: &mut Errors) -> Option<TokenStream> {
    let attribute = input.attrs.iter().find(|attr| attr.path().is_ident(SNAPSHOT.namespace))?;
    let attributes = Attributes::read(&SNAPSHOT, &input.attrs, errors);
    let number = |key: &str, errors: &mut Errors| {
        let number = attributes.number(key)?;
        let value = number.base10_parse::<u32>().ok().filter(|value| *value > 0);
        if value.is_none() {
            errors.push(number.span(), format!("`{key}` is a whole number from 1 on"));
        }
        value
    };
    let every = number("every", errors);
    let after = number("after_ms", errors).map(u64::from);
    let keep = number("keep", errors);
    let version = number("version", errors);
    let due =
        [attributes.lacks("every"), attributes.lacks("after_ms"), attributes.lacks("by_hand")];
    if due.iter().all(|lacks| *lacks) {
        errors.add(Error::new_spanned(
            attribute,
            "say when to take one: `every = 100` events, when a load takes longer than \
             `after_ms = 20`, both, or `by_hand`",
        ));
    }
    let every = every.map(|events| quote!(.every(#events)));
    let after = after.map(|ms| quote!(.after(::std::time::Duration::from_millis(#ms))));
    let keep = keep.map(|snapshots| quote!(.keep(#snapshots)));
    let version = version.map(|version| quote!(.version(#version)));
    Some(quote!(#every #after #keep #version))
}

fn refuse_misplaced(input: &DeriveInput, errors: &mut Errors) {
    let advice = "`#[aggregate(...)]` goes on the struct or enum itself";
    match &input.data {
        Data::Struct(data) => refuse_on_fields(&data.fields, advice, errors),
        Data::Enum(data) => {
            for variant in &data.variants {
                errors.refuse_stray(&variant.attrs, "aggregate", advice);
                refuse_on_fields(&variant.fields, advice, errors);
            }
        }
        Data::Union(_) => {
            errors.push(input.ident.span(), "an aggregate is a struct or an enum, not a union")
        }
    }
}

fn refuse_on_fields(fields: &Fields, advice: &str, errors: &mut Errors) {
    for field in fields {
        errors.refuse_stray(&field.attrs, "aggregate", advice);
    }
}

fn generate(
    input: &DeriveInput,
    category: &LitStr,
    event: &Type,
    error: &Type,
    snapshots: Option<TokenStream>,
) -> Result<TokenStream, Error> {
    let root = paths::eventstore()?;
    let ident = &input.ident;
    let mut generics = input.generics.clone();
    if !generics.params.is_empty() {
        // For the parameters that make it an aggregate.
        let predicates = &mut generics.make_where_clause().predicates;
        predicates.push(parse_quote! {
            Self: #root::Apply<#event> + ::std::default::Default
                + ::std::marker::Send + ::std::marker::Sync + 'static
        });
        predicates.push(parse_quote!(#event: #root::__private::Event));
        predicates.push(parse_quote! {
            #error: ::std::error::Error + ::std::marker::Send + ::std::marker::Sync + 'static
        });
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let snapshots = snapshots.map(|settings| {
        let name = ident.unraw().to_string();
        quote! {
            const SNAPSHOTS: ::std::option::Option<#root::__private::Snapshots<Self>> =
                ::std::option::Option::Some(#root::__private::Snapshots::new(#name) #settings);
        }
    });
    let shape = Describer::new(&root, input).item(input);
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #root::__private::Aggregate for #ident #type_generics #where_clause {
            const CATEGORY: &'static ::std::primitive::str = #category;
            type Event = #event;
            type Error = #error;
            #snapshots

            fn duplicate(&self) -> ::std::option::Option<Self> {
                #[allow(unused_imports, reason = "a state is Clone or is not")]
                use #root::__private::{Copied as _, NotCopied as _};
                (&#root::__private::State(self)).copied()
            }

            fn shown(&self) -> #root::__private::JsonResult<#root::__private::Shown> {
                #[allow(unused_imports, reason = "a state is Serialize, or Debug, or is not")]
                use #root::__private::{
                    Debugged as _, NotDebugged as _, NotWritten as _, Written as _,
                };
                let state = #root::__private::State(self);
                match (&state).written() {
                    ::std::option::Option::Some(written) => written,
                    ::std::option::Option::None => ::std::result::Result::Ok((&state).debugged()),
                }
            }

            fn shape() -> ::std::string::String {
                #root::__private::ShapeText::written(|text| {
                    #shape
                })
            }
        }
    })
}
