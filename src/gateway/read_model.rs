//! `GET`: rows of read models, now and as of a moment, once or as they change.

use std::sync::Arc;

use annals_eventstore::Position;
use annals_projections::{History, ReadModel, RowKey};
use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header, request::Parts};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Access, asked::Parameters, follow::Follow, problem::Problem, shared::Shared};

/// One row.
pub(super) async fn row<R, S>(
    State(shared): State<Arc<Shared<S>>>,
    Path(key): Path<String>,
    follow: Follow<R>,
    mut parts: Parts,
) -> Result<Response, Problem>
where
    R: ReadModel + Serialize,
    S: Send + Sync,
{
    let who = shared.identify(&parts).await?;
    let access = Access::ReadModel { table: R::TABLE, key: Some(key.clone()) };
    shared.authorize(&who, access).await?;
    let mut parameters = Parameters::of(&mut parts).await?;
    let (as_of, consistency) = (parameters.as_of()?, parameters.consistency(&parts.headers)?);
    parameters.end()?;
    let parsed = R::Key::from_stream_key(&key)
        .map_err(|error| Problem::bad_request(format!("that is no key: {error}")))?;
    if wants_events(&parts.headers) {
        if as_of.is_some() {
            return Err(Problem::bad_request("what was does not change; leave as_of away"));
        }
        return Ok(shared.live.row(&shared.store, parsed, &follow)?.into_response());
    }
    let query = shared.query::<R>().consistency(consistency);
    let query = match as_of {
        Some(as_of) => query.as_of(as_of),
        None => query,
    };
    match query.get(&parsed).await? {
        Some(row) => Ok(Json(row).into_response()),
        None => {
            let then = if as_of.is_some() { " as of that moment" } else { "" };
            Err(Problem::not_found(format!("{} has no row {key:?}{then}", R::TABLE)))
        }
    }
}

/// The rows that meet the conditions, in the order of their keys, and where to go on.
pub(super) async fn rows<R, S>(
    State(shared): State<Arc<Shared<S>>>,
    follow: Follow<R>,
    mut parts: Parts,
) -> Result<Response, Problem>
where
    R: ReadModel + Serialize,
    S: Send + Sync,
{
    let who = shared.identify(&parts).await?;
    shared.authorize(&who, Access::ReadModel { table: R::TABLE, key: None }).await?;
    let mut parameters = Parameters::of(&mut parts).await?;
    if wants_events(&parts.headers) {
        parameters.end()?;
        if R::HISTORY == History::None {
            let detail = format!("{} has no history, so it has no list of changes", R::TABLE);
            return Err(Problem::bad_request(detail));
        }
        let since = last_event(&parts.headers)?;
        return Ok(shared.live.changes(&shared.store, since, &follow)?.into_response());
    }
    let limit = parameters.limit()?;
    let mut query = shared.query::<R>().limit(limit);
    query = query.consistency(parameters.consistency(&parts.headers)?);
    if let Some(as_of) = parameters.as_of()? {
        query = query.as_of(as_of);
    }
    if let Some(key) = parameters.after() {
        query = query.after(key)?;
    }
    for (column, value) in parameters.rest() {
        query = query.matching(&column, value)?;
    }
    let rows = query.all().await?;
    let rows: Vec<Value> = rows
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()
        .map_err(|error| Problem::internal(&error))?;
    let next = match rows.last() {
        Some(last) if rows.len() == limit as usize => key_of::<R>(last),
        _ => None,
    };
    Ok(Json(json!({ "rows": rows, "next": next })).into_response())
}

/// The key of a row, for `after`: where it is one column.
fn key_of<R: ReadModel>(row: &Value) -> Option<String> {
    let mut keys = R::COLUMNS.iter().filter(|column| column.key);
    let (Some(column), None) = (keys.next(), keys.next()) else { return None };
    match row.get(column.name)? {
        Value::String(key) => Some(key.clone()),
        key => Some(key.to_string()),
    }
}

fn wants_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).into_iter();
    values.filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/event-stream"))
}

/// What the caller has seen before it lost the connection. What is no id of ours cannot be gone on from.
fn last_event(headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let Some(id) = headers.get("last-event-id") else { return Ok(None) };
    let position = id.to_str().ok().and_then(|id| id.parse().ok()).filter(|id: &i64| *id >= 0);
    match position {
        Some(position) => Ok(Some(Position::new(position))),
        None => Err(Problem::bad_request("that Last-Event-ID is none of ours: they are positions")),
    }
}
