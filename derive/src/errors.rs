//! Collects mistakes, so that the user sees all of them at once.

use proc_macro2::Span;
use syn::{Attribute, Error, Generics};

/// The mistakes found so far: all of them are shown at once.
#[derive(Default)]
pub(crate) struct Errors(Option<Error>);

impl Errors {
    pub(crate) fn push(&mut self, span: Span, message: impl std::fmt::Display) {
        self.add(Error::new(span, message));
    }

    pub(crate) fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// Fails if there was any mistake.
    pub(crate) fn finish(self) -> Result<(), Error> {
        self.0.map_or(Ok(()), Err)
    }

    /// Refuses lifetime parameters, because every trait of the framework is `'static`.
    pub(crate) fn refuse_lifetimes(&mut self, generics: &Generics, advice: &str) {
        for parameter in generics.lifetimes() {
            self.push(parameter.lifetime.span(), advice);
        }
    }

    /// Refuses the attribute where it has no meaning.
    pub(crate) fn refuse_stray(&mut self, attrs: &[Attribute], namespace: &str, advice: &str) {
        for attr in attrs.iter().filter(|attr| attr.path().is_ident(namespace)) {
            self.add(Error::new_spanned(attr, advice));
        }
    }
}
