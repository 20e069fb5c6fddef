//! Each schema is that of what is published.

use annals_eventstore::{
    Event, JsonSchema,
    contract::{Contract, ContractError, EventKey, PublishedCategory},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::{contract, errors, events, value};

fn key(event: &impl Event) -> EventKey {
    let kind = event.event_type();
    EventKey::new("loan", kind.name, kind.version)
}

#[test]
fn what_is_published_is_valid() {
    let schemas = contract().schemas().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for event in events() {
        let payload = value(&event.encode().unwrap());
        let schema = schemas.get(&key(&event)).unwrap();
        assert_eq!(errors(schema, &payload), [""; 0], "{payload}\n{schema:#}");
        seen.insert(key(&event));
    }
    assert!(schemas.iter().map(|(key, _)| key).eq(&seen), "an event of each kind");
}

/// Takes away each field, gives each another type, and puts each under another name.
#[test]
fn what_is_published_otherwise_is_not() {
    let schemas = contract().schemas().unwrap();
    let optional = ["/resource"];
    let mut checked = 0;
    for event in events() {
        let payload = value(&event.encode().unwrap());
        let schema = schemas.get(&key(&event)).unwrap();
        for pointer in places(&payload) {
            let wrong = json!({ "wrong": [[]] });
            // An option of several shapes, and names that are not fixed, take what is missing.
            let mut other = payload.clone();
            *other.pointer_mut(&pointer).unwrap() = wrong;
            assert_ne!(errors(schema, &other), [""; 0], "{pointer}: {other}");
            let missing = without(&payload, &pointer);
            let may_miss = optional.contains(&pointer.as_str()) || pointer == "/a";
            if let Some(missing) = missing.filter(|_| !may_miss) {
                assert_ne!(errors(schema, &missing), [""; 0], "{pointer}: {missing}");
            }
            checked += 1;
        }
    }
    assert!(checked > 40, "{checked}");
}

/// The pointers to all fields and items of a value.
fn places(value: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(i, value)| (i.to_string(), value)).collect()
        }
        _ => Vec::new(),
    };
    let below = |(name, value): &(String, &Value)| {
        let mut all = vec![format!("/{name}")];
        all.extend(places(value).iter().map(|place| format!("/{name}{place}")));
        all
    };
    children.iter().flat_map(below).collect()
}

/// Without the field there; an array has no fields.
fn without(value: &Value, pointer: &str) -> Option<Value> {
    let (parent, name) = pointer.rsplit_once('/')?;
    let mut value = value.clone();
    value.pointer_mut(parent)?.as_object_mut()?.remove(name)?;
    Some(value)
}

#[test]
fn a_schema_says_what_it_is_of() {
    let schemas = contract().schemas().unwrap();
    let names: Vec<_> = schemas.iter().map(|(key, _)| key.file_name()).collect();
    assert_eq!(
        names,
        [
            "loan.approved.v1.json",
            "loan.closed.v1.json",
            "loan.declined.v1.json",
            "loan.moved.v1.json",
            "loan.noted.v1.json",
            "loan.submitted.v2.json",
            "loan.tagged.with.v1.json",
        ]
    );
    let closed = &schemas["loan.closed.v1".parse().unwrap()];
    let expected = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "https://schemas.example.org/lending/loan.closed.v1.json",
        "title": "lending.loan.closed.v1",
        "description": "Nothing more happens.",
        "type": "object",
        "x-topic": "lending.loan.events.v1",
    });
    assert_eq!(closed, &expected);
    // What one does not refer to is not in it.
    let definitions = |key: &str| {
        let definitions = schemas[key.parse().unwrap()]["definitions"].as_object().cloned();
        definitions.unwrap_or_default().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(definitions("loan.noted.v1"), ["Note"]);
    assert_eq!(definitions("loan.submitted.v2"), ["Channel", "Money", "Security"]);
    assert_eq!(definitions("loan.moved.v1"), [""; 0]);
}

#[test]
fn one_variant_alone_has_a_schema() {
    #[derive(Event, Serialize, Deserialize, JsonSchema)]
    #[schemars(crate = "annals_eventstore::schemars")]
    enum Once {
        #[event(name = "happened")]
        It,
    }
    #[derive(Event, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case")]
    #[schemars(crate = "annals_eventstore::schemars")]
    enum Data {
        ThatHappened { a: u8 },
    }
    let contract = Contract::new("c")
        .category(PublishedCategory::events::<Once>("once"))
        .category(PublishedCategory::events::<Data>("data").topic("elsewhere"));
    let schemas = contract.schemas().unwrap();
    assert_eq!(schemas["once.happened.v1".parse().unwrap()]["type"], "object");
    let data = &schemas["data.that_happened.v1".parse().unwrap()];
    assert_eq!(data["properties"]["a"]["maximum"], 255);
    assert_eq!(data["x-topic"], "elsewhere");
    let twice = contract.category(PublishedCategory::events::<Once>("once"));
    assert!(matches!(twice.schemas(), Err(ContractError::CategoryTwice { .. })));
}

#[test]
fn a_schema_that_does_not_fit_the_enum_is_refused() {
    #[derive(Event, Serialize, Deserialize, JsonSchema)]
    #[schemars(crate = "annals_eventstore::schemars")]
    enum Renamed {
        #[schemars(rename = "other")]
        It { a: u8 },
    }
    #[derive(Event, Serialize, Deserialize, JsonSchema)]
    #[schemars(crate = "annals_eventstore::schemars")]
    enum Within {
        It { again: Option<Box<Within>> },
    }
    let renamed = Contract::new("c").category(PublishedCategory::events::<Renamed>("x"));
    let error = renamed.schemas().unwrap_err().to_string();
    assert!(error.contains("\"it\"") && error.contains("#[serde(rename)]"), "{error}");
    let within = Contract::new("c").category(PublishedCategory::events::<Within>("x"));
    assert!(matches!(within.schemas(), Err(ContractError::Recursive { .. })));
}
