//! Reading pages of the log and of streams.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::TryStreamExt;
use tokio_postgres::{
    Row,
    types::{FromSql, ToSql, Type, accepts},
};

use super::{Client, Database, Schema, database_error};
use crate::{
    backend::Page,
    error::Error,
    event::{Metadata, Payload, Recorded},
    ids::{Position, StreamId, Version},
    query::{Archived, Direction},
};

pub(super) async fn page(database: &Database, page: Page<'_>) -> Result<Vec<Recorded>, Error> {
    let busy = database.busy().await?;
    let events = page_on(busy.client()?, database.schema(), page).await;
    busy.done();
    events
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
                // `offset 0` keeps the planner from joining all streams to a page of events.
                filter(
                    " and exists (select from {schema}.streams s \
                     where s.id = e.stream_id and s.category = any ($n) offset 0)",
                    categories,
                );
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
    if let Some(id) = &page.event_id {
        filter(" and e.event_id = $n", id);
    }
    let direction = match page.direction {
        Direction::Forward => "",
        Direction::Backward => "desc",
    };
    let sql = with_source(template, page.archived)
        .replace("{filters}", &filters)
        .replace("{direction}", direction);
    let statement = client.prepare_cached(&schema.sql(&sql)).await.map_err(failed)?;
    // As they come: while one is taken in here, the server makes the next.
    let mut rows = Box::pin(client.query_raw(&statement, params).await.map_err(failed)?);
    let (mut events, mut types, mut bytes) = (Vec::new(), Names::default(), 0);
    while bytes < page.bytes
        && let Some(row) = rows.try_next().await.map_err(failed)?
    {
        match (page.stream, row.try_get::<_, Option<i64>>(0).map_err(failed)?) {
            // It says that the stream is archived, instead of bringing an event.
            (Some(stream), None) => {
                return Err(Error::StreamArchived { stream: stream.clone() });
            }
            _ => {
                let (stream, size, event) = recorded(&row, &mut types).map_err(failed)?;
                events.push((stream, event));
                bytes += size;
            }
        }
    }
    // The connection throws away what is left, before it does anything else.
    drop(rows);
    if let Some(stream) = page.stream {
        return Ok(events.into_iter().map(|(_, event)| event(stream.clone())).collect());
    }
    let streams = events.iter().map(|(stream, _)| *stream).collect();
    let streams = stream_names(client, schema, streams).await.map_err(failed)?;
    let named = events.into_iter().map(|(id, event)| match streams.get(&id) {
        Some(stream) => Ok(event(stream.clone())),
        None => Err(Error::StreamMissing { id }),
    });
    named.collect()
}

/// The names of streams by their ids, which never change.
async fn stream_names(
    client: &Client,
    schema: &Schema,
    ids: HashSet<i64>,
) -> Result<HashMap<i64, StreamId>, tokio_postgres::Error> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = schema.sql(include_str!("sql/stream_names.sql"));
    let statement = client.prepare_cached(&sql).await?;
    let rows = client.query(&statement, &[&Vec::from_iter(ids)]).await?;
    let mut categories = Names::default();
    let name = |row: &Row| {
        let category = categories.get(row.try_get(1)?);
        Ok((row.try_get(0)?, StreamId::stored(category, row.try_get(2)?)))
    };
    rows.iter().map(name).collect()
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

/// A stored event: the id of its stream, the size of its payload, and what it is once the name of the stream
/// is known.
pub(super) fn recorded(
    row: &Row,
    types: &mut Names,
) -> Result<(i64, usize, impl FnOnce(StreamId) -> Recorded + use<>), tokio_postgres::Error> {
    let position = Position::new(row.try_get(0)?);
    let stream_id = row.try_get(1)?;
    let version = Version::new(row.try_get(2)?);
    let id = row.try_get(3)?;
    let event_type = types.get(row.try_get(4)?);
    let schema_version = row.try_get::<_, i32>(5)? as u32;
    let recorded_at = row.try_get(6)?;
    let occurred_at = row.try_get(7)?;
    let event = row.try_get::<_, JsonText>(8)?.0;
    let size = event.as_bytes().len();
    let metadata: Option<postgres_types::Json<Metadata>> = row.try_get(9)?;
    let metadata = metadata.map(|json| json.0).unwrap_or_default();
    let named = move |stream| Recorded {
        position,
        stream,
        version,
        id,
        event_type,
        schema_version,
        recorded_at,
        occurred_at,
        metadata,
        event,
    };
    Ok((stream_id, size, named))
}

/// JSON text as it is stored.
pub(super) struct JsonText(pub(super) Payload);

impl<'a> FromSql<'a> for JsonText {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Payload::from_valid_json(raw.to_vec())))
    }

    accepts!(JSON);
}
