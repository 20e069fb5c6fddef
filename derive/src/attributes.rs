//! Reads the macros' attributes. Every mistake is reported, and each report says what to write.

use proc_macro2::{Span, TokenTree};
use syn::{
    Attribute, Error, Ident, LitInt, LitStr, Meta, Token, Type, bracketed,
    ext::IdentExt,
    parenthesized,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
    token::Bracket,
};

use crate::errors::Errors;

/// What the value of a key looks like.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    Number,
    Type,
    Types,
    Chain,
    Texts,
    Named,
    Idents,
    Flag,
}

/// A key that an attribute knows.
pub(crate) struct Key {
    name: &'static str,
    shape: Shape,
    repeatable: bool,
}

impl Key {
    const fn new(name: &'static str, shape: Shape) -> Self {
        Self { name, shape, repeatable: false }
    }
    /// `key = "..."`
    pub(crate) const fn text(name: &'static str) -> Self {
        Self::new(name, Shape::Text)
    }
    /// `key = 1`
    pub(crate) const fn number(name: &'static str) -> Self {
        Self::new(name, Shape::Number)
    }
    /// `key = Type`
    pub(crate) const fn ty(name: &'static str) -> Self {
        Self::new(name, Shape::Type)
    }
    /// `key(Type, ...)`
    pub(crate) const fn types(name: &'static str) -> Self {
        Self::new(name, Shape::Types)
    }
    /// `key = Type`, or `key = [Type, ...]`
    pub(crate) const fn chain(name: &'static str) -> Self {
        Self::new(name, Shape::Chain)
    }
    /// `key("...", ...)`
    pub(crate) const fn texts(name: &'static str) -> Self {
        Self::new(name, Shape::Texts)
    }
    /// `key("...", Type, ...)`
    pub(crate) const fn named(name: &'static str) -> Self {
        Self::new(name, Shape::Named)
    }
    /// `key(name, ...)`
    pub(crate) const fn idents(name: &'static str) -> Self {
        Self::new(name, Shape::Idents)
    }
    /// `key`
    pub(crate) const fn flag(name: &'static str) -> Self {
        Self::new(name, Shape::Flag)
    }
    pub(crate) const fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    fn usage(&self) -> String {
        let name = self.name;
        match self.shape {
            Shape::Text => format!("`{name} = \"...\"`"),
            Shape::Number => format!("`{name} = 1`"),
            Shape::Type => format!("`{name} = Type`"),
            Shape::Types => format!("`{name}(Type, ...)`"),
            Shape::Chain => format!("`{name} = [Type, ...]`"),
            Shape::Texts => format!("`{name}(\"...\")`"),
            Shape::Named => format!("`{name}(\"...\", Type)`"),
            Shape::Idents => format!("`{name}(name, ...)`"),
            Shape::Flag => format!("`{name}`"),
        }
    }

    fn advice(&self) -> String {
        let value = match self.shape {
            Shape::Text => "is followed by a string",
            Shape::Number => "is followed by a whole number",
            Shape::Type => "is followed by a type, without quotes",
            Shape::Types => "is followed by types in parentheses",
            Shape::Chain => "is followed by a type, or by types in brackets",
            Shape::Texts => "is followed by strings in parentheses",
            Shape::Named => "is followed by a string and types, in parentheses",
            Shape::Idents => "is followed by names in parentheses, without quotes",
            Shape::Flag => "stands alone",
        };
        format!("`{}` {value}: write {}", self.name, self.usage())
    }
}

/// One place that an attribute may stand in, and the keys that it takes there.
pub(crate) struct Place {
    pub(crate) namespace: &'static str,
    /// For messages: "on a variant".
    pub(crate) on: &'static str,
    pub(crate) keys: &'static [Key],
}

impl Place {
    fn usage(&self) -> String {
        let keys: Vec<_> = self.keys.iter().map(Key::usage).collect();
        let (namespace, on) = (self.namespace, self.on);
        format!("`#[{namespace}(...)]` {on} takes {}", keys.join(", "))
    }
}

enum Value {
    Text(LitStr),
    Number(LitInt),
    Type(Type),
    Types(Vec<Type>),
    Texts(Vec<LitStr>),
    Named(LitStr, Vec<Type>),
    Idents(Vec<Ident>),
    Flag,
}

impl Value {
    fn parse(shape: Shape, input: ParseStream<'_>) -> syn::Result<Self> {
        if let Shape::Text | Shape::Number | Shape::Type | Shape::Chain = shape {
            input.parse::<Token![=]>()?;
        }
        Ok(match shape {
            Shape::Text => Self::Text(input.parse()?),
            Shape::Number => Self::Number(input.parse()?),
            Shape::Type => Self::Type(input.parse()?),
            Shape::Types => {
                let content;
                parenthesized!(content in input);
                Self::Types(list(&content)?)
            }
            Shape::Chain if input.peek(Bracket) => {
                let content;
                bracketed!(content in input);
                Self::Types(some(&content)?)
            }
            Shape::Chain => Self::Types(vec![input.parse()?]),
            Shape::Texts => {
                let content;
                parenthesized!(content in input);
                Self::Texts(some(&content)?)
            }
            Shape::Named => {
                let content;
                parenthesized!(content in input);
                let name = content.parse().and_then(|name| {
                    content.parse::<Token![,]>()?;
                    Ok(name)
                });
                let types = some(&content);
                Self::Named(name?, types?)
            }
            Shape::Idents => {
                let content;
                parenthesized!(content in input);
                Self::Idents(some_with(&content, Ident::parse_any)?)
            }
            Shape::Flag => Self::Flag,
        })
    }
}

/// A list to the end of its parentheses or brackets.
fn list<T: Parse>(input: ParseStream<'_>) -> syn::Result<Vec<T>> {
    list_with(input, T::parse)
}

fn list_with<T>(
    input: ParseStream<'_>,
    item: fn(ParseStream<'_>) -> syn::Result<T>,
) -> syn::Result<Vec<T>> {
    let items = Punctuated::<T, Token![,]>::parse_terminated_with(input, item);
    // What is left behind a mistake would be reported as another one.
    skip(input);
    Ok(items?.into_iter().collect())
}

/// A list that is not empty.
fn some<T: Parse>(input: ParseStream<'_>) -> syn::Result<Vec<T>> {
    some_with(input, T::parse)
}

fn some_with<T>(
    input: ParseStream<'_>,
    item: fn(ParseStream<'_>) -> syn::Result<T>,
) -> syn::Result<Vec<T>> {
    let items = list_with(input, item)?;
    if items.is_empty() { Err(input.error("expected an item")) } else { Ok(items) }
}

/// The keys and values of all attributes of one item.
#[derive(Default)]
pub(crate) struct Attributes {
    found: Vec<(Ident, Value)>,
    /// Keys whose value is a mistake, which has been reported.
    mistaken: Vec<&'static str>,
}

impl Attributes {
    pub(crate) fn read(place: &Place, attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut found = Self::default();
        for attr in attrs {
            if !attr.path().is_ident(place.namespace) {
                continue;
            }
            let Meta::List(list) = &attr.meta else {
                errors.add(Error::new_spanned(attr, place.usage()));
                continue;
            };
            let parsed = list.parse_args_with(|input: ParseStream<'_>| {
                found.items(place, input, errors);
                Ok(())
            });
            if let Err(error) = parsed {
                errors.add(error);
            }
        }
        found
    }

    /// Reads a list of keys to its end, past every mistake in it.
    fn items(&mut self, place: &Place, input: ParseStream<'_>, errors: &mut Errors) {
        while !input.is_empty() {
            let span = input.span();
            match input.call(Ident::parse_any) {
                Ok(key) => self.item(place, key, input, errors),
                Err(_) => {
                    errors.push(span, place.usage());
                    skip_item(input);
                }
            }
        }
    }

    fn item(&mut self, place: &Place, name: Ident, input: ParseStream<'_>, errors: &mut Errors) {
        let Some(key) = place.keys.iter().find(|key| name == key.name) else {
            let usage = place.usage();
            errors.push(name.span(), format!("unknown key `{name}`; {usage}"));
            return skip_item(input);
        };
        let value = Value::parse(key.shape, input);
        let ended = input.is_empty() || input.peek(Token![,]);
        skip_item(input);
        match value {
            Ok(value) if ended => {
                if !key.repeatable && self.get(key.name).is_some() {
                    errors
                        .push(name.span(), format!("`{name}` is given twice; keep one of the two"));
                } else {
                    self.found.push((name, value));
                }
            }
            _ => {
                errors.push(name.span(), key.advice());
                self.mistaken.push(key.name);
            }
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.found.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&LitStr> {
        match self.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The strings of a key that is repeatable, or takes several.
    pub(crate) fn texts(&self, key: &str) -> impl Iterator<Item = &LitStr> {
        self.all(key).flat_map(|value| match value {
            Value::Text(text) => std::slice::from_ref(text),
            Value::Texts(texts) => texts.as_slice(),
            _ => &[],
        })
    }

    /// The strings of a key, each with the types that follow it.
    pub(crate) fn named(&self, key: &str) -> impl Iterator<Item = (&LitStr, &[Type])> {
        self.all(key).filter_map(|value| match value {
            Value::Named(name, types) => Some((name, types.as_slice())),
            _ => None,
        })
    }

    /// The names of a key, each time that it stands there.
    pub(crate) fn idents(&self, key: &str) -> impl Iterator<Item = (Span, &[Ident])> {
        let found = self.found.iter().filter(move |(name, _)| name == key);
        found.filter_map(|(name, value)| match value {
            Value::Idents(idents) => Some((name.span(), idents.as_slice())),
            _ => None,
        })
    }

    fn all(&self, key: &str) -> impl Iterator<Item = &Value> {
        self.found.iter().filter(move |(name, _)| name == key).map(|(_, value)| value)
    }

    pub(crate) fn number(&self, key: &str) -> Option<&LitInt> {
        match self.get(key) {
            Some(Value::Number(number)) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn ty(&self, key: &str) -> Option<&Type> {
        match self.get(key) {
            Some(Value::Type(ty)) => Some(ty),
            _ => None,
        }
    }

    pub(crate) fn types(&self, key: &str) -> &[Type] {
        match self.get(key) {
            Some(Value::Types(types)) => types,
            _ => &[],
        }
    }

    /// True if the key does not stand there, not even with a mistake.
    pub(crate) fn lacks(&self, key: &str) -> bool {
        self.get(key).is_none() && !self.mistaken.contains(&key)
    }

    /// Where the key stands, if it does.
    pub(crate) fn span(&self, key: &str) -> Option<Span> {
        self.found.iter().find(|(name, _)| name == key).map(|(name, _)| name.span())
    }
}

fn skip(input: ParseStream<'_>) {
    while !input.is_empty() && input.parse::<TokenTree>().is_ok() {}
}

/// Skips to the next item of a list.
fn skip_item(input: ParseStream<'_>) {
    while !input.is_empty() {
        // A token tree can always be read where the input is not empty.
        match input.parse::<TokenTree>() {
            Ok(TokenTree::Punct(punct)) if punct.as_char() == ',' => return,
            _ => {}
        }
    }
}
