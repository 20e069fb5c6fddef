//! A contract as an AsyncAPI 3.0 document.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Contract, EventKey, PublishedCategory, Schemas};

const KAFKA_BINDINGS: &str = "0.5.0";

#[derive(Serialize)]
pub(super) struct Document<'a> {
    asyncapi: &'static str,
    info: Info<'a>,
    #[serde(rename = "defaultContentType")]
    default_content_type: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    servers: BTreeMap<&'a str, Server<'a>>,
    channels: BTreeMap<&'a str, Channel<'a>>,
    operations: BTreeMap<String, Operation>,
    components: Components,
}

#[derive(Serialize)]
struct Info<'a> {
    title: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
}

#[derive(Serialize)]
struct Server<'a> {
    host: &'a str,
    protocol: &'static str,
}

#[derive(Serialize)]
struct Channel<'a> {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    messages: BTreeMap<String, Reference>,
    bindings: Value,
    #[serde(rename = "x-owner", skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    #[serde(rename = "x-service-levels", skip_serializing_if = "Vec::is_empty")]
    service_levels: Vec<Value>,
}

#[derive(Serialize)]
struct Operation {
    action: &'static str,
    channel: Reference,
    messages: Vec<Reference>,
}

#[derive(Serialize)]
struct Components {
    schemas: BTreeMap<&'static str, Value>,
    messages: BTreeMap<String, Message>,
}

#[derive(Serialize)]
struct Message {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Value>,
    #[serde(rename = "contentType")]
    content_type: &'static str,
    headers: Value,
    payload: Reference,
    bindings: Value,
}

#[derive(Serialize)]
struct Reference {
    #[serde(rename = "$ref")]
    to: String,
}

impl Reference {
    fn to(target: impl Into<String>) -> Self {
        Self { to: target.into() }
    }
}

pub(super) fn document<'a>(contract: &'a Contract, schemas: &Schemas) -> Document<'a> {
    let mut channels = BTreeMap::new();
    let mut operations = BTreeMap::new();
    let mut messages = BTreeMap::new();
    for category in &contract.categories {
        let name = category.name.as_str();
        let of_category = || schemas.in_category(name);
        channels.insert(name, channel(contract, category, schemas));
        let sent = of_category()
            .map(|(key, _)| Reference::to(format!("#/channels/{name}/messages/{}", within(key))))
            .collect();
        let channel = Reference::to(format!("#/channels/{name}"));
        operations.insert(
            format!("publish.{name}"),
            Operation { action: "send", channel, messages: sent },
        );
        messages.extend(
            of_category().map(|(key, schema)| (key.to_string(), message(contract, key, schema))),
        );
    }
    Document {
        asyncapi: "3.0.0",
        info: Info {
            title: &contract.context,
            version: &contract.version,
            description: contract.description.as_deref(),
        },
        default_content_type: "application/json",
        servers: contract
            .servers
            .iter()
            .map(|(name, host)| (name.as_str(), Server { host, protocol: "kafka" }))
            .collect(),
        channels,
        operations,
        components: Components { schemas: BTreeMap::from([("headers", headers())]), messages },
    }
}

fn channel<'a>(
    contract: &'a Contract,
    category: &'a PublishedCategory,
    schemas: &Schemas,
) -> Channel<'a> {
    let topic = contract.topic(category);
    let mut kafka = json!({ "topic": topic, "bindingVersion": KAFKA_BINDINGS });
    if let Some(partitions) = category.partitions {
        kafka["partitions"] = partitions.into();
    }
    let levels = category.service_levels.iter().map(|level| {
        let mut shown = json!({ "property": level.property, "value": level.value });
        for (name, text) in [("unit", &level.unit), ("description", &level.description)] {
            if let Some(text) = text {
                shown[name] = text.as_str().into();
            }
        }
        shown
    });
    let message = |key: &EventKey| Reference::to(format!("#/components/messages/{key}"));
    Channel {
        address: topic,
        description: category.description.as_deref(),
        messages: schemas
            .in_category(&category.name)
            .map(|(key, _)| (within(key), message(key)))
            .collect(),
        bindings: json!({ "kafka": kafka }),
        owner: category.owner.as_deref(),
        service_levels: levels.collect(),
    }
}

/// What a message is called within its channel.
fn within(key: &EventKey) -> String {
    format!("{}.v{}", key.event_type, key.version)
}

fn message(contract: &Contract, key: &EventKey, schema: &Value) -> Message {
    let mut own = json!({
        "ce_type": { "const": contract.ce_type(key) },
        "ce_source": { "const": format!("/{}/{}", contract.context, key.category) },
    });
    if let Some(url) = contract.schema_url(key) {
        own["ce_dataschema"] = json!({ "const": url });
    }
    Message {
        name: contract.ce_type(key),
        description: schema.get("description").cloned(),
        content_type: "application/json",
        headers: json!({
            "type": "object",
            "allOf": [{ "$ref": "#/components/schemas/headers" }],
            "properties": own,
        }),
        payload: Reference::to(key.file_name()),
        bindings: json!({
            "kafka": {
                "key": { "type": "string", "description": "The key of the stream: events of one key are in order." },
                "bindingVersion": KAFKA_BINDINGS,
            },
        }),
    }
}

/// CloudEvents 1.0 in its Kafka binding, binary mode: see the table in the documentation of the publisher.
fn headers() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let formatted = |format: &str, description: &str| json!({ "type": "string", "format": format, "description": description });
    json!({
        "type": "object",
        "required": [
            "content-type", "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_partitionkey",
            "ce_time", "ce_sequence", "ce_streamversion",
        ],
        "properties": {
            "content-type": { "const": "application/json" },
            "ce_specversion": { "const": "1.0" },
            "ce_id": formatted("uuid", "The event's id."),
            "ce_source": text("The context and the category."),
            "ce_type": text("The context, the category, the event's type and the version of its schema."),
            "ce_dataschema": formatted("uri", "The JSON Schema of the value."),
            "ce_subject": text("The key of the stream."),
            "ce_partitionkey": text("The key of the stream."),
            "ce_time": formatted("date-time", "When it happened; when it was recorded, if that is all that is known."),
            "ce_recordedtime": formatted("date-time", "When it was recorded."),
            "ce_sequence": {
                "type": "string",
                "pattern": "^[0-9]{20}$",
                "description": "The position in the log. Drop records whose position is not above the last of the partition.",
            },
            "ce_streamversion": { "type": "string", "pattern": "^[0-9]+$", "description": "The version in the stream." },
            "ce_correlationid": text("What it belongs to."),
            "ce_causationid": text("What caused it."),
            "traceparent": text("The trace, after W3C Trace Context."),
            "ce_actor": text("Who did it, where that is published."),
            "ce_custommetadata": text("The producer's own metadata as a JSON object, where that is published."),
        },
    })
}
