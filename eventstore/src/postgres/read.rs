//! Reading the store: pages of the log, streams, recorded outcomes, positions.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio_postgres::{
    Row,
    types::{FromSql, ToSql, Type, accepts},
};

use super::{Client, Database, Schema, database_error};
use crate::{
    backend::{KnownKey, Page},
    error::Error,
    event::{Metadata, Payload, Recorded},
    ids::{Position, StreamId, Version},
    query::{Archived, Direction},
};

/// How long to wait for an append in flight before looking again.
const RETRY: std::time::Duration = std::time::Duration::from_millis(3);

pub(super) async fn page(database: &Database, page: Page<'_>) -> Result<Vec<Recorded>, Error> {
    let client = database.client().await?;
    page_on(&client, database.schema(), page).await
}

/// The same on a connection that the caller holds, in its transaction if it is in one.
pub(super) async fn page_on(
    client: &Client,
    schema: &Schema,
    page: Page<'_>,
) -> Result<Vec<Recorded>, Error> {
    let failed = |error| database_error("read the log", error);
    let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
    let (after, up_to) = (page.after.get(), page.up_to.get());
    let versions = (page.after_version.get(), page.up_to_version.get());
    let name = page.stream.map(|stream| (stream.category(), stream.key()));
    let mut params: Vec<&(dyn ToSql + Sync)> = vec![&after, &up_to, &limit];
    let mut filters = String::new();
    let mut filter = |sql: &str, param| {
        params.push(param);
        filters.push_str(&sql.replace("$n", &format!("${}", params.len())));
    };
    let template = match &name {
        Some((category, key)) => {
            // The statement itself names these.
            let names: [&(dyn ToSql + Sync); 4] = [category, key, &versions.0, &versions.1];
            names.into_iter().for_each(|param| filter("", param));
            include_str!("sql/stream_page.sql")
        }
        None => {
            if page.after_version > Version::NONE {
                filter(" and e.version > $n", &versions.0);
            }
            if page.up_to_version < Version::new(i64::MAX) {
                filter(" and e.version <= $n", &versions.1);
            }
            if let Some(categories) = &page.categories {
                filter(" and s.category = any ($n)", categories);
            }
            include_str!("sql/page.sql")
        }
    };
    if let Some(types) = &page.event_types {
        filter(" and e.type = any ($n)", types);
    }
    if let Some(id) = &page.correlation_id {
        // As the index has it; and the id itself, since others may have its hash.
        filter(
            " and hashtextextended(e.metadata ->> 'correlation_id', 0) = hashtextextended($n, 0) \
             and e.metadata ->> 'correlation_id' = $n",
            id,
        );
    }
    let direction = match page.direction {
        Direction::Forward => "",
        Direction::Backward => "desc",
    };
    let sql = with_source(template, page.archived)
        .replace("{filters}", &filters)
        .replace("{direction}", direction);
    let statement = client.prepare_cached(&schema.sql(&sql)).await.map_err(failed)?;
    let rows = client.query(&statement, &params).await.map_err(failed)?;
    if let (Some(stream), [row]) = (page.stream, &*rows)
        && is_refused(row).map_err(failed)?
    {
        return Err(Error::StreamArchived { stream: stream.clone() });
    }
    let mut names = Names::default();
    rows.iter().map(|row| recorded(row, &mut names).map_err(failed)).collect()
}

/// True if a row says that a stream is archived, instead of bringing an event.
fn is_refused(row: &Row) -> Result<bool, tokio_postgres::Error> {
    Ok(row.try_get::<_, Option<i64>>(0)?.is_none())
}

/// Says where the events of a statement are, and in which state a stream is refused.
fn with_source(template: &str, archived: Archived) -> String {
    let (source, refused) = match archived {
        Archived::Excluded => ("{schema}.events", "2"),
        // None has this one.
        Archived::Included => (include_str!("sql/with_archived.sql").trim_end(), "-1"),
    };
    template.replace("{source}", source).replace("{refused}", refused)
}

pub(super) async fn known_keys(
    database: &Database,
    keys: &[String],
) -> Result<Vec<KnownKey>, Error> {
    let client = database.client().await?;
    known_keys_on(&client, &database.0.statements.outcomes, keys).await
}

/// The same on a connection that the caller holds, in its transaction if it is in one.
pub(super) async fn known_keys_on(
    client: &Client,
    sql: &str,
    keys: &[String],
) -> Result<Vec<KnownKey>, Error> {
    let failed = |error| database_error("look up idempotency keys", error);
    let statement = client.prepare_cached(sql).await.map_err(failed)?;
    let rows = client.query(&statement, &[&keys]).await.map_err(failed)?;
    Ok(rows
        .iter()
        .map(|row| KnownKey {
            key: row.get(0),
            fingerprint: row.get(1),
            version: Version::new(row.get(2)),
            position: Position::new(row.get(3)),
            events: row.get::<_, i32>(4) as usize,
        })
        .collect())
}

/// A position that the store's functions know.
pub(super) async fn position(database: &Database, sql: &str) -> Result<Position, Error> {
    let failed = |error| database_error("read a position of the log", error);
    let client = database.client().await?;
    let statement = client.prepare_cached(sql).await.map_err(failed)?;
    let row = client.query_one(&statement, &[]).await.map_err(failed)?;
    Ok(Position::new(row.get(0)))
}

pub(super) async fn position_at(
    database: &Database,
    time: DateTime<Utc>,
    clock: Option<DateTime<Utc>>,
) -> Result<Position, Error> {
    let failed = |error: tokio_postgres::Error| {
        match error.as_db_error().filter(|error| error.code().code() == "AN003") {
            Some(future) => Error::Future {
                at: time,
                // In microseconds since 1970.
                now: (future.detail().and_then(|micros| micros.parse().ok()))
                    .and_then(DateTime::from_timestamp_micros)
                    .unwrap_or_else(|| clock.unwrap_or_else(Utc::now)),
            },
            None => database_error("find the position as of a time", error),
        }
    };
    let mut asked_when: Option<i64> = None;
    loop {
        // The connection goes back between two tries: who waits here keeps nobody else waiting.
        let client = database.client().await?;
        let statement =
            client.prepare_cached(&database.0.statements.position_at).await.map_err(failed)?;
        let row =
            client.query_one(&statement, &[&time, &clock, &asked_when]).await.map_err(failed)?;
        drop(client);
        if let Some(position) = row.get(1) {
            return Ok(Position::new(position));
        }
        asked_when = row.get(0);
        tokio::time::sleep(RETRY).await;
    }
}

/// The few names that repeat in nearly every row, each held once.
#[derive(Default)]
pub(super) struct Names(Vec<Arc<str>>);

impl Names {
    pub(super) fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|known| &***known == name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        // Type names come from code and are few; if not, it is no reason to search for long.
        if self.0.len() < 64 {
            self.0.push(name.clone());
        }
        name
    }
}

fn recorded(row: &Row, names: &mut Names) -> Result<Recorded, tokio_postgres::Error> {
    let metadata: Option<postgres_types::Json<Metadata>> = row.try_get(10)?;
    Ok(Recorded {
        position: Position::new(row.try_get(0)?),
        stream: StreamId::stored(names.get(row.try_get(1)?), row.try_get(2)?),
        version: Version::new(row.try_get(3)?),
        id: row.try_get(4)?,
        event_type: names.get(row.try_get(5)?),
        schema_version: row.try_get::<_, i32>(6)? as u32,
        recorded_at: row.try_get(7)?,
        occurred_at: row.try_get(8)?,
        metadata: metadata.map(|json| json.0).unwrap_or_default(),
        event: row.try_get::<_, JsonText>(9)?.0,
    })
}

/// JSON text as it is stored.
pub(super) struct JsonText(pub(super) Payload);

impl<'a> FromSql<'a> for JsonText {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Payload::from_valid_json(raw.to_vec())))
    }

    accepts!(JSON);
}
