//! `GET`: aggregates, now and as of a moment.

use std::sync::Arc;

use annals_eventstore::Aggregate;
use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header, request::Parts};
use serde::Serialize;
use serde_json::json;

use super::{Access, asked, asked::Parameters, problem::Problem, shared::Shared};

pub(super) async fn show<A, S>(
    State(shared): State<Arc<Shared<S>>>,
    Path(key): Path<String>,
    mut parts: Parts,
) -> Result<Response, Problem>
where
    A: Aggregate + Serialize,
    S: Send + Sync,
{
    let who = shared.identify(&parts).await?;
    let access = Access::Aggregate { category: A::CATEGORY, key: key.clone() };
    shared.authorize(&who, access).await?;
    let mut parameters = Parameters::of(&mut parts).await?;
    let as_of = parameters.as_of()?;
    parameters.end()?;
    let loaded = match as_of {
        None => shared.store.load::<A>(&key).await?,
        Some(as_of) => shared.store.load_as_of::<A>(&key, as_of).await?,
    };
    let Some(loaded) = loaded else {
        let then = if as_of.is_some() { " as of that moment" } else { "" };
        return Err(Problem::not_found(format!("there is no {} {key:?}{then}", A::CATEGORY)));
    };
    let tag = asked::tag(loaded.version);
    if asked::has(&parts.headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let answer = json!({
        "state": loaded.state,
        "version": loaded.version,
        "position": loaded.position,
    });
    let mut headers = HeaderMap::new();
    if let Ok(tag) = tag.parse() {
        headers.insert(header::ETAG, tag);
    }
    Ok((headers, Json(answer)).into_response())
}
