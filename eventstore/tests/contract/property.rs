//! A law: what is called compatible is so. Every instance of the writer's schema is valid for the reader, by a
//! validator of other people's making.

use std::cell::Cell;

use annals_eventstore::contract::{Compatibility, EventKey, Schemas};
use proptest::{
    prelude::{ProptestConfig, any},
    test_runner::TestRunner,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Map, Value, json};

use crate::support::contract;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const DEFINED: [&str; 2] = ["One", "Two"];

/// A schema of the kind that is published, at random.
fn schema(rng: &mut StdRng, depth: u32) -> Value {
    let most = if depth == 0 { 7 } else { 16 };
    match rng.random_range(0..most) {
        0 => json!({ "type": "null" }),
        1 => json!({ "type": "boolean" }),
        2 => number(rng, "integer"),
        3 => number(rng, "number"),
        4 | 5 => text(rng),
        6 => listed(rng),
        7 => {
            json!({ "type": "array", "items": schema(rng, depth - 1), "minItems": rng.random_range(0..2) })
        }
        8 => {
            let items: Vec<_> =
                (0..rng.random_range(1..3)).map(|_| schema(rng, depth - 1)).collect();
            let count = items.len();
            json!({ "type": "array", "minItems": count, "maxItems": count, "items": items })
        }
        9 | 10 => object(rng, depth),
        11 => {
            let mut all = object(rng, depth);
            all["additionalProperties"] = schema(rng, depth - 1);
            all
        }
        12 => json!({ "anyOf": [schema(rng, depth - 1), { "type": "null" }] }),
        13 => json!({ "anyOf": [schema(rng, depth - 1), schema(rng, depth - 1)] }),
        14 => tagged(rng, depth),
        _ => {
            let name = DEFINED.choose(rng).unwrap();
            json!({ "allOf": [{ "$ref": format!("#/definitions/{name}") }] })
        }
    }
}

fn choice<T: Copy>(rng: &mut StdRng, values: &[T]) -> T {
    *values.choose(rng).unwrap()
}

fn number(rng: &mut StdRng, name: &str) -> Value {
    let mut all = json!({ "type": name });
    if name == "integer" && rng.random() {
        all["format"] = json!(choice(rng, &["uint8", "int32", "int64"]));
    }
    for keyword in ["minimum", "exclusiveMinimum"] {
        if rng.random_ratio(1, 3) {
            all[keyword] = json!(rng.random_range(-3..2));
        }
    }
    for keyword in ["maximum", "exclusiveMaximum"] {
        if rng.random_ratio(1, 3) {
            all[keyword] = json!(rng.random_range(2..6));
        }
    }
    all
}

fn text(rng: &mut StdRng) -> Value {
    match rng.random_range(0..4) {
        0 => json!({ "type": "string" }),
        1 => json!({ "type": ["string", "null"], "maxLength": rng.random_range(1..4) }),
        2 => json!({ "type": "string", "minLength": rng.random_range(0..3) }),
        _ => json!({ "type": "string", "format": choice(rng, &["date", "uuid"]) }),
    }
}

fn listed(rng: &mut StdRng) -> Value {
    let values = [json!("x"), json!("y"), json!("long"), json!(1), json!(null), json!(true)];
    let values: Vec<_> = values.into_iter().filter(|_| rng.random()).collect();
    if values.is_empty() { json!({ "const": "x" }) } else { json!({ "enum": values }) }
}

fn object(rng: &mut StdRng, depth: u32) -> Value {
    let names: Vec<_> = NAMES.into_iter().filter(|_| rng.random()).collect();
    let properties: Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), schema(rng, depth - 1))).collect();
    let required: Vec<_> = names.iter().filter(|_| rng.random()).collect();
    let mut all = json!({ "type": "object", "properties": properties, "required": required });
    if rng.random_ratio(1, 4) {
        all["additionalProperties"] = json!(false);
    }
    all
}

/// Several shapes that a constant tells apart, perhaps beside what they have in common.
fn tagged(rng: &mut StdRng, depth: u32) -> Value {
    let variants: Vec<_> = (0..rng.random_range(1..4))
        .map(|index| {
            let mut all = object(rng, depth);
            all.as_object_mut().unwrap().remove("additionalProperties");
            all["properties"]["kind"] = json!({ "type": "string", "const": NAMES[index] });
            all["required"].as_array_mut().unwrap().push(json!("kind"));
            all
        })
        .collect();
    let mut all = json!({ "oneOf": variants });
    if rng.random() {
        all["type"] = json!("object");
        all["properties"] = json!({ "common": schema(rng, depth - 1) });
        all["required"] = json!(["common"]);
    }
    all
}

fn document(rng: &mut StdRng) -> Value {
    let mut all = schema(rng, 3);
    // Definitions may refer to each other, so no instance may be finite: a list or an option ends them.
    let definitions: Map<_, _> = DEFINED
        .iter()
        .map(|name| ((*name).to_owned(), json!({ "type": "array", "items": schema(rng, 1) })))
        .collect();
    all["definitions"] = definitions.into();
    all["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    all
}

/// The same with some differences.
fn changed(rng: &mut StdRng, value: &Value) -> Value {
    let mut all = value.clone();
    change(rng, &mut all);
    all
}

fn change(rng: &mut StdRng, schema: &mut Value) {
    let Value::Object(keywords) = schema else { return };
    let keys: Vec<String> = keywords.keys().cloned().collect();
    for key in keys {
        if rng.random_ratio(1, 12)
            && !["type", "items", "$ref", "$schema", "definitions"].contains(&key.as_str())
        {
            keywords.remove(&key);
            continue;
        }
        let value = keywords.get_mut(&key).unwrap();
        match (key.as_str(), &mut *value) {
            ("properties" | "definitions", Value::Object(parts)) => {
                parts.values_mut().for_each(|part| change(rng, part));
            }
            ("items" | "additionalProperties", part @ Value::Object(_)) => change(rng, part),
            ("items" | "anyOf" | "oneOf" | "allOf", Value::Array(parts)) => {
                parts.iter_mut().for_each(|part| change(rng, part));
            }
            ("required" | "enum", Value::Array(parts)) if rng.random_ratio(1, 8) => {
                parts.pop();
            }
            ("minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum", number)
                if rng.random_ratio(1, 6) =>
            {
                *number = json!(number.as_i64().unwrap() + rng.random_range(-1..2));
            }
            ("minLength" | "maxLength" | "minItems", number) if rng.random_ratio(1, 6) => {
                *number = json!(number.as_u64().unwrap() + 1);
            }
            ("type", Value::String(name)) if name == "integer" && rng.random_ratio(1, 6) => {
                *value = json!("number");
            }
            _ => {}
        }
    }
    if rng.random_ratio(1, 20)
        && !keywords.contains_key("$ref")
        && !keywords.contains_key("definitions")
    {
        *schema = self::schema(rng, 1);
    }
}

/// Something that a writer writes: the properties that the schema names and no others. `None` where there is
/// none, or none was found.
fn instance(rng: &mut StdRng, root: &Value, schema: &Value, depth: u32) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let keywords = match schema {
        Value::Bool(true) => return Some(json!("anything")),
        Value::Object(keywords) => keywords,
        _ => return None,
    };
    if let Some(reference) = keywords.get("$ref") {
        let target = root.pointer(reference.as_str()?.strip_prefix('#')?)?;
        return instance(rng, root, target, depth);
    }
    if let Some(Value::Array(parts)) = keywords.get("allOf") {
        return instance(rng, root, parts.first()?, depth);
    }
    let mut common = None;
    for keyword in ["anyOf", "oneOf"] {
        if let Some(Value::Array(parts)) = keywords.get(keyword) {
            let part = parts.choose(rng)?;
            let chosen = instance(rng, root, part, depth)?;
            if !keywords.contains_key("type") {
                return Some(chosen);
            }
            common = Some(chosen);
        }
    }
    if let Some(value) = keywords.get("const") {
        return Some(value.clone());
    }
    if let Some(Value::Array(values)) = keywords.get("enum") {
        return values.choose(rng).cloned();
    }
    let name = match keywords.get("type") {
        None => return Some(json!("anything")),
        Some(Value::Array(names)) => names.choose(rng)?.as_str()?,
        Some(name) => name.as_str()?,
    };
    let count = |keyword: &str| keywords.get(keyword).and_then(Value::as_u64);
    Some(match name {
        "null" => Value::Null,
        "boolean" => json!(rng.random::<bool>()),
        "integer" => match keywords.get("format").and_then(Value::as_str) {
            Some("uint8") => json!(choice(rng, &[0, 1, 3, 255])),
            Some("int32") => json!(choice(rng, &[i32::MIN, -2, 0, 1, 4, i32::MAX])),
            Some("int64") => json!(choice(rng, &[i64::MIN, -2, 0, 1, 4, i64::MAX])),
            _ => match rng.random_range(0..3) {
                0 => json!(u64::MAX),
                _ => json!(rng.random_range(-5..8)),
            },
        },
        "number" => json!(choice(rng, &[-1e30, -2.5, 0.0, 1.5, 3.0, 4.5, 1e30])),
        "string" => match keywords.get("format").and_then(Value::as_str) {
            Some("date") => json!("2020-01-31"),
            Some("uuid") => json!("00000000-0000-0000-0000-000000000000"),
            _ => {
                let most = count("maxLength").unwrap_or(5);
                json!("é".repeat(
                    rng.random_range(count("minLength").unwrap_or(0).min(most)..=most) as usize
                ))
            }
        },
        "array" => {
            let mut items = Vec::new();
            match keywords.get("items")? {
                Value::Array(schemas) => {
                    for schema in schemas {
                        items.push(instance(rng, root, schema, depth)?);
                    }
                }
                schema => {
                    let least = count("minItems").unwrap_or(0);
                    for _ in 0..rng.random_range(least..=least + 2) {
                        match instance(rng, root, schema, depth) {
                            Some(item) => items.push(item),
                            None if items.len() as u64 >= least => break,
                            None => return None,
                        }
                    }
                }
            }
            json!(items)
        }
        _ => {
            let mut fields =
                common.and_then(|common| common.as_object().cloned()).unwrap_or_default();
            let empty = Map::new();
            let properties =
                keywords.get("properties").and_then(Value::as_object).unwrap_or(&empty);
            let none = json!([]);
            let required = keywords.get("required").unwrap_or(&none).as_array()?;
            for name in required {
                let schema = properties.get(name.as_str()?).unwrap_or(&Value::Bool(true));
                fields.insert(name.as_str()?.to_owned(), instance(rng, root, schema, depth)?);
            }
            for (name, schema) in properties {
                if rng.random()
                    && let Some(value) = instance(rng, root, schema, depth)
                {
                    fields.insert(name.clone(), value);
                }
            }
            if let Some(others) = keywords.get("additionalProperties") {
                for name in NAMES {
                    if !properties.contains_key(name)
                        && rng.random()
                        && let Some(value) = instance(rng, root, others, depth)
                    {
                        fields.insert(name.to_owned(), value);
                    }
                }
            }
            Value::Object(fields)
        }
    })
}

fn is_compatible(writer: &Value, reader: &Value) -> bool {
    let schemas =
        |schema: &Value| Schemas::from_iter([(EventKey::new("loan", "x", 1), schema.clone())]);
    let comparison =
        contract().compare(&schemas(reader), &schemas(writer), Compatibility::Backward);
    comparison.is_compatible()
}

#[test]
fn what_is_compatible_is_valid_for_the_reader() {
    let (compatible, different, instances) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 3_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let held = runner.run(&any::<u64>(), |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let writer = document(&mut rng);
        let reader =
            if rng.random_ratio(1, 8) { document(&mut rng) } else { changed(&mut rng, &writer) };
        assert!(is_compatible(&writer, &writer.clone()), "{writer:#}");
        if !is_compatible(&writer, &reader) {
            different.set(different.get() + 1);
            return Ok(());
        }
        compatible.set(compatible.get() + usize::from(writer != reader));
        let [writes, reads] = [&writer, &reader].map(|schema| {
            jsonschema::options().should_validate_formats(true).build(schema).unwrap()
        });
        for _ in 0..20 {
            let Some(value) = instance(&mut rng, &writer, &writer, 12) else { continue };
            if !writes.is_valid(&value) {
                continue;
            }
            instances.set(instances.get() + 1);
            assert!(reads.is_valid(&value), "{value}\nwriter {writer:#}\nreader {reader:#}");
        }
        Ok(())
    });
    held.unwrap();
    // The law says nothing where nothing is compatible.
    let (compatible, different, instances) = (compatible.get(), different.get(), instances.get());
    assert!(
        compatible > 300 && different > 300 && instances > 3_000,
        "{compatible} {different} {instances}"
    );
}
