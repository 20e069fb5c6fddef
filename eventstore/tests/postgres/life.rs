//! Archiving and deleting beside readers and writers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use annals_eventstore::{
    Append, Error, EventQuery, EventStore, ExpectedVersion, Position, StreamId, Version,
    postgres::Checkpoint,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::support::{
    TestDatabase, all, assert_sound, direct, event, is_waiting, log, numbers, one, stream,
};

const ANY: ExpectedVersion = ExpectedVersion::Any;

async fn whole(store: &EventStore) -> Vec<annals_eventstore::Recorded> {
    all(store.read(EventQuery::log().include_archived())).await.unwrap()
}

/// Moves a reader, creating it if need be.
async fn reader_at(store: &EventStore, name: &str, position: i64) {
    let database = store.database().unwrap();
    let checkpoint = Checkpoint::take_over(database, name, 1).await.unwrap();
    let mut client = database.client().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    checkpoint.advance(&transaction, Position::new(position)).await.unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn a_reader_that_is_behind_keeps_a_stream_where_it_is() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    for number in 1..=4 {
        store.append(one(stream(number % 2), number)).await.unwrap();
    }
    // The stream 0 has the positions 2 and 4, the stream 1 has 1 and 3.
    let before = log(&store).await;
    reader_at(&store, "ahead", 4).await;
    reader_at(&store, "the \"slow\" one", 2).await;
    match store.archive_stream(&stream(0), ANY).await.unwrap_err() {
        error @ Error::ReaderBehind { .. } => {
            assert!(!error.is_retryable());
            let Error::ReaderBehind { stream: named, reader, at, needed } = error else {
                unreachable!()
            };
            assert_eq!((named, &*reader), (stream(0), "the \"slow\" one"));
            assert_eq!((at, needed), (Position::new(2), Position::new(4)));
        }
        error => panic!("{error:?}"),
    }
    assert_eq!(log(&store).await, before);
    store.append(one(stream(0), 5)).await.unwrap();

    reader_at(&store, "the \"slow\" one", 3).await;
    store.archive_stream(&stream(1), ANY).await.unwrap();
    assert_eq!(numbers(&log(&store).await), [2, 4, 5]);

    // One that began since then stands before the middle of it: restored now, it would see a part.
    reader_at(&store, "new", 2).await;
    let error = store.restore_stream(&stream(1)).await.unwrap_err();
    assert!(matches!(&error, Error::ReaderBehind { reader, .. } if reader == "new"), "{error:?}");
    reader_at(&store, "new", 3).await;
    store.restore_stream(&stream(1)).await.unwrap();
    assert_eq!(numbers(&log(&store).await), [1, 2, 3, 4, 5]);
    // A deletion takes nothing from the log.
    store.delete_stream(&stream(0), ANY).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_begins_waits_for_an_archiving_on_its_way() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    store.append(one(stream("a"), 1)).await.unwrap();
    let mut client = database.client().await;
    let transaction = client.transaction().await.unwrap();
    transaction.execute("select annals.archive_stream('thing', 'a', -1)", &[]).await.unwrap();
    let beginning = Checkpoint::take_over(store.database().unwrap(), "new", 1);
    let mut beginning = std::pin::pin!(beginning);
    assert!(is_waiting(&mut beginning).await, "it would see a part of what is archived");
    transaction.commit().await.unwrap();
    assert_eq!(beginning.await.unwrap().position(), Position::START);
    assert!(log(&store).await.is_empty());

    // The other way round, the archiving finds the reader.
    let transaction = client.transaction().await.unwrap();
    transaction
        .execute("insert into annals.checkpoints (name, position) values ('newer', 0)", &[])
        .await
        .unwrap();
    let other = database.store().await;
    other.append(one(stream("b"), 2)).await.unwrap();
    reader_at(&other, "new", 2).await;
    let b = stream("b");
    let mut archiving = std::pin::pin!(other.archive_stream(&b, ANY));
    assert!(is_waiting(&mut archiving).await);
    transaction.commit().await.unwrap();
    let error = archiving.await.unwrap_err();
    assert!(matches!(&error, Error::ReaderBehind { reader, .. } if reader == "newer"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_in_flight_comes_first() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    store.append(one(stream("a"), 1)).await.unwrap();
    let mut client = database.client().await;
    let transaction = client.transaction().await.unwrap();
    direct::append(&transaction, "a", &direct::ids(1)).await.unwrap();
    let exact = ExpectedVersion::Exact(Version::new(1));
    let a = stream("a");
    let mut deleting = std::pin::pin!(store.delete_stream(&a, exact));
    assert!(is_waiting(&mut deleting).await);
    transaction.commit().await.unwrap();
    match deleting.await.unwrap_err() {
        Error::Conflict { actual, .. } => assert_eq!(actual, Version::new(2)),
        error => panic!("{error:?}"),
    }

    // And an archiving in flight is seen by the append that waited for it.
    let transaction = client.transaction().await.unwrap();
    transaction.execute("select annals.archive_stream('thing', 'a', 2)", &[]).await.unwrap();
    let mut appending = std::pin::pin!(store.append(one(a.clone(), 3)));
    assert!(is_waiting(&mut appending).await);
    transaction.commit().await.unwrap();
    let error = appending.await.unwrap_err();
    assert!(matches!(&error, Error::StreamArchived { stream } if *stream == a), "{error:?}");
    assert_eq!(whole(&store).await.len(), 2);
}

#[tokio::test]
async fn the_state_of_a_stream_is_not_changed_on_an_old_snapshot() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    store.append(one(stream("a"), 1)).await.unwrap();
    let mut client = database.client().await;
    for sql in [
        "select annals.delete_stream('thing', 'a', -1)",
        "select annals.archive_stream('thing', 'a', -1)",
        "select annals.restore_stream('thing', 'a')",
    ] {
        let isolation = tokio_postgres::IsolationLevel::RepeatableRead;
        let transaction =
            client.build_transaction().isolation_level(isolation).start().await.unwrap();
        let error = transaction.execute(sql, &[]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "AN005", "{sql}");
    }
}

/// Writers append, and streams are archived, restored and deleted, while readers read on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archiving_loses_nothing_for_readers_of_the_whole_log() {
    const STREAMS: u64 = 6;
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let done = Arc::new(AtomicBool::new(false));

    let writers: Vec<_> = (0..3u64)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(writer);
                let mut recorded = 0;
                for number in 0..300 {
                    let id = stream(random.random_range(0..STREAMS));
                    let append = Append::to(id, ANY, [event(number), event(number)]);
                    match store.append(append).await {
                        Ok(_) => recorded += 2,
                        Err(Error::StreamArchived { .. } | Error::StreamDeleted { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
                recorded
            })
        })
        .collect();
    let keeper = tokio::spawn({
        let (store, done) = (store.clone(), done.clone());
        async move {
            let mut random = StdRng::seed_from_u64(99);
            let mut archived = 0;
            while !done.load(Ordering::Relaxed) {
                let id = stream(random.random_range(0..STREAMS));
                let outcome = match random.random_range(0..6) {
                    0..=1 => {
                        let outcome = store.archive_stream(&id, ANY).await;
                        archived += u32::from(outcome.is_ok());
                        outcome
                    }
                    2 => store.delete_stream(&id, ANY).await,
                    _ => store.restore_stream(&id).await,
                };
                match outcome {
                    Ok(_)
                    | Err(
                        Error::StreamArchived { .. }
                        | Error::StreamDeleted { .. }
                        | Error::Conflict { .. },
                    ) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            archived
        }
    });
    let readers: Vec<_> = [1, 7, 500]
        .map(|size| {
            let (store, done) = (store.clone(), done.clone());
            tokio::spawn(async move {
                let mut cursor = store.cursor(EventQuery::log().include_archived().page_size(size));
                let mut seen = Vec::new();
                loop {
                    let last = done.load(Ordering::Relaxed);
                    let page = cursor.next_page().await.unwrap();
                    if page.is_empty() && last {
                        return seen;
                    }
                    seen.extend(page);
                }
            })
        })
        .into();
    let mut recorded = 0;
    for writer in writers {
        recorded += writer.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    assert!(keeper.await.unwrap() > 3, "a test of nothing");
    let whole = whole(&store).await;
    assert_eq!(whole.len(), recorded);
    assert_sound(&whole);
    assert_eq!(store.verify().run().await.unwrap().findings, []);
    for reader in readers {
        assert_eq!(reader.await.unwrap(), whole);
    }
    // A cut at any time is the same whatever is archived.
    let mut cuts = Vec::new();
    for event in whole.iter().step_by(7) {
        cuts.push(store.position_at(event.recorded_at).await.unwrap());
    }
    for index in 0..STREAMS {
        let id: StreamId = stream(index);
        store.restore_stream(&id).await.unwrap();
        if index % 2 == 0 {
            store.archive_stream(&id, ANY).await.unwrap();
        }
    }
    for (event, cut) in whole.iter().step_by(7).zip(cuts) {
        assert_eq!(store.position_at(event.recorded_at).await.unwrap(), cut);
    }
}

/// The store's own clock does not fall behind an archived event, whatever the server's shows.
#[tokio::test]
async fn recorded_times_rise_behind_an_archived_event() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    store.append(one(stream("a"), 1)).await.unwrap();
    store.append(one(stream("b"), 2)).await.unwrap();
    store.archive_stream(&stream("b"), ANY).await.unwrap();
    // As after a restore of the tables on a server whose clock is behind.
    let client = database.client().await;
    client
        .batch_execute(
            "alter sequence annals.recorded_micros restart;
             set session_replication_role = replica;
             alter table annals.archived_events disable trigger events_are_immutable;
             update annals.archived_events set recorded_at = recorded_at + interval '1 hour';
             alter table annals.archived_events enable always trigger events_are_immutable",
        )
        .await
        .unwrap();
    store.append(one(stream("a"), 3)).await.unwrap();
    assert_sound(&whole(&store).await);
}
