//! Live read models hold what tables hold: the fold of the log, batch by batch.

mod ends;

use std::{collections::HashMap, time::Duration};

use annals_eventstore::{
    AsOf, Error as StoreError, EventStore, ExpectedVersion, Position, StreamId,
};
use annals_projections::{
    Consistency, Cut, Live, LiveOptions, ProjectionError, QueryReadModels, Start,
};
use futures::{StreamExt, TryStreamExt};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::support::{
    PATIENCE, catch_up,
    database::{TestDatabase, kill, kill_after},
    eventually, in_time,
    ledger::{Ledger, LedgerEvent, Tally, add, append, unrelated},
    load::{Load, append_some, seeded},
    oracle::{fold, log, sorted},
    text,
};

const ANY: ExpectedVersion = ExpectedVersion::Any;

/// Options as the tests use them: small batches, so that there are many.
fn options() -> LiveOptions<Tally> {
    Live::options().batch_size(3).poll_interval(Duration::from_millis(20))
}

async fn end(store: &EventStore) -> Position {
    store.safe_position().await.unwrap()
}

async fn caught_up(live: &Live<Tally>, store: &EventStore) {
    live.wait_for(end(store).await, PATIENCE / 2).await.unwrap();
}

fn total(live: &Live<Tally>, ledger: &str) -> i64 {
    live.get(&ledger.to_owned()).unwrap().map_or(0, |row| row.total)
}

/// That the rows are the plainest fold of the log up to their position.
async fn assert_folded(store: &EventStore, cuts: impl IntoIterator<Item = Cut<Tally>>) {
    let log = log(store).await;
    for cut in cuts {
        let expected = fold::<Tally>(&log, cut.position).rows.into_values();
        assert_eq!(sorted(cut.rows), sorted(expected), "as of {}", cut.position);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// Some of the log is there at the start and some comes later; some of it is folded elsewhere.
    #[test]
    fn it_is_the_fold_of_any_history(
        seed: u64,
        appends in [0_usize..30, 0..30, 0..30],
        batch_size in 1_usize..9,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (store, mut rng) = (EventStore::in_memory(), StdRng::seed_from_u64(seed));
            let [first, second, third] = appends;
            for _ in 0..first {
                append_some(&store, &mut rng).await;
            }
            let rows = fold::<Tally>(&log(&store).await, end(&store).await).rows.into_values();
            let warm = options().with_rows(end(&store).await, rows);
            for _ in 0..second {
                append_some(&store, &mut rng).await;
            }
            let whole = options().batch_size(batch_size).start(&store).await.unwrap();
            assert_eq!(whole.position(), end(&store).await, "it is caught up when it starts");
            let warm = warm.batch_size(batch_size).start(&store).await.unwrap();
            for _ in 0..third {
                append_some(&store, &mut rng).await;
            }
            for live in [whole, warm] {
                caught_up(&live, &store).await;
                assert_eq!(live.position(), end(&store).await);
                assert_eq!(live.len(), live.last().rows.len());
                assert_folded(&store, [live.all().unwrap()]).await;
            }
        });
    }
}

/// Reads all the time, follows the changes, and compares everything with the log in the end.
async fn under_load(
    store: &EventStore,
    reader: &EventStore,
    killer: Option<&tokio_postgres::Client>,
) {
    let (seed, mut rng) = seeded();
    let mut load = Load::start(store, seed, 3, 150);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let live = options().start(reader).await.unwrap();
    let (begin, mut changes) = live.subscribe().unwrap();
    let (mut cuts, mut killed) = (vec![begin.clone()], 0);
    while !load.is_done() || (killer.is_some() && killed < 20) {
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..20))).await;
        if let Some(client) = killer {
            killed += kill(client, "victim").await;
        }
        cuts.push(live.all().unwrap());
    }
    load.done().await;
    caught_up(&live, store).await;
    let last = live.all().unwrap();
    assert!(cuts.len() > 5 && last.position > begin.position, "the test tests nothing");

    // Each change leads from what was there to what is there.
    live.stop().await.unwrap();
    let mut rows: HashMap<_, _> =
        begin.rows.iter().map(|row| (row.ledger.clone(), row.clone())).collect();
    let mut position = begin.position;
    while let Some(change) = changes.try_next().await.unwrap() {
        assert!(change.position >= position, "changes come in order");
        position = change.position;
        let before = match change.after {
            Some(row) => rows.insert(change.key, row),
            None => rows.remove(&change.key),
        };
        assert_eq!(before, change.before);
    }
    assert_eq!(sorted(rows.into_values()), sorted(last.rows.clone()));
    cuts.push(last);
    assert_folded(store, cuts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_batches_whole_in_memory() {
    let store = EventStore::in_memory();
    in_time(under_load(&store, &store, None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_batches_whole_on_postgres_and_the_table_is_the_same() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    in_time(under_load(&store, &store, None)).await;
    catch_up::<Tally>(&store).await;
    let live = Live::<Tally>::start(&store).await.unwrap();
    let table = store.query::<Tally>().all().await.unwrap();
    assert!(!table.is_empty());
    assert_eq!(sorted(live.all().unwrap().rows), sorted(table));
}

#[tokio::test(flavor = "multi_thread")]
async fn its_connections_are_terminated_again_and_again() {
    let database = TestDatabase::create().await;
    let (store, reader) = (database.store().await, database.store_as("victim").await);
    let client = database.client().await;
    in_time(under_load(&store, &reader, Some(&client))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nudge_wakes_one_that_hardly_ever_polls_also_after_its_listener_died() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let reader = database.store_as("victim").await;
    let live = options().poll_interval(Duration::from_secs(3600)).start(&reader).await.unwrap();
    for round in 0..10 {
        if round == 5 {
            let killed = || async { kill_after(&client, "victim", "listen%").await > 0 };
            eventually("a listener", killed).await;
        }
        let done = add(&store, "a", 1).await;
        live.wait_for(done.last_position, PATIENCE / 2).await.unwrap();
        assert_eq!(total(&live, "a"), round + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_for_it_moves_its_position_too() {
    let store = EventStore::in_memory();
    let live = options().start(&store).await.unwrap();
    for n in 0..20 {
        let other = unrelated(&store, &n.to_string()).await;
        live.wait_for(other.last_position, PATIENCE / 2).await.unwrap();
    }
    assert!(live.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_has_an_end() {
    let store = EventStore::in_memory();
    let reached = add(&store, "a", 1).await.last_position;
    let live = options().start(&store).await.unwrap();
    let limit = Duration::from_millis(30);
    live.wait_for(reached, limit).await.unwrap();
    let error = live.wait_for(reached.plus(1), limit).await.unwrap_err();
    let ProjectionError::TimedOut { projection: "tallies", reached: at, needed, waited } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!((at, needed, waited), (reached, reached.plus(1), limit));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_background_rows_come_in_by_and_by() {
    let store = EventStore::in_memory();
    for n in 0..50 {
        add(&store, &n.to_string(), 1).await;
    }
    let live = Live::<Tally>::start_in_background(&store);
    caught_up(&live, &store).await;
    assert_eq!(live.len(), 50);
    let few = live.filter(|row| row.ledger.starts_with('4')).unwrap();
    assert_eq!((few.rows.len(), few.position), (11, end(&store).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_anywhere_in_the_log() {
    let database = TestDatabase::create().await;
    for store in [EventStore::in_memory(), database.store().await] {
        let first = add(&store, "a", 1).await.last_position;
        tokio::time::sleep(Duration::from_millis(2)).await;
        let second = add(&store, "a", 2).await.last_position;
        let time = log(&store).await[1].recorded_at;
        for (start, expected) in [
            (Start::Beginning, 7),
            (Start::Position(first), 6),
            (Start::Time(time), 6),
            (Start::Position(second), 4),
            (Start::End, 4),
        ] {
            // What it starts with, and what comes later.
            let live = options().since(start).start(&store).await.unwrap();
            assert_eq!(total(&live, "a"), expected - 4, "{start:?}");
        }
        let now = options().since(Start::End).start(&store).await.unwrap();
        let done = add(&store, "a", 4).await.last_position;
        now.wait_for(done, PATIENCE / 2).await.unwrap();
        assert_eq!(total(&now, "a"), 4);

        let beyond = options().with_rows(done.plus(1), [Tally::new("b")]);
        let error = beyond.clone().start(&store).await.unwrap_err();
        let ProjectionError::Store(StoreError::BeyondEnd { at, end }) = error else {
            panic!("{error:?}")
        };
        assert_eq!((at, end), (done.plus(1), done));
        let live = beyond.start_in_background(&store);
        eventually("no rows", || async { live.all().is_err() }).await;
        let text = text(&live.all().unwrap_err());
        assert!(text.contains(&format!("the log ends at {done}")), "{text}");
        let tomorrow = chrono::Utc::now() + chrono::TimeDelta::days(1);
        let error = options().since(Start::Time(tomorrow)).start(&store).await.unwrap_err();
        assert!(matches!(error, ProjectionError::Store(StoreError::Future { .. })), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_from_the_rows_of_a_table_as_they_were() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let (_, mut rng) = seeded();
    for _ in 0..40 {
        append_some(&store, &mut rng).await;
    }
    let at = end(&store).await;
    for _ in 0..40 {
        append_some(&store, &mut rng).await;
    }
    catch_up::<Tally>(&store).await;
    let query = store.query::<Tally>().as_of(AsOf::Position(at));
    let rows = query.consistency(Consistency::AtLeast(at, PATIENCE)).all().await.unwrap();
    let live = options().with_rows(at, rows).start(&store).await.unwrap();
    assert_folded(&store, [live.all().unwrap()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_an_append_in_flight_and_starts_behind_it() {
    let database = TestDatabase::create().await;
    let (store, mut other) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    let live = options().start(&store).await.unwrap();
    let open = other.transaction().await.unwrap();
    let first = crate::feed::append_silently(&open, "a").await;
    let second = add(&store, "b", 1).await.last_position;
    assert!(first < second);
    let starting = options().since(Start::Position(second));
    let starting = tokio::spawn({
        let store = store.clone();
        async move { starting.start(&store).await }
    });
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert!(!starting.is_finished(), "it started above an append in flight");
    assert_eq!(live.position(), Position::new(first.get() - 1));
    open.commit().await.unwrap();
    live.wait_for(second, PATIENCE / 2).await.unwrap();
    assert_eq!((total(&live, "a"), total(&live, "b")), (2, 1));
    let late = in_time(starting).await.unwrap().unwrap();
    assert!(late.is_empty() && late.position() >= second);
}

#[tokio::test(flavor = "multi_thread")]
async fn archived_streams_count_whenever_they_were_archived() {
    let database = TestDatabase::create().await;
    for store in [EventStore::in_memory(), database.store().await] {
        for (ledger, amount) in [("a", 1), ("b", 2), ("a", 4)] {
            add(&store, ledger, amount).await;
        }
        let before = options().start(&store).await.unwrap();
        store.archive_stream(&StreamId::new("ledger", "a").unwrap(), ANY).await.unwrap();
        let after = options().start(&store).await.unwrap();
        let more = add(&store, "b", 8).await.last_position;
        for live in [before, after] {
            live.wait_for(more, PATIENCE / 2).await.unwrap();
            assert_eq!((total(&live, "a"), total(&live, "b")), (5, 10));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_is_told_how_much_it_missed() {
    let store = EventStore::in_memory();
    let live = options().batch_size(1).buffer(4).start(&store).await.unwrap();
    let (mut slow, mut quick) = (live.changes().unwrap(), live.changes().unwrap());
    for n in 1..=10 {
        add(&store, "a", n).await;
        let change = in_time(quick.try_next()).await.unwrap().unwrap();
        assert_eq!(change.position, Position::new(n));
        assert_eq!(change.after.map(|row| row.events), Some(n));
    }
    let error = slow.next().await.unwrap().unwrap_err();
    let ProjectionError::Lagged { projection: "tallies", missed: 6 } = error else {
        panic!("{error:?}")
    };
    // Then it goes on with what is kept.
    for n in 7..=10 {
        assert_eq!(slow.try_next().await.unwrap().unwrap().position, Position::new(n));
    }
    add(&store, "a", 1).await;
    let change = in_time(slow.try_next()).await.unwrap().unwrap();
    assert_eq!(change.before.map(|row| row.events), Some(10));
    live.stop().await.unwrap();
    assert!(slow.next().await.is_none() && quick.next().await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_and_goes_in_one_batch_is_no_change() {
    let store = EventStore::in_memory();
    let live = options().batch_size(100).start(&store).await.unwrap();
    let mut changes = live.changes().unwrap();
    let added = || LedgerEvent::Added { amount: 1 };
    append::<Ledger>(&store, "a", [added(), added(), LedgerEvent::Closed]).await;
    append::<Ledger>(&store, "b", [added(), LedgerEvent::Noted, added()]).await;
    let change = in_time(changes.try_next()).await.unwrap().unwrap();
    let after = change.after.unwrap();
    assert_eq!((change.key.as_str(), change.before, after.events), ("b", None, 2));
    assert_eq!(change.position, Position::new(6));
}
