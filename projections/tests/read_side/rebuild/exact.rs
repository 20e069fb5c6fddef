//! What a rebuild builds is what a worker would have built.

use std::sync::{Arc, Mutex, mpsc};

use annals_eventstore::{
    Append, EventStore, ExpectedVersion, NewEvent, Payload, StreamId, postgres::Use,
};
use annals_projections::{Phase, Progress, QueryReadModels, ReadModel};
use tokio_postgres::Client;

use super::{Own, Pair, append_many, rebuild};
use crate::support::{
    Running, catch_up,
    database::{TestDatabase, value},
    ledger::{Ledger, LedgerEvent, Tally, add, append},
    load::{Load, seeded},
    oracle::{assert_exact, log, sorted},
    pooler::Pooler,
    worker,
};

async fn content<R: ReadModel + std::fmt::Debug>(store: &EventStore) -> Vec<String> {
    sorted(store.query::<R>().all().await.unwrap())
}

async fn is_rebuilt_exactly<R: ReadModel + std::fmt::Debug>(store: &EventStore, client: &Client) {
    catch_up::<R>(store).await;
    for (shards, rows) in [(1, 200_000), (2, 1), (3, 1), (3, 37), (2, 200_000)] {
        let before = content::<R>(store).await;
        let rebuild = rebuild::<R>(store).shards(shards).rows_in_memory(rows);
        let built = rebuild.run().await.unwrap();
        assert!(built.events > 500, "{built:?}");
        assert_eq!(built.position, store.safe_position().await.unwrap());
        assert_eq!(built.parked, 0);
        assert_exact::<R>(store, client).await;
        assert_eq!(content::<R>(store).await, before, "{shards} shards, {rows} rows");
        // And a worker goes on with it.
        add(store, "a", 1).await;
        catch_up::<R>(store).await;
        assert_exact::<R>(store, client).await;
        let before = content::<R>(store).await;
        rebuild.run().await.unwrap();
        assert_eq!(content::<R>(store).await, before);
        assert_exact::<R>(store, client).await;
        rebuild.discard().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_history_and_many_rows_from_one_event() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (_, mut rng) = seeded();
    append_many(&store, &mut rng, 200).await;
    is_rebuilt_exactly::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_history_and_with_a_key_of_two_columns() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (_, mut rng) = seeded();
    append_many(&store, &mut rng, 200).await;
    is_rebuilt_exactly::<Pair>(&store, &client).await;
    let indexes =
        "select count(*) from pg_indexes where schemaname = 'public' and tablename = 'pairs'";
    assert_eq!(value::<i64>(&client, indexes).await, 2, "that of the key, and the one declared");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_its_events_are_frequent_first_and_rare_then() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let others = async |count| {
        let event = NewEvent::raw("happened", 1, Payload::from_json("{}").unwrap());
        let stream = StreamId::new("other", "a").unwrap();
        let append = Append::to(stream, ExpectedVersion::Any, vec![event; count]);
        store.append(append).await.unwrap();
    };
    // Pages grow while they are full. Then one spans more positions than are searched at once.
    let often = (0..4000).map(|amount| LedgerEvent::Added { amount });
    append::<Ledger>(&store, "a", often).await;
    for rare in [26_000, 35_000, 15_000] {
        others(rare).await;
        add(&store, "a", 1).await;
    }
    catch_up::<Tally>(&store).await;
    let before = content::<Tally>(&store).await;
    let built = rebuild::<Tally>(&store).run().await.unwrap();
    assert_eq!(built.events, 4003, "{built:?}");
    assert_eq!(content::<Tally>(&store).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_log_that_grows_meanwhile() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let grow = async |each: i64| {
        for ledger in 0..40 {
            let added = (0..each).map(|amount| LedgerEvent::Added { amount });
            append::<Ledger>(&store, &ledger.to_string(), added).await;
        }
    };
    grow(300).await;
    catch_up::<Tally>(&store).await;
    let seen: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let (told, (began, begins), (grown, grows)) = (seen.clone(), mpsc::channel(), mpsc::channel());
    let grows = Mutex::new(grows);
    let rebuild = rebuild::<Tally>(&store).shards(2).on_progress(move |progress| {
        told.lock().unwrap().push(progress);
        // It knows its end by then, and waits here for more than is left to be followed.
        if progress.phase == Phase::Building && began.send(()).is_ok() {
            tokio::task::block_in_place(|| grows.lock().unwrap().recv().unwrap());
        }
    });
    let building = tokio::spawn(async move { (rebuild.build().await.unwrap(), rebuild) });
    tokio::task::block_in_place(|| begins.recv().unwrap());
    drop(begins);
    grow(650).await;
    grown.send(()).unwrap();
    let (built, rebuild) = building.await.unwrap();
    assert_eq!(built.events, 38_000);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let indexed = seen.iter().find(|progress| progress.phase == Phase::Indexing).unwrap();
    assert_eq!(indexed.end, built.position, "what came meanwhile is not filled, too");
    assert_eq!(seen.last().unwrap().events, 38_000, "something was folded again");
    rebuild.swap().await.unwrap();
    catch_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_slices() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (_, mut rng) = seeded();
    append_many(&store, &mut rng, 200).await;
    is_rebuilt_exactly::<Own>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_empty_log_and_before_any_worker() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    rebuild::<Tally>(&store).run().await.unwrap();
    assert_exact::<Tally>(&store, &client).await;
    add(&store, "a", 1).await;
    rebuild::<Pair>(&store).run().await.unwrap();
    assert_exact::<Pair>(&store, &client).await;
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    catch_up::<Pair>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
    assert_exact::<Pair>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_log_does_not_lead_to_are_gone_and_other_projections_stay() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (_, mut rng) = seeded();
    append_many(&store, &mut rng, 50).await;
    catch_up::<Tally>(&store).await;
    catch_up::<Pair>(&store).await;
    let by_hand = "insert into tallies values ('by hand', 1, 1, 1, 1, 1);
        insert into pairs values ('by hand', true, 1, 1, 1);
        update tallies set total = -1 where ledger = 'a'";
    client.batch_execute(by_hand).await.unwrap();
    let others = "select array_agg(c::text order by name)::text from annals.checkpoints c
        where name not like '%tallies%'";
    let others_before: String = value(&client, others).await;
    rebuild::<Tally>(&store).run().await.unwrap();
    assert_exact::<Tally>(&store, &client).await;
    assert_eq!(value::<String>(&client, others).await, others_before);
    let others = "select count(*) from pairs where ledger = 'by hand'";
    assert_eq!(value::<i64>(&client, others).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_with_a_worker_that_goes_on() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, mut rng) = seeded();
    append_many(&store, &mut rng, 100).await;
    let mut tallies = Running::start(worker::<Tally>(&store));
    let mut owns = Running::start(worker::<Own>(&store));
    tallies.caught_up::<Tally>(&store).await;
    owns.caught_up::<Own>(&store).await;
    let mut load = Load::start(&store, seed, 3, 500);
    let mut rebuilds = 0;
    while rebuilds < 3 || !load.is_done() {
        rebuild::<Tally>(&store).rows_in_memory(50).run().await.unwrap();
        rebuild::<Own>(&store).rows_in_memory(50).run().await.unwrap();
        rebuilds += 1;
    }
    load.done().await;
    tallies.caught_up::<Tally>(&store).await;
    owns.caught_up::<Own>(&store).await;
    tallies.stop().await;
    owns.stop().await;
    assert_exact::<Tally>(&store, &client).await;
    assert_exact::<Own>(&store, &client).await;
}

/// The rows in use have them, so those of a rebuild do.
#[tokio::test(flavor = "multi_thread")]
async fn archived_streams_are_in() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for key in ["a", "b", "a", "c"] {
        add(&store, key, 3).await;
    }
    catch_up::<Tally>(&store).await;
    let archived = StreamId::new("ledger", "a").unwrap();
    store.archive_stream(&archived, ExpectedVersion::Any).await.unwrap();
    rebuild::<Tally>(&store).run().await.unwrap();
    assert_exact::<Tally>(&store, &client).await;
    assert_eq!(log(&store).await.len(), 4);
    assert_eq!(store.query::<Tally>().all().await.unwrap().len(), 3);
    store.restore_stream(&archived).await.unwrap();
    add(&store, "a", 3).await;
    catch_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let pooler = Pooler::start(&database.config()).await;
    let options = EventStore::options().transaction_pooler();
    let store = options.connect(&pooler.url()).await.unwrap();
    let (_, mut rng) = seeded();
    append_many(&store, &mut rng, 40).await;
    for _ in 0..2 {
        rebuild::<Tally>(&store).rows_in_memory(20).run().await.unwrap();
        assert_exact::<Tally>(&store, &client).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_few_connections() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let options = EventStore::options().connections(Use::Rebuild, 2).connections(Use::Read, 1);
    let store = database.store_with(options).await;
    let (_, mut rng) = seeded();
    append_many(&store, &mut rng, 40).await;
    catch_up::<Tally>(&store).await;
    let rebuild = rebuild::<Tally>(&store).shards(3).rows_in_memory(20);
    rebuild.build().await.unwrap();
    assert!(rebuild.compare().await.unwrap().is_same());
    rebuild.swap().await.unwrap();
    rebuild.rollback().await.unwrap();
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn into_schemas_of_the_programs_choice() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute("create schema reports").await.unwrap();
    let options = EventStore::options().schema("books").read_models_schema("reports");
    let store = database.store_with(options).await;
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    rebuild::<Tally>(&store).run().await.unwrap();
    client.batch_execute("set search_path = reports").await.unwrap();
    assert_exact::<Tally>(&store, &client).await;
    let schemas = "select string_agg(schemaname::text, ' ' order by schemaname) from pg_tables
        where tablename = 'tallies'";
    assert_eq!(value::<String>(&client, schemas).await, "books_replaced reports");
}
