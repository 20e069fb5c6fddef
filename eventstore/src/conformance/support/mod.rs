//! The words that behaviours are written in: streams and events that are easy to tell apart, an
//! aggregate, and what holds of every log.

pub mod counter;
pub mod snapshots;

use annals_eventstore::{
    Append, Error, EventStore, ExpectedVersion, NewEvent, Payload, Position, Recorded, StreamId,
    Version,
};
use futures::{Stream, TryStreamExt};

/// A stream of the category `thing`.
pub fn stream(key: impl std::fmt::Display) -> StreamId {
    StreamId::new("thing", key).unwrap()
}

/// An event with a number in it.
pub fn event(number: i64) -> NewEvent {
    json(&format!(r#"{{"number":{number}}}"#))
}

pub fn json(json: &str) -> NewEvent {
    NewEvent::raw("happened", 1, Payload::from_json(json.to_owned()).unwrap())
}

pub fn events(numbers: impl IntoIterator<Item = i64>) -> Vec<NewEvent> {
    numbers.into_iter().map(event).collect()
}

/// An append of one event, to a stream in any state.
pub fn one(stream: StreamId, number: i64) -> Append {
    Append::to(stream, ExpectedVersion::Any, [event(number)])
}

/// The number in an event.
pub fn number(event: &Recorded) -> i64 {
    let json: serde_json::Value = serde_json::from_slice(event.event.as_bytes()).unwrap();
    json["number"].as_i64().unwrap()
}

pub fn numbers(events: &[Recorded]) -> Vec<i64> {
    events.iter().map(number).collect()
}

pub async fn all(
    events: impl Stream<Item = Result<Recorded, Error>>,
) -> Result<Vec<Recorded>, Error> {
    events.try_collect().await
}

/// The whole log.
pub async fn log(store: &EventStore) -> Vec<Recorded> {
    all(store.read_all(Position::START)).await.unwrap()
}

/// All events of a stream.
pub async fn history(store: &EventStore, stream: &StreamId) -> Vec<Recorded> {
    all(store.read_stream(stream, Version::NONE)).await.unwrap()
}

/// Checks what holds of every log: positions rise, time does not go back, and each stream's versions
/// are 1, 2, 3.
pub fn assert_sound(log: &[Recorded]) {
    let mut versions = std::collections::HashMap::new();
    for event in log {
        let version = versions.entry(&event.stream).or_insert(0);
        *version += 1;
        assert_eq!(event.version.get(), *version, "version of {} in {log:?}", event.stream);
    }
    for pair in log.windows(2) {
        assert!(
            pair[0].position < pair[1].position,
            "{} then {}",
            pair[0].position,
            pair[1].position
        );
        assert!(pair[0].recorded_at <= pair[1].recorded_at, "time goes back: {pair:?}");
    }
}
