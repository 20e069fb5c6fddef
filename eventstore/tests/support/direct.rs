//! Appends past the store, so that a transaction can be held open, rolled back, or killed.

use chrono::{DateTime, Utc};
use postgres_types::Json;
use serde_json::{Value, json};
use tokio_postgres::{Error, GenericClient};
use uuid::Uuid;

const APPEND: &str = "select stream_outcomes, versions[1], first_position from annals.append_batch(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
    '{}', '{}', '{}', '{}', '{}', '{}', '{}')";

/// Appends events with these ids to the stream `thing-key`, whatever its state, as a part of the
/// client's transaction. Returns the position of the first.
pub(crate) async fn append(
    client: &impl GenericClient,
    key: &str,
    ids: &[Uuid],
) -> Result<i64, Error> {
    append_to(client, "thing", key, ids).await
}

pub(crate) async fn append_to(
    client: &impl GenericClient,
    category: &str,
    key: &str,
    ids: &[Uuid],
) -> Result<i64, Error> {
    append_after(client, category, key, ids).await.map(|appended| appended.first_position)
}

/// Where an append put its events.
pub(crate) struct AppendedAfter {
    pub(crate) version_before: i64,
    pub(crate) first_position: i64,
}

/// The same; says also which version the stream had before.
pub(crate) async fn append_after(
    client: &impl GenericClient,
    category: &str,
    key: &str,
    ids: &[Uuid],
) -> Result<AppendedAfter, Error> {
    let count = ids.len();
    let numbers: Vec<i32> = (1..=count as i32).collect();
    let none: Vec<Option<DateTime<Utc>>> = vec![None; count];
    let payloads: Vec<_> = ids.iter().map(|id| Json(json!({"id": id, "number": 0}))).collect();
    let rows = client
        .query(
            APPEND,
            &[
                &[1].as_slice(),
                &[category].as_slice(),
                &[key].as_slice(),
                &[-1i64].as_slice(),
                &[count as i32].as_slice(),
                &vec![1i32; count],
                &numbers,
                &ids,
                &vec!["happened"; count],
                &vec![1i32; count],
                &none,
                &none,
                &payloads,
                &vec![None::<Json<Value>>; count],
            ],
        )
        .await?;
    let refused = rows[0].get::<_, Option<Vec<i32>>>(0);
    assert!(refused.is_none_or(|outcomes| outcomes == [0]), "an append to any version is recorded");
    Ok(AppendedAfter { version_before: rows[0].get(1), first_position: rows[0].get(2) })
}

/// New ids.
pub(crate) fn ids(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::now_v7()).collect()
}

/// How many appends are registered as being in flight.
pub(crate) async fn registered(client: &impl GenericClient) -> i64 {
    let sql = "select count(*) from pg_locks, annals.store
        where locktype = 'advisory' and objsubid = 1 and classid::bigint >> 16 = store.id
          and database = (select oid from pg_database where datname = current_database())";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// The last position drawn.
pub(crate) async fn last_position(client: &impl GenericClient) -> i64 {
    client.query_one("select annals.last_position()", &[]).await.unwrap().get(0)
}

/// The position up to which readers may read.
pub(crate) async fn safe_position(client: &impl GenericClient) -> i64 {
    client.query_one("select annals.safe_position()", &[]).await.unwrap().get(0)
}
