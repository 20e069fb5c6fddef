//! The serialized shape of a type, as text.
//!
//! Events and snapshots outlive the code that wrote them. Their shapes as text tell when a type no
//! longer writes what it used to: two texts are equal as long as the stored form is.

mod change;
mod lock;
mod registry;
mod types;

pub use self::{
    change::{LockError, ShapeChange, ShapeKey},
    registry::EventShapes,
};

/// What a type looks like when it is serialized, as text.
///
/// Derive it for the structs and enums inside of your events and aggregates, next to `Serialize`. The
/// derive honours serde's attributes. What does not implement it is described by the name of its type
/// and marked `opaque`: a change inside of it is not noticed.
///
/// ```
/// use annals_eventstore::{Shape, ShapeText};
/// use serde::Serialize;
///
/// #[derive(Serialize, Shape)]
/// #[serde(rename_all = "camelCase")]
/// struct Price {
///     in_cents: i64,
///     #[serde(default)]
///     valid_until: Option<chrono::NaiveDate>,
/// }
///
/// assert_eq!(
///     ShapeText::of::<Price>(),
///     "struct {\n  inCents: i64\n  validUntil [default]: option<date>\n}",
/// );
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what its serialized shape is",
    label = "`Shape` is missing",
    note = "add `#[derive(Shape)]` to it"
)]
pub trait Shape {
    /// Writes the shape of this type.
    ///
    /// For a type with a hand-written `Serialize`, write what changes when its stored form does:
    ///
    /// ```
    /// use annals_eventstore::{Shape, ShapeText};
    ///
    /// struct Iban([u8; 34]); // written as a string
    ///
    /// impl Shape for Iban {
    ///     fn describe(text: &mut ShapeText) {
    ///         text.name("iban");
    ///     }
    /// }
    /// # assert_eq!(ShapeText::of::<Iban>(), "iban");
    /// ```
    fn describe(text: &mut ShapeText);
}

/// A shape while it is being written.
///
/// Structs, enums and tuples are blocks with a line for each field or variant; the names of Rust types
/// are not part of them, because they are not stored. A type that contains itself stands there as
/// `recursive(1)`, or with the number of types that lie in between.
#[derive(Clone, Debug, Default)]
pub struct ShapeText {
    text: String,
    depth: usize,
    /// The types that are being described, from the outermost.
    open: Vec<&'static str>,
    /// What is opaque in it.
    opaque: Vec<String>,
}

impl ShapeText {
    /// The whole shape of a type.
    pub fn of<T: Shape + ?Sized>() -> String {
        Self::written(T::describe)
    }

    /// What is written by `describe`.
    pub fn written(describe: impl FnOnce(&mut Self)) -> String {
        let mut text = Self::default();
        describe(&mut text);
        text.text
    }

    /// Writes the name of a form that has no parts, such as `i64` or `date`.
    pub fn name(&mut self, name: &str) {
        self.text.push_str(name);
    }

    /// Writes that nothing is known of the type but its name.
    pub fn opaque(&mut self, name: &str) {
        self.text.push_str("opaque ");
        self.text.push_str(name);
        self.opaque.push(name.to_owned());
    }

    fn into_parts(self) -> (String, Vec<String>) {
        (self.text, self.opaque)
    }

    /// Writes a form with other forms inside, such as `list<i64>`.
    pub fn wrap(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        self.text.push_str(name);
        self.text.push('<');
        inside(self);
        self.text.push('>');
    }

    /// Describes `T` by `describe`, or names it if that is being done already, further out.
    pub fn enter<T: ?Sized>(&mut self, describe: impl FnOnce(&mut Self)) {
        let name = std::any::type_name::<T>();
        if let Some(level) = self.open.iter().rev().position(|open| *open == name) {
            self.text.push_str(&format!("recursive({})", level + 1));
            return;
        }
        self.open.push(name);
        describe(self);
        self.open.pop();
    }

    /// Writes a block, such as `struct { .. }`, whose lines are written by `lines`.
    pub fn block(&mut self, head: &str, lines: impl FnOnce(&mut Self)) {
        self.text.push_str(head);
        self.text.push_str(" {");
        let before = self.text.len();
        self.depth += 1;
        lines(self);
        self.depth -= 1;
        if self.text.len() > before {
            self.new_line();
        }
        self.text.push('}');
    }

    /// Writes a line of a block: a field or a variant, what serde's attributes say of it, and its form.
    pub fn line(&mut self, name: &str, attributes: &str, form: impl FnOnce(&mut Self)) {
        self.new_line();
        self.text.push_str(name);
        if !attributes.is_empty() {
            self.text.push_str(" [");
            self.text.push_str(attributes);
            self.text.push(']');
        }
        self.text.push_str(": ");
        form(self);
    }

    fn new_line(&mut self) {
        self.text.push('\n');
        for _ in 0..self.depth {
            self.text.push_str("  ");
        }
    }
}

/// How generated code describes a field of a type that may implement [`Shape`] or not: the method of
/// `Known` is found first, and where it does not apply, that of `Unknown`.
#[doc(hidden)]
pub mod probe {
    use std::marker::PhantomData;

    use super::{Shape, ShapeText};

    #[derive(Debug)]
    pub struct Probe<T: ?Sized>(PhantomData<T>);

    impl<T: ?Sized> Probe<T> {
        #[allow(clippy::new_without_default)]
        pub const fn new() -> Self {
            Self(PhantomData)
        }
    }

    pub trait Known {
        fn annals_describe(&self, text: &mut ShapeText, name: &str);
    }

    impl<T: Shape + ?Sized> Known for Probe<T> {
        fn annals_describe(&self, text: &mut ShapeText, _: &str) {
            T::describe(text);
        }
    }

    pub trait Unknown {
        fn annals_describe(&self, text: &mut ShapeText, name: &str);
    }

    impl<T: ?Sized> Unknown for &Probe<T> {
        fn annals_describe(&self, text: &mut ShapeText, name: &str) {
            text.opaque(name);
        }
    }
}
