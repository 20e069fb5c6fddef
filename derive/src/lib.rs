//! Derive macros of Annals.

use proc_macro::TokenStream;

/// Placeholder until the macros land.
#[proc_macro_derive(Event, attributes(event))]
pub fn event(_: TokenStream) -> TokenStream {
    TokenStream::new()
}
/// Placeholder until the macros land.
#[proc_macro_derive(Aggregate, attributes(aggregate))]
pub fn aggregate(_: TokenStream) -> TokenStream {
    TokenStream::new()
}
/// Placeholder until the macros land.
#[proc_macro_derive(Command, attributes(command))]
pub fn command(_: TokenStream) -> TokenStream {
    TokenStream::new()
}
/// Placeholder until the macros land.
#[proc_macro_derive(ReadModel, attributes(read_model))]
pub fn read_model(_: TokenStream) -> TokenStream {
    TokenStream::new()
}
