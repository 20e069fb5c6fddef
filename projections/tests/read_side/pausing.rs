//! Projections that people pause, and what is told of them.

use std::time::Duration;

use annals_eventstore::{AsOf, EventStore, Position};
use annals_projections::{
    InlineProjections, QueryReadModels,
    control::{self, ProjectionStatus, State},
};
use tokio_postgres::Client;

use crate::{
    failures::{LaterTally, transfuse},
    support::{
        Running,
        account::Balance,
        database::{TestDatabase, value},
        eventually, lease,
        ledger::{Tally, add},
        load::{Load, seeded},
        oracle::assert_exact,
        worker,
    },
};

async fn status(store: &EventStore, projection: &str) -> ProjectionStatus {
    let all = control::status(store).await.unwrap();
    all.into_iter().find(|status| status.name == projection).expect("it is known")
}

async fn stands_still(client: &Client) {
    let positions =
        "select string_agg(name || position, ' ' order by name) from annals.checkpoints";
    let before: String = value(client, positions).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(value::<String>(client, positions).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_projection_stands_still_and_answers_and_then_goes_on() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, _) = seeded();
    assert_eq!(control::status(&store).await.unwrap(), []);
    assert!(!control::pause(&store, "tallies", "too early").await.unwrap());
    let start = || {
        let options = lease(20_000);
        Running::start(worker::<Tally>(&store).projection::<Balance>().lease(options))
    };
    let mut running = start();
    add(&store, "a", 1).await;
    running.caught_up::<Tally>(&store).await;

    // Under load.
    let load = Load::start(&store, seed, 2, 150);
    let accounts = Load::of_accounts(&store, seed, 100);
    assert!(control::pause(&store, "tallies", "for a look").await.unwrap());
    assert!(!control::pause(&store, "others", "for a look").await.unwrap());
    // The workers finish their batches; then nothing moves, and the others go on.
    let mut reached = status(&store, "tallies").await.position;
    loop {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let position = status(&store, "tallies").await.position;
        if position == reached {
            break;
        }
        reached = position;
    }
    running.caught_up::<Balance>(&store).await;
    load.done().await;
    accounts.done().await;
    running.caught_up::<Balance>(&store).await;
    let paused = status(&store, "tallies").await;
    assert_eq!((paused.state, paused.position), (State::Paused("for a look".into()), reached));
    let end = store.safe_position().await.unwrap();
    assert_eq!(paused.behind, (end.get() - reached.get()) as u64);
    assert!(paused.behind > 0 && paused.waiting.is_some());
    assert_eq!(status(&store, "balances").await.state, State::Running);
    let then = store.query::<Tally>().as_of(AsOf::Position(reached)).all().await.unwrap();
    assert_eq!(then.len(), store.query::<Tally>().all().await.unwrap().len());

    // Whoever comes finds it paused.
    running.stop().await;
    let mut running = start();
    running.caught_up::<Balance>(&store).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(status(&store, "tallies").await.position, reached);
    assert!(control::resume(&store, "tallies").await.unwrap());
    running.caught_up::<Tally>(&store).await;
    let resumed = status(&store, "tallies").await;
    assert_eq!((resumed.state, resumed.behind, resumed.waiting), (State::Running, 0, None));
    assert!(resumed.slices[0].owner.is_some() && resumed.slices[0].epoch == 2);
    running.stop().await;
    let stopped = status(&store, "tallies").await;
    assert_eq!((stopped.state, &stopped.slices[0].owner), (State::Stopped, &None));
    assert_exact::<Tally>(&store, &client).await;
    assert_exact::<Balance>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_slices_pause() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, _) = seeded();
    let mut workers = [1, 2].map(|_| Running::start(worker::<Balance>(&store).lease(lease(500))));
    Load::of_accounts(&store, seed, 20).done().await;
    workers[0].caught_up::<Balance>(&store).await;
    assert!(control::pause(&store, "balances", "all of it").await.unwrap());
    tokio::time::sleep(Duration::from_millis(700)).await;
    Load::of_accounts(&store, seed, 20).done().await;
    stands_still(&client).await;
    assert!(control::resume(&store, "balances").await.unwrap());
    workers[0].caught_up::<Balance>(&store).await;
    for worker in workers {
        worker.stop().await;
    }
    assert_exact::<Balance>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_parked_goes_on_while_the_projection_is_paused() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    transfuse(&store, "a", 70).await;
    let mut running = Running::start(worker::<Tally>(&store));
    running.caught_up::<Tally>(&store).await;
    running.stop().await;
    assert!(control::pause(&store, "tallies", "for a look").await.unwrap());
    let later = Running::start(worker::<LaterTally>(&store));
    assert_eq!(control::retry(&store, "tallies", None).await.unwrap(), 1);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(control::parked(&store, None).await.unwrap()[0].asked);
    assert_eq!(value::<i64>(&client, "select total from tallies").await, 1);
    assert!(control::resume(&store, "tallies").await.unwrap());
    eventually("it goes on", || async { control::parked(&store, None).await.unwrap().is_empty() })
        .await;
    assert_eq!(value::<i64>(&client, "select total from tallies").await, 71);
    later.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_projection_is_never_behind_and_cannot_be_paused() {
    let database = TestDatabase::create().await;
    let store = database.store().await.with_inline::<Tally>().await.unwrap();
    add(&store, "a", 1).await;
    let inline = status(&store, "tallies").await;
    assert_eq!((inline.state, inline.behind, inline.waiting), (State::Inline, 0, None));
    assert_eq!(inline.position, store.safe_position().await.unwrap());
    assert!(inline.position > Position::START);
    assert!(!control::pause(&store, "tallies", "in vain").await.unwrap());
    add(&store, "a", 1).await;
    assert_eq!(status(&store, "tallies").await.state, State::Inline);
}
