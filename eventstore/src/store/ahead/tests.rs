//! However pages are cut, they are the log.

use super::*;
use crate::{
    append::{Append, ExpectedVersion, NewEvent},
    event::Payload,
    ids::StreamId,
    query::EventQuery,
    store::EventStore,
};

async fn read(mut cursor: Cursor, window: i64) -> Vec<Recorded> {
    cursor.window = window;
    let (mut reading, mut all) = (Reading::Start(cursor), Vec::new());
    while let Some((events, next)) = reading.next().await.unwrap() {
        all.extend(events);
        reading = next;
    }
    all
}

/// Frequent, then rare, then frequent again.
async fn store() -> EventStore {
    let store = EventStore::in_memory();
    for number in 0..400 {
        let is_wanted = number % 40 == 0 || !(100..250).contains(&number);
        let category = if is_wanted { "wanted" } else { "other" };
        let event = NewEvent::raw("happened", 1, Payload::from_json("{}").unwrap());
        let stream = StreamId::new(category, number % 7).unwrap();
        let append = Append::to(stream, ExpectedVersion::Any, [event]);
        store.append(append).await.unwrap();
    }
    store
}

#[tokio::test]
async fn whatever_the_size_of_pages_and_of_what_is_searched_at_once() {
    let store = store().await;
    for query in [EventQuery::log(), EventQuery::log().category("wanted")] {
        let expected = read(store.cursor(query.clone().page_size(1000)), i64::MAX / 4).await;
        assert!(expected.len() > 200, "{}", expected.len());
        assert!(expected.is_sorted_by_key(|event| event.position));
        for size in [1, 2, 3, 10, 50, 100, 399, 400, 401] {
            for window in [1, 2, 7, 30, 1000] {
                let cursor = store.cursor(query.clone().page_size(size));
                assert_eq!(
                    read(cursor, window).await,
                    expected,
                    "pages of {size}, {window} at once"
                );
            }
        }
    }
}
