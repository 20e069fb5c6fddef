//! `#[derive(Event)]`.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Attribute, Data, DataEnum, DeriveInput, Error, Variant, ext::IdentExt, parse_quote};

use crate::{
    attributes::{Attributes, Key, Place},
    errors::Errors,
    names, paths,
    serde::{Case, SerdeAttributes},
    shape::Describer,
    upcast::{self, Chain, Retired},
};

const ENUM: Place = Place {
    namespace: "event",
    on: "on the enum",
    keys: &[
        Key::text("prefix"),
        Key::texts("dropped").repeatable(),
        Key::named("split").repeatable(),
    ],
};
const VARIANT: Place = Place {
    namespace: "event",
    on: "on a variant",
    keys: &[
        Key::text("name"),
        Key::number("version"),
        Key::text("alias").repeatable(),
        Key::chain("upcast_from"),
        Key::chain("split_from"),
    ],
};

/// Serde's attributes that turn an enum into something else than named variants.
const SERDE_ON_ENUM: [&str; 9] = [
    "content",
    "field_identifier",
    "from",
    "into",
    "tag",
    "transparent",
    "try_from",
    "untagged",
    "variant_identifier",
];
/// Serde's attributes that take a variant out, or let it stand for others.
const SERDE_ON_VARIANT: [&str; 5] =
    ["other", "skip", "skip_deserializing", "skip_serializing", "untagged"];

const ONE_VARIANT: &str = "each name and alias belongs to one variant, choose another with \
                           `#[event(name = \"...\")]`";

/// How one variant is stored.
struct Kind<'a> {
    variant: &'a Variant,
    name: String,
    version: u32,
    aliases: Vec<String>,
    /// How payloads of earlier versions are read, if not like those of this one.
    chain: Option<Chain>,
}

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream, Error> {
    let mut errors = Errors::default();
    errors.refuse_lifetimes(
        &input.generics,
        "events are owned, because they are read back from the store: use String instead of &str",
    );
    let (kinds, retired) = match &input.data {
        Data::Enum(data) => read(input, data, &mut errors),
        Data::Struct(_) | Data::Union(_) => {
            let ident = &input.ident;
            errors.push(
                ident.span(),
                format!(
                    "an aggregate's events are an enum; put the struct into a variant: \
                     `enum {ident}Event {{ {ident}({ident}) }}`, and derive Event for the enum"
                ),
            );
            (Vec::new(), Vec::new())
        }
    };
    errors.finish()?;
    generate(input, &kinds, &retired)
}

fn read<'a>(
    input: &DeriveInput,
    data: &'a DataEnum,
    errors: &mut Errors,
) -> (Vec<Kind<'a>>, Vec<Retired>) {
    if data.variants.is_empty() {
        errors.push(
            input.ident.span(),
            "an event enum has a variant for each kind of event; add at least one, \
             for example `Opened { owner: String }`",
        );
    }
    refuse_serde(
        &input.attrs,
        &SERDE_ON_ENUM,
        "is not possible on an event enum, because the store keeps the variant's name in a column \
         of its own and only the fields as payload; remove it",
        errors,
    );
    let attributes = Attributes::read(&ENUM, &input.attrs, errors);
    let prefix = match attributes.text("prefix") {
        Some(prefix) => {
            check_name(&prefix.value(), prefix.span(), errors);
            prefix.value()
        }
        None => String::new(),
    };
    let mut taken = Taken::default();
    let variants = data.variants.iter();
    let kinds =
        variants.map(|variant| read_variant(variant, &prefix, &mut taken, errors)).collect();
    (kinds, read_retired(&attributes, &mut taken, errors))
}

/// The stored types that are no variants any more.
fn read_retired(attributes: &Attributes, taken: &mut Taken, errors: &mut Errors) -> Vec<Retired> {
    let dropped = attributes.texts("dropped").map(|name| (name, None));
    let split = attributes.named("split").map(|(name, types)| (name, Some(Chain::split(types))));
    dropped
        .chain(split)
        .map(|(name, chain)| {
            check_name(&name.value(), name.span(), errors);
            let key = if chain.is_some() { "split" } else { "dropped" };
            let advice = format!(
                "what is {key} is no variant or alias any more, and stands there once; remove one"
            );
            let user = format!("{key}({:?})", name.value());
            taken.take(&name.value(), name.span(), &user, &advice, errors);
            Retired { name: name.value(), chain }
        })
        .collect()
}

fn read_variant<'a>(
    variant: &'a Variant,
    prefix: &str,
    taken: &mut Taken,
    errors: &mut Errors,
) -> Kind<'a> {
    refuse_serde(
        &variant.attrs,
        &SERDE_ON_VARIANT,
        "is not possible on a variant of an event enum, because every variant is stored and read \
         back under its own name; remove it",
        errors,
    );
    for field in &variant.fields {
        errors.refuse_stray(
            &field.attrs,
            "event",
            "`#[event(...)]` goes on the variant; for a field, use serde's attributes",
        );
    }
    let attributes = Attributes::read(&VARIANT, &variant.attrs, errors);
    let (name, span) = match attributes.text("name") {
        Some(name) => {
            check_name(&name.value(), name.span(), errors);
            (name.value(), name.span())
        }
        None => {
            let ident = variant.ident.unraw().to_string();
            let name = format!("{prefix}{}", names::snake_case(&ident));
            let span = variant.ident.span();
            if let Some(reason) = names::invalid_name(&name) {
                let advice = "choose one with `#[event(name = \"...\")]`";
                errors.push(span, format!("{reason}; {advice}"));
            }
            (name, span)
        }
    };
    let ident = variant.ident.to_string();
    taken.take(&name, span, &ident, ONE_VARIANT, errors);
    let mut aliases = Vec::new();
    for alias in attributes.texts("alias") {
        check_name(&alias.value(), alias.span(), errors);
        taken.take(&alias.value(), alias.span(), &ident, ONE_VARIANT, errors);
        aliases.push(alias.value());
    }
    let version = match attributes.number("version") {
        None => 1,
        Some(number) => {
            number.base10_parse().ok().filter(|version| *version >= 1).unwrap_or_else(|| {
                let range = "a schema version is a whole number from 1 to 4294967295";
                errors.push(
                    number.span(),
                    format!("{range}; the first one is 1, which is the default"),
                );
                1
            })
        }
    };
    let chain = Chain::read(&attributes, version, errors);
    Kind { variant, name, version, aliases, chain }
}

/// The stored names that are in use, and by what.
#[derive(Default)]
struct Taken(Vec<(String, String)>);

impl Taken {
    fn take(&mut self, name: &str, span: Span, user: &str, advice: &str, errors: &mut Errors) {
        match self.0.iter().find(|(taken, _)| taken == name) {
            Some((_, first)) => errors.push(
                span,
                format!("the stored name {name:?} is already that of `{first}`; {advice}"),
            ),
            None => self.0.push((name.to_owned(), user.to_owned())),
        }
    }
}

fn check_name(name: &str, span: Span, errors: &mut Errors) {
    if let Some(reason) = names::invalid_name(name) {
        errors.push(span, reason);
    }
}

fn refuse_serde(attrs: &[Attribute], refused: &[&str], why: &str, errors: &mut Errors) {
    for key in SerdeAttributes::read(attrs).keys() {
        if refused.iter().any(|refused| key == refused) {
            errors.push(key.span(), format!("`#[serde({key})]` {why}"));
        }
    }
}

fn generate(
    input: &DeriveInput,
    kinds: &[Kind<'_>],
    retired: &[Retired],
) -> Result<TokenStream, Error> {
    let root = paths::eventstore()?;
    let ident = &input.ident;
    let mut generics = input.generics.clone();
    if !generics.params.is_empty() {
        // For the parameters that make it an event. Without parameters there is nothing to wait
        // for: the compiler says at once what is missing.
        let serde = paths::serde()?;
        generics.make_where_clause().predicates.push(parse_quote! {
            Self: #serde::Serialize + #serde::de::DeserializeOwned
                + ::std::marker::Send + ::std::marker::Sync + 'static
        });
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let types = kinds.iter().map(|kind| {
        let (name, version, aliases) = (&kind.name, kind.version, &kind.aliases);
        quote! {
            #root::__private::EventType {
                name: #name,
                version: #version,
                aliases: &[#(#aliases),*],
            }
        }
    });
    let arms = kinds.iter().enumerate().map(|(index, kind)| {
        let variant = &kind.variant.ident;
        quote!(Self::#variant { .. } => #index)
    });
    let describer = Describer::new(&root, input);
    let uses = describer.uses();
    let shapes = kinds.iter().enumerate().map(|(index, kind)| {
        let shape = describer.event(input, kind.variant);
        quote!(#index => { #shape })
    });
    let case = SerdeAttributes::read(&input.attrs).case("rename_all");
    let variant_names = kinds.iter().map(|kind| variant_name(kind.variant, case));
    let chains = kinds.iter().map(|kind| kind.chain.as_ref()).enumerate();
    let upcast = upcast::upcast(&root, chains.filter_map(|(index, chain)| Some((index, chain?))));
    let retired = upcast::retired(&root, retired);
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #root::__private::Event for #ident #type_generics #where_clause {
            const TYPES: &'static [#root::__private::EventType] = &[#(#types),*];

            fn type_index(&self) -> ::std::primitive::usize {
                match self {
                    #(#arms,)*
                }
            }

            fn describe(index: ::std::primitive::usize, text: &mut #root::__private::ShapeText) {
                #uses
                match index {
                    #(#shapes,)*
                    _ => {}
                }
            }

            fn variant_name(
                index: ::std::primitive::usize,
            ) -> ::std::option::Option<&'static ::std::primitive::str> {
                const NAMES: &[&::std::primitive::str] = &[#(#variant_names),*];
                NAMES.get(index).copied()
            }

            #upcast
            #retired
        }
    })
}

/// What serde calls a variant.
fn variant_name(variant: &Variant, case: Case) -> String {
    let own = SerdeAttributes::read(&variant.attrs);
    own.rename().unwrap_or_else(|| case.variant(&variant.ident.unraw().to_string()))
}
