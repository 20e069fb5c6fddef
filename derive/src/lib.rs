//! Derive macros of Annals.
mod aggregate;
mod attributes;
mod command;
mod event;
mod names;
mod paths;
mod read_model;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

fn expand(
    input: &DeriveInput,
    expand: fn(&DeriveInput) -> Result<proc_macro2::TokenStream, syn::Error>,
) -> TokenStream {
    expand(input).unwrap_or_else(syn::Error::into_compile_error).into()
}
/// a
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    expand(&parse_macro_input!(input), event::expand)
}
/// a
#[proc_macro_derive(Aggregate, attributes(aggregate))]
pub fn derive_aggregate(input: TokenStream) -> TokenStream {
    expand(&parse_macro_input!(input), aggregate::expand)
}
/// a
#[proc_macro_derive(Command, attributes(command))]
pub fn derive_command(input: TokenStream) -> TokenStream {
    expand(&parse_macro_input!(input), command::expand)
}
/// a
#[proc_macro_derive(ReadModel, attributes(read_model))]
pub fn derive_read_model(input: TokenStream) -> TokenStream {
    expand(&parse_macro_input!(input), read_model::expand)
}
