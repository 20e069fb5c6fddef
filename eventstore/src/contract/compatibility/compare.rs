//! Whether all that a writer writes is valid for a reader.
//!
//! A writer writes the properties that its schema names and no others, because that is what its type has. A
//! reader ignores properties that its schema does not name, unless it forbids them. So a property more is no
//! difference, although strictly the writer's schema then allows less.

use std::{collections::HashSet, slice::from_ref};

use serde_json::{Number, Value};

use super::{
    form::{Array, Form, Kind, Limit, Object, Part, Range, Text, Unknown, join, order},
    read::{Document, is_note, is_whole},
};

/// Something that a writer writes and a reader does not take, or of which nobody can tell.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    /// Where it is in the writer's schema, as JSON pointer.
    pub(super) writer_at: String,
    /// Where it is in the reader's.
    pub(super) reader_at: String,
    pub(super) change: Change,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    Differs { subject: String, writer: String, reader: String },
    Unknown(String),
}

/// What of the writer's the reader does not take. Nothing means: every value that the writer writes is valid
/// for the reader.
pub(super) fn compare(writer: &Value, reader: &Value) -> Vec<Finding> {
    let mut comparer =
        Comparer { writer: Document(writer), reader: Document(reader), assumed: HashSet::new() };
    let mut findings: Vec<Finding> = Vec::new();
    // By a reference and by its target, one comes to the same place.
    for finding in comparer.parts(&[Part::new(writer, "")], &[Part::new(reader, "")]) {
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings
}

/// What a schema says that says nothing.
const ANYTHING: &Value = &Value::Bool(true);

#[derive(Clone)]
struct Comparer<'w, 'r> {
    writer: Document<'w>,
    reader: Document<'r>,
    /// The pairs that were begun. Met again, they add nothing: either what they lead to was found, or nothing
    /// is there to be found.
    assumed: HashSet<(String, String)>,
}

impl<'w, 'r> Comparer<'w, 'r> {
    fn parts(&mut self, writer: &[Part<'w>], reader: &[Part<'r>]) -> Vec<Finding> {
        if let ([writer], [reader]) = (writer, reader)
            && !refers(writer.schema)
            && alike(writer.schema, reader.schema)
        {
            return Vec::new();
        }
        let (writer_at, reader_at) = (ats(writer), ats(reader));
        if !self.assumed.insert((writer_at.clone(), reader_at.clone())) {
            return Vec::new();
        }
        let unknown = |side: &str, unknown: Unknown| {
            let at = super::form::shown(&unknown.at);
            let what = format!("{} at {at} of the {side} schema", unknown.what);
            vec![finding(&writer_at, &reader_at, Change::Unknown(what))]
        };
        let writers = match self.writer.forms(writer) {
            Ok(forms) => forms,
            Err(error) => return unknown("writer's", error),
        };
        let readers = match self.reader.forms(reader) {
            Ok(forms) => forms,
            Err(error) => return unknown("reader's", error),
        };
        writers.iter().flat_map(|form| self.form(form, &readers, &reader_at)).collect()
    }

    /// One alternative of the writer's against all of the reader's.
    fn form(&mut self, writer: &Form<'w>, readers: &[Form<'r>], reader_at: &str) -> Vec<Finding> {
        if let Some(values) = &writer.values {
            return values
                .iter()
                .filter_map(|value| self.value(value, writer, readers, reader_at))
                .collect();
        }
        let mut best: Option<(usize, Vec<Finding>)> = None;
        for reader in readers {
            let mut trial = self.clone();
            let findings = trial.pair(writer, reader);
            if findings.is_empty() {
                *self = trial;
                return findings;
            }
            // What has the same type and least to say is what was meant.
            let rank = if writer.kind.is_like(&reader.kind) { findings.len() } else { usize::MAX };
            if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                best = Some((rank, findings));
            }
        }
        match best {
            Some((rank, findings)) if rank < usize::MAX || readers.len() == 1 => findings,
            _ => {
                let names: Vec<_> = readers.iter().map(|reader| reader.kind.name()).collect();
                let names =
                    if names.is_empty() { "nothing".to_owned() } else { names.join(" or ") };
                let change = differs("type", writer.kind.name(), names);
                vec![finding(&writer.at, reader_at, change)]
            }
        }
    }

    /// One of the values that a writer writes.
    fn value(
        &self,
        value: &Value,
        writer: &Form<'w>,
        readers: &[Form<'r>],
        reader_at: &str,
    ) -> Option<Finding> {
        let mut change = differs(format!("value {value}"), "allowed", "not allowed");
        for reader in readers {
            match accepts(reader, value) {
                Ok(true) => return None,
                Ok(false) => {}
                Err(what) => change = Change::Unknown(format!("the value {value} and {what}")),
            }
        }
        Some(finding(&writer.at, reader_at, change))
    }

    fn pair(&mut self, writer: &Form<'w>, reader: &Form<'r>) -> Vec<Finding> {
        let found = |changes: Vec<Change>| -> Vec<Finding> {
            changes.into_iter().map(|change| finding(&writer.at, &reader.at, change)).collect()
        };
        if let Some(values) = &reader.values {
            let null = matches!(writer.kind, Kind::Null) && values.contains(&&Value::Null);
            if null {
                return Vec::new();
            }
            let writes = format!("any {}", writer.kind.name());
            return found(vec![differs("values", writes, format!("only {}", list(values)))]);
        }
        match (&writer.kind, &reader.kind) {
            (_, Kind::Any) | (Kind::Null, Kind::Null) | (Kind::Boolean, Kind::Boolean) => {
                Vec::new()
            }
            (Kind::Number(writer), Kind::Number(reader)) => found(numbers(writer, reader)),
            (Kind::Text(writer), Kind::Text(reader)) => found(texts(writer, reader)),
            (Kind::Array(one), Kind::Array(other)) => {
                let mut findings = found(lengths(one, other));
                findings.extend(self.arrays(one, other, &writer.at, &reader.at));
                findings
            }
            (Kind::Object(one), Kind::Object(other)) => {
                self.objects(one, other, &writer.at, &reader.at)
            }
            (writer, reader) => found(vec![differs("type", writer.name(), reader.name())]),
        }
    }

    fn arrays(
        &mut self,
        writer: &Array<'w>,
        reader: &Array<'r>,
        writer_at: &str,
        reader_at: &str,
    ) -> Vec<Finding> {
        let different = writer.first.len().max(reader.first.len());
        let mut findings = Vec::new();
        // The first ones one by one, and one that stands for all others.
        for index in 0..=different {
            if writer.longest.is_some_and(|longest| longest <= index as u64) {
                break;
            }
            let Some(reader) = reader.item(index) else { continue };
            let anything = Part::new(ANYTHING, writer_at);
            let writer = writer.item(index).unwrap_or(&anything);
            // Items that are never written do not matter.
            if *writer.schema != Value::Bool(false) {
                findings.extend(self.parts(from_ref(writer), from_ref(reader)));
            }
        }
        if reader.unique && !writer.unique {
            let change = differs("items", "may be repeated", "unique");
            findings.push(finding(writer_at, reader_at, change));
        }
        findings
    }

    fn objects(
        &mut self,
        writer: &Object<'w>,
        reader: &Object<'r>,
        writer_at: &str,
        reader_at: &str,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        let place = |at: &str, name: &str| join(&join(at, "properties"), name);
        for name in reader.required.difference(&writer.required) {
            let (writes, at) = match writer.properties.contains_key(name) {
                true => ("optional", place(writer_at, name)),
                false => ("absent", writer_at.to_owned()),
            };
            let change = differs(format!("property {name:?}"), writes, "required");
            findings.push(finding(&at, &place(reader_at, name), change));
        }
        let mut written = writer.properties.clone();
        for name in &writer.required {
            let anything = || vec![Part::new(ANYTHING, writer_at)];
            written.entry(name).or_insert_with(anything);
        }
        for (name, parts) in &written {
            match (reader.properties.get(name), &reader.others) {
                (Some(reader), _) => findings.extend(self.parts(parts, reader)),
                (None, None) => {}
                (None, Some(others)) if *others.schema == Value::Bool(false) => {
                    let change = differs(format!("property {name:?}"), "written", "not allowed");
                    findings.push(finding(&ats(parts), reader_at, change));
                }
                (None, Some(others)) => findings.extend(self.parts(parts, from_ref(others))),
            }
        }
        let Some(others) = writer.others.as_ref().filter(|_| !writer.is_closed()) else {
            return findings;
        };
        // Any of these names may be written.
        let unnamed = reader.properties.iter().filter(|(name, _)| !written.contains_key(*name));
        for (_, parts) in unnamed {
            findings.extend(self.parts(from_ref(others), parts));
        }
        if let Some(reader) = &reader.others {
            findings.extend(self.parts(from_ref(others), from_ref(reader)));
        }
        findings
    }
}

fn finding(writer_at: &str, reader_at: &str, change: Change) -> Finding {
    Finding { writer_at: writer_at.to_owned(), reader_at: reader_at.to_owned(), change }
}

fn differs(
    subject: impl Into<String>,
    writer: impl Into<String>,
    reader: impl Into<String>,
) -> Change {
    Change::Differs { subject: subject.into(), writer: writer.into(), reader: reader.into() }
}

fn ats(parts: &[Part<'_>]) -> String {
    let ats: Vec<_> = parts.iter().map(|part| part.at.as_str()).collect();
    ats.join(" and ")
}

fn numbers(writer: &Range<'_>, reader: &Range<'_>) -> Vec<Change> {
    if reader.integer && !writer.integer {
        return vec![differs("type", "number", "integer")];
    }
    let mut changes = Vec::new();
    let show = |limit: &Option<Limit>| match limit {
        None => "none".to_owned(),
        Some(Limit { value, exclusive: true }) => format!("{value} (exclusive)"),
        Some(Limit { value, .. }) => value.to_string(),
    };
    for (name, writes, reads, beyond) in [
        ("minimum", &writer.lower, &reader.lower, std::cmp::Ordering::Less),
        ("maximum", &writer.upper, &reader.upper, std::cmp::Ordering::Greater),
    ] {
        let Some(limit) = reads else { continue };
        let within = writes.as_ref().is_some_and(|writes| {
            let order = order(&writes.value, &limit.value);
            order != beyond && (order.is_ne() || writes.exclusive >= limit.exclusive)
        });
        if !within {
            changes.push(differs(name, show(writes), show(reads)));
        }
    }
    if let Some(format) = reader.format {
        let fits = writer.format == Some(format)
            || (format == "double" && (writer.integer || writer.format == Some("float")));
        if !fits {
            changes.push(differs("format", writer.format.unwrap_or("none"), format));
        }
    }
    changes
}

fn texts(writer: &Text<'_>, reader: &Text<'_>) -> Vec<Change> {
    let mut changes =
        counts("length", (writer.shortest, writer.longest), (reader.shortest, reader.longest));
    for (keyword, reads) in &reader.marks {
        let none = Value::from("none");
        match writer.marks.get(keyword) {
            Some(writes) if writes == reads => {}
            Some(writes) if *keyword == "pattern" => {
                changes.push(Change::Unknown(format!("the patterns {writes} and {reads}")));
            }
            writes => {
                let writes = bare(writes.unwrap_or(&&none));
                changes.push(differs(*keyword, writes, bare(reads)));
            }
        }
    }
    changes
}

fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn lengths(writer: &Array<'_>, reader: &Array<'_>) -> Vec<Change> {
    counts("number of items", (writer.shortest, writer.longest), (reader.shortest, reader.longest))
}

fn counts(name: &str, writer: (u64, Option<u64>), reader: (u64, Option<u64>)) -> Vec<Change> {
    let mut changes = Vec::new();
    if writer.0 < reader.0 {
        changes.push(differs(format!("least {name}"), writer.0.to_string(), reader.0.to_string()));
    }
    if let Some(most) = reader.1
        && writer.1.is_none_or(|longest| longest > most)
    {
        let writes = writer.1.map_or_else(|| "none".to_owned(), |longest| longest.to_string());
        changes.push(differs(format!("greatest {name}"), writes, most.to_string()));
    }
    changes
}

/// True if the value is valid for the reader; an error says what cannot be judged.
fn accepts(reader: &Form<'_>, value: &Value) -> Result<bool, String> {
    if let Some(values) = &reader.values {
        return Ok(values.contains(&value));
    }
    match (&reader.kind, value) {
        (Kind::Any, _) | (Kind::Null, Value::Null) | (Kind::Boolean, Value::Bool(_)) => Ok(true),
        (Kind::Number(range), Value::Number(number)) => {
            let limit = Some(Limit { value: number.clone(), exclusive: false });
            let format = if integral(number) { None } else { Some("double") };
            let (lower, upper) = (limit.clone(), limit);
            let written = Range { integer: is_whole(number), lower, upper, format };
            Ok(numbers(&written, range).is_empty())
        }
        (Kind::Text(text), Value::String(value)) => {
            if let Some((keyword, mark)) = text.marks.first_key_value() {
                return Err(format!("the {keyword} {mark}"));
            }
            let length = value.chars().count() as u64;
            Ok(text.shortest <= length && text.longest.is_none_or(|longest| length <= longest))
        }
        (Kind::Array(_), Value::Array(_)) | (Kind::Object(_), Value::Object(_)) => {
            Err(format!("a schema of {}s", reader.kind.name()))
        }
        _ => Ok(false),
    }
}

fn integral(number: &Number) -> bool {
    number.as_i128().is_some()
}

fn list(values: &[&Value]) -> String {
    const SHOWN: usize = 10;
    let mut shown: Vec<_> = values.iter().take(SHOWN).map(ToString::to_string).collect();
    if values.len() > SHOWN {
        shown.push(format!("{} more", values.len() - SHOWN));
    }
    shown.join(", ")
}

/// True if a schema refers to others.
fn refers(schema: &Value) -> bool {
    match schema {
        Value::Object(object) => object.contains_key("$ref") || object.values().any(refers),
        Value::Array(parts) => parts.iter().any(refers),
        _ => false,
    }
}

/// True if two schemas differ in notes alone.
fn alike(a: &Value, b: &Value) -> bool {
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return a == b };
    let counted = |keyword: &&String| !is_note(keyword);
    let keys = |schema: &serde_json::Map<String, Value>| schema.keys().filter(counted).count();
    keys(a) == keys(b)
        && a.iter().filter(|(keyword, _)| counted(keyword)).all(|(keyword, a)| {
            let Some(b) = b.get(keyword) else { return false };
            match (keyword.as_str(), a, b) {
                ("properties" | "patternProperties", Value::Object(a), Value::Object(b)) => {
                    a.len() == b.len()
                        && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| alike(a, b)))
                }
                ("items" | "additionalItems" | "additionalProperties" | "not", a, b) => alike(a, b),
                ("allOf" | "anyOf" | "oneOf", Value::Array(a), Value::Array(b)) => {
                    a.len() == b.len() && std::iter::zip(a, b).all(|(a, b)| alike(a, b))
                }
                (_, a, b) => a == b,
            }
        })
}
