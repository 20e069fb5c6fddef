//! Who reads while tables are swapped sees the old ones whole, then the new ones whole, and no error.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use annals_eventstore::{AsOf, EventStore};
use annals_projections::{Consistency, QueryReadModels};
use tokio::task::JoinSet;

use super::{append_many, rebuild};
use crate::support::{
    Running,
    database::TestDatabase,
    ledger::{Tally, add},
    load::seeded,
    worker,
};

/// Asks without pause until told to stop; returns how often.
async fn asking(stop: Arc<AtomicBool>, ask: impl AsyncFn()) -> u64 {
    let mut asked = 0;
    while !stop.load(Ordering::Relaxed) {
        ask().await;
        asked += 1;
    }
    asked
}

const CONTENT: &str = "select count(*), sum(total)::bigint, sum(hashtext(t::text))::bigint from";

#[tokio::test(flavor = "multi_thread")]
async fn old_then_new_and_never_an_error() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (_, mut rng) = seeded();
    append_many(&store, &mut rng, 80).await;
    rebuild::<Tally>(&store).run().await.unwrap();
    client.batch_execute("create view totals as select ledger, total from tallies").await.unwrap();
    let end = store.safe_position().await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    // The rows do not change, whichever tables they are read from.
    let as_of = format!("tallies_as_of({end}) t");
    let past = format!("tallies_as_of({}) t", end.get() / 2);
    let tables = ["tallies t", &as_of, &past, "tallies_versions() t"];
    for (table, prepared) in tables.into_iter().flat_map(|table| [(table, true), (table, false)]) {
        let client = database.client().await;
        let content = match table {
            "tallies_versions() t" => "select count(*), sum(total)::bigint, 0::bigint from",
            _ => CONTENT,
        };
        let sql = format!("{content} {table}");
        let statement = client.prepare(&sql).await.unwrap();
        let read = async move || {
            let row = match prepared {
                true => client.query_one(&statement, &[]).await,
                false => client.query_one(&sql, &[]).await,
            };
            let row = row.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            (row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2))
        };
        let expected = read().await;
        let stop = stop.clone();
        readers.spawn(asking(stop, async move || assert_eq!(read().await, expected)));
    }
    let view = database.client().await;
    let rows = client.query_one("select count(*) from totals", &[]).await.unwrap().get::<_, i64>(0);
    readers.spawn(asking(stop.clone(), async move || {
        let read = view.query_one("select count(*) from totals", &[]).await.unwrap();
        assert_eq!(read.get::<_, i64>(0), rows);
    }));
    let reader = database.store().await;
    readers.spawn(asking(stop.clone(), async move || {
        let query = || reader.query::<Tally>();
        assert_eq!(query().all().await.unwrap().len() as i64, rows);
        assert_eq!(query().as_of(AsOf::Position(end)).all().await.unwrap().len() as i64, rows);
    }));
    for round in 0..20 {
        if round % 3 == 2 {
            rebuild::<Tally>(&store).rollback().await.unwrap();
        } else {
            rebuild::<Tally>(&store).run().await.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(asked) = readers.join_next().await {
        assert!(asked.unwrap() > 20, "a reader read too little");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_seen_an_event_never_sees_rows_without_it() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let mut running = Running::start(worker::<Tally>(&store));
    add(&store, "a", 1).await;
    running.caught_up::<Tally>(&store).await;
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(1));
    let writer = {
        let (store, written) = (store.clone(), written.clone());
        tokio::spawn(asking(stop.clone(), async move || {
            let done = add(&store, "a", 1).await;
            written.fetch_add(1, Ordering::Relaxed);
            let least = written.load(Ordering::Relaxed);
            let fresh = Consistency::AtLeast(done.last_position, Duration::from_secs(60));
            let row = store.query::<Tally>().consistency(fresh).get(&"a".to_owned()).await;
            let row = row.unwrap().unwrap();
            assert!(row.events >= least as i64, "{row:?} lacks some of {least}");
        }))
    };
    let reader = {
        let store: EventStore = store.clone();
        let seen = AtomicU64::new(0);
        tokio::spawn(asking(stop.clone(), async move || {
            let row = store.query::<Tally>().get(&"a".to_owned()).await.unwrap().unwrap();
            let before = seen.swap(row.events as u64, Ordering::Relaxed);
            assert!(row.events as u64 >= before, "{row:?} after {before}");
        }))
    };
    for _ in 0..10 {
        rebuild::<Tally>(&store).run().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.await.unwrap() > 10);
    assert!(reader.await.unwrap() > 100);
    running.stop().await;
}
