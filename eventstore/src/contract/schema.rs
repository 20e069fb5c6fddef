//! From the schema of an enum to those of its variants: what the payloads are.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Index,
};

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{ContractError, EventKey};
use crate::Event;

/// AsyncAPI's own schemas are of this dialect, and more tools read it than any later one.
pub(super) const DIALECT: &str = "http://json-schema.org/draft-07/schema#";
pub(super) const DEFINITIONS: &str = "#/definitions/";

/// The JSON Schemas of published events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schemas(pub(super) BTreeMap<EventKey, Value>);

impl Schemas {
    /// The schema of a type of event in one version.
    pub fn get(&self, key: &EventKey) -> Option<&Value> {
        self.0.get(key)
    }

    /// All, sorted by category, type and version.
    pub fn iter(&self) -> impl Iterator<Item = (&EventKey, &Value)> {
        self.0.iter()
    }

    /// These, and those of the others that are not among them.
    #[must_use]
    pub fn or(mut self, others: Self) -> Self {
        for (key, schema) in others.0 {
            self.0.entry(key).or_insert(schema);
        }
        self
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of one category.
    pub fn in_category(&self, category: &str) -> impl Iterator<Item = (&EventKey, &Value)> {
        self.0.iter().filter(move |(key, _)| key.category == category)
    }

    /// The highest version of a type.
    pub(super) fn latest(&self, category: &str, event_type: &str) -> Option<&EventKey> {
        let of_type = |key: &&EventKey| key.category == category && key.event_type == event_type;
        self.0.keys().filter(of_type).max_by_key(|key| key.version)
    }
}

/// Of a key that comes twice, the last schema counts.
impl FromIterator<(EventKey, Value)> for Schemas {
    fn from_iter<I: IntoIterator<Item = (EventKey, Value)>>(schemas: I) -> Self {
        Self(schemas.into_iter().collect())
    }
}

impl Index<EventKey> for Schemas {
    type Output = Value;

    /// # Panics
    /// If there is no such schema; [`Schemas::get`] does not.
    fn index(&self, key: EventKey) -> &Value {
        &self.0[&key]
    }
}

/// The schema of one kind of event.
#[derive(Clone, Debug)]
pub(super) struct EventSchema {
    pub(super) event_type: &'static str,
    pub(super) version: u32,
    pub(super) schema: Map<String, Value>,
    /// What it refers to.
    pub(super) definitions: Map<String, Value>,
}

/// The schemas of what [`Event::encode`] writes for each kind of event of an enum.
pub(super) fn of<E: Event + JsonSchema>(category: &str) -> Result<Vec<EventSchema>, ContractError> {
    // What serde writes, which differs from what it reads: fields with defaults are always there.
    let settings = SchemaSettings::draft07().for_serialize();
    let root = settings.into_generator().into_root_schema_for::<E>().to_value();
    let none = Map::new();
    let definitions = root.get("definitions").and_then(Value::as_object).unwrap_or(&none);
    let kinds = E::TYPES.iter().enumerate().map(|(index, kind)| {
        let payload = E::variant_name(index).and_then(|name| payload(&root, name));
        let schema = payload.ok_or_else(|| ContractError::NoVariant {
            category: category.to_owned(),
            event_type: kind.name.to_owned(),
        })?;
        let mut used = BTreeSet::new();
        let key = || EventKey::new(category, kind.name, kind.version);
        let known = collect(&Value::Object(schema.clone()), definitions, &mut used);
        known.ok_or_else(|| ContractError::Recursive { key: key() })?;
        let definitions = definitions.iter().filter(|(name, _)| used.contains(name.as_str()));
        let definitions =
            definitions.map(|(name, schema)| (name.clone(), schema.clone())).collect();
        Ok(EventSchema { event_type: kind.name, version: kind.version, schema, definitions })
    });
    kinds.collect()
}

/// The schema of the content of a variant, which is what is stored and published.
fn payload(root: &Value, name: &str) -> Option<Map<String, Value>> {
    let several = root.get("oneOf").and_then(Value::as_array);
    let mut variants = several.map_or(std::slice::from_ref(root), Vec::as_slice).iter();
    variants.find_map(|variant| {
        let description = variant.get("description");
        let mut schema =
            if let Some(content) = variant.get("properties").and_then(|all| all.get(name)) {
                match content {
                    // Beside `$ref`, nothing else counts.
                    Value::Object(content) if content.contains_key("$ref") => {
                        Map::from_iter([("allOf".to_owned(), json!([content]))])
                    }
                    Value::Object(content) => content.clone(),
                    _ => Map::new(),
                }
            } else if names(variant).any(|variant| variant == name) {
                // Variants without fields are stored as empty objects.
                Map::from_iter([("type".to_owned(), "object".into())])
            } else {
                return None;
            };
        // That of the whole enum says nothing of its only variant.
        if let (Some(description), true) = (description, several.is_some())
            && !schema.contains_key("description")
        {
            schema.insert("description".to_owned(), description.clone());
        }
        Some(schema)
    })
}

/// The variants without fields that a schema stands for.
fn names(schema: &Value) -> impl Iterator<Item = &Value> {
    let several = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    schema.get("const").into_iter().chain(several)
}

/// Collects the names of the definitions that a schema refers to, and those that they refer to. `None` if it
/// refers to something else.
fn collect(
    schema: &Value,
    definitions: &Map<String, Value>,
    used: &mut BTreeSet<String>,
) -> Option<()> {
    match schema {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref") {
                let name = definition_name(reference)?;
                let definition = definitions.get(&name)?;
                if used.insert(name) {
                    collect(definition, definitions, used)?;
                }
            }
            object.values().try_for_each(|part| collect(part, definitions, used))
        }
        Value::Array(parts) => parts.iter().try_for_each(|part| collect(part, definitions, used)),
        _ => Some(()),
    }
}

/// The name of the definition that a reference means.
pub(super) fn definition_name(reference: &str) -> Option<String> {
    let name = reference.strip_prefix(DEFINITIONS)?;
    let name = percent_encoding::percent_decode_str(name).decode_utf8().ok()?;
    Some(name.replace("~1", "/").replace("~0", "~"))
}
