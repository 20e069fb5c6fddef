//! How `#[derive(Event)]` reads events that are stored in another shape than the variants have.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Path, Type, parse_quote_spanned, spanned::Spanned};

use crate::{attributes::Attributes, errors::Errors};

/// The types that payloads of the versions 1, 2, 3 are read into, each of which becomes the next one,
/// and the last one the event or several of them.
pub(crate) struct Chain {
    types: Vec<Type>,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    /// `From` into the enum.
    One,
    /// `From` into `Vec` of the enum.
    Many,
}

/// A stored type that is no variant any more: dropped, if it has no chain.
pub(crate) struct Retired {
    pub(crate) name: String,
    pub(crate) chain: Option<Chain>,
}

impl Chain {
    pub(crate) fn split(types: &[Type]) -> Self {
        Self { types: types.to_vec(), end: End::Many }
    }

    /// The chain of a variant, which covers every version before its own.
    pub(crate) fn read(attributes: &Attributes, version: u32, errors: &mut Errors) -> Option<Self> {
        let (upcast, split) = (attributes.span("upcast_from"), attributes.span("split_from"));
        if let (Some(_), Some(span)) = (upcast, split) {
            errors.push(
                span,
                "`upcast_from` and `split_from` exclude each other: every old version becomes \
                 one event, or every one becomes several; keep `split_from`, and return one event \
                 in the `Vec` where it is one",
            );
            return None;
        }
        let (key, span, end) = match (upcast, split) {
            (Some(span), _) => ("upcast_from", span, End::One),
            (_, Some(span)) => ("split_from", span, End::Many),
            _ => return None,
        };
        let types = attributes.types(key).to_vec();
        // A version that is a mistake has been reported.
        if attributes.lacks("version") || attributes.number("version").is_some() {
            check_length(key, span, types.len(), version, errors);
        }
        Some(Self { types, end })
    }

    /// Reads a payload of version n into the n-th type, and brings it up.
    fn arms(&self, root: &Path) -> impl Iterator<Item = TokenStream> {
        (0..self.types.len()).map(move |first| {
            let version = first as u32 + 1;
            let (old, later) = (&self.types[first], &self.types[first + 1..]);
            let read = quote_spanned!(at(old)=> #root::__private::read::<#old>(payload)?);
            let steps = std::iter::zip(&self.types[first..], later).map(|(from, to)| {
                let step = convert(from, to);
                quote!(let old = #step;)
            });
            let end = self.end(root);
            quote! {
                #version => {
                    let old = #read;
                    #(#steps)*
                    #end
                }
            }
        })
    }

    fn end(&self, root: &Path) -> TokenStream {
        let Some(last) = self.types.last() else { return TokenStream::new() };
        match self.end {
            End::One => {
                let event = convert(last, &parse_quote_spanned!(at(last)=> Self));
                quote!(#root::__private::Decoded::One(#event))
            }
            End::Many => {
                let events = parse_quote_spanned!(at(last)=> ::std::vec::Vec<Self>);
                let events = convert(last, &events);
                quote!(#root::__private::Decoded::Many(#events))
            }
        }
    }
}

fn convert(from: &Type, to: &Type) -> TokenStream {
    quote_spanned!(at(from)=> <#to as ::std::convert::From<#from>>::from(old))
}

/// Shows mistakes at the type, which may stand in another macro's input than the derive.
fn at(ty: &Type) -> Span {
    Span::call_site().located_at(ty.span())
}

fn check_length(key: &str, span: Span, types: usize, version: u32, errors: &mut Errors) {
    let wanted = types + 1;
    if u32::try_from(wanted) == Ok(version) {
        return;
    }
    let lists = match types {
        1 => "1 type, for version 1".to_owned(),
        _ => format!("{types} types, for the versions 1 to {types}"),
    };
    errors.push(
        span,
        format!(
            "`{key}` lists {lists}, but the event is at version {version}: list a type for each \
             version before it (the same one twice where two versions look alike), or write \
             `version = {wanted}`"
        ),
    );
}

/// `Event::upcast`, if any variant has a chain.
pub(crate) fn upcast<'a>(
    root: &Path,
    chains: impl Iterator<Item = (usize, &'a Chain)>,
) -> Option<TokenStream> {
    let kinds: Vec<_> = chains
        .map(|(index, chain)| {
            let arms = chain.arms(root);
            quote! {
                #index => match version {
                    #(#arms)*
                    _ => return ::std::result::Result::Ok(::std::option::Option::None),
                },
            }
        })
        .collect();
    let signature = quote! {
        fn upcast(
            index: ::std::primitive::usize,
            version: ::std::primitive::u32,
            payload: &#root::__private::Payload,
        ) -> #root::__private::Upcast<Self>
    };
    (!kinds.is_empty()).then(|| {
        quote! {
            #signature {
                ::std::result::Result::Ok(::std::option::Option::Some(match index {
                    #(#kinds)*
                    _ => return ::std::result::Result::Ok(::std::option::Option::None),
                }))
            }
        }
    })
}

/// `Event::RETIRED` and `Event::retired`, if anything is retired.
pub(crate) fn retired(root: &Path, retired: &[Retired]) -> Option<TokenStream> {
    if retired.is_empty() {
        return None;
    }
    let types = retired.iter().map(|Retired { name, chain }| {
        let version = match chain {
            Some(chain) => chain.types.len() as u32,
            None => u32::MAX,
        };
        quote!(#root::__private::RetiredType { name: #name, version: #version })
    });
    let kinds = retired.iter().map(|Retired { name, chain }| match chain {
        None => quote!(#name => #root::__private::Decoded::Many(::std::vec::Vec::new()),),
        Some(chain) => {
            let supported = chain.types.len() as u32;
            let arms = chain.arms(root);
            quote! {
                #name => match version {
                    #(#arms)*
                    _ => return ::std::result::Result::Err(
                        #root::__private::DecodeError::NewerVersion { supported: #supported }
                    ),
                },
            }
        }
    });
    // Where everything is dropped, these are not looked at.
    let unused = quote!(let _ = (version, payload););
    Some(quote! {
        const RETIRED: &'static [#root::__private::RetiredType] = &[#(#types),*];

        fn retired(
            name: &::std::primitive::str,
            version: ::std::primitive::u32,
            payload: &#root::__private::Payload,
        ) -> #root::__private::Upcast<Self> {
            #unused
            ::std::result::Result::Ok(::std::option::Option::Some(match name {
                #(#kinds)*
                _ => return ::std::result::Result::Ok(::std::option::Option::None),
            }))
        }
    })
}
