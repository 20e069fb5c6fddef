//! `#[derive(Column)]`.

mod generate;

use proc_macro2::TokenStream;
use syn::{Data, DataEnum, DataStruct, DeriveInput, Error, Field, Ident, Variant, ext::IdentExt};

use crate::{
    attributes::{Attributes, Key, Place},
    errors::Errors,
    names,
};

const VARIANT: Place =
    Place { namespace: "column", on: "on a variant", keys: &[Key::text("name")] };

/// A variant, and the name that it is stored by.
struct Named<'a> {
    variant: &'a Ident,
    name: String,
}

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream, Error> {
    let mut errors = Errors::default();
    errors.refuse_lifetimes(
        &input.generics,
        "a column owns its value, because it is read from a table: use String instead of &str",
    );
    errors.refuse_stray(
        &input.attrs,
        VARIANT.namespace,
        "`#[column(name = \"...\")]` goes on a variant of an enum",
    );
    match &input.data {
        Data::Enum(data) => {
            let variants = read_variants(input, data, &mut errors);
            errors.finish()?;
            generate::named(input, &variants)
        }
        Data::Struct(data) => {
            let field = read_field(input, data, &mut errors);
            errors.finish()?;
            // What is no newtype was reported above.
            field.map_or(Ok(TokenStream::new()), |field| generate::newtype(input, field))
        }
        Data::Union(_) => {
            errors.push(
                input.ident.span(),
                "a column is an enum, whose variants are stored by name, or a struct of one field; \
                 not a union",
            );
            errors.finish()?;
            Ok(TokenStream::new())
        }
    }
}

fn read_field<'a>(
    input: &DeriveInput,
    data: &'a DataStruct,
    errors: &mut Errors,
) -> Option<&'a Field> {
    for field in &data.fields {
        errors.refuse_stray(
            &field.attrs,
            VARIANT.namespace,
            "a newtype is stored as what is in it, without attributes; the column of a read model \
             is named there: `#[read_model(column = \"...\")]`",
        );
    }
    let mut fields = data.fields.iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) => Some(field),
        _ => {
            let count = data.fields.len();
            errors.push(
                input.ident.span(),
                format!(
                    "a column has one value, so its struct has one field; this one has {count}. \
                     Mark a field of this type `#[read_model(json)]`, or give the read model a \
                     field for each value"
                ),
            );
            None
        }
    }
}

fn read_variants<'a>(
    input: &DeriveInput,
    data: &'a DataEnum,
    errors: &mut Errors,
) -> Vec<Named<'a>> {
    if data.variants.is_empty() {
        errors.push(input.ident.span(), "an enum without variants has no values to store");
    }
    let mut variants = Vec::new();
    for variant in &data.variants {
        let named = read_variant(variant, &variants, errors);
        variants.push(named);
    }
    variants
}

fn read_variant<'a>(variant: &'a Variant, before: &[Named<'a>], errors: &mut Errors) -> Named<'a> {
    for field in &variant.fields {
        errors.refuse_stray(&field.attrs, VARIANT.namespace, "this goes on the variant itself");
    }
    if !variant.fields.is_empty() {
        errors.push(
            variant.ident.span(),
            "a variant is stored by its name alone, so it has no fields; mark a field of the read \
             model that has this type `#[read_model(json)]` instead",
        );
    }
    let attributes = Attributes::read(&VARIANT, &variant.attrs, errors);
    let (name, span) = match attributes.text("name") {
        Some(name) => (name.value(), name.span()),
        None => (names::snake_case(&variant.ident.unraw().to_string()), variant.ident.span()),
    };
    if name.is_empty() || name.contains('\0') {
        errors.push(span, format!("{name:?} is no name to store: use a text without \\0"));
    }
    if let Some(first) = before.iter().find(|other| other.name == name) {
        let first = first.variant;
        errors.push(
            span,
            format!(
                "the name {name:?} is already that of `{first}`; choose another with \
                 `#[column(name = \"...\")]`"
            ),
        );
    }
    Named { variant: &variant.ident, name }
}
