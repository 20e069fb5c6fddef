//! What serde's attributes say about the stored form.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Ident, LitStr, Token, ext::IdentExt, parse::ParseStream};

/// Attributes that change how a payload is read or compiled, not what it looks like; and those that
/// are a part of the names.
const NOT_IN_THE_FORM: [&str; 12] = [
    "alias",
    "borrow",
    "bound",
    "crate",
    "deny_unknown_fields",
    "expecting",
    "getter",
    "remote",
    "rename",
    "rename_all",
    "rename_all_fields",
    "transparent",
];

/// The serde attributes of one item.
#[derive(Default)]
pub(crate) struct SerdeAttributes(Vec<(Ident, TokenStream)>);

impl SerdeAttributes {
    pub(crate) fn read(attrs: &[Attribute]) -> Self {
        let mut found = Vec::new();
        for attr in attrs.iter().filter(|attr| attr.path().is_ident("serde")) {
            // What serde itself does not understand, it reports itself.
            let _ = attr.parse_args_with(|input: ParseStream<'_>| {
                while !input.is_empty() {
                    let key = input.call(Ident::parse_any);
                    let mut value = TokenStream::new();
                    while !input.is_empty() {
                        match input.parse::<TokenTree>()? {
                            TokenTree::Punct(punct) if punct.as_char() == ',' => break,
                            token => value.extend([token]),
                        }
                    }
                    found.extend(key.ok().map(|key| (key, value)));
                }
                Ok(())
            });
        }
        Self(found)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Ident> {
        self.0.iter().map(|(key, _)| key)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.keys().any(|found| found == key)
    }

    /// The text of `key = "..."`, or of `key(serialize = "...")`.
    fn text(&self, key: &str) -> Option<String> {
        let (_, value) = self.0.iter().find(|(found, _)| found == key)?;
        let plain = |input: ParseStream<'_>| {
            input.parse::<Token![=]>()?;
            input.parse::<LitStr>().map(|text| text.value())
        };
        if let Ok(text) = syn::parse::Parser::parse2(plain, value.clone()) {
            return Some(text);
        }
        let Some(TokenTree::Group(group)) = value.clone().into_iter().next() else { return None };
        let mut tokens = group.stream().into_iter();
        tokens.find(|token| matches!(token, TokenTree::Ident(ident) if ident == "serialize"))?;
        let text = tokens.nth(1)?.into_token_stream();
        syn::parse2::<LitStr>(text).ok().map(|text| text.value())
    }

    /// The name that `rename` gives.
    pub(crate) fn rename(&self) -> Option<String> {
        self.text("rename")
    }

    /// The case that `rename_all`, or another key like it, asks for.
    pub(crate) fn case(&self, key: &str) -> Case {
        self.text(key).map_or(Case::AsWritten, |name| Case::named(&name))
    }

    /// What else is part of the form, in one line and one order.
    pub(crate) fn form(&self) -> String {
        let mut form: Vec<_> = self
            .0
            .iter()
            .filter(|(key, _)| !NOT_IN_THE_FORM.iter().any(|other| key == other))
            .map(|(key, value)| match compact(value).strip_prefix('=') {
                Some(value) => format!("{key} = {value}"),
                None => format!("{key}{}", compact(value)),
            })
            .collect();
        form.sort();
        form.join(", ")
    }
}

/// Serde's cases for names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    AsWritten,
    Lower,
    Upper,
    Pascal,
    Camel,
    Snake,
    ScreamingSnake,
    Kebab,
    ScreamingKebab,
}

impl Case {
    fn named(name: &str) -> Self {
        match name {
            "lowercase" => Self::Lower,
            "UPPERCASE" => Self::Upper,
            "PascalCase" => Self::Pascal,
            "camelCase" => Self::Camel,
            "snake_case" => Self::Snake,
            "SCREAMING_SNAKE_CASE" => Self::ScreamingSnake,
            "kebab-case" => Self::Kebab,
            "SCREAMING-KEBAB-CASE" => Self::ScreamingKebab,
            // Serde refuses it.
            _ => Self::AsWritten,
        }
    }

    /// This case, or else the other.
    pub(crate) fn or(self, other: Self) -> Self {
        if self == Self::AsWritten { other } else { self }
    }

    /// Serde's name for a field, which is written in snake case.
    pub(crate) fn field(self, name: &str) -> String {
        match self {
            Self::AsWritten | Self::Lower | Self::Snake => name.to_owned(),
            Self::Upper | Self::ScreamingSnake => name.to_ascii_uppercase(),
            Self::Pascal => {
                name.split('_').map(|word| with_first(word, u8::to_ascii_uppercase)).collect()
            }
            Self::Camel => with_first(&Self::Pascal.field(name), u8::to_ascii_lowercase),
            Self::Kebab => name.replace('_', "-"),
            Self::ScreamingKebab => name.to_ascii_uppercase().replace('_', "-"),
        }
    }

    /// Serde's name for a variant, which is written in Pascal case.
    pub(crate) fn variant(self, name: &str) -> String {
        match self {
            Self::AsWritten | Self::Pascal => name.to_owned(),
            Self::Lower => name.to_ascii_lowercase(),
            Self::Upper => name.to_ascii_uppercase(),
            Self::Camel => with_first(name, u8::to_ascii_lowercase),
            // Before every capital, other than in the stored names of events.
            Self::Snake => name.char_indices().fold(String::new(), |mut snake, (index, char)| {
                if index > 0 && char.is_uppercase() {
                    snake.push('_');
                }
                snake.push(char.to_ascii_lowercase());
                snake
            }),
            Self::ScreamingSnake => Self::Snake.variant(name).to_ascii_uppercase(),
            Self::Kebab => Self::Snake.variant(name).replace('_', "-"),
            Self::ScreamingKebab => Self::ScreamingSnake.variant(name).replace('_', "-"),
        }
    }
}

fn with_first(word: &str, change: fn(&u8) -> u8) -> String {
    match word.as_bytes().first() {
        Some(first) if first.is_ascii() => format!("{}{}", change(first) as char, &word[1..]),
        _ => word.to_owned(),
    }
}

/// Tokens as text, with spaces only where they are needed or after a comma.
pub(crate) fn compact(tokens: &impl ToTokens) -> String {
    let spaced = tokens.to_token_stream().to_string();
    let is_word = |char: char| char.is_alphanumeric() || char == '_';
    let mut text = String::with_capacity(spaced.len());
    let mut quoted = false;
    let mut chars = spaced.chars().peekable();
    while let Some(char) = chars.next() {
        if char == '"' {
            quoted = !quoted;
        }
        let between = (text.chars().last(), chars.peek().copied());
        let needed = match between {
            (Some(before), Some(after)) => {
                matches!(before, ',' | ';') || (is_word(before) && is_word(after))
            }
            _ => false,
        };
        if quoted || !char.is_whitespace() || needed {
            text.push(if quoted || !char.is_whitespace() { char } else { ' ' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_serdes() {
        use Case::*;
        for (case, field, variant) in [
            (AsWritten, "max_amount_2", "MaxAmount"),
            (Lower, "max_amount_2", "maxamount"),
            (Upper, "MAX_AMOUNT_2", "MAXAMOUNT"),
            (Pascal, "MaxAmount2", "MaxAmount"),
            (Camel, "maxAmount2", "maxAmount"),
            (Snake, "max_amount_2", "max_amount"),
            (ScreamingSnake, "MAX_AMOUNT_2", "MAX_AMOUNT"),
            (Kebab, "max-amount-2", "max-amount"),
            (ScreamingKebab, "MAX-AMOUNT-2", "MAX-AMOUNT"),
        ] {
            assert_eq!(case.field("max_amount_2"), field);
            assert_eq!(case.variant("MaxAmount"), variant);
        }
    }

    #[test]
    fn attributes_are_read_in_every_notation() {
        let attributes = |attr: Attribute| SerdeAttributes::read(&[attr]);
        let plain = attributes(syn::parse_quote!(#[serde(default, rename = "a")]));
        assert_eq!((plain.rename().as_deref(), plain.form().as_str()), (Some("a"), "default"));
        let split = attributes(
            syn::parse_quote!(#[serde(rename(deserialize = "b", serialize = "c"), with = "x::y")]),
        );
        assert_eq!(split.rename().as_deref(), Some("c"));
        assert_eq!(split.form(), "with = \"x::y\"");
        let read_only = attributes(syn::parse_quote!(#[serde(rename(deserialize = "b"))]));
        assert_eq!((read_only.rename(), read_only.form().as_str()), (None, ""));
    }

    #[test]
    fn types_are_written_compactly() {
        let text = |ty: syn::Type| compact(&ty);
        assert_eq!(text(syn::parse_quote!(Vec<model::Money>)), "Vec<model::Money>");
        assert_eq!(text(syn::parse_quote!(HashMap<String, [u8; 4]>)), "HashMap<String, [u8; 4]>");
        assert_eq!(text(syn::parse_quote!(&'static str)), "&'static str");
        assert_eq!(text(syn::parse_quote!(Box<dyn Any + Send>)), "Box<dyn Any+Send>");
    }
}
