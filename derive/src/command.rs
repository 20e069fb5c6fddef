//! `#[derive(Command)]`.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    Data, DeriveInput, Error, Field, Fields, Index, Member, Type, ext::IdentExt, parse_quote,
    spanned::Spanned,
};

use crate::{
    attributes::{Attributes, Key, Place},
    errors::Errors,
    names, paths,
};

const ITEM: Place = Place {
    namespace: "command",
    on: "on the command",
    keys: &[Key::ty("aggregate"), Key::text("name"), Key::flag("starts")],
};
const VARIANT: Place =
    Place { namespace: "command", on: "on a variant", keys: &[Key::flag("starts")] };
const FIELD: Place = Place { namespace: "command", on: "on a field", keys: &[Key::flag("id")] };

/// The field that names the stream.
struct Id<'a> {
    member: Member,
    ty: &'a Type,
}

/// What `stream_key` does, and for which variants the command starts a stream.
enum KeyOf<'a> {
    Struct(Id<'a>),
    Enum(Vec<Variant<'a>>),
}

struct Variant<'a> {
    name: &'a Ident,
    id: Id<'a>,
    starts: bool,
}

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream, Error> {
    let mut errors = Errors::default();
    let ident = &input.ident;
    errors.refuse_lifetimes(
        &input.generics,
        "a command owns its fields, because it is decided again after a conflict: \
         use String instead of &str",
    );
    let attributes = Attributes::read(&ITEM, &input.attrs, &mut errors);
    let name = match attributes.text("name") {
        Some(name) => {
            if let Some(reason) = names::invalid_name(&name.value()) {
                errors.push(name.span(), reason);
            }
            name.value()
        }
        None => ident.unraw().to_string(),
    };
    let aggregate = attributes.ty("aggregate");
    if attributes.lacks("aggregate") {
        errors
            .push(ident.span(), "say which aggregate decides on it: `#[command(aggregate = ...)]`");
    }
    let key = read_key(input, &mut errors);
    errors.finish()?;
    match (aggregate, key) {
        (Some(aggregate), Some(key)) => {
            let starts = attributes.span("starts").is_some();
            generate(input, aggregate, &name, &key, starts)
        }
        // Reported above.
        _ => Ok(TokenStream::new()),
    }
}

fn read_key<'a>(input: &'a DeriveInput, errors: &mut Errors) -> Option<KeyOf<'a>> {
    let ident = &input.ident;
    match &input.data {
        Data::Struct(data) => read_id(ident, &data.fields, errors).map(KeyOf::Struct),
        Data::Enum(data) => {
            if data.variants.is_empty() {
                errors.push(
                    ident.span(),
                    "a command enum has a variant for each command; add one, \
                     for example `Open { #[command(id)] account: String }`",
                );
            }
            let mut variants = Vec::new();
            for variant in &data.variants {
                let mut mistakes = Errors::default();
                let attributes = Attributes::read(&VARIANT, &variant.attrs, &mut mistakes);
                if mistakes.finish().is_err() {
                    errors.refuse_stray(
                        &variant.attrs,
                        "command",
                        "`#[command(id)]` goes on a field of the variant, \
                         `#[command(aggregate = ...)]` on the enum; \
                         a variant takes `#[command(starts)]`",
                    );
                    continue;
                }
                if let Some(id) = read_id(&variant.ident, &variant.fields, errors) {
                    let starts = attributes.span("starts").is_some();
                    variants.push(Variant { name: &variant.ident, id, starts });
                }
            }
            Some(KeyOf::Enum(variants))
        }
        Data::Union(_) => {
            errors.push(ident.span(), "a command is a struct or an enum, not a union");
            None
        }
    }
}

/// Finds the one field that is marked as the id.
fn read_id<'a>(owner: &Ident, fields: &'a Fields, errors: &mut Errors) -> Option<Id<'a>> {
    let mut found: Option<Id<'a>> = None;
    let mut misread = false;
    for (index, field) in fields.iter().enumerate() {
        let mut mistakes = Errors::default();
        let attributes = Attributes::read(&FIELD, &field.attrs, &mut mistakes);
        if let Err(error) = mistakes.finish() {
            misread = true;
            errors.add(error);
        }
        let Some(span) = attributes.span("id") else {
            continue;
        };
        if let Some(first) = &found {
            let first = first.member.to_token_stream();
            errors.push(
                span,
                format!(
                    "`#[command(id)]` is already on the field `{first}`, and a command is for one \
                     stream; if several fields make its key, give them a type of their own that \
                     implements Display"
                ),
            );
            continue;
        }
        found = Some(Id { member: member(index, field), ty: &field.ty });
    }
    // A mistyped `#[command(id)]` has been reported as such.
    if found.is_none() && !misread {
        errors.push(owner.span(), missing_id(owner, fields));
    }
    found
}

fn missing_id(owner: &Ident, fields: &Fields) -> String {
    let (what, example) = match fields.iter().next() {
        Some(Field { ident: None, .. }) => ("mark the", format!("{owner}(#[command(id)] ...)")),
        Some(Field { ident: Some(name), .. }) => {
            ("mark the", format!("#[command(id)] {name}: ..."))
        }
        None => ("add a", format!("{owner} {{ #[command(id)] id: ... }}")),
    };
    format!(
        "{what} field that names the stream that the command is for, for example `{example}`; \
         its type implements Display"
    )
}

fn member(index: usize, field: &Field) -> Member {
    match &field.ident {
        Some(name) => Member::Named(name.clone()),
        None => Member::Unnamed(Index::from(index)),
    }
}

fn generate(
    input: &DeriveInput,
    aggregate: &Type,
    name: &str,
    key: &KeyOf<'_>,
    starts: bool,
) -> Result<TokenStream, Error> {
    let root = paths::eventstore()?;
    let ident = &input.ident;
    let mut generics = input.generics.clone();
    if !generics.params.is_empty() {
        // For the parameters that make it a command.
        let serde = paths::serde()?;
        let predicates = &mut generics.make_where_clause().predicates;
        predicates.push(parse_quote! {
            Self: #serde::Serialize + ::std::clone::Clone
                + ::std::marker::Send + ::std::marker::Sync + 'static
        });
        predicates.push(parse_quote!(#aggregate: #root::__private::Aggregate));
        let ids = match key {
            KeyOf::Struct(id) => vec![id.ty],
            KeyOf::Enum(variants) => variants.iter().map(|variant| variant.id.ty).collect(),
        };
        for id in ids {
            predicates.push(parse_quote!(#id: ::std::fmt::Display));
        }
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let stream_key = match key {
        KeyOf::Struct(Id { member, ty }) => to_string(ty, &quote!(&self.#member)),
        KeyOf::Enum(variants) => {
            let arms = variants.iter().map(|Variant { name, id: Id { member, ty }, .. }| {
                let id = Ident::new("id", Span::mixed_site());
                let key = to_string(ty, &id);
                quote!(Self::#name { #member: #id, .. } => #key)
            });
            quote!(match self { #(#arms,)* })
        }
    };
    let starting: Vec<_> = match key {
        KeyOf::Enum(variants) if !starts => {
            variants.iter().filter(|variant| variant.starts).map(|variant| variant.name).collect()
        }
        _ => Vec::new(),
    };
    let starts_stream = match &starting[..] {
        [] => quote!(#starts),
        starting => quote!(::std::matches!(self, #(Self::#starting { .. })|*)),
    };
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #root::__private::Command for #ident #type_generics #where_clause {
            type Aggregate = #aggregate;
            const NAME: &'static ::std::primitive::str = #name;

            fn stream_key(&self) -> ::std::string::String {
                #stream_key
            }

            fn starts_stream(&self) -> ::std::primitive::bool {
                #starts_stream
            }
        }
    })
}

/// The call stands at the field's type, so that a type without Display is an error there.
fn to_string(ty: &Type, id: &impl ToTokens) -> TokenStream {
    let span = ty.span().resolved_at(Span::call_site());
    quote_spanned!(span=> <#ty as ::std::string::ToString>::to_string(#id))
}
