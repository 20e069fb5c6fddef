//! How queries are answered: by which index, and how far at a time.

use std::time::Duration;

use annals_eventstore::{Append, EventQuery, EventStore, ExpectedVersion, Position, postgres::Use};
use futures::TryStreamExt;
use tokio_postgres::Client;

use crate::limits::let_go;
use crate::support::{TestDatabase, all, database::value, direct, events, eventually, one, stream};

/// Fills the log past the store: 40,000 events, every tenth with one of 1,000 correlation ids.
async fn fill(client: &Client) {
    client
        .batch_execute(
            "insert into annals.streams (category, key, version)
             select 'thing', n::text, 20 from generate_series(1, 2000) n;
             insert into annals.events
             select n, 1 + (n - 1) % 2000, 1 + (n - 1) / 2000, gen_random_uuid(),
                 case when n = 39999 then 'rare' else 'happened' end, 1,
                 timestamptz '2020-01-01' + n * interval '1 second', null, '{}',
                 case when n % 10 = 0
                     then json_build_object('correlation_id', 'order-' || n / 10 % 1000) end
             from generate_series(1, 40000) n;
             select setval('annals.positions', 40000);
             analyze annals.events",
        )
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_correlation_is_read_by_its_index() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let client = database.client().await;
    fill(&client).await;
    let entries =
        "select count(*) from annals.events where metadata ->> 'correlation_id' is not null";
    let entries: i64 = client.query_one(entries, &[]).await.unwrap().get(0);
    assert_eq!(entries, 4000);
    // What all of the table's indexes and scans have fetched.
    let fetched = async |index: &str| -> (i64, i64) {
        let sql = "select idx_scan, idx_tup_read from pg_stat_all_indexes where indexrelname = $1";
        let row = client.query_one(sql, &[&index]).await.unwrap();
        (row.get(0), row.get(1))
    };
    let (scans, _) = fetched("events_by_correlation").await;
    let (_, walked) = fetched("events_pkey").await;
    let mut rounds = 0;
    for query in [
        EventQuery::log().correlation_id("order-7"),
        EventQuery::log().correlation_id("order-7").backward(),
        EventQuery::log().correlation_id("order-7").event_types(["happened"]),
        EventQuery::log().correlation_id("order-7").category("thing").include_archived(),
    ] {
        // Often enough that a statement is planned for any value.
        for _ in 0..8 {
            let found = all(store.read(query.clone())).await.unwrap();
            assert_eq!(found.len(), 4);
            rounds += 1;
        }
    }
    drop(store);
    eventually("all scans are counted", async || {
        fetched("events_by_correlation").await.0 >= scans + rounds
    })
    .await;
    let (_, after) = fetched("events_pkey").await;
    assert!(after - walked < 1000, "{} events were looked at", after - walked);
}

/// Nothing is held between two pages, so a slow reader is in nobody's way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_takes_its_time_holds_no_connection() {
    let database = TestDatabase::create().await;
    let store = database.store_with(EventStore::options().connections(Use::Read, 1)).await;
    let appended = store.append(Append::to(stream("a"), ExpectedVersion::Any, events(0..9))).await;
    let last = appended.unwrap().last_position;
    let open = "select count(*) from pg_stat_activity where datname = current_database()
        and application_name = 'annals' and state like 'idle in transaction%'";
    let client = database.client().await;
    for query in [EventQuery::log(), EventQuery::stream(&stream("a")), EventQuery::log().backward()]
    {
        let mut reading = std::pin::pin!(store.read(query.page_size(2)));
        for read in 0..9 {
            reading.try_next().await.unwrap().expect("there is another");
            // The only connection for reading is free.
            assert_eq!(store.safe_position().await.unwrap(), last);
            assert_eq!(value::<i64>(&client, open).await, 0, "after {read} events");
        }
        assert!(reading.try_next().await.unwrap().is_none());
    }
}

/// A read that breaks off says so, whichever page it is at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_fails_after_the_first_page_does_not_end_well() {
    let database = TestDatabase::create().await;
    let options = EventStore::options().statement_timeout(Use::Read, Duration::from_secs(3));
    let store = database.store_with(options).await;
    let append = Append::to(stream("a"), ExpectedVersion::Any, events(0..20));
    store.append(append).await.unwrap();
    let other = database.client().await;
    for query in [EventQuery::log(), EventQuery::stream(&stream("a")).backward()] {
        // On the first page, so that the second fails; and where pages are fetched ahead.
        for already in [2, 7] {
            let mut reading = std::pin::pin!(store.read(query.clone().page_size(2)));
            for _ in 0..already {
                reading.try_next().await.unwrap().expect("there is another");
            }
            other.batch_execute("begin; lock table annals.events").await.unwrap();
            let mut read = already;
            let error = loop {
                match reading.try_next().await {
                    Ok(Some(_)) => read += 1,
                    Ok(None) => panic!("it ended after {read} of 20 events"),
                    Err(error) => break error,
                }
            };
            assert!(error.is_retryable() && read < 20, "{error:?} after {read} events");
            assert!(reading.try_next().await.unwrap().is_none(), "it is over after an error");
            let_go(&other).await;
        }
    }
}

/// However few it finds, and however large the holes are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_passes_large_holes() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let client = database.client().await;
    fill(&client).await;
    let far = 1_000_000_000_000i64;
    client.execute("select setval('annals.positions', $1)", &[&far]).await.unwrap();
    store.append(one(stream("last"), 1)).await.unwrap();
    let rare = EventQuery::log().event_types(["rare", "none"]);
    for query in [rare.clone(), rare.clone().backward()] {
        let found = all(store.read(query)).await.unwrap();
        assert_eq!(found.iter().map(|e| e.position.get()).collect::<Vec<_>>(), [39_999]);
    }
    let mut cursor = store.cursor(rare);
    assert_eq!(cursor.next_page().await.unwrap().len(), 1);
    assert!(cursor.next_page().await.unwrap().is_empty());
    assert_eq!(cursor.position(), Position::new(far + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_stays_below_appends_in_flight() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    store.append(one(stream("a"), 1)).await.unwrap();
    let mut client = database.client().await;
    let in_flight = client.transaction().await.unwrap();
    direct::append(&in_flight, "b", &direct::ids(1)).await.unwrap();
    let later = store.append(one(stream("c"), 3)).await.unwrap();
    let first = Position::new(1);
    let mut cursors =
        [EventQuery::log(), EventQuery::log().category("nothing")].map(|query| store.cursor(query));
    for (cursor, count) in cursors.iter_mut().zip([1, 0]) {
        assert_eq!(cursor.next_page().await.unwrap().len(), count);
        assert!(cursor.next_page().await.unwrap().is_empty());
        assert_eq!(cursor.position(), first, "not past what may still appear");
    }
    assert_eq!(all(store.read(EventQuery::log().backward())).await.unwrap().len(), 1);
    // Of one stream, all there is: its versions have no holes.
    assert_eq!(all(store.read(EventQuery::stream(&stream("c")))).await.unwrap().len(), 1);
    in_flight.commit().await.unwrap();
    for (cursor, count) in cursors.iter_mut().zip([2, 0]) {
        assert_eq!(cursor.next_page().await.unwrap().len(), count);
        assert_eq!(cursor.position(), later.last_position);
    }
}

/// A page that is given up on is not lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_was_not_returned_comes_again() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    for number in 0..50 {
        store.append(one(stream(number % 3), number)).await.unwrap();
    }
    let mut cursor = store.cursor(EventQuery::log().event_types(["happened"]).page_size(5));
    let mut seen = Vec::new();
    let mut patience = 1;
    loop {
        let page = tokio::time::timeout(Duration::from_micros(patience), cursor.next_page()).await;
        patience += 50;
        match page {
            Err(_) => continue,
            Ok(page) => match page.unwrap() {
                page if page.is_empty() => break,
                page => seen.extend(page),
            },
        }
    }
    assert_eq!(seen, crate::support::log(&store).await);
}
