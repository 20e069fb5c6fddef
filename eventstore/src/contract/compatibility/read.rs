//! Reads schemas into forms: follows references, splits alternatives, and refuses what it does not know.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::form::{
    Array, Form, Kind, Limit, Object, Part, Range, Text, Unknown, both, join, order,
};
use crate::contract::schema::{DEFINITIONS, definition_name};

/// Keywords that allow and forbid nothing.
const NOTES: [&str; 11] = [
    "$comment",
    "$id",
    "$schema",
    "default",
    "definitions",
    "deprecated",
    "description",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
];
const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];
const OF_NUMBERS: [&str; 5] =
    ["exclusiveMaximum", "exclusiveMinimum", "format", "maximum", "minimum"];
const OF_TEXTS: [&str; 6] =
    ["contentEncoding", "contentMediaType", "format", "maxLength", "minLength", "pattern"];
const OF_ARRAYS: [&str; 5] = ["additionalItems", "items", "maxItems", "minItems", "uniqueItems"];
const OF_OBJECTS: [&str; 3] = ["additionalProperties", "properties", "required"];
/// More alternatives, or more references in a row, are not followed.
const MOST: usize = 64;

/// A document whose parts are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document<'a>(pub(super) &'a Value);

/// True for keywords that allow and forbid nothing.
pub(super) fn is_note(keyword: &str) -> bool {
    keyword.starts_with("x-") || NOTES.contains(&keyword)
}

impl<'a> Document<'a> {
    /// The alternatives of what is all of these parts at once.
    pub(super) fn forms(&self, parts: &[Part<'a>]) -> Result<Vec<Form<'a>>, Unknown> {
        self.conjunction(parts, 0)
    }

    fn conjunction(&self, parts: &[Part<'a>], depth: usize) -> Result<Vec<Form<'a>>, Unknown> {
        let mut forms: Option<Vec<Form<'a>>> = None;
        for part in parts {
            let next = self.part(part, depth)?;
            forms = Some(match forms {
                None => next,
                Some(forms) => product(part, &forms, &next)?,
            });
        }
        Ok(forms.unwrap_or_default())
    }

    fn part(&self, part: &Part<'a>, depth: usize) -> Result<Vec<Form<'a>>, Unknown> {
        if depth > MOST {
            return Err(Unknown::new(&part.at, "references that do not end"));
        }
        let schema = match part.schema {
            Value::Bool(true) => return Ok(vec![any(&part.at)]),
            Value::Bool(false) => return Ok(Vec::new()),
            Value::Object(schema) => schema,
            _ => return Err(Unknown::new(&part.at, "no schema")),
        };
        if let Some(reference) = schema.get("$ref") {
            // Beside it, nothing counts.
            let target = self.target(part, reference)?;
            return self.conjunction(&[target], depth + 1);
        }
        let mut forms = vec![any(&part.at)];
        for (keyword, value) in schema {
            let parts = || -> Result<Vec<Part<'a>>, Unknown> {
                let at = join(&part.at, keyword);
                let Value::Array(parts) = value else {
                    return Err(Unknown::new(&at, "no list of schemas"));
                };
                let parts = parts.iter().enumerate();
                Ok(parts.map(|(i, schema)| Part::new(schema, join(&at, &i.to_string()))).collect())
            };
            let next = match keyword.as_str() {
                "allOf" => self.conjunction(&parts()?, depth + 1)?,
                "anyOf" => {
                    let mut all = Vec::new();
                    for part in parts()? {
                        all.extend(self.part(&part, depth + 1)?);
                    }
                    all
                }
                "oneOf" => self.exclusive(part, &parts()?, depth + 1)?,
                _ => continue,
            };
            forms = product(part, &forms, &next)?;
        }
        product(part, &forms, &own(part, schema)?)
    }

    fn target(&self, part: &Part<'a>, reference: &'a Value) -> Result<Part<'a>, Unknown> {
        let target = || {
            let reference = reference.as_str()?;
            let name = definition_name(reference)?;
            let definition = self.0.get("definitions")?.get(&name)?;
            let at = format!("/{}", DEFINITIONS.trim_matches(['#', '/']));
            Some(Part::new(definition, join(&at, &name)))
        };
        target().ok_or_else(|| Unknown::new(&part.at, format!("the reference {reference}")))
    }

    /// The alternatives of `oneOf`, if no value is in two of them.
    fn exclusive(
        &self,
        part: &Part<'a>,
        parts: &[Part<'a>],
        depth: usize,
    ) -> Result<Vec<Form<'a>>, Unknown> {
        let mut all: Vec<Form<'a>> = Vec::new();
        for branch in parts {
            let forms = self.part(branch, depth)?;
            for form in &forms {
                if let Some(other) = all.iter().find(|other| !self.apart(form, other, depth)) {
                    let what = format!(
                        "oneOf with alternatives that overlap: {} and {}",
                        other.at, form.at
                    );
                    return Err(Unknown::new(&part.at, what));
                }
            }
            all.extend(forms);
        }
        Ok(all)
    }

    /// True if surely no value is of both forms.
    fn apart(&self, a: &Form<'a>, b: &Form<'a>, depth: usize) -> bool {
        if let (Some(a), Some(b)) = (&a.values, &b.values) {
            return !a.iter().any(|value| b.contains(value));
        }
        match (&a.kind, &b.kind) {
            (Kind::Any, _) | (_, Kind::Any) => false,
            (Kind::Object(a), Kind::Object(b)) => {
                self.lacks(a, b, depth) || self.lacks(b, a, depth)
            }
            (a, b) => !a.is_like(b),
        }
    }

    /// True if `a` requires a property that `b` does not allow, or not with these values.
    fn lacks(&self, a: &Object<'a>, b: &Object<'a>, depth: usize) -> bool {
        a.required.iter().any(|name| match (a.properties.get(name), b.properties.get(name)) {
            (_, None) => b.is_closed(),
            (None, _) => false,
            (Some(a), Some(b)) => {
                let (a, b) = (self.conjunction(a, depth + 1), self.conjunction(b, depth + 1));
                let (Ok(a), Ok(b)) = (a, b) else { return false };
                a.iter().all(|a| b.iter().all(|b| self.apart(a, b, depth + 1)))
            }
        })
    }
}

fn any(at: &str) -> Form<'static> {
    Form { at: at.to_owned(), values: None, kind: Kind::Any }
}

fn product<'a>(part: &Part<'a>, a: &[Form<'a>], b: &[Form<'a>]) -> Result<Vec<Form<'a>>, Unknown> {
    let mut forms = Vec::new();
    for a in a {
        for b in b {
            forms.extend(both(a, b)?);
        }
    }
    if forms.len() > MOST {
        return Err(Unknown::new(&part.at, format!("more than {MOST} alternatives")));
    }
    Ok(forms)
}

/// What a schema says by itself, apart from the schemas that it combines.
fn own<'a>(part: &Part<'a>, schema: &'a Map<String, Value>) -> Result<Vec<Form<'a>>, Unknown> {
    let at = &part.at;
    let combines = |keyword: &str| ["allOf", "anyOf", "oneOf"].contains(&keyword);
    let mut own: Vec<_> =
        schema.iter().filter(|(keyword, _)| !is_note(keyword) && !combines(keyword)).collect();
    let values = match (schema.get("const"), schema.get("enum")) {
        (None, None) => None,
        (Some(value), None) => Some(vec![value]),
        (None, Some(Value::Array(values))) => Some(values.iter().collect()),
        _ => return Err(Unknown::new(at, "const and enum")),
    };
    own.retain(|(keyword, _)| !["const", "enum", "type"].contains(&keyword.as_str()));
    let types = types(at, schema)?;
    if let Some(values) = values {
        if let Some((keyword, _)) = own.first() {
            return Err(Unknown::new(at, format!("listed values beside {keyword:?}")));
        }
        return Ok(listed(at, values, types.as_deref()));
    }
    let Some(types) = types else {
        return match own.first() {
            None => Ok(vec![any(at)]),
            Some((keyword, _)) => {
                Err(Unknown::new(at, format!("the keyword {keyword:?} without a type")))
            }
        };
    };
    let known = |keyword: &str| {
        types.iter().any(|name| match *name {
            "integer" | "number" => OF_NUMBERS.contains(&keyword),
            "string" => OF_TEXTS.contains(&keyword),
            "array" => OF_ARRAYS.contains(&keyword),
            "object" => OF_OBJECTS.contains(&keyword),
            _ => false,
        })
    };
    if let Some((keyword, _)) = own.iter().find(|(keyword, _)| !known(keyword)) {
        return Err(Unknown::new(at, format!("the keyword {keyword:?}")));
    }
    types
        .iter()
        .map(|name| Ok(Form { at: at.clone(), values: None, kind: kind(part, schema, name)? }))
        .collect()
}

fn types<'a>(at: &str, schema: &'a Map<String, Value>) -> Result<Option<Vec<&'a str>>, Unknown> {
    let unknown = || Unknown::new(at, "the type");
    let names = match schema.get("type") {
        None => return Ok(None),
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(names)) => {
            names.iter().map(Value::as_str).collect::<Option<_>>().ok_or_else(unknown)?
        }
        Some(_) => return Err(unknown()),
    };
    let known = names.iter().all(|name| TYPES.contains(name));
    if known { Ok(Some(names)) } else { Err(unknown()) }
}

/// A form for each JSON type of the values.
fn listed<'a>(at: &str, values: Vec<&'a Value>, types: Option<&[&str]>) -> Vec<Form<'a>> {
    let mut forms: Vec<Form<'a>> = Vec::new();
    for value in values {
        let kind = match value {
            Value::Null => Kind::Null,
            Value::Bool(_) => Kind::Boolean,
            Value::Number(number) => {
                Kind::Number(Range { integer: is_whole(number), ..Range::default() })
            }
            Value::String(_) => Kind::Text(Text::default()),
            Value::Array(_) => Kind::Array(anything()),
            Value::Object(_) => Kind::Object(Object::default()),
        };
        let name = kind.name();
        let allowed = types.is_none_or(|types| {
            types.contains(&name) || (name == "integer" && types.contains(&"number"))
        });
        if !allowed {
            continue;
        }
        match forms.iter_mut().find(|form| form.kind.is_like(&kind)) {
            Some(Form { values: Some(values), .. }) => values.push(value),
            _ => forms.push(Form { at: at.to_owned(), values: Some(vec![value]), kind }),
        }
    }
    forms
}

fn anything<'a>() -> Array<'a> {
    Array { shortest: 0, longest: None, unique: false, first: Vec::new(), rest: None }
}

pub(super) fn is_whole(number: &Number) -> bool {
    number.as_i128().is_some() || number.as_f64().is_some_and(|float| float.fract() == 0.0)
}

fn kind<'a>(
    part: &Part<'a>,
    schema: &'a Map<String, Value>,
    name: &str,
) -> Result<Kind<'a>, Unknown> {
    Ok(match name {
        "null" => Kind::Null,
        "boolean" => Kind::Boolean,
        "integer" | "number" => Kind::Number(range(part, schema, name == "integer")?),
        "string" => Kind::Text(text(part, schema)?),
        "array" => Kind::Array(array(part, schema)?),
        _ => Kind::Object(object(part, schema)?),
    })
}

fn range<'a>(
    part: &Part<'a>,
    schema: &'a Map<String, Value>,
    integer: bool,
) -> Result<Range<'a>, Unknown> {
    let mut range = Range { integer, ..Range::default() };
    let limit = |keyword: &str, exclusive: bool| match schema.get(keyword) {
        None => Ok(None),
        Some(Value::Number(value)) => Ok(Some(Limit { value: value.clone(), exclusive })),
        Some(_) => Err(Unknown::new(&part.at, format!("the keyword {keyword:?}"))),
    };
    for lower in [limit("minimum", false)?, limit("exclusiveMinimum", true)?].into_iter().flatten()
    {
        narrow(&mut range.lower, lower, std::cmp::Ordering::Greater);
    }
    for upper in [limit("maximum", false)?, limit("exclusiveMaximum", true)?].into_iter().flatten()
    {
        narrow(&mut range.upper, upper, std::cmp::Ordering::Less);
    }
    let format = schema.get("format").and_then(Value::as_str);
    match format.and_then(|format| limits(format, integer)) {
        Some((least, greatest)) => {
            for (end, value, order) in [
                (&mut range.lower, least, std::cmp::Ordering::Greater),
                (&mut range.upper, greatest, std::cmp::Ordering::Less),
            ] {
                narrow(end, Limit { value, exclusive: false }, order);
            }
        }
        None => range.format = format,
    }
    Ok(range)
}

/// Takes the limit that allows less. `order` is that of the stricter one.
fn narrow(end: &mut Option<Limit>, limit: Limit, stricter: std::cmp::Ordering) {
    let replaces = end.as_ref().is_none_or(|end| {
        let order = order(&limit.value, &end.value);
        order == stricter || (order.is_eq() && limit.exclusive)
    });
    if replaces {
        *end = Some(limit);
    }
}

/// The least and the greatest integer of a format: programs make a type of their own from it.
fn limits(format: &str, integer: bool) -> Option<(Number, Number)> {
    if !integer {
        return None;
    }
    Some(match format {
        "int8" => (i8::MIN.into(), i8::MAX.into()),
        "int16" => (i16::MIN.into(), i16::MAX.into()),
        "int32" => (i32::MIN.into(), i32::MAX.into()),
        "int64" | "int" => (i64::MIN.into(), i64::MAX.into()),
        "uint8" => (0.into(), u8::MAX.into()),
        "uint16" => (0.into(), u16::MAX.into()),
        "uint32" => (0.into(), u32::MAX.into()),
        "uint64" | "uint" => (0.into(), u64::MAX.into()),
        _ => return None,
    })
}

fn text<'a>(part: &Part<'a>, schema: &'a Map<String, Value>) -> Result<Text<'a>, Unknown> {
    let mut marks = BTreeMap::new();
    for keyword in ["contentEncoding", "contentMediaType", "format", "pattern"] {
        if let Some(value) = schema.get(keyword) {
            marks.insert(keyword, value);
        }
    }
    let shortest = count(part, schema, "minLength")?.unwrap_or(0);
    Ok(Text { shortest, longest: count(part, schema, "maxLength")?, marks })
}

fn count(
    part: &Part<'_>,
    schema: &Map<String, Value>,
    keyword: &str,
) -> Result<Option<u64>, Unknown> {
    let Some(value) = schema.get(keyword) else { return Ok(None) };
    let count =
        value.as_u64().ok_or_else(|| Unknown::new(&part.at, format!("the keyword {keyword:?}")));
    count.map(Some)
}

fn array<'a>(part: &Part<'a>, schema: &'a Map<String, Value>) -> Result<Array<'a>, Unknown> {
    let items = schema.get("items").map(|items| part.child(items, "items"));
    let (first, rest) = match items {
        Some(Part { schema: Value::Array(items), at }) => {
            let first = items.iter().enumerate();
            let first = first.map(|(i, item)| Part::new(item, join(&at, &i.to_string()))).collect();
            let rest = schema.get("additionalItems");
            (first, rest.map(|rest| part.child(rest, "additionalItems")))
        }
        items => (Vec::new(), items),
    };
    Ok(Array {
        shortest: count(part, schema, "minItems")?.unwrap_or(0),
        longest: count(part, schema, "maxItems")?,
        unique: schema.get("uniqueItems") == Some(&Value::Bool(true)),
        first,
        rest,
    })
}

fn object<'a>(part: &Part<'a>, schema: &'a Map<String, Value>) -> Result<Object<'a>, Unknown> {
    let unknown = |keyword: &str| Unknown::new(&part.at, format!("the keyword {keyword:?}"));
    let mut object = Object::default();
    if let Some(properties) = schema.get("properties") {
        let properties = properties.as_object().ok_or_else(|| unknown("properties"))?;
        let at = join(&part.at, "properties");
        for (name, property) in properties {
            object.properties.insert(name, vec![Part::new(property, join(&at, name))]);
        }
    }
    if let Some(required) = schema.get("required") {
        for name in required.as_array().ok_or_else(|| unknown("required"))? {
            object.required.insert(name.as_str().ok_or_else(|| unknown("required"))?);
        }
    }
    let others = schema.get("additionalProperties");
    object.others = others.map(|others| part.child(others, "additionalProperties"));
    Ok(object)
}
