//! How fast a rebuild goes, what it tells, and what it holds up.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use annals_eventstore::{Error as StoreError, EventStore, ExpectedVersion, StreamId};
use annals_projections::{InlineProjections, Phase, Progress, ProjectionError};

use super::{Own, append_many, rebuild};
use crate::support::{
    catch_up,
    database::{TestDatabase, value},
    eventually,
    ledger::{Tally, add},
    load::seeded,
};

#[tokio::test(flavor = "multi_thread")]
async fn it_is_as_slow_as_asked_for() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let (_, mut rng) = seeded();
    append_many(&store, &mut rng, 300).await;
    let started = Instant::now();
    let built = rebuild::<Tally>(&store).events_per_second(1000).build().await.unwrap();
    let took = started.elapsed().as_secs_f64();
    let least = built.events as f64 / 1000.0;
    assert!(least > 1.0, "the test tests nothing");
    assert!(took > least * 0.7, "{} events in {took} s", built.events);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_how_far_it_is() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let (_, mut rng) = seeded();
    append_many(&store, &mut rng, 300).await;
    catch_up::<Tally>(&store).await;
    let told: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let rebuild = {
        let told = told.clone();
        rebuild::<Tally>(&store).on_progress(move |progress| told.lock().unwrap().push(progress))
    };
    let built = rebuild.build().await.unwrap();
    let told_of = std::mem::take(&mut *told.lock().unwrap());
    assert!(told_of.is_sorted_by_key(|progress| progress.position), "{told_of:?}");
    assert!(told_of.is_sorted_by_key(|progress| progress.events), "{told_of:?}");
    let last = told_of.last().unwrap();
    assert_eq!((last.position, last.events), (built.position, built.events));
    assert_eq!(last.end, last.position);
    let mut phases: Vec<_> = told_of.iter().map(|progress| progress.phase).collect();
    phases.dedup();
    assert_eq!(phases, [Phase::Building, Phase::Indexing, Phase::Following]);
    let line = last.to_string();
    assert!(line.starts_with(&format!("following: position {0} of {0}", built.position)), "{line}");
    rebuild.compare().await.unwrap();
    rebuild.swap().await.unwrap();
    let phases: Vec<_> = told.lock().unwrap().iter().map(|progress| progress.phase).collect();
    for phase in [Phase::Comparing, Phase::Swapping] {
        assert!(phases.contains(&phase), "{phases:?}");
    }
}

async fn archived(store: &EventStore, key: &str) -> Result<(), StoreError> {
    let stream = StreamId::new("ledger", key).unwrap();
    store.archive_stream(&stream, ExpectedVersion::Any).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn archiving_waits_for_a_rebuild_and_for_nothing_else() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    for key in ["a", "b", "c", "d"] {
        add(&store, key, 1).await;
    }
    catch_up::<Tally>(&store).await;
    let rebuild = rebuild::<Tally>(&store);
    // What fails before it begins leaves nothing.
    assert!(rebuild.swap().await.is_err() && rebuild.compare().await.is_err());
    assert!(rebuild.rollback().await.is_err());
    archived(&store, "a").await.unwrap();
    rebuild.build().await.unwrap();
    add(&store, "b", 1).await;
    catch_up::<Tally>(&store).await;
    match archived(&store, "b").await {
        Err(StoreError::ReaderBehind { reader, .. }) => assert_eq!(reader, "rebuild:tallies"),
        other => panic!("{other:?}"),
    }
    rebuild.discard().await.unwrap();
    archived(&store, "b").await.unwrap();
    rebuild.run().await.unwrap();
    add(&store, "c", 1).await;
    catch_up::<Tally>(&store).await;
    archived(&store, "c").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_runs_inline_or_elsewhere_is_refused() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    catch_up::<Own>(&store).await;
    let slow = rebuild::<Own>(&store).events_per_second(1);
    let slow = tokio::spawn(async move { slow.build().await });
    let held =
        "select count(*) from annals.leases where name = 'rebuild:owns' and expires_at > now()";
    eventually("it runs", async || value::<i64>(&client, held).await == 1).await;
    let second = rebuild::<Own>(&store).build().await;
    assert!(matches!(second, Err(ProjectionError::RebuildRuns { .. })), "{second:?}");
    slow.await.unwrap().unwrap();

    let inline = store.with_inline::<Tally>().await.unwrap();
    let rebuild = rebuild::<Tally>(&inline);
    for refused in [rebuild.build().await.map(drop), rebuild.rollback().await] {
        assert!(matches!(refused, Err(ProjectionError::RunsInline { .. })), "{refused:?}");
    }
    let left = "select count(*) from annals.checkpoints where name = 'rebuild:tallies'";
    assert_eq!(value::<i64>(&client, left).await, 0);
}
