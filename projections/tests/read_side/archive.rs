//! Read models of streams that are archived and come back.

use annals_eventstore::{AsOf, Error, EventStore, ExpectedVersion, StreamId};
use annals_projections::{Consistency, InlineProjections, QueryReadModels, reset};

use crate::support::{
    Running, catch_up,
    database::TestDatabase,
    ledger::{Add, Tally, add},
    oracle::{assert_exact, sorted},
    worker,
};

const ANY: ExpectedVersion = ExpectedVersion::Any;

fn ledger(key: &str) -> StreamId {
    StreamId::new("ledger", key).unwrap()
}

async fn total(store: &EventStore, key: &str) -> Option<i64> {
    store.query::<Tally>().get(&key.to_owned()).await.unwrap().map(|row| row.total)
}

/// All rows now, and as of each position.
async fn answers(store: &EventStore, consistency: Consistency) -> Vec<Vec<String>> {
    let end = store.safe_position().await.unwrap();
    let query = || store.query::<Tally>().consistency(consistency);
    let mut answers = vec![sorted(query().all().await.unwrap())];
    for position in 1..=end.get() {
        let then = AsOf::Position(annals_eventstore::Position::new(position));
        answers.push(sorted(query().as_of(then).all().await.unwrap()));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_read_model_keeps_its_rows_and_counts_nothing_twice() {
    let database = TestDatabase::create().await;
    let plain = database.store().await;
    add(&plain, "a", 1).await;
    let store = database.store().await.with_inline::<Tally>().await.unwrap();
    for (key, amount) in [("a", 2), ("b", 4), ("a", 8)] {
        store.execute(Add { ledger: key.to_owned(), amount }).await.unwrap();
    }
    let before = answers(&store, Consistency::Strong).await;
    // Nothing is appended, so a store without the read model bypasses nothing.
    plain.archive_stream(&ledger("a"), ANY).await.unwrap();
    assert_eq!(answers(&store, Consistency::Strong).await, before);
    let refused = store.execute(Add { ledger: "a".to_owned(), amount: 16 }).await.unwrap_err();
    assert!(refused.to_string().contains("archived"), "{refused}");
    store.execute(Add { ledger: "b".to_owned(), amount: 32 }).await.unwrap();

    plain.restore_stream(&ledger("a")).await.unwrap();
    assert_eq!(answers(&store, Consistency::Strong).await[1..before.len()], before[1..]);
    assert_eq!(total(&store, "a").await, Some(11));
    // What comes later is not let past it, because of the restoring or otherwise.
    assert!(matches!(
        plain.execute(Add { ledger: "a".to_owned(), amount: 64 }).await,
        Err(annals_eventstore::ExecuteError::Failed(Error::BypassesInline { .. }))
    ));
    store.execute(Add { ledger: "a".to_owned(), amount: 128 }).await.unwrap();
    assert_eq!(total(&store, "a").await, Some(139));
    assert_exact::<Tally>(&store, &database.client().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_has_seen_all_of_a_stream_before_it_is_archived() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for (key, amount) in [("a", 1), ("b", 2), ("a", 4)] {
        add(&store, key, amount).await;
    }
    catch_up::<Tally>(&store).await;
    let last = add(&store, "a", 8).await.last_position;
    match store.archive_stream(&ledger("a"), ANY).await.unwrap_err() {
        Error::ReaderBehind { reader, needed, .. } => {
            assert!(reader.contains("tallies"), "{reader}");
            assert_eq!(needed, last);
        }
        error => panic!("{error:?}"),
    }
    let mut running = Running::start(worker::<Tally>(&store));
    running.caught_up::<Tally>(&store).await;
    let before = answers(&store, Consistency::Eventual).await;
    store.archive_stream(&ledger("a"), ANY).await.unwrap();
    // It goes on beside what is archived and what comes back.
    add(&store, "b", 16).await;
    running.caught_up::<Tally>(&store).await;
    assert_eq!(answers(&store, Consistency::Eventual).await[1..before.len()], before[1..]);
    assert_eq!(total(&store, "a").await, Some(13));
    assert_exact::<Tally>(&store, &client).await;
    store.restore_stream(&ledger("a")).await.unwrap();
    add(&store, "a", 32).await;
    running.caught_up::<Tally>(&store).await;
    assert_eq!(total(&store, "a").await, Some(45));
    running.stop().await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_that_is_built_anew_skips_what_is_archived() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for (key, amount) in [("a", 1), ("b", 2), ("a", 4)] {
        add(&store, key, amount).await;
    }
    catch_up::<Tally>(&store).await;
    store.archive_stream(&ledger("a"), ANY).await.unwrap();
    reset::<Tally>(&store).await.unwrap();
    catch_up::<Tally>(&store).await;
    assert_eq!((total(&store, "a").await, total(&store, "b").await), (None, Some(2)));
    // Restored, it stays so, until the read model is built anew.
    store.restore_stream(&ledger("a")).await.unwrap();
    catch_up::<Tally>(&store).await;
    assert_eq!(total(&store, "a").await, None);
    reset::<Tally>(&store).await.unwrap();
    catch_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
    assert_eq!(total(&store, "a").await, Some(5));
}
