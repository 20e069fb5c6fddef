//! The documents are valid by the schemas of their standards, and refer to nothing that is not there.

use serde_json::Value;

use crate::support::{contract, errors};

fn asyncapi() -> Value {
    let contract = contract();
    let text = contract.asyncapi(&contract.schemas().unwrap()).unwrap();
    yaml_serde::from_str(&text).unwrap()
}

fn data_contract() -> Value {
    let contract = contract();
    let text = contract.data_contract("loan", &contract.schemas().unwrap()).unwrap();
    yaml_serde::from_str(&text).unwrap()
}

fn standard(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_asyncapi_document_is_valid() {
    let standard = standard(include_str!("standards/asyncapi-3.0.0.json"));
    let mut document = asyncapi();
    assert_eq!(errors(&standard, &document), [""; 0], "{document:#}");
    // The standard's schema can tell.
    document["operations"]["publish.loan"]["action"] = "shout".into();
    assert_ne!(errors(&standard, &document), [""; 0]);
}

#[test]
fn the_data_contract_is_valid() {
    let standard = standard(include_str!("standards/odcs-3.2.0.json"));
    let mut document = data_contract();
    assert_eq!(errors(&standard, &document), [""; 0], "{document:#}");
    document["slaProperties"][0]["colour"] = "red".into();
    assert_ne!(errors(&standard, &document), [""; 0]);
}

#[test]
fn references_lead_somewhere() {
    let document = asyncapi();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 20, "{references:?}");
    let schemas = contract().schemas().unwrap();
    for reference in references {
        match reference.strip_prefix('#') {
            Some(pointer) => assert!(document.pointer(pointer).is_some(), "{reference}"),
            None => {
                let key = reference.strip_suffix(".json").unwrap().parse().unwrap();
                assert!(schemas.get(&key).is_some(), "{reference}");
            }
        }
    }
}

fn collect<'a>(value: &'a Value, references: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| collect(value, references));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}

#[test]
fn a_channel_is_a_topic() {
    let document = asyncapi();
    let channel = &document["channels"]["loan"];
    assert_eq!(channel["address"], "lending.loan.events.v1");
    assert_eq!(channel["bindings"]["kafka"]["partitions"], 8);
    assert_eq!(channel["x-owner"], "lending-team");
    assert_eq!(channel["messages"].as_object().unwrap().len(), 7);
    let message = &document["components"]["messages"]["loan.submitted.v2"];
    assert_eq!(message["headers"]["properties"]["ce_type"]["const"], "lending.loan.submitted.v2");
    let schema = "https://schemas.example.org/lending/loan.submitted.v2.json";
    assert_eq!(message["headers"]["properties"]["ce_dataschema"]["const"], schema);
    assert_eq!(message["payload"]["$ref"], "loan.submitted.v2.json");
    assert_eq!(message["bindings"]["kafka"]["key"]["type"], "string");
}

#[test]
fn a_data_contract_says_who_what_and_how_well() {
    let document = data_contract();
    assert_eq!(document["id"], "lending.loan");
    assert_eq!(document["team"]["name"], "lending-team");
    assert_eq!(document["description"]["purpose"], "What happens to applications for loans.");
    assert_eq!(document["slaProperties"][0]["value"], 5);
    assert_eq!(document["servers"][0]["host"], "kafka.example.org:9092");
    let objects = document["schema"].as_array().unwrap();
    let submitted = objects.iter().find(|object| object["name"] == "submitted.v2").unwrap();
    let property = |name: &str| {
        let properties = submitted["properties"].as_array().unwrap();
        properties.iter().find(|property| property["name"] == name).unwrap()
    };
    let amount = property("amount");
    assert_eq!((&amount["logicalType"], &amount["required"]), (&"object".into(), &true.into()));
    assert_eq!(amount["properties"][1]["name"], "inCents");
    assert_eq!(amount["properties"][1]["logicalType"], "integer");
    assert_eq!(property("at")["logicalType"], "timestamp");
    assert_eq!(property("requestId")["physicalType"], "uuid");
    // It may be left out; it may be null; it is one of several shapes.
    assert_eq!(property("resource")["required"], false);
    assert_eq!(property("security")["required"], false);
    assert_eq!(property("security")["physicalType"], "json");
}
