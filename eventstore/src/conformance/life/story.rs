//! A model of the life of streams.

use annals_eventstore::{EventQuery, EventStore, StreamId, StreamState, Version};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::ANY;
use crate::conformance::support::{all, numbers, one, stream};

/// Appends, deletions, archivings and restorings in any order, and all ways to read after each.
pub(crate) async fn any_story_of_streams_reads_like_its_model(store: &EventStore) {
    for chapter in 0..6 {
        tell(store, chapter).await;
    }
}

async fn tell(store: &EventStore, chapter: u64) {
    let mut random = StdRng::seed_from_u64(chapter);
    let start = store.safe_position().await.unwrap();
    let stream = |index: usize| stream(format!("{chapter}/{index}"));
    let mut model: Vec<(StreamId, i64)> = Vec::new();
    let mut states = [StreamState::Live; 4];
    let with_archived = EventQuery::log().after(start).include_archived();
    let mut cursor = store.cursor(with_archived.clone().page_size(3));
    let mut seen = Vec::new();
    for number in 0..60 {
        let index = random.random_range(0..4);
        let id = stream(index);
        let exists = model.iter().any(|(stream, _)| *stream == id);
        let outcome = match random.random_range(0..8) {
            0..=3 => {
                let appended = store.append(one(id.clone(), number)).await.is_ok();
                assert_eq!(appended, states[index] == StreamState::Live);
                if appended {
                    model.push((id.clone(), number));
                }
                continue;
            }
            4 | 5 => (store.restore_stream(&id).await, StreamState::Live),
            6 => (store.archive_stream(&id, ANY).await, StreamState::Archived),
            _ => (store.delete_stream(&id, ANY).await, StreamState::Deleted),
        };
        let may = exists
            && (states[index] == StreamState::Live
                || outcome.1 == StreamState::Live
                || outcome.1 == states[index]);
        assert_eq!(outcome.0.is_ok(), may, "{:?} after {:?}", outcome, states[index]);
        if may {
            states[index] = outcome.1;
        }
        seen.extend(cursor.next_page().await.unwrap());

        let told = |events: Vec<annals_eventstore::Recorded>| {
            let numbers = numbers(&events);
            std::iter::zip(events.into_iter().map(|event| event.stream), numbers)
                .collect::<Vec<_>>()
        };
        let whole = all(store.read(with_archived.clone())).await.unwrap();
        assert_eq!(told(whole), model);
        let state = |id: &StreamId| states[(0..4).find(|index| stream(*index) == *id).unwrap()];
        let hot = model.iter().filter(|(id, _)| state(id) != StreamState::Archived);
        let plain = all(store.read_all(start)).await.unwrap();
        assert_eq!(told(plain), hot.cloned().collect::<Vec<_>>());
        for index in 0..4 {
            let id = stream(index);
            let of = match state(&id) {
                StreamState::Deleted => Vec::new(),
                _ => model.iter().filter(|(stream, _)| *stream == id).cloned().collect(),
            };
            let query = EventQuery::stream(&id).include_archived();
            assert_eq!(told(all(store.read(query)).await.unwrap()), of);
            let plain = all(store.read_stream(&id, Version::NONE)).await;
            assert_eq!(plain.is_err(), state(&id) == StreamState::Archived);
            if let Ok(plain) = plain {
                assert_eq!(told(plain), of);
            }
        }
    }
    loop {
        let page = cursor.next_page().await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    let seen: Vec<_> = seen.iter().map(|event| event.position).collect();
    let whole = all(store.read(with_archived)).await.unwrap();
    assert!(seen.into_iter().eq(whole.iter().map(|event| event.position)), "seen once each");
}
