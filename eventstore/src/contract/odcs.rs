//! A category as an Open Data Contract: the Open Data Contract Standard (ODCS), version 3.1.

use serde::Serialize;
use serde_json::Value;

use super::{Contract, EventKey, PublishedCategory, Schemas, schema::definition_name};

/// References that refer to references are followed as far as this.
const MOST_REFERENCES: usize = 8;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    id: String,
    name: &'a str,
    version: &'a str,
    status: &'static str,
    domain: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Description<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<Team<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    servers: Vec<Server<'a>>,
    schema: Vec<SchemaObject>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sla_properties: Vec<SlaProperty<'a>>,
}

#[derive(Serialize)]
struct Description<'a> {
    purpose: &'a str,
}

#[derive(Serialize)]
struct Team<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Server<'a> {
    server: &'a str,
    r#type: &'static str,
    host: &'a str,
    format: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SchemaObject {
    name: String,
    physical_name: String,
    physical_type: &'static str,
    logical_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    authoritative_definitions: Vec<Definition>,
    custom_properties: Vec<CustomProperty>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property>,
}

#[derive(Serialize)]
struct Definition {
    url: String,
    r#type: &'static str,
}

#[derive(Serialize)]
struct CustomProperty {
    property: &'static str,
    value: String,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Property {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    logical_type: &'static str,
    physical_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property>,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Box<Property>>,
}

#[derive(Serialize)]
struct SlaProperty<'a> {
    property: &'a str,
    value: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
}

pub(super) fn document<'a>(
    contract: &'a Contract,
    category: &'a PublishedCategory,
    schemas: &Schemas,
) -> Document<'a> {
    let object = |(key, schema): (&EventKey, &Value)| SchemaObject {
        name: format!("{}.v{}", key.event_type, key.version),
        physical_name: contract.ce_type(key),
        physical_type: "event",
        logical_type: "object",
        description: text(schema, "description"),
        authoritative_definitions: contract
            .schema_url(key)
            .into_iter()
            .map(|url| Definition { url, r#type: "implementation" })
            .collect(),
        custom_properties: vec![
            CustomProperty { property: "topic", value: contract.topic(category) },
            CustomProperty { property: "jsonSchema", value: key.file_name() },
        ],
        properties: properties(schema, schema, &[]),
    };
    let level = |level: &'a super::ServiceLevel| SlaProperty {
        property: &level.property,
        value: &level.value,
        unit: level.unit.as_deref(),
        description: level.description.as_deref(),
    };
    let server = |(name, host): (&'a String, &'a String)| Server {
        server: name,
        r#type: "kafka",
        host,
        format: "json",
    };
    Document {
        api_version: "v3.1.0",
        kind: "DataContract",
        id: format!("{}.{}", contract.context, category.name),
        name: &category.name,
        version: &contract.version,
        status: "active",
        domain: &contract.context,
        description: category.description.as_deref().map(|purpose| Description { purpose }),
        team: category.owner.as_deref().map(|name| Team { name }),
        servers: contract.servers.iter().map(server).collect(),
        schema: schemas.in_category(&category.name).map(object).collect(),
        sla_properties: category.service_levels.iter().map(level).collect(),
    }
}

/// The fields of an object. What is one of several shapes, or contains itself, is JSON to this standard; its
/// schema says more.
fn properties(root: &Value, schema: &Value, around: &[&Value]) -> Vec<Property> {
    let (schema, _) = resolved(root, schema);
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return Vec::new();
    };
    let required = schema.get("required").and_then(Value::as_array);
    let is_required =
        |name: &str| required.is_some_and(|required| required.iter().any(|other| other == name));
    properties
        .iter()
        .map(|(name, part)| {
            let mut property = property(root, part, around);
            let never_null = property.required.unwrap_or(true);
            property.required = Some(is_required(name) && never_null);
            property.name = Some(name.clone());
            property
        })
        .collect()
}

fn property(root: &Value, part: &Value, around: &[&Value]) -> Property {
    let description = text(part, "description");
    let (schema, nullable) = resolved(root, part);
    let json = |description| Property {
        logical_type: "object",
        physical_type: "json".to_owned(),
        required: nullable.then_some(false),
        description,
        ..Property::default()
    };
    let description = description.or_else(|| text(schema, "description"));
    if around.iter().any(|around| std::ptr::eq(*around, schema)) {
        return json(description);
    }
    let Some(name) = type_name(schema) else { return json(description) };
    let format = text(schema, "format");
    let logical = match (name, format.as_deref()) {
        ("string", Some("date")) => "date",
        ("string", Some("date-time" | "partial-date-time")) => "timestamp",
        ("string", Some("time" | "partial-time")) => "time",
        ("string", _) => "string",
        ("integer", _) => "integer",
        ("number", _) => "number",
        ("boolean", _) => "boolean",
        ("array", _) => "array",
        ("object", _) => "object",
        _ => return json(description),
    };
    let several = ["oneOf", "anyOf", "allOf"].iter().any(|keyword| schema.get(*keyword).is_some());
    if several {
        return json(description);
    }
    let items = schema.get("items").filter(|items| items.is_object());
    let within = [around, &[schema]].concat();
    Property {
        logical_type: logical,
        physical_type: format.unwrap_or_else(|| name.to_owned()),
        required: nullable.then_some(false),
        description: with_values(description, schema),
        properties: properties(root, schema, &within),
        items: items.map(|items| Box::new(property(root, items, &within))),
        ..Property::default()
    }
}

/// This version of the standard has no place for the values that are possible but in prose.
fn with_values(description: Option<String>, schema: &Value) -> Option<String> {
    let Some(values) = schema.get("enum").and_then(Value::as_array) else { return description };
    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
    let values = format!("One of {}.", values.join(", "));
    Some(description.map_or(values.clone(), |description| format!("{description} {values}")))
}

/// The one type other than null.
fn type_name(schema: &Value) -> Option<&str> {
    match schema.get("type")? {
        Value::String(name) => Some(name),
        Value::Array(names) => {
            let mut names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
            names.next().filter(|_| names.next().is_none())
        }
        _ => None,
    }
}

/// What a schema refers to, and whether it may be null instead.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> (&'a Value, bool) {
    let mut nullable = false;
    let mut schema = schema;
    // References that do not end are no schema.
    for _ in 0..MOST_REFERENCES {
        let target = || {
            let name = definition_name(schema.get("$ref")?.as_str()?)?;
            root.get("definitions")?.get(&name)
        };
        let only = |keyword: &str| match schema.get(keyword)?.as_array()?.as_slice() {
            [one] => Some(one),
            _ => None,
        };
        let or_null = || {
            let is_null = |part: &&Value| part.get("type").is_some_and(|name| name == "null");
            match schema.get("anyOf")?.as_array()?.as_slice() {
                [one, null] if is_null(&null) => Some(one),
                _ => None,
            }
        };
        if let Some(target) = target().or_else(|| only("allOf")) {
            schema = target;
        } else if let Some(target) = or_null() {
            (schema, nullable) = (target, true);
        } else {
            break;
        }
    }
    let types = schema.get("type").and_then(Value::as_array);
    let null = types.is_some_and(|names| names.iter().any(|name| name == "null"));
    (schema, nullable || null)
}

fn text(schema: &Value, keyword: &str) -> Option<String> {
    schema.get(keyword)?.as_str().map(str::to_owned)
}
