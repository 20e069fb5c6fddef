//! Schemas in a form that can be compared: alternatives, each of one JSON type.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use serde_json::{Number, Value};

/// A part of a schema, and the JSON pointer to it.
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    pub(super) schema: &'a Value,
    pub(super) at: String,
}

impl<'a> Part<'a> {
    pub(super) fn new(schema: &'a Value, at: impl Into<String>) -> Self {
        Self { schema, at: at.into() }
    }

    /// The part of this one under a key.
    pub(super) fn child(&self, schema: &'a Value, key: &str) -> Self {
        Self { schema, at: join(&self.at, key) }
    }
}

/// A JSON pointer, one step further.
pub(super) fn join(at: &str, key: &str) -> String {
    format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Something in a schema that cannot be judged.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unknown {
    pub(super) at: String,
    pub(super) what: String,
}

impl Unknown {
    pub(super) fn new(at: &str, what: impl Into<String>) -> Self {
        Self { at: at.to_owned(), what: what.into() }
    }
}

/// One alternative: values of one type.
#[derive(Clone, Debug)]
pub(super) struct Form<'a> {
    pub(super) at: String,
    /// These only, if any are listed.
    pub(super) values: Option<Vec<&'a Value>>,
    pub(super) kind: Kind<'a>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind<'a> {
    Any,
    Null,
    Boolean,
    Number(Range<'a>),
    Text(Text<'a>),
    Array(Array<'a>),
    Object(Object<'a>),
}

impl Kind<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Any => "anything",
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Number(range) if range.integer => "integer",
            Self::Number(_) => "number",
            Self::Text(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    pub(super) fn is_like(&self, other: &Kind<'_>) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// An end of a range of numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Limit {
    pub(super) value: Number,
    /// The value itself is out of the range.
    pub(super) exclusive: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Range<'a> {
    pub(super) integer: bool,
    pub(super) lower: Option<Limit>,
    pub(super) upper: Option<Limit>,
    /// Of numbers with fractions, and of integers where it is none that has a range.
    pub(super) format: Option<&'a str>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Text<'a> {
    pub(super) shortest: u64,
    pub(super) longest: Option<u64>,
    /// What can only be the same or not: `format`, `pattern`, and how content is encoded.
    pub(super) marks: BTreeMap<&'static str, &'a Value>,
}

#[derive(Clone, Debug)]
pub(super) struct Array<'a> {
    pub(super) shortest: u64,
    pub(super) longest: Option<u64>,
    pub(super) unique: bool,
    /// The first items, where they differ.
    pub(super) first: Vec<Part<'a>>,
    /// All others; `None` says nothing of them.
    pub(super) rest: Option<Part<'a>>,
}

impl<'a> Array<'a> {
    /// What the item at an index is.
    pub(super) fn item(&self, index: usize) -> Option<&Part<'a>> {
        self.first.get(index).or(self.rest.as_ref())
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Object<'a> {
    /// A property is all of its parts at once.
    pub(super) properties: BTreeMap<&'a str, Vec<Part<'a>>>,
    pub(super) required: BTreeSet<&'a str>,
    /// Properties of other names. A writer writes none where nothing is said of them; a reader ignores them
    /// then.
    pub(super) others: Option<Part<'a>>,
}

impl<'a> Object<'a> {
    /// True if it allows no property of another name.
    pub(super) fn is_closed(&self) -> bool {
        self.others.as_ref().is_some_and(|others| *others.schema == Value::Bool(false))
    }
}

/// Both at once; `None` if nothing is.
pub(super) fn both<'a>(a: &Form<'a>, b: &Form<'a>) -> Result<Option<Form<'a>>, Unknown> {
    let unknown = || Unknown::new(&a.at, format!("what this and {} allow together", shown(&b.at)));
    let (kind, at) = match (&a.kind, &b.kind) {
        (Kind::Any, _) if a.values.is_none() => return Ok(Some(b.clone())),
        (_, Kind::Any) if b.values.is_none() => return Ok(Some(a.clone())),
        (a_kind, b_kind) if !a_kind.is_like(b_kind) => return Ok(None),
        (Kind::Null, _) => (Kind::Null, &a.at),
        (Kind::Boolean, _) => (Kind::Boolean, &a.at),
        (Kind::Object(one), Kind::Object(other)) => {
            let mut both = one.clone();
            for (name, parts) in &other.properties {
                both.properties.entry(name).or_default().extend(parts.iter().cloned());
            }
            both.required.extend(&other.required);
            both.others = match (&one.others, &other.others) {
                (None, None) => None,
                (Some(others), None) if allows_all_names(one, other) => Some(others.clone()),
                (None, Some(others)) if allows_all_names(other, one) => Some(others.clone()),
                _ => return Err(unknown()),
            };
            (Kind::Object(both), &a.at)
        }
        _ => return Err(unknown()),
    };
    if a.values.is_some() || b.values.is_some() {
        return Err(unknown());
    }
    Ok(Some(Form { at: at.clone(), values: None, kind }))
}

/// True if what `one` says of other names does not touch the names of `other`.
fn allows_all_names(one: &Object<'_>, other: &Object<'_>) -> bool {
    let anything = one.others.as_ref().is_none_or(|others| *others.schema == Value::Bool(true));
    anything || other.properties.keys().all(|name| one.properties.contains_key(name))
}

/// A pointer for people: that to the whole is empty.
pub(super) fn shown(at: &str) -> &str {
    if at.is_empty() { "the whole" } else { at }
}

/// Numbers in their order, also where they are of different kinds.
pub(super) fn order(a: &Number, b: &Number) -> Ordering {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(a), None) => whole_and_float(a, float(b)),
        (None, Some(b)) => whole_and_float(b, float(a)).reverse(),
        (None, None) => float(a).total_cmp(&float(b)),
    }
}

fn float(number: &Number) -> f64 {
    // JSON has no numbers that are none.
    number.as_f64().unwrap_or(f64::NAN)
}

fn whole_and_float(whole: i128, float: f64) -> Ordering {
    // Casts of floats saturate, and no whole number here is out of the range of 64 bits.
    match whole.cmp(&(float.floor() as i128)) {
        Ordering::Equal if float.fract() != 0.0 => Ordering::Less,
        order => order,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_ordered_exactly() {
        let number = |value: Value| value.as_number().cloned().unwrap();
        let sorted = [
            json!(-1e300),
            json!(i64::MIN),
            json!(-1.5),
            json!(-1),
            json!(0),
            json!(0.5),
            json!(1),
            json!(9_007_199_254_740_992_i64),
            json!(9_007_199_254_740_993_i64),
            json!(u64::MAX - 1),
            json!(u64::MAX),
            json!(1e300),
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(order(&number(a.clone()), &number(b.clone())), i.cmp(&j), "{a} {b}");
            }
        }
        assert_eq!(order(&number(json!(2)), &number(json!(2.0))), Ordering::Equal);
    }

    #[test]
    fn pointers_are_escaped() {
        assert_eq!(join("/a", "b/c~d"), "/a/b~1c~0d");
    }
}
