//! Reading pages of the log and of streams.

use std::{collections::HashMap, sync::Arc};

use futures::TryStreamExt;
use tokio_postgres::{
    Row,
    types::{FromSql, ToSql, Type, accepts},
};

use super::{Client, Database, Prepared, Schema, database_error, in_flight::SafePosition};
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
    let values = Values::of(&page);
    let (sql, params) = values.statement(&page);
    let statement = client.prepare_cached(&schema.sql(&sql)).await.map_err(failed)?;
    if let Some(stream) = page.stream {
        return fetch(client, &statement, params, &page, |_, _| Ok(stream.clone())).await;
    }
    // They are named afterwards, once for each stream.
    let nameless = StreamId::stored("".into(), "");
    let (mut numbers, mut streams) = (HashMap::new(), Vec::new());
    let name = |_: &Row, id| {
        let next = numbers.len();
        streams.push(*numbers.entry(id).or_insert(next));
        Ok(nameless.clone())
    };
    let mut events = fetch(client, &statement, params, &page, name).await?;
    let names = stream_names(client, schema, &numbers).await?;
    for (event, number) in std::iter::zip(&mut events, streams) {
        event.stream = names[number].clone();
    }
    Ok(events)
}

/// The safe position, and a page of the log up to it, in one round trip.
pub(super) async fn look(
    database: &Database,
    page: Page<'_>,
) -> Result<(Position, Vec<Recorded>), Error> {
    let busy = database.busy().await?;
    let seen = look_on(busy.client()?, database, page).await;
    busy.done();
    seen
}

async fn look_on(
    client: &Client,
    database: &Database,
    page: Page<'_>,
) -> Result<(Position, Vec<Recorded>), Error> {
    let values = Values::of(&page);
    let (sql, params) = values.statement(&page);
    // Who looks finds little: looking up the stream of each event takes less time than one more round trip.
    let sql = include_str!("sql/named_page.sql").replace("{page}", &sql);
    let looking = SafePosition::prepare(client, database).await?;
    let reading = client.prepare_cached(&database.schema().sql(&sql)).await.map_err(failed)?;
    let mut categories = Names::default();
    let name = |row: &Row, id| match row.try_get::<_, Option<&str>>(10).map_err(failed)? {
        Some(category) => {
            let key = row.try_get(11).map_err(failed)?;
            Ok(StreamId::stored(categories.get(category), key))
        }
        None => Err(Error::StreamMissing { id }),
    };
    // Sent in the order in which they are first polled. What the page's statement sees is later than the safe
    // position, and so it sees all that is below.
    let (safe, events) = tokio::join!(
        biased;
        looking.query(),
        fetch(client, &reading, params, &page, name),
    );
    let (safe, mut events) = (safe?, events?);
    // Above it there may be gaps.
    events.truncate(events.partition_point(|event| event.position <= safe));
    Ok((safe, events))
}

fn failed(error: tokio_postgres::Error) -> Error {
    database_error("read the log", error)
}

/// What a page is asked with.
struct Values<'a> {
    after: i64,
    up_to: i64,
    limit: i64,
    versions: (i64, i64),
    stream: Option<(&'a str, &'a str)>,
}

impl<'a> Values<'a> {
    fn of(page: &Page<'a>) -> Self {
        Self {
            after: page.after.get(),
            up_to: page.up_to.get(),
            limit: i64::try_from(page.limit).unwrap_or(i64::MAX),
            versions: (page.after_version.get(), page.up_to_version.get()),
            stream: page.stream.map(|stream| (stream.category(), stream.key())),
        }
    }

    /// The statement, and its parameters.
    fn statement<'p>(&'p self, page: &'p Page<'_>) -> (String, Vec<&'p (dyn ToSql + Sync)>) {
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&self.after, &self.up_to, &self.limit];
        let mut filters = String::new();
        let mut filter = |sql: &str, param| {
            params.push(param);
            filters.push_str(&sql.replace("$n", &format!("${}", params.len())));
        };
        let template = match &self.stream {
            Some((category, key)) => {
                // The statement itself names these.
                let names: [&(dyn ToSql + Sync); 4] =
                    [category, key, &self.versions.0, &self.versions.1];
                names.into_iter().for_each(|param| filter("", param));
                include_str!("sql/stream_page.sql")
            }
            None => {
                if page.after_version > Version::NONE {
                    filter(" and e.version > $n", &self.versions.0);
                }
                if page.up_to_version < Version::new(i64::MAX) {
                    filter(" and e.version <= $n", &self.versions.1);
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
        (sql, params)
    }
}

/// The events of a page, each of the stream that `name` makes of its row and the id of its stream.
async fn fetch(
    client: &Client,
    statement: &Prepared,
    params: Vec<&(dyn ToSql + Sync)>,
    page: &Page<'_>,
    mut name: impl FnMut(&Row, i64) -> Result<StreamId, Error>,
) -> Result<Vec<Recorded>, Error> {
    // As they come: while one is taken in here, the server makes the next.
    let mut rows = Box::pin(client.query_raw(statement, params).await.map_err(failed)?);
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
                let id = row.try_get(1).map_err(failed)?;
                let stream = name(&row, id)?;
                let event = recorded(&row, &mut types, stream).map_err(failed)?;
                bytes += event.event.as_bytes().len();
                events.push(event);
            }
        }
    }
    // The connection throws away what is left, before it does anything else.
    drop(rows);
    Ok(events)
}

/// The names of streams, which never change, in the order of their numbers by id.
async fn stream_names(
    client: &Client,
    schema: &Schema,
    numbers: &HashMap<i64, usize>,
) -> Result<Vec<StreamId>, Error> {
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let mut ids = vec![0; numbers.len()];
    numbers.iter().for_each(|(id, number)| ids[*number] = *id);
    let sql = schema.sql(include_str!("sql/stream_names.sql"));
    let statement = client.prepare_cached(&sql).await.map_err(failed)?;
    let rows = client.query(&statement, &[&ids]).await.map_err(failed)?;
    let mut categories = Names::default();
    let mut names = vec![None; ids.len()];
    for row in rows {
        let category = categories.get(row.try_get(1).map_err(failed)?);
        let name = StreamId::stored(category, row.try_get(2).map_err(failed)?);
        let id = row.try_get(0).map_err(failed)?;
        if let Some(number) = numbers.get(&id) {
            names[*number] = Some(name);
        }
    }
    let named = std::iter::zip(names, ids);
    named.map(|(name, id)| name.ok_or(Error::StreamMissing { id })).collect()
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

/// A stored event of a stream.
pub(super) fn recorded(
    row: &Row,
    types: &mut Names,
    stream: StreamId,
) -> Result<Recorded, tokio_postgres::Error> {
    let metadata: Option<postgres_types::Json<Metadata>> = row.try_get(9)?;
    Ok(Recorded {
        position: Position::new(row.try_get(0)?),
        stream,
        version: Version::new(row.try_get(2)?),
        id: row.try_get(3)?,
        event_type: types.get(row.try_get(4)?),
        schema_version: row.try_get::<_, i32>(5)? as u32,
        recorded_at: row.try_get(6)?,
        occurred_at: row.try_get(7)?,
        metadata: metadata.map(|json| json.0).unwrap_or_default(),
        event: row.try_get::<_, JsonText>(8)?.0,
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
