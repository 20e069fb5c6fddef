//! Shutting a store down.

use annals_eventstore::{AsOf, Error, EventStore, Position, Version};
use futures::future::join_all;

use super::support::{
    all,
    counter::{Change, Counter},
    one, stream,
};

pub(crate) async fn a_closed_store_is_closed_for_all_its_clones(store: &EventStore) {
    let clone = store.clone();
    store.append(one(stream("a"), 1)).await.unwrap();
    store.close().await;
    for store in [store, &clone] {
        let appended = store.append(one(stream("a"), 2)).await;
        assert!(matches!(appended, Err(Error::Closed)), "{appended:?}");
        assert!(!appended.unwrap_err().is_retryable());
        let executed = store.execute(Change::new("a", [1])).await;
        assert!(executed.is_err_and(|error| error.to_string().contains("shut down")));
        let read = all(store.read_stream(&stream("a"), Version::NONE)).await;
        assert!(matches!(read, Err(Error::Closed)), "{read:?}");
        let read = all(store.read_all(Position::START)).await;
        assert!(matches!(read, Err(Error::Closed)), "{read:?}");
        let loaded = store.load_as_of::<Counter>("a", AsOf::Position(Position::START)).await;
        assert!(matches!(loaded, Err(Error::Closed)), "{loaded:?}");
    }
}

pub(crate) async fn closing_twice_is_no_error(store: &EventStore) {
    let clone = store.clone();
    tokio::join!(store.close(), clone.close());
    store.close().await;
    assert_eq!(store.close_within(std::time::Duration::ZERO).await, 0);
}

pub(crate) async fn closing_records_what_was_accepted_and_nothing_else(store: &EventStore) {
    let appends = join_all((0..200).map(|n| store.append(one(stream(n), n))));
    let (appended, ()) = tokio::join!(appends, store.close());
    for outcome in appended {
        // Recorded, or too late: there is nothing between.
        assert!(matches!(outcome, Ok(_) | Err(Error::Closed)), "{outcome:?}");
    }
}
