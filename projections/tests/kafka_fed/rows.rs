//! The same rows and the same history, wherever a projection begins and however it goes over.

use annals_eventstore::{AsOf, EventStore, Position};
use annals_projections::{
    QueryReadModels, ReadModel, Worker,
    control::{self, FedBy},
};

use rand::{SeedableRng, rngs::StdRng};

use crate::{
    relay::Relay,
    support::{
        Running,
        account::{Balance, move_some},
        catch_up,
        database::{TestDatabase, value},
        ledger::{Tally, add},
        load::{Load, append_some, seeded},
        oracle::{assert_exact, fold, log, sorted},
        worker,
    },
};

/// Runs a worker until its read model has everything that the log has now, and stops it.
async fn catch_up_by<R: ReadModel>(store: &EventStore, worker: Worker) {
    let mut running = Running::start(worker);
    running.caught_up::<R>(store).await;
    running.stop().await;
}

async fn fed_by(store: &EventStore, table: &str) -> Vec<FedBy> {
    let status = control::status(store).await.unwrap();
    let projection = status.into_iter().find(|projection| projection.name == table).unwrap();
    projection.slices.into_iter().map(|slice| slice.fed_by).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_first_event_on_under_load() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let relay = Relay::start(&store).await;
    let (seed, _) = seeded();
    let mut tally = Running::start(relay.worker::<Tally>(&store));
    let mut balance = Running::start(relay.worker::<Balance>(&store).batch_size(7));
    let loads = [Load::start(&store, seed, 2, 150), Load::of_accounts(&store, seed, 100)];
    for load in loads {
        load.done().await;
    }
    relay.feeds("tallies", || async { drop(add(&store, "a", 1).await) }).await;
    relay
        .feeds("balances", || async {
            move_some(&store, &mut StdRng::from_os_rng()).await;
        })
        .await;
    tally.caught_up::<Tally>(&store).await;
    balance.caught_up::<Balance>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
    assert_exact::<Balance>(&store, &client).await;
    assert_eq!(fed_by(&store, "tallies").await, [FedBy::Kafka]);
    assert_eq!(fed_by(&store, "balances").await, vec![FedBy::Kafka; 4]);
    // A slice reads its own partitions only.
    let partitions = "select count(*) from annals.kafka_offsets
                      where checkpoint = 'projection:balances/2' and partition <> 2";
    assert_eq!(value::<i64>(&client, partitions).await, 0);
    tally.stop().await;
    balance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn started_late_and_again_and_again() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, mut rng) = seeded();
    Load::start(&store, seed, 2, 60).done().await;
    let relay = Relay::start(&store).await;
    relay.published().await;
    let load = Load::start(&store, seed + 9, 2, 150);
    for _ in 0..8 {
        append_some(&store, &mut rng).await;
        catch_up_by::<Tally>(&store, relay.worker::<Tally>(&store).batch_size(5)).await;
    }
    load.done().await;
    catch_up_by::<Tally>(&store, relay.worker::<Tally>(&store)).await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_to_the_store_and_back() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let relay = Relay::start(&store).await;
    let (seed, mut rng) = seeded();
    let load = Load::of_accounts(&store, seed, 150);
    for _ in 0..3 {
        move_some(&store, &mut rng).await;
        catch_up_by::<Balance>(&store, worker::<Balance>(&store)).await;
        assert_eq!(fed_by(&store, "balances").await, vec![FedBy::Store; 4]);
        move_some(&store, &mut rng).await;
        catch_up_by::<Balance>(&store, relay.worker::<Balance>(&store)).await;
    }
    load.done().await;
    move_some(&store, &mut rng).await;
    catch_up_by::<Balance>(&store, relay.worker::<Balance>(&store)).await;
    assert_exact::<Balance>(&store, &client).await;
    catch_up::<Balance>(&store).await;
    assert_exact::<Balance>(&store, &client).await;
}

/// Offsets that were noted when it stood further on are not gone by.
#[tokio::test(flavor = "multi_thread")]
async fn reset_and_built_anew() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let relay = Relay::start(&store).await;
    let (seed, _) = seeded();
    for round in 0..3 {
        Load::of_accounts(&store, seed + round, 40).done().await;
        catch_up_by::<Balance>(&store, relay.worker::<Balance>(&store)).await;
        assert_exact::<Balance>(&store, &client).await;
        annals_projections::reset::<Balance>(&store).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_of_every_position_as_a_fold_up_to_there() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let relay = Relay::start(&store).await;
    let (seed, _) = seeded();
    let mut running = Running::start(relay.worker::<Tally>(&store).batch_size(3));
    Load::start(&store, seed, 2, 25).done().await;
    running.caught_up::<Tally>(&store).await;
    running.stop().await;
    let log = log(&store).await;
    let end = log.last().unwrap().position;
    for position in 0..=end.get() {
        let at = Position::new(position);
        let rows = store.query::<Tally>().as_of(AsOf::Position(at)).all().await.unwrap();
        let expected = fold::<Tally>(&log, at).rows;
        assert_eq!(sorted(rows), sorted(expected.into_values()), "as of {position}");
    }
    let last = log.last().unwrap().recorded_at;
    let rows = store.query::<Tally>().as_of(AsOf::Time(last)).all().await.unwrap();
    assert_eq!(sorted(rows), sorted(fold::<Tally>(&log, end).rows.into_values()));
}
