//! What breaks consumers is found and named; what does not is passed.

use annals_eventstore::contract::{Comparison, Compatibility, EventKey, Schemas};
use serde_json::{Value, json};

use crate::support::contract;

fn compare(old: Value, new: Value, compatibility: Compatibility) -> Comparison {
    let schemas = |schema| Schemas::from_iter([(EventKey::new("loan", "x", 1), schema)]);
    contract().compare(&schemas(new), &schemas(old), compatibility)
}

/// What is said, without the event and the consequence.
fn said(old: &Value, new: &Value, compatibility: Compatibility) -> Vec<String> {
    let comparison = compare(old.clone(), new.clone(), compatibility);
    let said = comparison.differences.iter();
    said.map(|found| format!("{}: {}", found.pointer, found.change)).collect()
}

/// Backward from the first to the second and forward from the second to the first is the same question, so
/// each pair is asked both.
fn holds(writer: Value, reader: Value, expected: &[&str]) {
    let backward = said(&writer, &reader, Compatibility::Backward);
    assert_eq!(backward, expected, "{writer} {reader}");
    let forward = said(&reader, &writer, Compatibility::Forward);
    assert_eq!(forward.is_empty(), expected.is_empty(), "{forward:?}");
    assert!(said(&writer, &reader, Compatibility::None).is_empty());
}

fn object(properties: Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required })
}

#[test]
fn a_type_may_become_wider() {
    let of = |schema: Value| object(json!({ "amount": schema }), &["amount"]);
    let holds = |writer, reader, expected: &[&str]| holds(of(writer), of(reader), expected);
    let text = json!({ "type": "string" });
    let int = json!({ "type": "integer" });
    let int32 = json!({ "type": "integer", "format": "int32" });
    let int64 = json!({ "type": "integer", "format": "int64" });
    let uint8 = json!({ "type": "integer", "format": "uint8", "minimum": 0, "maximum": 255 });
    holds(int.clone(), int.clone(), &[]);
    holds(int.clone(), json!({ "type": "number" }), &[]);
    holds(
        json!({ "type": "number" }),
        int.clone(),
        &["/properties/amount: type number -> integer"],
    );
    holds(int.clone(), text.clone(), &["/properties/amount: type integer -> string"]);
    holds(int32.clone(), int64.clone(), &[]);
    holds(uint8.clone(), int32.clone(), &[]);
    let narrower = &[
        "/properties/amount: minimum -9223372036854775808 -> -2147483648",
        "/properties/amount: maximum 9223372036854775807 -> 2147483647",
    ];
    holds(int64.clone(), int32.clone(), narrower);
    holds(
        int32,
        uint8,
        &[
            "/properties/amount: minimum -2147483648 -> 0",
            "/properties/amount: maximum 2147483647 -> 255",
        ],
    );
    holds(text.clone(), json!({ "type": ["string", "null"] }), &[]);
    holds(
        json!({ "type": ["string", "null"] }),
        text.clone(),
        &["/properties/amount: type null -> string"],
    );
    holds(text.clone(), json!({ "anyOf": [{ "type": "integer" }, { "type": "string" }] }), &[]);
    holds(text.clone(), json!(true), &[]);
    holds(json!(true), text.clone(), &["/properties/amount: type anything -> string"]);
    let date = json!({ "type": "string", "format": "date" });
    holds(date.clone(), text.clone(), &[]);
    holds(text.clone(), date.clone(), &["/properties/amount: format none -> date"]);
    let time = json!({ "type": "string", "format": "date-time" });
    holds(date, time, &["/properties/amount: format date -> date-time"]);
    let short = json!({ "type": "string", "maxLength": 3 });
    holds(short.clone(), text.clone(), &[]);
    holds(text, short, &["/properties/amount: greatest length none -> 3"]);
    let (least, less) = (
        json!({ "type": "integer", "exclusiveMinimum": 0 }),
        json!({ "type": "integer", "minimum": 0 }),
    );
    holds(least.clone(), less.clone(), &[]);
    holds(less, least, &["/properties/amount: minimum 0 -> 0 (exclusive)"]);
}

#[test]
fn values_may_be_added_for_the_reader_only() {
    let listed = |values: &[&str]| json!({ "type": "string", "enum": values });
    holds(listed(&["a"]), listed(&["a", "b"]), &[]);
    holds(listed(&["a", "b"]), listed(&["a"]), &[": value \"b\" allowed -> not allowed"]);
    holds(listed(&["a"]), json!({ "type": "string" }), &[]);
    holds(json!({ "type": "string" }), listed(&["a"]), &[": values any string -> only \"a\""]);
    // As variants with documentation are written.
    let described = json!({ "oneOf": [
        { "description": "x", "type": "string", "const": "a" },
        { "description": "y", "type": "string", "const": "b" },
    ] });
    holds(listed(&["a", "b"]), described.clone(), &[]);
    holds(described.clone(), listed(&["b", "a"]), &[]);
    holds(described, listed(&["a"]), &["/oneOf/1: value \"b\" allowed -> not allowed"]);
    let limited = json!({ "type": "integer", "maximum": 1 });
    holds(json!({ "enum": [0, 2] }), limited, &[": value 2 allowed -> not allowed"]);
}

#[test]
fn properties_come_and_go() {
    let (a, ab) = (
        json!({ "a": { "type": "integer" } }),
        json!({ "a": { "type": "integer" }, "b": { "type": "null" } }),
    );
    // A reader passes over what it does not know.
    holds(object(ab.clone(), &["a", "b"]), object(a.clone(), &["a"]), &[]);
    holds(object(a.clone(), &["a"]), object(ab.clone(), &["a"]), &[]);
    holds(
        object(a.clone(), &["a"]),
        object(ab.clone(), &["a", "b"]),
        &["/properties/b: property \"b\" absent -> required"],
    );
    holds(
        object(ab.clone(), &["a"]),
        object(ab.clone(), &["a", "b"]),
        &["/properties/b: property \"b\" optional -> required"],
    );
    let mut closed = object(a.clone(), &["a"]);
    closed["additionalProperties"] = json!(false);
    holds(closed.clone(), object(a.clone(), &[]), &[]);
    holds(object(a, &["a"]), closed.clone(), &[]);
    holds(object(ab, &["a"]), closed, &["/properties/b: property \"b\" written -> not allowed"]);
    let map = |schema: Value| json!({ "type": "object", "additionalProperties": schema });
    holds(map(json!({ "type": "integer" })), map(json!({ "type": "number" })), &[]);
    holds(
        map(json!({ "type": "string" })),
        map(json!({ "type": "number" })),
        &["/additionalProperties: type string -> number"],
    );
    // Any name may be written, also one that the reader knows.
    let known = object(json!({ "a": { "type": "integer" } }), &[]);
    holds(map(json!({ "type": "string" })), known, &["/properties/a: type string -> integer"]);
}

#[test]
fn items_are_compared_one_by_one() {
    let list = |schema: Value| json!({ "type": "array", "items": schema });
    let pair = |second: Value| {
        let items = json!([{ "type": "integer" }, second]);
        json!({ "type": "array", "items": items, "minItems": 2, "maxItems": 2 })
    };
    let (int, number) = (json!({ "type": "integer" }), json!({ "type": "number" }));
    holds(list(int.clone()), list(number.clone()), &[]);
    holds(list(number.clone()), list(int.clone()), &["/items: type number -> integer"]);
    holds(pair(int.clone()), list(int.clone()), &[]);
    holds(pair(number.clone()), list(int.clone()), &["/items/1: type number -> integer"]);
    holds(pair(int.clone()), pair(number.clone()), &[]);
    holds(pair(number), pair(int.clone()), &["/items/1: type number -> integer"]);
    let lengths = &[": least number of items 0 -> 2", ": greatest number of items none -> 2"];
    holds(list(int.clone()), pair(int.clone()), lengths);
    let mut set = list(int.clone());
    set["uniqueItems"] = json!(true);
    holds(set.clone(), list(int.clone()), &[]);
    holds(list(int), set, &[": items may be repeated -> unique"]);
}

#[test]
fn alternatives_are_told_apart() {
    let variant = |name: &str, schema: Value| {
        let mut all = object(json!({ name: schema }), &[name]);
        all["additionalProperties"] = json!(false);
        all
    };
    let tagged = |name: &str, schema: Value| {
        object(json!({ "kind": { "type": "string", "const": name }, "a": schema }), &["kind", "a"])
    };
    let (int, text) = (json!({ "type": "integer" }), json!({ "type": "string" }));
    let one = |variants: &[Value]| json!({ "oneOf": variants });
    for variant in [&variant as &dyn Fn(&str, Value) -> Value, &tagged] {
        let both = one(&[variant("x", int.clone()), variant("y", text.clone())]);
        let turned = one(&[variant("y", text.clone()), variant("x", int.clone())]);
        holds(both.clone(), turned, &[]);
        holds(one(&[variant("x", int.clone())]), both.clone(), &[]);
        let fewer = said(&both, &one(&[variant("x", int.clone())]), Compatibility::Backward);
        assert!(!fewer.is_empty() && fewer[0].starts_with("/oneOf/0"), "{fewer:?}");
        let changed = one(&[variant("x", text.clone()), variant("y", text.clone())]);
        let changed = said(&both, &changed, Compatibility::Backward);
        assert!(changed[0].contains("type integer -> string"), "{changed:?}");
    }
    // As a flattened enum is written.
    let flat = |least: i64| {
        let mut all = one(&[tagged("x", int.clone()), tagged("y", text.clone())]);
        all["type"] = json!("object");
        all["properties"] = json!({ "n": { "type": "integer", "minimum": least } });
        all["required"] = json!(["n"]);
        all
    };
    holds(flat(0), flat(-1), &[]);
    assert_eq!(
        said(&flat(0), &flat(1), Compatibility::Backward)[0],
        "/properties/n: minimum 0 -> 1"
    );
}

#[test]
fn references_are_followed() {
    let tree = |schema: Value, least: u64| {
        json!({
            "allOf": [{ "$ref": "#/definitions/Tree" }],
            "definitions": {
                "Tree": object(
                    json!({ "value": schema, "below": { "type": "array", "items": { "$ref": "#/definitions/Tree" }, "minItems": least } }),
                    &["value", "below"],
                ),
            },
        })
    };
    let (int, number) = (json!({ "type": "integer" }), json!({ "type": "number" }));
    holds(tree(int.clone(), 0), tree(number.clone(), 0), &[]);
    let found = &["/definitions/Tree/properties/value: type number -> integer"];
    holds(tree(number, 0), tree(int.clone(), 0), found);
    let inlined = object(json!({ "value": int }), &["value"]);
    holds(tree(int, 0), inlined, &[]);
}

#[test]
fn what_cannot_be_judged_does_not_pass() {
    let text = json!({ "type": "string" });
    for schema in [
        json!({ "not": { "type": "string" } }),
        json!({ "type": "integer", "multipleOf": 2 }),
        json!({ "type": "object", "patternProperties": { "^x": { "type": "string" } } }),
        json!({ "if": true, "then": false }),
        json!({ "type": "array", "items": { "type": "string", "pattern": "^a" } }),
        json!({ "$ref": "other.json" }),
        json!({ "oneOf": [{ "type": "string" }, { "type": "string", "maxLength": 2 }] }),
        json!({ "minimum": 3 }),
        json!({ "type": "words" }),
    ] {
        let mut other = schema.clone();
        // The same is the same, whatever it is; only references lead out of it.
        if schema.get("$ref").is_none() {
            assert!(said(&schema, &other, Compatibility::Full).is_empty(), "{schema}");
        }
        other["maxLength"] = json!(9);
        if schema["type"] == "array" {
            other = json!({ "type": "array", "items": { "type": "string", "pattern": "^b" } });
        }
        for (old, new) in [(&schema, &other), (&text, &schema)] {
            let comparison = compare(old.clone(), new.clone(), Compatibility::Backward);
            let found = comparison.differences.first();
            let Some(found) = found else { panic!("passed: {old} {new}") };
            if found.comparable {
                // The types alone differ already.
                assert!(found.change.starts_with("type"), "{found}");
                continue;
            }
            let text = found.to_string();
            assert!(text.contains("not comparable: ") && text.contains("cannot be told"), "{text}");
        }
    }
}

#[test]
fn notes_do_not_count() {
    let old = json!({ "type": "object", "title": "t", "properties": { "title": { "type": "string", "description": "a" } } });
    let mut new = old.clone();
    new["description"] = json!("other");
    new["properties"]["title"]["description"] = json!("b");
    holds(old.clone(), new.clone(), &[]);
    // A property that is called like a note is none.
    new["properties"]["title"]["type"] = json!("integer");
    holds(old, new, &["/properties/title: type string -> integer"]);
}

fn key(text: &str) -> EventKey {
    text.parse().unwrap()
}

#[test]
fn versions_and_types_come_and_go() {
    let int = || object(json!({ "a": { "type": "integer" } }), &["a"]);
    let text = || object(json!({ "a": { "type": "string" } }), &["a"]);
    let schemas = |list: &[(&str, Value)]| -> Schemas {
        list.iter().map(|(name, schema)| (key(name), schema.clone())).collect()
    };
    let ask = |old: &[(&str, Value)], new: &[(&str, Value)], compatibility| {
        contract().compare(&schemas(new), &schemas(old), compatibility)
    };
    let told = |comparison: &Comparison| -> Vec<String> {
        comparison.differences.iter().map(ToString::to_string).collect()
    };
    use Compatibility::{Backward, Forward, Full};
    // A new version is the way to break: consumers of the new contract have both.
    let (v1, v2) = ([("loan.x.v1", int())], [("loan.x.v2", text())]);
    let comparison = ask(&v1, &v2, Backward);
    assert!(comparison.is_compatible());
    assert_eq!(comparison.additions, [key("loan.x.v2")]);
    // Those of the old one have not.
    assert_eq!(
        told(&ask(&v1, &v2, Forward)),
        ["loan.x.v2 /properties/a: type integer -> string (against v1): \
          consumers of the published contract cannot read what will be published"]
    );
    let wider = object(json!({ "a": { "type": "integer" }, "b": { "type": "integer" } }), &["a"]);
    assert!(ask(&v1, &[("loan.x.v2", wider)], Full).is_compatible());
    // A new type is one that old consumers pass over.
    assert!(ask(&v1, &[v1[0].clone(), ("loan.y.v1", text())], Full).is_compatible());
    // What is gone is still in the topic.
    assert_eq!(
        told(&ask(&[v1[0].clone(), ("loan.y.v1", text())], &v1, Backward)),
        ["loan.y.v1: published -> no such type: \
          consumers of the new contract cannot read what was published"]
    );
    assert!(ask(&[v1[0].clone(), ("loan.y.v1", text())], &v1, Forward).is_compatible());
    assert_eq!(
        ask(&[("other.y.v1", text())], &[], Backward).differences[0].change,
        "published -> no such category"
    );
    assert_eq!(ask(&v2, &v1, Backward).differences[0].change, "v2 -> v1 only");
    // What nobody knows the schema of is named.
    assert_eq!(ask(&[], &v2, Backward).unknown_versions, [key("loan.x.v1")]);
    assert_eq!(ask(&v1, &v2, Backward).unknown_versions, []);
}

#[test]
fn a_topic_stays() {
    let old = json!({ "type": "object", "x-topic": "a", "title": "lending.loan.x.v1" });
    let new = json!({ "type": "object", "x-topic": "b", "title": "banking.loan.x.v1" });
    let expected =
        ["/title: ce_type lending.loan.x.v1 -> banking.loan.x.v1", "/x-topic: topic a -> b"];
    assert_eq!(said(&old, &new, Compatibility::Backward), expected);
    assert_eq!(said(&old, &new, Compatibility::Forward), expected);
    // Another hand's schema need not say it.
    assert!(said(&json!({ "type": "object" }), &new, Compatibility::Full).is_empty());
}

#[test]
fn what_is_retired_may_be_gone() {
    use annals_eventstore::{
        Event, JsonSchema,
        contract::{Contract, PublishedCategory},
    };
    use serde::{Deserialize, Serialize};
    #[derive(Event, Serialize, Deserialize, JsonSchema)]
    #[event(dropped("noted"))]
    #[schemars(crate = "annals_eventstore::schemars")]
    enum Now {
        #[event(alias = "begun")]
        Started {},
    }
    let contract = Contract::new("lending").category(PublishedCategory::events::<Now>("loan"));
    let current = contract.schemas().unwrap();
    let gone = |name: &str| {
        let published = Schemas::from_iter([(key(name), json!({ "type": "object" }))]);
        contract.compare(&current, &published, Compatibility::Full).differences.len()
    };
    assert_eq!((gone("loan.noted.v1"), gone("loan.begun.v1"), gone("loan.other.v1")), (0, 0, 1));
}
