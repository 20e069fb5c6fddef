//! `#[derive(Shape)]`, and the shapes of events and aggregates.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{
    Data, DataEnum, DeriveInput, Error, Fields, Path, Type, Variant, ext::IdentExt, parse_quote,
};

use crate::{
    paths,
    serde::{Case, SerdeAttributes, compact},
};

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream, Error> {
    if let Data::Union(_) = input.data {
        return Err(Error::new(
            input.ident.span(),
            "a shape is that of a struct or an enum; a union is not serialized",
        ));
    }
    let root = paths::eventstore()?;
    let ident = &input.ident;
    let mut generics = input.generics.clone();
    let parameters: Vec<_> = generics.type_params().map(|param| param.ident.clone()).collect();
    if !parameters.is_empty() {
        let predicates = &mut generics.make_where_clause().predicates;
        for parameter in parameters {
            predicates.push(parse_quote!(#parameter: #root::__private::Shape));
        }
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let body = Describer::new(&root, input).item(input);
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #root::__private::Shape for #ident #type_generics #where_clause {
            fn describe(text: &mut #root::__private::ShapeText) {
                #body
            }
        }
    })
}

/// Writes the code that describes types. In all of it, `text` is the text being written.
pub(crate) struct Describer<'a> {
    root: &'a Path,
    /// In these, the type as written does not say which it is.
    generic: bool,
}

impl<'a> Describer<'a> {
    pub(crate) fn new(root: &'a Path, input: &DeriveInput) -> Self {
        Self { root, generic: !input.generics.params.is_empty() }
    }

    /// The statements that describe a whole struct or enum.
    pub(crate) fn item(&self, input: &DeriveInput) -> TokenStream {
        let serde = SerdeAttributes::read(&input.attrs);
        let uses = self.uses();
        let form = match &input.data {
            // Written as another type.
            _ if ["from", "into", "try_from"].iter().any(|key| serde.has(key)) => {
                let name = format!("{} [{}]", input.ident.unraw(), serde.form());
                quote!(text.opaque(#name);)
            }
            Data::Struct(data) if serde.has("transparent") => self.transparent(&data.fields),
            Data::Struct(data) => {
                let mut attributes = serde.form();
                if serde.has("tag") {
                    let name = serde.rename().unwrap_or_else(|| input.ident.unraw().to_string());
                    attributes.push_str(&format!(", named {name:?}"));
                }
                self.fields(&data.fields, "null", &attributes, serde.case("rename_all"))
            }
            Data::Enum(data) => self.variants(data, &serde),
            Data::Union(_) => TokenStream::new(),
        };
        quote! {
            #uses
            text.enter::<Self>(|text| { #form });
        }
    }

    /// The statements that describe the payload of an event.
    pub(crate) fn event(&self, input: &DeriveInput, variant: &Variant) -> TokenStream {
        let serde = SerdeAttributes::read(&input.attrs);
        let own = SerdeAttributes::read(&variant.attrs);
        let case = own.case("rename_all").or(serde.case("rename_all_fields"));
        if is_custom(&own) {
            let name = format!("{} [{}]", variant.ident.unraw(), own.form());
            return quote!(text.opaque(#name););
        }
        // Without fields it is stored as an empty object.
        self.fields(&variant.fields, "struct {}", &own.form(), case)
    }

    /// What the statements need to be in scope.
    pub(crate) fn uses(&self) -> TokenStream {
        let root = self.root;
        quote! {
            #[allow(unused_imports)]
            use #root::__private::probe::{Known as _, Unknown as _};
        }
    }

    /// Describes a type: by its `Shape` if it has one, else by its name.
    pub(crate) fn ty(&self, ty: &Type) -> TokenStream {
        let root = self.root;
        let name = self.name(ty);
        quote!((&#root::__private::probe::Probe::<#ty>::new()).annals_describe(text, #name);)
    }

    fn name(&self, ty: &Type) -> TokenStream {
        if self.generic {
            quote!(::std::any::type_name::<#ty>())
        } else {
            let name = compact(ty);
            quote!(#name)
        }
    }

    fn transparent(&self, fields: &Fields) -> TokenStream {
        // The one field that is not skipped is the form.
        let field = fields.iter().find(|field| !SerdeAttributes::read(&field.attrs).has("skip"));
        field.map_or_else(
            || quote!(text.name("null");),
            |field| self.form(&field.ty, &SerdeAttributes::read(&field.attrs)),
        )
    }

    fn fields(&self, fields: &Fields, unit: &str, attributes: &str, case: Case) -> TokenStream {
        let head = |kind: &str| match attributes {
            "" => kind.to_owned(),
            attributes => format!("{kind} [{attributes}]"),
        };
        let kind = match fields {
            Fields::Unit => {
                let unit = head(unit);
                return quote!(text.name(#unit););
            }
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                let field = &fields.unnamed[0];
                let serde = SerdeAttributes::read(&field.attrs);
                if serde.form().is_empty() && attributes.is_empty() {
                    return self.form(&field.ty, &serde);
                }
                head("newtype")
            }
            Fields::Unnamed(_) => head("tuple"),
            Fields::Named(_) => head("struct"),
        };
        let lines = fields.iter().enumerate().map(|(index, field)| {
            let serde = SerdeAttributes::read(&field.attrs);
            let name = match &field.ident {
                Some(ident) => {
                    serde.rename().unwrap_or_else(|| case.field(&ident.unraw().to_string()))
                }
                None => index.to_string(),
            };
            self.line(&name, &serde, || self.form(&field.ty, &serde))
        });
        quote!(text.block(#kind, |text| { #(#lines)* });)
    }

    fn variants(&self, data: &DataEnum, serde: &SerdeAttributes) -> TokenStream {
        let head = match serde.form() {
            form if form.is_empty() => "enum".to_owned(),
            form => format!("enum [{form}]"),
        };
        let lines = data.variants.iter().map(|variant| {
            let own = SerdeAttributes::read(&variant.attrs);
            let name = own.rename().unwrap_or_else(|| {
                serde.case("rename_all").variant(&variant.ident.unraw().to_string())
            });
            let case = own.case("rename_all").or(serde.case("rename_all_fields"));
            self.line(&name, &own, || {
                if is_custom(&own) {
                    let name = variant.ident.unraw().to_string();
                    return quote!(text.opaque(#name););
                }
                self.fields(&variant.fields, "unit", "", case)
            })
        });
        quote!(text.block(#head, |text| { #(#lines)* });)
    }

    /// The line of a field or a variant.
    fn line(
        &self,
        name: &str,
        serde: &SerdeAttributes,
        form: impl FnOnce() -> TokenStream,
    ) -> TokenStream {
        if serde.has("skip") {
            return quote!(text.line(#name, "", |text| text.name("not stored")););
        }
        let (attributes, form) = (serde.form(), form());
        quote!(text.line(#name, #attributes, |text| { #form });)
    }

    fn form(&self, ty: &Type, serde: &SerdeAttributes) -> TokenStream {
        if is_custom(serde) {
            let name = self.name(ty);
            return quote!(text.opaque(#name););
        }
        self.ty(ty)
    }
}

/// True if functions of the user's own write it.
fn is_custom(serde: &SerdeAttributes) -> bool {
    ["with", "serialize_with"].iter().any(|key| serde.has(key))
}
