//! The OpenAPI document of a gateway.

use annals_eventstore::{Aggregate, Command};
use annals_projections::{History, ReadModel};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// Collects operations, and the schemas that they refer to.
pub(super) struct Document {
    generator: SchemaGenerator,
    paths: Map<String, Value>,
}

impl Document {
    pub(super) fn new() -> Self {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        Self { generator: settings.into_generator(), paths: Map::new() }
    }

    pub(super) fn command<C: Command + JsonSchema>(&mut self, path: &str) {
        let schema = self.generator.subschema_for::<C>();
        let mut parameters = path_parameters(path);
        parameters.extend([
            header(
                "Idempotency-Key",
                "The same key and the same command lead to the same outcome.",
            ),
            header("If-Match", "The version in quotes that the stream must be at, or *."),
            header("If-None-Match", "*, if the stream must not exist."),
            header("Prefer", "wait=5: until read models show it, for so many seconds at most."),
        ]);
        let committed = json!({
            "type": "object",
            "required": ["stream", "version", "position", "events", "replayed"],
            "properties": {
                "stream": { "type": "string" },
                "version": { "type": "integer" },
                "position": { "type": "integer" },
                "events": { "type": "integer" },
                "replayed": { "type": "boolean" },
                "visible": { "type": "boolean" },
            },
        });
        let done = json!({
            "description": "Done. The ETag is the stream's version.",
            "content": { "application/json": { "schema": committed } },
        });
        let operation = json!({
            "operationId": C::NAME,
            "tags": [C::Aggregate::CATEGORY],
            "parameters": parameters,
            "requestBody": {
                "required": true,
                "description": "The command. Fields that are in the path can be left away.",
                "content": { "application/json": { "schema": schema } },
            },
            "responses": responses(&[
                ("200", done.clone()),
                ("201", done),
                ("409", problem("The stream changed, again and again.")),
                ("412", problem("The stream is at another version.")),
                ("422", problem("The command was rejected.")),
                ("429", problem("Too many commands of this client.")),
                ("503", problem("Too much is under way, or the store is down.")),
                ("504", problem("No answer in time; the same key settles it.")),
            ]),
        });
        self.add(path, "post", operation);
    }

    pub(super) fn aggregate<A: Aggregate + JsonSchema>(&mut self, path: &str) {
        let state = self.generator.subschema_for::<A>();
        let mut parameters = path_parameters(path);
        parameters.push(query("as_of", "A time, position:N, or version:N."));
        let found = json!({
            "description": "The aggregate. The ETag is its version.",
            "content": { "application/json": { "schema": {
                "type": "object",
                "required": ["state", "version", "position"],
                "properties": {
                    "state": state,
                    "version": { "type": "integer" },
                    "position": { "type": "integer" },
                },
            } } },
        });
        let operation = json!({
            "operationId": format!("{}_state", A::CATEGORY),
            "tags": [A::CATEGORY],
            "parameters": parameters,
            "responses": responses(&[("200", found), ("404", problem("There is none."))]),
        });
        self.add(path, "get", operation);
    }

    pub(super) fn read_model<R: ReadModel + JsonSchema>(&mut self, path: &str) {
        let row = self.generator.subschema_for::<R>();
        let mut asked = vec![
            query("consistency", "eventual, or strong where it runs inline."),
            query(
                "at_least",
                "A position that must be in the answer; Prefer: wait=5 waits for it.",
            ),
            header("Prefer", "wait=5: for so many seconds at most."),
        ];
        if R::HISTORY == History::Kept {
            asked.push(query("as_of", "A time, or position:N."));
        }
        let mut of_many = asked.clone();
        of_many.push(query("limit", "How many rows at most: 100 unless given, up to 1000."));
        of_many.push(query("after", "Rows after this key: what next was."));
        of_many.extend(
            R::COLUMNS
                .iter()
                .map(|column| query(column.name, "Rows that have this value in the column.")),
        );
        let live = json!({ "schema": { "type": "string" } });
        let many = json!({
            "description": "The rows in the order of their keys; as an event stream, what becomes of them.",
            "content": {
                "application/json": { "schema": {
                    "type": "object",
                    "required": ["rows", "next"],
                    "properties": {
                        "rows": { "type": "array", "items": row.clone() },
                        "next": { "type": ["string", "null"] },
                    },
                } },
                "text/event-stream": live,
            },
        });
        let operation = json!({
            "operationId": format!("{}_rows", R::TABLE),
            "tags": [R::TABLE],
            "parameters": of_many,
            "responses": responses(&[("200", many), ("503", problem("It has not come so far."))]),
        });
        self.add(path, "get", operation);

        let one_path = format!("{path}/{{key}}");
        let mut of_one = path_parameters(&one_path);
        of_one.extend(asked);
        let one = json!({
            "description": "The row; as an event stream, the row whenever it changes.",
            "content": {
                "application/json": { "schema": row },
                "text/event-stream": live,
            },
        });
        let operation = json!({
            "operationId": format!("{}_row", R::TABLE),
            "tags": [R::TABLE],
            "parameters": of_one,
            "responses": responses(&[
                ("200", one),
                ("404", problem("There is none.")),
                ("503", problem("It has not come so far.")),
            ]),
        });
        self.add(&one_path, "get", operation);
    }

    fn add(&mut self, path: &str, method: &str, operation: Value) {
        let item = self.paths.entry(path).or_insert_with(|| json!({}));
        item[method] = operation;
    }

    /// The whole document.
    pub(super) fn finish(mut self, title: &str, version: &str) -> Value {
        let mut schemas = self.generator.take_definitions(true);
        schemas.insert(
            "Problem".to_owned(),
            json!({
                "type": "object",
                "description": "RFC 9457.",
                "required": ["type", "title", "status", "detail"],
                "properties": {
                    "type": { "type": "string" },
                    "title": { "type": "string" },
                    "status": { "type": "integer" },
                    "detail": { "type": "string" },
                },
            }),
        );
        json!({
            "openapi": "3.1.0",
            "info": { "title": title, "version": version },
            "paths": self.paths,
            "components": { "schemas": schemas },
        })
    }
}

/// The responses named, and those that each operation can have.
fn responses(named: &[(&str, Value)]) -> Value {
    let mut all: Map<_, _> =
        named.iter().map(|(status, response)| ((*status).to_owned(), response.clone())).collect();
    for (status, description) in [
        ("400", "The request is not understood."),
        ("401", "It is not known who is asking."),
        ("403", "Who is asking may not."),
    ] {
        all.insert(status.to_owned(), problem(description));
    }
    Value::Object(all)
}

fn problem(description: &str) -> Value {
    let schema = json!({ "$ref": "#/components/schemas/Problem" });
    let content = json!({ "application/problem+json": { "schema": schema } });
    json!({ "description": description, "content": content })
}

fn header(name: &str, description: &str) -> Value {
    parameter("header", name, description)
}

fn query(name: &str, description: &str) -> Value {
    parameter("query", name, description)
}

fn parameter(place: &str, name: &str, description: &str) -> Value {
    json!({ "in": place, "name": name, "description": description, "schema": { "type": "string" } })
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names
        .map(|name| {
            json!({ "in": "path", "name": name, "required": true, "schema": { "type": "string" } })
        })
        .collect()
}
