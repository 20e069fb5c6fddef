//! How a program declares what it publishes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::Value;

use super::{
    ContractError, EventKey, Schemas, asyncapi, odcs,
    schema::{self, EventSchema},
};
use crate::{Aggregate, Event};

/// What one context publishes: its categories, each with its owner, its description and what consumers may
/// expect of it.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is asked for documents"]
pub struct Contract {
    pub(super) context: String,
    pub(super) version: String,
    pub(super) description: Option<String>,
    pub(super) base: Option<String>,
    pub(super) servers: BTreeMap<String, String>,
    pub(super) categories: Vec<PublishedCategory>,
}

impl Contract {
    /// A contract without categories. The context is the one that is given to the publisher: names of topics
    /// and types begin with it.
    pub fn new(context: impl Into<String>) -> Self {
        Self {
            context: context.into(),
            version: "1.0.0".to_owned(),
            description: None,
            base: None,
            servers: BTreeMap::new(),
            categories: Vec::new(),
        }
    }

    /// The version of the documents, `1.0.0` if nothing is said: `env!("CARGO_PKG_VERSION")`, for example.
    /// Events have versions of their own.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// What the context is, in a sentence.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// The URL under which the schemas can be had: their `$id` is this and the name of their file. Give the
    /// publisher the same one, and records point to their schemas (`ce_dataschema`). A slash is added if the
    /// URL does not end in one.
    pub fn schemas_at(mut self, base: impl Into<String>) -> Self {
        let mut base = base.into();
        if !base.ends_with('/') {
            base.push('/');
        }
        self.base = Some(base);
        self
    }

    /// A broker that has the topics, such as `("production", "kafka.example.org:9092")`.
    pub fn server(mut self, name: impl Into<String>, host: impl Into<String>) -> Self {
        self.servers.insert(name.into(), host.into());
        self
    }

    /// Adds a category.
    pub fn category(mut self, category: PublishedCategory) -> Self {
        self.categories.push(category);
        self
    }

    /// The context.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The names of the categories, in the order in which they were added.
    pub fn categories(&self) -> impl Iterator<Item = &str> {
        self.categories.iter().map(|category| category.name.as_str())
    }

    /// The JSON Schema (draft-07) of each published type of event in its present version.
    ///
    /// # Errors
    /// If a category stands there twice, or the schema of an enum does not say what each variant is.
    pub fn schemas(&self) -> Result<Schemas, ContractError> {
        let mut schemas = BTreeMap::new();
        for (index, category) in self.categories.iter().enumerate() {
            let name = &category.name;
            if self.categories[..index].iter().any(|other| other.name == *name) {
                return Err(ContractError::CategoryTwice { category: name.clone() });
            }
            for event in (category.events.schemas)(name)? {
                let EventSchema { event_type, version, schema, definitions } = event;
                let key = EventKey::new(name, event_type, version);
                let document = self.finish(category, &key, schema, definitions);
                schemas.insert(key, document);
            }
        }
        Ok(Schemas(schemas))
    }

    /// The AsyncAPI 3.0 document as YAML, for these schemas: those of the code, and older versions that the
    /// topics still hold. It refers to the schemas by the names of their files.
    ///
    /// # Errors
    /// If it cannot be written as YAML.
    pub fn asyncapi(&self, schemas: &Schemas) -> Result<String, ContractError> {
        Ok(yaml_serde::to_string(&asyncapi::document(self, schemas))?)
    }

    /// The Open Data Contract (ODCS 3.1) of a category as YAML, for these schemas.
    ///
    /// # Errors
    /// If there is no such category, or it cannot be written as YAML.
    pub fn data_contract(
        &self,
        category: &str,
        schemas: &Schemas,
    ) -> Result<String, ContractError> {
        let Some(published) = self.find(category) else {
            return Err(ContractError::NoCategory { category: category.to_owned() });
        };
        Ok(yaml_serde::to_string(&odcs::document(self, published, schemas))?)
    }

    pub(super) fn find(&self, category: &str) -> Option<&PublishedCategory> {
        self.categories.iter().find(|published| published.name == category)
    }

    /// True if the code still reads the type, though it stores it no more.
    pub(super) fn is_retired(&self, key: &EventKey) -> bool {
        self.find(&key.category).is_some_and(|category| (category.events.retired)(&key.event_type))
    }

    pub(super) fn topic(&self, category: &PublishedCategory) -> String {
        let by_default = || format!("{}.{}.events.v1", self.context, category.name);
        category.topic.clone().unwrap_or_else(by_default)
    }

    /// The `ce_type` of its records.
    pub(super) fn ce_type(&self, key: &EventKey) -> String {
        format!("{}.{key}", self.context)
    }

    pub(super) fn schema_url(&self, key: &EventKey) -> Option<String> {
        self.base.as_ref().map(|base| format!("{base}{}", key.file_name()))
    }

    fn finish(
        &self,
        category: &PublishedCategory,
        key: &EventKey,
        schema: serde_json::Map<String, Value>,
        definitions: serde_json::Map<String, Value>,
    ) -> Value {
        let mut document = schema;
        document.insert("$schema".to_owned(), schema::DIALECT.into());
        if let Some(url) = self.schema_url(key) {
            document.insert("$id".to_owned(), url.into());
        }
        document.insert("title".to_owned(), self.ce_type(key).into());
        document.insert("x-topic".to_owned(), self.topic(category).into());
        if !definitions.is_empty() {
            document.insert("definitions".to_owned(), definitions.into());
        }
        Value::Object(document)
    }
}

/// A category whose events are published.
#[derive(Clone, Debug)]
#[must_use = "it is a part of a contract"]
pub struct PublishedCategory {
    pub(super) name: String,
    pub(super) events: PublishedEvents,
    pub(super) topic: Option<String>,
    pub(super) partitions: Option<u32>,
    pub(super) owner: Option<String>,
    pub(super) description: Option<String>,
    pub(super) service_levels: Vec<ServiceLevel>,
}

/// What is known of the enum that is published.
#[derive(Clone, Copy, Debug)]
pub(super) struct PublishedEvents {
    schemas: fn(&str) -> Result<Vec<EventSchema>, ContractError>,
    retired: fn(&str) -> bool,
}

impl PublishedCategory {
    /// The events of an aggregate, published as they are stored.
    pub fn of<A>() -> Self
    where
        A: Aggregate,
        A::Event: JsonSchema,
    {
        Self::events::<A::Event>(A::CATEGORY)
    }

    /// A category whose events are published as those of another enum: the public one that the publisher maps
    /// the stored events to.
    pub fn events<E: Event + JsonSchema>(category: impl Into<String>) -> Self {
        let retired = |name: &str| {
            E::RETIRED.iter().any(|retired| retired.name == name)
                || E::TYPES.iter().any(|kind| kind.aliases.contains(&name))
        };
        Self {
            name: category.into(),
            events: PublishedEvents { schemas: schema::of::<E>, retired },
            topic: None,
            partitions: None,
            owner: None,
            description: None,
            service_levels: Vec::new(),
        }
    }

    /// The topic, where the publisher routes the category to another one than `{context}.{category}.events.v1`.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// How many partitions the topic has, for life.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Who answers for these events: a team, as a rule.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// What these events say, and what they are for.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Adds something that consumers may expect: latency, retention, availability.
    pub fn service_level(mut self, level: ServiceLevel) -> Self {
        self.service_levels.push(level);
        self
    }
}

/// Something that consumers may expect, in the words of the Open Data Contract Standard: a property, such as
/// `latency`, `retention`, `availability` or `timeToRepair`, and its value.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "it is a part of a category"]
pub struct ServiceLevel {
    pub(super) property: String,
    pub(super) value: Value,
    pub(super) unit: Option<String>,
    pub(super) description: Option<String>,
}

impl ServiceLevel {
    /// A property and its value: a number, or a text.
    pub fn new(property: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { property: property.into(), value: value.into(), unit: None, description: None }
    }

    /// The unit of the value: `s`, `d`, `percent`.
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = Some(unit.into());
        self
    }

    /// What it means, in a sentence.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }
}
