//! How fresh an answer is: as the caller asks.

use std::time::Duration;

use annals_eventstore::{EventStore, Position};
use annals_projections::{Consistency, ProjectionError, QueryReadModels};

use crate::support::{
    PATIENCE, Running, catch_up,
    database::TestDatabase,
    in_time,
    ledger::{Add, Tally, add},
    text, worker,
};

const FOREVER: Duration = Duration::MAX;

#[tokio::test(flavor = "multi_thread")]
async fn at_least_returns_what_the_command_did() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    // Woken by nudges alone.
    let worker = worker::<Tally>(&store).poll_interval(Duration::from_secs(1));
    let running = Running::start(worker);
    let mut total = 0;
    for amount in 1..=200 {
        let ledger = "a".to_owned();
        let done = store.execute(Add { ledger: ledger.clone(), amount }).await.unwrap();
        total += amount;
        let fresh = Consistency::AtLeast(done.position, PATIENCE / 2);
        let row = store.query::<Tally>().consistency(fresh).get(&ledger).await.unwrap().unwrap();
        assert_eq!((row.total, row.events), (total, amount));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_the_position_or_with_the_time() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let first = add(&store, "a", 1).await.last_position;
    catch_up::<Tally>(&store).await;
    let second = add(&store, "a", 1).await.last_position;

    let query = || store.query::<Tally>();
    query().wait_for(first, Duration::ZERO).await.unwrap();
    query().wait_for(first, FOREVER).await.unwrap();
    query().wait_for(Position::START, Duration::ZERO).await.unwrap();

    let waited = Duration::from_millis(30);
    let error = query().wait_for(second, waited).await.unwrap_err();
    assert!(error.is_retryable());
    match &error {
        ProjectionError::TimedOut { projection: "tallies", reached, needed, waited: w } => {
            assert_eq!((*reached, *needed, *w), (first, second, waited));
        }
        other => panic!("{other:?}"),
    }
    assert!(text(&error).contains("tallies"), "{error}");
    // A query is refused for the same reason, and gives no older rows.
    let fresh = Consistency::AtLeast(second, waited);
    let error = query().consistency(fresh).all().await.unwrap_err();
    assert!(matches!(error, ProjectionError::TimedOut { .. }), "{error:?}");

    // The worker comes while somebody waits without end.
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.query::<Tally>().wait_for(second, FOREVER).await }
    });
    catch_up::<Tally>(&store).await;
    in_time(waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn nobody_has_come_anywhere_before_the_first_worker() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let position = add(&store, "a", 1).await.last_position;
    let error = store.query::<Tally>().wait_for(position, Duration::ZERO).await.unwrap_err();
    match error {
        ProjectionError::TimedOut { reached, .. } => assert_eq!(reached, Position::START),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_store_in_memory_has_no_read_models() {
    let store = EventStore::in_memory();
    let error = store.query::<Tally>().all().await.unwrap_err();
    assert!(text(&error).contains("PostgreSQL"), "{error}");
    let error = worker::<Tally>(&store).run().await.unwrap_err();
    assert!(text(&error).contains("PostgreSQL"), "{error}");
}
