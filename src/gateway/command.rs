//! `POST`: commands.

use std::sync::Arc;

use annals_eventstore::{Aggregate, Command, Envelope, Error as StoreError, Handle};
use axum::{
    Json,
    body::{self, Body},
    extract::{FromRequestParts, RawPathParams, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header, request::Parts};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{
    Access, asked,
    problem::Problem,
    shared::{Shared, metadata},
};
use crate::bus::{BusError, Dispatch, Request as BusRequest};

/// The longest body. Events are limited too, and are smaller by default.
const MAX_BODY_BYTES: usize = 2 << 20;

pub(super) async fn execute<C, S>(
    State(shared): State<Arc<Shared<S>>>,
    request: Request<Body>,
) -> Result<Response, Problem>
where
    C: Command + DeserializeOwned,
    C::Aggregate: Handle<C>,
    S: Dispatch<C>,
{
    let (mut parts, body) = request.into_parts();
    let who = shared.identify(&parts).await?;
    let command: C = read(&mut parts, body).await?;
    let key = command.stream_key();
    shared.authorize(&who, Access::Command { name: C::NAME, key }).await?;

    let headers = &parts.headers;
    let mut envelope = Envelope::new(command).metadata(metadata(headers, &who));
    envelope.expected_version = asked::expected_version(headers)?;
    envelope.idempotency_key = idempotency_key(headers)?;
    let is_conditional = envelope.expected_version.is_some();
    let wait = asked::wait(headers)?;
    let mut request = BusRequest::from(envelope).client(who.client);
    request.origin.tenant = who.tenant;
    let committed = shared.bus.send(request).await.map_err(|error| match error {
        BusError::Failed(error @ StoreError::Conflict { .. }) if is_conditional => {
            let StoreError::Conflict { actual, .. } = &error else { return error.into() };
            Problem::new(StatusCode::PRECONDITION_FAILED, "version-differs", error.to_string())
                .with("version", actual.get())
        }
        error => error.into(),
    })?;

    let mut answer = json!({
        "stream": committed.stream.to_string(),
        "version": committed.version,
        "position": committed.position,
        "events": committed.events,
        "replayed": committed.replayed,
    });
    let begun = committed.version.get() == committed.events as i64 && committed.events > 0;
    let status = if begun { StatusCode::CREATED } else { StatusCode::OK };
    let mut headers = HeaderMap::new();
    if let Ok(tag) = HeaderValue::from_str(&asked::tag(committed.version)) {
        headers.insert(header::ETAG, tag);
    }
    if let Some(wait) = wait {
        let category = <C::Aggregate as Aggregate>::CATEGORY;
        let visible = shared.shown(category, committed.position, wait).await?;
        answer["visible"] = visible.into();
        if visible && let Ok(applied) = HeaderValue::from_str(&format!("wait={}", wait.as_secs())) {
            headers.insert("preference-applied", applied);
        }
    }
    Ok((status, headers, Json(answer)).into_response())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default().trim().trim_matches('"');
    if key.is_empty() || key.len() > 200 {
        return Err(Problem::bad_request("Idempotency-Key is to be 1 to 200 ASCII characters"));
    }
    Ok(Some(key.to_owned()))
}

/// The command that the path's parameters and the body make together.
async fn read<C: DeserializeOwned>(parts: &mut Parts, body: Body) -> Result<C, Problem> {
    let bytes = body::to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| {
        let detail = format!("the body is longer than {MAX_BODY_BYTES} bytes, or was cut off");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    })?;
    let mut fields: Map<String, Value> = match bytes.is_empty() {
        true => Map::new(),
        false => serde_json::from_slice(&bytes).map_err(|error| {
            Problem::bad_request(format!("the body is no JSON object: {error}"))
        })?,
    };
    let path = RawPathParams::from_request_parts(parts, &()).await;
    let path = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let mut numbers = Map::new();
    for (name, text) in &path {
        let differs = |field: &Value| {
            let written = match field {
                Value::String(field) => field.clone(),
                field => field.to_string(),
            };
            written != text
        };
        if fields.get(name).is_some_and(differs) {
            let detail = format!("{name:?} is one thing in the path and another in the body");
            return Err(Problem::bad_request(detail));
        }
        fields.insert(name.to_owned(), text.into());
        if let Ok(number) = text.parse::<i64>() {
            numbers.insert(name.to_owned(), number.into());
        }
    }
    let of = |fields| serde_json::from_value(Value::Object(fields));
    of(fields.clone()).or_else(|error: serde_json::Error| {
        // A part of a path is text; the field may be a number.
        let is_number = !numbers.is_empty();
        fields.extend(numbers);
        let again = is_number.then(|| of(fields).ok()).flatten();
        again.ok_or_else(|| {
            let detail = format!("that is not the command: {error}");
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not-the-command", detail)
        })
    })
}
