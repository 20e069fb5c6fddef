//! What a batch looks like to the database: the arrays that `append_batch` takes.

use chrono::{DateTime, Utc};
use tokio_postgres::types::{IsNull, ToSql, Type, accepts, private::BytesMut, to_sql_checked};
use uuid::Uuid;

use crate::{
    append::ExpectedVersion,
    backend::Request,
    clock::{Clock, WentBack},
};

/// The parameters of `append_batch`, as the arrays that it takes.
#[derive(Default)]
pub(super) struct Arrays<'a> {
    stream_append: Vec<i32>,
    stream_category: Vec<&'a str>,
    stream_key: Vec<&'a str>,
    stream_expected: Vec<i64>,
    stream_events: Vec<i32>,
    event_stream: Vec<i32>,
    event_number: Vec<i32>,
    event_id: Vec<Uuid>,
    event_type: Vec<&'a str>,
    event_schema: Vec<i32>,
    event_occurred: Vec<Option<DateTime<Utc>>>,
    event_recorded: Vec<Option<DateTime<Utc>>>,
    event_payload: Vec<Json<'a>>,
    event_metadata: Vec<Option<MetadataJson<'a>>>,
    key_append: Vec<i32>,
    key_stream: Vec<i32>,
    key: Vec<&'a str>,
    key_fingerprint: Vec<&'a [u8]>,
    key_number: Vec<i32>,
    key_last: Vec<i32>,
    key_events: Vec<i32>,
    /// Of each request, where its streams stand among those of all.
    places: Vec<Vec<usize>>,
}

impl<'a> Arrays<'a> {
    pub(super) fn of(requests: &[&'a Request], clock: &Clock) -> Result<Self, WentBack> {
        let mut arrays = Self::default();
        arrays.add_streams(requests);
        for (number, request) in requests.iter().enumerate() {
            let times = clock.times(request.events.iter().map(|(_, event)| event));
            arrays.event_recorded.extend(times?);
            arrays.add(request, number);
        }
        Ok(arrays)
    }

    /// Of each request, where the rows of its streams stand in the answer.
    pub(super) fn places(&self) -> &[Vec<usize>] {
        &self.places
    }

    /// The streams of all requests in the order of their names: all programs lock them in one order.
    fn add_streams(&mut self, requests: &[&'a Request]) {
        let mut streams: Vec<_> = (requests.iter().enumerate())
            .flat_map(|(number, request)| {
                let streams = request.streams.iter().enumerate();
                streams.map(move |(index, (stream, expected))| (stream, expected, number, index))
            })
            .collect();
        streams.sort_unstable_by_key(|(stream, ..)| *stream);
        self.places = requests.iter().map(|request| vec![0; request.streams.len()]).collect();
        for (place, (stream, expected, number, index)) in streams.into_iter().enumerate() {
            self.places[number][index] = place;
            self.stream_append.push(number as i32 + 1);
            self.stream_category.push(stream.category());
            self.stream_key.push(stream.key());
            self.stream_expected.push(match expected {
                ExpectedVersion::Any => -1,
                ExpectedVersion::Exists => -2,
                ExpectedVersion::NoStream => 0,
                ExpectedVersion::Exact(version) => version.get(),
            });
            self.stream_events.push(0);
        }
    }

    fn add(&mut self, request: &'a Request, number: usize) {
        let events = self.event_id.len();
        for (stream, event) in &request.events {
            let place = self.places[number][*stream];
            self.stream_events[place] += 1;
            self.event_stream.push(place as i32 + 1);
            self.event_number.push(self.stream_events[place]);
            self.event_id.push(event.id);
            self.event_type.push(&event.event_type);
            self.event_schema.push(event.schema_version as i32);
            self.event_occurred.push(event.occurred_at);
            self.event_payload.push(Json(event.payload.as_bytes()));
            let metadata = Some(&event.metadata).filter(|metadata| !metadata.is_empty());
            self.event_metadata.push(metadata.map(postgres_types::Json));
        }
        for key in &request.keys {
            self.key_append.push(number as i32 + 1);
            self.key_stream.push(self.places[number][key.stream] as i32 + 1);
            self.key.push(&key.key);
            self.key_fingerprint.push(&key.fingerprint);
            self.key_number.push(key.number as i32);
            self.key_last.push(if key.events == 0 { 0 } else { (events + key.last) as i32 });
            self.key_events.push(key.events as i32);
        }
    }

    /// In the order of the statement, which takes the lock timeout as its last.
    pub(super) fn params<'p>(&'p self, lock_timeout: &'p String) -> [&'p (dyn ToSql + Sync); 22] {
        [
            &self.stream_append,
            &self.stream_category,
            &self.stream_key,
            &self.stream_expected,
            &self.stream_events,
            &self.event_stream,
            &self.event_number,
            &self.event_id,
            &self.event_type,
            &self.event_schema,
            &self.event_occurred,
            &self.event_recorded,
            &self.event_payload,
            &self.event_metadata,
            &self.key_append,
            &self.key_stream,
            &self.key,
            &self.key_fingerprint,
            &self.key_number,
            &self.key_last,
            &self.key_events,
            lock_timeout,
        ]
    }
}

type MetadataJson<'a> = postgres_types::Json<&'a crate::event::Metadata>;

/// JSON text that goes out as it is.
#[derive(Debug)]
pub(in super::super) struct Json<'a>(pub(in super::super) &'a [u8]);

impl ToSql for Json<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }

    accepts!(JSON);
    to_sql_checked!();
}
